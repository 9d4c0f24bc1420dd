"""What buildings tell of tokens that they accepted, held against what was issued (protocol E, attack 70).

Each acceptance is looked up. One that this cloud did not issue for that door of that building is an alarm: somebody
else signs. One whose outcome was unknown settles it; one that cannot be true besides what is known already is an alarm,
too (``weigh``). What this file refuses to do: believe that a token was issued because a building says so, or forget an
acceptance because the database is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import select

from vestibule_core.model import Code, Word

from . import alarms
from .decide import Answer, record_outcome
from .store import Store
from .store.tables import AlarmKind, Issued, OutcomeTold, Request, RequestState


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A controller accepted a token."""

    building: str
    controller: str
    """By its id, for the alarm."""
    jti: str
    door: str
    code: Code


class Finding(StrEnum):
    """What an acceptance is, besides what is known of its token."""

    SETTLES = "settles"
    """Nothing was known of the outcome: it is this."""
    AGREES = "agrees"
    CONTRADICTS = "contradicts"


_NEVER_ACCEPTED: Final = frozenset(
    {
        *(code for code in Code if code.is_charged),
        Code.WRONG_ISSUER,
        Code.POLICY_RATE,
        Code.RATE_LIMITED,
        Code.MANUAL_NOT_ALLOWED,
        Code.PIN_MISSING,
        Code.PIN_WRONG,
        Code.PIN_LOCKED,
        Code.MODE_NOT_POSSIBLE,
    }
)
"""What is said before a token is spent only, or never of a token. All others may be said of an accepted one: it is
judged once more between COMMIT and strike (protocol A.2, 12), all but its rate, and a strike can fail.
"""
_NEVER_TOLD_OF_ACCEPTED: Final = frozenset(code.told for code in _NEVER_ACCEPTED if code.told is not None)


def weigh(state: RequestState, before: Answer | None, code: Code) -> Finding:
    """Return what it is if a building says that it accepted a token, and that it came to ``code``.

    ``state`` is how far the token's request is, ``before`` what the building has answered, if it has.

    - Nothing can be accepted that was not signed, or certainly never left.
    - A code that is said of no accepted token contradicts itself, and as an answer any acceptance.
    - "Unknown" contradicts no other answer: a controller that was killed after its answer knows no more by then.
    - Of answers, the same one again is right, and any other one is wrong, whichever of the two was the first.
    """
    if state in (RequestState.ASKED, RequestState.REFUSED, RequestState.UNREACHABLE) or code in _NEVER_ACCEPTED:
        return Finding.CONTRADICTS
    if before is None:
        return Finding.SETTLES
    if before.code in _NEVER_TOLD_OF_ACCEPTED:
        return Finding.CONTRADICTS
    is_same = before.word is code.word and before.code in (None, code.told)
    return Finding.AGREES if is_same or code is Code.OUTCOME_UNKNOWN else Finding.CONTRADICTS


async def look_up(store: Store, told: Sequence[Acceptance], now: datetime) -> None:
    """Hold acceptances against what was issued; raise StoreUnavailable. Doing it again changes nothing."""
    overtaken = [
        each
        for each in await _compare(store, told, now)
        if not await record_outcome(store, each.jti, Answer(each.code.word, each.code.told), now, is_spent=True)
    ]
    if overtaken:  # something was written down since it was looked at: what that says has to agree
        await _compare(store, overtaken, now)


async def _compare(store: Store, told: Sequence[Acceptance], now: datetime) -> list[Acceptance]:
    """Sound the alarms; return what settles something."""
    settling: list[Acceptance] = []
    async with store.transaction() as session:
        rows = await session.execute(
            select(Issued.jti, Issued.building_id, Issued.door_id, Request.state, OutcomeTold.word, OutcomeTold.code)
            .join(Request, Request.id == Issued.request_id)
            .outerjoin(OutcomeTold, OutcomeTold.jti == Issued.jti)
            .where(Issued.jti.in_({each.jti for each in told}))
        )
        known = {
            jti: (building, door, RequestState(state), Answer(Word(word), code) if word is not None else None)
            for jti, building, door, state, word, code in rows
        }
        for each in told:
            kind = AlarmKind.NEVER_ISSUED
            if each.jti in known and known[each.jti][:2] == (each.building, each.door):
                finding = weigh(*known[each.jti][2:], each.code)
                if finding is Finding.SETTLES:
                    settling.append(each)
                if finding is not Finding.CONTRADICTS:
                    continue
                kind = AlarmKind.CONTRADICTED
            detail = {"door": each.door, "code": each.code.value, "controller": each.controller}
            await alarms.sound(session, kind, each.building, each.jti, now, once=True, **detail)
    return settling
