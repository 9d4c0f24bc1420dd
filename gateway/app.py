"""The gateway put together: hardware, journal, controller, policy and API, from its configuration to the network.

The order is what matters here. At the start: the state folder, the journal, the hardware, the controller with the
policy that the journal holds, and only at last the network and the links to carriers' clouds. At the end the other way
round: nobody is listened to any more, releases are ended, the outputs are let go of, and then the journal is closed.
What it refuses to do: move anything at the start; open anything for anybody while no client is paired, since then there
is no policy.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from vestibule_core import identity
from vestibule_core.api.messages import DoorDescription, NextCertificate
from vestibule_core.api.pairing import shown
from vestibule_core.controller import Controller
from vestibule_core.erasure import DAY, Due
from vestibule_core.errors import KeySetInvalid, MalformedMessage, StoreFailed
from vestibule_core.evidence import Broken
from vestibule_core.intake import Intake
from vestibule_core.journal import Journal
from vestibule_core.link.client import NotLinked
from vestibule_core.link.code import CodeInvalid, EnrolmentCode
from vestibule_core.model import AccessEvent, Actor, Door, DoorId, DoorMode, Issuer, Sense, read_clock
from vestibule_core.note import SignerKey, VerifierKey

from . import control, policy, systemd, tls
from .backup import Rest
from .carriers import MOST, AlreadyLinked, Carriers, IsLockedOut, NothingToApprove, UnknownCarrier
from .clients import Clients
from .config import Config, DoorConfig
from .control import Facts, Unable
from .discovery import Announcement, local_name
from .doors import Doorway
from .links import Links, why_not
from .log import say
from .pairing import Window
from .policy import PolicyDesk
from .relay.board import Board, Channel, Input
from .relay.config import ChannelConfig, InputConfig, open_boards
from .server import Front
from .source import Unusable
from .state import State, StateUnusable, signs_as
from .stream import Stream
from .witness import Witness

if TYPE_CHECKING:
    from .relay.ble import BleStrikes

_LOGGER = logging.getLogger(__name__)

FIRE: Final = Actor(None, "fire", is_admin=True)
"""Who holds doors open when the fire input says so, in the journal."""
_SHUTDOWN: Final = 2.0
"""Seconds for requests that are being answered when the gateway ends."""
_LOOK_EVERY: Final = 0.5
"""Seconds after which it is noticed that the pairing window was closed."""


async def serve(config: Config) -> None:
    """Be the gateway until SIGTERM or SIGINT; raise what keeps it from starting."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with at_work(config) as gateway:
        systemd.tell("READY=1")
        say(_LOGGER, logging.INFO, "ready", gateway=gateway.id, doors=len(gateway.doorways), port=gateway.port)
        await told.wait()
        systemd.tell("STOPPING=1")
        say(_LOGGER, logging.INFO, "stopping")
    say(_LOGGER, logging.INFO, "stopped")


@asynccontextmanager
async def at_work(config: Config) -> AsyncGenerator[Gateway]:
    """Be a gateway for as long as the ``async with`` lasts.

    Raises StateUnusable, CertificateUnusable, the errors of Journal.open, or OSError.
    """
    async with AsyncExitStack() as stack:
        state = stack.enter_context(closing(await asyncio.to_thread(State.open, config.state)))
        is_new = not state.files.journal.exists()
        certificate = await asyncio.to_thread(tls.keep, state.files.tls, state.id, make=is_new)
        journal, signer = await asyncio.to_thread(_open_journal, state, config.persons_kept)
        stack.push_async_callback(asyncio.to_thread, journal.close)
        following = await asyncio.to_thread(tls.look, state.files.next_tls)
        gateway = Gateway(config, state, journal, signer, certificate, following)
        await gateway.start(stack)
        yield gateway


def _open_journal(state: State, persons_kept: int) -> tuple[Journal, SignerKey]:
    """Open the journal and take out what has had its time; blocks."""
    signers: list[SignerKey] = []

    def key(signed_before: bool) -> SignerKey:
        signers.append(identity.keep(state.files.identity, signs_as(state.id), make=not signed_before))
        return signers[0]

    journal = Journal.open(state.files.journal, key)
    try:
        journal.retain_now(_due(journal, persons_kept))
    except BaseException:  # whatever it is: who tries again must not find it in use
        journal.close()
        raise
    return journal, signers[0]


def _due(journal: Journal, persons_kept: int) -> Due:
    return Due.at(time.time(), journal.newest, persons_kept * DAY)


class Gateway:
    """The gateway at work: what its API (edge.Edge) and its control socket (control.Controlled) are of."""

    def __init__(
        self,
        config: Config,
        state: State,
        journal: Journal,
        signer: SignerKey,
        certificate: tls.Certificate,
        following: tls.Certificate | None,
    ) -> None:
        """Take what is open. Nothing happens before ``start``. Raises StateUnusable."""
        self.config, self.id, self.name = config, state.id, config.name
        self.version = version("vestibule-gateway")
        self.hosts = frozenset({local_name(state.id), *config.listen.hosts})
        self.port = config.listen.port
        self.journal = journal
        self.controller = Controller(journal, tell=self._tell)
        self.intake = Intake()
        self._state = state
        self._signer = signer
        self._certificate = certificate
        self._following = following
        self.boards: dict[str, Board] = open_boards(config.boards)
        """The relay boards, by their names in the configuration."""
        self._strikes: BleStrikes | None = None
        notes = journal.notes()
        self.doorways: dict[DoorId, Doorway] = {}
        for door in config.doors:
            doorway = self._doorway(door, notes)
            self.doorways[doorway.id] = doorway
        try:
            self.clients = Clients(journal, notes, clock=read_clock)
            self.policy = PolicyDesk(
                journal,
                notes,
                clock=read_clock,
                is_trusted=lambda: self.clients.registry.trusted,
                changed=self._policy_changed,
            )
            self.carriers = Carriers(
                journal,
                notes,
                clock=read_clock,
                policy=lambda: self.policy.carriers,
                changed=self._policy_changed,
            )
            self.witness = Witness(journal, notes, signer, read_clock)
        except MalformedMessage as err:
            raise StateUnusable(
                f"what {state.files.journal} has noted of clients, policy, carriers or witnesses cannot be read "
                f"({err}): use the version of vestibule-gateway that wrote it, or restore it from a backup"
            ) from err
        self.window = Window(state.id, certificate.fingerprint, clock=read_clock)
        self.stream = Stream(self)
        self.links = Links(
            self, {one.id: at for one in self.doorways.values() if (at := one.config.position)}, self._zone
        )
        self._announcement: Announcement | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began = time.monotonic()
        self._rest = Rest(journal)

    # ---- life ----

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin to work; ``stack`` ends it, in the opposite order. Moves nothing."""
        stack.push_async_callback(self._stop_boards)
        for board in self.boards.values():
            await board.start()
        if self._strikes is not None:
            stack.push_async_callback(self._strikes.stop)
            await self._strikes.start()
        stack.push_async_callback(self.controller.stop)
        self.controller.start(self.policy.building(self._doors, self.carriers.applied), self._channels)
        for doorway in self.doorways.values():
            stack.callback(doorway.detach)
            doorway.attach(self.controller, self.stream.door_changed)
        self._watch_inputs(stack)
        await self._listen(stack)
        stack.callback(self._rest.stop)
        await self._listen_to_commands(stack)
        stack.push_async_callback(self._end_tasks)
        self._spawn(policy.keep_looking(self.policy, self.clients))
        self._spawn(self._retain_daily())
        if (patience := systemd.watchdog()) is not None:
            self._spawn(self._feed_watchdog(patience))
        if self.config.listen.announce:
            addresses = (self.config.listen.host,) if self.config.listen.host else ()
            self._announcement = Announcement(self.id, self.port, addresses)
            self._spawn(self._announcement.run())
        stack.push_async_callback(self.links.stop)  # before everything else: what is being answered, is answered
        await self.links.start()

    async def _stop_boards(self) -> None:
        """End them all, whatever one of them raises."""
        ended = await asyncio.gather(*(board.stop() for board in self.boards.values()), return_exceptions=True)
        if failed := [each for each in ended if isinstance(each, Exception)]:
            raise ExceptionGroup("boards that could not be stopped", failed)

    async def _listen(self, stack: AsyncExitStack) -> None:
        context = await asyncio.to_thread(self._certificate.context)
        try:
            front = await Front.open(self, context, self.config.listen.host, self.config.listen.port)
        except OSError as err:
            raise Unusable(f"port {self.config.listen.port} cannot be listened at: {err.strerror}") from err
        stack.push_async_callback(front.close)
        self.port = front.port

    async def _listen_to_commands(self, stack: AsyncExitStack) -> None:
        runner = web.AppRunner(control.application(self), access_log=None, shutdown_timeout=_SHUTDOWN)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        path = self._state.files.control
        await web.UnixSite(runner, path).start()
        path.chmod(0o600)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (err := task.exception()) is not None:
            _LOGGER.error("Something that has to go on has ended", exc_info=err)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ---- its doors ----

    def _doorway(self, config: DoorConfig, notes: Mapping[str, str]) -> Doorway:
        inputs = {sensor: self._input(where) for sensor, where in config.inputs.items()}
        if isinstance(config.relay, ChannelConfig):
            brand = self.config.boards[config.relay.board].brand
            model = f"{brand} relay board, channel {config.relay.channel}"
            channel = self.boards[config.relay.board].channel(config.relay.channel)
            return Doorway(config, config.door(self.id), channel, model, inputs)
        if self._strikes is None:
            from .relay.ble import BleStrikes  # needs an extra, and takes its time

            self._strikes = BleStrikes(self.config.state)
        strike = self._strikes.open(config.key, keep_connected=config.relay.keep_connected, notes=notes)
        door, own = config.door(self.id, strike.sensors), strike.sensors - inputs.keys()
        return Doorway(config, door, strike, "Bluetooth strike", inputs, lambda at: strike.hear(at, door.id, own))

    def _input(self, where: InputConfig) -> Input:
        return self.boards[where.board].input(where.input, inverted=where.inverted)

    @property
    def _doors(self) -> list[Door]:
        return [doorway.door for doorway in self.doorways.values()]

    @property
    def _channels(self) -> dict[DoorId, Channel]:
        return {door: doorway.channel for door, doorway in self.doorways.items()}

    def doors(self) -> Sequence[DoorDescription]:
        """Return the doors as they are now."""
        return [doorway.described for doorway in self.doorways.values()]

    # ---- what happens ----

    def _tell(self, event: AccessEvent) -> None:
        door = self.doorways[event.door].config.key if event.door in self.doorways else None
        say(_LOGGER, logging.INFO, event.outcome.value, seq=event.sequence, door=door, code=event.code)
        self.stream.publish(event)
        self.links.happened(event)

    def _policy_changed(self) -> None:
        self.controller.apply(self.policy.building(self._doors, self.carriers.applied), self._channels)
        self.stream.building_changed()
        self.links.refresh()

    def _watch_inputs(self, stack: AsyncExitStack) -> None:
        if (button := self.config.button) is not None:
            stack.callback(_on_activation(self._input(button), lambda: self._spawn(self._pressed())))
        if (fire := self.config.fire) is not None:
            stack.callback(_on_activation(self._input(fire), lambda: self._spawn(self._burns())))

    async def _pressed(self) -> None:
        try:
            approved = await policy.approve(self.policy, self.clients)
        except StoreFailed:  # said where it failed
            return
        say(_LOGGER, logging.INFO, "button_pressed", approved=approved)

    async def _burns(self) -> None:
        """Hold the doors open that are to be; a person ends that."""
        doors = [doorway for doorway in self.doorways.values() if doorway.config.release_on_fire]
        wishes = (self.controller.by_hand.set_mode(doorway.id, DoorMode.UNLOCKED, FIRE) for doorway in doors)
        for doorway, decision in zip(doors, await asyncio.gather(*wishes), strict=True):
            level = logging.WARNING if decision.granted else logging.ERROR
            say(_LOGGER, level, "fire", door=doorway.config.key, code=decision.code)

    # ---- what has to go on ----

    async def _retain_daily(self) -> None:
        while True:
            await asyncio.sleep(DAY)  # the first time was when the journal was opened
            try:
                await self.journal.retain(_due(self.journal, self.config.persons_kept))
            except StoreFailed:  # said where it failed
                pass
            except Broken as err:
                say(_LOGGER, logging.ERROR, "journal_damaged", error=str(err))

    async def _feed_watchdog(self, patience: float) -> None:
        """Tell systemd that the event loop and the journal's writer answer, for as long as they do."""
        while True:
            try:
                async with asyncio.timeout(patience / 2):
                    with suppress(StoreFailed, Broken):  # an answer as well; a restart would not mend the disk
                        await self.journal.run(self.journal.sequence)
                systemd.tell("WATCHDOG=1")
            except TimeoutError:
                say(_LOGGER, logging.ERROR, "journal_stalled")
            await asyncio.sleep(patience / 4)

    # ---- what its API asks besides ----

    @property
    def key(self) -> VerifierKey:
        """What its journal and its next certificate are verified by."""
        return self._signer.verifier

    @property
    def next(self) -> NextCertificate | None:
        """The certificate that it will use next, if one is announced."""
        return None if self._following is None else self._following.announced(self.id, self._signer)

    # ---- what its commands ask ----

    def open_window(self, *, replace: bool, trust: bool) -> Facts:
        """Open the pairing window."""
        code = self.window.open(replaces=replace, trusts=trust)
        say(_LOGGER, logging.INFO, "pairing_open", replaces=replace, trusts=trust)
        self._spawn(self._announce_window())
        return {"code": shown(code), **self.window_state()}

    def window_state(self) -> Facts:
        """Return which pairing window is open, for how long, and who was paired."""
        nonce, paired = self.window.nonce, self.window.paired
        return {
            "window": nonce.hex() if nonce is not None else None,
            "seconds": self.window.seconds_left,
            "paired": paired and {"id": paired.id, "name": paired.name, "scopes": sorted(paired.scopes)},
        }

    def close_window(self) -> None:
        """Close the pairing window."""
        self.window.close()

    async def _announce_window(self) -> None:
        """Say in the network that the window is open, for as long as it is."""
        nonce = self.window.nonce
        if self._announcement is not None:
            self._announcement.pairing(True)
        while self.window.nonce == nonce is not None:  # noqa: ASYNC110 - it closes by itself, when its time is over
            await asyncio.sleep(_LOOK_EVERY)
        if self.window.nonce is None:
            say(_LOGGER, logging.INFO, "pairing_closed")
            if self._announcement is not None:
                self._announcement.pairing(False)

    async def approve(self) -> Facts:
        """Let what waits hold at once."""
        try:
            return {"approved": await policy.approve(self.policy, self.clients), **self.waiting()}
        except StoreFailed as err:
            raise Unable("the journal cannot be written, so nothing may be allowed: see `status`") from err

    def waiting(self) -> Facts:
        """Return, for a person, what waits for somebody at the gateway."""
        pending = self.policy.pending
        return {
            "policy": [] if pending is None else list(pending.why),
            "clients": [
                {
                    "id": one.client.id,
                    "name": one.client.name,
                    "scopes": sorted(one.wish.rights.scopes),
                    "issuers": None if one.wish.rights.issuers is None else sorted(one.wish.rights.issuers),
                }
                for one in self.clients.waiting
                if one.wish is not None
            ],
        }

    async def announce_certificate(self) -> Facts:
        """Announce a next certificate, or the one again that is announced."""
        if self._following is None:
            self._following = await asyncio.to_thread(tls.keep, self._state.files.next_tls, self.id)
            self.stream.building_changed()
        return {"fingerprint": self._following.fingerprint.hex()}

    # ---- carriers' clouds ----

    def _zone(self) -> str:
        return self.config.time_zone or self.policy.effective.zone

    def linked(self) -> Facts:
        """Return the ``carriers`` that there is a link to, and how each link is."""
        return {"carriers": [self.links.facts(who) for who in self.carriers.linked]}

    async def link_carrier(self, code: str, issuer: str | None) -> Facts:
        """Have a link to the cloud that a code names, or say whose it is."""
        with _explained():
            entered = EnrolmentCode.parse(code)
            met = await self.links.meet(entered)
            if issuer is not None:
                if met.issuer != issuer:
                    raise Unable(f"this is the cloud of {met.issuer} now: nothing was linked")
                await self.links.link(met, entered.host)
        let_in = next((each.name for each in self.policy.carriers if each.issuer == met.issuer), None)
        return {"issuer": met.issuer, "name": met.name, "host": entered.host, "let_in": let_in}

    async def unlink_carrier(self, issuer: str) -> Facts:
        """Have a link no more."""
        with _explained():
            return {"issuer": issuer, "name": (await self.links.unlink(Issuer(issuer))).name}

    async def approve_carrier(self, issuer: str) -> Facts:
        """Let a carrier in again that was locked out."""
        with _explained():
            return {"issuer": issuer, "name": (await self.carriers.approve(Issuer(issuer))).name}

    async def begin_backup(self, turn: str) -> Facts:
        """Let the journal's file rest for whoever copies it."""
        await self._rest.begin(turn)
        return {}

    async def end_backup(self, turn: str) -> Facts:
        """Let it go on."""
        self._rest.end(turn)
        return {}

    def status(self) -> Facts:
        """Return how everything is, for a person."""
        view, registry = self.policy.view, self.clients.registry
        now = read_clock().boot
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "uptime": time.monotonic() - self._began,
            "port": self.port,
            "window": self.window_state()["seconds"],
            "doors": [_door_facts(doorway) for doorway in self.doorways.values()],
            "clients": [
                {
                    "id": one.client.id,
                    "name": one.client.name,
                    "scopes": sorted(one.client.scopes),
                    "waiting": None
                    if one.wish is None
                    else {
                        "scopes": sorted(one.wish.rights.scopes),
                        "issuers": None if one.wish.rights.issuers is None else sorted(one.wish.rights.issuers),
                        "seconds_left": one.wish.wait.left(now),
                    },
                }
                for one in registry.paired.values()
            ],
            "trusted": registry.trusted,
            **self.linked(),
            "policy": {
                "version": view.version,
                "carriers": [carrier.name for carrier in view.policy.carriers],
                "waiting": None
                if view.pending is None
                else {"why": list(view.pending.why), "seconds_left": view.pending.seconds_left},
            },
            "journal": {
                "entries": self.journal.sequence,
                "bytes": _size(self._state.files.journal),
                "failed": self.journal.failed,
            },
            "lockdown": self.controller.by_hand.locked_down,
            "restored": self.controller.by_hand.restored,
            "disputed": self.controller.by_hand.disputed,
            "clock_trusted": self.controller.clock_is_trusted,
            "certificate": self._certificate.fingerprint.hex(),
            "next_certificate": None if self._following is None else self._following.fingerprint.hex(),
            "refused": {code.value: count for code, count in self.controller.counters.items()},
        }


def _door_facts(doorway: Doorway) -> dict[str, Any]:
    state, channel = doorway.state, doorway.channel
    return {
        "key": doorway.config.key,
        "id": doorway.id,
        "name": doorway.door.name,
        "model": doorway.model,
        "reachable": channel.is_reachable,
        "reason": channel.reason,
        "mode": state.mode,
        "lock": state.lock,
        "alarm": state.alarm,
        "tampered": state.tampered,
        "deliveries": state.accepts_deliveries,
        "senses": {sensor: getattr(state, sensor) for sensor in sorted(doorway.door.sensors)},
    }


@contextmanager
def _explained() -> Iterator[None]:
    """Say in words why there is no link to a carrier's cloud, or none that could be changed. The one place for it."""
    try:
        yield
    except CodeInvalid as err:
        raise Unable(str(err)) from err
    except NotLinked as err:
        raise Unable(f"no link: {why_not(err.state, str(err))}") from err
    except KeySetInvalid as err:
        raise Unable(f"the keys of this cloud cannot be trusted ({err}): ask the carrier") from err
    except AlreadyLinked as err:
        raise Unable(
            f"there is a link to this carrier already, or there are {MOST}: `carrier remove` ends one"
        ) from err
    except UnknownCarrier as err:
        raise Unable("there is no link to this carrier: `carrier list` shows those that there are") from err
    except NothingToApprove as err:
        raise Unable("nothing is held against this carrier") from err
    except IsLockedOut as err:
        raise Unable(
            "this carrier is locked out, which would end with its link: take it out in Home Assistant first, then "
            "`carrier approve`, then `carrier remove`"
        ) from err
    except StoreFailed as err:
        raise Unable("the journal cannot be written, so nothing may be changed: see `status`") from err


def _on_activation(source: Input, act: Callable[[], None]) -> Callable[[], None]:
    """Call ``act`` when an input becomes active that was seen inactive before, until the returned function is called.

    What is active when the gateway starts does nothing: nothing moves at the start.
    """
    was = source.sense

    def heard(sense: Sense) -> None:
        nonlocal was
        if sense is Sense.ACTIVE and was is Sense.INACTIVE:
            act()
        if sense in (Sense.ACTIVE, Sense.INACTIVE):
            was = sense

    return source.subscribe(heard)


def _size(journal: Path) -> int:
    log = journal.with_name(f"{journal.name}-wal")
    return sum(path.stat().st_size for path in (journal, log) if path.exists())
