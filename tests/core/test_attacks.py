"""None of these may move a strike, or move it twice: the rows of protocol F that the core answers for.

One test per row, named after it. Unless a row is about something else, its tokens are presented to a real controller
with a real journal on disk; ``Attack`` then makes sure that the codes are right, that no strike moved, and that nothing
of a token that failed before its signature was found good has reached the disk or an event.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import sqlite3
import sys
import threading
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.simulated import (
    ABSENT,
    ISSUED_AT,
    Carrier,
    Moment,
    Site,
    compact,
    forge,
    pulses_in,
    refusals,
    signing_key,
    some_doors,
)
from vestibule_core import b64url, keys, policy, token
from vestibule_core.errors import KeySetInvalid, Refused
from vestibule_core.keys import Alg, KeyStatus, import_jwk_set
from vestibule_core.model import Code, EventName, Principal

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
        if self.pulses == 0 and not self._signed:
            assert self.site.leaves() == []
            assert b"driver-4711" not in self.site.all_bytes()

    @property
    def carrier(self):
        return self.site.carrier

    def challenge(self):
        return self.site.challenge()

    async def unsigned(self, text, code):
        """Refused in steps 1 to 4: counted, and nothing else."""
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


def test_row_34_read_only_file_system(tmp_path, processes):
    """read-only file system: no journal, hence no controller and no pulse; the file is as it was."""
    report = processes.run("read_only_disk", folder=tmp_path)
    if report.all("skip"):
        pytest.skip(report["skip"])
    assert (report["opened"], report["untouched"]) == ("StoreFailed", True)


async def test_row_34_journal_locked_by_another_process(tmp_path, processes):
    """Locked database: whoever comes second gets no journal, and whoever has it works on."""
    async with Attack(tmp_path) as attack:
        assert processes.run("open_journal", path=attack.site.path)["opened"] == "JournalInUse"
        await attack.opens(attack.site.token())
    assert processes.run("open_journal", path=attack.site.path)["opened"] is True


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
    assert attack.site.leaves() == []
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
