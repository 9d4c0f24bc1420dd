"""Backups of Home Assistant: the doors work meanwhile, the copy is whole, and a restored one is told of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.vestibule.backup import async_post_backup, async_pre_backup
from custom_components.vestibule.const import DOMAIN, IDENTITY_FILE, JOURNAL_FILE
from custom_components.vestibule.vestibule_core.schema import held
from tests.integration.site import Site
from tests.integration.test_repairs import Repairs, repairs, texts  # noqa: F401 - a fixture


async def test_row_32_a_journal_that_was_restored_is_told_of_and_replays_are_refused(
    hass: HomeAssistant,
    site: Site,
    relay: Any,
    repairs: Repairs,  # noqa: F811
) -> None:
    file = Path(hass.config.path(".storage", JOURNAL_FILE))
    await site.unlock()
    await site.settle()
    last = dt_util.as_local(dt_util.utc_from_timestamp(site.embedded.journal.newest)).strftime("%Y-%m-%d %H:%M")
    await async_pre_backup(hass)
    backup = await hass.async_add_executor_job(file.read_bytes)
    today = await site.token()
    assert (await site.present(today))["code"] == "GRANTED", "the doors work while the files are copied"
    assert await hass.async_add_executor_job(file.read_bytes) == backup
    await async_post_backup(hass)
    await site.settle()
    assert await repairs.listed() == {}

    assert await hass.config_entries.async_unload(site.entry.entry_id)
    await hass.async_add_executor_job(file.write_bytes, backup)
    await site.load()
    await site.settle()
    (repair,) = (await repairs.listed()).values()
    assert repair["issue_id"] == "journal_restored"
    assert f"before this start: {last}." in texts(repair)
    assert "ended while a backup was made" in texts(repair), "which is not to be told from a restore (ADR 13)"
    assert "journal_restored" in [outcome for outcome, _ in site.outcomes()]
    assert (await site.present(today))["code"] == "NONCE_UNKNOWN"
    assert (await repairs.confirm(await repairs.open("journal_restored"))).type == "create_entry"
    await site.settle()
    assert await repairs.listed() == {}
    assert (await site.present(await site.token()))["code"] == "GRANTED"


async def test_a_backup_without_a_building_or_with_a_failed_journal_is_made_all_the_same(
    hass: HomeAssistant, site: Site, caplog: Any
) -> None:
    site.embedded._journal.failed = True
    await async_pre_backup(hass)
    assert "will not say that it is one" in caplog.text
    await async_post_backup(hass)
    site.embedded._journal.failed = False  # else nobody closes it
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    await async_pre_backup(hass)
    await async_post_backup(hass)


# ---- after their time ----


async def entries_of_long_ago(hass: HomeAssistant, site: Site, days: int = 31) -> None:
    """Open the door as if it were so many days ago."""
    controller = site.embedded.controller
    now = controller._clock
    controller._clock = lambda: replace(now(), wall=now().wall - days * 86400)
    await site.unlock()
    await site.settle()
    controller._clock = now


async def persons(site: Site) -> list[str]:
    return [entry.person.text for entry in await site.embedded._journal.newest_entries(None, 100) if entry.person]


async def test_who_it_was_goes_after_30_days_while_home_assistant_runs(
    hass: HomeAssistant, site: Site, relay: Any
) -> None:
    await entries_of_long_ago(hass, site)
    assert len(await persons(site)) == 1
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(hours=1, minutes=1))
    await hass.async_block_till_done(wait_background_tasks=True)
    assert await persons(site) == []
    assert site.embedded.journal_entries == len(site.events)


async def test_and_before_anything_is_shown(hass: HomeAssistant, site: Site, relay: Any) -> None:
    await entries_of_long_ago(hass, site)
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    assert await persons(site) == []


async def kept_for(hass: HomeAssistant, site: Site, choice: str) -> None:
    flow = await site.entry.start_reconfigure_flow(hass)
    typed = {"name": "Linden Court", "persons_kept": choice}
    await hass.config_entries.flow.async_configure(flow["flow_id"], typed)
    await hass.async_block_till_done()


async def test_of_90_days_nothing_goes_after_31(hass: HomeAssistant, site: Site, relay: Any) -> None:
    await kept_for(hass, site, "days_90")
    await entries_of_long_ago(hass, site, 91)
    await entries_of_long_ago(hass, site, 31)
    assert await hass.config_entries.async_reload(site.entry.entry_id)
    assert len(await persons(site)) == 1
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(hours=1, minutes=1))
    await hass.async_block_till_done(wait_background_tasks=True)
    assert len(await persons(site)) == 1


async def test_a_shorter_time_applies_at_once(hass: HomeAssistant, site: Site, relay: Any) -> None:
    controller = site.embedded.controller
    await kept_for(hass, site, "days_90")
    await entries_of_long_ago(hass, site)
    assert len(await persons(site)) == 1
    await kept_for(hass, site, "days_30")
    assert await persons(site) == []
    assert site.embedded.controller is controller, "nothing was reloaded"


UNREADABLE = "INSERT INTO meta VALUES('deleting:1', '[')"
"""A note of a deletion that was begun, and of whom cannot be read: nothing is taken out any more."""


async def test_a_journal_out_of_which_nothing_can_be_taken_is_refused_and_let_go(
    hass: HomeAssistant, site: Site
) -> None:
    file = Path(hass.config.path(".storage", JOURNAL_FILE))
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(UNREADABLE)
    assert not await hass.config_entries.async_setup(site.entry.entry_id)
    assert site.entry.state is ConfigEntryState.SETUP_ERROR
    assert site.entry.error_reason_translation_key == "journal_damaged"
    with held(file), closing(sqlite3.connect(file)) as db, db:
        db.execute("DELETE FROM meta WHERE key = 'deleting:1'")
    assert await hass.config_entries.async_reload(site.entry.entry_id)


async def test_that_nothing_can_be_taken_out_any_more_is_said_and_shuts_no_door(
    hass: HomeAssistant, site: Site, relay: Any, caplog: Any
) -> None:
    await site.embedded.journal._submit(lambda writer: writer.db.execute(UNREADABLE) and None)
    await site.embedded.retain()
    assert "The journal is damaged" in caplog.text
    assert (await site.present(await site.token()))["code"] == "GRANTED"


# ---- a backup that the building does not live to see the end of ----


async def test_a_building_that_was_unloaded_before_the_backup_ended_is_no_restored_one(
    hass: HomeAssistant,
    site: Site,
    relay: Any,
    repairs: Repairs,  # noqa: F811
) -> None:
    await entries_of_long_ago(hass, site)
    await async_pre_backup(hass)
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    await async_post_backup(hass)
    file = Path(hass.config.path(".storage", JOURNAL_FILE))
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT * FROM meta WHERE key = 'copied'").fetchall() == []
    await site.load()
    assert await repairs.listed() == {}
    assert await persons(site) == [], "what is due is deleted again"


async def test_a_building_that_was_removed_before_the_backup_ended_leaves_the_next_one_alone(
    hass: HomeAssistant,
    site: Site,
    relay: Any,
    repairs: Repairs,  # noqa: F811
) -> None:
    await async_pre_backup(hass)
    assert await hass.config_entries.async_remove(site.entry.entry_id)
    await async_post_backup(hass)
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": "Oak House"})
    await hass.async_block_till_done()
    assert flow["result"].state is ConfigEntryState.LOADED
    assert await repairs.listed() == {}
    assert flow["result"].runtime_data._journal._copied is False


# ---- the building is removed ----


async def test_a_building_that_is_removed_leaves_its_journal_under_a_dated_name(
    hass: HomeAssistant, site: Site, relay: Any, caplog: Any
) -> None:
    await site.unlock()
    await site.settle()
    storage, today = Path(hass.config.path(".storage")), dt_util.now().date().isoformat()
    written = site.embedded.journal_entries
    (storage / f"vestibule.journal.{today}.db").touch()  # of an earlier building, removed today
    assert await hass.config_entries.async_remove(site.entry.entry_id)
    await hass.async_block_till_done()
    assert not (storage / JOURNAL_FILE).exists()
    assert not (storage / IDENTITY_FILE).exists()
    kept = storage / f"vestibule.journal.{today}.2.db"
    db = sqlite3.connect(kept)
    assert db.execute("SELECT count(*) FROM leaf").fetchone() == (written,)
    db.close()
    assert kept.name in caplog.text


async def test_a_journal_that_another_program_holds_keeps_its_name(
    hass: HomeAssistant, site: Site, caplog: Any
) -> None:
    storage = Path(hass.config.path(".storage"))
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    with held(storage / JOURNAL_FILE):
        assert await hass.config_entries.async_remove(site.entry.entry_id)
        await hass.async_block_till_done()
    assert (storage / JOURNAL_FILE).exists()
    assert (storage / IDENTITY_FILE).exists()
    assert "is in use and keeps its name" in caplog.text


async def test_a_building_that_never_had_a_journal_is_removed(hass: HomeAssistant, site: Site) -> None:
    assert await hass.config_entries.async_unload(site.entry.entry_id)
    await hass.async_add_executor_job(Path(hass.config.path(".storage"), JOURNAL_FILE).unlink)
    assert await hass.config_entries.async_remove(site.entry.entry_id)
