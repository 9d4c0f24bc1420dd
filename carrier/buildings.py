"""Buildings, their controllers and their doors, as the carrier adds, shows and removes them. Each change is audited.

A building that is enrolled by a code (enrolment.py) says itself which doors it has, and where. What this file refuses
to do: let a door belong to two buildings, or a controller to two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core.model import DoorId, door_id
from vestibule_core.note import NoteError, VerifierKey

from . import audit
from .checks import is_place
from .drivers import LONGEST_NAME, NoSuch, NotPossible, is_name
from .enrolment import controller_id, forsake
from .store import Prefix, new_id
from .store.tables import Building, Controller, Door, DoorController, Link

RADIUS: Final = (5, 500)
"""Metres that a door's own limit may be."""
MOST_ADDED: Final = 64
"""Doors in the file of a building that is added."""


@dataclass(frozen=True, slots=True)
class NewDoor:
    """A door as it is added."""

    id: DoorId
    name: str
    position: tuple[float, float] | None = None
    """Latitude and longitude, degrees. None: not known yet, so that it never opens."""
    radius: int | None = None
    """Metres; None: the cloud's limit."""


def read_doors(text: str) -> tuple[NewDoor, ...]:
    """Return the doors of a JSON file: a list of ``{"id", "name", "lat", "lon", "radius"}``; raise NotPossible."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise NotPossible(f"this is not JSON: {err}") from err
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_ADDED:
        raise NotPossible(f"this has to be a list of 1 to {MOST_ADDED} doors")
    return tuple(_door(row, f"door {number}") for number, row in enumerate(rows, 1))


def _door(row: Any, where: str) -> NewDoor:
    if not isinstance(row, dict) or not {"id", "name"} <= row.keys() <= {"id", "name", "lat", "lon", "radius"}:
        raise NotPossible(
            f'{where}: this has to be {{"id", "name", "lat", "lon", "radius"}}; all but id and name may be left out'
        )
    lat, lon, radius = row.get("lat"), row.get("lon"), row.get("radius")
    if not isinstance(row["name"], str) or not is_name(row["name"]):
        raise NotPossible(f"{where}: name: this has to be 1 to {LONGEST_NAME} characters")
    try:
        id_ = door_id(row["id"])
    except (ValueError, TypeError) as err:
        raise NotPossible(f'{where}: id: this has to be the id that the building gives its door: "door:..."') from err
    if (lat is None) != (lon is None):
        raise NotPossible(f"{where}: a position has both lat and lon")
    position = None
    if lat is not None and lon is not None:
        if not (type(lat) in (int, float) and type(lon) in (int, float) and is_place(lat, lon)):
            raise NotPossible(f"{where}: lat and lon: these have to be degrees, -90 to 90 and -180 to 180")
        position = float(lat), float(lon)
    if radius is not None and not (type(radius) is int and RADIUS[0] <= radius <= RADIUS[1]):
        raise NotPossible(f"{where}: radius: this has to be {RADIUS[0]} to {RADIUS[1]} metres")
    return NewDoor(id_, row["name"], position, radius)


async def add(
    session: AsyncSession,
    name: str,
    zone: str,
    controller_key: str,
    doors: tuple[NewDoor, ...],
    who: str,
    now: datetime,
) -> Building:
    """Add a building; raise NotPossible."""
    if not is_name(name):
        raise NotPossible(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise NotPossible(f'there is no time zone {zone!r}: it is named like "Europe/Berlin"') from err
    try:
        key = VerifierKey.parse(controller_key)
    except NoteError as err:
        raise NotPossible(f"the controller's key: {err}") from err
    if await session.get(Controller, str(key)) is not None:
        raise NotPossible("this controller is, or was, in a building already: enrol it by a code")
    building = Building(id=new_id(Prefix.BUILDING), name=name, zone=zone, enrolled_at=now, removed_at=None)
    session.add(building)
    await session.flush()
    session.add(Controller(key=str(key), building_id=building.id, enrolled_at=now, removed_at=None))
    for door in doors:
        if await session.get(Door, door.id) is not None:
            raise NotPossible(f"{door.id} is a door of a building already")
        lat, lon = door.position or (None, None)
        session.add(
            Door(id=door.id, building_id=building.id, name=door.name, lat=lat, lon=lon, position_radius_m=door.radius)
        )
        await session.flush()
        session.add(DoorController(door_id=door.id, controller_key=str(key)))
    await session.flush()
    audit.record(session, now, who, "building added", building.id, doors=len(doors))
    return building


@dataclass(frozen=True, slots=True)
class Listed:
    """A building as it is shown."""

    building: Building
    doors: list[Door]
    controllers: list[tuple[Controller, Link | None]]
    """Those that were not removed, and their links."""
    offered: set[str]
    """Doors that one of them offers."""


async def listed(session: AsyncSession) -> list[Listed]:
    """Return all buildings that were not removed."""
    found = {
        building.id: Listed(building, [], [], set())
        for building in await session.scalars(
            select(Building).where(Building.removed_at.is_(None)).order_by(Building.enrolled_at)
        )
    }
    for door in await session.scalars(select(Door).order_by(Door.name)):
        if door.building_id in found:
            found[door.building_id].doors.append(door)
    of = dict[str, Listed]()
    controllers = await session.execute(
        select(Controller, Link)
        .outerjoin(Link, Link.controller_key == Controller.key)
        .where(Controller.removed_at.is_(None))
        .order_by(Controller.enrolled_at, Controller.key)
    )
    for controller, link in controllers.tuples():
        if controller.building_id in found:
            of[controller.key] = found[controller.building_id]
            of[controller.key].controllers.append((controller, link))
    for offered, key in (await session.execute(select(DoorController.door_id, DoorController.controller_key))).tuples():
        if key in of:
            of[key].offered.add(offered)
    return list(found.values())


async def remove(session: AsyncSession, building_id: str, who: str, now: datetime) -> None:
    """Remove a building: none of its doors is asked for any more, and none has a position."""
    building = await session.get(Building, building_id, with_for_update=True)
    if building is None or building.removed_at is not None:
        raise NoSuch(f"there is no building {building_id}")
    building.removed_at = now
    for door in await session.scalars(select(Door).where(Door.building_id == building_id)):
        door.lat = door.lon = None
    for controller in await session.scalars(
        select(Controller).where(Controller.building_id == building_id, Controller.removed_at.is_(None))
    ):
        await _let_go(session, controller, now)
    audit.record(session, now, who, "building removed", building_id)


async def remove_controller(session: AsyncSession, key: str, who: str, now: datetime) -> None:
    """Remove one controller of a building: it is not asked any more, and what it alone offered never opens."""
    controller = await session.get(Controller, key, with_for_update=True)
    if controller is None or controller.removed_at is not None:
        raise NoSuch("there is no controller with this key")
    await _let_go(session, controller, now)
    await forsake(session, controller.building_id)
    id_ = controller_id(VerifierKey.parse(key))
    audit.record(session, now, who, "controller removed", id_, building=controller.building_id)


async def _let_go(session: AsyncSession, controller: Controller, now: datetime) -> None:
    """Its link, if it has one, is ended by the replica that holds it."""
    controller.removed_at = now
    await session.execute(delete(DoorController).where(DoorController.controller_key == controller.key))
