"""The vectors of protocol B.2, each of them, to the bit: vectors.json, which docs/doorstrike.md quotes.

By the library that the strike and the client use, and by the primitives alone (noise.py).
"""

import json
from pathlib import Path

import pytest

from tests.core.doorstrike import noise
from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.fragments import Reassembler, cut
from vestibule_core.doorstrike.handshake import Initiator, Responder
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.wire import (
    Advertisement,
    Caps,
    Command,
    Contact,
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
from vestibule_core.model import issuer
from vestibule_core.token import spend_id

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text("ascii"))


def given(vector, name):
    """The bytes that a vector has under a name."""
    return bytes.fromhex(VECTORS[vector][name])


UNLOCK = Command(Op.UNLOCK, 50, given("spend_id", "spend_id"))
OPEN = State(
    result=Result.OK,
    relay=Relay.PULSING,
    contact=Contact.UNKNOWN,
    tampered=False,
    bolt_secured=False,
    spend_state=SpendState.RELAY_ON,
    slots_gen=0,
    battery=100,
    evt_seq=1,
    spend_id=given("spend_id", "spend_id"),
)
REQUEST = frames.Request(Command(Op.QUERY), 5000)
REPLY = frames.Reply(Op.QUERY, OPEN)


def test_the_advertisement_of_the_vector():
    seen = Advertisement(1, Flags.ATTENTION | Flags.FACTORY, 0x0102, given("advertisement", "strike_id"))
    assert seen.encode() == given("advertisement", "bytes")
    assert Advertisement.parse(given("advertisement", "bytes")) == seen


def test_the_hello_of_the_vector():
    hello = Hello(1, Caps.CONTACT | Caps.TAMPER, given("hello", "strike_id"), given("hello", "nonce"))
    assert hello.encode() == given("hello", "bytes")
    assert Hello.parse(given("hello", "bytes")) == hello


def test_the_spend_id_of_the_vector():
    vector = VECTORS["spend_id"]
    assert spend_id(issuer(vector["iss"]), vector["jti"]) == given("spend_id", "spend_id")


def test_the_command_of_the_vector():
    assert UNLOCK.encode() == given("command", "bytes")
    assert Command.parse(given("command", "bytes")) == UNLOCK


def test_the_state_of_the_vector():
    assert OPEN.encode() == given("state", "bytes")
    assert State.parse(given("state", "bytes")) == OPEN


@pytest.mark.parametrize("vector, value", [("command", UNLOCK), ("state", OPEN), ("request", REQUEST.command)])
def test_the_numbers_beside_the_bytes_are_what_the_bytes_say(vector, value):
    beside = VECTORS[vector]
    for name in ("op", "pulse_cs", "result", "relay", "contact", "tampered", "bolt_secured", "spend_state"):
        if name in beside:
            assert beside[name] == getattr(value, name)
    assert given(vector, "spend_id") == value.spend_id


def both_ends():
    psk, hello, slot = given("handshake", "psk"), given("hello", "bytes"), VECTORS["handshake"]["slot"]
    client = Initiator(psk, hello, slot, given("handshake", "client_private"))
    strike = Responder(psk, hello, slot)
    hs1 = frames.hs1(slot, client.first(UNLOCK.encode()))
    assert hs1 == given("handshake", "hs1")
    number, sealed = frames.open_hs1(hs1)
    assert number == slot
    assert Command.parse(strike.first(sealed)) == UNLOCK
    sealed, at_strike = strike.second(OPEN.encode(), given("handshake", "strike_private"))
    assert frames.hs2(sealed) == given("handshake", "hs2")
    plaintext, at_client = client.second(frames.open_hs2(given("handshake", "hs2")))
    assert State.parse(plaintext) == OPEN
    return at_client, at_strike


def test_the_handshake_of_the_vector():
    at_client, at_strike = both_ends()
    assert at_client.handshake_hash == at_strike.handshake_hash == given("handshake", "h")


def test_the_request_and_the_reply_of_the_vector():
    at_client, at_strike = both_ends()
    data, reply = given("request", "data"), given("reply", "data")
    assert REQUEST.encode() == given("request", "plaintext")
    assert frames.data(at_client.encrypt(REQUEST.encode())) == data
    assert frames.Request.parse(at_strike.decrypt(frames.open_data(data))) == REQUEST
    assert REPLY.encode() == given("reply", "plaintext")
    assert frames.data(at_strike.encrypt(REPLY.encode())) == reply
    assert frames.from_strike(at_client.decrypt(frames.open_data(reply))) == REPLY


def by_primitives():
    handshake = noise.Handshake(given("handshake", "psk"), given("hello", "bytes"), VECTORS["handshake"]["slot"])
    first = handshake.first(given("handshake", "hs1"), given("handshake", "client_private"))
    assert first == given("command", "bytes")
    second = handshake.second(given("handshake", "hs2"), given("handshake", "strike_private"))
    assert second == given("state", "bytes")
    return handshake


def test_the_handshake_of_the_vector_by_its_primitives_alone():
    handshake = by_primitives()
    for name in ("hs1_key", "shared_secret", "hs2_key", "h", "client_key", "strike_key"):
        assert getattr(handshake, name) == given("handshake", name)
    assert given("handshake", "prologue") == b"DoorStrike/1" + given("hello", "bytes") + b"\1"


def test_the_request_and_the_reply_of_the_vector_by_their_primitives_alone():
    handshake = by_primitives()
    assert noise.unsealed(handshake.client_key, 0, given("request", "data")[1:]) == given("request", "plaintext")
    assert noise.unsealed(handshake.strike_key, 0, given("reply", "data")[1:]) == given("reply", "plaintext")


@pytest.mark.parametrize("place", range(28))
def test_the_handshake_of_the_vector_is_bound_to_every_byte_of_hello(place):
    """The keys of the session do not depend on the prologue: whether it is bound shows in HS1 and HS2 only."""
    hello = bytearray(given("hello", "bytes"))
    hello[place] ^= 1
    strike = Responder(given("handshake", "psk"), bytes(hello), 1)
    with pytest.raises(Violation):
        strike.first(frames.open_hs1(given("handshake", "hs1"))[1])


def test_the_handshake_of_the_vector_is_bound_to_its_slot():
    strike = Responder(given("handshake", "psk"), given("hello", "bytes"), 2)
    with pytest.raises(Violation):
        strike.first(frames.open_hs1(given("handshake", "hs1"))[1])


def test_the_fragments_of_the_vector():
    fragments = tuple(map(bytes.fromhex, VECTORS["fragments"]["fragments"]))
    assert cut(given("fragments", "message"), VECTORS["fragments"]["size"]) == fragments
    together = Reassembler()
    assert [together.feed(fragment, 0.0) for fragment in fragments] == [None] * 3 + [given("fragments", "message")]


def test_the_pairing_key_of_the_vector():
    label = Label.typed(given("pairing", "strike_id"), VECTORS["pairing"]["code"])
    assert label.psk == given("pairing", "psk_pair")


def test_the_list_of_slots_of_the_vector():
    listed = tuple(
        frames.SlotListed(one["slot"], Rights(one["rights"]), one["name"], one["waiting"])
        for one in VECTORS["slot_list"]["slots"]
    )
    assert frames.slot_list(listed) == given("slot_list", "bytes")
    assert frames.open_slot_list(given("slot_list", "bytes")) == listed


def test_the_slot_key_of_the_vector():
    random = given("slot", "rand_c"), given("slot", "rand_s")
    assert slot_psk(given("slot", "strike_id"), VECTORS["slot"]["slot"], *random) == given("slot", "slot_psk")
