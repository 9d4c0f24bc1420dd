"""The forms: the building, its doors and its carriers.

A door's id is made here once and never changes. A carrier's intake key is made here, shown once and kept only as a
hash. Each error leaves what was typed in the form, except a private key: whoever pasted one has to replace it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final, override

import probatio
from homeassistant.config_entries import (
    SOURCE_USER,
    ConfigEntry,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentry,
    ConfigSubentryFlow,
    FlowType,
    SubentryFlowContext,
    SubentryFlowResult,
)
from homeassistant.const import CONF_NAME, Platform
from homeassistant.core import callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.selector import (
    BooleanSelector,
    EntitySelector,
    EntitySelectorConfig,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)

from .building import ReleasesWhen, Returns
from .const import (
    CONF_ACCESS_TIME,
    CONF_ACCURACY,
    CONF_BUILDING,
    CONF_DISTANCE,
    CONF_DOOR,
    CONF_DOORS,
    CONF_INTAKE_KEY_SHA256,
    CONF_ISSUER,
    CONF_JWK_SET,
    CONF_METHODS,
    CONF_NEW_INTAKE_KEY,
    CONF_POSITION_AGE,
    CONF_RELAY,
    CONF_RELEASES_WHEN,
    CONF_REPORTS,
    CONF_REQUEST_AGE,
    CONF_RETURNS,
    CONF_REVOKED,
    DOMAIN,
    SUBENTRY_CARRIER,
    SUBENTRY_DOOR,
)
from .strikes import RELAY_DOMAINS, reports
from .vestibule_core.errors import KeySetInvalid
from .vestibule_core.keys import TrustedKey, import_jwk_set
from .vestibule_core.model import DoorId, Issuer, door_id, issuer, new_door_id
from .vestibule_core.policy import EvidenceLimits
from .vestibule_core.token import DriverProof

type UserInput = dict[str, Any]
type Errors = dict[str, str]

_ACCESS_TIME: Final = (0.5, 30.0)
_DEFAULT_ACCESS_TIME: Final = 5.0

_DEFAULTS: Final = EvidenceLimits()
_LIMITS: Final[Mapping[str, tuple[int, int, int, str]]] = {
    # field: default, least, most, unit
    CONF_DISTANCE: (_DEFAULTS.distance, 1, 1000, "m"),
    CONF_ACCURACY: (_DEFAULTS.accuracy, 1, 1000, "m"),
    CONF_POSITION_AGE: (_DEFAULTS.position_age, 1, 300, "s"),
    CONF_REQUEST_AGE: (_DEFAULTS.request_age, 1, 600, "s"),
}

_NAME: Final = TextSelector()
_KEY_SET: Final = TextSelector(TextSelectorConfig(multiline=True))
_NO_FIELDS: Final = probatio.Schema({})


class BuildingFlow(ConfigFlow, domain=DOMAIN):
    """The building: one for each Home Assistant."""

    @classmethod
    @callback
    @override
    def async_get_supported_subentry_types(cls, config_entry: ConfigEntry) -> dict[str, type[ConfigSubentryFlow]]:
        """Return what can be added to a building."""
        return {SUBENTRY_DOOR: DoorFlow, SUBENTRY_CARRIER: CarrierFlow}

    @override
    async def async_step_user(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Name the building."""
        await self.async_set_unique_id(CONF_BUILDING)
        self._abort_if_unique_id_configured()
        if user_input is None:
            return self._ask("user", self.hass.config.location_name or "Building")
        errors: Errors = {}
        name = _name(user_input, errors)
        if errors:
            return self._ask("user", name, errors)
        return self.async_create_entry(title=name, data={CONF_BUILDING: _new_building_id()})

    @override
    async def async_on_create_entry(self, result: ConfigFlowResult) -> ConfigFlowResult:
        """Go on with the first door."""
        door = await self.hass.config_entries.subentries.async_init(
            (result["result"].entry_id, SUBENTRY_DOOR), context=SubentryFlowContext(source=SOURCE_USER)
        )
        result["next_flow"] = (FlowType.CONFIG_SUBENTRIES_FLOW, door["flow_id"])
        return result

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Rename the building."""
        entry = self._get_reconfigure_entry()
        if user_input is None:
            return self._ask("reconfigure", entry.title)
        errors: Errors = {}
        name = _name(user_input, errors)
        if errors:
            return self._ask("reconfigure", name, errors)
        if entry.state is not ConfigEntryState.LOADED:  # then no listener takes the change up
            self.hass.config_entries.async_schedule_reload(entry.entry_id)
        return self.async_update_and_abort(entry, title=name)

    def _ask(self, step: str, name: str, errors: Errors | None = None) -> ConfigFlowResult:
        schema = probatio.Schema({probatio.Required(CONF_NAME): _NAME})
        return self.async_show_form(
            step_id=step, data_schema=self.add_suggested_values_to_schema(schema, {CONF_NAME: name}), errors=errors
        )


class DoorFlow(ConfigSubentryFlow):
    """A door: the relay that releases it, and how."""

    def __init__(self) -> None:
        """Begin without a door."""
        self._title = ""
        self._data: dict[str, Any] = {}

    async def async_step_user(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for a new door."""
        if user_input is None:
            return self._ask("user", {})
        if errors := self._take(user_input, None):
            return self._ask("user", user_input, errors)
        self._data[CONF_DOOR] = new_door_id(os.urandom(16))
        return await self.async_step_give()

    async def async_step_give(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show what the carrier has to be given: the door's id, which is no secret."""
        if user_input is None:
            return self.async_show_form(
                step_id="give",
                data_schema=_NO_FIELDS,
                description_placeholders={"name": self._title, "door": self._data[CONF_DOOR]},
                last_step=True,
            )
        return self.async_create_entry(title=self._title, data=self._data, unique_id=self._data[CONF_DOOR])

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change a door; its id stays."""
        subentry = self._get_reconfigure_subentry()
        if (door := _door_id(subentry)) is None:
            return self.async_abort(reason="door_id_unreadable")
        shown = {"door": door}
        if user_input is None:
            now = {**subentry.data, CONF_NAME: subentry.title, CONF_RELAY: self._relay_of(subentry)}
            return self._ask("reconfigure", now, placeholders=shown)
        if errors := self._take(user_input, subentry):
            return self._ask("reconfigure", user_input, errors, shown)
        return self.async_update_and_abort(self._get_entry(), subentry, title=self._title, data_updates=self._data)

    def _ask(
        self,
        step: str,
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: Mapping[str, str] | None = None,
    ) -> SubentryFlowResult:
        ours = [entry.entity_id for entry in er.async_entries_for_config_entry(er.async_get(self.hass), self._entry_id)]
        schema = probatio.Schema(
            {
                probatio.Required(CONF_NAME): _NAME,
                probatio.Required(CONF_RELAY): EntitySelector(
                    EntitySelectorConfig(domain=list(RELAY_DOMAINS), exclude_entities=ours)
                ),
                probatio.Required(CONF_ACCESS_TIME, default=_DEFAULT_ACCESS_TIME): _number(0.5, "s"),
                probatio.Required(CONF_RELEASES_WHEN, default=ReleasesWhen.ON.value): _choice(
                    CONF_RELEASES_WHEN, ReleasesWhen
                ),
                # For the manager to decide, so without a default; and optional, because the frontend chooses the first
                # option of what is required. Left open, it is an error of ours.
                probatio.Optional(CONF_RETURNS): _choice(CONF_RETURNS, Returns),
            }
        )
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(schema, values),
            errors=errors,
            description_placeholders=placeholders,
        )

    def _take(self, user_input: UserInput, itself: ConfigSubentry | None) -> Errors:
        """Keep what a form says, or return what is wrong with it; ``itself`` is the door that is being changed."""
        errors: Errors = {}
        self._title = _name(user_input, errors)
        if not _ACCESS_TIME[0] <= user_input[CONF_ACCESS_TIME] <= _ACCESS_TIME[1]:
            errors[CONF_ACCESS_TIME] = "access_time_range"
        if CONF_RETURNS not in user_input:
            errors[CONF_RETURNS] = "returns_missing"
        relay = self._entity_id(user_input[CONF_RELAY])
        if relay is None or (state := self.hass.states.get(relay)) is None:
            return errors | {CONF_RELAY: "relay_missing"}
        registered = er.async_get(self.hass).async_get(relay)
        if registered is not None and registered.platform == DOMAIN:
            errors[CONF_RELAY] = "relay_ours"
        elif state.domain not in RELAY_DOMAINS:
            errors[CONF_RELAY] = "relay_wrong_kind"
        elif any(self._relay_of(other) == relay for other in _subentries(self._get_entry(), SUBENTRY_DOOR, itself)):
            errors[CONF_RELAY] = "relay_used"
        elif state.domain != Platform.SWITCH:
            if user_input.get(CONF_RETURNS) == Returns.BY_VESTIBULE:
                errors[CONF_RETURNS] = "button_returns"
            if user_input[CONF_RELEASES_WHEN] == ReleasesWhen.OFF:
                errors[CONF_RELEASES_WHEN] = "button_releases_when"
        if not errors:
            self._data = {
                CONF_RELAY: registered.id if registered else relay,
                CONF_ACCESS_TIME: user_input[CONF_ACCESS_TIME],
                CONF_RELEASES_WHEN: user_input[CONF_RELEASES_WHEN],
                CONF_RETURNS: user_input[CONF_RETURNS],
                CONF_REPORTS: reports(state),
            }
        return errors

    def _relay_of(self, door: ConfigSubentry) -> str | None:
        return self._entity_id(str(door.data.get(CONF_RELAY)))

    def _entity_id(self, relay: str) -> str | None:
        return er.async_resolve_entity_id(er.async_get(self.hass), relay)


class CarrierFlow(ConfigSubentryFlow):
    """A carrier: whose tokens open which doors, signed with which keys, after how good a look at the driver."""

    def __init__(self) -> None:
        """Begin without a carrier."""
        self._title = ""
        self._data: dict[str, Any] = {}
        self._keys: tuple[TrustedKey, ...] = ()
        self._intake_key: str | None = None
        """In clear only while this flow lives."""

    async def async_step_user(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for a new carrier."""
        if user_input is None:
            return self._ask("user", {})
        if refused := self._take("user", user_input, None):
            return refused
        self._data[CONF_REVOKED] = []
        self._new_intake_key()
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show the keys' fingerprints, to be compared with what the carrier says."""
        if user_input is None:
            return self.async_show_form(
                step_id="confirm",
                data_schema=_NO_FIELDS,
                description_placeholders={
                    "name": self._title,
                    "keys": "\n".join(f"- `{key.kid}` ({key.alg})" for key in self._keys),
                },
                last_step=self._intake_key is None,
            )
        return await self._save_or_show_key()

    async def async_step_intake_key(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show the new intake key, this once."""
        if user_input is None:
            assert self._intake_key is not None
            return self.async_show_form(
                step_id="intake_key",
                data_schema=_NO_FIELDS,
                description_placeholders={"name": self._title, "intake_key": self._intake_key},
                last_step=True,
            )
        return self._save()

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change a carrier, revoke its keys or give it a new intake key."""
        subentry = self._get_reconfigure_subentry()
        known = self._known_keys(subentry)
        if user_input is None:
            return self._ask("reconfigure", {**subentry.data, CONF_NAME: subentry.title}, known=known)
        if refused := self._take("reconfigure", user_input, subentry, known):
            return refused
        kids = {key.kid for key in self._keys}
        # A key that was revoked and is in the set no more stays revoked: it may come back with an old set.
        gone = set(subentry.data.get(CONF_REVOKED) or ()) - {key.kid for key in known}
        self._data[CONF_REVOKED] = sorted(gone | set(user_input[CONF_REVOKED]))
        if user_input[CONF_NEW_INTAKE_KEY]:
            self._new_intake_key()
        if kids - {key.kid for key in known}:
            return await self.async_step_confirm()
        return await self._save_or_show_key()

    async def _save_or_show_key(self) -> SubentryFlowResult:
        return self._save() if self._intake_key is None else await self.async_step_intake_key()

    def _save(self) -> SubentryFlowResult:
        if self.source == SOURCE_USER:
            return self.async_create_entry(title=self._title, data=self._data, unique_id=self._data[CONF_ISSUER])
        return self.async_update_and_abort(
            self._get_entry(),
            self._get_reconfigure_subentry(),
            title=self._title,
            data_updates=self._data,
            unique_id=self._data[CONF_ISSUER],
        )

    def _new_intake_key(self) -> None:
        self._intake_key = secrets.token_urlsafe(32)
        self._data[CONF_INTAKE_KEY_SHA256] = hashlib.sha256(self._intake_key.encode()).hexdigest()

    # ---- the form ----

    def _ask(
        self,
        step: str,
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: dict[str, str] | None = None,
        known: tuple[TrustedKey, ...] = (),
    ) -> SubentryFlowResult:
        doors = [
            SelectOptionDict(value=door, label=subentry.title)
            for subentry in _subentries(self._get_entry(), SUBENTRY_DOOR)
            if (door := _door_id(subentry)) is not None
        ]
        fields: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_NAME): _NAME,
            probatio.Required(CONF_ISSUER): TextSelector(TextSelectorConfig(type=TextSelectorType.URL)),
            probatio.Required(CONF_JWK_SET): _KEY_SET,
            probatio.Required(CONF_DOORS, default=list): _choices(doors),
            probatio.Required(CONF_METHODS, default=sorted(_DEFAULTS.methods)): SelectSelector(
                SelectSelectorConfig(
                    options=[proof.value for proof in DriverProof], multiple=True, translation_key=CONF_METHODS
                )
            ),
        }
        for field, (default, _, _, unit) in _LIMITS.items():
            fields[probatio.Required(field, default=default)] = _number(1, unit)
        if step == "reconfigure":
            keys = [SelectOptionDict(value=key.kid, label=f"{key.kid} ({key.alg})") for key in known]
            fields[probatio.Required(CONF_REVOKED, default=list)] = _choices(keys)
            fields[probatio.Required(CONF_NEW_INTAKE_KEY, default=False)] = BooleanSelector()
        # A door or key that is gone cannot be shown as chosen.
        offered = {CONF_DOORS: {door["value"] for door in doors}, CONF_REVOKED: {key.kid for key in known}}
        shown = dict(values)
        for field, options in offered.items():
            if field in shown:
                shown[field] = [choice for choice in shown[field] or () if choice in options]
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(probatio.Schema(fields), shown),
            errors=errors,
            description_placeholders={"position": "", "example": "https://carrier.example", **(placeholders or {})},
            last_step=False,
        )

    def _take(
        self, step: str, user_input: UserInput, itself: ConfigSubentry | None, known: tuple[TrustedKey, ...] = ()
    ) -> SubentryFlowResult | None:
        """Keep what a form without errors says; else return the form again."""
        errors: Errors = {}
        placeholders: dict[str, str] = {}
        shown = dict(user_input)
        self._title = _name(user_input, errors)
        others = list(_subentries(self._get_entry(), SUBENTRY_CARRIER, itself))
        try:
            name = issuer(user_input[CONF_ISSUER].strip())
        except ValueError:
            errors[CONF_ISSUER] = "issuer_invalid"
            name = Issuer("")
        if any(other.data.get(CONF_ISSUER) == name for other in others):
            errors[CONF_ISSUER] = "issuer_used"
        try:
            keys = import_jwk_set(user_input[CONF_JWK_SET], name)
        except KeySetInvalid as err:
            keys = ()
            errors[CONF_JWK_SET] = f"key_set_{err.reason}"
            placeholders["position"] = str(err.position)
            if err.reason == "private_key":
                del shown[CONF_JWK_SET]
        taken = {key.kid for other in others for key in self._known_keys(other)}
        for position, key in enumerate(keys, 1):
            if key.kid in taken:
                errors[CONF_JWK_SET] = "key_set_of_another_carrier"
                placeholders["position"] = str(position)
        if not user_input[CONF_METHODS]:
            errors[CONF_METHODS] = "methods_empty"
        for field, (_, least, most, _) in _LIMITS.items():
            if not least <= user_input[field] <= most:
                errors[field] = f"{field}_range"
        if errors:
            return self._ask(step, shown, errors, placeholders, known)
        self._keys = keys
        self._data = {
            CONF_ISSUER: name,
            CONF_JWK_SET: json.dumps({"keys": [key.jwk() for key in keys]}, indent=1),
            CONF_DOORS: user_input[CONF_DOORS],
            CONF_METHODS: user_input[CONF_METHODS],
            **{field: int(user_input[field]) for field in _LIMITS},
        }
        return None

    @staticmethod
    def _known_keys(carrier: ConfigSubentry) -> tuple[TrustedKey, ...]:
        """Return the keys of a stored carrier; none if they cannot be read (a repair says so)."""
        try:
            return import_jwk_set(carrier.data[CONF_JWK_SET], Issuer(carrier.data[CONF_ISSUER]))
        except KeyError, TypeError, KeySetInvalid:
            return ()


def _name(user_input: UserInput, errors: Errors) -> str:
    """Return the name that was typed, without space around it; an empty one is an error."""
    name: str = user_input[CONF_NAME].strip()
    if not name:
        errors[CONF_NAME] = "name_empty"
    return name


def _door_id(door: ConfigSubentry) -> DoorId | None:
    """Return a stored door's id; None if it cannot be read."""
    try:
        return door_id(door.data[CONF_DOOR])
    except KeyError, TypeError, ValueError:
        return None


def _new_building_id() -> str:
    return base64.b32encode(os.urandom(16)).decode().rstrip("=").lower()


def _subentries(entry: ConfigEntry, kind: str, besides: ConfigSubentry | None = None) -> Iterator[ConfigSubentry]:
    """Yield the entry's subentries of a kind, besides one."""
    for subentry in entry.subentries.values():
        if subentry.subentry_type == kind and (besides is None or subentry.subentry_id != besides.subentry_id):
            yield subentry


def _number(step: float, unit: str) -> NumberSelector:
    # Without min and max: they would be checked before our steps see the input, with an error nobody has translated.
    return NumberSelector(NumberSelectorConfig(step=step, unit_of_measurement=unit, mode=NumberSelectorMode.BOX))


def _choice(key: str, options: type[ReleasesWhen] | type[Returns]) -> SelectSelector:
    return SelectSelector(
        SelectSelectorConfig(
            options=[option.value for option in options], mode=SelectSelectorMode.LIST, translation_key=key
        )
    )


def _choices(options: list[SelectOptionDict]) -> SelectSelector:
    return SelectSelector(SelectSelectorConfig(options=options, multiple=True, mode=SelectSelectorMode.LIST))
