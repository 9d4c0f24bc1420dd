"""The link: what each end may say, and what the controller signs."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import date

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import jws
from vestibule_core.errors import MalformedMessage, Violation
from vestibule_core.link import messages
from vestibule_core.link.messages import (
    FROM_CLOUD,
    FROM_CONTROLLER,
    Accepted,
    AskChallenge,
    AskList,
    Begin,
    Challenge,
    Greeting,
    Hello,
    IssuedPart,
    Keys,
    LinkedDoor,
    NoChallenge,
    Outcome,
    Ping,
    Pong,
    SignedChallenge,
    Unlock,
    claimed_controller,
    read_challenge,
    read_hello,
    write_challenge,
    write_hello,
)
from vestibule_core.model import Code, Word, issuer, new_door_id
from vestibule_core.note import SignerKey

A, B = issuer("https://a.example"), issuer("https://b.example")
DOOR, OTHER_DOOR = new_door_id(bytes(16)), new_door_id(bytes([1] * 16))


def signer(seed, name="vestibule.example/1"):
    return SignerKey(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


KEY, OTHER = signer(1), signer(2)
N, OTHER_N = bytes(range(16)), bytes(16)
HELLO = Hello(
    KEY.verifier,
    A,
    N,
    bytes([7] * 16),
    (LinkedDoor(DOOR, "Haustür", "Europe/Berlin", 52.5, -13.4), LinkedDoor(OTHER_DOOR, "Garage", "Europe/Berlin")),
    3,
    "vestibule.example/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
)
CHALLENGE = SignedChallenge(KEY.verifier, DOOR, A, "A" * 22, 60)


def hello_refused(said, controller=KEY.verifier, of=A, nonce=N):
    with pytest.raises(Violation):
        read_hello(said, controller, of, nonce)


def challenge_refused(said, controller=KEY.verifier, of=A, door=DOOR):
    with pytest.raises(Violation):
        read_challenge(said, controller, of, door)


# ---- hello ----


def test_the_cloud_reads_the_hello_of_a_controller_that_it_knows():
    assert read_hello(write_hello(KEY, HELLO), KEY.verifier, A, N) == HELLO


def test_a_hello_says_whose_key_to_look_up():
    assert claimed_controller(write_hello(KEY, HELLO)) == KEY.verifier


@pytest.mark.parametrize("said", [None, "", "a.b.c", write_challenge(KEY, CHALLENGE)])
def test_what_is_no_hello_says_nothing(said):
    with pytest.raises(Violation):
        claimed_controller(said)


def test_79_a_hello_for_another_controller_is_refused():
    hello_refused(write_hello(OTHER, replace(HELLO, controller=OTHER.verifier)))


def test_79_a_hello_in_another_controller_s_name_is_refused():
    hello_refused(write_hello(OTHER, HELLO))
    # under its key, too: the name is part of who it is
    hello_refused(write_hello(KEY, replace(HELLO, controller=signer(1, "another").verifier)))


def test_79_a_hello_that_is_replayed_on_another_connection_is_refused():
    hello_refused(write_hello(KEY, HELLO), nonce=OTHER_N)


def test_79_a_hello_to_another_carrier_is_refused():
    hello_refused(write_hello(KEY, HELLO), of=B)


def test_79_a_challenge_is_no_hello_and_a_hello_no_challenge():
    hello_refused(write_challenge(KEY, CHALLENGE))
    challenge_refused(write_hello(KEY, HELLO))


# ---- challenge ----


def test_the_cloud_reads_a_door_s_challenge():
    assert read_challenge(write_challenge(KEY, CHALLENGE), KEY.verifier, A, DOOR) == CHALLENGE


def test_79_an_unsigned_challenge_gets_no_token():
    text = write_challenge(KEY, CHALLENGE)
    challenge_refused(text.rpartition(".")[0] + ".")
    challenge_refused(text.rpartition(".")[0] + "." + "A" * 86)
    challenge_refused(CHALLENGE.nonce)


def test_79_another_door_s_challenge_gets_no_token():
    challenge_refused(write_challenge(KEY, replace(CHALLENGE, door=OTHER_DOOR)))


def test_79_another_controller_s_challenge_gets_no_token():
    challenge_refused(write_challenge(OTHER, CHALLENGE))
    challenge_refused(write_challenge(OTHER, replace(CHALLENGE, controller=OTHER.verifier)))
    challenge_refused(write_challenge(KEY, replace(CHALLENGE, controller=signer(1, "another").verifier)))


def test_79_a_challenge_given_to_another_carrier_gets_no_token():
    challenge_refused(write_challenge(KEY, replace(CHALLENGE, issuer=B)))


# ---- both ----


@pytest.mark.parametrize(
    "write, value",
    [
        (write_hello, replace(HELLO, doors=HELLO.doors * 13)),
        (write_hello, replace(HELLO, nonce=b"")),
        (write_hello, replace(HELLO, key_set=-1)),
        (write_hello, replace(HELLO, checkpoint="")),
        (write_hello, replace(HELLO, doors=(replace(HELLO.doors[0], lat=90.5),))),
        (write_hello, replace(HELLO, doors=(replace(HELLO.doors[0], lon=-180.5),))),
        (write_hello, replace(HELLO, doors=(replace(HELLO.doors[0], name="n" * 61),))),
        (write_challenge, replace(CHALLENGE, nonce="A" * 21)),
        (write_challenge, replace(CHALLENGE, nonce="A" * 21 + "B")),
        (write_challenge, replace(CHALLENGE, nonce="A" * 20 + "+A")),
        (write_challenge, replace(CHALLENGE, ttl=0)),
        (write_challenge, replace(CHALLENGE, ttl=61)),
    ],
)
def test_what_no_cloud_would_read_is_not_signed(write, value):
    with pytest.raises(ValueError, match="cannot be signed"):
        write(KEY, value)


def test_a_hello_that_is_too_long_for_a_frame_is_not_signed():
    doors = tuple(replace(HELLO.doors[0], name="ü" * 60) for _ in range(messages.MAX_DOORS))
    with pytest.raises(ValueError, match="too long"):
        write_hello(KEY, replace(HELLO, doors=doors))


@given(st.data())
def test_any_changed_character_is_refused(data):
    for text, refused in (
        (write_hello(KEY, HELLO), hello_refused),
        (write_challenge(KEY, CHALLENGE), challenge_refused),
    ):
        place = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.characters(codec="ascii").filter(lambda character, at=text[place]: character != at))
        refused(text[:place] + other + text[place + 1 :])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(anything)
def test_nothing_that_comes_raises_anything_but_a_violation(said):
    hello_refused(said)
    challenge_refused(said)
    with pytest.raises(Violation):
        claimed_controller(said)


@given(st.sampled_from(sorted(messages._HELLO.write(HELLO))), anything)
def test_whatever_a_controller_signs_in_a_member_raises_nothing_else(member, value):
    payload = messages._HELLO.write(HELLO) | {member: value}
    text = jws.sign(messages._Identity(KEY), messages.HELLO_TYPE, json.dumps(payload).encode())
    with suppress(Violation):
        read_hello(text, KEY.verifier, A, N)


# ---- frames ----

FROM_THE_CLOUD = [
    Begin(N, A, "Swift Parcels"),
    AskChallenge(0, DOOR),
    Unlock(2**31 - 1, "token"),
    Keys(bytes(32), "set"),
    IssuedPart("list"),
    Ping(),
]
FROM_THE_CONTROLLER = [
    Greeting("jwt"),
    Greeting("jwt", N),
    Challenge(1, "jwt"),
    NoChallenge(1, Word.REFUSED),
    Outcome(1, Word.GRANTED, Code.GRANTED),
    Outcome(1, Word.INVALID_TOKEN),
    Accepted(N, DOOR, Code.GRANTED),
    AskList(date(2026, 11, 23)),
    Pong(),
]


@pytest.mark.parametrize("frame", FROM_THE_CLOUD)
def test_the_controller_reads_what_the_cloud_may_say_and_the_cloud_does_not(frame):
    assert FROM_CLOUD.decode(FROM_CLOUD.encode(frame)) == frame
    with pytest.raises(MalformedMessage):
        FROM_CONTROLLER.decode(FROM_CLOUD.encode(frame))


@pytest.mark.parametrize("frame", FROM_THE_CONTROLLER)
def test_the_cloud_reads_what_the_controller_may_say_and_the_controller_does_not(frame):
    assert FROM_CONTROLLER.decode(FROM_CONTROLLER.encode(frame)) == frame
    with pytest.raises(MalformedMessage):
        FROM_CLOUD.decode(FROM_CONTROLLER.encode(frame))


def test_the_largest_texts_fit_into_a_frame():
    longest = "x" * messages.MAX_TEXT
    assert len(FROM_CLOUD.encode(Keys(bytes(32), longest))) <= messages.MAX_FRAME
    assert len(FROM_CLOUD.encode(IssuedPart(longest))) <= messages.MAX_FRAME
    assert len(FROM_CONTROLLER.encode(Greeting(longest, N))) <= messages.MAX_FRAME


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"ping"',
        b"{}",
        b'{"type":"ping","more":1}',
        b'{"type":"ping","type":"ping"}',
        b'{"type":"hang_up"}',
        b'{"type":["ping"]}',
        b'{"type":"challenge","id":-1,"door":"%b"}' % DOOR.encode(),
        b'{"type":"challenge","id":true,"door":"%b"}' % DOOR.encode(),
        b'{"type":"challenge","id":1,"door":"%b"}' % DOOR.upper().encode(),
        b'{"type":"unlock","id":1,"token":""}',
        b'{"type":"unlock","id":1,"token":"%b"}' % (b"x" * 1501),
        b'{"type":"ping"}' + b" " * messages.MAX_FRAME,
    ],
)
def test_another_frame_is_malformed(body):
    with pytest.raises(MalformedMessage):
        FROM_CLOUD.decode(body)
    with pytest.raises(MalformedMessage):
        FROM_CONTROLLER.decode(body)


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_no_frame_raises_anything_else(body):
    for message in (FROM_CLOUD, FROM_CONTROLLER):
        with pytest.raises(MalformedMessage):
            message.decode(body)


def test_no_token_and_no_secret_is_in_a_representation():
    assert "eyJ" not in repr(Unlock(1, "eyJ"))
    assert "secret" not in repr(Greeting("jwt", N))
