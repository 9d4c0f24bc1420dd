"""Signed texts between a carrier's cloud and a building: a JWS in compact form with a fixed header, Ed25519 only.

The header has exactly ``alg``, ``kid`` and ``typ``, so that no text of one kind is ever taken for another (attack 38).
What this file refuses to do: take a key from the text, choose an algorithm, or return a payload that was not verified.

The unlock token has a path of its own (token.py): it is read for each opening, in the order of protocol A.2 with spent
texts in between, keeps its headers, and knows ES256. What is read here is read a few times an hour.
"""

from __future__ import annotations

import json
import re
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import b64url
from .errors import MalformedMessage, Refused
from .keys import thumbprint
from .model import Code
from .strict import read_json

_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")


class Signer(Protocol):
    """Who signs with an Ed25519 key."""

    @property
    def kid(self) -> str:
        """The key's RFC 7638 thumbprint."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """Return the 64-byte signature of ``message``."""
        ...


def key_id(public: bytes) -> str:
    """Return the RFC 7638 thumbprint of an Ed25519 key of 32 bytes."""
    return thumbprint({"kty": "OKP", "crv": "Ed25519", "x": b64url.encode(public)})


def sign(signer: Signer, typ: str, payload: bytes) -> str:
    """Return the signed text of this type."""
    header = json.dumps({"alg": "EdDSA", "kid": signer.kid, "typ": typ}, separators=(",", ":")).encode()
    signed = f"{b64url.encode(header)}.{b64url.encode(payload)}"
    return f"{signed}.{b64url.encode(signer.sign(signed.encode()))}"


def verify(text: object, typ: str, public: bytes, most: int) -> bytes:
    """Return the payload of ``text``, of this type, of at most so many characters, signed by the key ``public``.

    Raises Refused: MALFORMED, BAD_HEADER, WRONG_TYPE, ALG_MISMATCH, UNKNOWN_KEY or BAD_SIGNATURE.
    """
    header, payload, signature = _parts(text, most)
    if header.keys() != {"alg", "kid", "typ"} or not all(type(value) is str for value in header.values()):
        raise Refused(Code.BAD_HEADER)
    if header["typ"] != typ:
        raise Refused(Code.WRONG_TYPE)
    if header["alg"] != "EdDSA":
        raise Refused(Code.ALG_MISMATCH)
    if header["kid"] != key_id(public):
        raise Refused(Code.UNKNOWN_KEY)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, str(text).rpartition(".")[0].encode())
    except InvalidSignature as err:
        raise Refused(Code.BAD_SIGNATURE) from err
    return payload


def claimed(text: object, most: int) -> tuple[object, bytes]:
    """Return the ``kid`` and the payload of ``text``, **neither of them verified**: only to find the key to verify by.

    Raises Refused.
    """
    header, payload, _ = _parts(text, most)
    return header.get("kid"), payload


def _parts(text: object, most: int) -> tuple[dict[str, object], bytes, bytes]:
    if type(text) is not str or len(text) > most or not (form := _FORM.fullmatch(text)):
        raise Refused(Code.MALFORMED)
    try:
        header, payload, signature = (b64url.decode(part.encode()) for part in form.groups())
        members = read_json(header)
    except (ValueError, MalformedMessage) as err:
        raise Refused(Code.MALFORMED) from err
    if type(members) is not dict:
        raise Refused(Code.BAD_HEADER)
    return members, payload, signature
