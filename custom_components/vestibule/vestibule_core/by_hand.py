"""What people and automations do by hand: opening, modes, deliveries, a lockdown, trusting a door or the clock again.

Each wish is held against the door's own rule (manual.py), is recorded with who had it, and is done to its end although
its caller goes away. What shuts a door holds at once and is confirmed when it is on the disk; what opens one is on the
disk first (ADR 7). What this file refuses to do: lift a lockdown that was asked for again meanwhile, or say that
something is so before a restart would find it so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from . import manual, new_key
from .door import DeliveriesChosen, DoorState, LockdownBegun, LockdownLifted, ModeChosen, Opener, TamperCleared
from .door_task import Access, DoorTask, always
from .errors import StoreFailed
from .journal import Journal
from .leaf import Person
from .manual import Wish
from .model import AccessEvent, Actor, Code, Decision, Door, DoorId, DoorMode, EventName, Now, Sense
from .policy import Building
from .telling import Telling
from .writer import Notes, noted_release

_LOCKDOWN: Final = "lockdown"
_MODE: Final = "mode:"
_DELIVERIES: Final = "deliveries:"
_TAMPER: Final = "tamper:"
_RELEASE: Final = "release:"
_RESTORED: Final = "restored"
_DISPUTED: Final = "disputed"
"""Names of notes in the journal; those that end in a colon are followed by a door's id."""
_YES: Final = "yes"


MOST_RECEIPTS: Final = 8
"""Receipts that a new epoch names."""


class House(Protocol):
    """What this file asks of the controller."""

    @property
    def building(self) -> Building:
        """What was set up."""
        ...

    @property
    def tasks(self) -> Mapping[DoorId, DoorTask]:
        """The doors at work."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether requests are refused for good."""
        ...

    def now(self) -> Now:
        """Read the clock."""
        ...

    def deny(self, access: Access, refusal: Decision) -> Decision:
        """Record a refusal and return it."""
        ...

    async def wait_at_door(self, door: DoorId, access: Access) -> Decision:
        """Wait for the door's turn; return what came of it."""
        ...

    async def note_ended(self, door: DoorId, ids: Sequence[bytes]) -> None:
        """Note that releases which are ours to end are over."""
        ...

    def happened(self, door: DoorId, what: EventName, access: Access | None) -> None:
        """Record what happened at a door."""
        ...


class ByHand:
    """The wishes of people and automations in one building, and what was shut by them."""

    def __init__(self, house: House, journal: Journal, telling: Telling, random: Callable[[int], bytes]) -> None:
        """Begin with nothing shut, until ``remember``."""
        self.locked_down = False
        """Whether the building is locked down."""
        self._house = house
        self._journal = journal
        self._telling = telling
        self._random = random
        self._notes: dict[str, str] = {}
        """What the journal has noted: modes, a lockdown, tampering, deliveries that are off."""
        self._orders: dict[DoorId | None, asyncio.Lock] = {}
        """One wish by hand at a time, for each door and for the building."""
        self._lockdowns = 0
        """How often a lockdown was asked for: one that is lifted must not take a later one with it."""
        self._pin_tries = manual.pin_tries()
        self._looked_at: set[str] = set()
        """Receipts that a new epoch names since the start."""

    # ---- what is known at start ----

    def remember(self, notes: dict[str, str]) -> None:
        """Take what the journal has noted."""
        self._notes = notes
        self.locked_down = _LOCKDOWN in notes

    def left_open(self, door: DoorId) -> list[bytes]:
        """Return the ids of releases of ``door`` that the program did not live to end; once."""
        noted = self._notes.pop(_RELEASE + door, None)
        return [bytes.fromhex(noted)] if noted else []

    def first_state(self, door: DoorId) -> DoorState:
        """Return the state in which a door begins: what was shut stays shut, and nothing is held open (protocol D)."""
        mode = DoorMode.BLOCKED if _MODE + door in self._notes else DoorMode.NORMAL
        return DoorState(
            mode=DoorMode.LOCKED_DOWN if self.locked_down else mode,
            after_lockdown=mode if self.locked_down else DoorMode.NORMAL,
            accepts_deliveries=_DELIVERIES + door not in self._notes,
            tampered=_TAMPER + door in self._notes,
        )

    @property
    def restored(self) -> bool:
        """Whether the journal said that it was being copied, and no administrator has said that he knows.

        It was restored from a backup, or the program was ended in the middle of one: the files are the same (ADR 13).
        """
        return _RESTORED in self._notes

    @property
    def restored_upto(self) -> float | None:
        """The newest time in that journal, in seconds since 1970; None: it had no entry, or that was not noted."""
        upto = self._notes.get(_RESTORED, _YES)
        return None if upto == _YES else float(upto)

    def found_restored(self, newest: float) -> Notes:
        """Return what has to be noted of a journal that says it is being copied; ``newest``: its newest time, or 0."""
        self._notes[_RESTORED] = repr(newest) if newest else _YES
        return {_RESTORED: self._notes[_RESTORED]}

    @property
    def disputed(self) -> bool:
        """Whether somebody holds more or other entries of the journal than are in it, and no administrator has looked.

        Until then tokens are refused, and only administrators open by hand (protocol D).
        """
        return _DISPUTED in self._notes

    def dispute(self, receipt: str) -> None:
        """Take note of a checkpoint of this controller that its journal does not go on from; holds at once.

        ``receipt`` is that checkpoint, signed by this controller (receipts.py has looked at that).
        """
        known = self._receipts
        if receipt in known or len(known) >= MOST_RECEIPTS:
            return
        if receipt in self._looked_at:  # by an administrator, while somebody else was still looking
            return
        notes = {_DISPUTED: json.dumps([*known, receipt])}
        self._notes |= notes
        event = AccessEvent(outcome=EventName.JOURNAL_DISPUTED, door=None, at=self._house.now().wall)
        if known:
            self._telling.note(notes)
        else:
            self._telling.record(event, notes=notes)

    @property
    def _receipts(self) -> list[str]:
        return list(json.loads(self._notes.get(_DISPUTED, "[]")))

    def record_new_key(self) -> None:
        """Record who has confirmed that the journal goes on with a new key, once. To be called before anything else is
        recorded: by what it has signed, a key that came back is told from a new one.
        """
        if (noted := self._notes.pop(new_key.CONFIRMED, None)) is None:
            return
        notes: Notes = {new_key.CONFIRMED: None}
        if new_key.has_signed(self._journal.signer.verifier, self._journal.checkpoint):
            self._telling.note(notes)
            return
        actor = new_key.confirmed_by(noted)
        event = self._event(EventName.KEY_CONFIRMED, None, actor, self._house.now(), None)
        self._telling.record(event, _who(actor), notes=notes)

    def tampered(self, door: DoorId) -> Notes:
        """Return what has to be noted of a door that was tampered with."""
        self._notes[_TAMPER + door] = "on"
        return {_TAMPER + door: "on"}

    # ---- the wishes ----

    async def open(
        self,
        door: DoorId,
        actor: Actor,
        origin: object = None,
        *,
        pin: str | None = None,
        is_wanted: Callable[[], bool] = always,
    ) -> Decision:
        """Open a door for a person in Home Assistant or an automation; recorded with who it was.

        If the journal has failed, an administrator is let in all the same, unrecorded (protocol D). LATE if it is not
        wanted any more before anything is recorded.
        """
        now = self._house.now()
        if (ours := self._house.building.doors.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        event = self._event(EventName.ACCESS_GRANTED, door, actor, now, origin, spend_id=self._random(16))
        access = Access(event, _opener(actor), now, _who(actor), may_go_unrecorded=actor.is_admin, is_wanted=is_wanted)
        code = manual.objection(ours, actor, Wish.OPEN) or self._dispute_objection(actor)
        if code := code or await self._pin_objection(ours, actor, pin):
            return self._house.deny(access, Decision(code, door))
        return await self._house.wait_at_door(door, access)

    def _dispute_objection(self, actor: Actor) -> Code | None:
        return Code.JOURNAL_DISPUTED if self.disputed and not actor.is_admin else None

    async def _pin_objection(self, door: Door, actor: Actor, typed: str | None) -> Code | None:
        if door.pin is None:
            return None
        if not typed:
            return Code.PIN_MISSING
        who, boot = (door.id, actor.user_id), self._house.now().boot
        # Taken before it is looked at, and given back if it is right: else many at once would all be looked at.
        if not self._pin_tries.take(who, boot):
            return Code.PIN_LOCKED
        if not await asyncio.to_thread(door.pin.matches, typed):
            return Code.PIN_WRONG
        self._pin_tries.give_back(who)
        return None

    async def set_mode(
        self,
        door: DoorId,
        mode: DoorMode,
        actor: Actor,
        origin: object = None,
        *,
        is_wanted: Callable[[], bool] = always,
    ) -> Decision:
        """Set a door's mode, durably; LOCKED_DOWN is the building's (``set_lockdown``). A caller may go away; only what
        holds a door open is LATE if it is not wanted any more before anything is recorded.
        """
        return await self._order(door, lambda: self._set_mode(door, mode, actor, origin, is_wanted))

    async def _set_mode(
        self, door: DoorId, mode: DoorMode, actor: Actor, origin: object, is_wanted: Callable[[], bool]
    ) -> Decision:
        if (task := self._house.tasks.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        before = DoorMode.LOCKED_DOWN if self.locked_down else task.state.mode  # it may not have heard of it yet
        what = _MODE_EVENTS[mode]
        is_noted = (_MODE + door in self._notes) is (mode is DoorMode.BLOCKED) or mode is DoorMode.LOCKED_DOWN
        if mode is before and is_noted:
            return Decision(Code.GRANTED, door)
        if mode is DoorMode.LOCKED_DOWN or (mode is DoorMode.UNLOCKED and not task.can_hold):
            return self._deny(what, door, actor, origin, Code.MODE_NOT_POSSIBLE)
        if before is DoorMode.LOCKED_DOWN:
            return self._deny(what, door, actor, origin, Code.LOCKDOWN)
        if before is DoorMode.BLOCKED and mode is DoorMode.UNLOCKED:
            # Not in one step: if the strike does not hold, the door would be neither.
            return self._deny(what, door, actor, origin, Code.DOOR_BLOCKED)
        wish = _WISHES.get((before, mode))
        if wish and (code := manual.objection_without_pin(self._house.building.doors[door], actor, wish)):
            return self._deny(what, door, actor, origin, code)
        if wish is Wish.OPEN and (code := self._dispute_objection(actor)):
            return self._deny(what, door, actor, origin, code)
        if wish is Wish.OPEN and not is_wanted():
            return self._deny(what, door, actor, origin, Code.LATE)
        held = self._random(16) if mode is DoorMode.UNLOCKED else None
        chosen = ModeChosen(mode, _opener(actor))
        notes = {_MODE + door: mode.value if mode is DoorMode.BLOCKED else None}
        if held is not None:
            notes |= noted_release(door, held)
        if wish is None:  # makes the door safer: at once, whatever the disk does
            task.post(chosen)
        if code := await self._note(what, door, actor, origin, notes):
            return Decision(code, door)
        task = self._house.tasks.get(door)  # it may have been taken away, and added again
        code = await task.post(chosen, held=held, origin=origin) if task is not None else Code.STOPPING
        if task is None or code is Code.STOPPING:
            if held is not None:
                await self._house.note_ended(door, [held])
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
        if (task := self._house.tasks.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        what = EventName.DELIVERIES_ON if accepted else EventName.DELIVERIES_OFF
        is_noted = (_DELIVERIES + door in self._notes) is not accepted
        if task.state.accepts_deliveries is accepted and is_noted:
            return Decision(Code.GRANTED, door)
        if not accepted:
            task.post(DeliveriesChosen(False))
        elif code := manual.objection_without_pin(self._house.building.doors[door], actor, Wish.RELAX):
            return self._deny(what, door, actor, origin, code)
        if code := await self._note(what, door, actor, origin, {_DELIVERIES + door: None if accepted else "off"}):
            return Decision(code, door)
        if (task := self._house.tasks.get(door)) is None:
            return Decision(Code.STOPPING, door)
        return Decision(await task.post(DeliveriesChosen(accepted)), door)

    async def clear_tamper(self, door: DoorId, actor: Actor, origin: object = None) -> Decision:
        """Trust a door again, because somebody has looked at it; TAMPERED while its sensor still says so."""
        return await self._order(door, lambda: self._clear_tamper(door, actor, origin))

    async def _clear_tamper(self, door: DoorId, actor: Actor, origin: object) -> Decision:
        if (task := self._house.tasks.get(door)) is None:
            return Decision(Code.WRONG_DOOR, door)
        what = EventName.TAMPER_CLEARED
        if not (task.state.tampered or _TAMPER + door in self._notes):
            return Decision(Code.GRANTED, door)
        if task.state.tamper is Sense.ACTIVE:
            return Decision(Code.TAMPERED, door)
        if code := manual.objection_without_pin(self._house.building.doors[door], actor, Wish.RELAX):
            return self._deny(what, door, actor, origin, code)
        if code := await self._note(what, door, actor, origin, {_TAMPER + door: None}):
            return Decision(code, door)
        if (task := self._house.tasks.get(door)) is None:
            return Decision(Code.STOPPING, door)
        code = await task.post(TamperCleared())
        if code is Code.GRANTED and task.state.tampered:  # opened again meanwhile
            self._house.happened(door, EventName.DOOR_TAMPERED, None)
            code = Code.TAMPERED
        return Decision(code, door)

    async def set_lockdown(self, on: bool, actor: Actor, origin: object = None) -> Decision:
        """Lock the whole building down, or lift that, durably. A caller may go away.

        A lockdown holds from this call on, before it is written: no door waits for the disk to be shut.
        """
        if not on:
            asked = self._lockdowns
            return await self._order(None, lambda: self._lift_lockdown(asked, actor, origin))
        if self._house.stopped:
            return Decision(Code.STOPPING)
        self._lockdowns += 1
        self.locked_down = True
        for task in self._house.tasks.values():
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
        for door in self._house.building.doors.values():  # it weakens each of them
            if code := manual.objection_without_pin(door, actor, Wish.RELAX):
                return self._deny(what, None, actor, origin, code)
        if asked != self._lockdowns:  # asked for again since
            return Decision(Code.LOCKDOWN)
        if code := await self._note(what, None, actor, origin, {_LOCKDOWN: None}):
            return Decision(code)
        if asked != self._lockdowns:
            return Decision(Code.LOCKDOWN)
        self.locked_down = False
        await asyncio.gather(*(task.post(LockdownLifted()) for task in self._house.tasks.values()))
        return Decision(Code.GRANTED)

    async def confirm_clock(self, actor: Actor, origin: object = None) -> Decision:
        """Take the clock for right although it is earlier than it was: an administrator has looked at it."""
        what = EventName.CLOCK_CONFIRMED
        if not actor.is_trusted:
            return self._deny(what, None, actor, origin, Code.MANUAL_NOT_ALLOWED)
        code = await self._note(what, None, actor, origin, {})
        return Decision(code or Code.GRANTED)

    async def confirm_restore(self, actor: Actor, origin: object = None) -> Decision:
        """Take note that the journal was restored from a backup, or that a backup was cut short."""
        what = EventName.RESTORE_CONFIRMED
        if not actor.is_trusted:
            return self._deny(what, None, actor, origin, Code.MANUAL_NOT_ALLOWED)
        code = await self._note(what, None, actor, origin, {_RESTORED: None})
        return Decision(code or Code.GRANTED)

    async def confirm_journal(self, actor: Actor, origin: object = None) -> Decision:
        """Go on with a disputed journal, as a new epoch: an administrator has looked at what is missing in it."""
        return await self._order(None, lambda: self._begin_epoch(actor, origin))

    async def _begin_epoch(self, actor: Actor, origin: object) -> Decision:
        what = EventName.EPOCH_BEGUN
        if not actor.is_trusted:
            return self._deny(what, None, actor, origin, Code.MANUAL_NOT_ALLOWED)
        if not (receipts := self._receipts):
            return Decision(Code.GRANTED)
        event = self._event(what, None, actor, self._house.now(), origin)
        try:
            await self._journal.begin_epoch(event, _who(actor), {_DISPUTED: None}, receipts)
        except StoreFailed:
            return Decision(Code.STORE_FAILED)
        self._looked_at |= set(receipts)
        if receipts == self._receipts:  # another one that came meanwhile is to be looked at as well
            del self._notes[_DISPUTED]
        return Decision(Code.GRANTED)

    async def note(self, what: EventName, actor: Actor, origin: object = None, *, named: bool = True) -> Decision:
        """Record what an administrator did with the journal itself; without who it was unless ``named``."""
        if not actor.is_trusted:
            return self._deny(what, None, actor, origin, Code.MANUAL_NOT_ALLOWED)
        code = await self._note(what, None, actor, origin, {}, named=named)
        return Decision(code or Code.GRANTED)

    def record_of(
        self, what: EventName, actor: Actor, origin: object, *, named: bool
    ) -> tuple[AccessEvent, Person | None]:
        """Return what is to be written of what an administrator does with the journal itself."""
        return self._event(what, None, actor, self._house.now(), origin), _who(actor) if named else None

    def forget(self, user_id: str) -> None:
        """Forget the wrong PINs of a person."""
        self._pin_tries.forget(lambda who: who[1] == user_id)

    async def _order(self, door: DoorId | None, work: Callable[[], Coroutine[Any, Any, Decision]]) -> Decision:
        """Do one thing by hand after the other, to its end: a caller that goes away stops nothing half-way."""

        async def in_turn() -> Decision:
            async with self._orders.setdefault(door, asyncio.Lock()):
                return Decision(Code.STOPPING, door) if self._house.stopped else await work()

        return await asyncio.shield(asyncio.get_running_loop().create_task(in_turn()))

    async def _note(
        self,
        what: EventName,
        door: DoorId | None,
        actor: Actor,
        origin: object,
        notes: Notes,
        *,
        named: bool = True,
    ) -> Code | None:
        """Commit what was done by hand and what has to be known of it after a restart; None, or STORE_FAILED."""
        event = self._event(what, door, actor, self._house.now(), origin)
        try:
            await self._journal.append(event, _who(actor) if named else None, notes)
        except StoreFailed:
            return Code.STORE_FAILED
        for name, text in notes.items():
            if text is None:
                self._notes.pop(name, None)
            elif not name.startswith(_RELEASE):  # the door's task keeps that one
                self._notes[name] = text
        return None

    def _deny(self, what: EventName, door: DoorId | None, actor: Actor, origin: object, code: Code) -> Decision:
        """Record that something was not done: what it would have been is in the person's part of the entry."""
        now = self._house.now()
        event = replace(self._event(EventName.ACCESS_DENIED, door, actor, now, origin), code=code)
        self._telling.record_refusal(event, {**_who(actor), "wanted": what.value}, door, now.boot)
        return Decision(code, door)

    def _event(
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


def _opener(actor: Actor) -> Opener | None:
    return None if actor.name is None else Opener(actor.name, actor.user_id)


def _who(actor: Actor) -> Person:
    return {"user_id": actor.user_id, "user": actor.name}
