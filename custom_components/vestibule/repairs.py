"""What confirming a repair does. Only administrators reach this (Home Assistant sees to that), and it is done in the
name of the one who confirms, under the same rules as everything by hand. Who it was is in the journal, also if the
building is not loaded because the key of that is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import probatio
from homeassistant.components.http.const import KEY_HASS_USER
from homeassistant.components.repairs import ConfirmRepairFlow, RepairsFlow, RepairsFlowResult
from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.http import current_request

from .actor import async_actor
from .const import DOMAIN
from .doorway import Premises
from .embedded import Embedded, make_new_key
from .issues import ATTR_CARRIER, ATTR_DOOR, ATTR_ENTRY, ATTR_KIND, Kind
from .remote import Remote
from .vestibule_core.api.messages import Confirmed
from .vestibule_core.errors import IdentityUnusable, JournalDamaged, JournalInUse, JournalTooNew, Refused, StoreFailed
from .vestibule_core.model import Actor, Code, Decision, DoorId, Issuer

type _Data = dict[str, str | int | float | None]
type _Order = Callable[[Any, _Data, Actor, Context], Awaitable[Decision]]

_NOT_DONE: Final = {Code.TAMPERED: "still_tampered", Code.STORE_FAILED: "store_failed"}
"""What keeps a repair from being done, and can be put right."""
_NOT_POSSIBLE: Final = "not_possible"
"""The rest: the building is gone or stopped, or not in need of it any more."""


async def _confirm_clock(embedded: Embedded, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.confirm_clock(actor, origin)


async def _confirm_restore(embedded: Embedded, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.confirm_restore(actor, origin)


async def _confirm_journal(embedded: Embedded, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.confirm_journal(actor, origin)


async def _confirm_gateways_journal(remote: Remote, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await remote.confirm_journal(actor, origin)


async def _confirm_gateways_clock(remote: Remote, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await remote.confirm(Confirmed.CLOCK, actor, origin)


async def _confirm_gateways_restore(remote: Remote, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await remote.confirm(Confirmed.RESTORED, actor, origin)


async def _approve_carrier(embedded: Embedded, data: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.links.approve(Issuer(str(data[ATTR_CARRIER])), actor, origin)


async def _clear_tamper(premises: Premises[Any], data: _Data, actor: Actor, origin: Context) -> Decision:
    door = DoorId(str(data[ATTR_DOOR]))
    doorway = premises.doors.get(door)
    return await doorway.clear_tamper(actor, origin) if doorway else Decision(Code.WRONG_DOOR, door)


_ORDERS: Final[dict[str, _Order]] = {
    Kind.CARRIER_LOCKED_OUT: _approve_carrier,
    Kind.CLOCK_UNTRUSTED: _confirm_clock,
    Kind.GATEWAY_CLOCK: _confirm_gateways_clock,
    Kind.GATEWAY_DISPUTED: _confirm_gateways_journal,
    Kind.GATEWAY_RESTORED: _confirm_gateways_restore,
    Kind.JOURNAL_DISPUTED: _confirm_journal,
    Kind.JOURNAL_RESTORED: _confirm_restore,
    Kind.TAMPERED: _clear_tamper,
}
"""What is done at a loaded building or gateway by confirming; each repair is about an entry of its kind."""


async def async_create_fix_flow(_: HomeAssistant, __: str, data: _Data | None) -> RepairsFlow:
    """Return the form of one repair."""
    kind = str(data[ATTR_KIND]) if data else None
    if data and kind in _ORDERS:
        return _OrderFlow(data)
    if data and kind == Kind.IDENTITY_MISSING:
        return _NewKeyFlow(data)
    return ConfirmRepairFlow()  # only taken note of


class _Flow(RepairsFlow):
    """Asks to confirm, and does it."""

    def __init__(self, data: _Data) -> None:
        self._data = data

    async def async_step_init(self, _: dict[str, str] | None = None) -> RepairsFlowResult:
        """Ask."""
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: dict[str, str] | None = None) -> RepairsFlowResult:
        """Do it, and ask again if it could not be done."""
        errors = {}
        if user_input is not None:
            obstacle = await self._do()
            if obstacle is None:
                return self.async_create_entry(data={})
            if obstacle == _NOT_POSSIBLE:
                return self.async_abort(reason=obstacle)
            errors["base"] = obstacle
        issue = ir.async_get(self.hass).async_get_issue(DOMAIN, self.issue_id)
        return self.async_show_form(
            step_id="confirm",
            data_schema=probatio.Schema({}),
            errors=errors,
            description_placeholders=issue.translation_placeholders if issue else None,
        )

    async def _do(self) -> str | None:
        """Return None if it is done, else the name of the obstacle."""
        raise NotImplementedError

    def _entry(self, state: ConfigEntryState) -> ConfigEntry[Any] | None:
        """Return the building or the gateway that it is about, if it is in this state."""
        entry = self.hass.config_entries.async_get_entry(str(self._data[ATTR_ENTRY]))
        return entry if entry is not None and entry.state is state else None


def _asking() -> Context:
    """Return in whose name a repair is confirmed."""
    request = current_request.get()
    assert request is not None  # repairs are confirmed by HTTP only
    return Context(user_id=request[KEY_HASS_USER].id)


class _OrderFlow(_Flow):
    """Of a building or a gateway that is loaded."""

    async def _do(self) -> str | None:
        if (entry := self._entry(ConfigEntryState.LOADED)) is None:
            return _NOT_POSSIBLE
        origin = _asking()
        order, actor = _ORDERS[str(self._data[ATTR_KIND])], await async_actor(self.hass, origin)
        code = (await order(entry.runtime_data, self._data, actor, origin)).code
        return None if code is Code.GRANTED else _NOT_DONE.get(code, _NOT_POSSIBLE)


class _NewKeyFlow(_Flow):
    """Of a building that is not loaded, for the key of its journal is missing: goes on with a new one."""

    async def _do(self) -> str | None:
        actor = await async_actor(self.hass, _asking())
        if (entry := self._entry(ConfigEntryState.SETUP_ERROR)) is None:
            return _NOT_POSSIBLE
        storage = Path(self.hass.config.path(".storage"))
        try:
            await self.hass.async_add_executor_job(make_new_key, storage, entry, actor)
        except JournalInUse:
            return "journal_in_use"
        except StoreFailed, IdentityUnusable:
            return "store_failed"
        except Refused:
            return _NOT_POSSIBLE
        except JournalDamaged, JournalTooNew:  # meanwhile; setting it up says so
            pass
        await self.hass.config_entries.async_reload(entry.entry_id)
        return None
