"""What a decision reads and writes, as functions over a session. Whoever has the session commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, CursorResult, ScalarSelect, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from carrier.checks import (
    Asked,
    Check,
    DeviceFacts,
    DoorFacts,
    DriverFacts,
    Fix,
    Known,
    Limits,
    Opening,
    Reason,
    StopFacts,
    StopState,
)
from vestibule_core import b64url

from .tables import (
    Building,
    Ceremony,
    Device,
    Door,
    Driver,
    Evidence,
    Issued,
    Pseudonym,
    Request,
    RequestState,
    Route,
    Stop,
    StopDoor,
)

_OPENINGS: Final = {
    RequestState.GRANTED: Opening.OPENED,
    RequestState.UNKNOWN: Opening.UNKNOWN,
    RequestState.REFUSED_BY_BUILDING: Opening.REFUSED,
}
_CHECKS: Final = tuple(Check)


# ---- what is known ----


async def known(session: AsyncSession, asked: Asked, limits: Limits) -> Known:
    """Return what the cloud knows about a wish. Reads only."""
    one = select(literal(1)).subquery()
    found = await session.execute(  # one row, with nothing in place of what there is not
        select(Driver, Device, Stop, Route, Door, Building)
        .select_from(one)
        .outerjoin(Driver, Driver.id == asked.driver)
        .outerjoin(Device, Device.id == asked.device)
        .outerjoin(Stop, Stop.id == asked.stop)
        .outerjoin(Route, Route.id == Stop.route_id)
        .outerjoin(Door, Door.id == asked.door)
        .outerjoin(Building, Building.id == Door.building_id)
    )
    driver, device, stop, route, door, building = found.one()
    return Known(
        driver=None
        if driver is None
        else DriverFacts(driver.id, driver.active and driver.removed_at is None, driver.vetted_until),
        device=None if device is None else DeviceFacts(device.id, device.driver_id, device.revoked_at is not None),
        stop=None if stop is None else _stop_facts(stop, route, (await openings(session, [stop.id]))[stop.id]),
        door=None if door is None else _door_facts(door, building),
        previous=await _last_fix(session, asked.device),
        limits=limits,
    )


def _stop_facts(stop: Stop, route: Route, doors: tuple[tuple[str, Opening], ...]) -> StopFacts:
    return StopFacts(
        id=stop.id,
        route=route.id,
        driver=route.driver_id,
        day=route.day,
        shift_from=route.shift_from,
        shift_to=route.shift_to,
        window_from=stop.window_from,
        window_to=stop.window_to,
        state=StopState(stop.state),
        building=stop.building_id,
        doors=doors,
    )


async def openings(session: AsyncSession, stops: Iterable[str]) -> dict[str, tuple[tuple[str, Opening], ...]]:
    """Return the doors of stops in the order of the path, and how far each is."""
    found: dict[str, tuple[tuple[str, Opening], ...]] = dict.fromkeys(stops, ())
    claimed = aliased(Request)
    rows = await session.execute(
        select(StopDoor.stop_id, StopDoor.door_id, StopDoor.opened_by, claimed.state)
        .outerjoin(claimed, claimed.id == StopDoor.opened_by)
        .where(StopDoor.stop_id.in_(found))
        .order_by(StopDoor.stop_id, StopDoor.position)
    )
    for stop_id, door_id, opened_by, state in rows:
        opening = Opening.NOT_YET if opened_by is None else _OPENINGS.get(state, Opening.UNDER_WAY)
        found[stop_id] = (*found[stop_id], (door_id, opening))
    return found


def _door_facts(door: Door, building: Building) -> DoorFacts:
    return DoorFacts(
        id=door.id,
        building=building.id,
        building_removed=building.removed_at is not None,
        zone=ZoneInfo(building.zone),
        position=None if door.lat is None or door.lon is None else (door.lat, door.lon),
        radius=door.position_radius_m,
    )


async def _last_fix(session: AsyncSession, device_id: str) -> Fix | None:
    """Return where a device said it was when it last said so, as long as that is kept.

    A fix under somebody else's assertion says nothing about where this device was, nor does one that is old, ahead of
    time or inaccurate: who jumps would send it in between.
    """
    who, where = (Request.told[_CHECKS.index(check)]["reason"].as_string() for check in (Check.ID, Check.POSITION))
    record = await session.scalar(
        select(Evidence.record)
        .join(Request, Request.id == Evidence.request_id)
        .where(
            Request.device_id == device_id,
            who.is_distinct_from(Reason.NOT_VERIFIED),
            or_(where.is_(None), where.in_((Reason.TOO_FAR, Reason.MOVED_TOO_FAST))),
        )
        .order_by(Request.asked_at.desc())
        .limit(1)
    )
    if record is None:
        return None
    fix = json.loads(record)["fix"]
    return Fix(fix["lat"], fix["lon"], fix["accuracy"], datetime.fromtimestamp(fix["at"], UTC), fix["typed"])


# ---- one use ----


async def claim_door(session: AsyncSession, stop_id: str, door_id: str, request_id: str) -> bool:
    """Let a request have the door of a stop; return whether it has it. Of all that ask, ever, one does."""
    due = exists().where(Stop.id == stop_id, Stop.state == StopState.DUE)
    return await _changed_one(
        session,
        update(StopDoor)
        .where(StopDoor.stop_id == stop_id, StopDoor.door_id == door_id, StopDoor.opened_by.is_(None), due)
        .values(opened_by=request_id),
    )


async def move_request(
    session: AsyncSession,
    request_id: str | ScalarSelect[str],
    frm: tuple[RequestState, ...],
    to: RequestState,
    *provided: ColumnElement[bool],
    **values: Any,
) -> bool:
    """Let a request go on from one of some states to another; return whether it was in one of them, and ``provided``
    is so.
    """
    whose = update(Request).where(Request.id == request_id, Request.state.in_(frm), *provided)
    return await _changed_one(session, whose.values(state=to, **values))


def not_withdrawn(asked: Asked, now: datetime) -> ColumnElement[bool]:
    """Whether driver, device, stop and building of a wish that was confirmed are good still (checks.judge_again says
    what is not).
    """
    return (
        select(literal(1))
        .select_from(Device)
        .join(Driver, Driver.id == Device.driver_id)
        .join(Route, Route.driver_id == Driver.id)
        .join(Stop, Stop.route_id == Route.id)
        .join(Building, Building.id == Stop.building_id)
        .where(
            Device.id == asked.device,
            Device.revoked_at.is_(None),
            Driver.id == asked.driver,
            Driver.active,
            Driver.removed_at.is_(None),
            Driver.vetted_until > now,
            Stop.id == asked.stop,
            Stop.state == StopState.DUE,
            Building.removed_at.is_(None),
        )
        .exists()
    )


async def release_door(session: AsyncSession, request_id: str) -> None:
    """Give the door back that a request has. Only in the transaction in which its state becomes one in which no token
    of it opens anything, or ever will.
    """
    stop, door = (
        select(column).where(Request.id == request_id).scalar_subquery()
        for column in (Request.stop_id, Request.door_id)
    )
    its = StopDoor.stop_id == stop, StopDoor.door_id == door, StopDoor.opened_by == request_id  # by the key, of few
    await session.execute(
        update(StopDoor).where(*its).values(opened_by=None).execution_options(synchronize_session=False)
    )


async def is_free(session: AsyncSession, driver_id: str, stop_id: str, door_id: str) -> bool:
    """Return whether a driver may ask for a door: the stop is due on a route of that driver, and no request has the
    door. Says nothing of place and time.
    """
    free = (
        select(literal(1))
        .select_from(StopDoor)
        .join(Stop, Stop.id == StopDoor.stop_id)
        .join(Route, Route.id == Stop.route_id)
        .where(
            StopDoor.stop_id == stop_id,
            StopDoor.door_id == door_id,
            StopDoor.opened_by.is_(None),
            Stop.state == StopState.DUE,
            Route.driver_id == driver_id,
        )
    )
    return await session.scalar(free) is not None


async def tokens_for(session: AsyncSession, request_id: str) -> int:
    """Return how many tokens were signed for the stop and the door of a request."""
    same = aliased(Request)
    count = await session.scalar(
        select(func.count())
        .select_from(Issued)
        .join(Request, Request.id == Issued.request_id)
        .join(same, (same.stop_id == Request.stop_id) & (same.door_id == Request.door_id))
        .where(same.id == request_id)
    )
    return count or 0


async def use_ceremony(
    session: AsyncSession, challenge_sha256: bytes, kind: str, now: datetime
) -> dict[str, Any] | None:
    """Use up a challenge; return what it was made for, None if it is not there, used, or too old."""
    made = await session.get(Ceremony, challenge_sha256, populate_existing=True)
    if made is None or not await use_up(session, challenge_sha256, kind, now):
        return None
    return made.payload


async def use_up(session: AsyncSession, challenge_sha256: bytes, kind: str, now: datetime) -> bool:
    """Use up a challenge; return False if it is not there, used, or too old."""
    return await _changed_one(
        session,
        update(Ceremony)
        .where(
            Ceremony.challenge_sha256 == challenge_sha256,
            Ceremony.kind == kind,
            Ceremony.used_at.is_(None),
            Ceremony.expires_at > now,
        )
        .values(used_at=now, payload={}),  # it may have a position in it, which now stands in the evidence
    )


# ---- pseudonyms ----


async def pseudonyms(
    session: AsyncSession, building_id: str, wanted: Mapping[str, tuple[str, str]], random: Callable[[int], bytes]
) -> dict[str, str]:
    """Return by what a building knows a driver, a stop and a route; those that it does not know yet are made.

    ``wanted``: for each kind, whose, and in which month ("" for what does not rotate).
    """
    keys = sorted((kind, subject, month) for kind, (subject, month) in wanted.items())
    this = tuple_(Pseudonym.kind, Pseudonym.subject_id, Pseudonym.month)
    known = select(Pseudonym.kind, Pseudonym.value).where(Pseudonym.building_id == building_id, this.in_(keys))
    found = dict((await session.execute(known)).tuples().all())
    # In one order, wherever they are made: of two that make the same at once, one waits, and neither for the other.
    if new := [key for key in keys if key[0] not in found]:
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        rows = [
            {
                "kind": kind,
                "subject_id": subject,
                "building_id": building_id,
                "month": month,
                "value": b64url.encode(random(16)),
            }
            for kind, subject, month in new
        ]
        made = insert(Pseudonym).values(rows).on_conflict_do_nothing().returning(Pseudonym.kind, Pseudonym.value)
        found.update((await session.execute(made)).tuples().all())
    if len(found) < len(keys):  # another replica was quicker
        found = dict((await session.execute(known)).tuples().all())
    return found


async def _changed_one(session: AsyncSession, statement: Any) -> bool:
    result = await session.execute(statement.execution_options(synchronize_session=False))
    return isinstance(result, CursorResult) and result.rowcount == 1
