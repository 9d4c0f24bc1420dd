"""The controller: the one spender of record of its doors.

A token's path: ``present`` judges it (token.py, challenge.py, policy.py); the door's task reaches the strike, spends
the token (journal.py), asks the door what follows (door.py) and tells the strike. One task per door takes one thing at
a time, so that a dead strike delays its own door and no other. Nothing is released at start, and no release is tried
twice.
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
from .door import (
    DoorState,
    Effect,
    Elapsed,
    Grant,
    Input,
    LeftOpen,
    NotReleased,
    NotSecured,
    Observed,
    Released,
    Secured,
    Timing,
    Unresolved,
    advance,
)
from .errors import OutcomeUnknown, Refused, StoreFailed, StrikeRefused, StrikeUnreachable, VestibuleError
from .journal import RECENT, Journal, Person, Spend, SpentState
from .keys import KeyStatus
from .model import (
    AccessEvent,
    Actor,
    Code,
    Decision,
    Door,
    DoorId,
    EventName,
    Issuer,
    Means,
    Now,
    Principal,
    read_clock,
)
from .policy import Building
from .strike import Pulse, Strike
from .token import SignedRefusal, UnlockToken

_LOGGER = logging.getLogger(__name__)

REACH_DEADLINE: Final = 5.0
"""Seconds in which a strike must be found, before anything is spent."""
STRIKE_DEADLINE: Final = 10.0
"""Seconds in which a strike must answer a command; after that its outcome is unknown."""
LATE_AFTER: Final = 5.0
"""Seconds from a request to the strike command; after that nobody may stand at the door any more (A.2 step 12)."""
CLOCK_STEP: Final = 5.0
"""Seconds by which wall and boot time may part before all challenges are void (a resumed snapshot, protocol A.1)."""
RECENT_TEXTS: Final = 1000
"""Spent texts in memory (A.2 step 1b), 700 bytes each. An older one is refused after its signature was checked."""
QUEUE: Final = 1024
"""Requests that may wait at one door."""


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
        self._doors: dict[DoorId, _DoorTask] = {}
        self._challenge_secret = random(32)
        self._clock_gap: float | None = None
        self._spent_keys: dict[tuple[Issuer, str], None] = {}
        self._spent_texts: dict[str, None] = {}
        self._left_open: dict[DoorId, bytes] = {}
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
            self._later(self._doors.pop(gone).stop())
        for ours in building.doors.values():
            if (task := self._doors.get(ours.id)) is None:
                left_open = self._left_open.pop(ours.id, None)
                self._doors[ours.id] = _DoorTask(self, ours, strikes[ours.id], left_open)
            else:
                task.change(ours, strikes[ours.id])

    async def stop(self) -> None:
        """Take no more requests, end the releases that we time, and write what waits. Leaves the journal open."""
        self.stopped = True
        doors, self._doors = self._doors, {}
        await asyncio.gather(*(task.stop() for task in doors.values()))
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

        Raises Refused (WRONG_DOOR, WRONG_ISSUER, POLICY_CARRIER_DOOR).
        """
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
            # A carrier's own mistake: worth a line, though there is no door and no driver to name.
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
            self._record(event)
            return Decision(refusal.code)
        except Refused as refusal:
            self.counters[refusal.code] += 1
            return Decision(refusal.code)
        self._notice_clock_step(now)
        claims = unlock.claims
        carrier = self._building.carriers[claims.issuer]
        access = _Access(
            event=AccessEvent(
                outcome=EventName.ACCESS_GRANTED,
                code=Code.GRANTED,
                door=claims.door,
                means=Means.TOKEN,
                at=now.wall,
                spend_id=token.spend_id(claims.issuer, claims.jti),
                kid=unlock.key.kid,
                issuer=claims.issuer,
                carrier=carrier.name,
                has_stop=True,
                origin=origin,
            ),
            by=carrier.name,
            began=now,
            answer=asyncio.get_running_loop().create_future(),
            person=_person(unlock),
            token=unlock,
        )
        decision = self._judge(access, now, self._building)
        if not decision.granted:
            return self._deny(access, decision)
        return await self._wait_at_door(claims.door, access)

    async def open_by_hand(self, door: DoorId, actor: Actor, origin: object = None) -> Decision:
        """Open a door for a person in Home Assistant or an automation; recorded with who it was.

        If the journal has failed, an administrator is let in all the same, unrecorded (protocol D).
        """
        now = self._clock()
        if door not in self._doors:
            return Decision(Code.WRONG_DOOR, door)
        access = _Access(
            event=AccessEvent(
                outcome=EventName.ACCESS_GRANTED,
                code=Code.GRANTED,
                door=door,
                means=Means.MANUAL,
                at=now.wall,
                spend_id=self._random(16),
                origin=origin,
            ),
            by=actor.name,
            began=now,
            answer=asyncio.get_running_loop().create_future(),
            person={"user_id": actor.user_id, "user": actor.name},
            may_go_unrecorded=actor.is_admin,
        )
        return await self._wait_at_door(door, access)

    async def _wait_at_door(self, door: DoorId, access: _Access) -> Decision:
        if (task := self._doors.get(door)) is None:  # stopped
            return Decision(Code.STRIKE_UNREACHABLE, door)
        if not task.take(access):
            self.counters[Code.RATE_LIMITED] += 1
            return Decision(Code.RATE_LIMITED, door)
        return await access.answer

    # ---- decisions ----

    def _judge(self, access: _Access, now: Now, building: Building) -> Decision:
        """Return what the building says to a genuine token: steps 7 to 10 of A.2."""
        assert access.token is not None
        claims = access.token.claims
        if claims.door not in building.doors:  # 7
            return Decision(Code.WRONG_DOOR, claims.door)
        if access.token.spend_key in self._spent_keys:  # 7b; an older one is found by the primary key
            return Decision(Code.ALREADY_SPENT, claims.door)
        code = challenge.check(self._challenge_secret, claims.door, claims.issuer, now.boot, claims.nonce)  # 8
        if code is not None:
            return Decision(code, claims.door)
        return policy.decide(claims, building.carriers[claims.issuer])  # 10

    def _still_stands(self, access: _Access) -> Code | None:
        """Return why a request that was judged good before is not any more (A.2 step 11). Any thread."""
        now = self._clock()
        if now.boot - access.began.boot > LATE_AFTER:
            return Code.LATE
        if access.token is None:
            return None
        building = self._building  # once: it may be replaced while the writer looks
        key = building.keys.get(access.token.key.kid)
        if key is None or key.status is KeyStatus.REVOKED:
            return Code.KEY_REVOKED
        decision = self._judge(access, now, building)
        return None if decision.granted else decision.code

    def _deny(self, access: _Access, decision: Decision) -> Decision:
        if decision.code is Code.ALREADY_SPENT and access.token is not None:
            if access.token.text in self._spent_texts:  # the very text that was spent while this one waited: A.2, 1b
                self.counters[decision.code] += 1
                return decision
            _remember(self._spent_texts, access.token.text, RECENT_TEXTS)
        denied = replace(access.event, outcome=EventName.ACCESS_DENIED, code=decision.code)
        self._record(denied, access.person)
        return decision

    def _spent(self, unlock: UnlockToken) -> None:
        _remember(self._spent_keys, unlock.spend_key, RECENT)
        _remember(self._spent_texts, unlock.text, RECENT_TEXTS)

    def _notice_clock_step(self, now: Now) -> None:
        gap = now.wall - now.boot
        if self._clock_gap is not None and abs(gap - self._clock_gap) > CLOCK_STEP:
            self._challenge_secret = self._random(32)
        self._clock_gap = gap

    # ---- telling ----

    def _record(
        self, event: AccessEvent, person: Person | None = None, settles: tuple[Spend, SpentState] | None = None
    ) -> None:
        """Write an event that nothing waits for; if the journal has failed, at least tell of it."""

        async def write() -> None:
            try:
                if settles is None:
                    await self._journal.append(event, person)
                else:
                    await self._journal.settle(*settles, event)
            except StoreFailed:
                self._tell(event)

        self._later(write())

    def _tell(self, event: AccessEvent) -> None:
        try:
            self._host_tell(event)
        except Exception:
            _LOGGER.exception("The host failed to take event %s", event.sequence)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@dataclass(frozen=True, slots=True)
class _Access:
    """A wish to be let in, on its way through its door's task. ``event`` is the grant, should it come to that."""

    event: AccessEvent
    by: str | None
    began: Now
    answer: asyncio.Future[Decision]
    person: Person
    token: UnlockToken | None = None
    may_go_unrecorded: bool = False


@dataclass(frozen=True, slots=True)
class _Change:
    door: Door
    strike: Strike


@dataclass(frozen=True, slots=True)
class _Look:
    """The strike has reported something. What, is read when its turn comes: a queued reading could be stale."""


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


class _DoorTask:
    """One door: takes one thing after the other, so that nothing needs a lock."""

    def __init__(self, controller: Controller, door: Door, strike: Strike, left_open: bytes | None) -> None:
        self.state = DoorState()
        self.listeners: list[Callable[[DoorState], None]] = []
        self._controller = controller
        self._door = door
        self._strike = strike
        self._release_noted = left_open
        """The spend id under which the journal has a release that we have to end."""
        self._look_waits = False
        self._inbox: asyncio.Queue[_Access | _Change | _Look | _Stop] = asyncio.Queue()
        self._unsubscribe = strike.subscribe(self._look)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"vestibule {door.id}")

    def take(self, access: _Access) -> bool:
        if self._inbox.qsize() >= QUEUE:
            return False
        self._inbox.put_nowait(access)
        return True

    def change(self, door: Door, strike: Strike) -> None:
        self._inbox.put_nowait(_Change(door, strike))

    async def stop(self) -> None:
        self._inbox.put_nowait(_Stop())
        await self._task

    def _look(self, _: object) -> None:
        if not self._look_waits:  # a contact that chatters takes one place in the queue, not all
            self._look_waits = True
            self._inbox.put_nowait(_Look())

    async def _run(self) -> None:
        if self._release_noted is not None:
            await self._happen(LeftOpen())
        await self._happen(Observed(self._strike.reading))
        while True:
            match await self._next():
                case None:
                    await self._happen(Elapsed())
                case _Look():
                    self._look_waits = False
                    await self._happen(Observed(self._strike.reading))
                case _Access() as access:
                    try:
                        decision = await self._let_in(access)
                    except Exception:
                        # A bug of ours, at an unknown point of an unlock. The next one must find its door at work.
                        _LOGGER.exception("An unlock of %s failed in an unforeseen way", self._door.name)
                        decision = Decision(Code.OUTCOME_UNKNOWN, self._door.id)
                    if not access.answer.done():  # else the caller has gone
                        access.answer.set_result(decision)
                case _Change(door, strike):
                    await self._take_change(door, strike)
                case _Stop():
                    break
        self._unsubscribe()
        if self.state.securing:
            await self._perform_secure()
        while not self._inbox.empty():
            if isinstance(waiting := self._inbox.get_nowait(), _Access) and not waiting.answer.done():
                waiting.answer.set_result(
                    self._controller._deny(waiting, Decision(Code.STRIKE_UNREACHABLE, self._door.id))
                )

    async def _next(self) -> _Access | _Change | _Look | _Stop | None:
        """Return what comes next, or None when the door's deadline has passed."""
        if self.state.deadline is None:
            return await self._inbox.get()
        left = self.state.deadline - self._controller._clock().boot
        if left <= 0:  # before whatever waits: a release that we end must not last longer because others want in
            return None
        try:
            async with asyncio.timeout(left):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def _take_change(self, door: Door, strike: Strike) -> None:
        if strike is not self._strike:
            if self.state.securing:  # the old one is ours to put back
                await self._perform_secure()
            self._unsubscribe()
            self._strike = strike
            self._unsubscribe = strike.subscribe(self._look)
            self._become(replace(DoorState(), by=self.state.by))
            await self._happen(Observed(strike.reading))
        self._door = door

    # ---- one access ----

    async def _let_in(self, access: _Access) -> Decision:
        """Reach, spend, release, in this order."""
        controller = self._controller
        if code := controller._still_stands(access):
            return controller._deny(access, Decision(code, self._door.id))
        if await self._failure_of(self._strike.reach(), REACH_DEADLINE):
            return controller._deny(access, Decision(Code.STRIKE_UNREACHABLE, self._door.id))
        try:
            await self._make_durable(access)
        except Refused as refusal:
            return controller._deny(access, Decision(refusal.code, self._door.id))
        except StoreFailed:
            if not access.may_go_unrecorded:
                return controller._deny(access, Decision(Code.STORE_FAILED, self._door.id))
            controller._tell(access.event)
        # From here on the token is burned, whatever happens.
        if controller._clock().boot - access.began.boot > LATE_AFTER:
            return self._came_of(access, EventName.RELEASE_FAILED, Code.LATE)
        code = await self._happen(Grant(access.by), access)
        match code:
            case Code.GRANTED:
                return self._came_of(access, EventName.DOOR_RELEASED, code)
            case Code.OUTCOME_UNKNOWN:
                return self._came_of(access, EventName.OUTCOME_UNKNOWN, code)
            case _:
                return self._came_of(access, EventName.RELEASE_FAILED, code)

    async def _make_durable(self, access: _Access) -> None:
        """Spend the token and record the grant; the one sync of an unlock. Raises Refused or StoreFailed."""
        journal, controller = self._controller._journal, self._controller
        ends_by_us = not self._strike.capabilities.device_timed
        if ends_by_us:
            self._release_noted = access.event.spend_id
        if access.token is None:
            await journal.append(access.event, access.person, ends_by_us=self._door.id if ends_by_us else None)
            return
        await journal.spend(
            _spend(access.token),
            access.event,
            access.person,
            check_again=lambda: controller._still_stands(access),
            ends_by_us=ends_by_us,
        )
        controller._spent(access.token)

    def _came_of(self, access: _Access, outcome: EventName, code: Code) -> Decision:
        event = replace(access.event, outcome=outcome, code=code, at=self._controller._clock().wall)
        if access.token is None:
            self._controller._record(event)
        else:
            self._controller._record(event, settles=(_spend(access.token), _SETTLED_AS[outcome]))
        if outcome is EventName.RELEASE_FAILED and not self.state.securing:
            self._controller._later(self._note_ended(access.event.spend_id))
        return Decision(code, self._door.id)

    # ---- the door ----

    async def _happen(self, event: Input, access: _Access | None = None) -> Code:
        """Let something happen to the door and do what follows; return how a release went."""
        timing = Timing(self._door.access_time, self._strike.capabilities)
        state, effects = advance(self.state, event, self._controller._clock().boot, timing)
        self._become(state)
        code = Code.GRANTED
        for effect in effects:
            match effect:
                case Effect.RELEASE:
                    assert access is not None
                    code, result = await self._perform_release(access)
                    await self._happen(result)
                case Effect.SECURE:
                    await self._happen(await self._perform_secure())
                case Effect.OBSERVE:
                    await self._happen(Observed(self._strike.reading))
        return code

    async def _perform_release(self, access: _Access) -> tuple[Code, Input]:
        pulse = Pulse(access.event.spend_id, self._door.access_time, access.event.origin)
        match await self._failure_of(self._strike.release(pulse), STRIKE_DEADLINE):
            case None:
                return Code.GRANTED, Released()
            case StrikeUnreachable():
                return Code.STRIKE_UNREACHABLE, NotReleased()
            case StrikeRefused():
                return Code.STRIKE_REFUSED, NotReleased()
            case _:
                return Code.OUTCOME_UNKNOWN, Unresolved()

    async def _perform_secure(self) -> Input:
        if error := await self._failure_of(self._strike.secure(), STRIKE_DEADLINE):
            _LOGGER.warning("The strike of %s could not be put back: %s", self._door.name, error)
            return NotSecured()
        if self._release_noted is not None:
            await self._note_ended(self._release_noted)
        return Secured()

    async def _failure_of(self, command: Coroutine[Any, Any, None], deadline: float) -> VestibuleError | None:
        """Return how a command to the strike failed, None if it was confirmed. Whatever happens, the door lives on."""
        try:
            async with asyncio.timeout(deadline):
                await command
        except (StrikeUnreachable, StrikeRefused, OutcomeUnknown) as error:
            return error
        except TimeoutError:
            return OutcomeUnknown("no answer in time")
        except asyncio.CancelledError:
            if self._task.cancelling():
                raise  # this door's task was cancelled, not something inside the driver
            return OutcomeUnknown("the driver was interrupted")
        except Exception:
            _LOGGER.exception("The strike of %s failed in an unforeseen way", self._door.name)
            return OutcomeUnknown("the driver failed")
        return None

    async def _note_ended(self, spend_id: bytes) -> None:
        try:
            await self._controller._journal.release_ended(self._door.id, spend_id)
        except StoreFailed:
            _LOGGER.warning("The end of the release of %s could not be noted", self._door.name)

    def _become(self, state: DoorState) -> None:
        if state == self.state:
            return
        self.state = state
        for listener in tuple(self.listeners):
            try:
                listener(state)
            except Exception:
                _LOGGER.exception("A listener of %s failed", self._door.name)


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
