"""G13 and Dead: a good gateway beside a busy Home Assistant, beside a dead relay board, and beside a dead gateway.

What is timed is the same in turns, while the other thing is at rest and while it is not.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from gateway import control
from scripts.demo_home.home import HomeFailed
from tests.gateway.forked import ROOT, Forks

from . import live, old_journal
from .gateway_load import good_tokens, p95
from .gateway_site import HOST, Line, Site
from .table import Row

ROUNDS: Final = 7
LASTS: Final = 4.0
"""Seconds in which good tokens are timed, of each kind in a round."""
ROWS: Final = 20_000
ENTITIES: Final = 2000
ASKING: Final = 4
"""Callers who want to have the dead one's door opened, again and again."""
BY_HAND: Final = 20
"""Unlocks of a round, of each kind."""


def _median(ratios: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(one) for one in zip(*ratios, strict=True)]


def _compared(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [statistics.median(one) / statistics.median(other), p95(one) / p95(other)]


# ---- G13 ----


def while_a_recorder_commits() -> list[Row]:
    """G13: a good token at the gateway while Home Assistant's recorder commits / while it rests."""
    with tempfile.TemporaryDirectory() as folder, live.Site(Path(folder) / "home", 1) as home:
        ratios, lasted = asyncio.run(_while_a_recorder_commits(Path(folder) / "gateway", home))
    what = f"gateway, good token while Home Assistant's recorder commits {ROWS} rows / while it rests, time"
    return [
        Row("G13", f"{what}, median", ratios[0], 1.3),
        Row("G13", "the same, 95th percentile", ratios[1], None),
        Row("G13", "seconds that the recorder took for them", lasted, None),
    ]


async def _while_a_recorder_commits(folder: Path, home: live.Site) -> tuple[list[float], float]:
    async with AsyncExitStack() as stack:
        forks = Forks()
        stack.callback(forks.close)
        site = await stack.enter_async_context(Site(folder, 8).at_work(forks, prepare=None))
        line = await site.line()
        stack.push_async_callback(line.close)
        ratios, lasted = [], []
        for round_ in range(ROUNDS + 1):
            idle = await good_tokens(site, line, LASTS)
            began, path = time.monotonic(), "/api/services/bench_probe/rows"
            request = {"count": ROWS, "entities": ENTITIES}
            committing = asyncio.create_task(asyncio.to_thread(home.ask, path, request, home.access))
            busy: list[float] = []
            while not committing.done():
                busy += await good_tokens(site, line, 0.5)
            await committing
            if round_:  # the first one warms up
                ratios.append(_compared(busy, idle))
                lasted.append(time.monotonic() - began)
        return _median(ratios), statistics.median(lasted)


# ---- a dead board ----


class _Board:
    """A relay board in a process of its own; what is written to it are its verbs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.demo_home.relay_board"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[-1])

    def say(self, verb: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class _TwoBoards(Site):
    """A gateway whose doors are at one board, but for the last, which is at another."""

    def __init__(self, folder: Path, doors: int, ports: Sequence[int]) -> None:
        super().__init__(folder, doors)
        text = self.config.read_text()
        memory = text.index("[board.b]")
        boards = "".join(
            f'[board.{name}]\nkind = "modbus"\nhost = "{HOST}"\nport = {port}\n'
            for name, port in zip(("b", "other"), ports, strict=True)
        )
        text = text[:memory] + boards + text[text.index("[door.d1]") :]
        self.config.write_text(text.replace(f'board = "b", channel = {doors} ', 'board = "other", channel = 1 '))

    @property
    def other(self) -> str:
        """The path of the door at the other board."""
        return f"/v1/doors/{self.doors[-1].id}/operate"


def dead_board() -> list[Row]:
    """Dead: a good token at a board that is well while another one is dead and asked for / while that is well."""
    ratios = asyncio.run(_dead_board())
    what = (
        "gateway, good token at a Modbus board while another board does not answer and is asked for / while it is well"
    )
    return [
        Row("Dead", f"{what}, time, median", ratios[0], 1.3),
        Row("Dead", "the same, 95th percentile", ratios[1], None),
    ]


async def _dead_board() -> list[float]:
    async with AsyncExitStack() as stack:
        forks = Forks()
        stack.callback(forks.close)
        folder = Path(stack.enter_context(old_journal.folder()))
        boards = [_Board(), _Board()]
        for board in boards:
            stack.callback(board.end)
        site = _TwoBoards(folder / "site", 8, [board.port for board in boards])
        await stack.enter_async_context(site.at_work(forks, prepare=None))
        line = await site.line()
        stack.push_async_callback(line.close)
        await _until_reachable(site, line)
        ratios = []
        for round_ in range(ROUNDS + 1):
            boards[1].say("obey")
            await _until_reachable(site, line)
            idle = await good_tokens(site, line, LASTS, doors=7)
            boards[1].say("silent")
            asking = [asyncio.create_task(_ask_for_the_other(site)) for _ in range(ASKING)]
            await asyncio.sleep(1)
            dead = await good_tokens(site, line, LASTS, doors=7)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            if round_:
                ratios.append(_compared(dead, idle))
        return _median(ratios)


async def _until_reachable(site: Site, line: Line) -> None:
    async with asyncio.timeout(30):
        request = site.request("GET", "/v1/doors")
        while b'"reachable":false' in (await line.ask(request)).replace(b" ", b""):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _ask_for_the_other(site: _TwoBoards) -> None:
    line = await site.line()
    actor = {"user_id": None, "name": "Ann", "admin": True}
    try:
        while True:
            await line.ask(site.request("POST", site.other, {"do": "access", "actor": actor, "ref": None}))
    finally:
        await line.close()


# ---- a dead gateway ----


def dead_gateway() -> list[Row]:
    """Dead: the lock's action in Home Assistant while another gateway stands still and is asked for / while not."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home = stack.enter_context(live.Site(folder / "home", 1))
        forks = Forks()
        stack.callback(forks.close)
        sites = [Site(folder / name, 1) for name in ("well", "dying")]
        for site in sites:
            site.process = asyncio.run(forks.start(site.config))
            stack.callback(site.process.end)
            _pair(home, site)
        well, dying = (home.lock_of(site.doors[0].id) for site in sites)
        own = home.lock_of(home.doors[0])
        time.sleep(2)
        ratios = []
        for round_ in range(ROUNDS + 1):
            idle = [_by_hand(home, lock) for lock in (well, own)]
            with _stopped(sites[1].process.pid), _asked_for(home, dying):
                time.sleep(0.2)
                dead = [_by_hand(home, lock) for lock in (well, own)]
            time.sleep(1)
            if round_:
                ratios.append([statistics.median(d) / statistics.median(i) for d, i in zip(dead, idle, strict=True)])
    of_gateway, of_own = _median(ratios)
    what = (
        "Home Assistant, `lock.unlock` while a gateway stands still and is asked for / while it is well, time, median"
    )
    return [
        Row("Dead", f"{what}: at another gateway", of_gateway, 1.3),
        Row("Dead", "the same, at a door of Home Assistant's own", of_own, 1.3),
    ]


def _pair(home: live.Site, site: Site) -> None:
    window = control.call(site.folder / "state" / "control.sock", "POST", "/pair", {"replace": False, "trust": True})
    address = {"host": HOST, "port": site.port}
    while True:
        try:
            home.home.flow("vestibule", [("gateway", address), ("gateway_code", {"code": window["code"]})])
            return
        except HomeFailed as err:  # it takes one attempt a second
            if "gateway_busy" not in str(err):
                raise
            time.sleep(1)


def _by_hand(home: live.Site, lock: str) -> list[float]:
    took = []
    for _ in range(BY_HAND):
        began = time.perf_counter()
        home.ask("/api/services/lock/unlock", {"entity_id": lock}, home.access)
        took.append(time.perf_counter() - began)
        time.sleep(0.05)
    return took


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _asked_for(home: live.Site, lock: str) -> Iterator[None]:
    """Have somebody else want to open a lock, again and again."""
    ended = threading.Event()

    def ask() -> None:
        headers = {"Authorization": f"Bearer {home.access}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection(HOST, home.home.port)) as connection:
            while not ended.is_set():
                body = json.dumps({"entity_id": lock})
                connection.request("POST", "/api/services/lock/unlock", body, headers)
                connection.getresponse().read()  # that it was not opened, once that is known
                ended.wait(0.2)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
