"""``vestibule-carrier conformance --token``: its verdict is the building's, on whatever text, and it always says why.

The building is a real controller with a real journal (tests/simulated.py). For texts of every kind, the command and the
building have to agree in the code, and what is said to be wrong has to be there if and only if something is.
"""

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from carrier.__main__ import main
from carrier.conformance import diagnosis, judging, keyfile
from carrier.conformance.judging import Known, Verdict
from tests.simulated import ABSENT, ISSUED_AT, Carrier, Site, compact, forge, signing_key, some_doors
from vestibule_core import b64url, keys, keyset, token
from vestibule_core.errors import Refused
from vestibule_core.keys import Alg, KeyStatus
from vestibule_core.keyset import KeySet, PublishedKey, Use
from vestibule_core.link.messages import FROM_CLOUD, Keys
from vestibule_core.model import Code, Limit
from vestibule_core.policy import EvidenceLimits
from vestibule_core.token import DriverProof

DOORS = some_doors(2)
NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
EVIDENCE = b64url.encode(bytes(32))
CARRIERS = {alg: Carrier(f"Parcels {alg}", DOORS, alg=alg) for alg in Alg}
ED = CARRIERS[Alg.EDDSA]
STRANGER = signing_key(Alg.EDDSA, "a stranger")


def known(carrier=ED, **changes):
    """What a building knows of this carrier, with a challenge open at its first door."""
    keys = {key.kid: key for key in carrier.trusted}
    return replace(Known(keys, ISSUED_AT, carrier.issuer, DOORS[0].id, NONCE), **changes)


def judged(text, of):
    """Return the verdict and the report on a text, having made sure that they agree with each other."""
    verdict = judging.judge(text, of)
    report = judging.report(text, of, verdict)
    refused = [step for step in report.steps if step.result == "refused"]
    assert [step.code for step in refused] == ([verdict.code.value] if verdict.code else [])
    assert all(step.change for step in refused)
    assert report.refused is (verdict.code is not None)
    return verdict, report


def said(text, of=None):
    """Return all that is said to be wrong with a text."""
    of = of or known()
    return [*diagnosis.look(text, of.keys, of.issuer, of.now)]


def agree(text, of):
    """The building's function and what is found by looking further say the same."""
    found = said(text, of)
    try:
        unlock = token.verify(text, of.keys, of.issuer)
    except Refused as refusal:
        code = refusal.code
    else:
        code = None
        found += diagnosis.look_further(unlock, of.door, of.nonce, of.limits)
    verdict, report = judged(text, of)
    if code is not None:
        assert verdict.code is code
    if verdict.code is None:
        assert found == []
        return
    first = judging.step_of(verdict, found)
    assert found[0].step == first, found
    assert verdict.code in {finding.code for finding in found if finding.step == first}, found
    assert len(report.also) == sum(finding.step != first for finding in found)


# ---- tokens of every kind ----


def signed(payload, carrier=ED, key=None, **members):
    return forge(carrier.header(**members), payload, key or carrier.key)


def raw_payload(old, new, carrier=ED, **claims):
    """Return a signed token in whose payload one text is put in another's place."""
    payload = compact(carrier.claims(NONCE, **claims)).decode()
    assert old in payload
    return signed(payload.replace(old, new, 1).encode(), carrier)


def gps(**members):
    return {"chk": {"gps": {"d": 12, "acc": 8, "age": 3} | members}}


def split(text):
    return text.split(".")


GOOD = ED.token(NONCE)
HEADER, PAYLOAD, SIGNATURE = split(GOOD)
SIGNING = f"{HEADER}.{PAYLOAD}"


def by(sign):
    """Return a token whose signature is made otherwise."""
    return f"{SIGNING}.{b64url.encode(sign(SIGNING.encode()))}"


D_AT = compact(ED.claims(NONCE)).decode().index('"d":12') + 1

BROKEN = {
    # 1: the form
    "nothing": ("", "MALFORMED", "one segment"),
    "two segments": (SIGNING, "MALFORMED", "2 segments"),
    "four segments": (f"{GOOD}.AAAA", "MALFORMED", "4 segments"),
    "too long": (GOOD + "A" * 1500, "MALFORMED", "1500 are the most"),
    "far too long": ("A" * 5_000_000, "MALFORMED", "5000000 characters"),
    "padded": (GOOD + "==", "MALFORMED", "without padding"),
    "base64": (GOOD.replace("-", "+").replace("_", "/") + "+", "MALFORMED", "base64url has - and _"),
    "a line break": (f"{SIGNING}.\n{SIGNATURE}", "MALFORMED", "no line breaks"),
    "a blank before": (f" {GOOD}", "MALFORMED", "character 1 of the text is ' '"),
    "not ASCII": (f"{GOOD}\N{BLACK HEART SUIT}", "MALFORMED", "is '\\u2665'"),
    "no payload": (f"{HEADER}..{SIGNATURE}", "MALFORMED", "the payload is empty"),
    "no signature": (f"{SIGNING}.", "MALFORMED", "there is none"),
    "HS256": (f"{SIGNING}.{b64url.encode(bytes(32))}", "MALFORMED", "HMAC (HS256)"),
    "RS256": (f"{SIGNING}.{b64url.encode(bytes(256))}", "MALFORMED", "RSA"),
    "DER": (by(lambda _: encode_dss_signature(2**255 - 1, 2**255 - 1)), "MALFORMED", "DER-encoded"),
    "a signature cut short": (GOOD[:-1], "MALFORMED", "has 85 characters"),
    "spare bits in the header": (
        f"{HEADER[:-1]}{chr(ord(HEADER[-1]) + 1)}.{PAYLOAD}.{SIGNATURE}",
        "MALFORMED",
        "header",
    ),
    "a header of one character": (f"A.{PAYLOAD}.{SIGNATURE}", "MALFORMED", "a length that base64 cannot have"),
    "an empty header": (f".{PAYLOAD}.{SIGNATURE}", "MALFORMED", "the header is not JSON at character 1"),
    "a long payload": (signed(b'{"x":"' + b"A" * 1400 + b'"}'), "MALFORMED", "1500 are the most"),
    "nested deeply": (signed(b"[" * 20_000 + b"]" * 20_000), "MALFORMED", "1500 are the most"),
    "a stranger's cut short": (signed({}, kid=STRANGER.kid)[:-4], "MALFORMED", "has 82 characters"),
    # 2: the header
    "header is no JSON": (forge(b"{alg}", b"{}", ED.key), "MALFORMED", "the header is not JSON at character 2"),
    "header is a list": (forge(b"[]", b"{}", ED.key), "BAD_HEADER", "the header is no JSON object"),
    "header member twice": (
        forge(compact(ED.header())[:-1] + b',"alg":"none"}', ED.claims(NONCE), ED.key),
        "MALFORMED",
        'the member "alg" twice, at character',
    ),
    "escaped header member twice": (
        forge(compact(ED.header())[:-1] + b',"\\u0061lg":"none"}', ED.claims(NONCE), ED.key),
        "MALFORMED",
        '"alg" twice',
    ),
    "header with a fraction": (signed({}, typ=1.5), "MALFORMED", "1.5: a whole number"),
    "header with a number": (signed({}, typ=1), "BAD_HEADER", "a text is needed, not a number"),
    "no kid": (signed({}, kid=ABSENT), "BAD_HEADER", "lacks the member kid"),
    "kid is a list": (signed({}, kid=["x"]), "BAD_HEADER", "not a list"),
    "kid is a number": (signed({}, kid=7), "BAD_HEADER", "a text is needed, not a number"),
    "alg is an object": (signed({}, alg={}), "BAD_HEADER", "not an object"),
    "typ is null": (signed({}, typ=None), "BAD_HEADER", "not null"),
    "jwk": (signed({}, jwk=ED.key.jwk()), "BAD_HEADER", "takes no key from a token"),
    "jku": (signed({}, jku="https://parcels.example"), "BAD_HEADER", "fetches nothing"),
    "cty": (signed({}, cty="json"), "BAD_HEADER", "exactly alg, kid and typ"),
    "typ JWT": (signed({}, typ="JWT"), "WRONG_TYPE", 'a token has "door-unlock+jwt"'),
    "a key set": (signed({}, typ="door-keys+jwt"), "WRONG_TYPE", "this is a key set"),
    "header with white space": (
        forge(compact(ED.header()) + b" ", {}, ED.key),
        "MALFORMED",
        "something after its JSON",
    ),
    # 3: the key
    "kid of nobody": (signed({}, kid="key-1"), "UNKNOWN_KEY", "the signature is of"),
    "stranger": (signed({}, key=STRANGER, kid=STRANGER.kid), "UNKNOWN_KEY", ED.key.kid),
    "short kid of a stranger": (signed({}, key=STRANGER, kid="1"), "UNKNOWN_KEY", "RFC 7638 thumbprint"),
    "alg none": (signed({}, alg="none"), "ALG_MISMATCH", "so alg is EdDSA"),
    "alg Ed25519": (signed({}, alg="Ed25519"), "ALG_MISMATCH", "so alg is EdDSA"),
    # 4: the signature
    "spare bits in the payload": (
        f"{HEADER}.{PAYLOAD[:-1]}{chr(ord(PAYLOAD[-1]) + 1)}.{SIGNATURE}",
        "MALFORMED",
        "the payload ends in another way",
    ),
    "spare bits in the signature": (
        f"{SIGNING}.{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}",
        "MALFORMED",
        "the signature ends in another way",
    ),
    "stranger under our kid": (signed({}, key=STRANGER), "BAD_SIGNATURE", "of another key, or over other bytes"),
    "signed over the payload": (
        by(lambda _: ED.key.sign(b64url.decode(PAYLOAD.encode()))),
        "BAD_SIGNATURE",
        "it is over the payload's bytes alone",
    ),
    "signed over the payload segment": (by(lambda _: ED.key.sign(PAYLOAD.encode())), "BAD_SIGNATURE", "segment alone"),
    "signed over JSON": (
        by(lambda _: ED.key.sign(b64url.decode(HEADER.encode()) + b"." + b64url.decode(PAYLOAD.encode()))),
        "BAD_SIGNATURE",
        "not encoded",
    ),
    "signed over a hash": (by(lambda m: ED.key.sign(hashlib.sha256(m).digest())), "BAD_SIGNATURE", "SHA-256 hash"),
    "signed over a long hash": (by(lambda m: ED.key.sign(hashlib.sha512(m).digest())), "BAD_SIGNATURE", "SHA-512 hash"),
    "signed with a line break": (by(lambda m: ED.key.sign(m + b"\n")), "BAD_SIGNATURE", "and a line break"),
    "signed with padding": (
        by(
            lambda _: ED.key.sign(
                b".".join(base64.urlsafe_b64encode(b64url.decode(part.encode())) for part in (HEADER, PAYLOAD))
            )
        ),
        "BAD_SIGNATURE",
        "segments with padding",
    ),
    # 5: the claims
    "exp twice": (
        raw_payload('"act"', f'"exp":{ISSUED_AT + 60},"act"'),
        "MALFORMED",
        'the member "exp" twice, at character',
    ),
    "d twice": (raw_payload('"d":12', '"d":12,"d":500'), "MALFORMED", '"d" twice'),
    "d twice, escaped": (raw_payload('"d":12', '"d":12,"\\u0064":500'), "MALFORMED", '"d" twice'),
    "twice in a list": (raw_payload('"ver":1', '"ver":[{"a":1,"a":2}],"x":"\\u0041"'), "MALFORMED", '"a" twice'),
    "d is a float": (
        raw_payload('"d":12', '"d":12.5'),
        "MALFORMED",
        f"payload member chk.gps.d (character {D_AT} of the payload) is 12.5: a whole number is needed",
    ),
    "exp has an exponent": (raw_payload(str(ISSUED_AT + 60), "1.79e9"), "MALFORMED", "1.79e9: a whole number"),
    "exp is NaN": (raw_payload(str(ISSUED_AT + 60), "NaN"), "MALFORMED", "NaN: a whole number"),
    "a fraction in a list": (raw_payload('"ver":1', '"ver":[1.5]'), "MALFORMED", "the number 1.5"),
    "not JSON": (signed(b'{"ver":1,}'), "MALFORMED", "the payload is not JSON at character"),
    "a raw line break": (raw_payload("driver-4711", "driver\n4711"), "MALFORMED", "Invalid control character"),
    "white space before": (signed(b" " + compact(ED.claims(NONCE))), "MALFORMED", "begins with white space"),
    "white space after": (signed(compact(ED.claims(NONCE)) + b"\n"), "MALFORMED", "something after its JSON"),
    "two objects": (signed(compact(ED.claims(NONCE)) + b"{}"), "MALFORMED", "something after its JSON"),
    "a byte order mark": (signed(b"\xef\xbb\xbf" + compact(ED.claims(NONCE))), "MALFORMED", "a byte order mark"),
    "UTF-16": (signed(json.dumps({"ver": 1}).encode("utf-16")), "MALFORMED", "a byte order mark"),
    "UTF-16 without a mark": (signed(json.dumps({"ver": 1}).encode("utf-16-le")), "MALFORMED", "not JSON"),
    "an umlaut": (raw_payload("driver-4711", "Jürgen"), "MALFORMED", "that is not ASCII"),
    "payload is a list": (signed(b"[]"), "BAD_CLAIMS", "the payload is no JSON object"),
    "payload is a text": (signed(b'"x"'), "BAD_CLAIMS", "the payload is no JSON object"),
    "nested": (signed(b"[" * 400 + b"]" * 400), "BAD_CLAIMS", "no JSON object"),
    **{
        f"without {name}": (ED.token(NONCE, **{name: ABSENT}), "BAD_CLAIMS", f"lacks the member {name}")
        for name in ("ver", "iss", "aud", "jti", "iat", "exp", "act", "sub", "stp", "non", "chk")
    },
    **{
        f"without chk.{name}": (ED.token(NONCE, chk={name: ABSENT}), "BAD_CLAIMS", f"lacks the member chk.{name}")
        for name in ("drv", "rte", "gps", "req")
    },
    "without chk.gps.age": (
        ED.token(NONCE, chk={"gps": {"d": 1, "acc": 1}}),
        "BAD_CLAIMS",
        "lacks the member chk.gps.age",
    ),
    "chk is a list": (ED.token(NONCE, chk=[]), "BAD_CLAIMS", "an object is needed"),
    "gps is null": (ED.token(NONCE, chk={"gps": None}), "BAD_CLAIMS", "an object is needed"),
    "cnf": (ED.token(NONCE, cnf={"jkt": "x"}), "BAD_CLAIMS", "leave it out: a phone does not present tokens"),
    "nbf": (ED.token(NONCE, nbf=ISSUED_AT), "BAD_CLAIMS", "freshness is the challenge's"),
    "coordinates": (ED.token(NONCE, **gps(lat=52, lon=13)), "BAD_CLAIMS", "coordinates never leave the carrier"),
    "chk with a name": (ED.token(NONCE, chk={"name": "Erika"}), "BAD_CLAIMS", "exactly drv, rte, gps, req"),
    "evd is null": (ED.token(NONCE, evd=None), "BAD_CLAIMS", "or leave it out is needed, not null"),
    "evd is short": (ED.token(NONCE, evd=EVIDENCE[:-1]), "BAD_CLAIMS", "SHA-256 in base64url"),
    "ver is 2": (ED.token(NONCE, ver=2), "BAD_CLAIMS", "is 2: 1 is needed"),
    "ver is true": (ED.token(NONCE, ver=True), "BAD_CLAIMS", "is true: 1 is needed"),
    "ver is a text": (ED.token(NONCE, ver="1"), "BAD_CLAIMS", 'is "1": 1 is needed'),
    "iat in milliseconds": (
        ED.token(NONCE, iat=ISSUED_AT * 10**9, exp=ISSUED_AT * 10**9 + 60),
        "BAD_CLAIMS",
        "not milliseconds",
    ),
    "exp is a text": (ED.token(NONCE, exp=str(ISSUED_AT + 60)), "BAD_CLAIMS", "not a text"),
    "exp is minus nothing": (raw_payload(f'"exp":{ISSUED_AT + 60}', '"exp":-0'), "BAD_CLAIMS", "is -0"),
    "exp is huge": (raw_payload(f'"exp":{ISSUED_AT + 60}', '"exp":' + "9" * 400), "BAD_CLAIMS", "is 999"),
    "exp is iat": (ED.token(NONCE, exp=ISSUED_AT), "BAD_CLAIMS", "exp has to be later than iat"),
    "a year": (ED.token(NONCE, exp=ISSUED_AT + 365 * 86400), "LIFETIME_TOO_LONG", "31536000 s after iat; 120 s"),
    "act": (ED.token(NONCE, act="hold_open"), "BAD_CLAIMS", '"unlock" is needed'),
    "aud is a list": (ED.token(NONCE, aud=[DOORS[0].id]), "BAD_CLAIMS", "not a list"),
    "aud in upper case": (ED.token(NONCE, aud=DOORS[0].id.upper()), "BAD_CLAIMS", "lower-case base32"),
    "iss is http": (ED.token(NONCE, iss="http://parcels.example"), "BAD_CLAIMS", "https://"),
    "jti is a UUID": (
        ED.token(NONCE, jti="3e4666bf-d5e5-4aa7-b8ce-cefe41c7568a"),
        "BAD_CLAIMS",
        "16 bytes in base64url",
    ),
    "jti is a number": (ED.token(NONCE, jti=5), "BAD_CLAIMS", "not a number"),
    "non is padded": (ED.token(NONCE + "=="), "BAD_CLAIMS", "the door's challenge, as it came"),
    "sub is a name": (ED.token(NONCE, sub="Erika Mustermann"), "BAD_CLAIMS", "1 to 40 characters"),
    "sub is true": (ED.token(NONCE, sub=True), "BAD_CLAIMS", "not true or false"),
    "sub is half a character": (ED.token(NONCE, sub="\ud800"), "BAD_CLAIMS", "1 to 40 characters"),
    "stp has HTML": (ED.token(NONCE, stp="<b>"), "BAD_CLAIMS", "1 to 40 characters"),
    "rte is a number": (ED.token(NONCE, chk={"rte": 7}), "BAD_CLAIMS", "not a number"),
    "drv is a PIN": (ED.token(NONCE, chk={"drv": "pin"}), "BAD_CLAIMS", "one of passkey, device_key, badge"),
    "drv is a list": (ED.token(NONCE, chk={"drv": ["passkey"]}), "BAD_CLAIMS", "not a list"),
    "d is a text": (ED.token(NONCE, **gps(d="12")), "BAD_CLAIMS", 'is "12": a whole number from 0'),
    "d is negative": (ED.token(NONCE, **gps(d=-1)), "BAD_CLAIMS", "is -1: a whole number from 0"),
    "d is too far": (ED.token(NONCE, **gps(d=10**6 + 1)), "BAD_CLAIMS", "to 1000000"),
    # 6: whose it is
    "iss of another": (ED.token(NONCE, iss="https://other.example"), "WRONG_ISSUER", f"the key is {ED.issuer}'s"),
    # 7 to 10: this building
    "another door": (ED.token(NONCE, aud=DOORS[1].id), "WRONG_DOOR", f"the door is {DOORS[0].id}"),
    "another challenge": (ED.token("B" * 21 + "A"), "NONCE_UNKNOWN", "copy it as it came"),
    "a badge": (ED.token(NONCE, chk={"drv": "badge"}), "POLICY_EVIDENCE", "device_key and passkey (limit method)"),
    "too far": (ED.token(NONCE, **gps(d=76)), "POLICY_EVIDENCE", "76 m: at most 75 (limit distance)"),
    "inaccurate": (ED.token(NONCE, **gps(acc=51)), "POLICY_EVIDENCE", "51 m: at most 50 (limit accuracy)"),
    "old": (ED.token(NONCE, **gps(age=31)), "POLICY_EVIDENCE", "31 s: at most 30 (limit position_age)"),
    "asked long ago": (
        ED.token(NONCE, chk={"req": ISSUED_AT - 121}),
        "POLICY_EVIDENCE",
        "121 s before iat: at most 120",
    ),
    "asked afterwards": (ED.token(NONCE, chk={"req": ISSUED_AT + 1}), "POLICY_EVIDENCE", "1 s after iat"),
}


@pytest.mark.parametrize("text, code, what", BROKEN.values(), ids=BROKEN)
def test_each_broken_token_is_refused_with_what_has_to_be_changed(text, code, what):
    verdict, report = judged(text, known())
    assert verdict.code == code
    (step,) = (step for step in report.steps if step.result == "refused")
    assert any(what in change for change in step.change), step.change
    agree(text, known())
    assert report.text().isprintable() or all(c.isprintable() or c == "\n" for c in report.text())
    json.dumps(report.json())


@pytest.mark.parametrize("name", BROKEN)
async def test_a_building_at_work_says_the_same_code(tmp_path, name):
    """The real controller, by the same text but for its challenge, which is live."""
    text, code, _ = BROKEN[name]
    async with Site(tmp_path / "journal.db", carriers=[replace_doors(ED)]) as site:
        live = text
        if (parts := text.split(".")) and len(parts) == 3 and code not in ("MALFORMED", "BAD_SIGNATURE", "BAD_HEADER"):
            live = with_nonce(parts, site.challenge())
        assert (await site.present(live)).code.value == code
        assert site.pulses == 0


def replace_doors(carrier):
    again = Carrier(carrier.name, (), alg=carrier.key.alg)
    assert again.issuer == carrier.issuer
    again.doors = (DOORS[0],)
    return again


def with_nonce(parts, nonce):
    """Return a token with a live challenge in place of NONCE, signed by whoever signs for the carrier."""
    header, payload = (b64url.decode(part.encode()) for part in parts[:2])
    key = STRANGER if STRANGER.kid.encode() in header or b'"kid":"1"' in header else ED.key
    return forge(header, payload.replace(NONCE.encode(), nonce.encode()), key)


@pytest.mark.parametrize("alg", Alg)
async def test_what_a_building_lets_in_would_be_let_in(tmp_path, alg):
    async with Site(tmp_path / "journal.db", carriers=[Carrier("Parcels", alg=alg)]) as site:
        text = site.token(evd=EVIDENCE)
        of = known(site.carrier, nonce=json.loads(b64url.decode(text.split(".")[1].encode()))["non"])
        verdict, report = judged(text, of)
        assert verdict.code is None
        assert "A building would let it in, if what cannot be said here holds" in report.text()
        assert said(text, of) == []
        assert (await site.present(text)).granted


def test_what_is_wrong_besides_is_said_at_once():
    text = ED.token(NONCE, aud=DOORS[1].id, sub="Erika Mustermann", exp=ISSUED_AT + 500, **gps(d=80.5))
    _, report = judged(signed(b64url.decode(text.split(".")[1].encode()), typ="JWT"), known())
    assert [change for step in report.steps for change in step.change] == [
        'header member typ (character 68 of the header) is "JWT": a token has "door-unlock+jwt"'
    ]
    assert len(report.also) == 3
    assert "(MALFORMED at 5)" in report.also[0]
    assert "To be changed besides:" in report.text()


def test_a_revoked_key_and_another_presenter_are_refused_at_step_6():
    def so(**changes):
        return known(keys={kid: replace(key, **changes) for kid, key in known().keys.items()})

    for of, code, what in [
        (so(status=KeyStatus.REVOKED), Code.KEY_REVOKED, "is revoked"),
        (so(valid_from=ISSUED_AT + 1), Code.KEY_REVOKED, f"signs from {ISSUED_AT + 1} on"),
        (so(valid_until=ISSUED_AT), Code.KEY_REVOKED, f"was good until {ISSUED_AT}"),
        (known(issuer=CARRIERS[Alg.ES256].issuer), Code.WRONG_ISSUER, "it was brought by"),
    ]:
        verdict, report = judged(GOOD, of)
        assert verdict.code is code
        assert what in report.text()
        agree(GOOD, of)
    agree(GOOD, so(valid_from=ISSUED_AT, valid_until=ISSUED_AT + 1))


def test_what_is_nested_deeper_than_can_be_read_is_malformed():
    (found,) = diagnosis._Reading("5", "payload", Code.BAD_CLAIMS).read(b"[" * 1024)
    assert "not JSON" in found.what
    *_, found = diagnosis._Reading("5", "payload", Code.BAD_CLAIMS).read(b"[" * 1_000_000)
    assert (found.code, found.what) == (Code.MALFORMED, "the payload is nested too deeply")


def test_a_signature_by_another_key_of_the_carrier_is_named():
    both = known().keys | {key.kid: key for key in CARRIERS[Alg.ES256].trusted}
    other = CARRIERS[Alg.ES256].key
    (found,) = said(forge(ED.header(), ED.claims(NONCE), other), known(keys=both))
    assert f"it is by {other.kid}" in found.what


@pytest.mark.parametrize("limit", Limit)
def test_a_limit_that_is_exceeded_is_named_with_the_code(limit):
    strict = EvidenceLimits(frozenset({DriverProof.BADGE}), 11, 7, 2, 4)
    one = {
        Limit.METHOD: {"methods": strict.methods},
        Limit.DISTANCE: {"distance": 11},
        Limit.ACCURACY: {"accuracy": 7},
        Limit.POSITION_AGE: {"position_age": 2},
        Limit.REQUEST_AGE: {"request_age": 4},
    }[limit]
    of = known(limits=EvidenceLimits(**one))
    verdict, report = judged(GOOD, of)
    assert verdict.limit is limit
    assert f'"refused" and code "POLICY_EVIDENCE", limit "{limit}"' in report.verdict
    agree(GOOD, of)
    agree(GOOD, known(limits=strict))


def test_what_a_file_cannot_tell_is_said_to_be_so():
    _, report = judged(GOOD, known(issuer=None, door=None, nonce=None))
    said_of = {step.clause: step.why for step in report.steps if step.result == "cannot_be_said"}
    assert said_of.keys() == {f"A.2 {number}" for number in ("0", "1b", "6", "7", "7b", "8", "10", "11", "12")}
    assert said_of["A.2 8"] == "--nonce was not given"


def test_a_code_of_a_building_at_work_has_its_step():
    for code in Code:
        if code.name in BY_HAND or code is Code.GRANTED:
            continue
        report = judging.report(GOOD, known(), Verdict(code), live=True)
        assert report.refused
        assert code.value in report.text()
    assert not judging.report(GOOD, known(), Verdict(Code.GRANTED), live=True).refused


BY_HAND = {"MANUAL_NOT_ALLOWED", "PIN_MISSING", "PIN_WRONG", "PIN_LOCKED", "MODE_NOT_POSSIBLE"}


# ---- whatever else there is ----

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        [NONCE, DOORS[0].id, "passkey", "unlock", ED.issuer, ISSUED_AT, ISSUED_AT + 60, 0, 1, 10**6, EVIDENCE]
    ),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=5,
)
PATHS = [
    *((name,) for name in ("ver", "iss", "aud", "jti", "iat", "exp", "act", "sub", "stp", "non", "chk", "evd", "x")),
    *(("chk", name) for name in ("drv", "rte", "gps", "req", "x")),
    *(("chk", "gps", name) for name in ("d", "acc", "age", "x")),
]


@st.composite
def changed_claims(draw):
    claims = ED.claims(NONCE)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)):
        inside = claims
        for name in path[:-1]:
            inside = inside.get(name) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            if draw(st.booleans()):
                inside[path[-1]] = draw(VALUES)
            else:
                inside.pop(path[-1], None)
    return json.dumps(claims, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (",\n", " :")]))).encode()


@given(changed_claims())
def test_the_verdicts_agree_on_changed_claims(payload):
    agree(signed(payload), known())


@given(st.data())
def test_the_verdicts_agree_on_changed_bytes_of_a_signed_payload(data):
    payload = bytearray(compact(ED.claims(NONCE, evd=EVIDENCE)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        piece = data.draw(
            st.sampled_from([b"", b'"', b"-0", b".5", b"e1", b",", b"{", b"}", b" ", b"\\u0061", b"9", b"\xff"])
        )
        payload[at : at + data.draw(st.integers(0, 2))] = piece
    agree(signed(bytes(payload)), known())


@given(st.data())
def test_the_verdicts_agree_on_pieces_put_together(data):
    """Members of a good payload left out, put twice, and in another order."""
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in ED.claims(NONCE).items()]
    members += ['"exp":1790000030', '"\\u0065xp":1790000060', '"evd":null', '"x":[{"a":1,"a":1}]', '"x":1.0', '"-0":1']
    pieces = data.draw(st.lists(st.sampled_from(members), max_size=13) | st.permutations(members[:11]))
    agree(signed(("{" + ",".join(pieces) + "}").encode()), known())


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "jwk", "crit"]),
        VALUES | st.sampled_from(["EdDSA", "ES256", "door-unlock+jwt", "JWT", ED.key.kid]),
        max_size=4,
    ),
    st.booleans(),
)
def test_the_verdicts_agree_on_changed_headers(header, only_these):
    header = header if only_these else ED.header() | header
    agree(forge(json.dumps(header).encode(), ED.claims(NONCE), ED.key), known())


@given(st.data())
def test_the_verdicts_agree_on_changed_texts(data):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.text(max_size=2) | st.sampled_from([".", "=", "A", "B", "_", "\n", ""]))
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 2)) :]
    agree(text, known())


@given(st.text(alphabet=st.sampled_from("AQgw_-.=+ é"), max_size=200) | st.text(max_size=50))
def test_the_verdicts_agree_on_any_text(text):
    agree(text, known())


@given(
    st.builds(
        dict,
        d=st.integers(60, 80),
        acc=st.integers(40, 60),
        age=st.integers(20, 40),
    ),
    st.integers(-2, 130),
    st.sampled_from(list(DriverProof)),
    st.booleans(),
    st.booleans(),
)
def test_the_verdicts_agree_at_the_limits(position, taken, method, right_door, right_nonce):
    text = ED.token(
        NONCE if right_nonce else "B" * 21 + "A",
        aud=DOORS[0 if right_door else 1].id,
        chk={"gps": position, "req": ISSUED_AT - taken, "drv": method.value},
    )
    agree(text, known())


# ---- keys in files ----

ROOT = signing_key(Alg.EDDSA, "a root")
LISTS = signing_key(Alg.EDDSA, "a list key")


def raw(key):
    return b64url.decode(key.jwk()["x"].encode())


def published(key=None, *, version=1, at=ISSUED_AT, life=35 * 86400, more=(), use=Use.TOKENS, of=ED.issuer):
    keys = (
        PublishedKey(raw(key or ED.key), use, at - 10, at + 30 * 86400),
        PublishedKey(raw(LISTS), Use.ISSUED, at - 10, at + 365 * 86400),
        *more,
    )
    return keyset.write(ROOT, KeySet(of, version, at, at + life, keys, None))


FINGERPRINT = hashlib.sha256(raw(ROOT)).hexdigest()


def frame(text):
    return FROM_CLOUD.encode(Keys(raw(ROOT), text)).decode()


@pytest.mark.parametrize(
    "text, root",
    [
        (json.dumps({"keys": [ED.key.jwk()]}), None),
        (json.dumps(ED.key.jwk()), None),
        (frame(published()), None),
        (frame(published()), FINGERPRINT),
        (frame(published()), b64url.encode(raw(ROOT))),
        (published() + "\n", b64url.encode(raw(ROOT))),
    ],
)
def test_keys_are_read_from_each_kind_of_file(text, root):
    read = keyfile.read(text, ED.issuer, root, ISSUED_AT)
    assert read.keys.keys() == {ED.key.kid}
    assert not any(step.result == "refused" for step in read.steps)
    assert judged(GOOD, known(keys=read.keys))[0].code is None


def test_a_set_says_its_issuer_and_a_jwk_set_gets_the_tokens():
    read = keyfile.read(frame(published()), None, None, ISSUED_AT)
    assert {key.issuer for key in read.keys.values()} == {ED.issuer}
    jwk_set = json.dumps({"keys": [ED.key.jwk()]})
    read = keyfile.read(jwk_set, None, None, ISSUED_AT, diagnosis.claimed_issuer(GOOD))
    assert {key.issuer for key in read.keys.values()} == {ED.issuer}
    for text in ("", "x", "a.b.c", signed({}), signed(b"[]"), signed({"iss": 5}), signed({"iss": "x"})):
        assert diagnosis.claimed_issuer(text) is None
    (key,) = keyfile.read(jwk_set, None, None, ISSUED_AT).keys.values()
    assert key.issuer == keyfile.NOBODY


@pytest.mark.parametrize(
    "text, root, of, reason",
    [
        ('{"keys":[]}', None, None, "no_keys"),
        (json.dumps({"keys": [ED.key.jwk() | {"d": "x"}]}), None, None, "private_key"),
        (frame(published()), "0" * 64, None, "wrong_root"),
        (frame(published(at=ISSUED_AT - 36 * 86400)), None, None, "expired"),
        (frame(published(at=ISSUED_AT + 400)), None, None, "not_yet"),
        (frame(published()), None, CARRIERS[Alg.ES256].issuer, "wrong_issuer"),
        (frame(published()[:-5] + "AAAAA"), None, None, "bad_signature"),
        (frame("x"), None, None, "malformed"),
        (
            frame(forge({"alg": "EdDSA", "kid": ROOT.kid, "typ": "door-keys+jwt"}, {"iss": 5}, ROOT)),
            None,
            None,
            "malformed",
        ),
        (published(), b64url.encode(raw(STRANGER)), None, "wrong_root"),
        (frame(published(use=Use.ISSUED)), None, None, "UNKNOWN_KEY"),
    ],
)
def test_keys_that_a_building_refuses_are_refused_with_their_reason(text, root, of, reason):
    read = keyfile.read(text, of, root, ISSUED_AT)
    assert read.keys == {}
    (step,) = (step for step in read.steps if step.result == "refused")
    assert step.code == reason
    assert step.change
    assert judged(GOOD, known(keys=read.keys))[0].code is Code.UNKNOWN_KEY


@pytest.mark.parametrize(
    "text, root, what",
    [
        ("", None, "neither a JWK set"),
        ("-----BEGIN PUBLIC KEY-----", None, "neither a JWK set"),
        (published(), None, "give the raw key by --root"),
        (published(), FINGERPRINT, "give the raw key by --root"),
        (published(), "x", "64 hexadecimal digits"),
        (published(), "B" * 43, "64 hexadecimal digits"),
        ('{"type":"keys","root":"x","set":"y"}', None, "not a frame of keys"),
        ('{"type":"unlock","id":1,"token":"\\"keys\\",\\"root\\""}', None, "neither"),
        ('{"keys":1,"root":"' + "x" * 9000 + '"}', None, "at most 8192 bytes"),
    ],
)
def test_a_file_that_holds_no_keys_is_said_to(text, root, what):
    if what == "neither" and text.startswith("{"):
        assert keyfile.read(text, None, root, ISSUED_AT).steps[0].code == "no_keys"
        return
    with pytest.raises(keyfile.KeysNotReadable, match=what):
        keyfile.read(text, None, root, ISSUED_AT)


def test_a_set_without_a_next_key_or_a_list_key_is_told_of():
    (step,) = (s for s in keyfile.read(frame(published()), None, None, ISSUED_AT + 25 * 86400).steps if s.change)
    assert "publish the next key" in step.change[0]
    alone = keyset.write(
        ROOT,
        KeySet(
            ED.issuer, 1, ISSUED_AT, ISSUED_AT + 9, (PublishedKey(raw(ED.key), Use.TOKENS, ISSUED_AT, 2**40),), None
        ),
    )
    assert keyfile.read(frame(alone), None, None, ISSUED_AT).steps[-1].code == "no_list_key"


def test_every_reason_of_the_core_has_its_advice():
    reasons = set()
    for module in (keyset, keys):
        reasons |= set(re.findall(r'KeySetInvalid\("(\w+)"', Path(module.__file__).read_text("utf-8")))
    reasons |= set(keyset._REASONS.values())
    assert reasons == keyfile.REASONS.keys()


# ---- the command ----


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """Somebody at a prompt, with no configuration and no database."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [ED.key.jwk()]}))

    def run(text, *words, status=0, keys=keys):
        path = tmp_path / "token"
        if isinstance(text, str):
            path.write_text(text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else b"")))
        where = "-" if isinstance(text, bytes) else path
        given = ["conformance", "--token", str(where), *(["--keys", str(keys)] if keys else []), *map(str, words)]
        assert main(given) == status
        said = capsys.readouterr()
        return said.err if status == 2 else said.out

    return run


def test_the_command_says_step_by_step_what_a_building_would_do(command):
    out = command(GOOD + "\n", "--door", DOORS[0].id, "--issuer", ED.issuer, "--nonce", NONCE, "--now", ISSUED_AT)
    assert f"A.2 3   key and algorithm: passed (EdDSA {ED.key.kid})\n" in out
    assert out.endswith("(steps 0, 1b, 7b, 8, 10, 11, 12).\n")
    out = command(raw_payload('"d":12', '"d":12.5') + "\r\n", status=1)
    assert "refused MALFORMED" in out
    assert "payload member chk.gps.d" in out


def test_the_command_speaks_json_and_reads_standard_input(command):
    made = json.loads(command(GOOD.encode(), "--json"))
    assert made["result"] == "accepted"
    made = json.loads(command(b"\xff" + GOOD.encode(), "--json", status=1))
    assert made["result"] == "refused"
    (step,) = (step for step in made["steps"] if step["result"] == "refused")
    assert (step["clause"], step["code"]) == ("A.2 1", "MALFORMED")
    assert step["change"]


def test_the_command_takes_a_buildings_limits(command):
    assert "limit method" in command(GOOD, "--method", "badge", status=1)
    assert "at most 11 (limit distance)" in command(GOOD, "--distance", 11, status=1)
    assert "at most 7 (limit accuracy)" in command(GOOD, "--accuracy", 7, status=1)
    assert "at most 2 (limit position_age)" in command(GOOD, "--position-age", 2, status=1)
    assert "at most 4 (limit request_age)" in command(GOOD, "--request-age", 4, status=1)


@pytest.mark.parametrize(
    "words, what",
    [
        (("--issuer", "parcels"), "not an issuer"),
        (("--door", "gate"), "not a door id"),
        (("--nonce", "x"), "22 characters"),
        (("--method", "pin"), "'pin' is not a valid DriverProof"),
    ],
)
def test_what_makes_no_sense_is_said_with_status_2(command, words, what):
    assert what in command(GOOD, *words, status=2)


def test_keys_that_are_missing_or_no_keys_end_with_status_2(command, tmp_path):
    assert "--keys FILE is needed" in command(GOOD, keys=None, status=2)
    assert "No such file" in command(GOOD, keys=tmp_path / "nothing", status=2)
    (bad := tmp_path / "bad").write_bytes(b"\xff")
    assert "not UTF-8" in command(GOOD, keys=bad, status=2)
    bad.write_text(published())
    assert "--root" in command(GOOD, keys=bad, status=2)
