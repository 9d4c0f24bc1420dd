"""The keys of dispatchers' programs: a secret that is shown once, and what it may be used for.

What it refuses to do: keep the secret, or take one for more than it was made for.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url

from . import audit
from .drivers import LONGEST_NAME, NoSuch, NotPossible, is_name
from .store import Prefix, new_id, sha256
from .store.tables import ApiKey

_MARK: Final = "vck_"
"""How a secret begins, so that a scanner of published code knows it."""


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    """See requests, decisions, routes, drivers and buildings."""
    MANIFESTS = "manifests"
    """Bring routes, and end their stops."""
    DRIVERS = "drivers"
    """Add, invite, vet, revoke and remove drivers."""
    ALARMS = "alarms"
    """Mark alarms as seen."""
    AUDIT = "audit"
    """See who changed what."""


async def add(
    session: AsyncSession, name: str, scopes: Collection[Scope], who: str, now: datetime
) -> tuple[ApiKey, str]:
    """Add a key; return it, and its secret, which is not kept."""
    if not is_name(name):
        raise NotPossible(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    if not scopes:
        raise NotPossible("a key without a scope is of no use: " + ", ".join(Scope))
    secret = _MARK + b64url.encode(os.urandom(32))
    wanted = sorted({Scope(scope).value for scope in scopes})
    key = ApiKey(
        id=new_id(Prefix.API_KEY), name=name, sha256=sha256(secret), scopes=wanted, created_at=now, revoked_at=None
    )
    session.add(key)
    audit.record(session, now, who, "api key added", key.id, scopes=" ".join(wanted))
    return key, secret


async def of(session: AsyncSession, secret: str) -> ApiKey | None:
    """Return the key that a secret is of, None if there is none, or if it was revoked."""
    found = await session.scalars(select(ApiKey).where(ApiKey.sha256 == sha256(secret), ApiKey.revoked_at.is_(None)))
    return found.one_or_none()


async def is_good(session: AsyncSession, key_id: str) -> bool:
    """Return whether a key is there, and was not revoked."""
    return await session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))) is not None


async def listed(session: AsyncSession) -> list[ApiKey]:
    """Return all keys, revoked ones as well."""
    return list(await session.scalars(select(ApiKey).order_by(ApiKey.created_at)))


async def revoke(session: AsyncSession, key_id: str, who: str, now: datetime) -> None:
    """Revoke a key; raise NoSuch."""
    key = await session.get(ApiKey, key_id, with_for_update=True)
    if key is None or key.revoked_at is not None:
        raise NoSuch(f"there is no key {key_id}, or it was revoked")
    key.revoked_at = now
    audit.record(session, now, who, "api key revoked", key_id)
