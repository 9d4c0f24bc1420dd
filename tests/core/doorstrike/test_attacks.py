"""Rows 41 to 58, 60, 71 to 75, 80 and 81 of the attack table (protocol F): the bolt never moves, or moves once."""

from contextlib import contextmanager

import pytest
from noise.backends.default.keypairs import KeyPair25519

from tests.core.doorstrike.bench import (
    SPEND,
    STRIKE_ID,
    Bench,
    events_of,
    unlock,
    with_psk,
)
from vestibule_core import nnpsk0
from vestibule_core.doorstrike import frames, handshake
from vestibule_core.doorstrike.client import Ending, Paired
from vestibule_core.doorstrike.fragments import cut
from vestibule_core.doorstrike.handshake import Initiator
from vestibule_core.doorstrike.memory import Part, decode_log, decode_slots
from vestibule_core.doorstrike.outcome import Outcome, answered, queried
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.wire import (
    ALL_RIGHTS,
    ERR,
    HELLO_REQ,
    Command,
    EventKind,
    Op,
    Relay,
    Result,
    Rights,
    SpendState,
    Violation,
)

QUERY = Command(Op.QUERY, 0, SPEND)


@pytest.fixture
def new_bench():
    """What makes a strike, or another one."""
    return Bench


@pytest.fixture
def bench(new_bench):
    return new_bench()


@pytest.fixture
def paired(bench):
    return bench.pair()


def hs1_for(paired, hello_fragment, command=None, ephemeral=b"\x07" * 32):
    """HS1 as the paired client would send it, in one fragment; HELLO came in one, too."""
    initiator = Initiator(paired.psk, hello_fragment[3:], paired.slot, ephemeral)
    return cut(frames.hs1(paired.slot, initiator.first((command or unlock()).encode())), 244)[0]


def refused(wire, *fragments):
    """Whether the strike answered ERR, the one and only, and hung up, without moving or recording anything."""
    flash, pulses = dict(wire.bench.flash), list(wire.bench.pulses)
    heard = wire.write(*fragments)
    assert (wire.bench.flash, wire.bench.pulses) == (flash, pulses)
    return heard == list(cut(ERR, 244)) and not wire.alive


# ---- handshakes ----


def test_row_41_a_handshake_replayed_on_the_same_link(bench, paired):
    wire = bench.connect(paired)
    wire.ask(unlock())
    (hs1,) = wire.sent
    wire.take_over()
    assert refused(wire, hs1)
    assert bench.pulses == [0.5]


def test_row_41_a_handshake_replayed_on_a_new_link(bench, paired):
    wire = bench.connect(paired)
    wire.ask(unlock())
    wire.close()
    stranger, _ = bench.connect_raw()
    assert refused(stranger, *wire.sent)
    assert bench.pulses == [0.5]


@pytest.mark.parametrize("late, opens", [(4.9, True), (5.0, False), (5.1, False), (6.0, False)])
def test_row_42_a_handshake_held_back(bench, paired, late, opens):
    wire, hello = bench.connect_raw()
    bench.now += 2.0
    assert wire.write(*cut(HELLO_REQ, 20)) == [hello], "the same HELLO again"
    bench.now += late - 2.0
    if opens:
        assert wire.write(hs1_for(paired, hello))[0][3] == 3, "HS2"
        assert bench.pulses == [0.5]
    else:
        assert wire.write(hs1_for(paired, hello))[:1] == list(cut(ERR, 20))
        assert (bench.pulses, wire.alive) == ([], False)


def test_row_42_a_handshake_that_began_in_time_and_ends_late(bench, paired):
    wire, _ = bench.connect_raw(20)
    hello = wire.heard[0][3:] + wire.heard[1][1:]
    initiator = Initiator(paired.psk, hello, 1, b"\x07" * 32)
    fragments = cut(frames.hs1(1, initiator.first(unlock().encode())), 20)
    bench.now += 4.5
    wire.write(*fragments[:3])
    bench.now += 0.6
    assert wire.write(fragments[3])[:1] == list(cut(ERR, 20))
    assert bench.pulses == []


def test_row_42_hello_is_repeated_three_times_and_no_more(bench):
    wire, hello = bench.connect_raw()
    for _ in range(3):
        assert wire.write(*cut(HELLO_REQ, 20)) == [hello]
    assert refused(wire, *cut(HELLO_REQ, 20))


def test_row_43_a_second_handshake_after_a_failed_one(bench, paired):
    wire, hello = bench.connect_raw()
    good = hs1_for(paired, hello)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    assert wire.write(bad, good) == list(cut(ERR, 20))
    assert (bench.pulses, wire.alive) == ([], False)


@pytest.mark.parametrize("place", [2, 3], ids=["caps, high", "caps, low"])
def test_row_44_hello_rewritten_in_flight(bench, paired, place):
    def rewrite(to_strike, fragment):
        if to_strike or fragment[3] != 1:
            return [fragment]
        at = 3 + place
        return [fragment[:at] + bytes([fragment[at] ^ 0x40]) + fragment[at + 1 :]]

    wire = bench.connect(paired, tap=rewrite)
    assert wire.greeted
    assert wire.ask(unlock()) is None
    assert wire.ended.ending is Ending.REFUSED
    assert bench.pulses == []


@pytest.mark.parametrize("version", [0, 2, 99])
def test_row_44_a_version_rewritten_in_flight(bench, paired, version):
    wire = bench.connect(
        paired,
        tap=lambda to_strike, fragment: [fragment if to_strike else fragment[:4] + bytes([version]) + fragment[5:]],
    )
    assert wire.ended.ending is Ending.VERSION
    assert wire.sent == []


def test_row_45_a_handshake_made_for_a_fake_strikes_old_hello(bench, paired):
    old = bench.connect(paired).heard[0]
    bench.wait(10)
    wire = bench.connect(paired, tap=lambda to_strike, fragment: [fragment if to_strike or fragment[3] != 1 else old])
    assert wire.greeted
    assert wire.ask(unlock()) is None
    assert wire.ended.ending is Ending.REFUSED
    assert bench.pulses == []


def test_row_46_every_wrong_key_gets_the_same_error(bench, paired):
    other = bench.second(paired)
    wire = bench.session(paired)
    assert wire.ask(Command(Op.SLOT_DEL), bytes([other.slot])).state.result is Result.OK
    wire.close()
    for wrong in (
        with_psk(paired, bytes(32)),
        Paired(STRIKE_ID, 7, paired.psk),
        Paired(STRIKE_ID, 255, bytes(32)),
        other,
    ):
        stranger, hello = bench.connect_raw()
        assert refused(stranger, hs1_for(wrong, hello))


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
LOW_ORDER += [point[:-2] + f"{int(point[-2:], 16) | 0x80:02x}" for point in LOW_ORDER]  # the top bit is ignored


@contextmanager
def chosen_ephemeral(public):
    """Noise with a public key that has no private one behind it."""

    def put(connection, private):
        pair = KeyPair25519.from_private_bytes(private)
        pair.public_bytes = bytes.fromhex(public)
        connection.noise_protocol.handshake_state.e = pair

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnpsk0, "_set_ephemeral", put)
        yield


@pytest.mark.parametrize("public", LOW_ORDER)
def test_row_47_a_key_of_low_order_with_the_right_psk(bench, paired, public):
    stranger, hello = bench.connect_raw()
    with chosen_ephemeral(public):
        hs1 = hs1_for(paired, hello)
    assert hs1[5:37].hex() == public
    assert refused(stranger, hs1)


@pytest.mark.parametrize("public", LOW_ORDER)
def test_row_47_a_strike_with_a_key_of_low_order(paired, public):
    client = Initiator(paired.psk, bytes(28), 1, b"\x07" * 32)
    first = client.first(unlock().encode())
    strike = handshake.Responder(paired.psk, bytes(28), 1)
    strike.first(first)
    with pytest.raises(Violation) as raised:
        client.second(bytes.fromhex(public) + bytes(41))
    assert isinstance(raised.value.__cause__, ValueError), "for the key, before it looked at the tag"


@pytest.mark.parametrize("public", LOW_ORDER[:7])
def test_row_47_a_key_of_low_order_put_into_the_strikes_answer(bench, paired, public):
    def put(to_strike, fragment):
        is_hs2 = not to_strike and fragment[3] == 3
        return [fragment[:4] + bytes.fromhex(public) + fragment[36:] if is_hs2 else fragment]

    wire = bench.connect(paired, tap=put)
    assert wire.ask(unlock()) is None
    assert (wire.ended.ending, wire.ended.unanswered, wire.verified) == (Ending.VIOLATION, unlock(), False)
    assert bench.pulses == [0.5]


@pytest.mark.parametrize("length", [1, 2, 33, 34, 35, 69, 71, 512])
def test_row_47_a_handshake_of_another_length(bench, paired, length):
    stranger, hello = bench.connect_raw()
    message = (hs1_for(paired, hello)[3:] + bytes(512))[:length]
    assert refused(stranger, *cut(message, 244))


def test_row_47_an_empty_message(bench):
    stranger, _ = bench.connect_raw()
    assert refused(stranger, b"\xc0\x00\x00")


def flipped(direction, kind, place):
    """A tap that flips one bit of the next message of a kind, which is in one fragment."""
    done = []

    def tap(to_strike, fragment):
        if to_strike == direction and fragment[3] == kind and not done:
            done.append(True)
            at = 3 + place % (len(fragment) - 3)
            return [fragment[:at] + bytes([fragment[at] ^ 1 << place % 8]) + fragment[at + 1 :]]
        return [fragment]

    return tap


@pytest.mark.parametrize("place", range(70))
def test_row_48_a_bit_of_the_handshake_flipped_on_the_way_there(bench, paired, place):
    wire = bench.connect(paired, tap=flipped(True, 2, place))
    assert wire.ask(unlock()) is None
    assert wire.ended.ending is Ending.REFUSED
    assert wire.ended.unanswered == unlock()
    assert bench.pulses == []


@pytest.mark.parametrize("place", range(74))
def test_row_48_a_bit_of_the_handshake_flipped_on_the_way_back(bench, paired, place):
    wire = bench.connect(paired, tap=flipped(False, 3, place))
    assert wire.ask(unlock()) is None
    assert wire.ended.ending is Ending.VIOLATION
    assert not wire.verified
    assert wire.ended.unanswered == unlock(), "it did open: the client cannot know, and asks"
    assert bench.pulses == [0.5]


@pytest.mark.parametrize("place", range(41))
def test_row_48_a_bit_of_a_request_flipped(bench, paired, place):
    wire = bench.session(paired)
    wire.tap = flipped(True, 4, place)
    assert wire.ask(unlock()) is None
    assert wire.ended.ending is Ending.REFUSED
    assert bench.pulses == []


@pytest.mark.parametrize("place", range(44))
def test_row_48_a_bit_of_a_reply_flipped(bench, paired, place):
    wire = bench.session(paired)
    wire.tap = flipped(False, 4, place)
    assert wire.ask(QUERY) is None
    assert wire.ended.ending is Ending.VIOLATION


def test_row_49_a_request_replayed(bench, paired):
    wire = bench.session(paired)
    wire.tap = lambda to_strike, fragment: [fragment, fragment] if to_strike else [fragment]
    wire.ask(unlock())
    assert wire.ended.ending is Ending.REFUSED
    assert bench.pulses == [0.5]


def test_row_49_a_request_dropped(bench, paired):
    wire = bench.session(paired)
    wire.tap = lambda to_strike, fragment: []
    wire.ask(unlock())
    wire.tap = lambda to_strike, fragment: [fragment]
    bench.wait(6)
    assert wire.ended.ending is Ending.NO_ANSWER
    assert bench.pulses == []


def test_row_49_requests_reordered(bench, paired):
    wire = bench.session(paired)
    transport = wire.client._transport
    some = [
        cut(frames.data(transport.encrypt(frames.Request(unlock(bytes([n]) * 16), 5000).encode())), 244)[0]
        for n in (1, 2)
    ]
    wire.take_over()
    assert refused(wire, some[1])
    assert bench.pulses == []


def test_row_49_replies_reordered_or_replayed(bench, paired):
    for again in (lambda kept: [kept[0], kept[0]], lambda kept: kept[::-1]):
        wire = bench.session(paired)
        kept = []

        def keep(to_strike, fragment, kept=kept):
            if to_strike:
                return [fragment]
            kept.append(fragment)
            return []

        wire.tap = keep
        wire.ask(unlock(bench.random(16)))  # its reply, and the event of the relay
        wire.tap = lambda to_strike, fragment: [fragment]
        assert len(kept) == 2
        wire.inject(*again(kept))
        assert wire.ended.ending is Ending.VIOLATION
        bench.wait(1)


def test_row_50_a_request_before_the_handshake(bench):
    stranger, _ = bench.connect_raw()
    assert refused(stranger, *cut(frames.data(bytes(40)), 244))


def test_row_50_a_handshake_within_a_session(bench, paired):
    wire = bench.session(paired)
    wire.take_over()
    assert refused(wire, hs1_for(paired, wire.heard[0]))


def test_row_50_a_hello_request_within_a_session(bench, paired):
    wire = bench.session(paired)
    wire.take_over()
    assert refused(wire, *cut(HELLO_REQ, 20))


def test_row_50_anything_before_the_subscription(bench, paired):
    wire = bench.connect(paired, subscribe=False)
    wire.write(*cut(HELLO_REQ, 20))
    assert (wire.heard, wire.alive) == ([], False), "nothing can be notified: it hangs up"


BROKEN = {
    "no FIRST": [b"\x40\x00"],
    "two FIRST": [b"\x80\x00\x46\x02", b"\x80\x00\x46\x02"],
    "two FIRST, counted on": [b"\x80\x00\x46\x02", b"\x81\x00\x46\x02"],
    "a gap": [b"\x80\x00\x46\x02", b"\x02\x01"],
    "the same one twice": [b"\x80\x00\x46\x02", b"\x01\x01", b"\x01\x01"],
    "total 0": [b"\xc0\x00\x00\x00"],
    "total 513": [b"\x80\x02\x01\x02"],
    "total 65535": [b"\x80\xff\xff\x02"],
    "half a total": [b"\x80\x00"],
    "more than total": [b"\xc0\x00\x01\x00\x00"],
    "LAST too early": [b"\xc0\x00\x02\x00"],
    "no LAST at the end": [b"\x80\x00\x01\x00"],
    "nothing": [b""],
    "a header only": [b"\x80\x00\x46\x02", b"\x01"],
}


@pytest.mark.parametrize("fragments", BROKEN.values(), ids=BROKEN)
def test_row_51_fragments_that_nobody_would_cut(bench, fragments):
    stranger, _ = bench.connect_raw()
    assert refused(stranger, *fragments)


@pytest.mark.parametrize("fragments", BROKEN.values(), ids=BROKEN)
def test_row_51_such_fragments_to_the_client(bench, paired, fragments):
    wire = bench.session(paired)
    wire.inject(*fragments)
    assert wire.ended.ending is Ending.VIOLATION


def test_row_52_one_byte_in_three_seconds(bench, paired):
    wire, _ = bench.connect_raw()
    message = frames.hs1(1, bytes(68))
    wire.write(b"\x80" + len(message).to_bytes(2) + message[:1])
    bench.wait(1.9)
    assert wire.alive
    bench.wait(0.1)
    assert not wire.alive, "the timer hangs up; nobody has to write again"


def test_row_52_the_client_does_not_wait_for_half_a_message_either(bench, paired):
    wire = bench.session(paired)
    wire.inject(b"\x80\x00\x46\x04")
    bench.wait(1.9)
    assert wire.alive
    bench.wait(0.1)
    assert wire.ended.ending is Ending.VIOLATION


# ---- spends ----


def test_row_53_the_same_spend_after_a_reconnection(bench, paired):
    bench.connect(paired).ask(unlock())
    bench.wait(1)
    again = bench.connect(paired).ask(unlock()).state
    assert (again.result, again.spend_state) == (Result.DUPLICATE, SpendState.COMPLETE)
    assert bench.pulses == [0.5]


def test_row_53_the_same_spend_from_a_second_controller(bench, paired):
    other = bench.second(paired)
    bench.connect(paired).ask(unlock())
    assert bench.connect(other).ask(unlock()).state.result is Result.DUPLICATE
    assert bench.pulses == [0.5]


def test_row_54_the_link_is_lost_after_the_handshake_was_sent(bench, paired):
    wire = bench.connect(paired, tap=lambda to_strike, fragment: [fragment] if to_strike or fragment[3] == 1 else [])
    wire.ask(unlock())
    wire.cut()
    assert wire.ended.unanswered == unlock()
    bench.wait(6)
    state = bench.connect(paired).ask(QUERY).state
    assert queried(state, sent_ago=6.0) is Outcome.DONE
    assert bench.connect(paired).ask(unlock()).state.result is Result.DUPLICATE
    assert bench.pulses == [0.5]


def test_row_55_no_right_to_move_anything(bench, paired):
    nobody = bench.second(paired, Rights.EVENTS)
    for op in (Op.UNLOCK, Op.RELOCK, Op.HOLD):
        assert bench.connect(nobody).ask(Command(op, 50, SPEND)).state.result is Result.RIGHTS
    spender = bench.second(paired, Rights.NONE)
    assert bench.grant(paired, paired.slot, ALL_RIGHTS & ~Rights.SPEND) is Result.OK
    assert bench.grant(paired, spender.slot, Rights.SPEND) is Result.OK
    assert bench.connect(spender).ask(Command(Op.HOLD, 0, SPEND)).state.result is Result.RIGHTS
    assert bench.pulses == []


BODIES = {
    Op.EVENTS: frames.events_from(0),
    Op.SLOT_ADD: frames.SlotAdd("x", bytes(32)).encode(),
    Op.SLOT_DEL: b"\x01",
    Op.SLOT_RIGHTS: frames.SlotRights(1, ALL_RIGHTS).encode(),
}


@pytest.mark.parametrize("op", BODIES)
def test_row_55_no_right_to_administer_or_to_read(bench, paired, op):
    other = bench.second(paired, Rights.MANUAL)
    flash = bench.flash[Part.SLOTS]
    assert bench.session(other).ask(Command(op), BODIES[op]).state.result is Result.RIGHTS
    assert bench.flash[Part.SLOTS] == flash


def test_row_55_the_last_administrator_stays(bench, paired):
    wire = bench.session(paired)
    assert wire.ask(Command(Op.SLOT_DEL), bytes([paired.slot])).state.result is Result.RIGHTS
    rights = frames.SlotRights(paired.slot, Rights.SPEND).encode()
    assert wire.ask(Command(Op.SLOT_RIGHTS), rights).state.result is Result.RIGHTS
    assert wire.alive


def test_row_55_two_slots_never_spend(bench, paired):
    other = bench.second(paired)
    assert bench.grant(paired, other.slot, ALL_RIGHTS) is Result.RIGHTS
    assert bench.grant(paired, other.slot, Rights.ADMIN | Rights.MANUAL) is Result.OK


@pytest.mark.parametrize("wanted, gets", [(65535, 10.0), (1001, 10.0), (1000, 10.0), (320, 3.2), (49, 0.5), (0, 0.5)])
def test_row_56_a_pulse_of_any_length(bench, paired, wanted, gets):
    bench.connect(paired).ask(unlock(pulse_cs=wanted))
    assert bench.pulses == [gets]


def test_row_56_the_controller_vanishes_during_a_pulse(bench, paired):
    wire = bench.connect(paired)
    wire.ask(unlock(pulse_cs=65535))
    wire.cut()
    bench.wait(9.9)
    assert bench.released
    bench.wait(0.1)
    assert not bench.released


# ---- pairing ----


def try_pairing(bench, label):
    """Whether a handshake on the pairing slot succeeds with a label."""
    wire = bench.connect(Paired(STRIKE_ID, 0, label.psk))
    wire.ask(Command(Op.QUERY))
    return wire if wire.verified else None


def test_row_57_pairing_without_the_button(bench):
    assert try_pairing(bench, bench.label) is None


def test_row_57_twenty_wrong_codes_then_the_right_one(bench):
    bench.hold_button()
    for n in range(20):
        assert try_pairing(bench, Label.new(STRIKE_ID, bytes([n]) * 12)) is None
        bench.wait(1)
    assert try_pairing(bench, bench.label)


def test_row_57_one_attempt_in_a_second(bench):
    bench.hold_button()
    assert try_pairing(bench, Label.new(STRIKE_ID, bytes(12))) is None
    bench.wait(0.9)
    assert try_pairing(bench, bench.label) is None, "the right code, but too early"
    bench.wait(0.1)
    assert try_pairing(bench, bench.label)


@pytest.mark.parametrize("late, works", [(119.9, True), (120.0, False), (600.0, False)])
def test_row_57_the_right_code_after_the_window(bench, late, works):
    bench.hold_button()
    bench.wait(late)
    assert (try_pairing(bench, bench.label) is not None) is works
    assert bench.strike.pairing_open is works


def test_row_57_the_window_closes_at_the_first_slot(bench):
    bench.hold_button()
    wire = try_pairing(bench, bench.label)
    add = frames.SlotAdd("mine", bytes(32)).encode()
    assert wire.ask(Command(Op.SLOT_ADD), add).state.result is Result.OK
    assert not bench.strike.pairing_open
    assert wire.ask(Command(Op.SLOT_ADD), add).state.result is Result.RIGHTS


def test_row_57_the_window_closes_during_the_session(bench):
    bench.hold_button()
    bench.wait(100)
    wire = try_pairing(bench, bench.label)
    bench.wait(21)
    assert wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("x", bytes(32)).encode()).state.result is Result.RIGHTS


def test_row_57_the_pairing_slot_itself_opens_nothing(bench):
    bench.hold_button()
    wire = try_pairing(bench, bench.label)
    for op in (Op.UNLOCK, Op.RELOCK, Op.HOLD):
        assert wire.ask(Command(op, 50, SPEND)).state.result is Result.RIGHTS
    assert wire.ask(Command(Op.SLOT_REKEY), bytes(32)).state.result is Result.RIGHTS
    assert bench.pulses == []


def test_row_58_a_recorded_pairing_and_a_label_that_leaks_later(bench):
    bench.hold_button()
    wire = bench.connect(Paired(STRIKE_ID, 0, bench.label.psk))
    wire.ask(Command(Op.QUERY))
    rand_c = bench.random(32)
    added = frames.SlotAdded.parse(wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("x", rand_c).encode()).body)
    hello, hs2, reply = (fragment[3:] for fragment in wire.heard)
    hs1, request = (fragment[3:] for fragment in wire.sent)

    # The label's key opens HS1, which is known to have no forward secrecy and says nothing but QUERY.
    late = handshake.Responder(bench.label.psk, hello, 0)
    assert Command.parse(late.first(frames.open_hs1(hs1)[1])) == Command(Op.QUERY)
    # Whoever has the key and the record lacks both private keys: neither role with one of its own gets on.
    client = Initiator(bench.label.psk, hello, 0, b"\x07" * 32)
    client.first(Command(Op.QUERY).encode())
    with pytest.raises(Violation):
        client.second(frames.open_hs2(hs2))
    _, transport = late.second(bytes(25), b"\x07" * 32)
    for sealed in (request, reply):
        with pytest.raises(Violation):
            transport.decrypt(frames.open_data(sealed))
    # And the slot's key is made of what was said inside.
    assert slot_psk(STRIKE_ID, added.slot, rand_c, added.rand_s) not in (bench.label.psk, bytes(32))


# ---- row 59 is in test_polling.py ----


def test_row_60_a_fake_hello_with_version_99_then_the_real_strike(bench, paired):
    fake = bench.connect(
        paired, tap=lambda to_strike, fragment: [fragment if to_strike else fragment[:4] + b"\x63" + fragment[5:]]
    )
    assert fake.ended.ending is Ending.VERSION
    assert not fake.verified, "nothing is remembered"
    assert fake.sent == []
    assert bench.connect(paired).ask(unlock()).state.result is Result.OK


def test_row_60_a_strike_that_has_proved_more_before(bench, paired):
    known = Paired(paired.strike_id, paired.slot, paired.psk, version=2)
    wire = bench.connect(known)
    assert wire.ended.ending is Ending.VERSION
    assert wire.sent == []


def test_row_60_another_strikes_hello(bench, paired):
    wire = bench.connect(Paired(bytes(8), paired.slot, paired.psk))
    assert wire.ended.ending is Ending.OTHER_STRIKE
    assert wire.sent == []


def test_row_71_the_button_and_the_right_code_on_a_paired_strike(bench, paired):
    thief = bench.pair("thief")
    assert thief.slot != paired.slot
    assert bench.connect(thief).ask(unlock()).state.result is Result.RIGHTS
    bench.reboot()
    told = [(event.kind, event.value) for event in events_of(bench.session(paired))]
    assert (EventKind.SLOT_ADDED, thief.slot) in told
    assert told.count((EventKind.PAIRING_OPENED, 0)) == 2
    assert bench.pulses == []


def test_row_71_who_cuts_the_power_while_pairing_has_no_slot_without_its_event(new_bench):
    on_the_disk = []
    for effects in range(4):
        bench = new_bench()
        paired = bench.pair()
        bench.wait(1)
        bench.hold_button()
        wire = bench.connect(Paired(STRIKE_ID, 0, bench.label.psk))
        wire.ask(Command(Op.QUERY))
        bench.effects_left = effects
        wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd("thief", bytes(32)).encode())
        bench.effects_left = None
        slots, log = decode_slots(bench.flash[Part.SLOTS]), decode_log(bench.flash[Part.LOG])
        told = [(event.kind, event.value) for event in log.history.events]
        on_the_disk.append((len(slots.slots), (EventKind.SLOT_ADDED, 2) in told))
        if bench.strike is None:
            bench.power_up()
            assert bench.strike._device.keyring.slots.get(2) is None, "and who has not used it does not keep it"
        assert bench.connect(paired).ask(Command(Op.PING))
    assert on_the_disk == [(1, False), (1, True), (2, True), (2, True)]


@pytest.mark.parametrize("late, result", [(4.9, Result.OK), (6.0, Result.LATE), (59.0, Result.LATE)])
def test_row_72_a_request_that_arrives_late(bench, paired, late, result):
    wire = bench.session(paired)
    wire.hold()
    wire.send(unlock())
    bench.run()
    wire.take_over()  # its client would have given up
    bench.now += late
    reply = wire.release()[0][3:]
    answer = frames.from_strike(wire.client._transport.decrypt(frames.open_data(reply)))
    assert answer.state.result is result
    assert bench.pulses == ([0.5] if result is Result.OK else [])


def test_row_72_a_late_request_after_the_same_slot_has_reconnected(bench, paired):
    old = bench.session(paired)
    old.hold()
    old.send(unlock())
    bench.run()
    new = bench.session(paired)
    assert (old.alive, new.alive) == (False, True)
    assert old.release() == []
    assert bench.pulses == []


def test_row_73_a_query_after_another_controllers_unlock(bench, paired):
    other = bench.second(paired)
    mine, theirs, never = (bytes([n]) * 16 for n in (1, 2, 3))
    bench.connect(paired).ask(unlock(mine))
    bench.wait(1)
    bench.connect(other).ask(unlock(theirs))
    wire = bench.session(paired)
    about = {asked: wire.ask(Command(Op.QUERY, 0, asked)).state for asked in (mine, theirs, never, bytes(16))}
    assert {asked: state.spend_state for asked, state in about.items()} == {
        mine: SpendState.COMPLETE,
        theirs: SpendState.RELAY_ON,
        never: SpendState.UNSEEN,
        bytes(16): SpendState.RELAY_ON,
    }
    assert about[bytes(16)].spend_id == theirs, "zero asks for the last one"


def test_row_74_a_brown_out_between_the_ring_and_the_relay(bench, paired):
    wire = bench.connect(paired)
    bench.effects_left = 1  # Persist, and no StartPulse
    wire.ask(unlock())
    assert wire.ended.unanswered == unlock()
    bench.wait(6)
    bench.power_up()
    wire = bench.session(paired)
    state = wire.ask(QUERY).state
    assert (state.result, state.spend_state, state.relay) == (Result.OK, SpendState.RECORDED, Relay.LOCKED)
    assert queried(state, sent_ago=7.0, events=events_of(wire), heard=0) is Outcome.UNKNOWN
    assert wire.ask(unlock()).state.result is Result.DUPLICATE
    assert bench.pulses == []


def test_row_74_a_brown_out_during_the_pulse(bench, paired):
    wire = bench.connect(paired)
    wire.ask(unlock())
    bench.reboot()
    wire = bench.session(paired)
    state = wire.ask(QUERY).state
    assert state.spend_state is SpendState.RELAY_ON
    assert queried(state, sent_ago=7.0, events=events_of(wire), heard=0) is Outcome.UNKNOWN
    bench.connect(paired).ask(unlock(b"\x01" * 16))
    bench.wait(1)
    state = bench.session(paired).ask(QUERY).state
    assert state.spend_state is SpendState.RELAY_ON, "another pulse that ends does not finish this one"


def test_row_75_a_duplicate_of_what_this_client_never_sent(bench, paired):
    other = bench.second(paired)
    bench.connect(other).ask(unlock())
    state = bench.connect(paired).ask(unlock()).state
    assert answered(state, sent_before=False) is Outcome.ALREADY_SPENT
    assert bench.pulses == [0.5]


@pytest.mark.parametrize(
    "tear", [lambda ring: ring[:-1], lambda ring: b"", lambda ring: ring[:40] + b"\xff" + ring[41:], None]
)
@pytest.mark.parametrize("reboots", [0, 1])
def test_row_80_a_torn_ring(bench, paired, tear, reboots):
    bench.connect(paired).ask(unlock())
    bench.cut_power()
    if tear is None:
        del bench.flash[Part.LOG]
    else:
        bench.flash[Part.LOG] = tear(bench.flash[Part.LOG])
    bench.power_up()
    for _ in range(reboots):  # what was written at the first power-up can be read: it must not count as whole
        bench.wait(60)
        bench.reboot()
    wire = bench.session(paired)
    assert wire.ask(unlock()).state.result is Result.LOCKOUT
    assert wire.ask(Command(Op.HOLD, 0, SPEND)).state.result is Result.LOCKOUT
    assert queried(wire.ask(QUERY).state, sent_ago=10.0) is Outcome.UNKNOWN
    bench.wait(124.5)
    assert bench.connect(paired).ask(unlock()).state.result is Result.LOCKOUT
    assert bench.pulses == [0.5]
    bench.wait(0.5)
    assert bench.connect(paired).ask(unlock(b"\x01" * 16)).state.result is Result.OK
    bench.reboot()
    assert bench.connect(paired).ask(unlock(b"\x02" * 16)).state.result is Result.OK, "no lockout any more"


def test_row_81_two_controllers_from_one_backup(bench, paired):
    results = [bench.connect(paired).ask(unlock()).state.result for _ in range(2)]
    assert results == [Result.OK, Result.DUPLICATE]
    assert bench.pulses == [0.5]
