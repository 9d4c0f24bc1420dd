"""Stand-ins for the world around the core: a strike, a carrier's cloud, a clock and a building with all of them.

``SimulatedStrike`` implements the production ``Strike`` and is told what happens to it in verbs. ``Carrier`` signs real
tokens with real keys. ``Site`` is a real controller with a real journal on disk. Nothing in here is a mock: what is
simulated is hardware, a cloud and time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from vestibule_core import b64url, policy
from vestibule_core.controller import Controller
from vestibule_core.door import DoorState
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.hours import WeeklyHours
from vestibule_core.journal import Journal
from vestibule_core.keys import Alg, SigningKey, TrustedKey, import_jwk_set
from vestibule_core.model import (
    AccessEvent,
    Code,
    Decision,
    Door,
    DoorId,
    EventName,
    Issuer,
    Now,
    Principal,
    Sense,
    Sensor,
    issuer,
    new_door_id,
)
from vestibule_core.note import SignerKey
from vestibule_core.policy import Building, EvidenceLimits
from vestibule_core.strike import Capabilities, Pulse, Reading

# ---- a strike -------------------------------------------------------------------------------------------------------


class Moment(StrEnum):
    """A point in the dealings of a strike with its controller, at which a test may act (``SimulatedStrike.at``)."""

    REACHED = "reached"
    """Asked whether it hears; nothing is spent yet."""
    TOLD = "told"
    """The release command has arrived; the bolt has not moved."""
    MOVED = "moved"
    """The bolt has moved and the pulse is in the log; nothing is confirmed yet."""
    TOLD_TO_SECURE = "told_to_secure"
    """The command to go back has arrived."""


class SimulatedStrike:
    """A strike made of software, with a bolt, a power supply and a temper.

    It counts what the hardware did, not what it was asked: ``pulses`` has one entry for each movement to released,
    ``commands`` counts the release commands that it heard and ``times_secured`` the movements back by command. ``bolt``
    is where the bolt is, also when a strike without feedback reports nothing.

    ``device_timed``: its own timer puts the bolt back after the pulse (real time). Otherwise it stays released until
    ``secure``. ``feedback``: readings follow the bolt; otherwise they are always UNKNOWN. ``can_hold``: it stays
    released on ``hold``, which ``holds`` counts; by default, one without a timer does.

    ``log``: a file that gets one line per pulse, on the disk's side of the kernel before anything is confirmed. It
    survives SIGKILL of the process, so that a crash test can count what really moved.

    Verbs: ``cut_power`` and ``restore_power``; ``hang``, ``refuse``, ``answer_nonsense``, ``lose_the_answer`` and
    ``obey`` say how it answers commands from now on; ``take_its_time`` and ``arrive`` make a gate of it;
    ``operate_by_someone_else`` moves the bolt by hand; ``at`` lets a test act at a ``Moment``. ``aclose`` stops its
    timer.
    """

    def __init__(
        self,
        *,
        device_timed: bool = True,
        feedback: bool = True,
        can_secure: bool = True,
        can_hold: bool | None = None,
        log: Path | None = None,
    ) -> None:
        self.capabilities = Capabilities(
            device_timed=device_timed,
            feedback=feedback,
            can_secure=can_secure,
            can_hold=not device_timed if can_hold is None else can_hold,
        )
        self.pulses: list[Pulse] = []
        self.holds = 0
        self.commands = 0
        self.times_reached = 0
        self.times_secured = 0
        self.bolt = Reading.SECURED
        self._powered = True
        self._takes_its_time = False
        self._temper: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]] | None = None
        self._listeners: list[Callable[[Reading], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._actions: dict[Moment, Callable[[], Awaitable[None] | None]] = {}
        self._changed = asyncio.Event()
        self._log = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    # ---- what a controller sees: the Strike protocol ----

    @property
    def reading(self) -> Reading:
        return self.bolt if self.capabilities.feedback and self._powered else Reading.UNKNOWN

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def reach(self) -> None:
        self.times_reached += 1
        await self._pass(Moment.REACHED)
        if not self._powered:
            raise StrikeUnreachable("no power")

    async def release(self, pulse: Pulse) -> None:
        async def move() -> None:
            self.pulses.append(pulse)
            if self._log is not None:
                os.write(self._log, pulse.spend_id.hex().encode() + b"\n")
            self._cancel_timer()
            if self.capabilities.device_timed:
                self._timer = asyncio.get_running_loop().call_later(pulse.seconds, self._move, Reading.SECURED)
            self._move(Reading.RELEASED)
            await self._pass(Moment.MOVED)

        await self._pass(Moment.TOLD)
        if not self._powered:
            raise StrikeUnreachable("no power")
        self.commands += 1
        await self._answer(move)

    async def hold(self, origin: object) -> None:
        async def move() -> None:
            self.holds += 1
            self._cancel_timer()
            self._move(Reading.RELEASED)
            await self._pass(Moment.MOVED)

        await self._pass(Moment.TOLD)
        if not self._powered:
            raise StrikeUnreachable("no power")
        await self._answer(move)

    async def secure(self) -> None:
        async def move() -> None:
            self._cancel_timer()
            self.times_secured += 1
            if not self._takes_its_time:
                self._move(Reading.SECURED)
            self._changed.set()

        await self._pass(Moment.TOLD_TO_SECURE)
        if not self._powered:
            raise StrikeUnreachable("no power")
        await self._answer(move)

    # ---- what happens to it: verbs ----

    def cut_power(self) -> None:
        """It hears nothing any more. A fail-secure bolt falls back; nobody can know."""
        self._powered = False
        self._cancel_timer()
        self.bolt = Reading.SECURED
        self._report()

    def restore_power(self) -> None:
        """It hears again, and has not moved meanwhile."""
        self._powered = True
        self._report()

    def hang(self, *, moved: bool = True) -> None:
        """Commands get no answer from now on; ``moved`` says whether they are carried out all the same."""

        async def temper(move: Callable[[], Awaitable[None]]) -> None:
            if moved:
                await move()
            await asyncio.Event().wait()

        self._temper = temper

    def refuse(self) -> None:
        """Commands are answered with no, and nothing moves."""
        self._temper = _raising(StrikeRefused("no"), moved=False)

    def lose_the_answer(self, *, moved: bool = True) -> None:
        """Commands end in a link that broke before the answer came."""
        self._temper = _raising(OutcomeUnknown("link lost"), moved=moved)

    def answer_nonsense(self, error: BaseException | None = None, *, moved: bool = True) -> None:
        """Commands end in an exception that no driver should let out."""
        self._temper = _raising(error or ZeroDivisionError("a driver's bug"), moved=moved)

    def obey(self) -> None:
        """Commands are carried out and confirmed again."""
        self._temper = None

    def take_its_time(self) -> None:
        """From now on it is told to go back and confirms that, as a gate does that begins to close; see ``arrive``."""
        self._takes_its_time = True

    def arrive(self) -> None:
        """The gate is closed."""
        self._move(Reading.SECURED)

    def operate_by_someone_else(self, reading: Reading) -> None:
        """A key, a handle or another program moves the bolt."""
        self._cancel_timer()
        self._move(reading)

    def chatter(self, times: int) -> None:
        """Report the same reading again and again, as a loose contact does."""
        for _ in range(times):
            self._report()

    def at(self, moment: Moment, action: Callable[[], Awaitable[None] | None]) -> None:
        """Do ``action`` (and wait for it, if it can be awaited) each time that ``moment`` comes."""
        self._actions[moment] = action

    # ---- for whoever waits ----

    async def until(self, condition: Callable[[SimulatedStrike], bool]) -> None:
        """Return when ``condition`` of this strike holds."""
        async with asyncio.timeout(10):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def aclose(self) -> None:
        """Stop the timer and close the log."""
        self._cancel_timer()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    # ---- inside ----

    async def _answer(self, move: Callable[[], Awaitable[None]]) -> None:
        if self._temper is None:
            await move()
        else:
            await self._temper(move)

    async def _pass(self, moment: Moment) -> None:
        self._changed.set()
        if (action := self._actions.get(moment)) is not None and (wait := action()) is not None:
            await wait

    def _move(self, reading: Reading) -> None:
        self.bolt = reading
        self._report()

    def _report(self) -> None:
        self._changed.set()
        for listener in tuple(self._listeners):
            listener(self.reading)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _raising(error: BaseException, *, moved: bool) -> Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]:
    async def temper(move: Callable[[], Awaitable[None]]) -> None:
        if moved:
            await move()
        raise error

    return temper


def pulses_in(log: Path) -> list[str]:
    """Return the spend ids (hex) in a strike's log, in the order in which the bolt moved."""
    return log.read_text().split() if log.exists() else []


# ---- time -----------------------------------------------------------------------------------------------------------


class Clock:
    """The machine's clocks, in a test's hands: they stand still unless moved. May be read from any thread."""

    def __init__(self, wall: float = 1_790_000_000.0, boot: float = 5_000.0) -> None:
        self._now = Now(wall, boot)

    def __call__(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, asleep or awake."""
        self._now = Now(self._now.wall + seconds, self._now.boot + seconds)

    def set_wall(self, by: float) -> None:
        """Somebody sets the system clock."""
        self._now = replace(self._now, wall=self._now.wall + by)


# ---- a carrier ------------------------------------------------------------------------------------------------------

ABSENT: Any = StrEnum("Sentinel", ["ABSENT"]).ABSENT  # type: ignore[attr-defined]
"""As the value of a claim: leave the claim out."""

ISSUED_AT = 1_790_000_000


def signing_key(alg: Alg = Alg.EDDSA, seed: str = "a carrier") -> SigningKey:
    """Return the key that ``seed`` names, always the same one."""
    raw = hashlib.sha256(seed.encode()).digest()
    if alg is Alg.EDDSA:
        return SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(raw))
    return SigningKey(ec.derive_private_key(int.from_bytes(raw) >> 1, ec.SECP256R1()))


def forge(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, key: SigningKey) -> str:
    """Return these very bytes as a token with a good signature of ``key``, however wrong they are."""
    raw = (part if isinstance(part, bytes) else compact(part) for part in (header, payload))
    signed = ".".join(b64url.encode(part) for part in raw)
    return f"{signed}.{b64url.encode(key.sign(signed.encode()))}"


def compact(value: Any) -> bytes:
    """Return ``value`` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def some_doors(count: int, building: str = "a building") -> tuple[Door, ...]:
    """Return ``count`` doors of the named building, always the same ones."""
    return tuple(
        Door(new_door_id(hashlib.sha256(f"{building} {number}".encode()).digest()[:16]), f"Door {number}", 60.0)
        for number in range(count)
    )


class Carrier:
    """A carrier's cloud: it has a key that the building trusts, and signs whatever a test wants it to."""

    def __init__(
        self,
        name: str = "Parcels",
        doors: Iterable[Door] = (),
        *,
        alg: Alg = Alg.EDDSA,
        limits: EvidenceLimits | None = None,
        hours: WeeklyHours = (),
        rate: int | None = None,
    ) -> None:
        self.name = name
        self.issuer: Issuer = issuer(f"https://{name.lower().replace(' ', '-')}.example")
        self.key = signing_key(alg, name)
        self.doors = tuple(doors)
        self.limits = limits or EvidenceLimits()
        self.hours, self.rate = hours, rate
        self._tokens = 0

    @property
    def trusted(self) -> tuple[TrustedKey, ...]:
        """Its key as the building has imported it."""
        return import_jwk_set(json.dumps({"keys": [self.key.jwk()]}), self.issuer)

    @property
    def admitted(self) -> policy.Carrier:
        """The building manager's record of it."""
        doors = frozenset(door.id for door in self.doors)
        return policy.Carrier(self.issuer, self.name, self.trusted, doors, self.limits, self.hours, self.rate)

    @property
    def principal(self) -> Principal:
        """It, as the caller of a host."""
        return Principal(self.issuer)

    def header(self, **members: Any) -> dict[str, Any]:
        """Return the header of a good token, with ``members`` changed, added or ABSENT."""
        return _changed({"alg": self.key.alg.value, "kid": self.key.kid, "typ": "door-unlock+jwt"}, members)

    def claims(self, nonce: str, **claims: Any) -> dict[str, Any]:
        """Return the claims of a good token for ``nonce``, with ``claims`` changed, added or ABSENT.

        Each call has a ``jti`` of its own. ``chk`` as a dict changes members of the good one.
        """
        self._tokens += 1
        checks = {
            "drv": "passkey",
            "rte": "route-7",
            "gps": {"d": 12, "acc": 8, "age": 3},
            "req": ISSUED_AT - 5,
        }
        if isinstance(change := claims.get("chk"), dict):
            claims["chk"] = _changed(checks, change)
        return _changed(
            {
                "ver": 1,
                "iss": self.issuer,
                "aud": self.doors[0].id if self.doors else some_doors(1)[0].id,
                "jti": b64url.encode(hashlib.sha256(f"{self.name} {self._tokens}".encode()).digest()[:16]),
                "iat": ISSUED_AT,
                "exp": ISSUED_AT + 60,
                "act": "unlock",
                "sub": "driver-4711",
                "stp": "stop-815",
                "non": nonce,
                "chk": checks,
            },
            claims,
        )

    def token(self, nonce: str, **claims: Any) -> str:
        """Return a token for ``nonce``: a good one unless ``claims`` make it a bad one."""
        return forge(self.header(), self.claims(nonce, **claims), self.key)


def _changed(good: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**good, **change}.items() if value is not ABSENT}


# ---- a building -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """A line of the journal as it is on the disk: its bytes, and what they say."""

    raw: bytes
    says: dict[str, Any]


class Site:
    """A building at work: a real controller, a real journal on disk, simulated strikes and a carrier or two.

    Use it with ``async with``; what is on the disk can be read after it has closed. ``events`` holds all that was told.
    ``reopen`` returns the same building started again on the same journal: with the same strikes, but a controller that
    remembers nothing except what it wrote. ``setup`` says how each door is set up besides.
    """

    def __init__(
        self,
        path: Path,
        *,
        doors: int = 1,
        carriers: Sequence[Carrier] = (),
        device_timed: bool = True,
        feedback: bool = True,
        access_time: float = 60.0,
        clock: Clock | None = None,
        strikes: dict[DoorId, SimulatedStrike] | None = None,
        setup: Mapping[str, Any] | None = None,
        zone: tzinfo = UTC,
        elsewhere: Iterable[Door] = (),
    ) -> None:
        self.path = path
        self.doors = tuple(replace(door, access_time=access_time, **setup or {}) for door in some_doors(doors))
        self.zone = zone
        self.elsewhere = tuple(elsewhere)
        self.carriers = tuple(carriers) or (Carrier("Parcels"),)
        for carrier in self.carriers:
            carrier.doors = carrier.doors or self.doors
        self.clock = clock or Clock()
        self.events: list[AccessEvent] = []
        self._told = asyncio.Event()
        self.strikes = (
            {door.id: SimulatedStrike(device_timed=device_timed, feedback=feedback) for door in self.doors}
            if strikes is None
            else strikes
        )
        self.journal: Journal
        self.controller: Controller

    async def __aenter__(self) -> Self:
        self.journal = await asyncio.to_thread(open_journal, self.path)
        self.controller = Controller(self.journal, tell=self._tell, clock=self.clock)
        self.controller.start(self.building, self.strikes)
        await asyncio.sleep(0)  # each door has looked at its strike
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.controller.stop()
        finally:
            await asyncio.to_thread(self.journal.close)
            for strike in self.strikes.values():
                await strike.aclose()

    def reopen(self) -> Site:
        """Return the building after a restart of the program."""
        again = Site(
            self.path,
            carriers=self.carriers,
            clock=self.clock,
            strikes=self.strikes,
            zone=self.zone,
            elsewhere=self.elsewhere,
        )
        again.doors = self.doors
        return again

    # ---- who is there ----

    @property
    def carrier(self) -> Carrier:
        return self.carriers[0]

    @property
    def door(self) -> Door:
        return self.doors[0]

    @property
    def strike(self) -> SimulatedStrike:
        """The first door's."""
        return self.strikes[self.door.id]

    @property
    def building(self) -> Building:
        return Building.of(
            self.doors,
            [carrier.admitted for carrier in self.carriers],
            zone=self.zone,
            elsewhere=[door.id for door in self.elsewhere],
        )

    @property
    def state(self) -> DoorState:
        """What is known of the first door."""
        return self.controller.state(self.door.id)

    @property
    def outcomes(self) -> list[EventName]:
        """What was told, in order."""
        return [event.outcome for event in self.events]

    @property
    def pulses(self) -> int:
        """How often any strike of the building moved."""
        return sum(len(strike.pulses) for strike in self.strikes.values())

    # ---- what happens ----

    def challenge(self, door: Door | None = None, carrier: Carrier | None = None) -> str:
        """Return a live challenge."""
        return self.controller.challenge((door or self.door).id, (carrier or self.carrier).issuer).nonce

    def token(self, **claims: Any) -> str:
        """Return a token of the first carrier for a live challenge of the first door."""
        return self.carrier.token(self.challenge(), **claims)

    async def present(self, text: object, carrier: Carrier | None = None) -> Decision:
        """Present a token in the name of the first carrier, or of ``carrier``."""
        async with asyncio.timeout(20):
            return await self.controller.present(text, (carrier or self.carrier).principal)

    async def told(self, outcome: EventName, times: int = 1) -> list[AccessEvent]:
        """Return the events of this name when there are as many."""
        async with asyncio.timeout(10):
            while len(found := [event for event in self.events if event.outcome is outcome]) < times:
                self._told.clear()
                await self._told.wait()
        return found

    async def until(self, condition: Callable[[DoorState], bool], door: Door | None = None) -> None:
        """Return when ``condition`` of the first door, or of ``door``, holds."""
        which, changed = (door or self.door).id, asyncio.Event()
        unsubscribe = self.controller.subscribe(which, lambda _: changed.set())
        async with asyncio.timeout(10):
            while not condition(self.controller.state(which)):
                changed.clear()
                await changed.wait()
        unsubscribe()

    def sense(self, sensor: Sensor, sense: Sense = Sense.ACTIVE) -> None:
        """Let a sensor of the first door say something."""
        self.controller.sense(self.door.id, sensor, sense)

    def _tell(self, event: AccessEvent) -> None:
        self.events.append(event)
        self._told.set()

    # ---- what is on the disk, once it is closed ----

    def leaves(self) -> list[Leaf]:
        return [Leaf(raw, json.loads(raw)) for (raw,) in self.rows("SELECT bytes FROM leaf ORDER BY seq")]

    def spent(self) -> list[tuple[str, str]]:
        """Return jti and state of each spent token."""
        return self.rows("SELECT jti, state FROM spent ORDER BY rowid")

    def rows(self, sql: str) -> list[Any]:
        return read_journal(self.path, sql)

    def all_bytes(self) -> bytes:
        """Return whatever lies on the disk of this journal."""
        return b"".join(part.read_bytes() for part in sorted(self.path.parent.glob(self.path.name + "*")))


IDENTITY = SignerKey("vestibule/test", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""The identity of the controller in these tests."""


def open_journal(path: Path) -> Journal:
    """Open or create a journal that IDENTITY signs."""
    return Journal.open(path, lambda _: IDENTITY)


async def small_journal(path: Path, entries: int = 8) -> Path:
    """Make a journal whose every entry is signed by itself, and each is about another person; return ``path``."""
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    door = some_doors(1)[0].id
    for number in range(1, entries + 1):
        event = AccessEvent(outcome=EventName.DOOR_OPENED, door=door, at=1.8e9 + number)
        await journal.append(event, {"user_id": f"u{number}", "user": f"User {number}"})
    await asyncio.to_thread(journal.close)
    return path


def read_journal(path: Path, sql: str) -> list[Any]:
    """Return the rows of a closed journal."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def refusals(events: Iterable[AccessEvent]) -> list[Code]:
    """Return the codes of all denied accesses."""
    return [event.code for event in events if event.outcome is EventName.ACCESS_DENIED and event.code is not None]
