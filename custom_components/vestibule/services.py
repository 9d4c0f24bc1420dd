"""The actions: ask a door for a challenge, present a token. For tests and small sites.

Home Assistant records the data of each action, so a token given here stays readable in its database; it is worthless
once used. A refusal is an answer, not an error: both actions demand that their response is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import probatio
from homeassistant.const import ATTR_DEVICE_ID
from homeassistant.core import HomeAssistant, ServiceCall, ServiceResponse, SupportsResponse, callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers import service
from homeassistant.helpers.device_registry import ChildDeviceEntry, DeviceEntry

from .const import CONF_DOOR, CONF_ISSUER, DOMAIN
from .embedded import Embedded, VestibuleConfigEntry, building_entry
from .presenting import carry, said
from .remote import gateway_of
from .vestibule_core import token, wire
from .vestibule_core.errors import GatewayForbidden, GatewayImpostor, GatewayRefused, GatewayUnreachable, Refused
from .vestibule_core.model import Code, DoorId, Issuer, Principal

ATTR_TOKEN: Final = "token"

SERVICE_REQUEST_CHALLENGE: Final = "request_challenge"
SERVICE_PRESENT_TOKEN: Final = "present_token"

_REQUEST_CHALLENGE: Final = probatio.Schema(
    {
        probatio.Optional(CONF_DOOR): cv.string,
        probatio.Optional(ATTR_DEVICE_ID): cv.string,
        probatio.Required(CONF_ISSUER): cv.string,
    }
)
_PRESENT_TOKEN: Final = probatio.Schema({probatio.Required(probatio.Secret(ATTR_TOKEN)): cv.string})

_NO_CHALLENGE: Final = {
    Code.STOPPING: "stopping",
    Code.WRONG_DOOR: "unknown_door",
    Code.WRONG_ISSUER: "unknown_issuer",
    Code.POLICY_CARRIER_DOOR: "carrier_without_door",
}


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register the actions."""
    hass.services.async_register(
        DOMAIN,
        SERVICE_REQUEST_CHALLENGE,
        _request_challenge,
        schema=_REQUEST_CHALLENGE,
        supports_response=SupportsResponse.ONLY,
    )
    hass.services.async_register(
        DOMAIN, SERVICE_PRESENT_TOKEN, _present_token, schema=_PRESENT_TOKEN, supports_response=SupportsResponse.ONLY
    )


async def _request_challenge(call: ServiceCall) -> ServiceResponse:
    """Return a fresh challenge of a door for a carrier."""
    embedded, door, issuer = loaded_building(call.hass), door_of(call), Issuer(call.data[CONF_ISSUER])
    with _carried():
        if (gateway := gateway_of(call.hass, door)) is not None:
            answer = await gateway.challenge(door, issuer)
            return {"door": door, "challenge": answer.nonce, "ttl": answer.ttl}
    try:
        challenge = embedded.controller.challenge(door, issuer)
    except Refused as refusal:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key=_NO_CHALLENGE[refusal.code],
            translation_placeholders={"issuer": call.data[CONF_ISSUER]},
        ) from refusal
    return {"door": challenge.door, "challenge": challenge.nonce, "ttl": challenge.ttl}


async def _present_token(call: ServiceCall) -> ServiceResponse:
    """Judge a token and, if it stands, open its door once."""
    embedded, text = loaded_building(call.hass), call.data[ATTR_TOKEN]
    door = token.claimed_door(text)
    with _carried():
        if door is not None and (gateway := gateway_of(call.hass, door)) is not None:
            return {"limit": None, **said(await carry(call.hass, embedded, gateway, door, text, None)), "door": door}
    decision = await embedded.controller.present(text, Principal(), call.context)
    return {"limit": None, **wire.decision_answer(decision), "door": decision.door}


@contextmanager
def _carried() -> Iterator[None]:
    """Say why a gateway could not be asked; nothing moved."""
    try:
        yield
    except (GatewayUnreachable, GatewayImpostor, GatewayForbidden) as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="gateway_unreachable") from err
    except GatewayRefused as refusal:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key="gateway_refused",
            translation_placeholders={"reason": refusal.error},
        ) from refusal


def loaded_building(hass: HomeAssistant) -> Embedded:
    """Return the building; raise a translated error if it is not loaded."""
    known = building_entry(hass)
    entry: VestibuleConfigEntry = service.async_get_config_entry(hass, DOMAIN, known.entry_id if known else "")
    return entry.runtime_data


def door_of(call: ServiceCall) -> DoorId:
    """Return the door that a call means, by its id or its device; an empty id if it is none of ours."""
    if (CONF_DOOR in call.data) == (ATTR_DEVICE_ID in call.data):
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="door_or_device")
    if CONF_DOOR in call.data:
        return DoorId(call.data[CONF_DOOR])
    device, _ = service.async_get_device_and_config_entry(call.hass, DOMAIN, call.data[ATTR_DEVICE_ID])
    return door_of_device(device)


@callback
def door_of_device(device: DeviceEntry | ChildDeviceEntry) -> DoorId:
    """Return the door that a device is, here or at a gateway; an empty id if it is none."""
    ours = (identifier for domain, identifier in device.identifiers if domain == DOMAIN)
    return next((DoorId(identifier) for identifier in ours if identifier.startswith("door:")), DoorId(""))
