"""The forms: the building and its doors.

The pages that only a door with a Bluetooth strike has are in strike_flow.py, those of a carrier in carrier_flow.py. A
door's id is made once and never changes. A PIN is kept only as a hash and never shown. Each error leaves what was typed
in the form. A page is left out where nothing on it could be chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, override

import probatio
from homeassistant.components.cover.const import CoverEntityFeature
from homeassistant.components.lock import CONF_DEFAULT_CODE
from homeassistant.config_entries import (
    SOURCE_USER,
    ConfigEntry,
    ConfigEntryState,
    ConfigFlowResult,
    ConfigSubentry,
    ConfigSubentryFlow,
    FlowType,
    SubentryFlowContext,
    SubentryFlowResult,
)
from homeassistant.const import (
    ATTR_ASSUMED_STATE,
    ATTR_CODE_FORMAT,
    ATTR_SUPPORTED_FEATURES,
    CONF_LATITUDE,
    CONF_LONGITUDE,
    CONF_NAME,
    Platform,
)
from homeassistant.core import HomeAssistant, State, callback, split_entity_id
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.selector import (
    BooleanSelector,
    EntitySelector,
    EntitySelectorConfig,
    LocationSelector,
    LocationSelectorConfig,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)

from .building import (
    PersonsKept,
    RadioStrike,
    RelayDomain,
    ReleasesWhen,
    Returns,
    moved_by,
    persons_kept_of,
)
from .carrier_flow import CarrierFlow
from .const import (
    CONF_ACCESS_TIME,
    CONF_BUILDING,
    CONF_DOOR,
    CONF_HELD_OPEN_TIME,
    CONF_HOURS,
    CONF_KEEP_CONNECTED,
    CONF_MANUAL,
    CONF_ON_POWER_LOSS,
    CONF_PERSONS_KEPT,
    CONF_PIN,
    CONF_PIN_DIGEST,
    CONF_PIN_SALT,
    CONF_POSITION,
    CONF_PRE_ALARM_TIME,
    CONF_RELAY,
    CONF_RELAY_DOMAIN,
    CONF_RELEASES_WHEN,
    CONF_RELOCK,
    CONF_REMOVE_PIN,
    CONF_REMOVE_POSITION,
    CONF_REPORTS,
    CONF_RETURNS,
    CONF_STRIKE,
    DOMAIN,
    SUBENTRY_CARRIER,
    SUBENTRY_DOOR,
)
from .embedded import building_entry, is_building
from .forms import (
    DEFAULT_ACCESS_TIME,
    NAME,
    NO_FIELDS,
    Errors,
    UserInput,
    choice,
    new_building_id,
    number,
    stored_door_id,
    subentries,
    typed_hours,
    typed_name,
    weekly,
)
from .gateway_flow import GatewayOffer
from .strike_flow import StrikeOffer, StrikePages, has_bluetooth
from .strikes import capabilities, reports
from .vestibule_core.model import (
    ManualRule,
    OnPowerLoss,
    RelockOn,
    Sensor,
    new_door_id,
)
from .vestibule_core.pin import FORMAT as PIN_FORMAT
from .vestibule_core.pin import Pin

_ACCESS_TIME: Final = (0.5, 30.0)
_GATE_TIME: Final = 180.0
"""The longest access time of a gate: it opens slowly, and cars drive through it."""
_HELD_OPEN_TIME: Final = (1.0, 3600.0)
_DEFAULT_HELD_OPEN_TIME: Final = 60.0
_DEFAULT_PRE_ALARM_TIME: Final = 15.0
_PIN: Final = TextSelector(TextSelectorConfig(type=TextSelectorType.PASSWORD))
_POSITION: Final = LocationSelector(LocationSelectorConfig(radius=False, icon="mdi:door"))


class BuildingFlow(StrikeOffer, GatewayOffer, domain=DOMAIN):
    """The building: one for each Home Assistant. A strike that is found becomes a door of it; gateways stand beside."""

    @classmethod
    @callback
    @override
    def async_get_supported_subentry_types(cls, config_entry: ConfigEntry) -> dict[str, type[ConfigSubentryFlow]]:
        """Return what can be added to a building; a gateway has its doors itself."""
        if not is_building(config_entry):
            return {}
        return {SUBENTRY_DOOR: DoorFlow, SUBENTRY_CARRIER: CarrierFlow}

    @override
    async def async_step_user(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Name the building; if there is one, what is to be added is a gateway."""
        if building_entry(self.hass) is not None:
            return await self.async_step_gateway()
        await self.async_set_unique_id(CONF_BUILDING)
        if user_input is None:
            return self._ask("user", {CONF_NAME: self.hass.config.location_name or "Building"})
        errors: Errors = {}
        name = typed_name(user_input, errors)
        if errors:
            return self._ask("user", user_input, errors)
        return self.async_create_entry(title=name, data={CONF_BUILDING: new_building_id()})

    @override
    async def async_on_create_entry(self, result: ConfigFlowResult) -> ConfigFlowResult:
        """Go on with the first door, if there is none yet."""
        if not is_building(result["result"]) or any(subentries(result["result"], SUBENTRY_DOOR)):
            return result
        door = await self.hass.config_entries.subentries.async_init(
            (result["result"].entry_id, SUBENTRY_DOOR), context=SubentryFlowContext(source=SOURCE_USER)
        )
        result["next_flow"] = (FlowType.CONFIG_SUBENTRIES_FLOW, door["flow_id"])
        return result

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Change the building's name, and how long its journal knows who it was."""
        entry = self._get_reconfigure_entry()
        if not is_building(entry):
            return await self.async_step_gateway_again()
        kept: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_PERSONS_KEPT): choice(CONF_PERSONS_KEPT, PersonsKept)
        }
        if user_input is None:
            now = {CONF_NAME: entry.title, CONF_PERSONS_KEPT: persons_kept_of(entry.data).value}
            return self._ask("reconfigure", now, fields=kept)
        errors: Errors = {}
        name = typed_name(user_input, errors)
        if errors:
            return self._ask("reconfigure", user_input, errors, kept)
        if entry.state is not ConfigEntryState.LOADED:  # then no listener takes the change up
            self.hass.config_entries.async_schedule_reload(entry.entry_id)
        changed = {CONF_PERSONS_KEPT: user_input[CONF_PERSONS_KEPT]}
        return self.async_update_and_abort(entry, title=name, data_updates=changed)

    def _ask(
        self,
        step: str,
        values: Mapping[str, Any],
        errors: Errors | None = None,
        fields: Mapping[probatio.Marker, Any] | None = None,
    ) -> ConfigFlowResult:
        schema = probatio.Schema({probatio.Required(CONF_NAME): NAME, **(fields or {})})
        return self.async_show_form(
            step_id=step, data_schema=self.add_suggested_values_to_schema(schema, values), errors=errors
        )


class DoorFlow(StrikePages):
    """A door: the relay or strike that releases it, what watches it, and who may come in."""

    async def async_step_user(self, _: UserInput | None = None) -> SubentryFlowResult:
        """Ask what moves the bolt of a new door, if there is a choice."""
        if not has_bluetooth(self.hass):
            return await self.async_step_relay()
        return self.async_show_menu(step_id="user", menu_options=["relay", "strike"])

    # ---- page 1: the relay ----

    async def async_step_relay(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for a new door with a relay."""
        if user_input is None:
            return self._ask("relay", {})
        if errors := self._take(user_input, None):
            return self._ask("relay", user_input, errors)
        return await self.async_step_watch()

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change a door; its id stays."""
        subentry = self._get_reconfigure_subentry()
        if (door := stored_door_id(subentry)) is None:
            return self.async_abort(reason="door_id_unreadable")
        if CONF_STRIKE in subentry.data:
            return self._offer_changes()
        shown = {"door": door}
        if user_input is None:
            now = {**subentry.data, CONF_NAME: subentry.title, CONF_RELAY: self._relay_of(subentry)}
            return self._ask("reconfigure", now, placeholders=shown)
        if errors := self._take(user_input, subentry):
            return self._ask("reconfigure", user_input, errors, shown)
        return await self.async_step_watch()

    def _ask(
        self,
        step: str,
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: Mapping[str, str] | None = None,
    ) -> SubentryFlowResult:
        fields = {
            probatio.Required(CONF_NAME): NAME,
            probatio.Required(CONF_RELAY): self._entity(*RelayDomain),
            probatio.Required(CONF_ACCESS_TIME, default=DEFAULT_ACCESS_TIME): number(0.5, "s"),
            probatio.Required(CONF_RELEASES_WHEN, default=ReleasesWhen.ON.value): choice(
                CONF_RELEASES_WHEN, ReleasesWhen
            ),
            # For the manager to decide, so without a default; and optional, because the frontend chooses the first
            # option of what is required. Left open, it is an error of ours.
            probatio.Optional(CONF_RETURNS): choice(CONF_RETURNS, Returns),
            probatio.Required(CONF_ON_POWER_LOSS, default=OnPowerLoss.FAIL_SECURE.value): choice(
                CONF_ON_POWER_LOSS, OnPowerLoss
            ),
        }
        return self._show(step, fields, values, errors, placeholders)

    def _take(self, user_input: UserInput, itself: ConfigSubentry | None) -> Errors:
        """Keep what a form says, or return what is wrong with it; ``itself`` is the door that is being changed."""
        errors: Errors = {}
        self._title = typed_name(user_input, errors)
        if CONF_RETURNS not in user_input:
            errors[CONF_RETURNS] = "returns_missing"
        relay = self._entity_id(user_input[CONF_RELAY])
        state = self.hass.states.get(relay) if relay else None
        least, most = _ACCESS_TIME
        if state is not None and state.domain == RelayDomain.COVER:
            most = _GATE_TIME
        if not least <= user_input[CONF_ACCESS_TIME] <= most:
            errors[CONF_ACCESS_TIME] = "access_time_range"
        if relay is None or state is None:
            return errors | {CONF_RELAY: "relay_missing"}
        registered = er.async_get(self.hass).async_get(relay)
        if registered is not None and registered.platform == DOMAIN:
            errors[CONF_RELAY] = "relay_ours"
        elif state.domain not in RelayDomain:
            errors[CONF_RELAY] = "relay_wrong_kind"
        elif any(self._relay_of(other) == relay for other in subentries(self._get_entry(), SUBENTRY_DOOR, itself)):
            errors[CONF_RELAY] = "relay_used"
        else:
            errors |= _unfit(state, registered, user_input)
        if not errors:
            self._data = {
                CONF_RELAY: registered.id if registered else relay,
                CONF_RELAY_DOMAIN: state.domain,
                CONF_REPORTS: reports(state),
                CONF_ACCESS_TIME: user_input[CONF_ACCESS_TIME],
                CONF_RELEASES_WHEN: user_input[CONF_RELEASES_WHEN],
                CONF_RETURNS: user_input[CONF_RETURNS],
                CONF_ON_POWER_LOSS: user_input[CONF_ON_POWER_LOSS],
            }
        return errors

    # ---- page 2: what watches the door ----

    @override
    async def async_step_watch(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for the door's sensors; it works without any."""
        fields: dict[probatio.Marker, Any] = {
            probatio.Optional(sensor.value): self._entity(Platform.BINARY_SENSOR) for sensor in Sensor
        }
        if user_input is None:
            stored = self._stored
            shown = {sensor.value: self._entity_id(str(stored.get(sensor.value))) for sensor in Sensor}
            return self._show("watch", fields, shown)
        errors: Errors = {}
        chosen: dict[str, str] = {}
        for name in (sensor.value for sensor in Sensor if sensor in user_input):
            entity_id = self._entity_id(user_input[name])
            registered = er.async_get(self.hass).async_get(entity_id) if entity_id else None
            kept = registered.id if registered else user_input[name]
            if error := _unfit_sensor(self.hass, entity_id, registered):
                errors[name] = error
            elif kept in chosen.values():
                errors[name] = "sensor_twice"
            else:
                chosen[name] = kept
        if errors:
            return self._show("watch", fields, user_input, errors)
        self._data |= chosen
        moved = moved_by(self._data)
        own = moved.sensors if isinstance(moved, RadioStrike) else ()
        has_contact = Sensor.CONTACT in chosen or Sensor.CONTACT in own
        return await (self.async_step_opened() if has_contact else self.async_step_admit())

    # ---- page 3, only of a door with a contact: what follows when it is opened ----

    async def async_step_opened(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask when the door locks again, and how long it may stand open."""
        relocks = self._relocks
        fields: dict[probatio.Marker, Any] = {}
        if len(relocks) > 1:
            fields[probatio.Required(CONF_RELOCK, default=RelockOn.TIMEOUT.value)] = choice(CONF_RELOCK, relocks)
        # Optional and suggested, not defaults: what is emptied must stay empty.
        fields[probatio.Optional(CONF_HELD_OPEN_TIME)] = number(1, "s")
        fields[probatio.Optional(CONF_PRE_ALARM_TIME)] = number(1, "s")
        if user_input is None:
            values = dict(self._stored)
            if Sensor.CONTACT not in values and CONF_RELOCK not in values:
                values |= {CONF_HELD_OPEN_TIME: _DEFAULT_HELD_OPEN_TIME, CONF_PRE_ALARM_TIME: _DEFAULT_PRE_ALARM_TIME}
            if values.get(CONF_RELOCK) not in relocks:
                values.pop(CONF_RELOCK, None)
            return self._show("opened", fields, values)
        errors: Errors = {}
        held_open_time, pre_alarm_time = user_input.get(CONF_HELD_OPEN_TIME), user_input.get(CONF_PRE_ALARM_TIME)
        least, most = _HELD_OPEN_TIME
        if held_open_time is not None and not least <= held_open_time <= most:
            errors[CONF_HELD_OPEN_TIME] = "held_open_time_range"
        elif held_open_time is not None and pre_alarm_time is not None and not 0 <= pre_alarm_time < held_open_time:
            errors[CONF_PRE_ALARM_TIME] = "pre_alarm_time_range"
        if errors:
            return self._show("opened", fields, user_input, errors)
        self._data[CONF_RELOCK] = user_input.get(CONF_RELOCK, RelockOn.TIMEOUT.value)
        if held_open_time is not None:
            self._data[CONF_HELD_OPEN_TIME] = held_open_time
            if pre_alarm_time:
                self._data[CONF_PRE_ALARM_TIME] = pre_alarm_time
        return await self.async_step_admit()

    @property
    def _relocks(self) -> list[RelockOn]:
        """What can end a release of this relay."""
        moved = moved_by(self._data)
        if not capabilities(moved).can_secure:
            return [RelockOn.TIMEOUT]
        if (
            not isinstance(moved, RadioStrike) and moved.domain is RelayDomain.COVER
        ):  # one that closes when it opens would open no further
            return [RelockOn.TIMEOUT, RelockOn.CLOSE]
        return list(RelockOn)

    # ---- page 4: who may come in ----

    async def async_step_admit(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for the hours, the rule for those who open by hand, and their PIN."""
        stored = self._stored
        kept = stored.get(CONF_PIN)
        fields: dict[probatio.Marker, Any] = {
            probatio.Optional(CONF_HOURS): await weekly(self.hass),
            probatio.Required(CONF_MANUAL, default=ManualRule.EVERYONE.value): choice(CONF_MANUAL, ManualRule),
            probatio.Optional(CONF_PIN): _PIN,
        }
        if kept:
            fields[probatio.Required(CONF_REMOVE_PIN, default=False)] = BooleanSelector()
        fields[probatio.Optional(CONF_POSITION)] = _POSITION
        if CONF_POSITION in stored:  # a map cannot be emptied
            fields[probatio.Required(CONF_REMOVE_POSITION, default=False)] = BooleanSelector()
        if user_input is None:
            return self._show("admit", fields, {**stored, CONF_PIN: None})
        errors: Errors = {}
        placeholders: dict[str, str] = {}
        shown = dict(user_input)
        hours = typed_hours(user_input, errors, placeholders)
        position = _position(user_input, errors)
        pin, removed = user_input.get(CONF_PIN), user_input.get(CONF_REMOVE_PIN, False)
        if pin and not re.fullmatch(PIN_FORMAT, pin, re.ASCII):
            errors[CONF_PIN] = "pin_invalid"
            del shown[CONF_PIN]
        elif pin and removed:
            errors[CONF_REMOVE_PIN] = "pin_new_and_removed"
        if errors:
            return self._show("admit", fields, shown, errors, placeholders)
        self._data |= {CONF_HOURS: hours, CONF_MANUAL: user_input[CONF_MANUAL]}
        if position and not user_input.get(CONF_REMOVE_POSITION):
            self._data[CONF_POSITION] = position
        if pin:
            made = await self.hass.async_add_executor_job(Pin.of, pin, os.urandom(16))
            self._data[CONF_PIN] = {CONF_PIN_SALT: made.salt.hex(), CONF_PIN_DIGEST: made.digest.hex()}
        elif kept and not removed:
            self._data[CONF_PIN] = kept
        if self.source == SOURCE_USER:
            self._data[CONF_DOOR] = new_door_id(os.urandom(16))
            return await self.async_step_give()
        if CONF_STRIKE in stored:  # what its driver has stored meanwhile is not undone
            kept_up = self._data[CONF_STRIKE][CONF_KEEP_CONNECTED]
            self._data[CONF_STRIKE] = {**stored[CONF_STRIKE], CONF_KEEP_CONNECTED: kept_up}
        # All of it and no update: what was emptied must not stay from before.
        return self.async_update_and_abort(
            self._get_entry(),
            self._get_reconfigure_subentry(),
            title=self._title,
            data={**self._data, CONF_DOOR: stored[CONF_DOOR]},
        )

    # ---- the end, of a new door ----

    async def async_step_give(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show what the carrier has to be given: the door's id, which is no secret."""
        if user_input is None:
            return self.async_show_form(
                step_id="give",
                data_schema=NO_FIELDS,
                description_placeholders={"name": self._title, "door": self._data[CONF_DOOR]},
                last_step=True,
            )
        return self.async_create_entry(title=self._title, data=self._data, unique_id=self._data[CONF_DOOR])

    # ---- what the pages share ----

    def _entity(self, *domains: str) -> EntitySelector:
        """Offer the entities of these domains, without our own."""
        ours = [entry.entity_id for entry in er.async_entries_for_config_entry(er.async_get(self.hass), self._entry_id)]
        return EntitySelector(EntitySelectorConfig(domain=[str(domain) for domain in domains], exclude_entities=ours))

    def _relay_of(self, door: ConfigSubentry) -> str | None:
        return self._entity_id(str(door.data.get(CONF_RELAY)))

    def _entity_id(self, entity: str) -> str | None:
        return er.async_resolve_entity_id(er.async_get(self.hass), entity)


def _position(user_input: UserInput, errors: Errors) -> dict[str, float] | None:
    """Return where the door is, as it is stored; None if that was left open."""
    if (place := user_input.get(CONF_POSITION)) is None:
        return None
    latitude, longitude = place[CONF_LATITUDE], place[CONF_LONGITUDE]
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        errors[CONF_POSITION] = "position_invalid"
    return {CONF_LATITUDE: latitude, CONF_LONGITUDE: longitude}


def _unfit(state: State, registered: er.RegistryEntry | None, user_input: UserInput) -> Errors:
    """Return what a relay of this kind cannot do."""
    errors: Errors = {}
    timed_by_us = user_input.get(CONF_RETURNS) == Returns.BY_VESTIBULE
    if state.domain != RelayDomain.SWITCH and user_input[CONF_RELEASES_WHEN] == ReleasesWhen.OFF:
        errors[CONF_RELEASES_WHEN] = "releases_when_not_a_switch"
    match state.domain:
        case RelayDomain.BUTTON | RelayDomain.INPUT_BUTTON if timed_by_us:
            errors[CONF_RETURNS] = "button_returns"
        case RelayDomain.LOCK if _asks_for_a_code(state, registered):
            errors[CONF_RELAY] = "lock_code"
        case RelayDomain.COVER:
            features = CoverEntityFeature(state.attributes.get(ATTR_SUPPORTED_FEATURES, 0))
            if state.attributes.get(ATTR_ASSUMED_STATE):  # behind it is one input that opens, stops and closes in turn
                errors[CONF_RELAY] = "cover_assumed"
            elif CoverEntityFeature.OPEN not in features:
                errors[CONF_RELAY] = "cover_cannot_open"
            elif timed_by_us and CoverEntityFeature.CLOSE not in features:
                errors[CONF_RETURNS] = "cover_cannot_close"
    return errors


def _unfit_sensor(hass: HomeAssistant, entity_id: str | None, registered: er.RegistryEntry | None) -> str | None:
    """Return why an entity cannot watch a door. One that is registered need not be up at the moment."""
    if registered is not None and registered.platform == DOMAIN:
        return "sensor_ours"
    if entity_id is None or (registered.disabled if registered else hass.states.get(entity_id) is None):
        return "sensor_missing"
    return None if split_entity_id(entity_id)[0] == Platform.BINARY_SENSOR else "sensor_wrong_kind"


def _asks_for_a_code(lock: State, registered: er.RegistryEntry | None) -> bool:
    """Return whether a lock wants a code and its settings have none that it takes; we have none to give."""
    wanted: str | None = lock.attributes.get(ATTR_CODE_FORMAT)
    options = registered.options.get(lock.domain) if registered else None
    code = options.get(CONF_DEFAULT_CODE) if options else None
    return wanted is not None and re.match(wanted, code or "") is None
