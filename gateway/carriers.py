"""The carriers whose clouds the gateway has links to: what it holds of each, and what follows (protocol E).

Of each it holds the root that its enrolment code named, the newest key set under that root, the keys that newer sets
have dropped, and how far what was accepted has been held against the cloud's own lists. All of it is in notes of the
journal, and holds when it is on the disk. Who may enter where stays the policy that clients set: of a linked carrier
the key set says with which keys, and a lock-out that nobody may. What this file refuses to do: let an older policy
bring back a key that a set has dropped, let one carrier's set touch another's keys, or let a carrier in again that was
locked out before somebody at the gateway says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vestibule_core import jws, keyset, reconcile
from vestibule_core.errors import KeySetInvalid, MalformedMessage
from vestibule_core.evidence import Broken
from vestibule_core.journal import Journal
from vestibule_core.keys import Alg, KeyStatus, TrustedKey
from vestibule_core.keyset import MAX_DROPPED, MAX_TEXT, KeySet, Root
from vestibule_core.model import AccessEvent, EventName, Issuer, Now, issuer
from vestibule_core.note import VerifierKey
from vestibule_core.policy import Carrier
from vestibule_core.reconcile import STATE, Alarm, State
from vestibule_core.strict import Message, listed, optional, raw, record, text
from vestibule_core.writer import Notes

from .log import say

_LOGGER = logging.getLogger(__name__)

MOST: Final = 16
"""Carriers with a link."""

_CARRIER: Final = "carrier:"
_BOOKS: Final = "books:"
_LEFT: Final = "left:"
"""Names of notes in the journal, followed by the issuer. The last is what the books were left with without a link."""
_AT_ONCE: Final = 10_000
"""Rows of the journal that are read in one go."""


class UnknownCarrier(Exception):
    """There is no link to this carrier."""


class AlreadyLinked(Exception):
    """There is a link to this carrier, or there are as many as there may be."""


class IsLockedOut(Exception):
    """The carrier is locked out, and without its link nobody would know."""


class NothingToApprove(Exception):
    """Nothing is held against this carrier."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A carrier as it is noted."""

    name: str
    host: str | None
    root: bytes
    set: str
    dropped: tuple[bytes, ...]


_NOTE: Final = Message(
    record(
        _Kept,
        {
            "name": text(60, 1),
            "host": optional(text(100, 1)),
            "root": raw(32),
            "set": text(MAX_TEXT),
            "dropped": listed(raw(32), MAX_DROPPED),
        },
    ),
    32 * 1024,
)
_BOOKS_NOTE: Final = Message(STATE, 64 * 2**20)  # all that may wait, and the lists


@dataclass(frozen=True, slots=True)
class Linked:
    """What is held of a carrier."""

    name: str
    """As its cloud calls itself."""
    host: str | None
    """Of its cloud; None: there is no link any more, and only what was dropped is remembered."""
    root: Root
    set: str
    """The newest key set, as it was signed."""
    published: KeySet
    """The same, read."""
    keys: tuple[TrustedKey, ...]
    """Its keys, and as revoked those that newer sets have dropped."""

    @property
    def dropped(self) -> tuple[TrustedKey, ...]:
        """The keys that newer sets have dropped."""
        return tuple(key for key in self.keys if key.status is KeyStatus.REVOKED)

    @property
    def note(self) -> str:
        """It, to be noted."""
        dropped = tuple(_raw(key) for key in self.dropped)
        return _NOTE.encode(_Kept(self.name, self.host, self.root.public, self.set, dropped)).decode()


class Carriers:
    """The desk that keeps them. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        notes: Mapping[str, str],
        *,
        clock: Callable[[], Now],
        policy: Callable[[], Iterable[Carrier]],
        changed: Callable[[], None],
    ) -> None:
        """Take what the journal has noted. ``policy`` returns the carriers that clients let in, or want to;
        ``changed`` is called when what holds has changed. Raises MalformedMessage if what is noted cannot be read.
        """
        self._journal = journal
        self._clock = clock
        self._policy = policy
        self._changed = changed
        self._turn = asyncio.Lock()
        """What is held changes from one state to the next, one at a time."""
        self._held = {
            Issuer(name.removeprefix(_CARRIER)): _read(name.removeprefix(_CARRIER), noted)
            for name, noted in notes.items()
            if name.startswith(_CARRIER)
        }
        self._books = {
            Issuer(name.removeprefix(_BOOKS)): _BOOKS_NOTE.decode(noted.encode())
            for name, noted in notes.items()
            if name.startswith(_BOOKS)
        }
        self._left = {
            Issuer(name.removeprefix(_LEFT)): _BOOKS_NOTE.decode(noted.encode())
            for name, noted in notes.items()
            if name.startswith(_LEFT)
        }
        """What was accepted of carriers without a link, while they had one, and was in no list."""
        if self.linked.keys() != self._books.keys():
            raise MalformedMessage("a linked carrier without its books")
        self.alarms: tuple[tuple[Issuer, Alarm], ...] = ()
        """What somebody has to know of carriers, as of the last look."""
        self._look_for_alarms()

    # ---- what holds ----

    @property
    def linked(self) -> Mapping[Issuer, Linked]:
        """The carriers that there is a link to."""
        return {who: held for who, held in self._held.items() if held.host is not None}

    def held(self, who: Issuer) -> Linked:
        """Return what is held of a carrier with a link; raise UnknownCarrier."""
        if (held := self._held.get(who)) is None or held.host is None:
            raise UnknownCarrier
        return held

    def applied(self, carriers: Iterable[Carrier]) -> tuple[Carrier, ...]:
        """Return the carriers of a policy as they hold: a linked one with the keys of its set, and with a lock-out.

        A key that the policy has and the set has not is revoked, since the policy may be older; one that the policy
        says is revoked stays so, since it may be newer. No set takes a key that is another carrier's.
        """
        carriers = tuple(carriers)
        taken = {key.kid for carrier in carriers if carrier.issuer not in self.linked for key in carrier.keys}
        applied: list[Carrier] = []
        for carrier in carriers:
            if (held := self._held.get(carrier.issuer)) is not None:
                keys = tuple(_keys(carrier, held, taken))
                taken |= {key.kid for key in keys}
                carrier = replace(carrier, keys=keys)
            if (books := self._books.get(carrier.issuer)) is not None and books.locked_out:
                carrier = replace(carrier, locked_out=True)
            applied.append(carrier)
        return tuple(applied)

    # ---- links ----

    async def link(self, who: Issuer, name: str, host: str, root: Root, published: str) -> None:
        """Hold a carrier that has enrolled the gateway.

        What was accepted of it while there was a link before, and is in no list, is still looked for: neither a removal
        nor another root ends that. Raises AlreadyLinked, KeySetInvalid or StoreFailed.
        """
        async with self._turn:
            if who in self.linked or len(self.linked) >= MOST:
                raise AlreadyLinked
            before = self._held.get(who)
            newest = before.published if before is not None and before.root == root else None
            new = keyset.read(published, root, newest, int(self._clock().wall), self._others(who))
            keys = keyset.replaced(before.keys if before is not None else (), new)
            upto, now = await self._journal.accepted_upto(), int(self._clock().wall)
            left = self._left.get(who)
            books = reconcile.begin(who, upto, now) if left is None else reconcile.resume(left, upto, now)
            held = Linked(name, host, root, published, new, keys)
            notes = {_CARRIER + who: held.note, **_noted(books), _LEFT + who: None}
            await self._record(EventName.CARRIER_LINKED, who, held, notes)
            self._held[who], self._books[who] = held, books
            self._left.pop(who, None)
            self._look_for_alarms()
        self._changed()

    async def unlink(self, who: Issuer) -> Linked:
        """Have no link to a carrier any more; return what was held. What its sets have dropped stays revoked.

        What was accepted and is in no list so far is kept for the next link.
        Raises UnknownCarrier, IsLockedOut or StoreFailed.
        """
        async with self._turn:
            held = replace(was := self.held(who), host=None)
            with suppress(Broken):  # then without what was not read yet: a damaged journal holds no link fast
                await self._keep_books(who, reconcile.look(await self._accepted(who), int(self._clock().wall)))
            if (books := self._books[who]).locked_out:
                raise IsLockedOut
            left = books if books.waiting or books.missing else None
            notes = {_CARRIER + who: held.note, _BOOKS + who: None, **(_noted(left, _LEFT) if left else {})}
            await self._record(EventName.CARRIER_UNLINKED, who, was, notes)
            self._held[who] = held
            del self._books[who]
            if left is not None:
                self._left[who] = left
            self._look_for_alarms()
        self._changed()
        return was

    # ---- keys ----

    async def take_keys(self, who: Issuer, root: bytes, published: str) -> None:
        """Take a key set that a carrier's cloud hands over. Raises UnknownCarrier, KeySetInvalid or StoreFailed."""
        async with self._turn:
            held = self.held(who)
            signer = held.root if root == held.root.public else keyset.succeed(held.published, root)
            new = keyset.read(published, signer, held.published, int(self._clock().wall), self._others(who))
            if new == held.published and signer == held.root:
                return
            held = replace(held, root=signer, set=published, published=new, keys=keyset.replaced(held.keys, new))
            await self._journal.note({_CARRIER + who: held.note})
            self._held[who] = held
        say(_LOGGER, logging.INFO, "carrier_keys", issuer=who, version=new.version, keys=len(new.trusted))
        self._changed()

    def _others(self, who: Issuer) -> frozenset[str]:
        """Return the keys of every other carrier, whichever way the gateway has heard of them."""
        of_policy = (key.kid for carrier in self._policy() if carrier.issuer != who for key in carrier.keys)
        of_sets = (key.kid for other, held in self._held.items() if other != who for key in held.keys)
        return frozenset((*of_policy, *of_sets))

    # ---- reconciliation ----

    async def take_issued(self, who: Issuer, part: str, controller: VerifierKey) -> None:
        """Take a part of a carrier's daily list. Raises UnknownCarrier, KeySetInvalid or StoreFailed."""
        async with self._turn:
            now = int(self._clock().wall)
            issued = keyset.read_issued(part, self.held(who).published, controller, now)
            await self._keep_books(who, reconcile.take_list(await self._accepted(who), issued, now))

    async def look(self, who: Issuer, *, asks: bool) -> tuple[date, ...]:
        """Look at what was accepted, and at what time has brought; return the days whose lists are to be asked for, if
        somebody ``asks``. Raises UnknownCarrier or StoreFailed.
        """
        async with self._turn:
            self.held(who)
            now = int(self._clock().wall)
            books, days = reconcile.look(await self._accepted(who), now), tuple[date, ...]()
            if asks:
                books, days = reconcile.questions(books, now)
            await self._keep_books(who, books)
            return days

    def upto(self, who: Issuer) -> int:
        """Return up to where in the journal a carrier's tokens are in the books. Raises UnknownCarrier."""
        self.held(who)
        return self._books[who].upto

    async def approve(self, who: Issuer) -> Linked:
        """Let a carrier in again that was locked out, or will be: somebody has looked.

        Raises UnknownCarrier, NothingToApprove or StoreFailed.
        """
        async with self._turn:
            held, before = self.held(who), self._books[who]
            if not (before.locked_out or before.missing):
                raise NothingToApprove
            books = reconcile.approve(before)
            await self._record(EventName.CARRIER_APPROVED, who, held, _noted(books))
            self._books[who] = books
            self._look_for_alarms()
        self._changed()
        return held

    async def _accepted(self, who: Issuer) -> State:
        """Return the books with all that the journal has accepted since."""
        books = self._books[who]
        while True:
            more = await self._journal.accepted(who, books.upto, _AT_ONCE)
            if more.upto == books.upto:
                return books
            tokens = ((spend.jti, spend.issued_at) for spend in more.spends)
            books = reconcile.accept(books, tokens, int(self._clock().wall), more.upto)

    async def _keep_books(self, who: Issuer, books: State) -> None:
        before = self._books[who]
        if books.locked_out and not before.locked_out:
            await self._record(EventName.CARRIER_LOCKED_OUT, who, self._held[who], _noted(books))
        elif books != before:
            await self._journal.note(_noted(books))
        self._books[who] = books
        if self._look_for_alarms() or books.locked_out != before.locked_out:
            self._changed()

    def _look_for_alarms(self) -> bool:
        """See what somebody has to know now; return whether that is something else than before."""
        now, before = int(self._clock().wall), self.alarms
        self.alarms = tuple((who, alarm) for who, books in self._books.items() for alarm in sorted(books.alarms(now)))
        for who, alarm in self.alarms:
            if (who, alarm) not in before:
                say(_LOGGER, logging.ERROR, f"carrier_{alarm}", issuer=who)
        return self.alarms != before

    async def _record(self, what: EventName, who: Issuer, held: Linked, notes: Notes) -> None:
        event = AccessEvent(outcome=what, door=None, at=self._clock().wall, issuer=who, carrier=held.name)
        await self._journal.append(event, {"client": None, "name": held.name, "issuer": who}, notes)


def _noted(books: State, where: str = _BOOKS) -> dict[str, str]:
    return {where + books.issuer: _BOOKS_NOTE.encode(books).decode()}


def _keys(carrier: Carrier, held: Linked, taken: Container[str]) -> Iterator[TrustedKey]:
    """Yield the keys of a carrier of a policy, of which something is held; those that are ``taken`` are another's."""
    if held.host is None:
        dropped = {key.kid for key in held.dropped}
        yield from (_revoked(key) if key.kid in dropped else key for key in carrier.keys)
        return
    revoked = {key.kid for key in carrier.keys if key.status is KeyStatus.REVOKED}
    of_set = {key.kid for key in held.keys}
    yield from (_revoked(key) if key.kid in revoked else key for key in held.keys if key.kid not in taken)
    yield from (_revoked(key) for key in carrier.keys if key.kid not in of_set and key.kid not in taken)


def _revoked(key: TrustedKey) -> TrustedKey:
    return replace(key, status=KeyStatus.REVOKED)


def _raw(key: TrustedKey) -> bytes:
    assert isinstance(key.public, Ed25519PublicKey)  # a set holds no others
    return key.public.public_bytes_raw()


def _read(name: str, noted: str) -> Linked:
    """Return what was noted of a carrier; raise MalformedMessage."""
    kept = _NOTE.decode(noted.encode())
    try:
        who = issuer(name)
        root = Root(who, kept.root)
        published = keyset.kept(kept.set, root)
        dropped = tuple(_dropped(public, who) for public in kept.dropped)
    except (ValueError, KeySetInvalid) as err:
        raise MalformedMessage(f"a key set that is not as it was signed: {err}") from err
    keys = keyset.replaced(dropped, published)
    return Linked(kept.name, kept.host, root, kept.set, published, keys)


def _dropped(public: bytes, who: Issuer) -> TrustedKey:
    key = Ed25519PublicKey.from_public_bytes(public)
    return TrustedKey(jws.key_id(public), who, Alg.EDDSA, key, KeyStatus.REVOKED)
