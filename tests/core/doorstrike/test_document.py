"""docs/doorstrike.md says what is so: its vectors are the tests', its numbers the code's, and its tests exist."""

import re
from pathlib import Path

import pytest

from tests.core.doorstrike.test_vectors import VECTORS
from vestibule_core.doorstrike.wire import RX, SERVICE, TX, EventKind, Op, Result

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[2] / "docs" / "doorstrike.md").read_text("utf-8")
QUOTED = re.sub(r"\n {10,}", "", "".join(re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)))
"""What stands in blocks; a long value goes on in the next line."""
TESTS = set(
    re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in HERE.glob("test_*.py")), re.MULTILINE)
)
ROWS = [*range(41, 61), *range(71, 76), 80, 81]


@pytest.mark.parametrize(
    "vector, name",
    [
        ("advertisement", "bytes"),
        ("hello", "bytes"),
        ("spend_id", "spend_id"),
        ("command", "bytes"),
        ("state", "bytes"),
        *(("handshake", name) for name in VECTORS["handshake"] if name != "slot"),
        ("request", "plaintext"),
        ("request", "data"),
        ("reply", "plaintext"),
        ("reply", "data"),
        ("pairing", "code"),
        ("pairing", "psk_pair"),
        ("slot", "slot_psk"),
        ("slot_list", "bytes"),
    ],
)
def test_the_vectors_stand_in_the_document_as_they_are(vector, name):
    assert VECTORS[vector][name] in QUOTED


def test_the_uuids_stand_in_the_document():
    for uuid in (SERVICE, RX, TX):
        assert f"`{uuid}`" in DOCUMENT


@pytest.mark.parametrize("kind", [Op, Result, EventKind])
def test_every_number_stands_in_the_document(kind):
    for one in kind:
        number = f"{one:02x}" if kind is Op else f"{one:d}"
        assert f"| `{number}` {one.name} |" in DOCUMENT, one


@pytest.mark.parametrize("row", ROWS)
def test_every_attack_has_its_row_and_its_tests_exist(row):
    (tests,) = re.findall(rf"^\| {row} \|.*\| (.*?) \|$", DOCUMENT, re.MULTILINE)
    named = re.findall(r"`(test_\w+)`", tests)
    assert set(named) <= TESTS
    assert any(name.startswith(f"test_row_{row}_") for name in named)
