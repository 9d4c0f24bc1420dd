"""A door with a Bluetooth strike: a live Home Assistant, the radio and the strike are three processes.

The bolt is counted from outside, in the log of the strike's relay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home.building import SIDE_GATE, Door, Part, entities_of
from scripts.demo_home.demo import Demo, begin, home_of, make, resume, side_gate_of
from scripts.demo_home.home import Home, free_port
from scripts.demo_home.radio import SideGate, releases
from scripts.demo_home.websocket import WebSocket

from .conftest import Driver, all_logs, errors

pytestmark = pytest.mark.timeout(240)
TRUTH = 10.0
"""Seconds within which Home Assistant has to show the truth once power is back."""
TELLS = 20.0
"""Seconds within which it shows what happened while nobody was connected: it connects for that every 10 s at most, and
looks every 5 s whether it should."""
RELOCK = 10.0
"""Seconds within which an access is over."""
QUIET = 2.0
"""Seconds after which a bolt that wrongly moves at power-up would have done so."""


@dataclass
class Site:
    """A building with a Bluetooth door, and everybody at it."""

    folder: Path
    home: Home
    demo: Demo
    side_gate: SideGate
    code: str
    driver: Driver

    @property
    def door(self) -> Door:
        return self.demo.door(SIDE_GATE)

    @property
    def pulses(self) -> int:
        return len(releases(self.side_gate.folder))

    def state(self, part: Part) -> str:
        state: dict[str, Any] = self.home.get(f"/api/states/{entities_of(self.home, self.door)[part]}")
        return str(state["state"])

    def is_locked_and_closed(self) -> bool:
        return (self.state(Part.LOCK), self.state(Part.CONTACT)) == ("locked", "off")

    def events(self) -> Any:
        return self.home.websocket({"type": "subscribe_events", "event_type": "vestibule_access"})


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    begin(place)
    with SideGate(side_gate_of(place)) as side_gate, home_of(place, free_port()) as home:
        home.radio = side_gate.hears
        demo = make(place, home, side_gate=side_gate)
        yield Site(place, home, demo, side_gate, side_gate.code, Driver.of(place, demo))


def until(true: Callable[[], bool], seconds: float) -> float:
    """Return after how many seconds it was so; at most this many."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


def told(socket: WebSocket, door: Door, count: int) -> list[str]:
    """The outcomes of the next events at a door."""
    outcomes: list[str] = []
    while len(outcomes) < count and (event := socket.told(RELOCK)) is not None:
        if event["data"]["door"] == door.id:
            outcomes.append(event["data"]["outcome"])
    return outcomes


def test_the_strike_is_discovered_paired_and_a_door_like_any_other(site: Site) -> None:
    until(site.is_locked_and_closed, TRUTH)
    assert site.pulses == 0, "nothing moves while it is set up"
    (offers,) = site.home.commands({"type": "config_entries/flow/progress"})
    assert [offer for offer in offers if offer["handler"] == "vestibule"] == [], "it is not offered again"
    lock = site.home.get(f"/api/states/{entities_of(site.home, site.door)[Part.LOCK]}")
    assert not lock["attributes"].get("assumed_state")


def test_a_delivery_opens_it_over_the_radio_and_all_of_it_is_told(site: Site) -> None:
    with site.events() as socket:
        assert site.driver.deliver(site.door) == ("granted", "GRANTED")
        assert site.pulses == 1
        assert site.state(Part.LOCK) == "unlocked"
        assert told(socket, site.door, 5) == [
            "access_granted",
            "door_released",
            "access_taken",
            "door_closed",
            "door_relocked",
        ]
    until(site.is_locked_and_closed, RELOCK)
    assert site.pulses == 1


def test_killed_and_started_again_it_does_not_move_and_home_assistant_shows_the_truth(site: Site) -> None:
    _, used = site.driver.token(site.door)
    assert site.driver.present(site.door, used) == ("granted", "GRANTED")
    before = site.pulses
    site.side_gate.cut_power()  # in the middle of the pulse
    assert site.driver.deliver(site.door)[0] != "granted"
    print("while it has no power:", site.state(Part.LOCK), site.state(Part.CONTACT))
    assert site.state(Part.LOCK) != "locked", "nobody knows"

    site.side_gate.power_up(contact="open")
    seconds = until(lambda: (site.state(Part.LOCK), site.state(Part.CONTACT)) == ("locked", "on"), TRUTH)
    print(f"shown locked, and the gate open, {seconds:.1f} s after the strike was on the air")
    time.sleep(QUIET)
    assert site.pulses == before, "no pulse at power-up, and none for what was asked for while it was dead"

    assert site.driver.present(site.door, used) == ("already_used", "ALREADY_SPENT")
    assert site.pulses == before
    site.side_gate.fall_shut()
    assert site.driver.deliver(site.door) == ("granted", "GRANTED")
    assert site.pulses == before + 1
    until(site.is_locked_and_closed, RELOCK)


def test_opened_while_it_has_power_and_nobody_is_connected_the_door_is_shown_open(site: Site) -> None:
    site.side_gate.pull_open()
    until(lambda: site.state(Part.CONTACT) == "on", TELLS)
    site.side_gate.fall_shut()
    until(site.is_locked_and_closed, TELLS)


def test_home_assistant_started_again_moves_nothing_and_still_has_the_key(site: Site) -> None:
    before = site.pulses
    site.home.stop()
    resume(site.folder, site.home)
    until(site.is_locked_and_closed, TRUTH)
    assert site.pulses == before
    assert site.driver.deliver(site.door) == ("granted", "GRANTED")
    assert site.pulses == before + 1
    until(site.is_locked_and_closed, RELOCK)


def test_neither_the_label_nor_a_key_is_in_a_log(site: Site) -> None:
    logs = all_logs(site.home.folder) + (site.side_gate.folder / "strike.log").read_text()
    assert site.code not in logs
    assert site.code.replace(" ", "").replace("-", "") not in logs
    assert errors(site.home.folder) == []
