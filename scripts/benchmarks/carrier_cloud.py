"""A carrier's cloud for what is measured of it: replicas as processes, their database, drivers' phones, buildings.

Nothing in here is a mock: a replica is the command itself, a phone has a real passkey made of software and asks over
HTTP, and buildings (carrier_buildings.py) have real links, and real controllers where doors open.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from carrier import drivers, keys, manifests
from carrier.app import Front
from carrier.cloud import Cloud
from carrier.decide import Desk
from carrier.links import Links
from carrier.passkeys import Party
from carrier.store import Prefix, Store, database_url, new_id, schema
from carrier.store.tables import Building, Controller, Door, DoorController
from carrier.ways import Ways
from scripts.demo_home.home import free_port
from scripts.demo_home.passkey import Authenticator
from tests.carrier.databases import WHY_NOT, Cluster, binaries
from tests.simulated import Carrier, some_doors
from vestibule_core.keys import SigningKey
from vestibule_core.note import SignerKey

ROOT: Final = Path(__file__).parents[2]
CARRIER: Final = Carrier("Parcels")
HOST: Final = "localhost"
HOME: Final = (52.52, 13.405)
"""Where all doors are."""
NEAR: Final = (52.52009, 13.405)
"""10 m from there."""
FAR: Final = (52.52100, 13.405)
"""111 m from there: too far, but not too far for a driver who was near a few seconds ago."""
SOON: Final = 60.0
"""Seconds for what has to happen."""


def controller_of(building: int) -> SignerKey:
    """Return the identity of a building's controller, always the same one."""
    raw = hashlib.sha256(f"house {building}".encode()).digest()
    return SignerKey(f"house/{building}", Ed25519PrivateKey.from_private_bytes(raw))


def doors_of(building: int, count: int) -> tuple[str, ...]:
    """Return the ids of a building's doors, always the same ones."""
    return tuple(door.id for door in some_doors(count, f"house {building}"))


@contextmanager
def postgresql() -> Iterator[Cluster]:
    """Give a PostgreSQL whose commits are on the disk, or say that there is none and end the program."""
    if (programs := binaries()) is None:
        raise SystemExit(WHY_NOT)
    cluster = Cluster(programs, durable=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


# ---- what a process has had ----


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has had, with all its threads."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def cpu_with_children(pid: int) -> float:
    """Return the seconds of CPU of a process and of those that it started, those that have ended included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(stat.parent.name) == pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Return the bytes of memory that are a process's own."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


class Program:
    """A Python program in a process of its own that listens at an address; ``start`` returns when it does."""

    def __init__(self, address: str, port: int, arguments: Sequence[str], log: Path) -> None:
        self.address, self.port, self._arguments, self._log = address, port, arguments, log
        self.base = f"http://{address}:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *self._arguments], cwd=ROOT, stdout=log, stderr=log)
        until = time.monotonic() + SOON
        while self._process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection((self.address, self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"it did not start: {self._log.read_text()[-2000:]}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(2 * SOON)
            self._process = None


# ---- the carrier ----


class Town:
    """A carrier's database and keys in ``folder``, with so many buildings. Use ``await Town.founded(...)``."""

    def __init__(self, folder: Path, url: str, buildings: int, doors: int) -> None:
        self.folder, self.url, self.doors = folder, url, doors
        self.store = Store(database_url(url))
        self.buildings = [new_id(Prefix.BUILDING) for _ in range(buildings)]
        self.port = free_port()
        self.where = f"{HOST}:{self.port}"
        """Where buildings and phones find the cloud: replicas listen at that port, each at an address of its own."""
        self.kid = ""
        """Of the key that signs."""

    @classmethod
    async def founded(cls, folder: Path, url: str, buildings: int, doors: int = 1) -> Town:
        """Make the schema, keys and buildings."""
        folder.mkdir()  # noqa: ASYNC240 - nothing else happens here
        town = cls(folder, url, buildings, doors)
        now = datetime.now(UTC)
        await schema.migrate(town.store)
        async with town.store.transaction() as session:
            made = await keys.rotate(session, keys.KeyFolder(folder / "keys"), "bench", now)
            town.kid = made[0].kid
            await keys.publish(session, CARRIER.issuer, SigningKey.generate(), None, "bench", now)
        await town._build(now)
        return town

    async def _build(self, now: datetime) -> None:
        """Enrol all buildings, many rows at a time."""
        rows: dict[type, list[dict[str, Any]]] = {Building: [], Controller: [], Door: [], DoorController: []}
        for number, id_ in enumerate(self.buildings):
            key = str(controller_of(number).verifier)
            made = {"enrolled_at": now, "removed_at": None}
            rows[Building].append({"id": id_, "name": f"House {number}", "zone": "Europe/Berlin"} | made)
            rows[Controller].append({"key": key, "building_id": id_} | made)
            for door in doors_of(number, self.doors):
                place = {"lat": HOME[0], "lon": HOME[1], "position_radius_m": None}
                rows[Door].append({"id": door, "building_id": id_, "name": "Door"} | place)
                rows[DoorController].append({"door_id": door, "controller_key": key})
        async with self.store.transaction() as session:
            for table, values in rows.items():
                await session.execute(insert(table), values)

    def replica(self, address: str = "127.0.0.1") -> Program:
        """Return a replica at an address of this machine, not started yet: the command itself."""
        file = self.folder / f"carrier-{address}.toml"
        lines = (
            f'name = "Parcels"\nissuer = "{CARRIER.issuer}"\norigin = "http://{self.where}"\ndatabase = "{self.url}"\n'
            f'keys = "keys"\n[listen]\nhost = "{address}"\nport = {self.port}\n'
        )
        file.write_text(lines)
        arguments = ("-m", "carrier", "run", "--config", str(file))
        return Program(address, self.port, arguments, self.folder / f"replica-{address}.log")

    @asynccontextmanager
    async def served_here(self) -> AsyncIterator[str]:
        """Serve a replica in this very process, to look into it; give its base URL."""
        store = Store(database_url(self.url))
        ring = keys.KeyFolder(self.folder / "keys")
        ways = Ways(store, Links(store, ring, CARRIER.issuer, "Parcels"))
        cloud = Cloud(Desk(store, ring, ways, CARRIER.issuer), Party(HOST, f"http://{self.where}", "Parcels"), ways)
        front = await Front.open(cloud, "127.0.0.1", self.port)
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            await front.close()
            await store.close()

    async def phones(
        self, session: aiohttp.ClientSession, base: str, count: int, *, counts: bool = True
    ) -> list[Phone]:
        """Return the phones of so many new drivers, set up over HTTP at one replica; ``counts``: as passkeys may."""
        now, phones = datetime.now(UTC), []
        for number in range(count):
            async with self.store.transaction() as writing:
                driver = await drivers.add(writing, f"Driver {number}", now + timedelta(days=30), "bench", now)
                secret = await drivers.invite(writing, driver.id, "bench", now)
            phones.append(phone := Phone(driver.id, self.where, f"10.1.{number // 250}.{number % 250 + 1}"))
            if not counts:
                phone.device.counter = None
            await phone.join(session, base, secret)
        return phones

    async def bring(self, paths: Mapping[str, Sequence[tuple[int, Sequence[str]]]]) -> dict[str, list[str]]:
        """Bring a route for each driver, with a stop for each building and path of doors; return each one's stops."""
        now = datetime.now(UTC)
        begins, ends = now - timedelta(hours=1), now + timedelta(hours=3)
        routes = [
            manifests.NewRoute(
                1,
                driver,
                now.astimezone(ZoneInfo("Europe/Berlin")).date(),
                begins,
                ends,
                tuple(
                    manifests.NewStop(1, self.buildings[building], tuple(path), begins, ends, None)
                    for building, path in stops
                ),
            )
            for driver, stops in paths.items()
        ]
        async with self.store.transaction() as session:
            brought = await manifests.bring(session, routes, "bench", now)
        stops: dict[str, list[str]] = {}
        for driver, route in zip(paths, brought, strict=True):
            stops[driver] = [
                id_
                for (id_,) in await self.rows(f"SELECT id FROM stop WHERE route_id = '{route}' ORDER BY seq")  # noqa: S608
            ]
        return stops

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query returns."""
        async with self.store.connection() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(sql)]


# ---- drivers ----


@dataclass
class Phone:
    """A driver's phone with one passkey."""

    driver: str
    where: str
    address: str
    cookie: str = ""
    device: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.device = Authenticator(f"http://{self.where}", HOST)

    async def send(
        self, session: aiohttp.ClientSession, base: str, method: str, path: str, body: object = None
    ) -> tuple[int, Any]:
        """Ask a replica; return status and body."""
        headers = {
            "Host": self.where,
            "Origin": f"http://{self.where}",
            "Sec-Fetch-Site": "same-origin",
            "X-Forwarded-For": self.address,
            "Content-Type": "application/json",
        }
        if self.cookie:
            headers["Cookie"] = f"__Host-driver={self.cookie}"
        data = None if body is None else json.dumps(body)
        async with session.request(method, base + path, headers=headers, data=data) as answer:
            if (cookie := answer.cookies.get("__Host-driver")) is not None:
                self.cookie = cookie.value
            text = await answer.text()
            if answer.content_type == "application/x-ndjson":
                return answer.status, [json.loads(line) for line in text.splitlines()]
            return answer.status, json.loads(text) if text else None

    async def join(self, session: aiohttp.ClientSession, base: str, secret: str) -> None:
        """Set the device up by a one-time link."""
        status, said = await self.send(session, base, "POST", "/driver/join", {"invitation": secret})
        assert status == 200, said
        shown = {"invitation": secret, "credential": self.device.create(said["options"])}
        status, said = await self.send(session, base, "POST", "/driver/join/passkey", shown)
        assert status == 204, said

    async def wish(
        self,
        session: aiohttp.ClientSession,
        base: str,
        stop: str,
        door: str,
        place: tuple[float, float] = NEAR,
    ) -> tuple[str, dict[str, Any]]:
        """Ask for a door; return the request's id and the body that confirms it, signed by the passkey."""
        lat, lon = place
        position = {"lat": lat, "lon": lon, "accuracy": 8, "at": int(time.time()), "typed": False}
        wish = {"stop": stop, "door": door, "position": position}
        status, said = await self.send(session, base, "POST", "/driver/requests", wish)
        if status != 200:
            raise TurnedAway(status, said)
        return said["request"], {"credential": self.device.get(said["options"])}

    async def confirm(
        self, session: aiohttp.ClientSession, base: str, request: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Confirm a wish; return the last line, which says what became of it."""
        status, said = await self.send(session, base, "POST", f"/driver/requests/{request}", body)
        if status != 200:
            raise TurnedAway(status, said)
        assert said[-1]["event"] == "outcome", said
        return dict(said[-1])


class TurnedAway(Exception):
    """A replica answered with another status than 200."""

    def __init__(self, status: int, said: object) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


# ---- buildings ----


class Buildings:
    """A process with buildings (carrier_buildings.py), which is told what to do in lines of JSON."""

    def __init__(self, kind: str, town: Town, first: int, count: int, *addresses: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.carrier_buildings"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.count = count
        self._setup = {
            "kind": kind,
            "folder": str(town.folder),
            "kid": town.kid,
            "doors": town.doors,
            "first": first,
            "count": count,
            "where": town.where,
            "addresses": addresses or ("127.0.0.1",),
        }

    async def begin(self, *, per_second: float) -> None:
        """Let them connect, so many a second; return when all are connected."""
        await self._say("begin", **self._setup, per_second=per_second)
        await self.all_connected(SOON + 2 * self.count / per_second)

    async def connected(self) -> int:
        """Return how many are connected."""
        return int((await self._say("connected"))["connected"])

    async def all_connected(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while await self.connected() < self.count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)

    async def end(self) -> dict[str, Any]:
        """Close everything, and return what the buildings have on their disks."""
        told = await self._say("end")
        self.kill()
        return told

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _say(self, verb: str, **what: object) -> dict[str, Any]:
        return await asyncio.to_thread(self._exchange, {"verb": verb} | what)

    def _exchange(self, said: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(said) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the buildings' process has ended")
        return dict(json.loads(answer))


def network() -> aiohttp.ClientSession:
    """Return what drivers' phones reach the cloud by."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
