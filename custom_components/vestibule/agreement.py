"""What a gateway and the building agree on: its policy is what the building's carriers may do there, and it is locked
down while the building is.

Tried until it is so, with growing pauses: a carrier that was taken away here must not keep a door there because one
request was lost. What this file refuses to do: lift a lockdown by itself, or fight without a pause with somebody else
who sets the same gateway's policy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.util import dt as dt_util

from .building import building_of
from .embedded import building_entry, loaded_building
from .vestibule_core.api import policy as policies
from .vestibule_core.api.policy import Policy
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    PolicyConflict,
)
from .vestibule_core.model import Actor, DoorId

if TYPE_CHECKING:
    from .remote import Remote

_LOGGER = logging.getLogger(__name__)

AGAIN: Final = (1.0, 60.0)
"""Seconds after which what failed is tried again: the first pause, doubled up to the last."""
CONTESTED: Final = (10.0, 3600.0)
"""Seconds until a policy is set again that somebody else keeps replacing: the first pause, doubled up to the last."""
CALM: Final = 3600.0
"""Seconds after which it is forgotten that somebody else has replaced the policy."""
_OURS: Final = Actor(user_id=None, name=None, is_admin=True)


class Agreement:
    """Of one gateway that is loaded."""

    def __init__(self, hass: HomeAssistant, remote: Remote) -> None:
        """Begin with nothing agreed, until ``look_soon``."""
        self.why_pending: tuple[str, ...] = ()
        """What of the policy waits for the gateway's button, in words for a person."""
        self.failure: str | None = None
        """Why the gateway does not have what it should, for a person; None: it has, or nothing is known."""
        self._hass = hass
        self._remote = remote
        self._due = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._pause = AGAIN[0]
        self._put: str | None = None
        """The policy that was set last."""
        self._replaced = 0
        """How often somebody else has replaced it, one time shortly after the other."""
        self._replaced_at = 0.0
        self._not_before = 0.0
        """When a policy may be set again (monotonic seconds)."""

    @property
    def is_contested(self) -> bool:
        """Whether somebody else sets the policy again and again."""
        return self._replaced > 2

    @callback
    def look_soon(self) -> None:
        """Look whether all is agreed, once for whatever changes in the same moment."""
        self._due.set()

    async def keep(self) -> None:
        """Agree whenever something has changed, until cancelled."""
        try:
            while await self._due.wait():
                self._due.clear()
                if self._remote.is_there:  # else the next greeting says so
                    await self._look()
        finally:
            self._forget_later()

    async def _look(self) -> None:
        self._forget_later()
        try:
            unlocked = await self._lock_down()
            failure = await self._agree() or unlocked  # each is tried, whatever becomes of the other
        except GatewayUnreachable, GatewayImpostor, GatewayForbidden:
            failure = "it did not answer"
        except PolicyConflict:
            failure = "its policy was changed by somebody else in the same moment"
        except (GatewayRefused, MalformedMessage) as err:
            failure = str(err)
        except Exception:
            _LOGGER.exception("A bug of Vestibule keeps %s from what it should allow", self._remote.name)
            failure = "a bug of Vestibule, see the log"
        if failure is None:
            self._pause = AGAIN[0]
        else:
            if self.failure is None:
                _LOGGER.warning("%s does not have yet what it should allow: %s", self._remote.name, failure)
            wait = max(self._pause, self._not_before - monotonic())
            self._later = self._hass.loop.call_later(wait, self._due.set)
            self._pause = min(2 * self._pause, AGAIN[1])
        self.failure = failure
        self._remote.notify()

    def _forget_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    async def _lock_down(self) -> str | None:
        """Carry the building's lockdown to the gateway; return why that failed."""
        building = loaded_building(self._hass)
        if building is None or not building.locked_down or self._remote.locked_down:
            return None
        decision = await self._remote.set_lockdown(True, _OURS, None)
        return None if decision.granted else f"its lockdown failed: {decision.code}"

    async def _agree(self) -> str | None:
        """Set the policy, if it is another one; return why that has to wait."""
        client = self._remote.client
        view = await client.policy()
        newest = view.pending.policy if view.pending else view.policy
        wanted = wanted_policy(self._hass, self._remote.doors, newest)
        asked, ours = policies.encode(newest), policies.encode(wanted)
        if asked != ours:
            if self._has_to_wait(asked):
                return "somebody else sets its policy as well"
            self._put = ours
            await client.put_policy(view.version, wanted)
            view = await client.policy()
        self.why_pending = view.pending.why if view.pending else ()
        return None

    def _has_to_wait(self, asked: str) -> bool:
        """Return whether the policy, which is to be ``asked`` now, is not to be set again yet."""
        now = monotonic()
        if now - self._replaced_at > CALM:
            self._replaced = 0
        if now < self._not_before:
            return True
        if self._put is not None and asked != self._put:
            self._replaced, self._replaced_at = self._replaced + 1, now
            if self._replaced > 1:
                self._not_before = now + min(CONTESTED[0] * 2 ** (self._replaced - 2), CONTESTED[1])
        return False


def wanted_policy(hass: HomeAssistant, doors: Collection[DoorId], asked: Policy) -> Policy:
    """Return what the building's carriers may do at ``doors``; ``asked`` is what the gateway was asked for last."""
    entry, here = building_entry(hass), frozenset(doors)
    if entry is None:
        return Policy(hass.config.time_zone, ())
    setup = building_of(entry, dt_util.get_default_time_zone())
    if (building := loaded_building(hass)) is not None:
        locked_out = building.links.locked_out
    else:  # its journal knows who is locked out: who is not let in now, stays out until that can be read
        locked_out = frozenset(setup.enrolments) - {carrier.issuer for carrier in asked.carriers}
    carriers = (
        replace(carrier, doors=carrier.doors & here)
        for carrier in setup.building.carriers.values()
        if carrier.doors & here and carrier.issuer not in locked_out
    )
    return Policy(hass.config.time_zone, tuple(sorted(carriers, key=lambda carrier: carrier.issuer)))
