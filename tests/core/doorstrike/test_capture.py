"""docs/doorstrike-capture.txt is what the machines say today, and holds all that it takes to decode it."""

import re
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from tests.core.doorstrike.capture import parsed, record, rendered
from vestibule_core.doorstrike.wire import Violation

CAPTURE = Path(__file__).parents[3] / "docs" / "doorstrike-capture.txt"
AGAIN = "python -m tests.core.doorstrike.capture > docs/doorstrike-capture.txt"


@pytest.fixture(scope="module")
def text():
    return CAPTURE.read_text("ascii")


def test_the_capture_is_what_both_ends_say(text):
    assert rendered(record()) == text, f"if that is meant: {AGAIN}"


def test_the_capture_can_be_decoded_from_its_text_alone(text):
    """By the primitives alone (noise.py): what was captured stands there, and nothing is missing."""
    assert rendered(parsed(text)) == text


def test_a_bit_of_any_fragment_changed_and_it_cannot_be_decoded(text):
    lines = parsed(text)
    fragments = [number for number, (*_, who, _) in enumerate(lines) if who in ("C>S", "S>C")]
    assert len(fragments) > 40
    for number in fragments:
        *before, said = lines[number]
        changed = (*before, f"{said[:-1]}{int(said[-1], 16) ^ 1:x}")
        with pytest.raises(
            (InvalidTag, Violation, AssertionError)
        ):  # the last one: not the drawn private key's public one
            rendered([*lines[:number], changed, *lines[number + 1 :]])


def test_every_message_of_the_protocol_is_in_the_capture(text):
    for word in (
        "HELLO version",
        "HS1 slot=0",
        "HS1 slot=1",
        "HS2 e=",
        "DATA n=0",
        "reply to EVENTS",
        "event 1 at 0 ms",
    ):
        assert word in text
    for command in ("QUERY", "UNLOCK", "EVENTS", "SLOT_ADD", "PING"):
        assert re.search(rf"= {command} pulse=", text), command
