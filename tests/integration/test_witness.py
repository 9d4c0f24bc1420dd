"""Home Assistant and a gateway as each other's witnesses: row 68 of protocol F, against a real gateway process.

What is set back here is set back for real: the journal's file, while its program is stopped.
"""
# ruff: noqa: F811 - fixtures of another file

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import AsyncMock

import pytest
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import issue_registry as ir

from custom_components.vestibule import gateway_issues, witness
from custom_components.vestibule.const import DOMAIN, IDENTITY_FILE, JOURNAL_FILE
from custom_components.vestibule.diagnostics import async_get_config_entry_diagnostics
from custom_components.vestibule.embedded import make_new_key
from custom_components.vestibule.vestibule_core import receipts
from custom_components.vestibule.vestibule_core.api import client
from custom_components.vestibule.vestibule_core.api.client import GatewayClient
from custom_components.vestibule.vestibule_core.api.messages import Happened
from custom_components.vestibule.vestibule_core.cosignature import cosigned_at
from custom_components.vestibule.vestibule_core.epoch import read_head
from custom_components.vestibule.vestibule_core.errors import GatewayRefused, MalformedMessage
from custom_components.vestibule.vestibule_core.model import AccessEvent, Actor, EventName
from tests.integration.gateway import Gateway
from tests.integration.test_remote import (  # noqa: F401 - fixtures
    ROOM,
    Paired,
    begin,
    confirm,
    enter,
    gateway,
    hurried,
    paired,
    say,
    until,
)

pytestmark = pytest.mark.usefixtures("socket_enabled")

_FILES = ("", "-wal")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert witness.LOOK_EVERY == 60.0
    monkeypatch.setattr(witness, "LOOK_EVERY", 0.1)


def rows(journal: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(journal)) as db:
        return db.execute(sql).fetchall()


def journal_of(gateway: Gateway) -> Path:
    return gateway.folder / "state" / "journal.db"


def copy_of(journal: Path, folder: Path) -> Path:
    """Copy a journal that nobody has open."""
    folder.mkdir()
    for end in _FILES:
        if (file := journal.with_name(journal.name + end)).exists():
            shutil.copy(file, folder / file.name)
    return folder


def put_back(folder: Path, journal: Path) -> None:
    for end in _FILES:
        journal.with_name(journal.name + end).unlink(missing_ok=True)
    for file in folder.iterdir():
        shutil.copy(file, journal.with_name(file.name))


async def stop(paired: Paired) -> None:
    await paired.gateway.stop()
    await until(lambda: not paired.entry.runtime_data.is_there)


async def seen_all(paired: Paired) -> None:
    """Return when Home Assistant holds the end of the gateway's journal, and its own is held there."""
    remote, own = paired.entry.runtime_data, paired.site.embedded.journal

    def holds() -> bool:
        note = remote.witness.note
        if note is None or read_head(note, [remote.key]).size != remote.standing.newest:
            return False
        return own.checkpoint is None or own.checkpoint.startswith(remote.witness._shown or "not yet")

    await until(holds)


async def deliver(paired: Paired) -> str:
    site = paired.site
    return str((await site.present(await site.token(paired.doors[ROOM])))["word"])


async def release_ended(paired: Paired) -> None:
    """Return when the room's release has ended, and nothing more comes of it."""
    await until(lambda: "access_not_taken" in paired.outcomes())


def issues(hass: HomeAssistant) -> set[str]:
    return {issue.translation_key for issue in ir.async_get(hass).issues.values() if issue.domain == DOMAIN}


# ---- while all is well ----


async def test_each_cosigns_the_others_journal_and_neither_grows_by_that(paired):
    await seen_all(paired)
    await paired.grant()
    assert await deliver(paired) == "granted"
    own_door = {"entity_id": paired.site.entity_id("select"), "option": "blocked"}
    await paired.call("select", "select_option", **own_door)  # which nothing follows
    await release_ended(paired)
    await seen_all(paired)
    remote, own = paired.entry.runtime_data, paired.site.embedded.journal
    before = remote.standing.newest, own.sequence
    await asyncio.sleep(0.5)
    assert (remote.standing.newest, own.sequence) == before
    assert cosigned_at(own.checkpoint, remote.key) is None, "it is the journal's file that has the cosigned one"
    await paired.gateway.stop()
    notes = [note for (note,) in rows(journal_of(paired.gateway), "SELECT note FROM checkpoint")]
    assert any(cosigned_at(note, own.signer.verifier) for note in notes)
    head = await receipts.newest_head(own)
    (kept,) = own._writer.db.execute("SELECT note FROM checkpoint WHERE size = ?", (head.size,)).fetchone()
    assert cosigned_at(kept, remote.key) is not None
    assert issues(paired.hass) == set()


async def test_what_was_seen_is_in_the_diagnostics(hass, paired):
    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    facts = (await async_get_config_entry_diagnostics(hass, paired.entry))["gateway"]["witness"]
    assert facts == {"trouble": None, "checkpoint": paired.entry.runtime_data.witness.note, "earlier_checkpoints": []}


# ---- a gateway's journal is not whole ----


@pytest.fixture
async def set_back(paired: Paired, tmp_path: Path) -> Paired:
    """A gateway whose journal was set back to before a delivery."""
    await seen_all(paired)
    await paired.grant()
    await stop(paired)
    copy = copy_of(journal_of(paired.gateway), tmp_path / "copy")
    await paired.find()
    assert await deliver(paired) == "granted"
    await release_ended(paired)
    await seen_all(paired)
    await stop(paired)
    put_back(copy, journal_of(paired.gateway))
    await paired.find()
    return paired


async def test_row_68_a_gateway_that_was_set_back_opens_nothing_until_an_administrator_has_looked(
    hass,
    set_back,
    confirm,
    hass_admin_user,
    hass_read_only_user,
):
    remote, movements = set_back.entry.runtime_data, len(set_back.gateway.movements)
    lost = remote.witness.note
    await until(lambda: remote.witness.trouble is witness.Trouble.BEHIND and remote.standing.disputed)
    assert issues(hass) == {"gateway_disputed"}
    assert await deliver(set_back) == "refused"
    lock = set_back.entity("lock", "lock")
    hass_read_only_user.mock_policy({"entities": {"entity_ids": {lock: True}}})
    with pytest.raises(HomeAssistantError) as raised:
        await set_back.call("lock", "unlock", Context(user_id=hass_read_only_user.id), entity_id=lock)
    assert raised.value.translation_key == "journal_disputed"
    assert len(set_back.gateway.movements) == movements
    await set_back.call("lock", "unlock", Context(user_id=hass_admin_user.id), entity_id=lock)
    await until(lambda: len(set_back.gateway.movements) > movements)

    assert await hass.config_entries.async_reload(set_back.entry.entry_id), "and beginning anew is no way out"
    remote = set_back.entry.runtime_data
    assert remote.witness.trouble is witness.Trouble.BEHIND
    await until(lambda: issues(hass) == {"gateway_disputed"})

    assert await confirm(f"gateway_disputed_{set_back.entry.unique_id}") == "create_entry"
    await until(lambda: remote.witness.trouble is None and not remote.standing.disputed)
    await until(lambda: issues(hass) == set())
    assert remote.witness.before == [lost]
    assert await deliver(set_back) == "granted"
    await until(lambda: remote.witness.note is not None)
    assert read_head(remote.witness.note, [remote.key]).epoch.number == 1
    await until(lambda: "epoch_begun" in [event.data["outcome"] for event in set_back.site.events])
    await seen_all(set_back)


async def test_a_gateway_that_was_set_back_and_written_on_is_found_out_as_well(hass, set_back):
    """What happened since is more than what was lost."""
    remote = set_back.entry.runtime_data
    await until(lambda: remote.witness.trouble is not None)
    await remote.witness._store.async_save({"note": remote.witness.note, "before": [], "trouble": None})
    await hass.config_entries.async_unload(set_back.entry.entry_id)
    await set_back.gateway.stop()
    journal = journal_of(set_back.gateway)
    with contextlib.closing(sqlite3.connect(journal)) as db, db:  # as if nobody had told it, and it had gone on
        db.execute("DELETE FROM meta WHERE key = 'disputed'")
    await set_back.gateway.start()
    await hass.config_entries.async_setup(set_back.entry.entry_id)
    remote = set_back.entry.runtime_data
    await until(lambda: remote.witness.trouble is not None and remote.standing.disputed)
    assert issues(hass) == {"gateway_disputed"}


async def test_a_gateway_that_leaves_entries_out_of_what_it_tells_is_found_out(hass, paired, confirm):
    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    remote = paired.entry.runtime_data
    newest = remote.standing.newest
    event = AccessEvent(outcome=EventName.DOOR_OPENED, door=paired.doors[ROOM], at=1.8e9, sequence=newest + 3)
    remote._take(Happened(event))
    await paired.settle()
    assert remote.witness.trouble is witness.Trouble.GAP
    assert issues(hass) == {"gateway_disputed"}
    assert await deliver(paired) == "refused"
    held = remote.witness.note
    assert await confirm(f"gateway_disputed_{paired.entry.unique_id}") == "create_entry"
    await until(lambda: issues(hass) == set())
    assert (remote.witness.note, remote.witness.before) == (held, []), "what was seen of its journal is still right"
    assert await deliver(paired) == "granted"


async def test_an_empty_journal_in_the_place_of_a_longer_one_is_found_out(hass, paired):
    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    remote = paired.entry.runtime_data
    await remote.witness._see(remote.witness._head, witness.Witnessed(None, None))
    assert remote.witness.trouble is witness.Trouble.BEHIND


async def test_a_gateway_that_is_replaced_leaves_its_end_behind(hass, paired, tmp_path):
    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    held, key, old = paired.entry.runtime_data.witness.note, paired.entry.runtime_data.key, paired.entry.unique_id
    assert held is not None
    folder = tmp_path / "replacement"
    folder.mkdir()
    other = await Gateway(folder).start()
    try:
        context = {"source": "reconfigure", "entry_id": paired.entry.entry_id}
        flow = await hass.config_entries.flow.async_init(DOMAIN, context=context)
        flow = await say(hass, flow, host="127.0.0.1", port=other.port)
        flow = await enter(hass, flow, await other.code("--trust"))
        await hass.async_block_till_done()
        assert paired.entry.unique_id != old
        await until(lambda: paired.entry.runtime_data.is_there)
        [archived] = paired.entry.runtime_data.witness.before
        ends = [read_head(note, [key]).size for note in (held, archived)]
        assert ends == sorted(ends)  # it may have written on until it was let go of
        assert issues(hass) == set()
        assert await witness.witness_store(hass, old).async_load() is None
    finally:
        await hass.config_entries.async_unload(paired.entry.entry_id)
        await other.close()


# ---- the building's journal is not whole ----


async def test_row_68_a_building_that_was_set_back_lets_no_token_in_until_an_administrator_has_looked(
    hass,
    paired,
    confirm,
    tmp_path,
    cloud,
):
    site, building = paired.site, paired.site.entry.entry_id
    journal = Path(hass.config.path(".storage", JOURNAL_FILE))
    await site.unlock()
    await hass.config_entries.async_unload(building)
    copy = copy_of(journal, tmp_path / "copy")
    await hass.config_entries.async_setup(building)
    for _ in range(3):
        assert (await site.present(await site.token()))["word"] == "granted"
    await site.settle()
    await seen_all(paired)
    await hass.config_entries.async_unload(building)
    put_back(copy, journal)
    await hass.config_entries.async_setup(building)
    await site.settle()

    hand = site.embedded.controller.by_hand
    await until(lambda: hand.disputed)
    await until(lambda: "journal_disputed" in issues(hass))
    answer = await site.present(await site.token())
    assert (answer["word"], answer["code"]) == ("refused", "DOOR_UNAVAILABLE")
    assert await confirm("journal_disputed") == "create_entry"
    await until(lambda: "journal_disputed" not in issues(hass))
    assert (await site.present(await site.token()))["word"] == "granted"
    await seen_all(paired)
    assert (await receipts.newest_head(site.embedded.journal)).epoch.number == 1
    assert not hand.disputed
    assert EventName.WITNESS_REFUSED not in [event.data["outcome"] for event in site.events]


async def test_what_a_gateway_makes_up_about_the_building_proves_nothing(paired, monkeypatch, caplog):
    remote, own = paired.entry.runtime_data, paired.site.embedded.journal
    await paired.site.unlock()
    await seen_all(paired)
    forged = own.checkpoint.replace("\n", "\n9", 1)
    await remote.witness._show(own, forged)
    assert not paired.site.embedded.controller.by_hand.disputed
    assert "proves nothing" in caplog.text


async def test_an_end_that_the_new_epoch_does_not_name_is_to_be_looked_at_as_well(
    hass,
    paired,
    confirm,
    tmp_path,
    cloud,
):
    """A second gateway, say, that was away when the rollback which the first one saw was confirmed."""
    site, building = paired.site, paired.site.entry.entry_id
    journal = Path(hass.config.path(".storage", JOURNAL_FILE))
    await site.unlock()
    await hass.config_entries.async_unload(building)
    copy = copy_of(journal, tmp_path / "copy")
    await hass.config_entries.async_setup(building)
    await site.present(await site.token())
    await site.settle()
    other = site.embedded.journal.checkpoint
    await site.present(await site.token())
    await site.settle()
    await seen_all(paired)
    await hass.config_entries.async_unload(building)
    put_back(copy, journal)
    await hass.config_entries.async_setup(building)
    await until(lambda: "journal_disputed" in issues(hass))
    assert await confirm("journal_disputed") == "create_entry"
    await seen_all(paired)
    own, hand, look = site.embedded.journal, site.embedded.controller.by_hand, paired.entry.runtime_data.witness

    await site.unlock()
    await look._show(own, other)
    assert hand.disputed
    await until(lambda: "journal_disputed" in issues(hass))
    assert await confirm("journal_disputed") == "create_entry"
    await seen_all(paired)
    assert other.split("\n")[1] in " ".join(
        (await receipts.first_of_epoch(own))
        .check([replace(own.signer.verifier, name=(await receipts.newest_head(own)).checkpoint.origin)])[0]
        .leaf.heads
    )


async def test_a_gateway_that_does_not_cosign_is_looked_at_all_the_same(hass, paired, monkeypatch):
    await seen_all(paired)
    remote = paired.entry.runtime_data

    async def refuse(_: object) -> None:
        raise GatewayRefused(409, "conflict")

    monkeypatch.setattr(GatewayClient, "show", lambda _, shown: refuse(shown))
    await paired.site.unlock()
    await paired.grant()
    await paired.settle()
    await until(lambda: read_head(remote.witness.note, [remote.key]).size == remote.standing.newest)


async def test_a_gap_is_not_forgotten_because_the_journal_was_set_back_and_forth(hass, paired):
    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    remote = paired.entry.runtime_data
    look, newest = remote.witness, remote.standing.newest
    look.missing(newest + 1, newest + 2)
    shown = await remote.client.witnessed(look._head.size, remote.key)
    await look._see(look._head, witness.Witnessed(None, None))
    await look._see(look._head, shown)
    assert look.trouble is witness.Trouble.GAP


async def test_what_is_confirmed_before_the_gateway_knew_of_it_is_named_all_the_same(
    hass, paired, confirm, monkeypatch
):
    told = []

    async def dispute(_: object, note: str) -> None:
        told.append(note)

    await seen_all(paired)
    await paired.grant()
    await seen_all(paired)
    remote = paired.entry.runtime_data
    monkeypatch.setattr(witness.Witness, "_look", AsyncMock())
    remote.witness.trouble, held = witness.Trouble.BEHIND, remote.witness.note
    remote.notify()
    await until(lambda: issues(hass) == {"gateway_disputed"})
    monkeypatch.setattr(GatewayClient, "dispute", dispute)
    assert await confirm(f"gateway_disputed_{paired.entry.unique_id}") == "create_entry"
    assert told == [held]


async def test_a_gateway_that_answers_rubbish_to_what_it_signed_can_be_confirmed_all_the_same(
    hass, paired, confirm, monkeypatch
):
    async def rubbish(*_: object) -> None:
        raise MalformedMessage("rubbish")

    await seen_all(paired)
    remote = paired.entry.runtime_data
    monkeypatch.setattr(witness.Witness, "_look", AsyncMock())
    remote.witness.trouble = witness.Trouble.BEHIND
    remote.notify()
    await until(lambda: issues(hass) == {"gateway_disputed"})
    monkeypatch.setattr(GatewayClient, "dispute", rubbish)
    assert await confirm(f"gateway_disputed_{paired.entry.unique_id}") == "create_entry"
    assert remote.witness.trouble is None


async def test_under_a_name_that_was_let_go_of_nothing_is_cosigned(hass, paired, monkeypatch):
    """It would be a second history of one name with this Home Assistant's word for both."""
    await paired.site.unlock()
    await seen_all(paired)
    remote, cosigned = paired.entry.runtime_data, []

    async def keep(_: object, note: str) -> None:
        cosigned.append(note)

    monkeypatch.setattr(GatewayClient, "cosigned", keep)
    look = remote.witness
    look.trouble = witness.Trouble.FORKED
    await look.accept()
    await until(lambda: look.note is not None)
    await paired.grant()
    await seen_all(paired)
    assert cosigned == []


async def test_a_gateway_that_was_paired_again_with_a_new_key_is_witnessed_from_then_on(hass, paired):
    await seen_all(paired)
    remote = paired.entry.runtime_data
    kept = {"note": paired.site.embedded.journal.checkpoint, "before": [], "trouble": None}
    await paired.site.unlock()
    await paired.settle()
    kept["note"] = paired.site.embedded.journal.checkpoint
    await hass.config_entries.async_unload(paired.entry.entry_id)
    await remote.witness._store.async_save(kept)
    await hass.config_entries.async_setup(paired.entry.entry_id)
    await seen_all(paired)
    assert paired.entry.runtime_data.witness.before == [kept["note"]]


@pytest.mark.parametrize("status, trouble", [(429, None), (503, None), (404, witness.Trouble.FORKED)])
async def test_a_new_epoch_whose_proof_has_to_wait_is_no_alarm(set_back, confirm, monkeypatch, status, trouble):
    remote = set_back.entry.runtime_data
    await until(lambda: remote.witness.trouble is not None and remote.standing.disputed)
    held = remote.witness._head
    await confirm(f"gateway_disputed_{set_back.entry.unique_id}")
    await seen_all(set_back)

    async def refuse(*_: object) -> None:
        raise GatewayRefused(status, "later")

    async with remote.witness._looking:  # by nobody else meanwhile
        monkeypatch.setattr(witness.Witness, "_look", AsyncMock())
        remote.witness.note = held.note
        shown = await remote.client.witnessed(held.size, remote.key)
        monkeypatch.setattr(GatewayClient, "proof", refuse)
        with contextlib.suppress(GatewayRefused):
            await remote.witness._see(held, shown)
    assert remote.witness.trouble is trouble


async def test_a_building_that_was_set_back_and_got_a_new_key_is_found_out_by_its_earlier_one(hass, paired, tmp_path):
    """Who deletes the key as well begins with a new one, which nobody has seen anything of."""
    site, building = paired.site, paired.site.entry.entry_id
    storage = Path(hass.config.path(".storage"))
    await site.unlock()
    await hass.config_entries.async_unload(building)
    copy = copy_of(storage / JOURNAL_FILE, tmp_path / "copy")
    await hass.config_entries.async_setup(building)
    for _ in range(3):
        await site.unlock()
    await site.settle()
    await seen_all(paired)
    await hass.config_entries.async_unload(building)
    put_back(copy, storage / JOURNAL_FILE)
    (storage / IDENTITY_FILE).unlink()
    await hass.async_add_executor_job(make_new_key, storage, site.entry, Actor("ann-1", "Ann", is_admin=True))
    await hass.config_entries.async_unload(paired.entry.entry_id)
    await hass.config_entries.async_setup(building)
    await hass.config_entries.async_setup(paired.entry.entry_id)
    await until(lambda: site.embedded.controller.by_hand.disputed)


async def shows_nothing(remote: Any, monkeypatch: Any) -> None:
    """Have the gateway not show its journal, and return when that was seen."""

    async def refuse(*_: Any) -> None:
        raise GatewayRefused(500, "broken")

    monkeypatch.setattr(type(remote.client), "witnessed", refuse)
    remote.witness.look_soon()
    await until(lambda: remote.witness.failing_since is not None)


async def test_a_gateway_that_does_not_let_itself_be_witnessed_is_a_repair(hass, paired, monkeypatch):
    remote = paired.entry.runtime_data
    await seen_all(paired)

    await shows_nothing(remote, monkeypatch)
    assert issues(hass) == set()
    remote.witness.failing_since -= gateway_issues.UNWITNESSED
    remote.notify()
    await paired.settle()
    assert issues(hass) == {"gateway_unwitnessed"}
    monkeypatch.undo()
    remote.witness.look_soon()
    await until(lambda: remote.witness.failing_since is None)
    await until(lambda: issues(hass) == set())


async def test_a_gateway_that_went_away_in_the_middle_of_a_look_is_not_the_one_that_shows_nothing(
    hass, paired, monkeypatch
):
    """Its power fails: what is asked then fails, and that it is away is known later."""
    remote = paired.entry.runtime_data
    await seen_all(paired)
    paired.gateway.signal(signal.SIGSTOP)
    monkeypatch.setattr(client, "DEADLINE", 0.3)
    remote.witness.look_soon()
    await until(lambda: remote.witness.failing_since is not None)
    assert remote.is_there
    paired.gateway.signal(signal.SIGCONT)
    remote.witness.failing_since -= gateway_issues.UNWITNESSED / 2
    await paired.lose()
    assert remote.witness.failing_since is None
    async with remote.witness._looking:
        await remote.witness._look()
    assert remote.witness.failing_since is None, "not while it is away either"


async def test_a_gateway_that_shows_nothing_does_not_begin_anew_by_going_away_each_hour(paired, monkeypatch):
    remote = paired.entry.runtime_data
    await seen_all(paired)

    await shows_nothing(remote, monkeypatch)
    remote.witness.failing_since -= 3000
    await paired.lose()
    await paired.find()
    remote.witness.look_soon()
    await until(lambda: remote.witness.failing_since is not None)
    assert monotonic() - remote.witness.failing_since > 2990
    monkeypatch.undo()
    remote.witness.look_soon()
    await until(lambda: remote.witness.failing_since is None)
    assert remote.witness._failed_for == 0
