"""The forms of strikes over Bluetooth. One that Home Assistant hears is offered, paired and made a door. A door with
one is paired again, gets a new key, or changes what other controllers may do.

A strike is paired as the last thing before its door is there: a key that nobody keeps would be lost, and the strike
with it. What is imported of Bluetooth is imported where it is used: a building without it needs none of its packages.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import probatio
from homeassistant.config_entries import (
    SAVE_DELAY,
    ConfigEntry,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentry,
    ConfigSubentryData,
    SubentryFlowResult,
)
from homeassistant.const import CONF_NAME
from homeassistant.core import HomeAssistant
from homeassistant.helpers.selector import BooleanSelector, SelectOptionDict, SelectSelector, SelectSelectorConfig
from homeassistant.helpers.translation import async_get_translations

from .building import RadioStrike, stored_strike, strike_of
from .const import (
    CONF_ACCESS_TIME,
    CONF_BUILDING,
    CONF_CODE,
    CONF_DELETE,
    CONF_DOOR,
    CONF_HOURS,
    CONF_KEEP_CONNECTED,
    CONF_MANUAL,
    CONF_ON_POWER_LOSS,
    CONF_RIGHTS,
    CONF_SLOT,
    CONF_STRIKE,
    DOMAIN,
    SUBENTRY_DOOR,
)
from .embedded import building_entry
from .forms import (
    DEFAULT_ACCESS_TIME,
    NAME,
    DoorPages,
    Errors,
    UserInput,
    choice,
    choices,
    new_building_id,
    number,
    stored_door_id,
    subentries,
    typed_name,
)
from .vestibule_core.doorstrike.frames import SlotListed
from .vestibule_core.doorstrike.pairing import LabelError
from .vestibule_core.doorstrike.slots import MOST as MOST_SLOTS
from .vestibule_core.doorstrike.spending import LONGEST_PULSE, SHORTEST_PULSE
from .vestibule_core.doorstrike.wire import Flags, Rights
from .vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from .vestibule_core.model import ManualRule, OnPowerLoss, new_door_id

if TYPE_CHECKING:
    from homeassistant.components.bluetooth import BluetoothServiceInfoBleak

    from .ble import Found, HomeAssistantStrike

_STRIKE_TIME: Final = (SHORTEST_PULSE, LONGEST_PULSE)
_RIGHTS: Final = {right.name.lower(): right for right in Rights if right.name is not None}


class StrikeOffer(ConfigFlow):
    """A strike that Home Assistant hears: it becomes a door of the building, or of a new one."""

    _strike: Found

    async def async_step_bluetooth(self, discovery_info: BluetoothServiceInfoBleak) -> ConfigFlowResult:
        """Offer a strike that is no door yet."""
        from . import ble

        strike = ble.found(discovery_info)
        if strike is None:
            return self.async_abort(reason="no_strike")
        await self.async_set_unique_id(strike.key)
        self._abort_if_unique_id_configured()  # somebody wants it ignored
        if strike.key in _known_strikes(self.hass):
            return self.async_abort(reason="strike_known")
        self._strike = strike
        self.context["title_placeholders"] = {"name": f"Strike {_named(strike)}"}
        return await self.async_step_strike()

    async def async_step_strike(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Pair with it, and make it a door of the building; of a new one, if there is none."""
        entry = building_entry(self.hass)
        fields = _strike_fields()
        if entry is None:
            fields = {probatio.Required(CONF_BUILDING): NAME, **fields}
        shown = {"strike": _named(self._strike), "reason": ""}
        if user_input is None:
            values = {CONF_BUILDING: self.hass.config.location_name or "Building"}
            return self._show_strike(fields, values, None, shown)
        if self._strike.key in _known_strikes(self.hass):  # through the other form, while this one was open
            return self.async_abort(reason="strike_known")
        errors: Errors = {}
        building = user_input.get(CONF_BUILDING, "").strip()
        if entry is None and not building:
            errors[CONF_BUILDING] = "name_empty"
        from . import ble

        self._strike = ble.find(self.hass, self._strike.key) or self._strike  # its button may have been held since
        door = await _new_door(self.hass, self._strike, user_input, errors, shown)
        if door is None:
            return self._show_strike(fields, user_input, errors, shown)
        if entry is None:
            await self.async_set_unique_id(CONF_BUILDING, raise_on_progress=False)
            return self.async_create_entry(title=building, data={CONF_BUILDING: new_building_id()}, subentries=[door])
        _add_door(self.hass, entry, door)
        return self.async_abort(
            reason=_added(self._strike),
            description_placeholders={"name": door["title"], "door": door["data"][CONF_DOOR]},
        )

    def _show_strike(
        self,
        fields: Mapping[probatio.Marker, Any],
        values: Mapping[str, Any],
        errors: Errors | None,
        placeholders: Mapping[str, str],
    ) -> ConfigFlowResult:
        return self.async_show_form(
            step_id="strike",
            data_schema=self.add_suggested_values_to_schema(probatio.Schema(dict(fields)), values),
            errors=errors,
            description_placeholders=placeholders,
        )


class StrikePages(DoorPages):
    """The pages of a door with a strike, new or changed; they go on with those of every door."""

    def __init__(self) -> None:
        """Begin without a strike."""
        super().__init__()
        self._listed: Sequence[SlotListed] = ()
        self._slot = 0
        """Whose rights are changed."""

    @abstractmethod
    async def async_step_watch(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Go on with what watches the door."""

    async def async_step_strike(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Choose a strike in range, and pair with it; all else about the door can be changed later."""
        from . import ble

        known = _known_strikes(self.hass)
        strikes = {strike.key: strike for strike in ble.in_range(self.hass) if strike.key not in known}
        shown = {"reason": ""}
        if user_input is not None and CONF_STRIKE in user_input:
            errors: Errors = {}
            if (strike := strikes.get(user_input[CONF_STRIKE])) is None:
                errors[CONF_STRIKE] = "strike_gone"
            elif (door := await _new_door(self.hass, strike, user_input, errors, shown)) is not None:
                _add_door(self.hass, self._get_entry(), door)
                named = {"name": door["title"], "door": door["data"][CONF_DOOR]}
                return self.async_abort(reason=_added(strike), description_placeholders=named)
        elif strikes:
            errors = {}
        else:
            errors = {"base": "strikes_none_heard" if not ble.is_deaf(self.hass) else "strikes_nothing_listens"}
        if not strikes:
            return self._show("strike", {}, {}, errors, shown)
        options = [SelectOptionDict(value=key, label=_described(strike)) for key, strike in strikes.items()]
        choice: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_STRIKE, default=options[0]["value"]): choices(options, multiple=False)
        }
        return self._show("strike", choice | _strike_fields(), user_input or {}, errors, shown)

    def _offer_changes(self) -> SubentryFlowResult:
        try:
            strike_of(self._stored[CONF_STRIKE])
        except KeyError, TypeError, ValueError:
            return self.async_abort(reason="strike_unreadable")
        return self.async_show_menu(step_id="reconfigure", menu_options=["settings", "pair_again", "rekey", "slots"])

    async def async_step_settings(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change a door with a strike; what it is paired with stays."""
        subentry = self._get_reconfigure_subentry()
        fields = {key: field for key, field in _strike_fields().items() if key.schema != CONF_CODE}
        shown = {"door": subentry.data[CONF_DOOR]}
        if user_input is None:
            keep_connected = subentry.data[CONF_STRIKE][CONF_KEEP_CONNECTED]
            now = {**subentry.data, CONF_NAME: subentry.title, CONF_KEEP_CONNECTED: keep_connected}
            return self._show("settings", fields, now, placeholders=shown)
        errors: Errors = {}
        self._title = typed_name(user_input, errors)
        _check_strike_time(user_input, errors)
        if errors:
            return self._show("settings", fields, user_input, errors, shown)
        self._data = {
            CONF_STRIKE: {**subentry.data[CONF_STRIKE], CONF_KEEP_CONNECTED: user_input[CONF_KEEP_CONNECTED]},
            CONF_ACCESS_TIME: user_input[CONF_ACCESS_TIME],
            CONF_ON_POWER_LOSS: user_input[CONF_ON_POWER_LOSS],
        }
        return await self.async_step_watch()

    async def async_step_pair_again(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Get a slot of the same strike once more: after a factory reset, or when its key is lost."""
        if not has_bluetooth(self.hass):
            return self.async_abort(reason="strike_without_bluetooth")
        from . import ble

        stored = strike_of(self._stored[CONF_STRIKE])
        fields: dict[probatio.Marker, Any] = {probatio.Required(CONF_CODE): NAME}
        shown = {"reason": ""}
        if user_input is None:
            return self._show("pair_again", fields, {}, placeholders=shown)
        errors: Errors = {}
        strike = ble.find(self.hass, stored.strike_id.hex()[:_KEY_LENGTH])
        if strike is None:
            errors["base"] = "strike_unreachable"
            shown["reason"] = ble.HomeAssistantRadio(self.hass, stored.address).reason
        elif paired := await _paired(self.hass, strike, user_input[CONF_CODE], stored.keep_connected, errors, shown):
            return self._keep(paired)
        return self._show("pair_again", fields, user_input, errors, shown)

    async def async_step_rekey(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change the key that the strike knows this building by."""
        if (strike := self._running) is None:
            return self.async_abort(reason="strike_not_at_work")
        shown = {"reason": ""}
        errors: Errors = {}
        # The strike's driver stores both keys in the subentry; they are on the disk before the new one counts.
        if user_input is not None and await _done(strike.rekey(lambda: asyncio.sleep(2 * SAVE_DELAY)), errors, shown):
            return self.async_abort(reason="rekeyed")
        return self._show("rekey", {}, {}, errors, shown)

    async def async_step_slots(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Choose one of the strike's controllers."""
        if (strike := self._running) is None:
            return self.async_abort(reason="strike_not_at_work")
        if user_input is not None:
            self._slot = int(user_input[CONF_SLOT])
            return await self.async_step_slot()
        own = strike.relay.slot
        shown = {"slot": str(own), "reason": ""}
        errors: Errors = {}
        try:
            self._listed = await strike.list_slots()
        except (StrikeUnreachable, StrikeRefused, OutcomeUnknown) as err:
            errors["base"] = "slots_unlisted"
            shown["reason"] = str(err)
        fields: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_SLOT, default=str(own)): await _slot_choice(self.hass, self._listed, own)
        }
        return self._show("slots", fields, {}, errors, shown)

    async def async_step_slot(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change what that controller may do, or take its key away."""
        if (strike := self._running) is None:
            return self.async_abort(reason="strike_not_at_work")
        # Suggested, and no default: rights that are all taken away must stay so.
        fields: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_RIGHTS, default=list): SelectSelector(
                SelectSelectorConfig(options=list(_RIGHTS), multiple=True, translation_key=CONF_RIGHTS)
            ),
            probatio.Required(CONF_DELETE, default=False): BooleanSelector(),
        }
        shown = {"slot": str(self._slot), "reason": ""}
        if user_input is None:
            has = next((listed.rights for listed in self._listed if listed.slot == self._slot), Rights.NONE)
            now = {CONF_RIGHTS: [name for name, right in _RIGHTS.items() if right in has]}
            return self._show("slot", fields, now, placeholders=shown)
        errors: Errors = {}
        deleted = user_input[CONF_DELETE]
        rights = Rights(sum(_RIGHTS[name] for name in user_input[CONF_RIGHTS]))
        if deleted and self._slot == strike.relay.slot:
            errors[CONF_DELETE] = "slot_own"
        elif await _done(
            strike.delete_slot(self._slot) if deleted else strike.set_rights(self._slot, rights), errors, shown
        ):
            return self.async_abort(reason="slot_deleted" if deleted else "slot_changed")
        return self._show("slot", fields, user_input, errors, shown)

    @property
    def _running(self) -> HomeAssistantStrike | None:
        """The strike of the door that is being changed, if it is at work."""
        entry, door = self._get_entry(), stored_door_id(self._get_reconfigure_subentry())
        if entry.state is not ConfigEntryState.LOADED or not has_bluetooth(self.hass):
            return None
        from .ble import HomeAssistantStrike

        doorway = entry.runtime_data.doors.get(door)
        return doorway.strike if doorway and isinstance(doorway.strike, HomeAssistantStrike) else None

    def _keep(self, paired: RadioStrike) -> SubentryFlowResult:
        return self.async_update_and_abort(
            self._get_entry(),
            self._get_reconfigure_subentry(),
            data_updates={CONF_STRIKE: stored_strike(paired)},
        )


_KEY_LENGTH: Final = 12
"""Hexadecimal digits of a strike's id that it advertises."""


def has_bluetooth(hass: HomeAssistant) -> bool:
    """Return whether Home Assistant has a Bluetooth stack."""
    return "bluetooth" in hass.config.components


def _known_strikes(hass: HomeAssistant) -> set[str]:
    """Return the strikes that are doors already, as they advertise themselves."""
    return {
        str(door.unique_id)[:_KEY_LENGTH]
        for entry in hass.config_entries.async_entries(DOMAIN)
        for door in subentries(entry, SUBENTRY_DOOR)
        if CONF_STRIKE in door.data
    }


def _named(strike: Found) -> str:
    """Return what a strike is called before it is a door: the beginning of its id, as on its label."""
    return strike.key[:8].upper()


def _described(strike: Found) -> str:
    return f"{_named(strike)} ({strike.rssi} dBm)"


def _strike_fields() -> dict[probatio.Marker, Any]:
    """Ask for a door with a strike."""
    return {
        probatio.Required(CONF_NAME): NAME,
        probatio.Required(CONF_ACCESS_TIME, default=DEFAULT_ACCESS_TIME): number(0.5, "s"),
        probatio.Required(CONF_ON_POWER_LOSS, default=OnPowerLoss.FAIL_SECURE.value): choice(
            CONF_ON_POWER_LOSS, OnPowerLoss
        ),
        probatio.Required(CONF_KEEP_CONNECTED, default=False): BooleanSelector(),
        probatio.Required(CONF_CODE): NAME,
    }


def _check_strike_time(user_input: UserInput, errors: Errors) -> None:
    least, most = _STRIKE_TIME
    if not least <= user_input[CONF_ACCESS_TIME] <= most:
        errors[CONF_ACCESS_TIME] = "strike_time_range"


async def _new_door(
    hass: HomeAssistant, strike: Found, user_input: UserInput, errors: Errors, placeholders: dict[str, str]
) -> ConfigSubentryData | None:
    """Pair with a strike and return its door as it is stored; None if that failed, and why is in ``errors``."""
    name = typed_name(user_input, errors)
    _check_strike_time(user_input, errors)
    if errors:
        return None
    keep_connected = user_input[CONF_KEEP_CONNECTED]
    paired = await _paired(hass, strike, user_input[CONF_CODE], keep_connected, errors, placeholders)
    if paired is None:
        return None
    data = {
        CONF_DOOR: new_door_id(os.urandom(16)),
        CONF_STRIKE: stored_strike(paired),
        CONF_ACCESS_TIME: user_input[CONF_ACCESS_TIME],
        CONF_ON_POWER_LOSS: user_input[CONF_ON_POWER_LOSS],
        CONF_HOURS: [],
        CONF_MANUAL: ManualRule.EVERYONE.value,
    }
    return ConfigSubentryData(data=data, subentry_type=SUBENTRY_DOOR, title=name, unique_id=paired.strike_id.hex())


async def _paired(
    hass: HomeAssistant,
    strike: Found,
    code: str,
    keep_connected: bool,
    errors: Errors,
    placeholders: dict[str, str],
) -> RadioStrike | None:
    """Pair with a strike; None if it cannot be done, which is then in ``errors``."""
    from . import ble
    from .vestibule_core.doorstrike.pairing_session import PairingFailed

    try:
        return await ble.pair(hass, strike, code.strip(), keep_connected=keep_connected)
    except LabelError as err:
        errors[CONF_CODE] = err.slip.value
    except PairingFailed as err:
        errors["base"] = err.slip.value
    except StrikeUnreachable as err:
        errors["base"] = "strike_unreachable"
        placeholders["reason"] = str(err)
    return None


def _add_door(hass: HomeAssistant, entry: ConfigEntry, door: ConfigSubentryData) -> None:
    hass.config_entries.async_add_subentry(
        entry,
        ConfigSubentry(
            data=MappingProxyType(dict(door["data"])),
            subentry_type=door["subentry_type"],
            title=door["title"],
            unique_id=door["unique_id"],
        ),
    )


def _added(strike: Found) -> str:
    """Return what is said when a strike has become a door: if it had a controller before, that has to grant rights."""
    return "door_added" if Flags.FACTORY in strike.advertisement.flags else "door_added_without_rights"


async def _done(work: Coroutine[Any, Any, None], errors: Errors, placeholders: dict[str, str]) -> bool:
    """Return whether a strike did what it was asked; if not, why is in ``errors``."""
    try:
        await work
    except StrikeUnreachable as err:
        errors["base"] = "strike_unreachable"
        placeholders["reason"] = str(err)
    except StrikeRefused as err:
        errors["base"] = "strike_refused"
        placeholders["reason"] = str(err)
    except OutcomeUnknown as err:
        errors["base"] = "strike_unknown"
        placeholders["reason"] = str(err)
    return not errors


async def _slot_choice(hass: HomeAssistant, listed: Sequence[SlotListed], own: int) -> SelectSelector:
    """Ask for one of the slots that a strike has told of; if it told of none, for a number."""
    if not listed:
        numbers = map(str, range(1, MOST_SLOTS + 1))
        return choices([SelectOptionDict(value=number, label=number) for number in numbers], multiple=False)
    # What other controllers call themselves is in the same text, so it comes in Home Assistant's own language.
    texts = await async_get_translations(hass, hass.config.language, "selector", [DOMAIN])

    def text(selector: str, option: str) -> str:
        return texts.get(f"component.{DOMAIN}.selector.{selector}.options.{option}", option)

    def label(slot: SlotListed) -> str:
        marks = [
            text(CONF_SLOT, mark) for mark, is_so in (("own", slot.slot == own), ("waiting", slot.waiting)) if is_so
        ]
        may = [text(CONF_RIGHTS, name) for name, right in _RIGHTS.items() if right in slot.rights]
        said = ", ".join([*marks, *(may or [text(CONF_SLOT, "nothing")])])
        # Last, and without what could hide or turn round anything else: whoever paired it chose it.
        name = "".join(character for character in slot.name if character.isprintable()).strip()
        return f"{slot.slot}: {said} · {name}" if name else f"{slot.slot}: {said}"

    options = [SelectOptionDict(value=str(slot.slot), label=label(slot)) for slot in listed]
    return choices(options, multiple=False)
