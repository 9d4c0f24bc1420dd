"""The demo's parcel room when its gateway, or Home Assistant, is gone for a while: both are processes, as is the board.

What happens at it meanwhile is counted from outside, in the board's own log. Its deliveries and refusals are played in
test_demo.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scripts.demo_home.building import ISSUER, PARCEL_ROOM, Door, Part, entities_of, lockdown_of
from scripts.demo_home.carrier import TurnedAway
from scripts.demo_home.demo import Demo, begin, gateway_of, home_of, make, resume
from scripts.demo_home.home import HOST, Home, free_port
from scripts.demo_home.room import Room, moves, releases
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient
from vestibule_core.api.messages import Bearer
from vestibule_core.model import DoorId, Issuer

from .conftest import Driver, all_logs, errors, recorded

pytestmark = pytest.mark.timeout(240)
ACCESS = ["access_granted", "door_released", "access_taken", "door_closed", "door_relocked"]
"""What is told of an access when the driver goes in."""
HELD_OPEN = 6.0
TRUTH = 15.0
"""Seconds within which Home Assistant has to show the truth once the gateway is back."""
QUIET = 2.0
"""Seconds after which a relay that wrongly moves at a start would have done so."""
WRITTEN = 60.0
"""Seconds within which Home Assistant has to know that its recorder has written down what it was told last."""


@dataclass
class Site:
    """A building with a door at a gateway, and everybody at it."""

    folder: Path
    home: Home
    demo: Demo
    room: Room
    driver: Driver

    @property
    def door(self) -> Door:
        return self.demo.door(PARCEL_ROOM)

    @property
    def pulses(self) -> int:
        return len(releases(self.room.folder))

    def entity(self, part: Part) -> str:
        return entities_of(self.home, self.door)[part]

    def shows(self, part: Part) -> dict[str, Any]:
        state: dict[str, Any] = self.home.get(f"/api/states/{self.entity(part)}")
        return state

    def state(self, part: Part) -> str:
        return str(self.shows(part)["state"])

    def reasons(self) -> list[str]:
        reasons: list[str] = self.shows(Part.PROBLEM)["attributes"]["reasons"]
        return reasons

    def is_locked_and_closed(self) -> bool:
        return (self.state(Part.LOCK), self.state(Part.CONTACT)) == ("locked", "off")

    def logged(self) -> list[tuple[int, str]]:
        """What the gateway's own log says of the parcel room. A kill may have kept it from saying something."""
        lines = re.findall(r"^info (\w+) seq=(\d+) door=parcel-room ", self.room.log.read_text(), re.MULTILINE)
        return [(int(number), outcome) for outcome, number in lines]

    def heard(self) -> list[tuple[int, str]]:
        """What was told on the bus of the parcel room, in order."""
        self.home.activity(
            datetime.now(UTC).isoformat(), entity_ids=[self.entity(Part.LOCK)]
        )  # then it is written down
        return [
            (event["sequence"], event["outcome"])
            for event in recorded(self.folder).events
            if event["door"] == self.door.id
        ]

    def is_known_to_be_recorded(self, newest: int) -> bool:
        """Whether Home Assistant has noted that its recorder has the gateway's events up to this number."""
        (kept,) = (self.home.folder / ".storage").glob("vestibule.gateway.*")
        return bool(json.loads(kept.read_text())["data"]["recorded"] >= newest)

    def key_of_home_assistant(self) -> dict[str, Any]:
        """What Home Assistant keeps of the gateway: its bearer and the certificate."""
        stored = json.loads((self.home.folder / ".storage" / "core.config_entries").read_text())
        (data,) = (entry["data"] for entry in stored["data"]["entries"] if "token" in entry["data"])
        return dict(data)


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    begin(place)
    with Room(gateway_of(place), held_open=HELD_OPEN) as room, home_of(place, free_port()) as home:
        demo = make(place, home, room=room)
        yield Site(place, home, demo, room, Driver.of(place, demo))


def until(true: Callable[[], bool], seconds: float) -> float:
    """Return after how many seconds it was so; at most this many."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


def hears(site: Site, outcomes: list[str], since: int = 0) -> None:
    """Wait until just this was told of the parcel room: what happened is shown at once, and told when it is written."""
    until(lambda: len(site.heard()) >= since + len(outcomes), TRUTH)
    assert [outcome for _, outcome in site.heard()][since:] == outcomes


@dataclass(frozen=True)
class Cloud:
    """The carrier's cloud with a bearer of its own: it calls the gateway, and not Home Assistant."""

    site: Site
    bearer: Bearer
    fingerprint: bytes

    @classmethod
    def paired(cls, site: Site) -> Cloud:
        """Pair it, and have the manager let it present the tokens of Swift Parcels, and do nothing else."""
        code = site.room.pairing_code()

        async def pair() -> Cloud:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                paired = await client.pair(session, HOST, site.room.port, code, "Swift Parcels")
                manager = site.key_of_home_assistant()
                answer = await session.put(
                    f"https://{HOST}:{site.room.port}/v1/clients/{paired.client_id}",
                    json={"scopes": ["present"], "issuers": [ISSUER]},
                    headers={"Authorization": f"Bearer {manager['token']}"},
                    ssl=aiohttp.Fingerprint(bytes.fromhex(manager["fingerprint"])),
                )
                assert answer.status == 200, await answer.text()
                return cls(site, paired.token, paired.fingerprint)

        return asyncio.run(pair())

    def ask[T](self, what: Callable[[GatewayClient], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                return await what(GatewayClient(session, HOST, self.site.room.port, self.bearer, [self.fingerprint]))

        return asyncio.run(ask())

    def token(self) -> str:
        door = self.site.door
        challenge = self.ask(lambda gateway: gateway.challenge(DoorId(door.id), Issuer(ISSUER)))
        return self.site.driver.token(door, challenge=challenge.nonce)[1]

    def present(self, token: str) -> tuple[str, str | None]:
        answer = self.ask(lambda gateway: gateway.unlock(DoorId(self.site.door.id), token))
        return answer.word, answer.code


@pytest.fixture(scope="module")
def cloud(site: Site) -> Cloud:
    return Cloud.paired(site)


def test_the_gateway_is_paired_by_its_code_and_its_door_is_like_any_other(site: Site) -> None:
    until(site.is_locked_and_closed, TRUTH)
    assert site.pulses == 0, "nothing moves while it is set up"
    assert not site.shows(Part.LOCK)["attributes"].get("assumed_state"), "the board says where its relay is"
    status = site.room.status()
    assert "Vestibule demo" in status
    assert "Swift Parcels" in status


def test_a_delivery_through_home_assistant_moves_the_relay_of_the_board_once(site: Site) -> None:
    _, token = site.driver.token(site.door)
    began = time.perf_counter()
    assert site.driver.present(site.door, token) == ("granted", "GRANTED")
    print(f"granted {(time.perf_counter() - began) * 1000:.1f} ms after it was presented")
    assert site.driver.present(site.door, token) == ("already_used", "ALREADY_SPENT")
    assert site.pulses == 1
    until(lambda: [word for _, word in moves(site.room.folder)] == ["on", "off"], TRUTH)
    until(site.is_locked_and_closed, TRUTH)
    hears(site, ACCESS)


def test_a_door_that_somebody_props_open_is_a_problem_until_it_is_closed(site: Site) -> None:
    pulses, before = site.pulses, len(site.heard())
    began = time.monotonic()
    site.room.pull_open()
    until(lambda: site.state(Part.CONTACT) == "on", TRUTH)
    until(lambda: site.reasons() == ["door_held_open"], HELD_OPEN + TRUTH)
    assert time.monotonic() - began > HELD_OPEN - 1
    site.room.fall_shut()
    until(lambda: site.reasons() == [] and site.state(Part.CONTACT) == "off", TRUTH)
    hears(site, ["door_opened", "door_held_open_warning", "door_held_open", "door_closed"], since=before)
    assert site.pulses == pulses


def test_a_killed_gateways_board_ends_the_access_itself_and_home_assistant_knows_nothing_meanwhile(site: Site) -> None:
    _, used = site.driver.token(site.door)
    assert site.driver.present(site.door, used) == ("granted", "GRANTED")
    site.room.kill()  # in the middle of the access
    until(lambda: site.state(Part.LOCK) == "unavailable", TRUTH)
    with pytest.raises(TurnedAway, match="503"):
        site.driver.present(site.door, used)
    until(lambda: [word for _, word in moves(site.room.folder)] == ["on", "off"] * 2, TRUTH)

    site.room.start()
    seconds = until(site.is_locked_and_closed, TRUTH)
    print(f"shown locked and closed {seconds:.1f} s after the gateway was back")
    time.sleep(QUIET)
    assert site.pulses == 2, "nothing moves at start"
    assert site.driver.present(site.door, used) == ("already_used", "ALREADY_SPENT")
    before = len(site.heard())
    assert site.driver.deliver(site.door) == ("granted", "GRANTED")
    assert site.pulses == 3
    until(site.is_locked_and_closed, TRUTH)
    hears(site, ACCESS, since=before)


def test_while_home_assistant_is_dead_the_gateway_lets_drivers_in_and_it_is_told_once_and_in_order(
    site: Site, cloud: Cloud
) -> None:
    before, logged, pulses = site.heard(), len(site.logged()), site.pulses
    if before:
        until(lambda: site.is_known_to_be_recorded(before[-1][0]), WRITTEN)
    began = datetime.now(UTC).isoformat()
    site.home.kill()
    token = cloud.token()
    started = time.perf_counter()
    assert cloud.present(token) == ("granted", "GRANTED")
    print(f"granted {(time.perf_counter() - started) * 1000:.1f} ms after it was presented to the gateway itself")
    assert cloud.present(token) == ("already_used", "ALREADY_SPENT")
    assert site.pulses == pulses + 1
    until(lambda: "door_relocked" in dict(site.logged()[logged:]).values(), TRUTH)

    resume(site.folder, site.home)
    until(site.is_locked_and_closed, TRUTH)
    until(lambda: len(site.heard()) >= len(before) + 5, TRUTH)
    after = site.heard()
    assert after[: len(before)] == before, "nothing is told again"
    assert after[len(before) :] == site.logged()[logged:]
    assert [outcome for _, outcome in after[len(before) :]] == ACCESS
    shown = site.home.activity(began, entity_ids=[site.entity(Part.ACCESS)])
    print("in Activity:", [line.get("state") for line in shown], site.shows(Part.ACCESS)["attributes"]["event_type"])
    assert site.pulses == pulses + 1, "nothing moves because Home Assistant is back"


def test_a_lockdown_holds_for_whoever_calls_the_gateway_itself(site: Site, cloud: Cloud) -> None:
    pulses, switch = site.pulses, lockdown_of(site.home, site.demo.doors)
    assert site.home.perform("switch.turn_on", {"entity_id": switch}) is None
    assert cloud.present(cloud.token()) == ("refused", "DOOR_UNAVAILABLE")
    assert site.home.perform("switch.turn_off", {"entity_id": switch}) is None
    assert cloud.present(cloud.token()) == ("granted", "GRANTED")
    assert site.pulses == pulses + 1
    until(site.is_locked_and_closed, TRUTH)


def test_neither_a_bearer_nor_a_token_is_in_a_log(site: Site, cloud: Cloud) -> None:
    logs = all_logs(site.home.folder) + site.room.log.read_text()
    assert "access_granted" in logs
    for secret in cloud.bearer, site.key_of_home_assistant()["token"]:
        assert secret not in logs
    assert "eyJ" not in logs  # how every token of this kind begins
    assert errors(site.home.folder) == []
