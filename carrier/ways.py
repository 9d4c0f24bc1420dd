"""The way to a building's door: which of its controllers is asked, and which replica holds that one's link.

Of several that are connected and offer the door, the one that was enrolled last comes first, a gateway as a rule; the
next is asked if it gives no challenge. What this file refuses to do: ask a controller that has not offered this door in
its newest hello, hand a token to anybody but the connection that its challenge came from, or pass a second one on for
a challenge, whoever asks for that in another replica's name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from vestibule_core import token
from vestibule_core.errors import Violation
from vestibule_core.link.messages import read_challenge
from vestibule_core.model import DoorId, Word
from vestibule_core.note import VerifierKey

from .connection import Connection
from .decide import Answer, NotSent, SignedChallenge, Unreachable, is_unspent, record_outcome
from .enrolment import Presence
from .links import Links
from .store import Store, StoreUnavailable
from .store.tables import Building, Controller, DoorController, Link, Replica
from .switchboard import Failed, Given, Handed, Question, Reply, Switchboard, TakenOver, Told, Wanted

EACH_WAIT: Final = 3.5
"""Seconds for a controller to give a challenge if there is another one to be asked."""
PUT_WAIT: Final = 14.0
"""Seconds for what another replica has asked: less than its own patience, so that it hears of ours."""
GIVEN_FOR: Final = 90.0
"""Seconds for which a challenge that was passed on is remembered: longer than any door takes it."""


@dataclass(frozen=True, slots=True)
class Way:
    """A controller's link."""

    controller: str
    replica: str
    connection: str


class Ways:
    """All ways of this replica: its own links, and those of the others. Belongs to one event loop."""

    def __init__(self, store: Store, links: Links) -> None:
        """Look the ways up in ``store``."""
        self._store, self.links = store, links
        # SQLite has one replica: there is nobody to ask.
        self.switchboard = None if store.is_sqlite else Switchboard(store, links.replica, self._put)
        links.elsewhere = self._elsewhere
        self._given: dict[tuple[str, str], float] = {}
        """Which connection has given which nonce to another replica, and when, the oldest first."""

    async def run(self) -> None:
        """Keep the links and the line to other replicas, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.links.run())
            if self.switchboard is not None:
                tasks.create_task(self.switchboard.run())

    async def end(self) -> None:
        """End all links, once what was asked over them is answered."""
        await self.links.end()
        if self.switchboard is not None:
            await self.switchboard.end()

    # ---- what a decision asks (decide.Link) ----

    async def challenge(self, building: str, door: DoorId) -> SignedChallenge:
        """Return a fresh challenge of a door; raise Unreachable, or StoreUnavailable."""
        ways, failed = await self._to(building, door), Unreachable()
        for number, way in enumerate(ways, 1):
            try:
                async with asyncio.timeout(EACH_WAIT if number < len(ways) else None):
                    nonce = await self._challenge(way, door)
            except TimeoutError:
                failed = Unreachable()
            except Unreachable as err:
                failed = err
            else:
                return SignedChallenge(door, self.links.issuer, nonce, way.controller, way)
        raise failed

    async def unlock(self, challenge: SignedChallenge, text: str) -> Answer:
        """Hand a token to the connection that its challenge came from; raise NotSent, or Unreachable."""
        way = challenge.way
        assert isinstance(way, Way), "the challenge came from here"
        if way.replica != self.links.replica:
            return await self._other().unlock(way.replica, way.connection, text)
        if (connection := self.links.get(way.connection)) is None:
            raise NotSent
        return await connection.unlock(text)

    async def _to(self, building: str, door: DoorId) -> Sequence[Way]:
        async with self._store.reading() as session:
            rows = await session.execute(
                select(Controller.key, Link.replica, Link.connection)
                .join(Link, Link.controller_key == Controller.key)
                .join(DoorController, DoorController.controller_key == Controller.key)
                .join(Building, Building.id == Controller.building_id)
                .join(Replica, Replica.id == Link.replica)
                .where(
                    DoorController.door_id == door,
                    Controller.building_id == building,
                    Controller.removed_at.is_(None),
                    Building.removed_at.is_(None),
                )
                .order_by(Controller.enrolled_at.desc(), Controller.key)
            )
            return [way for way in (Way(*row) for row in rows) if self.links.is_heard(way.replica)]

    async def _challenge(self, way: Way, door: DoorId) -> str:
        if way.replica != self.links.replica:
            signed = await self._other().challenge(way.replica, way.connection, door)
        elif (connection := self.links.get(way.connection)) is not None:
            signed = await connection.challenge(door)
        else:
            raise NotSent
        try:  # here, by whoever signs a token for it, whichever way it came (attack 79)
            return read_challenge(signed, VerifierKey.parse(way.controller), self.links.issuer, door).nonce
        except Violation as err:
            raise Unreachable("WRONG_CHALLENGE") from err

    def _other(self) -> Switchboard:
        if self.switchboard is None:
            raise NotSent
        return self.switchboard

    # ---- what other replicas ask ----

    def _elsewhere(self, before: Presence, instance: str) -> None:
        if self.switchboard is not None:
            self.switchboard.take_over(before.replica, before.connection, instance)

    async def _put(self, question: Question) -> Reply | None:
        if isinstance(question, TakenOver):
            self.links.take_over(question.connection, question.instance)
            return None
        if (connection := self.links.get(question.connection)) is None:
            return Failed(question.number, "UNREACHABLE", sent=False)
        try:
            async with asyncio.timeout(PUT_WAIT):
                match question:
                    case Wanted(number, door=door):
                        return Given(number, await self._give(connection, DoorId(door)))
                    case Handed(number, token=text):
                        answer = await self._hand_over(connection, text)
                        return Told(number, answer.word, answer.code)
        except NotSent as err:
            return Failed(question.number, err.code, sent=False)
        except Unreachable as err:
            return Failed(question.number, err.code, sent=True)
        except TimeoutError:
            return Failed(question.number, "UNREACHABLE", sent=True)

    async def _give(self, connection: Connection, door: DoorId) -> str:
        signed = await connection.challenge(door)
        now = time.monotonic()
        while self._given and (oldest := next(iter(self._given.items())))[1] < now - GIVEN_FOR:
            del self._given[oldest[0]]
        nonce = read_challenge(signed, connection.peer.controller, self.links.issuer, door).nonce
        self._given[connection.id, nonce] = now
        return signed

    async def _hand_over(self, connection: Connection, text: str) -> Answer:
        """Hand over the one text for a challenge. If it certainly opened nothing, write that down here, where it was
        heard: on another replica's word no door is given back.
        """
        said = token.claimed(text)
        if said is None or self._given.pop((connection.id, said.nonce), None) is None:
            raise NotSent
        answer = await connection.unlock(text)
        # "Refused" is said of a text with our signature, so that it is this very token (protocol A.2, from step 7 on).
        if answer.word is Word.REFUSED and is_unspent(answer):
            # The database is away: the door stays claimed. Never issued: this building lies.
            with suppress(StoreUnavailable, LookupError):
                now, building = self.links.clock(), connection.peer.building
                await record_outcome(self._store, said.jti, answer, now, building=building)
        return answer
