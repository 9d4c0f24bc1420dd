"""The carrier's keys: made, put into files that only the cloud can read, rotated, revoked and published.

A signing key is published for a week before it signs, so that every building has heard of it, and two overlap. The root
key, which signs the sets, is kept offline and needed only at that moment. What it refuses to do: sign with a key that
the newest set does not have, or publish a set under a root that buildings could not accept.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url, durable, keyset
from vestibule_core.keys import Alg, SigningKey
from vestibule_core.model import Issuer

from . import audit
from .drivers import NoSuch, NotPossible
from .store.tables import KeySet, KeyUse
from .store.tables import SigningKey as KeyRow

SIGNS_FOR: Final = timedelta(days=30)
LISTS_FOR: Final = timedelta(days=365)
AHEAD: Final = timedelta(days=7)
"""For which a key is published before it signs."""
AFTERWARDS: Final = timedelta(days=1)
"""For which it stays published after it has signed last."""
SET_FOR: Final = timedelta(days=35)
CLOCKS_APART: Final = timedelta(minutes=5)
"""By which a building's clock may be behind: for that long before it signs, a key is good there already."""
_MOST: Final = 4096


class KeyUnusable(Exception):
    """A key's file cannot be used, or no key can sign. The text says why, and what to do."""


class Keyring(Protocol):
    """Where private keys are: in files, or in something that does not give them out."""

    async def signer(self, kid: str) -> SigningKey:
        """Return what signs with a key; raise KeyUnusable."""
        ...


class KeyFolder:
    """Private keys as PEM files (PKCS #8), of mode 0600 in a folder of mode 0700."""

    def __init__(self, folder: Path) -> None:
        """Look into this folder."""
        self._folder = folder
        self._read: dict[str, SigningKey] = {}

    async def signer(self, kid: str) -> SigningKey:
        """Return what signs with a key; raise KeyUnusable."""
        if kid not in self._read:
            key = await asyncio.to_thread(read_key, self.path(kid))
            if key.kid != kid:
                raise KeyUnusable(f"{self.path(kid)} holds another key than its name says")
            self._read[kid] = key
        return self._read[kid]

    def path(self, kid: str) -> Path:
        """Return where a key is."""
        return self._folder / f"{kid}.pem"

    def make(self) -> SigningKey:
        """Make a key, durably. Blocks; raises KeyUnusable."""
        key = SigningKey.generate()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise KeyUnusable(f"{self._folder}: {err.strerror}") from err
        write_key(self.path(key.kid), key)
        return key

    def forget(self, kid: str) -> None:
        """Remove a key's file. Blocks."""
        self._read.pop(kid, None)
        self.path(kid).unlink(missing_ok=True)
        durable.sync_directory(self._folder)


def write_key(path: Path, key: SigningKey) -> None:
    """Write a private key to a new file that only its owner can read, durably. Blocks; raises KeyUnusable."""
    if path.exists():
        raise KeyUnusable(f"{path} is there already: a key is never written over")
    try:
        durable.write(path, key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as err:
        raise KeyUnusable(f"{path}: {err.strerror}") from err


def read_key(path: Path) -> SigningKey:
    """Return the Ed25519 key of a file; raise KeyUnusable. Blocks. A file that others could read is not used."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyUnusable(f"{path} could be read by others: chmod 600, and think about replacing the key")
            text = file.read(_MOST)
    except OSError as err:
        raise KeyUnusable(f"{path}: {err.strerror}") from err
    try:
        private = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise KeyUnusable(f"{path} holds no key that can be read") from err
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds a key that is not Ed25519")
    return SigningKey(private)


def fingerprint(key: SigningKey) -> bytes:
    """Return SHA-256 of the raw public key: what a building pins a root by."""
    return hashlib.sha256(raw_public(key)).digest()


def raw_public(key: SigningKey) -> bytes:
    """Return the 32 bytes of a public Ed25519 key."""
    assert key.alg is Alg.EDDSA
    return b64url.decode(key.jwk()["x"].encode())


# ---- rotation ----


async def rotate(session: AsyncSession, folder: KeyFolder, who: str, now: datetime) -> list[KeyRow]:
    """Make the next signing key, and a list key if there is none for the coming weeks; return what was made.

    The first one signs as soon as it is published. A later one signs from the end of its week on; until then, the one
    before it does. Raises NotPossible if the next one has been made already; KeyUnusable.
    """
    rows = list(await session.scalars(select(KeyRow).where(KeyRow.revoked_at.is_(None))))
    signing = [row for row in rows if row.use == KeyUse.TOKENS and row.sign_until > now]
    if any(row.sign_from > now for row in signing):
        raise NotPossible("the next key is made already: it begins to sign by itself")
    # Made too late for a whole week ahead, it begins when the last one ends: a driver is not to wait for that.
    begins = min([now + AHEAD, *(row.sign_until for row in signing)]) if signing else now
    made = [await _make(session, folder, KeyUse.TOKENS, begins, SIGNS_FOR, who, now)]
    if not any(row.use == KeyUse.ISSUED and row.sign_until > now + SET_FOR for row in rows):
        made.append(await _make(session, folder, KeyUse.ISSUED, now, LISTS_FOR, who, now))
    return made


async def _make(
    session: AsyncSession, folder: KeyFolder, use: KeyUse, begins: datetime, life: timedelta, who: str, now: datetime
) -> KeyRow:
    key = await asyncio.to_thread(folder.make)  # before the row: a file without one harms nobody
    row = KeyRow(
        kid=key.kid,
        use=use,
        public=key.jwk(),
        made_at=now,
        sign_from=begins,
        sign_until=begins + life,
        publish_until=begins + life + AFTERWARDS,
        revoked_at=None,
        file=folder.path(key.kid).name,
    )
    session.add(row)
    await session.flush()
    audit.record(session, now, who, "key made", key.kid, use=use)
    return row


async def revoke(session: AsyncSession, kid: str, who: str, now: datetime) -> KeyRow:
    """Let a key sign no more, and leave it out of the next set; raise NoSuch."""
    row = await session.get(KeyRow, kid, with_for_update=True)
    if row is None or row.revoked_at is not None:
        raise NoSuch(f"there is no key {kid}, or it was revoked")
    row.revoked_at = now
    audit.record(session, now, who, "key revoked", kid)
    return row


async def current(session: AsyncSession, use: KeyUse, now: datetime) -> str:
    """Return the kid of the key that signs at ``now``: the newest whose time has come, of those that are published.

    Raises KeyUnusable.
    """
    published = select(KeySet.kids, KeySet.exp).order_by(KeySet.version.desc()).limit(1).subquery()
    may_sign = and_(KeyRow.use == use, KeyRow.revoked_at.is_(None), KeyRow.sign_from <= now, KeyRow.sign_until > now)
    found = await session.execute(
        select(published.c.kids, published.c.exp, KeyRow.kid)
        .outerjoin_from(published, KeyRow, may_sign)
        .order_by(KeyRow.sign_from.desc(), KeyRow.kid)
    )
    rows = found.tuples().all()
    if not rows:
        raise KeyUnusable("no keys are published: `vestibule-carrier keys rotate`, then `keys publish`")
    if now.timestamp() >= rows[0][1]:
        raise KeyUnusable("the published keys are too old for every building: `vestibule-carrier keys publish`")
    kid: str | None = next((kid for kids, _, kid in rows if kid in kids), None)
    if kid is None:
        raise KeyUnusable("no published key may sign now: `vestibule-carrier keys rotate`, then `keys publish`")
    return kid


async def listed(session: AsyncSession) -> list[KeyRow]:
    """Return all keys, the oldest first."""
    return list(await session.scalars(select(KeyRow).order_by(KeyRow.made_at, KeyRow.use)))


async def newest_set(session: AsyncSession) -> KeySet | None:
    """Return the set that was published last."""
    return (await session.scalars(select(KeySet).order_by(KeySet.version.desc()).limit(1))).one_or_none()


async def publish(
    session: AsyncSession, issuer: Issuer, root: SigningKey, following: SigningKey | None, who: str, now: datetime
) -> KeySet:
    """Let the root sign the set of all keys that may sign, or will, or have just stopped; return it.

    ``following``: the root that may come after this one; None: the one that was named before, if it was. Raises
    NotPossible if no building could accept it.
    """
    last = await session.scalar(select(KeySet).order_by(KeySet.version.desc()).limit(1).with_for_update())
    named = b64url.encode(fingerprint(following)) if following else None
    if last is not None and last.root_kid != root.kid:
        if last.next_root != b64url.encode(fingerprint(root)):
            raise NotPossible(
                "this is not the root key of the last set, nor the one that was named in it as the next: "
                "buildings would refuse the set"
            )
    elif last is not None and named is None:
        named = last.next_root
    if named == b64url.encode(fingerprint(root)):
        raise NotPossible("the next root key is another one than this one")
    rows = list(
        await session.scalars(
            select(KeyRow)
            .where(KeyRow.revoked_at.is_(None), KeyRow.publish_until > now)
            .order_by(KeyRow.use, KeyRow.sign_from, KeyRow.kid)
        )
    )
    if not any(row.use == KeyUse.TOKENS for row in rows):
        raise NotPossible("there is no key to publish: `vestibule-carrier keys rotate` makes one")
    iat = int(now.timestamp())
    row = KeySet(
        version=1 if last is None else last.version + 1,
        text="",
        root=raw_public(root),
        kids=[key.kid for key in rows],
        root_kid=root.kid,
        next_root=named,
        iat=iat,
        exp=iat + int(SET_FOR.total_seconds()),
    )
    row.text = _signed_set(row, issuer, rows, root)
    session.add(row)
    audit.record(session, now, who, "keys published", f"version {row.version}", keys=len(rows), root=root.kid)
    return row


def _signed_set(row: KeySet, issuer: Issuer, keys: list[KeyRow], root: SigningKey) -> str:
    """Return the set as buildings read it: ``door-keys+jwt`` (protocol E)."""
    published = keyset.KeySet(
        issuer=issuer,
        version=row.version,
        issued_at=row.iat,
        expires_at=row.exp,
        keys=tuple(
            keyset.PublishedKey(
                public=b64url.decode(key.public["x"].encode()),
                use=keyset.Use(key.use),
                valid_from=int((key.sign_from - CLOCKS_APART).timestamp()),
                valid_until=int(key.publish_until.timestamp()),
            )
            for key in keys
        ),
        next_root=None if row.next_root is None else b64url.decode(row.next_root.encode()),
    )
    return keyset.write(root, published)
