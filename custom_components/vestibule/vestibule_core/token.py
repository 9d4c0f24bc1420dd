"""The unlock token: one strict parser, used to verify by doors and to issue by carriers.

A token is a JWS in compact form with a closed set of claims (protocol A.1). It is checked in the order of protocol A.2,
cheap first: nothing is decoded before the form is right, nothing in the payload is read before the signature is. What
this file refuses to do: fetch anything, guess a type, skip an unknown member, or compare the issuer's clock with ours
(freshness comes from the door's challenge). General JWT libraries accept more than this profile allows, which is why
they serve as independent signers in the tests and not here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final

from . import b64url
from .errors import Refused
from .keys import KeyStatus, SigningKey, TrustedKey
from .model import Checks, Code, DoorId, Issuer

TYPE: Final = "door-unlock+jwt"
MAX_LENGTH: Final = 1500
MAX_PAYLOAD: Final = 1024
MAX_LIFETIME: Final = 120
"""Seconds between ``iat`` and ``exp``."""


class DriverProof(StrEnum):
    """How the driver proved who they are, fresh for this request (``chk.drv``)."""

    PASSKEY = "passkey"
    DEVICE_KEY = "device_key"
    BADGE = "badge"


@dataclass(frozen=True, slots=True)
class Confirmations:
    """The carrier's word on the four things that its cloud confirmed (``chk``): ID, route, position and time."""

    driver: DriverProof
    route: str
    """Opaque reference of the route; the token's stop is a due stop of it."""
    distance: int
    """Metres between the phone and the door."""
    accuracy: int
    """Metres."""
    position_age: int
    """Seconds."""
    requested_at: int
    """Seconds since 1970 by the issuer's clock."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, each value of the right form. Says nothing about whether to believe it."""

    issuer: Issuer
    door: DoorId
    jti: str
    issued_at: int
    expires_at: int
    subject: str
    stop: str
    nonce: str
    confirmations: Confirmations
    evidence: str | None = None

    @property
    def checks(self) -> Checks:
        """What may be told of the confirmations."""
        said = self.confirmations
        age = self.issued_at - said.requested_at
        return Checks(said.driver.value, said.distance, said.accuracy, said.position_age, age)


@dataclass(frozen=True, slots=True)
class UnlockToken:
    """A token whose form and signature are right and whose key is the named carrier's."""

    claims: Claims
    key: TrustedKey
    text: str

    @property
    def spend_key(self) -> tuple[Issuer, str]:
        """What is spent: never the text, since ES256 and base64 allow a second spelling (A.2)."""
        return self.claims.issuer, self.claims.jti


class SignedRefusal(Refused):
    """A refusal after the signature was found good: it is told of and recorded (A.2).

    ``token`` is there if the claims could be read (step 6), None if not (step 5).
    """

    def __init__(self, code: Code, key: TrustedKey, token: UnlockToken | None) -> None:
        """Refuse with this code what this key signed."""
        super().__init__(code)
        self.key = key
        self.token = token


def spend_id(issuer: Issuer, jti: str) -> bytes:
    """Return the 16 bytes that name a spend to strikes and in the journal (protocol B.2)."""
    return hashlib.sha256(b"spend\0%b\0%b" % (issuer.encode(), jti.encode())).digest()[:16]


_ERASED: Final = "erased:"


def erased_jti(issuer: Issuer, jti: str) -> str:
    """Return what stands for the id of a spent token whose person was deleted. No token can have such an id."""
    return f"{_ERASED}{spend_id(issuer, jti).hex()}"


def spend_id_of(issuer: Issuer, stored: str) -> bytes:
    """Return ``spend_id`` of a spent token by its id as it is stored: as it was, or erased."""
    if stored.startswith(_ERASED):
        return bytes.fromhex(stored.removeprefix(_ERASED))
    return spend_id(issuer, stored)


def verify(
    text: object, keys: Mapping[str, TrustedKey], issuer: Issuer | None, spent: Container[str] = ()
) -> UnlockToken:
    """Return the token that ``text`` is, or raise Refused (steps 1-4) or SignedRefusal (steps 5-6 of A.2).

    ``keys`` are the trusted keys by kid, ``issuer`` is the one that the presenter speaks for (None: any), ``spent``
    holds texts that were spent.
    """
    # 1: the form of the text
    if type(text) is not str or len(text) > MAX_LENGTH or not text.isascii():
        raise Refused(Code.MALFORMED)
    raw = text.encode()
    if raw.translate(None, b64url.ALPHABET) != b"..":
        raise Refused(Code.MALFORMED)
    header, payload, signature = raw.split(b".")
    if not payload or len(signature) != _SIGNATURE_LENGTH:
        raise Refused(Code.MALFORMED)
    if text in spent:  # 1b
        raise Refused(Code.ALREADY_SPENT)
    # 2: the header
    alg, kid = _header(header)
    # 3: a key that we have; an unknown one is never fetched
    if (key := keys.get(kid)) is None:
        raise Refused(Code.UNKNOWN_KEY)
    if alg != key.alg.value:
        raise Refused(Code.ALG_MISMATCH)
    claims_json = _decode(payload)
    # 4: the signature, over the bytes as received
    if not key.verifies(_decode(signature), raw[: -1 - _SIGNATURE_LENGTH]):
        raise Refused(Code.BAD_SIGNATURE)
    # 5: the claims
    try:
        claims = _claims(claims_json)
    except Refused as err:
        raise SignedRefusal(err.code, key, None) from err
    unlock = UnlockToken(claims, key, text)
    # 6: they are the key's and the presenter's issuer's, and the key is not revoked
    if claims.issuer != key.issuer or (issuer is not None and claims.issuer != issuer):
        raise SignedRefusal(Code.WRONG_ISSUER, key, unlock)
    if key.status is KeyStatus.REVOKED:
        raise SignedRefusal(Code.KEY_REVOKED, key, unlock)
    return unlock


def claimed_door(text: object) -> DoorId | None:
    """Return the door that ``text`` says it is for; None if it is no token.

    Nothing is verified: it tells to which controller a text is to be carried, and nothing else may depend on it.
    """
    return said.door if (said := claimed(text)) is not None else None


def claimed(text: object) -> Claims | None:
    """Return what ``text`` says; None if it is no token. Nothing is verified: for a text that once was, or is to be."""
    if type(text) is not str or len(text) > MAX_LENGTH or not text.isascii() or text.count(".") != 2:
        return None
    try:
        return _claims(_decode(text.encode().split(b".")[1]))
    except Refused:
        return None


def issue(key: SigningKey, claims: Claims) -> str:
    """Return the signed token that says ``claims``; raise Refused if no door would take it. For carriers and tests."""
    checks = claims.confirmations
    payload: dict[str, Any] = {
        "ver": 1,
        "iss": claims.issuer,
        "aud": claims.door,
        "jti": claims.jti,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "act": "unlock",
        "sub": claims.subject,
        "stp": claims.stop,
        "non": claims.nonce,
        "chk": {
            "drv": checks.driver,
            "rte": checks.route,
            "gps": {"d": checks.distance, "acc": checks.accuracy, "age": checks.position_age},
            "req": checks.requested_at,
        },
    }
    if claims.evidence is not None:
        payload["evd"] = claims.evidence
    encoded = json.dumps(payload, separators=(",", ":")).encode()
    _claims(encoded)
    header = json.dumps({"alg": key.alg, "kid": key.kid, "typ": TYPE}, separators=(",", ":")).encode()
    signed = f"{b64url.encode(header)}.{b64url.encode(encoded)}"
    return f"{signed}.{b64url.encode(key.sign(signed.encode()))}"


# ---- the form -------------------------------------------------------------------------------------------------------

_SIGNATURE_LENGTH: Final = 86


def _decode(segment: bytes) -> bytes:
    try:
        return b64url.decode(segment)
    except ValueError as err:
        raise Refused(Code.MALFORMED) from err


@functools.lru_cache(maxsize=64)  # every token of a key has the same header
def _header(segment: bytes) -> tuple[str, str]:
    """Return ``alg`` and ``kid`` of a header with the right members and type, else refuse (A.2 step 2)."""
    header = _object(_text(_decode(segment)))
    if (
        header is None
        or header.keys() != {"alg", "kid", "typ"}
        or not all(type(value) is str for value in header.values())
    ):
        raise Refused(Code.BAD_HEADER)
    if header["typ"] != TYPE:
        raise Refused(Code.WRONG_TYPE)
    return header["alg"], header["kid"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # compared after unescaping: "exp" and "\u0065xp" are one name (attack 7)
        raise ValueError("duplicate member")
    return members


def _integer(text: str) -> int:
    # Anything that is not 0 <= v < 2^53 becomes -1, which no claim admits: "-0" and a number of 1000 digits included.
    return int(text) if text[0] != "-" and len(text) <= 16 else -1


def _no_number(text: str) -> Any:
    raise ValueError(f"not an integer: {text}")


_JSON: Final = json.JSONDecoder(parse_float=_no_number, parse_constant=_no_number)
_STRICT_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
)


def _text(raw: bytes) -> str:
    if len(raw) > MAX_PAYLOAD or not raw.isascii():
        raise Refused(Code.MALFORMED)
    return raw.decode("ascii")


def _object(text: str, decoder: json.JSONDecoder = _STRICT_JSON) -> dict[str, Any] | None:
    """Return the JSON object that ``text`` is, None if it is other JSON; refuse what is not strict JSON."""
    try:
        value, end = decoder.raw_decode(text)
    except (ValueError, RecursionError) as err:
        raise Refused(Code.MALFORMED) from err
    if end != len(text):
        raise Refused(Code.MALFORMED)
    return value if type(value) is dict else None


# ---- the claims ----------------------------------------------------------------------------------------------------

_CLAIMS: Final = itemgetter("ver", "iss", "aud", "jti", "iat", "exp", "act", "sub", "stp", "non", "chk")
_CHECKS: Final = itemgetter("drv", "rte", "gps", "req")
_POSITION: Final = itemgetter("d", "acc", "age")
_QUOTES: Final = 2 * (11 + 4 + 3 + 9)  # of the names, and of nine strings
_EARLIEST: Final = 1_700_000_000
_LATEST: Final = 2**53
_FAR: Final = 10**6

# The seven strings in one match, a line each. No control, bidirectional, surrogate or markup character reaches a log, a
# database or a screen (attack 76); a string with a line break of its own cannot match.
_STRINGS: Final = re.compile(
    r"https://[A-Za-z0-9._~:/-]{1,56}\n"  # iss
    r"door:[a-z2-7]{25}[aeimquy4]\n"  # aud
    r"[A-Za-z0-9_-]{21}[AQgw]\n"  # jti
    r"[A-Za-z0-9_-]{21}[AQgw]\n"  # non
    r"[A-Za-z0-9._~:/-]{1,40}\n"  # sub
    r"[A-Za-z0-9._~:/-]{1,40}\n"  # stp
    r"[A-Za-z0-9._~:/-]{1,40}"  # chk.rte
)
_EVIDENCE: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_DRIVER_PROOFS: Final = {proof.value: proof for proof in DriverProof}


def _claims(raw: bytes) -> Claims:
    """Return the claims that ``raw`` holds, else refuse (A.2 step 5)."""
    text = _text(raw)
    # The quick decoder keeps the last of two members of one name and reads -0 as 0. Without a backslash every quote is
    # part of the syntax, so that counting them below finds a second member; what has one is decoded slowly.
    quick = "\\" not in text and "-0" not in text
    payload = _object(text, _JSON if quick else _STRICT_JSON)
    if payload is None:
        raise Refused(Code.BAD_CLAIMS)
    try:
        ver, iss, aud, jti, iat, exp, act, sub, stp, non, checks = _CLAIMS(payload)
        drv, rte, position, req = _CHECKS(checks)
        d, acc, age = _POSITION(position)
        driver = _DRIVER_PROOFS[drv]
        strings = f"{iss:s}\n{aud:s}\n{jti:s}\n{non:s}\n{sub:s}\n{stp:s}\n{rte:s}"
    except (KeyError, TypeError, ValueError) as err:  # a member is missing, or is of another type
        raise Refused(Code.BAD_CLAIMS) from err
    evidence = payload.get("evd")
    extra = 0 if evidence is None else 1
    if (
        # Nothing is missing, so the number of members says whether there is one too many ("evd": null is).
        len(payload) != 11 + extra
        or len(checks) != 4
        or len(position) != 3
        or act != "unlock"
        or not _STRINGS.fullmatch(strings)
        or (extra and not (type(evidence) is str and _EVIDENCE.fullmatch(evidence)))
        # By type, since True is an int for isinstance.
        or not type(ver) is type(iat) is type(exp) is type(req) is type(d) is type(acc) is type(age) is int
        or ver != 1
        or not _EARLIEST <= iat < exp < _LATEST
        or not _EARLIEST <= req < _LATEST
        or not (0 <= d <= _FAR and 0 <= acc <= _FAR and 0 <= age <= _FAR)
    ):
        raise Refused(Code.BAD_CLAIMS)
    if quick and text.count('"') != _QUOTES + 4 * extra:
        raise Refused(Code.MALFORMED)
    if exp - iat > MAX_LIFETIME:
        raise Refused(Code.LIFETIME_TOO_LONG)
    return Claims(
        Issuer(iss), DoorId(aud), jti, iat, exp, sub, stp, non, Confirmations(driver, rte, d, acc, age, req), evidence
    )
