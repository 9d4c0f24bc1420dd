"""Adding the simulated relays: one form without a question."""

from __future__ import annotations

from typing import Any

from homeassistant.config_entries import ConfigFlow, ConfigFlowResult

from .relays import DOMAIN


class SimulatedRelaysConfigFlow(ConfigFlow, domain=DOMAIN):
    """The only flow."""

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Add the relays once the form is submitted."""
        if user_input is None:
            return self.async_show_form(step_id="user")
        return self.async_create_entry(title="Simulated relays", data={})
