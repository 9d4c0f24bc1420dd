"""The controller: the one spender of record of its doors.

A token's path: ``present`` judges it (token.py, policy.py); the door's task (door_task.py) waits for its turn, reaches
the strike, has the token spent here (journal.py) and tells the strike. What is done by hand (an unlock, a mode, a
lockdown) comes in here too, under the rule of manual.py. Nothing is released at start, and no release is tried twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from . import challenge, manual, policy, token
from .bucket import Buckets
from .door import (
    DeliveriesChosen,
    DoorState,
    LockdownBegun,
    LockdownLifted,
    ModeChosen,
    Sensed,
    TamperCleared,
)
from .door_task import Access, DoorTask
from .errors import Refused, StoreFailed
from .history import RECENT, History
from .journal import Journal, Notes, Person, Spend, SpentState, noted_release
from .keys import KeyStatus
from .manual import Wish
from .model import (
    AccessEvent,
    Actor,
    Code,
    Decision,
    Door,
    DoorId,
    DoorMode,
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

_LOGGER = logging.getLogger(__name__)

CLOCK_STEP: Final = 5.0
"""Seconds by which wall and boot time may part before all challenges are void (a resumed snapshot, protocol A.1)."""

OPENINGS_AN_HOUR: Final = 1200
"""Openings and closings of one door, outside of any access, that are recorded within an hour."""

_BY_CONTACT: Final = frozenset({EventName.DOOR_OPENED, EventName.DOOR_CLOSED})

_LOCKDOWN: Final = "lockdown"
_MODE: Final = "mode:"
_DELIVERIES: Final = "deliveries:"
_TAMPER: Final = "tamper:"
_RELEASE: Final = "release:"
"""Names of notes in the journal; those that end in a colon are followed by a door's id."""


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
        self._telling = Telling(journal, tell)
        self._clock = clock
        self._random = random
        self._building = Building.of((), ())
        self._doors: dict[DoorId, DoorTask] = {}
        self._history = History()
        self._challenge_secret = random(32)
        self._clock_gap: float | None = None
        self._removed: dict[DoorId, DoorTask] = {}
        """Doors of before, which may have a strike to put back."""
        self._notes: dict[str, str] = {}
        """What the journal has noted: modes, a lockdown, tampering, deliveries that are off."""
        self._orders: dict[DoorId | None, asyncio.Lock] = {}
        """One wish by hand at a time, for each door and for the building."""
        self._lockdowns = 0
        """How often a lockdown was asked for: one that is lifted must not take a later one with it."""
        self._pin_tries = manual.pin_tries()
        self._chatter: Buckets[DoorId] = Buckets(per_second=OPENINGS_AN_HOUR / 3600, burst=OPENINGS_AN_HOUR, most=1000)
        self._stopping: asyncio.Task[None] | None = None
        self.stopped = False
        """Whether requests are refused for good."""
        self.locked_down = False
        """Whether the building is locked down."""

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
        unsettled = self._journal.unsettled()
        self._notes = self._journal.notes()
        self.locked_down = _LOCKDOWN in self._notes
        self._journal.start(self._telling.tell)
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
                noted, before = self._notes.pop(_RELEASE + ours.id, None), self._removed.pop(ours.id, None)
                left_open = [bytes.fromhex(noted)] if noted else []
                self._doors[ours.id] = DoorTask(
                    self, ours, strikes[ours.id], state=self._noted(ours.id), left_open=left_open, before=before
                )
            else:
                known.change(ours, strikes[ours.id])

    async def _forget(self, door: DoorId, task: DoorTask, ended: Coroutine[Any, Any, None]) -> None:
        """Forget the task of a removed door once it has ended: nobody asks for it any more."""
        await ended
        if self._removed.get(door) is task:
            del self._removed[door]

    def _noted(self, door: DoorId) -> DoorState:
        """Return the state in which a door begins: what was shut stays shut, and nothing is held open (protocol D)."""
        mode = DoorMode.BLOCKED if _MODE + door in self._notes else DoorMode.NORMAL
        return DoorState(
            mode=DoorMode.LOCKED_DOWN if self.locked_down else mode,
            after_lockdown=mode if self.locked_down else DoorMode.NORMAL,
            accepts_deliveries=_DELIVERIES + door not in self._notes,
            tampered=_TAMPER + door in self._notes,
        )

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
        await self._telling.recorded()

    # ---- what hosts ask ----

    @property
    def building(self) -> Building:
        """What decisions depend on at the moment."""
        return self._building

    @property
    def counters(self) -> Counter[Code]:
        """Refusals that leave no other trace: what a stranger could cause in any number (A.2)."""
        return self._telling.counters

    @property
    def clock_is_trusted(self) -> bool:
        """Whether the clock is not earlier than it was; if it is, doors with hours let no token in (A.2)."""
        return self._clock().wall >= self._journal.newest - policy.CLOCK_BACK

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
        self, text: object, principal: Principal, origin: object = None, *, at: DoorId | None = None
    ) -> Decision:
        """Judge a token and, if it stands, open its door once. Returns when the strike has answered.

        ``at`` is the door that it is presented at; None: whichever it is for. A caller may go away in the middle: the
        unlock goes on in its door's task.
        """
        now = self._clock()
        try:
            unlock = token.verify(text, self._building.keys, principal.issuer, self._history.texts)
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
            self._telling.record_refusal(event, None, None, now.boot)
            return Decision(refusal.code)
        except Refused as refusal:
            self.counters[refusal.code] += 1
            return Decision(refusal.code)
        self._notice_clock_step(now)
        access = self._access(unlock, now, origin)
        if self.stopped:
            return self.deny(access, Decision(Code.STOPPING, unlock.claims.door))
        if at is not None and unlock.claims.door != at:
            return self.deny(access, Decision(Code.WRONG_DOOR, unlock.claims.door))
        if refused := self._judge(unlock, now):
            return self.deny(access, refused)
        return await self._wait_at_door(unlock.claims.door, access)

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

    def sense(self, door: DoorId, sensor: Sensor, sense: Sense) -> None:
        """Take what a sensor of a door says; nothing if it is not ours."""
        if (task := self._doors.get(door)) is not None:
            task.post(Sensed(sensor, sense))

    # ---- by hand ----

    async def open_by_hand(
        self, door: DoorId, actor: Actor, origin: object = None, *, pin: str | None = None
    ) -> Decision:
        """Open a door for a person in Home Assistant or an automation; recorded with who it was.

        If the journal has failed, an administrator is let in all the same, unrecorded (protocol D).
        """
        now = self._clock()
        if (ours := self._building.doors.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        event = self._by_hand(EventName.ACCESS_GRANTED, door, actor, now, origin, spend_id=self._random(16))
        access = Access(event, actor.name, now, _who(actor), may_go_unrecorded=actor.is_admin)
        if code := manual.objection(ours, actor, Wish.OPEN) or await self._pin_objection(ours, actor, pin):
            return self.deny(access, Decision(code, door))
        return await self._wait_at_door(door, access)

    async def _pin_objection(self, door: Door, actor: Actor, typed: str | None) -> Code | None:
        if door.pin is None:
            return None
        if not typed:
            return Code.PIN_MISSING
        who, boot = (door.id, actor.user_id), self._clock().boot
        # Taken before it is looked at, and given back if it is right: else many at once would all be looked at.
        if not self._pin_tries.take(who, boot):
            return Code.PIN_LOCKED
        if not await asyncio.to_thread(door.pin.matches, typed):
            return Code.PIN_WRONG
        self._pin_tries.give_back(who)
        return None

    async def set_mode(self, door: DoorId, mode: DoorMode, actor: Actor, origin: object = None) -> Decision:
        """Set a door's mode, durably; LOCKED_DOWN is the building's (``set_lockdown``). A caller may go away."""
        return await self._order(door, lambda: self._set_mode(door, mode, actor, origin))

    async def _set_mode(self, door: DoorId, mode: DoorMode, actor: Actor, origin: object) -> Decision:
        if (task := self._doors.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        before = DoorMode.LOCKED_DOWN if self.locked_down else task.state.mode  # it may not have heard of it yet
        what = _MODE_EVENTS[mode]
        is_noted = (_MODE + door in self._notes) is (mode is DoorMode.BLOCKED) or mode is DoorMode.LOCKED_DOWN
        if mode is before and is_noted:
            return Decision(Code.GRANTED, door)
        if mode is DoorMode.LOCKED_DOWN or (mode is DoorMode.UNLOCKED and not task.can_hold):
            return self._deny_by_hand(what, door, actor, origin, Code.MODE_NOT_POSSIBLE)
        if before is DoorMode.LOCKED_DOWN:
            return self._deny_by_hand(what, door, actor, origin, Code.LOCKDOWN)
        if before is DoorMode.BLOCKED and mode is DoorMode.UNLOCKED:
            # Not in one step: if the strike does not hold, the door would be neither.
            return self._deny_by_hand(what, door, actor, origin, Code.DOOR_BLOCKED)
        wish = _WISHES.get((before, mode))
        if wish and (code := manual.objection_without_pin(self._building.doors[door], actor, wish)):
            return self._deny_by_hand(what, door, actor, origin, code)
        held = self._random(16) if mode is DoorMode.UNLOCKED else None
        chosen = ModeChosen(mode, actor.name)
        notes = {_MODE + door: mode.value if mode is DoorMode.BLOCKED else None}
        if held is not None:
            notes |= noted_release(door, held)
        if wish is None:  # makes the door safer: at once, whatever the disk does
            task.post(chosen)
        if code := await self._note(what, door, actor, origin, notes):
            return Decision(code, door)
        task = self._doors.get(door)  # it may have been taken away, and added again
        code = await task.post(chosen, held=held, origin=origin) if task is not None else Code.STOPPING
        if task is None or code is Code.STOPPING:
            if held is not None:
                await self.note_ended(door, [held])
            return Decision(code, door)
        if wish and code is Code.GRANTED and task.state.mode is not mode:  # a lockdown came in between
            code = Code.LOCKDOWN if task.state.mode is DoorMode.LOCKED_DOWN else Code.STRIKE_REFUSED
        if code is Code.LOCKDOWN and task.state.after_lockdown is DoorMode.BLOCKED:
            # And keeps the door blocked, also after a restart.
            await self._note(EventName.DOOR_BLOCKED, door, actor, origin, {_MODE + door: DoorMode.BLOCKED.value})
        return Decision(code, door)

    async def set_deliveries(self, door: DoorId, accepted: bool, actor: Actor, origin: object = None) -> Decision:
        """Say whether a door takes deliveries, durably. A caller may go away."""
        return await self._order(door, lambda: self._set_deliveries(door, accepted, actor, origin))

    async def _set_deliveries(self, door: DoorId, accepted: bool, actor: Actor, origin: object) -> Decision:
        if (task := self._doors.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        what = EventName.DELIVERIES_ON if accepted else EventName.DELIVERIES_OFF
        is_noted = (_DELIVERIES + door in self._notes) is not accepted
        if task.state.accepts_deliveries is accepted and is_noted:
            return Decision(Code.GRANTED, door)
        if not accepted:
            task.post(DeliveriesChosen(False))
        elif code := manual.objection_without_pin(self._building.doors[door], actor, Wish.RELAX):
            return self._deny_by_hand(what, door, actor, origin, code)
        if code := await self._note(what, door, actor, origin, {_DELIVERIES + door: None if accepted else "off"}):
            return Decision(code, door)
        if (task := self._doors.get(door)) is None:
            return Decision(Code.STOPPING, door)
        return Decision(await task.post(DeliveriesChosen(accepted)), door)

    async def clear_tamper(self, door: DoorId, actor: Actor, origin: object = None) -> Decision:
        """Trust a door again, because somebody has looked at it; TAMPERED while its sensor still says so."""
        return await self._order(door, lambda: self._clear_tamper(door, actor, origin))

    async def _clear_tamper(self, door: DoorId, actor: Actor, origin: object) -> Decision:
        if (task := self._doors.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        what = EventName.TAMPER_CLEARED
        if not (task.state.tampered or _TAMPER + door in self._notes):
            return Decision(Code.GRANTED, door)
        if task.state.tamper is Sense.ACTIVE:
            return Decision(Code.TAMPERED, door)
        if code := manual.objection_without_pin(self._building.doors[door], actor, Wish.RELAX):
            return self._deny_by_hand(what, door, actor, origin, code)
        if code := await self._note(what, door, actor, origin, {_TAMPER + door: None}):
            return Decision(code, door)
        if (task := self._doors.get(door)) is None:
            return Decision(Code.STOPPING, door)
        code = await task.post(TamperCleared())
        if code is Code.GRANTED and task.state.tampered:  # opened again meanwhile
            self.happened(door, EventName.DOOR_TAMPERED, None)
            code = Code.TAMPERED
        return Decision(code, door)

    async def set_lockdown(self, on: bool, actor: Actor, origin: object = None) -> Decision:
        """Lock the whole building down, or lift that, durably. A caller may go away.

        A lockdown holds from this call on, before it is written: no door waits for the disk to be shut.
        """
        if not on:
            asked = self._lockdowns
            return await self._order(None, lambda: self._lift_lockdown(asked, actor, origin))
        if self.stopped:
            return Decision(Code.STOPPING)
        self._lockdowns += 1
        self.locked_down = True
        for task in self._doors.values():
            task.post(LockdownBegun())
        return await self._order(None, lambda: self._begin_lockdown(actor, origin))

    async def _begin_lockdown(self, actor: Actor, origin: object) -> Decision:
        if _LOCKDOWN in self._notes:
            return Decision(Code.GRANTED)
        code = await self._note(EventName.LOCKDOWN_ON, None, actor, origin, {_LOCKDOWN: "on"})
        return Decision(code or Code.GRANTED)

    async def _lift_lockdown(self, asked: int, actor: Actor, origin: object) -> Decision:
        what = EventName.LOCKDOWN_OFF
        if not self.locked_down:
            return Decision(Code.GRANTED)
        for door in self._building.doors.values():  # it weakens each of them
            if code := manual.objection_without_pin(door, actor, Wish.RELAX):
                return self._deny_by_hand(what, None, actor, origin, code)
        if asked != self._lockdowns:  # asked for again since
            return Decision(Code.LOCKDOWN)
        if code := await self._note(what, None, actor, origin, {_LOCKDOWN: None}):
            return Decision(code)
        if asked != self._lockdowns:
            return Decision(Code.LOCKDOWN)
        self.locked_down = False
        await asyncio.gather(*(task.post(LockdownLifted()) for task in self._doors.values()))
        return Decision(Code.GRANTED)

    async def confirm_clock(self, actor: Actor, origin: object = None) -> Decision:
        """Take the clock for right although it is earlier than it was: an administrator has looked at it."""
        what = EventName.CLOCK_CONFIRMED
        if not actor.is_trusted:
            return self._deny_by_hand(what, None, actor, origin, Code.MANUAL_NOT_ALLOWED)
        code = await self._note(what, None, actor, origin, {})
        return Decision(code or Code.GRANTED)

    async def _order(self, door: DoorId | None, work: Callable[[], Coroutine[Any, Any, Decision]]) -> Decision:
        """Do one thing by hand after the other, to its end: a caller that goes away stops nothing half-way."""

        async def in_turn() -> Decision:
            async with self._orders.setdefault(door, asyncio.Lock()):
                return Decision(Code.STOPPING, door) if self.stopped else await work()

        return await asyncio.shield(asyncio.get_running_loop().create_task(in_turn()))

    async def _note(
        self, what: EventName, door: DoorId | None, actor: Actor, origin: object, notes: Notes
    ) -> Code | None:
        """Commit what was done by hand and what has to be known of it after a restart; None, or STORE_FAILED."""
        event = self._by_hand(what, door, actor, self._clock(), origin)
        try:
            await self._journal.append(event, _who(actor), notes)
        except StoreFailed:
            return Code.STORE_FAILED
        for name, text in notes.items():
            if text is None:
                self._notes.pop(name, None)
            elif not name.startswith(_RELEASE):  # the door's task keeps that one
                self._notes[name] = text
        return None

    def _deny_by_hand(self, what: EventName, door: DoorId | None, actor: Actor, origin: object, code: Code) -> Decision:
        """Record that something was not done: what it would have been is in the person's part of the entry."""
        now = self._clock()
        event = replace(self._by_hand(EventName.ACCESS_DENIED, door, actor, now, origin), code=code)
        self._telling.record_refusal(event, {**_who(actor), "wanted": what.value}, door, now.boot)
        return Decision(code, door)

    def _by_hand(
        self,
        what: EventName,
        door: DoorId | None,
        actor: Actor,
        now: Now,
        origin: object,
        spend_id: bytes | None = None,
    ) -> AccessEvent:
        return AccessEvent(
            outcome=what,
            code=Code.GRANTED,
            door=door,
            means=actor.means,
            at=now.wall,
            spend_id=spend_id,
            origin=origin,
        )

    # ---- tokens ----

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
        if (task := self._doors.get(door)) is None:  # taken away while a PIN was looked at
            return self.deny(access, Decision(Code.WRONG_DOOR, door))
        if not task.take(access):
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
        task = self._doors.get(access.event.door) if access.event.door is not None else None
        if task is None or access.event.door not in building.doors:
            return Code.WRONG_DOOR
        if self.locked_down:  # the door may not have heard of it yet
            return Code.LOCKDOWN
        if access.token is None:
            return _SHUT.get(task.state.mode)
        key = building.keys.get(access.token.key.kid)
        if key is None or key.issuer != access.token.claims.issuer or key.status is KeyStatus.REVOKED:
            return Code.KEY_REVOKED
        refused = self._judge(access.token, now, is_spent=spent)
        return refused.code if refused else None

    def deny(self, access: Access, refusal: Decision) -> Decision:
        """Record a refusal and return it."""
        if refusal.code is Code.ALREADY_SPENT and access.token is not None:
            if access.token.text in self._history.texts:  # the very text that was spent while this one waited: A.2, 1b
                self.counters[refusal.code] += 1
                return refusal
            self._history.remember_text(access.token.text)
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
        event = replace(access.event, outcome=outcome, code=code, at=self._clock().wall)
        if access.token is None:
            self._telling.record(event)
        else:
            self._telling.record(event, settles=(_spend(access.token), _SETTLED_AS[outcome]))

    def happened(self, door: DoorId, what: EventName, access: Access | None) -> None:
        """Record what happened at a door, after ``access`` if it belongs to one; nothing waits for it."""
        now = self._clock()
        at = now.wall
        if what in _BY_CONTACT and not self._chatter.take(door, now.boot):
            return  # a loose contact must not fill the journal
        if access is not None:
            # In nobody's name: what follows of itself is not what somebody asked for.
            self._telling.record(replace(access.event, outcome=what, at=at, origin=None))
            return
        notes: dict[str, str | None] = {_TAMPER + door: "on"} if what is EventName.DOOR_TAMPERED else {}
        self._notes.update({name: text for name, text in notes.items() if text})
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


_SHUT: Final = {DoorMode.LOCKED_DOWN: Code.LOCKDOWN, DoorMode.BLOCKED: Code.DOOR_BLOCKED}

_MODE_EVENTS: Final = {
    DoorMode.NORMAL: EventName.DOOR_NORMAL,
    DoorMode.UNLOCKED: EventName.DOOR_UNLOCKED,
    DoorMode.BLOCKED: EventName.DOOR_BLOCKED,
    DoorMode.LOCKED_DOWN: EventName.LOCKDOWN_ON,
}

_WISHES: Final = {
    (DoorMode.NORMAL, DoorMode.UNLOCKED): Wish.OPEN,
    (DoorMode.BLOCKED, DoorMode.NORMAL): Wish.RELAX,
}
"""What a change of mode weakens; the others make a door safer, and are anybody's."""

_SETTLED_AS: Final = {
    EventName.DOOR_RELEASED: SpentState.GRANTED,
    EventName.DOOR_ALREADY_UNLOCKED: SpentState.GRANTED,
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


def _who(actor: Actor) -> Person:
    return {"user_id": actor.user_id, "user": actor.name}
