"""How a building's controller becomes known: by a code that is good once; and what each of its hellos says.

What it refuses to do: enrol two controllers by one code, move a controller from one building to another, take a door
that another building has, or keep a code's secret.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url, jws
from vestibule_core.link.messages import Close, Hello, LinkedDoor
from vestibule_core.note import VerifierKey

from . import alarms, audit
from .drivers import LONGEST_NAME, NoSuch, NotPossible, is_name
from .store import Prefix, new_id
from .store.tables import AlarmKind, Building, BuildingInvitation, Controller, Door, DoorController, Link

INVITED_FOR: Final = timedelta(days=7)
_NO_ZONE: Final = "UTC"


class Unwelcome(Exception):
    """A hello is not taken. ``close``: what the controller is told."""

    def __init__(self, close: Close, why: str) -> None:
        """Say why, for the log."""
        super().__init__(why)
        self.close = close


@dataclass(frozen=True, slots=True)
class Presence:
    """A connection of a controller, somewhere."""

    replica: str
    connection: str
    instance: str
    """Of the controller, as in its hello."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """A controller that is welcome."""

    building: str
    before: Presence | None
    """The connection that it has, or seemed to have."""


def controller_id(key: VerifierKey) -> str:
    """Return by what a controller is named in alarms and in the audit."""
    return f"controller:{jws.key_id(key.public)}"


# ---- invitations ----


async def invite(
    session: AsyncSession, name: str, building: str | None, lasts: timedelta, who: str, now: datetime
) -> bytes:
    """Return the secret of an enrolment code, for one controller: of a new building of this name, or of ``building``.

    Raises NotPossible, NoSuch.
    """
    if not is_name(name):
        raise NotPossible(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    if building is not None:
        found = await session.get(Building, building)
        if found is None or found.removed_at is not None:
            raise NoSuch(f"there is no building {building}")
    secret = os.urandom(16)
    session.add(
        BuildingInvitation(
            secret_sha256=_sha256(secret),
            name=name,
            building_id=building,
            expires_at=now + lasts,
            used_at=None,
            used_by=None,
        )
    )
    audit.record(session, now, who, "building invited", building or "a new one")
    return secret


# ---- hellos ----


async def greet(
    session: AsyncSession, hello: Hello, secret: bytes | None, replica: str, connection: str, now: datetime
) -> Greeted:
    """Take a hello, whose signature by ``hello.controller`` has been verified: enrol the controller if it brings a
    code's secret, take over what it says about its doors, and note that it is connected here.

    Raises Unwelcome: nothing is changed.
    """
    key = str(hello.controller)
    controller = await session.get(Controller, key, with_for_update=True)
    if controller is not None and controller.removed_at is None:
        building = await session.get_one(Building, controller.building_id, with_for_update=True)
        if building.removed_at is None:
            if secret is not None:
                await _used_again(session, secret, controller, now)
            return await _welcome(session, building, hello, replica, connection, now)
    if secret is None:
        raise Unwelcome(Close.NOT_ENROLLED, "the controller is not enrolled")
    building = await _invited(session, secret, hello, now)
    if controller is None:
        session.add(Controller(key=key, building_id=building.id, enrolled_at=now, removed_at=None))
    else:
        controller.building_id, controller.enrolled_at, controller.removed_at = building.id, now, None
    await session.flush()
    who = controller_id(hello.controller)
    audit.record(session, now, who, "controller enrolled", building.id, name=hello.controller.name)
    return await _welcome(session, building, hello, replica, connection, now, is_new=True)


async def _invited(session: AsyncSession, secret: bytes, hello: Hello, now: datetime) -> Building:
    """Use a code up; return the building that it is for, which may be new."""
    used = await session.execute(
        update(BuildingInvitation)
        .where(
            BuildingInvitation.secret_sha256 == _sha256(secret),
            BuildingInvitation.used_at.is_(None),
            BuildingInvitation.expires_at > now,
        )
        .values(used_at=now, used_by=str(hello.controller))
        .returning(BuildingInvitation.name, BuildingInvitation.building_id)
        .execution_options(synchronize_session=False)
    )
    if (found := used.one_or_none()) is None:
        raise Unwelcome(Close.CODE_UNUSABLE, "the code is not known, used, or too old")
    name, id_ = found
    if id_ is not None:
        building = await session.get_one(Building, id_, with_for_update=True)
        if building.removed_at is not None:
            raise Unwelcome(Close.CODE_UNUSABLE, "the code is for a building that was removed")
        return building
    building = Building(id=new_id(Prefix.BUILDING), name=name, zone=_NO_ZONE, enrolled_at=now, removed_at=None)
    session.add(building)
    await session.flush()
    return building


async def _used_again(session: AsyncSession, secret: bytes, controller: Controller, now: datetime) -> None:
    """Take the secret of an enrolled controller: the one that it was enrolled by, whose answer may have been lost, or
    one for its own building.
    """
    invitation = await session.get(BuildingInvitation, _sha256(secret), with_for_update=True)
    if invitation is None or (invitation.used_at is None and invitation.expires_at <= now):
        raise Unwelcome(Close.CODE_UNUSABLE, "the code is not known, or too old")
    if invitation.used_at is not None:
        if invitation.used_by != controller.key:
            raise Unwelcome(Close.CODE_UNUSABLE, "the code was used by another controller")
    elif invitation.building_id == controller.building_id:
        invitation.used_at, invitation.used_by = now, controller.key
    else:
        raise Unwelcome(Close.NOT_ENROLLED, "the controller is enrolled in another building")


async def _welcome(
    session: AsyncSession,
    building: Building,
    hello: Hello,
    replica: str,
    connection: str,
    now: datetime,
    *,
    is_new: bool = False,
) -> Greeted:
    if hello.doors and _is_zone(hello.doors[0].zone):
        building.zone = hello.doors[0].zone
    await _offer(session, building, hello, now, is_new=is_new)
    key, instance = str(hello.controller), b64url.encode(hello.instance)
    before = None
    if (link := await session.get(Link, key, with_for_update=True)) is not None:
        before = Presence(link.replica, link.connection, link.inst)
        link.replica, link.connection, link.inst, link.since = replica, connection, instance, now
    else:
        session.add(Link(controller_key=key, replica=replica, connection=connection, inst=instance, since=now))
    await session.flush()
    return Greeted(building.id, before)


async def _offer(session: AsyncSession, building: Building, hello: Hello, now: datetime, *, is_new: bool) -> None:
    """Take over which doors a controller offers, how they are called and where they are.

    A controller that is only being enrolled and offers another building's door is one of that building's, and would not
    get its lists here: Unwelcome.
    """
    key, wanted = str(hello.controller), {each.id: each for each in hello.doors}
    known = {
        door.id: door
        for door in await session.scalars(select(Door).where(Door.id.in_(wanted) | (Door.building_id == building.id)))
    }
    offered, changed = set[str](), 0
    for id_, said in wanted.items():
        if (door := known.get(id_)) is None:
            door = Door(id=id_, building_id=building.id, name="", lat=None, lon=None, position_radius_m=None)
            session.add(door)
        elif door.building_id != building.id:
            if (await session.get_one(Building, door.building_id)).removed_at is None:
                if is_new:
                    raise Unwelcome(
                        Close.NOT_ENROLLED,
                        f"{id_} is a door of {door.building_id}: invite this controller with `--building` for it",
                    )
                who = controller_id(hello.controller)
                await alarms.sound(session, AlarmKind.DOOR_OF_ANOTHER, building.id, id_, now, controller=who)
                continue
            door.building_id = building.id
        changed += _describe(door, said)
        offered.add(id_)
    await session.flush()
    before = set(await session.scalars(select(DoorController.door_id).where(DoorController.controller_key == key)))
    if gone := before - offered:
        await session.execute(
            delete(DoorController).where(DoorController.controller_key == key, DoorController.door_id.in_(gone))
        )
    session.add_all(DoorController(door_id=door, controller_key=key) for door in offered - before)
    await session.flush()
    if gone:
        await forsake(session, building.id)
    if changed or gone or offered - before:
        counts = {"offered": len(offered), "added": len(offered - before), "gone": len(gone), "changed": changed}
        audit.record(session, now, controller_id(hello.controller), "doors offered", building.id, **counts)


def _describe(door: Door, said: LinkedDoor) -> bool:
    """Take over what a hello says about a door; return whether that is new."""
    # A name is shown to drivers: nothing in it may turn other text around, or break a line.
    name = "".join(letter if letter.isprintable() else "?" for letter in said.name).strip() or "?"
    before = door.name, door.lat, door.lon
    door.name = name
    if said.lat is not None and said.lon is not None:
        door.lat, door.lon = said.lat, said.lon
    return before != (door.name, door.lat, door.lon)


async def forsake(session: AsyncSession, building: str) -> None:
    """Take the position from each door that nobody offers any more, so that it never opens."""
    offered = select(DoorController.door_id)
    await session.execute(
        update(Door)
        .where(Door.building_id == building, Door.id.not_in(offered))
        .values(lat=None, lon=None)
        .execution_options(synchronize_session=False)
    )


def _is_zone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name)) and len(name) <= 64
    except ZoneInfoNotFoundError, ValueError, OSError:
        return False


def _sha256(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
