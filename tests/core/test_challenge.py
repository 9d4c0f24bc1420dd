"""A challenge is fresh, and of one door and one issuer: protocol A.1."""

import base64
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import some_doors
from vestibule_core import b64url, challenge
from vestibule_core.model import Code, issuer

SECRET = bytes(range(32))
DOOR, OTHER_DOOR = (door.id for door in some_doors(2))
ISSUER = issuer("https://parcels.example")
SALT = b"salt"


def test_the_bytes_of_a_challenge_are_those_of_the_protocol():
    """The seconds, u32be | r[4] | a MAC of 8 bytes over door | iss | t | r, in base64url (docs/protocol.md)."""
    head = (5000).to_bytes(4) + SALT
    proof = hashlib.blake2s(DOOR.encode() + ISSUER.encode() + head, key=SECRET, digest_size=8).digest()
    expected = base64.urlsafe_b64encode(head + proof).rstrip(b"=").decode()
    assert challenge.make(SECRET, DOOR, ISSUER, 5000.9, SALT) == expected


@pytest.mark.parametrize(
    "age, code",
    [
        (0.0, None),
        (59.9, None),
        (60.0, None),
        (61.0, Code.NONCE_EXPIRED),
        (600.0, Code.NONCE_EXPIRED),  # asleep: boot time counts it
    ],
)
def test_a_challenge_is_live_for_a_minute(age, code):
    nonce = challenge.make(SECRET, DOOR, ISSUER, 5000.0, SALT)
    assert challenge.check(SECRET, DOOR, ISSUER, 5000.0 + age, nonce) is code


@pytest.mark.parametrize(
    "secret, door, carrier, why",
    [
        (bytes(32), DOOR, ISSUER, "made before a restart, or by another controller"),
        (SECRET, OTHER_DOOR, ISSUER, "of another door"),
        (SECRET, DOOR, issuer("https://other.example"), "of another issuer"),
    ],
)
def test_a_challenge_is_good_nowhere_else(secret, door, carrier, why):
    nonce = challenge.make(SECRET, DOOR, ISSUER, 5000.0, SALT)
    assert challenge.check(secret, door, carrier, 5000.0, nonce) is Code.NONCE_UNKNOWN


# What a token can say in ``non``: token.py refuses any other spelling before it comes here (attacks 16 and 26).
NONCES = st.binary(min_size=16, max_size=16).map(b64url.encode)


@given(st.integers(0, 127))
def test_no_bit_of_a_challenge_can_be_changed(bit):
    raw = base64.urlsafe_b64decode(challenge.make(SECRET, DOOR, ISSUER, 5000.0, SALT) + "==")
    changed = b64url.encode((int.from_bytes(raw) ^ 1 << bit).to_bytes(16))
    assert challenge.check(SECRET, DOOR, ISSUER, 5000.0, changed) is Code.NONCE_UNKNOWN


@given(NONCES)
def test_a_made_up_challenge_is_unknown(nonce):
    assert challenge.check(SECRET, DOOR, ISSUER, 5000.0, nonce) is Code.NONCE_UNKNOWN


def test_two_challenges_of_one_second_differ_by_their_salt():
    assert challenge.make(SECRET, DOOR, ISSUER, 5000.0, b"aaaa") != challenge.make(
        SECRET, DOOR, ISSUER, 5000.0, b"bbbb"
    )


def test_boot_time_counts_sleep():
    """CLOCK_MONOTONIC would stop while the machine sleeps, and an old challenge would come back to life (attack 31)."""
    from vestibule_core import model

    assert getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) == model._BOOT_CLOCK
