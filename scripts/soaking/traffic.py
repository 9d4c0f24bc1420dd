"""What everybody does at the doors, again and again: drivers, the manager, attackers, clients that come and go.

At each door one thing is done after the other, and each access is over before the next begins, so that each movement of
its relay is of one token or one opening by hand. That something is refused, or that nobody answers, is part of it; what
was answered is written down.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp

from gateway import control
from gateway.source import Unusable
from scripts.demo_home.building import ISSUER, Part, change
from scripts.demo_home.home import HOST, HomeFailed
from scripts.demo_home.websocket import Closed
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient
from vestibule_core.errors import (
    GatewayForbidden,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    OutcomeUnknown,
    PairingFailed,
)
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Issuer

from .site import Door, Site, network

OVER: Final = 0.6
"""Seconds past the access time after which an access is over."""
TURNED_AWAY: Final = "turned away"
"""Of a token: it was not looked at, and has to be worth what it was before."""
NO_ANSWER: Final = "no answer"


@dataclass(slots=True)
class Presented:
    """A token that was presented, and what was said of it, each time."""

    door: str
    jti: str
    words: list[str] = field(default_factory=list)


@dataclass
class Traffic:
    """All of it. Belongs to one event loop."""

    site: Site
    dice: random.Random
    presented: list[Presented] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What may not be, as it was seen."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Go on until it is ``over``."""
        async with network() as session, asyncio.TaskGroup() as everybody:
            for door in self.site.doors:
                everybody.create_task(self._at(door, session))
            for act, seconds in (
                (self._lock_down, (25, 60)),
                (self._change_policy, (12, 40)),
                (self._visit, (8, 30)),
                (self._cut, (0.5, 8)),
                (self._walk, (5, 20)),
            ):
                everybody.create_task(self._now_and_then(partial(act, session), *seconds))

    async def _now_and_then(self, act: Callable[[], Awaitable[None]], least: float, most: float) -> None:
        while not await self._wait(self.dice.uniform(least, most)):
            await act()

    async def _wait(self, seconds: float) -> bool:
        """Wait; return whether it is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)
        return self.over.is_set()

    # ---- at one door ----

    async def _at(self, door: Door, session: aiohttp.ClientSession) -> None:
        acts = {
            self.deliver: 10,
            self._forge: 2,
            self._open_by_hand: 3,
            self._block: 1,
            self._hold: 1,
            self._no_deliveries: 1,
        }
        while not await self._wait(self.dice.uniform(0.1, 1.5)):
            (act,) = self.dice.choices(list(acts), list(acts.values()))
            before = door.moves()
            await act(door, session)
            await asyncio.sleep(door.access_time + OVER)
            if (moved := door.moves() - before) > 1:
                self.wrong.append(f"{door.name}: {act.__name__} moved the relay {moved} times")

    async def deliver(self, door: Door, session: aiohttp.ClientSession) -> str | None:
        """Deliver once, by one of the ways there are, and mostly present the token again; return the first word."""
        ways = [self._by_home, self._by_gateway] if door.at_gateway else [self._by_home]
        way = self.dice.choice(ways)
        if (challenge := await way(door, session, None)) is None:
            self.counted["no challenge"] += 1
            return None
        jti, text = self.site.token(door, challenge)
        sent = Presented(door.id, jti)
        self.presented.append(sent)
        for _ in range(self.dice.choice([1, 2, 2, 3])):
            word = await self.dice.choice(ways if sent.words else [way])(door, session, text) or NO_ANSWER
            sent.words.append(word)
            self.counted[
                f"{way.__name__.removeprefix('_by_')}: {word}" if len(sent.words) == 1 else f"again: {word}"
            ] += 1
        if sent.words.count("granted") > 1:
            self.wrong.append(f"{door.name}: a token was granted {sent.words.count('granted')} times")
        return sent.words[0]

    async def _forge(self, door: Door, session: aiohttp.ClientSession) -> None:
        way = self._by_gateway if door.at_gateway and self.dice.random() < 0.5 else self._by_home
        challenge = await way(door, session, None) or "A" * 22
        _, text = self.site.token(door, challenge, SigningKey.generate())
        word = await way(door, session, text)
        self.counted[f"forged: {word}"] += 1
        if word == "granted":
            self.wrong.append(f"{door.name}: a forged token was granted")

    async def _by_home(self, door: Door, session: aiohttp.ClientSession, token: str | None) -> str | None:
        """Ask Home Assistant's intake: for a challenge, or what it says of a token; None: nobody answered."""
        verb, body = ("challenge", {}) if token is None else ("unlock", {"token": token})
        url = f"{self.site.home.url}/api/vestibule/doors/{door.id}/{verb}"
        headers = {"Authorization": f"Bearer {self.site.intake_key}"}
        try:
            async with asyncio.timeout(25), session.post(url, json=body, headers=headers) as answer:
                if answer.status != 200:
                    return None if token is None else TURNED_AWAY
                said = await answer.json()
                return str(said["non"] if token is None else said["word"])
        except aiohttp.ClientConnectorError:
            return None if token is None else TURNED_AWAY
        except aiohttp.ClientError, TimeoutError, OSError:
            return None

    async def _by_gateway(self, door: Door, session: aiohttp.ClientSession, token: str | None) -> str | None:
        """Ask the gateway itself."""
        asking = self.site.asks_gateway(session)
        try:
            if token is None:
                return (await asking.challenge(DoorId(door.id), Issuer(ISSUER))).nonce
            return (await asking.unlock(DoorId(door.id), token)).word
        except OutcomeUnknown:
            return None
        except GatewayUnreachable, GatewayRefused, GatewayForbidden:
            return None if token is None else TURNED_AWAY

    async def _open_by_hand(self, door: Door, session: aiohttp.ClientSession) -> None:
        done = await self.call(session, "lock", "unlock", door.entities[Part.LOCK])
        self.counted[f"by hand: {done}"] += 1

    async def _block(self, door: Door, session: aiohttp.ClientSession) -> None:
        await self.call(session, "select", "select_option", door.entities[Part.MODE], option="blocked")
        await self.deliver(door, session)
        await self._surely(session, "select", "select_option", door.entities[Part.MODE], option="normal")

    async def _hold(self, door: Door, session: aiohttp.ClientSession) -> None:
        await self.call(session, "select", "select_option", door.entities[Part.MODE], option="unlocked")
        await asyncio.sleep(self.dice.uniform(0.2, 2))
        await self._surely(session, "lock", "lock", door.entities[Part.LOCK])

    async def _no_deliveries(self, door: Door, session: aiohttp.ClientSession) -> None:
        await self.call(session, "switch", "turn_off", door.entities[Part.DELIVERIES])
        await self.deliver(door, session)
        await self._surely(session, "switch", "turn_on", door.entities[Part.DELIVERIES])

    async def _surely(
        self, session: aiohttp.ClientSession, domain: str, service: str, entity: str, **more: Any
    ) -> None:
        """Have it done, however often that takes: else a door would let nobody in for minutes."""
        while await self.call(session, domain, service, entity, **more) != 200 and not await self._wait(1):
            pass

    async def call(
        self, session: aiohttp.ClientSession, domain: str, service: str, entity: str, **more: Any
    ) -> int | str:
        """Have Home Assistant do something, as the manager; return the status, or that there was none."""
        url = f"{self.site.home.url}/api/services/{domain}/{service}"
        headers = {"Authorization": f"Bearer {self.site.home.access}"}
        try:
            body = {"entity_id": entity, **more}
            async with asyncio.timeout(25), session.post(url, json=body, headers=headers) as answer:
                self.counted[f"{domain}.{service}"] += answer.status == 200
                return answer.status
        except aiohttp.ClientError, TimeoutError, OSError:
            return NO_ANSWER

    # ---- at all of them ----

    async def _lock_down(self, session: aiohttp.ClientSession) -> None:
        await self.call(session, "switch", "turn_on", self.site.lockdown)
        await self._wait(self.dice.uniform(1, 5))
        await self._surely(session, "switch", "turn_off", self.site.lockdown)

    async def _change_policy(self, _: aiohttp.ClientSession) -> None:
        what = {"distance": self.dice.randrange(60, 90), "accuracy": self.dice.randrange(40, 60)}
        try:
            await asyncio.to_thread(change, self.site.home, "carrier", ISSUER, "reconfigure", what)
            self.counted["policy changed"] += 1
        except HomeFailed, OSError, Closed, aiohttp.ClientError, TimeoutError:
            self.counted["policy asked to be changed in vain"] += 1

    async def _visit(self, session: aiohttp.ClientSession) -> None:
        """A client is paired, follows for a while, and is removed."""
        try:
            window = await asyncio.to_thread(
                control.call, self.site.room.state / "control.sock", "POST", "/pair", {"replace": False, "trust": False}
            )
            paired = await client.pair(session, HOST, self.site.room.port, window["code"], "A visitor")
            asking = GatewayClient(session, HOST, self.site.room.port, paired.token, [paired.fingerprint])
            with suppress(TimeoutError):
                async with asyncio.timeout(self.dice.uniform(0.1, 3)), aclosing(asking.stream(0)) as frames:
                    async for _ in frames:
                        pass
            answer = await session.delete(
                f"https://{HOST}:{self.site.room.port}/v1/clients/{paired.client_id}",
                headers={"Authorization": f"Bearer {self.site.manager['token']}"},
                ssl=aiohttp.Fingerprint(paired.fingerprint),
            )
            self.counted["visitors"] += answer.status == 204
        except (
            OSError, aiohttp.ClientError, Unusable, GatewayUnreachable, GatewayRefused, GatewayForbidden,
            MalformedMessage, PairingFailed, TimeoutError,
        ):  # fmt: skip
            self.counted["visitors who came in vain"] += 1

    async def _cut(self, _: aiohttp.ClientSession) -> None:
        self.site.cable.lasts = lambda: self.dice.choice([None, None, self.dice.randrange(100_000)])
        self.site.cable.cut()

    async def _walk(self, _: aiohttp.ClientSession) -> None:
        """Somebody comes out of the parcel room."""
        with suppress(OSError):
            self.site.room.pull_open()
        await asyncio.sleep(self.dice.uniform(0.2, 2))
        with suppress(OSError):
            self.site.room.fall_shut()
