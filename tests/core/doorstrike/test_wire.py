"""The messages: exactly what they are said to be, or a Violation; and what a newer strike may say to an old client."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.wire import (
    Advertisement,
    Caps,
    Command,
    Contact,
    Event,
    EventKind,
    Flags,
    Hello,
    Op,
    Relay,
    Result,
    Rights,
    SpendState,
    State,
    Violation,
)
from vestibule_core.model import Sense, Sensor
from vestibule_core.strike import Reading

SPEND = bytes(range(16))
STATE = State(
    result=Result.OK,
    relay=Relay.LOCKED,
    contact=Contact.CLOSED,
    tampered=True,
    bolt_secured=True,
    spend_state=SpendState.COMPLETE,
    slots_gen=7,
    battery=55,
    evt_seq=0x01020304,
    spend_id=SPEND,
)

u8, u16, u32 = (st.integers(0, 256**size - 1) for size in (1, 2, 4))
ids = st.binary(min_size=16, max_size=16)
keys = st.binary(min_size=32, max_size=32)
states = st.builds(
    State,
    result=st.sampled_from(Result),
    relay=st.sampled_from(Relay),
    contact=st.sampled_from(Contact),
    tampered=st.booleans(),
    bolt_secured=st.booleans(),
    spend_state=st.sampled_from(SpendState),
    slots_gen=u8,
    battery=st.none() | st.integers(0, 100),
    evt_seq=u32,
    spend_id=ids,
)
events = st.builds(Event, u32, u32, u8, u8, ids)
commands = st.builds(Command, u8, u16, ids)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
listed = st.builds(frames.SlotListed, u8, st.integers(0, 15).map(Rights), names, st.booleans())
MESSAGES = {
    Advertisement: st.builds(Advertisement, u8, u8.map(Flags), u16, st.binary(min_size=6, max_size=6)),
    Hello: st.builds(Hello, u8, u16.map(Caps), st.binary(min_size=8, max_size=8), ids),
    Command: commands,
    State: states,
    Event: events,
    frames.Request: st.builds(frames.Request, commands, u32, st.binary(max_size=60)),
    frames.SlotAdd: st.builds(frames.SlotAdd, names, keys),
    frames.SlotAdded: st.builds(frames.SlotAdded, u8, keys),
    frames.SlotRights: st.builds(frames.SlotRights, u8, st.integers(0, 15).map(Rights)),
    frames.SlotListed: listed,
}


@pytest.mark.parametrize("kind", MESSAGES)
@given(data=st.data())
def test_what_is_written_is_read(kind, data):
    message = data.draw(MESSAGES[kind])
    assert kind.parse(message.encode()) == message


PARSERS = [
    *(kind.parse for kind in MESSAGES),
    frames.open_hs1,
    frames.open_hs2,
    frames.open_data,
    frames.from_strike,
    frames.open_events_from,
    frames.open_events,
    frames.open_slot_list,
    frames.parse_name,
]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__qualname__)
@given(raw=st.binary(max_size=80) | st.binary(min_size=16, max_size=28))
def test_any_bytes_are_a_message_or_a_violation(parse, raw):
    try:
        parse(raw)
    except Violation:
        return


@pytest.mark.parametrize(
    "kind", [kind for kind in MESSAGES if kind is not frames.Request], ids=lambda kind: kind.__name__
)
@given(data=st.data())
def test_no_byte_less_and_no_byte_more(kind, data):
    raw = data.draw(MESSAGES[kind]).encode()
    for length in range(len(raw)):
        with pytest.raises(Violation):
            kind.parse(raw[:length])
    with pytest.raises(Violation):
        kind.parse(raw + b"\0")


@pytest.mark.parametrize("length", range(24))
def test_a_request_has_at_least_24_bytes(length):
    with pytest.raises(Violation):
        frames.Request.parse(bytes(length))


def test_the_type_byte_is_the_messages_own():
    assert Hello.parse(b"\x01" + bytes(27)).version == 0
    for parse, good in ((Hello.parse, 1), (frames.open_hs1, 2), (frames.open_hs2, 3)):
        size = {1: 28, 2: 70, 3: 74}[good]
        for kind in {0, 1, 2, 3, 4, 0x7F, 255} - {good}:
            with pytest.raises(Violation):
                parse(bytes([kind]) + bytes(size - 1))
        parse(bytes([good]) + bytes(size - 1))


@pytest.mark.parametrize("flags", [1, 0x80, 0xFF])
def test_a_commands_flags_are_reserved(flags):
    with pytest.raises(Violation):
        Command.parse(bytes([Op.UNLOCK, flags]) + bytes(18))


@pytest.mark.parametrize("place, value", [(0, 8), (0, 255), (1, 0x40), (1, 0x80), (2, 4), (2, 255)])
def test_what_says_whether_a_door_moved_is_known_or_an_error(place, value):
    raw = bytearray(STATE.encode())
    raw[place] = value
    with pytest.raises(Violation):
        State.parse(bytes(raw))


@pytest.mark.parametrize("level", [101, 150, 254, 255])
def test_a_gauge_that_says_too_much_shuts_no_door(level):
    raw = bytearray(STATE.encode())
    raw[4] = level
    assert State.parse(bytes(raw)).battery is None


def test_a_newer_strikes_events_capabilities_and_flags_are_no_error():
    assert Event.parse(bytes(8) + b"\xc8\x01" + bytes(16)).kind == 200
    assert Caps.CONTACT in Hello.parse(b"\x01\x01\x80\x01" + bytes(24)).caps
    assert Flags.PAIRING in Advertisement.parse(b"\x01\x81" + bytes(8)).flags


def test_an_operation_that_is_not_known_is_one_for_the_strike_to_refuse():
    assert Command.parse(b"\xfe" + bytes(19)).op == 0xFE


# ---- within a session ----


@given(st.integers(0, 255), states, st.binary(max_size=40))
def test_a_reply_is_read(op, state, body):
    assert frames.from_strike(frames.Reply(op, state, body).encode()) == frames.Reply(op, state, body)


@given(events)
def test_an_event_is_read(event):
    assert frames.from_strike(frames.push(event)) == event


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x90" + bytes(25), b"\x22" + bytes(26), b"\x00"])
def test_neither_a_reply_nor_an_event(raw):
    with pytest.raises(Violation):
        frames.from_strike(raw)


@given(st.lists(events, max_size=17, unique_by=lambda event: event.seq))
def test_a_list_of_events_is_read(some):
    some = tuple(sorted(some, key=lambda event: event.seq))
    assert frames.open_events(frames.events(some)) == some


EVENT = Event(5, 0, EventKind.REX)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x12" + EVENT.encode() * 18,
        b"\x01" + EVENT.encode()[:-1],
        b"\x00" + EVENT.encode(),
        b"\x02" + EVENT.encode() * 2,
        b"\x02" + EVENT.encode() + Event(4, 0, 1).encode(),
    ],
    ids=["nothing", "none of one", "18", "half of one", "one of none", "the same twice", "backwards"],
)
def test_no_list_of_events(body):
    with pytest.raises(Violation):
        frames.open_events(body)


def test_seventeen_events_fit_one_message():
    longest = frames.Reply(Op.EVENTS, STATE, frames.events([EVENT] * frames.MOST_EVENTS)).encode()
    assert len(frames.data(longest)) + frames.TAG_SIZE <= 512


@given(st.lists(listed, max_size=8), st.sets(st.integers(1, 8), min_size=8))
def test_a_list_of_slots_is_read(some, numbers):
    slots = tuple(replace(one, slot=number) for one, number in zip(some, sorted(numbers), strict=False))
    body = frames.slot_list(slots)
    assert frames.open_slot_list(body) == slots
    assert len(body) <= 145


def row(slot, rights=15, name=b""):
    return bytes([slot, rights]) + name.ljust(16, b"\0")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x00" + row(1),
        b"\x02" + row(1),
        b"\x01" + row(1) + b"\0",
        b"\x01" + row(0),
        b"\x01" + row(9),
        b"\x02" + row(2) + row(1),
        b"\x02" + row(2) + row(2),
        b"\x09" + b"".join(map(row, range(1, 10))),
        b"\x01" + row(1, 0x10),
        b"\x01" + row(1, 0xC0),
        b"\x01" + row(1, name=b"\xff"),
        b"\x01" + row(1, name=b"a\0b"),
    ],
)
def test_no_list_of_slots(body):
    with pytest.raises(Violation):
        frames.open_slot_list(body)


def test_eight_slots_fit_one_message():
    everybody = frames.slot_list([frames.SlotListed(slot, Rights.NONE, "x" * 16) for slot in range(1, 9)])
    assert len(frames.data(frames.Reply(Op.SLOT_LIST, STATE, everybody).encode())) + 16 <= 512


def test_a_right_that_is_not_known_is_not_given():
    with pytest.raises(Violation):
        frames.SlotRights.parse(b"\x01\x10")


@pytest.mark.parametrize(
    "name, kept",
    [
        ("Home Assistant", "Home Assistant"),
        ("ein sehr langer Name", "ein sehr langer "),
        ("äöüäöüäöü", "äöüäöüäö"),
        ("x" * 15 + "ä", "x" * 15),
        ("a\0b", "ab"),
        ("", ""),
        ("\ud800x", "?x"),
    ],
)
def test_a_name_is_cut_between_two_characters(name, kept):
    raw = frames.encode_name(name)
    assert len(raw) == 16
    assert frames.parse_name(raw) == kept


@pytest.mark.parametrize("raw", [b"a\0b".ljust(16, b"\0"), b"\xff" + bytes(15), "ä".encode()[:1] * 16])
def test_no_name(raw):
    with pytest.raises(Violation):
        frames.parse_name(raw)


# ---- in the core's words ----


@pytest.mark.parametrize(
    "relay, reading",
    [
        (Relay.LOCKED, Reading.SECURED),
        (Relay.PULSING, Reading.RELEASED),
        (Relay.HELD, Reading.RELEASED),
        (Relay.FAULT, Reading.UNKNOWN),
    ],
)
def test_what_a_strike_says_about_its_relay(relay, reading):
    raw = bytearray(STATE.encode())
    raw[1] = relay
    assert State.parse(bytes(raw)).reading is reading


@pytest.mark.parametrize(
    "io, sensor, caps, sense",
    [
        (0x00, Sensor.CONTACT, Caps.CONTACT, Sense.UNKNOWN),
        (0x04, Sensor.CONTACT, Caps.CONTACT, Sense.INACTIVE),
        (0x08, Sensor.CONTACT, Caps.CONTACT, Sense.ACTIVE),
        (0x0C, Sensor.CONTACT, Caps.CONTACT, Sense.FAULT),
        (0x08, Sensor.CONTACT, Caps.TAMPER, Sense.UNKNOWN),
        (0x00, Sensor.TAMPER, Caps.TAMPER, Sense.INACTIVE),
        (0x10, Sensor.TAMPER, Caps.TAMPER, Sense.ACTIVE),
        (0x10, Sensor.TAMPER, Caps.CONTACT, Sense.UNKNOWN),
        (0x00, Sensor.LOCK_MONITOR, Caps.LOCK_MONITOR, Sense.ACTIVE),
        (0x20, Sensor.LOCK_MONITOR, Caps.LOCK_MONITOR, Sense.INACTIVE),
        (0x20, Sensor.LOCK_MONITOR, Caps.CONTACT, Sense.UNKNOWN),
        (0x3F, Sensor.REX, Caps.REX, Sense.INACTIVE),
        (0x3F, Sensor.REX, Caps(0xFFFF) & ~Caps.REX, Sense.UNKNOWN),
    ],
)
def test_what_a_sensor_says(io, sensor, caps, sense):
    raw = bytearray(STATE.encode())
    raw[1] = io
    assert State.parse(bytes(raw)).sense(sensor, caps) is sense


@given(u32)
def test_how_long_a_strike_has_been_up_is_read_as_it_was_written(milliseconds):
    assert frames.open_uptime(frames.uptime(milliseconds)) == milliseconds


def test_a_strike_that_does_not_say_how_long_it_has_been_up_is_an_older_one():
    assert frames.open_uptime(b"") is None
    with pytest.raises(Violation):
        frames.open_uptime(b"\0\0\0")
