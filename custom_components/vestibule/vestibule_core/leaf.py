"""A leaf: one event as the exact bytes that are hashed into the journal's tree, never serialised a second time.

Compact JSON with sorted keys. A leaf holds nothing about a person and no part of a token; those are kept apart, as a
text that can be deleted, and the leaf holds only a salted commitment to it (protocol D).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from .model import AccessEvent

type Person = dict[str, Any]
"""What of an entry is about a person or is a secret's trace: kept apart, behind a salted commitment, deletable."""

SALT_SIZE: Final = 16
"""Bytes of random salt before a person's text: a short text cannot be guessed from its commitment."""

_FIELDS: Final = frozenset({"seq", "t", "door", "kind", "code", "means", "kid", "spend_id", "commit"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that was read: plain words, since a later version may know more of them."""

    sequence: int
    at: float
    """Seconds since 1970, wall clock."""
    door: str | None
    kind: str
    code: str | None
    means: str | None
    kid: str | None
    spend_id: str | None
    """32 hexadecimal digits that tie a decision to its outcome."""
    commit: str | None
    """64 hexadecimal digits: SHA-256 of salt and person; None: there never was a person's part."""


def encode(event: AccessEvent, sequence: int, commit: str | None) -> bytes:
    """Return the leaf of ``event`` as entry ``sequence``."""
    leaf: Person = {
        "seq": sequence,
        "t": round(event.at, 3),
        "door": event.door,
        "kind": event.outcome,
        "code": event.code,
        "means": event.means,
        "kid": event.kid,
        "spend_id": event.spend_id.hex() if event.spend_id else None,
        "commit": commit,
    }
    return compact(leaf).encode()


def parse(data: bytes) -> Leaf:
    """Return the leaf in ``data``; raise ValueError if it is none."""
    try:
        fields = json.loads(data.decode())  # bytes would be read as UTF-16, too
    except RecursionError as err:
        raise ValueError("a leaf is nested too deeply") from err
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise ValueError("a leaf has other fields than it should")
    sequence, at, kind = fields["seq"], fields["t"], fields["kind"]
    if type(sequence) is not int or type(at) not in (int, float) or type(kind) is not str:
        raise ValueError("a leaf has a field of another type than it should")
    texts = [fields[name] for name in ("door", "code", "means", "kid", "spend_id", "commit")]
    if not all(text is None or type(text) is str for text in texts):
        raise ValueError("a leaf has a field of another type than it should")
    door, code, means, kid, spend_id, commit = texts
    return Leaf(sequence, float(at), door, kind, code, means, kid, spend_id, commit)


def compact(value: Person) -> str:
    """Return JSON without spaces, its keys sorted: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def commitment(salt: bytes, person: str) -> str:
    """Return what a leaf holds of a person's text, in 64 hexadecimal digits."""
    return hashlib.sha256(salt + person.encode()).hexdigest()
