"""A driver and a resident are deleted from a live home's journal: nothing that Vestibule wrote anywhere names them.

Every file of the configuration is searched, whoever wrote it: the journal and the recorder's database with their logs,
what Home Assistant logged and stored. So are the states and an exported journal. The same search finds them first, so
that it can be believed. Two things are Home Assistant's own business: that the resident is a user (`.storage/auth` has
the name, and what is told of a user carries the user's id as its context, in states and in the recorder; users are
deleted there), and the traces of automations, which keep what an automation saw (docs/auditing.md: how to have none).
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import Door, Part, entities_of
from scripts.demo_home.demo import Demo, home_of, make
from scripts.demo_home.home import HOST, Home, free_port
from scripts.demo_home.stage import read_relays_log
from vestibule_core import b64url
from vestibule_core.audit import verify
from vestibule_core.bundle import Bundle

from .conftest import Driver, audit, errors, journal_of

pytestmark = pytest.mark.timeout(240)

NAME = "Zaphira Quillwort"
NAMED_BY_HOME_ASSISTANT = Path(".storage", "auth")
"""The one file in which Home Assistant keeps the names of its users."""
TRACES = Path(".storage", "trace.saved_traces")
"""What automations saw when they last ran; written when Home Assistant stops."""


def automation(lock: str, **trace: int) -> dict[str, Any]:
    """One that has seen both: the lock tells it who opened, and the journal's newest entries are asked for."""
    return {
        "alias": "Who was it",
        "triggers": [{"trigger": "state", "entity_id": lock, "to": "unlocked"}],
        "actions": [{"action": "vestibule.show_journal", "response_variable": "journal"}],
        "trace": trace,
    }


def wait_for_both_automations(home: Home) -> None:
    """They are loaded only after it was answered that they were taken."""
    deadline = time.monotonic() + 30
    states: list[str] = []
    while states != ["on", "on"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        shown = home.get("/api/states")
        states = [state["state"] for state in shown if state["entity_id"].startswith("automation.")]


def wait_for_the_automation(home: Home) -> None:
    deadline = time.monotonic() + 30
    while [run["state"] for run in home.commands({"type": "trace/list", "domain": "automation"})[0]] != ["stopped"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@dataclass
class Site:
    """A home in which a driver and a resident opened the gate."""

    home: Home
    demo: Demo
    driver: Driver
    resident: Home
    """Signed in as the resident, who is no administrator."""
    user_id: str
    """The resident's."""
    token: str
    """The driver's, used."""

    @property
    def gate(self) -> Door:
        return self.demo.door("gate")

    def call(self, action: str, **fields: object) -> dict[str, Any]:
        """The response to an action of Vestibule, called by the manager."""
        call = {"type": "call_service", "domain": "vestibule", "service": action, "service_data": fields}
        (answer,) = self.home.commands(call | {"return_response": True})
        response: dict[str, Any] = answer["response"]
        return response

    def export(self) -> bytes:
        """An exported journal, downloaded with nothing but its address."""
        connection = http.client.HTTPConnection(HOST, self.home.port, timeout=30)
        with closing(connection):
            connection.request("GET", self.call("export_journal")["url"])
            response = connection.getresponse()
            assert response.status == http.client.OK
            return response.read()

    def entry_about(self, who: str) -> int:
        """The number of an entry about somebody, as the manager finds it."""
        entries = self.call("show_journal")["entries"]
        return next(int(entry["sequence"]) for entry in entries if entry["who"] == who)

    def states(self) -> bytes:
        return json.dumps([state | {"context": None} for state in self.home.get("/api/states")]).encode()

    @property
    def journal(self) -> list[Path]:
        """Its file, and its log while Home Assistant runs."""
        file = journal_of(self.home.folder)
        return sorted(path.relative_to(self.home.folder) for path in file.parent.glob(f"{file.name}*"))

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says."""
        claims: dict[str, Any] = json.loads(b64url.decode(self.token.split(".")[1].encode()))
        return claims

    @property
    def traces(self) -> dict[str, bytes]:
        """What would tell who they were: pieces short enough not to be torn apart by the page of a database."""
        _, payload, signature = self.token.split(".")
        return {
            "the driver's pseudonym": self.claims["sub"].encode(),
            "the token's id": self.claims["jti"].encode(),
            "the token's claims": payload[-60:].encode(),
            "the token's signature": signature[:60].encode(),
            "the resident's name": NAME.encode(),
        }

    @property
    def traces_of_ours(self) -> dict[str, bytes]:
        """What must not be left in what is Vestibule's alone."""
        return self.traces | {"the resident's user id": self.user_id.encode()}

    def files(self) -> dict[Path, bytes]:
        found = {}
        for path in self.home.folder.rglob("*"):
            with suppress(FileNotFoundError, IsADirectoryError):  # a live home makes and removes files meanwhile
                found[path.relative_to(self.home.folder)] = path.read_bytes()
        return found


def found(traces: Mapping[str, bytes], where: bytes) -> set[str]:
    return {name for name, trace in traces.items() if trace in where}


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    with home_of(place, free_port()) as home:
        demo = make(place, home)
        create = {"type": "config/auth/create", "name": NAME, "group_ids": ["system-users"]}
        (made,) = home.commands(create)
        user_id = made["user"]["id"]
        credentials = {"user_id": user_id, "username": "resident", "password": "let me in"}
        home.commands({"type": "config/auth_provider/homeassistant/create", **credentials})
        resident = Home(home.folder, home.python, port=home.port)
        resident.log_in("resident", "let me in")

        driver = Driver.of(place, demo)
        _, token = driver.token(demo.door("gate"))
        assert driver.present(demo.door("gate"), token) == ("granted", "GRANTED")
        lock = entities_of(home, demo.door("lobby"))[Part.LOCK]
        home.post("/api/config/automation/config/traced", automation(lock))
        home.post("/api/config/automation/config/untraced", automation(lock, stored_traces=0))
        wait_for_both_automations(home)
        assert resident.perform("lock.unlock", {"entity_id": lock}) is None
        yield Site(home, demo, driver, resident, user_id, token)


@pytest.fixture(scope="module")
def deleted(site: Site) -> Site:
    """The home after the manager has deleted both, who were known to it until then."""
    files = site.files()
    known = set.union(*(found(site.traces_of_ours, files[path]) for path in site.journal))
    assert known == site.traces_of_ours.keys()
    assert found(site.traces_of_ours, site.export()) == known
    assert found(site.traces, site.states()) == {"the resident's name"}  # the lock's `changed_by`
    # Home Assistant may not have written it yet.
    assert found(site.traces, files.get(NAMED_BY_HOME_ASSISTANT, b"")) <= {"the resident's name"}

    wait_for_the_automation(site.home)
    about_driver, about_resident = site.entry_about(site.claims["sub"]), site.entry_about(NAME)
    # The doors may not have locked again yet: what is told of that must not bring anybody back.
    assert site.call("delete_person", sequence=about_driver)["entries"] == 1
    assert site.call("delete_person", sequence=about_resident)["entries"] == 1
    return site


def test_only_an_administrator_deletes(site: Site) -> None:
    refused = site.resident.perform("vestibule.delete_person", {"sequence": 1})
    assert refused == "Unauthorized"


def test_a_live_home_knows_nothing_of_them_any_more(deleted: Site) -> None:
    assert found(deleted.traces, deleted.states()) == set()
    assert found(deleted.traces_of_ours, deleted.export()) == set()
    files = deleted.files()
    for path in deleted.journal:
        assert found(deleted.traces_of_ours, files[path]) == set(), path


def test_the_exported_journal_is_json_lines_and_holds(deleted: Site) -> None:
    lines = deleted.export().splitlines(keepends=True)
    assert len([json.loads(line) for line in lines]) > 10
    bundle = Bundle.open(lines)
    verdict = verify(bundle.header, bundle.runs())
    assert verdict.holds, verdict.failure


def test_their_token_is_still_used(deleted: Site) -> None:
    before = read_relays_log(deleted.home.relays_log)
    assert deleted.driver.present(deleted.gate, deleted.token) == ("already_used", "ALREADY_SPENT")
    assert read_relays_log(deleted.home.relays_log) == before
    assert [key for _, key in before] == ["gate", "lobby"]


def test_no_file_of_the_home_names_them_and_the_journal_holds(deleted: Site) -> None:
    """From here on, Home Assistant is stopped; it has written all that it had to write."""
    deleted.home.stop()
    assert errors(deleted.home.folder) == []
    files = deleted.files()
    assert found(deleted.traces, files.pop(NAMED_BY_HOME_ASSISTANT)) == {"the resident's name"}
    traced = json.loads(files.pop(TRACES))["data"]
    assert {automation: len(runs) for automation, runs in traced.items()} == {
        "automation.traced": 1,
        "automation.untraced": 0,
    }
    assert found(deleted.traces, json.dumps(traced).encode()) == {"the driver's pseudonym", "the resident's name"}
    recorder = deleted.home.folder / "home-assistant_v2.db"
    named = {str(path): traces for path, content in files.items() if (traces := found(deleted.traces, content))}
    assert named == {}
    with closing(sqlite3.connect(f"{recorder.as_uri()}?mode=ro", uri=True)) as db:
        recorded = "\n".join(db.iterdump()).encode()
    assert b"vestibule_access" in recorded
    assert found(deleted.traces, recorded) == set()
    for path in deleted.journal:
        assert found(deleted.traces_of_ours, files[path]) == set(), path

    verdict = audit(journal_of(deleted.home.folder))
    assert verdict.holds, verdict.failure
