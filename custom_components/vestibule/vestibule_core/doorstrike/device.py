"""The strike without its radio: what it keeps, what its inputs say, and the effects that gather until they are done.

Whatever changes here is persisted before anybody is told of it. What it refuses to do: take damage for a first start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, assert_never

from .effects import Effect, Persist
from .keyring import Keyring
from .log import Log, Spends
from .memory import Part, Unreadable, decode_log, decode_slots, encode_log, encode_slots
from .pairing import Label
from .senses import Senses
from .slots import Slots
from .spending import Spending
from .wire import NO_SPEND, VERSION, Advertisement, Caps, Contact, EventKind, Flags, Result, SpendState, State

PAIRING_HOLD: Final = 3.0
"""Seconds that the button on the secure side has to be held."""
RESET_HOLD: Final = 10.0
"""The same, with the cover open, for a factory reset."""


@dataclass(frozen=True, slots=True)
class ButtonHeld:
    """The button on the secure side has been held this long; told at 3 s and, if it goes on, at 10 s."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ContactIs:
    """The door's contact says this."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class CoverIs:
    """The cover's switch says this."""

    open: bool


@dataclass(frozen=True, slots=True)
class BatteryIs:
    """The battery has this much left; None: mains, or unknown."""

    percent: int | None


@dataclass(frozen=True, slots=True)
class BoltIs:
    """The lock monitor says this."""

    secured: bool


@dataclass(frozen=True, slots=True)
class ExitRequested:
    """Somebody on the secure side wants out. Told, and nothing else: the way out is mechanical."""


type Input = ButtonHeld | ContactIs | CoverIs | BatteryIs | BoltIs | ExitRequested


class Device:
    """One strike's memory and inputs."""

    def __init__(
        self, label: Label, caps: Caps, kept: Mapping[Part, bytes], random: Callable[[int], bytes], now: float
    ) -> None:
        """Power up with the pieces that were persisted; none at all is the first start of its life.

        Slots that are lost or torn leave a strike that nobody can use before a factory reset, not one in factory state:
        damage gives no rights. A log that is lost or torn locks out (row 80).
        """
        try:
            self._kept_slots: Slots | None = decode_slots(kept[Part.SLOTS])
        except KeyError, Unreadable:
            self._kept_slots = None
        try:
            log = decode_log(kept[Part.LOG])
        except KeyError, Unreadable:
            log = Log(Spends(holed=bool(kept)))
        log = log.powered_up()
        self._kept_log: Log | None = None
        self.label, self.caps, self._booted = label, caps, now
        self.keyring = Keyring(label, self._kept_slots or Slots(factory=not kept), random)
        self.spending = Spending(log.spends, now)
        self.history = log.history
        self._senses = Senses()
        self.effects: list[Effect] = []
        # Slots before the log: at the first start, a power cut in between must not look like lost slots.
        self.persist_slots()
        self.event(EventKind.BOOT, now, self.history.boots & 0xFF)

    def advertisement(self, told: int) -> Advertisement:
        """Return what to advertise while the events up to ``told`` have been heard."""
        flags = (
            Flags.PAIRING * (self.keyring.pairing_until is not None)
            | Flags.ATTENTION * (self.history.seq > told)
            | Flags.LOW_BATTERY * self._senses.battery_low
            | Flags.FACTORY * self.keyring.slots.factory
        )
        return Advertisement(VERSION, Flags(flags), self.history.seq & 0xFFFF, self.label.strike_id[:6])

    def state(self, result: Result, asked: bytes) -> State:
        """Return the state with what is known of a spend."""
        spend = self.spending.spends.find(asked)
        return State(
            result=result,
            relay=self.spending.relay,
            contact=self._senses.contact,
            tampered=self.history.tampered,
            bolt_secured=self._senses.bolt_secured,
            spend_state=SpendState.UNSEEN if spend is None else spend.progress.told,
            slots_gen=self.keyring.slots.generation,
            battery=self._senses.battery,
            evt_seq=self.history.seq,
            spend_id=asked if spend is None else spend.spend_id,
        )

    def sensed(self, what: Input, now: float) -> None:
        """Take an input. None of them moves the relay."""
        match what:
            case ButtonHeld(seconds) if seconds >= RESET_HOLD:
                # Without a tamper switch the cover cannot be known, and the button alone has to do.
                if self._senses.cover_open or Caps.TAMPER not in self.caps:
                    self.event(EventKind.FACTORY_RESET, now)
                    self.keyring.reset()
            case ButtonHeld(seconds):
                if seconds >= PAIRING_HOLD:
                    self.event(EventKind.PAIRING_OPENED, now)
                    self.keyring.open_pairing(now)
                    self._clear_tamper(now)
            case ContactIs(contact):
                self.event(self._senses.contact_says(contact), now)
            case CoverIs(is_open):
                if is_open and not self._senses.cover_open:
                    self.history = replace(self.history, tampered=True)
                    self.event(EventKind.TAMPER, now)
                self._senses.cover_open = is_open
            case BatteryIs(percent):
                self.event(self._senses.battery_says(percent), now, percent or 0)
            case BoltIs(secured):
                self._senses.bolt_secured = secured
            case ExitRequested():
                self.event(EventKind.REX, now)
            case _:
                assert_never(what)

    def _clear_tamper(self, now: float) -> None:
        """Somebody on the secure side has looked, and has put the cover back."""
        if self.history.tampered and not self._senses.cover_open:
            self.history = replace(self.history, tampered=False)
            self.event(EventKind.TAMPER_CLEARED, now)

    def uptime_ms(self, now: float) -> int:
        """Return the milliseconds since power-up; they start over after 49 days."""
        return int((now - self._booted) * 1000) & 0xFFFFFFFF

    def event(self, kind: EventKind | None, now: float, value: int = 0, *, spend_id: bytes = NO_SPEND) -> None:
        """Something happened; None: nothing did."""
        if kind is not None:
            self.history = self.history.happened(kind, self.uptime_ms(now), value, spend_id)

    def persist(self) -> None:
        """Keep what has changed. The log first: who cuts the power in between must not have made a slot that nobody
        hears of (row 71).
        """
        self.persist_log()
        self.persist_slots()

    def persist_log(self) -> None:
        """Keep spends and events, if they have changed."""
        log = Log(self.spending.spends, self.history)
        if log != self._kept_log:
            self._kept_log = log
            self.effects.append(Persist(Part.LOG, encode_log(log)))

    def persist_slots(self) -> None:
        """Keep the slots, if they have changed."""
        if self.keyring.slots != self._kept_slots:
            self._kept_slots = self.keyring.slots
            self.effects.append(Persist(Part.SLOTS, encode_slots(self._kept_slots)))
