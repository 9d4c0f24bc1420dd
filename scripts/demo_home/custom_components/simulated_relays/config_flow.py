"""Adding the simulated relays: one form."""

from __future__ import annotations

from typing import Any

import probatio
from homeassistant.config_entries import ConfigFlow, ConfigFlowResult
from homeassistant.helpers.selector import BooleanSelector

from .relays import DOMAIN, OPTIONAL

FORM = probatio.Schema({probatio.Required(question, default=True): BooleanSelector() for question in OPTIONAL})


class SimulatedRelaysConfigFlow(ConfigFlow, domain=DOMAIN):
    """The only flow."""

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Add the relays once the form is submitted."""
        if user_input is None:
            return self.async_show_form(step_id="user", data_schema=FORM)
        return self.async_create_entry(title="Simulated relays", data=user_input)
