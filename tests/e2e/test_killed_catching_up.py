"""A live Home Assistant is killed again and again while it hears what a gateway did without it: nothing is missing.

What its recorder has in the end is compared with the gateway's journal, number by number. A kill takes along what the
recorder has not written yet, so that some of it is told again: each time in order, and as old news.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.demo_home.demo import begin, gateway_of, home_of, make, resume
from scripts.demo_home.home import REPOSITORY, Home, free_port
from scripts.demo_home.room import Room

from .conftest import all_logs, lines_of, recorded

AWAY = 10_000
"""Entries of the gateway that Home Assistant was not there for."""
AGO = 3600.0
"""Seconds since the first of them."""
PATIENCE = 60.0


@dataclass
class Site:
    folder: Path
    home: Home
    room: Room

    @property
    def told(self) -> int:
        """The number of the newest event that Home Assistant has told, as it has written down."""
        return self._marks["seen"]

    @property
    def recorded(self) -> int:
        """The number of the newest event that its recorder has, as it has written down."""
        return self._marks["recorded"]

    @property
    def _marks(self) -> dict[str, int]:
        (kept,) = (self.home.folder / ".storage").glob("vestibule.gateway.*")
        marks: dict[str, int] = json.loads(kept.read_text())["data"]
        return marks

    def fill(self) -> None:
        """Have entries in the gateway's journal."""
        command = [sys.executable, "-m", "tests.gateway.filled", str(self.room.config), str(AWAY), str(AGO)]
        subprocess.run(command, check=True, cwd=REPOSITORY)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("demo") / "demo"  # short: there is a socket in it
    begin(folder)
    with Room(gateway_of(folder)) as room, home_of(folder, free_port()) as home:
        make(folder, home, room=room)
        home.stop()
        yield Site(folder, home, room)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_what_a_killed_home_assistant_did_not_record_is_told_again_and_nothing_is_missing(
    site: Site, kills: int
) -> None:
    chance, before = random.Random(kills), len(recorded(site.folder).events)
    site.room.stop()
    site.fill()
    newest, died_at = lines_of(site.room.state / "journal.db")[-1], []
    site.room.start()
    for number in range(kills):
        part = AWAY // kills
        until = site.told + 1 if number == 0 else newest - AWAY + part * number + chance.randrange(part // 2)
        site.home._launch()
        deadline = time.monotonic() + PATIENCE
        while site.told < min(until, newest - 1):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        site.home.kill()
        died_at.append(site.told)
    resume(site.folder, site.home)
    deadline = time.monotonic() + 2 * PATIENCE
    while site.recorded < newest:  # its last life before may have told all of them already, and not recorded
        assert time.monotonic() < deadline
        time.sleep(0.05)
    site.home.stop()

    told = [event for event in recorded(site.folder).events[before:] if "gateway" in event]
    numbers = [event["sequence"] for event in told]
    back = [(one, other) for one, other in pairwise(numbers) if other != one + 1]
    print(f"died at {died_at} of {newest}; told {len(numbers)} times, from one life to the next {back}")
    assert died_at[0] < newest - AWAY // 2, "at least the first died in the middle"
    assert set(numbers) >= set(range(newest - AWAY + 1, newest + 1)), "nothing is missing"
    assert len(back) <= kills, "in order, but for where a life ended"
    assert all(other <= one + 1 for one, other in back), "nothing is left out"
    assert all(event.get("late") for event in told if event["sequence"] > newest - AWAY), "nothing reacts to them"
    assert "Traceback" not in all_logs(site.home.folder)
