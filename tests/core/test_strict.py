"""JSON between programs: exactly the members, kinds and bounds that there have to be, and nothing is repeated."""

import json
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import b64url
from vestibule_core.errors import MalformedMessage
from vestibule_core.strict import (
    ANY_TEXT,
    FLAG,
    MAX_INTEGER,
    Message,
    choice,
    collected,
    hexadecimal,
    if_known,
    integer,
    listed,
    number,
    one_of,
    optional,
    parsed,
    raw,
    read_json,
    record,
    text,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def no_spaces(spelt):
    if " " in spelt:
        raise ValueError(spelt)
    return spelt


LONG = "x" * 10

GOOD = [
    # shape, value, as JSON
    (ANY_TEXT, "\ud800\0", "\ud800\0"),
    (text(3), "", ""),
    (text(3), "äß\U0001f6aa", "äß\U0001f6aa"),
    (text(3, 1), "a", "a"),
    (parsed(no_spaces), "a", "a"),
    (choice(Colour), Colour.RED, "red"),
    (raw(16), bytes(16), "A" * 22),
    (hexadecimal(2), b"\xab\x00", "ab00"),
    (FLAG, True, True),
    (FLAG, False, False),
    (integer(), 0, 0),
    (integer(), MAX_INTEGER, MAX_INTEGER),
    (integer(-5, 5), -5, -5),
    (number(0, 10), 0.5, 0.5),
    (number(0, 10), 10.0, 10),
    (optional(FLAG), None, None),
    (optional(FLAG), True, True),
    (listed(FLAG, 2), (True, False), [True, False]),
    (listed(FLAG, 2), (), []),
    (collected(choice(Colour), 2), frozenset({Colour.RED, Colour.BLUE}), ["blue", "red"]),
]


@pytest.mark.parametrize("shape, value, written", GOOD)
def test_what_is_written_is_read_again(shape, value, written):
    assert shape.write(value) == written
    read = shape.read(written)
    assert (read, type(read)) == (value, type(value))


BAD = [
    # shape, JSON, sentence
    (ANY_TEXT, 1, "a number is no text"),
    (ANY_TEXT, None, "null is no text"),
    (ANY_TEXT, ["a"], "a list is no text"),
    (text(3), "abcd", "too long"),
    (text(3, 1), "", "too short"),
    (text(3), "\ud800", "half a surrogate pair: no UTF-8 could hold it"),
    (parsed(no_spaces), "a b", "the parser says no"),
    (choice(Colour), "green", "a word that is none of them"),
    (choice(Colour), "RED", "another spelling"),
    (raw(16), "A" * 21, "not a length of base64url"),
    (raw(16), "A" * 24, "too many bytes"),
    (raw(16), "A" * 21 + "B", "spare bits set: a second spelling"),
    (raw(16), "A" * 22 + "==", "padding"),
    (raw(16), "+" * 22, "the other alphabet"),
    (raw(16), "A" * 11 + " " + "A" * 11, "a space inside"),
    (raw(16), "Ä" * 22, "no ASCII"),
    (raw(16), "\ud800" * 22, "half a character"),
    (hexadecimal(2), "AB00", "upper case: a second spelling"),
    (hexadecimal(2), "ab 00", "a space"),
    (hexadecimal(2), "ab", "too short"),
    (hexadecimal(2), "xy00", "no digits"),
    (FLAG, 1, "one is not true"),
    (FLAG, None, "null is not false"),
    (FLAG, "true", "a word is not true"),
    (integer(), -1, "below"),
    (integer(), MAX_INTEGER + 1, "above"),
    (integer(), 1.0, "a fraction, though whole"),
    (integer(), True, "true is not one"),
    (integer(), "1", "a text"),
    (number(0, 10), 10.5, "above"),
    (number(0, 10), -0.5, "below"),
    (number(0, 10), True, "true is not one"),
    (number(0, 10), "1", "a text"),
    (number(0, 1e400), 1e400, "infinity"),
    (number(0, 10), 10**400, "more than any number"),
    (number(0, 10), float("nan"), "not a number"),
    (optional(FLAG), 0, "neither null nor a flag"),
    (listed(FLAG, 2), [True] * 3, "too many"),
    (listed(FLAG, 2), [True, 1], "one of another kind"),
    (listed(FLAG, 2), {"0": True}, "an object"),
    (listed(FLAG, 2), "ab", "a text is no list"),
    (collected(choice(Colour), 3), ["red", "red"], "the same twice"),
]


@pytest.mark.parametrize("shape, value, sentence", BAD, ids=[sentence for *_, sentence in BAD])
def test_what_is_not_read(shape, value, sentence):
    with pytest.raises(MalformedMessage):
        shape.read(value)


def test_a_number_is_read_as_a_fraction_however_it_is_spelt():
    assert type(number(0, 10).read(5)) is float


@given(st.binary(min_size=5, max_size=5))
def test_any_bytes_are_written_in_one_spelling(value):
    assert raw(5).read(raw(5).write(value)) == value
    assert hexadecimal(5).read(hexadecimal(5).write(value)) == value
    assert raw(5).write(value) == b64url.encode(value)


# ---- objects ----


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Thing:
    name: str
    inner: Inner
    extra: str | None = None


def thing(name, size, extra, doubled):
    if doubled != 2 * size:
        raise MalformedMessage("doubled: not twice the size")
    return Thing(name, Inner(size), extra)


THING = record(
    thing,
    {
        "called": ("name", text(5)),
        "size": ("inner.size", integer()),
        "doubled": (lambda value: 2 * value.inner.size, integer()),
        "extra": if_known(text(5)),
    },
    tag="thing",
)


def test_an_object_has_its_members_by_name():
    written = {"type": "thing", "called": "a", "size": 2, "doubled": 4}
    assert THING.write(Thing("a", Inner(2))) == written
    assert THING.read(written) == Thing("a", Inner(2))
    assert THING.write(Thing("a", Inner(2), "x")) == {**written, "extra": "x"}
    assert THING.read({**written, "extra": "x"}) == Thing("a", Inner(2), "x")


WRONG_OBJECTS = [
    (lambda it: it | {"other": 1}, "a member too many"),
    (lambda it: it | {"type": "thong"}, "of another type"),
    (lambda it: {name: it[name] for name in it if name != "type"}, "of no type"),
    (lambda it: {name: it[name] for name in it if name != "called"}, "a member too few"),
    (lambda it: it | {"extra": None}, "null for what is to be left out"),
    (lambda it: it | {"doubled": 5}, "members that contradict each other"),
    (lambda it: [it], "a list of one"),
    (lambda it: "called", "a text"),
    (lambda it: None, "null"),
]


@pytest.mark.parametrize("spoil, sentence", WRONG_OBJECTS, ids=[sentence for _, sentence in WRONG_OBJECTS])
def test_what_is_not_that_object(spoil, sentence):
    with pytest.raises(MalformedMessage):
        THING.read(spoil({"type": "thing", "called": "a", "size": 2, "doubled": 4}))


def test_where_it_is_wrong_is_said_and_what_stood_there_is_not():
    outer = record(SimpleNamespace, {"things": listed(THING, 5)})
    with pytest.raises(MalformedMessage) as raised:
        outer.read({"things": [{"type": "thing", "called": "hunter2", "size": 2, "doubled": 4}]})
    assert str(raised.value) == "things: called: a text that is too long or too short"


ANIMAL = one_of(("inner", Inner, record(Inner, {"size": integer()}, tag="inner")), ("thing", Thing, THING))


def test_one_of_several_is_told_apart_by_its_tag():
    for value in (Inner(1), Thing("a", Inner(1))):
        assert ANIMAL.read(ANIMAL.write(value)) == value


@pytest.mark.parametrize("value", [{"type": "x"}, {"type": ["inner"]}, {"size": 1}, [], None, "inner"])
def test_of_no_known_kind(value):
    with pytest.raises(MalformedMessage, match="of no kind"):
        ANIMAL.read(value)


# ---- bytes ----


def test_a_message_is_compact_and_pure_ascii():
    assert Message(listed(text(5), 5), 100).encode(("ä", "b")) == b'["\\u00e4","b"]'


def test_a_message_that_is_longer_than_it_may_be_is_not_looked_at():
    message = Message(ANY_TEXT, 5)
    assert message.decode(b'"abc"') == "abc"
    with pytest.raises(MalformedMessage, match="too long"):
        message.decode(b'"abcd"')


NOT_JSON = [
    (b"", "nothing"),
    (b"{", "half of it"),
    (b'{"a":1,"a":1}', "a member twice"),
    (b'{"a":1,"\\u0061":1}', "twice, once in disguise"),
    (b'[{"a":{"b":1,"b":1}}]', "twice, far inside"),
    (b"NaN", "not a number"),
    (b"[-Infinity]", "infinity"),
    (b"[1] [2]", "two messages"),
    (b"\xff", "no UTF-8"),
    (b"\xef\xbb\xbf[]", "a byte order mark"),
    ("[]".encode("utf-16"), "UTF-16"),
    (b"[" * 100_000, "nested deeper than any stack"),
    (b"9" * 10_000, "a number longer than any"),
    (b'"a\nb"', "a newline inside of a text"),
]


@pytest.mark.parametrize("body, sentence", NOT_JSON, ids=[sentence for _, sentence in NOT_JSON])
def test_what_is_no_json(body, sentence):
    with pytest.raises(MalformedMessage, match="not JSON"):
        read_json(body)


@given(st.binary())
def test_any_bytes_are_json_or_malformed(body):
    try:
        value = read_json(body)
    except MalformedMessage:
        return
    assert json.loads(body) == value
