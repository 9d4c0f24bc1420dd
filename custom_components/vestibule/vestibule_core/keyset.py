"""A carrier's key set, signed by its offline root, and the daily list of the tokens that it issued (protocol E).

A building pins the root of each carrier. From then on the root alone says which keys sign for the carrier, in sets
whose version rises and that age. What this file refuses to do: take a root on a set's own word, go back to an older
set, or let one carrier's set name another's key or another's issuer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import jws
from .curve import Flaw, flaw_of
from .errors import KeySetInvalid, MalformedMessage, Refused
from .keys import Alg, KeyStatus, TrustedKey
from .model import Issuer, issuer
from .note import NoteError, VerifierKey
from .strict import ANY_TEXT, Shape, choice, integer, listed, optional, parsed, raw, read_json, record

TYPE: Final = "door-keys+jwt"
ISSUED_TYPE: Final = "door-issued+jwt"
MAX_TEXT: Final = 8000
"""Characters of either: a frame of the link holds it."""
MAX_KEYS: Final = 16
MAX_DROPPED: Final = 16
"""Keys of one carrier that are known as revoked. With those of a set, no more than a policy holds."""
MAX_LIFETIME: Final = 35 * 86400
"""Seconds for which a set is believed, from the root's ``iat`` on."""
MAX_JTIS: Final = 200
"""In one part of a list: its text has to stay under MAX_TEXT."""
MAX_PARTS: Final = 50
"""Of a day's list for one building: ten thousand deliveries."""
EARLY: Final = 300
"""Seconds by which the carrier's clock may be ahead of the building's."""
AFTER_MIDNIGHT: Final = 600
"""Seconds between a day's end and its list, so that a token of the last second is in it (attack 70)."""

_SECONDS: Final = integer(1_700_000_000, 2**53 - 1)


class Use(StrEnum):
    """What a key signs."""

    TOKENS = "sig"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True)
class Root:
    """The key that signs a carrier's sets, as the building has pinned it."""

    issuer: Issuer
    public: bytes

    def __post_init__(self) -> None:
        """Refuse a key under which anybody can sign; KeySetInvalid weak_key or bad_coordinate."""
        _check(self.public)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the raw key: what an enrolment code and ``next`` name it by."""
        return hashlib.sha256(self.public).digest()


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A key of a set."""

    public: bytes
    use: Use
    valid_from: int
    valid_until: int

    @property
    def kid(self) -> str:
        """Its thumbprint."""
        return jws.key_id(self.public)

    def is_valid(self, at: int) -> bool:
        """Return whether it signs at this second of the carrier's clock."""
        return self.valid_from <= at < self.valid_until


@dataclass(frozen=True, slots=True)
class KeySet:
    """What a root has signed."""

    issuer: Issuer
    version: int
    issued_at: int
    expires_at: int
    keys: tuple[PublishedKey, ...]
    next_root: bytes | None
    """SHA-256 of the only root that may come after this one."""

    @property
    def trusted(self) -> tuple[TrustedKey, ...]:
        """The keys that sign tokens, each for its time, which ends with the set's."""
        return tuple(
            TrustedKey(
                key.kid,
                self.issuer,
                Alg.EDDSA,
                Ed25519PublicKey.from_public_bytes(key.public),
                valid_from=key.valid_from,
                valid_until=min(key.valid_until, self.expires_at),
            )
            for key in self.keys
            if key.use is Use.TOKENS
        )


@dataclass(frozen=True, slots=True)
class Issued:
    """One part of the list of the tokens that a carrier issued for one building, by the UTC day of their ``iat``."""

    issuer: Issuer
    controller: VerifierKey
    day: date
    issued_at: int
    part: int
    """Counts from 0."""
    parts: int
    jtis: tuple[str, ...]


# ---- roots ----


def pin(of: Issuer, public: bytes, fingerprint: bytes) -> Root:
    """Return the root that an enrolment code named; raise KeySetInvalid (wrong_root, weak_key, bad_coordinate)."""
    root = Root(of, public)
    if root.fingerprint != fingerprint:
        raise KeySetInvalid("wrong_root")
    return root


def succeed(newest: KeySet, public: bytes) -> Root:
    """Return the root that the newest set of the one before has named as the next; raise KeySetInvalid as ``pin``."""
    return pin(newest.issuer, public, newest.next_root or b"")


# ---- sets ----


def replaced(before: Iterable[TrustedKey], after: KeySet) -> tuple[TrustedKey, ...]:
    """Return the keys of ``after``, and those that were known ``before`` and are not in it as revoked: their tokens are
    refused by name. Of more than MAX_DROPPED of these, the ones that come last in ``before`` are forgotten.
    """
    kept = {key.kid for key in after.trusted}
    dropped = [replace(key, status=KeyStatus.REVOKED) for key in before if key.kid not in kept]
    return (*after.trusted, *dropped[:MAX_DROPPED])


def read(text: object, root: Root, newest: KeySet | None, now: int, others: Container[str] = ()) -> KeySet:
    """Return the set that ``text`` is, signed by ``root`` and not older than ``newest``.

    ``others`` has the kids of other carriers. Raises KeySetInvalid; its reason is one of: malformed, wrong_type,
    wrong_root, bad_signature, wrong_issuer, lifetime_too_long, expired, not_yet, older_version, same_version,
    duplicate_key, anothers_key, wrong_kid, weak_key, bad_coordinate, bad_times.
    """
    published = kept(text, root)
    for position, key in enumerate(published.keys, 1):
        if key.kid in others:
            raise KeySetInvalid("anothers_key", position)
    if now >= published.expires_at:
        raise KeySetInvalid("expired")
    if published.issued_at > now + EARLY:
        raise KeySetInvalid("not_yet")
    if newest is not None and published.version < newest.version:
        raise KeySetInvalid("older_version")
    # The same set again is what every reconnection brings; two sets of one version are a root that signed both.
    if newest is not None and published.version == newest.version and published != newest:
        raise KeySetInvalid("same_version")
    return published


def kept(text: object, root: Root) -> KeySet:
    """Return a set that was read before, out of what was kept: also if it is too old by now (its keys say so).

    Raises KeySetInvalid.
    """
    published = _set(_verified(text, TYPE, root.public))
    if published.issuer != root.issuer:
        raise KeySetInvalid("wrong_issuer")
    return published


def write(root: jws.Signer, keys: KeySet) -> str:
    """Return the signed set; raise KeySetInvalid if no building would read it."""
    return _written(root, TYPE, _SET.write(keys), _set)


# ---- lists ----


def read_issued(text: object, published: KeySet, controller: VerifierKey, now: int) -> Issued:
    """Return the part of a list that ``text`` is, for this controller, signed by a list key of ``published``.

    Raises KeySetInvalid; its reason is one of: malformed, wrong_type, no_list_key, bad_signature, wrong_issuer,
    wrong_controller, expired, not_yet, too_early, unsorted.
    """
    try:
        kid, _ = jws.claimed(text, MAX_TEXT)
    except Refused as err:
        raise KeySetInvalid("malformed") from err
    key = next((key for key in published.keys if key.use is Use.ISSUED and key.kid == kid), None)
    if key is None:
        raise KeySetInvalid("no_list_key")
    issued = _issued(_verified(text, ISSUED_TYPE, key.public))
    if issued.issuer != published.issuer:
        raise KeySetInvalid("wrong_issuer")
    if issued.controller != controller:
        raise KeySetInvalid("wrong_controller")
    if issued.issued_at > now + EARLY:
        raise KeySetInvalid("not_yet")
    if not key.is_valid(issued.issued_at) or now >= published.expires_at:
        raise KeySetInvalid("expired")
    return issued


def write_issued(signer: jws.Signer, issued: Issued) -> str:
    """Return the signed part of a list; raise KeySetInvalid if no building would read it."""
    return _written(signer, ISSUED_TYPE, _ISSUED.write(issued), _issued)


# ---- the forms ----

_REASONS: Final = {"WRONG_TYPE": "wrong_type", "UNKNOWN_KEY": "wrong_root", "BAD_SIGNATURE": "bad_signature"}


def _verified(text: object, typ: str, public: bytes) -> bytes:
    try:
        return jws.verify(text, typ, public, MAX_TEXT)
    except Refused as err:
        raise KeySetInvalid(_REASONS.get(err.code.name, "malformed")) from err


def _written(signer: jws.Signer, typ: str, value: Any, check: Any) -> str:
    payload = json.dumps(value, separators=(",", ":")).encode()
    check(payload)
    # The bounds of the members keep it under MAX_TEXT.
    return jws.sign(signer, typ, payload)


def _read[T](shape: Shape[T], payload: bytes) -> T:
    try:
        return shape.read(read_json(payload))
    except MalformedMessage as err:
        raise KeySetInvalid("malformed") from err


def _set(payload: bytes) -> KeySet:
    published = _read(_SET, payload)
    if not 0 < published.expires_at - published.issued_at <= MAX_LIFETIME:
        raise KeySetInvalid("lifetime_too_long")
    seen: set[bytes] = set()
    for position, key in enumerate(published.keys, 1):
        _check(key.public, position)
        if key.public in seen:
            raise KeySetInvalid("duplicate_key", position)
        if key.valid_from >= key.valid_until:
            raise KeySetInvalid("bad_times", position)
        seen.add(key.public)
    return published


def _issued(payload: bytes) -> Issued:
    issued = _read(_ISSUED, payload)
    if list(issued.jtis) != sorted(set(issued.jtis)):
        raise KeySetInvalid("unsorted")
    if issued.part >= issued.parts:
        raise KeySetInvalid("malformed")
    over = datetime(issued.day.year, issued.day.month, issued.day.day, tzinfo=UTC) + timedelta(days=1)
    if issued.issued_at < over.timestamp() + AFTER_MIDNIGHT:
        raise KeySetInvalid("too_early")
    return issued


def _check(public: bytes, position: int = 0) -> None:
    match flaw_of(public) if len(public) == 32 else Flaw.NO_POINT:
        case Flaw.WEAK:
            raise KeySetInvalid("weak_key", position)
        case Flaw.NO_POINT:
            raise KeySetInvalid("bad_coordinate", position)


def _key(kid: str, kty: str, crv: str, public: bytes, use: Use, valid_from: int, valid_until: int) -> PublishedKey:
    del kty, crv  # each has one value
    key = PublishedKey(public, use, valid_from, valid_until)
    if key.kid != kid:
        raise KeySetInvalid("wrong_kid")
    return key


def _only(word: str) -> Shape[str]:
    def parse(text: str) -> str:
        if text != word:
            raise ValueError("another word")
        return text

    return parsed(parse)


def _matching(pattern: str) -> Shape[str]:
    form = re.compile(pattern)

    def parse(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError("of another form")
        return text

    return parsed(parse)


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    # fromisoformat knows several spellings; the last day of the calendar has no end that could be computed.
    if day.isoformat() != text or not 2023 <= day.year <= 9998:
        raise ValueError("not a day")
    return day


def _controller(text: str) -> VerifierKey:
    if not text.isascii() or len(text) > 200:
        raise NoteError("not a controller's key")
    return VerifierKey.parse(text)


CONTROLLER: Final = parsed(_controller)
ISSUER: Final = parsed(issuer)
DAY: Final = parsed(_day)

_KEY: Final = record(
    _key,
    {
        "kid": ("kid", ANY_TEXT),
        "kty": (lambda _: "OKP", _only("OKP")),
        "crv": (lambda _: "Ed25519", _only("Ed25519")),
        "x": ("public", raw(32)),
        "use": choice(Use),
        "nbf": ("valid_from", _SECONDS),
        "exp": ("valid_until", _SECONDS),
    },
)
_SET: Final = record(
    KeySet,
    {
        "iss": ("issuer", ISSUER),
        "ver": ("version", integer(1, 2**53 - 1)),
        "iat": ("issued_at", _SECONDS),
        "exp": ("expires_at", _SECONDS),
        "keys": listed(_KEY, MAX_KEYS),
        "next": ("next_root", optional(raw(32))),
    },
)
_ISSUED: Final = record(
    Issued,
    {
        "iss": ("issuer", ISSUER),
        "ctl": ("controller", CONTROLLER),
        "day": DAY,
        "iat": ("issued_at", _SECONDS),
        "part": integer(0, MAX_PARTS - 1),
        "parts": integer(1, MAX_PARTS),
        "jtis": listed(_matching(r"[A-Za-z0-9_-]{21}[AQgw]"), MAX_JTIS),
    },
)
