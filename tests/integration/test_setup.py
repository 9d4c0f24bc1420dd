"""Loading, unloading, stopping, and changing the building while it works."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from homeassistant.config_entries import ConfigEntryDisabler, ConfigEntryState
from homeassistant.const import EVENT_HOMEASSISTANT_FINAL_WRITE
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir

from custom_components.vestibule.const import DOMAIN, IDENTITY_FILE
from custom_components.vestibule.vestibule_core.schema import held
from tests.integration.site import Cloud, RelayButton, Site


@pytest.fixture
def journal(hass) -> Path:
    return Path(hass.config.path(".storage", "vestibule.journal.db"))


# ---- load, unload, load ---------------------------------------------------------------------------------------------


async def test_loading_moves_nothing_and_shows_building_and_doors(site, relay, device_registry):
    assert relay.told == []
    building = device_registry.async_get_device_by_identifier((DOMAIN, "b" * 26), site.entry.entry_id)
    assert (building.name, building.manufacturer) == ("Linden Court", "Vestibule")
    door = site.device()
    assert (door.name, door.manufacturer, door.via_device_id) == ("Front door", "Vestibule", building.id)
    assert door.config_subentry_id == site.subentry("Front door").subentry_id
    assert site.lock().name == "Front door"
    assert site.access().name == "Front door Access"


async def test_a_token_that_was_spent_stays_spent_over_unload_and_load(hass, site, relay):
    token = await site.token()
    await site.present(token)
    for _ in range(2):
        assert await hass.config_entries.async_unload(site.entry.entry_id)
        assert site.entry.state is ConfigEntryState.NOT_LOADED
        assert site.lock().state == "unavailable"
        await site.load()
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("already_used", "ALREADY_SPENT")
    assert relay.told == ["on"]
    assert (await site.present(await site.token()))["word"] == "granted"


async def test_a_challenge_from_before_a_reload_is_void(hass, site, relay):
    token = await site.token()
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    await hass.async_block_till_done()
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("refused", "NONCE_UNKNOWN")
    assert relay.told == []


async def test_unloading_ends_a_release_that_vestibule_times(hass, site, relay):
    site.change("Front door", returns="by_vestibule", access_time=30)
    await site.unlock()
    assert relay.is_on
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    assert not relay.is_on
    assert relay.told == ["on", "off"]


async def test_stopping_home_assistant_ends_a_release_before_the_relays_are_stopped(hass, site, relay):
    site.change("Front door", returns="by_vestibule", access_time=30)
    await site.unlock()
    at_stop = []
    hass.bus.async_listen("homeassistant_stop", lambda _: at_stop.append(list(relay.told)))
    await hass.async_stop(force=True)
    assert at_stop == [["on", "off"]]


async def test_the_journal_is_closed_with_home_assistant_and_an_unload_after_it_is_harmless(hass, site, journal):
    await site.unlock()
    hass.bus.async_fire(EVENT_HOMEASSISTANT_FINAL_WRITE)
    await hass.async_block_till_done()
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT count(*) FROM leaf").fetchone() == (2,)
    assert await hass.config_entries.async_unload(site.entry.entry_id)


async def test_a_removed_building_leaves_its_journal(hass, site, journal):
    await site.unlock()
    await hass.config_entries.async_remove(site.entry.entry_id)
    assert [file.suffix for file in journal.parent.glob("vestibule.journal.*")] == [".db"]
    assert not journal.exists(), "under a dated name: test_backup.py"
    assert hass.states.async_entity_ids("lock") == []


async def test_a_building_can_be_unloaded_the_moment_a_door_was_removed(hass, site):
    site.remove("Front door")
    assert await hass.config_entries.async_unload(site.entry.entry_id)


async def test_a_change_after_the_end_starts_nothing_again(hass, site, relay):
    await site.embedded.stop()
    site.change("Front door", new_title="Garden gate")
    await hass.async_block_till_done()
    with pytest.raises(HomeAssistantError):
        await site.unlock()
    assert relay.told == []


# ---- what a crash leaves --------------------------------------------------------------------------------------------


async def test_a_spend_that_a_crash_left_without_outcome_is_told_as_unknown_once(
    hass, site, relay, journal, monkeypatch
):
    await site.present(await site.token())
    await hass.config_entries.async_unload(site.entry.entry_id)
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute("UPDATE spent SET state = 'SPENT'")
    site.events.clear()
    forward = hass.config_entries.async_forward_entry_setups

    async def late(*args):
        await site.settle()  # the journal is quicker than the platforms
        assert site.events == []
        await forward(*args)

    monkeypatch.setattr(hass.config_entries, "async_forward_entry_setups", late)
    await site.load()
    await site.settle()

    assert site.outcomes() == [("outcome_unknown", "OUTCOME_UNKNOWN")]
    assert site.events[0].data["device"] == site.device().id
    assert site.access().attributes["event_type"] == "outcome_unknown", "told when the entity was there to hear it"
    assert relay.told == ["on"], "never made up for"


async def test_a_release_that_a_crash_left_open_is_ended_at_start(hass, site, relay, journal):
    site.change("Front door", returns="by_vestibule")
    await hass.config_entries.async_unload(site.entry.entry_id)
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute("INSERT INTO meta VALUES(?, ?)", (f"release:{site.door}", "00" * 16))
    relay.move(True)
    await site.load()
    await site.until("locked")
    assert relay.told == ["off"]


# ---- a journal that cannot be used ----------------------------------------------------------------------------------


async def fails_to_load(site, state: ConfigEntryState, key: str) -> None:
    await site.hass.config_entries.async_setup(site.entry.entry_id)
    await site.hass.async_block_till_done()
    assert site.entry.state is state
    assert site.entry.error_reason_translation_key == key
    assert raised(site) == ([key] if state is ConfigEntryState.SETUP_ERROR else [])


def raised(site) -> list[str]:
    """Return the ids of all repairs that are shown."""
    return [issue.issue_id for issue in ir.async_get(site.hass).issues.values() if issue.active]


@pytest.fixture
async def unloaded(hass, relay, cloud):
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    return site


async def test_a_journal_that_another_program_holds_is_waited_for(hass, unloaded, journal):
    # The same process may not lock itself out: another one has to hold the file.
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('PRAGMA locking_mode = EXCLUSIVE'); db.execute('BEGIN EXCLUSIVE');"
        "print('held', flush=True); sys.stdin.read()",
        str(journal),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    await holder.stdout.readline()
    try:
        await fails_to_load(unloaded, ConfigEntryState.SETUP_RETRY, "journal_in_use")
    finally:
        holder.stdin.close()
        await holder.wait()
    await hass.config_entries.async_reload(unloaded.entry.entry_id)
    assert unloaded.entry.state is ConfigEntryState.LOADED


async def test_a_journal_of_a_newer_version_is_not_touched_and_a_repair_says_so(unloaded, journal):
    with closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA application_id = 0x76737462")
        db.execute("PRAGMA user_version = 999")
    before = journal.read_bytes()
    await fails_to_load(unloaded, ConfigEntryState.SETUP_ERROR, "journal_too_new")
    assert journal.read_bytes() == before


async def test_a_journal_that_is_none_is_not_touched_and_a_repair_says_so(unloaded, journal):
    journal.write_text("this is no database, and long enough to be looked at as one " * 20)
    before = journal.read_bytes()
    await fails_to_load(unloaded, ConfigEntryState.SETUP_ERROR, "journal_damaged")
    assert journal.read_bytes() == before


async def test_a_folder_in_the_journals_place_is_an_error_that_says_so(unloaded, journal):
    journal.mkdir()
    await fails_to_load(unloaded, ConfigEntryState.SETUP_ERROR, "journal_failed")


async def test_a_key_that_cannot_be_read_is_not_touched_and_a_repair_says_so(unloaded, journal):
    key = journal.with_name(IDENTITY_FILE)
    key.write_text("half a key")
    await fails_to_load(unloaded, ConfigEntryState.SETUP_ERROR, "identity_unusable")
    assert key.read_text() == "half a key"


async def test_a_journal_whose_key_is_missing_gets_no_new_one_unasked(hass, site, journal):
    await site.unlock()
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    before, key = journal.read_bytes(), journal.with_name(IDENTITY_FILE)
    kept = key.rename(key.with_name("backup.pem"))
    await fails_to_load(site, ConfigEntryState.SETUP_ERROR, "identity_missing")
    assert journal.read_bytes() == before
    assert not key.exists()
    kept.rename(key)
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    assert raised(site) == []
    assert site.embedded.journal_entries == 2


async def test_a_journal_of_the_previous_release_is_given_a_key(hass, unloaded, journal):
    shutil.copy(Path(__file__).parents[1] / "core" / "journals" / "0.1.0.db", journal)
    await unloaded.load()
    assert journal.with_name(IDENTITY_FILE).exists()


@pytest.fixture
async def damaged(unloaded, journal):
    """A building whose set-up has failed."""
    journal.write_text("this is no database, and long enough to be looked at as one " * 20)
    await fails_to_load(unloaded, ConfigEntryState.SETUP_ERROR, "journal_damaged")
    return unloaded


async def test_its_repair_is_taken_back_when_the_building_loads(hass, damaged, journal):
    journal.unlink()
    assert await hass.config_entries.async_reload(damaged.entry.entry_id)
    assert raised(damaged) == []


async def test_while_it_is_still_so_the_repair_is_there(hass, damaged):
    for _ in range(2):
        await hass.config_entries.async_reload(damaged.entry.entry_id)
        assert raised(damaged) == ["journal_damaged"]
    hass.config_entries.async_update_entry(damaged.entry, title="Linden Yard")
    await hass.async_block_till_done()
    assert raised(damaged) == ["journal_damaged"]


async def test_another_reason_takes_its_place(hass, damaged, journal):
    journal.unlink()
    journal.mkdir()
    await hass.config_entries.async_reload(damaged.entry.entry_id)
    assert raised(damaged) == ["journal_failed"]
    journal.rmdir()
    with held(journal):
        await hass.config_entries.async_reload(damaged.entry.entry_id)
    assert damaged.entry.state is ConfigEntryState.SETUP_RETRY
    assert raised(damaged) == []
    await hass.config_entries.async_unload(damaged.entry.entry_id)


async def test_it_goes_with_a_building_that_is_disabled_or_removed(hass, damaged):
    await hass.config_entries.async_set_disabled_by(damaged.entry.entry_id, ConfigEntryDisabler.USER)
    assert raised(damaged) == []
    await hass.config_entries.async_set_disabled_by(damaged.entry.entry_id, None)
    assert raised(damaged) == ["journal_damaged"]
    await hass.config_entries.async_remove(damaged.entry.entry_id)
    assert raised(damaged) == []


async def test_a_platform_that_fails_leaves_the_journal_free_for_the_next_try(hass, unloaded, monkeypatch):
    async def fail(*_):
        raise RuntimeError("no platforms today")

    with monkeypatch.context() as broken:
        broken.setattr(hass.config_entries, "async_forward_entry_setups", fail)
        await hass.config_entries.async_setup(unloaded.entry.entry_id)
    assert unloaded.entry.state is ConfigEntryState.SETUP_ERROR
    await hass.config_entries.async_reload(unloaded.entry.entry_id)
    assert unloaded.entry.state is ConfigEntryState.LOADED


# ---- stored data that cannot be read --------------------------------------------------------------------------------


async def test_a_carrier_that_cannot_be_read_is_left_out_and_the_rest_works(hass, site, relay, issue_registry, caplog):
    other = Cloud("https://other.example")
    site.add_carrier("Other", other, jwk_set='{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "x", "d": "PRIVATE"}]}')
    await hass.async_block_till_done()
    subentry = site.subentry("Other")
    issue = issue_registry.async_get_issue(DOMAIN, f"unreadable_{subentry.subentry_id}")
    assert issue.translation_placeholders == {"name": "Other"}
    assert caplog.text.count("Other cannot be read and is left out") == 1
    assert "PRIVATE" not in caplog.text
    assert (await site.present(await site.token()))["word"] == "granted"

    site.remove("Other")
    await hass.async_block_till_done()
    assert issue_registry.issues == {}


@pytest.mark.parametrize(
    "title, data",
    [
        ("Front door", {"door": "door:x"}),
        ("Front door", {"access_time": None}),
        ("Front door", {"returns": "one day"}),
        ("Parcel Express", {"issuer": "nobody"}),
        ("Parcel Express", {"doors": None}),
        ("Parcel Express", {"methods": ["handshake"]}),
        ("Parcel Express", {"distance": "far"}),
    ],
)
async def test_each_broken_subentry_is_named_and_goes_on_when_mended(hass, site, issue_registry, title, data):
    good = {name: site.subentry(title).data[name] for name in data}
    site.change(title, **data)
    await hass.async_block_till_done()
    (issue,) = issue_registry.issues.values()
    assert issue.translation_placeholders == {"name": title}

    site.change(title, **good)
    await hass.async_block_till_done()
    assert issue_registry.issues == {}
    assert (await site.present(await site.token()))["word"] == "granted"


async def test_two_carriers_with_one_key_are_never_both_trusted(hass, site, cloud, issue_registry):
    thief = Cloud("https://thief.example")
    thief.key = cloud.key
    site.add_carrier("Thief", thief)
    await hass.async_block_till_done()
    assert [issue.translation_placeholders["name"] for issue in issue_registry.issues.values()] == ["Thief"]
    assert (await site.present(await site.token()))["word"] == "granted"


async def test_the_repair_goes_with_the_building(hass, site, issue_registry):
    site.change("Parcel Express", doors=None)
    await hass.async_block_till_done()
    assert len(issue_registry.issues) == 1
    await hass.config_entries.async_unload(site.entry.entry_id)
    assert issue_registry.issues == {}


async def test_a_kind_of_subentry_from_the_future_is_passed_over(hass, site, issue_registry):
    site._add("window", "Window", {}, "window")
    await hass.async_block_till_done()
    assert issue_registry.issues == {}
    assert (await site.present(await site.token()))["word"] == "granted"


# ---- live changes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unchanged(site):
    """Whatever happens, the entry is not reloaded."""
    controller, states = site.embedded.controller, []
    site.entry.async_on_state_change(lambda: states.append(site.entry.state))
    yield
    assert states == []
    assert site.embedded.controller is controller


@pytest.mark.usefixtures("unchanged")
async def test_a_door_is_added_while_another_is_released(hass, site, relay):
    token = await site.token()
    await site.unlock()
    gate_relay = RelayButton("gate")
    await gate_relay.install(hass)
    gate = site.add_door("Gate", gate_relay.entity_id)
    await hass.async_block_till_done()
    assert site.lock().state == "unlocked"
    assert site.device(gate).via_device_id == site.device().via_device_id
    await site.unlock(gate)
    assert gate_relay.told == ["press"]
    assert site.access(gate).attributes["event_type"] == "door_released"
    assert (await site.present(token))["word"] == "granted", "the challenge of before still holds"


@pytest.mark.usefixtures("unchanged")
async def test_a_removed_door_takes_its_device_and_entities_along_and_is_put_back(hass, site, relay):
    site.change("Front door", returns="by_vestibule", access_time=30)
    await site.unlock()
    site.remove("Front door")
    await hass.async_block_till_done()
    await site.settle()
    assert site.device() is None
    left = er.async_entries_for_config_entry(er.async_get(hass), site.entry.entry_id)
    assert {entity.config_subentry_id for entity in left} == {None}, "only the building's own are left"
    assert relay.told == ["on", "off"]
    relay.lose()
    await hass.async_block_till_done()


@pytest.mark.usefixtures("unchanged")
async def test_a_removed_door_opens_to_no_token_that_is_under_way(hass, site, relay):
    token = await site.token()
    site.remove("Front door")
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("refused", "WRONG_DOOR")
    assert relay.told == []


@pytest.mark.usefixtures("unchanged")
async def test_a_renamed_door_renames_its_device_and_entities(hass, site):
    site.change("Front door", new_title="Garden gate")
    await hass.async_block_till_done()
    assert site.device().name == "Garden gate"
    assert site.lock().name == "Garden gate"
    assert site.access().name == "Garden gate Access"


@pytest.mark.usefixtures("unchanged")
async def test_a_new_relay_takes_over_at_once_and_the_old_one_is_put_back(hass, site, relay):
    site.change("Front door", returns="by_vestibule", access_time=30)
    await site.unlock()
    hass.states.async_set("input_button.bell", "unknown")
    button = {"relay": "input_button.bell", "relay_domain": "input_button"}
    site.change("Front door", **button, returns="by_itself", reports=False)
    await hass.async_block_till_done()
    await site.until("unknown")
    async with asyncio.timeout(30):
        while relay.is_on:  # noqa: ASYNC110 - the old relay is put back while the new one is in use
            await asyncio.sleep(0.005)
    assert relay.told == ["on", "off"]
    assert site.lock().attributes["assumed_state"] is True
    relay.lose()
    await hass.async_block_till_done()
    assert site.lock().state == "unknown", "the old relay is nobody's business any more"


@pytest.mark.usefixtures("unchanged")
async def test_a_change_that_leaves_the_relay_alone_keeps_the_running_release(hass, site, relay):
    site.change("Front door", returns="by_vestibule", access_time=2.0)
    await site.unlock()
    strike = site.embedded.doors[site.door].strike
    site.change("Front door", access_time=20)
    await hass.async_block_till_done()
    assert site.embedded.doors[site.door].strike is strike
    assert site.lock().state == "unlocked"
    await site.until("locked")


@pytest.mark.usefixtures("unchanged")
async def test_a_carrier_that_is_removed_opens_nothing_from_then_on(site, relay):
    token = await site.token()
    site.remove("Parcel Express")
    assert (await site.present(token))["word"] == "invalid_token"
    assert relay.told == []


@pytest.mark.usefixtures("unchanged")
async def test_a_carrier_is_added_live(site):
    other = Cloud("https://other.example")
    site.add_carrier("Other", other)
    assert (await site.present(await site.token(cloud=other)))["word"] == "granted"
    assert site.lock().attributes["changed_by"] == "Other"
