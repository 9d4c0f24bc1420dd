"""Strangers who flood a gateway, as a process of its own: ``python -m scripts.benchmarks.flood``.

An open loop: so many requests a second go out whether or not the gateway answers, in turns without a bearer, with a
wrong one, for what there is not, with too large a body, and with rubbish in place of a token by a client that may
present one. Besides, connections are held open on which nothing is said. Strangers come from addresses of 127.0.0.0/8
that are not the measuring client's. ``on`` and ``off`` on standard input begin and end it; after ``off`` a line of JSON
tells what came of it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, cycle
from typing import Any, Final, override

HOST: Final = "127.0.0.1"
TICK: Final = 0.002
"""Seconds from one handful of requests to the next."""
STRANGERS: Final = 16
"""Addresses from which requests come."""
IDLERS: Final = 8
"""Addresses from which connections come that say nothing: others each time."""
OPENING: Final = 1.5
"""Seconds in which those are opened."""
GLANCE: Final = 0.005
"""Seconds in which a connection is closed if it is closed at once."""
PATIENCE: Final = 30
"""Connections of one kind that may wait for an answer. If all do, what would be sent is counted as held up."""


class Visit(asyncio.Protocol):
    """A connection; ``answers`` counts the statuses that come back."""

    def __init__(self, answers: Counter[str], free: deque[Visit] | None) -> None:
        self._answers, self._free = answers, free
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            self._answers[data[9:12].decode()] += 1
            if self._free is not None and b"onnection: close" not in data:
                self._free.append(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


class Kind:
    """Requests of one kind, from one address, on connections that are kept as long as the gateway keeps them."""

    def __init__(self, flood: Flood, source: str, request: bytes) -> None:
        self._flood, self._source, self._request = flood, source, request
        self._free: deque[Visit] = deque()
        self._all: set[Visit] = set()
        self._opening = 0

    def send(self) -> None:
        """Send one, on a connection that waits for nothing, or on a new one."""
        while self._free:
            visit = self._free.popleft()
            if visit.transport is not None and not visit.transport.is_closing():
                visit.transport.write(self._request)
                self._flood.sent += 1
                return
        self._all = {visit for visit in self._all if visit.transport is not None}
        if len(self._all) + self._opening >= PATIENCE:
            self._flood.held_up += 1
            return
        self._opening += 1
        self._flood.spawn(self._open())

    async def _open(self) -> None:
        try:
            visit = await self._flood.connect(self._source, self._free)
            if visit is not None and visit.transport is not None:
                self._all.add(visit)
                visit.transport.write(self._request)
                self._flood.sent += 1
        finally:
            self._opening -= 1

    def end(self) -> None:
        for visit in self._all:
            if visit.transport is not None:
                visit.transport.abort()
        self._all.clear()
        self._free.clear()


class Flood:
    """All of it."""

    def __init__(self, port: int, bearer: str, door: str, per_second: float, idle: int) -> None:
        self._port, self._per_second, self._idle = port, per_second, idle
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._tasks: set[asyncio.Task[Any]] = set()
        self._times = 0
        self._reset()
        at = f"/v1/doors/{door}"
        kinds: list[tuple[Any, ...]] = [
            ("GET", "/v1/doors", None),
            ("GET", "/v1/doors", secrets.token_urlsafe(32)),
            ("GET", "/wp-login.php?a=../../etc/passwd", None),
            ("POST", f"{at}/unlock", secrets.token_urlsafe(32), b"x" * 9 * 1024),
        ]
        client = b'{"token":"%s"}' % secrets.token_urlsafe(600).encode()
        self._strangers = [
            [Kind(self, f"127.0.1.{number}", _request(*kind)) for kind in kinds] for number in range(1, STRANGERS + 1)
        ]
        self._client = [
            Kind(self, "127.0.2.1", _request("POST", f"{at}/unlock", bearer, body))
            for body in (client, client, client, b"x" * 9 * 1024)
        ]

    def _reset(self) -> None:
        self.sent = self.held_up = self.opened = self.closed = 0
        self.answers: Counter[str] = Counter()

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, source: str, free: deque[Visit] | None) -> Visit | None:
        """Connect; before the cost of a handshake it is seen whether the gateway has closed it already."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(10):
                sock = await self._reach(source)
                _, visit = await loop.create_connection(
                    lambda: Visit(self.answers, free), sock=sock, ssl=self._context, server_hostname=HOST
                )
        except OSError:  # no place, or too late
            self.closed += 1
            return None
        self.opened += 1
        return visit

    async def _reach(self, source: str) -> socket.socket:
        loop, sock = asyncio.get_running_loop(), socket.socket()
        try:
            sock.setblocking(False)
            sock.bind((source, 0))
            await loop.sock_connect(sock, (HOST, self._port))
            await asyncio.sleep(GLANCE)
            with suppress(BlockingIOError):
                sock.recv(1)
                raise ConnectionResetError
        except BaseException:  # whatever it is: nobody else has it yet
            sock.close()
            raise
        return sock

    def _turns(self) -> Iterator[Kind]:
        """One in five is the client's, the others are strangers', each of another address."""
        strangers = cycle(kind for kinds in zip(*self._strangers, strict=True) for kind in kinds)
        client = cycle(self._client)
        for number in count():
            yield next(client) if number % 5 == 0 else next(strangers)

    async def _ask(self) -> None:
        loop, turns = asyncio.get_running_loop(), self._turns()
        began, done = loop.time(), 0
        while True:
            due = int((loop.time() - began) * self._per_second)
            for _ in range(due - done):
                next(turns).send()
            done = due
            await asyncio.sleep(TICK)

    async def _hold_open(self, source: str, first: float) -> None:
        await asyncio.sleep(first)
        while True:
            visit = await self.connect(source, None)
            try:
                while visit is not None and visit.transport is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
            finally:
                if visit is not None and visit.transport is not None:
                    visit.transport.abort()
            await asyncio.sleep(1)

    async def run(self) -> None:
        """Obey standard input."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while word := (await reader.readline()).decode().strip():
            if word == "on":
                self._reset()
                self._times += 1
                for number in range(self._idle):
                    source = f"127.1.{self._times}.{1 + number % IDLERS}"
                    self.spawn(self._hold_open(source, OPENING * number / self._idle))
                self.spawn(self._ask())
            else:
                for task in tuple(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for kind in [*(kind for kinds in self._strangers for kind in kinds), *self._client]:
                    kind.end()
                told = self.answers | {
                    "sent": self.sent, "held_up": self.held_up, "opened": self.opened, "closed": self.closed,
                }  # fmt: skip
            print(json.dumps(told) if word == "off" else "ok", flush=True)


def _request(method: str, path: str, bearer: str | None, body: bytes = b"") -> bytes:
    more = "" if bearer is None else f"Authorization: Bearer {bearer}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    """Take the gateway's port, a client's bearer, a door, requests a second and idle connections."""
    port, bearer, door, per_second, idle = sys.argv[1:]
    asyncio.run(Flood(int(port), bearer, door, float(per_second), int(idle)).run())


if __name__ == "__main__":
    main()
