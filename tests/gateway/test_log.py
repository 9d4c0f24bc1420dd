"""The log: one line for each thing, which nobody from outside can make two of."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.log import JsonFormat, TextFormat, say

LOGGER = logging.getLogger("gateway.test")


@pytest.fixture
def line(caplog):
    """Return the last line in a format."""
    caplog.set_level(logging.INFO)
    return lambda form: form.format(caplog.records[-1])


def test_an_event_and_what_belongs_to_it(line):
    say(LOGGER, logging.INFO, "ready", gateway="abc", doors=3, took=0.25, code=None)
    assert line(TextFormat()) == 'info ready gateway=abc doors=3 took=0.25 code=""'
    told = json.loads(line(JsonFormat()))
    assert told.pop("time") > 1_700_000_000
    assert told == {"level": "info", "event": "ready", "gateway": "abc", "doors": 3, "took": 0.25, "code": None}


@pytest.mark.parametrize("text", ["a b", 'a"b', "a\nerror forged=yes", "a\x1b[2J", "\u202egnp", ""])
def test_a_text_from_outside_begins_no_line_and_moves_no_cursor(line, text):
    say(LOGGER, logging.WARNING, "paired", name=text)
    for written in (line(TextFormat()), line(JsonFormat())):
        assert written.isprintable()
        assert written.isascii()
    assert line(TextFormat()) == f"warning paired name={json.dumps(text)}"


def test_a_sentence_of_another_module_says_where_it_is_from(line):
    LOGGER.warning("The %s failed", "disk")
    assert line(TextFormat()) == 'warning "The disk failed" from=gateway.test'


def test_a_bug_is_one_line_with_all_of_its_trace(line):
    try:
        raise RuntimeError("one\ntwo")
    except RuntimeError:
        LOGGER.exception("failed")
    written = line(TextFormat())
    assert written.startswith('error failed from=gateway.test error="Traceback ')
    assert r"RuntimeError: one\ntwo" in written
    assert "\n" not in written
