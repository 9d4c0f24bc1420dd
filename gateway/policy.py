"""The policy in force, and the one that waits (protocol C).

Set by compare-and-swap: whoever sets it has to know which one it replaces. What of a new policy allows less holds at
once, before it is on the disk; what allows more holds when it is, and after the gateway's button or a day. What this
file refuses to do: let a restart, a failed disk or a clock that was set allow more than was allowed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vestibule_core.api import policy as policies
from vestibule_core.api.messages import Client, PendingPolicy, PolicyRequest, PolicyTaken, PolicyView
from vestibule_core.api.policy import EMPTY, POLICY, Policy, meet, widened
from vestibule_core.errors import MalformedMessage, StoreFailed
from vestibule_core.journal import Journal
from vestibule_core.leaf import Person
from vestibule_core.model import AccessEvent, Door, EventName, Now
from vestibule_core.policy import Building, Carrier
from vestibule_core.strict import Message, integer, record
from vestibule_core.writer import Notes

from .clients import Clients
from .limits import Changes
from .wait import LOOK_EVERY, NOTED_EVERY, Wait

_POLICY: Final = "policy"
_PENDING: Final = "policy:pending"
_WAITED: Final = "policy:waited"
"""Names of notes in the journal."""
_REASONS: Final = 8
_REASON: Final = 48
"""How many reasons an entry of the journal names, and how many characters of the beginning and of the end of each. A
carrier's name may be long, and an entry may not."""


class PolicyTooLarge(Exception):
    """What would hold has more rows than can be kept."""


class Conflict(Exception):
    """The policy is another version than was thought."""

    def __init__(self, version: int) -> None:
        """``version`` is the one that there is."""
        super().__init__(f"the policy is version {version}")
        self.version = version


@dataclass(frozen=True, slots=True)
class _Kept:
    """The policy in force as it is noted."""

    version: int
    policy: Policy


_NOTE: Final = Message(record(_Kept, {"version": integer(), "policy": POLICY}), 16 * policies.MAX_POLICY)


@dataclass(frozen=True, slots=True)
class Pending:
    """A policy that waits."""

    policy: Policy
    why: tuple[str, ...]
    """What of it is more than before, for people."""
    wait: Wait


class PolicyDesk:
    """Keeps the policy. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        notes: Mapping[str, str],
        *,
        clock: Callable[[], Now],
        is_trusted: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        """Take what the journal has noted. ``changed`` is called after each change of what holds or waits.

        ``is_trusted``: what allows more does not wait. Raises MalformedMessage if what is noted cannot be read.
        """
        self._journal = journal
        self._clock = clock
        self._is_trusted = is_trusted
        self._changed = changed
        self._changes = Changes()
        self._looking = asyncio.Lock()
        """What waits is looked after by one at a time."""
        self._noted = 0.0
        """When it was noted last how long the policy has waited."""
        kept = _NOTE.decode(notes[_POLICY].encode()) if _POLICY in notes else _Kept(0, EMPTY)
        self.version, self.effective = kept.version, kept.policy
        self.pending: Pending | None = None
        if _PENDING in notes:
            waited = notes.get(_WAITED, "0")
            if not (waited.isascii() and waited.isdecimal()):
                raise MalformedMessage("how long the policy has waited cannot be read")
            wanted = policies.parse(notes[_PENDING])
            self.pending = Pending(wanted, widened(self.effective, wanted), Wait(float(waited), clock().boot))
        self._asked: Policy | None = self.pending.policy if self.pending is not None else self.effective
        """What was asked for last and is on the disk; None while something else is being written."""

    def building(
        self, doors: Iterable[Door], applied: Callable[[Iterable[Carrier]], Iterable[Carrier]] = tuple
    ) -> Building:
        """Return what decisions depend on: these doors under the policy in force, its carriers as ``applied``."""
        return Building.of(doors, applied(self.effective.carriers), zone=self.effective.tz)

    @property
    def carriers(self) -> Iterable[Carrier]:
        """The carriers of the policy in force, and of the one that waits."""
        waiting = () if self.pending is None else self.pending.policy.carriers
        return (*self.effective.carriers, *waiting)

    @property
    def view(self) -> PolicyView:
        """What clients see."""
        waiting = None
        if (pending := self.pending) is not None:
            waiting = PendingPolicy(pending.policy, pending.wait.left(self._clock().boot), pending.why)
        return PolicyView(self.version, self.effective, waiting, self._is_trusted())

    async def put(self, request: PolicyRequest, by: Client) -> PolicyTaken:
        """Set the policy. The one that is set already changes nothing, and stays the version that it is.

        Raises Conflict, TooManyChanges or PolicyTooLarge (nothing has changed), or StoreFailed: then what it allows
        less holds all the same, until a restart.
        """
        if request.base != self.version or request.version != request.base + 1:
            raise Conflict(self.version)
        wanted, before, now = request.policy, self.effective, self._clock()
        if wanted == self._asked and (self.pending is None or not self._is_trusted()):
            return self._taken(now)
        self._changes.take(by.id, now.boot)
        held = meet(before, wanted)
        waits = bool(why := widened(before, wanted)) and not self._is_trusted()
        final = held if waits else wanted
        note = _NOTE.encode(_Kept(request.version, final))
        later = _NOTE.encode(_Kept(request.version, wanted))  # what waits has to fit as well, the day when it holds
        if max(len(note), len(later)) > _NOTE.most:
            raise PolicyTooLarge
        self.version, self.effective, self.pending, self._asked = request.version, held, None, None
        self._changed()
        pending = Pending(wanted, why, Wait(0.0, now.boot)) if waits else None
        facts = {
            "client": by.id,
            "name": by.name,
            "version": request.version,
            "more": [_short(reason) for reason in why[:_REASONS]],
        }
        try:
            await self._record(
                EventName.POLICY_PENDING if waits else EventName.POLICY_CHANGED,
                facts,
                {
                    _POLICY: note.decode(),
                    _PENDING: policies.encode(wanted) if waits else None,
                    _WAITED: None,
                },
            )
        except Exception:  # whatever it is: the disk has the version of before
            if self.version == request.version:
                self.version = request.base
                self._changed()
            raise
        if self.version == request.version:  # else it was replaced meanwhile
            self.effective, self.pending, self._asked = final, pending, wanted
            self._changed()
        return PolicyTaken(request.version, waits, pending.wait.left(now.boot) if pending else None)

    def _taken(self, now: Now) -> PolicyTaken:
        pending = self.pending
        return PolicyTaken(self.version, pending is not None, pending.wait.left(now.boot) if pending else None)

    async def approve(self, how: str = "button") -> int:
        """Let what waits hold now: somebody stands at the gateway. Returns how much did. Raises StoreFailed."""
        async with self._looking:
            return 0 if (pending := self.pending) is None else int(await self._let(pending, how))

    async def drop(self, how: str) -> None:
        """Forget what waits, at once: nobody who is still there has asked for it. Raises StoreFailed."""
        if self.pending is None:
            return
        self.pending, self._asked = None, None
        self._changed()
        facts = {"client": None, "name": how, "version": self.version}
        await self._record(EventName.POLICY_CHANGED, facts, {_PENDING: None, _WAITED: None})

    async def look(self) -> None:
        """Let what has waited for long enough hold, or note how long it has. Raises StoreFailed."""
        async with self._looking:
            if (pending := self.pending) is None:
                return
            now = self._clock().boot
            if not pending.wait.left(now):
                await self._let(pending, "time")
            elif now - max(pending.wait.since, self._noted) >= NOTED_EVERY:
                self._noted = now
                await self._journal.note({_WAITED: str(int(pending.wait.so_far(now)))})

    async def _let(self, pending: Pending, how: str) -> bool:
        note = _NOTE.encode(_Kept(self.version, pending.policy)).decode()
        facts = {"client": None, "name": how, "version": self.version}
        await self._record(EventName.POLICY_CHANGED, facts, {_POLICY: note, _PENDING: None, _WAITED: None})
        if is_so := self.pending is pending:
            self.effective, self.pending = pending.policy, None
            self._changed()
        return is_so

    async def _record(self, what: EventName, person: Person, notes: Notes) -> None:
        event: AccessEvent = AccessEvent(outcome=what, door=None, at=self._clock().wall)
        await self._journal.append(event, person, notes)


def _short(reason: str) -> str:
    """Return a reason as an entry has it: of one that is too long, the carrier's name is cut."""
    return reason if len(reason) <= 2 * _REASON else f"{reason[:_REASON]}…{reason[-_REASON:]}"


async def approve(policy: PolicyDesk, clients: Clients, how: str = "button") -> int:
    """Let all that waits hold now, for somebody who stands at the gateway; return how much did.

    Raises StoreFailed.
    """
    return await policy.approve(how) + await clients.approve(how)


async def after_pairing(policy: PolicyDesk, clients: Clients, *, replaced: bool, trusted: bool) -> None:
    """See to what waits when somebody was paired. What only those have asked for who were replaced is forgotten, so
    that a thief's wish does not outlive him; otherwise trust lets it hold. Raises StoreFailed.
    """
    if replaced:
        await policy.drop("replaced")
    elif trusted:
        await approve(policy, clients, "trust")


async def keep_looking(*desks: Any) -> None:
    """Let what has waited for long enough hold, until cancelled. If the journal has failed, everything waits on."""
    while True:
        for desk in desks:
            try:
                await desk.look()
            except StoreFailed:  # said where it failed
                continue
        await asyncio.sleep(LOOK_EVERY)
