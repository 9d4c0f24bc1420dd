"""The log: one line for each thing, which nobody from outside can make two of."""

from __future__ import annotations

import json
import logging

import pytest

from gateway import log
from gateway.log import Enough, JsonFormat, TextFormat, say

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


class Written:
    """A logger of its own, whose lines are kept; ``now`` is its clock."""

    def __init__(self, name):
        self.now, self.lines = 0.0, []
        self.logger = logging.getLogger(name)
        self.logger.propagate = False
        self.handler = logging.Handler()
        self.handler.addFilter(Enough(lambda: self.now))
        self.handler.emit = lambda record: self.lines.append(TextFormat().format(record))
        self.logger.addHandler(self.handler)


@pytest.fixture
def written():
    written = Written("gateway.test_log.enough")
    yield written
    written.logger.removeHandler(written.handler)


def test_what_happens_again_and_again_fills_no_disk_and_is_counted(written):
    for _ in range(10_000):
        say(written.logger, logging.ERROR, "failed")
    assert written.lines == ["error failed"] * log.OF_A_KIND
    say(written.logger, logging.ERROR, "another")
    assert written.lines[-1] == "error another", "one kind keeps no other one from being said"
    written.now += 3600
    say(written.logger, logging.ERROR, "failed")
    say(written.logger, logging.ERROR, "failed")
    assert written.lines[-2:] == [f"error failed left_out={10_000 - log.OF_A_KIND}", "error failed"]


def test_a_sentence_is_of_one_kind_whatever_it_is_about(written):
    for number in range(1000):
        written.logger.error("Number %s failed", number)
    assert len(written.lines) == log.OF_A_KIND


def test_a_thousand_kinds_fill_no_disk_either(written):
    for number in range(100_000):
        written.logger.error(f"Number {number} failed")  # noqa: G004 - which no module should do
    assert len(written.lines) == log.OF_ALL
    (enough,) = written.handler.filters
    assert len(enough._left_out) <= log.KINDS
    for _ in range(86_400):
        written.now += 1
        written.logger.error("a bug")
    assert len(written.lines) <= log.OF_ALL + 86_400 * log.OF_A_KIND_PER_SECOND + log.OF_A_KIND
