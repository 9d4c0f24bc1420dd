"""What the manager has to put right at a gateway, as Home Assistant's repairs: raised, kept up to date and taken back.

Looks at the gateway when it tells of something, and every few minutes for how long it has been away. What confirming a
repair does is in repairs.py. No repair outlives the entry that it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.event import async_track_time_interval

from .const import DOMAIN
from .embedded import loaded_building
from .issues import GATEWAYS_ALARMS, LOOK_AGAIN, Issue, Kind, raise_issue
from .remote import GatewayConfigEntry, RemoteDoorway
from .vestibule_core.model import Issuer

AWAY: Final = 3600.0
"""Seconds after which it is no accident any more that a gateway does not answer."""
UNWITNESSED: Final = 3600.0
"""Seconds after which it is no accident any more that a gateway does not show its journal, or does not cosign ours."""


@callback
def watch_gateway(hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
    """Keep the repairs of a gateway that was set up, until it is unloaded."""
    _GatewayIssues(hass, entry).begin()


class _GatewayIssues:
    """The repairs of one loaded gateway."""

    def __init__(self, hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
        self._hass = hass
        self._entry = entry
        self._remote = entry.runtime_data
        self._raised: dict[str, Issue] = {}
        self._next_look: asyncio.Handle | None = None

    @callback
    def begin(self) -> None:
        undo = self._entry.async_on_unload
        undo(self._end)
        undo(self._remote.on_change(self._look_soon))
        undo(async_track_time_interval(self._hass, self._look_soon, LOOK_AGAIN))
        self._remote.for_each_door(self._follow)
        self._look()

    @callback
    def _end(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._show({})

    @callback
    def _follow(self, doorway: RemoteDoorway) -> None:
        @callback
        def changed() -> None:
            if doorway.state.tampered is not (Issue(Kind.TAMPERED, doorway.id).id in self._raised):
                self._look_soon()

        doorway.on_state(changed)  # ends with the doorway
        self._look_soon()

    @callback
    def _look_soon(self, *_: Any) -> None:
        """Look once, at whatever many tell of in the same moment."""
        if self._next_look is None:
            self._next_look = self._hass.loop.call_soon(self._look)

    @callback
    def _look(self) -> None:
        self._next_look = None
        self._show({issue.id: issue for issue in self._found()})

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

    def _show(self, found: dict[str, Issue]) -> None:
        before, self._raised = self._raised, found
        for cured in before.keys() - found.keys():
            ir.async_delete_issue(self._hass, DOMAIN, cured)
        for issue in found.values():
            if issue != before.get(issue.id):
                raise_issue(self._hass, self._entry, issue)
