"""The protocol's machine at work: what happens goes in, the effects that come out are performed, in order.

All of it in the event loop's thread and without an ``await``: a disk that takes its time holds up the radio, which has
to wait for it anyhow, and nothing comes between an effect and the next one. Only the relay's timer is elsewhere.

What it refuses to do: go on after a failed write. Then it performs nothing more, ends every link, switches the relay
off and powers up anew from what the disk holds, as soon as that takes the new state.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, assert_never

from vestibule_core.doorstrike.device import BoltIs, ButtonHeld, ContactIs, CoverIs, Input
from vestibule_core.doorstrike.effects import (
    Disconnect,
    Effect,
    HoldRelay,
    Notify,
    Persist,
    StartPulse,
    StopRelay,
)
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.peripheral import Peripheral
from vestibule_core.doorstrike.wire import Advertisement, Caps

from .relay import Output, Relay
from .store import Store, StoreFailed

FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 60.0
"""Seconds until it powers up anew after a failed write; doubled each time."""

_LOG: Final = logging.getLogger(__name__)
_LASTING: Final = (ContactIs, CoverIs, BoltIs)
"""Inputs that say how something is, and are told again after a new start."""


class Air(Protocol):
    """The radio's side. None of it calls back before it has returned."""

    def notify(self, link: int, fragments: Sequence[bytes]) -> None:
        """Send these to a link that may be gone, in order."""

    def hang_up(self, link: int) -> None:
        """Let go of a link, after what was to be sent on it."""

    def hang_up_all(self) -> None:
        """Let go of every link."""

    def advertise(self, advertisement: Advertisement | None) -> None:
        """Advertise this from now on; None: nothing."""


class Shell:
    """One strike at work. ``failed`` gets the exception if something happens that must not: end the process then."""

    def __init__(
        self,
        label: Label,
        caps: Caps,
        store: Store,
        output: Output,
        air: Air,
        *,
        shortest: float,
        longest: float,
        light: Output | None = None,
    ) -> None:
        """Take what the box has; ``output`` is off. Nothing happens before ``power_up``."""
        self._label, self._caps, self._store, self._air, self._light = label, caps, store, air, light
        self._shortest, self._longest = shortest, longest
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._relay = Relay(output, self._over)
        self._machine: Peripheral | None = None
        self._advertised: Advertisement | None = None
        self._lit = False
        self._said: dict[type[Input], Input] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._retry = FIRST_RETRY

    def power_up(self) -> None:
        """Begin with what the disk holds; raise StoreFailed."""
        kept = self._store.load()
        self._machine = Peripheral(self._label, self._caps, kept, os.urandom, time.monotonic())
        self._perform_all(self._machine.boot())
        self._retry = FIRST_RETRY
        self._look()
        for what in self._said.values():
            self.sensed(what)

    def close(self) -> None:
        """Switch everything off. Blocks until the relay is."""
        self._machine = None
        if self._timer is not None:
            self._timer.cancel()
        self._relay.close()
        self._lit = False
        self._shine()

    # ---- what happens ----

    def connected(self, link: int) -> None:
        """There is a new link."""
        if self._machine is None:
            self._air.hang_up(link)
        self._happened(lambda machine, now: machine.connected(link, now))

    def subscribed(self, link: int, size: int) -> None:
        """A link wants notifications of at most so many bytes."""
        self._happened(lambda machine, now: machine.subscribed(link, size, now))

    def fragment(self, link: int, fragment: bytes) -> None:
        """A link wrote something."""
        self._happened(lambda machine, now: machine.fragment(link, fragment, now))

    def disconnected(self, link: int) -> None:
        """A link is gone."""
        self._happened(lambda machine, now: machine.disconnected(link, now))

    def sensed(self, what: Input) -> None:
        """An input says something."""
        if isinstance(what, ButtonHeld):
            _LOG.info("button held seconds=%g", what.seconds)
        elif isinstance(what, _LASTING):
            self._said[type(what)] = what
        self._happened(lambda machine, now: machine.sensed(what, now))

    def _over(self, number: int) -> None:
        """In the relay's thread."""
        self._loop.call_soon_threadsafe(self._pulse_over, number)

    def _pulse_over(self, number: int) -> None:
        _LOG.info("relay off")
        self._happened(lambda machine, now: machine.pulse_complete(number, now))

    def _elapsed(self) -> None:
        self._happened(lambda machine, now: machine.elapsed(now))

    # ---- effects ----

    def _happened(self, decide: Callable[[Peripheral, float], list[Effect]]) -> None:
        if self._machine is None:
            return
        try:
            self._perform_all(decide(self._machine, time.monotonic()))
            self._look()
        except StoreFailed as err:
            self._start_anew(err)
        except Exception as err:  # noqa: BLE001 - Bumble would go on with a machine that does not know where it is
            self._machine = None
            if not self.failed.done():
                self.failed.set_exception(err)

    def _perform_all(self, effects: Sequence[Effect]) -> None:
        moved: bool | None = None
        for effect in effects:
            answer = self._perform(effect)
            moved = moved if answer is None else answer
        if moved is not None:
            assert self._machine is not None
            answered = self._machine.relay_done if moved else self._machine.relay_failed
            self._perform_all(answered(time.monotonic()))

    def _perform(self, effect: Effect) -> bool | None:
        """Perform one effect; return what the relay says if it is one for the relay. Raises StoreFailed."""
        match effect:
            case Persist(part, contents):
                self._store.keep(part, contents)
            case StartPulse(seconds, number):
                seconds = min(max(seconds, self._shortest), self._longest)
                _LOG.info("relay on seconds=%g", seconds)
                return self._relay.pulse(seconds, number)
            case HoldRelay():
                _LOG.info("relay held")
                return self._relay.hold()
            case StopRelay():
                _LOG.info("relay off")
                return self._relay.off()
            case Notify(link, fragments):
                self._air.notify(link, fragments)
            case Disconnect(link):
                self._air.hang_up(link)
            case _:
                assert_never(effect)
        return None

    def _look(self) -> None:
        """Bring the advertisement, the light and the timer in line with the machine."""
        assert self._machine is not None
        if (advertisement := self._machine.advertisement) != self._advertised:
            self._advertised = advertisement
            self._air.advertise(advertisement)
        if (lit := self._machine.pairing_open) is not self._lit:
            self._lit = lit
            _LOG.info("pairing %s", "open" if lit else "closed")
            self._shine()
        if self._timer is not None:
            self._timer.cancel()
        due = self._machine.due
        now = time.monotonic()
        self._timer = None if due is None else self._loop.call_later(max(0.0, due - now), self._elapsed)

    def _shine(self) -> None:
        if self._light is not None:
            try:
                self._light.write(self._lit)
            except OSError as err:
                _LOG.warning("light failed error=%s", err.strerror)

    def _start_anew(self, why: StoreFailed) -> None:
        _LOG.error("disk failed error=%s retry_in=%g", why, self._retry)
        self._machine = None
        if self._timer is not None:
            self._timer.cancel()
        self._advertised = None
        self._air.advertise(None)
        self._air.hang_up_all()
        self._relay.off()
        self._timer = self._loop.call_later(self._retry, self._power_up_again)
        self._retry = min(2 * self._retry, LONGEST_RETRY)

    def _power_up_again(self) -> None:
        try:
            self.power_up()
        except StoreFailed as err:
            self._start_anew(err)
