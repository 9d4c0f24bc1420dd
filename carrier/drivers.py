"""Drivers and their devices: who may ask for doors. Each change is audited in its own transaction.

What it refuses to do: keep the secret of an invitation, or forget that a removed driver was there; what is left of one
is an id.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url

from . import audit
from .store import Prefix, new_id, sha256
from .store.tables import Ceremony, Device, Driver, Invitation, Pseudonym, Session

LONGEST_NAME: Final = 80
INVITED_FOR: Final = timedelta(hours=24)


class NoSuch(Exception):
    """What is to be changed is not there, or no more. The text says what."""


class NotPossible(Exception):
    """A change makes no sense. The text says why."""


def is_name(text: str) -> bool:
    """Return whether ``text`` can name a driver, a building or a key to a person."""
    return 0 < len(text.strip()) <= len(text) <= LONGEST_NAME and text.isprintable()


async def add(session: AsyncSession, name: str, vetted_until: datetime | None, who: str, now: datetime) -> Driver:
    """Add a driver; ``vetted_until``: when the vetting ends (None: not vetted yet, so that no door opens)."""
    if not is_name(name):
        raise NotPossible(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    driver = Driver(
        id=new_id(Prefix.DRIVER), name=name, active=True, vetted_until=vetted_until, created_at=now, removed_at=None
    )
    session.add(driver)
    audit.record(session, now, who, "driver added", driver.id, vetted_until=_moment(vetted_until))
    return driver


async def get(session: AsyncSession, driver_id: str) -> Driver:
    """Return a driver who was not removed; raise NoSuch."""
    driver = await session.get(Driver, driver_id, with_for_update=True)
    if driver is None or driver.removed_at is not None:
        raise NoSuch(f"there is no driver {driver_id}")
    return driver


async def listed(session: AsyncSession) -> list[tuple[Driver, list[Device]]]:
    """Return all drivers who were not removed, with their devices."""
    drivers = list(await session.scalars(select(Driver).where(Driver.removed_at.is_(None)).order_by(Driver.created_at)))
    devices: dict[str, list[Device]] = {driver.id: [] for driver in drivers}
    for device in await session.scalars(select(Device).order_by(Device.created_at)):
        if device.driver_id in devices:
            devices[device.driver_id].append(device)
    return [(driver, devices[driver.id]) for driver in drivers]


async def vet(session: AsyncSession, driver_id: str, until: datetime | None, who: str, now: datetime) -> Driver:
    """Say until when a driver is vetted; None: no more."""
    driver = await get(session, driver_id)
    driver.vetted_until = until
    audit.record(session, now, who, "vetting changed", driver_id, vetted_until=_moment(until))
    return driver


async def set_active(session: AsyncSession, driver_id: str, active: bool, who: str, now: datetime) -> Driver:
    """Let a driver ask for doors, or not for now."""
    driver = await get(session, driver_id)
    driver.active = active
    audit.record(session, now, who, "driver activated" if active else "driver deactivated", driver_id)
    return driver


async def invite(session: AsyncSession, driver_id: str, who: str, now: datetime) -> str:
    """Return the secret of a one-time link by which the driver adds a device within a day; an older one is void."""
    await get(session, driver_id)
    await session.execute(delete(Invitation).where(Invitation.driver_id == driver_id, Invitation.used_at.is_(None)))
    secret = b64url.encode(os.urandom(32))
    session.add(
        Invitation(secret_sha256=sha256(secret), driver_id=driver_id, expires_at=now + INVITED_FOR, used_at=None)
    )
    audit.record(session, now, who, "driver invited", driver_id)
    return secret


async def invited(session: AsyncSession, secret: str, now: datetime) -> Driver | None:
    """Return whom a link invites, None if it is used, void or too old. Uses nothing up."""
    invitation = await session.get(Invitation, sha256(secret))
    if invitation is None or invitation.used_at is not None or invitation.expires_at <= now:
        return None
    driver = await session.get(Driver, invitation.driver_id)
    return driver if driver is not None and driver.removed_at is None and driver.active else None


async def use_invitation(session: AsyncSession, secret: str, now: datetime) -> str | None:
    """Use a link up; return the driver's id, None if it is used, void or too old. Before anything else in a
    transaction: whoever revokes or removes the driver begins with the driver, too, and neither waits for the other.
    """
    link = await session.get(Invitation, sha256(secret))
    if link is None or await session.get(Driver, link.driver_id, with_for_update=True) is None:
        return None
    used = await session.scalars(
        update(Invitation)
        .where(Invitation.secret_sha256 == sha256(secret), Invitation.used_at.is_(None), Invitation.expires_at > now)
        .values(used_at=now)
        .returning(Invitation.driver_id)
        .execution_options(synchronize_session=False)
    )
    return used.one_or_none()


async def add_device(
    session: AsyncSession,
    driver_id: str,
    *,
    credential_id: bytes,
    public_key: bytes,
    sign_count: int,
    backed_up: bool,
    transports: list[str],
    now: datetime,
) -> Device:
    """Add a passkey that was just registered; IntegrityError at the flush if it is there already."""
    await get(session, driver_id)
    device = Device(
        id=new_id(Prefix.DEVICE),
        driver_id=driver_id,
        credential_id=credential_id,
        public_key=public_key,
        sign_count=sign_count,
        created_at=now,
        revoked_at=None,
        backed_up=backed_up,
        transports=transports,
    )
    session.add(device)
    audit.record(session, now, driver_id, "device added", device.id, driver=driver_id)
    return device


async def revoke(session: AsyncSession, driver_or_device: str, who: str, now: datetime) -> int:
    """Revoke a device, or every device and open link of a driver; return how many devices."""
    if driver_or_device.startswith(f"{Prefix.DRIVER}:"):
        await get(session, driver_or_device)
        await session.execute(delete(Invitation).where(Invitation.driver_id == driver_or_device))
        which = Device.driver_id == driver_or_device
    else:
        if await session.get(Device, driver_or_device) is None:
            raise NoSuch(f"there is no device {driver_or_device}")
        which = Device.id == driver_or_device
    devices = list(await session.scalars(select(Device).where(which, Device.revoked_at.is_(None))))
    for device in devices:
        device.revoked_at = now
        audit.record(session, now, who, "device revoked", device.id, driver=device.driver_id)
    return len(devices)


async def remove(session: AsyncSession, driver_id: str, who: str, now: datetime) -> None:
    """Remove a driver: name, devices, links and pseudonyms. What was recorded keeps the id alone, and its evidence
    until its time is over. ``Store.scrub`` afterwards makes that unreadable in the database's file, too.
    """
    driver = await get(session, driver_id)
    driver.name, driver.active, driver.vetted_until, driver.removed_at = None, False, None, now
    # In the order in which a driver who joins, signs in or asks uses them: neither waits for the other.
    for table in (Invitation, Ceremony):
        await session.execute(delete(table).where(table.driver_id == driver_id))
    devices = list(await session.scalars(select(Device).where(Device.driver_id == driver_id)))
    for device in devices:  # what was recorded keeps their ids, too
        device.credential_id, device.public_key, device.transports = device.id.encode(), b"", []
        device.revoked_at = device.revoked_at or now
    await session.flush()
    await session.execute(delete(Session).where(Session.device_id.in_([device.id for device in devices])))
    await session.execute(delete(Pseudonym).where(Pseudonym.kind == "sub", Pseudonym.subject_id == driver_id))
    audit.record(session, now, who, "driver removed", driver_id)


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
