"""What the pages of all forms share: fields, what was typed into them, and how a page of a door is shown.

No number has a least or a greatest value here: Home Assistant would check it before our steps see the input, with an
error that nobody has translated.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

import probatio
from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowResult,
)
from homeassistant.const import CONF_NAME
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.selector import (
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    ObjectSelector,
    ObjectSelectorConfig,
    ObjectSelectorField,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TimeSelector,
)
from homeassistant.helpers.translation import async_get_translations

from .const import CONF_DOOR, CONF_HOURS, CONF_HOURS_DAYS, CONF_HOURS_FROM, CONF_HOURS_TO, DOMAIN
from .vestibule_core.hours import Day
from .vestibule_core.model import DoorId, door_id

type UserInput = dict[str, Any]
type Errors = dict[str, str]

NAME: Final = TextSelector()
NO_FIELDS: Final = probatio.Schema({})
_WORKDAYS: Final = list(Day)[:5]
DEFAULT_ACCESS_TIME: Final = 5.0
"""Seconds."""


class DoorPages(ConfigSubentryFlow):
    """What has been said of a door so far, and how its pages are shown."""

    def __init__(self) -> None:
        """Begin without a door."""
        self._title = ""
        self._data: dict[str, Any] = {}

    @property
    def _stored(self) -> Mapping[str, Any]:
        """What is stored of the door that is being changed; nothing of a new one."""
        return self._get_reconfigure_subentry().data if self.source == SOURCE_RECONFIGURE else {}

    def _show(
        self,
        step: str,
        fields: Mapping[probatio.Marker, Any],
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: Mapping[str, str] | None = None,
    ) -> SubentryFlowResult:
        present = {name: value for name, value in values.items() if value is not None}
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(probatio.Schema(dict(fields)), present),
            errors=errors,
            description_placeholders=placeholders,
            last_step=step == "admit" and self.source == SOURCE_RECONFIGURE,
        )


def typed_name(user_input: UserInput, errors: Errors) -> str:
    """Return the name that was typed, without space around it; an empty one is an error."""
    name: str = user_input[CONF_NAME].strip()
    if not name:
        errors[CONF_NAME] = "name_empty"
    return name


def stored_door_id(door: ConfigSubentry) -> DoorId | None:
    """Return a stored door's id; None if it cannot be read."""
    try:
        return door_id(door.data[CONF_DOOR])
    except KeyError, TypeError, ValueError:
        return None


def new_building_id() -> str:
    """Return an id for a new building."""
    return base64.b32encode(os.urandom(16)).decode().rstrip("=").lower()


def subentries(entry: ConfigEntry, kind: str, besides: ConfigSubentry | None = None) -> Iterator[ConfigSubentry]:
    """Yield the entry's subentries of a kind, besides one."""
    for subentry in entry.subentries.values():
        if subentry.subentry_type == kind and (besides is None or subentry.subentry_id != besides.subentry_id):
            yield subentry


def number(step: float, unit: str | None = None) -> NumberSelector:
    """Ask for a number."""
    config = NumberSelectorConfig(step=step, mode=NumberSelectorMode.BOX)
    if unit is not None:
        config["unit_of_measurement"] = unit
    return NumberSelector(config)


def choice(key: str, options: Iterable[StrEnum]) -> SelectSelector:
    """Ask for one of these, which are translated under ``key``."""
    return SelectSelector(
        SelectSelectorConfig(
            options=[option.value for option in options], mode=SelectSelectorMode.LIST, translation_key=key
        )
    )


def choices(options: list[SelectOptionDict], *, multiple: bool = True) -> SelectSelector:
    """Ask for some of these, or for one."""
    mode = SelectSelectorMode.LIST if multiple else SelectSelectorMode.DROPDOWN
    return SelectSelector(SelectSelectorConfig(options=options, multiple=multiple, mode=mode))


async def weekly(hass: HomeAssistant) -> ObjectSelector:
    """Ask for rows of weekly hours."""
    # The frontend does not translate what is inside of a row, so the days come in Home Assistant's own language.
    texts = await async_get_translations(hass, hass.config.language, "selector", [DOMAIN])
    days = [
        SelectOptionDict(
            value=day.value, label=texts.get(f"component.{DOMAIN}.selector.{CONF_HOURS_DAYS}.options.{day}", day.value)
        )
        for day in Day
    ]
    # Nothing is required here: the error would be one that nobody has translated.
    return ObjectSelector(
        ObjectSelectorConfig(
            fields={
                CONF_HOURS_DAYS: ObjectSelectorField(
                    selector=SelectSelector(
                        SelectSelectorConfig(
                            options=days,
                            multiple=True,
                            mode=SelectSelectorMode.LIST,
                            translation_key=CONF_HOURS_DAYS,
                        )
                    ),
                    default=[day.value for day in _WORKDAYS],
                ),
                CONF_HOURS_FROM: ObjectSelectorField(selector=TimeSelector(), default="08:00:00"),
                CONF_HOURS_TO: ObjectSelectorField(selector=TimeSelector(), default="18:00:00"),
            },
            multiple=True,
            translation_key=CONF_HOURS,
        )
    )


def typed_hours(user_input: UserInput, errors: Errors, placeholders: dict[str, str]) -> list[dict[str, Any]]:
    """Return the rows of hours as they are stored; the first one that is not complete is an error."""
    rows = cv.ensure_list(user_input.get(CONF_HOURS))
    for place, row in enumerate(rows, 1):
        if not row.get(CONF_HOURS_DAYS):
            errors[CONF_HOURS] = "hours_without_days"
        elif CONF_HOURS_FROM not in row or CONF_HOURS_TO not in row:
            errors[CONF_HOURS] = "hours_without_times"
        if CONF_HOURS in errors:
            placeholders["row"] = str(place)
            return []
    return [
        {
            CONF_HOURS_DAYS: [day.value for day in Day if day in row[CONF_HOURS_DAYS]],
            CONF_HOURS_FROM: cv.time(row[CONF_HOURS_FROM]).isoformat(),
            CONF_HOURS_TO: cv.time(row[CONF_HOURS_TO]).isoformat(),
        }
        for row in rows
    ]
