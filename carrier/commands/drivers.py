"""The commands of drivers: add, invite, vet, revoke and remove them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from . import working
from .working import WHO, Commands, Unusable, command, group, in_session, in_store, shown, table

if TYPE_CHECKING:
    from carrier.config import Config
    from carrier.store import Store


def add(commands: Commands) -> None:
    """Add them."""
    day = {"metavar": "DAY", "help": "the last day of it, UTC: 2027-03-31; without, nothing is vetted"}
    of = group(commands, "driver", "add, invite, vet, revoke and remove drivers")
    command(of, "add", _driver_add, "add a driver", "name", vetted_until=day)
    command(of, "list", _driver_list, "show all drivers and their devices")
    command(of, "invite", _driver_invite, "make a one-time link by which a driver adds a phone", "driver")
    command(of, "revoke", _driver_revoke, "revoke a device, or every device of a driver", "driver_or_device")
    command(
        of,
        "vetting",
        _driver_vetting,
        "say until when a driver is vetted",
        "driver",
        until={**day, "dest": "vetted_until"},
    )
    command(of, "remove", _driver_remove, "remove a driver, with name and devices", "driver")


def _driver_add(given: argparse.Namespace) -> int:
    from carrier import drivers

    until = _last_day(given.vetted_until)
    driver = in_session(given, lambda session: drivers.add(session, given.name, until, WHO, working.now()))
    print(driver.id)
    return 0


def _driver_list(given: argparse.Namespace) -> int:
    from carrier import drivers

    rows: list[tuple[str, ...]] = []
    for driver, devices in in_session(given, drivers.listed):
        vetted = f"vetted until {shown(driver.vetted_until)}" if driver.vetted_until else "NOT VETTED"
        rows.append((driver.id, driver.name or "", vetted if driver.active else f"NOT ACTIVE, {vetted}"))
        rows += [
            ("  device", device.id, f"revoked {shown(device.revoked_at)}" if device.revoked_at else "may be used")
            for device in devices
        ]
    print(table(rows) or "no drivers")
    return 0


def _driver_invite(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> str:
        from carrier import drivers

        async with store.transaction() as session:
            return f"{config.origin}/#join={await drivers.invite(session, given.driver, WHO, working.now())}"

    print(in_store(given, work))
    print("For the driver alone, good for 24 hours, once. An earlier link is void.")
    return 0


def _driver_revoke(given: argparse.Namespace) -> int:
    from carrier import drivers

    count = in_session(given, lambda session: drivers.revoke(session, given.driver_or_device, WHO, working.now()))
    print(f"revoked     {count} {'device' if count == 1 else 'devices'}")
    return 0


def _driver_vetting(given: argparse.Namespace) -> int:
    from carrier import drivers

    until = _last_day(given.vetted_until)
    in_session(given, lambda session: drivers.vet(session, given.driver, until, WHO, working.now()))
    print("not vetted any more" if until is None else f"vetted until {shown(until)}")
    return 0


def _driver_remove(given: argparse.Namespace) -> int:
    async def work(store: Store, _: Config) -> None:
        from carrier import drivers

        async with store.transaction() as session:
            await drivers.remove(session, given.driver, WHO, working.now())
        await store.scrub()

    in_store(given, work)
    print("removed     evidence of the driver's requests is deleted when its time is over")
    return 0


def _last_day(text: str | None) -> datetime | None:
    """Return the end of a day."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError as err:
        raise Unusable("a day is written like 2027-03-31") from err
