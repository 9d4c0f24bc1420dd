"""One door at work: takes one thing after the other, so that nothing in it needs a lock.

For each wish to be let in: reach the strike, have the grant made durable, ask the door what follows (door.py), tell the
strike once. A dead strike delays its own door and no other; whatever a driver or a bug of ours does, the door lives on.
What is allowed and what is written is the controller's business (``Office``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from .door import (
    SECURE_AGAIN,
    DoorState,
    Effect,
    Elapsed,
    Grant,
    Input,
    LeftOpen,
    Lock,
    LockdownBegun,
    NotReleased,
    NotSecured,
    Observed,
    Opener,
    Record,
    Released,
    Secured,
    Sensed,
    SetUpChanged,
    StrikeReplaced,
    Timing,
    Unresolved,
    advance,
)
from .errors import (
    OutcomeUnknown,
    Refused,
    SpentElsewhere,
    StoreFailed,
    StrikeRefused,
    StrikeUnreachable,
    VestibuleError,
)
from .leaf import Person
from .model import AccessEvent, Code, Decision, Door, DoorId, DoorMode, EventName, Now
from .strike import Pulse, Strike
from .token import UnlockToken

_LOGGER = logging.getLogger(__name__)

REACH_DEADLINE: Final = 5.0
"""Seconds in which a strike must be found, before anything is spent."""
STRIKE_DEADLINE: Final = 10.0
"""Seconds in which a strike must answer a command; after that its outcome is unknown."""
LATE_AFTER: Final = 5.0
"""Seconds from a request to the strike command; after that nobody may stand at the door any more (A.2 step 12)."""
QUEUE: Final = 1024
"""Requests that may wait at one door."""
CHATTER: Final = 256
"""Things that may wait to happen to a door; beyond that what a sensor says again waits once, in its last place."""


def _new_answer() -> asyncio.Future[Decision]:
    return asyncio.get_running_loop().create_future()


def _new_code() -> asyncio.Future[Code]:
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class _Telling:
    """Something that happened, is to be told of and changes nothing about the door."""

    tell: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Happening:
    """Something that is to happen to a door."""

    event: Input | _Telling
    held: bytes | None
    """The id under which the journal notes that the door is held open from now on."""
    origin: object
    done: asyncio.Future[Code] = field(default_factory=_new_code)


def always() -> bool:
    """Return True: whoever asks is taken to wait for what comes of it."""
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """A wish to be let in, on its way to its door. ``event`` is the grant, should it come to that.

    ``is_wanted`` says whether whoever asked still waits for it; any thread.
    """

    event: AccessEvent
    by: Opener | None
    """For whom; None: nobody is named."""
    began: Now
    person: Person
    token: UnlockToken | None = None
    """None: by hand."""
    may_go_unrecorded: bool = False
    is_wanted: Callable[[], bool] = always
    answer: asyncio.Future[Decision] = field(default_factory=_new_answer)

    def is_late(self, now: Now) -> bool:
        """Return whether it was asked for too long ago."""
        return now.boot - self.began.boot > LATE_AFTER


class Office(Protocol):
    """What a door's task asks of the controller."""

    def now(self) -> Now:
        """Read the clock."""
        ...

    def objection(self, access: Access, *, spent: bool = False) -> Code | None:
        """Return why a wish cannot be granted any more, None if it can; ``spent``: its token is, by itself."""
        ...

    def deny(self, access: Access, refusal: Decision) -> Decision:
        """Record a refusal and return it."""
        ...

    async def make_durable(self, access: Access, *, ends_by_us: bool) -> None:
        """Spend the token and record the grant: the one sync of an unlock. Raises Refused or StoreFailed."""
        ...

    def came_of(self, access: Access, outcome: EventName, code: Code) -> None:
        """Record what came of a grant; nothing waits for it."""
        ...

    def happened(self, door: DoorId, what: EventName, access: Access | None, at: float | None = None) -> None:
        """Record what happened at a door, after ``access`` if it belongs to one; nothing waits for it.

        ``at`` is when (wall clock); None: now.
        """
        ...

    async def note_ended(self, door: DoorId, ids: Sequence[bytes]) -> None:
        """Note that releases which are ours to end are over."""
        ...

    def tell_unrecorded(self, access: Access) -> None:
        """Tell of a grant that the journal could not take."""
        ...


class DoorTask:
    """The task of one door, its state and its queue."""

    def __init__(
        self,
        office: Office,
        door: Door,
        strike: Strike,
        *,
        state: DoorState | None = None,
        left_open: Sequence[bytes] = (),
        before: DoorTask | None = None,
    ) -> None:
        """Begin in ``state``, once ``before`` (an earlier task of the same door) has ended, and go on where it ended.

        ``left_open`` are the ids of releases that were ours to end when the program died.
        """
        self.state = state or DoorState()
        self.listeners: list[Callable[[DoorState], None]] = []
        self._office = office
        self._door = door
        self._strike = strike
        self.noted = list(left_open)
        """The ids under which the journal may have a release that is ours to end: the newest one of them."""
        self._timing = _timing(door, strike)
        self._last: Access | None = None
        """The access that was granted last."""
        self._held_for: object = None
        """Where the wish to hold the door open came from."""
        self._waiting: deque[Access] = deque()
        self._happenings: deque[_Happening] = deque()
        # What comes before those who wait. A reading is taken when its turn comes: a queued one could be stale.
        self._change: tuple[Door, Strike] | None = None
        self._look_waits = True
        self._stop_asked = False
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ending: set[asyncio.Task[bool]] = set()
        self._unsubscribe = strike.subscribe(self._look)
        self._task = asyncio.get_running_loop().create_task(self._run(before), name=f"vestibule {door.id}")

    @property
    def can_hold(self) -> bool:
        """Whether the door can be held open."""
        return self._strike.capabilities.can_hold

    def take(self, access: Access) -> bool:
        """Let a wish wait for its turn; return False if there is no room."""
        if len(self._waiting) >= QUEUE:
            return False
        self._waiting.append(access)
        self._wake.set()
        return True

    def change(self, door: Door, strike: Strike) -> None:
        """Go on as ``door`` on ``strike``, after what is under way and before what waits."""
        self._change = (door, strike)
        self._wake.set()

    def post(self, event: Input, *, held: bytes | None = None, origin: object = None) -> asyncio.Future[Code]:
        """Let something happen to the door, before whoever waits; the result says how it went if the strike was told.

        Nothing is granted in between: an access that is under way is judged again before the strike hears of it.
        """
        happening = _Happening(event, held, origin)
        if self._stop_asked:
            happening.done.set_result(Code.STOPPING)
            return happening.done
        if len(self._happenings) >= CHATTER and isinstance(event, Sensed):
            for old in [old for old in self._happenings if old.event == event]:
                self._happenings.remove(old)
                old.done.set_result(Code.GRANTED)
        self._happenings.append(happening)
        self._wake.set()
        return happening.done

    def tell(self, tell: Callable[[], None]) -> None:
        """Call ``tell``, which does not fail, when all that was posted before has happened; at a stop at once."""
        if self._stop_asked:
            tell()
            return
        self._happenings.append(_Happening(_Telling(tell), None, None))
        self._wake.set()

    def stop(self, *, hurry: bool) -> Coroutine[Any, Any, None]:
        """Take nothing more from now on; what is returned ends when the task has, after what is under way and with the
        release that is ours to end.

        A strike that cannot be put back is tried again and again; in a ``hurry`` (the program ends) once, and the note
        in the journal stays. May be repeated; cancelling who waits ends nothing.
        """
        self._stop_asked = True
        while self._happenings:
            happening = self._happenings.popleft()
            if isinstance(happening.event, _Telling):
                happening.event.tell()
            if not happening.done.done():
                happening.done.set_result(Code.STOPPING)
        self._wake.set()
        if hurry:
            self._hurry.set()
        return self._until_ended()

    async def _until_ended(self) -> None:
        await asyncio.wait({self._task})

    def _look(self, _: object) -> None:
        self._look_waits = True
        self._wake.set()

    # ---- one thing after the other ----

    async def _run(self, before: DoorTask | None) -> None:
        if before is not None:
            await before.stop(hurry=True)
            self.noted += before.noted
        if self.noted:
            await self._happen(LeftOpen())
        while not self._stop_asked:
            try:
                await self._turn()
            except Exception:
                _LOGGER.exception("%s failed in an unforeseen way", self._door.name)
                await asyncio.sleep(1)  # whatever it is, it must neither end this door nor spin
        self._unsubscribe()
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_result(self._office.deny(waiting, Decision(Code.STOPPING, self._door.id)))
        if self.state.mode is DoorMode.UNLOCKED:
            self._office.happened(self._door.id, EventName.DOOR_NORMAL, None)
        if self.state.securing and await self._put_back(self._strike, self.noted):
            self.noted = []
            if self.state.released:
                self._office.happened(self._door.id, EventName.DOOR_RELOCKED, self._last)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _turn(self) -> None:
        if self._change is not None:
            (door, strike), self._change = self._change, None
            await self._take_change(door, strike)
        elif self._happenings:
            await self._let_happen(self._happenings.popleft())
        elif self._look_waits:
            self._look_waits = False
            await self._happen(Observed(self._strike.reading))
        elif (left := self._left()) is not None and left <= 0:
            # Before whoever waits: a release that we end must not last longer because others want in.
            await self._happen(Elapsed())
        elif self._waiting:
            await self._answer(self._waiting.popleft())
        else:
            self._wake.clear()
            await self._wait(left)

    def _left(self) -> float | None:
        """Return the seconds until something is due, None if nothing is."""
        due = self.state.due
        return None if due is None else due - self._office.now().boot

    async def _meanwhile[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``, and let happen what happens: the end of a release, a lockdown, a door that opens."""
        # Eagerly: a strike that is reached without waiting costs no turn of the event loop.
        task = asyncio.get_running_loop().create_task(work, eager_start=True)
        if not task.done():
            task.add_done_callback(self._woken)
        try:
            while self._happenings or not task.done():  # also what came in the last moment
                if self._happenings:
                    await self._let_happen(self._happenings.popleft())
                elif (left := self._left()) is not None and left <= 0:
                    await self._happen(Elapsed())
                else:
                    self._wake.clear()
                    await self._wait(left)
            return task.result()
        finally:
            task.cancel()

    def _woken(self, _: object) -> None:
        self._wake.set()

    async def _wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _let_happen(self, happening: _Happening) -> None:
        code = Code.OUTCOME_UNKNOWN
        try:
            if happening.held is not None:
                self.noted.append(happening.held)
                self._held_for = happening.origin
            if happening.held is not None and any(isinstance(later.event, LockdownBegun) for later in self._happenings):
                code = Code.LOCKDOWN  # asked for since: the door is not held open for a moment
            elif isinstance(happening.event, _Telling):
                happening.event.tell()
                code = Code.GRANTED
            else:
                code = await self._happen(happening.event)
            if happening.held is not None and not self.state.securing:
                await self._note_ended()  # it came to nothing
        finally:
            if not happening.done.done():
                happening.done.set_result(code)

    async def _take_change(self, door: Door, strike: Strike) -> None:
        timing = _timing(door, strike)
        if strike is not self._strike:
            if self.state.securing:  # the old one is ours to put back
                ending = asyncio.get_running_loop().create_task(self._put_back(self._strike, self.noted))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                self.noted = []
            self._unsubscribe()
            self._strike = strike
            self._unsubscribe = strike.subscribe(self._look)
            await self._happen(StrikeReplaced())
            self._look_waits = True
        self._door = door
        if timing != self._timing:
            self._timing = timing
            await self._happen(SetUpChanged())

    async def _put_back(self, strike: Strike, noted: Sequence[bytes]) -> bool:
        """Put back a strike that is this door's no more, as often as it takes; return False if it was given up."""
        while error := await self._failure_of(strike.secure(), STRIKE_DEADLINE):
            if self._hurry.is_set():
                _LOGGER.warning("The strike of %s could not be put back: %s", self._door.name, error)
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(SECURE_AGAIN):
                    await self._hurry.wait()
        if noted:
            await self._office.note_ended(self._door.id, noted)
        return True

    # ---- one access ----

    async def _answer(self, access: Access) -> None:
        try:
            decision = await self._let_in(access)
        except Exception:
            # A bug of ours, at an unknown point of an unlock. The next one must find its door at work.
            _LOGGER.exception("An unlock of %s failed in an unforeseen way", self._door.name)
            decision = Decision(Code.OUTCOME_UNKNOWN, self._door.id)
        if not access.answer.done():  # else the caller has gone
            access.answer.set_result(decision)

    async def _let_in(self, access: Access) -> Decision:
        """Reach, spend, release, in this order."""
        office, door = self._office, self._door.id
        if code := office.objection(access):
            return office.deny(access, Decision(code, door))
        if await self._meanwhile(self._failure_of(self._strike.reach(), REACH_DEADLINE)):
            return office.deny(access, Decision(Code.STRIKE_UNREACHABLE, door))
        ends_by_us = not self._strike.capabilities.device_timed
        try:
            await self._meanwhile(office.make_durable(access, ends_by_us=ends_by_us))
        except Refused as refusal:
            return office.deny(access, Decision(refusal.code, door))
        except StoreFailed:
            if not access.may_go_unrecorded:
                return office.deny(access, Decision(Code.STORE_FAILED, door))
            office.tell_unrecorded(access)
        if ends_by_us:
            assert access.event.spend_id is not None
            self.noted.append(access.event.spend_id)
        # From here on the token is burned, whatever happens.
        was_open = self.state.mode is DoorMode.UNLOCKED
        code = office.objection(access, spent=True) or await self._happen(Grant(access.by), access)
        if was_open and code is Code.GRANTED:
            office.came_of(access, EventName.DOOR_ALREADY_UNLOCKED, code)
        else:
            office.came_of(access, _OUTCOME.get(code, EventName.RELEASE_FAILED), code)
        if not self.state.securing:
            await self._note_ended()
        return Decision(code, door)

    # ---- the door and its strike ----

    async def _happen(self, event: Input, access: Access | None = None) -> Code:
        """Let something happen to the door and do what follows; return how a command to the strike went."""
        state, effects = advance(self.state, event, self._office.now().boot, self._timing)
        if isinstance(event, Grant) and (shut := state.shut):
            return shut  # was judged before; whatever let it come this far, nothing moves
        self._become(state)
        code = Code.GRANTED
        at = event.at if isinstance(event, Sensed) else None
        for effect in effects:
            match effect:
                case Record(what, of_access):
                    self._office.happened(self._door.id, what, self._last if of_access else None, at)
                case Effect.RELEASE:
                    assert access is not None
                    assert access.event.spend_id is not None
                    pulse = Pulse(access.event.spend_id, self._door.access_time, access.event.origin)
                    code, result = await self._tell(self._strike.release(pulse))
                    if not isinstance(result, NotReleased):  # else what follows belongs to the one before
                        self._last = replace(access, person={}, token=None)  # who it was, only the journal knows
                    await self._happen(result)
                case Effect.HOLD:
                    code, result = await self._tell(self._strike.hold(self._held_for))
                    if not isinstance(result, NotReleased):
                        self._last = None
                    await self._happen(result)
                case Effect.SECURE:
                    await self._happen(await self._secure())
                case Effect.OBSERVE:
                    await self._happen(Observed(self._strike.reading))
        return code

    async def _tell(self, command: Coroutine[Any, Any, None]) -> tuple[Code, Input]:
        """Tell the strike to release, this once."""
        match await self._failure_of(command, STRIKE_DEADLINE):
            case None:
                return Code.GRANTED, Released()
            case StrikeUnreachable():
                return Code.STRIKE_UNREACHABLE, NotReleased()
            case SpentElsewhere():
                return Code.ALREADY_SPENT, NotReleased()
            case StrikeRefused():
                return Code.STRIKE_REFUSED, NotReleased()
            case _:
                return Code.OUTCOME_UNKNOWN, Unresolved()

    async def _secure(self) -> Input:
        if error := await self._failure_of(self._strike.secure(), STRIKE_DEADLINE):
            if self.state.lock is not Lock.UNKNOWN:  # said once, not at each attempt
                _LOGGER.warning("The strike of %s could not be put back: %s", self._door.name, error)
            return NotSecured()
        await self._note_ended()
        return Secured(self._strike.reading)

    async def _note_ended(self) -> None:
        ended, self.noted = self.noted, []
        if ended:
            await self._office.note_ended(self._door.id, ended)

    async def _failure_of(self, command: Coroutine[Any, Any, None], deadline: float) -> VestibuleError | None:
        """Return how a command to the strike failed, None if it was confirmed."""
        try:
            async with asyncio.timeout(deadline):
                await command
        except (StrikeUnreachable, StrikeRefused, OutcomeUnknown) as error:
            return error
        except TimeoutError:
            return OutcomeUnknown("no answer in time")
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # this task was cancelled, not something inside the driver
            return OutcomeUnknown("the driver was interrupted")
        except Exception:
            _LOGGER.exception("The strike of %s failed in an unforeseen way", self._door.name)
            return OutcomeUnknown("the driver failed")
        return None

    def _become(self, state: DoorState) -> None:
        if state == self.state:
            return
        self.state = state
        for listener in tuple(self.listeners):
            try:
                listener(state)
            except Exception:
                _LOGGER.exception("A listener of %s failed", self._door.name)


def _timing(door: Door, strike: Strike) -> Timing:
    return Timing(
        access_time=door.access_time,
        strike=strike.capabilities,
        sensors=door.sensors,
        relock=door.relock,
        held_open_time=door.held_open_time,
        pre_alarm_time=door.pre_alarm_time,
    )


_OUTCOME: Final = {
    Code.GRANTED: EventName.DOOR_RELEASED,
    Code.OUTCOME_UNKNOWN: EventName.OUTCOME_UNKNOWN,
}
