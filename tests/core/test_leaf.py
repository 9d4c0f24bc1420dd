"""A leaf holds what may be known for ever, in bytes that are never made twice. Protocol D."""

import hashlib
import json

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
    st.floats(0, 4e9),
    st.integers(1, 2**53),
    st.none() | st.binary(min_size=16, max_size=16),
)
def test_a_leaf_that_was_made_is_read_as_what_it_says(outcome, code, means, at, sequence, spend_id):
    event = AccessEvent(outcome=outcome, door=DOOR, at=at, code=code, means=means, spend_id=spend_id)
    assert leaf.parse(leaf.encode(event, sequence, None)) == leaf.Leaf(
        sequence, round(at, 3), DOOR, outcome, code, means, None, spend_id.hex() if spend_id else None, None
    )


GOOD = json.loads(leaf.encode(GRANT, 7, None))


@pytest.mark.parametrize(
    "change",
    [{"seq": "7"}, {"seq": True}, {"seq": 7.0}, {"t": None}, {"t": "noon"}, {"kind": None}, {"door": 1}, {"more": 1}],
    ids=repr,
)
def test_what_is_no_leaf_is_refused(change):
    with pytest.raises(ValueError, match="a leaf has"):
        leaf.parse(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{}", b"\xff", b'{"seq":1}', b"[" * 100_000, "{}".encode("utf-16")], ids=range(8)
)
def test_what_is_not_even_an_object_with_a_leafs_fields_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        leaf.parse(data)


def test_a_commitment_is_over_salt_and_text():
    assert leaf.commitment(b"s" * 16, '{"sub":"x"}') == hashlib.sha256(b"s" * 16 + b'{"sub":"x"}').hexdigest()
