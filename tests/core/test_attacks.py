"""None of these may move a strike, or move it twice: the rows of protocol F that the core answers for.

One test per row, named after it. Unless a row is about something else, its tokens are presented to a real controller
with a real journal on disk; ``Attack`` then makes sure that the codes are right, that no strike moved, and that nothing
of a token that failed before its signature was found good has reached the disk or an event.
"""

import asyncio
import base64
import contextlib
import gc
import hmac
import itertools
import json
import sqlite3
import sys
import threading
import time as clocks
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.core.test_audit import verify
from tests.simulated import (
    ABSENT,
    ISSUED_AT,
    Carrier,
    Moment,
    SimulatedStrike,
    Site,
    compact,
    forge,
    pulses_in,
    refusals,
    signing_key,
    some_doors,
)
from vestibule_core import b64url, intake, keys, policy, telling, token
from vestibule_core.errors import KeySetInvalid, Refused
from vestibule_core.hours import Day, Hours
from vestibule_core.keys import Alg, KeyStatus, import_jwk_set
from vestibule_core.model import Actor, Code, DoorMode, EventName, Limit, Principal, Sense, Sensor, read_clock

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)

ED_ORDER = 2**252 + 27742317777372353535851937790883648493
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Attack:
    """A building under attack: ``unsigned`` and ``signed`` present what has to be refused before or after step 4."""

    def __init__(self, tmp_path, **kind):
        self.site = Site(tmp_path / "journal.db", **kind)
        self.pulses = 0  # how often the strikes may move
        self._signed = []

    async def __aenter__(self):
        await self.site.__aenter__()
        return self

    async def __aexit__(self, *exception):
        await self.site.__aexit__(*exception)
        if exception[0] is not None:
            return
        assert self.site.pulses == self.pulses
        assert sorted(refusals(self.site.events)) == sorted(self._signed)
        assert sorted(
            leaf.says["code"] for leaf in self.site.leaves() if leaf.says["kind"] == "access_denied"
        ) == sorted(self._signed)
        if not self.site.journal.failed:
            assert summed_up(self.site) == self.site.controller.counters
        if self.pulses == 0 and not self._signed:
            assert {leaf.says["kind"] for leaf in self.site.leaves()} <= {"refusals_counted"}
            assert b"driver-4711" not in self.site.all_bytes()

    @property
    def carrier(self):
        return self.site.carrier

    def challenge(self):
        return self.site.challenge()

    async def unsigned(self, text, code):
        """Refused in steps 1 to 4: counted, and nothing else but its share in a summary."""
        counted = self.site.controller.counters[code]
        assert (await self.site.present(text)).code is code
        assert self.site.controller.counters[code] == counted + 1

    async def signed(self, text, code, carrier=None):
        """Refused in step 5 or later: told and kept."""
        assert (await self.site.present(text, carrier)).code is code
        self._signed.append(code)

    async def opens(self, text):
        assert (await self.site.present(text)).code is Code.GRANTED
        self.pulses += 1


def summed_up(site):
    """Return what the summaries in a journal count by code: all that is there of what failed in steps 1 to 4."""
    rows = site.rows("SELECT json FROM leaf JOIN person USING(seq) WHERE bytes ->> '$.kind' = 'refusals_counted'")
    return sum((Counter(json.loads(row)["counts"]) for (row,) in rows), Counter())


@pytest.fixture
async def attack(tmp_path):
    """For rows whose tokens all end in a refusal; those with a story of their own make an Attack themselves."""
    async with Attack(tmp_path, doors=2) as attack:
        yield attack


def resign(attack, payload, **members):
    """Return a token of these very payload bytes with a good signature."""
    return forge(attack.carrier.header(**members), payload, attack.carrier.key)


def raw_claims(attack, **claims):
    return compact(attack.carrier.claims(attack.challenge(), **claims)).decode()


# ---- no fetch, no file access ----

_WATCHED = threading.local()


def _watch(event, arguments):
    seen = getattr(_WATCHED, "seen", None)
    if seen is not None and event.partition(".")[0] in {"open", "socket", "subprocess", "urllib", "os", "import"}:
        seen.append((event, arguments))


sys.addaudithook(_watch)


@contextlib.contextmanager
def no_look_outside():
    """Fail if this thread opens a file, a socket or anything else of the machine."""
    _WATCHED.seen = []
    try:
        yield
        assert _WATCHED.seen == []
    finally:
        _WATCHED.seen = None


# ---- the header ----


async def test_row_01_alg_none_hs256_with_the_public_key_as_secret_and_es256_on_an_eddsa_kid(attack):
    """`alg: none`, `HS256` with the public key as secret, `ES256` on an EdDSA kid: ALG_MISMATCH."""
    carrier = attack.carrier
    payload = attack.carrier.claims(attack.challenge())
    await attack.unsigned(forge(carrier.header(alg="none"), payload, carrier.key), Code.ALG_MISMATCH)
    await attack.unsigned(forge(carrier.header(alg="HS256"), payload, carrier.key), Code.ALG_MISMATCH)
    await attack.unsigned(forge(carrier.header(alg="ES256"), payload, carrier.key), Code.ALG_MISMATCH)
    await attack.unsigned(forge(carrier.header(alg="eddsa"), payload, carrier.key), Code.ALG_MISMATCH)
    # As a library would write them, they have not even the form: no signature, and one of 32 bytes.
    public = carrier.key.private.public_key().public_bytes_raw()
    for alg, sign in [("none", lambda _: b""), ("HS256", lambda m: hmac.digest(public, m, "sha256"))]:
        signed = f"{b64url.encode(compact(carrier.header(alg=alg)))}.{b64url.encode(compact(payload))}"
        await attack.unsigned(f"{signed}.{b64url.encode(sign(signed.encode()))}", Code.MALFORMED)
    signed = f"{b64url.encode(compact(carrier.header(alg='HS512')))}.{b64url.encode(compact(payload))}"
    with_the_right_length = f"{signed}.{b64url.encode(hmac.digest(public, signed.encode(), 'sha512'))}"
    await attack.unsigned(with_the_right_length, Code.ALG_MISMATCH)


@pytest.mark.parametrize(
    "typ, code",
    [
        ("JWT", Code.WRONG_TYPE),
        ("at+jwt", Code.WRONG_TYPE),
        ("Door-Unlock+jwt", Code.WRONG_TYPE),
        (ABSENT, Code.BAD_HEADER),
    ],
)
async def test_row_02_typ_jwt_at_jwt_or_absent(attack, typ, code):
    """`typ` `JWT`, `at+jwt`, absent: WRONG_TYPE / BAD_HEADER."""
    await attack.unsigned(resign(attack, attack.carrier.claims(attack.challenge()), typ=typ), code)


@pytest.mark.parametrize("member", ["jwk", "jku", "x5c", "x5u"])
async def test_row_03_a_key_in_the_header(attack, member):
    """`jwk`, `jku`, `x5c` in the header: BAD_HEADER, no fetch."""
    text = resign(attack, attack.carrier.claims(attack.challenge()), **{member: "https://attacker.example/keys"})
    with no_look_outside(), pytest.raises(Refused) as raised:
        verify_here(attack, text)
    assert raised.value.code is Code.BAD_HEADER
    await attack.unsigned(text, Code.BAD_HEADER)


@pytest.mark.parametrize("members", [{"crit": ["exp"]}, {"crit": "x"}, {"b64": False}, {"b64": False, "crit": ["b64"]}])
async def test_row_04_unknown_crit_and_b64_false(attack, members):
    """Unknown `crit`; `b64:false`: BAD_HEADER."""
    await attack.unsigned(resign(attack, attack.carrier.claims(attack.challenge()), **members), Code.BAD_HEADER)


async def test_row_05_duplicate_header_member(attack):
    """Duplicate header member: MALFORMED."""
    good = compact(attack.carrier.header())
    for twice in (b'"alg":"none"', b'"\\u0061lg":"none"', b'"kid":"x"', b'"typ":"JWT"'):
        text = forge(good[:-1] + b"," + twice + b"}", attack.carrier.claims(attack.challenge()), attack.carrier.key)
        await attack.unsigned(text, Code.MALFORMED)


@pytest.mark.parametrize(
    "kid, code",
    [
        (signing_key(Alg.EDDSA, "a stranger").kid, Code.UNKNOWN_KEY),
        ("../../x", Code.UNKNOWN_KEY),
        ("/dev/stdin", Code.UNKNOWN_KEY),
        ("https://attacker.example/key", Code.UNKNOWN_KEY),
        ("' OR 1=1 --", Code.UNKNOWN_KEY),
        ("\ud800", Code.UNKNOWN_KEY),
        ("", Code.UNKNOWN_KEY),
        (["uYAN"], Code.BAD_HEADER),
        ({}, Code.BAD_HEADER),
        (None, Code.BAD_HEADER),
    ],
)
async def test_row_06_kid_unknown_a_path_or_an_array(attack, kid, code):
    """`kid` unknown, `../../x`, array: UNKNOWN_KEY / BAD_HEADER, no fetch, no file access."""
    text = resign(attack, attack.carrier.claims(attack.challenge()), kid=kid)
    with no_look_outside(), pytest.raises(Refused) as raised:
        verify_here(attack, text)
    assert raised.value.code is code
    await attack.unsigned(text, code)


def verify_here(attack, text):
    token.verify(text, attack.site.controller.building.keys, None)


# ---- the claims ----


async def test_row_07_duplicate_exp_claim_also_when_escaped(attack):
    """Duplicate `exp` claim, also as `"\\u0065xp"`: MALFORMED."""
    # The parser is quick or slow, by what else is in the payload ("-0" makes it slow): both must see it.
    for stop in ("stop-815", "stop-0815"):
        for twice in (
            f'"exp":{ISSUED_AT + 90}',
            f'"\\u0065xp":{ISSUED_AT + 90}',
            f'"exp":{ISSUED_AT + 60}',
            '"sub":"x"',
        ):
            text = resign(attack, (raw_claims(attack, stp=stop)[:-1] + f",{twice}}}").encode())
            await attack.signed(text, Code.MALFORMED)
        for inside in ('"d":12,"d":500', '"d":12,"\\u0064":500', '"d":500,"d":12'):
            payload = raw_claims(attack, stp=stop).replace('"d":12', inside)
            await attack.signed(resign(attack, payload.encode()), Code.MALFORMED)
        whole_again = raw_claims(attack, stp=stop)
        await attack.signed(resign(attack, (whole_again[:-1] + "," + whole_again[1:]).encode()), Code.MALFORMED)


@pytest.mark.parametrize("number", ["1790000060.0", "1.79e9", "1790000060e0", "NaN", "Infinity", "-Infinity"])
async def test_row_08_exp_float_exponent_nan_infinity(attack, number):
    """`exp` float, `1.79e9`, NaN, Infinity: MALFORMED."""
    payload = raw_claims(attack).replace(str(ISSUED_AT + 60), number)
    await attack.signed(resign(attack, payload.encode()), Code.MALFORMED)


@pytest.mark.parametrize("exp", [str(ISSUED_AT + 60), True, None, [ISSUED_AT + 60]])
async def test_row_09_exp_string_or_true(attack, exp):
    """`exp` string, `true`: BAD_CLAIMS."""
    await attack.signed(attack.site.token(exp=exp), Code.BAD_CLAIMS)


@pytest.mark.parametrize(
    "exp", [str(10**30), str(ISSUED_AT - 1), str(ISSUED_AT), "-1", "-0", "0", str(2**53), "9" * 500]
)
async def test_row_10_exp_huge_before_iat_or_negative(attack, exp):
    """`exp` 10^30; `iat` > `exp`; -1; -0: BAD_CLAIMS."""
    payload = raw_claims(attack).replace(str(ISSUED_AT + 60), exp)
    await attack.signed(resign(attack, payload.encode()), Code.BAD_CLAIMS)


@pytest.mark.parametrize("life", [121, 3600, 365 * 86400])
async def test_row_11_one_year_life(attack, life):
    """one-year life: LIFETIME_TOO_LONG."""
    await attack.signed(attack.site.token(exp=ISSUED_AT + life), Code.LIFETIME_TOO_LONG)


async def test_row_12_challenge_61_seconds_old_or_from_before_a_restart(tmp_path):
    """Token whose challenge is 61 s old; challenge from before a restart: NONCE_EXPIRED / NONCE_UNKNOWN."""
    async with Attack(tmp_path) as attack:
        old = attack.site.token()
        attack.site.clock.advance(61)
        await attack.signed(old, Code.NONCE_EXPIRED)
        from_before = attack.site.token()
    async with attack.site.reopen() as again:
        assert (await again.present(from_before)).code is Code.NONCE_UNKNOWN
        assert (await again.present(old)).code is Code.NONCE_UNKNOWN
        assert again.pulses == 0


async def test_row_13_aud_list_or_upper_case(attack):
    """`aud` list holding our door; upper-case door: BAD_CLAIMS."""
    door = attack.site.door.id
    for aud in ([door], [door, "door:" + "a" * 26], door.upper(), door.replace("door", "Door"), f"{door} ", None):
        await attack.signed(attack.site.token(aud=aud), Code.BAD_CLAIMS)


async def test_row_14_door_of_another_building_and_door_not_granted(attack):
    """Another building's door; our door but carrier not granted it: WRONG_DOOR / POLICY_CARRIER_DOOR."""
    site = attack.site
    await attack.signed(site.token(aud=some_doors(1, "another building")[0].id), Code.WRONG_DOOR)
    granted_then = site.token()
    narrowed = replace(site.carrier.admitted, doors=frozenset({site.doors[1].id}))
    site.controller.apply(policy.Building.of(site.doors, [narrowed]), site.strikes)
    await attack.signed(granted_then, Code.POLICY_CARRIER_DOOR)


async def test_row_15_issuer_of_another_or_a_list(tmp_path):
    """`iss` of issuer B signed by A's key; `iss` list: WRONG_ISSUER / BAD_CLAIMS."""
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    async with Attack(tmp_path, carriers=[a, b]) as attack:
        as_b = a.token(attack.site.challenge(carrier=b), iss=b.issuer)
        await attack.signed(as_b, Code.WRONG_ISSUER)
        await attack.signed(as_b, Code.WRONG_ISSUER, carrier=b)
        genuine_but_brought_by_b = a.token(attack.challenge())
        await attack.signed(genuine_but_brought_by_b, Code.WRONG_ISSUER, carrier=b)
        for iss in ([a.issuer], a.issuer + "/", a.issuer.upper(), "", None):
            code = Code.WRONG_ISSUER if iss == a.issuer + "/" else Code.BAD_CLAIMS
            await attack.signed(a.token(attack.challenge(), iss=iss), code)


async def test_row_16_jti_empty_long_surrogate_or_with_a_non_canonical_tail(attack):
    """`jti` empty, 600 characters, lone surrogate, non-canonical tail: BAD_CLAIMS."""
    for jti in ("", "A" * 600, "\ud800" + "A" * 21, "A" * 21 + "B", "A" * 22 + "==", "A" * 21 + "+", "A" * 21, 5):
        await attack.signed(attack.site.token(jti=jti), Code.BAD_CLAIMS)


CLAIMS = ["ver", "iss", "aud", "jti", "iat", "exp", "act", "sub", "stp", "non", "chk"]


@pytest.mark.parametrize(
    "claims",
    [
        *({name: ABSENT} for name in CLAIMS),
        *({"chk": {name: ABSENT}} for name in ("drv", "rte", "gps", "req")),
        *({"cnf": {"jkt": "x"}}, {"nbf": 1}, {"chk": {"who": "x"}}, {"act": "hold_open"}, {"ver": 2}, {"ver": "1"}),
    ],
    ids=str,
)
async def test_row_17_missing_or_extra_claim(attack, claims):
    """Missing or extra claim (`cnf` too), `act: hold_open`, `ver: 2`, each `chk` member missing: BAD_CLAIMS."""
    await attack.signed(attack.site.token(**claims), Code.BAD_CLAIMS)


# ---- the signature and the form ----


async def test_row_18_other_spellings_of_the_signature(attack):
    """Signature with `==`, newline, spare tail bits flipped, `+/` alphabet: MALFORMED."""
    text = attack.site.token()
    signed, _, signature = text.rpartition(".")
    spare = {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]
    for spelling in (
        signature + "==",
        signature + "\n",
        signature[:-1] + spare,
        "+" + signature[1:],
        "/" + signature[1:],
    ):
        await attack.unsigned(f"{signed}.{spelling}", Code.MALFORMED)
    header, payload = signed.split(".")
    for spelling in (payload + "=", payload + "\n", " " + payload, payload + "+", payload + "." + payload):
        await attack.unsigned(f"{header}.{spelling}.{signature}", Code.MALFORMED)
        await attack.unsigned(f"{spelling}.{payload}.{signature}", Code.MALFORMED)


async def test_row_19_a_second_signature_made_from_the_first(tmp_path):
    """Ed25519 S+L; ES256 (r, n-s) of a *spent* token: BAD_SIGNATURE / ALREADY_SPENT."""
    async with Attack(tmp_path) as attack:
        signed, _, signature = attack.site.token().rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        s = int.from_bytes(raw[32:], "little") + ED_ORDER
        await attack.unsigned(f"{signed}.{b64url.encode(raw[:32] + s.to_bytes(32, 'little'))}", Code.BAD_SIGNATURE)
    (tmp_path / "es256").mkdir()
    async with Attack(tmp_path / "es256", carriers=[Carrier("Parcels", alg=Alg.ES256)]) as attack:
        text = attack.site.token()
        await attack.opens(text)
        signed, _, signature = text.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        s = P256_ORDER - int.from_bytes(raw[32:])
        await attack.signed(f"{signed}.{b64url.encode(raw[:32] + s.to_bytes(32))}", Code.ALREADY_SPENT)


@pytest.mark.parametrize("alg", Alg)
async def test_row_20_foreign_signature_swapped_payload_truncated_token(tmp_path, alg):
    """Signature from another key; payload swapped; truncated: BAD_SIGNATURE / MALFORMED."""
    async with Attack(tmp_path, carriers=[Carrier("Parcels", alg=alg)]) as attack:
        carrier = attack.carrier
        stranger = signing_key(alg, "a stranger")
        await attack.unsigned(forge(carrier.header(), carrier.claims(attack.challenge()), stranger), Code.BAD_SIGNATURE)
        one, other = attack.site.token().split("."), attack.site.token().split(".")
        await attack.unsigned(".".join((one[0], other[1], one[2])), Code.BAD_SIGNATURE)
        await attack.unsigned(".".join((one[0], one[1], b64url.encode(bytes(64)))), Code.BAD_SIGNATURE)
        whole = ".".join(one)
        for length in (0, 1, len(one[0]), len(whole) - 87, len(whole) - 86, len(whole) - 1):
            await attack.unsigned(whole[:length], Code.MALFORMED)


async def test_row_21_what_has_not_the_form_costs_no_signature(attack, monkeypatch):
    """5 MB string, bytes, 4 segments, leading space: MALFORMED, no signature work."""
    good = attack.site.token()
    monkeypatch.setattr(keys.TrustedKey, "verifies", lambda *_: pytest.fail("a signature was checked"))
    for text in (
        "A" * 5_000_000,
        good.encode(),
        good + ".AAAA",
        "AAAA." + good,
        " " + good,
        good + "\n",
        "",
        "..",
        None,
        7,
    ):
        await attack.unsigned(text, Code.MALFORMED)
    await attack.unsigned(good.replace(".", "\u2024"), Code.MALFORMED)

    class Text(str):
        __slots__ = ()

    await attack.unsigned(Text(good), Code.MALFORMED)


async def test_row_22_other_encodings_and_deep_nesting(attack):
    """UTF-16, BOM, non-ASCII, JSON list, 300-deep nesting: MALFORMED / BAD_CLAIMS, no crash."""
    payload = raw_claims(attack)
    encodings = [
        payload.encode("utf-16")[:1024],
        payload.encode("utf-8-sig"),
        payload.replace("driver-4711", "drivér").encode(),
        payload.replace("driver-4711", "driver\xff").encode("latin-1"),
        b"\0" + payload.encode(),
        (payload + "}").encode(),
        payload.replace('"driver-4711"', "'driver-4711'").encode(),
        b"[" * 900,
    ]
    for raw in encodings:
        await attack.signed(resign(attack, raw), Code.MALFORMED)
    await attack.unsigned(resign(attack, b""), Code.MALFORMED)
    others = [b"[]", b"[" + payload.encode() + b"]", b"null", b'"unlock"', b"1", b"[" * 300 + b"]" * 300]
    others.append(b'{"chk":' * 120 + b"1" + b"}" * 120)
    for raw in others:
        await attack.signed(resign(attack, raw), Code.BAD_CLAIMS)
    for raw in (b"[" * 300 + b"]" * 300, b"[]", b"null"):
        await attack.unsigned(forge(raw, payload.encode(), attack.carrier.key), Code.BAD_HEADER)


SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_row_23_a_key_of_small_order(point):
    """Trust import of each of the 14 small-order Ed25519 encodings: import refused."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url.encode(bytes.fromhex(point))}
    with pytest.raises(KeySetInvalid) as raised:
        import_jwk_set(json.dumps(jwk), Carrier().issuer)
    assert raised.value.reason == "weak_key"


# ---- replay ----


async def test_row_24_the_same_token_twice_and_from_200_callers(tmp_path):
    """Same token twice, in series and from 200 concurrent callers: one success, rest ALREADY_SPENT."""
    async with Attack(tmp_path) as attack:
        text = attack.site.token()
        await attack.opens(text)
        await attack.unsigned(text, Code.ALREADY_SPENT)  # by the memory of texts, 1b
        text = attack.site.token()
        codes = [decision.code for decision in await asyncio.gather(*(attack.site.present(text) for _ in range(200)))]
        assert sorted(codes) == [Code.ALREADY_SPENT] * 199 + [Code.GRANTED]
        attack.pulses += 1
    async with attack.site.reopen() as again:
        assert (await again.present(text)).code is Code.ALREADY_SPENT
        assert again.pulses == 2
    assert [state for _, state in again.spent()] == ["GRANTED", "GRANTED"]


async def test_row_25_the_same_jti_signed_again(tmp_path):
    """Same `jti`, new `exp`, validly signed again: ALREADY_SPENT."""
    async with Attack(tmp_path) as attack:
        nonce = attack.challenge()
        await attack.opens(attack.carrier.token(nonce, jti="B" * 21 + "A"))
        again = attack.carrier.token(nonce, jti="B" * 21 + "A", exp=ISSUED_AT + 90)
        await attack.signed(again, Code.ALREADY_SPENT)
        with_a_fresh_challenge = attack.carrier.token(attack.challenge(), jti="B" * 21 + "A")
        await attack.signed(with_a_fresh_challenge, Code.ALREADY_SPENT)


async def test_row_26_challenge_reused_made_up_of_another_door_or_issuer(tmp_path):
    """Challenge reused in a second token, made up, of another door, of another issuer; two valid tokens on one
    challenge in parallel: one pulse at the most; NONCE_UNKNOWN / ALREADY_SPENT.
    """
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    async with Attack(tmp_path, doors=2, carriers=[a, b]) as attack:
        site, nonce = attack.site, attack.challenge()
        await attack.opens(a.token(nonce))
        await attack.signed(a.token(nonce), Code.ALREADY_SPENT)
        await attack.signed(a.token(b64url.encode(bytes(16))), Code.NONCE_UNKNOWN)
        flipped = base64.urlsafe_b64decode(attack.challenge() + "==")
        await attack.signed(a.token(b64url.encode(flipped[:-1] + bytes([flipped[-1] ^ 1]))), Code.NONCE_UNKNOWN)
        await attack.signed(a.token(site.challenge(site.doors[1])), Code.NONCE_UNKNOWN)
        await attack.signed(a.token(attack.challenge(), aud=site.doors[1].id), Code.NONCE_UNKNOWN)
        await attack.signed(a.token(site.challenge(carrier=b)), Code.NONCE_UNKNOWN)
        await attack.signed(b.token(attack.challenge()), Code.NONCE_UNKNOWN, carrier=b)

        nonce = attack.challenge()
        both = await asyncio.gather(site.present(a.token(nonce)), site.present(a.token(nonce)))
        assert sorted(decision.code for decision in both) == [Code.ALREADY_SPENT, Code.GRANTED]
        attack.pulses += 1
        attack._signed.append(Code.ALREADY_SPENT)


# ---- floods ----

MEANS_OF_REFUSAL = [Code.MALFORMED, Code.BAD_HEADER, Code.UNKNOWN_KEY, Code.BAD_SIGNATURE]


def bad_tokens(site):
    """Yield bad tokens without end, a quarter of them about a live challenge: no two alike, none signed well."""
    good = site.token()
    header, payload, signature = good.split(".")
    stranger = signing_key(Alg.EDDSA, "a stranger")
    unknown = b64url.encode(compact(site.carrier.header(kid=stranger.kid)))
    for number in itertools.count():
        salt = number.to_bytes(4)
        yield f"{header}.{payload}.{'A' * 80}{number:x}="
        yield f"{b64url.encode(compact({'alg': str(number)}))}.{payload}.{signature}"
        yield f"{unknown}.{b64url.encode(salt)}.{signature}"
        yield f"{header}.{payload}.{b64url.encode(salt * 16)}"


@contextlib.contextmanager
def held_by_the_core():
    """Give what tells how many bytes the core has come to hold since; what else runs in this process has its own."""
    gc.collect()
    tracemalloc.start(16)
    ours = tracemalloc.Filter(True, "*/vestibule_core/*", all_frames=True)

    def held():
        gc.collect()
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)

    try:
        yield held
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tokens", [10_000, pytest.param(10**6, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_row_27_a_flood_of_bad_tokens_then_the_good_one(tmp_path, tokens):
    """10^6 bad tokens from one source, some quoting a live challenge, then the good one: journal grows < 1 leaf/min,
    memory flat, the good one opens.
    """
    async with Site(tmp_path / "journal.db") as site:
        good, bad = site.token(), bad_tokens(site)
        flood, began = intake.Intake(), clocks.monotonic()

        async def present(texts):
            for text in texts:
                assert not (await site.controller.present(text, site.carrier.principal)).granted

        await present(itertools.islice(bad, 1000))
        with held_by_the_core() as held:
            await present(itertools.islice(bad, tokens - 1000))
            assert held() < 64 * 1024, "memory is flat"
        assert [site.controller.counters[code] for code in MEANS_OF_REFUSAL] == [tokens // 4] * 4
        minutes = (clocks.monotonic() - began) / telling.SUMMARY_AFTER
        assert {event.outcome for event in site.events} <= {EventName.REFUSALS_COUNTED}
        assert site.journal.sequence <= minutes
        # A host asks the intake first. The source of the flood has to wait; another has not.
        for text in itertools.islice(bad, 100):
            if flood.admit(site.carrier.issuer, "the flood", site.clock().boot) is None:
                flood.charge("the flood", await site.present(text), site.clock().boot)
        assert flood.admit(site.carrier.issuer, "the flood", site.clock().boot) is Code.RATE_LIMITED
        assert flood.admit(site.carrier.issuer, "the carrier", site.clock().boot) is None
        assert (await site.present(good)).granted
    kinds = [leaf.says["kind"] for leaf in site.leaves()]
    assert [kind for kind in kinds if kind != "refusals_counted"] == ["access_granted", "door_released"]
    assert summed_up(site) == site.controller.counters


async def test_row_27_100_000_forgeries_leave_one_entry_for_each_minute(tmp_path, monkeypatch):
    """And memory is flat: of a minute that is over nothing is left. A minute is a quarter of a second here."""
    monkeypatch.setattr(telling, "SUMMARY_AFTER", 0.25)
    async with Site(tmp_path / "journal.db") as site:
        bad, began = bad_tokens(site), clocks.monotonic()

        async def present(number):
            for text in itertools.islice(bad, number):
                await site.controller.present(text, site.carrier.principal)

        async def flood(number):
            for _ in range(number // 500):
                await present(500)
                await asyncio.sleep(0)  # so that timers run, as between requests

        await flood(70_000)
        with held_by_the_core() as held:
            await flood(10_000)
            before = held()
            await flood(20_000)
            assert held() - before < 64 * 1024
        minutes = (clocks.monotonic() - began) / 0.25
        assert 1 <= len(site.events) <= minutes
    assert {event.outcome for event in site.events} == {EventName.REFUSALS_COUNTED}
    assert sum(event.count for event in site.events) == 100_000
    assert [leaf.says["door"] for leaf in site.leaves()] == [None] * len(site.events)
    assert summed_up(site) == site.controller.counters


async def test_row_28_a_flood_of_challenge_requests(tmp_path):
    """10 000 challenge requests by one principal: other issuers still get one that opens; nothing stored."""
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    async with Site(tmp_path / "journal.db", carriers=[a, b]) as site:
        early = site.challenge(carrier=b)
        seen = {site.challenge(carrier=a) for _ in range(1000)}
        with held_by_the_core() as held:
            for _ in range(9000):
                site.challenge(carrier=a)
            assert held() < 16 * 1024, "nothing is stored"
        assert len(seen) >= 999, "of one second, they differ in 32 random bits"
        assert site.journal.sequence == 0
        assert (await site.present(b.token(early), b)).granted, "also one of before the flood"
        assert (await site.present(b.token(site.challenge(carrier=b)), b)).granted
        assert (await site.present(a.token(site.challenge(carrier=a)), a)).granted
        await site.controller.recorded()


async def test_row_29_challenge_for_an_issuer_or_a_door_that_was_not_granted(tmp_path):
    """Challenge requested for an issuer not the caller's: no challenge, and none that opens with another's token."""
    doors = some_doors(2)
    a, b, stranger = Carrier("A Parcels", doors[:1]), Carrier("B Parcels", doors[1:]), Carrier("A stranger", doors)
    async with Site(tmp_path / "journal.db", doors=2, carriers=[a, b]) as site:
        for door, who, code in [
            (doors[1], a, Code.POLICY_CARRIER_DOOR),
            (doors[0], b, Code.POLICY_CARRIER_DOOR),
            (doors[0], stranger, Code.WRONG_ISSUER),
            (some_doors(1, "another building")[0], a, Code.WRONG_DOOR),
        ]:
            with pytest.raises(Refused) as refused:
                site.challenge(door, who)
            assert refused.value.code is code
        # One that A was given does not serve B, at A's door or at its own.
        for_a = site.challenge(doors[0], a)
        assert (await site.present(b.token(for_a, aud=doors[1].id), b)).code is Code.NONCE_UNKNOWN
        assert (await site.present(b.token(for_a, aud=doors[0].id), b)).code is Code.NONCE_UNKNOWN
        assert site.pulses == 0


# ---- clocks ----

ALL_DAY = (Hours(frozenset(Day), time(0), time(0)),)


@pytest.mark.parametrize("by", [-86400, 10 * 365 * 86400], ids=["back a day", "ahead ten years"])
async def test_row_30_system_clock_set_back_a_day_or_ahead_ten_years(tmp_path, by):
    """Doors with hours refuse CLOCK_UNTRUSTED; doors without hours work; no replay works."""
    async with Site(tmp_path / "journal.db", doors=2) as site:
        with_hours, without = site.doors
        site.doors = (replace(with_hours, hours=ALL_DAY), without)
        site.controller.apply(site.building, site.strikes)

        def fresh(door):
            return site.carrier.token(site.challenge(door), aud=door.id)

        spent, kept = fresh(with_hours), fresh(with_hours)
        assert (await site.present(spent)).granted
        site.clock.set_wall(by=by)
        assert (await site.present(spent)).code is Code.ALREADY_SPENT
        assert (await site.present(kept)).code is Code.NONCE_UNKNOWN, "the step voids what was promised before"
        assert (await site.present(fresh(with_hours))).code is Code.CLOCK_UNTRUSTED
        other = fresh(without)
        assert (await site.present(other)).granted
        assert (await site.present(other)).code is Code.ALREADY_SPENT
    async with site.reopen() as again:  # and a restart makes no clock right
        text = again.carrier.token(again.challenge(again.doors[0]), aud=with_hours.id)
        assert (await again.present(text)).code is Code.CLOCK_UNTRUSTED
        for old in (spent, other):
            assert (await again.present(old)).code in {Code.ALREADY_SPENT, Code.NONCE_UNKNOWN}
        assert again.pulses == 2
        if by > 0:  # somebody puts it right: it is earlier than the journal now, until an administrator confirms it
            again.clock.set_wall(by=-by)
            text = again.carrier.token(again.challenge(again.doors[0]), aud=with_hours.id)
            assert (await again.present(text)).code is Code.CLOCK_UNTRUSTED
            assert (await again.controller.by_hand.confirm_clock(ANN)).granted
            text = again.carrier.token(again.challenge(again.doors[0]), aud=with_hours.id)
            assert (await again.present(text)).granted


async def test_row_30_a_clock_that_steps_while_a_token_waits(tmp_path):
    """Between the judgement and the spend: nothing moves, and nothing is burned."""
    async with Site(tmp_path / "journal.db", setup={"hours": ALL_DAY}) as site:
        text = site.token()
        site.strike.at(Moment.REACHED, lambda: site.clock.set_wall(by=-86400))
        assert (await site.present(text)).code is Code.CLOCK_UNTRUSTED
        assert site.pulses == 0
    assert site.spent() == []


async def test_row_31_suspended_for_10_minutes_with_an_open_challenge(tmp_path, monkeypatch):
    """Suspend for 10 minutes with an open challenge: NONCE_EXPIRED (boot time, not monotonic)."""
    asleep, wall, clock_of = 0.0, clocks.time, clocks.clock_gettime
    # A suspended machine: its monotonic clock has stood still, boot time and wall clock have gone on.
    monkeypatch.setattr(clocks, "time", lambda: wall() + asleep)
    monkeypatch.setattr(
        clocks, "clock_gettime", lambda which: clock_of(which) + (asleep if which == clocks.CLOCK_BOOTTIME else 0)
    )
    async with Attack(tmp_path, clock=read_clock) as attack:
        slept_through, monotonic = attack.site.token(), clocks.monotonic()
        await attack.opens(attack.site.token())
        asleep = 600.0
        await attack.signed(slept_through, Code.NONCE_EXPIRED)
        assert clocks.monotonic() - monotonic < 60, "by that clock the challenge would still be good"
        await attack.opens(attack.site.token())


async def test_row_32_restored_from_a_backup(tmp_path):
    """Database restored from yesterday's backup, replay of today's token; the host was not started anew meanwhile."""
    path, bob = tmp_path / "journal.db", Actor(user_id="bob-1", name="Bob", is_admin=False)
    async with Site(path) as site:
        yesterday = site.token()
        assert (await site.present(yesterday)).granted
        await site.controller.recorded()
        await site.journal.begin_copy()
        backup = path.read_bytes()
        await site.journal.end_copy()
        today = site.token()
        assert (await site.present(today)).granted
        pulses = site.pulses
    path.write_bytes(backup)
    async with site.reopen() as again:
        assert again.controller.by_hand.restored
        assert (await again.present(yesterday)).code is Code.ALREADY_SPENT
        assert (await again.present(today)).code is Code.NONCE_UNKNOWN
        assert again.pulses == pulses
        await again.controller.recorded()
        assert [event.outcome for event in again.events].count(EventName.JOURNAL_RESTORED) == 1
        assert (await again.controller.by_hand.confirm_restore(bob)).code is Code.MANUAL_NOT_ALLOWED
    async with again.reopen() as later:
        assert later.controller.by_hand.restored, "until an administrator has taken note of it"
        assert (await later.controller.by_hand.confirm_restore(ANN)).granted
        assert not later.controller.by_hand.restored
        assert EventName.JOURNAL_RESTORED not in [event.outcome for event in later.events]
        assert (await later.present(later.token())).granted
    async with later.reopen() as at_last:
        assert not at_last.controller.by_hand.restored


# ---- crashes and bad disks ----

POINTS = [
    # killed at, pulses, row after the restart, what the old token is told, sentence
    ("challenged", 0, None, "NONCE_UNKNOWN", "before anything: the challenge died with the process"),
    ("reached", 0, None, "NONCE_UNKNOWN", "the strike was found; nothing is spent"),
    ("spend: inserted", 0, None, "NONCE_UNKNOWN", "a row that was not committed is not there"),
    ("spend: before COMMIT", 0, None, "NONCE_UNKNOWN", "nor is it just before the commit"),
    ("spend: after COMMIT", 0, "UNKNOWN", "ALREADY_SPENT", "from the commit on the token is burned, moved or not"),
    ("told", 0, "UNKNOWN", "ALREADY_SPENT", "the command had left; nobody knows"),
    ("moved", 1, "UNKNOWN", "ALREADY_SPENT", "it moved, and nobody was told"),
    ("confirmed", 1, "UNKNOWN", "ALREADY_SPENT", "it was confirmed to a process that died of it"),
    ("outcome: before COMMIT", 1, "UNKNOWN", "ALREADY_SPENT", "the outcome was not yet on the disk"),
    ("outcome: after COMMIT", 1, "GRANTED", "ALREADY_SPENT", "the outcome is on the disk"),
]


@pytest.mark.parametrize("point, pulses, state, told, sentence", POINTS, ids=[row[0] for row in POINTS])
def test_row_33_killed_at_every_step(tmp_path, processes, point, pulses, state, told, sentence):
    """SIGKILL between COMMIT and pulse, and at every other step: ALREADY_SPENT afterwards; row UNKNOWN."""
    report = processes.run("unlock", folder=tmp_path, number=1, kill_at=point)
    assert report.killed
    assert len(pulses_in(tmp_path / "pulses")) == pulses
    again = processes.run("replay", folder=tmp_path, tokens=report.all("token"))
    assert again["moved_at_start"] == 0
    assert again["codes"] == [told]
    assert [row[1] for row in again["spent"]] == ([state] if state else [])
    assert ("outcome_unknown" in again["events"]) is (state == "UNKNOWN")
    assert len(pulses_in(tmp_path / "pulses")) == pulses
    once_more = processes.run("replay", folder=tmp_path, tokens=report.all("token"))
    assert "outcome_unknown" not in once_more["events"], "told once"
    assert len(pulses_in(tmp_path / "pulses")) == pulses


@pytest.mark.parametrize("point", ["spend: after COMMIT", "told", "moved", "confirmed", "outcome: after COMMIT"])
def test_row_33_killed_during_a_release_that_the_controller_has_to_end(tmp_path, processes, point):
    """The strike would stay released for ever: it is put back at the next start, and not released."""
    report = processes.run("unlock", folder=tmp_path, number=1, kill_at=point, device_timed=False)
    assert report.killed
    pulses = len(pulses_in(tmp_path / "pulses"))
    again = processes.run("replay", folder=tmp_path, tokens=report.all("token"), device_timed=False)
    assert again["secured"] == 1
    assert again["codes"] == ["ALREADY_SPENT"]
    assert len(pulses_in(tmp_path / "pulses")) == pulses
    assert processes.run("replay", folder=tmp_path, tokens=[], device_timed=False)["secured"] == 0, "once is enough"


def test_row_34_sync_that_fails_once_then_the_same_token(tmp_path, counted_processes):
    """Fsync error once then the same token: STORE_FAILED, no pulse, no retry; no second chance after a restart."""
    report = counted_processes.run("failing_sync", folder=tmp_path)
    assert report["codes"] == ["STORE_FAILED", "STORE_FAILED"]
    assert report["failed"]
    assert report["further_syncs"] == 0
    assert report["other"] == "STORE_FAILED"
    # An administrator's hand still works (protocol D), and is the only pulse.
    assert (report["by_hand"], report["pulses"]) == ("GRANTED", 1)
    again = counted_processes.run("replay", folder=tmp_path, tokens=report.all("token"))
    assert again["codes"][0] in {"ALREADY_SPENT", "NONCE_UNKNOWN"}
    assert len(pulses_in(tmp_path / "pulses")) == 1


def test_row_34_file_that_may_not_grow(tmp_path, processes):
    """Disk full: STORE_FAILED, no pulse, no retry, also when there is room again."""
    report = processes.run("file_size_limit", folder=tmp_path)
    assert report["codes"] == ["STORE_FAILED", "STORE_FAILED"]
    assert (report["failed"], report["after"], report["pulses"]) == (True, "STORE_FAILED", 0)


def test_row_34_disk_full(tmp_path, processes):
    """Disk full: STORE_FAILED, no pulse, no retry; a restart with room again works on, and the old token stays dead."""
    report = processes.run("full_disk", folder=tmp_path)
    if report.all("skip"):
        pytest.skip(report["skip"])
    assert report["codes"] == ["STORE_FAILED", "STORE_FAILED"]
    assert (report["failed"], report["after"]) == (True, "STORE_FAILED")
    assert report["restarted"] in {"NONCE_UNKNOWN", "ALREADY_SPENT"}
    assert (report["good"], report["pulses"]) == ("GRANTED", 1)


def test_row_34_a_disk_that_fills_up(tmp_path, processes):
    """32 MiB before the end refusals are not written any more, but whoever may enter still does; at the end nobody
    does but an administrator by hand, unrecorded. What was written holds.
    """
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    copy.mkdir()
    report = processes.run("filling_disk", folder=disk, copy=copy)
    if report.all("skip"):
        pytest.skip(report["skip"])
    assert report.all("code") == ["NONCE_UNKNOWN"] * 2
    assert (report["at_reserve"], report["by_hand"]) == ("GRANTED", "GRANTED")
    assert report["sequences"] == [
        ["access_denied", 1],
        ["access_denied", None],
        ["access_granted", 2],
        ["door_released", 3],
        ["access_granted", 4],
        ["door_released", 5],
    ]
    assert (report["full"], report["failed"]) == ("STORE_FAILED", True)
    assert (report["user"], report["administrator"], report["pulses"]) == ("STORE_FAILED", "GRANTED", 3)
    assert report["unrecorded"] == [
        ["access_denied", None],
        ["access_denied", None],
        ["access_granted", None],
        ["door_released", None],
        ["refusals_counted", None],
    ]
    verdict = verify(copy / "journal.db")
    assert (verdict.holds, verdict.entries) == (True, 5)


def test_row_34_read_only_file_system(tmp_path, processes):
    """read-only file system: no journal, hence no controller and no pulse; the file is as it was."""
    report = processes.run("read_only_disk", folder=tmp_path)
    if report.all("skip"):
        pytest.skip(report["skip"])
    assert (report["opened"], report["untouched"]) == ("StoreFailed", True)


async def test_row_34_journal_locked_by_another_process(tmp_path, processes):
    """Locked database: whoever comes second gets no journal, and whoever has it works on."""
    async with Attack(tmp_path) as attack:
        assert processes.run("open_another_journal", path=attack.site.path)["opened"] == "JournalInUse"
        await attack.opens(attack.site.token())
    assert processes.run("open_another_journal", path=attack.site.path)["opened"] is True


async def test_row_34_locked_at_the_moment_of_the_spend(tmp_path):
    """Locked database: STORE_FAILED, no pulse, no retry."""
    async with Attack(tmp_path) as attack:
        text = attack.site.token()
        writer, attempts = attack.site.journal._writer, []

        class Locked:
            def execute(self, sql, *_):
                attempts.append(sql)
                raise sqlite3.OperationalError("database is locked")

            def __getattr__(self, name):
                return getattr(database, name)

        database, writer.db = writer.db, Locked()
        codes = [(await attack.site.present(text)).code for _ in range(2)]
        assert codes == [Code.STORE_FAILED, Code.STORE_FAILED]
        assert attempts == ["BEGIN IMMEDIATE"]
        assert attack.site.journal.failed
        await attack.site.told(EventName.ACCESS_DENIED, 2)
        assert refusals(attack.site.events) == [Code.STORE_FAILED] * 2
        assert {event.sequence for event in attack.site.events} == {None}, "told, though nothing could be written"
        attack.site.events.clear()


async def test_row_35_token_for_a_door_of_another_controller(tmp_path):
    """Token for a gateway door presented to Home Assistant: NOT_SPENDER inside the wrong controller."""
    here, there = some_doors(2)
    carrier = Carrier("Parcels", [here, there])
    async with Site(tmp_path / "journal.db", carriers=[carrier], elsewhere=[there]) as site:
        nonce = site.challenge()
        decision = await site.present(carrier.token(nonce, aud=there.id))
        assert (decision.code, decision.code.told) == (Code.NOT_SPENDER, "NOT_SPENDER")
        with pytest.raises(Refused) as refused:
            site.challenge(there)
        assert refused.value.code is Code.WRONG_DOOR
        (event,) = await site.told(EventName.ACCESS_DENIED)
        assert event.door == there.id
        assert (await site.present(carrier.token(nonce))).granted, "nothing was burned"
        # The door becomes this controller's: from then on it is its spender, and not before.
        site.elsewhere, site.doors = (), (here, there)
        site.strikes[there.id] = SimulatedStrike()
        site.controller.apply(site.building, site.strikes)
        assert (await site.present(carrier.token(site.challenge(there), aud=there.id))).granted
        assert [len(strike.pulses) for strike in site.strikes.values()] == [1, 1]


# ---- what changes between the steps ----


def revoke(site):
    admitted = site.carrier.admitted
    revoked = replace(admitted, keys=tuple(replace(key, status=KeyStatus.REVOKED) for key in admitted.keys))
    site.controller.apply(policy.Building.of(site.doors, [revoked]), site.strikes)


def narrow(site):
    limits = policy.EvidenceLimits(distance=0)
    site.controller.apply(policy.Building.of(site.doors, [replace(site.carrier.admitted, limits=limits)]), site.strikes)


def sense_tamper(site):
    site.sense(Sensor.TAMPER)


def ask(order):
    """Let somebody ask for it, and wait for no answer."""
    return lambda site: site.orders.append(asyncio.ensure_future(order(site)))


async def wait_for(site, change):
    """Make the change, and wait until the door has heard of it if it has to."""
    change(site)
    if site.orders or change is sense_tamper:
        await site.until(
            lambda state: state.mode is not DoorMode.NORMAL or not state.accepts_deliveries or state.tampered
        )


CHANGES = [
    (ask(lambda site: site.controller.by_hand.set_lockdown(True, ANN)), Code.LOCKDOWN, "lockdown"),
    (revoke, Code.KEY_REVOKED, "revocation"),
    (lambda site: site.clock.advance(61), Code.LATE, "challenge expiry, and everybody has gone"),
    (lambda site: site.clock.advance(4.5), Code.NONCE_EXPIRED, "challenge expiry, by a moment"),
    (
        ask(lambda site: site.controller.by_hand.set_mode(site.door.id, DoorMode.BLOCKED, ANN)),
        Code.DOOR_BLOCKED,
        "block",
    ),
    (
        ask(lambda site: site.controller.by_hand.set_deliveries(site.door.id, False, ANN)),
        Code.DELIVERIES_OFF,
        "no deliveries",
    ),
    (sense_tamper, Code.TAMPERED, "tampering"),
    (narrow, Code.POLICY_EVIDENCE, "a changed policy"),
]


@pytest.fixture
async def aged(tmp_path):
    """A building, and a token whose challenge has been out for 57 seconds."""
    async with Site(tmp_path / "journal.db", setup={"sensors": frozenset({Sensor.TAMPER})}) as site:
        site.orders = []
        text = site.token()
        site.clock.advance(57)
        yield site, text
        await asyncio.gather(*site.orders)


@pytest.mark.parametrize("change, code, what", CHANGES, ids=[row[-1] for row in CHANGES])
async def test_row_37_between_steps_10_and_11(aged, change, code, what):
    """Lockdown, revocation or challenge expiry between steps 10 and 11: no pulse, and nothing is burned."""
    site, text = aged
    site.strike.at(Moment.REACHED, lambda: wait_for(site, change))
    assert (await site.present(text)).code is code
    await site.told(EventName.ACCESS_DENIED)
    assert site.pulses == 0
    await site.__aexit__()
    assert site.spent() == []


@pytest.mark.parametrize("change, code, what", CHANGES, ids=[row[-1] for row in CHANGES])
async def test_row_37_in_the_writer_just_before_the_row_is_written(aged, change, code, what):
    """Step 11 looks again inside of the transaction; what is asked for then is in time."""
    site, text = aged
    commit = site.journal._commit

    def changing(group):
        if site.journal.sequence == 0:  # the spend: in the writer's thread, before it begins
            asyncio.run_coroutine_threadsafe(wait_for(site, change), loop).result(5)
        commit(group)

    loop, site.journal._commit = asyncio.get_running_loop(), changing
    assert (await site.present(text)).code is code
    site.journal._commit = commit
    assert site.pulses == 0
    await site.__aexit__()
    assert site.spent() == []


@pytest.mark.parametrize("change, code, what", CHANGES, ids=[row[-1] for row in CHANGES])
async def test_row_37_after_the_commit(aged, change, code, what):
    """Lockdown, revocation or challenge expiry after COMMIT: no pulse; the token is burned."""
    site, text = aged
    deliver, held = site.journal._deliver, asyncio.Queue()
    site.journal._deliver = held.put_nowait
    waiting = asyncio.create_task(site.present(text))
    results = await held.get()
    change(site)
    site.journal._deliver = deliver
    deliver(results)
    assert (await waiting).code is code
    (failed,) = await site.told(EventName.RELEASE_FAILED)
    assert failed.code is code
    assert site.pulses == 0
    assert (await site.present(text)).code is Code.ALREADY_SPENT
    await site.__aexit__()
    assert [state for _, state in site.spent()] == ["FAILED"]


# ---- what the building does not allow ----


async def test_row_39_outside_hours(tmp_path):
    """Outside hours: POLICY_HOURS, for the door's and for the carrier's; in time it opens."""
    at = datetime.fromtimestamp(ISSUED_AT, UTC)
    only_before = (Hours(frozenset(Day), time(0), at.time().replace(second=0)),)
    from_now = (Hours(frozenset(Day), at.time().replace(second=0), time(0)),)
    for name, of_the_door, of_the_carrier, granted in [
        ("door", only_before, (), False),
        ("carrier", (), only_before, False),
        ("both", from_now, from_now, True),
    ]:
        (tmp_path / name).mkdir()
        carrier = Carrier("Parcels", hours=of_the_carrier)
        setup = {"hours": of_the_door}
        async with Attack(tmp_path / name, carriers=[carrier], setup=setup) as attack:
            text = attack.site.token()
            await (attack.opens(text) if granted else attack.signed(text, Code.POLICY_HOURS))


@pytest.mark.parametrize("zone, granted", [("UTC", True), ("Pacific/Kiritimati", False)])
async def test_row_39_hours_in_the_buildings_own_zone(tmp_path, zone, granted):
    """14:13 in UTC is Monday; on Kiritimati it is Tuesday already."""
    monday = {"hours": (Hours(frozenset({Day.MONDAY}), time(0), time(0)),)}
    async with Attack(tmp_path, zone=ZoneInfo(zone), setup=monday) as attack:
        text = attack.site.token()
        await (attack.opens(text) if granted else attack.signed(text, Code.POLICY_HOURS))


async def test_row_39_over_the_rate_with_64_parallel_tokens(tmp_path):
    """Over the rate (64 parallel tokens at 1 per hour): POLICY_RATE; one pulse."""
    async with Attack(tmp_path, carriers=[Carrier("Parcels", rate=1)]) as attack:
        site = attack.site
        texts = [site.token() for _ in range(64)]
        codes = [decision.code for decision in await asyncio.gather(*(site.present(text) for text in texts))]
        assert sorted(codes) == [Code.GRANTED] + [Code.POLICY_RATE] * 63
        attack.pulses = 1
        await site.controller.recorded()
        recorded = refusals(site.events)
        assert set(recorded) == {Code.POLICY_RATE}
        assert len(recorded) + site.controller.counters[Code.POLICY_RATE] == 63
        attack._signed = recorded
    assert len(site.spent()) == 1, "who was refused is not burned"
    async with site.reopen() as again:  # a restart forgets nothing within the hour
        assert (await again.present(again.token())).code is Code.POLICY_RATE
        again.clock.advance(3600)
        assert (await again.present(again.token())).granted


async def test_row_39_the_rate_on_a_machine_whose_clock_starts_in_1970(tmp_path):
    """No battery, no network yet: what was accepted just before the restart still counts."""
    async with Site(tmp_path / "journal.db", carriers=[Carrier("Parcels", rate=1)]) as site:
        assert (await site.present(site.token())).granted
        site.clock.advance(1800)
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
    site.clock.set_wall(by=-site.clock().wall)
    async with site.reopen() as again:
        assert (await again.present(again.token())).code is Code.POLICY_RATE
        again.clock.advance(1800)  # and for the rest of its hour
        assert (await again.present(again.token())).granted


async def test_row_39_the_rate_in_one_commit(tmp_path):
    """Two tokens for two doors in one commit count apart; two for one door count each other."""
    doors = some_doors(2)
    async with Site(tmp_path / "journal.db", doors=2, carriers=[Carrier("Parcels", doors, rate=1)]) as site:
        texts = [site.carrier.token(site.challenge(door), aud=door.id) for door in doors for _ in range(3)]
        codes = [decision.code for decision in await asyncio.gather(*(site.present(text) for text in texts))]
        assert codes.count(Code.GRANTED) == 2
        assert [len(strike.pulses) for strike in site.strikes.values()] == [1, 1]


async def test_row_39_lockdown_blocked_deliveries_off_tamper(tmp_path):
    """Lockdown, blocked, deliveries off, tamper: each refuses for itself, and one after the other is lifted."""
    setup = {"sensors": frozenset({Sensor.TAMPER})}
    async with Attack(tmp_path, setup=setup) as attack:
        site, controller, door = attack.site, attack.site.controller, attack.site.door.id
        site.sense(Sensor.TAMPER)
        site.sense(Sensor.TAMPER, Sense.INACTIVE)
        await site.told(EventName.DOOR_TAMPERED)
        await controller.by_hand.set_deliveries(door, False, ANN)
        await controller.by_hand.set_mode(door, DoorMode.BLOCKED, ANN)
        await controller.by_hand.set_lockdown(True, ANN)
        for code, lift in [
            (Code.LOCKDOWN, lambda: controller.by_hand.set_lockdown(False, ANN)),
            (Code.DOOR_BLOCKED, lambda: controller.by_hand.set_mode(door, DoorMode.NORMAL, ANN)),
            (Code.DELIVERIES_OFF, lambda: controller.by_hand.set_deliveries(door, True, ANN)),
            (Code.TAMPERED, lambda: controller.by_hand.clear_tamper(door, ANN)),
        ]:
            await attack.signed(site.token(), code)
            assert (await lift()).granted
        await attack.opens(site.token())


EXCEEDED = [
    ({"drv": "badge"}, Limit.METHOD),
    ({"gps": {"d": 76, "acc": 8, "age": 3}}, Limit.DISTANCE),
    ({"gps": {"d": 12, "acc": 51, "age": 3}}, Limit.ACCURACY),
    ({"gps": {"d": 12, "acc": 8, "age": 31}}, Limit.POSITION_AGE),
    ({"req": ISSUED_AT - 121}, Limit.REQUEST_AGE),
    ({"req": ISSUED_AT + 1}, Limit.REQUEST_AGE),
]


@pytest.mark.parametrize("chk, limit", EXCEEDED, ids=str)
async def test_row_39_each_confirmation_exceeded_by_one(attack, chk, limit):
    """Each `chk` limit exceeded by one: POLICY_EVIDENCE."""
    text = attack.site.token(chk=chk)
    assert (await attack.site.present(text)).limit is limit
    await attack.signed(text, Code.POLICY_EVIDENCE)
    attack._signed.append(Code.POLICY_EVIDENCE)


async def test_row_39_each_confirmation_at_its_limit_opens(tmp_path):
    """Without this the row before would show less."""
    async with Attack(tmp_path) as attack:
        at_the_limit = {"gps": {"d": 75, "acc": 50, "age": 30}, "req": ISSUED_AT - 120}
        await attack.opens(attack.site.token(chk=at_the_limit))
        await attack.opens(attack.site.token(chk={"drv": "device_key"}))


@pytest.mark.parametrize("device_timed", [True, False], ids=["device-timed", "controller-timed"])
async def test_row_40_a_commit_that_stalls_for_30_seconds(tmp_path, device_timed):
    """COMMIT that stalls for 30 s: LATE, no pulse, token burned."""
    async with Attack(tmp_path, device_timed=device_timed) as attack:
        site, writer = attack.site, attack.site.journal._writer

        class Stalling:
            def execute(self, sql, *parameters):
                if sql == "COMMIT":
                    site.clock.advance(30)
                return database.execute(sql, *parameters)

            def __getattr__(self, name):
                return getattr(database, name)

        database, writer.db = writer.db, Stalling()
        text = site.token()
        assert (await site.present(text)).code is Code.LATE
        writer.db = database
        (failed,) = await site.told(EventName.RELEASE_FAILED)
        assert failed.code is Code.LATE
        await attack.unsigned(text, Code.ALREADY_SPENT)
        await attack.opens(site.token())
    assert [state for _, state in site.spent()] == ["FAILED", "GRANTED"]


# ---- revoked, other types, text ----


async def test_row_36_revoked_key(tmp_path):
    """Revoked key: KEY_REVOKED; also when it is revoked while the token waits at the door."""
    async with Attack(tmp_path) as attack:
        site = attack.site
        text, other = site.token(), site.token()
        admitted = site.carrier.admitted
        revoked = replace(admitted, keys=tuple(replace(key, status=KeyStatus.REVOKED) for key in admitted.keys))
        building = policy.Building.of(site.doors, [revoked])
        site.strike.at(Moment.REACHED, lambda: site.controller.apply(building, site.strikes))
        await attack.signed(text, Code.KEY_REVOKED)
        await attack.signed(other, Code.KEY_REVOKED)
        assert site.strike.times_reached == 1, "the second one did not come as far"


@pytest.mark.parametrize("typ", ["door-keys+jwt", "door-link+jwt", "door-challenge+jwt"])
async def test_row_38_another_signed_document_as_an_unlock_token(attack, typ):
    """`door-keys+jwt`, `door-link+jwt` or `door-challenge+jwt` presented as an unlock token: WRONG_TYPE."""
    await attack.unsigned(resign(attack, attack.carrier.claims(attack.challenge()), typ=typ), Code.WRONG_TYPE)


BAD_TEXT = ["a\ud800", "a\0b", "a\u202eb", "<b>", "a'b", 'a"b', "a b", "a\n", "\uff41", "&amp;"]


async def test_row_76_text_that_could_harm_a_log_a_database_or_a_screen(tmp_path):
    """`sub`/`stp`/`rte`/`iss` with U+D800, NUL, U+202E, HTML: BAD_CLAIMS; neighbours in one commit group succeed."""
    async with Attack(tmp_path, doors=2) as attack:
        site = attack.site
        good = [site.carrier.token(site.challenge(door), aud=door.id) for door in site.doors]
        bad = [site.token(**{name: text}) for name in ("sub", "stp") for text in BAD_TEXT]
        bad += [site.token(chk={"rte": text}) for text in BAD_TEXT]
        bad += [site.token(iss=f"https://{text}") for text in BAD_TEXT]
        bad.insert(len(bad) // 2, good[0])
        decisions = await asyncio.gather(*(site.present(text) for text in [*bad, good[1]]))
        assert [decision.code for decision in decisions].count(Code.BAD_CLAIMS) == 4 * len(BAD_TEXT)
        assert [decision.code for decision in decisions].count(Code.GRANTED) == 2
        attack.pulses += 2
        attack._signed += [Code.BAD_CLAIMS] * 4 * len(BAD_TEXT)
    disk = site.all_bytes()
    assert b"\xe2\x80\xae" not in disk
    assert b"<b>" not in disk
    assert rb"\u202e" not in disk


async def test_row_77_forged_token_with_a_real_drivers_name(tmp_path, caplog):
    """Forged token with a real driver's `sub`: no event, log line or leaf has it."""
    async with Attack(tmp_path) as attack:
        claims = attack.carrier.claims(
            attack.challenge(), sub="driver-real", stp="stop-real", chk={"rte": "route-real"}
        )
        stranger = signing_key(Alg.EDDSA, "a stranger")
        for header in (attack.carrier.header(), attack.carrier.header(kid=stranger.kid), {"alg": "none"}):
            text = forge(header, claims, stranger)
            assert not (await attack.site.controller.present(text, Principal())).granted
        assert attack.site.events == []
    assert [leaf.says["kind"] for leaf in attack.site.leaves()] == ["refusals_counted"]
    assert b"-real" not in attack.site.all_bytes()
    assert "-real" not in caplog.text


def test_es256_signature_of_row_19_is_really_a_second_valid_one():
    """Without this the row would show nothing: (r, n-s) verifies, too."""
    key = signing_key(Alg.ES256)
    (trusted,) = import_jwk_set(json.dumps(key.jwk()), Carrier().issuer)
    raw = key.sign(b"m")
    other = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    assert other != raw
    assert trusted.verifies(other, b"m")
    assert decode_dss_signature(key.private.sign(b"m", keys._ECDSA))[0] > 0
