"""What buildings tell of tokens that they accepted, held against what was issued (protocol E, attack 70).

Each acceptance is looked up. One that this cloud did not issue for that door of that building is an alarm: somebody
else signs. One whose outcome was unknown settles it. What this file refuses to do: believe that a token was issued
because a building says so, or forget an acceptance because the database is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from vestibule_core.model import Code, Word

from . import alarms
from .decide import Answer, record_outcome
from .store import Store
from .store.tables import AlarmKind, Issued, Request, RequestState


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A controller accepted a token."""

    building: str
    controller: str
    """By its id, for the alarm."""
    jti: str
    door: str
    code: Code


async def look_up(store: Store, told: Sequence[Acceptance], now: datetime) -> None:
    """Hold acceptances against what was issued; raise StoreUnavailable. Doing it again changes nothing."""
    open_: list[Acceptance] = []
    async with store.transaction() as session:
        rows = await session.execute(
            select(Issued.jti, Issued.building_id, Issued.door_id, Request.state)
            .join(Request, Request.id == Issued.request_id)
            .where(Issued.jti.in_({each.jti for each in told}))
        )
        known = {jti: (building, door, RequestState(state)) for jti, building, door, state in rows}
        for each in told:
            building, door, state = known.get(each.jti, ("", "", RequestState.REFUSED))
            kind: AlarmKind | None = None
            if (building, door) != (each.building, each.door):
                kind = AlarmKind.NEVER_ISSUED
            elif state in (RequestState.SIGNED, RequestState.UNKNOWN):
                open_.append(each)
            elif state is not RequestState.GRANTED and each.code.word is Word.GRANTED:
                kind = AlarmKind.CONTRADICTED
            if kind is not None:
                detail = {"door": each.door, "code": each.code.value, "controller": each.controller}
                await alarms.sound(session, kind, each.building, each.jti, now, once=True, **detail)
    for each in open_:
        await record_outcome(store, each.jti, Answer(each.code.word, each.code.told), now, is_spent=True)
