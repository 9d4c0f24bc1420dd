"""How a building's controller becomes known: by a code that is good once; and what each of its hellos says.

What it refuses to do: enrol two controllers by one code, move a controller from one building to another, take a door
that another building has, keep a code's secret, or let one building fill the database.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url, jws
from vestibule_core.link.messages import Close, Hello, LinkedDoor
from vestibule_core.note import VerifierKey

from . import alarms, audit
from .drivers import LONGEST_NAME, NoSuch, NotPossible, is_name
from .store import Prefix, new_id, sha256
from .store.tables import (
    AlarmKind,
    Audit,
    Building,
    BuildingInvitation,
    Controller,
    Door,
    DoorController,
    Link,
    StopDoor,
)

INVITED_FOR: Final = timedelta(days=7)
MOST_KEPT: Final = 256
"""Doors of a building. Up to here, one that is not offered any more is kept: it may be a bad day of its controller."""
MOST_AUDITED: Final = 24
"""Changes of one kind by one controller's hellos that are written down within a day, each in a row of its own."""
_LEFT_OUT: Final = "changes left out"
"""What the one row of those beyond is called: how many of each there were."""
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
            secret_sha256=sha256(secret),
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
    audit.record(session, now, controller_id(hello.controller), "controller enrolled", building.id)
    return await _welcome(session, building, hello, replica, connection, now, is_new=True)


async def _invited(session: AsyncSession, secret: bytes, hello: Hello, now: datetime) -> Building:
    """Use a code up; return the building that it is for, which may be new."""
    used = await session.execute(
        update(BuildingInvitation)
        .where(
            BuildingInvitation.secret_sha256 == sha256(secret),
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
    invitation = await session.get(BuildingInvitation, sha256(secret), with_for_update=True)
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
    if hello.doors and (zone := hello.doors[0].zone) != building.zone and _is_zone(zone):
        old, building.zone = building.zone, zone
        await _note(session, hello, building, now, "zone changed", old=old, new=zone)
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

    A door of a building that was removed goes to a controller that was enrolled since then: somebody has been given a
    code for it by whoever removed the other. A controller that is only being enrolled and offers another building's
    door is one of that building's, and would not get its lists here: Unwelcome.
    """
    key, wanted = str(hello.controller), {each.id: each for each in hello.doors}
    known = {
        door.id: door
        for door in await session.scalars(select(Door).where(Door.id.in_(wanted) | (Door.building_id == building.id)))
    }
    enrolled_at = (await session.get_one(Controller, key)).enrolled_at
    offered, changed = set[str](), 0
    for id_, said in wanted.items():
        if (door := known.get(id_)) is None:
            door = Door(id=id_, building_id=building.id, name="", lat=None, lon=None, position_radius_m=None)
            session.add(door)
        elif door.building_id != building.id:
            removed_at = (await session.get_one(Building, door.building_id)).removed_at
            if removed_at is None or not (is_new or enrolled_at >= removed_at):
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
    if offered - before:
        await _forget_some(session, building.id)
    if changed or gone or offered - before:
        counts = {"offered": len(offered), "added": len(offered - before), "gone": len(gone), "changed": changed}
        await _note(session, hello, building, now, "doors offered", **counts)


async def _note(
    session: AsyncSession, hello: Hello, building: Building, now: datetime, what: str, **detail: str | int
) -> None:
    """Write a change by a hello down; after MOST_AUDITED of its kind within a day, only how many more there were."""
    who = controller_id(hello.controller)
    lately = Audit.subject == building.id, Audit.who == who, Audit.at > now - timedelta(days=1)
    rows = await session.scalar(select(func.count()).where(*lately, Audit.what == what)) or 0
    if rows < MOST_AUDITED:
        audit.record(session, now, who, what, building.id, **detail)
        return
    left_out = select(Audit).where(*lately, Audit.what == _LEFT_OUT).order_by(Audit.seq.desc()).limit(1)
    if (entry := await session.scalar(left_out)) is None:
        audit.record(session, now, who, _LEFT_OUT, building.id, **{what: 1})
    else:
        entry.detail = {**entry.detail, what: entry.detail.get(what, 0) + 1}


async def _forget_some(session: AsyncSession, building: str) -> None:
    """If a building has very many doors, forget those that nobody offers and no stop names.

    But not one that somebody has given a limit of its own here, by hand: no hello brings that back.
    """
    if (await session.scalar(select(func.count()).where(Door.building_id == building)) or 0) <= MOST_KEPT:
        return
    offered = exists().where(DoorController.door_id == Door.id)
    named = exists().where(StopDoor.door_id == Door.id)
    await session.execute(
        delete(Door)
        .where(Door.building_id == building, ~offered, ~named, Door.position_radius_m.is_(None))
        .execution_options(synchronize_session=False)
    )


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
    await session.execute(
        update(Door)
        .where(Door.building_id == building, ~exists().where(DoorController.door_id == Door.id))
        .values(lat=None, lon=None)
        .execution_options(synchronize_session=False)
    )


def _is_zone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name)) and len(name) <= 64
    except ZoneInfoNotFoundError, ValueError, OSError:
        return False
