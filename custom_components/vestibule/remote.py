"""A gateway: doors whose controller runs beside their hardware, as Home Assistant sees and steers them.

The gateway decides, spends and records; it opens doors while Home Assistant is down. Home Assistant follows its stream,
hands it the carriers of the building that may enter there, carries tokens to it and asks it for what people do by hand.
What this file refuses to do: drive a gateway's relay itself, show what it does not know to be so now, or ask for a
release twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final, Self, override

import aiohttp
from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigEntryState,
)
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_TOKEN, EVENT_CORE_CONFIG_UPDATE
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryAuthFailed, ConfigEntryNotReady
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.aiohttp_client import async_create_clientsession
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.util import dt as dt_util

from .agreement import Agreement
from .const import (
    CONF_DOORS,
    CONF_FINGERPRINT,
    CONF_GATEWAY,
    CONF_GATEWAY_KEY,
    CONF_NEXT_FINGERPRINT,
    DOMAIN,
    MANUFACTURER,
)
from .doorway import MODELS, Doorway, Premises
from .embedded import gateway_entries, is_building, loaded_building
from .told import Told
from .vestibule_core.api.client import GatewayClient
from .vestibule_core.api.messages import (
    Answer,
    BuildingChanged,
    ChallengeAnswer,
    Confirmed,
    DoorChanged,
    DoorDescription,
    DoorsChanged,
    Frame,
    GatewayId,
    Happened,
    Hello,
    Newer,
    NextCertificate,
    Operation,
    PolicyMark,
    Standing,
    bearer,
    next_certificate_text,
)
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    OutcomeUnknown,
)
from .vestibule_core.model import AccessEvent, Actor, Code, Decision, Door, DoorId, DoorMode, Issuer
from .vestibule_core.note import NoteError, VerifierKey, open_note
from .vestibule_core.strike import Capabilities
from .witness import Witness

_LOGGER = logging.getLogger(__name__)

type GatewayConfigEntry = ConfigEntry[Remote]

FIRST_HELLO: Final = 15.0
"""Seconds in which a gateway has to say what it has, when it is set up."""
LATE_AFTER: Final = 60.0
"""Seconds after which an event is history: for the bus and Activity, and no automation that reacts to the door."""
PAUSES: Final = (1.0, 60.0)
"""Seconds between two attempts to connect: the first pause, doubled up to the last."""
_ORIGINS: Final = 256
"""Requests whose events can be told in the context they were asked in."""

_OPERATIONS: Final = {
    DoorMode.NORMAL: Operation.RELOCK,
    DoorMode.UNLOCKED: Operation.HOLD,
    DoorMode.BLOCKED: Operation.BLOCK,
}
_NOT_DONE: Final = {
    403: Code.MANUAL_NOT_ALLOWED,
    404: Code.WRONG_DOOR,
    429: Code.RATE_LIMITED,
    503: Code.STOPPING,
}
"""What it means to whoever asks that a gateway turned Home Assistant away."""


@dataclass(frozen=True, slots=True)
class RemoteBolt:
    """What moves the bolt of a gateway's door, as far as entities look at it."""

    is_reachable: bool
    capabilities: Capabilities


class RemoteDoorway(Doorway):
    """A door of a gateway; lives as long as the gateway has it."""

    def __init__(self, remote: Remote, described: DoorDescription) -> None:
        """Be a door as the gateway describes it."""
        super().__init__(described.door.id)
        self.described = described
        self.state = described.state
        self._remote = remote

    @property
    @override
    def door(self) -> Door:
        return self.described.door

    @property
    @override
    def is_known(self) -> bool:
        return self._remote.is_there

    @property
    @override
    def bolt(self) -> RemoteBolt:
        return RemoteBolt(self.is_known and self.described.reachable, self.described.strike)

    @property
    @override
    def why_not(self) -> dict[Code, str]:
        away = f"its gateway {self._remote.name} does not answer"
        return {Code.STRIKE_UNREACHABLE: "its gateway cannot reach it" if self.is_known else away}

    @override
    async def open_by_hand(self, actor: Actor, origin: Context | None, pin: str | None = None) -> Decision:
        if self._remote.is_disputed and not actor.is_admin:
            return Decision(Code.JOURNAL_DISPUTED, self.id)
        return await self._remote.operate(self.id, Operation.ACCESS, actor, origin)

    @override
    async def set_mode(self, mode: DoorMode, actor: Actor, origin: Context | None) -> Decision:
        if (operation := _OPERATIONS.get(mode)) is None:
            return Decision(Code.MODE_NOT_POSSIBLE, self.id)
        if mode is DoorMode.UNLOCKED and self._remote.is_disputed and not actor.is_admin:
            return Decision(Code.JOURNAL_DISPUTED, self.id)
        return await self._remote.operate(self.id, operation, actor, origin)

    @override
    async def set_deliveries(self, accepted: bool, actor: Actor, origin: Context | None) -> Decision:
        operation = Operation.DELIVERIES_ON if accepted else Operation.DELIVERIES_OFF
        return await self._remote.operate(self.id, operation, actor, origin)

    @override
    async def clear_tamper(self, actor: Actor, origin: Context | None) -> Decision:
        return await self._remote.operate(self.id, Operation.CLEAR_TAMPER, actor, origin)

    @callback
    def describe(self, described: DoorDescription) -> None:
        """Be as the gateway describes it now."""
        self.described = described
        self.take(described.state)


class Remote(Premises[RemoteDoorway]):
    """A gateway entry at run time."""

    def __init__(self, hass: HomeAssistant, entry: GatewayConfigEntry, told: Told) -> None:
        """Use ``Remote.open``."""
        super().__init__(hass, entry)
        self.version = ""
        self.policy: PolicyMark | None = None
        """The policy that the gateway keeps to."""
        self.away_since: float | None = monotonic()
        """When the gateway was last lost (monotonic seconds); None: it is there."""
        self._standing = Standing(
            lockdown=False, newest=0, restored=False, clock_trusted=True, journal_failed=False, disputed=False
        )
        self.key = VerifierKey.parse(entry.data[CONF_GATEWAY_KEY])
        """What the gateway signs with."""
        self._session = new_session(hass)
        self.client = _client(self._session, entry)
        self._way = _way(entry)
        self._told = told
        self._seen = told.after
        """The number of the newest event that was told; None: nothing is of interest yet."""
        self._origins: dict[str, Context] = {}
        self._started = asyncio.Event()
        """Set once the entities are there: no event is told before."""
        self._keeping: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._hello: asyncio.Future[None] = hass.loop.create_future()
        self._backlog = 0
        """The number of the newest event that happened before the gateway was met."""
        self._locking_down = asyncio.Lock()
        self.agreement = Agreement(hass, self)
        self.witness: Witness
        """What was seen of its journal; there from ``open`` on."""
        self._witnessing: asyncio.Task[None] | None = None
        self._agreeing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, hass: HomeAssistant, entry: GatewayConfigEntry) -> Self:
        """Connect; raise ConfigEntryNotReady or ConfigEntryAuthFailed."""
        remote = cls(hass, entry, await Told.open(hass, entry.data[CONF_GATEWAY]))
        remote.witness = await Witness.open(hass, remote)
        remote._keeping = entry.async_create_background_task(hass, remote._told.keep(), f"keep in mind {entry.title}")
        remote._following = entry.async_create_background_task(hass, remote._follow(), f"follow {entry.title}")
        try:
            async with asyncio.timeout(FIRST_HELLO):
                await asyncio.shield(remote._hello)
        except TimeoutError as err:
            await remote.stop()
            raise _not_ready(entry) from err
        except GatewayForbidden as err:
            await remote.stop()
            raise ConfigEntryAuthFailed(translation_domain=DOMAIN, translation_key="gateway_forbidden") from err
        except GatewayImpostor as err:
            await remote.stop()
            raise ConfigEntryNotReady(  # it may have its place again later; nothing is sent until then
                translation_domain=DOMAIN,
                translation_key="gateway_impostor",
                translation_placeholders={"name": entry.title},
            ) from err
        except GatewayUnreachable as err:
            await remote.stop()
            raise _not_ready(entry) from err
        return remote

    @callback
    def start(self) -> None:
        """Begin to tell, now that the entities are there, and keep its policy as the building's carriers are."""
        self._started.set()
        undo = self._entry.async_on_unload
        undo(async_dispatcher_connect(self._hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._entry_changed))
        undo(self._hass.bus.async_listen(EVENT_CORE_CONFIG_UPDATE, lambda _: self.agreement.look_soon()))
        keeping = self.agreement.keep()
        self._agreeing = self._entry.async_create_background_task(self._hass, keeping, f"agree with {self.name}")
        self.agreement.look_soon()
        witnessing = self.witness.keep()
        self._witnessing = self._entry.async_create_background_task(self._hass, witnessing, f"witness {self.name}")

    async def stop(self) -> None:
        """Follow nothing any more; may be repeated."""
        all_tasks = (self._following, self._agreeing, self._witnessing, self._keeping)
        tasks = [task for task in all_tasks if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._told.close()

    # ---- what is common to its doors ----

    @property
    @override
    def id(self) -> str:
        return str(self._entry.data[CONF_GATEWAY])

    @property
    @override
    def name(self) -> str:
        return self._entry.title

    @property
    @override
    def is_there(self) -> bool:
        return self.away_since is None

    @property
    @override
    def can_be_away(self) -> bool:
        return True

    @property
    @override
    def journal_entries(self) -> int:
        return self._standing.newest

    @property
    @override
    def refusals_counted(self) -> int | None:
        return None

    @property
    @override
    def locked_down(self) -> bool:
        return self._standing.lockdown

    @callback
    @override
    def notify(self) -> None:
        super().notify()
        if (building := loaded_building(self._hass)) is not None:
            building.notify()  # its lockdown may be pending here, or not any more

    @property
    def is_as_stored(self) -> bool:
        """Whether it is reached as its entry says."""
        return _way(self._entry) == self._way

    @property
    def standing(self) -> Standing:
        """How the gateway as a whole is."""
        return self._standing

    @override
    async def set_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> Decision:
        async with self._locking_down:  # one after the other: what was asked for last is what holds
            building = loaded_building(self._hass)
            if not on and building is not None and building.locked_down:
                return Decision(Code.LOCKDOWN)  # it would begin again at once: the building's has to be lifted
            return await self._by_hand(None, origin, lambda ref: self.client.lockdown(on, actor, ref))

    @callback
    def carry_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> asyncio.Task[Decision]:
        """Have the building's lockdown, or its end, told to the gateway, whether or not anybody waits for that."""

        async def carry() -> Decision:
            try:
                decision = await self.set_lockdown(on, actor, origin)
            finally:
                if on:
                    self.agreement.look_soon()  # until it is so
            if not on and not decision.granted:
                _LOGGER.warning("%s has not lifted its lockdown: %s", self.name, decision.code)
            return decision

        return self._entry.async_create_background_task(self._hass, carry(), f"carry the lockdown to {self.name}")

    @property
    def is_disputed(self) -> bool:
        """Whether its journal does not go on from what was seen of it, and no administrator has looked."""
        return self.witness.trouble is not None or self._standing.disputed

    async def confirm_journal(self, actor: Actor, origin: Context | None) -> Decision:
        """Go on with its journal as it is: an administrator has looked at what is missing in it."""

        async def ask(ref: str | None) -> Code:
            await self.witness.tell()
            return await self.client.confirm(Confirmed.JOURNAL, actor, ref)

        decision = await self._by_hand(None, origin, ask)
        if decision.granted:
            await self.witness.accept()
        return decision

    async def confirm(self, what: Confirmed, actor: Actor, origin: Context | None) -> Decision:
        """Tell the gateway that an administrator has looked at its clock, or at its restored journal."""
        return await self._by_hand(None, origin, lambda ref: self.client.confirm(what, actor, ref))

    async def operate(self, door: DoorId, what: Operation, actor: Actor, origin: Context | None) -> Decision:
        """Have something done at a door by hand."""
        return await self._by_hand(door, origin, lambda ref: self.client.operate(door, what, actor, ref))

    async def _by_hand(
        self, door: DoorId | None, origin: Context | None, ask: Callable[[str | None], Awaitable[Code]]
    ) -> Decision:
        """Ask the gateway, and remember who asked: its event is told in that context."""
        if origin is not None:
            self._origins[origin.id] = origin
            if len(self._origins) > _ORIGINS:
                del self._origins[next(iter(self._origins))]
        try:
            return Decision(await ask(origin.id if origin else None), door)
        except OutcomeUnknown:
            return Decision(Code.OUTCOME_UNKNOWN, door)
        except GatewayUnreachable, GatewayImpostor:
            return Decision(Code.STRIKE_UNREACHABLE, door)
        except GatewayForbidden:
            self._entry.async_start_reauth(self._hass)
            return Decision(Code.STRIKE_UNREACHABLE, door)
        except GatewayRefused as refusal:
            return Decision(_NOT_DONE.get(refusal.status, Code.STRIKE_REFUSED), door)

    # ---- tokens ----

    async def challenge(self, door: DoorId, issuer: Issuer) -> ChallengeAnswer:
        """Return a challenge of the gateway. Raises what the client raises."""
        return await self.client.challenge(door, issuer)

    async def present(self, door: DoorId, token: str, issuer: Issuer | None) -> Answer:
        """Carry a token to the gateway and return what it says of it, as a presenter hears it.

        That it did not answer is an answer: the token is spent, or it is not. Raises GatewayUnreachable,
        GatewayImpostor, GatewayForbidden or GatewayRefused; then nothing moved.
        """
        if self.witness.trouble is not None:  # it may not know itself
            return Answer.of(Decision(Code.JOURNAL_DISPUTED, door))
        try:
            return await self.client.unlock(door, token, issuer)
        except OutcomeUnknown:
            return Answer.of(Decision(Code.OUTCOME_UNKNOWN, door))

    # ---- following ----

    async def _follow(self) -> None:
        """Follow the stream, for as long as the entry is loaded."""
        pause = PAUSES[0]
        while True:
            try:
                after = self._seen if self._seen is not None else (await self.client.doors()).newest
                async with aclosing(self.client.stream(after)) as frames:
                    async for frame in frames:
                        if self._seen is None:
                            self._seen = after
                            self._told.reach(after)
                        if isinstance(frame, Happened | Newer):
                            await self._started.wait()
                            await asyncio.sleep(0)  # a whole night of them may be here: others have their turn
                        self._take(frame)
                        pause = PAUSES[0]
            except GatewayForbidden as err:
                self._lost("it does not know this Home Assistant any more")
                self._answer_setup(err)
                if self._entry.state is ConfigEntryState.LOADED:
                    self._entry.async_start_reauth(self._hass)
                pause = PAUSES[1]
            except (GatewayUnreachable, GatewayImpostor, GatewayRefused, MalformedMessage) as err:
                self._lost(str(err))
                self._answer_setup(err if isinstance(err, GatewayImpostor) else GatewayUnreachable(str(err)))
            except Exception:
                # Whatever it is: a gateway that is followed no more would be shown as it was for ever.
                _LOGGER.exception("A bug of Vestibule ends the connection with %s", self.name)
                self._lost("a bug of Vestibule, see above")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
            pause = min(2 * pause, PAUSES[1])

    def _answer_setup(self, err: Exception) -> None:
        if not self._hello.done():
            self._hello.set_exception(err)
            self._hello.exception()  # if nobody waits any more, nobody has to

    @callback
    def _take(self, frame: Frame) -> None:
        match frame:
            case Hello():
                self._greet(frame)
            case Happened(event):
                self._happened(event)
            case Newer(sequence):
                _LOGGER.warning("%s tells of something that is new to this version of Vestibule: update it", self.name)
                self._saw(sequence)
            case DoorChanged(described):
                if (doorway := self.doors.get(described.door.id)) is not None:
                    is_set_up_anew = doorway.door != described.door
                    doorway.describe(described)
                    if is_set_up_anew:
                        self.keep_up([doorway])
            case DoorsChanged(doors):
                self._take_doors(doors)
            case BuildingChanged():
                self._stand(frame, frame.policy, frame.next)

    @callback
    def _greet(self, hello: Hello) -> None:
        if hello.id != self.id:
            raise GatewayImpostor(self.client.fingerprint)
        if self._seen is not None and hello.newest < (known := max(self._seen, self._told.before)):
            _LOGGER.error(
                "%s has fewer entries in its journal than it had: %s, and there were %s",
                self.name,
                hello.newest,
                known,
            )
            self._seen = min(self._seen, hello.newest)
            self._told.shorten(hello.newest)
        if self.away_since is not None and self._hello.done():
            _LOGGER.info("%s answers again", self.name)
        self.away_since = None
        self._backlog = hello.newest
        self.version = hello.version
        self._keep_certificate()
        self._register_gateway(hello)
        self._take_doors(hello.doors)
        self._stand(hello, hello.policy, hello.next)
        for doorway in self.doors.values():
            doorway.known_changed()
        if not self._hello.done():
            self._hello.set_result(None)
        self.agreement.look_soon()
        self.witness.look_soon()

    @callback
    def _stand(self, standing: Standing, policy: PolicyMark, announced: NextCertificate | None) -> None:
        is_other = policy != self.policy or standing.lockdown is not self._standing.lockdown
        self._standing, self.policy = standing, policy
        if announced is not None:
            self._learn(announced)
        if is_other:
            self.agreement.look_soon()
        self.notify()

    @callback
    def _lost(self, why: str) -> None:
        if self.away_since is not None:
            return
        self.away_since = monotonic()
        self.witness.lost()
        _LOGGER.warning("%s does not answer any more: %s", self.name, why)
        for doorway in self.doors.values():
            doorway.notify()  # its lock is out of reach
            doorway.known_changed()
        self.notify()

    @callback
    def _happened(self, event: AccessEvent) -> None:
        if event.sequence is None or self._saw(event.sequence):
            self._tell(event)

    @callback
    def _saw(self, sequence: int) -> bool:
        """Note how far the gateway was heard; return whether that is new."""
        if self._seen is not None and sequence <= self._seen:
            return False
        if self._seen is not None and sequence > self._seen + 1:
            self.witness.missing(self._seen + 1, sequence - 1)
        self._seen = sequence
        self._standing = replace(self._standing, newest=max(self._standing.newest, sequence))
        self._told.reach(sequence)
        return True

    @callback
    def _tell(self, event: AccessEvent) -> None:
        origin = self._origins.get(event.origin) if isinstance(event.origin, str) else None
        # By its number first: a gateway whose clock is wrong tells news all the same.
        is_history = event.sequence is not None and event.sequence <= self._backlog
        was_told = event.sequence is not None and event.sequence <= self._told.before
        is_late = was_told or (is_history and dt_util.utcnow().timestamp() - event.at > LATE_AFTER)
        self.announce(event, origin, is_late=is_late, is_history=is_history)

    @callback
    def _learn(self, announced: NextCertificate) -> None:
        """Trust the certificate that the gateway will have next, if it is signed by its identity."""
        fingerprint = announced.fingerprint.hex()
        if self._entry.data.get(CONF_NEXT_FINGERPRINT) == fingerprint:
            return
        try:
            said = open_note(announced.note, [self.key])
        except NoteError as err:
            _LOGGER.error("%s announces a certificate that it has not signed: %s", self.name, err)  # noqa: TRY400 - the line of the error would not help
            return
        if said != next_certificate_text(GatewayId(self.id), announced.fingerprint):
            _LOGGER.error("%s announces another certificate than it has signed", self.name)
            return
        data = {**self._entry.data, CONF_NEXT_FINGERPRINT: fingerprint}
        self._hass.config_entries.async_update_entry(self._entry, data=data)
        self.client = _client(self._session, self._entry)

    @callback
    def _keep_certificate(self) -> None:
        """Pin the certificate that the gateway has now, if it is the announced one: the old one is worth nothing."""
        met = self.client.fingerprint.hex()
        if self._entry.data[CONF_FINGERPRINT] != met:
            data = {**self._entry.data, CONF_FINGERPRINT: met, CONF_NEXT_FINGERPRINT: None}
            self._hass.config_entries.async_update_entry(self._entry, data=data)
            self.client = _client(self._session, self._entry)

    # ---- its doors ----

    @callback
    def _take_doors(self, doors: Iterable[DoorDescription]) -> None:
        """Have just these doors; one that is gone loses its device."""
        described = {each.door.id: each for each in doors}
        registry = dr.async_get(self._hass)
        known = {DoorId(door) for door in self._entry.data.get(CONF_DOORS, {})}
        for gone in (self.doors.keys() | known) - described.keys():
            self.doors.pop(gone, None)
            if device := registry.async_get_device_by_identifier((DOMAIN, gone), self._entry.entry_id):
                registry.async_remove_device(device.id)
        changed = []
        for door, each in described.items():
            if (doorway := self.doors.get(door)) is None:
                doorway = self.doors[door] = RemoteDoorway(self, each)
                changed.append(doorway)
            else:
                if doorway.door != each.door:
                    changed.append(doorway)
                doorway.describe(each)
            self._register_door(each)
        self.keep_up(changed)
        self._tell_building({door: each.door.name for door, each in described.items()})

    @callback
    def _tell_building(self, names: dict[DoorId, str]) -> None:
        """Keep which doors are here: the building's forms offer them, and its controller spends no token of theirs."""
        if self._entry.data.get(CONF_DOORS) == names:
            return
        data = {**self._entry.data, CONF_DOORS: dict(names)}
        self._hass.config_entries.async_update_entry(self._entry, data=data)
        if (building := loaded_building(self._hass)) is not None:
            building.apply()
        self.agreement.look_soon()

    def _register_gateway(self, hello: Hello) -> None:
        dr.async_get(self._hass).async_get_or_create(
            config_entry_id=self._entry.entry_id,
            identifiers={(DOMAIN, self.id)},
            manufacturer=MANUFACTURER,
            model="Gateway",
            name=self._entry.title,
            sw_version=hello.version,
        )

    def _register_door(self, described: DoorDescription) -> None:
        registry = dr.async_get(self._hass)
        gateway = registry.async_get_device_by_identifier((DOMAIN, self.id), self._entry.entry_id)
        registry.async_get_or_create(
            config_entry_id=self._entry.entry_id,
            identifiers={(DOMAIN, described.door.id)},
            manufacturer=MANUFACTURER,
            model=f"{MODELS[described.door.on_power_loss]}, {described.model}",
            name=described.door.name,
            via_device_id=gateway.id if gateway else None,
        )

    # ---- what it agrees on with the building ----

    @callback
    def _entry_changed(self, _: ConfigEntryChange, entry: ConfigEntry) -> None:
        if entry.domain == DOMAIN and is_building(entry):
            self.agreement.look_soon()


@callback
def loaded_gateways(hass: HomeAssistant) -> list[Remote]:
    """Return the gateways that are loaded."""
    return [entry.runtime_data for entry in hass.config_entries.async_loaded_entries(DOMAIN) if not is_building(entry)]


@callback
def gateway_of(hass: HomeAssistant, door: DoorId) -> Remote | None:
    """Return the gateway that has a door; None: none has it. Raises GatewayUnreachable if it is not loaded."""
    for remote in loaded_gateways(hass):
        if door in remote.doors:
            return remote
    for entry in gateway_entries(hass):
        if door in entry.data.get(CONF_DOORS, {}):
            raise GatewayUnreachable(entry.title)
    return None


@callback
def new_session(hass: HomeAssistant) -> aiohttp.ClientSession:
    """Return what a gateway is asked with: no cookies, no proxy. In a set-up, it ends with the entry."""
    return async_create_clientsession(hass, cookie_jar=aiohttp.DummyCookieJar())


def fingerprints(data: Any) -> list[bytes]:
    """Return the certificates that a gateway may have: the pinned one, and the one that it announced."""
    return [bytes.fromhex(data[name]) for name in (CONF_FINGERPRINT, CONF_NEXT_FINGERPRINT) if data.get(name)]


def _way(entry: GatewayConfigEntry) -> tuple[Any, ...]:
    return entry.title, *(entry.data[name] for name in (CONF_HOST, CONF_PORT, CONF_TOKEN))


def _client(session: aiohttp.ClientSession, entry: GatewayConfigEntry) -> GatewayClient:
    data = entry.data
    return GatewayClient(session, data[CONF_HOST], data[CONF_PORT], bearer(data[CONF_TOKEN]), fingerprints(data))


def _not_ready(entry: GatewayConfigEntry) -> ConfigEntryNotReady:
    return ConfigEntryNotReady(
        translation_domain=DOMAIN,
        translation_key="gateway_not_ready",
        translation_placeholders={"name": entry.title},
    )
