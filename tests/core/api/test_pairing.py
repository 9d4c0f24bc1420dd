"""Pairing with a gateway, both ends, and everything that may go wrong in between (row 61 of protocol F)."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from noise.backends.default.keypairs import KeyPair25519

from tests.core.doorstrike import noise
from vestibule_core import nnpsk0
from vestibule_core.api.messages import Admission, Scope, bearer, client_id, gateway_id
from vestibule_core.api.pairing import (
    MAX_FIRST,
    Applicant,
    CodeError,
    CodeSlip,
    Host,
    new_code,
    read_code,
    shown,
)
from vestibule_core.errors import MalformedMessage, Violation
from vestibule_core.note import SignerKey

CODE = new_code(bytes(range(13)))
ID = gateway_id("a" * 26)
NONCE, FINGERPRINT = b"n" * 16, b"f" * 32
WINDOW = (CODE, ID, NONCE, FINGERPRINT)
"""What both ends know of one window: its code, the gateway, its nonce and the certificate of the connection."""
ADMISSION = Admission(
    bearer("A" * 43),
    client_id("0" * 16),
    SignerKey("gateway", Ed25519PrivateKey.from_private_bytes(bytes(32))).verifier,
    "Parcel room",
    frozenset(Scope),
    False,
    (),
)


def applicant(window=WINDOW, ephemeral=b"a" * 32):
    return Applicant(*window, ephemeral)


def test_who_knows_the_code_is_admitted():
    client, gateway = applicant(), Host(*WINDOW)
    assert gateway.first(client.first("Home Assistant")) == "Home Assistant"
    assert client.second(gateway.second(ADMISSION, b"g" * 32)) == ADMISSION


def test_neither_the_name_nor_the_bearer_is_to_be_seen_on_the_way():
    client, gateway = applicant(), Host(*WINDOW)
    first = client.first("Home Assistant")
    gateway.first(first)
    second = gateway.second(ADMISSION, b"g" * 32)
    assert b"Home Assistant" not in first
    assert ADMISSION.token.encode() not in second


def hkdf(secret, salt, info):
    """RFC 5869, by its two lines."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def test_it_is_the_handshake_of_the_protocol():
    """Computed a second time, by the primitives alone."""
    name = b"VestibuleGateway/1 pair"
    psk = hkdf(CODE.encode(), b"a" * 26, name)
    sealed = applicant().first("Ada")
    chaining_key = h = hashlib.sha256(noise.NAME).digest()
    h = hashlib.sha256(h + name + b"a" * 26 + NONCE + FINGERPRINT).digest()
    chaining_key, mixed, _ = noise._derived(chaining_key, psk, 3)
    h = hashlib.sha256(h + mixed).digest()
    e = noise.public(b"a" * 32)
    assert sealed[:32] == e
    h = hashlib.sha256(h + e).digest()
    chaining_key, key = noise._derived(chaining_key, e, 2)
    assert noise.unsealed(key, 0, sealed[32:], h) == b"Ada"


# ---- row 61 ----

OTHERS = [
    ((new_code(bytes(13)), ID, NONCE, FINGERPRINT), "a wrong code"),
    ((CODE, gateway_id("e" * 26), NONCE, FINGERPRINT), "another gateway"),
    ((CODE, ID, b"m" * 16, FINGERPRINT), "an older window"),
    ((CODE, ID, NONCE, b"m" * 32), "a man in the middle, who has another certificate"),
]


@pytest.mark.parametrize("window, sentence", OTHERS, ids=[sentence for _, sentence in OTHERS])
def test_row_61_nothing_decrypts(window, sentence):
    with pytest.raises(Violation):
        Host(*WINDOW).first(applicant(window).first("Mallory"))


@pytest.mark.parametrize("window, sentence", OTHERS, ids=[sentence for _, sentence in OTHERS])
def test_row_61_an_answer_proves_that_whoever_gave_it_knows_the_code(window, sentence):
    """The fake gateway sees the first message, and answers as well as it can."""
    client, fake = applicant(), Host(*window)
    client.first("Home Assistant")
    fake.first(applicant(window).first("anybody"))
    with pytest.raises(Violation):
        client.second(fake.second(ADMISSION, b"g" * 32))


def test_row_61_a_recorded_first_message_is_worth_nothing_in_the_next_window():
    recorded = applicant().first("Home Assistant")
    assert Host(*WINDOW).first(recorded) == "Home Assistant"
    for later in (
        Host(CODE, ID, b"m" * 16, FINGERPRINT),
        Host(CODE, ID, NONCE, b"m" * 32),
        Host(new_code(bytes(13)), ID, b"m" * 16, FINGERPRINT),
    ):
        with pytest.raises(Violation):
            later.first(recorded)


def test_row_61_who_replays_a_first_message_cannot_read_the_answer():
    """In the same window, as long as it lasts: the answer is for whoever has the private key of that message."""
    client, gateway = applicant(), Host(*WINDOW)
    gateway.first(client.first("Home Assistant"))
    replayer = applicant(ephemeral=b"r" * 32)
    replayer.first("Mallory")
    with pytest.raises(Violation):
        replayer.second(gateway.second(ADMISSION, b"g" * 32))


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_key_of_low_order_is_refused(point, monkeypatch):
    """By whoever knows the code even: the secret that it gives is known to everybody who listens."""

    def put(connection, private):
        pair = KeyPair25519.from_private_bytes(private)
        pair.public_bytes = bytes.fromhex(point)
        connection.noise_protocol.handshake_state.e = pair

    monkeypatch.setattr(nnpsk0, "_set_ephemeral", put)
    sealed = applicant().first("Mallory")
    monkeypatch.undo()
    assert sealed[:32].hex() == point
    with pytest.raises(Violation):
        Host(*WINDOW).first(sealed)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_an_answer_with_a_key_of_low_order_is_refused(point):
    client = applicant()
    client.first("Home Assistant")
    with pytest.raises(Violation):
        client.second(bytes.fromhex(point) + bytes(200))


@given(st.binary(max_size=400))
def test_any_bytes_are_no_first_message(body):
    with pytest.raises(Violation):
        Host(*WINDOW).first(body)


@given(st.data())
def test_a_first_message_with_any_bit_changed_is_none(data):
    sealed = bytearray(applicant().first("Home Assistant"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Violation):
        Host(*WINDOW).first(bytes(sealed))


@given(st.data())
def test_an_answer_with_any_bit_changed_is_none(data):
    client, gateway = applicant(), Host(*WINDOW)
    gateway.first(client.first("Home Assistant"))
    sealed = bytearray(gateway.second(ADMISSION, b"g" * 32))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Violation):
        client.second(bytes(sealed))


def test_a_message_that_is_too_long_is_not_looked_at():
    client = applicant()
    client._handshake.first(b"")
    with pytest.raises(Violation):
        Host(*WINDOW).first(bytes(MAX_FIRST + 1))


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\u202e"])
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(Violation):
        Host(*WINDOW).first(applicant().first(name))


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(Violation):
        Host(*WINDOW).first(applicant()._handshake.first(b"\xff"))


def test_a_gateway_that_speaks_another_version_is_told_from_a_stranger():
    client, gateway = applicant(), Host(*WINDOW)
    gateway.first(client.first("Home Assistant"))
    newer = gateway._handshake.second(b'{"token":"new"}', b"g" * 32)[0]
    with pytest.raises(MalformedMessage):
        client.second(newer)


# ---- the code ----


@given(st.binary(min_size=13, max_size=13))
def test_a_code_is_read_as_it_is_shown(random):
    code = new_code(random)
    assert len(shown(code)) == 23
    assert read_code(shown(code)) == code
    assert read_code(f" {shown(code).lower().replace('0', 'o').replace('1', 'i')} ") == code


@pytest.mark.parametrize(
    "typed, slip",
    [
        ("", CodeSlip.LENGTH),
        ("A" * 19, CodeSlip.LENGTH),
        ("A" * 21, CodeSlip.LENGTH),
        ("U" * 20, CodeSlip.CHARACTER),
        ("A" * 19 + "\u00c4", CodeSlip.CHARACTER),
    ],
)
def test_what_was_typed_wrongly_is_said_and_not_repeated(typed, slip):
    with pytest.raises(CodeError) as raised:
        read_code(typed)
    assert raised.value.slip is slip
    assert not typed or typed not in str(raised.value)
