"""A replica that is killed between the wish and its outcome, and so is PostgreSQL: the answer is honest, a door of a
stop opens once at the most, and nothing that was written is lost.
"""

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from carrier import decide
from carrier.checks import Reason
from carrier.decide import settle
from carrier.store import Store, StoreUnavailable, database_url, schema
from carrier.store.tables import RequestState
from tests.simulated import pulses_in

from .town import Town

ROOT = Path(__file__).parents[2]


async def killed_at(point, store, folder):
    """Let a replica ask for the door and be killed at ``point``."""
    await (await Town.founded(store, folder)).site.strike.aclose()
    database = store.url.render_as_string(hide_password=False).replace("+aiosqlite", "").replace("+asyncpg", "")
    replica = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.carrier.cloud_process", database, folder, point, cwd=ROOT
    )
    assert await replica.wait() == -signal.SIGKILL
    return await Town.again(store, folder)


@pytest.mark.parametrize("point", ["before_challenge", "signing"])
async def test_killed_before_a_token_is_written_down_the_door_is_given_back(store, tmp_path, point):
    town = await killed_at(point, store, tmp_path)
    assert await town.rows("SELECT state FROM request") == ["asked"]
    assert await town.rows("SELECT count(*) FROM issued") == [0]
    assert await town.rows("SELECT count(*) FROM evidence") == [1]
    async with town.site:
        assert (await town.ask()).code == Reason.ALREADY_ASKED
        assert await settle(store, town.now + timedelta(seconds=31)) == (1, 0)
        assert (await town.ask()).state is RequestState.GRANTED
    assert len(pulses_in(tmp_path / "strike.log")) == 1


@pytest.mark.parametrize("point, moved", [("before_unlock", 0), ("after_unlock", 1)])
async def test_killed_once_a_token_is_written_down_nobody_knows_and_no_second_one_is_signed(
    store, tmp_path, point, moved
):
    town = await killed_at(point, store, tmp_path)
    assert await town.rows("SELECT state FROM request") == ["signed"]
    assert len(await town.rows("SELECT jti FROM issued")) == 1
    async with town.site:
        assert (await town.ask()).code == Reason.ALREADY_ASKED
        assert await settle(store, town.now + timedelta(seconds=35)) == (0, 0)
        assert await settle(store, town.now + timedelta(seconds=36)) == (0, 1)
        assert await town.rows("SELECT state FROM request WHERE signed_jti IS NOT NULL") == ["unknown"]
        assert (await town.ask()).code == Reason.ALREADY_ASKED
    assert len(pulses_in(tmp_path / "strike.log")) == moved
    assert len(await town.rows("SELECT jti FROM issued")) == 1


# ---- PostgreSQL ----


@pytest.fixture
async def town(cluster, tmp_path):
    store = Store(database_url(cluster.create()))
    await schema.migrate(store)
    town = await Town.founded(store, tmp_path, stops=3)
    async with town.site:
        yield town
    await store.close()


@pytest.fixture
def patient(monkeypatch):
    """However long PostgreSQL takes to start on this machine, it is waited for."""
    for wait in ("CHALLENGE_WAIT", "UNLOCK_WAIT"):
        monkeypatch.setattr(decide, wait, 100.0)
    monkeypatch.setattr(decide, "_RECORD_TRIES", (0.1,) * 600)


@pytest.mark.parametrize("point", ["before_challenge", "before_unlock", "after_unlock"])
async def test_postgresql_restarted_in_the_middle_costs_nothing(town, cluster, point, patient):
    async def restart():
        await asyncio.to_thread(cluster.restart)

    setattr(town.link, point, restart)
    assert (await town.ask()).state is RequestState.GRANTED
    assert town.site.pulses == 1
    assert await town.rows("SELECT state FROM request") == ["granted"]
    assert await town.rows("SELECT word FROM outcome") == ["granted"]


async def test_postgresql_away_when_the_outcome_comes_is_told_and_written_down_when_it_is_back(town, cluster, patient):
    async def kill():
        await asyncio.to_thread(cluster.kill)

    town.link.after_unlock = kill
    asking = asyncio.create_task(town.ask())
    async with asyncio.timeout(100):
        while not town.site.pulses:  # noqa: ASYNC110 - it is in the same loop, and goes on
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.start)
        assert (await asking).state is RequestState.GRANTED
    assert await town.rows("SELECT state FROM request") == ["granted"]


async def test_postgresql_away_before_anything_is_signed_is_said_and_opens_nothing(town, cluster):
    async def kill():
        await asyncio.to_thread(cluster.kill)

    town.link.before_challenge = kill
    try:
        with pytest.raises(StoreUnavailable):
            await town.ask()
    finally:
        await asyncio.to_thread(cluster.start)
    assert town.link.tokens == []
    assert await town.rows("SELECT state FROM request") == ["asked"]
    assert await settle(town.store, town.now + timedelta(seconds=31)) == (1, 0)
    town.link.before_challenge = town.link.before_unlock
    assert (await town.ask()).state is RequestState.GRANTED
    assert town.site.pulses == 1


async def test_postgresql_killed_again_and_again_under_200_wishes_opens_each_door_once(town, cluster, patient):
    """Nobody is told that a door opened that did not, and none opens twice."""

    async def disturb():
        for _ in range(3):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(cluster.restart)

    async def ask(number):
        await asyncio.sleep(number / 100)
        try:
            return (await town.ask(stop=town.stops[number % 3])).state
        except StoreUnavailable:
            return None

    async with asyncio.timeout(110):
        *states, _ = await asyncio.gather(*map(ask, range(200)), disturb())
    issued = await town.rows("SELECT count(*) FROM issued")
    assert town.site.pulses == states.count(RequestState.GRANTED) <= 3
    assert len(town.link.tokens) == len(set(town.link.tokens)) <= issued[0] <= 3
    granted = await town.rows("SELECT count(*) FROM request WHERE state = 'granted'")
    assert granted == [town.site.pulses]
