"""The strike driver of DoorStrike/1: one paired strike, over whatever GATT client reaches it.

It implements the core's ``Strike``. There is one connection at a time, which everybody shares who wants something: an
unlock joins a poll's instead of waiting for its end. Without ``keep_connected`` it is closed as soon as nobody needs
it: after a release when the pulse is complete and its events are here.

- ``reach`` connects, subscribes and waits for HELLO, so that nothing is spent on a strike that would not hear it.
- ``release`` sends the spend once. Without an answer its outcome is unknown until a QUERY says what became of it
  (outcome.py). That goes on after the caller has given up, and then shows in the reading and the events.
- A state is authentic or none: without a connection it is dropped after a while, and at once when the strike cannot be
  connected to or is ``gone``. Nothing is ever taken from an advertisement but the wish to connect.

What it refuses to do: send a release twice, or later than 5 s after it was asked for; and outlive ``close``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from ..errors import (  # noqa: TID252 - the core is imported relatively
    OutcomeUnknown,
    SpentElsewhere,
    StrikeRefused,
    StrikeUnreachable,
    VestibuleError,
)
from ..model import Now, Sense, Sensor, read_clock  # noqa: TID252
from ..strike import Capabilities, Pulse, Reading  # noqa: TID252
from . import frames
from .client import Answered, Ended, Ending, Output, Paired, Told, Verified
from .connection import REASONS, Connection, GattLink, StrikeRadio
from .kept import Kept
from .known import Known
from .news import StrikeEvent
from .outcome import REMEMBERED, SAME_AGAIN, SETTLED, Outcome, answered, queried
from .pairing import slot_psk
from .polling import GAP
from .spending import LONGEST_PULSE, SHORTEST_PULSE
from .wire import (
    SPEND_ID_SIZE,
    Advertisement,
    Caps,
    Command,
    Event,
    EventKind,
    Op,
    Relay,
    Result,
    Rights,
    SpendState,
    State,
    Violation,
)

__all__ = ["BleStrike", "GattLink", "Kept", "StrikeEvent", "StrikeRadio"]

_LOGGER = logging.getLogger(__name__)

DEADLINE: Final = 9.5
"""Seconds after which a release without an outcome is unknown to its caller: a little less than a door waits."""
CONNECT_LIMIT: Final = 20.0
"""Seconds for which a connection is tried at the most, whoever waits."""
STALE_AFTER: Final = 1800.0
"""Seconds after which what a strike said last is worth nothing, where no connection is kept."""
KEPT_STALE_AFTER: Final = 10.0
"""The same where one is kept and was lost."""
LONGEST_BACK_OFF: Final = 60.0
LINGER: Final = 1.5
"""Seconds after the expected end of a pulse for which its end is waited for."""
QUIET: Final = 0.5
"""Seconds after the last thing that happened before the strike is asked how everything is now."""
PUSH_TIME: Final = 0.3
"""Seconds for events to come by themselves before they are asked for."""
REACHED_FOR: Final = 5.0
"""Seconds for which a connection is held for the command that follows ``reach``."""
USED_UP: Final = 2.0
"""Seconds after which the rest of a HELLO's life is too short to begin with."""
REKEY_TIME: Final = 40.0
"""Seconds after which a strike has surely dropped a key that was never used."""

_REFUSALS: Final = {
    Result.RATE: "too many releases in the last minute: wait a minute",
    Result.BAD_OP: "it cannot do that",
    Result.LOCKOUT: "it lost its memory of earlier releases and refuses all for two minutes after power-up",
    Result.RIGHTS: "this controller's slot has no right to do that: grant it from the one that administers the strike",
    Result.RELAY_FAULT: "its relay did not move: have it looked at",
    Result.LATE: "it heard the command too late: try again",
}


@dataclass(slots=True)
class _Release:
    """An UNLOCK or HOLD on its way."""

    command: Command
    seconds: float
    """How long it will last, as far as can be told."""
    sent_before: bool
    sent_at: float | None = None
    """Boot seconds; None: there is a way back."""
    heard: int = 0
    """The last event known before that."""


@dataclass(slots=True)
class _Attempt:
    """To connect, for all who want to."""

    task: asyncio.Task[Connection]
    waiting: int = 0


class BleStrike:
    """One paired strike. Made in a running event loop."""

    def __init__(
        self,
        radio: StrikeRadio,
        kept: Kept,
        *,
        keep_connected: bool,
        remember: Callable[[Kept], None],
        clock: Callable[[], Now] = read_clock,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``remember`` is called with what has to be stored from then on, before anything relies on it."""
        self._radio, self._keep, self._clock, self._random = radio, keep_connected, clock, random
        self._known = Known(kept, remember)
        self._capabilities = Capabilities(device_timed=True, feedback=True, can_hold=Caps.HOLD in kept.caps)
        self._reason: str | None = None
        self._advertised = False
        self._reading_told = Reading.UNKNOWN
        self._connection: Connection | None = None
        self._attempt: _Attempt | None = None
        self._poll: asyncio.Task[None] | None = None
        self._fetching = asyncio.Lock()
        self._next_until = clock().boot + REKEY_TIME
        self._stale: asyncio.TimerHandle | None = None
        self._hint = asyncio.Event()
        self._next_hint = 0.0
        self._readings: list[Callable[[Reading], None]] = []
        self._events: list[Callable[[StrikeEvent], None]] = []
        self._changes: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        if keep_connected:
            self._spawn(self._keep_up())

    # ---- what is known ----

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def kept(self) -> Kept:
        """What is remembered of it."""
        return self._known.kept

    @property
    def is_connected(self) -> bool:
        """Whether it has greeted on a connection that is up."""
        return self._connection is not None and self._connection.usable

    @property
    def is_kept_up(self) -> bool:
        """Whether a connection is kept, and is up: what happens is heard at once."""
        return self._keep and self.is_connected

    @property
    def is_reachable(self) -> bool:
        """Whether it is connected, or was heard lately."""
        return self.is_connected or self._advertised

    @property
    def reason(self) -> str | None:
        """Why it could not be reached the last time, in words for a person; None: it could."""
        return self._reason

    @property
    def state(self) -> State | None:
        """What it said last; None: nothing yet, or too long ago."""
        return self._known.state

    @property
    def reading(self) -> Reading:
        """What its relay does; UNKNOWN if there is no state."""
        return self._known.reading

    def sense(self, sensor: Sensor) -> Sense:
        """Return what a sensor of the strike says; UNKNOWN if it has none, or there is no state."""
        return self._known.sense(sensor)

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop with each new reading, until the returned function is called."""
        return _subscribed(self._readings, listener)

    def on_event(self, listener: Callable[[StrikeEvent], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop with each of the strike's events, in order and once."""
        return _subscribed(self._events, listener)

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop whenever state, reachability or reason may have changed."""
        return _subscribed(self._changes, listener)

    # ---- what the host hears of it ----

    def seen(self, advertisement: Advertisement) -> None:
        """It was heard. That may cause a connection, and nothing else."""
        strike_id = self.kept.paired.strike_id
        if self._closed or advertisement.strike != strike_id[: len(advertisement.strike)]:
            return
        if not self._advertised:
            self._advertised = True
            self._changed()
        now = self._clock().boot
        if self._keep:
            if not self.is_connected and now >= self._next_hint:
                self._next_hint = now + GAP
                self._hint.set()
        elif self.is_connected or self._attempt_is_on or self._poll_is_on:
            pass  # what is new will be fetched
        elif self._known.is_worth_a_poll(advertisement, now):
            self._poll = self._spawn(self._ask_how_it_is(refresh=self._known.is_old(now)))

    def gone(self) -> None:
        """It is not heard any more."""
        self._advertised = False
        if not self.is_connected:
            self._known.state = None
        self._changed()

    # ---- commands ----

    async def reach(self) -> None:
        """Connect, subscribe and be greeted, or find that done; raise StrikeUnreachable."""
        connection = await self._connected()
        if not (connection.proven or connection.users) and self._clock().boot >= connection.began + USED_UP:
            await connection.close()  # its HELLO might run out before the command
            connection = await self._connected()
        connection.needed_until = self._clock().boot + REACHED_FOR

    async def release(self, pulse: Pulse) -> None:
        """Release once, for what the strike makes of the pulse's seconds (0.5 to 10), and return when it confirmed it.

        Raises StrikeUnreachable, StrikeRefused (SpentElsewhere, if another controller was faster) or OutcomeUnknown.
        """
        centiseconds = min(max(round(pulse.seconds * 100), 1), 0xFFFF)
        seconds = min(max(pulse.seconds, SHORTEST_PULSE), LONGEST_PULSE)
        await self._release(Command(Op.UNLOCK, centiseconds, pulse.spend_id), seconds)

    async def hold(self, origin: object) -> None:  # noqa: ARG002 - every strike is told; this one has no use for it
        """Release until ``secure``; raise as ``release`` does."""
        await self._release(Command(Op.HOLD, 0, self._random(SPEND_ID_SIZE)), 0.0)

    async def secure(self) -> None:
        """Put it back; may be repeated. Raises as ``release`` does."""
        await self._operate(Op.RELOCK)

    async def rekey(self, durable: Callable[[], Awaitable[None]] | None = None) -> None:
        """Change the slot's key: the new one is remembered beside the old one, proved, and then alone.

        ``durable`` is awaited before the new key is used; it returns when what was remembered is on the disk. Raises
        StrikeUnreachable, StrikeRefused, or OutcomeUnknown: then either key works, both are remembered, and the next
        connection finds out.
        """
        rand_c, paired = self._random(frames.RAND_SIZE), self.kept.paired
        answer = await self._operate(Op.SLOT_REKEY, rand_c)
        if len(answer.body) != frames.RAND_SIZE:
            raise OutcomeUnknown(REASONS[Ending.VIOLATION])
        psk = slot_psk(paired.strike_id, paired.slot, rand_c, answer.body)
        self._next_until = self._clock().boot + REKEY_TIME
        self._known.keep(next_psk=psk)
        if durable is not None:
            await durable()
        if self._connection is not None:
            await self._connection.close()
        with suppress(StrikeUnreachable):
            await self._connected()
        if self.kept.paired.psk != psk:
            raise OutcomeUnknown("the new key could not be tried: the next connection will find out which one counts")

    async def list_slots(self) -> tuple[frames.SlotListed, ...]:
        """Return who has a slot, in the order of their numbers; a name is whatever its controller chose.

        Raises as ``release`` does: StrikeRefused where this slot may not administer or the strike cannot tell yet.
        """
        answer = await self._operate(Op.SLOT_LIST, b"")
        try:
            return frames.open_slot_list(answer.body)
        except Violation:
            raise OutcomeUnknown(REASONS[Ending.VIOLATION]) from None

    async def set_rights(self, slot: int, rights: Rights) -> None:
        """Give a slot these rights and no others. Raises as ``release`` does."""
        await self._operate(Op.SLOT_RIGHTS, frames.SlotRights(slot, rights).encode())

    async def delete_slot(self, slot: int) -> None:
        """Take a slot's key away. Raises as ``release`` does."""
        await self._operate(Op.SLOT_DEL, bytes([slot]))

    async def close(self) -> None:
        """Let go of the strike: nothing of this is left when it returns. A release under way is unknown."""
        self._closed = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        if self._connection is not None:
            await self._connection.close()
        self._known.state = None
        self._set_stale(None)

    # ---- a release ----

    async def _release(self, command: Command, seconds: float) -> None:
        release = _Release(command, seconds, sent_before=self._known.was_sent(command.spend_id))
        task = self._spawn(self._carry_out(release))
        try:
            await asyncio.wait({task}, timeout=SAME_AGAIN)
            if release.sent_at is not None:
                await asyncio.wait({task}, timeout=DEADLINE - SAME_AGAIN)
        finally:
            if release.sent_at is None:
                task.cancel()  # whoever wanted it has gone: it must not be made up for later
        if not task.done() or task.cancelled():
            if release.sent_at is None:
                raise StrikeUnreachable("it could not be connected to in time")
            raise OutcomeUnknown("the strike has not said in time whether it moved")
        if (error := task.result()) is not None:
            raise error

    async def _carry_out(self, release: _Release) -> VestibuleError | None:
        """Return how a release failed, None if it was confirmed."""

        def sent() -> None:
            now = self._clock()
            release.sent_at, release.heard = now.boot, self._known.heard
            self._known.sent(release.command.spend_id, now)

        error: VestibuleError = StrikeUnreachable(REASONS[Ending.LINK_LOST])
        for _ in range(2):  # a connection may end in this moment; then the strike was not told
            try:
                connection = await self._connected()
                with connection.in_use():
                    answer = await connection.ask(release.command, sent=sent)
                    connection.needed_until = 0.0
                    connection.lingers_until = self._clock().boot + release.seconds + LINGER
            except StrikeUnreachable as unreachable:
                error = unreachable
            except OutcomeUnknown as unknown:
                _LOGGER.debug("A release was not answered: %s", unknown)
                return await self._find_out(release)
            else:
                return _verdict(answered(answer.state, sent_before=release.sent_before), answer.state)
        return error

    async def _find_out(self, release: _Release) -> VestibuleError | None:
        """Return what became of a release that was not answered."""
        assert release.sent_at is not None
        self._forget_state()
        delay = 0.0
        while (asked := self._clock().boot) < release.sent_at + REMEMBERED:
            try:
                state, outcome = await self._query(release, asked - release.sent_at)
            except StrikeUnreachable, OutcomeUnknown:
                delay = min(max(1.0, 2 * delay), LONGEST_BACK_OFF)
            else:
                # What has begun cannot be undone. Anything else may still change until the spend cannot arrive any
                # more.
                has_begun = outcome is Outcome.DONE and state.spend_state is not SpendState.RECORDED
                if has_begun or asked >= release.sent_at + SETTLED:
                    return _verdict(outcome, state)
                delay = max(0.0, release.sent_at + SETTLED - self._clock().boot)
            await asyncio.sleep(delay)
        return _verdict(Outcome.UNKNOWN, None)

    async def _query(self, release: _Release, sent_ago: float) -> tuple[State, Outcome]:
        connection = await self._connected()
        with connection.in_use():
            connection.needed_until = self._clock().boot + SETTLED
            state = (await connection.ask(Command(Op.QUERY, 0, release.command.spend_id))).state
            if state.spend_state in (SpendState.RECORDED, SpendState.RELAY_ON):
                await self._fetch(connection)
            events = self._known.since(release.heard)
            return state, queried(state, sent_ago=sent_ago, events=events, heard=release.heard)

    async def _operate(self, op: Op, body: bytes | None = None) -> Answered:
        """Ask for something: with a body, an empty one too, within a session; without one, in the handshake as well."""
        connection = await self._connected()
        with connection.in_use():
            if body is not None and not connection.proven:
                await connection.ask(Command(Op.QUERY))  # HS1 and HS2 have no room for a body
            answer = await connection.ask(Command(op), body or b"")
        if answer.state.result is not Result.OK:
            raise StrikeRefused(_refusal(answer.state.result, op))
        return answer

    # ---- connecting ----

    @property
    def _attempt_is_on(self) -> bool:
        return self._attempt is not None and not self._attempt.task.done()

    @property
    def _poll_is_on(self) -> bool:
        return self._poll is not None and not self._poll.done()

    async def _connected(self) -> Connection:
        """Return the connection, made first if there is none; raise StrikeUnreachable."""
        if self._closed:
            raise StrikeUnreachable(REASONS[Ending.CLOSED])
        if self._connection is not None and self._connection.usable:
            return self._connection
        attempt = self._attempt
        if attempt is None or attempt.task.done() or attempt.task.cancelling():
            before = None if attempt is None else attempt.task
            attempt = self._attempt = _Attempt(self._spawn(self._connect(before)))
        attempt.waiting += 1
        try:
            return await asyncio.shield(attempt.task)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise StrikeUnreachable(REASONS[Ending.CLOSED]) from None
        finally:
            attempt.waiting -= 1
            if not attempt.waiting:
                attempt.task.cancel()  # nobody wants it any more: it must not take a slot from another door

    async def _connect(self, before: asyncio.Task[Connection] | None) -> Connection:
        if before is not None:
            await asyncio.wait({before})
        if self._connection is not None:
            await self._connection.close()
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                return await self._connect_with_some_key()
        except TimeoutError:
            return self._unreachable("it did not answer in time")
        except StrikeUnreachable as error:
            return self._unreachable(str(error), error)

    def _unreachable(self, reason: str, error: StrikeUnreachable | None = None) -> Connection:
        self._reason = reason
        self._forget_state()
        raise error or StrikeUnreachable(reason)

    async def _connect_with_some_key(self) -> Connection:
        paired, next_psk = self.kept.paired, self.kept.next_psk
        if next_psk is None:
            return await self._connect_with(paired)
        # Proved before anything is spent on it. A failure proves nothing: anybody can cause one.
        error: VestibuleError = StrikeUnreachable(REASONS[Ending.REFUSED])
        for psk in (next_psk, paired.psk):
            connection = await self._connect_with(replace(paired, psk=psk))
            try:
                await connection.ask(Command(Op.QUERY))
            except (StrikeUnreachable, OutcomeUnknown) as failed:
                error = failed
                await connection.close()
            else:
                return connection
        raise StrikeUnreachable(str(error))

    async def _connect_with(self, paired: Paired) -> Connection:
        connection: Connection

        def hear(output: Output) -> None:
            self._hear(connection, output)

        connection = Connection(paired, keep=self._keep, hear=hear, clock=self._clock, random=self._random)
        await connection.open(self._radio)
        self._connection = connection
        self._spawn(self._attend(connection))
        self._changed()
        return connection

    async def _attend(self, connection: Connection) -> None:
        """Stay with a connection: fetch what is new, and close it when nobody needs it."""
        try:
            with suppress(StrikeUnreachable, OutcomeUnknown):
                while not connection.ended.done():
                    connection.news.clear()
                    left: float | None = None
                    now = self._clock().boot
                    if not connection.proven:
                        pass  # whoever made it has the first word, or it ends itself
                    elif self._known.newest != self._known.heard:
                        if (left := self._known.said_at + PUSH_TIME - now) <= 0:
                            await self._fetch(connection)
                            continue
                    elif self._known.unsettled:
                        if (left := self._known.said_at + QUIET - now) <= 0:
                            await connection.ask(Command(Op.QUERY))
                            continue
                    elif connection.lingers_until is not None:
                        if (left := connection.lingers_until - now) <= 0:
                            connection.lingers_until = None  # the end was not told of
                            await connection.ask(Command(Op.QUERY))
                            continue
                    elif self._keep or connection.users:
                        pass
                    elif (left := connection.needed_until - now) <= 0:
                        break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await connection.news.wait()
        finally:
            await connection.close()

    async def _keep_up(self) -> None:
        """Have a connection, always."""
        delay = 0.0
        while True:
            try:
                connection = await self._connected()
                if not connection.proven:
                    await connection.ask(Command(Op.QUERY))
                delay = 0.0
                ended = await asyncio.shield(connection.ended)
                if ended.ending is Ending.RENEW:
                    continue
            except StrikeUnreachable, OutcomeUnknown:
                pass
            except Exception:
                _LOGGER.exception("Keeping the connection to a strike failed in an unforeseen way")
            delay = min(max(1.0, 2 * delay), LONGEST_BACK_OFF)
            self._hint.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hint.wait()

    async def _ask_how_it_is(self, *, refresh: bool) -> None:
        """A poll, which an advertisement caused: for its news, or to ``refresh`` what is known."""
        began, heard, found = self._clock().boot, self._known.heard, False
        try:
            connection = await self._connected()
            with connection.in_use():
                await connection.ask(Command(Op.QUERY))
                await self._fetch(connection)
            found = refresh or self._known.heard != heard
        except (StrikeUnreachable, OutcomeUnknown) as error:
            _LOGGER.debug("A poll came to nothing: %s", error)
        finally:
            self._known.polled(refresh=refresh, found=found, now=began)

    # ---- what the strike says ----

    def _hear(self, connection: Connection, output: Output) -> None:
        now = self._clock()
        match output:
            case Verified(version):
                self._reason = None
                assert connection.caps is not None
                drop_next = now.boot > self._next_until
                self._known.proved(replace(connection.paired, version=version), connection.caps, drop_next=drop_next)
            case Answered(op, state):
                self._known.answered(op, state, now)
                self._set_stale(None)
            case Told(event):
                if event.kind == EventKind.RELAY_OFF:
                    connection.lingers_until = None
                self._tell_of(self._known.told(event, now))
            case Ended(ending):
                if ending in (Ending.REFUSED, Ending.VIOLATION, Ending.NO_ANSWER):
                    self._reason = REASONS[ending]
                self._grow_old()
        self._changed()

    async def _fetch(self, connection: Connection) -> None:
        """Fetch the events that are new, if there are any."""
        async with self._fetching:
            while (start := self._known.fetch_from()) is not None:
                try:
                    # How long it has been up tells when they were; what happens meanwhile is told of while it does.
                    up_ms = frames.open_uptime((await connection.ask(Command(Op.PING))).body)
                    up_since = None if up_ms is None else self._clock().wall - up_ms / 1000  # pages take their time
                    events = await self._events_from(connection, start)
                except Violation:
                    await connection.close()
                    raise StrikeUnreachable(REASONS[Ending.VIOLATION]) from None
                if events:
                    self._tell_of(self._known.fetched(events, self._clock(), up_since))
                else:
                    self._known.nothing_to_fetch()

    async def _events_from(self, connection: Connection, start: int) -> list[Event]:
        """Return the events from this number on, page by page; raise Violation."""
        events: list[Event] = []
        while start <= self._known.newest:
            answer = await connection.ask(Command(Op.EVENTS), frames.events_from(start))
            page = frames.open_events(answer.body) if answer.state.result is Result.OK else ()
            if not page:
                break
            events += page
            start = page[-1].seq + 1
        return events

    def _tell_of(self, events: list[StrikeEvent]) -> None:
        for event in events:
            _tell(self._events, event)

    def _grow_old(self) -> None:
        """The connection has ended: what is known is good for a while."""
        if self._stale is None and not self._closed:
            good_for = KEPT_STALE_AFTER if self._keep else STALE_AFTER
            if self._known.state is not None and self._known.state.relay is Relay.PULSING:
                good_for = LONGEST_PULSE
            self._set_stale(good_for)

    def _set_stale(self, seconds: float | None) -> None:
        if self._stale is not None:
            self._stale.cancel()
            self._stale = None
        if seconds is not None:
            self._stale = asyncio.get_running_loop().call_later(seconds, self._grew_old)

    def _grew_old(self) -> None:
        self._stale = None
        if not self.is_connected:
            self._forget_state()

    def _forget_state(self) -> None:
        self._known.state = None
        self._changed()

    def _changed(self) -> None:
        if self.reading != self._reading_told:
            self._reading_told = self.reading
            _tell(self._readings, self.reading)
        _tell(self._changes)

    # ---- tasks ----

    def _spawn[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, VestibuleError):
            _LOGGER.error("A strike's driver failed in an unforeseen way", exc_info=error)


def _verdict(outcome: Outcome, state: State | None) -> VestibuleError | None:
    """Return what to raise for an outcome."""
    match outcome:
        case Outcome.DONE:
            return None
        case Outcome.ALREADY_SPENT:
            return SpentElsewhere("another controller has used this")
        case Outcome.NOT_MOVED if state is not None and state.result is Result.OK:
            return StrikeUnreachable("the connection was lost before it heard the command: nothing moved, try again")
        case Outcome.NOT_MOVED if state is not None:
            return StrikeRefused(_refusal(state.result))
        case _:
            return OutcomeUnknown("the strike could not be asked whether it moved")


def _refusal(result: Result, op: int = Op.UNLOCK) -> str:
    match op, result:
        case ((Op.SLOT_DEL | Op.SLOT_RIGHTS), Result.BAD_OP):
            return "there is no such slot"
        case ((Op.SLOT_DEL | Op.SLOT_RIGHTS), Result.RIGHTS):
            return "only an administrator may do that, one has to remain, and only one slot may spend"
        case _:
            return _REFUSALS.get(result, result.name)


def _subscribed[**P](listeners: list[Callable[P, None]], listener: Callable[P, None]) -> Callable[[], None]:
    own = partial(listener)  # the same one may listen twice
    listeners.append(own)

    def unsubscribe() -> None:
        with suppress(ValueError):
            listeners.remove(own)

    return unsubscribe


def _tell[**P](listeners: list[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    for listener in tuple(listeners):
        try:
            listener(*args, **kwargs)
        except Exception:
            _LOGGER.exception("A listener of a strike failed")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())
