"""The links that controllers hold to this replica: WebSocket ``/v1/link`` (protocol G).

A controller says hello, signed for the number that this connection began with, and gets the carrier's keys. One timer
asks all of them whether they are there; what a building accepted is looked up in batches, and lists are sent one after
another, so that ten thousand links cost little. What this file refuses to do: listen to whoever has not said hello for
longer than ten seconds, let a controller have two links, keep one whose controller was removed, work for a building
that says hello, tells of acceptances, or says anything at all over and over, or look up all the keys that a stranger
makes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, assert_never

from aiohttp import WSMessage, WSMsgType, web
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from vestibule_core import b64url
from vestibule_core.bucket import Buckets
from vestibule_core.errors import KeySetInvalid, MalformedMessage, Violation
from vestibule_core.link.messages import (
    FROM_CLOUD,
    FROM_CONTROLLER,
    MAX_FRAME,
    Accepted,
    AskList,
    Begin,
    Challenge,
    Close,
    FromController,
    Greeting,
    Hello,
    IssuedPart,
    Keys,
    NoChallenge,
    Outcome,
    Pong,
    claimed_controller,
    read_hello,
)
from vestibule_core.model import Issuer
from vestibule_core.note import VerifierKey

from . import alarms, enrolment, keys, lists
from .acceptances import Acceptance, look_up
from .connection import CLOSE_WAIT, Connection, Peer
from .decide import Unreachable
from .enrolment import Presence, Unwelcome, controller_id
from .keys import Keyring, KeyUnusable
from .limits import ADDRESSES, caller_of
from .store import Store, StoreUnavailable
from .store.tables import AlarmKind, Building, Controller, KeySet, Link, Replica

_LOGGER = logging.getLogger(__name__)

PATH: Final = "/v1/link"
HELLO_WAIT: Final = 10.0
"""Seconds for a hello."""
MOST_SILENT: Final = 1000
"""Connections that have not said hello."""
MOST_OF_ONE: Final = 32
"""Of those, how many from one address."""
HELLOS_PER_SECOND: Final = 1 / 6
HELLOS_AT_ONCE: Final = 20.0
"""Hellos of one controller at this replica: more than a link comes back that is cut again and again."""
ACCEPTED_PER_SECOND: Final = 20.0
ACCEPTED_AT_ONCE: Final = 1000.0
"""Acceptances of one controller: all that a gateway tells of again when it comes back, then more than doors open."""
STRANGER_PER_SECOND: Final = 1.0
STRANGER_BURST: Final = 60.0
"""Hellos of one address that turn out to be of nobody who is enrolled."""
CONTROLLERS: Final = 20_000
"""Whose hellos and acceptances are counted."""
PING_EVERY: Final = 30
"""Seconds. Whoever has said nothing from one to the next is gone."""
PROOF_WAIT: Final = 5.0
"""Seconds for a link that is being taken over to show that it is alive."""
ANSWER_WAIT: Final = 20.0
"""Seconds for what was asked to be answered, when the program ends."""
LOOK_EVERY: Final = 10.0
"""Seconds between two looks at what has changed in the database."""
REPLICA_FOR: Final = 90.0
"""Seconds after which a replica that says nothing is taken for dead."""
REPLICA_HEARD: Final = 30.0
"""Seconds after which it is not asked any more."""
CLOCKS_APART: Final = 5.0
"""Seconds by which two replicas may differ before that is said: requests are ended by the clock of either."""
GREETED_TOGETHER: Final = 8
"""Hellos that use the database at a time: when ten thousand come back, drivers need it, too."""
BATCH: Final = 200
"""Acceptances that are looked up together."""
SETTLE_AFTER: Final = 0.5
"""Seconds for more of them to come, and for the outcomes of these: what is known by then needs no writing."""
MOST_SETTLING: Final = 100
"""Acceptances of one link; more are read when those are looked up."""
LISTS_TOGETHER: Final = 100
"""Controllers."""
LIST_WAIT: Final = 60.0
"""Seconds for one controller to read its list."""
LIST_RETRY: Final = 10.0
_RETRY: Final = 1.0
MOST_AFTER: Final = 100
"""Frames that are read of somebody who has been told to go, until he says that he has heard."""
MOST_PINGS: Final = 10
"""Pings and pongs that are read of somebody before a hello."""
_OVER: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Links:
    """The links of this replica. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        issuer: Issuer,
        name: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Speak for the carrier ``issuer``, which is called ``name``."""
        self._store, self._keyring, self.issuer, self._name, self.clock = store, keyring, issuer, name, clock
        self.replica: Final = _fresh()
        """By what other replicas know this one."""
        self.elsewhere: Callable[[Presence, str], None] = lambda *_: None
        """Told of a link at another replica whose controller, in this instance, is here now."""
        self._here: dict[str, Connection] = {}
        self._silent: Counter[str] = Counter()
        self._mute: dict[asyncio.Transport, None] = {}
        """Who has not said anything yet, the oldest first."""
        self._hellos: Buckets[VerifierKey] = Buckets(
            per_second=HELLOS_PER_SECOND, burst=HELLOS_AT_ONCE, most=CONTROLLERS
        )
        self._strangers: Buckets[str] = Buckets(per_second=STRANGER_PER_SECOND, burst=STRANGER_BURST, most=ADDRESSES)
        self._welcome: dict[VerifierKey, None] = {}
        """Controllers whose hello was taken here: no stranger at the same address keeps them out."""
        self._acceptances: Buckets[VerifierKey] = Buckets(
            per_second=ACCEPTED_PER_SECOND, burst=ACCEPTED_AT_ONCE, most=CONTROLLERS
        )
        self._beats: list[set[Connection]] = [set() for _ in range(PING_EVERY)]
        self._gone: set[str] = set()
        """Connections that are over, but still in the database."""
        self._keys: Keys | None = None
        self._keys_version = 0
        self._told: asyncio.Queue[tuple[Connection, Acceptance]] = asyncio.Queue()
        self._wanting: dict[Connection, None] = {}
        """Whose lists are to be sent, in their order."""
        self._list_due = asyncio.Event()
        self._others: dict[str, tuple[datetime, float]] = {}
        """The last word of each other replica, and when it was new to us (monotonic seconds): clocks may differ."""
        self._greeting = asyncio.Semaphore(GREETED_TOGETHER)
        self._listed: date | None = None
        """The newest day whose list every link has got."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def __len__(self) -> int:
        """Return how many controllers are connected here."""
        return len(self._here)

    def get(self, connection: str) -> Connection | None:
        """Return a connection, None if it is over."""
        return self._here.get(connection)

    def is_heard(self, replica: str) -> bool:
        """Return whether a replica has said something lately, or is new to us."""
        known = self._others.get(replica)
        return known is None or time.monotonic() - known[1] < REPLICA_HEARD

    # ---- a link ----

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one controller until either side ends it."""
        address = caller_of(request)
        if self._is_ending or self._silent[address] >= MOST_OF_ONE or not self._has_room():
            return web.json_response(
                {"error": "unavailable"}, status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "10"}
            )
        socket = web.WebSocketResponse(compress=False, autoping=False, max_msg_size=MAX_FRAME, timeout=CLOSE_WAIT)
        transport = request.transport
        assert transport is not None  # its headers were read in this very turn of the loop
        self._silent[address] += 1
        self._mute[transport] = None
        try:
            await socket.prepare(request)
            connection = await self._greeted(socket, request, address)
        except Unwelcome as err:
            _LOGGER.info("hello_refused", extra={"facts": {"why": str(err), "close": err.close.value}})
            self._mute[transport] = None  # who does not go when told to has no better right to a place
            await _end(socket, request, err.close)
            return socket
        except ConnectionError:
            return socket
        finally:
            self._mute.pop(transport, None)
            self._silent[address] -= 1
            if not self._silent[address]:
                del self._silent[address]
        try:
            await self._listen(connection, socket)
        except (Violation, MalformedMessage) as err:
            _LOGGER.warning(
                "link_violation",
                extra={"facts": {"controller": controller_id(connection.peer.controller), "why": str(err)}},
            )
            self._forget(connection)  # nothing more is sent behind the word that it is over
            await _end(socket, request, Close.VIOLATION)
        finally:
            self._forget(connection)
        return socket

    def _has_room(self) -> bool:
        """Return whether one more may begin, if need be in the place of whoever has said nothing, or not gone when told
        to, for the longest: a controller says hello at once, and strangers at many addresses would keep all out.
        """
        if self._silent.total() >= MOST_SILENT:
            if not self._mute:
                return False
            oldest = next(iter(self._mute))
            del self._mute[oldest]
            oldest.abort()
        return True

    async def _greeted(self, socket: web.WebSocketResponse, request: web.Request, address: str) -> Connection:
        """Take a hello; raise Unwelcome."""
        nonce = os.urandom(16)
        try:
            await socket.send_str(FROM_CLOUD.encode(Begin(nonce, self.issuer, self._name)).decode())
            async with asyncio.timeout(HELLO_WAIT):
                greeting = _frame(await _first(socket))
            if not isinstance(greeting, Greeting):
                raise Unwelcome(Close.VIOLATION, "no hello")
            # Signed by the key that it names: whether that one is welcome here is looked up afterwards.
            hello = read_hello(greeting.jwt, claimed_controller(greeting.jwt), self.issuer, nonce)
        except TimeoutError as err:
            raise Unwelcome(Close.VIOLATION, "no hello in time") from err
        except (Violation, MalformedMessage) as err:
            raise Unwelcome(Close.NOT_ENROLLED, str(err)) from err
        if request.transport is not None:
            self._mute.pop(request.transport, None)
        # Anybody makes keys. Of one address few of those that nobody knows are looked up: they cost a transaction each.
        if hello.controller not in self._welcome and not self._strangers.has(address, time.monotonic()):
            raise Unwelcome(Close.GOING_AWAY, "too many strangers have come from its address")
        if not self._hellos.take(hello.controller, time.monotonic()):
            raise Unwelcome(Close.GOING_AWAY, "it says hello over and over")
        connection_id = _fresh()
        try:
            async with self._greeting, self._store.transaction() as session:
                if request.transport is None or request.transport.is_closing():
                    raise Unwelcome(Close.GOING_AWAY, "it went before its turn came")
                greeted = await enrolment.greet(
                    session, hello, greeting.secret, self.replica, connection_id, self.clock()
                )
                published = await keys.newest_set(session)
                if published is None:
                    raise Unwelcome(Close.GOING_AWAY, "no keys are published: `vestibule-carrier keys publish`")
        except Unwelcome as err:
            if err.close is not Close.GOING_AWAY:
                self._strangers.take(address, time.monotonic())
                self._welcome.pop(hello.controller, None)
            raise
        except StoreUnavailable as err:
            self._gone.add(connection_id)  # it may be written down all the same
            raise Unwelcome(Close.GOING_AWAY, f"the database does not answer: {err}") from err
        except IntegrityError as err:  # the same hello, or the same door, at the same moment
            raise Unwelcome(Close.GOING_AWAY, "another hello came in between") from err
        self._welcome[hello.controller] = None
        if len(self._welcome) > CONTROLLERS:
            del self._welcome[next(iter(self._welcome))]
        if hello.key_set > published.version:  # or it lies; a cloud that was restored has to be told somehow
            facts = {"controller": controller_id(hello.controller), "has": hello.key_set, "ours": published.version}
            _LOGGER.warning("building_has_newer_keys", extra={"facts": facts})
        return self._begin(connection_id, socket, request, hello, greeted, published)

    def _begin(
        self,
        id_: str,
        socket: web.WebSocketResponse,
        request: web.Request,
        hello: Hello,
        greeted: enrolment.Greeted,
        published: KeySet,
    ) -> Connection:
        transport = request.transport
        if transport is None or self._is_ending:
            self._gone.add(id_)
            raise Unwelcome(Close.GOING_AWAY, "it ended meanwhile")
        assert isinstance(transport, asyncio.WriteTransport)
        peer = Peer(hello.controller, greeted.building, b64url.encode(hello.instance))
        connection = Connection(id_, socket, transport, self.issuer, peer, time.monotonic())
        self._publish(published)
        assert self._keys is not None
        connection.post(self._keys)  # before anything that is asked: it is here from the next line on
        self._here[id_] = connection
        min(self._beats, key=len).add(connection)
        if (before := greeted.before) is not None:
            if before.replica == self.replica:
                self.take_over(before.connection, peer.instance)
            else:
                self.elsewhere(before, peer.instance)
        newest = lists.newest_day(self.clock())
        for ago in range(lists.AT_HELLO - 1, -1, -1):
            self._want(connection, newest - timedelta(days=ago))
        return connection

    async def _listen(self, connection: Connection, socket: web.WebSocketResponse) -> None:
        while True:
            message = await socket.receive()
            if message.type in _OVER:
                return
            # What is there already is read without a pause: whoever says much leaves no time for anybody else.
            if not connection.frames.take(time.monotonic()):
                raise Violation("more than any controller has to say")
            if connection.closing is not None or message.type is WSMsgType.PONG:
                continue  # until it has heard; that one is there, anybody may say (RFC 6455 5.5.3)
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
                continue
            frame = _frame(message)
            connection.hears()
            match frame:
                case Challenge() | NoChallenge() | Outcome():
                    connection.answered(frame)
                case Accepted():
                    await self._accepted(connection, frame)
                case AskList(day):
                    if lists.may_ask_for(day, self.clock()) and connection.list_asks.take(time.monotonic()):
                        self._want(connection, day)
                case Pong():
                    pass
                case Greeting():
                    raise Violation("a second hello")
                case _:
                    assert_never(frame)

    async def _accepted(self, connection: Connection, frame: Accepted) -> None:
        peer = connection.peer
        told = Acceptance(
            peer.building, controller_id(peer.controller), b64url.encode(frame.jti), frame.door, frame.code
        )
        # None is forgotten: too many are read slowly, and what its controller says behind them waits.
        while not self._acceptances.take(peer.controller, time.monotonic()):  # noqa: ASYNC110 - time tells nobody
            await asyncio.sleep(1 / ACCEPTED_PER_SECOND)
        connection.settling += 1
        self._told.put_nowait((connection, told))
        if connection.settling >= MOST_SETTLING:
            connection.settled = asyncio.Event()
            await connection.settled.wait()

    def _forget(self, connection: Connection) -> None:
        connection.lost()
        if connection.closing is not None:
            connection.closing.cancel()
        self._here.pop(connection.id, None)
        self._wanting.pop(connection, None)
        for beat in self._beats:
            beat.discard(connection)
        self._gone.add(connection.id)

    def take_over(self, connection_id: str, instance: str) -> None:
        """End a link whose controller, in this instance, has another one now; alarm if both are alive."""
        if (connection := self._here.get(connection_id)) is not None:
            self._work(self._take_over(connection, instance))

    async def _take_over(self, connection: Connection, instance: str) -> None:
        peer = connection.peer
        # The same one that connects again leaves a dead link behind; so does one that was started again. Only if the
        # older one still answers are there two.
        is_second = peer.instance != instance and await connection.is_alive(PROOF_WAIT)
        connection.close(Close.TAKEN_OVER)
        while is_second:
            try:
                async with self._store.transaction() as session:
                    who = controller_id(peer.controller)
                    await alarms.sound(session, AlarmKind.SECOND_LINK, peer.building, who, self.clock())
                return
            except StoreUnavailable:
                await asyncio.sleep(_RETRY)

    def _work(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what goes on for all of them ----

    async def begin(self) -> None:
        """Say that this replica is there: before the first link. Raises StoreUnavailable."""
        await self._look_once()

    async def run(self) -> None:
        """Do what has to be done for all links, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for doing in (self._ping(), self._look(), self._settle(), self._list()):
                tasks.create_task(doing)

    async def _ping(self) -> None:
        beat = 0
        while True:
            await asyncio.sleep(1)
            beat = (beat + 1) % PING_EVERY
            for connection in tuple(self._beats[beat]):
                if not connection.ping():
                    connection.close(Close.GOING_AWAY)

    async def _look(self) -> None:
        """Say that this replica is there, and see what others have changed."""
        looked = time.monotonic()
        while True:
            try:
                if self._gone:
                    await self._strike_off()
                if time.monotonic() >= looked + LOOK_EVERY:
                    await self._look_once()
                    looked = time.monotonic()
            except StoreUnavailable as err:
                _LOGGER.warning("The database does not answer: %s", err)
            await asyncio.sleep(_RETRY)

    async def _strike_off(self) -> None:
        gone = set(list(self._gone)[:1000])
        async with self._store.transaction() as session:
            await session.execute(delete(Link).where(Link.connection.in_(gone)))
        self._gone -= gone

    async def _look_once(self) -> None:
        now, here = self.clock(), tuple(self._here.values())
        async with self._store.transaction() as session:
            known = await session.scalar(
                update(Replica).where(Replica.id == self.replica).values(seen_at=now).returning(Replica.id)
            )
            if known is None:
                session.add(Replica(id=self.replica, seen_at=now))
                await session.flush()
            others = await session.execute(select(Replica.id, Replica.seen_at).where(Replica.id != self.replica))
            said = dict(others.tuples().all())
            if dead := self._silent_ones(said):
                await session.execute(delete(Replica).where(Replica.id.in_(dead)))
            await session.execute(delete(Link).where(Link.replica.not_in(select(Replica.id))))
            published = await keys.newest_set(session)
            removed = await session.scalars(
                select(Link.connection)
                .join(Controller, Controller.key == Link.controller_key)
                .join(Building, Building.id == Controller.building_id)
                .where(
                    Link.replica == self.replica,
                    or_(Controller.removed_at.is_not(None), Building.removed_at.is_not(None)),
                )
            )
            over = list(removed)
            ours = set[str]()
            mine = Link.replica == self.replica
            if (await session.scalar(select(func.count()).where(mine)) or 0) < len(here):
                ours.update(await session.scalars(select(Link.connection).where(mine)))
            else:
                ours.update(each.id for each in here)
        for id_, word in said.items():
            if (ahead := (word - now).total_seconds()) > CLOCKS_APART:  # of the two, this one may be the wrong one
                _LOGGER.warning("clocks_differ", extra={"facts": {"replica": id_, "ahead": round(ahead)}})
        for connection in over:
            if (found := self._here.get(connection)) is not None:
                found.close(Close.NOT_ENROLLED)
        if known is None:
            # Taken for dead while the database could not be reached: others have struck our links off.
            for each in here:
                each.close(Close.GOING_AWAY)
        for each in here:
            if each.id not in ours:  # what another replica told of it was lost
                each.close(Close.TAKEN_OVER)
        if published is not None and self._publish(published):
            assert self._keys is not None
            for each in tuple(self._here.values()):
                each.post(self._keys)
        newest = lists.newest_day(now)
        if self._listed != newest:
            # A link that began since it can be told of has it on its way already.
            for each in tuple(self._here.values()) if self._listed is not None else ():
                self._want(each, newest)
            self._listed = newest

    def _silent_ones(self, said: dict[str, datetime]) -> set[str]:
        """Take the newest words of the others; return who has not had one for too long."""
        now = time.monotonic()
        before = self._others
        self._others = {
            id_: before[id_] if id_ in before and before[id_][0] == word else (word, now) for id_, word in said.items()
        }
        dead = {id_ for id_, (_, since) in self._others.items() if now - since >= REPLICA_FOR}
        for id_ in dead:
            del self._others[id_]
        return dead

    def _publish(self, published: KeySet) -> bool:
        """Take the newest set; return whether it is news."""
        if published.version <= self._keys_version:
            return False
        self._keys_version, self._keys = published.version, Keys(published.root, published.text)
        return True

    # ---- acceptances ----

    async def _settle(self) -> None:
        while True:
            batch = [await self._told.get()]
            if self._told.qsize() < BATCH - 1:
                await asyncio.sleep(SETTLE_AFTER)
            while len(batch) < BATCH and not self._told.empty():
                batch.append(self._told.get_nowait())
            while True:
                try:
                    await look_up(self._store, [told for _, told in batch], self.clock())
                    break
                except StoreUnavailable as err:
                    _LOGGER.warning("Acceptances wait: the database does not answer: %s", err)
                    await asyncio.sleep(_RETRY)
            for connection, _ in batch:
                connection.settling -= 1
                if connection.settled is not None and not connection.settling:
                    connection.settled.set()

    # ---- lists ----

    def _want(self, connection: Connection, day: date) -> None:
        connection.lists.add(day)
        self._wanting[connection] = None
        self._list_due.set()

    async def _list(self) -> None:
        while True:
            await self._list_due.wait()
            by_day: dict[date, list[Connection]] = {}
            for connection in list(itertools.islice(self._wanting, LISTS_TOGETHER)):
                del self._wanting[connection]
                for day in connection.lists:
                    by_day.setdefault(day, []).append(connection)
            if not self._wanting:
                self._list_due.clear()
            for day, together in sorted(by_day.items()):
                try:
                    await self._give_lists(day, together)
                except (StoreUnavailable, KeyUnusable, KeySetInvalid) as err:  # the last: our clock went back
                    facts = {"day": day.isoformat(), "why": str(err)}
                    _LOGGER.error("list_not_signed", extra={"facts": facts})  # noqa: TRY400 - it says all there is
                    for each in together:
                        if each.id in self._here:
                            self._want(each, day)
                    await asyncio.sleep(LIST_RETRY)

    async def _give_lists(self, day: date, together: list[Connection]) -> None:
        here = [each for each in together if each.id in self._here]
        buildings = {each.peer.controller: each.peer.building for each in here}
        written = await lists.written(self._store, self._keyring, self.issuer, buildings, day, self.clock())
        for each in here:
            each.lists.discard(day)
            self._work(_send_list(each, written[each.peer.controller]))

    # ---- the end ----

    async def end(self) -> None:
        """Take no new link, let what was asked be answered, and end all links: their controllers come back."""
        self._is_ending = True
        await _until(lambda: all(each.is_idle for each in self._here.values()), ANSWER_WAIT)
        for each in tuple(self._here.values()):
            each.close(Close.GOING_AWAY)
        await _until(lambda: not self._here, 2 * CLOSE_WAIT)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with self._store.transaction() as session:
                await session.execute(delete(Link).where(Link.replica == self.replica))
                await session.execute(delete(Replica).where(Replica.id == self.replica))
        except StoreUnavailable as err:
            _LOGGER.warning("This replica's links stay written down for a while: %s", err)


async def _until(so: Callable[[], bool], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not so():  # noqa: ASYNC110 - at the end of a run
                await asyncio.sleep(0.05)


async def _send_list(connection: Connection, parts: list[str]) -> None:
    with suppress(Unreachable, TimeoutError):
        async with asyncio.timeout(LIST_WAIT):
            for part in parts:
                await connection.send(IssuedPart(part))


async def _end(socket: web.WebSocketResponse, request: web.Request, why: Close) -> None:
    """End a link that is not one, and say why. The socket's own close() would read all that is still said meanwhile."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(CLOSE_WAIT):
            await socket.send_frame(why.to_bytes(2, "big"), WSMsgType.CLOSE)
            for _ in range(MOST_AFTER):
                if (await socket.receive()).type in _OVER:
                    return
    if request.transport is not None:
        request.transport.abort()


async def _first(socket: web.WebSocketResponse) -> WSMessage:
    """Return the first thing that somebody says, but for some pings and pongs."""
    for _ in range(MOST_PINGS):
        message = await socket.receive()
        if message.type is WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            return message
    raise Unwelcome(Close.VIOLATION, "no hello")


def _frame(message: object) -> FromController:
    """Return what a controller says; raise Violation, or MalformedMessage."""
    if getattr(message, "type", None) is not WSMsgType.TEXT:
        raise Violation("no text frame")
    return FROM_CONTROLLER.decode(getattr(message, "data", "").encode())


def _fresh() -> str:
    return b64url.encode(os.urandom(16))
