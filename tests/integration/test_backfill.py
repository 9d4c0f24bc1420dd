"""What a gateway did while Home Assistant was away: each entry of its journal on the bus once, in order, with its time.

The gateway is a process that is killed; the connection is a cable that is pulled out in the middle of a byte string, in
either direction; Home Assistant lets go of the gateway and takes it up again. After each test, the numbers on the bus
are those of the journal.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from homeassistant.components.recorder import Recorder
from homeassistant.components.recorder.tasks import RecorderTask
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_capture_events, mock_component
from pytest_homeassistant_custom_component.components.recorder.common import async_wait_recording_done
from sqlalchemy import text

from custom_components.vestibule import agreement, remote, told
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.api.client import GatewayClient
from custom_components.vestibule.vestibule_core.api.messages import Operation, bearer
from custom_components.vestibule.vestibule_core.errors import GatewayUnreachable, OutcomeUnknown
from custom_components.vestibule.vestibule_core.model import Actor, Code
from tests.cable import Cable
from tests.integration.gateway import Gateway
from tests.integration.test_remote import ROOM, Paired, begin, enter, gateway, until

__all__ = ["gateway"]  # a fixture

pytestmark = pytest.mark.usefixtures("socket_enabled")

AGO = 3600.0
"""Seconds since the first entry that Home Assistant was not there for."""
LONGEST = 0.25
"""Seconds of work at a stretch, in which Home Assistant does nothing else. Here its loop is in debug mode."""


@pytest.fixture(autouse=True)
def our_integration(request: pytest.FixtureRequest) -> None:
    """Load this project's integration; a recorder that somebody needs has to be there before it."""
    if {"activity", "busy_recorder", "recorder_mock"} & set(request.fixturenames):
        request.getfixturevalue("recorder_mock")
    request.getfixturevalue("enable_custom_integrations")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a lost gateway again at once."""
    for module, name in ((remote, "PAUSES"), (agreement, "AGAIN")):
        monkeypatch.setattr(module, name, (0.01, 0.05))


class Away(Paired):
    """A gateway that Home Assistant reaches over a cable, and cannot reach now."""

    def __init__(self, site: Any, gateway: Gateway, entry: Any, cable: Cable) -> None:
        super().__init__(site, gateway, entry)
        self.cable = cable
        self.first = len(self.told()) + 1

    def told(self) -> list[dict[str, Any]]:
        return [event.data for event in self.site.events if "gateway" in event.data]

    @property
    def numbers(self) -> list[int]:
        return [event["sequence"] for event in self.told()]

    def client(self) -> GatewayClient:
        """Somebody who asks the gateway over another cable."""
        data = self.entry.data
        session = remote.new_session(self.hass)
        return GatewayClient(session, "127.0.0.1", self.gateway.port, bearer(data["token"]), remote.fingerprints(data))

    async def come_back(self) -> None:
        """Load the entry, however often that takes."""
        while self.entry.state is not ConfigEntryState.LOADED:
            if self.entry.state is ConfigEntryState.SETUP_RETRY:
                await self.hass.config_entries.async_unload(self.entry.entry_id)
            await self.hass.config_entries.async_setup(self.entry.entry_id)

    async def leave(self) -> None:
        await self.hass.config_entries.async_unload(self.entry.entry_id)

    async def is_caught_up(self, seconds: float = 60) -> int:
        """Return the number of the newest entry once Home Assistant has told it."""
        newest = (await self.client().doors()).newest
        await until(lambda: self.numbers and self.numbers[-1] >= newest, seconds)
        return newest


@pytest.fixture
async def away(hass: HomeAssistant, site: Any, gateway: Gateway) -> AsyncGenerator[Away]:
    """A gateway that was paired, with everything told that is in its journal; its entry is not loaded."""
    async with Cable(gateway.port) as cable:
        port, gateway.port = gateway.port, cable.port
        flow = await begin(hass, gateway)
        flow = await enter(hass, flow, await gateway.code("--trust"))
        gateway.port = port
        await hass.async_block_till_done()
        away = Away(site, gateway, flow["result"], cable)
        await until(lambda: away.entry.runtime_data.policy.version > 0)
        await away.is_caught_up()
        await away.leave()
        yield away
        await away.leave()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("expected_lingering_timers", [True])  # of aiohttp: a frame came while the socket was closed
async def test_ten_thousand_entries_over_a_connection_that_is_cut_all_the_time_are_told_once_and_in_order(away: Away):
    await through_everything(away, entries=10_000, cuts=200, kills=2, reloads=4, seed=7)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("expected_lingering_timers", [True])
@pytest.mark.parametrize("seed", range(5))
async def test_the_same_with_more_cuts_kills_and_reloads(away: Away, seed: int):
    await through_everything(away, entries=20_000, cuts=500, kills=10, reloads=20, seed=seed)


async def through_everything(away: Away, *, entries: int, cuts: int, kills: int, reloads: int, seed: int) -> None:
    """Catch up, and then keep up with what is done at the door, while everything breaks."""
    chance = random.Random(seed)
    await away.gateway.stop()
    await away.gateway.fill(entries, AGO)
    await away.gateway.start()
    before = away.numbers
    done = asyncio.Event()
    longest, patience = [0.0], 60.0 + cuts

    async def look_at_the_clock() -> None:
        at = time.thread_time()
        while not done.is_set():
            await asyncio.sleep(0.001)
            now = time.thread_time()
            longest[0], at = max(longest[0], now - at), now

    async def use_the_door() -> int:
        """Switch its deliveries off and on, beside Home Assistant; return how often that was done for sure."""
        client, door, times = away.client(), away.doors[ROOM], 0
        while not done.is_set():
            with suppress(GatewayUnreachable, OutcomeUnknown):
                await client.operate(door, chance.choice([Operation.DELIVERIES_OFF, Operation.DELIVERIES_ON]), ANN)
                times += 1
            await asyncio.sleep(chance.uniform(0, 0.05))
        return times

    async def at_some_time(times: int, what: Any) -> None:
        """Do something so many times, at cuts that are drawn."""
        for at in sorted(chance.randrange(cuts) for _ in range(times)):
            await until(lambda at=at: away.cable.cuts >= at, patience)
            await what()

    async def power_cut() -> None:
        await away.gateway.kill()
        await asyncio.sleep(chance.uniform(0, 0.2))
        await away.gateway.start()

    async def reload() -> None:
        await away.leave()
        await away.come_back()

    began = monotonic()
    away.cable.lasts = lambda: chance.choice([chance.randrange(6000), chance.randrange(80_000)])
    beside = [asyncio.create_task(job) for job in (look_at_the_clock(), use_the_door())]
    await away.come_back()
    await asyncio.gather(
        at_some_time(kills, power_cut),
        at_some_time(reloads, reload),
        until(lambda: away.cable.cuts >= cuts and len(away.numbers) >= len(before) + entries, patience),
    )
    away.cable.lasts = lambda: None
    done.set()
    used = (await asyncio.gather(*beside))[1]
    newest = await away.is_caught_up()
    print(f"{newest} entries, {used} of them live, {away.cable.cuts} cuts, {monotonic() - began:.1f} s, "
          f"longest block {longest[0] * 1000:.0f} ms")  # fmt: skip
    assert used > 20
    assert away.numbers == before + list(range(before[-1] + 1, newest + 1))
    ages = [entry["sequence"] for entry in away.told() if entry.get("late")]
    assert ages[:entries] == list(range(before[-1] + 1, before[-1] + 1 + entries)), "old news are told to be such"
    assert longest[0] < LONGEST


ANN = Actor("ann", "Ann", is_admin=True)


# ---- what is old, and what is not ----


@pytest.fixture
async def activity(hass: HomeAssistant, hass_ws_client: Any) -> Callable[..., Awaitable[list[dict[str, Any]]]]:
    """Activity; ask it for what is shown of a device and of entities."""
    mock_component(hass, "frontend")
    assert await async_setup_component(hass, "logbook", {})

    async def activity(device: str, *entities: str) -> list[dict[str, Any]]:
        await async_wait_recording_done(hass)
        client = await hass_ws_client()
        since = (dt_util.utcnow() - timedelta(hours=2)).isoformat()
        about = {"device_ids": [device]} | ({"entity_ids": list(entities)} if entities else {})
        await client.send_json_auto_id({"type": "logbook/get_events", "start_time": since, **about})
        return list((await client.receive_json())["result"])

    return activity


@pytest.fixture
async def siren(hass: HomeAssistant, away: Away) -> list[Any]:
    """An automation that somebody's entering sets off; what set it off."""
    ran = async_capture_events(hass, "siren")
    config = {
        "alias": "siren",
        "triggers": {"trigger": "vestibule.access_granted", "target": {"entity_id": away.entity("event", "access")}},
        "actions": {"event": "siren"},
    }
    assert await async_setup_component(hass, "automation", {"automation": config})
    await hass.async_block_till_done()
    return ran


def device(away: Away, whose: str) -> str:
    found = dr.async_get(away.hass).async_get_device_by_identifier((DOMAIN, whose), away.entry.entry_id)
    assert found is not None
    return found.id


async def test_old_news_are_in_activity_with_their_own_time_and_set_nothing_off_and_recent_ones_do(
    hass, activity, away, siren
):
    """The door's page has one line for each of them all the same."""
    await away.gateway.stop()
    await away.gateway.fill(5, AGO)
    await away.gateway.start()
    opened = time.time()
    assert await away.client().operate(away.doors[ROOM], Operation.ACCESS, ANN) is Code.GRANTED
    await until(lambda: away.gateway.movements == ["1 on", "1 off"])
    seen = len(away.told())
    met = (await away.client().doors()).newest  # what comes after it may be told as it happens
    await away.come_back()
    await away.is_caught_up()
    await until(lambda: siren)
    assert len(siren) == 1, "of the two that entered, one did an hour ago"

    told = away.told()[seen:]
    assert [entry.get("late") for entry in told[:5]] == [True] * 5
    recent = [entry for entry in told[5:] if entry["sequence"] <= met]
    assert not any("late" in entry for entry in told[5:])
    lines = await activity(device(away, away.doors[ROOM]), away.entity("event", "access"))
    by_event = [line for line in lines if line.get("domain") == DOMAIN]
    assert [line["message"] for line in by_event] == [
        "granted access by hand",
        "was released",
        "was opened after it had been released",
        "was closed",
        "locked again",
    ]
    when = [line["when"] for line in by_event]
    assert when == [pytest.approx(dt_util.parse_datetime(entry["time"]).timestamp(), abs=0.001) for entry in told[:5]]
    assert opened - when[0] > AGO - 60
    by_entity = [line for line in lines if line.get("entity_id") == away.entity("event", "access")]
    kinds = [line.get("attributes", {}).get("event_type") for line in by_entity]
    assert kinds[kinds.index("access_granted") :][:2] == ["access_granted", "door_released"]
    fired = [event.time_fired_timestamp for event in away.site.events if event.data in recent]
    assert fired == [pytest.approx(dt_util.parse_datetime(entry["time"]).timestamp(), abs=0.001) for entry in recent]


async def test_what_concerns_the_gateway_itself_is_in_the_activity_of_its_device(activity, away):
    await away.come_back()
    await away.grant()
    await away.call("switch", "turn_on", entity_id=away.lockdown_of_the_gateway)
    await until(lambda: away.state("switch", "lockdown", None) == "on")
    lines = await activity(device(away, away.entry.unique_id), away.lockdown_of_the_gateway)
    shown = [line.get("message") or line["state"] for line in lines]
    assert "had what it allows changed" in shown
    assert {line["name"] for line in lines if "message" in line} == {"Parcel room gateway"}
    assert shown.count("on") == 1
    assert not [line for line in shown if "locked down" in line], "the switch has that line"


# ---- Home Assistant is killed ----


@pytest.fixture
def disk(away: Away, hass_storage: dict[str, Any]) -> Disk:
    return Disk(away, hass_storage)


class Disk:
    """What Home Assistant has written of the gateway."""

    def __init__(self, away: Away, storage: dict[str, Any]) -> None:
        self._away, self._storage = away, storage
        self._key = f"{DOMAIN}.gateway.{away.entry.unique_id}"

    @property
    def marks(self) -> tuple[int, int]:
        """Up to where events were told, and up to where they are recorded."""
        written = self._storage[self._key]["data"]
        return written["seen"], written["recorded"]

    def write(self, **marks: int) -> None:
        self._storage[self._key]["data"] = marks

    async def survives_a_kill(self) -> None:
        """Have Home Assistant end, and find what a kill would have left."""
        left = json.loads(json.dumps(self._storage[self._key]))
        await self._away.leave()
        self._storage[self._key] = left


async def test_after_a_kill_what_the_recorder_may_not_have_is_told_again_and_sets_nothing_off_again(away, siren, disk):
    await away.come_back()
    assert await away.client().operate(away.doors[ROOM], Operation.ACCESS, ANN) is Code.GRANTED
    await until(lambda: siren and "access_not_taken" in [entry["outcome"] for entry in away.told()])
    newest = await away.is_caught_up()
    await until(lambda: disk.marks[0] == newest)
    again = disk.marks[1]
    assert again < newest, "that was just now"
    before = away.told()
    where = {"late": True, "device_id": device(away, away.doors[ROOM])}
    await disk.survives_a_kill()
    await away.come_back()
    await until(lambda: len(away.numbers) >= len(before) + newest - again)
    repeated = away.told()[len(before) :]
    assert [entry["sequence"] for entry in repeated] == list(range(again + 1, newest + 1))
    assert [entry | where for entry in before[-len(repeated) :]] == repeated
    assert len(siren) == 1


async def test_after_a_kill_nothing_is_told_again_that_the_recorder_has(away, disk, monkeypatch):
    monkeypatch.setattr(told, "RECORDED", 0.3)
    await away.come_back()
    assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
    newest = await away.is_caught_up()
    await until(lambda: disk.marks == (newest, newest))
    before = away.numbers
    await disk.survives_a_kill()
    await away.come_back()
    assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_ON, ANN) is Code.GRANTED
    await away.is_caught_up()
    assert away.numbers == [*before, newest + 1]


@pytest.fixture
def busy_recorder(recorder_mock: Recorder) -> Iterator[BusyRecorder]:
    """A recorder that is behind for as long as it is told to be."""
    busy = BusyRecorder()
    recorder_mock.queue_task(busy)
    yield busy
    busy.goes_on.set()


@dataclass
class BusyRecorder(RecorderTask):
    commit_before = False
    goes_on: threading.Event = field(default_factory=threading.Event)

    def run(self, instance: Recorder) -> None:
        self.goes_on.wait(60)


async def test_what_a_recorder_that_is_behind_has_not_written_yet_is_told_again_after_a_kill(
    away, disk, busy_recorder, monkeypatch
):
    """However long that takes: a whole night of a gateway at once, on a small machine."""
    monkeypatch.setattr(told, "RECORDED", 0.1)
    monkeypatch.setattr(told, "LAST_WORD", 0.1)
    await away.come_back()
    recorded = disk.marks[1]
    assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
    newest = await away.is_caught_up()
    await until(lambda: disk.marks[0] == newest)
    await asyncio.sleep(0.5)
    assert disk.marks == (newest, recorded)
    await away.leave()
    assert disk.marks == (newest, recorded), "nor when Home Assistant stops"
    await away.come_back()
    await until(lambda: away.numbers[-2:] == [newest, newest])
    busy_recorder.goes_on.set()
    await until(lambda: disk.marks == (newest, newest))


async def test_a_recorder_that_never_answers_is_asked_anew(hass, away, disk, recorder_mock, monkeypatch):
    """As after a commit that failed: it goes on with the next thing, and has forgotten that it was asked."""
    monkeypatch.setattr(told, "RECORDED", 0.1)
    monkeypatch.setattr(told, "PATIENCE", 0.2)
    unanswered = []

    def forget() -> asyncio.Future[None]:
        unanswered.append(hass.loop.create_future())
        return unanswered[-1]

    with monkeypatch.context() as patched:
        patched.setattr(recorder_mock, "async_get_commit_future", forget)
        await away.come_back()
        recorded = disk.marks[1]
        assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
        newest = await away.is_caught_up()
        await until(lambda: len(unanswered) > 1)
        assert disk.marks[1] == recorded < newest
    await until(lambda: disk.marks == (newest, newest))


@pytest.mark.parametrize("recorder_config", [{"commit_interval": 300}])
async def test_what_is_told_in_the_last_moment_is_recorded_when_home_assistant_stops(
    away, disk, recorder_mock, monkeypatch
):
    monkeypatch.setattr(told, "LAST_WORD", 60.0)
    await away.come_back()
    assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
    newest = await away.is_caught_up()
    await away.leave()
    assert disk.marks == (newest, newest)
    with recorder_mock.get_session() as session:
        events = [json.loads(data) for (data,) in session.execute(text("SELECT shared_data FROM event_data"))]
    assert newest in [event.get("sequence") for event in events if "gateway" in event]


async def test_what_a_gateway_does_after_it_has_lost_entries_that_were_told_is_news(away, disk, caplog):
    """As after a kill of both, and a disk that lied. Their numbers come again."""
    newest = disk.marks[0]
    disk.write(seen=newest + 50, recorded=newest - 1)
    await away.come_back()
    assert "has fewer entries in its journal than it had" in caplog.text
    assert await away.client().operate(away.doors[ROOM], Operation.DELIVERIES_OFF, ANN) is Code.GRANTED
    await away.is_caught_up()
    told = away.told()[-2:]
    assert [(entry["sequence"], entry.get("late")) for entry in told] == [(newest, True), (newest + 1, None)]


async def test_what_a_gateway_did_before_it_was_paired_is_told_neither_then_nor_after_a_kill(
    hass, site, gateway, hass_storage
):
    await gateway.stop()
    await gateway.fill(100, AGO)
    await gateway.start()
    flow = await enter(hass, await begin(hass, gateway), await gateway.code("--trust"))
    away = Away(site, gateway, flow["result"], Cable(gateway.port))
    await until(lambda: away.numbers)
    disk = Disk(away, hass_storage)
    await until(lambda: disk.marks[0] == away.numbers[-1])
    assert min(away.numbers) > 100
    await disk.survives_a_kill()
    await away.come_back()
    await away.is_caught_up()
    assert min(away.numbers) > 100
    await away.leave()


async def test_how_far_a_gateway_was_heard_is_written_while_it_is_heard_all_the_time(away, disk, monkeypatch):
    """Else a kill in the evening would have a whole busy day told again."""
    monkeypatch.setattr(told, "RECORDED", 0.5)
    await away.come_back()
    client, written = away.client(), set()
    for number in range(60):
        what = Operation.DELIVERIES_ON if number % 2 else Operation.DELIVERIES_OFF
        assert await client.operate(away.doors[ROOM], what, ANN) is Code.GRANTED
        await asyncio.sleep(0.03)
        written.add(disk.marks)
    seen, recorded = max(written)
    assert seen > away.numbers[-1] - 10
    assert away.numbers[-1] - 40 < recorded < seen


@pytest.mark.parametrize("expected_lingering_timers", [True])  # the same
async def test_what_comes_before_the_entities_are_there_waits_for_them_and_is_not_lost_if_they_never_come(
    away, monkeypatch
):
    await away.gateway.stop()
    await away.gateway.fill(50, AGO)
    await away.gateway.start()
    before = away.numbers

    async def fail(*_: Any) -> None:
        await asyncio.sleep(0.3)
        raise RuntimeError("a platform that does not load")

    with monkeypatch.context() as patched:
        patched.setattr(away.hass.config_entries, "async_forward_entry_setups", fail)
        assert not await away.hass.config_entries.async_setup(away.entry.entry_id)
    assert away.numbers == before
    await away.leave()
    await away.come_back()
    newest = await away.is_caught_up()
    assert away.numbers == before + list(range(before[-1] + 1, newest + 1))
    assert newest >= before[-1] + 50
