"""What the platforms see: doors, and the premises that they belong to, wherever their controller runs.

Two hosts serve it: the embedded controller (embedded.py) and a gateway that Home Assistant is paired with (remote.py).
An entity never asks which of the two it is. Nothing here decides anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import Platform
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.util import dt as dt_util

from .const import DOMAIN, EVENT_ACCESS
from .vestibule_core.door import DoorState
from .vestibule_core.doorstrike.wire import Caps
from .vestibule_core.model import (
    AccessEvent,
    Actor,
    Code,
    Decision,
    Door,
    DoorId,
    DoorMode,
    EventName,
    Means,
    OnPowerLoss,
    Sensor,
)
from .vestibule_core.strike import Capabilities

if TYPE_CHECKING:
    from .ble import HomeAssistantStrike

type PremisesEntry = ConfigEntry[Premises[Any]]

MODELS: Final = {
    OnPowerLoss.FAIL_SECURE: "Fail-secure door",
    OnPowerLoss.FAIL_SAFE: "Fail-safe door",
}
"""What a door's device is called, by what its lock does without power."""


_SHOWN_BY_A_SWITCH: Final = frozenset({EventName.LOCKDOWN_ON, EventName.LOCKDOWN_OFF})
"""Of what concerns no single door: the lines of Activity that the switch of the lockdown has already."""
_RELEASES: Final = frozenset({EventName.ACCESS_GRANTED, EventName.DOOR_UNLOCKED})
"""Events after which the strike is released for whoever asked."""


class Bolt(Protocol):
    """What moves a door's bolt, as far as entities look at it."""

    @property
    def is_reachable(self) -> bool:
        """Whether it would hear a command."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""


class Doorway(ABC):
    """A door as the entities see it; lives as long as its controller has the door."""

    def __init__(self, door: DoorId) -> None:
        """Be this door."""
        self.id: Final = door
        """The door's id, for life."""
        self.device_info = DeviceInfo(identifiers={(DOMAIN, door)})
        self.entities: set[tuple[Platform, str]] = set()
        """The entities that it has, by platform and key."""
        self.state = DoorState()
        self.last_origin: Context | None = None
        """The context of the release that was granted last."""
        self._state_listeners: list[Callable[[], None]] = []
        self._known_listeners: list[Callable[[], None]] = []
        self._access_listeners: list[Callable[[AccessEvent, Context], None]] = []

    @property
    @abstractmethod
    def door(self) -> Door:
        """How it is set up."""

    @property
    def subentry_id(self) -> str | None:
        """The subentry that it is; None: it is none."""
        return None

    @property
    def watched_by_entities(self) -> Collection[Sensor]:
        """The senses of it that Home Assistant has other entities for."""
        return ()

    @property
    def is_known(self) -> bool:
        """Whether what is shown of it is true now."""
        return True

    @property
    @abstractmethod
    def bolt(self) -> Bolt:
        """What moves its bolt."""

    @property
    def radio_strike(self) -> HomeAssistantStrike | None:
        """The strike, if it is one that Home Assistant itself reaches by radio."""
        return None

    @property
    def radio_caps(self) -> Caps | None:
        """What that strike says that it can do; None: there is none."""
        return None

    @property
    def battery(self) -> int | None:
        """What is left in the strike's battery, in percent; None: it has none, or has not said lately."""
        return None

    @property
    def why_not(self) -> Mapping[Code, str]:
        """Why the strike does not do what it is told, in words for a person, as far as it has any."""
        return {}

    @abstractmethod
    async def open_by_hand(self, actor: Actor, origin: Context | None, pin: str | None = None) -> Decision:
        """Let a person or an automation in."""

    @abstractmethod
    async def set_mode(self, mode: DoorMode, actor: Actor, origin: Context | None) -> Decision:
        """Set the door's mode, durably."""

    @abstractmethod
    async def set_deliveries(self, accepted: bool, actor: Actor, origin: Context | None) -> Decision:
        """Say whether the door takes deliveries, durably."""

    @abstractmethod
    async def clear_tamper(self, actor: Actor, origin: Context | None) -> Decision:
        """Trust the door again, because somebody has looked at it."""

    @callback
    def on_state(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the door's state or its bolt's availability may have changed."""
        self._state_listeners.append(listener)
        return lambda: self._state_listeners.remove(listener)

    @callback
    def on_known(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when ``is_known`` has changed."""
        self._known_listeners.append(listener)
        return lambda: self._known_listeners.remove(listener)

    @callback
    def on_access(self, listener: Callable[[AccessEvent, Context], None]) -> Callable[[], None]:
        """Call ``listener`` with each event at this door, and the context to tell of it in."""
        self._access_listeners.append(listener)
        return lambda: self._access_listeners.remove(listener)

    @callback
    def tell(self, event: AccessEvent, context: Context) -> None:
        """Pass an event on."""
        for listener in tuple(self._access_listeners):
            listener(event, context)

    @callback
    def take(self, state: DoorState) -> None:
        """Be in another state."""
        self.state = state
        self.notify()

    @callback
    def known_changed(self) -> None:
        """Say that ``is_known`` has changed."""
        for listener in tuple(self._known_listeners):
            listener()

    @callback
    def notify(self) -> None:
        """Say that something may have changed."""
        for listener in tuple(self._state_listeners):
            listener()


class Premises[D: Doorway](ABC):
    """The doors of one controller, and what is common to them."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
        """Begin without a door; ``entry`` is where it was set up."""
        self._hass = hass
        self._entry = entry
        self.doors: dict[DoorId, D] = {}
        self._each_door: list[Callable[[D], None]] = []
        self._listeners: list[Callable[[], None]] = []

    @property
    @abstractmethod
    def id(self) -> str:
        """What its device and its entities are known by, for life."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name."""

    @property
    @abstractmethod
    def is_there(self) -> bool:
        """Whether what is shown of it is true now: a gateway may be out of reach."""

    @property
    def can_be_away(self) -> bool:
        """Whether it may be out of reach."""
        return False

    @property
    @abstractmethod
    def journal_entries(self) -> int:
        """How many entries its journal has."""

    @property
    @abstractmethod
    def refusals_counted(self) -> int | None:
        """How many refusals left no entry of their own; None: it does not say."""

    @property
    @abstractmethod
    def locked_down(self) -> bool:
        """Whether nobody is let in anywhere."""

    @property
    def lockdown_pending(self) -> list[str]:
        """Who has not confirmed the lockdown yet, by name: its doors may still let somebody in."""
        return []

    @abstractmethod
    async def set_lockdown(self, on: bool, actor: Actor, origin: Context | None) -> Decision:
        """Lock all doors down or lift that, durably."""

    @callback
    def for_each_door(self, keep: Callable[[D], None]) -> None:
        """Call ``keep`` with each door, now and when one is added or set up anew."""
        self._each_door.append(keep)
        for doorway in self.doors.values():
            keep(doorway)

    @callback
    def keep_up(self, changed: Iterable[D]) -> None:
        """Say that these doors are new, or others now."""
        for doorway in changed:
            for keep in self._each_door:
                keep(doorway)

    @callback
    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when something that is common to the doors may have changed."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @callback
    def notify(self) -> None:
        """Say that something that is common to the doors may have changed."""
        for listener in tuple(self._listeners):
            listener()

    @callback
    def announce(
        self, event: AccessEvent, origin: Context | None, *, is_late: bool = False, is_history: bool = False
    ) -> None:
        """Tell of an event: on the bus, and to the door's event entity. ``origin`` is the context it was asked in.

        One that ``is_late`` is told on the bus only: what reacts to doors would react to the past. What ``is_history``
        has its own time there, also if it is recent.
        """
        doorway = self.doors.get(event.door) if event.door is not None else None
        context, asked_in = _contexts_of(event, origin)
        if doorway is not None and event.outcome in _RELEASES and not is_late:
            doorway.last_origin = context
        # Not "device_id": Activity would show the event as a second line beside that of an entity (ADR 6), unless there
        # is none. What nobody asked for stays out of the entity's context: there is no cause to name.
        where = {"door": event.door, "device": self._device_id(event.door)}
        if is_late or (event.door is None and event.outcome not in _SHOWN_BY_A_SWITCH):
            where["device_id"] = self._device_id(event.door or self.id)
        told_in = asked_in if origin or event.carrier else Context()
        late = {"late": True} if is_late else {}
        gateway = {"gateway": self.name} if self.can_be_away else {}  # whose numbers are its own
        at = min(event.at, dt_util.utcnow().timestamp()) if is_history or is_late else None
        told = where | gateway | access_data(event) | late
        self._hass.bus.async_fire(EVENT_ACCESS, told, context=told_in, time_fired=at)
        if told_in is asked_in:
            context.origin_event = asked_in.origin_event  # by which an open page of Activity finds the cause
        if doorway is not None and not is_late:
            doorway.tell(event, context)
        else:
            self.notify()

    def _device_id(self, whose: str | None) -> str | None:
        """Return the device of a door, by its id, or of the premises."""
        if whose is None:
            return None
        registry = dr.async_get(self._hass)
        device = registry.async_get_device_by_identifier((DOMAIN, whose), self._entry.entry_id)
        return device.id if device else None


def access_data(event: AccessEvent) -> dict[str, Any]:
    """Return an event as automations and the event entity see it: no key, no token, nothing about a person."""
    besides = {"count": event.count, "slot": event.slot, "confirmed": _confirmed(event)}
    return {name: value for name, value in besides.items() if value is not None} | {
        "means": event.means.value if event.means else None,
        "outcome": event.outcome.value,
        "code": event.code.value if event.code else None,
        "carrier": event.carrier,
        "stop": event.has_stop,
        "sequence": event.sequence,
        "time": dt_util.utc_from_timestamp(event.at).isoformat(),
    }


def _confirmed(event: AccessEvent) -> dict[str, Any] | None:
    """Return the four confirmations, as the carrier's cloud says that they are: ID, route, position and time."""
    if (checks := event.checks) is None:
        return None
    return {
        "driver": checks.driver,
        "route": event.has_stop,
        "distance": checks.distance,
        "accuracy": checks.accuracy,
        "position_age": checks.position_age,
        "request_age": checks.request_age,
    }


def _contexts_of(event: AccessEvent, origin: Context | None) -> tuple[Context, Context]:
    """Return the contexts to tell of an event in, to entities and on the bus: Activity names its cause (ADR 6)."""
    if origin is not None and event.means is not Means.TOKEN:
        return origin, origin  # by hand: Home Assistant names the person, the automation or the script
    # One for each event: a second event in the same context would take its words from the first. That of the entities
    # has the same id and neither user nor parent: whomever these lead to, Activity would name as who came in, and
    # whoever carries a token opens nothing. The event on the bus says who that was.
    context = Context()
    if origin is None:
        return context, context
    return context, Context(user_id=origin.user_id, parent_id=origin.id, id=context.id)
