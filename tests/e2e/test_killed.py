"""A live Home Assistant is killed at random points of an unlock, started again, and shown every token once more.

What the hardware did is counted from outside, in the relays' own log; what was spent is read from the journal once
Home Assistant is dead. The rule (protocol D): at most once, whatever is killed, and nothing moves at a start.
"""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.demo_home.building import Door
from scripts.demo_home.carrier import TurnedAway
from scripts.demo_home.demo import Demo, home_of, make, resume
from scripts.demo_home.home import Home, free_port
from scripts.demo_home.stage import read_relays_log

from .conftest import Driver, all_logs

KILLS = 10
UNLOCK = 0.05
"""Seconds; a little more than an unlock takes here, so that kills fall before, into and after it."""
QUIET = 2.0
"""Seconds after a complete start in which a relay that wrongly moves would have done so."""


@dataclass
class Presented:
    """A token that was on its way when Home Assistant was killed."""

    door: Door
    jti: str
    text: str
    word: str | None = None
    """The answer, if one came."""
    spent: bool = False


@dataclass
class Carrier:
    """What a round needs to make tokens and to present them."""

    demo: Demo
    home: Home
    folder: Path
    driver: Driver

    def token(self, door: Door) -> Presented:
        return Presented(door, *self.driver.token(door))

    def present(self, token: Presented) -> None:
        try:
            token.word, _ = self.driver.present(token.door, token.text)
        except OSError, http.client.HTTPException, TurnedAway:  # it died under us
            token.word = None

    def released(self) -> Counter[str]:
        return Counter(key for _, key in read_relays_log(self.home.relays_log))


def spent(home: Home) -> dict[str, tuple[str, str]]:
    """The door and state of each spent token, by its id; Home Assistant is not running."""
    journal = sqlite3.connect(home.folder / ".storage" / "vestibule.journal.db")
    try:
        return {jti: (door, state) for jti, door, state in journal.execute("SELECT jti, door, state FROM spent")}
    finally:
        journal.close()


@pytest.fixture
def carrier(tmp_path: Path) -> Iterator[Carrier]:
    folder = tmp_path / "demo"
    with home_of(folder, free_port()) as home:
        demo = make(folder, home)
        # Home Assistant writes down users and entries a moment after the fact; a round must not lose those.
        home.stop()
        resume(folder, home)
        yield Carrier(demo, home, folder, Driver.of(folder, demo))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_kill_in_the_middle_of_an_unlock_opens_no_door_twice(carrier: Carrier) -> None:
    home = carrier.home
    tokens: list[Presented] = []
    told: list[str] = []
    for _ in range(KILLS):
        before = carrier.released()
        round_ = [carrier.token(door) for door in carrier.demo.doors]
        callers = [threading.Thread(target=carrier.present, args=(token,)) for token in round_]
        for caller in callers:
            caller.start()
        wait = random.uniform(0, UNLOCK)
        time.sleep(wait)
        home.kill()
        for caller in callers:
            caller.join(30)
        after = carrier.released()
        known = set(spent(home))

        for token in round_:
            token.spent = token.jti in known
            moved = after[token.door.key] - before[token.door.key]
            assert moved <= 1, f"the {token.door.name} released {moved} times for one token"
            assert moved <= token.spent, f"the {token.door.name} released without a durable record"
            if token.word == "granted":
                assert moved == 1, f"the {token.door.name} was granted and did not release"
            told.append(f"{wait * 1000:4.1f} ms {token.door.key:<12} moved={moved} spent={token.spent} {token.word}")
        tokens += round_

        home.prepare()
        resume(carrier.folder, home)
        time.sleep(QUIET)
        assert carrier.released() == after, "a relay moved at the start"

    settled = carrier.released()
    for token in tokens:
        carrier.present(token)
        assert token.word == ("already_used" if token.spent else "refused")
    assert carrier.released() == settled, "a token moved a relay a second time"
    assert {state for _, state in spent_after_stop(home).values()} <= {"GRANTED", "FAILED", "UNKNOWN"}
    print("\n".join(told))

    logs = all_logs(home.folder)
    kept = json.loads((carrier.folder / "demo.json").read_text())
    secrets = [kept["password"], kept["refresh_token"], (carrier.folder / "swift" / "intake-key").read_text()]
    for secret in [*secrets, *(token.text for token in tokens), *(token.jti for token in tokens)]:
        assert secret not in logs


def spent_after_stop(home: Home) -> dict[str, tuple[str, str]]:
    home.stop()
    return spent(home)
