"""The clients: the programs that are paired with the gateway, and what each of them may do (protocol C).

A client is known by its bearer, of which only the hash is kept. ``Registry`` is a value: each change makes a new one
and says what is to be recorded and noted. ``Clients`` keeps it, in the journal: what allows less holds at once, what
allows more when it is on the disk and the gateway's button was pressed, or a day has passed. What this file refuses to
do: leave a gateway without an administrator, or let one scope stand for another.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from vestibule_core import b64url
from vestibule_core.api.messages import (
    CLIENT,
    CLIENT_CHANGE,
    MAX_CLIENTS,
    Admission,
    Bearer,
    Client,
    ClientChange,
    ClientId,
    ClientTaken,
    Peer,
    Scope,
    client_id,
)
from vestibule_core.errors import StoreFailed
from vestibule_core.journal import Journal
from vestibule_core.leaf import Person
from vestibule_core.model import AccessEvent, EventName, Issuer, Now
from vestibule_core.note import VerifierKey
from vestibule_core.strict import Message, hexadecimal, integer, optional, record
from vestibule_core.writer import Notes

from .limits import Changes
from .wait import NOTED_EVERY, Wait

BEARER_SIZE: Final = 32
"""Bytes of a bearer, all of them random."""

_CLIENT: Final = "client:"
_TRUSTED: Final = "trusted"
"""Names of notes in the journal; the first is followed by the client's id."""


class UnknownClient(Exception):
    """There is no client of this id."""


class LastAdmin(Exception):
    """Nobody could set the policy any more."""


class TooManyClients(Exception):
    """There is no room for another client: remove one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """More than a client may do, asked for and waiting."""

    rights: ClientChange
    wait: Wait


@dataclass(frozen=True, slots=True)
class Paired:
    """A client, with the hash of its bearer and what waits for it."""

    client: Client
    digest: bytes
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A client as it is noted."""

    client: Client
    digest: bytes
    wish: ClientChange | None
    waited: int


_NOTE: Final = Message(
    record(
        _Kept,
        {"client": CLIENT, "digest": hexadecimal(32), "wish": optional(CLIENT_CHANGE.shape), "waited": integer()},
    ),
    64 * 1024,
)


def digest_of(bearer: str) -> bytes:
    """Return the hash that a bearer is known by."""
    return hashlib.sha256(bearer.encode()).digest()


def less(now: ClientChange, wanted: ClientChange) -> ClientChange:
    """Return what of ``wanted`` holds at once: what allows nothing that ``now`` does not. To read is no more, and
    issuers mean nothing to who does not present.
    """
    presents = Scope.PRESENT in wanted.scopes
    issuers = _both(now.issuers, wanted.issuers) if presents else wanted.issuers
    return ClientChange(wanted.scopes & (now.scopes | {Scope.READ}), issuers)


def _both(one: frozenset[Issuer] | None, other: frozenset[Issuer] | None) -> frozenset[Issuer] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _rights(client: Client) -> ClientChange:
    return ClientChange(client.scopes, client.issuers)


@dataclass(frozen=True, slots=True)
class Registry:
    """All clients at one moment."""

    paired: Mapping[ClientId, Paired] = field(default_factory=dict)
    trusted: bool = False
    """Whether what an administrator asks for holds at once, also if it allows more: chosen by who pairs."""
    _by_digest: Mapping[bytes, ClientId] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, paired: Iterable[Paired], *, trusted: bool) -> Self:
        """Index clients."""
        each = tuple(paired)
        return cls({one.client.id: one for one in each}, trusted, {one.digest: one.client.id for one in each})

    @classmethod
    def parse(cls, notes: Mapping[str, str], boot: float) -> Self:
        """Return what was noted; ``boot`` is seconds of boot time. Raises MalformedMessage."""
        each = []
        for name, text in notes.items():
            if name.startswith(_CLIENT):
                kept = _NOTE.decode(text.encode())
                wish = Wish(kept.wish, Wait(kept.waited, boot)) if kept.wish is not None else None
                each.append(Paired(kept.client, kept.digest, wish))
        return cls.of(each, trusted=_TRUSTED in notes)

    @property
    def clients(self) -> tuple[Client, ...]:
        """All clients, in the order of their ids."""
        return tuple(self.paired[known].client for known in sorted(self.paired))

    def holder(self, bearer: str) -> Client | None:
        """Return whose bearer it is. It is looked up by its hash, whose timing tells nothing of it."""
        known = self._by_digest.get(digest_of(bearer))
        return None if known is None else self.paired[known].client

    def get(self, which: str) -> Paired:
        """Return a client; raise UnknownClient."""
        try:
            return self.paired[ClientId(which)]
        except KeyError as err:
            raise UnknownClient(which) from err

    def with_(self, one: Paired) -> Registry:
        """Return it with a client added, or in its new state."""
        return self.of({**self.paired, one.client.id: one}.values(), trusted=self.trusted)

    def without(self, *which: ClientId) -> Registry:
        """Return it without some clients."""
        left = (one for known, one in self.paired.items() if known not in which)
        return self.of(left, trusted=self.trusted)

    def check_admin(self, before: Registry) -> None:
        """Raise LastAdmin if nobody administers any more, and somebody did."""
        if any(Scope.ADMIN in one.scopes for one in before.clients) and not any(
            Scope.ADMIN in one.scopes for one in self.clients
        ):
            raise LastAdmin


class Clients:
    """Keeps the clients. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        notes: Mapping[str, str],
        *,
        clock: Callable[[], Now],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take what the journal has noted. Raises MalformedMessage if that cannot be read."""
        self.registry: Registry = Registry.parse(notes, clock().boot)
        self._journal = journal
        self._clock = clock
        self._random = random
        self._noted = clock().boot
        """When it was noted last how long wishes have waited."""
        self._listeners: list[Callable[[], None]] = []
        self._changes = Changes()
        self._granting = asyncio.Lock()
        """Who is paired, or gets what waited, is so by one at a time. To change or remove a client needs no lock: what
        is read, what holds and what the journal is given are one step, with nothing awaited in between."""

    def watch(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change."""
        self._listeners.append(listener)

    def _hold(self, registry: Registry) -> None:
        self.registry = registry
        for listener in self._listeners:
            listener()

    # ---- what is changed. Each of these raises StoreFailed if the journal cannot take it ----

    async def pair(
        self, name: str, *, replaces: bool, trusts: bool, gateway_key: VerifierKey, gateway_name: str
    ) -> Admission:
        """Make a client of a program that has proved to know the code; return what it gets.

        The first one may do everything, a later one only read, unless it ``replaces`` all others: those can do nothing
        from the moment on when it is given to the journal. Raises TooManyClients.
        """
        async with self._granting:
            return await self._pair(name, replaces, trusts, gateway_key, gateway_name)

    async def _pair(
        self, name: str, replaces: bool, trusts: bool, gateway_key: VerifierKey, gateway_name: str
    ) -> Admission:
        others = self.registry.clients
        if len(others) >= MAX_CLIENTS and not replaces:
            raise TooManyClients
        scopes = frozenset(Scope) if replaces or not others else frozenset({Scope.READ})
        client = Client(client_id(self._random(8).hex()), name, scopes, None)
        bearer = Bearer(b64url.encode(self._random(BEARER_SIZE)))
        new = Paired(client, digest_of(bearer))
        gone = tuple(other.id for other in others) if replaces else ()
        trusted = trusts or (self.registry.trusted and not replaces)
        notes: dict[str, str | None] = {_CLIENT + other: None for other in gone}
        notes |= {_CLIENT + client.id: _note(new, 0.0), _TRUSTED: "yes" if trusted else None}
        what = {"scopes": sorted(scopes), "removed": list(gone), "trusted": trusted}
        removed = [self.registry.get(other) for other in gone]
        if gone:  # at once: nothing that they ask for meanwhile is written behind their removal
            self._hold(self.registry.without(*gone))
        try:
            await self._record(EventName.CLIENT_PAIRED, client, what, notes)
        except StoreFailed:
            for one in removed:
                self._hold(self.registry.with_(one))
            raise
        self._hold(replace(self.registry.with_(new), trusted=trusted))
        peers = () if replaces else tuple(Peer(other.id, other.name, other.scopes) for other in others)
        return Admission(bearer, client.id, gateway_key, gateway_name, scopes, trusted, peers)

    async def change(self, which: str, wanted: ClientChange, by: Client) -> ClientTaken:
        """Say what a client may do from now on; what is more than before waits.

        Raises UnknownClient, LastAdmin, or TooManyChanges.
        """
        before = self.registry.get(which)
        held = less(_rights(before.client), wanted)
        waits = held != wanted and not self.registry.trusted
        now = self._clock().boot
        after = _with(before, held if waits else wanted)
        final = replace(after, wish=Wish(wanted, Wait(0.0, now)) if waits else None)
        self.registry.with_(final).check_admin(self.registry)
        self._changes.take(by.id, now)
        narrowed = _with(before, held)
        self._hold(self.registry.with_(narrowed))
        await self._record(
            EventName.CLIENT_CHANGED,
            after.client,
            {**_words(wanted), "waits": waits, "by": by.id},
            {_CLIENT + which: _note(final, now)},
        )
        self._settle(narrowed, final)
        return ClientTaken(waits, final.wish.wait.left(now) if final.wish else None)

    async def remove(self, which: str, by: Client) -> None:
        """Let a client do nothing any more, at once. Raises UnknownClient or LastAdmin."""
        gone = self.registry.get(which).client
        left = self.registry.without(gone.id)
        left.check_admin(self.registry)
        self._hold(left)
        await self._record(EventName.CLIENT_REMOVED, gone, {"by": by.id}, {_CLIENT + gone.id: None})

    # ---- what waits ----

    @property
    def waiting(self) -> tuple[Paired, ...]:
        """The clients for which something waits."""
        return tuple(one for one in self.registry.paired.values() if one.wish is not None)

    async def approve(self, how: str = "button") -> int:
        """Let what waits hold now: somebody stands at the gateway. Returns how much did."""
        async with self._granting:
            return sum([await self._let(one, how) for one in self.waiting])

    async def look(self) -> None:
        """Let what has waited for long enough hold, and note how long the rest has."""
        async with self._granting:
            now = self._clock().boot
            for one in self.waiting:
                if one.wish is not None and not one.wish.wait.left(now):
                    await self._let(one, "time")
            if now - self._noted >= NOTED_EVERY:
                self._noted = now
                if notes := {_CLIENT + one.client.id: _note(one, now) for one in self.waiting}:
                    await self._journal.note(notes)

    async def _let(self, one: Paired, how: str) -> bool:
        """Let what waits for a client hold; return whether it did. Not for one that is not as it was any more: it was
        removed, or something else was asked for, while another one's was written.
        """
        if self.registry.paired.get(one.client.id) is not one or one.wish is None:
            return False
        final = _with(one, one.wish.rights)
        what = {**_words(one.wish.rights), "waits": False, "by": how}
        await self._record(EventName.CLIENT_CHANGED, final.client, what, {_CLIENT + one.client.id: _note(final, 0.0)})
        return self._settle(one, final)

    def _settle(self, before: Paired, after: Paired) -> bool:
        """Let ``after`` hold, unless something else was asked for meanwhile: the journal has that, too."""
        if is_so := self.registry.paired.get(before.client.id) is before:
            self._hold(self.registry.with_(after))
        return is_so

    async def _record(self, what: EventName, client: Client, facts: dict[str, Any], notes: Notes) -> None:
        person: Person = {"client": client.id, "name": client.name, **facts}
        await self._journal.append(AccessEvent(outcome=what, door=None, at=self._clock().wall), person, notes)


def _with(one: Paired, rights: ClientChange) -> Paired:
    return Paired(replace(one.client, scopes=rights.scopes, issuers=rights.issuers), one.digest)


def _note(one: Paired, now: float) -> str:
    wish, waited = (one.wish.rights, int(one.wish.wait.so_far(now))) if one.wish is not None else (None, 0)
    return _NOTE.encode(_Kept(one.client, one.digest, wish, waited)).decode()


def _words(rights: ClientChange) -> dict[str, Any]:
    return {
        "scopes": sorted(rights.scopes),
        "issuers": None if rights.issuers is None else sorted(rights.issuers)[:16],
    }
