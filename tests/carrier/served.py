"""A carrier's cloud as it is served, with a building behind it: nothing in here is a mock.

``Served`` is the program's HTTP side on a real store (SQLite), and ``Site``'s real controller with simulated strikes,
whom tokens reach in this process. ``Phone`` is a driver with a device made of software.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import aiohttp

from carrier import alarms, api_keys, buildings, drivers, manifests
from carrier.api_keys import Scope
from carrier.app import Front
from carrier.buildings import NewDoor
from carrier.cloud import Cloud
from carrier.decide import Answer, Desk, Link, SignedChallenge, Unreachable
from carrier.keys import publish
from carrier.links import Links
from carrier.manifests import NewRoute, NewStop
from carrier.passkeys import Party
from carrier.store import Store, database_url, schema
from carrier.store.tables import AlarmKind, KeyUse, SigningKey
from carrier.ways import Ways
from tests.carrier.authenticator import Authenticator
from tests.simulated import IDENTITY, Carrier, Site, signing_key
from vestibule_core import keys
from vestibule_core.model import DoorId, Principal

_ZONE = ZoneInfo("Europe/Berlin")
HOST = "swift.example"
ORIGIN = f"https://{HOST}"
PLACE = (52.5163, 13.3777)
"""Where the doors are."""
FAR = (52.520004, 13.3777)
"""About 410 m north of there."""


class InProcess:
    """A link to one building in this process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.is_up = True

    async def challenge(self, building: str, door: DoorId) -> SignedChallenge:
        if not self.is_up:
            raise Unreachable
        issuer = self.site.carrier.issuer
        nonce = self.site.controller.challenge(door, issuer).nonce
        return SignedChallenge(door, issuer, nonce, str(IDENTITY.verifier))

    async def unlock(self, challenge: SignedChallenge, text: str) -> Answer:
        decision = await self.site.controller.present(text, Principal(self.site.carrier.issuer), None)
        return Answer(decision.code.word, decision.code.told)


@dataclass
class OneKey:
    """The carrier's only signing key."""

    key: keys.SigningKey

    async def signer(self, kid: str) -> keys.SigningKey:
        assert kid == self.key.kid
        return self.key


class Served:
    """A cloud at work: one building with two doors, one driver whose stop there is due, and a key with all scopes."""

    def __init__(
        self,
        folder: Path,
        *,
        connected: bool = True,
        origin: str = ORIGIN,
        port: int = 0,
        typed: bool = False,
        database: str = "",
    ):
        self.folder, self.origin, self.connected, self._port, self._typed = folder, origin, connected, port, typed
        self.offset = timedelta()
        self.site = Site(folder / "building.db", doors=2, carriers=[Carrier("Swift")])
        self.link = InProcess(self.site)
        self.store = Store(database_url(database or f"sqlite:///{folder / 'carrier.db'}"))
        self.key = ""

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, **time: float) -> None:
        self.offset += timedelta(**time)

    async def __aenter__(self) -> Self:
        await self.site.__aenter__()
        await schema.migrate(self.store)
        ring, issuer = OneKey(self.site.carrier.key), self.site.carrier.issuer
        ways = Ways(self.store, Links(self.store, ring, issuer, "Swift Parcels", self.now))
        link: Link = self.link if self.connected else ways
        host = self.origin.partition("//")[2].partition(":")[0]
        desk = Desk(self.store, ring, link, issuer, clock=self.now)
        cloud = Cloud(desk, Party(host, self.origin, "Swift Parcels"), ways, typed_positions=self._typed)
        self.front = await Front.open(cloud, "127.0.0.1", self._port)
        self.http = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.front.port}",
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Host": self.origin.partition("//")[2]},
        )
        await self._furnish()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.front.close()
        await self.store.close()
        await self.site.__aexit__()

    async def alarm(self, subject: str = "A" * 22) -> int:
        """Let there be an alarm; return its number."""
        async with self.store.transaction() as session:
            detail = {"door": self.site.door.id, "controller": "controller:x"}
            await alarms.sound(session, AlarmKind.NEVER_ISSUED, self.building, subject, self.now(), **detail)
            (newest,) = await alarms.listed(session, 1)
            return newest.id

    async def _furnish(self) -> None:
        now = self.now()
        async with self.store.transaction() as session:
            kid, day = self.site.carrier.key.kid, timedelta(days=1)
            session.add(
                SigningKey(
                    kid=kid,
                    use=KeyUse.TOKENS,
                    public=self.site.carrier.key.jwk(),
                    made_at=now,
                    sign_from=now - day,
                    sign_until=now + 20 * day,
                    publish_until=now + 21 * day,
                    file="",
                )
            )
            await publish(session, self.site.carrier.issuer, signing_key(seed="the root"), None, "tests", now)
            _, self.key = await api_keys.add(session, "tests", list(Scope), "tests", now)
            self.building = (
                await buildings.add(
                    session,
                    "Linden Court",
                    "Europe/Berlin",
                    str(IDENTITY.verifier),
                    tuple(
                        NewDoor(door.id, name, PLACE)
                        for door, name in zip(self.site.doors, ("Gate", "Lobby"), strict=True)
                    ),
                    "tests",
                    now,
                )
            ).id
            self.driver = (await drivers.add(session, "Kim Example", now + 30 * day, "tests", now)).id
            self.other = (await drivers.add(session, "Robin Example", now + 30 * day, "tests", now)).id
        self.stop = await self.bring(self.driver)

    @property
    def doors(self) -> tuple[str, ...]:
        return tuple(door.id for door in self.site.doors)

    async def bring(self, driver: str) -> str:
        """Give a driver a route with one stop, due from an hour ago for three hours; return the stop."""
        now = self.now()
        begins, ends = now - timedelta(hours=1), now + timedelta(hours=2)
        stop = NewStop(1, self.building, self.doors, begins, ends, "P-1")
        day: date = now.astimezone(_ZONE).date()
        async with self.store.transaction() as session:
            (route,) = await manifests.bring(session, [NewRoute(1, driver, day, begins, ends, (stop,))], "tests", now)
        (found,) = [each for each in (await self.ask("GET", f"/v1/routes?day={day}"))["routes"] if each["id"] == route]
        return str(found["stops"][0]["id"])

    async def invite(self, driver: str) -> str:
        """Return the secret of a link."""
        link = (await self.ask("POST", f"/v1/drivers/{driver}/invitation"))["link"]
        start, _, secret = link.partition("#join=")
        assert start == f"{self.origin}/"
        return str(secret)

    async def phone(self, driver: str | None = None) -> Phone:
        """Return a driver's phone that is set up."""
        phone = Phone(self)
        assert await phone.join(await self.invite(driver or self.driver)) == 204
        return phone

    async def request(self, method: str, path: str, **how: Any) -> aiohttp.ClientResponse:
        """Ask with the dispatcher's key."""
        headers = {"Authorization": f"Bearer {self.key}"} | how.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **how)

    async def ask(self, method: str, path: str, **how: Any) -> Any:
        async with await self.request(method, path, **how) as answer:
            text = await answer.text()
            assert answer.ok, (answer.status, text)
            return json.loads(text) if text else None


@dataclass
class Phone:
    """A driver's phone with one passkey, and its browser."""

    served: Served
    device: Authenticator = None  # type: ignore[assignment]
    cookie: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device is None:
            origin = self.served.origin
            self.device = Authenticator(origin, origin.partition("//")[2].partition(":")[0])

    async def send(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        headers = {"Origin": self.served.origin, "Sec-Fetch-Site": "same-origin"} | dict(self.headers)
        if self.cookie:
            headers["Cookie"] = f"__Host-driver={self.cookie}"
        headers |= how.pop("headers", {})
        headers = {name: value for name, value in headers.items() if value}
        async with self.served.http.request(method, path, headers=headers, **how) as answer:
            if (cookie := answer.cookies.get("__Host-driver")) is not None:
                self.cookie = cookie.value
                self.set_cookie = answer.headers["Set-Cookie"]
            text = await answer.text()
            if answer.content_type == "application/x-ndjson":
                return answer.status, [json.loads(line) for line in text.splitlines()]
            return answer.status, json.loads(text) if text else None

    async def join(self, secret: str, **members: Any) -> int:
        status, said = await self.send("POST", "/driver/join", json={"invitation": secret})
        if status != 200:
            return status
        credential = self.device.create(said["options"], **members)
        body = {"invitation": secret, "credential": credential}
        return (await self.send("POST", "/driver/join/passkey", json=body))[0]

    async def sign_in(self) -> int:
        _, said = await self.send("POST", "/driver/sign-in")
        return (
            await self.send("POST", "/driver/sign-in/passkey", json={"credential": self.device.get(said["options"])})
        )[0]

    async def today(self) -> Any:
        status, said = await self.send("GET", "/driver/today")
        assert status == 200, said
        return said

    def position(self, place: tuple[float, float] = PLACE, **members: Any) -> dict[str, Any]:
        at = int(self.served.now().timestamp())
        return {"lat": place[0], "lon": place[1], "accuracy": 8, "at": at, "typed": False} | members

    async def wish(self, door: int | str = 0, stop: str | None = None, **position: Any) -> tuple[int, Any]:
        body = {
            "stop": stop or self.served.stop,
            "door": self.served.doors[door] if isinstance(door, int) else door,
            "position": self.position(**position),
        }
        return await self.send("POST", "/driver/requests", json=body)

    async def answer(self, begun: Any, credential: Any = None, request: str | None = None) -> tuple[int, Any]:
        credential = credential or self.device.get(begun["options"])
        return await self.send(
            "POST", f"/driver/requests/{request or begun['request']}", json={"credential": credential}
        )

    async def open(self, door: int | str = 0, stop: str | None = None, **position: Any) -> tuple[str, dict[str, str]]:
        """Ask for a door and confirm; return what became of it, and the reason of each confirmation that failed."""
        status, begun = await self.wish(door, stop, **position)
        assert status == 200, begun
        status, lines = await self.answer(begun)
        assert status == 200, lines
        return outcome(lines)


def outcome(lines: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    checks = [line for line in lines if line["event"] == "check"]
    if lines[-1]["state"] != "unavailable":
        assert [line["check"] for line in checks] == ["id", "route", "position", "time"]
    return lines[-1]["state"], {line["check"]: line["reason"] for line in checks if not line["passed"]}
