"""What the manager has to put right, as Home Assistant's repairs: raised, kept up to date and taken back.

Looks at the building when something may have changed, and every few minutes for what nobody tells of (a clock that
was set, an entity that never came). What confirming a repair does is in repairs.py. No repair outlives the building
that it is about: all end with the entry. A building that cannot be set up, because its journal or its key cannot be
used, has a repair as well, until it is set up or given up.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import Any, Final, override
from weakref import WeakSet

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigEntryState,
)
from homeassistant.core import CoreState, Event, HomeAssistant, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.event import async_track_time_interval
from homeassistant.helpers.start import async_at_started
from homeassistant.util import dt as dt_util

from .building import Enrolment, Relay
from .const import DOMAIN, EVENT_ACCESS, SUBENTRY_CARRIER
from .embedded import EmbeddedDoorway, VestibuleConfigEntry
from .registered import resolve
from .strikes import AbsentStrike
from .vestibule_core.api.messages import LinkAlarm
from .vestibule_core.link.standing import ENDS_SOON, NOT_ACCEPTED, LinkState
from .vestibule_core.model import Code, EventName, Issuer, Means
from .vestibule_core.reconcile import Alarm

_LOGGER = logging.getLogger(__name__)

LOOK_AGAIN: Final = timedelta(minutes=3)
UNHEARD: Final = 1800.0
"""Seconds after which it is no accident any more that a strike is out of reach."""

ATTR_KIND: Final = "kind"
ATTR_ENTRY: Final = "entry_id"
ATTR_DOOR: Final = "door"
ATTR_CARRIER: Final = "carrier"
"""Names in a repair's data."""


class Kind(StrEnum):
    """What can be wrong: begins the ids of its repairs and is the key of their texts."""

    BLUETOOTH_MISSING = "bluetooth_missing"
    CARRIER_CERTIFICATE = "carrier_certificate"
    CARRIER_KEYS_END = "carrier_keys_end"
    CARRIER_KEYS_REFUSED = "carrier_keys_refused"
    CARRIER_LOCKED_OUT = "carrier_locked_out"
    CARRIER_NEVER_ISSUED = "carrier_never_issued"
    CARRIER_NO_CLOUD = "carrier_no_cloud"
    CARRIER_NO_LIST = "carrier_no_list"
    CARRIER_NOT_ENROLLED = "carrier_not_enrolled"
    CARRIER_NOT_READY = "carrier_not_ready"
    CARRIER_TAKEN_OVER = "carrier_taken_over"
    CARRIER_UNSTABLE = "carrier_unstable"
    CLOCK_UNTRUSTED = "clock_untrusted"
    GATEWAY_AWAY = "gateway_away"
    GATEWAY_CARRIER_KEYS_END = "gateway_carrier_keys_end"
    GATEWAY_CARRIER_KEYS_REFUSED = "gateway_carrier_keys_refused"
    GATEWAY_CARRIER_LOCKED_OUT = "gateway_carrier_locked_out"
    GATEWAY_CARRIER_NEVER_ISSUED = "gateway_carrier_never_issued"
    GATEWAY_CARRIER_NO_LINK = "gateway_carrier_no_link"
    GATEWAY_CARRIER_NO_LIST = "gateway_carrier_no_list"
    GATEWAY_CARRIER_TAKEN_OVER = "gateway_carrier_taken_over"
    GATEWAY_CLOCK = "gateway_clock"
    GATEWAY_CONTESTED = "gateway_contested"
    GATEWAY_DISAGREES = "gateway_disagrees"
    GATEWAY_DISPUTED = "gateway_disputed"
    GATEWAY_FAILED = "gateway_failed"
    GATEWAY_PENDING = "gateway_pending"
    GATEWAY_RESTORED = "gateway_restored"
    GATEWAY_UNWITNESSED = "gateway_unwitnessed"
    IDENTITY_MISSING = "identity_missing"
    IDENTITY_UNUSABLE = "identity_unusable"
    JOURNAL_DAMAGED = "journal_damaged"
    JOURNAL_DISPUTED = "journal_disputed"
    JOURNAL_FAILED = "journal_failed"
    JOURNAL_RESTORED = "journal_restored"
    JOURNAL_TOO_NEW = "journal_too_new"
    KEY_REVOKED = "key_revoked"
    RELAY_MISSING = "relay_missing"
    SENSOR_MISSING = "sensor_missing"
    STRIKE_UNHEARD = "strike_unheard"
    TAMPERED = "tampered"
    UNREADABLE = "unreadable"


_WARNINGS: Final = frozenset(
    {
        Kind.CARRIER_KEYS_END,
        Kind.CARRIER_NO_LIST,
        Kind.GATEWAY_CARRIER_KEYS_END,
        Kind.GATEWAY_CARRIER_NO_LIST,
        Kind.GATEWAY_PENDING,
        Kind.GATEWAY_UNWITNESSED,
        Kind.KEY_REVOKED,
        Kind.SENSOR_MISSING,
    }
)
_FIXABLE: Final = frozenset(
    {
        Kind.CARRIER_LOCKED_OUT,
        Kind.CLOCK_UNTRUSTED,
        Kind.GATEWAY_CLOCK,
        Kind.GATEWAY_DISPUTED,
        Kind.GATEWAY_RESTORED,
        Kind.IDENTITY_MISSING,
        Kind.JOURNAL_DISPUTED,
        Kind.JOURNAL_RESTORED,
        Kind.KEY_REVOKED,
        Kind.TAMPERED,
    }
)

_ALARMS: Final = {
    Alarm.LOCKED_OUT: Kind.CARRIER_LOCKED_OUT,
    Alarm.NEVER_ISSUED: Kind.CARRIER_NEVER_ISSUED,
    Alarm.NO_LIST: Kind.CARRIER_NO_LIST,
}
_LASTING: Final = {
    LinkState.CERTIFICATE: Kind.CARRIER_CERTIFICATE,
    LinkState.NO_CLOUD: Kind.CARRIER_NO_CLOUD,
    LinkState.NOT_READY: Kind.CARRIER_NOT_READY,
    LinkState.UNSTABLE: Kind.CARRIER_UNSTABLE,
}
"""What may pass by itself, and if it does not is a matter for people (``Links.trouble``)."""
GATEWAYS_ALARMS: Final = {
    Alarm.LOCKED_OUT: Kind.GATEWAY_CARRIER_LOCKED_OUT,
    Alarm.NEVER_ISSUED: Kind.GATEWAY_CARRIER_NEVER_ISSUED,
    Alarm.NO_LIST: Kind.GATEWAY_CARRIER_NO_LIST,
    LinkAlarm.NO_LINK: Kind.GATEWAY_CARRIER_NO_LINK,
    LinkAlarm.TAKEN_OVER: Kind.GATEWAY_CARRIER_TAKEN_OVER,
    LinkAlarm.KEYS_REFUSED: Kind.GATEWAY_CARRIER_KEYS_REFUSED,
    LinkAlarm.KEYS_END: Kind.GATEWAY_CARRIER_KEYS_END,
}
"""What reconciliation finds, of the building's own links and of a gateway's."""

_MORE: Final = {
    Kind.JOURNAL_DAMAGED: "https://github.com/vestibule-access/vestibule/blob/main/docs/auditing.md#without-home-assistant",
}
"""Pages that say more."""


@callback
def watch(hass: HomeAssistant, entry: VestibuleConfigEntry) -> None:
    """Keep the repairs of a building that was set up, until it is unloaded."""
    _BuildingIssues(hass, entry).begin()


@callback
def tell_of_unopened(hass: HomeAssistant, entry: VestibuleConfigEntry, kind: Kind) -> None:
    """Raise the repair of a building whose set-up fails; taken back when that is tried again, or given up."""

    @callback
    def changed(_: ConfigEntryChange, which: ConfigEntry) -> None:
        if which is entry and entry.state not in (ConfigEntryState.SETUP_IN_PROGRESS, ConfigEntryState.SETUP_ERROR):
            undo()
            ir.async_delete_issue(hass, DOMAIN, kind)

    undo = async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, changed)
    raise_issue(hass, entry, Issue(kind))


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong."""

    kind: Kind
    about: str = ""
    """Tells it from others of its kind: a subentry id, mostly."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What its texts are about."""
    door: str | None = None
    carrier: str | None = None
    """An issuer."""

    @property
    def id(self) -> str:
        """What it is known by."""
        return f"{self.kind}_{self.about}" if self.about else self.kind.value


def _local_time(at: float) -> str:
    return dt_util.as_local(dt_util.utc_from_timestamp(at)).strftime("%Y-%m-%d %H:%M")


class Issues(ABC):
    """The repairs of one loaded entry."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
        """Raise nothing until ``begin``."""
        self._hass = hass
        self._entry = entry
        self._raised: dict[str, Issue] = {}
        self._next_look: asyncio.Handle | None = None

    @callback
    def begin(self) -> None:
        """Keep them up to date until the entry is unloaded."""
        undo = self._entry.async_on_unload
        undo(self._end)
        undo(self._hass.bus.async_listen(ir.EVENT_REPAIRS_ISSUE_REGISTRY_UPDATED, self._see_confirmed))
        undo(async_track_time_interval(self._hass, self._look_soon, LOOK_AGAIN))
        self._look()

    @abstractmethod
    def _found(self) -> Iterator[Issue]:
        """Yield what is wrong now."""

    @callback
    def _end(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._show({})

    @callback
    def _look_soon(self, *_: Any) -> None:
        """Look once, at whatever many tell of in the same moment."""
        if self._next_look is None:
            self._next_look = self._hass.loop.call_soon(self._look)

    @callback
    def _look(self) -> None:
        self._next_look = None
        self._show({issue.id: issue for issue in self._found()})

    def _show(self, found: dict[str, Issue]) -> None:
        before, self._raised = self._raised, found
        for cured in before.keys() - found.keys():
            ir.async_delete_issue(self._hass, DOMAIN, cured)
        for issue in found.values():
            if issue != before.get(issue.id):
                if issue.kind is Kind.UNREADABLE:
                    _LOGGER.error("%s cannot be read and is left out", issue.names["name"])
                raise_issue(self._hass, self._entry, issue)

    @callback
    def _see_confirmed(self, event: Event[ir.EventIssueRegistryUpdatedData]) -> None:
        """A repair that we have not taken back is gone: somebody has confirmed it."""
        if event.data["domain"] != DOMAIN or event.data["action"] != "remove":
            return
        if (issue := self._raised.pop(event.data["issue_id"], None)) is not None:
            self._confirmed(issue)
            self._look_again()

    @callback
    def _look_again(self) -> None:
        """Look for what is still so although it was confirmed: it is raised again."""
        self._look_soon()

    @callback  # noqa: B027 - most are looked for again, and that is all
    def _confirmed(self, issue: Issue) -> None:
        """Take note of what somebody has confirmed."""


class _BuildingIssues(Issues):
    """The repairs of one loaded building."""

    def __init__(self, hass: HomeAssistant, entry: VestibuleConfigEntry) -> None:
        super().__init__(hass, entry)
        self._embedded = entry.runtime_data
        self._followed: WeakSet[EmbeddedDoorway] = WeakSet()
        self._refused_by_clock = False
        """A token was refused because of the clocks, and nothing since says that they agree."""
        self._revoked: set[str] = set()
        """Carriers (subentry ids) whose revoked keys were used since somebody took note."""

    @callback
    @override
    def begin(self) -> None:
        super().begin()
        listen, undo = self._hass.bus.async_listen, self._entry.async_on_unload
        undo(listen(EVENT_ACCESS, self._hear))
        undo(listen(er.EVENT_ENTITY_REGISTRY_UPDATED, self._look_soon))
        undo(async_at_started(self._hass, self._look_soon))
        undo(self._entry.add_update_listener(self._entry_changed))
        undo(self._embedded.links.subscribe(self._look_soon))
        self._embedded.for_each_door(self._follow)

    # ---- when to look ----

    async def _entry_changed(self, _: HomeAssistant, __: VestibuleConfigEntry) -> None:
        self._look_soon()

    @callback
    def _follow(self, doorway: EmbeddedDoorway) -> None:
        if doorway in self._followed:
            self._look_soon()  # it was set up anew
            return
        self._followed.add(doorway)

        @callback
        def changed() -> None:
            issue = Issue(Kind.TAMPERED, doorway.setup.subentry_id)
            if doorway.state.tampered is not (issue.id in self._raised):
                self._look_soon()

        doorway.on_state(changed)  # ends with the doorway

    @callback
    def _hear(self, event: Event) -> None:
        """Take what was told of an access. Anybody can fire such an event: nothing but repairs comes of it."""
        told = event.data
        if told.get("code") == Code.CLOCK_UNTRUSTED:
            self._refused_by_clock = True
        elif told.get("code") == Code.KEY_REVOKED:
            self._revoked |= self._carriers_named(told.get("carrier"))
            self._look_soon()
        elif self._shows_that_clocks_agree(told):
            self._refused_by_clock = False
        if self._clock_is_doubtful is not (Kind.CLOCK_UNTRUSTED in self._raised):
            self._look_soon()
        if self._embedded.journal_failed is not (Kind.JOURNAL_FAILED in self._raised):
            self._look_soon()
        if self._embedded.controller.by_hand.disputed is not (Kind.JOURNAL_DISPUTED in self._raised):
            self._look_soon()

    @callback
    @override
    def _confirmed(self, issue: Issue) -> None:
        if issue.kind is Kind.KEY_REVOKED:
            self._revoked.discard(issue.about)

    # ---- what is wrong ----

    @override
    def _found(self) -> Iterator[Issue]:
        for subentry_id, title in self._embedded.setup.unreadable.items():
            yield Issue(Kind.UNREADABLE, subentry_id, {"name": title})
        for doorway in self._embedded.doors.values():
            yield from self._found_at(doorway)
        for carrier in self._revoked & self._entry.subentries.keys():
            yield Issue(Kind.KEY_REVOKED, carrier, {"carrier": self._entry.subentries[carrier].title})
        for issuer, enrolment in self._embedded.setup.enrolments.items():
            yield from self._found_of(issuer, enrolment)
        if self._embedded.journal_failed:
            yield Issue(Kind.JOURNAL_FAILED)
        if self._embedded.controller.by_hand.restored:
            upto = self._embedded.controller.by_hand.restored_upto
            yield Issue(Kind.JOURNAL_RESTORED, names={"last": "-" if upto is None else _local_time(upto)})
        if self._embedded.controller.by_hand.disputed:
            yield Issue(Kind.JOURNAL_DISPUTED)
        if self._clock_is_doubtful:
            yield Issue(Kind.CLOCK_UNTRUSTED)

    def _found_at(self, doorway: EmbeddedDoorway) -> Iterator[Issue]:
        setup, names = doorway.setup, {"door": doorway.setup.door.name}
        if isinstance(doorway.strike, AbsentStrike):
            yield Issue(Kind.BLUETOOTH_MISSING, setup.subentry_id, names)
        if isinstance(setup.relay, Relay) and self._is_missing(setup.relay.entity):
            yield Issue(Kind.RELAY_MISSING, setup.subentry_id, names)
        strike = doorway.radio_strike
        if strike is not None and strike.unheard_since is not None and monotonic() - strike.unheard_since >= UNHEARD:
            yield Issue(Kind.STRIKE_UNHEARD, setup.subentry_id, names)
        for sensor, entity in setup.sensors.items():
            if self._is_missing(entity):
                yield Issue(Kind.SENSOR_MISSING, f"{setup.subentry_id}_{sensor}", names)
        if doorway.state.tampered:
            yield Issue(Kind.TAMPERED, setup.subentry_id, names, doorway.id)

    def _found_of(self, issuer: Issuer, enrolment: Enrolment) -> Iterator[Issue]:
        """Yield what is wrong with a carrier that is linked."""
        links, about = self._embedded.links, enrolment.subentry_id
        names = {"carrier": self._embedded.setup.building.carriers[issuer].name}
        for alarm in sorted(links.alarms(issuer)):
            yield Issue(_ALARMS[alarm], about, names, carrier=issuer)
        ends = enrolment.published.expires_at
        if ends - dt_util.utcnow().timestamp() < ENDS_SOON:
            yield Issue(Kind.CARRIER_KEYS_END, about, names | {"until": _local_time(ends)})
        if (reason := links.keys_refused(issuer)) is not None:
            yield Issue(Kind.CARRIER_KEYS_REFUSED, about, names | {"reason": reason})
        if links.state(issuer) in NOT_ACCEPTED:
            yield Issue(Kind.CARRIER_NOT_ENROLLED, about, names)
        if (trouble := links.trouble(issuer)) is not None:
            yield Issue(_LASTING[trouble], about, names | {"host": enrolment.host})
        if links.is_contested(issuer):
            yield Issue(Kind.CARRIER_TAKEN_OVER, about, names)

    def _is_missing(self, entity: str) -> bool:
        """Return whether an entity was removed or disabled. One that is out of reach is not missing: it comes back."""
        entity_id = resolve(self._hass, entity)
        if entity_id is None:
            return True
        if (registered := er.async_get(self._hass).async_get(entity_id)) is not None:
            return registered.disabled
        return self._hass.state is CoreState.running and self._hass.states.get(entity_id) is None

    @property
    def _clock_is_doubtful(self) -> bool:
        return self._refused_by_clock or not self._embedded.controller.clock_is_trusted

    def _shows_that_clocks_agree(self, told: Mapping[str, Any]) -> bool:
        """Return whether a token was let in where hours are kept, or an administrator has looked at the clock."""
        if told.get("outcome") == EventName.CLOCK_CONFIRMED:
            return True
        if told.get("outcome") != EventName.ACCESS_GRANTED or told.get("means") != Means.TOKEN:
            return False
        doors, carriers = self._embedded.controller.building.doors, self._embedded.controller.building.carriers
        return any(door.hours for door in doors.values() if door.id == told.get("door")) or any(
            carrier.hours for carrier in carriers.values() if carrier.name == told.get("carrier")
        )

    def _carriers_named(self, name: object) -> set[str]:
        return {
            subentry.subentry_id
            for subentry in self._entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_CARRIER and subentry.title == name
        }


@callback
def raise_issue(hass: HomeAssistant, entry: ConfigEntry[Any], issue: Issue) -> None:
    """Raise a repair that is about ``entry``."""
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue.id,
        data={
            ATTR_KIND: issue.kind.value,
            ATTR_ENTRY: entry.entry_id,
            ATTR_DOOR: issue.door,
            ATTR_CARRIER: issue.carrier,
        },
        is_fixable=issue.kind in _FIXABLE,
        learn_more_url=_MORE.get(issue.kind),
        severity=ir.IssueSeverity.WARNING if issue.kind in _WARNINGS else ir.IssueSeverity.ERROR,
        translation_key=issue.kind.value,
        translation_placeholders=dict(issue.names),
    )
