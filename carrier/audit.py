"""Who changed what, written in the transaction that changes it, so that neither is there without the other.

What it refuses to do: hold a name, a place or a parcel's reference. Everything is said by ids, which stay when a person
is removed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from .store.tables import Audit

COMMAND = "command"
"""Who typed ``vestibule-carrier ...``."""


def record(
    session: AsyncSession, now: datetime, who: str, what: str, subject: str, **detail: str | int | bool | None
) -> None:
    """Write down that ``who`` (``command``, an API key or a driver, by its id) did ``what`` to ``subject``."""
    session.add(Audit(at=now, who=who, what=what, subject=subject, detail=detail))


async def newest(
    session: AsyncSession, count: int, before: int | None = None, subject: str | None = None
) -> list[Audit]:
    """Return the newest entries, the newest first; ``before``: those with a lower number only."""
    wanted = select(Audit).order_by(Audit.seq.desc()).limit(count)
    if before is not None:
        wanted = wanted.where(Audit.seq < before)
    if subject is not None:
        wanted = wanted.where(Audit.subject == subject)
    return list(await session.scalars(wanted))
