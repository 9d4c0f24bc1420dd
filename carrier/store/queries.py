"""What a decision reads and writes, as functions over a session. Whoever has the session commits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import CursorResult, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from carrier.checks import Asked, DeviceFacts, DoorFacts, DriverFacts, Fix, Known, Limits, Opening, StopFacts, StopState
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


# ---- what is known ----


async def known(session: AsyncSession, asked: Asked, limits: Limits) -> Known:
    """Return what the cloud knows about a wish. Reads only."""
    driver, device = await session.get(Driver, asked.driver), await session.get(Device, asked.device)
    return Known(
        driver=None
        if driver is None
        else DriverFacts(driver.id, driver.active and driver.removed_at is None, driver.vetted_until),
        device=None if device is None else DeviceFacts(device.id, device.driver_id, device.revoked_at is not None),
        stop=await stop_facts(session, asked.stop),
        door=await door_facts(session, asked.door),
        previous=await last_fix(session, asked.device),
        limits=limits,
    )


async def stop_facts(session: AsyncSession, stop_id: str) -> StopFacts | None:
    """Return a stop with its route and doors."""
    found = (
        await session.execute(select(Stop, Route).join(Route, Route.id == Stop.route_id).where(Stop.id == stop_id))
    ).one_or_none()
    if found is None:
        return None
    stop, route = found
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
        doors=(await openings(session, [stop_id]))[stop_id],
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


async def door_facts(session: AsyncSession, door_id: str) -> DoorFacts | None:
    """Return a door with what its building says."""
    found = (
        await session.execute(
            select(Door, Building).join(Building, Building.id == Door.building_id).where(Door.id == door_id)
        )
    ).one_or_none()
    if found is None:
        return None
    door, building = found
    return DoorFacts(
        id=door.id,
        building=building.id,
        building_removed=building.removed_at is not None,
        zone=ZoneInfo(building.zone),
        position=None if door.lat is None or door.lon is None else (door.lat, door.lon),
        radius=door.position_radius_m,
    )


async def last_fix(session: AsyncSession, device_id: str) -> Fix | None:
    """Return where a device said it was when it was last heard, as long as that is kept."""
    rows = await session.scalars(
        select(Evidence.record)
        .join(Request, Request.id == Evidence.request_id)
        .where(Request.device_id == device_id)
        .order_by(Request.decided_at.desc())
        .limit(5)
    )
    for record in rows:
        evidence = json.loads(record)
        # A fix under somebody else's assertion says nothing about where this device was.
        if (fix := evidence["fix"]) is not None and evidence["assertion"]["verified"]:
            return Fix(fix["lat"], fix["lon"], fix["accuracy"], datetime.fromtimestamp(fix["at"], UTC), fix["typed"])
    return None


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
    session: AsyncSession, request_id: str, frm: tuple[RequestState, ...], to: RequestState, **values: Any
) -> bool:
    """Let a request go on from one of some states to another; return whether it was in one of them."""
    return await _changed_one(
        session, update(Request).where(Request.id == request_id, Request.state.in_(frm)).values(state=to, **values)
    )


async def release_door(session: AsyncSession, request_id: str) -> None:
    """Give the door back that a request has. Only in the transaction in which its state becomes one in which no token
    of it opens anything, or ever will.
    """
    await session.execute(update(StopDoor).where(StopDoor.opened_by == request_id).values(opened_by=None))


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


@dataclass(frozen=True, slots=True)
class CeremonyUsed:
    """A challenge that was just used up."""

    driver: str | None
    payload: dict[str, Any]


async def use_ceremony(session: AsyncSession, challenge_sha256: bytes, kind: str, now: datetime) -> CeremonyUsed | None:
    """Use up a challenge; return what it was made for, None if it is not there, used, or too old."""
    made = await session.get(Ceremony, challenge_sha256, populate_existing=True)
    if made is None or not await _changed_one(
        session,
        update(Ceremony)
        .where(
            Ceremony.challenge_sha256 == challenge_sha256,
            Ceremony.kind == kind,
            Ceremony.used_at.is_(None),
            Ceremony.expires_at > now,
        )
        .values(used_at=now, payload={}),  # it may have a position in it, which now stands in the evidence
    ):
        return None
    return CeremonyUsed(made.driver_id, made.payload)


# ---- pseudonyms ----


async def pseudonym(
    session: AsyncSession, kind: str, subject_id: str, building_id: str, fresh: bytes, month: str = ""
) -> str:
    """Return by what a building knows a driver, a stop or a route; ``fresh``: 16 random bytes, in case it does not."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    key = {"kind": kind, "subject_id": subject_id, "building_id": building_id, "month": month}
    await session.execute(
        insert(Pseudonym).values(**key, value=b64url.encode(fresh)).on_conflict_do_nothing(index_elements=list(key))
    )
    return await session.scalar(select(Pseudonym.value).filter_by(**key)) or ""


async def _changed_one(session: AsyncSession, statement: Any) -> bool:
    result = await session.execute(statement.execution_options(synchronize_session=False))
    return isinstance(result, CursorResult) and result.rowcount == 1
