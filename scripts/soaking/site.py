"""A building for a soak: the demo's Home Assistant, two doors with relays there, and a gateway with three doors.

Of those three, one hangs on the demo's simulated relay board over Modbus-TCP, two on a board in memory. Home Assistant
reaches the gateway over a cable, which is pulled out now and then; whoever else asks the gateway has a line of his own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from gateway import control
from scripts.demo_home import room
from scripts.demo_home.building import CARRIER, ISSUER, Part, change, lockdown_of
from scripts.demo_home.demo import Demo, begin, gateway_of, home_of, make, signing_key
from scripts.demo_home.home import HOST, Home, HomeFailed, free_port
from scripts.demo_home.room import Room
from scripts.demo_home.stage import read_relays_log
from tests.cable import Cable
from vestibule_core import b64url
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient, Paired
from vestibule_core.api.messages import Bearer
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Issuer
from vestibule_core.token import Claims, Confirmations, DriverProof, issue

ACCESS: Final = 1
"""Seconds of an access at the gateway's doors."""
MORE: Final = """
[board.yard]
kind = "memory"
log = "yard.log"

[door.yard]
name = "Yard"
access_time = 1
relay = { board = "yard", channel = 1 }

[door.cellar]
name = "Cellar"
access_time = 1
relay = { board = "yard", channel = 2 }
"""
_CHANNELS: Final = {"Yard": "1", "Cellar": "2"}


@dataclass(frozen=True)
class Door:
    """A door, and the log of its relay."""

    name: str
    id: str
    at_gateway: bool
    access_time: float
    entities: dict[Part, str]
    log: Path

    def moves(self) -> int:
        """Return how often its relay was released, from outside of everything that decides."""
        if not self.log.exists():
            return 0
        if not self.at_gateway:
            return sum(key == self.name.lower() for _, key in read_relays_log(self.log))
        if self.name in _CHANNELS:
            lines = self.log.read_text("ascii").splitlines()
            return sum(line.startswith(f"{_CHANNELS[self.name]} on ") for line in lines)
        return len(room.releases(self.log.parent))


@dataclass
class Site:
    """Everything that is there. The main thread starts and ends processes; the rest belongs to one event loop."""

    folder: Path
    home: Home
    demo: Demo
    room: Room
    cable: Cable
    doors: list[Door]
    key: SigningKey
    intake_key: str
    lockdown: str
    carrier: Paired
    """The carrier's own pairing with the gateway: it may present, and nothing else."""
    manager: dict[str, Any] = field(repr=False, default_factory=dict)
    """What Home Assistant keeps of the gateway."""

    @property
    def journals(self) -> dict[str, Path]:
        return {
            "building": self.home.folder / ".storage" / "vestibule.journal.db",
            "gateway": self.room.state / "journal.db",
        }

    def token(self, door: Door, challenge: str, key: SigningKey | None = None) -> tuple[str, str]:
        """Return the id and the text of a token; ``key``: somebody else's."""
        now, jti = int(time.time()), b64url.encode(secrets.token_bytes(16))
        checks = Confirmations(DriverProof.DEVICE_KEY, "route-17", 12, 8, 3, now - 2)
        claims = Claims(Issuer(ISSUER), DoorId(door.id), jti, now, now + 60, "driver", "stop", challenge, checks)
        return jti, issue(key or self.key, claims)

    def asks_gateway(self, session: aiohttp.ClientSession, as_manager: bool = False) -> GatewayClient:
        """Return the gateway as the carrier asks it, or as who has all rights."""
        token = Bearer(self.manager["token"]) if as_manager else self.carrier.token
        return GatewayClient(session, HOST, self.room.port, token, [self.carrier.fingerprint])

    def sign_in(self) -> None:
        """Get a new access token: one is good for half an hour."""
        self.home.sign_in(self.demo.refresh_token, self.demo.client_id)

    def start_home(self) -> None:
        """Start Home Assistant again."""
        self.home.start()
        self.sign_in()
        self.home.wait_until_started()


@contextmanager
def at_work(folder: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Site]:
    """Set it all up; ``loop`` runs in another thread, and has the cable."""
    begin(folder)
    with Room(gateway_of(folder), access_time=ACCESS, more=MORE) as gateway, home_of(folder, free_port()) as home:
        cable = Cable(gateway.port)
        _in(loop, cable.__aenter__())
        try:
            gateway.reached_at = cable.port
            demo = make(folder, home, room=gateway)
            yield _site(folder, home, demo, gateway, cable, loop)
        finally:
            _in(loop, cable.__aexit__())


def _in[T](loop: asyncio.AbstractEventLoop, work: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result(60)


def _site(folder: Path, home: Home, demo: Demo, gateway: Room, cable: Cable, loop: asyncio.AbstractEventLoop) -> Site:
    entities, devices = home.commands({"type": "config/entity_registry/list"}, {"type": "config/device_registry/list"})
    registered = {entity["unique_id"]: entity["entity_id"] for entity in entities if entity["platform"] == "vestibule"}
    by_name = {device["name"]: identifier for device in devices for _, identifier in device["identifiers"]}
    doors = []
    for name in ("Gate", "Lobby", "Parcel room", *_CHANNELS):
        known = next((door for door in demo.doors if door.name == name), None)
        door = known.id if known else by_name[name]
        at_gateway = known is None or known.gateway is not None
        has = {part: registered[f"{door}_{part}"] for part in (Part.LOCK, Part.MODE, Part.DELIVERIES)}
        log = gateway.folder / ("yard.log" if name in _CHANNELS else "board.log") if at_gateway else home.relays_log
        doors.append(
            Door(name, door, at_gateway, ACCESS if at_gateway or known is None else known.access_time, has, log)
        )
    change(home, "carrier", ISSUER, "reconfigure", {"doors": [door.id for door in doors]})
    lockdown = lockdown_of(home, demo.doors)
    home.stop()  # it writes down users and entries a moment after the fact: no kill may lose those
    manager = _stored(home)
    carrier = _in(loop, _pair(gateway, manager))
    intake_key = (folder / "swift" / "intake-key").read_text("ascii")
    site = Site(folder, home, demo, gateway, cable, doors, signing_key(folder), intake_key, lockdown, carrier, manager)
    site.start_home()
    gateway.wait_until_allowed(CARRIER)
    return site


def _stored(home: Home) -> dict[str, Any]:
    stored = json.loads((home.folder / ".storage" / "core.config_entries").read_text())
    (data,) = (entry["data"] for entry in stored["data"]["entries"] if "token" in entry["data"])
    return dict(data)


async def _pair(gateway: Room, manager: dict[str, Any]) -> Paired:
    """Pair the carrier with the gateway, and have the manager let it present its own tokens, and do nothing else."""
    async with network() as session:
        window = await asyncio.to_thread(
            control.call, gateway.state / "control.sock", "POST", "/pair", {"replace": False, "trust": False}
        )
        paired = await client.pair(session, HOST, gateway.port, window["code"], CARRIER)
        answer = await session.put(
            f"https://{HOST}:{gateway.port}/v1/clients/{paired.client_id}",
            json={"scopes": ["present"], "issuers": [ISSUER]},
            headers={"Authorization": f"Bearer {manager['token']}"},
            ssl=aiohttp.Fingerprint(paired.fingerprint),
        )
        if answer.status != 200:
            raise HomeFailed(f"The carrier was not let in at the gateway: {await answer.text()}")
        return paired


def network() -> aiohttp.ClientSession:
    """Return a session that a gateway may be asked with."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
