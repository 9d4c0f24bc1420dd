"""Run a soak and say how it ended; `scripts/soak` describes it."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from scripts.demo_home.building import Part
from scripts.demo_home.home import HomeFailed, interruptible

from .judgement import judge, verify
from .site import Site, at_work, network
from .traffic import Traffic
from .witness import Gauge, Listener

RESTARTS: Final = 0.55
"""The part of the time with restarts; in the rest both programs live on, so that it shows whether they grow."""
GAUGED: Final = 5.0
"""Seconds between two looks at memory and handles."""
SIGNED_IN: Final = 600.0
"""Seconds after which the manager signs in again."""
SETTLED: Final = 90.0
"""Seconds in which everything has to be as it was told, in the end."""
STRANGE: Final = ("Traceback (most recent call last)", "A bug of Vestibule")


class Soak:
    """One run."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        """Begin with everything at work."""
        self.site, self.loop, self.dice = site, loop, random.Random(seed)  # noqa: S311 - so that a run can be had again
        self.traffic = Traffic(site, random.Random(seed + 1))  # noqa: S311
        self.listener = Listener(site)
        self.gauges = {"gateway": Gauge("gateway"), "home": Gauge("home")}
        self.kills: list[float] = []
        self.ended = 0.0
        self.events: dict[str, int] = {}
        self.wrong: list[str] = []
        self._signed_in = time.monotonic()

    # ---- what breaks ----

    def _stop_gateway(self) -> None:
        self.site.room.stop()
        self._start_gateway()

    def _kill_gateway(self) -> None:
        self.site.room.kill()
        self._start_gateway()

    def _start_gateway(self) -> None:
        self._verify("gateway")
        time.sleep(self.dice.uniform(0, 3))
        self.site.room.start()

    def _stop_home(self) -> None:
        self.site.home.stop()
        self._start_home()

    def _kill_home(self) -> None:
        self.kills.append(time.time())
        self.site.home.kill()
        self._start_home()

    def _start_home(self) -> None:
        self._verify("building")
        time.sleep(self.dice.uniform(0, 3))
        self.site.start_home()
        self._signed_in = time.monotonic()

    def _kill_both(self) -> None:
        self.kills.append(time.time())
        self.site.home.kill()
        self.site.room.kill()
        self.site.room.start()
        self._start_home()

    def _verify(self, source: str) -> None:
        holds, said = verify(self.site.journals[source])
        if not holds:
            self.wrong.append(f"the {source}'s journal does not hold in between: {said}")

    # ---- the run ----

    def run(self, minutes: float) -> None:
        """Let everybody do what they do for so long, and break things."""
        began = time.monotonic()
        end, calm = began + minutes * 60, began + minutes * 60 * RESTARTS
        breaks: list[Callable[[], None]] = [
            self._stop_gateway, self._kill_gateway, self._stop_home, self._kill_home, self._kill_both,
        ]  # fmt: skip
        order = [*breaks]
        shortest, longest = (5, 15) if minutes < 5 else (15, 50)
        self._in_loop(self._begin())
        gauged, breaking, told = 0.0, time.monotonic() + self.dice.uniform(shortest, longest), began
        while (now := time.monotonic()) < end:
            if self.traffic_ended():
                raise HomeFailed("the traffic ended by itself")
            if now - gauged >= GAUGED:
                gauged = now
                self._look()
            if now - self._signed_in > SIGNED_IN:
                self.site.sign_in()
                self._signed_in = now
            if now >= breaking and now < calm:
                if not order:
                    order = self.dice.sample(breaks, len(breaks))
                what = order.pop()
                what()
                name = what.__name__.removeprefix("_")
                self.events[name] = self.events.get(name, 0) + 1
                breaking = time.monotonic() + self.dice.uniform(shortest, longest)
            if now - told >= 60:
                told = now
                self._say(began)
            time.sleep(0.2)
        self._in_loop(self._end())
        self._look()
        self.ended = time.time()

    def _look(self) -> None:
        self.gauges["gateway"].look(self.site.room.process)
        self.gauges["home"].look(self.site.home.process.pid if self.site.home.process else None)

    def _say(self, began: float) -> None:
        gauges = ", ".join(
            f"{g.name} {g.seen[-1][2] / 2**20:.0f} MiB, {g.seen[-1][3]} handles" for g in self.gauges.values()
        )
        counted = self.traffic.counted
        granted = sum(times for what, times in counted.items() if what.endswith(": granted"))
        print(
            f"  {(time.monotonic() - began) / 60:4.1f} min: {len(self.traffic.presented)} tokens, {granted} granted; "
            f"{gauges}; {sum(self.events.values())} restarts, {self.site.cable.cuts} cuts", flush=True,
        )  # fmt: skip

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(300)

    def traffic_ended(self) -> bool:
        return self._running.done()

    async def _begin(self) -> None:
        self._listening = asyncio.create_task(self.listener.listen())
        self._running = asyncio.create_task(self.traffic.run())

    async def _end(self) -> None:
        """Let everybody come to an end, and see that each door lets a driver in, and all is told."""
        self.traffic.over.set()
        await self._running
        site = self.site
        site.cable.lasts = lambda: None
        async with network() as session:
            for _ in range(30):  # whatever was left in between
                done = [await self.traffic.call(session, "switch", "turn_off", site.lockdown)]
                for door in site.doors:
                    mode, deliveries = door.entities[Part.MODE], door.entities[Part.DELIVERIES]
                    await self.traffic.call(session, "lock", "lock", door.entities[Part.LOCK])
                    done.append(await self.traffic.call(session, "select", "select_option", mode, option="normal"))
                    done.append(await self.traffic.call(session, "switch", "turn_on", deliveries))
                if set(done) == {200}:
                    break
                await asyncio.sleep(2)
            for door in site.doors:
                word = None
                for _ in range(30):
                    if (word := await self.traffic.deliver(door, session)) == "granted":
                        break
                    await asyncio.sleep(2)
                if word != "granted":
                    self.wrong.append(f"{door.name}: in the end it does not let a driver in: {word}")
            await asyncio.sleep(8)  # the accesses come to their ends
            asking = site.asks_gateway(session, as_manager=True)
            newest = (await asking.doors()).newest
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLED):
                    while self.listener.newest.get("gateway", 0) < newest:  # noqa: ASYNC110 - told by another process
                        await asyncio.sleep(0.2)
            if (heard := self.listener.newest.get("gateway", 0)) < newest:
                self.wrong.append(f"the gateway's newest event is {newest}, and {heard} was told")
        self._listening.cancel()


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: processes are started and ended in the main one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="soak")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser("scripts/soak", description="Everything at once, with restarts, kills and cuts.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"{given.minutes:g} minutes, --seed {given.seed}", flush=True)
    try:
        with interruptible(), _loop() as loop:
            with at_work(folder / "demo", loop) as site:
                soak = Soak(site, loop, given.seed)
                soak.run(given.minutes)
            wrong = _report(soak)
    except HomeFailed as err:
        print(f"soak: {err}\nWhat there is, is in {folder}", file=sys.stderr)
        return 1
    if wrong:
        print(f"\nNOT AS IT SHOULD BE, see {folder}:")
        print("\n".join(f"  {what}" for what in wrong))
        return 1
    shutil.rmtree(folder)
    print("\nAll sides counted the same.")
    return 0


def _report(soak: Soak) -> list[str]:
    found = judge(soak.site, soak.traffic, soak.listener, soak.kills, soak.ended)
    found.wrong += soak.wrong
    print(f"\nrestarts: {', '.join(f'{name} {times}' for name, times in sorted(soak.events.items()))}; ", end="")
    print(f"cuts {soak.site.cable.cuts}")
    print(f"answers: {', '.join(f'{what} {times}' for what, times in sorted(soak.traffic.counted.items()))}")
    print("\n".join(found.said))
    for gauge in soak.gauges.values():
        said, too_much = gauge.judge()
        print(said)
        found.wrong += too_much
    for log in (soak.site.home.console, soak.site.room.log):
        text = log.read_text("utf-8", "replace")
        found.wrong += [f"{log.name} has {text.count(what)} times {what!r}" for what in STRANGE if what in text]
        found.expect("eyJ" not in text, f"{log.name} has a token")
    return found.wrong


if __name__ == "__main__":
    sys.exit(main())
