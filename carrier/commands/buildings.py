"""The commands of buildings: invite, add, show and remove them."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import working
from .working import WHO, Commands, Unusable, command, group, in_session, in_store, shown, table, text_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from carrier.config import Config
    from carrier.store import Store
    from carrier.store.tables import Door
    from vestibule_core.link.code import EnrolmentCode

_LONGEST_CODE: Final = 30
"""Days for which an enrolment code may be good."""


def add(commands: Commands) -> None:
    """Add them."""
    file: dict[str, Any] = {"type": Path, "metavar": "FILE", "required": True}
    of = group(commands, "building", "invite, add, show and remove buildings")
    command(
        of,
        "invite",
        _building_invite,
        "make an enrolment code, by which a building connects itself",
        name={"required": True, "metavar": "NAME", "help": "how the building is called here"},
        building={"metavar": "ID", "help": "it is one more controller of this building"},
        days={"type": int, "default": 7, "metavar": "DAYS", "help": "for which the code is good (default: 7)"},
    )
    command(
        of,
        "add",
        _building_add,
        "add a building",
        "name",
        zone={"required": True, "metavar": "ZONE", "help": "its time zone: Europe/Berlin"},
        controller_key={"required": True, "metavar": "KEY", "help": "the key its controller signs with: name+id+key"},
        doors={**file, "help": 'JSON: [{"id", "name", "lat", "lon", "radius"}, ...]'},
    )
    command(of, "list", _building_list, "show all buildings, their controllers, links and doors")
    command(
        of,
        "remove",
        _building_remove,
        "remove a building: none of its doors is asked for any more",
        "building",
        controller={"metavar": "KEY", "help": "only this one of its controllers: name+id+key"},
    )


def _building_add(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> str:
        from carrier import buildings

        doors = buildings.read_doors(text_of(given.doors))
        return (
            await buildings.add(session, given.name, given.zone, given.controller_key, doors, WHO, working.now())
        ).id

    print(in_session(given, work))
    return 0


def _building_invite(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> EnrolmentCode:
        import hashlib

        from carrier import enrolment, keys
        from vestibule_core.link.code import EnrolmentCode

        async with store.transaction() as session:
            if (published := await keys.newest_set(session)) is None:
                raise Unusable("publish keys first: `vestibule-carrier keys rotate`, then `keys publish --root FILE`")
            lasts = timedelta(days=given.days)
            secret = await enrolment.invite(session, given.name, given.building, lasts, WHO, working.now())
            return EnrolmentCode(config.address, hashlib.sha256(published.root).digest(), secret)

    if not 1 <= given.days <= _LONGEST_CODE:
        raise Unusable(f"a code is good for 1 to {_LONGEST_CODE} days")
    print(in_store(given, work))
    print(f"For the manager of the building alone, good for {given.days} days, for one controller.")
    return 0


def _building_list(given: argparse.Namespace) -> int:
    from carrier import buildings

    rows: list[tuple[str, ...]] = []
    for each in in_session(given, buildings.listed):
        rows.append((each.building.id, each.building.name, each.building.zone))
        rows += [
            ("  controller", controller.key, f"connected since {shown(link.since)}" if link else "NOT CONNECTED")
            for controller, link in each.controllers
        ]
        rows += [("  door", door.id, door.name + _flaw(door, each.offered)) for door in each.doors]
    print(table(rows) or "no buildings")
    return 0


def _flaw(door: Door, offered: set[str]) -> str:
    if door.id not in offered:
        return ", NO CONTROLLER OFFERS IT, so it never opens"
    return "" if door.lat is not None else ", NO POSITION, so it never opens"


def _building_remove(given: argparse.Namespace) -> int:
    from carrier import buildings

    if given.controller:
        in_session(given, lambda session: buildings.remove_controller(session, given.controller, WHO, working.now()))
    else:
        in_session(given, lambda session: buildings.remove(session, given.building, WHO, working.now()))
    print("removed     a link that is there is ended within seconds")
    return 0
