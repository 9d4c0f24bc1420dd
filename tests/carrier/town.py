"""A carrier's cloud and one building, both real, in one process, for the tests of what lies between them.

``Town`` has a store with a driver, a device, a route and published keys, and a building that is a real controller with
simulated strikes (tests/simulated.py), which trusts those keys. ``Town.link`` is the way between them: in process, with
verbs for what can go wrong on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carrier import buildings, drivers, keys, manifests
from carrier.checks import Asked, AssertionFacts, Fix
from carrier.decide import Answer, Desk, Outcome, SignedChallenge, Unreachable, decide
from carrier.store import Prefix, Store, new_id
from tests.simulated import IDENTITY, ISSUED_AT, Carrier, Clock, SimulatedStrike, Site, signing_key, some_doors
from vestibule_core.errors import Refused
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Principal

NOW = datetime.fromtimestamp(ISSUED_AT, UTC)
HOME = (52.52, 13.405)
CREDENTIAL = b"erikas-passkey"
NAME, REFERENCE = "Erika Mustermann", "parcel-4711"
NEAR = (52.52009, 13.405)
"""10 m from the door."""


class InProcessLink:
    """The way to one building. ``before_challenge`` and the others are awaited at their time, and may raise."""

    def __init__(self, site: Site, issuer: str) -> None:
        self.site, self.issuer = site, issuer
        self.tokens: list[str] = []
        self.before_challenge: Callable[[], Awaitable[None]] = _nothing
        self.before_unlock: Callable[[], Awaitable[None]] = _nothing
        self.after_unlock: Callable[[], Awaitable[None]] = _nothing

    async def challenge(self, building: str, door: DoorId) -> SignedChallenge:
        await self.before_challenge()
        try:
            given = self.site.controller.challenge(door, self.issuer)
        except Refused as err:
            raise Unreachable(err.code.value) from err
        return SignedChallenge(given.door, self.issuer, given.nonce, str(IDENTITY.verifier))

    async def unlock(self, challenge: SignedChallenge, text: str) -> Answer:
        self.tokens.append(text)
        await self.before_unlock()
        decision = await self.site.controller.present(text, Principal(self.issuer))
        await self.after_unlock()
        return Answer(decision.code.word, decision.code.told)


async def _nothing() -> None: ...


class Town:
    """See above. Use ``await Town.founded(...)``, and ``async with town.site`` around what is delivered."""

    store: Store
    folder: Path
    carrier: Carrier
    site: Site
    link: InProcessLink
    desk: Desk
    root: SigningKey
    """The carrier's."""
    driver: str
    device: str
    building: str
    stop: str

    @classmethod
    async def founded(cls, store: Store, folder: Path, *, doors: int = 1, stops: int = 1, now: datetime = NOW) -> Town:
        """Set everything up, on a store with its schema."""
        town = cls()
        town.store, town.folder, town.now = store, folder, now
        town.carrier, town.root = Carrier("Parcels"), signing_key(seed="the root")
        ring = keys.KeyFolder(folder / "keys")
        async with store.transaction() as session:
            made = (await keys.rotate(session, ring, "command", now))[0]
            driver = await drivers.add(session, NAME, now + timedelta(days=30), "command", now)
            town.driver = driver.id
            device = await drivers.add_device(
                session,
                driver.id,
                credential_id=CREDENTIAL,
                public_key=b"key",
                sign_count=0,
                backed_up=False,
                transports=[],
                now=now,
            )
            town.device = device.id
            await keys.publish(session, town.carrier.issuer, town.root, None, "command", now)
        town.carrier.key = await ring.signer(made.kid)
        town.site = Site(
            folder / "journal.db",
            doors=doors,
            carriers=[town.carrier],
            clock=Clock(wall=now.timestamp()),
        )
        async with store.transaction() as session:
            places = tuple(buildings.NewDoor(door.id, door.name, HOME) for door in town.site.doors)
            key = str(IDENTITY.verifier)
            building = await buildings.add(session, "Number 7", "Europe/Berlin", key, places, "command", now)
            town.building = building.id
        town.stops = await town.bring([[door.id for door in town.site.doors]] * stops)
        town.stop = town.stops[0]
        town.link = InProcessLink(town.site, town.carrier.issuer)
        town.desk = Desk(store, ring, town.link, town.carrier.issuer, clock=lambda: town.now)
        return town

    @classmethod
    async def again(cls, store: Store, folder: Path, *, now: datetime = NOW) -> Town:
        """Return the same town as another replica finds it: the database, the keys, and the building started again."""
        town = cls()
        town.store, town.folder, town.now = store, folder, now
        for name in ("driver", "device", "building", "stop"):
            setattr(town, name, (await town.rows(f"SELECT id FROM {name}"))[0])
        town.carrier = Carrier("Parcels")
        ring = keys.KeyFolder(folder / "keys")
        town.carrier.key = await ring.signer((await town.rows("SELECT kid FROM signing_key WHERE \"use\" = 'sig'"))[0])
        strikes = {door.id: SimulatedStrike(log=folder / "strike.log") for door in some_doors(1)}
        town.site = Site(
            folder / "journal.db", carriers=[town.carrier], clock=Clock(wall=now.timestamp()), strikes=strikes
        )
        town.link = InProcessLink(town.site, town.carrier.issuer)
        town.desk = Desk(store, ring, town.link, town.carrier.issuer, clock=lambda: town.now)
        return town

    async def bring(self, paths: list[list[str]], *, hours: int = 2) -> list[str]:
        """Bring a route with a stop for each path of doors; return the stops' ids."""
        begins, ends = self.now - timedelta(hours=1), self.now + timedelta(hours=hours)
        row = {
            "driver": self.driver,
            "day": self.now.date().isoformat(),
            "shift_from": begins.isoformat(),
            "shift_to": ends.isoformat(),
            "stops": [
                {
                    "building": self.building,
                    "doors": path,
                    "window_from": begins.isoformat(),
                    "window_to": ends.isoformat(),
                    "reference": REFERENCE,
                }
                for path in paths
            ],
        }
        routes = manifests.read_json(json.dumps({"routes": [row]}))
        async with self.store.transaction() as session:
            (route,) = await manifests.bring(session, routes, "command", self.now)
        return await self.rows(f"SELECT id FROM stop WHERE route_id = '{route}' ORDER BY seq")

    def asked(self, **changes: object) -> Asked:
        """Return a wish that everything speaks for, for the first door of the first stop."""
        return replace(
            Asked(
                new_id(Prefix.REQUEST),
                self.driver,
                self.device,
                AssertionFacts(True, True, True),
                self.stop,
                self.site.door.id,
                Fix(*NEAR, 8.0, self.now - timedelta(seconds=3)),
                self.now - timedelta(seconds=2),
            ),
            **changes,
        )

    async def ask(self, **changes: object) -> Outcome:
        """Ask for the door and return what came of it."""
        async with asyncio.timeout(60):
            return await decide(self.desk, self.asked(**changes))

    async def rows(self, sql: str) -> list:
        """Return what a query returns: values if it has one column."""
        async with self.store.connection() as connection:
            found = list(await connection.exec_driver_sql(sql))
        return [row[0] if len(row) == 1 else tuple(row) for row in found]
