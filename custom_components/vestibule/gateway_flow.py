"""The forms of a gateway: one that announces itself or is named is paired by its code; later again, or replaced.

The code is typed once and not kept. What this file refuses to do: believe an address that only an announcement names,
without having met the pinned certificate there, or go on with a gateway that another Home Assistant steers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import probatio
from homeassistant.config_entries import (
    SOURCE_REAUTH,
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
)
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_TOKEN
from homeassistant.helpers.selector import TextSelector
from homeassistant.helpers.service_info.zeroconf import ZeroconfServiceInfo

from .const import CONF_CODE, CONF_DOORS, CONF_FINGERPRINT, CONF_GATEWAY, CONF_GATEWAY_KEY, CONF_NEXT_FINGERPRINT
from .embedded import building_entry
from .forms import Errors, UserInput, number
from .remote import fingerprints, new_session
from .vestibule_core.api.client import GatewayClient, Paired, ask_stranger, pair
from .vestibule_core.api.messages import Bearer, Scope, gateway_id
from .vestibule_core.api.pairing import CodeError
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    PairingFailed,
)
from .witness import async_replace

PORT: Final = 7443
"""Where a gateway listens unless its installer has changed that."""

_ADDRESS: Final = {
    probatio.Required(CONF_HOST): TextSelector(),
    probatio.Required(CONF_PORT, default=PORT): number(1),
}
_CODE: Final = {probatio.Required(CONF_CODE): TextSelector()}
_SILENT: Final = (GatewayUnreachable, GatewayRefused, MalformedMessage)


class GatewayOffer(ConfigFlow):
    """A gateway: it becomes an entry of its own, next to the building's."""

    _host: str
    _port: int
    _gateway: str
    """The id that it gives; proved by pairing."""

    # ---- how it is found ----

    async def async_step_zeroconf(self, discovery_info: ZeroconfServiceInfo) -> ConfigFlowResult:
        """Offer a gateway that announces itself; follow one that is known to where it is now."""
        try:
            self._gateway = gateway_id(discovery_info.properties.get("id") or "")
        except ValueError:
            return self.async_abort(reason="no_gateway")
        self._host, self._port = discovery_info.host, discovery_info.port or PORT
        entry = await self.async_set_unique_id(self._gateway)
        if entry is not None and entry.data and await self._has_moved_here(entry.data):
            self._abort_if_unique_id_configured(
                updates={CONF_HOST: self._host, CONF_PORT: self._port}, reload_on_update=False
            )
        self._abort_if_unique_id_configured()
        if building_entry(self.hass) is None:
            return self.async_abort(reason="no_building")
        self.context["title_placeholders"] = {"name": f"Gateway {self._shown}"}
        return await self.async_step_gateway_code()

    async def _has_moved_here(self, data: Mapping[str, Any]) -> bool:
        """Return whether a known gateway is at the announced address: it has its certificate there."""
        if (data[CONF_HOST], data[CONF_PORT]) == (self._host, self._port):
            return False
        session = new_session(self.hass)
        client = GatewayClient(session, self._host, self._port, Bearer(data[CONF_TOKEN]), fingerprints(data))
        try:
            return (await client.info()).id == self._gateway
        except (*_SILENT, GatewayImpostor, GatewayForbidden):
            return False
        finally:
            session.detach()

    async def async_step_gateway(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Ask where a gateway is."""
        return await self._ask_where("gateway", user_input, {})

    async def _ask_where(self, step: str, user_input: UserInput | None, now: Mapping[str, Any]) -> ConfigFlowResult:
        errors: Errors = {}
        if user_input is not None:
            self._host, self._port = user_input[CONF_HOST].strip(), int(user_input[CONF_PORT])
            if await self._look(errors):
                if self.source not in (SOURCE_REAUTH, SOURCE_RECONFIGURE):
                    await self.async_set_unique_id(self._gateway, raise_on_progress=False)
                    self._abort_if_unique_id_configured()
                return await self.async_step_gateway_code()
        schema = self.add_suggested_values_to_schema(probatio.Schema(_ADDRESS), user_input or now)
        return self.async_show_form(step_id=step, data_schema=schema, errors=errors)

    async def _look(self, errors: Errors) -> bool:
        """Ask who is there."""
        if not 1 <= self._port <= 65535:
            errors[CONF_PORT] = "port_range"
            return False
        session = new_session(self.hass)
        try:
            self._gateway = (await ask_stranger(session, self._host, self._port)).id
        except GatewayUnreachable, GatewayImpostor:
            errors["base"] = "gateway_unreachable"
        except GatewayRefused, MalformedMessage:
            errors["base"] = "gateway_strange"
        finally:
            session.detach()
        return not errors

    # ---- how it is paired ----

    async def async_step_gateway_code(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Pair by the code that the gateway shows."""
        errors: Errors = {}
        shown = {"gateway": self._shown, "others": ""}
        if user_input is not None:
            paired = await self._pair(user_input[CONF_CODE], errors)
            if paired is not None and Scope.ADMIN in paired.scopes:
                return await self._keep(paired)
            if paired is not None:
                errors["base"] = "gateway_taken"
                steering = (client.name for client in paired.clients if Scope.ADMIN in client.scopes)
                shown["others"] = ", ".join(steering)
        return self.async_show_form(
            step_id="gateway_code", data_schema=probatio.Schema(_CODE), errors=errors, description_placeholders=shown
        )

    async def _pair(self, code: str, errors: Errors) -> Paired | None:
        name = "".join(letter for letter in self.hass.config.location_name if letter.isprintable())[:64]
        session = new_session(self.hass)
        try:
            return await pair(session, self._host, self._port, code, name or "Home Assistant")
        except CodeError as err:
            errors[CONF_CODE] = err.slip.value
        except PairingFailed as err:
            errors["base"] = f"gateway_{err.reason}"
        except GatewayImpostor:
            errors["base"] = "gateway_wrong_code"  # somebody is in between, or it changed its certificate this moment
        except GatewayUnreachable:
            errors["base"] = "gateway_unreachable"
        except GatewayRefused, MalformedMessage:
            errors["base"] = "gateway_strange"
        finally:
            session.detach()
        return None

    async def _keep(self, paired: Paired) -> ConfigFlowResult:
        data = {
            CONF_GATEWAY: paired.gateway_id,
            CONF_GATEWAY_KEY: str(paired.gateway_key),
            CONF_HOST: self._host,
            CONF_PORT: self._port,
            CONF_TOKEN: paired.token,
            CONF_FINGERPRINT: paired.fingerprint.hex(),
            CONF_NEXT_FINGERPRINT: None,
        }
        if self.source in (SOURCE_REAUTH, SOURCE_RECONFIGURE):
            entry = self._get_reauth_entry() if self.source == SOURCE_REAUTH else self._get_reconfigure_entry()
            if self.source == SOURCE_REAUTH and paired.gateway_id != entry.unique_id:
                return self.async_abort(reason="other_gateway")
            other = await self.async_set_unique_id(paired.gateway_id, raise_on_progress=False)  # it announces itself
            if other is not None and other.entry_id != entry.entry_id:
                return self.async_abort(reason="already_configured")
            if entry.data[CONF_GATEWAY] != paired.gateway_id:
                await async_replace(self.hass, entry.data[CONF_GATEWAY], paired.gateway_id)
            was_loaded = entry.state is ConfigEntryState.LOADED
            result = self.async_update_and_abort(entry, unique_id=paired.gateway_id, data_updates=data)
            if not was_loaded:  # then no listener took the change up
                self.hass.config_entries.async_schedule_reload(entry.entry_id)
            return result
        await self.async_set_unique_id(paired.gateway_id, raise_on_progress=False)
        self._abort_if_unique_id_configured()
        return self.async_create_entry(title=paired.name, data={**data, CONF_DOORS: {}})

    @property
    def _shown(self) -> str:
        """What a person can tell gateways by: the beginning of the id, which the gateway shows with its code."""
        return self._gateway[:6]

    # ---- what comes later ----

    async def async_step_reauth(self, entry_data: Mapping[str, Any]) -> ConfigFlowResult:
        """Pair again: the gateway does not know this Home Assistant any more."""
        self._host, self._port = entry_data[CONF_HOST], entry_data[CONF_PORT]
        self._gateway = entry_data[CONF_GATEWAY]
        return await self.async_step_gateway_code()

    async def async_step_gateway_again(self, user_input: UserInput | None = None) -> ConfigFlowResult:
        """Change where the gateway is, and pair again there: with it, or with one that replaces it."""
        return await self._ask_where("gateway_again", user_input, self._get_reconfigure_entry().data)
