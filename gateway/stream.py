"""The stream: who follows what happens at the gateway, frame by frame (protocol C).

Each event once and in order: first from the journal, from where the client left off, then as it happens. Doors and the
gateway as a whole are not numbered; of those the latest counts. A frame is encoded once for all. What this file refuses
to do: keep more for a client than a bounded queue. Who does not read loses the connection, and comes back with the
number of the last event that it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web

from vestibule_core.api.messages import (
    FRAME,
    BuildingChanged,
    ClientId,
    DoorChanged,
    Frame,
    Happened,
    Scope,
)
from vestibule_core.errors import JournalMoved, StoreFailed
from vestibule_core.evidence import Broken
from vestibule_core.model import AccessEvent, DoorId

from . import view
from .log import say
from .view import Origin

if TYPE_CHECKING:
    from .edge import Edge

_LOGGER = logging.getLogger(__name__)

STREAMS: Final = 128
"""In all."""
OF_ONE_CLIENT: Final = 8
QUEUE: Final = 1000
"""Events that wait for a client which does not read."""
ASKED: Final = 256
"""Events of which it is remembered who asked for them, for who is still catching up."""
READ_TRIES: Final = 3
"""How often a client may come again for entries that the disk does not give at present; then it goes on without."""
SEND: Final = 20.0
"""Seconds in which a frame has to go out."""
HEARTBEAT: Final = 30.0
"""Seconds between two signs of life."""
MAX_FRAME: Final = 1024
"""Bytes of a frame from a client; there is nothing that it could say."""


class TooManyStreams(Exception):
    """There are as many as there may be."""


class _Follower:
    """One stream, and what still has to be sent on it."""

    def __init__(self, client: ClientId, sent: int) -> None:
        self.client = client
        self.sent = sent
        """The number of the newest event that was sent."""
        self.is_live = False
        """Whether it has all that was in the journal when it came, and is to keep up with what happens."""
        self.events: deque[tuple[int | None, bytes]] = deque()
        self.doors: dict[DoorId, None] = {}
        self.building = False
        self.wake = asyncio.Event()
        self.lost = asyncio.Event()

    def lose(self) -> None:
        """End it: it does not read, or may not any more."""
        self.lost.set()


class Stream:
    """Tells all followers. Belongs to one event loop."""

    def __init__(self, edge: Edge) -> None:
        """Tell of ``edge``, whose journal is open and not yet started."""
        self._edge = edge
        self.newest = edge.journal.sequence
        """The number of the newest event that was told."""
        self._followers: dict[_Follower, None] = {}
        self._asked: dict[int, Origin] = {}
        """Who asked for the newest events that somebody asked for: the journal does not know their names for it."""
        self._unread: dict[ClientId, tuple[int, int]] = {}
        """Behind which entry a client has met those that cannot be read at present, and how often."""
        self._door_frames: dict[DoorId, bytes] = {}
        self._building: BuildingChanged | None = None
        self._unreadable: set[int] = set()
        edge.clients.watch(self._look_at_clients)

    def __len__(self) -> int:
        """Return how many follow."""
        return len(self._followers)

    def cannot_read(self, sequence: int) -> None:
        """Say, once, that an entry of the journal is left out because it cannot be read."""
        if sequence not in self._unreadable:
            self._unreadable.add(sequence)
            say(_LOGGER, logging.ERROR, "entry_unreadable", seq=sequence)

    # ---- what happens ----

    def publish(self, event: AccessEvent) -> None:
        """Tell of an event, once the journal has it, or cannot take it."""
        if event.sequence is not None:
            self.newest = event.sequence
        frame: bytes | None = None
        asker = event.origin if isinstance(event.origin, Origin) and event.origin.ref is not None else None
        if asker is not None and event.sequence is not None:
            self._asked[event.sequence] = asker
            if len(self._asked) > ASKED:
                del self._asked[next(iter(self._asked))]
        for follower in self._followers:
            if asker is not None and asker.client == follower.client:
                own = FRAME.encode(Happened(view.told(event, follower.client)))
                follower.events.append((event.sequence, own))
            else:
                frame = frame or FRAME.encode(Happened(view.told(event)))
                follower.events.append((event.sequence, frame))
            if len(follower.events) > QUEUE:
                if follower.is_live:
                    follower.lose()
                else:  # it finds them in the journal
                    follower.events.clear()
            follower.wake.set()
        self.building_changed()

    def door_changed(self, door: DoorId) -> None:
        """Tell that a door, or whether its strike can be reached, is not as before."""
        self._door_frames.pop(door, None)
        for follower in self._followers:
            follower.doors[door] = None
            follower.wake.set()
        self.building_changed()

    def building_changed(self) -> None:
        """Tell of the gateway as a whole, if it is not as it was told last."""
        if not self._followers:
            return
        now = replace(view.building(self._edge), newest=0)  # which is told with each event
        if now == self._building:
            return
        self._building = now
        for follower in self._followers:
            follower.building = True
            follower.wake.set()

    def close(self) -> None:
        """End all streams."""
        for follower in self._followers:
            follower.lose()

    def _look_at_clients(self) -> None:
        paired = self._edge.clients.registry.paired
        for follower in self._followers:
            known = paired.get(follower.client)
            if known is None or Scope.READ not in known.client.scopes:
                follower.lose()

    # ---- one follower ----

    async def serve(self, socket: web.WebSocketResponse, request: web.Request, client: ClientId, after: int) -> None:
        """Tell ``client`` of all events after number ``after``, and of everything else, until it goes away.

        Raises TooManyStreams, before anything was answered.
        """
        of_each = Counter(follower.client for follower in self._followers)
        if of_each.total() >= STREAMS or of_each[client] >= OF_ONE_CLIENT:
            raise TooManyStreams
        follower = _Follower(client, min(after, self.newest))
        if not self._followers:
            self._building = replace(view.building(self._edge), newest=0)
        self._followers[follower] = None
        try:
            await socket.prepare(request)
            await self._follow(socket, follower)
        finally:
            del self._followers[follower]
            if not socket.closed and request.transport is not None:  # it does not read, or may not any more
                request.transport.abort()

    async def _follow(self, socket: web.WebSocketResponse, follower: _Follower) -> None:
        jobs = {
            asyncio.create_task(self._write(socket, follower)),
            asyncio.create_task(_read(socket)),
            asyncio.create_task(follower.lost.wait()),
        }
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for job in jobs:
                job.cancel()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError | TimeoutError):
                raise end

    async def _write(self, socket: web.WebSocketResponse, follower: _Follower) -> None:
        await _send(socket, FRAME.encode(view.hello(self._edge)))
        await self._catch_up(socket, follower)
        while True:
            await follower.wake.wait()
            follower.wake.clear()
            while follower.events:
                number, frame = follower.events.popleft()
                if number is None or number > follower.sent:
                    follower.sent = number or follower.sent
                    await _send(socket, frame)
            while follower.doors:
                door, _ = follower.doors.popitem()
                if (frame_of_door := self._frame_of(door)) is not None:
                    await _send(socket, frame_of_door)
            if follower.building:
                follower.building = False
                await self._send(socket, view.building(self._edge))

    async def _catch_up(self, socket: web.WebSocketResponse, follower: _Follower) -> None:
        """Send what is in the journal; from then on, what happens."""
        while follower.sent < self.newest:
            try:
                missed = await view.missed(self._edge, follower.sent)
            except JournalMoved:
                continue
            except StoreFailed as err:
                if not self._edge.journal.failed:
                    if self._may_pass(follower):  # what happens next has a number: it would skip those in between
                        raise ConnectionError("the journal cannot be read now") from err
                    break
                follower.events = deque(event for event in follower.events if event[0] is None)
                break
            except Broken:
                break
            if not missed:  # nothing more can be read; that the newest number is another tells the client
                break
            for event in missed:
                asker = self._asked.get(event.sequence or 0)
                ref = asker.ref if asker is not None and asker.client == follower.client else None
                await self._send(socket, Happened(replace(event, origin=ref)))
                follower.sent = event.sequence or follower.sent
        follower.is_live = True

    def _may_pass(self, follower: _Follower) -> bool:
        """Return whether entries that could not be read may be read the next time: not if it was tried a few times."""
        sent, times = self._unread.get(follower.client, (follower.sent, 0))
        times = times + 1 if sent == follower.sent else 1
        self._unread[follower.client] = follower.sent, times
        return times <= READ_TRIES

    async def _send(self, socket: web.WebSocketResponse, frame: Frame) -> None:
        await _send(socket, FRAME.encode(frame))

    def _frame_of(self, door: DoorId) -> bytes | None:
        if door not in self._door_frames:
            for each in self._edge.doors():
                if each.door.id == door:
                    self._door_frames[door] = FRAME.encode(DoorChanged(each))
        return self._door_frames.get(door)


async def _send(socket: web.WebSocketResponse, frame: bytes) -> None:
    async with asyncio.timeout(SEND):
        await socket.send_frame(frame, WSMsgType.TEXT)


async def _read(socket: web.WebSocketResponse) -> None:
    """Return when the client goes away, or says anything: there is nothing that it could ask."""
    with contextlib.suppress(ConnectionError):
        await socket.receive()
    await socket.close()
