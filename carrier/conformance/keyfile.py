"""A carrier's keys as somebody has them in a file: a JWK set, a key set that a root has signed, or a frame ``keys``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from vestibule_core import b64url, jws, keyset
from vestibule_core.errors import KeySetInvalid, MalformedMessage, Refused
from vestibule_core.keys import MAX_KEYS, MAX_SET_BYTES, TrustedKey, import_jwk_set
from vestibule_core.keyset import KeySet, Root, Use
from vestibule_core.link.messages import FROM_CLOUD, MAX_FRAME, Keys
from vestibule_core.model import Issuer, issuer

from .report import Result, Step

NOBODY: Final = Issuer("https://issuer-not-given.invalid")
"""In place of an issuer that neither an option nor a text names."""


class KeysNotReadable(ValueError):
    """A file is none of the three, or not enough was given to read it. The text says what to do."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What was read."""

    keys: Mapping[str, TrustedKey]
    steps: tuple[Step, ...]


def read(text: str, of: Issuer | None, root: str | None, now: int, claimed: Issuer | None = None) -> KeyFile:
    """Return the keys that a building would trust at ``now`` (seconds since 1970), and how they were read.

    ``of``: the issuer that the building would have them under; None: as a signed set says, or, for a JWK set, which
    names none, ``claimed``. ``root``: SHA-256 of the root in
    hexadecimal, or the raw root key in base64url. Raises KeysNotReadable.
    """
    text = text.strip()
    if text.startswith("{") and '"keys"' in text and '"root"' in text:
        return _frame(text, of, root, now)
    if text.startswith("{"):
        return _jwk_set(text, of or claimed or NOBODY)
    if re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        if root is None or re.fullmatch(r"[0-9a-f]{64}", root):
            raise KeysNotReadable(
                "a key set alone does not hold the root key: give the raw key by --root, 43 characters of base64url, "
                'or put the frame {"type":"keys","root":"...","set":"..."} into the file'
            )
        return _set(text, _raw(root), of, None, now)
    raise KeysNotReadable("the keys are neither a JWK set, nor a signed key set, nor a frame of keys")


def _jwk_set(text: str, of: Issuer) -> KeyFile:
    try:
        keys = import_jwk_set(text, of)
    except KeySetInvalid as err:
        return KeyFile({}, (refused_set(err),))
    many = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    return KeyFile({key.kid: key for key in keys}, (Step("A.1", "JWK set", Result.PASSED, why=many),))


def _frame(text: str, of: Issuer | None, root: str | None, now: int) -> KeyFile:
    try:
        if len(text) > MAX_FRAME:
            raise MalformedMessage(f"a frame has at most {MAX_FRAME} bytes")
        frame = FROM_CLOUD.decode(text.encode())
    except MalformedMessage as err:
        raise KeysNotReadable(f"this is not a frame of keys: {err}") from err
    assert isinstance(frame, Keys), "no other frame has members of these names"
    if root is None:
        return _set(frame.set, frame.root, of, None, now)
    fingerprint = bytes.fromhex(root) if re.fullmatch(r"[0-9a-f]{64}", root) else hashlib.sha256(_raw(root)).digest()
    return _set(frame.set, frame.root, of, fingerprint, now)


def _raw(root: str) -> bytes:
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"[A-Za-z0-9_-]{43}", root):
            return b64url.decode(root.encode())
    raise KeysNotReadable("--root is SHA-256 of the root in 64 hexadecimal digits, or the raw key in base64url")


def _set(text: str, public: bytes, of: Issuer | None, fingerprint: bytes | None, now: int) -> KeyFile:
    try:
        of = of or _claimed_issuer(text)
        pinned = Root(of, public) if fingerprint is None else keyset.pin(of, public, fingerprint)
        published = keyset.read(text, pinned, None, now)
    except KeySetInvalid as err:
        return KeyFile({}, (refused_set(err),))
    pin = Step("E", "root", Result.PASSED)
    if fingerprint is None:
        pin = Step("E", "root", Result.CANNOT_BE_SAID, why="--root does not say which one the building has pinned")
    trusted = {key.kid: key for key in published.trusted}
    return KeyFile(trusted, (pin, *set_steps(published, now)))


def _claimed_issuer(text: str) -> Issuer:
    with contextlib.suppress(Refused, ValueError, KeyError, TypeError):
        return issuer(json.loads(jws.claimed(text, keyset.MAX_TEXT)[1])["iss"])
    return NOBODY


# ---- what is said about a set ----

_SOON: Final = 7 * 86400


def set_steps(published: KeySet, now: int) -> tuple[Step, ...]:
    """Return what is to be said about a set that was read."""
    tokens = [key for key in published.keys if key.use is Use.TOKENS]
    lists = [key for key in published.keys if key.use is Use.ISSUED]
    ends = datetime.fromtimestamp(published.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    what = f"version {published.version}, good until {ends}"
    steps = [Step("E", "key set", Result.PASSED, why=what)]
    if any(key.is_valid(now) for key in tokens):
        change = () if _goes_on(tokens, now) else ("publish the next key a week before the last one ends",)
        steps.append(
            Step("E", "a key that signs tokens now", Result.PASSED, why=f"{len(tokens)} in all", change=change)
        )
    else:
        change = ("a key of use sig whose nbf has come and whose exp has not",)
        steps.append(Step("E", "a key that signs tokens now", Result.REFUSED, "UNKNOWN_KEY", change=change))
    if any(key.is_valid(now) for key in lists):
        steps.append(Step("E", "a key that signs the daily list now", Result.PASSED))
    else:
        change = ("publish a key of use issued: without its lists a building alarms after 48 hours",)
        steps.append(Step("E", "a key that signs the daily list now", Result.REFUSED, "no_list_key", change=change))
    return tuple(steps)


def _goes_on(tokens: list[keyset.PublishedKey], now: int) -> bool:
    return any(key.valid_until > now + _SOON for key in tokens)


def refused_set(err: KeySetInvalid) -> Step:
    """Return the step in which a set was refused."""
    where = f"key {err.position} of the set: " if err.position else ""
    return Step("E", "keys", Result.REFUSED, err.reason, change=(f"{where}{REASONS[err.reason]}",))


REASONS: Final = {
    # a JWK set
    "too_large": f"a JWK set has at most {MAX_SET_BYTES} characters",
    "not_json": "it is not JSON",
    "no_keys": 'a JWK set is {"keys": [...]}, with a key at least',
    "too_many_keys": f"a JWK set has at most {MAX_KEYS} keys here: leave out those that sign no more",
    "not_an_object": "each key is an object",
    "private_key": "this is a private key, and it has been shown now: replace it, publish public keys only",
    "wrong_kty": "kty is OKP (Ed25519) or EC (P-256)",
    "wrong_crv": "crv is Ed25519 or P-256",
    "wrong_alg": "alg is EdDSA or Ed25519 for an Ed25519 key, ES256 for a P-256 key",
    "wrong_use": "use is sig, and key_ops, if it is there, has verify",
    # either
    "wrong_kid": "kid is the RFC 7638 SHA-256 thumbprint of the key, 43 characters of base64url",
    "bad_coordinate": "x (and y) are 32 bytes in base64url, 43 characters, of a point on the curve in its one spelling",
    "weak_key": "anybody can sign under this key (a point of small order): make a new one",
    "duplicate_key": "the same key is there twice",
    # a signed set
    "malformed": "it is a JWS in compact form whose payload has exactly iss, ver, iat, exp, keys and next",
    "wrong_type": 'typ in the header is "door-keys+jwt"',
    "wrong_root": "it is not signed by this root: kid in the header is the root's thumbprint, and only the root signs",
    "bad_signature": "the root's signature does not verify over header.payload as sent",
    "wrong_issuer": "iss is the issuer that the building has approved, to the letter",
    "lifetime_too_long": "exp is at most 35 days after iat, and later than it",
    "expired": "it is too old: let the root sign a new one, at least every four weeks",
    "not_yet": "iat is more than 300 s ahead: set the clock of the machine that signs",
    "older_version": "ver is lower than that of a set which the building has: it rises with each set",
    "same_version": "another set with the same ver was served before: raise ver with each change",
    "anothers_key": "this key is another carrier's",
    "bad_times": "nbf of a key is before its exp",
    # a list
    "no_list_key": "it is signed by no key of use issued in the newest set",
    "wrong_controller": "ctl is the verifier key of the controller that it is sent to",
    "too_early": "iat is at least ten minutes after the end of the day: do not list a day that is not over",
    "unsorted": "jtis are sorted by their characters, each once",
}
"""What to change, by the reason of KeySetInvalid."""
