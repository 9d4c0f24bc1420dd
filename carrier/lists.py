"""The daily list of what was issued for a building, signed for each of its controllers (protocol E).

A list is of a UTC day, by the second in which its tokens were signed. What it refuses to do: tell of a day that is not
over for ten minutes, so that a token of the last second is in it, or leave out a day without any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import select

from vestibule_core import keyset
from vestibule_core.keyset import AFTER_MIDNIGHT, MAX_JTIS
from vestibule_core.model import Issuer
from vestibule_core.note import VerifierKey
from vestibule_core.reconcile import ASKED_BACK

from . import keys
from .keys import Keyring
from .store import Store
from .store.tables import Issued, KeyUse

AT_HELLO: Final = 2
"""Days whose lists each new link gets."""


def begins(day: date) -> datetime:
    """Return when a day begins."""
    return datetime.combine(day, time(), UTC)


def newest_day(now: datetime) -> date:
    """Return the newest day that can be told of at ``now``."""
    return (now.astimezone(UTC) - timedelta(days=1, seconds=AFTER_MIDNIGHT)).date()


def may_ask_for(day: date, now: datetime) -> bool:
    """Return whether the list of ``day`` is still given out."""
    return newest_day(now) - ASKED_BACK < day <= newest_day(now)


async def written(
    store: Store, keyring: Keyring, issuer: Issuer, buildings: Mapping[VerifierKey, str], day: date, now: datetime
) -> dict[VerifierKey, list[str]]:
    """Return the signed parts of a day's list for each controller; ``buildings`` has the building of each.

    Raises StoreUnavailable, KeyUnusable.
    """
    of: dict[str, list[str]] = {building: [] for building in buildings.values()}
    first, after = (int(begins(each).timestamp()) for each in (day, day + timedelta(days=1)))
    async with store.transaction() as session:
        key = await keyring.signer(await keys.current(session, KeyUse.ISSUED, now))
        rows = await session.execute(
            select(Issued.building_id, Issued.jti).where(
                Issued.building_id.in_(of), Issued.iat >= first, Issued.iat < after
            )
        )
        for building, jti in rows:
            of[building].append(jti)
    parted = {building: _parts(jtis) for building, jtis in of.items()}
    signed: dict[VerifierKey, list[str]] = {}
    for controller, building in buildings.items():
        parts = parted[building]
        signed[controller] = [
            keyset.write_issued(
                key,
                keyset.Issued(
                    issuer=issuer,
                    controller=controller,
                    day=day,
                    issued_at=int(now.timestamp()),
                    part=number,
                    parts=len(parts),
                    jtis=part,
                ),
            )
            for number, part in enumerate(parts)
        ]
        await asyncio.sleep(0)  # a signature takes its time, and drivers wait
    return signed


def _parts(jtis: list[str]) -> list[tuple[str, ...]]:
    jtis.sort()  # by code points, as the building compares; a database has orders of its own
    return [tuple(jtis[start : start + MAX_JTIS]) for start in range(0, len(jtis), MAX_JTIS)] or [()]
