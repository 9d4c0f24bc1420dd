"""The strike's relay and the spends that may move it: each of them once (protocol B.3).

Twenty spends a minute at the most, over power cuts too, so that sixty-four remembered ones reach back far enough; and
none at all for 125 s after a power-up that lost them. A spend is done only if its pulse was seen to end: one that a
power cut interrupted stays where it was for good, and what became of it is for nobody to guess.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .effects import StartPulse
from .log import Progress, Spends
from .wire import NO_SPEND, Command, EventKind, Op, Relay, Result

LOCKOUT_TIME: Final = 125.0
SHORTEST_PULSE: Final = 0.5
LONGEST_PULSE: Final = 10.0


class Spending:
    """What has been spent, and what the relay does about it. Seconds are the caller's monotonic ones."""

    def __init__(self, spends: Spends, now: float) -> None:
        """Begin after power-up: nothing moves."""
        self.spends = spends
        self.relay = Relay.LOCKED
        self.lockout_until = now + LOCKOUT_TIME if spends.holed else None
        self._booted = now
        self._pulses = 0
        """That were asked for."""
        self._pulse: int | None = None
        """The one whose end will be the end of the present release; None: there is none, or it is held."""
        self._running: frozenset[bytes] = frozenset()
        """The spends that the present release is for; after a power-up there is none."""
        self._last = NO_SPEND

    def query(self, spend_id: bytes) -> Result:
        """Return what to say of a spend besides its progress."""
        found = self.spends.find(spend_id)
        if found is None:
            # Unseen means nothing while the memory is known to have a hole.
            return Result.LOCKOUT if self.spends.holed else Result.OK
        return Result.RELAY_FAULT if found.progress is Progress.FAILED else Result.OK

    def record(self, command: Command, now: float) -> Result | None:
        """Record a spend that may move the relay, which has to be on the disk before it does; or return why not."""
        if command.spend_id == NO_SPEND:
            return Result.BAD_OP
        if (found := self.spends.find(command.spend_id)) is not None:
            return Result.RELAY_FAULT if found.progress is Progress.FAILED else Result.DUPLICATE
        if self.spends.holed:
            return Result.LOCKOUT
        uptime = int((now - self._booted) * 1000)
        if self.spends.too_many(uptime):
            return Result.RATE
        held = command.op == Op.UNLOCK and self.relay is Relay.HELD
        self.spends = self.spends.recorded(command.spend_id, uptime, Progress.COMPLETE if held else Progress.RECORDED)
        return None

    def pulse(self, command: Command) -> StartPulse:
        """Return the pulse to start, capped whatever the client wants."""
        self._pulses += 1
        return StartPulse(min(max(command.pulse_cs / 100, SHORTEST_PULSE), LONGEST_PULSE), self._pulses)

    def relay_answered(self, command: Command, *, moved: bool) -> EventKind | None:
        """Take the relay's answer to a command; return what to tell of, if anything happened."""
        if not moved:
            self.relay = Relay.FAULT
            if command.op != Op.RELOCK:
                self.spends = self.spends.advanced(frozenset({command.spend_id}), Progress.FAILED)
            return None
        if command.op == Op.RELOCK:
            return self._relocked()
        if command.op == Op.HOLD:
            self.relay, self._pulse = Relay.HELD, None
        else:
            self.relay, self._pulse = Relay.PULSING, self._pulses
        self._running |= {command.spend_id}
        self._last = command.spend_id
        self.spends = self.spends.advanced(self._running, Progress.RELAY_ON)
        return EventKind.RELAY_ON

    def pulse_over(self, number: int) -> EventKind | None:
        """The relay's timer ran out; return what to tell of, if it is the present pulse's."""
        return self._relocked() if number == self._pulse else None

    def elapse(self, now: float) -> None:
        """End the lockout once nothing that was forgotten can come back."""
        if self.lockout_until is not None and now >= self.lockout_until:
            self.lockout_until = None
            self.spends = replace(self.spends, holed=False)

    @property
    def last(self) -> bytes:
        """The spend that the newest release is or was for."""
        return self._last

    def _relocked(self) -> EventKind | None:
        self.relay, self._pulse = Relay.LOCKED, None
        over, self._running = self._running, frozenset()
        self.spends = self.spends.advanced(over, Progress.COMPLETE)
        return EventKind.RELAY_OFF if over else None
