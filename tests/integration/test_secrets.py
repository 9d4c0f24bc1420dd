"""No token, no intake key, no private key and no driver in any log, state or event of ours, whatever happens."""

from __future__ import annotations

import json
import logging

import pytest
from homeassistant.const import EVENT_CALL_SERVICE, MATCH_ALL
from homeassistant.core import callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError

from custom_components.vestibule.vestibule_core.keys import SigningKey
from tests.integration.test_config_flow import carrier_input, go_on, start_by_keys


@pytest.fixture
def said(hass, caplog) -> list[str]:
    """Everything that is logged, at DEBUG, fired or shown; read it with ``words``."""
    caplog.set_level(logging.DEBUG)
    fired = []

    @callback
    def note(event) -> None:
        # That Home Assistant fires and records the data of every action is its own doing; the docs say so.
        if event.event_type != EVENT_CALL_SERVICE:
            fired.append(repr(event) + json.dumps(event.as_dict(), default=str))

    hass.bus.async_listen(MATCH_ALL, note)
    return fired


def words(hass, caplog, fired: list[str]) -> str:
    logged = [
        record.getMessage() + (caplog.handler.format(record) if record.exc_info else "")
        for record in caplog.records
        if EVENT_CALL_SERVICE not in record.getMessage()
    ]
    return "\n".join([*logged, *fired, *(repr(state.as_dict()) for state in hass.states.async_all())])


async def test_deliveries_and_refusals_leave_no_secret_behind(hass, site, relay, said, caplog):
    granted, refused = await site.token(), await site.token(distance=400)
    forged = granted[:-20] + "A" * 20
    for token in (granted, granted, refused, forged, granted * 3):
        await site.present(token)
    relay.error = RuntimeError("a driver's bug")
    failed = await site.token()
    await site.present(failed)
    relay.error = HomeAssistantError("no answer")
    await site.present(await site.token())
    site.change("Parcel Express", revoked=[site.cloud.key.kid])
    revoked = await site.token()
    await site.present(revoked)
    with pytest.raises(ServiceValidationError):
        await site.call("request_challenge", issuer=site.cloud.issuer, door="door:x")

    text = words(hass, caplog, said)
    assert "POLICY_EVIDENCE" in text
    assert "KEY_REVOKED" in text
    for token in (granted, refused, forged, failed, revoked):
        for part in token.split("."):
            assert part not in text
    for private in ("driver-of-this-month", "stop-42", "route-7", site.cloud.key.kid):
        assert private not in text


async def test_a_carriers_form_leaves_no_secret_behind(hass, site, said, caplog):
    new = SigningKey.generate()
    private = "c2VjcmV0LXByaXZhdGUta2V5LW9mLXRoZS1jYXJyaWVy"
    pasted = json.dumps({"keys": [new.jwk() | {"d": private}]})
    typed = carrier_input(site.cloud, issuer="https://new.example", jwk_set=pasted)
    flow = await start_by_keys(hass, site)
    flow = await go_on(hass, flow, typed)
    assert private not in repr(hass.config_entries.subentries.async_progress())
    flow = await go_on(hass, flow, typed | {"jwk_set": json.dumps(new.jwk())})
    flow = await go_on(hass, flow, {})
    intake_key = flow["description_placeholders"]["intake_key"]
    flow = await go_on(hass, flow, {})
    await hass.async_block_till_done()

    text = words(hass, caplog, said) + repr(flow) + json.dumps(site.entry.as_dict(), default=str)
    assert private not in text
    assert intake_key not in text
