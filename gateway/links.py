"""The links to carriers' clouds at work: one outbound connection for each, kept up by the core's client (protocol G).

Through a link its own carrier asks for challenges and presents tokens, within the limits that hold for everybody; it
hands over keys and lists, and is told at once what was accepted of its tokens, whichever way they came. What this file
refuses to do: judge anything, offer a door at which the policy does not let the carrier in, or keep a door waiting for
a cloud: a link that hangs hangs alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from vestibule_core import b64url
from vestibule_core.api.messages import CarrierAlarm, LinkAlarm
from vestibule_core.errors import KeySetInvalid, StoreFailed
from vestibule_core.evidence import Broken
from vestibule_core.link import client
from vestibule_core.link.client import Enrolled, Link, WrongIssuer
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import MAX_DOORS, Begin, Hello, Keys, LinkedDoor, write_hello
from vestibule_core.link.standing import CONTESTED, ENDS_SOON, NOT_ACCEPTED, TELL_AFTER, LinkState
from vestibule_core.model import AccessEvent, Code, Decision, DoorId, EventName, Issuer, Means, Principal, Word
from vestibule_core.note import SignerKey
from vestibule_core.reconcile import Alarm
from vestibule_core.token import spend_id_of

from .carriers import AlreadyLinked, Linked, UnknownCarrier
from .edge import Edge
from .log import say

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY: Final = 300.0
"""Seconds from one look at what was accepted to the next."""
TOLD_AGAIN: Final = 3600.0
"""Seconds for which what was accepted is told again when a link comes back: the cloud may not have heard it."""
MOST_TOLD: Final = 1000
"""That are told again."""
PATIENCE: Final = 2.0
"""Seconds for what is being answered on a link before it is ended."""
LONGEST_NAME: Final = 60
LONGEST_CHECKPOINT: Final = 1000
"""Characters that a hello has room for."""

_CAME_OF: Final = frozenset(
    {
        EventName.DOOR_RELEASED,
        EventName.RELEASE_FAILED,
        EventName.OUTCOME_UNKNOWN,
        EventName.DOOR_ALREADY_UNLOCKED,
    }
)
"""What says how an accepted token ended."""

_NOT_NOW: Final = (StoreFailed, Broken, UnknownCarrier)
"""The journal fails, which is said where it fails; or the link is being ended."""

_WHY: Final[Mapping[LinkState, str]] = {
    LinkState.CONNECTING: "it is tried again",
    LinkState.NOT_READY: "the cloud asks to come back later: it restarts, or has published no keys yet",
    LinkState.UNREACHABLE: "the cloud cannot be reached; it is tried again and again",
    LinkState.CERTIFICATE: "whoever answers has no good certificate for that name; is something in between?",
    LinkState.NO_CLOUD: "what answers there is no carrier's cloud that this version understands",
    LinkState.WRONG_ISSUER: "what answers there is another carrier's cloud",
    LinkState.TAKEN_OVER: "something else was connected as this gateway: is there a copy of its state folder?",
    LinkState.NOT_ENROLLED: "the cloud does not know this gateway any more: ask the carrier for a new code",
    LinkState.CODE_UNUSABLE: "the code is unknown there, was used by somebody else, or is too old: ask for a new one",
    LinkState.UNSTABLE: "each ends soon: does a proxy or a firewall on the way cut it? If none does, ask the carrier",
}

_ALARMS: Final[Mapping[Alarm, str]] = {
    Alarm.LOCKED_OUT: "LOCKED OUT, since tokens were accepted that it says it never issued. Its keys may be stolen: "
    "ask the carrier, then `carrier approve` lets it in again",
    Alarm.NEVER_ISSUED: "a token was accepted that it says it never issued: after a day it is locked out",
    Alarm.NO_LIST: "it has not said for two days which tokens it issued",
}


def why_not(state: LinkState, said: str) -> str:
    """Return, for a person, why there is no link."""
    return f"{_WHY.get(state, state.value)} ({said})" if said else _WHY.get(state, state.value)


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A token that was accepted, and what came of it."""

    jti: bytes
    door: DoorId
    code: Code
    at: float
    """Seconds of boot time."""


class Links:
    """All links of a gateway. Belongs to one event loop."""

    def __init__(
        self,
        edge: Edge,
        positions: Mapping[DoorId, tuple[float, float]],
        zone: Callable[[], str],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Be the links of ``edge``. ``positions``: degrees of latitude and longitude of the doors that have any;
        ``zone``: where they are; ``chance``: a number in [0, 1), for pauses. Nothing happens before ``start``.
        """
        self.edge, self.positions, self.zone, self.chance = edge, positions, zone, chance
        self.instance = os.urandom(16)
        self._session: aiohttp.ClientSession | None = None
        self._open: dict[Issuer, _Kept] = {}
        self._early: deque[AccessEvent] = deque(maxlen=MOST_TOLD)
        """What came of tokens before there were links: of those that a crash has left without an outcome."""
        self.alarms: tuple[CarrierAlarm, ...] = ()
        """What somebody has to know of links, as of the last look."""
        self._is_ending = False

    async def start(self) -> None:
        """Call every cloud that there is a link to, and go on with that."""
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        for who in self.edge.carriers.linked:
            self._begin(who)

    async def stop(self) -> None:
        """End all links; what is being answered has PATIENCE seconds."""
        self._is_ending = True
        await asyncio.gather(*(self._end(who) for who in tuple(self._open)))
        if self._session is not None:
            await self._session.close()

    # ---- which there are ----

    async def meet(self, code: EnrolmentCode) -> Enrolled:
        """Enrol this gateway by a code; return whose cloud it is. Nothing is held of it. Raises AlreadyLinked, or what
        ``client.enrol`` raises.
        """
        assert self._session is not None
        key, now = self.edge.journal.signer, int(self.edge.controller.now().wall)

        def hello(begin: Begin) -> Hello:
            if begin.issuer in self.edge.carriers.linked:  # before the cloud ends its link for this one
                raise AlreadyLinked
            return self.hello(begin, 0)

        return await client.enrol(self._session, code, key, hello, now)

    async def link(self, met: Enrolled, host: str) -> None:
        """Hold a carrier whose cloud was met, and be linked. Raises AlreadyLinked, KeySetInvalid or StoreFailed."""
        await self.edge.carriers.link(met.issuer, met.name, host, met.root, met.text)
        self._begin(met.issuer)

    async def unlink(self, who: Issuer) -> Linked:
        """Be linked no more. Raises UnknownCarrier, IsLockedOut or StoreFailed."""
        was = await self.edge.carriers.unlink(who)
        await self._end(who)
        self.look_for_alarms()
        return was

    def _begin(self, who: Issuer) -> None:
        assert self._session is not None
        self._open[who] = kept = _Kept(self, who, self.edge.carriers.held(who).host or "", self._session)
        for event in self._early:
            kept.happened(event)
        self.look_for_alarms()

    async def _end(self, who: Issuer) -> None:
        if (kept := self._open.pop(who, None)) is not None:
            await kept.end()

    # ---- what they are told ----

    def happened(self, event: AccessEvent) -> None:
        """Tell the carrier of a token what came of it."""
        if event.outcome in _CAME_OF and event.means is Means.TOKEN and event.spend_id is not None:
            if self._session is None:
                self._early.append(event)
            elif event.issuer is not None and (kept := self._open.get(event.issuer)) is not None:
                kept.happened(event)

    def refresh(self) -> None:
        """Let each cloud know which doors its carrier may ask for, if these are others than it was told."""
        for kept in self._open.values():
            kept.refresh()

    # ---- how they are ----

    def look_for_alarms(self) -> None:
        """See what somebody has to know now, and tell all clients if that is something else than before."""
        if self._is_ending:  # that there are no links then puts nothing right
            return
        before = self.alarms
        self.alarms = tuple(
            CarrierAlarm(who, alarm)
            for who, kept in self._open.items()
            if (held := self.edge.carriers.linked.get(who)) is not None  # it may just be removed
            for alarm in self._alarms(held, kept)
        )
        for each in self.alarms:
            if each not in before and each.alarm is not LinkAlarm.KEYS_REFUSED:  # each set is said, and why
                say(_LOGGER, logging.ERROR, f"carrier_{each.alarm}", issuer=each.issuer)
        if self.alarms != before:
            self.edge.stream.building_changed()

    def _alarms(self, held: Linked, kept: _Kept) -> Iterator[LinkAlarm]:
        if kept.link.state in NOT_ACCEPTED or kept.link.trouble is not None:
            yield LinkAlarm.NO_LINK
        if kept.is_contested:
            yield LinkAlarm.TAKEN_OVER
        if kept.keys_refused is not None:
            yield LinkAlarm.KEYS_REFUSED
        if held.published.expires_at - self.edge.controller.now().wall < ENDS_SOON:
            yield LinkAlarm.KEYS_END

    def facts(self, who: Issuer) -> dict[str, Any]:
        """Return how the link to a carrier is, for a person."""
        held, kept = self.edge.carriers.held(who), self._open.get(who)
        return {
            "issuer": who,
            "name": held.name,
            "host": held.host,
            "doors": len(self.doors(who)),
            "connected": kept is not None and kept.link.is_connected,
            "wrong": list(self._wrong(held, kept)),
        }

    def _wrong(self, held: Linked, kept: _Kept | None) -> Iterator[str]:
        """Yield, for a person, what is wrong with a carrier or the link to it."""
        yield from (_ALARMS[alarm] for who, alarm in self.edge.carriers.alarms if who == held.root.issuer)
        if kept is not None and (trouble := kept.link.trouble) is not None:
            yield f"for {TELL_AFTER / 60:.0f} minutes no link has lasted: {why_not(trouble, kept.link.why)}"
        elif kept is None or not kept.link.is_connected:
            state, said = (LinkState.CONNECTING, "") if kept is None else (kept.link.state, kept.link.why)
            yield f"not connected: {why_not(state, said)}"
        elif kept.is_contested:
            yield f"within the last hour, {_WHY[LinkState.TAKEN_OVER]}"
        if kept is not None and kept.keys_refused is not None:
            yield f"its newest keys were refused: {kept.keys_refused}"
        if held.published.expires_at <= self.edge.controller.now().wall:
            yield f"its keys ended on {datetime.fromtimestamp(held.published.expires_at, UTC):%Y-%m-%d}"

    # ---- what a hello says ----

    def doors(self, who: Issuer) -> tuple[LinkedDoor, ...]:
        """Return the doors that a carrier is let in at, as its cloud hears of them; more than MAX_DOORS it is not."""
        carrier = self.edge.controller.building.carriers.get(who)
        offered = [each.door for each in self.edge.doors() if carrier is not None and each.door.id in carrier.doors]
        return tuple(
            LinkedDoor(door.id, door.name[:LONGEST_NAME], self.zone(), *self.positions.get(door.id, (None, None)))
            for door in offered[:MAX_DOORS]
        )

    def hello(self, begin: Begin, key_set: int) -> Hello:
        """Return what is so now, with as many doors as there is room for."""
        signer, checkpoint = self.edge.journal.signer, self.edge.journal.checkpoint
        if checkpoint is not None and len(checkpoint) > LONGEST_CHECKPOINT:
            checkpoint = None
        doors = self.doors(begin.issuer)
        while True:
            hello = Hello(signer.verifier, begin.issuer, begin.nonce, self.instance, doors, key_set, checkpoint)
            try:
                write_hello(signer, hello)
            except ValueError:
                if not doors:
                    raise
                doors = doors[:-1]
                say(_LOGGER, logging.ERROR, "carrier_doors_left_out", issuer=begin.issuer, told=len(doors))
            else:
                return hello


class _Kept:
    """The link to one carrier, and the controller as that sees it (``client.Host``)."""

    def __init__(self, links: Links, who: Issuer, where: str, session: aiohttp.ClientSession) -> None:
        """Begin at once."""
        self._links, self._edge = links, links.edge
        self._who, self._where, self._session = who, where, session
        self.link = Link(session, where, self, chance=links.chance)
        self.keys_refused: str | None = None
        """Why the newest key set that was handed over was not taken."""
        self._taken_over: float | None = None
        """Seconds of boot time when something else was connected as this gateway."""
        self._offered: tuple[LinkedDoor, ...] = ()
        """The doors of the last hello."""
        self._answering = 0
        self._answered = asyncio.Event()
        self._answered.set()
        self._renew = asyncio.Event()
        self._connected = asyncio.Event()
        self._came: asyncio.Queue[AccessEvent] = asyncio.Queue()
        self._upto = self._edge.carriers.upto(who)
        self._unmatched: dict[bytes, tuple[bytes, DoorId]] = {}
        """Tokens that were accepted, by spend id: their ids and doors, until it is known what came of them."""
        self._told: deque[_Accepted] = deque(maxlen=MOST_TOLD)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._keep(), self._tell(), self._look())]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @property
    def is_contested(self) -> bool:
        """Whether something else was connected as this gateway lately, also if it is not any more."""
        return self._taken_over is not None and self._edge.controller.now().boot - self._taken_over < CONTESTED

    async def end(self) -> None:
        """End it, once what is being answered is answered."""
        await self._quiet()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (err := task.exception()) is not None:
            _LOGGER.error("A link that has to go on has ended", exc_info=err)

    async def _quiet(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._answered.wait()

    # ---- keeping it ----

    async def _keep(self) -> None:
        while True:
            self._renew.clear()
            self.link.subscribe(self._changed)
            running = asyncio.get_running_loop().create_task(self.link.run())
            renewing = asyncio.get_running_loop().create_task(self._renew.wait())
            try:
                await asyncio.wait((running, renewing), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()  # it runs until it is cancelled
                await self._quiet()
            finally:
                running.cancel()
                renewing.cancel()
                await asyncio.gather(running, renewing, return_exceptions=True)
            self.link = Link(self._session, self._where, self, chance=self._links.chance)

    def refresh(self) -> None:
        """Begin anew if the doors that the cloud knows are not those that it may ask for."""
        if self.link.is_connected and self._links.doors(self._who) != self._offered:
            self._renew.set()

    def _changed(self) -> None:
        link = self.link
        if link.is_connected:
            say(_LOGGER, logging.INFO, "carrier_link", issuer=self._who, state=link.state)
            self._connected.set()
            self.refresh()  # the policy may have changed since the hello left
            for accepted in self._recent():
                link.accepted(accepted.jti, accepted.door, accepted.code)
        else:
            is_passing = link.state in (LinkState.CONNECTING, LinkState.NOT_READY)
            level = logging.INFO if is_passing else logging.WARNING
            say(_LOGGER, level, "carrier_link", issuer=self._who, state=link.state, why=link.why)
        if link.state is LinkState.TAKEN_OVER:
            self._taken_over = self._edge.controller.now().boot
        self._links.look_for_alarms()

    # ---- what was accepted ----

    def happened(self, event: AccessEvent) -> None:
        """Something came of a token of this carrier's."""
        if event.issuer == self._who:
            self._came.put_nowait(event)

    async def _tell(self) -> None:
        while True:
            event = await self._came.get()
            with suppress(*_NOT_NOW):  # said where it failed; or it is being ended
                await self._read_journal()
            found = self._unmatched.pop(event.spend_id or b"", None)
            if found is not None and event.code is not None:
                accepted = _Accepted(*found, event.code, self._edge.controller.now().boot)
                self._told.append(accepted)
                self.link.accepted(accepted.jti, accepted.door, accepted.code)

    async def _read_journal(self) -> None:
        while (more := await self._edge.journal.accepted(self._who, self._upto)).upto != self._upto:
            self._upto = more.upto
            for spend in more.spends:
                with suppress(ValueError):  # its driver was deleted
                    jti = b64url.decode(spend.jti.encode())
                    self._unmatched[spend_id_of(self._who, spend.jti)] = (jti, spend.door)
        while len(self._unmatched) > MOST_TOLD:
            del self._unmatched[next(iter(self._unmatched))]

    def _recent(self) -> list[_Accepted]:
        now = self._edge.controller.now().boot
        return [accepted for accepted in self._told if now - accepted.at < TOLD_AGAIN]

    async def _look(self) -> None:
        while True:
            self._connected.clear()  # before the look: a link that comes up during it is looked at next
            with suppress(*_NOT_NOW):
                for day in await self._edge.carriers.look(self._who, asks=self.link.is_connected):
                    self.link.ask_list(day)
            self._links.look_for_alarms()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._connected.wait()

    # ---- what the client asks (client.Host) ----

    @property
    def key(self) -> SignerKey:
        """The gateway's identity."""
        return self._edge.journal.signer

    def hello(self, begin: Begin) -> Hello:
        """Return what is so now. Raises WrongIssuer."""
        if begin.issuer != self._who or self._who not in self._edge.carriers.linked:  # it may just have been removed
            raise WrongIssuer(begin.issuer)
        self._offered = self._links.doors(self._who)
        return self._links.hello(begin, self._edge.carriers.held(self._who).published.version)

    async def challenge(self, door: DoorId) -> tuple[str, int]:
        """Return a fresh challenge of a door. Raises Refused."""
        challenge = self._edge.controller.challenge(door, self._who)
        return challenge.nonce, challenge.ttl

    async def present(self, token: str) -> tuple[Word, Code | None]:
        """Have a token judged."""
        controller = self._edge.controller
        self._answering += 1
        self._answered.clear()
        try:
            decision: Decision = await self._edge.intake.judge(
                self._who,
                f"link {self._who}",
                controller.now().boot,
                lambda: controller.present(token, Principal(self._who)),
            )
        finally:
            self._answering -= 1
            if not self._answering:
                self._answered.set()
        return decision.code.word, decision.code

    async def take_keys(self, keys: Keys) -> None:
        """Take a key set. Raises KeySetInvalid."""
        try:
            with suppress(*_NOT_NOW):
                await self._edge.carriers.take_keys(self._who, keys.root, keys.set)
                self.keys_refused = None
        except KeySetInvalid as err:
            self.keys_refused = str(err)
            say(_LOGGER, logging.ERROR, "carrier_keys_refused", issuer=self._who, why=str(err))
            raise
        finally:
            self._links.look_for_alarms()

    async def take_issued(self, text: str) -> None:
        """Take a part of a list. Raises KeySetInvalid."""
        try:
            with suppress(*_NOT_NOW):
                await self._edge.carriers.take_issued(self._who, text, self.key.verifier)
        except KeySetInvalid as err:
            say(_LOGGER, logging.ERROR, "carrier_list_refused", issuer=self._who, why=str(err))
            raise
