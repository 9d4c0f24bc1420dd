"""The controller: the one spender of record of its doors.

A token's path: ``present`` judges it (token.py, policy.py); the door's task (door_task.py) waits for its turn, reaches
the strike, has the token spent here (journal.py) and tells the strike. What is done by hand comes in by ``by_hand``
(by_hand.py). Nothing is released at start, and no release is tried twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from . import challenge, policy, token
from .bucket import Buckets
from .by_hand import ByHand
from .door import DoorState, Opener, PersonForgotten, Sensed
from .door_task import Access, DoorTask, always
from .errors import Refused, StoreFailed
from .history import RECENT, History
from .journal import COPIED, Journal, Spend, SpentState
from .leaf import Person
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
    Sense,
    Sensor,
    read_clock,
)
from .policy import Building
from .strike import Strike
from .telling import Telling
from .token import SignedRefusal, UnlockToken
from .writer import Notes, noted_release

_LOGGER = logging.getLogger(__name__)

CLOCK_STEP: Final = 5.0
"""Seconds by which wall and boot time may part before all challenges are void (a resumed snapshot, protocol A.1)."""

OPENINGS_AN_HOUR: Final = 1200
"""Openings and closings of one door, outside of any access, that are recorded within an hour."""

_BY_CONTACT: Final = frozenset({EventName.DOOR_OPENED, EventName.DOOR_CLOSED})


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
        self._telling = Telling(journal, tell, clock)
        self._clock = clock
        self._random = random
        self._building = Building.of((), ())
        self._doors: dict[DoorId, DoorTask] = {}
        self._history = History()
        self._challenge_secret = random(32)
        self._clock_gap: float | None = None
        self._removed: dict[DoorId, DoorTask] = {}
        """Doors of before, which may have a strike to put back."""
        self._chatter: Buckets[DoorId] = Buckets(per_second=OPENINGS_AN_HOUR / 3600, burst=OPENINGS_AN_HOUR, most=1000)
        self._stopping: asyncio.Task[None] | None = None
        self.stopped = False
        """Whether requests are refused for good."""
        self.by_hand = ByHand(self, journal, self._telling, random)
        """What people and automations do."""

    # ---- life ----

    def start(self, building: Building, strikes: Mapping[DoorId, Strike]) -> None:
        """Begin to take requests.

        Releases nothing. Spends without an outcome are recorded as unknown; a release that this controller had to end
        before it died is ended now (protocol D).
        """
        now = self._clock()
        for accepted in self._journal.recent_spends(RECENT):
            # A machine without a battery starts in 1970: what lies before the newest entry is no newer for that.
            spend, ago = accepted.spend, max(0.0, max(now.wall, self._journal.newest) - accepted.at)
            self._history.remember((spend.issuer, spend.jti))
            self._history.count(spend.issuer, spend.door, now.boot - ago)
        unsettled, is_copy, newest = self._journal.unsettled(), self._journal.is_copy, self._journal.newest
        self.by_hand.remember(self._journal.notes())
        self._journal.start(self._telling.tell)
        self.by_hand.record_new_key()
        if is_copy:
            restored = AccessEvent(outcome=EventName.JOURNAL_RESTORED, door=None, at=now.wall)
            self._telling.record(restored, notes={COPIED: None, **self.by_hand.found_restored(newest)})
        self.apply(building, strikes)
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
            self._telling.record(event, settles=(spend, SpentState.UNKNOWN))

    def apply(self, building: Building, strikes: Mapping[DoorId, Strike]) -> None:
        """Make a changed building the current one, at once; challenges and running releases go on.

        ``strikes`` has one for each door. A door whose strike is the same object keeps it.
        """
        if self.stopped:
            return
        self._building = building
        for gone in self._doors.keys() - building.doors.keys():
            self._removed[gone] = task = self._doors.pop(gone)
            self._telling.later(self._forget(gone, task, task.stop(hurry=False)))
        for ours in building.doors.values():
            if (known := self._doors.get(ours.id)) is None:
                self._doors[ours.id] = DoorTask(
                    self,
                    ours,
                    strikes[ours.id],
                    state=self.by_hand.first_state(ours.id),
                    left_open=self.by_hand.left_open(ours.id),
                    before=self._removed.pop(ours.id, None),
                )
            else:
                known.change(ours, strikes[ours.id])

    async def _forget(self, door: DoorId, task: DoorTask, ended: Coroutine[Any, Any, None]) -> None:
        """Forget the task of a removed door once it has ended: nobody asks for it any more."""
        await ended
        if self._removed.get(door) is task:
            del self._removed[door]

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
        await self._telling.end()

    async def recorded(self) -> None:
        """Return when all that has happened is in the journal, or cannot be."""
        await self._telling.recorded()

    # ---- what hosts ask ----

    @property
    def building(self) -> Building:
        """What decisions depend on at the moment."""
        return self._building

    @property
    def counters(self) -> Counter[Code]:
        """Refusals that left no entry of their own: what a stranger could cause in any number (A.2)."""
        return self._telling.counters

    @property
    def clock_is_trusted(self) -> bool:
        """Whether the clock is not earlier than it was; if it is, doors with hours let no token in (A.2)."""
        return self._clock().wall >= self._journal.newest - policy.CLOCK_BACK

    @property
    def tasks(self) -> Mapping[DoorId, DoorTask]:
        """The doors at work."""
        return self._doors

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

    async def present(
        self,
        text: object,
        principal: Principal,
        origin: object = None,
        *,
        at: DoorId | None = None,
        is_wanted: Callable[[], bool] = always,
    ) -> Decision:
        """Judge a token and, if it stands, open its door once. Returns when the strike has answered.

        ``at`` is the door that it is presented at; None: whichever it is for. A caller may go away in the middle: the
        unlock goes on in its door's task, but is LATE if ``is_wanted`` (any thread) says so before the token is spent.
        """
        now = self._clock()
        try:
            unlock = token.verify(text, self._building.keys, principal.issuer, self._history.texts)
        except SignedRefusal as refusal:
            if refusal.token is not None:
                return self.deny(
                    self._access(refusal.token, now, origin, is_wanted),
                    Decision(refusal.code, refusal.token.claims.door),
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
            self._telling.record_refusal(event, None, None, now.boot)
            return Decision(refusal.code)
        except Refused as refusal:
            self._telling.count(refusal.code)
            return Decision(refusal.code)
        self._notice_clock_step(now)
        access = self._access(unlock, now, origin, is_wanted)
        if self.stopped:
            return self.deny(access, Decision(Code.STOPPING, unlock.claims.door))
        if at is not None and unlock.claims.door != at:
            return self.deny(access, Decision(Code.WRONG_DOOR, unlock.claims.door))
        if refused := self._judge(unlock, now):
            return self.deny(access, refused)
        if self.by_hand.disputed:
            return self.deny(access, Decision(Code.JOURNAL_DISPUTED, unlock.claims.door))
        return await self.wait_at_door(unlock.claims.door, access)

    def _judge(self, unlock: UnlockToken, now: Now, *, is_spent: bool = False) -> Decision | None:
        task = self._doors.get(unlock.claims.door)
        return policy.judge(
            unlock,
            self._building,
            task.state if task else None,
            self._history,
            self._journal.newest,
            self._challenge_secret,
            now,
            is_spent=is_spent,
        )

    def sense(self, door: DoorId, sensor: Sensor, sense: Sense, at: float | None = None) -> None:
        """Take what a sensor of a door says, since ``at`` if that is known (wall clock); nothing if it is not ours."""
        if (task := self._doors.get(door)) is not None:
            task.post(Sensed(sensor, sense, at))

    def remembered(
        self,
        door: DoorId,
        what: EventName,
        at: float | None,
        notes: Notes,
        *,
        slot: int | None = None,
        count: int | None = None,
    ) -> None:
        """Record what a strike tells of, with its own time (wall clock; None: not known, so now).

        It changes nothing about the door: that is as it is now. But it comes after what a sensor said before. ``notes``
        are committed along with it; what it says of a ``slot`` or a ``count`` as well.
        """
        if (task := self._doors.get(door)) is not None:
            event = AccessEvent(outcome=what, door=door, at=at or self._clock().wall, slot=slot, count=count)
            besides = {name: number for name, number in (("slot", slot), ("count", count)) if number is not None}
            task.tell(partial(self._telling.record, event, besides or None, notes=notes))

    def note(self, door: DoorId, notes: Notes) -> None:
        """Note what has to be known after a restart, after what the door's sensors and its strike have said before."""
        if (task := self._doors.get(door)) is not None:
            task.tell(partial(self._telling.note, notes))
        else:
            self._telling.note(notes)

    async def delete_person(self, sequence: int, actor: Actor, origin: object = None) -> int:
        """Delete the person that entry ``sequence`` is about from every entry of the journal, and from what is
        remembered besides; return from how many entries (0: it is about nobody). That it was done is recorded.

        When it returns, nothing of that person is left in a door's state, nor in the journal's files, or (if a backup
        was begun meanwhile) there will not be when the backup ends. A caller may go away. Raises BackupRunning
        (nothing was deleted), Refused, or StoreFailed or Broken: what was begun then is carried to its end when the
        journal is next taken care of, or opened, or if it is asked for again.
        """
        if not actor.is_trusted:
            raise Refused(Code.MANUAL_NOT_ALLOWED)
        deleting = asyncio.get_running_loop().create_task(self._delete_person(sequence, actor, origin))
        return await asyncio.shield(deleting)

    async def _delete_person(self, sequence: int, actor: Actor, origin: object) -> int:
        self._journal.check_not_copied()
        if (subject := await self._journal.subject(sequence)) is None:
            return 0
        if (user_id := subject.user_id) is not None:  # of a driver, nothing but the journal ever knew the name
            self._telling.forget(user_id)
            self.by_hand.forget(user_id)
            await asyncio.gather(*(task.post(PersonForgotten(user_id)) for task in self._doors.values()))
        # Who deletes himself is not written down anew by that.
        named = user_id is None or user_id != actor.user_id
        record = self.by_hand.record_of(EventName.PERSON_DELETED, actor, origin, named=named)
        return await self._journal.delete(sequence, record)

    # ---- tokens ----

    def _access(self, unlock: UnlockToken, now: Now, origin: object, is_wanted: Callable[[], bool]) -> Access:
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
            checks=claims.checks,
            origin=origin,
        )
        return Access(event, Opener(carrier.name), now, _person(unlock), unlock, is_wanted=is_wanted)

    async def wait_at_door(self, door: DoorId, access: Access) -> Decision:
        """Wait for the door's turn; return what came of it."""
        if self.stopped:
            return self.deny(access, Decision(Code.STOPPING, door))
        if (task := self._doors.get(door)) is None:  # taken away while a PIN was looked at
            return self.deny(access, Decision(Code.WRONG_DOOR, door))
        if not task.take(access):
            self._telling.count(Code.RATE_LIMITED)
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
        if access.is_late(now) or not (spent or access.is_wanted()):
            return Code.LATE
        task = self._doors.get(access.event.door) if access.event.door is not None else None
        if task is None or access.event.door not in building.doors:
            return Code.WRONG_DOOR
        if self.by_hand.locked_down:  # the door may not have heard of it yet
            return Code.LOCKDOWN
        if access.token is None:
            return task.state.shut
        if self.by_hand.disputed:
            return Code.JOURNAL_DISPUTED
        refused = self._judge(access.token, now, is_spent=spent)
        return refused.code if refused else None

    def deny(self, access: Access, refusal: Decision) -> Decision:
        """Record a refusal and return it."""
        if refusal.code is Code.ALREADY_SPENT and access.token is not None:
            if access.token.text in self._history.texts:  # the very text that was spent while this one waited: A.2, 1b
                self._telling.count(refusal.code)
                return refusal
            self._history.texts.add(access.token.text)
        event = replace(access.event, outcome=EventName.ACCESS_DENIED, code=refusal.code)
        door = event.door if event.door in self._building.doors else None
        self._telling.record_refusal(event, access.person, door, self._clock().boot)
        return refusal

    async def make_durable(self, access: Access, *, ends_by_us: bool) -> None:
        """Spend the token and record the grant: the one sync of an unlock. Raises Refused or StoreFailed."""
        event, door = access.event, access.event.door
        assert door is not None
        assert event.spend_id is not None
        notes = noted_release(door, event.spend_id) if ends_by_us else {}
        if (unlock := access.token) is None:
            await self._journal.append(event, access.person, notes)
            return
        await self._journal.spend(
            _spend(unlock),
            event,
            access.person,
            check_again=lambda: self.objection(access),
            spent=lambda: self._history.count(unlock.claims.issuer, door, access.began.boot),
            notes=notes,
        )
        self._history.remember(unlock.spend_key, unlock.text)

    def came_of(self, access: Access, outcome: EventName, code: Code) -> None:
        """Record what came of a grant; nothing waits for it."""
        event = replace(access.event, outcome=outcome, code=code, at=self._clock().wall, checks=None)
        if access.token is None:
            self._telling.record(event)
        else:
            self._telling.record(event, settles=(_spend(access.token), _SETTLED_AS[outcome]))

    def happened(self, door: DoorId, what: EventName, access: Access | None, at: float | None = None) -> None:
        """Record what happened at a door, after ``access`` if it belongs to one; nothing waits for it."""
        now = self._clock()
        at = at or now.wall
        if what in _BY_CONTACT and not self._chatter.take(door, now.boot):
            return  # a loose contact must not fill the journal
        if access is not None:
            # In nobody's name: what follows of itself is not what somebody asked for.
            self._telling.record(replace(access.event, outcome=what, at=at, checks=None, origin=None))
            return
        notes = self.by_hand.tampered(door) if what is EventName.DOOR_TAMPERED else {}
        self._telling.record(AccessEvent(outcome=what, door=door, at=at), notes=notes)

    async def note_ended(self, door: DoorId, ids: Sequence[bytes]) -> None:
        """Note that releases which are ours to end are over."""
        try:
            await self._journal.release_ended(door, ids)
        except StoreFailed:
            _LOGGER.warning("The end of a release could not be noted; it will be ended again at the next start")

    def tell_unrecorded(self, access: Access) -> None:
        """Tell of a grant that the journal could not take."""
        self._telling.tell(access.event)

    def _notice_clock_step(self, now: Now) -> None:
        gap = now.wall - now.boot
        if self._clock_gap is not None and abs(gap - self._clock_gap) > CLOCK_STEP:
            self._challenge_secret = self._random(32)
        self._clock_gap = gap


_SETTLED_AS: Final = {
    EventName.DOOR_RELEASED: SpentState.GRANTED,
    EventName.DOOR_ALREADY_UNLOCKED: SpentState.GRANTED,
    EventName.RELEASE_FAILED: SpentState.FAILED,
    EventName.OUTCOME_UNKNOWN: SpentState.UNKNOWN,
}


def _spend(unlock: UnlockToken) -> Spend:
    claims = unlock.claims
    return Spend(claims.issuer, claims.jti, claims.door, claims.nonce, claims.issued_at)


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
