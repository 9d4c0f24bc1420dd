"""The token's profile: protocol A.1 and steps 1 to 6 of A.2. The attacks on it are in test_attacks.py."""

import base64
import json
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import assume, given
from hypothesis import strategies as st
from joserfc import jwk as jose_jwk
from joserfc import jws as jose_jws

from tests.simulated import ABSENT, ISSUED_AT, Carrier, compact, forge, signing_key, some_doors
from vestibule_core import b64url, token
from vestibule_core.errors import Refused
from vestibule_core.keys import Alg
from vestibule_core.model import Code, issuer
from vestibule_core.token import Claims, Confirmations, DriverProof, SignedRefusal, issue, verify

DOORS = some_doors(1)
NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
EVIDENCE = b64url.encode(bytes(32))


def keys_of(carrier):
    return {key.kid: key for key in carrier.trusted}


def carrier_of(alg):
    return Carrier(f"Parcels {alg}", DOORS, alg=alg)


CARRIERS = {alg: carrier_of(alg) for alg in Alg}


def code_of(text, carrier, **also):
    """Return why ``text`` is refused; fail if it is not."""
    with pytest.raises(Refused) as raised:
        verify(text, keys_of(carrier), carrier.issuer, **also)
    return raised.value.code


def pem(key):
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key):
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


# ---- a good token ----


@pytest.mark.parametrize("alg", Alg)
def test_a_good_token_says_what_the_carrier_signed(alg):
    carrier = CARRIERS[alg]
    text = carrier.token(NONCE, jti="BBBBBBBBBBBBBBBBBBBBBA", evd=EVIDENCE)
    unlock = verify(text, keys_of(carrier), carrier.issuer)
    assert unlock.claims == Claims(
        issuer=carrier.issuer,
        door=DOORS[0].id,
        jti="BBBBBBBBBBBBBBBBBBBBBA",
        issued_at=ISSUED_AT,
        expires_at=ISSUED_AT + 60,
        subject="driver-4711",
        stop="stop-815",
        nonce=NONCE,
        confirmations=Confirmations(DriverProof.PASSKEY, "route-7", 12, 8, 3, ISSUED_AT - 5),
        evidence=EVIDENCE,
    )
    assert unlock.key.kid == carrier.key.kid
    assert unlock.text == text
    assert unlock.spend_key == (carrier.issuer, "BBBBBBBBBBBBBBBBBBBBBA")


def test_the_evidence_is_optional():
    carrier = CARRIERS[Alg.EDDSA]
    assert verify(carrier.token(NONCE), keys_of(carrier), None).claims.evidence is None


def test_a_presenter_for_any_issuer_may_present_it():
    carrier = CARRIERS[Alg.EDDSA]
    assert verify(carrier.token(NONCE), keys_of(carrier), None)


def test_a_text_that_was_spent_is_known_before_any_work(monkeypatch):
    carrier = CARRIERS[Alg.EDDSA]
    unlock = verify(text := carrier.token(NONCE), keys_of(carrier), None)
    monkeypatch.setattr(token.TrustedKey, "verifies", lambda *_: pytest.fail("a signature was checked"))
    assert code_of(text, carrier, spent={unlock.text}) is Code.ALREADY_SPENT


def test_spend_id_of_the_protocol():
    """The vector of protocol B.2."""
    assert token.spend_id(issuer("https://v.carrier.example"), "A" * 22).hex() == "a4e505fd1134c5416a2bb4fd6af00c91"


@pytest.mark.parametrize(
    "claims, why",
    [
        ({"iat": 1_700_000_000, "exp": 1_700_000_001, "chk": {"req": 1_700_000_000}}, "the earliest"),
        ({"iat": 2**53 - 2, "exp": 2**53 - 1, "chk": {"req": 2**53 - 1}}, "the latest"),
        ({"exp": ISSUED_AT + 120}, "the longest life"),
        ({"sub": "a", "stp": "b"}, "the shortest references"),
        ({"sub": "a" * 40, "stp": "._~:/-" + "Z" * 34}, "the longest, with every mark"),
        ({"chk": {"gps": {"d": 0, "acc": 0, "age": 0}}}, "nothing between phone and door"),
        ({"chk": {"gps": {"d": 10**6, "acc": 10**6, "age": 10**6}}}, "as far as can be said"),
        ({"chk": {"drv": "badge"}}, "whether a badge will do is the building's to say"),
    ],
)
def test_the_edges_of_the_profile_are_inside(claims, why):
    carrier = CARRIERS[Alg.EDDSA]
    assert verify(carrier.token(NONCE, **claims), keys_of(carrier), None)


GPS = {"d": 1, "acc": 1, "age": 1}


@pytest.mark.parametrize(
    "claims, why",
    [
        ({"iat": 1_699_999_999}, "before this profile"),
        ({"iat": 2**53 - 1, "exp": 2**53}, "beyond 2^53"),
        ({"exp": ISSUED_AT}, "no life at all"),
        ({"exp": ISSUED_AT - 1}, "ends before it begins"),
        ({"sub": ""}, "nobody"),
        ({"sub": "a" * 41}, "one character too many"),
        ({"stp": "a b"}, "a space"),
        ({"sub": None}, "null is not absent"),
        ({"evd": None}, "null is not absent"),
        ({"evd": EVIDENCE[:-1]}, "evidence of 31 bytes"),
        ({"evd": EVIDENCE[:-1] + "B"}, "a second spelling of the evidence"),
        ({"non": NONCE[:-1]}, "a short challenge"),
        ({"non": NONCE[:-1] + "B"}, "a second spelling of the challenge"),
        ({"non": NONCE + "=="}, "a padded challenge"),
        ({"jti": "B" * 21 + "C"}, "a second spelling of the number"),
        ({"aud": "door:" + "a" * 25 + "b"}, "a second spelling of a door"),
        ({"iss": "http://parcels.example"}, "not https"),
        ({"ver": True}, "true is not 1"),
        ({"ver": 0}, "version 0"),
        ({"act": ["unlock"]}, "a list of actions"),
        ({"chk": []}, "no object of confirmations"),
        ({"chk": {"drv": "pin"}}, "an unknown proof"),
        ({"chk": {"drv": None}}, "no proof"),
        ({"chk": {"drv": ["passkey"]}}, "a list of proofs"),
        ({"chk": {"rte": ""}}, "no route"),
        ({"chk": {"rte": 7}}, "a number for a route"),
        ({"chk": {"gps": None}}, "no position"),
        ({"chk": {"gps": GPS | {"lat": 52}}}, "a coordinate: never"),
        ({"chk": {"gps": GPS | {"d": -1}}}, "a negative distance"),
        ({"chk": {"gps": GPS | {"d": 10**6 + 1}}}, "a distance beyond saying"),
        ({"chk": {"gps": GPS | {"acc": True}}}, "true for metres"),
        ({"chk": {"gps": GPS | {"age": "3"}}}, "a string for seconds"),
        ({"chk": {"req": 0}}, "asked in 1970"),
    ],
)
def test_outside_of_the_profile(claims, why):
    carrier = CARRIERS[Alg.EDDSA]
    assert code_of(carrier.token(NONCE, **claims), carrier) is Code.BAD_CLAIMS


@pytest.mark.parametrize("name", ["d", "acc", "age"])
def test_each_member_of_the_position_is_needed(name):
    carrier = CARRIERS[Alg.EDDSA]
    gps = {key: 1 for key in GPS if key != name}
    assert code_of(carrier.token(NONCE, chk={"gps": gps}), carrier) is Code.BAD_CLAIMS


@pytest.mark.parametrize("length", [1500, 1501])
def test_a_text_of_more_than_1500_characters_is_not_looked_at(length):
    carrier = CARRIERS[Alg.EDDSA]
    text = "A" * (length - 88 - 100) + "." + "A" * 100 + "." + "A" * 86
    assert len(text) == length
    assert code_of(text, carrier) is Code.MALFORMED


@pytest.mark.parametrize("size, code", [(1024, Code.BAD_CLAIMS), (1025, Code.MALFORMED)])
def test_a_payload_of_more_than_a_kilobyte_is_malformed(size, code):
    with pytest.raises(Refused) as raised:
        token._claims(b"{" + b" " * (size - 2) + b"}")
    assert raised.value.code is code


def test_a_refusal_before_the_signature_names_no_key_and_one_after_it_does():
    carrier = CARRIERS[Alg.EDDSA]
    with pytest.raises(Refused) as unsigned:
        verify(carrier.token(NONCE)[:-4] + "AAAA", keys_of(carrier), None)
    assert not isinstance(unsigned.value, SignedRefusal)
    with pytest.raises(SignedRefusal) as signed:
        verify(carrier.token(NONCE, ver=2), keys_of(carrier), None)
    assert signed.value.key.kid == carrier.key.kid


# ---- independent signers and verifiers ----


@pytest.mark.parametrize("alg", Alg)
def test_a_token_made_by_pyjwt_is_accepted(alg):
    carrier = CARRIERS[alg]
    headers = {"kid": carrier.key.kid, "typ": "door-unlock+jwt"}
    text = jwt.encode(carrier.claims(NONCE), pem(carrier.key), algorithm=alg.value, headers=headers)
    assert verify(text, keys_of(carrier), carrier.issuer).claims.nonce == NONCE


@pytest.mark.parametrize("alg", Alg)
def test_a_token_made_by_joserfc_is_accepted(alg):
    carrier = CARRIERS[alg]
    key = jose_jwk.import_key(pem(carrier.key), "OKP" if alg is Alg.EDDSA else "EC")
    text = jose_jws.serialize_compact(carrier.header(), compact(carrier.claims(NONCE)), key, algorithms=[alg.value])
    assert verify(text, keys_of(carrier), carrier.issuer).claims.nonce == NONCE


@pytest.mark.parametrize("alg", Alg)
def test_what_issue_makes_is_verified_by_pyjwt_and_joserfc(alg):
    carrier = CARRIERS[alg]
    text = issue(carrier.key, verify(carrier.token(NONCE), keys_of(carrier), None).claims)
    said = jwt.decode(
        text,
        public_pem(carrier.key),
        algorithms=[alg.value],
        audience=DOORS[0].id,
        issuer=carrier.issuer,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert said["non"] == NONCE
    key = jose_jwk.import_key(public_pem(carrier.key), "OKP" if alg is Alg.EDDSA else "EC")
    independent = jose_jws.deserialize_compact(text, key, algorithms=[alg.value])
    assert json.loads(independent.payload) == said
    assert independent.headers() == carrier.header()


# ---- issue and verify are two sides of one profile ----

REFERENCES = st.text("ABCXYZabcxyz0189._~:/-", min_size=1, max_size=40)
SIXTEEN_BYTES = st.binary(min_size=16, max_size=16).map(b64url.encode)


@st.composite
def claims(draw):
    issued_at = draw(st.integers(1_700_000_000, 2**53 - 200))
    return Claims(
        issuer=CARRIERS[Alg.EDDSA].issuer,
        door=DOORS[0].id,
        jti=draw(SIXTEEN_BYTES),
        issued_at=issued_at,
        expires_at=issued_at + draw(st.integers(1, 120)),
        subject=draw(REFERENCES),
        stop=draw(REFERENCES),
        nonce=draw(SIXTEEN_BYTES),
        confirmations=Confirmations(
            driver=draw(st.sampled_from(DriverProof)),
            route=draw(REFERENCES),
            distance=draw(st.integers(0, 10**6)),
            accuracy=draw(st.integers(0, 10**6)),
            position_age=draw(st.integers(0, 10**6)),
            requested_at=draw(st.integers(1_700_000_000, 2**53 - 1)),
        ),
        evidence=draw(st.none() | st.binary(min_size=32, max_size=32).map(b64url.encode)),
    )


@given(claims())
def test_whatever_is_issued_is_verified_to_the_same_claims(said):
    carrier = CARRIERS[Alg.EDDSA]
    assert verify(issue(carrier.key, said), keys_of(carrier), carrier.issuer).claims == said


def test_issue_signs_nothing_that_no_door_would_take():
    carrier = CARRIERS[Alg.EDDSA]
    good = verify(carrier.token(NONCE), keys_of(carrier), None).claims
    with pytest.raises(Refused):
        issue(carrier.key, replace(good, expires_at=good.issued_at + 121))
    with pytest.raises(Refused):
        issue(carrier.key, replace(good, subject="Jane Doe"))


# ---- any input ----

GOOD = {alg: CARRIERS[alg].token(NONCE) for alg in Alg}


@pytest.mark.parametrize("alg", Alg)
@given(data=st.data())
def test_no_character_of_a_token_can_be_changed(alg, data):
    text = GOOD[alg]
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(max_codepoint=127) | st.sampled_from("AQgw.-_="))
    assume(text[position] != character)
    assert code_of(text[:position] + character + text[position + 1 :], CARRIERS[alg])


@pytest.mark.parametrize("alg", Alg)
def test_no_bit_of_a_token_can_be_flipped(alg):
    """Every bit of header, payload and signature, re-encoded without a fault."""
    parts = [base64.urlsafe_b64decode(part + "==") for part in GOOD[alg].split(".")]
    for number, part in enumerate(parts):
        for bit in range(0, len(part) * 8, 7):  # 7 visits each position of a byte
            flipped = (int.from_bytes(part) ^ 1 << bit).to_bytes(len(part))
            text = ".".join(b64url.encode(p) for p in [*parts[:number], flipped, *parts[number + 1 :]])
            assert code_of(text, CARRIERS[alg])


@pytest.mark.parametrize("alg", Alg)
@given(data=st.data())
def test_no_part_of_a_token_can_be_cut_out_or_put_in(alg, data):
    text = GOOD[alg]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    middle = data.draw(st.text(max_size=5))
    changed = text[:start] + middle + text[end:]
    assume(changed != text)
    assert code_of(changed, CARRIERS[alg])


@given(st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text()))
def test_anything_at_all_is_refused_and_never_an_error(anything):
    assert code_of(anything, CARRIERS[Alg.EDDSA]) is Code.MALFORMED


TOKENISH = st.builds(
    lambda header, payload, signature: ".".join(
        (b64url.encode(header), b64url.encode(payload), b64url.encode(signature))
    ),
    st.binary(max_size=100) | st.just(compact(CARRIERS[Alg.EDDSA].header())),
    st.binary(max_size=100),
    st.binary(min_size=64, max_size=64),
)


@given(TOKENISH)
def test_anything_in_the_form_of_a_token_is_refused_and_never_an_error(text):
    assert code_of(text, CARRIERS[Alg.EDDSA])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["unlock", "passkey", NONCE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted(CARRIERS[Alg.EDDSA].claims(NONCE))


@given(JSON | st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_signed_json_is_judged_and_never_an_error(payload):
    carrier = CARRIERS[Alg.EDDSA]
    assert code_of(forge(carrier.header(), compact(payload), carrier.key), carrier) in {
        Code.MALFORMED,
        Code.BAD_CLAIMS,
    }


@given(st.sampled_from(NAMES), JSON)
def test_any_value_of_one_claim_is_judged_and_never_an_error(name, value):
    carrier = CARRIERS[Alg.EDDSA]
    text = forge(carrier.header(), carrier.claims(NONCE) | {name: value}, carrier.key)
    try:
        verify(text, keys_of(carrier), None)
    except Refused as refusal:
        allowed = {Code.MALFORMED, Code.BAD_CLAIMS, Code.LIFETIME_TOO_LONG, Code.WRONG_ISSUER}
        assert refusal.code in allowed  # noqa: PT017 - the value may also be a good one


@given(JSON | st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), JSON))
def test_any_header_is_judged_and_never_an_error(header):
    carrier = CARRIERS[Alg.EDDSA]
    assert code_of(forge(compact(header), carrier.claims(NONCE), carrier.key), carrier) in {
        Code.MALFORMED,
        Code.BAD_HEADER,
        Code.WRONG_TYPE,
        Code.UNKNOWN_KEY,
        Code.ALG_MISMATCH,
    }


@given(st.binary(max_size=60))
def test_base64url_has_one_spelling(raw):
    segment = b64url.encode(raw).encode()
    if raw:
        assert token._decode(segment) == raw
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = 0
    for last in alphabet if raw else b"":
        try:
            accepted += token._decode(segment[:-1] + bytes([last])) == raw
        except Refused as refusal:
            assert refusal.code is Code.MALFORMED  # noqa: PT017 - one of them is accepted
    assert accepted == bool(raw)


def test_one_character_is_no_base64():
    with pytest.raises(Refused):
        token._decode(b"AAAAA")


def test_absent_leaves_a_claim_out():
    """The builder of the other tests does what they rely on."""
    assert "sub" not in CARRIERS[Alg.EDDSA].claims(NONCE, sub=ABSENT)
    assert signing_key(Alg.EDDSA, "x").kid == signing_key(Alg.EDDSA, "x").kid != signing_key(Alg.EDDSA, "y").kid


@pytest.mark.parametrize("alg", Alg)
def test_a_token_says_which_door_it_is_for_and_nothing_else_says_anything(alg):
    """Whoever carries it to another controller has to know where to; that controller verifies it itself."""
    carrier = CARRIERS[alg]
    text = carrier.token(NONCE)
    assert token.claimed_door(text) == carrier.claims(NONCE)["aud"]
    header, payload, signature = text.split(".")
    assert token.claimed_door(f"{header}.{payload}.{signature[::-1]}") is not None, "nothing is verified"
    for other in (None, 7, "", "..", "a.b.c", text.encode(), f"{text}.", "é" + text, text * 4, f"{header}.{header}.x"):
        assert token.claimed_door(other) is None
