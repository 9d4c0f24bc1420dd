"""A building that an earlier release set up and ran goes on under today's version: what was spent opens nothing again.

The homes are earlier.py's, written by the release's own code. Today's integration is put in its place, and Home
Assistant is started. What the hardware did is counted from outside, in the relays' own log.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import Door, Part, entities_of
from scripts.demo_home.demo import Demo, home_of
from scripts.demo_home.home import Home, free_port
from scripts.demo_home.stage import read_relays_log
from vestibule_core.merkle import Tree
from vestibule_core.note import Checkpoint, open_note

from .conftest import Driver, audit, errors, journal_of
from .earlier import entities_then, move_in, start

pytestmark = pytest.mark.timeout(240)

RELEASE = "0.1.0"

type Rows = dict[str, list[tuple[Any, ...]]]
"""What is in each table of a journal that a release has in common with today's version."""


def rows_of(journal: Path) -> Rows:
    """Home Assistant is not running."""
    tables = {"spent": "iss, jti, door, non, at, state", "leaf": "*", "person": "*"}
    with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as db:
        return {
            table: db.execute(f"SELECT {columns} FROM {table} ORDER BY rowid").fetchall()
            for table, columns in tables.items()
        }


@dataclass
class Upgraded:
    """A home in which today's integration has taken over."""

    home: Home
    demo: Demo
    driver: Driver
    before: Rows

    def spent(self) -> list[tuple[Door, str, str]]:
        """Door, id and text of each token that the release let in."""
        by_jti = {}
        for _, _, text in self.before["person"]:
            person = json.loads(text)
            if "jti" in person:
                by_jti[person["jti"]] = person["token"]
        doors = {door.id: door for door in self.demo.doors}
        return [(doors[door], jti, by_jti[jti]) for _, jti, door, *_ in self.before["spent"]]

    def released(self) -> list[str]:
        return [key for _, key in read_relays_log(self.home.relays_log)]

    def state(self, door_key: str, part: Part) -> str:
        entity = entities_of(self.home, self.demo.door(door_key))[part]
        return str(self.home.get(f"/api/states/{entity}")["state"])


@pytest.fixture(scope="module")
def upgraded(place: Path) -> Iterator[Upgraded]:
    with home_of(place, free_port()) as home:
        move_in(RELEASE, place, home, ended=time.time() - 3600)
        before = rows_of(journal_of(home.folder))
        demo = start(RELEASE, home)
        yield Upgraded(home, demo, Driver.of(place, demo), before)


def test_the_building_comes_up_as_it_was_and_nothing_moves(upgraded: Upgraded) -> None:
    (entry,) = upgraded.home.get("/api/config/config_entries/entry?domain=vestibule")
    assert (entry["state"], entry["reason"]) == ("loaded", None)
    (listed,) = upgraded.home.commands({"type": "repairs/list_issues"})
    assert [issue for issue in listed["issues"] if issue["domain"] == "vestibule"] == []
    assert [upgraded.state(door, Part.LOCK) for door in ("gate", "lobby")] == ["locked", "locked"]
    assert [upgraded.state(door, Part.MODE) for door in ("gate", "lobby", "parcel-room")] == [
        "normal",
        "normal",
        "blocked",
    ]
    assert upgraded.released() == []


def test_every_entity_keeps_its_name(upgraded: Upgraded) -> None:
    (entities,) = upgraded.home.commands({"type": "config/entity_registry/list"})
    now = {entity["unique_id"]: entity["entity_id"] for entity in entities if entity["platform"] == "vestibule"}
    then = entities_then(RELEASE)
    assert len(then) > 20
    assert {unique_id: now.get(unique_id) for unique_id in then} == then


def test_a_token_that_the_release_let_in_is_refused(upgraded: Upgraded) -> None:
    """As it was, and (row 25) signed again by the carrier for a new challenge."""
    assert [door.key for door, _, _ in upgraded.spent()] == ["gate", "lobby"]
    for door, jti, text in upgraded.spent():
        assert upgraded.driver.present(door, text) == ("already_used", "ALREADY_SPENT")
        _, signed_again = upgraded.driver.token(door, jti=jti)
        assert signed_again != text
        assert upgraded.driver.present(door, signed_again) == ("already_used", "ALREADY_SPENT")
    assert upgraded.released() == []


def test_a_door_that_was_blocked_lets_no_driver_in(upgraded: Upgraded) -> None:
    assert upgraded.driver.deliver(upgraded.demo.door("parcel-room")) == ("refused", "DOOR_UNAVAILABLE")
    assert upgraded.released() == []


def test_a_driver_who_comes_now_is_let_in_with_the_key_and_the_settings_of_then(upgraded: Upgraded) -> None:
    assert upgraded.driver.deliver(upgraded.demo.door("gate")) == ("granted", "GRANTED")
    assert upgraded.released() == ["gate"]


def test_every_spend_and_entry_is_kept_to_the_byte_and_the_first_checkpoint_covers_them(upgraded: Upgraded) -> None:
    """From here on, Home Assistant is stopped."""
    upgraded.home.stop()
    assert errors(upgraded.home.folder) == []
    assert upgraded.released() == ["gate"]
    journal, before = journal_of(upgraded.home.folder), upgraded.before
    now = rows_of(journal)
    assert {table: len(rows) for table, rows in before.items()} == {"spent": 2, "leaf": 9, "person": 5}
    assert {table: now[table][: len(rows)] for table, rows in before.items()} == before
    assert len(now["spent"]) == 3

    verdict = audit(journal)
    assert verdict.holds, verdict.failure
    assert verdict.entries == len(now["leaf"])
    with closing(sqlite3.connect(journal)) as db:
        size, note = db.execute("SELECT size, note FROM checkpoint ORDER BY size LIMIT 1").fetchone()
    signed = Checkpoint.parse(open_note(note, verdict.keys))
    tree = Tree().extend([data for _, data in before["leaf"]])
    assert (size, signed.size, signed.root) == (len(before["leaf"]), tree.size, tree.root())
