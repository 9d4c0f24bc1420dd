"""The strike: what its operations do, what it keeps, what it tells, and what it looks like from outside."""

from dataclasses import replace

import pytest

from tests.core.doorstrike.bench import ALL_CAPS, SPEND, STRIKE_ID, Bench, events_of, unlock
from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.client import Ending, Paired
from vestibule_core.doorstrike.device import BatteryIs, BoltIs, ButtonHeld, ContactIs, CoverIs, ExitRequested
from vestibule_core.doorstrike.effects import Disconnect, Notify, Persist, StartPulse, StopRelay
from vestibule_core.doorstrike.memory import Part
from vestibule_core.doorstrike.pairing import slot_psk
from vestibule_core.doorstrike.wire import (
    ALL_RIGHTS,
    NO_SPEND,
    Caps,
    Command,
    Contact,
    EventKind,
    Flags,
    Op,
    Relay,
    Result,
    Rights,
    SpendState,
)

PING = Command(Op.PING)


def hold(spend_id=SPEND):
    return Command(Op.HOLD, 0, spend_id)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def paired(bench):
    return bench.pair()


@pytest.fixture
def wire(bench, paired):
    return bench.session(paired)


def kinds(wire):
    return [event.kind for event in events_of(wire)]


# ---- the relay ----


def test_the_order_of_an_unlock(bench, paired):
    """Ring on the disk, relay on, HS2; only then what may wait (B.3)."""
    wire = bench.connect(paired)
    bench.performed.clear()
    wire.ask(unlock())
    assert [type(effect) for effect in bench.performed] == [Persist, StartPulse, Notify, Persist, Notify]
    assert bench.performed[0].part is Part.LOG


def test_nothing_moves_at_power_up(bench, paired):
    bench.connect(paired).ask(unlock())
    bench.connect(paired).ask(hold(b"\x01" * 16))
    bench.cut_power()
    bench.performed.clear()
    bench.power_up()
    bench.wait(600)
    assert {type(effect) for effect in bench.performed} == {Persist}


def test_a_spend_goes_from_unseen_to_complete(bench, wire):
    query = Command(Op.QUERY, 0, SPEND)
    assert wire.ask(query).state.spend_state is SpendState.UNSEEN
    assert wire.ask(unlock()).state.spend_state is SpendState.RELAY_ON
    assert wire.ask(query).state.relay is Relay.PULSING
    bench.wait(0.5)
    state = wire.ask(query).state
    assert (state.spend_state, state.relay) == (SpendState.COMPLETE, Relay.LOCKED)
    bench.reboot()
    assert bench.connect(wire.client._paired).ask(query).state.spend_state is SpendState.COMPLETE


def test_a_second_unlock_restarts_the_pulse(bench, wire):
    other = b"\x01" * 16
    wire.ask(unlock(pulse_cs=100))
    bench.wait(0.9)
    wire.ask(unlock(other, 100))
    bench.wait(0.9)
    assert bench.released
    bench.wait(0.1)
    assert not bench.released
    for spend_id in (SPEND, other):
        assert wire.ask(Command(Op.QUERY, 0, spend_id)).state.spend_state is SpendState.COMPLETE
    assert kinds(wire).count(EventKind.RELAY_OFF) == 1


def test_the_end_of_a_pulse_that_was_overtaken_is_no_news(bench, wire):
    wire.ask(unlock(pulse_cs=100))
    first = bench.pulse
    wire.ask(unlock(b"\x01" * 16, 100))
    bench._do(bench.strike.pulse_complete(first, bench.now))
    assert wire.ask(PING).state.relay is Relay.PULSING


def test_a_ping_is_answered_with_how_long_it_has_been_up(bench, wire):
    before = frames.open_uptime(wire.ask(PING).body)
    bench.wait(7)
    assert frames.open_uptime(wire.ask(PING).body) - before == pytest.approx(7000, abs=100)


def test_held_until_relocked(bench, wire):
    assert wire.ask(hold()).state.relay is Relay.HELD
    bench.wait(50)
    wire.ask(PING)
    bench.wait(50)
    assert bench.released
    state = wire.ask(Command(Op.RELOCK)).state
    assert (state.result, state.relay, state.spend_state) == (Result.OK, Relay.LOCKED, SpendState.COMPLETE)
    assert not bench.released
    assert kinds(wire)[-2:] == [EventKind.RELAY_ON, EventKind.RELAY_OFF]


def test_an_unlock_while_held_is_spent_and_does_not_end_the_holding(bench, wire):
    wire.ask(hold(b"\x01" * 16))
    state = wire.ask(unlock()).state
    assert (state.result, state.relay, state.spend_state) == (Result.OK, Relay.HELD, SpendState.COMPLETE)
    bench.wait(20)
    assert bench.released
    assert len(bench.pulses) == 1
    assert wire.ask(unlock()).state.result is Result.DUPLICATE


def test_held_during_a_pulse(bench, wire):
    wire.ask(unlock())
    pulse = bench.pulse
    wire.ask(hold(b"\x01" * 16))
    bench._do(bench.strike.pulse_complete(pulse, bench.now))
    assert wire.ask(PING).state.relay is Relay.HELD


def test_relocked_during_a_pulse(bench, wire):
    wire.ask(unlock(pulse_cs=1000))
    state = wire.ask(Command(Op.RELOCK, 0, SPEND)).state
    assert (state.relay, state.spend_state) == (Relay.LOCKED, SpendState.COMPLETE)
    assert not bench.released


def test_relocked_when_nothing_is_released(bench, wire):
    assert wire.ask(Command(Op.RELOCK)).state.result is Result.OK
    assert EventKind.RELAY_OFF not in kinds(wire)


def test_a_relay_that_does_not_move(bench, wire):
    bench.jammed = True
    state = wire.ask(unlock()).state
    assert (state.result, state.relay, state.spend_state) == (Result.RELAY_FAULT, Relay.FAULT, SpendState.RECORDED)
    bench.jammed = False
    assert wire.ask(unlock()).state.result is Result.RELAY_FAULT, "this spend is over"
    assert wire.ask(Command(Op.QUERY, 0, SPEND)).state.result is Result.RELAY_FAULT
    bench.reboot()
    wire = bench.session(wire.client._paired)
    assert wire.ask(Command(Op.QUERY, 0, SPEND)).state.result is Result.RELAY_FAULT
    assert wire.ask(unlock(b"\x01" * 16)).state.relay is Relay.PULSING, "another one may try"


def test_a_relay_that_does_not_go_back(bench, wire):
    wire.ask(unlock())
    bench.jammed = True
    state = wire.ask(Command(Op.RELOCK)).state
    assert (state.result, state.relay) == (Result.RELAY_FAULT, Relay.FAULT)
    bench.wait(1)
    assert wire.ask(Command(Op.QUERY, 0, SPEND)).state.spend_state is SpendState.COMPLETE, "its own timer ran out"


def test_a_relay_that_fails_during_a_pulse_still_ends_it(bench, wire):
    other = b"\x01" * 16
    wire.ask(unlock(pulse_cs=100))
    bench.wait(0.5)
    bench.jammed = True
    state = wire.ask(unlock(other, 100)).state
    assert (state.result, state.relay) == (Result.RELAY_FAULT, Relay.FAULT)
    bench.wait(0.5)
    assert not bench.released, "the first one's time is over"
    state = wire.ask(Command(Op.QUERY, 0, SPEND)).state
    assert (state.relay, state.spend_state) == (Relay.LOCKED, SpendState.COMPLETE)
    ended = events_of(wire)[-1]
    assert (ended.kind, ended.spend_id) == (EventKind.RELAY_OFF, SPEND)
    assert wire.ask(Command(Op.QUERY, 0, other)).state.result is Result.RELAY_FAULT, "it never moved"


def test_the_late_end_of_a_pulse_that_was_held_does_not_hide_a_relay_that_stays_on(bench, wire):
    wire.ask(unlock())
    pulse = bench.pulse
    wire.ask(hold(b"\x01" * 16))
    bench.jammed = True
    assert wire.ask(Command(Op.RELOCK)).state.result is Result.RELAY_FAULT
    bench._do(bench.strike.pulse_complete(pulse, bench.now))
    assert bench.released
    assert wire.ask(PING).state.relay is Relay.FAULT


def test_twenty_spends_a_minute(bench, wire):
    for n in range(20):
        assert wire.ask(unlock(bytes([n + 1]) * 16)).state.result is Result.OK
        bench.wait(1)
    assert wire.ask(unlock()).state.result is Result.RATE
    assert wire.ask(Command(Op.QUERY, 0, SPEND)).state.spend_state is SpendState.UNSEEN, "it may come again"
    assert wire.ask(unlock(b"\x01" * 16)).state.result is Result.DUPLICATE
    bench.wait(40)
    assert wire.ask(unlock()).state.result is Result.OK
    assert wire.ask(unlock(b"\xff" * 16)).state.result is Result.RATE, "the window slides"


def test_sixty_four_spends_are_remembered(bench, wire):
    for n in range(64):
        wire.ask(unlock(bytes([n + 1]) * 16))
        bench.wait(3.1)
    assert wire.ask(unlock(b"\x01" * 16)).state.result is Result.DUPLICATE
    wire.ask(unlock())
    assert wire.ask(Command(Op.QUERY, 0, b"\x01" * 16)).state.spend_state is SpendState.UNSEEN
    assert wire.ask(Command(Op.QUERY, 0, b"\x02" * 16)).state.spend_state is SpendState.COMPLETE


@pytest.mark.parametrize("op", [Op.UNLOCK, Op.HOLD])
def test_zero_is_no_spend(bench, wire, op):
    assert wire.ask(Command(op, 50, NO_SPEND)).state.result is Result.BAD_OP
    assert bench.pulses == []


def test_a_second_command_before_the_relay_has_answered(bench, paired):
    """A shell that does not keep the order cannot make one answer go to two questions."""
    other = bench.second(paired)
    first, second = bench.session(paired), bench.session(other)
    first.send(unlock())
    second.send(unlock(b"\x01" * 16))
    kept = bench.strike.fragment(first.number, first.to_strike.popleft(), bench.now)
    refused = bench.strike.fragment(second.number, second.to_strike.popleft(), bench.now)
    assert [type(effect) for effect in kept] == [Persist, StartPulse]
    assert [type(effect) for effect in refused] == [Notify]
    bench._do(refused)
    bench.run()
    assert second.news[-1].state.result is Result.RATE
    bench._do(kept)
    bench.run()
    assert bench.pulses == [0.5]


def test_the_relay_answers_after_the_link_is_gone(bench, wire):
    wire.send(unlock())
    kept = bench.strike.fragment(wire.number, wire.to_strike.popleft(), bench.now)
    wire.cut()
    bench.performed.clear()
    bench._do(kept)
    assert bench.pulses == [0.5]
    assert Notify not in map(type, bench.performed)
    bench.wait(1)
    answer = bench.connect(wire.client._paired).ask(Command(Op.QUERY, 0, SPEND))
    assert answer.state.spend_state is SpendState.COMPLETE


def test_a_second_message_while_the_handshake_waits_for_the_relay(bench, paired):
    wire = bench.connect(paired)
    wire.send(unlock())
    (hs1,) = wire.to_strike
    kept = bench.strike.fragment(wire.number, hs1, bench.now)
    assert [type(effect) for effect in bench.strike.fragment(wire.number, hs1, bench.now)] == [Notify, Disconnect]
    bench._do(kept)
    assert bench.pulses == [0.5]


def test_a_relay_that_answers_without_being_asked(bench, wire):
    before = dict(bench.flash)
    bench.tell("relay_done")
    bench.tell("relay_failed")
    bench._do(bench.strike.pulse_complete(0, bench.now))
    assert bench.flash == before
    assert wire.ask(PING).state.relay is Relay.LOCKED


# ---- operations ----


@pytest.mark.parametrize("op", [0x01, 0x13, 0x7F, 0xFF])
def test_an_operation_that_is_not_known(bench, paired, op):
    assert bench.connect(paired).ask(Command(op)).state.result is Result.BAD_OP
    assert bench.session(paired).ask(Command(op)).state.result is Result.BAD_OP


def test_hold_where_it_is_not_possible():
    bench = Bench(caps=ALL_CAPS & ~Caps.HOLD)
    assert bench.connect(bench.pair()).ask(hold()).state.result is Result.BAD_OP
    assert bench.pulses == []


@pytest.mark.parametrize("op", [Op.EVENTS, Op.SLOT_ADD, Op.SLOT_DEL, Op.SLOT_REKEY, Op.SLOT_RIGHTS, Op.SLOT_LIST])
def test_what_needs_a_body_cannot_come_with_the_handshake(bench, paired, op):
    assert bench.connect(paired).ask(Command(op)).state.result is Result.BAD_OP


@pytest.mark.parametrize(
    "op, body",
    [
        (Op.UNLOCK, b"x"),
        (Op.PING, b"x"),
        (Op.EVENTS, b""),
        (Op.EVENTS, bytes(5)),
        (Op.SLOT_ADD, bytes(47)),
        (Op.SLOT_DEL, b""),
        (Op.SLOT_DEL, bytes(2)),
        (Op.SLOT_REKEY, bytes(31)),
        (Op.SLOT_RIGHTS, b"\x01"),
        (Op.SLOT_RIGHTS, b"\x01\xff"),
        (Op.SLOT_LIST, b"\x01"),
    ],
)
def test_a_body_of_another_form_closes_the_link(bench, wire, op, body):
    before = dict(bench.flash)
    assert wire.ask(Command(op, 50, SPEND), body) is None
    assert wire.ended.ending is Ending.REFUSED
    assert (bench.flash, bench.pulses) == (before, [])


@pytest.mark.parametrize("op", [Op.SLOT_DEL, Op.SLOT_RIGHTS])
@pytest.mark.parametrize("slot", [0, 5, 255])
def test_a_slot_that_is_not_there(bench, wire, op, slot):
    body = bytes([slot]) if op is Op.SLOT_DEL else frames.SlotRights(slot, ALL_RIGHTS).encode()
    assert wire.ask(Command(op), body).state.result is Result.BAD_OP


def test_eight_slots(bench, paired):
    slots = [bench.pair().slot for _ in range(7)]
    assert slots == [2, 3, 4, 5, 6, 7, 8]
    wire = bench.session(paired)
    assert wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("x", bytes(32)).encode()).state.result is Result.BAD_OP
    assert wire.ask(Command(Op.SLOT_DEL), b"\x05").state.result is Result.OK
    assert bench.pair().slot == 5


def test_the_first_slot_of_a_new_strike_gets_all_rights_and_no_other_one(bench):
    rights = [bench.strike._device.keyring.rights(bench.pair().slot) for _ in range(2)]
    assert rights == [ALL_RIGHTS, Rights.NONE]


def test_an_administrator_adds_a_slot_without_the_button(bench, wire):
    rand_c = bytes(32)
    added = frames.SlotAdded.parse(wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("x", rand_c).encode()).body)
    new = Paired(STRIKE_ID, added.slot, slot_psk(STRIKE_ID, added.slot, rand_c, added.rand_s))
    assert bench.connect(new).ask(unlock()).state.result is Result.RIGHTS


def add_unused(bench, name="x"):
    """A pairing whose new slot is never used; return it."""
    bench.wait(1)
    bench.hold_button()
    wire = bench.connect(Paired(STRIKE_ID, 0, bench.label.psk))
    wire.ask(Command(Op.QUERY))
    added = frames.SlotAdded.parse(wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd(name, bytes(32)).encode()).body)
    wire.close()
    return Paired(STRIKE_ID, added.slot, slot_psk(STRIKE_ID, added.slot, bytes(32), added.rand_s))


@pytest.mark.parametrize("late, works", [(29.9, True), (30.0, False)])
def test_a_new_slot_has_to_be_used_within_30_seconds(bench, late, works):
    new = add_unused(bench)
    bench.wait(late)
    wire = bench.connect(new)
    assert (wire.ask(PING) is not None) is works
    assert bool(bench.strike.advertisement.flags & Flags.FACTORY) is not works


def test_a_slot_that_was_not_used_leaves_the_strike_in_factory_state(bench):
    add_unused(bench)
    bench.wait(31)
    assert bench.strike._device.keyring.rights(bench.pair().slot) == ALL_RIGHTS


def test_a_new_slot_takes_the_place_of_one_that_waits(bench):
    first, second = add_unused(bench), add_unused(bench)
    assert first.slot == second.slot
    assert bench.connect(first).ask(PING) is None
    assert bench.connect(second).ask(PING) is not None


def test_a_slot_that_waits_does_not_survive_a_power_cut(bench):
    new = add_unused(bench)
    bench.reboot()
    assert bench.connect(new).ask(PING) is None


def slots_of(wire):
    return frames.open_slot_list(wire.ask(Command(Op.SLOT_LIST)).body)


def test_an_administrator_sees_who_has_a_slot(bench, paired):
    other = bench.second(paired, Rights.MANUAL)
    waiting = add_unused(bench, "Küche")
    before = dict(bench.flash)
    wire = bench.session(paired)
    assert slots_of(wire) == (
        frames.SlotListed(paired.slot, ALL_RIGHTS, "Home Assistant"),
        frames.SlotListed(other.slot, Rights.MANUAL, "another"),
        frames.SlotListed(waiting.slot, Rights.NONE, "Küche", waiting=True),
    )
    assert bench.flash == before, "who looks changes nothing"
    bench.connect(waiting).ask(PING)
    assert not slots_of(wire)[2].waiting
    wire.ask(Command(Op.SLOT_DEL), bytes([other.slot]))
    assert [listed.slot for listed in slots_of(wire)] == [paired.slot, waiting.slot]


def test_eight_slots_are_listed_on_the_smallest_packets(bench, paired):
    for _ in range(7):
        bench.pair()
    assert [listed.slot for listed in slots_of(bench.session(paired, size=20))] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("rights", [Rights.NONE, Rights.SPEND, Rights.MANUAL, Rights.EVENTS])
def test_nobody_else_sees_who_has_a_slot(bench, paired, rights):
    bench.grant(paired, paired.slot, ALL_RIGHTS & ~Rights.SPEND)
    other = bench.second(paired, rights)
    answer = bench.session(other).ask(Command(Op.SLOT_LIST))
    assert (answer.state.result, answer.body) == (Result.RIGHTS, b"")


def test_the_code_alone_does_not_list_slots(bench, paired):
    bench.wait(1)
    bench.hold_button()
    answer = bench.session(Paired(STRIKE_ID, 0, bench.label.psk)).ask(Command(Op.SLOT_LIST))
    assert (answer.state.result, answer.body) == (Result.RIGHTS, b"")


def rekey(bench, wire):
    """Ask for a new key; return the client that has it."""
    old, rand_c = wire.client._paired, bench.random(32)
    rand_s = wire.ask(Command(Op.SLOT_REKEY), rand_c).body
    return replace(old, psk=slot_psk(STRIKE_ID, old.slot, rand_c, rand_s))


def test_a_new_key_is_made_before_the_old_one_is_broken(bench, paired, wire):
    new = rekey(bench, wire)
    assert bench.connect(paired).ask(PING), "the old one works until the new one has"
    assert bench.connect(new).ask(PING)
    assert bench.connect(paired).ask(PING) is None
    bench.reboot()
    assert bench.connect(new).ask(PING)
    assert bench.connect(new).ask(unlock()).state.result is Result.OK, "with the same rights"


def test_a_new_key_that_is_not_used_in_time(bench, paired, wire):
    new = rekey(bench, wire)
    bench.wait(30)
    assert bench.connect(new).ask(PING) is None
    assert bench.connect(paired).ask(PING)


def test_a_new_wish_gives_no_other_one_more_time(bench, paired):
    other = bench.second(paired)
    slot = add_unused(bench)
    bench.wait(20)
    key = rekey(bench, bench.session(paired))
    bench.wait(9.9)
    rekey(bench, bench.session(other))
    assert slots_of(bench.session(paired))[-1].waiting
    bench.wait(0.1)
    assert slot.slot not in [listed.slot for listed in slots_of(bench.session(paired))]
    assert bench.connect(slot).ask(PING) is None
    bench.wait(20)
    assert bench.connect(key).ask(PING) is None, "30 s after it was made"
    assert bench.connect(paired).ask(PING)
    assert bench.strike.due is not None, "the newest one waits on"


def test_a_key_that_is_asked_for_again_has_its_30_seconds(bench, paired, wire):
    rekey(bench, wire)
    bench.wait(29)
    new = rekey(bench, wire)
    bench.wait(29)
    assert bench.connect(new).ask(PING)


def test_a_new_slot_that_was_used_is_not_given_up_with_another_one(bench, paired):
    other = bench.pair()
    wire = bench.session(other)
    new = rekey(bench, wire)
    add_unused(bench)
    bench.connect(new).ask(PING)
    bench.wait(31)
    assert bench.connect(new).ask(PING)


def test_a_new_key_that_is_not_used_before_a_power_cut(bench, paired, wire):
    new = rekey(bench, wire)
    bench.reboot()
    assert bench.connect(new).ask(PING) is None
    assert bench.connect(paired).ask(PING)


def test_a_deleted_slot_is_let_go_of_at_once(bench, paired):
    other = bench.second(paired)
    theirs, mine = bench.session(other), bench.session(paired)
    assert mine.ask(Command(Op.SLOT_DEL), bytes([other.slot])).state.result is Result.OK
    assert (theirs.alive, mine.alive) == (False, True)


def test_a_right_that_is_taken_is_gone_at_once(bench, paired):
    other = bench.second(paired, Rights.MANUAL)
    theirs = bench.session(other)
    assert bench.grant(paired, other.slot, Rights.NONE) is Result.OK
    assert theirs.ask(unlock()).state.result is Result.RIGHTS


def test_every_change_of_the_slots_shows(bench, paired):
    seen = [bench.session(paired).ask(PING).state.slots_gen]
    other = bench.pair()
    seen.append(bench.session(paired).ask(PING).state.slots_gen)
    bench.grant(paired, other.slot, Rights.EVENTS)
    seen.append(bench.session(paired).ask(PING).state.slots_gen)
    bench.session(paired).ask(Command(Op.SLOT_DEL), bytes([other.slot]))
    seen.append(bench.session(paired).ask(PING).state.slots_gen)
    assert len(set(seen)) == len(seen)


# ---- events ----


def test_events_are_told_to_who_may_hear_them(bench, paired):
    deaf, hearing = bench.second(paired, Rights.MANUAL), bench.second(paired, Rights.EVENTS)
    mine, theirs, others = bench.session(paired), bench.session(deaf), bench.session(hearing)
    bench.sense(ExitRequested())
    bench.run()
    assert [event.kind for event in mine.events] == [EventKind.REX]
    assert mine.events == others.events
    assert theirs.events == []


def test_an_event_is_on_the_disk_before_it_is_told(bench, wire):
    bench.performed.clear()
    bench.sense(ExitRequested())
    assert [type(effect) for effect in bench.performed] == [Persist, Notify]


def test_events_that_happened_while_nobody_was_connected(bench, paired):
    bench.wait(5)
    bench.sense(ContactIs(Contact.CLOSED))
    bench.sense(ContactIs(Contact.OPEN))
    bench.reboot()
    wire = bench.session(paired)
    events = events_of(wire)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    opened, boot = events[-2:]
    assert (opened.kind, boot.kind, boot.value) == (EventKind.OPENED, EventKind.BOOT, 2)
    assert opened.uptime_ms == 6000


def test_events_from_somewhere_on(bench, wire):
    for _ in range(40):
        bench.sense(ExitRequested())
    bench.run()
    page = frames.open_events(wire.ask(Command(Op.EVENTS), frames.events_from(10)).body)
    assert [event.seq for event in page] == list(range(10, 27))
    assert frames.open_events(wire.ask(Command(Op.EVENTS), frames.events_from(10_000)).body) == ()


def test_256_events_are_kept_and_a_gap_shows(bench, wire):
    for _ in range(300):
        bench.sense(ExitRequested())
    bench.run()
    events = events_of(wire)
    assert len(events) == 256
    assert events[0].seq == events[-1].seq - 255 > 1


def test_failed_handshakes_are_counted_and_told_once_a_minute(bench, paired):
    for _ in range(300):
        bench.connect(replace(paired, psk=bytes(32))).ask(unlock())
    wire = bench.session(paired)
    assert EventKind.FAILED_HANDSHAKES not in kinds(wire)
    bench.wait(59)
    wire.ask(PING)
    bench.wait(1)
    (event,) = wire.events
    assert (event.kind, event.value) == (EventKind.FAILED_HANDSHAKES, 255)
    bench.connect(replace(paired, psk=bytes(32))).ask(unlock())
    bench.wait(60)
    assert [event.value for event in events_of(bench.session(paired)) if event.kind == EventKind.FAILED_HANDSHAKES] == [
        255,
        1,
    ]


def test_the_uptime_of_an_event_starts_over_after_49_days(bench, paired):
    bench.now += 2**32 / 1000 + 1
    bench.sense(ExitRequested())
    assert events_of(bench.session(paired))[-1].uptime_ms < 5000


# ---- inputs ----


def told(bench, *inputs):
    """The kinds of the events that these inputs make."""
    before = bench.strike._device.history.seq
    for one in inputs:
        bench.sense(one)
    return [event.kind for event in bench.strike._device.history.since(before + 1)]


@pytest.mark.parametrize(
    "says, expected",
    [
        ([Contact.CLOSED], []),
        ([Contact.OPEN], []),
        ([Contact.CLOSED, Contact.OPEN, Contact.OPEN, Contact.CLOSED], [EventKind.OPENED, EventKind.CLOSED]),
        ([Contact.CLOSED, Contact.FAULT, Contact.OPEN], [EventKind.OPENED]),
        ([Contact.OPEN, Contact.FAULT, Contact.CLOSED], [EventKind.CLOSED]),
        ([Contact.CLOSED, Contact.UNKNOWN, Contact.OPEN], []),
    ],
)
def test_the_contact(bench, paired, says, expected):
    assert told(bench, *map(ContactIs, says)) == expected
    assert bench.session(paired).ask(PING).state.contact is says[-1]


def test_tamper_is_latched_until_the_button_is_held_with_the_cover_closed(bench, paired):
    def tampered():
        return bench.session(paired).ask(PING).state.tampered

    assert not tampered()
    assert told(bench, CoverIs(True), CoverIs(True)) == [EventKind.TAMPER]
    assert told(bench, ButtonHeld(3)) == [EventKind.PAIRING_OPENED]
    assert tampered()
    assert told(bench, CoverIs(False)) == []
    bench.reboot()
    assert tampered()
    assert told(bench, ButtonHeld(3)) == [EventKind.PAIRING_OPENED, EventKind.TAMPER_CLEARED]
    assert not tampered()
    assert told(bench, ButtonHeld(3)) == [EventKind.PAIRING_OPENED]


def test_the_battery(bench, paired):
    levels = [100, 16, 15, 14, 20, 15, 21, 15, None]
    assert told(bench, *map(BatteryIs, levels)) == [EventKind.LOW_BATTERY] * 2
    assert bench.session(paired).ask(PING).state.battery is None
    bench.sense(BatteryIs(9))
    assert bench.strike.advertisement.flags & Flags.LOW_BATTERY
    assert bench.session(paired).ask(PING).state.battery == 9


def test_the_lock_monitor(bench, paired):
    assert told(bench, BoltIs(True)) == []
    assert bench.session(paired).ask(PING).state.bolt_secured


@pytest.mark.parametrize("one", [ContactIs(Contact.OPEN), CoverIs(True), BatteryIs(1), BoltIs(False), ExitRequested()])
def test_no_input_moves_the_relay(bench, paired, one):
    told(bench, one, ContactIs(Contact.CLOSED), one)
    assert bench.pulses == []


@pytest.mark.parametrize("seconds, opens", [(0.5, False), (2.9, False), (3.0, True), (9.9, True)])
def test_how_long_the_button_is_held(bench, seconds, opens):
    bench.hold_button(seconds)
    assert bench.strike.pairing_open is opens
    assert bool(bench.strike.advertisement.flags & Flags.PAIRING) is opens


def test_a_factory_reset_wants_the_cover_open(bench, paired):
    assert told(bench, ButtonHeld(10)) == []
    assert bench.session(paired).ask(PING)
    wire = bench.session(paired)
    assert told(bench, CoverIs(True), ButtonHeld(3), ButtonHeld(10))[-1] == EventKind.FACTORY_RESET
    bench.run()
    assert not wire.alive
    assert not bench.strike.pairing_open
    assert bench.strike.advertisement.flags & Flags.FACTORY
    bench.reboot()
    assert bench.connect(paired).ask(PING) is None
    assert bench.strike._device.keyring.rights(bench.pair().slot) == ALL_RIGHTS


def test_a_factory_reset_ends_a_pairing_that_is_under_way(bench, paired):
    """Else its session could wait for the next window, and be the new owner's administrator."""
    bench.wait(1)
    bench.hold_button()
    pairing = bench.session(Paired(STRIKE_ID, 0, bench.label.psk))
    stranger = bench.connect_raw()[0]
    told(bench, CoverIs(True), ButtonHeld(10))
    bench.run()
    assert not pairing.alive
    assert stranger.alive, "who has proved nothing yet has nothing to lose"


def test_a_pairing_goes_on_after_its_window(bench):
    bench.hold_button()
    pairing = bench.session(Paired(STRIKE_ID, 0, bench.label.psk))
    for _ in range(3):
        bench.wait(50)
        pairing.ask(PING)
    assert pairing.alive
    answer = pairing.ask(Command(Op.SLOT_ADD), frames.SlotAdd("x", bytes(32)).encode())
    assert answer.state.result is Result.RIGHTS


def test_a_factory_reset_keeps_the_spends(bench, paired):
    bench.connect(paired).ask(unlock())
    told(bench, CoverIs(True), ButtonHeld(10))
    assert bench.connect(bench.pair()).ask(unlock()).state.result is Result.DUPLICATE


def test_without_a_tamper_switch_the_button_alone_resets():
    bench = Bench(caps=Caps.CONTACT)
    bench.pair()
    assert told(bench, ButtonHeld(10)) == [EventKind.FACTORY_RESET]


# ---- power ----


def test_slots_that_are_lost_or_torn_let_nobody_in(bench, paired):
    for damage in (lambda flash: flash.pop(Part.SLOTS), lambda flash: flash.update({Part.SLOTS: b"torn"})):
        other = Bench()
        mine = other.pair()
        other.cut_power()
        damage(other.flash)
        other.power_up()
        assert other.connect(mine).ask(PING) is None
        assert not other.strike.advertisement.flags & Flags.FACTORY, "damage is no first start"
        assert other.strike._device.keyring.rights(other.pair().slot) == Rights.NONE


def test_the_power_is_cut_at_every_effect_of_the_first_start():
    for effects in range(3):
        bench = Bench()
        bench.cut_power()
        bench.flash.clear()
        bench.effects_left = effects
        bench.power_up()
        bench.effects_left = None
        bench.reboot()
        assert bench.strike.advertisement.flags & Flags.FACTORY
        assert bench.strike._device.keyring.rights(bench.pair().slot) == ALL_RIGHTS


def test_no_nonce_comes_twice_even_if_the_random_numbers_do():
    bench = Bench()
    bench.random = bytes
    nonces = set()
    for _ in range(3):
        bench.reboot()
        for _ in range(3):
            nonces.add(bench.connect_raw()[1])
            bench.wait(6)
    assert len(nonces) == 9


# ---- links ----


def test_nobody_may_stay_without_subscribing(bench):
    wire = bench.connect(Paired(STRIKE_ID, 1, bytes(32)), subscribe=False)
    bench.tell("elapsed")
    bench.now += 9.9
    bench.tell("elapsed")
    bench.run()
    assert wire.alive
    bench.now += 0.1
    bench.tell("elapsed")
    bench.run()
    assert (wire.alive, wire.heard) == (False, [])


def test_a_second_subscription_brings_no_second_hello(bench):
    wire, hello = bench.connect_raw()
    bench.tell("subscribed", wire.number, 244)
    bench.run()
    assert wire.heard == [hello]


def test_a_session_that_is_idle_for_a_minute(bench, wire):
    bench.wait(59.9)
    assert wire.alive
    bench.wait(0.1)
    assert not wire.alive
    assert wire.ended.ending is Ending.LINK_LOST


def test_eight_links_and_no_more(bench, paired):
    wires = [bench.connect_raw()[0] for _ in range(8)]
    assert not bench.connect(paired).alive
    bench.wait(5)
    assert not any(wire.alive for wire in wires)
    assert bench.connect(paired).alive


def test_a_link_that_is_not_known(bench):
    for method, args in (("fragment", (99, b"x")), ("disconnected", (99,)), ("subscribed", (99, 20))):
        bench.performed.clear()
        bench.tell(method, *args)
        assert bench.performed == []


def test_a_new_session_of_a_slot_ends_its_older_one_only(bench, paired):
    other = bench.second(paired)
    theirs, old = bench.session(other), bench.session(paired)
    new = bench.session(paired)
    assert (theirs.alive, old.alive, new.alive) == (True, False, True)


def test_a_failed_handshake_ends_nobodys_session(bench, paired, wire):
    bench.connect(replace(paired, psk=bytes(32))).ask(unlock())
    assert wire.alive


def test_nothing_is_due_when_nothing_waits(bench):
    assert bench.strike.due is None


def test_what_is_advertised(bench, paired):
    seen = bench.strike.advertisement
    assert (seen.version, seen.strike) == (1, STRIKE_ID[:6])
    assert len(seen.encode()) == 10
    assert seen.flags == Flags.ATTENTION, "nobody has read that it powered up"
    wire = bench.session(paired)
    events_of(wire)
    assert bench.strike.advertisement.flags == Flags(0)
    bench.sense(ExitRequested())
    assert bench.strike.advertisement.flags == Flags(0), "somebody has heard of it at once"
    wire.close()
    bench.sense(ExitRequested())
    assert bench.strike.advertisement.flags == Flags.ATTENTION
    assert bench.strike.advertisement.evt_seq == seen.evt_seq + 2


def test_relock_is_never_counted_or_remembered(bench, wire):
    for _ in range(30):
        assert wire.ask(Command(Op.RELOCK, 0, SPEND)).state.result is Result.OK
    assert wire.ask(unlock()).state.result is Result.OK
    assert StopRelay() in bench.performed
