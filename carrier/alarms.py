"""Alarms: what must not be, and stays on a dispatcher's screen until somebody has seen it.

What it refuses to do: hold a name, a place or a token, say the same twice while nobody has looked, let one building
fill the database, or keep silent because one has raised many: what is not written down is counted, in sight.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from . import audit
from .drivers import NoSuch
from .store.tables import Alarm, AlarmKind

_LOGGER = logging.getLogger(__name__)

MOST: Final = 100
"""Alarms of one kind about one building that wait to be seen, each written down."""
MORE: Final = "more"
"""The subject of the one alarm that counts those beyond."""


async def sound(
    session: AsyncSession,
    kind: AlarmKind,
    building: str,
    subject: str,
    now: datetime,
    *,
    once: bool = False,
    **detail: str | int,
) -> bool:
    """Raise an alarm about ``subject``, unless the same one waits to be seen; return whether it is new. ``once``: not
    again either when that has been seen. If MOST of this kind wait about this building, it is counted in one that is
    about MORE, with the last one's subject and detail; what is told again is counted again.
    """
    this = Alarm.building_id == building, Alarm.kind == kind
    waits = Alarm.seen_at.is_(None)
    same = select(Alarm.id).where(*this, Alarm.subject == subject)
    if await session.scalar((same if once else same.where(waits)).limit(1)) is not None:
        return False
    waiting = select(func.count()).where(*this, waits, Alarm.subject != MORE)
    if (await session.scalar(waiting) or 0) >= MOST:
        detail = {"count": 1, "last": subject, **detail}
        subject = MORE
        counting = select(Alarm).where(*this, waits, Alarm.subject == MORE).order_by(Alarm.id).limit(1)
        if (alarm := await session.scalar(counting.with_for_update())) is not None:
            alarm.detail = {**detail, "count": alarm.detail["count"] + 1}
            await session.flush()
            return False
    session.add(
        Alarm(at=now, kind=kind, building_id=building, subject=subject, detail=detail, seen_at=None, seen_by=None)
    )
    await session.flush()
    _LOGGER.error("alarm", extra={"facts": {"kind": kind.value, "building": building, "subject": subject}})
    return True


async def listed(
    session: AsyncSession, count: int, before: int | None = None, *, seen: bool | None = None
) -> list[Alarm]:
    """Return the newest alarms, the newest first; ``seen``: only those that were, or were not."""
    wanted = select(Alarm).order_by(Alarm.id.desc()).limit(count)
    if before is not None:
        wanted = wanted.where(Alarm.id < before)
    if seen is not None:
        wanted = wanted.where(Alarm.seen_at.is_not(None) if seen else Alarm.seen_at.is_(None))
    return list(await session.scalars(wanted))


async def see(session: AsyncSession, alarm_id: int, who: str, now: datetime) -> Alarm:
    """Note that somebody has looked into an alarm; raise NoSuch."""
    alarm = await session.get(Alarm, alarm_id, with_for_update=True)
    if alarm is None or alarm.seen_at is not None:
        raise NoSuch(f"there is no alarm {alarm_id} that waits to be seen")
    alarm.seen_at, alarm.seen_by = now, who
    audit.record(session, now, who, "alarm seen", str(alarm_id), kind=alarm.kind)
    return alarm
