"""The strike's end of DoorStrike/1: inputs in, effects out, in the order in which they have to happen (protocol B.3).

The shell calls a method for whatever happens and performs the effects that it returns (effects.py), all of them before
the next input. No radio, no relay, no disk and no clock in here; ``now`` is seconds of a monotonic clock.

What it refuses to do: move anything at power-up; move anything for a spend that it has not on the disk; move anything
twice for one spend, or once for one that it may have forgotten; take a second handshake for one nonce; and say why a
handshake failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from . import frames
from .device import Device, Input
from .effects import Disconnect, Effect, HoldRelay, Notify, StartPulse, StopRelay
from .fragments import cut
from .handshake import Responder
from .keyring import NEEDS
from .link import HELLO_TIME, IDLE_TIME, MOST_HELLO_REQUESTS, SUBSCRIBE_TIME, Link, Pending, Session
from .memory import Part
from .pairing import Label
from .wire import (
    ERR,
    HELLO_REQ,
    MOST_COUNTED,
    NONCE_SIZE,
    VERSION,
    Advertisement,
    Caps,
    Command,
    EventKind,
    Hello,
    Op,
    Relay,
    Result,
    Rights,
    Violation,
    exactly,
)

MOST_LINKS: Final = 8
FAILURES_TIME: Final = 60.0
"""Seconds of failed handshakes that one event sums up: a stranger cannot flood the log."""

_WITH_BODY: Final = {Op.EVENTS, Op.SLOT_ADD, Op.SLOT_DEL, Op.SLOT_REKEY, Op.SLOT_RIGHTS, Op.SLOT_LIST}
"""HS1 has no room for a question's body, HS2 none for an answer's: these are asked within a session only."""

type Answer = tuple[Result, bytes] | None
"""The result and body to reply; None: the relay answers first."""


class Peripheral:
    """One strike."""

    def __init__(
        self,
        label: Label,
        caps: Caps,
        kept: Mapping[Part, bytes],
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        """Power up with what was persisted (device.py); the relay is off. ``boot`` comes before any other input."""
        self._device = Device(label, caps, kept, random, now)
        self._random = random
        self._pushed = self._device.history.seq - 1  # the power-up is news
        self._told = 0
        self._links: dict[int, Link] = {}
        self._pending: Pending | None = None
        self._nonces = 0
        self._failures = 0
        self._failures_until: float | None = None

    def boot(self) -> list[Effect]:
        """Return what to do before anything else."""
        return self._finish()

    # ---- what the shell may look at ----

    @property
    def advertisement(self) -> Advertisement:
        """What to advertise from now on."""
        return self._device.advertisement(self._told)

    @property
    def pairing_open(self) -> bool:
        """Whether the light is on."""
        return self._device.keyring.pairing_until is not None

    @property
    def due(self) -> float | None:
        """When to call ``elapsed`` if nothing happens before."""
        times = (
            self._failures_until,
            self._device.keyring.pairing_until,
            self._device.keyring.confirm_until,
            self._device.spending.lockout_until,
            *(link.due for link in self._links.values()),
        )
        return min((time for time in times if time is not None), default=None)

    # ---- the radio ----

    def connected(self, link: int, now: float) -> list[Effect]:
        """Somebody connected, and is called ``link`` from now on; the shell gives each connection a new number."""
        self._elapse(now)
        if len(self._links) >= MOST_LINKS:
            self._device.effects.append(Disconnect(link))
        else:
            self._links[link] = Link(link, now + SUBSCRIBE_TIME)
        return self._finish()

    def subscribed(self, link: int, size: int, now: float) -> list[Effect]:
        """The link wants notifications, of at most ``size`` bytes (ATT_MTU - 3). A second time changes nothing."""
        self._elapse(now)
        if (found := self._links.get(link)) is not None and found.hello is None:
            self._nonces += 1
            count = self._device.history.boots.to_bytes(4) + self._nonces.to_bytes(8)
            nonce = hashlib.sha256(b"DoorStrike/1 nonce" + self._random(32) + count).digest()[:NONCE_SIZE]
            found.size = size
            found.hello = Hello(VERSION, self._device.caps, self._device.label.strike_id, nonce).encode()
            found.deadline = now + HELLO_TIME
            self._send(found, found.hello)
        return self._finish()

    def fragment(self, link: int, fragment: bytes, now: float) -> list[Effect]:
        """The link wrote something, with or without response."""
        self._elapse(now)
        if (found := self._links.get(link)) is not None:
            try:
                message = found.incoming.feed(fragment, now)
                if message is not None:
                    self._message(found, message, now)
            except Violation:
                self._close(found, err=True)
        return self._finish()

    def disconnected(self, link: int, now: float) -> list[Effect]:
        """The link is gone. What the relay does goes on."""
        self._elapse(now)
        self._links.pop(link, None)
        return self._finish()

    def elapsed(self, now: float) -> list[Effect]:
        """Time has passed: ``due``."""
        self._elapse(now)
        return self._finish()

    # ---- the relay ----

    def relay_done(self, now: float) -> list[Effect]:
        """The relay did what it was told, or may have: who is not sure says this."""
        return self._relay_answered(Result.OK, now)

    def relay_failed(self, now: float) -> list[Effect]:
        """The relay certainly did not do what it was told."""
        return self._relay_answered(Result.RELAY_FAULT, now)

    def pulse_complete(self, number: int, now: float) -> list[Effect]:
        """The relay's own timer has run out, and the relay is off. Of a pulse that was overtaken it is no news."""
        self._elapse(now)
        self._device.event(self._device.spending.pulse_over(number), now, spend_id=self._device.spending.last)
        return self._finish()

    # ---- the inputs ----

    def sensed(self, what: Input, now: float) -> list[Effect]:
        """An input says something (device.py)."""
        self._elapse(now)
        self._device.sensed(what, now)
        return self._finish()

    # ---- messages ----

    def _message(self, link: Link, message: bytes, now: float) -> None:
        if link.session is not None:
            plaintext = link.session.transport.decrypt(frames.open_data(message))
            request = frames.Request.parse(plaintext)
            link.deadline = now + IDLE_TIME
            if link.session.milliseconds(now) > request.not_after:
                self._answer(link, request.command, Result.LATE, b"", now)
            else:
                self._execute(link, request.command, request.body, now)
        elif link.hello is None or link.nonce_consumed:
            raise Violation("out of turn")
        elif message == HELLO_REQ:
            link.hello_requests += 1
            if link.hello_requests > MOST_HELLO_REQUESTS:
                raise Violation("asks for HELLO again and again")
            self._send(link, link.hello)
        else:
            link.nonce_consumed = True  # before anything is looked at
            self._handshake(link, link.hello, message, now)

    def _handshake(self, link: Link, hello: bytes, message: bytes, now: float) -> None:
        try:
            number, responder, command = self._authenticated(hello, message, now)
        except Violation:
            self._failures += 1
            self._failures_until = self._failures_until or now + FAILURES_TIME
            raise
        for other in [other for other in self._links.values() if other.session and other.slot == number]:
            self._close(other)
        self._device.persist_slots()
        link.slot, link.responder = number, responder
        self._execute(link, command, None, now)

    def _authenticated(self, hello: bytes, message: bytes, now: float) -> tuple[int, Responder, Command]:
        """Return whose HS1 this is and what it wants; raise Violation, the same for whatever is wrong with it."""
        number, sealed = frames.open_hs1(message)
        for psk in self._device.keyring.keys(number, now):
            responder = Responder(psk, hello, number)
            try:
                command = Command.parse(responder.first(sealed))
            except Violation:
                continue
            self._device.keyring.proved(number, psk)
            return number, responder, command
        raise Violation("not authentic")

    def _execute(self, link: Link, command: Command, body: bytes | None, now: float) -> None:
        answer = self._decided(link, command, body, now)
        if answer is not None:
            self._answer(link, command, *answer, now)

    def _decided(self, link: Link, command: Command, body: bytes | None, now: float) -> Answer:
        """Return what to reply; ``body`` is None in HS1."""
        op = command.op
        impossible = op == Op.HOLD and Caps.HOLD not in self._device.caps
        if op not in NEEDS or impossible or (body is None and op in _WITH_BODY):
            return Result.BAD_OP, b""
        assert link.slot is not None
        if not self._device.keyring.may(link.slot, Op(op)):
            return Result.RIGHTS, b""
        if op not in _WITH_BODY:
            exactly(body or b"", 0)
        match op:
            case Op.QUERY:
                return self._device.spending.query(command.spend_id), b""
            case Op.PING:
                return Result.OK, b"" if body is None else frames.uptime(self._device.uptime_ms(now))
            case Op.UNLOCK | Op.HOLD | Op.RELOCK if self._pending is not None:
                return Result.RATE, b""
            case Op.UNLOCK | Op.HOLD:
                return self._release(link, command, now)
            case Op.RELOCK:
                self._move(link, command, StopRelay())
                return None
            case Op.EVENTS:
                found = self._device.history.since(frames.open_events_from(body or b""), frames.MOST_EVENTS)
                self._told = max(self._told, *(event.seq for event in found), 0)
                return Result.OK, frames.events(found)
            case _:
                change = self._device.keyring.change(link.slot, Op(op), body or b"", now)
                self._device.event(change.event, now, change.slot)
                self._device.persist()
                return change.result, change.body

    def _release(self, link: Link, command: Command, now: float) -> Answer:
        if (refused := self._device.spending.record(command, now)) is not None:
            return refused, b""
        self._device.persist_log()
        if command.op == Op.HOLD:
            self._move(link, command, HoldRelay())
            return None
        if self._device.spending.relay is Relay.HELD:
            return Result.OK, b""  # a pulse would end what holds the door open
        self._move(link, command, self._device.spending.pulse(command))
        return None

    def _move(self, link: Link, command: Command, effect: StartPulse | HoldRelay | StopRelay) -> None:
        self._device.effects.append(effect)
        self._pending = Pending(link, command)

    def _relay_answered(self, result: Result, now: float) -> list[Effect]:
        self._elapse(now)
        if (pending := self._pending) is not None:
            self._pending = None
            kind = self._device.spending.relay_answered(pending.command, moved=result is Result.OK)
            self._device.event(kind, now, spend_id=self._device.spending.last)
            if self._links.get(pending.link.number) is pending.link:
                self._answer(pending.link, pending.command, result, b"", now)
        return self._finish()

    # ---- out ----

    def _answer(self, link: Link, command: Command, result: Result, body: bytes, now: float) -> None:
        state = self._device.state(result, command.spend_id)
        if link.session is not None:
            reply = frames.Reply(command.op, state, body)
            self._send(link, frames.data(link.session.transport.encrypt(reply.encode())))
            return
        assert link.responder is not None
        sealed, transport = link.responder.second(state.encode(), self._random(frames.KEY_SIZE))
        link.session, link.responder = Session(transport, now), None
        link.deadline = now + IDLE_TIME
        self._send(link, frames.hs2(sealed))

    def _send(self, link: Link, message: bytes) -> None:
        self._device.effects.append(Notify(link.number, cut(message, link.size)))

    def _close(self, link: Link, *, err: bool = False) -> None:
        del self._links[link.number]
        if err and link.hello is not None:
            self._send(link, ERR)
        self._device.effects.append(Disconnect(link.number))

    def _elapse(self, now: float) -> None:
        for link in [link for link in self._links.values() if now >= link.due]:
            self._close(link, err=link.session is None)
        self._device.keyring.elapse(now)
        self._device.spending.elapse(now)
        if self._failures_until is not None and now >= self._failures_until:
            self._device.event(EventKind.FAILED_HANDSHAKES, now, min(self._failures, MOST_COUNTED))
            self._failures, self._failures_until = 0, None

    def _finish(self) -> list[Effect]:
        """Return the effects, with what has changed persisted, and then told."""
        self._device.persist()
        new = self._device.history.since(self._pushed + 1)
        forgotten = any(event.kind == EventKind.FACTORY_RESET for event in new)
        for link in list(self._links.values()):
            if link.slot is not None and (forgotten or not self._device.keyring.knows(link.slot)):
                self._close(link)
        for event in new:
            for link in self._links.values():
                if link.session is not None and Rights.EVENTS in self._device.keyring.rights(link.slot):
                    self._send(link, frames.data(link.session.transport.encrypt(frames.push(event))))
                    self._told = event.seq
        self._pushed = self._device.history.seq
        effects, self._device.effects = self._device.effects, []
        return effects
