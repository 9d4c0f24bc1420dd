"""Fragments: cut as protocol B.1 says, put together in order only. What is refused is in rows 51 and 52."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.doorstrike.fragments import Reassembler, cut
from vestibule_core.doorstrike.wire import Violation


@pytest.mark.parametrize(
    "mtu, counts", [(23, (2, 4, 4, 3)), (65, (1, 2, 2, 1)), (80, (1, 1, 1, 1)), (247, (1, 1, 1, 1))]
)
def test_as_many_fragments_as_the_table_says(mtu, counts):
    assert tuple(len(cut(bytes(size), mtu - 3)) for size in (28, 70, 74, 41)) == counts


def test_the_first_fragment_carries_the_length():
    assert cut(bytes(range(28)), 20) == (b"\x80\x00\x1c" + bytes(range(17)), b"\x41" + bytes(range(17, 28)))
    assert cut(b"\x00", 20) == (b"\xc0\x00\x01\x00",)


@given(st.binary(min_size=1, max_size=512), st.integers(20, 520))
def test_what_is_cut_is_put_together(message, size):
    fragments = cut(message, size)
    assert all(len(fragment) <= size for fragment in fragments)
    incoming = Reassembler()
    for _ in range(2):
        *some, last = fragments
        assert [incoming.feed(fragment, 0.0) for fragment in some] == [None] * len(some)
        assert incoming.feed(last, 0.0) == message
        assert incoming.due is None


@pytest.mark.parametrize("message, size", [(b"", 20), (bytes(513), 20), (b"x", 19), (b"x", 0)])
def test_nothing_else_is_cut(message, size):
    with pytest.raises(ValueError, match="no such"):
        cut(message, size)


@given(st.lists(st.binary(max_size=24), max_size=8))
def test_any_bytes_are_fragments_or_a_violation_and_the_memory_is_bounded(fragments):
    incoming = Reassembler()
    try:
        for fragment in fragments:
            message = incoming.feed(fragment, 0.0)
            assert message is None or 1 <= len(message) <= 512
    except Violation:
        pass
    assert len(incoming._so_far) <= 512 + 24


def test_two_seconds_after_a_fragment_the_next_one_is_late():
    incoming = Reassembler()
    first, second, third = cut(bytes(50), 20)
    assert incoming.due is None
    incoming.feed(first, 10.0)
    assert incoming.due == 12.0
    incoming.feed(second, 11.9)
    assert incoming.due == 13.9
    incoming.elapse(13.8)
    with pytest.raises(Violation):
        incoming.elapse(13.9)
    with pytest.raises(Violation):
        incoming.feed(third, 14.0)


def test_the_number_of_a_fragment_wraps_after_63():
    """No message of 512 bytes has that many at an MTU that exists; the number is six bits all the same."""
    incoming = Reassembler()
    assert incoming.feed(b"\x80\x00\x46\x00", 0.0) is None
    for n in range(1, 69):
        assert incoming.feed(bytes([n & 0x3F, 0]), 0.0) is None
    assert incoming.feed(bytes([0x40 | 69 & 0x3F, 0]), 0.0) == bytes(70)
