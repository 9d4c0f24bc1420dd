"""Journals with years of history in them, made in half a minute and like ones that grew.

What is in them is what unlocks leave: the spent token, the grant with a commitment to the driver's part, the outcome.
The parts themselves are there for the newest entries only; those of older ones have had their time. Checkpoints are
signed, kept and thinned by the production ``Writer``; only the rows are inserted many at a time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Final

from tests.simulated import IDENTITY, Carrier, Clock, some_doors
from vestibule_core import b64url, leaf, schema
from vestibule_core.journal import SpentState
from vestibule_core.model import AccessEvent, Code, DoorId, EventName, Means
from vestibule_core.token import spend_id
from vestibule_core.writer import SPARSE, Writer

MILLION: Final = 1_000_000
DOORS: Final = some_doors(100)
CARRIER: Final = Carrier(doors=DOORS)
SPACING: Final = 31.5
"""Seconds between two entries: two million in the two years for which they are kept."""
WITH_PERSONS: Final = MILLION // 10
"""Of so many of the newest entries each grant still has its person's part: one in twenty of a million."""
PSEUDONYM: Final = "driver-" + "0" * 300
"""Long, so that a person's part has 1.5 kB; with a usual token it has 0.9."""


@dataclass(frozen=True, slots=True)
class _Unlock:
    """The rows that one unlock leaves."""

    granted: tuple[int, bytes]
    released: tuple[int, bytes]
    spend: tuple[str, str, DoorId, str, float, SpentState]
    person: tuple[int, bytes, str] | None


def folder() -> TemporaryDirectory[str]:
    """Return a folder on a disk, where /tmp may be memory."""
    return TemporaryDirectory(prefix="vestibule-bench-", dir="/var/tmp")


@cache
def _kept() -> TemporaryDirectory[str]:
    """Return where journals are kept until the program ends."""
    return folder()


@cache
def of_a_million() -> Path:
    """Return a journal of 10^6 entries and 5*10^5 spent tokens, made once."""
    path = Path(_kept().name) / "million.db"
    with _writer(path) as writer:
        _add_a_million(writer, Clock()().wall - MILLION * SPACING)
    os.sync()
    return path


@cache
def of_two_million() -> Path:
    """Return a journal of 2*10^6 entries and 10^6 spent tokens, made once."""
    path = Path(_kept().name) / "two_million.db"
    copyfile(of_a_million(), path)
    with _writer(path) as writer:
        _add_a_million(writer, Clock()().wall)
    os.sync()
    return path


@contextmanager
def _writer(path: Path) -> Iterator[Writer]:
    lock, db, version = schema.take(path)
    try:
        with closing(db):
            db.execute("PRAGMA cache_size = -800000")  # kB; what is dirtied twice is written once
            yield Writer.resume(db, IDENTITY, signed=version >= schema.SIGNED_SINCE)
            db.execute("COMMIT")
    finally:
        os.close(lock)


def _add_a_million(writer: Writer, end: float) -> None:
    """Add entries up to the time ``end``; the newest ones come one by one, each with its checkpoint."""
    unlocks = _unlocks(writer.sequence + 1, MILLION, end)
    for _ in range(MILLION // SPARSE - 2):
        group = list(islice(unlocks, SPARSE // 2))
        _commit(writer, [entry for unlock in group for entry in (unlock.granted, unlock.released)], group)
    for unlock in unlocks:
        _commit(writer, [unlock.granted], [unlock])
        _commit(writer, [unlock.released], [])


def _unlocks(first: int, entries: int, end: float) -> Iterator[_Unlock]:
    chance, last = random.Random(first), first + entries - 1  # noqa: S311 - the same journal in each run
    kid, token = CARRIER.key.kid, CARRIER.token("n" * 22, sub=PSEUDONYM)
    for sequence in range(first, last, 2):
        jti, nonce = b64url.encode(chance.randbytes(16)), b64url.encode(chance.randbytes(16))
        door = DOORS[chance.randrange(len(DOORS))].id
        person, commit = None, chance.randbytes(32).hex()
        if last - sequence < WITH_PERSONS:
            text = leaf.compact(
                {"jti": jti, "sub": PSEUDONYM, "stp": "stop-815", "rte": "route-7", "evd": None, "token": token}
            )
            salt = chance.randbytes(leaf.SALT_SIZE)
            person, commit = (sequence, salt, text), leaf.commitment(salt, text)
        granted = AccessEvent(
            outcome=EventName.ACCESS_GRANTED,
            code=Code.GRANTED,
            door=door,
            means=Means.TOKEN,
            at=end - (last - sequence) * SPACING,
            spend_id=spend_id(CARRIER.issuer, jti),
            kid=kid,
        )
        released = replace(granted, outcome=EventName.DOOR_RELEASED, at=granted.at + 1)
        yield _Unlock(
            (sequence, leaf.encode(granted, sequence, commit)),
            (sequence + 1, leaf.encode(released, sequence + 1, None)),
            (CARRIER.issuer, jti, door, nonce, granted.at, SpentState.GRANTED),
            person,
        )


def _commit(writer: Writer, entries: Sequence[tuple[int, bytes]], spent: Sequence[_Unlock]) -> None:
    """Write what one commit of a controller would; here it is all one transaction of the file."""
    before, db = writer.mark, writer.db
    db.executemany("INSERT INTO spent VALUES(?, ?, ?, ?, ?, ?)", [unlock.spend for unlock in spent])
    db.executemany("INSERT INTO person VALUES(?, ?, ?)", [unlock.person for unlock in spent if unlock.person])
    db.executemany("INSERT INTO leaf VALUES(?, ?)", entries)
    writer.sequence += len(entries)
    writer._tree = writer._tree.extend(data for _, data in entries)
    writer.sign(before)
