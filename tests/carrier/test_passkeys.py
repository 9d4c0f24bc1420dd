"""Passkeys: a device proves who asks, for this request, for this page; whatever else it signed proves nothing."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrier import passkeys
from carrier.passkeys import Assertion, NotProven, Party, Registration
from tests.carrier.authenticator import BE, BS, Authenticator
from vestibule_core import b64url

PARTY = Party("swift.example", "https://swift.example", "Swift Parcels")
CONTENT = {
    "request": "req:a",
    "stop": "stop:a",
    "door": "door:a",
    "position": {"lat": 52.5, "lon": 13.4, "accuracy": 8, "at": 1_790_000_000},
    "asked_at": 1_790_000_001,
    "random": b64url.encode(bytes(32)),
}


def device(**how):
    return Authenticator(PARTY.origin, PARTY.rp_id, **how)


def read_registration(said):
    return Registration(
        b64url.decode(said["id"].encode()),
        b64url.decode(said["clientDataJSON"].encode()),
        b64url.decode(said["attestationObject"].encode()),
        tuple(said["transports"]),
    )


def read_assertion(said):
    return Assertion(
        *(b64url.decode(said[name].encode()) for name in ("id", "clientDataJSON", "authenticatorData", "signature"))
    )


def register(owner, challenge=b"c" * 32):
    options = passkeys.registration_options(PARTY, challenge, user_handle=b"d" * 16, name="Kim", known=())
    return passkeys.verify_registration(PARTY, challenge, read_registration(owner.create(options)))


def assert_by(owner, challenge, made, *, signs=None, sign_count=None, public_key=None):
    options = passkeys.assertion_options(PARTY, challenge if signs is None else signs, [owner.credential_id])
    return passkeys.verify_assertion(
        PARTY,
        challenge,
        read_assertion(owner.get(options)),
        public_key=public_key or made.public_key,
        sign_count=made.sign_count if sign_count is None else sign_count,
    )


CHALLENGE = passkeys.challenge_of(passkeys.canonical(CONTENT))


# ---- registration ----


def test_a_device_is_registered_and_proves_who_asks_for_this_request():
    owner = device()
    made = register(owner)
    assert made.credential_id == owner.credential_id
    assert made.sign_count == 1
    assert not made.backed_up
    proof = assert_by(owner, CHALLENGE, made)
    assert proof.user_verified
    assert proof.count_rose
    assert proof.sign_count == 2


def test_a_passkey_that_its_maker_keeps_is_marked():
    assert register(device(flags=BE | BS)).backed_up


def test_a_device_is_asked_to_know_its_owner_and_to_keep_the_key_and_not_who_made_it():
    options = passkeys.registration_options(PARTY, b"c" * 32, user_handle=b"d", name="Kim", known=[b"x"])
    assert options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert options["attestation"] == "none"
    assert options["rp"] == {"name": "Swift Parcels", "id": "swift.example"}
    assert [each["id"] for each in options["excludeCredentials"]] == [b64url.encode(b"x")]
    assert passkeys.assertion_options(PARTY, b"c" * 32, [])["userVerification"] == "required"


@pytest.mark.parametrize(
    "how",
    [
        {"verifies_user": False},
        {"user_is_there": False},
        {"cross_origin": True},
        {"flags": BS},  # backed up, and cannot be
    ],
    ids=lambda how: next(iter(how)),
)
def test_no_device_is_registered_without_its_owner_or_out_of_another_page(how):
    with pytest.raises(NotProven):
        register(device(**how))


@pytest.mark.parametrize(
    "origin, rp_id",
    [("https://evil.example", PARTY.rp_id), (PARTY.origin, "evil.example"), ("http://swift.example", PARTY.rp_id)],
)
def test_no_device_is_registered_for_another_origin_or_domain(origin, rp_id):
    with pytest.raises(NotProven):
        register(Authenticator(origin, rp_id))


def test_no_device_is_registered_under_the_name_of_another_credential():
    options = passkeys.registration_options(PARTY, b"c" * 32, user_handle=b"d", name="Kim", known=())
    said = device().create(options, id=b64url.encode(os.urandom(32)))
    with pytest.raises(NotProven, match="another credential"):
        passkeys.verify_registration(PARTY, b"c" * 32, read_registration(said))


def test_an_answer_to_another_challenge_registers_nothing():
    options = passkeys.registration_options(PARTY, b"c" * 32, user_handle=b"d", name="Kim", known=())
    with pytest.raises(NotProven):
        passkeys.verify_registration(PARTY, b"d" * 32, read_registration(device().create(options)))


# ---- assertion ----


@pytest.mark.parametrize(
    "other",
    [
        {"request": "req:b"},
        {"stop": "stop:b"},
        {"door": "door:b"},
        {"position": CONTENT["position"] | {"lat": 52.500001}},
        {"position": CONTENT["position"] | {"at": 1_790_000_001}},
        {"asked_at": 1_790_000_002},
        {"random": b64url.encode(bytes(31) + b"\1")},
    ],
    ids=lambda other: next(iter(other)),
)
def test_an_assertion_for_another_request_proves_nothing(other):
    owner = device()
    made = register(owner)
    elsewhere = passkeys.challenge_of(passkeys.canonical(CONTENT | other))
    with pytest.raises(NotProven):
        assert_by(owner, CHALLENGE, made, signs=elsewhere)
    assert assert_by(owner, CHALLENGE, made).count_rose


def test_an_assertion_for_another_page_or_domain_or_inside_another_page_proves_nothing():
    owner = device()
    made = register(owner)
    for change in ({"origin": "https://evil.example"}, {"rp_id": "evil.example"}, {"cross_origin": True}):
        liar = owner.copy()
        for name, value in change.items():
            setattr(liar, name, value)
        with pytest.raises(NotProven):
            assert_by(liar, CHALLENGE, made)


def test_an_assertion_by_another_device_proves_nothing():
    owner, other = device(), device()
    made = register(owner)
    register(other)
    with pytest.raises(NotProven):
        assert_by(other, CHALLENGE, made)


def test_an_assertion_without_anybody_there_proves_nothing():
    owner = device()
    made = register(owner)
    owner.user_is_there = False
    with pytest.raises(NotProven):
        assert_by(owner, CHALLENGE, made)


def test_a_device_that_did_not_verify_its_owner_says_so():
    owner = device()
    made = register(owner)
    owner.verifies_user = False
    assert not assert_by(owner, CHALLENGE, made).user_verified


def test_a_cloned_device_is_found_by_its_counter():
    owner = device()
    made = register(owner)
    clone = owner.copy()
    seen = assert_by(owner, CHALLENGE, made).sign_count
    assert not assert_by(clone, CHALLENGE, made, sign_count=seen).count_rose
    assert assert_by(owner, CHALLENGE, made, sign_count=seen).count_rose


def test_a_device_that_does_not_count_stays_at_zero_and_may_not_go_back_to_it():
    owner = device(counter=None)
    made = register(owner)
    assert assert_by(owner, CHALLENGE, made).count_rose
    assert not assert_by(owner, CHALLENGE, made, sign_count=1).count_rose


def test_a_changed_signature_proves_nothing():
    owner = device()
    made = register(owner)
    said = read_assertion(owner.get(passkeys.assertion_options(PARTY, CHALLENGE, [])))
    for place in range(0, len(said.authenticator_data), 5):
        changed = bytearray(said.authenticator_data)
        changed[place] ^= 1
        answer = Assertion(said.credential_id, said.client_data, bytes(changed), said.signature)
        with pytest.raises(NotProven):
            passkeys.verify_assertion(PARTY, CHALLENGE, answer, public_key=made.public_key, sign_count=0)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=100))
def test_whatever_a_stranger_sends_is_not_proven_and_nothing_else(client_data, data, signature):
    made = register(_OWNER)
    for said in (client_data, _client_data("webauthn.get", CHALLENGE), _client_data("webauthn.create", CHALLENGE)):
        with pytest.raises(NotProven):
            passkeys.verify_assertion(
                PARTY, CHALLENGE, Assertion(b"i", said, data, signature), public_key=made.public_key, sign_count=0
            )
        with pytest.raises(NotProven):
            passkeys.verify_registration(PARTY, CHALLENGE, Registration(b"i", said, data, ()))


_CBOR = st.recursive(
    st.none() | st.booleans() | st.integers(-8, 300) | st.binary(max_size=80) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.integers(-4, 4) | st.sampled_from(["fmt", "attStmt", "authData", "sig", "alg", "x5c"]), inner
        )
    ),
    max_leaves=8,
)


@given(_CBOR, st.sampled_from(["none", "packed", "tpm", "fido-u2f", "apple", 7]), _CBOR)
def test_no_key_and_no_statement_of_any_form_breaks_it(key, fmt, statement):
    import cbor2

    owner = device()
    attested = bytes(16) + len(owner.credential_id).to_bytes(2) + owner.credential_id + cbor2.dumps(key)
    data = owner._authenticator_data(0x40) + attested
    attestation = cbor2.dumps({"fmt": fmt, "attStmt": statement, "authData": data})
    answer = Registration(owner.credential_id, _client_data("webauthn.create", CHALLENGE), attestation, ())
    with pytest.raises(NotProven):
        passkeys.verify_registration(PARTY, CHALLENGE, answer)


@pytest.mark.parametrize("client_data", [b"[]", b"{}", b'{"type":1,"challenge":2,"origin":3}', b"\xff", b"", b"7"])
def test_client_data_of_any_form_is_read_or_refused(client_data):
    with pytest.raises(NotProven):
        passkeys.challenge_in(client_data)
    assert passkeys.challenge_in(_client_data("webauthn.get", CHALLENGE)) == CHALLENGE


def _client_data(kind, challenge):
    return json.dumps({"type": kind, "challenge": b64url.encode(challenge), "origin": PARTY.origin}).encode()


_OWNER = device()
