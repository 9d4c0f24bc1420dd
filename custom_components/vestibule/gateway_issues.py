"""What the manager has to put right at a gateway, as Home Assistant's repairs: raised, kept up to date and taken back.

Looks at the gateway when it tells of something, and every few minutes for how long it has been away. What confirming a
repair does is in repairs.py. No repair outlives the entry that it is about. A gateway that cannot be set up, because it
does not answer, has one repair: that it is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from time import monotonic
from typing import Final, override

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigEntryState,
)
from homeassistant.core import HassJob, HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.event import async_call_later
from homeassistant.util.hass_dict import HassKey

from .const import CONF_GATEWAY, DOMAIN
from .embedded import loaded_building
from .issues import GATEWAYS_ALARMS, Issue, Issues, Kind, raise_issue
from .remote import GatewayConfigEntry, RemoteDoorway
from .vestibule_core.model import Issuer

AWAY: Final = 3600.0
"""Seconds after which it is no accident any more that a gateway does not answer."""
UNWITNESSED: Final = 3600.0
"""Seconds after which it is no accident any more that a gateway does not show its journal, or does not cosign ours."""
SETTLED: Final = 1.0
"""Seconds for a gateway to tell that what was confirmed is so no more: its repair would flash up again. Nothing else is
looked for meanwhile."""

_WAITED_FOR: Final[HassKey[dict[str, float]]] = HassKey(f"{DOMAIN}.waited_for")
"""The entries of gateways that cannot be set up, and are tried again: since when (monotonic seconds)."""
_STILL_AWAY: Final = frozenset(
    {
        ConfigEntryState.SETUP_IN_PROGRESS,
        ConfigEntryState.SETUP_RETRY,
        ConfigEntryState.UNLOAD_IN_PROGRESS,
        ConfigEntryState.NOT_LOADED,  # to be tried at once, because it has announced itself
    }
)


@callback
def watch_gateway(hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
    """Keep the repairs of a gateway that was set up, until it is unloaded."""
    _GatewayIssues(hass, entry).begin()


@callback
def tell_of_unreached(hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
    """Raise the repair of a gateway that cannot be set up for an hour, for it does not answer, or another one does.

    Taken back when it is set up, or given up. Called at each attempt.
    """
    waited_for = hass.data.setdefault(_WAITED_FOR, {})
    if entry.entry_id in waited_for:
        return
    waited_for[entry.entry_id] = monotonic()
    issue = Issue(Kind.GATEWAY_AWAY, entry.data[CONF_GATEWAY], {"name": entry.title})

    @callback
    def tell(_: datetime) -> None:
        raise_issue(hass, entry, issue)

    @callback
    def changed(change: ConfigEntryChange, which: ConfigEntry) -> None:
        if which is not entry:
            return
        is_given_up = change is ConfigEntryChange.REMOVED or entry.disabled_by is not None
        if is_given_up or entry.state not in _STILL_AWAY:
            waited_for.pop(entry.entry_id, None)
            follow_no_more()
            wait_no_more()
            ir.async_delete_issue(hass, DOMAIN, issue.id)

    follow_no_more = async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, changed)
    wait_no_more = async_call_later(hass, AWAY, HassJob(tell, "a gateway is away", cancel_on_shutdown=True))


class _GatewayIssues(Issues):
    """The repairs of one loaded gateway."""

    def __init__(self, hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
        super().__init__(hass, entry)
        self._remote = entry.runtime_data

    @callback
    @override
    def begin(self) -> None:
        super().begin()
        self._entry.async_on_unload(self._remote.on_change(self._look_soon))
        self._remote.for_each_door(self._follow)

    @callback
    def _follow(self, doorway: RemoteDoorway) -> None:
        @callback
        def changed() -> None:
            if doorway.state.tampered is not (Issue(Kind.TAMPERED, doorway.id).id in self._raised):
                self._look_soon()

        doorway.on_state(changed)  # ends with the doorway
        self._look_soon()

    @callback
    @override
    def _look_again(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._hass.loop.call_later(SETTLED, self._look)

    @override
    def _found(self) -> Iterator[Issue]:
        remote, names = self._remote, {"name": self._remote.name}
        if remote.away_since is not None:  # what it said last may not be so any more
            if monotonic() - remote.away_since >= AWAY:
                yield Issue(Kind.GATEWAY_AWAY, remote.id, names)
            yield from (issue for issue in self._raised.values() if issue.kind is not Kind.GATEWAY_AWAY)
            return
        agreement = remote.agreement
        if agreement.is_contested:
            yield Issue(Kind.GATEWAY_CONTESTED, remote.id, names)
        elif agreement.failure is not None:
            yield Issue(Kind.GATEWAY_DISAGREES, remote.id, {**names, "why": agreement.failure})
        if agreement.why_pending:
            why = "\n".join(f"- {reason}" for reason in agreement.why_pending)
            yield Issue(Kind.GATEWAY_PENDING, remote.id, {**names, "why": why})
        failing = remote.witness.failing_since
        if failing is not None and monotonic() - failing >= UNWITNESSED:
            yield Issue(Kind.GATEWAY_UNWITNESSED, remote.id, names)
        if remote.is_disputed:
            yield Issue(Kind.GATEWAY_DISPUTED, remote.id, names)
        if remote.standing.restored:
            yield Issue(Kind.GATEWAY_RESTORED, remote.id, names)
        if not remote.standing.clock_trusted:
            yield Issue(Kind.GATEWAY_CLOCK, remote.id, names)
        if remote.standing.journal_failed:
            yield Issue(Kind.GATEWAY_FAILED, remote.id, names)
        for each in remote.standing.alarms:
            both = names | {"carrier": self._name_of(each.issuer), "issuer": each.issuer}
            yield Issue(GATEWAYS_ALARMS[each.alarm], f"{remote.id}_{each.issuer}", both)
        for doorway in remote.doors.values():
            if doorway.state.tampered:
                yield Issue(Kind.TAMPERED, doorway.id, {"door": doorway.door.name}, doorway.id)

    def _name_of(self, issuer: Issuer) -> str:
        """Return what the building calls a carrier, or its issuer if the gateway alone knows it."""
        building = loaded_building(self._hass)
        carrier = building.controller.building.carriers.get(issuer) if building is not None else None
        return issuer if carrier is None else carrier.name
