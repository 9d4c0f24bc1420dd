"""Repairs: raised when something is wrong, taken back when it is not, confirmed through Home Assistant's own forms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.vestibule.const import DOMAIN, IDENTITY_FILE, JOURNAL_FILE
from custom_components.vestibule.issues import _FIXABLE, LOOK_AGAIN, Kind
from custom_components.vestibule.vestibule_core.model import read_clock
from custom_components.vestibule.vestibule_core.note import open_note
from custom_components.vestibule.vestibule_core.schema import held
from tests.integration.site import Cloud, Site
from tests.integration.test_translations import EN

HOURS = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00:00", "to": "00:00:00"}]
TAMPER, CONTACT = "binary_sensor.cover", "binary_sensor.contact"


class Repairs:
    """Settings > Repairs, as an administrator's browser asks for it."""

    def __init__(self, hass: HomeAssistant, http: Any, socket: Any) -> None:
        self._hass = hass
        self._http = http
        self._socket = socket

    async def listed(self) -> dict[str, dict[str, Any]]:
        """Return what is shown, by id."""
        await self._hass.async_block_till_done()
        await self._socket.send_json_auto_id({"type": "repairs/list_issues"})
        issues = (await self._socket.receive_json())["result"]["issues"]
        return {issue["issue_id"]: issue for issue in issues if issue["domain"] == DOMAIN}

    async def open(self, issue_id: str) -> SimpleNamespace:
        """Open the form of a repair."""
        return await self._post("", {"handler": DOMAIN, "issue_id": issue_id})

    async def confirm(self, form: SimpleNamespace) -> SimpleNamespace:
        """Press the form's button."""
        return await self._post(f"/{form.flow_id}", {})

    async def _post(self, path: str, body: dict[str, Any]) -> SimpleNamespace:
        answer = await self._http.post(f"/api/repairs/issues/fix{path}", json=body)
        assert answer.status == 200, await answer.text()
        return SimpleNamespace(**await answer.json())


@pytest.fixture
async def repairs(hass: HomeAssistant, site: Site, hass_client: Any, hass_ws_client: Any) -> Repairs:
    for component in ("repairs", "websocket_api"):  # before the first client starts the server
        assert await async_setup_component(hass, component, {})
    return Repairs(hass, await hass_client(), await hass_ws_client())


@pytest.fixture
async def site(hass: HomeAssistant, site: Site) -> Site:
    """The building, whose front door has a tamper switch and a contact."""
    hass.states.async_set(TAMPER, "off")
    hass.states.async_set(CONTACT, "off")
    site.change("Front door", tamper=TAMPER, contact=CONTACT)
    await hass.async_block_till_done()
    await site.settle()
    return site


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)


async def look_again(hass: HomeAssistant) -> None:
    async_fire_time_changed(hass, dt_util.utcnow() + LOOK_AGAIN + timedelta(seconds=1))
    await hass.async_block_till_done()


def texts(issue: dict[str, Any]) -> str:
    """Return all texts of a repair; raise KeyError if one has a placeholder that is not given."""
    words = EN["issues"][issue["translation_key"]]
    form = words["fix_flow"]["step"]["confirm"] if issue["is_fixable"] else {"description": words["description"]}
    given = issue["translation_placeholders"] or {}
    return "\n".join(text.format(**given) for text in (words["title"], *form.values()))


async def test_a_building_that_is_well_has_no_repairs(site, repairs):
    await site.present(await site.token())
    assert await repairs.listed() == {}


# ---- a relay or a sensor that is missing ----


async def test_a_relay_that_is_removed_is_told_of_and_cured_when_it_is_back(hass, site, repairs, relay):
    registry = er.async_get(hass)
    gone = registry.async_get(relay.entity_id)
    registry.async_remove(relay.entity_id)
    issue_id = f"relay_missing_{site.subentry('Front door').subentry_id}"
    issues = await repairs.listed()
    assert issues.keys() == {issue_id}
    assert issues[issue_id]["is_fixable"] is False
    assert issues[issue_id]["severity"] == "error"
    assert "Front door" in texts(issues[issue_id])
    back = registry.async_get_or_create(gone.domain, gone.platform, gone.unique_id)
    assert back.id == gone.id
    assert await repairs.listed() == {}


async def test_a_relay_that_is_disabled_is_told_of_until_it_is_enabled(hass, site, repairs, relay):
    registry = er.async_get(hass)
    registry.async_update_entity(relay.entity_id, disabled_by=er.RegistryEntryDisabler.USER)
    assert [issue["translation_key"] for issue in (await repairs.listed()).values()] == ["relay_missing"]
    registry.async_update_entity(relay.entity_id, disabled_by=None)
    assert await repairs.listed() == {}


async def test_another_relay_cures_it(hass, site, repairs, relay):
    er.async_get(hass).async_update_entity(relay.entity_id, disabled_by=er.RegistryEntryDisabler.USER)
    assert await repairs.listed()
    hass.states.async_set("switch.other", "off")
    site.change("Front door", relay="switch.other")
    assert await repairs.listed() == {}


async def test_a_relay_that_is_out_of_reach_or_renamed_is_not_missing(hass, site, repairs, relay):
    relay.lose()
    assert await repairs.listed() == {}
    er.async_get(hass).async_update_entity(relay.entity_id, new_entity_id="switch.strike")
    assert await repairs.listed() == {}
    await look_again(hass)
    assert await repairs.listed() == {}


async def test_an_unregistered_sensor_may_come_late_at_start_and_is_missing_if_it_does_not(hass, site, repairs):
    hass.set_state(CoreState.starting)
    hass.states.async_remove(CONTACT)
    await look_again(hass)
    assert await repairs.listed() == {}
    hass.set_state(CoreState.running)
    await look_again(hass)
    issues = await repairs.listed()
    assert issues.keys() == {f"sensor_missing_{site.subentry('Front door').subentry_id}_contact"}
    assert [issue["severity"] for issue in issues.values()] == ["warning"]
    assert all("Front door" in texts(issue) for issue in issues.values())
    hass.states.async_set(CONTACT, "off")
    await look_again(hass)
    assert await repairs.listed() == {}


async def test_a_removed_door_takes_its_repairs_with_it(hass, site, repairs, relay):
    er.async_get(hass).async_remove(relay.entity_id)
    assert await repairs.listed()
    site.remove("Front door")
    assert await repairs.listed() == {}


async def test_a_renamed_door_is_told_of_by_its_new_name(hass, site, repairs, relay):
    er.async_get(hass).async_remove(relay.entity_id)
    site.change("Front door", new_title="Main entrance")
    (issue,) = (await repairs.listed()).values()
    assert issue["translation_placeholders"] == {"door": "Main entrance"}


async def test_two_doors_have_two_repairs(hass, site, repairs, relay):
    site.add_door("Gate", "switch.nowhere")
    site.add_door("Cellar", "switch.nowhere_else")
    issues = await repairs.listed()
    assert {issue["translation_placeholders"]["door"] for issue in issues.values()} == {"Gate", "Cellar"}


# ---- tampering ----


async def tamper(hass: HomeAssistant, site: Site, state: str = "on") -> None:
    hass.states.async_set(TAMPER, state)
    await until(lambda: site.embedded.doors[site.door].state.tamper == ("active" if state == "on" else "inactive"))
    await site.settle()


async def test_a_tampered_door_is_trusted_again_when_an_administrator_confirms_it(
    hass, site, repairs, relay, hass_admin_user
):
    await tamper(hass, site)
    await tamper(hass, site, "off")
    issue_id = f"tampered_{site.subentry('Front door').subentry_id}"
    issues = await repairs.listed()
    assert issues.keys() == {issue_id}
    assert issues[issue_id]["is_fixable"] is True
    assert "Front door" in texts(issues[issue_id])
    assert (await site.present(await site.token()))["word"] == "refused"

    form = await repairs.open(issue_id)
    assert (form.type, form.step_id, form.errors) == ("form", "confirm", {})
    assert form.description_placeholders == {"door": "Front door"}
    assert site.embedded.doors[site.door].state.tampered
    assert (await repairs.confirm(form)).type == "create_entry"
    await site.settle()

    assert await repairs.listed() == {}
    cleared = site.events[-1]
    assert (cleared.data["outcome"], cleared.data["means"]) == ("tamper_cleared", "manual")
    assert cleared.context.user_id == hass_admin_user.id
    assert (await site.present(await site.token()))["word"] == "granted"


async def test_while_the_enclosure_is_open_the_form_says_so_and_works_once_it_is_closed(hass, site, repairs):
    await tamper(hass, site)
    issue_id = next(iter(await repairs.listed()))
    form = await repairs.confirm(await repairs.open(issue_id))
    assert (form.type, form.errors) == ("form", {"base": "still_tampered"})
    assert form.errors["base"] in EN["issues"]["tampered"]["fix_flow"]["error"]
    assert (await repairs.listed()).keys() == {issue_id}
    await tamper(hass, site, "off")
    assert (await repairs.confirm(form)).type == "create_entry"
    assert await repairs.listed() == {}


async def test_a_second_tampering_raises_it_again(hass, site, repairs):
    for _ in range(2):
        await tamper(hass, site)
        await tamper(hass, site, "off")
        (issue_id,) = await repairs.listed()
        assert (await repairs.confirm(await repairs.open(issue_id))).type == "create_entry"
        assert await repairs.listed() == {}


async def test_a_tampered_door_is_told_of_after_a_restart_too(hass, site, repairs):
    await tamper(hass, site)
    await tamper(hass, site, "off")
    await hass.config_entries.async_unload(site.entry.entry_id)
    assert await repairs.listed() == {}
    await hass.config_entries.async_setup(site.entry.entry_id)
    assert [issue["translation_key"] for issue in (await repairs.listed()).values()] == ["tampered"]


async def test_a_form_that_is_confirmed_after_the_building_is_gone_does_nothing(hass, site, repairs):
    await tamper(hass, site)
    form = await repairs.open(next(iter(await repairs.listed())))
    await hass.config_entries.async_unload(site.entry.entry_id)
    answer = await repairs.confirm(form)
    assert (answer.type, answer.reason) == ("abort", "not_possible")
    assert answer.reason in EN["issues"]["tampered"]["fix_flow"]["abort"]


async def test_a_user_who_is_no_administrator_cannot_confirm_anything(
    hass, site, repairs, hass_client, hass_read_only_access_token
):
    await tamper(hass, site)
    await tamper(hass, site, "off")
    client = await hass_client(hass_read_only_access_token)
    issue_id = next(iter(await repairs.listed()))
    answer = await client.post("/api/repairs/issues/fix", json={"handler": DOMAIN, "issue_id": issue_id})
    assert answer.status == 401
    form = await repairs.open(issue_id)
    assert (await client.post(f"/api/repairs/issues/fix/{form.flow_id}", json={})).status == 401
    assert site.embedded.doors[site.door].state.tampered


# ---- the clock ----


def set_clock(site: Site, seconds: float) -> None:
    """Set the machine's clock, as the controller reads it: so many seconds off from now on."""
    site.embedded.controller._clock = lambda: replace(read_clock(), wall=time.time() + seconds)


async def test_row_30_a_clock_that_went_back_is_told_of_and_settled_when_it_is_confirmed(
    hass, site, repairs, hass_admin_user
):
    await site.unlock()
    assert await repairs.listed() == {}
    set_clock(site, -86400)
    await look_again(hass)
    issues = await repairs.listed()
    assert issues.keys() == {"clock_untrusted"}
    assert texts(issues["clock_untrusted"])
    assert (await repairs.confirm(await repairs.open("clock_untrusted"))).type == "create_entry"
    await site.settle()
    assert await repairs.listed() == {}
    assert site.embedded.controller.clock_is_trusted
    confirmed = site.events[-1]
    assert (confirmed.data["outcome"], confirmed.data["means"]) == ("clock_confirmed", "manual")
    assert confirmed.context.user_id == hass_admin_user.id


async def test_a_clock_that_is_set_right_again_needs_no_confirmation(hass, site, repairs):
    await site.unlock()
    set_clock(site, -3600)
    await look_again(hass)
    assert await repairs.listed()
    set_clock(site, 0)
    await look_again(hass)
    assert await repairs.listed() == {}


async def test_a_refusal_because_of_the_clock_raises_it_at_once(hass, site, repairs):
    site.change("Front door", hours=HOURS)
    await hass.async_block_till_done()
    await site.unlock()
    set_clock(site, -60)
    assert (await site.present(await site.token()))["code"] == "CLOCK_UNTRUSTED"
    assert (await repairs.listed()).keys() == {"clock_untrusted"}


async def differing(site: Site) -> dict[str, Any]:
    """Present a token of a carrier whose clock differs by three minutes."""
    now = int(dt_util.utcnow().timestamp()) - 180
    return await site.present(await site.token(issued_at=now, expires_at=now + 60, requested_at=now - 4))


async def test_clocks_that_differ_are_told_of_until_a_token_shows_that_they_agree(hass, site, repairs):
    site.change("Front door", hours=HOURS)
    await hass.async_block_till_done()
    assert (await differing(site))["code"] == "CLOCK_UNTRUSTED"
    assert (await repairs.listed()).keys() == {"clock_untrusted"}
    await look_again(hass)
    await site.unlock()
    assert (await repairs.listed()).keys() == {"clock_untrusted"}
    assert (await site.present(await site.token()))["word"] == "granted"
    assert await repairs.listed() == {}


async def test_a_token_at_a_door_without_hours_does_not_show_that_clocks_agree(hass, site, repairs):
    site.change("Front door", hours=HOURS)
    await hass.async_block_till_done()
    await differing(site)
    site.change("Front door", hours=[])
    await hass.async_block_till_done()
    assert (await site.present(await site.token()))["word"] == "granted"
    assert (await repairs.listed()).keys() == {"clock_untrusted"}
    site.change("Parcel Express", hours=HOURS)
    await hass.async_block_till_done()
    assert (await site.present(await site.token()))["word"] == "granted"
    assert await repairs.listed() == {}


async def test_clocks_that_still_differ_after_a_confirmation_are_told_of_again(hass, site, repairs):
    site.change("Front door", hours=HOURS)
    await hass.async_block_till_done()
    await differing(site)
    await repairs.listed()
    assert (await repairs.confirm(await repairs.open("clock_untrusted"))).type == "create_entry"
    await site.settle()
    assert await repairs.listed() == {}
    await differing(site)
    assert (await repairs.listed()).keys() == {"clock_untrusted"}


async def test_a_journal_that_cannot_be_written_keeps_the_clock_from_being_confirmed(hass, site, repairs):
    await site.unlock()
    set_clock(site, -3600)
    await look_again(hass)
    await repairs.listed()
    site.embedded._journal.failed = True  # as after an error of the disk
    form = await repairs.confirm(await repairs.open("clock_untrusted"))
    assert (form.type, form.errors) == ("form", {"base": "store_failed"})
    assert form.errors["base"] in EN["issues"]["clock_untrusted"]["fix_flow"]["error"]
    assert (await repairs.listed()).keys() == {"clock_untrusted"}
    site.embedded._journal.failed = False  # else nobody closes it


# ---- a revoked key ----


async def test_row_36_a_revoked_key_that_is_used_is_told_of_by_carrier_until_somebody_takes_note(
    hass, site, repairs, relay
):
    other = Cloud("https://other.example")
    site.add_carrier("Other Post", other)
    site.change("Parcel Express", revoked=[site.cloud.key.kid])
    await hass.async_block_till_done()
    assert (await site.present(await site.token(cloud=other)))["word"] == "granted"
    assert await repairs.listed() == {}
    for _ in range(2):  # it comes back when the key is used again
        assert await site.present(await site.token()) == {
            "word": "invalid_token",
            "code": None,
            "door": site.door,
            "limit": None,
        }
        issue_id = f"key_revoked_{site.subentry('Parcel Express').subentry_id}"
        issues = await repairs.listed()
        assert issues.keys() == {issue_id}
        assert "Parcel Express" in texts(issues[issue_id])
        assert site.cloud.key.kid not in str(issues)
        form = await repairs.open(issue_id)
        assert form.description_placeholders == {"carrier": "Parcel Express"}
        assert (await repairs.confirm(form)).type == "create_entry"
        assert await repairs.listed() == {}


async def test_a_removed_carrier_takes_the_repair_with_it(hass, site, repairs):
    site.change("Parcel Express", revoked=[site.cloud.key.kid])
    await hass.async_block_till_done()
    await site.present(await site.token())
    assert await repairs.listed()
    site.remove("Parcel Express")
    assert await repairs.listed() == {}


# ---- a journal that cannot be written, or whose key is missing ----


async def test_a_journal_that_fails_is_told_of_when_it_refuses_and_settled_by_a_reload(hass, site, repairs, relay):
    site.embedded._journal.failed = True  # as after an error of the disk
    assert (await site.present(await site.token()))["code"] == "STORE_FAILED"
    issues = await repairs.listed()
    assert issues.keys() == {"journal_failed"}
    assert issues["journal_failed"]["is_fixable"] is False
    assert issues["journal_failed"]["severity"] == "error"
    assert texts(issues["journal_failed"])
    site.embedded._journal.failed = False  # else nobody closes it
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    assert await repairs.listed() == {}


async def test_a_journal_that_fails_unseen_is_told_of_soon(hass, site, repairs):
    site.embedded._journal.failed = True
    await look_again(hass)
    assert (await repairs.listed()).keys() == {"journal_failed"}
    site.embedded._journal.failed = False  # else nobody closes it


@pytest.fixture
async def keyless(hass, site, repairs) -> Path:
    """Where the key is missing that signed the journal of the building, which therefore cannot be set up."""
    await site.unlock()
    key = Path(hass.config.path(".storage", IDENTITY_FILE))
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    await hass.async_add_executor_job(key.rename, key.with_name("backup.pem"))
    assert not await hass.config_entries.async_setup(site.entry.entry_id)
    issues = await repairs.listed()
    assert issues.keys() == {"identity_missing"}
    assert issues["identity_missing"]["is_fixable"] is True
    assert texts(issues["identity_missing"])
    return key


async def test_who_has_lost_the_key_goes_on_with_a_new_one_and_the_journal_names_both(hass, site, repairs, keyless):
    form = await repairs.open("identity_missing")
    assert (form.type, form.step_id, form.errors) == ("form", "confirm", {})
    assert not keyless.exists(), "nothing is made before it is confirmed"
    assert (await repairs.confirm(form)).type == "create_entry"
    await hass.async_block_till_done()
    assert await repairs.listed() == {}
    assert site.entry.state is ConfigEntryState.LOADED
    journal = site.embedded._journal
    header = await journal.header()
    assert header.size == 3
    assert len({key.public for key in header.keys}) == 2
    assert (await site.present(await site.token()))["word"] == "granted"
    assert open_note(journal.checkpoint, header.keys[1:])


async def test_who_confirmed_a_new_key_is_in_the_journal_and_nowhere_else(
    hass, site, repairs, keyless, hass_admin_user, caplog
):
    form = await repairs.open("identity_missing")
    caplog.clear()
    await repairs.confirm(form)
    await site.settle()
    (event,) = [event for event in site.events if event.data["outcome"] == "key_confirmed"]
    journal = site.embedded._journal
    (entry,) = [entry for entry in await journal.newest_entries(None, 50) if entry.leaf.kind == "key_confirmed"]
    who = entry.person.read()
    assert who == {"user_id": hass_admin_user.id, "user": hass_admin_user.name}
    for name in who.values():
        assert name not in str(event.as_dict())
        assert name not in str([state.as_dict() for state in hass.states.async_all()])
        assert name not in caplog.text


async def test_a_journal_that_was_damaged_meanwhile_gets_no_key_and_says_so(hass, site, repairs, keyless):
    form = await repairs.open("identity_missing")
    await hass.async_add_executor_job(keyless.with_name(JOURNAL_FILE).write_bytes, b"SQLite format 3\0" + bytes(5000))
    assert (await repairs.confirm(form)).type == "create_entry"
    assert not keyless.exists()
    assert (await repairs.listed()).keys() == {"journal_damaged"}


async def test_a_key_that_came_back_meanwhile_is_not_replaced(hass, site, repairs, keyless):
    form = await repairs.open("identity_missing")
    kept = keyless.with_name("backup.pem").rename(keyless).read_bytes()
    assert (await repairs.confirm(form)).type == "create_entry"
    await hass.async_block_till_done()
    assert site.entry.state is ConfigEntryState.LOADED
    assert keyless.read_bytes() == kept
    assert len((await site.embedded._journal.header()).keys) == 1


async def test_while_another_program_holds_the_journal_no_key_is_made(hass, site, repairs, keyless):
    form = await repairs.open("identity_missing")
    with held(keyless.with_name(JOURNAL_FILE)):
        form = await repairs.confirm(form)
    assert (form.type, form.errors) == ("form", {"base": "journal_in_use"})
    assert form.errors["base"] in EN["issues"]["identity_missing"]["fix_flow"]["error"]
    assert not keyless.exists()
    assert (await repairs.confirm(form)).type == "create_entry"


async def test_a_key_that_cannot_be_written_is_said_so(hass, site, repairs, keyless):
    keyless.with_name(f"{keyless.name}.new").mkdir()  # the disk takes no file there
    form = await repairs.confirm(await repairs.open("identity_missing"))
    assert (form.type, form.errors) == ("form", {"base": "store_failed"})
    assert form.errors["base"] in EN["issues"]["identity_missing"]["fix_flow"]["error"]
    assert (await repairs.listed()).keys() == {"identity_missing"}


async def test_a_building_that_was_set_up_meanwhile_needs_no_new_key(hass, site, repairs, keyless):
    form = await repairs.open("identity_missing")
    keyless.with_name("backup.pem").rename(keyless)
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    answer = await repairs.confirm(form)
    assert (answer.type, answer.reason) == ("abort", "not_possible")
    assert answer.reason in EN["issues"]["identity_missing"]["fix_flow"]["abort"]


# ---- what cannot be read, and the end ----


async def test_what_cannot_be_read_is_told_of_until_it_can(hass, site, repairs, caplog):
    site.change("Front door", access_time="soon")
    issue_id = f"unreadable_{site.subentry('Front door').subentry_id}"
    issues = await repairs.listed()
    assert issues.keys() == {issue_id}
    assert "Front door" in texts(issues[issue_id])
    assert caplog.text.count("Front door cannot be read and is left out") == 1
    site.change("Front door", access_time=5.0)
    assert await repairs.listed() == {}


async def test_repairs_end_with_the_building(hass, site, repairs, relay):
    er.async_get(hass).async_remove(relay.entity_id)
    await tamper(hass, site)
    assert len(await repairs.listed()) == 2
    await hass.config_entries.async_remove(site.entry.entry_id)
    assert await repairs.listed() == {}
    er.async_get(hass).async_get_or_create("switch", "test", "another")
    await look_again(hass)
    assert await repairs.listed() == {}


async def test_a_forged_event_on_the_bus_raises_no_error(hass, site, repairs, caplog):
    for data in ({}, {"code": ["x"]}, {"code": "KEY_REVOKED", "carrier": {}}, {"outcome": "access_granted"}):
        hass.bus.async_fire("vestibule_access", data)
    assert await repairs.listed() == {}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_every_kind_of_repair_has_its_texts():
    assert EN["issues"].keys() == {kind.value for kind in Kind}
    for kind in Kind:
        assert ("fix_flow" in EN["issues"][kind]) is (kind in _FIXABLE)
        assert ("description" in EN["issues"][kind]) is (kind not in _FIXABLE)
