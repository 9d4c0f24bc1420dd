"""G11, G12, G14, G15: the integration inside a live Home Assistant of its own, on loopback.

CPU is the kernel's count of the whole process, all threads: the recorder and the journal's writer are part of what an
access costs. What is compared is measured in turns, in the same process and at the same pace.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts.demo_home.home import HOST, Home, copy_integration, free_port, store
from vestibule_core import b64url
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Issuer, issuer, new_door_id
from vestibule_core.token import Claims, Confirmations, DriverProof, issue

from .table import Row

PROBE: Final = Path(__file__).with_name("custom_components") / "bench_probe"
ROUNDS: Final = 5
REQUESTS: Final = 150
PACE: Final = 0.025
"""Seconds between requests: the intake takes a hundred a second."""
DOORS: Final = 200
ACCESSES: Final = 20_000
BLOCK: Final = 1000
CARRIER: Final = issuer("https://v.carrier.example")


# ---- a Home Assistant with doors ----


class Site:
    """A live Home Assistant with so many doors; 0: without Vestibule."""

    def __init__(self, folder: Path, doors: int) -> None:
        self.home = Home(folder, port=free_port())
        self.doors = [new_door_id(os.urandom(16)) for _ in range(doors)]
        self.key = SigningKey.generate()
        self.intake_key = secrets.token_urlsafe(32)
        self.home.prepare(relays=False)
        copy_integration(PROBE, folder / "custom_components")
        with (folder / "configuration.yaml").open("a") as configuration:
            configuration.write("bench_probe:\n")
        if doors:
            self._write_entry(folder / ".storage")

    def _write_entry(self, storage: Path) -> None:
        door = {"access_time": 0.5, "releases_when": "on", "returns": "by_itself", "reports": False}
        subentries = [
            _subentry("door", f"Door {number}", door_id, door | {
                "door": door_id, "relay": f"button.bench_relay_{number}", "relay_domain": "button",
            })
            for number, door_id in enumerate(self.doors)
        ]  # fmt: skip
        carrier: dict[str, Any] = {
            "issuer": CARRIER, "jwk_set": json.dumps({"keys": [self.key.jwk()]}), "revoked": [], "doors": self.doors,
            "methods": ["passkey"], "distance": 75, "accuracy": 50, "position_age": 30, "request_age": 120,
            "intake_key_sha256": hashlib.sha256(self.intake_key.encode()).hexdigest(),
        }  # fmt: skip
        subentries.append(_subentry("carrier", "Carrier", CARRIER, carrier))
        kept = (
            json.loads((storage / "core.config_entries").read_text())
            if (storage / "core.config_entries").exists()
            else None
        )
        entries = kept["data"]["entries"] if kept else []
        entries.append({
            "created_at": "2026-11-01T00:00:00+00:00", "modified_at": "2026-11-01T00:00:00+00:00",
            "data": {"building": "b" * 26}, "disabled_by": None, "discovery_keys": {}, "domain": "vestibule",
            "entry_id": "01M84DW0RBRACMPBP5G47H0B79", "minor_version": 1, "options": {}, "source": "user",
            "pref_disable_new_entities": False, "pref_disable_polling": False, "subentries": subentries,
            "title": "Building", "unique_id": "building", "version": 1,
        })  # fmt: skip
        store(storage, "core.config_entries", 1, {"entries": entries}, minor_version=5)

    def __enter__(self) -> Site:
        self.home.start()
        self.home.onboard("Manager", "manager", secrets.token_urlsafe(16))
        self.home.wait_until_started()
        self.connection = http.client.HTTPConnection(HOST, self.home.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.home.stop()

    def ask(self, path: str, body: dict[str, Any], bearer: str) -> Any:
        """POST over the one connection that is kept."""
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)

    def token(self, door: DoorId) -> str:
        """Return a token for a fresh challenge of a door."""
        challenge = self.ask(f"/api/vestibule/doors/{door}/challenge", {}, self.intake_key)["non"]
        now = int(time.time())
        checks = Confirmations(DriverProof.PASSKEY, "route-17", 12, 8, 3, now - 2)
        jti = b64url.encode(os.urandom(16))
        return issue(self.key, Claims(Issuer(CARRIER), door, jti, now, now + 60, "driver", "stop", challenge, checks))

    def unlock(self, door: DoorId, token: str) -> None:
        """Open a door with a token."""
        answer = self.ask(f"/api/vestibule/doors/{door}/unlock", {"token": token}, self.intake_key)
        assert answer["word"] == "granted", answer

    def lock_of(self, door: DoorId) -> str:
        """Return the entity id of a door's lock."""
        entities = self.home.commands({"type": "config/entity_registry/list"})[0]
        (found,) = [e["entity_id"] for e in entities if e["unique_id"] == f"{door}_lock"]
        return str(found)

    @property
    def access(self) -> str:
        """An administrator's bearer."""
        assert self.home.access is not None
        return self.home.access

    @property
    def cpu(self) -> int:
        """Nanoseconds of CPU of the process so far."""
        assert self.home.process is not None
        threads = Path(f"/proc/{self.home.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads)

    @property
    def memory(self) -> int:
        """Bytes that the process has in memory."""
        assert self.home.process is not None
        lines = Path(f"/proc/{self.home.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _subentry(kind: str, title: str, unique_id: str, data: dict[str, Any]) -> dict[str, Any]:
    identity = secrets.token_hex(16)
    return {"data": data, "subentry_id": identity, "subentry_type": kind, "title": title, "unique_id": unique_id}


@contextlib.contextmanager
def _site(doors: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder) / "config", doors) as site:
        yield site


# ---- the goals ----


def unlock_by_token() -> list[Row]:
    """G11: CPU of an unlock by token through the intake, beside Home Assistant's own action of a trivial lock."""
    with _site(1) as site:
        door = site.doors[0]

        def paced(calls: Any) -> float:
            """Return the CPU of a call, less what the process does anyway."""
            began, at = site.cpu, time.monotonic()
            for number, call in enumerate(calls):
                call()
                time.sleep(max(0.0, at + (number + 1) * PACE - time.monotonic()))
            time.sleep(6)  # the recorder commits every five seconds
            return (site.cpu - began) / len(calls)

        body = {"entity_id": "lock.trivial"}
        ratios = []
        for round_ in range(ROUNDS + 1):
            tokens = []
            for _ in range(REQUESTS):
                tokens.append(site.token(door))
                time.sleep(PACE / 2)
            ours = paced([lambda token=token: site.unlock(door, token) for token in tokens])
            theirs = paced([lambda: site.ask("/api/services/lock/unlock", body, site.access)] * REQUESTS)
            idle = paced([lambda: None] * REQUESTS)
            if round_:  # the first one warms up
                ratios.append((ours - idle) / (theirs - idle))
    what = "signed, durable, recorded unlock through the intake / REST `lock.unlock` of a trivial lock, CPU"
    return [Row("G11", what, statistics.median(ratios), 1.0)]


def lock_to_strike() -> list[Row]:
    """G12: from the lock's action to the relay's command, beside a trivial lock that presses the same kind of relay."""
    with _site(1) as site:
        ours, theirs = site.lock_of(site.doors[0]), "lock.driving"
        rows: list[tuple[float, float]] = []
        for round_ in range(ROUNDS + 1):
            request = {"locks": [ours, theirs], "count": 100}
            path = "/api/services/bench_probe/lock_to_strike?return_response"
            taken = site.ask(path, request, site.access)["service_response"]
            if round_:
                wall, cpu = (
                    statistics.median(t[kind] for t in taken[ours]) / statistics.median(t[kind] for t in taken[theirs])
                    for kind in (0, 1)
                )
                rows.append((wall, cpu))
    what = "lock action -> relay command / the same of a trivial lock"
    return [
        Row("G12", f"{what}, CPU of the process", statistics.median(cpu for _, cpu in rows), 1.5),
        Row("G12", f"{what}, time (ours waits for the disk's sync)", statistics.median(wall for wall, _ in rows), None),
    ]


def many_accesses() -> list[Row]:
    """G14: what one access leaves, and whether the twenty-thousandth costs more than the first."""
    with _site(DOORS) as site:
        locks = [site.lock_of(door) for door in site.doors[:20]]
        blocks = []
        for _ in range(ACCESSES // BLOCK):
            began = site.cpu
            site.ask("/api/services/bench_probe/accesses", {"locks": locks, "count": BLOCK}, site.access)
            blocks.append(site.cpu - began)
        site.home.stop()
        database = sqlite3.connect(site.home.folder / "home-assistant_v2.db")
        entities = database.execute("SELECT m.entity_id FROM states_meta m JOIN states s USING(metadata_id)").fetchall()
        database.close()
    states = sum(re.fullmatch(r"\w+\.door_0(_[a-z]\w*)?", entity_id) is not None for (entity_id,) in entities)
    first, last = (statistics.median(part) for part in (blocks[1:6], blocks[-5:]))
    return [
        Row("G14", f"CPU of the last 5000 of {ACCESSES} accesses / of the first 5000", last / first, 1.15),
        Row("G14", "recorded states of a door for each access", states / (ACCESSES / len(locks)), 10),
    ]


def start_and_memory() -> list[Row]:
    """G15: what 200 doors add to Home Assistant's start and memory."""
    with tempfile.TemporaryDirectory() as folder:
        sites = {doors: Site(Path(folder) / str(doors), doors) for doors in (0, DOORS)}
        seconds: dict[int, list[float]] = {doors: [] for doors in sites}
        memory: dict[int, list[float]] = {doors: [] for doors in sites}
        for round_ in range(ROUNDS + 1):
            for doors, site in sites.items():
                began = time.monotonic()
                site.home.start()
                if not round_:  # the first start makes the registries
                    site.home.onboard("Manager", "manager", "a password that nobody needs")
                site.home.wait_until_started()
                if round_:
                    seconds[doors].append(time.monotonic() - began)
                    time.sleep(3)
                    memory[doors].append(site.memory)
                else:
                    time.sleep(12)  # the registries are written ten seconds after a change
                site.home.stop()
        shutil.rmtree(folder, ignore_errors=True)
    start, size = (
        statistics.median(w / wo for w, wo in zip(of[DOORS], of[0], strict=True)) for of in (seconds, memory)
    )
    return [
        Row("G15", f"start of Home Assistant with {DOORS} doors / without Vestibule", start, 1.05),
        Row("G15", f"memory of Home Assistant with {DOORS} doors / without Vestibule", size, 1.10),
    ]
