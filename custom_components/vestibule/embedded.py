"""The embedded controller: the core's controller, mounted in Home Assistant.

Builds it out of the building entry, gives it strikes, applies each change of the entry live (nothing is reloaded:
challenges and running releases go on), and tells of every access once: on the bus and to the door's event entity.
Decides nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import issue_registry as ir
from homeassistant.util import dt as dt_util

from .building import BuildingSetup, DoorSetup, building_of
from .const import CONF_BUILDING, DOMAIN, EVENT_ACCESS, JOURNAL_FILE, MANUFACTURER
from .strikes import EntityStrike
from .vestibule_core.controller import Controller
from .vestibule_core.door import DoorState
from .vestibule_core.errors import JournalDamaged, JournalInUse, JournalTooNew, StoreFailed
from .vestibule_core.journal import Journal
from .vestibule_core.model import AccessEvent, Actor, Decision, DoorId, EventName

_LOGGER = logging.getLogger(__name__)

type VestibuleConfigEntry = ConfigEntry[Embedded]

_UNREADABLE: Final = "unreadable_"
"""Begins the id of the repair of a subentry that cannot be read."""


class Doorway:
    """A door with its strike, as the entities see it; lives as long as its subentry."""

    def __init__(self, controller: Controller, setup: DoorSetup, strike: EntityStrike) -> None:
        """Take a door that the controller is about to get."""
        self.setup = setup
        self.strike = strike
        self.state = DoorState()
        self.last_origin: Context | None = None
        """Where the access came from that was granted last."""
        self._controller = controller
        self._state_listeners: list[Callable[[], None]] = []
        self._access_listeners: list[Callable[[AccessEvent], None]] = []
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    def id(self) -> DoorId:
        """The door's id, for life."""
        return self.setup.door.id

    async def open_by_hand(self, actor: Actor, origin: Context | None) -> Decision:
        """Let a person or an automation in."""
        return await self._controller.open_by_hand(self.id, actor, origin)

    @callback
    def on_state(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the door's state or the strike's availability may have changed."""
        self._state_listeners.append(listener)
        return lambda: self._state_listeners.remove(listener)

    @callback
    def on_access(self, listener: Callable[[AccessEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with each event at this door."""
        self._access_listeners.append(listener)
        return lambda: self._access_listeners.remove(listener)

    @callback
    def attach(self) -> None:
        """Follow the controller's door and the current strike."""
        self.detach()
        self.state = self._controller.state(self.id)
        self._unsubscribe = [
            self._controller.subscribe(self.id, self._state_changed),
            self.strike.subscribe(lambda _: self._notify()),
        ]
        self._notify()

    @callback
    def detach(self) -> None:
        """Follow nothing any more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []

    @callback
    def tell(self, event: AccessEvent) -> None:
        """Pass an event on."""
        for listener in tuple(self._access_listeners):
            listener(event)

    @callback
    def _state_changed(self, state: DoorState) -> None:
        self.state = state
        self._notify()

    @callback
    def _notify(self) -> None:
        for listener in tuple(self._state_listeners):
            listener()


class Embedded:
    """The building entry at run time."""

    def __init__(self, hass: HomeAssistant, entry: VestibuleConfigEntry, journal: Journal) -> None:
        """Use ``Embedded.open``."""
        self.doors: dict[DoorId, Doorway] = {}
        self.controller = Controller(journal, tell=self._tell)
        self._hass = hass
        self._entry = entry
        self._journal = journal
        self._unreadable: set[str] = set()
        self._each_door: list[Callable[[Doorway], None]] = []
        # What is told before the entities are there (spends that a crash left without an outcome) waits for them.
        self._early: list[AccessEvent] | None = []

    @classmethod
    async def open(cls, hass: HomeAssistant, entry: VestibuleConfigEntry) -> Self:
        """Open the journal; raise ConfigEntryNotReady or ConfigEntryError."""
        path = Path(hass.config.path(".storage", JOURNAL_FILE))
        opening = hass.async_add_executor_job(_open_journal, path)
        try:
            return cls(hass, entry, await asyncio.shield(opening))
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it opens would hold the lock until Home Assistant ends.
            opening.add_done_callback(_close_unused)
            raise

    @callback
    def start(self) -> None:
        """Begin to take requests. Moves no relay, unless a release of before a crash is ours to end."""
        setup = building_of(self._entry)
        self._take(setup)
        self.controller.start(setup.building, self._strikes)
        self._show(setup)

    @callback
    def tell_what_waited(self) -> None:
        """Tell what happened before the entities were there."""
        early, self._early = self._early or [], None
        for event in early:
            self._tell(event)

    @callback
    def apply(self) -> None:
        """Make what the entry says now hold at once, unless nothing may be opened any more."""
        if self.controller.stopped:
            return
        setup = building_of(self._entry)
        added = self._take(setup)
        self.controller.apply(setup.building, self._strikes)
        self._show(setup)
        for doorway in added:
            for add in self._each_door:
                add(doorway)

    @callback
    def for_each_door(self, add: Callable[[Doorway], None]) -> None:
        """Call ``add`` with each door, now and when one is added."""
        self._each_door.append(add)
        for doorway in self.doors.values():
            add(doorway)

    async def stop(self) -> None:
        """Take no more requests and end the releases that we time; may be repeated."""
        await self.controller.stop()
        for doorway in self.doors.values():
            doorway.detach()

    async def close(self, *_: Any) -> None:
        """Stop and close the journal; may be repeated."""
        try:
            await self.stop()
        finally:
            self.tell_what_waited()  # a set-up that failed half-way has told nobody yet
            self._raise_issues({})
            await self._hass.async_add_executor_job(self._journal.close)

    # ---- the entry's doors ----

    @property
    def _strikes(self) -> dict[DoorId, EntityStrike]:
        return {door: doorway.strike for door, doorway in self.doors.items()}

    def _take(self, setup: BuildingSetup) -> list[Doorway]:
        """Bring ``doors`` in line with the entry; return the new ones. A strike whose relay is the same stays."""
        for gone in self.doors.keys() - setup.doors.keys():
            self.doors.pop(gone).detach()
        added = []
        for door, door_setup in setup.doors.items():
            if (doorway := self.doors.get(door)) is None:
                strike = EntityStrike(self._hass, door_setup.relay)
                doorway = self.doors[door] = Doorway(self.controller, door_setup, strike)
                added.append(doorway)
            elif doorway.strike.relay != door_setup.relay:
                doorway.strike = EntityStrike(self._hass, door_setup.relay)
            doorway.setup = door_setup
        return added

    def _show(self, setup: BuildingSetup) -> None:
        """Bring devices, subscriptions and repairs in line with what the controller was given."""
        self._register_devices()
        for doorway in self.doors.values():
            doorway.attach()
        self._raise_issues(setup.unreadable)

    def _raise_issues(self, unreadable: Mapping[str, str]) -> None:
        for cured in self._unreadable - unreadable.keys():
            ir.async_delete_issue(self._hass, DOMAIN, f"{_UNREADABLE}{cured}")
        for subentry_id in unreadable.keys() - self._unreadable:
            _LOGGER.error("%s cannot be read and is left out", unreadable[subentry_id])
            ir.async_create_issue(
                self._hass,
                DOMAIN,
                f"{_UNREADABLE}{subentry_id}",
                is_fixable=False,
                severity=ir.IssueSeverity.ERROR,
                translation_key="unreadable",
                translation_placeholders={"name": unreadable[subentry_id]},
            )
        self._unreadable = set(unreadable)

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
                manufacturer=MANUFACTURER,
                name=doorway.setup.door.name,
                via_device_id=building.id,
            )

    # ---- telling ----

    @callback
    def _tell(self, event: AccessEvent) -> None:
        doorway = self.doors.get(event.door) if event.door is not None else None
        context = event.origin if isinstance(event.origin, Context) else None
        if doorway is not None and event.outcome is EventName.ACCESS_GRANTED:
            doorway.last_origin = context
        if self._early is not None:
            self._early.append(event)
            return
        where = {"door": event.door, "device_id": self._device_id(event.door)}
        self._hass.bus.async_fire(EVENT_ACCESS, where | access_data(event), context=context)
        if doorway is not None:
            doorway.tell(event)

    def _device_id(self, door: DoorId | None) -> str | None:
        if door is None:
            return None
        registry = dr.async_get(self._hass)
        device = registry.async_get_device_by_identifier((DOMAIN, door), self._entry.entry_id)
        return device.id if device else None


def access_data(event: AccessEvent) -> dict[str, Any]:
    """Return an event as automations and the event entity see it: no key, no token, nothing about a person."""
    return {
        "means": event.means.value,
        "outcome": event.outcome.value,
        "code": event.code.value,
        "carrier": event.carrier,
        "stop": event.has_stop,
        "sequence": event.sequence,
        "time": dt_util.utc_from_timestamp(event.at).isoformat(),
    }


def _close_unused(opening: asyncio.Future[Journal]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()  # was not started: nothing to wait for


def _open_journal(path: Path) -> Journal:
    """Open the journal, in the executor; the only place that translates its errors."""
    try:
        return Journal.open(path)
    except JournalInUse as err:
        raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="journal_in_use") from err
    except JournalTooNew as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_too_new") from err
    except JournalDamaged as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_damaged") from err
    except StoreFailed as err:
        raise ConfigEntryError(translation_domain=DOMAIN, translation_key="journal_failed") from err
