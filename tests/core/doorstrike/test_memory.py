"""What is kept through a power cut: read again to the bit, or Unreadable."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.doorstrike.client import Paired
from vestibule_core.doorstrike.effects import Persist
from vestibule_core.doorstrike.frames import SlotAdd, SlotAdded
from vestibule_core.doorstrike.log import History, Log, Progress, Spend, Spends
from vestibule_core.doorstrike.memory import Part, Unreadable, decode_log, decode_slots, encode_log, encode_slots
from vestibule_core.doorstrike.slots import Slot, Slots
from vestibule_core.doorstrike.wire import ALL_RIGHTS, Event, Rights

ids, keys = (st.binary(min_size=size, max_size=size) for size in (16, 32))
u8, u32 = (st.integers(0, 256**size - 1) for size in (1, 4))
slots = st.builds(
    Slots,
    st.lists(
        st.builds(
            Slot, st.integers(1, 8), st.just("x"), st.integers(0, 15).map(Rights), keys, st.booleans(), st.none() | keys
        ),
        max_size=8,
    ).map(tuple),
    u8,
    st.booleans(),
)
logs = st.builds(
    Log,
    st.builds(
        Spends,
        st.lists(
            st.builds(Spend, ids, st.sampled_from(Progress), st.none() | st.integers(0, 2**63 - 1)), max_size=64
        ).map(tuple),
        st.booleans(),
    ),
    st.builds(
        History, u32, u32, st.booleans(), st.lists(st.builds(Event, u32, u32, u8, u8, ids), max_size=30).map(tuple)
    ),
)
SLOTS = Slots((Slot(1, "Küche", ALL_RIGHTS, bytes(32), True, b"\x01" * 32),), 3, False)
LOG = Log(Spends((Spend(bytes(16), Progress.FAILED, 7),)), History(2, 9, True, (Event(9, 1, 1),)))


@given(slots)
def test_slots_are_read_again(some):
    assert decode_slots(encode_slots(some)) == some


@given(logs)
def test_a_log_is_read_again(some):
    assert decode_log(encode_log(some)) == some


def test_a_full_log_is_read_again():
    full = Log(
        Spends(tuple(Spend(bytes([n]) * 16, at=n) for n in range(64))),
        History(1, 256, False, tuple(Event(n, n, 1) for n in range(1, 257))),
    )
    assert decode_log(encode_log(full)) == full


PIECES = [(decode_slots, encode_slots(SLOTS)), (decode_log, encode_log(LOG))]


@pytest.mark.parametrize("decode, piece", PIECES)
def test_torn_anywhere(decode, piece):
    for length in range(len(piece)):
        with pytest.raises(Unreadable):
            decode(piece[:length])
    with pytest.raises(Unreadable):
        decode(piece + b"\0")


@pytest.mark.parametrize("decode, piece", PIECES)
def test_a_byte_changed_anywhere(decode, piece):
    for place in range(len(piece)):
        with pytest.raises(Unreadable):
            decode(piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :])


def test_the_other_piece():
    with pytest.raises(Unreadable):
        decode_slots(encode_log(LOG))
    with pytest.raises(Unreadable):
        decode_log(encode_slots(SLOTS))


def sealed(like, body):
    """A piece with a right checksum around any body."""
    kind = like[: like.index(b"\n") + 1]
    return kind + body + hashlib.sha256(kind + body).digest()[:16]


@given(st.binary(max_size=200))
def test_any_body_with_a_right_checksum_is_read_or_unreadable(body):
    for decode, piece in PIECES:
        try:
            decode(sealed(piece, body))
        except Unreadable:
            continue


def bodies(piece):
    return piece[piece.index(b"\n") + 1 : -16]


@pytest.mark.parametrize(
    "decode, piece, place, value",
    [
        (decode_slots, PIECES[0][1], 2, 2),  # one slot more than there are
        (decode_slots, PIECES[0][1], 1, 2),  # a truth value that is neither
        (decode_slots, PIECES[0][1], 4, 0x1F),  # a right that is not known
        (decode_slots, PIECES[0][1], 6, 0xFF),  # a name that is no text
        (decode_log, PIECES[1][1], 11, 2),  # one spend more than there are
        (decode_log, PIECES[1][1], 13, 2),  # one event more than there are
        (decode_log, PIECES[1][1], 30, 9),  # a progress that is not known
        (decode_log, PIECES[1][1], 31, 0xFF),  # a time before the power-up
    ],
)
def test_another_program_wrote_it(decode, piece, place, value):
    body = bytearray(bodies(piece))
    body[place] = value
    with pytest.raises(Unreadable):
        decode(sealed(piece, bytes(body)))


def test_more_than_there_is_room_for():
    with pytest.raises(Unreadable):
        decode_slots(encode_slots(Slots((Slot(1, "x", Rights.NONE, bytes(32)),) * 9)))
    with pytest.raises(Unreadable):
        decode_log(encode_log(Log(Spends((Spend(bytes(16)),) * 65))))
    with pytest.raises(Unreadable):
        decode_log(encode_log(Log(history=History(events=(Event(1, 1, 1),) * 257))))


def test_keys_are_not_shown():
    secret = b"hunter2-hunter2-hunter2-hunter2!"
    slot = Slot(1, "x", ALL_RIGHTS, secret, True, secret)
    shown = [
        slot,
        Slots((slot,)),
        Persist(Part.SLOTS, encode_slots(Slots((slot,)))),
        Paired(bytes(8), 1, secret),
        SlotAdd("x", secret),
        SlotAdded(1, secret),
    ]
    assert not any("hunter2" in repr(one) for one in shown)
