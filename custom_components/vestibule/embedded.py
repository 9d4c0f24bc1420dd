"""The embedded controller: the core's controller, mounted in Home Assistant.

Builds it out of the building entry, gives it strikes and what their sensors say, applies each change of the entry live
(nothing is reloaded: challenges and running releases go on), and tells of every event once: on the bus and to the
door's event entity. Decides nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, override

from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.core import Context, Event, HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady, HomeAssistantError
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import EventComponentLoaded
from homeassistant.util import dt as dt_util

from .building import (
    BuildingSetup,
    DoorSetup,
    PersonsKept,
    RadioStrike,
    Relay,
    building_of,
    persons_kept_of,
    stored_strike,
)
from .const import CONF_BUILDING, CONF_DOORS, CONF_STRIKE, DOMAIN, IDENTITY_FILE, JOURNAL_FILE, MANUFACTURER
from .doorway import MODELS, Doorway, Premises
from .inputs import EntitySensor
from .strikes import AbsentStrike, EntityStrike
from .vestibule_core import identity, new_key
from .vestibule_core.controller import Controller
from .vestibule_core.doorstrike.wire import Caps
from .vestibule_core.durable import sync_directory
from .vestibule_core.erasure import DAY, Due
from .vestibule_core.errors import (
    IdentityMissing,
    IdentityUnusable,
    JournalDamaged,
    JournalInUse,
    JournalTooNew,
    StoreFailed,
)
from .vestibule_core.evidence import Broken
from .vestibule_core.intake import Intake
from .vestibule_core.journal import Journal
from .vestibule_core.model import (
    AccessEvent,
    Actor,
    Code,
    Decision,
    Door,
    DoorId,
    DoorMode,
    Sense,
    Sensor,
)
from .vestibule_core.note import SignerKey
from .vestibule_core.schema import held

if TYPE_CHECKING:
    from .ble import HomeAssistantStrike
    from .vestibule_core.doorstrike.hearing import Heard

_LOGGER = logging.getLogger(__name__)

type DoorStrike = EntityStrike | HomeAssistantStrike | AbsentStrike
type VestibuleConfigEntry = ConfigEntry[Embedded]

PUT_BACK_TIME: Final = 60.0
"""Seconds for which a strike that is the door's no more may still be needed to end what it holds open."""
GATEWAYS_TIME: Final = 2.0
"""Seconds for which whoever sets or lifts the building's lockdown waits for the gateways."""
SPENDS: Final = 64
"""How many releases of a door are known again in what its strike tells: as many as a strike remembers."""


class EmbeddedDoorway(Doorway):
    """A door with its strike; lives as long as its subentry."""

    def __init__(self, controller: Controller, setup: DoorSetup, strike: DoorStrike) -> None:
        """Take a door that the controller is about to get."""
        super().__init__(setup.door.id)
        self.setup = setup
        self.strike = strike
        self.sensors: dict[Sensor, EntitySensor] = {}
        """The entities that watch the door."""
        self.spends: deque[bytes] = deque(maxlen=SPENDS)
        """Releases of ours."""
        self._controller = controller
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    @override
    def door(self) -> Door:
        return self.setup.door

    @property
    @override
    def subentry_id(self) -> str:
        return self.setup.subentry_id

    @property
    @override
    def watched_by_entities(self) -> Collection[Sensor]:
        return self.setup.sensors.keys()

    @property
    @override
    def bolt(self) -> DoorStrike:
        return self.strike

    @property
    @override
    def radio_strike(self) -> HomeAssistantStrike | None:
        return None if isinstance(self.strike, EntityStrike | AbsentStrike) else self.strike

    @property
    @override
    def radio_caps(self) -> Caps | None:
        return self.setup.relay.caps if isinstance(self.setup.relay, RadioStrike) else None

    @property
    @override
    def battery(self) -> int | None:
        strike = self.radio_strike
        return strike.state.battery if strike is not None and strike.state is not None else None

    @property
    @override
    def why_not(self) -> dict[Code, str]:
        if isinstance(self.strike, AbsentStrike):
            return {Code.STRIKE_UNREACHABLE: self.strike.reason}
        if (strike := self.radio_strike) is None:
            return {}
        refused = {} if strike.refusal is None else {Code.STRIKE_REFUSED: strike.refusal}
        return refused | {Code.STRIKE_UNREACHABLE: strike.why_unreachable}

    @override
    async def open_by_hand(self, actor: Actor, origin: Context | None, pin: str | None = None) -> Decision:
        return await self._controller.by_hand.open(self.id, actor, origin, pin=pin)

    @override
    async def set_mode(self, mode: DoorMode, actor: Actor, origin: Context | None) -> Decision:
        return await self._controller.by_hand.set_mode(self.id, mode, actor, origin)

    @override
    async def set_deliveries(self, accepted: bool, actor: Actor, origin: Context | None) -> Decision:
        return await self._controller.by_hand.set_deliveries(self.id, accepted, actor, origin)

    @override
    async def clear_tamper(self, actor: Actor, origin: Context | None) -> Decision:
        return await self._controller.by_hand.clear_tamper(self.id, actor, origin)

    @callback
    def attach(self) -> None:
        """Follow the controller's door, the current strike and the current sensors."""
        self.detach()
        self.state = self._controller.state(self.id)
        self._unsubscribe = [
            self._controller.subscribe(self.id, self.take),
            self.strike.watch(self.notify),
        ]
        for sensor, entity in self.sensors.items():
            self._controller.sense(self.id, sensor, entity.sense)
            self._unsubscribe.append(entity.subscribe(partial(self._controller.sense, self.id, sensor)))
        if (strike := self.radio_strike) is not None and isinstance(self.setup.relay, RadioStrike):
            own = self.setup.relay.sensors - self.sensors.keys()
            self._unsubscribe.append(self._hear(strike, own))
        self.notify()

    def _hear(self, strike: HomeAssistantStrike, sensors: frozenset[Sensor]) -> Callable[[], None]:
        from .vestibule_core.doorstrike.hearing import Hearing

        door = self.setup.door
        return Hearing(strike, self._controller, door.id, sensors, self.spends, time.time).end

    @callback
    def detach(self) -> None:
        """Follow nothing any more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []


class Embedded(Premises[EmbeddedDoorway]):
    """The building entry at run time."""

    def __init__(self, hass: HomeAssistant, entry: VestibuleConfigEntry, journal: Journal) -> None:
        """Use ``Embedded.open``."""
        from .link import Links

        super().__init__(hass, entry)
        self._noted = journal.notes()
        """What the journal has noted, at start."""
        self.links = Links(hass, entry, self, self._noted)
        """Those with the clouds of carriers."""
        self.setup = self._read_setup()
        self.controller = Controller(journal, tell=self._tell)
        self.intake = Intake()
        self._journal = journal
        # What is told before the entities are there (spends that a crash left without an outcome) waits for them.
        self._early: list[AccessEvent] | None = []
        self._heard: dict[bytes, Heard] = {}
        """How far strikes were heard that have been let go of since."""
        self._retired: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, hass: HomeAssistant, entry: VestibuleConfigEntry) -> Self:
        """Open the journal; raise ConfigEntryNotReady or ConfigEntryError."""
        storage, kept = Path(hass.config.path(".storage")), persons_kept_of(entry.data)
        opening = hass.async_add_executor_job(_open_journal, storage, _signs_as(entry), kept)
        try:
            return cls(hass, entry, await asyncio.shield(opening))
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it opens would hold the lock until Home Assistant ends.
            opening.add_done_callback(_close_unused)
            raise

    @callback
    def start(self) -> None:
        """Begin to take requests. Moves no relay, unless a release of before a crash is ours to end."""
        self._take(self.setup)
        self.controller.start(self.setup.building, self._strikes)
        self._show()

    @callback
    def tell_what_waited(self) -> None:
        """Tell what happened before the entities were there."""
        early, self._early = self._early or [], None
        for event in early:
            self._tell(event)

    @callback
    def follow_core_config(self, *_: Any) -> None:
        """Keep hours in Home Assistant's time zone, and doors where it says that it is."""
        if self.setup.building.zone != dt_util.get_default_time_zone():
            self.apply()
        self.links.follow()

    @callback
    def apply(self) -> None:
        """Make what the entry and Home Assistant's time zone say now hold at once, unless nothing may be opened."""
        if self.controller.stopped:
            return
        self.setup = self._read_setup()
        changed = self._take(self.setup)
        self.controller.apply(self.setup.building, self._strikes)
        self._show()
        self.keep_up(changed)
        self.links.follow()

    def _read_setup(self) -> BuildingSetup:
        zone, elsewhere = dt_util.get_default_time_zone(), doors_elsewhere(self._hass)
        return building_of(self._entry, zone, elsewhere, self.links.locked_out)

    @callback
    def follow_component(self, event: Event[EventComponentLoaded]) -> None:
        """Begin to reach strikes by radio when Home Assistant has one."""
        if event.data["component"] == "bluetooth" and any(
            isinstance(doorway.strike, AbsentStrike) for doorway in self.doors.values()
        ):
            self.apply()

    async def follow_entry(self) -> None:
        """Apply a change of the entry; who has had the time that it allows now is forgotten at once."""
        before = self.setup.persons_kept
        self.apply()
        if self.setup.persons_kept.days < before.days:
            await self.retain()

    async def retain(self, *_: Any) -> None:
        """Take out of the journal what has had its time."""
        try:
            await self._journal.retain(_due(self._journal, self.setup.persons_kept))
        except StoreFailed:  # said where it failed
            pass
        except Broken as err:
            _LOGGER.error("The journal is damaged (%s): what has had its time cannot be taken out of it", err)  # noqa: TRY400 - the next line of the log would not help

    async def begin_backup(self) -> None:
        """Make the journal fit to be copied while the doors work, until ``end_backup``."""
        try:
            await self._journal.begin_copy()
        except StoreFailed:
            _LOGGER.error("The journal has failed: this backup will not say that it is one")  # noqa: TRY400 - said where it failed

    async def end_backup(self) -> None:
        """Go on as before ``begin_backup``."""
        with suppress(StoreFailed):  # said where it failed
            await self._journal.end_copy()

    async def stop(self) -> None:
        """Take no more requests and end the releases that we time; may be repeated."""
        await self.controller.stop()
        await self.links.stop()  # after the last answer
        for doorway in self.doors.values():
            doorway.detach()
        for task in self._retired:
            task.cancel()
        strikes = [doorway.radio_strike for doorway in self.doors.values()]
        closing = [self._hass.async_create_task(strike.close()) for strike in strikes if strike is not None]
        if waiting := {*closing, *self._retired}:
            await asyncio.wait(waiting)

    async def close(self, *_: Any) -> None:
        """Stop and close the journal; may be repeated."""
        try:
            await self.stop()
        finally:
            self.tell_what_waited()  # a set-up that failed half-way has told nobody yet
            await self._hass.async_add_executor_job(self._journal.close)

    # ---- the building ----

    @property
    @override
    def id(self) -> str:
        return str(self._entry.data[CONF_BUILDING])

    @property
    @override
    def name(self) -> str:
        return self._entry.title

    @property
    @override
    def is_there(self) -> bool:
        return True

    @property
    @override
    def locked_down(self) -> bool:
        return self.controller.by_hand.locked_down

    @property
    @override
    def lockdown_pending(self) -> list[str]:
        from .remote import loaded_gateways

        if not self.locked_down:
            return []
        shut = {gateway.id for gateway in loaded_gateways(self._hass) if gateway.is_there and gateway.locked_down}
        return self._gateways_without(shut)

    @property
    def journal(self) -> Journal:
        """The journal, for whoever reads in it."""
        return self._journal

    @property
    @override
    def journal_entries(self) -> int:
        return self._journal.sequence

    @property
    @override
    def refusals_counted(self) -> int:
        return self.controller.counters.total()

    @property
    def journal_failed(self) -> bool:
        """Whether the journal takes nothing any more, until it is opened anew."""
        return self._journal.failed

    @override
    async def set_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> Decision:
        """Lock all doors down or lift that, durably here; the gateways are told at once, and not waited for long.

        Raises HomeAssistantError if the lockdown is lifted here and a gateway has not said that it is there.
        """
        if on:  # one that is out of reach, or slow, follows when it is there (agreement.py): it is pending until then
            telling = self._carry_lockdown(on, actor, origin)  # whatever our own disk does
            decision = await self._set_lockdown(on, actor, origin)
            await _wait_a_little(telling)
            self.notify()
            return decision
        was = self.locked_down
        decision = await self._set_lockdown(on, actor, origin)
        if decision.granted:
            telling = self._carry_lockdown(on, actor, origin)
            await _wait_a_little(telling)
            self.notify()
            if was:
                self._raise_unless_lifted(telling)
        return decision

    def _carry_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> dict[str, asyncio.Task[Decision]]:
        """Begin to tell the gateways that are loaded; return what comes of it, by their ids."""
        from .remote import loaded_gateways

        return {gateway.id: gateway.carry_lockdown(on, actor, origin) for gateway in loaded_gateways(self._hass)}

    def _raise_unless_lifted(self, telling: Mapping[str, asyncio.Task[Decision]]) -> None:
        """Name the gateways that may still be locked down: nothing lifts that later by itself."""
        lifted = {gateway for gateway, told in telling.items() if _has_granted(told)}
        if left := self._gateways_without(lifted):
            raise HomeAssistantError(
                translation_domain=DOMAIN,
                translation_key="lockdown_not_lifted",
                translation_placeholders={"building": self.name, "gateways": ", ".join(left)},
            )

    def _gateways_without(self, ids: Collection[str]) -> list[str]:
        """Return the names of the gateways that are not disabled and not among these."""
        gateways = (entry for entry in gateway_entries(self._hass) if entry.disabled_by is None)
        return sorted(entry.title for entry in gateways if entry.unique_id not in ids)

    async def _set_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> Decision:
        try:
            return await self.controller.by_hand.set_lockdown(on, actor, origin)
        finally:
            self.notify()

    # ---- the entry's doors ----

    @property
    def _strikes(self) -> dict[DoorId, DoorStrike]:
        return {door: doorway.strike for door, doorway in self.doors.items()}

    def _take(self, setup: BuildingSetup) -> list[EmbeddedDoorway]:
        """Bring ``doors`` in line with the entry; return those that are new or others now.

        A strike whose relay is the same stays.
        """
        for gone in self.doors.keys() - setup.doors.keys():
            removed = self.doors.pop(gone)
            removed.detach()
            self._retire(removed)
            if (strike := removed.radio_strike) is not None:
                strike.radio.offer_again()
        changed = []
        for door, door_setup in setup.doors.items():
            if (doorway := self.doors.get(door)) is None:
                doorway = self.doors[door] = EmbeddedDoorway(self.controller, door_setup, self._strike(door_setup))
                changed.append(doorway)
            elif doorway.setup != door_setup or self._is_absent_no_more(doorway.strike):
                changed.append(doorway)
                doorway.setup = door_setup
                if doorway.strike.relay != door_setup.relay or self._is_absent_no_more(doorway.strike):
                    self._retire(doorway)
                    doorway.strike = self._strike(door_setup)
            for sensor in doorway.sensors.keys() & door_setup.sensors.keys():
                if doorway.sensors[sensor].entity != door_setup.sensors[sensor]:
                    # What another entity said is no word of this one: an open door is found open, not forced.
                    self.controller.sense(door, sensor, Sense.UNKNOWN)
            doorway.sensors = {
                sensor: EntitySensor(self._hass, entity) for sensor, entity in door_setup.sensors.items()
            }
        return changed

    def _strike(self, setup: DoorSetup) -> DoorStrike:
        relay = setup.relay
        if isinstance(relay, Relay):
            return EntityStrike(self._hass, relay)
        if not self._has_bluetooth:
            return AbsentStrike(relay)
        from .ble import HomeAssistantStrike
        from .vestibule_core.doorstrike.hearing import HEARD, Heard

        heard = self._heard.get(relay.strike_id)
        if heard is None:
            heard = Heard.read(self._noted.get(HEARD + relay.strike_id.hex()), relay.heard)
        return HomeAssistantStrike(self._hass, relay, heard, partial(self._store, setup.subentry_id))

    @property
    def _has_bluetooth(self) -> bool:
        return "bluetooth" in self._hass.config.components

    def _is_absent_no_more(self, strike: DoorStrike) -> bool:
        return isinstance(strike, AbsentStrike) and self._has_bluetooth

    @callback
    def _store(self, subentry_id: str, strike: RadioStrike) -> None:
        """Keep what a strike's driver has to remember."""
        self.keep(subentry_id, {CONF_STRIKE: stored_strike(strike)})

    @callback
    def keep(self, subentry_id: str, changes: Mapping[str, Any]) -> None:
        """Keep what was learned of a door or a carrier, if it is still there."""
        if (subentry := self._entry.subentries.get(subentry_id)) is not None:
            data = {**subentry.data, **changes}
            self._hass.config_entries.async_update_subentry(self._entry, subentry, data=data)

    def _retire(self, doorway: EmbeddedDoorway) -> None:
        """Let go of a strike that is the door's no more, when it holds nothing open any more."""
        if (strike := doorway.radio_strike) is None:
            return
        self._heard[strike.relay.strike_id] = strike.heard

        is_needed = doorway.state.securing  # by the task of the door that was: it ends what it holds open

        async def close() -> None:
            try:
                if is_needed:
                    async with asyncio.timeout(PUT_BACK_TIME):
                        await strike.put_back()
            except TimeoutError:
                _LOGGER.warning("The strike of %s was taken away and may still be released", doorway.setup.door.name)
            finally:
                await strike.close()

        task = self._hass.async_create_background_task(close(), "let go of a strike")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def _show(self) -> None:
        """Bring devices and subscriptions in line with what the controller was given."""
        self._register_devices()
        for doorway in self.doors.values():
            doorway.attach()

    def _register_devices(self) -> None:
        """Create or rename the building's device and one for each door."""
        registry = dr.async_get(self._hass)
        building = registry.async_get_or_create(
            config_entry_id=self._entry.entry_id,
            identifiers={(DOMAIN, self._entry.data[CONF_BUILDING])},
            entry_type=dr.DeviceEntryType.SERVICE,
            manufacturer=MANUFACTURER,
            name=self._entry.title,
        )
        for doorway in self.doors.values():
            registry.async_get_or_create(
                config_entry_id=self._entry.entry_id,
                config_subentry_id=doorway.setup.subentry_id,
                identifiers={(DOMAIN, doorway.id)},
                connections=_connections(doorway),
                manufacturer=MANUFACTURER,
                model=MODELS[doorway.setup.door.on_power_loss],
                name=doorway.setup.door.name,
                via_device_id=building.id,
            )

    # ---- telling ----

    @callback
    def _tell(self, event: AccessEvent) -> None:
        self.links.heard(event)
        doorway = self.doors.get(event.door) if event.door is not None else None
        if doorway is not None and event.spend_id is not None:
            doorway.spends.append(event.spend_id)
        if self._early is not None:
            self._early.append(event)
            return
        self.announce(event, event.origin if isinstance(event.origin, Context) else None)


async def _wait_a_little(telling: Mapping[str, asyncio.Task[Decision]]) -> None:
    """Return when all gateways have answered, or the time is up; the slow ones are told all the same."""
    if telling:
        await asyncio.wait(telling.values(), timeout=GATEWAYS_TIME)


def _has_granted(told: asyncio.Task[Decision]) -> bool:
    return told.done() and not told.cancelled() and told.exception() is None and told.result().granted


def _connections(doorway: EmbeddedDoorway) -> set[tuple[str, str]]:
    strike = doorway.radio_strike
    return set() if strike is None else {(dr.CONNECTION_BLUETOOTH, strike.radio.address)}


@callback
def building_entry(hass: HomeAssistant) -> VestibuleConfigEntry | None:
    """Return the building's entry, if there is one; the others are gateways'."""
    entries = hass.config_entries.async_entries(DOMAIN, include_ignore=False)
    return next((entry for entry in entries if is_building(entry)), None)


@callback
def loaded_building(hass: HomeAssistant) -> Embedded | None:
    """Return the building, if it is loaded."""
    entry = building_entry(hass)
    return entry.runtime_data if entry is not None and entry.state is ConfigEntryState.LOADED else None


@callback
def doors_elsewhere(hass: HomeAssistant) -> Mapping[DoorId, str]:
    """Return the doors that gateways have, as far as it is known, with their names."""
    gateways = gateway_entries(hass)
    return {DoorId(door): str(name) for entry in gateways for door, name in entry.data.get(CONF_DOORS, {}).items()}


@callback
def gateway_entries(hass: HomeAssistant) -> list[ConfigEntry[Any]]:
    """Return the entries of gateways."""
    entries = hass.config_entries.async_entries(DOMAIN, include_ignore=False)
    return [entry for entry in entries if not is_building(entry)]


def is_building(entry: ConfigEntry[Any]) -> bool:
    """Return whether an entry is the building's."""
    return CONF_BUILDING in entry.data


def put_away(storage: Path, today: date) -> None:
    """Rename the journal of a building that is gone by the date; blocks. It is never deleted."""
    journal = storage / JOURNAL_FILE
    if not journal.exists():
        return
    try:
        with held(journal):
            kept = _rename(storage, journal, today)
    except JournalInUse:
        _LOGGER.error("The journal %s is in use and keeps its name, although its building was removed", journal)  # noqa: TRY400 - the next line of the log would not help
        return
    _LOGGER.warning("The journal of the building that was removed is kept as %s; it still says who was there", kept)


def _rename(storage: Path, journal: Path, today: date) -> Path:
    base = f"{journal.stem}.{today.isoformat()}"
    names = (f"{base}{number}{journal.suffix}" for number in ("", *(f".{again}" for again in range(2, 1000))))
    kept = next(storage / name for name in names if not (storage / name).exists())
    log = journal.with_name(f"{journal.name}-wal")
    if log.exists():  # of a journal that failed; it belongs to it
        log.rename(kept.with_name(f"{kept.name}-wal"))
    journal.rename(kept)
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    (storage / IDENTITY_FILE).unlink(missing_ok=True)
    sync_directory(storage)
    return kept


def make_new_key(storage: Path, entry: VestibuleConfigEntry, actor: Actor) -> None:
    """Make a key for a journal whose own is missing, as ``actor`` has confirmed; blocks. One that came back stays.

    Raises Refused, JournalInUse, JournalTooNew, JournalDamaged, StoreFailed or IdentityUnusable.
    """
    new_key.go_on(storage / JOURNAL_FILE, storage / IDENTITY_FILE, _signs_as(entry), actor)


def _signs_as(entry: VestibuleConfigEntry) -> str:
    return f"{DOMAIN}/{entry.data[CONF_BUILDING]}"


def _due(journal: Journal, kept: PersonsKept) -> Due:
    return Due.at(dt_util.utcnow().timestamp(), journal.newest, kept.days * DAY)


def _close_unused(opening: asyncio.Future[Journal]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()  # was not started: nothing to wait for


def _open_journal(storage: Path, name: str, kept: PersonsKept) -> Journal:
    """Open the journal, in the executor; the only place that translates its errors."""

    def key(signed_before: bool) -> SignerKey:
        return identity.keep(storage / IDENTITY_FILE, name, make=not signed_before)

    try:
        journal = Journal.open(storage / JOURNAL_FILE, key)
        try:
            journal.retain_now(_due(journal, kept))  # before anything is shown: it may be an old one that was restored
        except BaseException:  # whatever it is: who tries again must not find it in use
            journal.close()
            raise
        return journal
    except JournalInUse as err:
        raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="journal_in_use") from err
    except JournalTooNew as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_too_new") from err
    except IdentityMissing as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="identity_missing") from err
    except IdentityUnusable as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="identity_unusable") from err
    except JournalDamaged as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_damaged") from err
    except StoreFailed as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_failed") from err
