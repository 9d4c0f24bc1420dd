"""A live Home Assistant is backed up while drivers come, and restored: whatever was spent since opens no door again.

Backed up and restored by Home Assistant itself, as its page of backups orders it. What the hardware did is counted from
outside, in the relays' own log. A restore deletes that, so a second name outside of the configuration holds on to it,
and to the journal. Row 32 of the protocol's table of attacks (F).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import Door
from scripts.demo_home.demo import Demo, home_of, make, resume
from scripts.demo_home.home import Home, free_port
from scripts.demo_home.stage import read_relays_log
from scripts.demo_home.websocket import WebSocket
from vestibule_core.note import Checkpoint, open_note

from .conftest import Driver, audit, errors, journal_of

pytestmark = pytest.mark.timeout(240)

BALLAST = 32 * 2**20
"""Bytes of a file that no packer makes smaller: the backup takes a second or more, and a driver comes meanwhile."""


@dataclass
class Site:
    """A home with drivers at its doors."""

    folder: Path
    home: Home
    demo: Demo
    driver: Driver
    presented: dict[str, tuple[Door, str]] = field(default_factory=dict)
    """Door and text of each token, by when it was presented first."""

    @property
    def journal(self) -> Path:
        return journal_of(self.home.folder)

    @property
    def kept_aside(self) -> Path:
        return self.folder / "kept aside"

    def start_again(self) -> None:
        self.home.start()
        self.home.sign_in(self.demo.refresh_token, self.demo.client_id)
        self.home.wait_until_started()

    def released(self, log: Path | None = None) -> Counter[str]:
        return Counter(key for _, key in read_relays_log(log or self.home.relays_log))

    def deliver(self, when: str, door_key: str) -> tuple[str, str | None]:
        door = self.demo.door(door_key)
        _, text = self.driver.token(door)
        self.presented[when] = door, text
        return self.driver.present(door, text)

    def present_all_again(self) -> dict[str, tuple[str, str | None]]:
        return {when: self.driver.present(*shown) for when, shown in self.presented.items()}

    def repairs(self) -> list[dict[str, Any]]:
        (listed,) = self.home.commands({"type": "repairs/list_issues"})
        return [issue for issue in listed["issues"] if issue["domain"] == "vestibule"]


def is_at_rest(journal: Path) -> bool:
    """Whether the journal's file says that it is being copied. Read without a look at its log, and without a lock."""
    with contextlib.closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return bool(db.execute("SELECT 1 FROM meta WHERE key = 'copied'").fetchone())


def back_up(site: Site, socket: WebSocket) -> str:
    """Let a backup be made, deliver once while the journal is at rest and once when it is done; return its id."""
    socket.command({"type": "backup/subscribe_events"})
    socket.command({"type": "backup/generate", "agent_ids": ["backup.local"], "name": "Whole"})
    while not is_at_rest(site.journal):
        told = socket.told(0.01)
        assert told is None or told.get("state") not in {"completed", "failed"}, told
    at_rest = site.journal.read_bytes()
    assert site.deliver("during the backup", "lobby") == ("granted", "GRANTED")
    told_so_far = []
    while (told := socket.told(0)) is not None:
        told_so_far.append(told.get("state"))
    assert "completed" not in told_so_far, "the backup was over before a driver came"
    assert site.journal.read_bytes() == at_rest, "what happened meanwhile was not kept out of the file"

    while (told := socket.told(30)) is not None and told.get("state") not in {"completed", "failed"}:
        pass
    assert told is not None
    assert told["state"] == "completed", told
    (backup,) = socket.command({"type": "backup/info"})["backups"]
    assert backup["database_included"]
    return str(backup["backup_id"])


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    with home_of(place, free_port()) as home:
        demo = make(place, home)
        # Home Assistant writes down entities and users a moment after the fact; a backup would miss those.
        home.stop()
        resume(place, home)
        (home.folder / "ballast").write_bytes(os.urandom(BALLAST))
        yield Site(place, home, demo, Driver.of(place, demo))


@pytest.fixture(scope="module")
def restored(site: Site) -> Site:
    """The home, restored to how it was before the last driver came."""
    assert site.deliver("before the backup", "gate") == ("granted", "GRANTED")
    with site.home.websocket() as socket:
        backup_id = back_up(site, socket)
    assert site.deliver("after the backup", "parcel-room") == ("granted", "GRANTED")
    once_each = Counter({"gate": 1, "lobby": 1, "parcel-room": 1})
    assert site.released() == once_each
    assert not site.repairs()
    assert errors(site.home.folder) == []

    site.kept_aside.mkdir()
    for file in site.journal, site.home.relays_log:
        os.link(file, site.kept_aside / file.name)
    site.home.restore(backup_id)
    assert site.released(site.kept_aside / "relays.log") == once_each, "a relay moved while Home Assistant ended"
    assert not site.home.relays_log.exists()
    site.start_again()
    return site


def assert_nothing_opens_again(site: Site) -> None:
    before = site.released()
    answers = site.present_all_again()
    assert answers.pop("before the backup") == ("already_used", "ALREADY_SPENT")
    assert answers.pop("after the backup") == ("refused", "NONCE_UNKNOWN")
    # Its entry is in the journal's log. Whether the backup has that depends on when the log was copied.
    assert answers.pop("during the backup") in {("already_used", "ALREADY_SPENT"), ("refused", "NONCE_UNKNOWN")}
    assert not answers
    assert site.released() == before


def test_a_restored_home_says_so_by_a_repair_and_moves_nothing(restored: Site) -> None:
    (repair,) = restored.repairs()
    assert (repair["issue_id"], repair["severity"], repair["is_fixable"]) == ("journal_restored", "error", True)
    assert not restored.released()


def test_row_32_a_token_that_was_spent_after_the_backup_is_refused_after_the_restore(restored: Site) -> None:
    assert_nothing_opens_again(restored)


def test_row_32_a_restart_without_a_reboot_of_the_host_makes_no_difference(restored: Site) -> None:
    """The time since boot, which is in a challenge, goes on as if nothing had been; the challenge is void even so."""
    restored.home.stop()
    restored.start_again()
    assert_nothing_opens_again(restored)
    assert [repair["issue_id"] for repair in restored.repairs()] == ["journal_restored"]


def test_a_driver_who_comes_after_the_restore_is_let_in(restored: Site) -> None:
    before = restored.released()
    assert restored.deliver("after the restore", "parcel-room") == ("granted", "GRANTED")
    assert restored.released() - before == Counter({"parcel-room": 1})


def test_the_repair_goes_when_the_manager_confirms_it(restored: Site) -> None:
    fix = "/api/repairs/issues/fix"
    form = restored.home.post(fix, {"handler": "vestibule", "issue_id": "journal_restored"})
    assert (form["type"], form["step_id"]) == ("form", "confirm")
    assert restored.repairs(), "asking is not confirming"
    assert restored.home.post(f"{fix}/{form['flow_id']}", {})["type"] == "create_entry"
    assert not restored.repairs()


def test_the_journal_holds_and_what_the_restore_lost_is_proved_by_a_checkpoint_that_was_kept(restored: Site) -> None:
    """From here on, Home Assistant is stopped."""
    restored.home.stop()
    assert errors(restored.home.folder) == []
    assert restored.released() == Counter({"parcel-room": 1})
    lost, journal = restored.kept_aside / restored.journal.name, restored.journal
    before, now = audit(lost), audit(journal)
    assert before.holds, before.failure
    assert now.holds, now.failure
    assert now.keys == before.keys, "it is another building's"
    with contextlib.closing(sqlite3.connect(journal)) as db:
        said = Counter(kind for (kind,) in db.execute("SELECT CAST(bytes AS TEXT) ->> '$.kind' FROM leaf"))
    assert (said["journal_restored"], said["restore_confirmed"]) == (1, 1)

    assert before.newest is not None
    kept = Checkpoint.parse(open_note(before.newest, before.keys))
    assert audit(lost, kept=kept).holds
    assert not audit(journal, kept=kept).holds
