"""Forgetting: evidence with its coordinates, parcels' references, and what nobody can use any more.

What is left of a request is when, by whom (an id), for which door, how it ended, and the digest of what was deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from . import audit
from .store import Store
from .store.tables import BuildingInvitation, Ceremony, Evidence, Invitation, Pseudonym, Session, Stop


@dataclass(frozen=True, slots=True)
class Retention:
    """Days for which things are kept."""

    evidence: int = 30
    """All that a decision was made of."""
    references: int = 30
    """Parcels' references and the pseudonyms of stops and routes, from the end of the stop's window."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many of each were deleted."""

    evidence: int
    references: int
    pseudonyms: int
    expired: int
    """Invitations of drivers and buildings, ceremonies and sessions."""


async def retain(store: Store, keep: Retention, who: str, now: datetime, *, scrub: bool = False) -> Forgotten:
    """Delete what is too old, and make it unreadable in the database's own files; raise StoreUnavailable.

    To write all of a database of SQLite anew takes seconds for a gigabyte, in which nobody else writes: for what was
    short-lived that is not done, unless ``scrub`` says that something older is still to be seen to.
    """
    async with store.transaction() as session:
        forgotten = await _forget(session, keep, now)
        if forgotten != Forgotten(0, 0, 0, 0):
            counts = {"evidence": forgotten.evidence, "references": forgotten.references}
            audit.record(session, now, who, "retention", "everything", **counts)
    is_much = bool(forgotten.evidence or forgotten.references or forgotten.pseudonyms)
    await store.scrub(anew=scrub or is_much)
    return forgotten


async def _forget(session: AsyncSession, keep: Retention, now: datetime) -> Forgotten:
    past = now - timedelta(days=keep.references)
    old = select(Stop.id).where(Stop.window_to <= past)
    routes = select(Stop.route_id).where(Stop.window_to <= past)
    month = (now - timedelta(days=keep.evidence)).strftime("%Y-%m")
    return Forgotten(
        evidence=await _count(session, delete(Evidence).where(Evidence.delete_after <= now)),
        references=await _count(
            session,
            update(Stop).where(Stop.window_to <= past, Stop.reference.is_not(None)).values(reference=None),
        ),
        pseudonyms=await _count(session, delete(Pseudonym).where(Pseudonym.kind == "sub", Pseudonym.month < month))
        + await _count(session, delete(Pseudonym).where(Pseudonym.kind == "stp", Pseudonym.subject_id.in_(old)))
        + await _count(session, delete(Pseudonym).where(Pseudonym.kind == "rte", Pseudonym.subject_id.in_(routes))),
        expired=await _count(session, delete(Invitation).where(Invitation.expires_at <= now))
        + await _count(session, delete(BuildingInvitation).where(BuildingInvitation.expires_at <= now))
        + await _count(session, delete(Ceremony).where(Ceremony.expires_at <= now))
        + await _count(session, delete(Session).where(Session.expires_at <= now)),
    )


async def _count(session: AsyncSession, statement: Any) -> int:
    result = await session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount
