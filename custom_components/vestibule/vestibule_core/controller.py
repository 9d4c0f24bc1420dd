"""The controller: the one spender of record of its doors.

A token's path: ``present`` judges it (token.py, policy.py); the door's task (door_task.py) waits for its turn, reaches
the strike, has the token spent here (journal.py) and tells the strike. Nothing is released at start, and no release is
tried twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from . import challenge, policy, token
from .door import DoorState
from .door_task import Access, DoorTask
from .errors import Refused, StoreFailed
from .journal import RECENT, Journal, Person, Spend, SpentState
from .keys import KeyStatus
from .model import (
    AccessEvent,
    Actor,
    Code,
    Decision,
    DoorId,
    EventName,
    Issuer,
    Means,
    Now,
    Principal,
    read_clock,
)
from .policy import Building
from .strike import Strike
from .token import SignedRefusal, UnlockToken

_LOGGER = logging.getLogger(__name__)

CLOCK_STEP: Final = 5.0
"""Seconds by which wall and boot time may part before all challenges are void (a resumed snapshot, protocol A.1)."""
REFUSALS_AN_HOUR: Final = 60
"""Refusals of one issuer at one door that are recorded within an hour; more are counted (A.2)."""
RECENT_TEXTS: Final = 1000
"""Spent texts in memory (A.2 step 1b), 700 bytes each. An older one is refused after its signature was checked."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A live challenge of a door; ``ttl`` in seconds."""

    door: DoorId
    nonce: str
    ttl: int


class Controller:
    """All doors of one building that this program is the spender of record of. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        tell: Callable[[AccessEvent], None],
        clock: Callable[[], Now] = read_clock,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take an opened journal. ``tell`` gets every event once, in order."""
        self._journal = journal
        self._host_tell = tell
        self._clock = clock
        self._random = random
        self._building = Building.of((), ())
        self._doors: dict[DoorId, DoorTask] = {}
        self._challenge_secret = random(32)
        self._clock_gap: float | None = None
        self._spent_keys: dict[tuple[Issuer, str], None] = {}
        self._spent_texts: dict[str, None] = {}
        self._removed: dict[DoorId, DoorTask] = {}
        """Doors of before, which may have a strike to put back."""
        self._left_open: dict[DoorId, bytes] = {}
        self._refusals: dict[tuple[Issuer | None, DoorId | None], tuple[float, int]] = {}
        self._stopping: asyncio.Task[None] | None = None
        self.stopped = False
        """Whether requests are refused for good."""
        self._background: set[asyncio.Task[None]] = set()
        self.counters: Counter[Code] = Counter()
        """Refusals that leave no other trace: what a stranger could cause in any number (A.2)."""

    # ---- life ----

    def start(self, building: Building, strikes: Mapping[DoorId, Strike]) -> None:
        """Begin to take requests.

        Releases nothing. Spends without an outcome are recorded as unknown; a release that this controller had to end
        before it died is ended now (protocol D).
        """
        self._spent_keys.update(dict.fromkeys(self._journal.recent_spends()))
        unsettled = self._journal.unsettled()
        self._left_open = self._journal.releases_left_open()
        self._journal.start(self._tell)
        self.apply(building, strikes)
        now = self._clock()
        for spend in unsettled:
            carrier = building.carriers.get(spend.issuer)
            event = AccessEvent(
                outcome=EventName.OUTCOME_UNKNOWN,
                code=Code.OUTCOME_UNKNOWN,
                door=spend.door,
                means=Means.TOKEN,
                at=now.wall,
                spend_id=token.spend_id(spend.issuer, spend.jti),
                issuer=spend.issuer,
                carrier=carrier.name if carrier else None,
                has_stop=True,
            )
            self._record(event, settles=(spend, SpentState.UNKNOWN))

    def apply(self, building: Building, strikes: Mapping[DoorId, Strike]) -> None:
        """Make a changed building the current one, at once; challenges and running releases go on.

        ``strikes`` has one for each door. A door whose strike is the same object keeps it.
        """
        if self.stopped:
            return
        self._building = building
        for gone in self._doors.keys() - building.doors.keys():
            self._removed[gone] = self._doors.pop(gone)
            self._later(self._removed[gone].stop(hurry=False))
        for ours in building.doors.values():
            if (task := self._doors.get(ours.id)) is None:
                left_open, before = self._left_open.pop(ours.id, None), self._removed.pop(ours.id, None)
                after = None
                if before is not None:  # removed and added again: the new task goes on where the old one ends
                    left_open = before.release_noted
                    after = asyncio.get_running_loop().create_task(before.stop(hurry=True))
                self._doors[ours.id] = DoorTask(self, ours, strikes[ours.id], left_open=left_open, after=after)
            else:
                task.change(ours, strikes[ours.id])

    async def stop(self) -> None:
        """Take no more requests, end the releases that we time, and write what waits. Leaves the journal open.

        May be repeated; cancelling a caller does not stop the stopping.
        """
        if self._stopping is None:
            self.stopped = True
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        tasks = [*self._doors.values(), *self._removed.values()]
        self._doors = {}
        await asyncio.gather(*(task.stop(hurry=True) for task in tasks))
        await self.recorded()

    async def recorded(self) -> None:
        """Return when all that has happened is in the journal, or cannot be."""
        while self._background:
            done, _ = await asyncio.wait(self._background)
            self._background -= done  # now: what is done calls back later, and this loop would not let it

    # ---- what hosts ask ----

    @property
    def building(self) -> Building:
        """What decisions depend on at the moment."""
        return self._building

    def state(self, door: DoorId) -> DoorState:
        """Return what is known of a door; raise KeyError if it is not ours."""
        return self._doors[door].state

    def subscribe(self, door: DoorId, listener: Callable[[DoorState], None]) -> Callable[[], None]:
        """Call ``listener`` with each new state of a door, until the returned function is called."""
        listeners = self._doors[door].listeners
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def challenge(self, door: DoorId, issuer: Issuer) -> Challenge:
        """Return a fresh challenge of ``door`` for the carrier ``issuer``; the caller has been authenticated.

        Raises Refused (STOPPING, WRONG_DOOR, WRONG_ISSUER, POLICY_CARRIER_DOOR).
        """
        if self.stopped:
            raise Refused(Code.STOPPING)
        if door not in self._doors:
            raise Refused(Code.WRONG_DOOR)
        if (carrier := self._building.carriers.get(issuer)) is None:
            raise Refused(Code.WRONG_ISSUER)
        if door not in carrier.doors:
            raise Refused(Code.POLICY_CARRIER_DOOR)
        now = self._clock()
        self._notice_clock_step(now)
        nonce = challenge.make(self._challenge_secret, door, issuer, now.boot, self._random(4))
        return Challenge(door, nonce, challenge.LIFETIME)

    async def present(self, text: object, principal: Principal, origin: object = None) -> Decision:
        """Judge a token and, if it stands, open its door once. Returns when the strike has answered.

        A caller may go away in the middle: the unlock goes on in its door's task.
        """
        now = self._clock()
        try:
            unlock = token.verify(text, self._building.keys, principal.issuer, self._spent_texts)
        except SignedRefusal as refusal:
            if refusal.token is not None:
                return self.deny(
                    self._access(refusal.token, now, origin), Decision(refusal.code, refusal.token.claims.door)
                )
            # Genuine, but its claims cannot be read: a fault of the carrier's, with no door and no driver to name.
            carrier = self._building.carriers[refusal.key.issuer]
            event = AccessEvent(
                outcome=EventName.ACCESS_DENIED,
                code=refusal.code,
                door=None,
                means=Means.TOKEN,
                at=now.wall,
                spend_id=self._random(16),
                kid=refusal.key.kid,
                issuer=carrier.issuer,
                carrier=carrier.name,
                origin=origin,
            )
            self._record_refusal(event, None)
            return Decision(refusal.code)
        except Refused as refusal:
            self.counters[refusal.code] += 1
            return Decision(refusal.code)
        self._notice_clock_step(now)
        access = self._access(unlock, now, origin)
        if refused := policy.judge(unlock, self._building, self._spent_keys, self._challenge_secret, now.boot):
            return self.deny(access, refused)
        return await self._wait_at_door(unlock.claims.door, access)

    async def open_by_hand(self, door: DoorId, actor: Actor, origin: object = None) -> Decision:
        """Open a door for a person in Home Assistant or an automation; recorded with who it was.

        If the journal has failed, an administrator is let in all the same, unrecorded (protocol D).
        """
        now = self._clock()
        if door not in self._building.doors:
            return Decision(Code.WRONG_DOOR, door)
        event = AccessEvent(
            outcome=EventName.ACCESS_GRANTED,
            code=Code.GRANTED,
            door=door,
            means=Means.MANUAL,
            at=now.wall,
            spend_id=self._random(16),
            origin=origin,
        )
        person = {"user_id": actor.user_id, "user": actor.name}
        return await self._wait_at_door(door, Access(event, actor.name, now, person, may_go_unrecorded=actor.is_admin))

    def _access(self, unlock: UnlockToken, now: Now, origin: object) -> Access:
        claims = unlock.claims
        carrier = self._building.carriers[unlock.key.issuer]
        event = AccessEvent(
            outcome=EventName.ACCESS_GRANTED,
            code=Code.GRANTED,
            door=claims.door,
            means=Means.TOKEN,
            at=now.wall,
            spend_id=token.spend_id(claims.issuer, claims.jti),
            kid=unlock.key.kid,
            issuer=carrier.issuer,
            carrier=carrier.name,
            has_stop=True,
            origin=origin,
        )
        return Access(event, carrier.name, now, _person(unlock), unlock)

    async def _wait_at_door(self, door: DoorId, access: Access) -> Decision:
        if self.stopped:
            return self.deny(access, Decision(Code.STOPPING, door))
        if not self._doors[door].take(access):
            self.counters[Code.RATE_LIMITED] += 1
            return Decision(Code.RATE_LIMITED, door)
        return await access.answer

    # ---- what the doors' tasks ask (door_task.Office) ----

    def now(self) -> Now:
        """Read the clock."""
        return self._clock()

    def objection(self, access: Access, *, spent: bool = False) -> Code | None:
        """Return why a wish cannot be granted any more (A.2 steps 11 and 12); ``spent``: its token is, by itself.

        Any thread.
        """
        now, building = self._clock(), self._building  # once: it may be replaced while the writer looks
        if self.stopped:
            return Code.STOPPING
        if access.is_late(now):
            return Code.LATE
        if access.event.door not in building.doors:
            return Code.WRONG_DOOR
        if access.token is None:
            return None
        key = building.keys.get(access.token.key.kid)
        if key is None or key.issuer != access.token.claims.issuer or key.status is KeyStatus.REVOKED:
            return Code.KEY_REVOKED
        spent_keys = () if spent else self._spent_keys
        refused = policy.judge(access.token, building, spent_keys, self._challenge_secret, now.boot)
        return refused.code if refused else None

    def deny(self, access: Access, refusal: Decision) -> Decision:
        """Record a refusal and return it."""
        if refusal.code is Code.ALREADY_SPENT and access.token is not None:
            if access.token.text in self._spent_texts:  # the very text that was spent while this one waited: A.2, 1b
                self.counters[refusal.code] += 1
                return refusal
            _remember(self._spent_texts, access.token.text, RECENT_TEXTS)
        self._record_refusal(replace(access.event, outcome=EventName.ACCESS_DENIED, code=refusal.code), access.person)
        return refusal

    async def make_durable(self, access: Access, *, ends_by_us: bool) -> None:
        """Spend the token and record the grant: the one sync of an unlock. Raises Refused or StoreFailed."""
        if access.token is None:
            await self._journal.append(
                access.event, access.person, ends_by_us=access.event.door if ends_by_us else None
            )
            return
        await self._journal.spend(
            _spend(access.token),
            access.event,
            access.person,
            check_again=lambda: self.objection(access),
            ends_by_us=ends_by_us,
        )
        _remember(self._spent_keys, access.token.spend_key, RECENT)
        _remember(self._spent_texts, access.token.text, RECENT_TEXTS)

    def came_of(self, access: Access, outcome: EventName, code: Code) -> None:
        """Record what came of a grant; nothing waits for it."""
        event = replace(access.event, outcome=outcome, code=code, at=self._clock().wall)
        if access.token is None:
            self._record(event)
        else:
            self._record(event, settles=(_spend(access.token), _SETTLED_AS[outcome]))

    async def note_ended(self, door: DoorId, spend_id: bytes) -> None:
        """Note that a release which is ours to end is over."""
        try:
            await self._journal.release_ended(door, spend_id)
        except StoreFailed:
            _LOGGER.warning("The end of a release could not be noted; it will be ended again at the next start")

    def tell_unrecorded(self, access: Access) -> None:
        """Tell of a grant that the journal could not take."""
        self._tell(access.event)

    def _notice_clock_step(self, now: Now) -> None:
        gap = now.wall - now.boot
        if self._clock_gap is not None and abs(gap - self._clock_gap) > CLOCK_STEP:
            self._challenge_secret = self._random(32)
        self._clock_gap = gap

    # ---- telling ----

    def _record_refusal(self, event: AccessEvent, person: Person | None) -> None:
        """Record a refusal, unless there were too many: a genuine text that is refused can be presented for ever."""
        key = event.issuer, event.door if event.door in self._building.doors else None
        now = self._clock().boot
        began, count = self._refusals.get(key, (now, 0))
        if now - began >= 3600:
            began, count = now, 0
        self._refusals[key] = began, count + 1
        if count < REFUSALS_AN_HOUR:
            self._record(event, person)
        else:
            self.counters[event.code] += 1

    def _record(
        self, event: AccessEvent, person: Person | None = None, settles: tuple[Spend, SpentState] | None = None
    ) -> None:
        """Write an event that nothing waits for; if the journal has failed, at least tell of it."""
        # Takes its place in the journal's order here, before the door goes on to the next in the queue.
        written = self._journal.settle(*settles, event) if settles else self._journal.append(event, person)

        async def see() -> None:
            try:
                await written
            except StoreFailed:
                self._tell(event)

        self._later(see())

    def _tell(self, event: AccessEvent) -> None:
        try:
            self._host_tell(event)
        except Exception:
            _LOGGER.exception("The host failed to take event %s", event.sequence)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_SETTLED_AS: Final = {
    EventName.DOOR_RELEASED: SpentState.GRANTED,
    EventName.RELEASE_FAILED: SpentState.FAILED,
    EventName.OUTCOME_UNKNOWN: SpentState.UNKNOWN,
}


def _spend(unlock: UnlockToken) -> Spend:
    claims = unlock.claims
    return Spend(claims.issuer, claims.jti, claims.door, claims.nonce)


def _person(unlock: UnlockToken) -> Person:
    claims = unlock.claims
    return {
        "jti": claims.jti,
        "sub": claims.subject,
        "stp": claims.stop,
        "rte": claims.confirmations.route,
        "evd": claims.evidence,
        "token": unlock.text,
    }


def _remember[K](memory: dict[K, None], item: K, most: int) -> None:
    memory[item] = None
    if len(memory) > most:
        del memory[next(iter(memory))]
