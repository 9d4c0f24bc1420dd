"""A live Home Assistant that ends while it is backed up: nothing is lost, and what cannot be told apart is asked.

Killed, it finds the files that a restore would bring, and a repair asks which it was (ADR 13). Stopped, it waits for
its backup, and there is nothing to ask. Nothing opens twice, either way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from scripts.demo_home.demo import home_of, make, resume
from scripts.demo_home.home import free_port

from .conftest import Driver, audit, errors
from .test_backup_live import BALLAST, Site, is_at_rest

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    with home_of(place, free_port()) as home:
        demo = make(place, home)
        home.stop()
        resume(place, home)
        (home.folder / "ballast").write_bytes(os.urandom(2 * BALLAST))
        yield Site(place, home, demo, Driver.of(place, demo))


def begin_backup(site: Site) -> None:
    """Order a backup, and return when the journal is at rest for it."""
    with site.home.websocket() as socket:
        socket.command({"type": "backup/subscribe_events"})
        socket.command({"type": "backup/generate", "agent_ids": ["backup.local"], "name": "Cut short"})
        while not is_at_rest(site.journal):
            told = socket.told(0.01)
            assert told is None or told.get("state") not in {"completed", "failed"}, told


def test_killed_in_a_backup_it_asks_which_it_was_and_has_every_entry(site: Site) -> None:
    begin_backup(site)
    assert site.deliver("during the backup", "lobby") == ("granted", "GRANTED")
    before = site.released()
    assert before == Counter({"lobby": 1})
    last = datetime.now().astimezone()
    assert is_at_rest(site.journal), "the backup was over before the kill"
    site.home.kill()
    site.start_again()

    (repair,) = site.repairs()
    assert (repair["issue_id"], repair["severity"], repair["is_fixable"]) == ("journal_restored", "error", True)
    noted = datetime.fromisoformat(f"{repair['translation_placeholders']['last']}+00:00")
    assert 0 <= (last - noted).total_seconds() < 120, "it names the minute of the opening: so nothing is missing"
    assert site.present_all_again() == {"during the backup": ("already_used", "ALREADY_SPENT")}
    assert site.released() == before
    assert site.deliver("after the start", "gate") == ("granted", "GRANTED"), "deliveries go on unconfirmed"


def test_confirmed_it_is_never_asked_again(site: Site) -> None:
    fix = "/api/repairs/issues/fix"
    form = site.home.post(fix, {"handler": "vestibule", "issue_id": "journal_restored"})
    assert form["description_placeholders"].keys() == {"last"}
    assert site.home.post(f"{fix}/{form['flow_id']}", {})["type"] == "create_entry"
    site.home.kill()
    site.start_again()
    assert site.repairs() == []


def test_stopped_in_a_backup_it_ends_that_first_and_has_nothing_to_ask(site: Site) -> None:
    begin_backup(site)
    site.home.stop()
    assert not is_at_rest(site.journal), "the note was taken back, and the log copied into the file"
    assert audit(site.journal).holds
    site.start_again()
    assert site.repairs() == []
    # A file that Home Assistant writes by another one and renames may vanish under its own backup.
    assert [line for line in errors(site.home.folder) if "[homeassistant.components.backup]" not in line] == []
