"""A leaf holds what may be known for ever, in bytes that are never made twice. Protocol D."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import some_doors
from vestibule_core import leaf
from vestibule_core.model import AccessEvent, Code, EventName, Means

DOOR = some_doors(1)[0].id
GRANT = AccessEvent(
    outcome=EventName.ACCESS_GRANTED,
    door=DOOR,
    at=1_790_000_000.12345,
    code=Code.GRANTED,
    means=Means.TOKEN,
    spend_id=bytes(16),
    kid="k" * 43,
    carrier="Parcels",
)


def test_a_leaf_is_compact_json_with_sorted_keys_and_names_nobody():
    assert leaf.encode(GRANT, 7, "c" * 64) == (
        b'{"code":"GRANTED","commit":"%s","door":"%s","kid":"%s","kind":"access_granted","means":"token","seq":7,'
        b'"spend_id":"%s","t":1790000000.123}' % (b"c" * 64, DOOR.encode(), b"k" * 43, b"0" * 32)
    )


@given(
    st.sampled_from(EventName),
    st.none() | st.sampled_from(Code),
    st.none() | st.sampled_from(Means),
    st.floats(0, leaf.LATEST),
    st.integers(1, 2**53),
    st.none() | st.binary(min_size=16, max_size=16),
)
def test_a_leaf_that_was_made_is_read_as_what_it_says(outcome, code, means, at, sequence, spend_id):
    event = AccessEvent(outcome=outcome, door=DOOR, at=at, code=code, means=means, spend_id=spend_id)
    assert leaf.parse(leaf.encode(event, sequence, None)) == leaf.Leaf(
        sequence, round(at, 3), DOOR, outcome, code, means, None, spend_id.hex() if spend_id else None, None
    )


GOOD = json.loads(leaf.encode(GRANT, 7, None))


def test_the_first_entry_of_an_epoch_names_the_ends_that_were_known():
    begun = AccessEvent(outcome=EventName.EPOCH_BEGUN, door=None, at=1.79e9, heads=("vestibule/x 7 root",))
    assert leaf.parse(leaf.encode(begun, 8, None)).heads == begun.heads


@pytest.mark.parametrize("heads", [[], None, "vestibule/x 7 root", [7], ["head"] * (leaf.MOST_HEADS + 1)])
def test_ends_that_could_not_have_been_named_are_refused(heads):
    with pytest.raises(ValueError, match="another type"):
        leaf.parse(leaf.compact({**GOOD, "heads": heads}).encode())


@pytest.mark.parametrize("at, told", [(-1.0, 0.0), (1e20, leaf.LATEST), (float("inf"), leaf.LATEST)])
def test_a_clock_that_is_impossible_leaves_a_leaf_that_can_be_read(at, told):
    assert leaf.parse(leaf.encode(replace(GRANT, at=at), 7, None)).at == told


@pytest.mark.parametrize(
    "change",
    [
        {"seq": "7"}, {"seq": True}, {"seq": 7.0}, {"t": None}, {"t": "noon"}, {"kind": None}, {"door": 1}, {"more": 1},
        {"t": -0.001}, {"t": leaf.LATEST + 1}, {"t": 10**400},
    ],
    ids=lambda change: repr(change)[:40],
)  # fmt: skip
def test_what_is_no_leaf_is_refused(change):
    with pytest.raises(ValueError, match=r"a leaf has (a|other) field"):
        leaf.parse(leaf.compact(GOOD | change).encode())


@pytest.mark.parametrize("time", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_time_is_no_json(time):
    with pytest.raises(ValueError, match="no JSON"):
        leaf.parse(leaf.compact(GOOD | {"t": 1}).replace('"t":1}', f'"t":{time}}}').encode())


@pytest.mark.parametrize(
    "respelt",
    [
        lambda text: text.replace('"seq":7', '"seq": 7'),
        lambda text: text.replace('"seq":7', '"seq":9,"seq":7'),
        lambda text: text.replace('"seq":7', '"seq":7,"seq":7'),
        lambda text: text.replace("GRANTED", "\\u0047RANTED"),
        lambda text: text + " ",
        lambda text: text.replace("{", "{ "),
    ],
)
def test_another_spelling_of_a_leaf_is_none(respelt):
    """A verification finds a number in the bytes: a second member of that name must not be what is shown."""
    with pytest.raises(ValueError, match="another spelling"):
        leaf.parse(respelt(leaf.compact(GOOD)).encode())


def test_a_leaf_that_is_text_is_refused():
    with pytest.raises(ValueError, match="not in bytes"):
        leaf.parse(leaf.compact(GOOD))


def test_leaves_that_say_another_number_than_their_place_are_found():
    leaves = [leaf.encode(GRANT, sequence, None) for sequence in (7, 9, 9, 1, 11)]
    assert list(leaf.misplaced(leaves, 7)) == [8, 10]
    said_twice = leaf.compact(GOOD | {"kind": ',"seq":8,"spend_id":'}).encode()
    assert list(leaf.misplaced([said_twice], 8)) == [8], "between quotes nothing is a member"


def test_a_leaf_commits_to_one_text_and_one_salt():
    salt, text = b"s" * 16, '{"sub":"x"}'
    data = leaf.encode(GRANT, 7, leaf.commitment(salt, text))
    assert leaf.commits_to(data, salt, text)
    assert not leaf.commits_to(data, salt, text + " ")
    assert not leaf.commits_to(data, b"t" * 16, text)
    assert not leaf.commits_to(leaf.encode(GRANT, 7, leaf.commitment(b"", text)), b"", text), "it could be guessed"
    assert not leaf.commits_to(leaf.encode(GRANT, 7, None), salt, text)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "NaN", b"{}", None, 1, "9" * 5000], ids=range(8))
def test_what_is_no_strict_json_of_a_file_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        leaf.read_json(text)
    assert leaf.read_json(' {"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{}", b"\xff", b'{"seq":1}', b"[" * 100_000, "{}".encode("utf-16")], ids=range(8)
)
def test_what_is_not_even_an_object_with_a_leafs_fields_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        leaf.parse(data)


def test_a_commitment_is_over_salt_and_text():
    assert leaf.commitment(b"s" * 16, '{"sub":"x"}') == hashlib.sha256(b"s" * 16 + b'{"sub":"x"}').hexdigest()
