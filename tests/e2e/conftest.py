"""What the end-to-end tests share: real Home Assistants, made by the same code as the demo's."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import Door
from scripts.demo_home.carrier import Cloud
from scripts.demo_home.demo import Demo, cloud_of, intake_of, phone_of, request
from scripts.demo_home.home import REPOSITORY
from scripts.demo_home.stage import AT_THE_DOOR
from vestibule_core.audit import Verdict, verify
from vestibule_core.evidence import read_header, read_runs
from vestibule_core.note import Checkpoint
from vestibule_core.schema import look


@pytest.fixture(scope="session")
def newer_python() -> Path:
    """The interpreter of an environment with Home Assistant 2026.11.0 and without this project."""
    subprocess.run([REPOSITORY / "scripts" / "setup", "--ha-2026.11"], check=True, timeout=500)
    return REPOSITORY / ".venv-2026.11" / "bin" / "python"


@pytest.fixture(scope="session")
def own_python() -> Path:
    """The interpreter of the development environment, with Home Assistant 2026.10.4."""
    return Path(sys.executable)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for a demo, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Driver:
    """A driver of the demo's carrier, with its cloud behind."""

    folder: Path
    demo: Demo
    cloud: Cloud

    @classmethod
    def of(cls, folder: Path, demo: Demo) -> Driver:
        return cls(folder, demo, cloud_of(folder, demo))

    def token(
        self, door: Door, *, metres_away: float = AT_THE_DOOR, jti: str | None = None, challenge: str | None = None
    ) -> tuple[str, str]:
        """The id and the text of what the cloud signs after it has confirmed the four things and got a challenge.

        ``jti`` is an id in place of a new one: that of another token, signed again. ``challenge``: the cloud has asked
        for it elsewhere than at Home Assistant's intake.
        """
        now = time.time()
        wish = request(self.demo, door, metres_away=metres_away, now=now)
        _, confirmed = self.cloud.confirm(wish, phone_of(self.folder).sign(wish), now)
        if challenge is None:
            challenge, _ = intake_of(self.folder, self.demo).challenge(door.id)
        claims = self.cloud.claims(wish, confirmed, door.id, challenge, now)
        if jti is not None:
            claims = replace(claims, jti=jti)
        return claims.jti, self.cloud.sign(claims)

    def present(self, door: Door, token: str) -> tuple[str, str | None]:
        """The building's word and reason."""
        answer = intake_of(self.folder, self.demo).present(door.id, token)
        return answer["word"], answer["code"]

    def deliver(self, door: Door, *, metres_away: float = AT_THE_DOOR) -> tuple[str, str | None]:
        return self.present(door, self.token(door, metres_away=metres_away)[1])


def journal_of(config: Path) -> Path:
    return config / ".storage" / "vestibule.journal.db"


def audit(journal: Path, *, kept: Checkpoint | None = None) -> Verdict:
    """Hold a journal that nobody writes to against what was signed, and against a checkpoint that was ``kept``."""
    with look(journal) as db:
        header = read_header(db)
        return verify(header, read_runs(db, header), kept=kept)


def all_logs(config: Path) -> str:
    """Everything that a Home Assistant wrote for people to read."""
    logs = [config / "console.log", *config.glob("home-assistant.log*")]
    return "\n".join(log.read_text("utf-8", "replace") for log in logs)


def errors(config: Path) -> list[str]:
    """The errors in those logs, but for what a person was told on the screen: Home Assistant writes that down, too."""
    lines = [line for line in all_logs(config).splitlines() if " ERROR " in line]
    return [line for line in lines if "[homeassistant.components.websocket_api" not in line]


@dataclass(frozen=True)
class Recorded:
    """What Home Assistant's recorder has written down, in its order."""

    states: list[str]
    """The entity of each."""
    events: list[dict[str, Any]]
    """Ours on the bus."""

    @property
    def sequences(self) -> list[int]:
        """The number of each of our events in its journal."""
        return [event["sequence"] for event in self.events]


def recorded(folder: Path) -> Recorded:
    path = folder / "config" / "home-assistant_v2.db"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as recorder:
        states = recorder.execute(
            "SELECT states_meta.entity_id FROM states JOIN states_meta USING (metadata_id) ORDER BY state_id"
        ).fetchall()
        events = recorder.execute(
            "SELECT shared_data FROM events JOIN event_types USING (event_type_id) JOIN event_data USING (data_id)"
            " WHERE event_types.event_type = 'vestibule_access' ORDER BY event_id"
        ).fetchall()
    return Recorded([entity for (entity,) in states], [json.loads(data) for (data,) in events])


def lines_of(journal: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(journal)) as db:
        return [number for (number,) in db.execute("SELECT seq FROM leaf ORDER BY seq")]
