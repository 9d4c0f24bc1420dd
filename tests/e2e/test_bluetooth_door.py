"""The demo's gate when its strike, or Home Assistant, is gone for a while: each is a process, and so is the radio.

What happens at it meanwhile is counted from outside, in the log of the strike's relay. Its deliveries and refusals are
played in test_demo.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import GATE, Door, Part, entities_of
from scripts.demo_home.demo import Demo, begin, home_of, make, resume, strike_of
from scripts.demo_home.home import Home, free_port
from scripts.demo_home.radio import Gate, releases

from .conftest import Driver, all_logs, errors

pytestmark = pytest.mark.timeout(240)
TRUTH = 10.0
"""Seconds within which Home Assistant has to show the truth once power is back."""
QUIET = 2.0
"""Seconds after which a bolt that wrongly moves at power-up would have done so."""


@dataclass
class Site:
    """A building with a Bluetooth door, and everybody at it."""

    folder: Path
    home: Home
    demo: Demo
    gate: Gate
    code: str
    driver: Driver

    @property
    def door(self) -> Door:
        return self.demo.door(GATE)

    @property
    def pulses(self) -> int:
        return len(releases(self.gate.folder))

    def state(self, part: Part) -> str:
        state: dict[str, Any] = self.home.get(f"/api/states/{entities_of(self.home, self.door)[part]}")
        return str(state["state"])

    def is_locked_and_closed(self) -> bool:
        return (self.state(Part.LOCK), self.state(Part.CONTACT)) == ("locked", "off")


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    begin(place)
    with Gate(strike_of(place)) as gate, home_of(place, free_port()) as home:
        home.radio = gate.hears
        demo = make(place, home, gate=gate)
        yield Site(place, home, demo, gate, gate.code, Driver.of(place, demo))


def until(true: Callable[[], bool], seconds: float) -> float:
    """Return after how many seconds it was so; at most this many."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


def test_the_strike_is_discovered_paired_and_a_door_like_any_other(site: Site) -> None:
    until(site.is_locked_and_closed, TRUTH)
    assert site.pulses == 0, "nothing moves while it is set up"
    (offers,) = site.home.commands({"type": "config_entries/flow/progress"})
    assert [offer for offer in offers if offer["handler"] == "vestibule"] == [], "it is not offered again"
    lock = site.home.get(f"/api/states/{entities_of(site.home, site.door)[Part.LOCK]}")
    assert not lock["attributes"].get("assumed_state")


def test_killed_and_started_again_it_does_not_move_and_home_assistant_shows_the_truth(site: Site) -> None:
    _, used = site.driver.token(site.door)
    assert site.driver.present(site.door, used) == ("granted", "GRANTED")
    assert site.pulses == 1
    site.gate.cut_power()  # in the middle of the pulse
    assert site.driver.deliver(site.door)[0] != "granted"
    print("while it has no power:", site.state(Part.LOCK), site.state(Part.CONTACT))
    assert site.state(Part.LOCK) != "locked", "nobody knows"

    site.gate.power_up(contact="open")
    seconds = until(lambda: (site.state(Part.LOCK), site.state(Part.CONTACT)) == ("locked", "on"), TRUTH)
    print(f"shown locked, and the gate open, {seconds:.1f} s after the strike was on the air")
    time.sleep(max(0.0, QUIET - seconds))
    assert site.pulses == 1, "no pulse at power-up, and none for what was asked for while it was dead"

    assert site.driver.present(site.door, used) == ("already_used", "ALREADY_SPENT")
    assert site.pulses == 1
    site.gate.fall_shut()
    assert site.driver.deliver(site.door) == ("granted", "GRANTED")
    assert site.pulses == 2


def test_home_assistant_ended_in_the_middle_of_an_access_finds_how_it_went_on_and_still_has_the_key(
    site: Site,
) -> None:
    """The driver goes through, the gate falls shut and the bolt is back while Home Assistant is away."""
    site.home.stop()
    resume(site.folder, site.home)
    until(site.is_locked_and_closed, TRUTH)
    assert site.pulses == 2, "nothing moves at start"
    assert site.driver.deliver(site.door) == ("granted", "GRANTED")
    assert site.pulses == 3


def test_neither_the_label_nor_a_key_is_in_a_log(site: Site) -> None:
    logs = all_logs(site.home.folder) + (site.gate.folder / "strike.log").read_text()
    assert site.code not in logs
    assert site.code.replace(" ", "").replace("-", "") not in logs
    assert errors(site.home.folder) == []
