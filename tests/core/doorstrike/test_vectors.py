"""The vectors of protocol B.2, each of them, to the bit."""

from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.handshake import Initiator, Responder
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.wire import Caps, Command, Contact, Hello, Op, Relay, Result, SpendState, State
from vestibule_core.model import issuer
from vestibule_core.token import spend_id

PSK = bytes(range(32))
HELLO = bytes.fromhex("01010003a1b2c3d4e5f60718404142434445464748494a4b4c4d4e4f")
SPEND_ID = bytes.fromhex("a4e505fd1134c5416a2bb4fd6af00c91")
HS1 = bytes.fromhex(
    "0201a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a20975fa626ff1cbe241e5d2f34e6b2ab656b854a28ba64687c9"
    "f2d03efb31f08396a2adb4ff"
)
STATE = bytes.fromhex("000102006400000001a4e505fd1134c5416a2bb4fd6af00c91")
HS2 = bytes.fromhex(
    "03ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59008f9bb16e509ed6eafab76a5fb128fe2cd9511188a31c1d48"
    "69cfef9fa173b65af41996a3eab3378a"
)
H = bytes.fromhex("730d6383a82e6ee0e6df0305d8cb92ed3279aba52ce64b1c506f2cb8da316b8f")
DATA = bytes.fromhex("040ceaf1e0085c72b1aac2fed90fed0ca6c872a751ff480ebfe5d6cfa3d3076b7833517f196fb0a9ba")
REPLY = bytes.fromhex("04487580c792c3c3012a4fb1fe1ed2fd986e7ed8123d5660dd5a4427b938357bb13023395e2f51647f3666b4")
UNLOCK = Command(Op.UNLOCK, 50, SPEND_ID)
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
    spend_id=SPEND_ID,
)


def test_the_hello_of_the_vector():
    hello = Hello(1, Caps.CONTACT | Caps.TAMPER, bytes.fromhex("a1b2c3d4e5f60718"), bytes(range(0x40, 0x50)))
    assert hello.encode() == HELLO
    assert Hello.parse(HELLO) == hello


def test_the_spend_id_of_the_vector():
    assert spend_id(issuer("https://v.carrier.example"), "A" * 22) == SPEND_ID


def test_the_state_of_the_vector():
    assert OPEN.encode() == STATE
    assert State.parse(STATE) == OPEN


def both_ends():
    client = Initiator(PSK, HELLO, 1, b"\x01" * 32)
    strike = Responder(PSK, HELLO, 1)
    hs1 = frames.hs1(1, client.first(UNLOCK.encode()))
    assert hs1 == HS1
    slot, sealed = frames.open_hs1(hs1)
    assert slot == 1
    assert Command.parse(strike.first(sealed)) == UNLOCK
    sealed, at_strike = strike.second(OPEN.encode(), b"\x02" * 32)
    assert frames.hs2(sealed) == HS2
    plaintext, at_client = client.second(frames.open_hs2(HS2))
    assert State.parse(plaintext) == OPEN
    return at_client, at_strike


def test_the_handshake_of_the_vector():
    at_client, at_strike = both_ends()
    assert at_client.handshake_hash == at_strike.handshake_hash == H


def test_the_request_and_the_reply_of_the_vector():
    at_client, at_strike = both_ends()
    request = frames.Request(Command(Op.QUERY), 5000)
    assert frames.data(at_client.encrypt(request.encode())) == DATA
    assert frames.Request.parse(at_strike.decrypt(frames.open_data(DATA))) == request
    reply = frames.Reply(Op.QUERY, OPEN)
    assert frames.data(at_strike.encrypt(reply.encode())) == REPLY
    assert frames.from_strike(at_client.decrypt(frames.open_data(REPLY))) == reply


def test_the_pairing_key_of_the_vector():
    label = Label.typed(bytes.fromhex("a1b2c3d4e5f60718"), "7K3M-9QXT-2VWH-PD4R-8ZB0")
    assert label.psk.hex() == "679ead9c9dba1c4390ad6551fb285fd7ef112ef0cf7eb3189fd5d3b4076968c3"


def test_the_slot_key_of_the_vector():
    psk = slot_psk(bytes.fromhex("a1b2c3d4e5f60718"), 2, b"\x0c" * 32, b"\x0d" * 32)
    assert psk.hex() == "b05f4634c4eca33ff6ed23e53dd4a2046909e71c464110eaacfd059187ac88e0"
