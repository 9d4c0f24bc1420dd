"""A leaf: one event as the exact bytes that are hashed into the journal's tree, never serialised a second time.

Compact JSON with sorted keys. A leaf holds nothing about a person and no part of a token; those are kept apart, as a
text that can be deleted, and the leaf holds only a salted commitment to it (protocol D). What is read is strict: bytes
that say the same in another spelling are no leaf.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from .model import AccessEvent

type Person = dict[str, Any]
"""What of an entry is about a person or is a secret's trace: kept apart, behind a salted commitment, deletable."""

SALT_SIZE: Final = 16
"""Bytes of random salt before a person's text: a short text cannot be guessed from its commitment."""
MAX_PERSON: Final = 16 * 1024
"""Characters of a person's text; one with a token has about 1500. A longer one might fit no line of an export."""
LATEST: Final = 253402300799
"""The latest time that can be told, in seconds since 1970: the last second of the year 9999."""

_FIELDS: Final = frozenset({"seq", "t", "door", "kind", "code", "means", "kid", "spend_id", "commit"})
_HEADS: Final = "heads"
"""A field of the first entry of an epoch only."""
MOST_HEADS: Final = 16


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
    heads: tuple[str, ...] = ()
    """Of the first entry of an epoch: the ends of the journal that were known of before (``epoch.Head.words``)."""


def encode(event: AccessEvent, sequence: int, commit: str | None) -> bytes:
    """Return the leaf of ``event`` as entry ``sequence``."""
    leaf: Person = {
        "seq": sequence,
        "t": round(min(max(event.at, 0.0), LATEST), 3),
        "door": event.door,
        "kind": event.outcome,
        "code": event.code,
        "means": event.means,
        "kid": event.kid,
        "spend_id": event.spend_id.hex() if event.spend_id else None,
        "commit": commit,
    }
    if event.heads:
        leaf[_HEADS] = list(event.heads)
    return compact(leaf).encode()


def parse(data: bytes) -> Leaf:
    """Return the leaf in ``data``; raise ValueError if it is none."""
    if type(data) is not bytes:  # a damaged record may have turned one kind of value into another
        raise ValueError("a leaf is not in bytes")
    fields = read_json(data.decode())
    if not isinstance(fields, dict) or fields.keys() - {_HEADS} != _FIELDS:
        raise ValueError("a leaf has other fields than it should")
    if compact(fields).encode() != data:
        raise ValueError("a leaf has another spelling than it would be written in")
    sequence, at, kind = fields["seq"], fields["t"], fields["kind"]
    if type(sequence) is not int or type(at) not in (int, float) or type(kind) is not str:
        raise ValueError("a leaf has a field of another type than it should")
    texts = [fields[name] for name in ("door", "code", "means", "kid", "spend_id", "commit")]
    if not all(text is None or type(text) is str for text in texts):
        raise ValueError("a leaf has a field of another type than it should")
    if not 0 <= at <= LATEST:
        raise ValueError("a leaf has a field that is out of range: its time")
    door, code, means, kid, spend_id, commit = texts
    return Leaf(sequence, float(at), door, kind, code, means, kid, spend_id, commit, _heads(fields))


def _heads(fields: Person) -> tuple[str, ...]:
    if _HEADS not in fields:
        return ()
    heads = fields[_HEADS]
    if type(heads) is not list or not 1 <= len(heads) <= MOST_HEADS or not all(type(head) is str for head in heads):
        raise ValueError("a leaf has a field of another type than it should")
    return tuple(heads)


def misplaced(leaves: Iterable[bytes], first: int) -> Iterator[int]:
    """Yield the places, counted from ``first``, of leaves that do not say that this is their number.

    A verification asks this a million times: the leaf is not read, but searched from its end, where that is. Between
    its quotes nothing can look like a member, and ``parse`` refuses what has a second one of that name.
    """
    return (place for place, data in enumerate(leaves, first) if data.rfind(b',"seq":%d,"spend_id":' % place) < 0)


def commits_to(data: bytes, salt: bytes, person: str) -> bool:
    """Return whether a leaf holds the commitment to a person's text; does not read it, as above."""
    return len(salt) == SALT_SIZE and b',"commit":"%b","door":' % commitment(salt, person).encode() in data


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_JSON: Final = json.JSONDecoder(parse_constant=_refuse)


def read_json(text: object) -> Any:
    """Return what a text in a file says; raise ValueError if it is no JSON, whatever it is instead."""
    if type(text) is not str:
        raise ValueError("it is no text")
    try:
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def compact(value: Person) -> str:
    """Return JSON without spaces, its keys sorted: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def commitment(salt: bytes, person: str) -> str:
    """Return what a leaf holds of a person's text, in 64 hexadecimal digits."""
    return hashlib.sha256(salt + person.encode()).hexdigest()
