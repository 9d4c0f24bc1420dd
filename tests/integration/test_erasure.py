"""A person is deleted, and is nowhere any more: row 69 of the protocol's table, with a real recorder.

What Home Assistant itself keeps of its users (the name in its own list, the id in the context of each event) is not
ours to take out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from homeassistant.const import EVENT_STATE_CHANGED, MATCH_ALL
from homeassistant.core import Context, Event, HomeAssistant, callback
from pytest_homeassistant_custom_component.common import MockUser
from pytest_homeassistant_custom_component.components.recorder.common import async_wait_recording_done

from custom_components.vestibule.vestibule_core.model import Actor
from tests.integration.site import Cloud, RelaySwitch, Site

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
NAME, DRIVER = "Zinnia Quackenbush", "driver-quackenbush-4711"


@pytest.fixture
def persistent_database() -> bool:
    """Let the recorder keep a file."""
    return True


@pytest.fixture(autouse=True)
def our_integration(recorder_mock: Any, enable_custom_integrations: None) -> None:
    """Load this project's integration, beside a recorder, which has to be there before Home Assistant is."""


@pytest.fixture
async def site(hass: HomeAssistant, relay: RelaySwitch, cloud: Cloud) -> AsyncGenerator[Site]:
    """A loaded building whose carrier has an intake key."""
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id, returns="by_vestibule", access_time=0.05)
    kept = hashlib.sha256(KEY.encode()).hexdigest()
    site.add_carrier("Parcel Express", cloud, intake_key_sha256=kept)
    await site.load()
    yield site
    await site.settle()


class Traces:
    """Everything that was said of somebody, wherever it was."""

    def __init__(self, hass: HomeAssistant, caplog: pytest.LogCaptureFixture, recorder: str) -> None:
        self._hass = hass
        self._caplog = caplog
        self._recorder = recorder.removeprefix("sqlite:///")
        self._fired: list[Event] = []
        hass.bus.async_listen(MATCH_ALL, self._note)

    @callback
    def _note(self, event: Event) -> None:
        self._fired.append(event)

    @property
    def journal(self) -> str:
        folder = Path(self._hass.config.path(".storage"))
        return b"".join(part.read_bytes() for part in folder.glob("vestibule.journal.db*")).decode("latin-1")

    @property
    def states(self) -> str:
        return json.dumps([state.as_dict() for state in self._hass.states.async_all()], default=str)

    def events(self, *but: str) -> str:
        return json.dumps([event.as_dict() for event in self._fired if event.event_type not in but], default=str)

    def log(self, logger: str = "") -> str:
        records = (record for record in self._caplog.records if record.name.startswith(logger))
        return "\n".join(self._caplog.handler.format(record) for record in records)

    async def recorded(self) -> str:
        await async_wait_recording_done(self._hass)
        return await self._hass.async_add_executor_job(self._dump)

    def _dump(self) -> str:
        db = sqlite3.connect(f"file:{self._recorder}?mode=ro", uri=True)
        try:
            return "\n".join(db.iterdump())
        finally:
            db.close()


@pytest.fixture
def traces(hass, site, caplog, recorder_db_url) -> Traces:
    caplog.set_level(logging.DEBUG)
    return Traces(hass, caplog, recorder_db_url)


async def delete_person(site: Site, outcome: str) -> int:
    """Delete who it was in the first entry of this name; return from how many entries."""
    entry = next(event for event in site.events if event.data["outcome"] == outcome)
    return await site.embedded.controller.delete_person(entry.data["sequence"], Actor(None, "A script", True))


async def choose(hass, site, mode, context):
    data = {"entity_id": site.entity_id("select"), "option": mode}
    await hass.services.async_call("select", "select_option", data, blocking=True, context=context)


async def test_row_69_a_person_who_opened_by_hand_is_deleted(hass, site, traces):
    """0 hits for the name; the entries are still there."""
    user = MockUser(name=NAME, is_owner=True).add_to_hass(hass)
    context = Context(user_id=user.id)
    await site.unlock(context=context)
    await site.until("locked")
    await choose(hass, site, "unlocked", context)
    await choose(hass, site, "normal", context)
    await choose(hass, site, "blocked", context)
    await site.settle()
    assert site.lock().attributes["changed_by"] == NAME
    assert NAME in traces.journal
    entries = site.embedded.journal_entries

    assert await delete_person(site, "access_granted") == 4
    await hass.async_block_till_done()

    assert site.lock().attributes.get("changed_by") is None
    assert site.embedded.journal_entries == entries + 1, "that it was done"
    assert user.id not in traces.journal
    recorded = await traces.recorded()
    assert "access_granted" in recorded
    # Who opened is an attribute of the lock's state, which Home Assistant fires and logs at DEBUG; ours do not say it.
    places = [traces.journal, traces.states, traces.events(EVENT_STATE_CHANGED), recorded, traces.log("custom_comp")]
    assert [place.count(NAME) for place in places] == [0] * 5


async def test_row_69_a_driver_is_deleted(hass, site, traces, hass_client_no_auth):
    """0 hits for the pseudonym, the token's id and the token."""
    client = await hass_client_no_auth()

    async def post(verb: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = await client.post(f"/api/vestibule/doors/{site.door}/{verb}", json=body, headers=headers)
        assert answer.status == 200
        return await answer.json()

    jti = base64.urlsafe_b64encode(bytes(range(16, 32))).decode().rstrip("=")
    token = site.cloud.token(site.door, (await post("challenge"))["non"], subject=DRIVER, jti=jti)
    assert (await post("unlock", {"token": token}))["word"] == "granted"
    await site.until("locked")
    refused = site.cloud.token(site.door, (await post("challenge"))["non"], subject=DRIVER, distance=400)
    assert (await post("unlock", {"token": refused}))["code"] == "POLICY_EVIDENCE"
    await site.settle()
    for trace in (DRIVER, jti, token, refused):
        assert trace in traces.journal

    assert await delete_person(site, "access_granted") == 2
    await hass.async_block_till_done()

    recorded = await traces.recorded()
    assert "Parcel Express" in recorded
    assert "Parcel Express" in traces.events()
    assert "vestibule_access" in traces.log()
    for trace in (DRIVER, jti, *token.split("."), *refused.split(".")[1:]):
        places = [traces.journal, traces.states, traces.events(), recorded, traces.log()]
        assert [place.count(trace) for place in places] == [0] * 5
    assert (await post("unlock", {"token": token}))["word"] == "already_used"


async def test_the_recorder_never_learns_who_opened(hass, site, traces, hass_admin_user):
    """It would still say so after the journal has forgotten it."""
    await site.unlock(context=Context(user_id=hass_admin_user.id))
    await site.until("locked")
    assert site.lock().attributes["changed_by"] == hass_admin_user.name
    recorded = await traces.recorded()
    assert '{"friendly_name":"Front door"}' in recorded, "the attributes of the lock's states are there"
    assert "changed_by" not in recorded
