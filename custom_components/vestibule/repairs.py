"""What confirming a repair does. Only administrators reach this (Home Assistant sees to that), and it is done in the
name of the one who confirms, under the same rules as everything by hand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import probatio
from homeassistant.components.http.const import KEY_HASS_USER
from homeassistant.components.repairs import ConfirmRepairFlow, RepairsFlow, RepairsFlowResult
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.http import current_request

from .actor import async_actor
from .const import DOMAIN
from .embedded import Embedded, VestibuleConfigEntry
from .issues import ATTR_DOOR, ATTR_ENTRY, ATTR_KIND, Kind
from .vestibule_core.model import Actor, Code, Decision, DoorId

type _Data = dict[str, str | int | float | None]
type _Order = Callable[[Embedded, _Data, Actor, Context], Awaitable[Decision]]

_NOT_DONE: Final = {Code.TAMPERED: "still_tampered", Code.STORE_FAILED: "store_failed"}
"""What keeps a repair from being done, and can be put right; the rest means that the building is gone or stopped."""


async def _confirm_clock(embedded: Embedded, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.confirm_clock(actor, origin)


async def _clear_tamper(embedded: Embedded, data: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.clear_tamper(DoorId(str(data[ATTR_DOOR])), actor, origin)


async def _confirm_restore(embedded: Embedded, _: _Data, actor: Actor, origin: Context) -> Decision:
    return await embedded.controller.by_hand.confirm_restore(actor, origin)


_ORDERS: Final[dict[str, _Order]] = {
    Kind.CLOCK_UNTRUSTED: _confirm_clock,
    Kind.JOURNAL_RESTORED: _confirm_restore,
    Kind.TAMPERED: _clear_tamper,
}
"""What is done by confirming; of anything else, it is only taken note of."""


async def async_create_fix_flow(_: HomeAssistant, __: str, data: _Data | None) -> RepairsFlow:
    """Return the form of one repair."""
    order = _ORDERS.get(str(data[ATTR_KIND])) if data else None
    return ConfirmRepairFlow() if data is None or order is None else _OrderFlow(order, data)


class _OrderFlow(RepairsFlow):
    """Asks to confirm, and does it."""

    def __init__(self, order: _Order, data: _Data) -> None:
        self._order = order
        self._data = data

    async def async_step_init(self, _: dict[str, str] | None = None) -> RepairsFlowResult:
        """Ask."""
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: dict[str, str] | None = None) -> RepairsFlowResult:
        """Do it, and ask again if it could not be done."""
        errors = {}
        if user_input is not None:
            code = await self._done()
            if code is Code.GRANTED:
                return self.async_create_entry(data={})
            if code not in _NOT_DONE:
                return self.async_abort(reason="not_possible")
            errors["base"] = _NOT_DONE[code]
        issue = ir.async_get(self.hass).async_get_issue(DOMAIN, self.issue_id)
        return self.async_show_form(
            step_id="confirm",
            data_schema=probatio.Schema({}),
            errors=errors,
            description_placeholders=issue.translation_placeholders if issue else None,
        )

    async def _done(self) -> Code:
        entry: VestibuleConfigEntry | None = self.hass.config_entries.async_get_entry(str(self._data[ATTR_ENTRY]))
        if entry is None or entry.state is not ConfigEntryState.LOADED:
            return Code.STOPPING
        request = current_request.get()
        assert request is not None  # repairs are confirmed by HTTP only
        origin = Context(user_id=request[KEY_HASS_USER].id)
        decision = await self._order(entry.runtime_data, self._data, await async_actor(self.hass, origin), origin)
        return decision.code
