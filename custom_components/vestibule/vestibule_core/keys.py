"""Carriers' keys: importing a JWK set, checking signatures, and signing (for carriers and tests).

Only public Ed25519 and P-256 keys get in, each named by its RFC 7638 thumbprint, so that no carrier can shadow
another's key. The algorithm is stored with the key; a token's header can only agree with it. Nothing is ever fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import b64url
from .curve import Flaw, flaw_of
from .errors import KeySetInvalid
from .model import Issuer

MAX_SET_BYTES = 16 * 1024
MAX_KEYS = 32


class Alg(StrEnum):
    """The signature algorithms of the profile (RFC 8037, RFC 7518)."""

    EDDSA = "EdDSA"
    ES256 = "ES256"


class KeyStatus(StrEnum):
    """Whether a key still opens doors. A revoked key stays known, so that its tokens are refused by name."""

    ACTIVE = "active"
    REVOKED = "revoked"


type PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

_ECDSA: Final = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that the building manager accepted for one carrier."""

    kid: str
    """RFC 7638 SHA-256 thumbprint, 43 characters."""
    issuer: Issuer
    alg: Alg
    public: PublicKey
    status: KeyStatus = KeyStatus.ACTIVE
    valid_from: int = 0
    """Seconds since 1970."""
    valid_until: int | None = None
    """Seconds since 1970: the first at which it opens nothing any more. None: until it is revoked, as a key that was
    pasted. That of a root-signed set ends with its set at the latest, so that a set that is withheld helps no thief.
    """

    def opens(self, at: float) -> bool:
        """Return whether its tokens open doors at ``at``, seconds since 1970 by our own clock (A.2 step 6)."""
        in_time = self.valid_from <= at and (self.valid_until is None or at < self.valid_until)
        return in_time and self.status is KeyStatus.ACTIVE

    def jwk(self) -> dict[str, str]:
        """Return the key as a JWK, with nothing but what names it."""
        return _jwk(self.public)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether the 64-byte JWS ``signature`` is this key's over ``message``."""
        try:
            if self.alg is Alg.EDDSA:
                cast(ed25519.Ed25519PublicKey, self.public).verify(signature, message)
            else:
                r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
                public = cast(ec.EllipticCurvePublicKey, self.public)
                public.verify(encode_dss_signature(r, s), message, _ECDSA)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A carrier's private key. The building never holds one; carriers, the demo and the tests do."""

    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls, alg: Alg = Alg.EDDSA) -> Self:
        """Return a new key."""
        if alg is Alg.EDDSA:
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @property
    def alg(self) -> Alg:
        """The algorithm that this key signs with."""
        return Alg.EDDSA if isinstance(self.private, ed25519.Ed25519PrivateKey) else Alg.ES256

    @property
    def kid(self) -> str:
        """The thumbprint that tokens name it by."""
        return thumbprint(self.jwk())

    def jwk(self) -> dict[str, str]:
        """Return the public key as a JWK."""
        return _jwk(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte JWS signature of ``message``."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, _ECDSA))
        return r.to_bytes(32) + s.to_bytes(32)


def _jwk(public: PublicKey) -> dict[str, str]:
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url.encode(public.public_bytes_raw())}
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"kty": "EC", "crv": "P-256", "x": b64url.encode(point[1:33]), "y": b64url.encode(point[33:])}


def thumbprint(jwk: dict[str, str]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public OKP or EC key."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    canonical = json.dumps({name: jwk[name] for name in members}, sort_keys=True, separators=(",", ":"))
    return b64url.encode(hashlib.sha256(canonical.encode()).digest())


def import_jwk_set(text: str, issuer: Issuer) -> tuple[TrustedKey, ...]:
    """Return the keys of a pasted JWK set (RFC 7517), or of a single JWK.

    Raises KeySetInvalid; its reason is one of: too_large, not_json, no_keys, too_many_keys, not_an_object, private_key,
    wrong_kty, wrong_crv, wrong_alg, wrong_use, wrong_kid, bad_coordinate, weak_key, duplicate_key.
    """
    if len(text) > MAX_SET_BYTES:
        raise KeySetInvalid("too_large")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise KeySetInvalid("not_json") from err
    if isinstance(document, dict) and "keys" not in document and "kty" in document:
        document = {"keys": [document]}
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list) or not document["keys"]:
        raise KeySetInvalid("no_keys")
    if len(document["keys"]) > MAX_KEYS:
        raise KeySetInvalid("too_many_keys")
    keys: dict[str, TrustedKey] = {}
    for position, jwk in enumerate(document["keys"], 1):
        try:
            key = _import_jwk(jwk, issuer)
            if key.kid in keys:
                raise KeySetInvalid("duplicate_key")
        except KeySetInvalid as err:
            raise KeySetInvalid(err.reason, position) from err
        keys[key.kid] = key
    return tuple(keys.values())


def _import_jwk(jwk: Any, issuer: Issuer) -> TrustedKey:
    if not isinstance(jwk, dict):
        raise KeySetInvalid("not_an_object")
    if {"d", "k", "p", "q", "dp", "dq", "qi", "oth"} & jwk.keys():
        # Whoever pasted a private key has just shown it to a browser: it has to be replaced, not stripped.
        raise KeySetInvalid("private_key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise KeySetInvalid("wrong_use")
    public: PublicKey
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            alg, public = Alg.EDDSA, _ed25519(_coordinate(jwk, "x"))
        case "EC", "P-256":
            alg, public = Alg.ES256, _p256(_coordinate(jwk, "x"), _coordinate(jwk, "y"))
        case "OKP" | "EC", _:
            raise KeySetInvalid("wrong_crv")
        case _:
            raise KeySetInvalid("wrong_kty")
    # RFC 9864 names the algorithm of an Ed25519 key "Ed25519"; both names mean the same key.
    if jwk.get("alg", alg) not in ([alg, "Ed25519"] if alg is Alg.EDDSA else [alg]):
        raise KeySetInvalid("wrong_alg")
    kid = thumbprint(jwk)
    # A token names its key by thumbprint (A.1). A set that says otherwise comes from a signer whose tokens would all be
    # refused as UNKNOWN_KEY; better to hear of it here.
    if jwk.get("kid", kid) != kid:
        raise KeySetInvalid("wrong_kid")
    return TrustedKey(kid=kid, issuer=issuer, alg=alg, public=public)


_COORDINATE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def _coordinate(jwk: dict[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not _COORDINATE.fullmatch(text):
        raise KeySetInvalid("bad_coordinate")
    return b64url.decode(text.encode())


def _p256(x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    except ValueError as err:  # not on the curve
        raise KeySetInvalid("bad_coordinate") from err


def _ed25519(raw: bytes) -> ed25519.Ed25519PublicKey:
    match flaw_of(raw):
        case Flaw.WEAK:
            raise KeySetInvalid("weak_key")
        case Flaw.NO_POINT:
            raise KeySetInvalid("bad_coordinate")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)
