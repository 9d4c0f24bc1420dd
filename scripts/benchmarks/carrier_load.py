"""Replicas: three of them on one PostgreSQL, 200 buildings and 50 requests a second, calm and with two accidents.

Replicas are the command itself, buildings have real controllers and links (carrier_buildings.py), drivers have passkeys
and ask at any replica, the wish at one and its confirmation at another. Most ask for the next door of their path; some
ask twice at once, again, from too far away, or for somebody else's stop. In the second run a replica is killed and
PostgreSQL is, too, in the middle of it. At the end, everything that was told, written down and moved is held against
each other. Who asks for what, and when, is the same in each run.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import aiohttp

from carrier.decide import SIGNED_FOR, UNLOCK_WAIT, settle
from tests.carrier.databases import Cluster
from vestibule_core.token import spend_id

from . import old_journal
from .carrier_cloud import (
    CARRIER,
    FAR,
    NEAR,
    SOON,
    Buildings,
    Phone,
    Program,
    Town,
    TurnedAway,
    cpu_of,
    cpu_with_children,
    doors_of,
    network,
    postgresql,
)
from .gateway_load import p95
from .table import Row

SEED: Final = 8
BUILDINGS: Final = 200
DOORS: Final = 4
DRIVERS: Final = 200
PER_SECOND: Final = 50
LASTS: Final = 60
"""Seconds."""
LONE: Final = 60
"""Requests one after the other, before the load and again after it."""
EACH: Final = 28
"""Doors that each driver has to open, at the least."""
KILLED_AT, BACK_AT, DATABASE_AT = 20.0, 26.0, 40.0
"""Seconds: a replica is killed, it is started again, and PostgreSQL is killed and started."""
TIRED: Final = 40.0
"""Seconds after which a driver asks no more what became of a request whose answer was cut off."""


class Kind(StrEnum):
    """What a driver asks for."""

    NEXT = "next"
    """The next door of the path."""
    TWICE = "twice"
    """The same, twice at the same moment."""
    AGAIN = "again"
    """A door that this driver has opened at this stop already."""
    FAR = "far"
    """The next door, from too far away."""
    STRANGE = "strange"
    """The next door of another driver."""


@dataclass
class Driver:
    """Somebody with a phone, and the doors that are left to be opened."""

    phone: Phone
    left: list[tuple[str, str]]
    """Stops and doors, the next one last."""
    opened: list[tuple[str, str]] = field(default_factory=list)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Told:
    """What a driver was told."""

    kind: Kind
    request: str
    stop: str
    door: str
    state: str
    code: str | None
    seconds: float
    cut: bool
    """The first answer was cut off."""


def under_load() -> list[Row]:
    """Replicas: how long a request takes under load, and that everything counts the same afterwards."""
    rows = []
    for accidents in (False, True):
        with old_journal.folder() as name, postgresql() as cluster:
            rows += asyncio.run(_Run(Path(name) / "town", cluster, accidents=accidents).rows())
    return rows


class _Run:
    """One run."""

    def __init__(self, folder: Path, cluster: Cluster, *, accidents: bool) -> None:
        self._folder, self._cluster, self._accidents = folder, cluster, accidents
        self._dice = random.Random(SEED)  # noqa: S311 - so that a run can be had again
        self._chance = random.Random(SEED)  # noqa: S311 - for what depends on how long answers take
        self._town: Town
        self._session: aiohttp.ClientSession
        self._replicas: list[Program] = []
        self._drivers: list[Driver] = []
        self.told: list[Told] = []
        self.wrong: list[str] = []

    async def rows(self) -> list[Row]:
        town = self._town = await Town.founded(self._folder, self._cluster.create(), BUILDINGS, DOORS)
        self._replicas = [town.replica(f"127.0.0.{number}") for number in (11, 12, 13)]
        addresses = [each.address for each in self._replicas]
        half = BUILDINGS // 2
        houses = [Buildings("real", town, first, half, *addresses) for first in (0, half)]
        try:
            for replica in self._replicas:
                await asyncio.to_thread(replica.start)
            await asyncio.gather(*(each.begin(per_second=20) for each in houses))
            async with network() as self._session:
                await self._prepare()
                return await self._measured(houses)
        finally:
            for each in houses:
                each.kill()
            for replica in self._replicas:
                replica.end()
            await town.store.close()

    async def _prepare(self) -> None:
        """Give each driver a route: stops at any building, with one or two of its doors in order."""
        phones = await self._town.phones(self._session, self._replicas[0].base, DRIVERS, counts=False)
        paths: dict[str, list[tuple[int, list[str]]]] = {}
        for phone in phones:
            own = paths[phone.driver] = list[tuple[int, list[str]]]()
            while sum(len(path) for _, path in own) < EACH:
                building = self._dice.randrange(BUILDINGS)
                own.append((building, self._dice.sample(doors_of(building, DOORS), self._dice.choice((1, 2)))))
        stops = await self._town.bring(paths)
        for phone in phones:
            served = zip(stops[phone.driver], paths[phone.driver], strict=True)
            ordered = [(stop, door) for stop, (_, path) in served for door in path]
            self._drivers.append(Driver(phone, ordered[::-1]))

    async def _measured(self, houses: Sequence[Buildings]) -> list[Row]:
        await self._lone()  # warm
        lone = await self._lone()
        cpu = self._cpu(houses)
        began = time.monotonic()
        disturbing = asyncio.create_task(self._disturb()) if self._accidents else None
        loaded = await self._load()
        took = time.monotonic() - began
        used = self._cpu(houses) if not self._accidents else cpu
        if disturbing is not None:
            await disturbing
        await asyncio.gather(*(each.all_connected(SOON) for each in houses))
        lone += await self._lone()
        facts = await self._judged(houses)
        facts |= {
            "lone ms": [round(1000 * part(lone), 1) for part in (statistics.median, p95)],
            "loaded ms": [round(1000 * part(loaded), 1) for part in (statistics.median, p95, max)],
            "seconds until all were answered": round(took, 1),
        }
        if not self._accidents:
            facts["CPU ms of a request"] = {
                who: round(1000 * (used[who] - cpu[who]) / (PER_SECOND * LASTS), 1) for who in used
            }
        print(json.dumps(facts, indent=1), file=sys.stderr)
        return self._table(facts, lone, loaded)

    def _table(self, facts: dict[str, Any], lone: list[float], loaded: list[float]) -> list[Row]:
        what = f"3 replicas, {BUILDINGS} buildings, {PER_SECOND} requests a second for {LASTS} s"
        if self._accidents:
            what += ", a replica and PostgreSQL killed meanwhile"
        alone = statistics.median(lone)
        return [
            Row(
                "Replicas",
                f"{what}: time of a request / of a lone one, median",
                statistics.median(loaded) / alone,
                None,
            ),
            Row("Replicas", "the same, 95th percentile / median of a lone one", p95(loaded) / alone, None),
            Row(
                "Replicas",
                f"the same, seconds from the first request until all {PER_SECOND * LASTS} were answered",
                facts["seconds until all were answered"],
                None,
            ),
            Row(
                "Replicas",
                "the same, requests that got an answer within 40 s",
                sum(told.state != "under way" for told in self.told),
                facts["asked"],
                at_least=True,
            ),
            Row(
                "Replicas",
                "the same, due doors asked for once that opened / all of them",
                facts["due that opened"],
                None,
            ),
            Row("Replicas", "the same, openings of one door for one stop, most", facts["most openings"], 1),
            Row(
                "Replicas",
                f"the same, answers that were not so, and differences between {facts['requests']} requests, "
                f"{facts['issued']} tokens, {facts['outcomes']} outcomes, {facts['spent']} spends and "
                f"{facts['strikes']} strikes",
                len(self.wrong),
                0,
            ),
        ]

    def _cpu(self, houses: Sequence[Buildings]) -> dict[str, float]:
        return {
            "replicas": sum(cpu_of(each.pid) for each in self._replicas),
            "database": cpu_with_children(self._cluster.pid),
            "buildings": sum(cpu_of(each.pid) for each in houses),
            "drivers": time.process_time(),
        }

    # ---- asking ----

    async def _lone(self) -> list[float]:
        """Ask for one door after the other; return how long each took."""
        took = []
        for _ in range(LONE):
            driver = self._dice.choice(self._drivers)
            took.append((await self._ask(driver, Kind.NEXT, *self._next(driver))).seconds)
            await asyncio.sleep(0.01)
        return took

    async def _load(self) -> list[float]:
        """Ask at an even pace, however long answers take; return how long they took."""
        began, number, asking = time.monotonic(), 0, list[asyncio.Task[None]]()
        before = len(self.told)
        order: list[Driver] = []
        while number < PER_SECOND * LASTS:
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            if not order:
                order = self._dice.sample(self._drivers, len(self._drivers))
            (kind,) = self._dice.choices(list(Kind), (84, 4, 4, 4, 4))
            asking.append(asyncio.create_task(self._one(order.pop(), kind)))
            number += 2 if kind is Kind.TWICE else 1
        await asyncio.gather(*asking)
        return [told.seconds for told in self.told[before:]]

    async def _one(self, driver: Driver, kind: Kind) -> None:
        async with driver.busy:
            match kind:
                case Kind.AGAIN if driver.opened:
                    await self._ask(driver, kind, *self._chance.choice(driver.opened))
                case Kind.FAR:
                    await self._ask(driver, kind, *driver.left[-1], place=FAR)
                case Kind.STRANGE:
                    other = self._chance.choice([each for each in self._drivers if each is not driver])
                    await self._ask(driver, kind, *other.left[-1])
                case Kind.TWICE:
                    wanted = self._next(driver)
                    await asyncio.gather(*(self._ask(driver, kind, *wanted) for _ in range(2)))
                case _:
                    await self._ask(driver, Kind.NEXT, *self._next(driver))

    def _next(self, driver: Driver) -> tuple[str, str]:
        return driver.left.pop()

    async def _ask(self, driver: Driver, kind: Kind, stop: str, door: str, place: tuple[float, float] = NEAR) -> Told:
        phone, began = driver.phone, time.perf_counter()
        request, body = await self._wish(phone, stop, door, place)
        said = await self._confirmed(phone, request, body)
        cut = said is None
        if said is None:
            said = await self._what_became(phone, request, body)
        took = time.perf_counter() - began
        told = Told(kind, request, stop, door, said["state"], said["code"], took, cut)
        if told.state == "granted":
            driver.opened.append((stop, door))
        self.told.append(told)
        return told

    async def _wish(self, phone: Phone, stop: str, door: str, place: tuple[float, float]) -> tuple[str, dict[str, Any]]:
        """Ask at one replica after the other: nothing is decided by that."""
        async with asyncio.timeout(SOON):
            while True:
                try:
                    return await phone.wish(self._session, self._any(), stop, door, place)
                except aiohttp.ClientError, OSError:
                    await asyncio.sleep(0.2)
                except TurnedAway as err:
                    if err.status != 503:
                        raise
                    await asyncio.sleep(0.5)

    async def _confirmed(self, phone: Phone, request: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Confirm a wish; return what became of it, None if there is no answer."""
        try:
            return await phone.confirm(self._session, self._any(), request, body)
        except aiohttp.ClientError, OSError:
            return None
        except TurnedAway as err:
            if err.status == 503:
                return None
            if err.status == 410:  # too late, or its replica was killed once it had used the confirmation up
                return {"state": "nothing", "code": None}
            raise

    async def _what_became(self, phone: Phone, request: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask what became of a request whose answer was cut off, as the page does; confirm it again if nothing did.

        The assertion is good once, wherever it arrives.
        """
        until = time.monotonic() + TIRED
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            with suppress(aiohttp.ClientError, OSError):
                path = f"/driver/requests/{request}"
                status, said = await phone.send(self._session, self._any(), "GET", path)
                if status == 200 and said["events"][-1]["event"] == "outcome":
                    return dict(said["events"][-1])
                if status == 404 and (again := await self._confirmed(phone, request, body)) is not None:
                    return again
        return {"state": "under way", "code": None}

    def _any(self) -> str:
        return self._chance.choice(self._replicas).base

    # ---- accidents ----

    async def _disturb(self) -> None:
        began, victim = time.monotonic(), self._replicas[1]

        async def until(seconds: float) -> None:
            await asyncio.sleep(began + seconds - time.monotonic())

        await until(KILLED_AT)
        await asyncio.to_thread(victim.end, SIGKILL)
        await until(BACK_AT)
        await asyncio.to_thread(victim.start)
        await until(DATABASE_AT)
        await asyncio.to_thread(self._cluster.restart)

    # ---- judging ----

    async def _judged(self, houses: Sequence[Buildings]) -> dict[str, Any]:
        """Hold against each other what was told, what is written down, and what moved."""
        await asyncio.sleep(5 if not self._accidents else UNLOCK_WAIT + 10)  # what buildings tell has been looked up
        # Nobody works on anything any more: what is left is ended now, and not in three minutes.
        free, unknown = await settle(self._town.store, datetime.now(UTC) + SIGNED_FOR)
        ended = [await each.end() for each in houses]
        moved, spent = Counter[str](), Counter[str]()
        for each in (building for house in ended for building in house["buildings"]):
            moved.update(each["pulses"])
            spent.update({jti: state == "GRANTED" for jti, state in each["spent"]})
        rows = await self._town.rows(
            "SELECT request.id, request.stop_id, request.door_id, request.state, issued.jti, outcome.word FROM request "
            "LEFT JOIN issued ON issued.request_id = request.id LEFT JOIN outcome ON outcome.jti = issued.jti"
        )
        alarms = await self._town.rows("SELECT kind, count(*) FROM alarm GROUP BY kind")
        openings, written = Counter[tuple[str, str]](), dict[str, tuple[str, int]]()
        for request, stop, door, state, jti, word in rows:
            times = moved[spend_id(CARRIER.issuer, jti).hex()] if jti else 0
            openings[stop, door] += times
            written[request] = state, times
            self._expect(times == int(bool(jti) and spent[jti]), f"{request}: a spend without its strike")
            self._expect(times == (state == "granted"), f"{request}: {state}, and moved {times} times")
            self._expect((state == "granted") == (word == "granted"), f"{request}: {state}, outcome {word}")
        for told in self.told:
            self._check(told, *written.get(told.request, ("nothing", 0)))
        counts = Counter(state for state, _ in written.values())
        issued = sum(jti is not None for *_, jti, _ in rows)
        self._expect(not alarms, f"alarms: {alarms}")
        self._expect(counts["granted"] == sum(spent.values()) == sum(moved.values()), "they count differently")
        self._expect(set(spent) <= {jti for *_, jti, _ in rows}, "a token that was not issued")
        asked = self._asked()
        print(*self.wrong[:20], sep="\n", file=sys.stderr)
        return {
            "asked": asked,
            "told": dict(Counter(told.state for told in self.told)),
            "told, by kind": {kind: dict(Counter(t.state for t in self.told if t.kind is kind)) for kind in Kind},
            "due that opened": statistics.fmean(
                written.get(told.request, ("", 0))[1] for told in self.told if told.kind is Kind.NEXT
            ),
            "due, but not opened": dict(
                Counter(f"{t.state} {t.code}" for t in self.told if t.kind is Kind.NEXT and t.state != "granted")
            ),
            "answers cut off": sum(told.cut for told in self.told),
            "written down": dict(counts),
            "given back and unknown at the end": [free, unknown],
            "requests": len(rows),
            "issued": issued,
            "outcomes": sum(word is not None for *_, word in rows),
            "spent": len(spent),
            "strikes": sum(moved.values()),
            "most openings": max(openings.values()),
            "wrong": len(self.wrong),
        }

    def _asked(self) -> int:
        return PER_SECOND * LASTS + 3 * LONE

    def _check(self, told: Told, state: str, moved: int) -> None:
        """Hold what a driver was told against what moved."""
        what = f"{told.request}: {told.kind}, told {told.state} ({told.code}), is {state}, moved {moved} times"
        if told.state == "granted":
            self._expect(moved == 1, what)
        elif told.state not in ("unknown", "unavailable", "under way"):
            self._expect(moved == 0, what)
        if told.state in ("granted", "refused", "refused_by_building", "unreachable"):
            self._expect(told.state == state, what)
        if told.kind in (Kind.AGAIN, Kind.FAR, Kind.STRANGE):
            self._expect(moved == 0, what)

    def _expect(self, so: object, what: str) -> None:
        if not so:
            self.wrong.append(what)
