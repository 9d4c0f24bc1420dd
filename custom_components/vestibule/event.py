"""What happens at a door, as an event entity: each grant and what came of it, each refusal of a token whose signature
is good, what is wrong with the door, and who gets or loses a key of its strike. What another entity of the door shows
by its state (opened, locked again, a mode) is not shown here once more: Activity would have two lines for it. A forged,
malformed or already presented text leaves only a count.
"""

from __future__ import annotations

from typing import Final, override

from homeassistant.components.event import EventEntity
from homeassistant.const import Platform
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .doorway import Doorway, PremisesEntry, access_data
from .entity import VestibuleDoorEntity, add_for_each_door, always
from .vestibule_core.model import AccessEvent, EventName

PARALLEL_UPDATES = 0

_OF_THE_BUILDING: Final = frozenset(
    {
        EventName.LOCKDOWN_ON,
        EventName.LOCKDOWN_OFF,
        EventName.CLOCK_CONFIRMED,
        EventName.JOURNAL_RESTORED,
        EventName.RESTORE_CONFIRMED,
        EventName.KEY_CONFIRMED,
        EventName.JOURNAL_DISPUTED,
        EventName.EPOCH_BEGUN,
        EventName.WITNESS_REFUSED,
        EventName.JOURNAL_EXPORTED,
        EventName.PERSON_EXPORTED,
        EventName.PERSON_DELETED,
        EventName.REFUSALS_COUNTED,
        EventName.POLICY_CHANGED,
        EventName.POLICY_PENDING,
        EventName.CLIENT_PAIRED,
        EventName.CLIENT_CHANGED,
        EventName.CLIENT_REMOVED,
        EventName.CARRIER_LINKED,
        EventName.CARRIER_UNLINKED,
        EventName.CARRIER_LOCKED_OUT,
        EventName.CARRIER_APPROVED,
    }
)
_SHOWN_BY_OTHERS: Final = frozenset(
    {
        EventName.DOOR_OPENED,  # the contact
        EventName.DOOR_CLOSED,
        EventName.DOOR_RELOCKED,  # the lock
        EventName.DOOR_NORMAL,  # the mode
        EventName.DOOR_UNLOCKED,
        EventName.DOOR_BLOCKED,
        EventName.DELIVERIES_ON,  # its switch
        EventName.DELIVERIES_OFF,
    }
)
_EVENT_TYPES: Final = [name.value for name in EventName if name not in _OF_THE_BUILDING | _SHOWN_BY_OTHERS]


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add an event entity for each door, now and later."""
    add_for_each_door(hass, entry, async_add_entities, Platform.EVENT, [("access", always, VestibuleAccess)])


class VestibuleAccess(VestibuleDoorEntity, EventEntity):
    """The accesses of one door. Always available: Home Assistant's triggers ignore the first event after an outage."""

    _attr_translation_key = "access"
    _attr_event_types = _EVENT_TYPES
    # In the recorded bus event, for every line; here they would make each state's attributes a row of their own.
    _unrecorded_attributes = frozenset({"sequence", "time", "confirmed"})

    def __init__(self, doorway: Doorway) -> None:
        """Tell of this door."""
        super().__init__(doorway, "access")

    @property
    @override
    def available(self) -> bool:
        """Always."""
        return True

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self.async_on_remove(self._doorway.on_access(self._take))

    @callback
    def _take(self, event: AccessEvent, context: Context) -> None:
        if event.outcome in _SHOWN_BY_OTHERS:
            return
        self.async_set_context(context)
        self._trigger_event(event.outcome.value, access_data(event))
        self.async_write_ha_state()
