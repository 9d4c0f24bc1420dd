"""A gateway with doors on a board in memory, and callers that cost as little as a caller can.

The gateway is the command itself, in a process of its own (tests/gateway/forked.py). Its limits on how often anybody
may ask are lifted (``lift``), because they are far below what is measured here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from gateway import control, limits, stream
from scripts.demo_home.home import free_port
from tests.gateway.forked import Forked, Forks
from tests.gateway.process import network
from tests.simulated import Carrier, some_doors
from vestibule_core import intake
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient
from vestibule_core.api.policy import Policy

HOST = "127.0.0.1"
NO_LIMIT = 10**9
LIFTED = "scripts.benchmarks.gateway_site:lift"


def lift() -> None:
    """Let callers ask as often, and follow in as many streams, as they want. Called in the gateway's process."""
    for module, names in (
        (limits, ("CLIENT_PER_SECOND", "CLIENT_BURST", "STRANGER_PER_SECOND", "STRANGER_BURST", "STRANGERS")),
        (limits, ("CONNECTIONS", "OF_ONE_ADDRESS", "ARRIVALS", "ARRIVALS_PER_SECOND")),
        (intake, ("PER_SECOND", "OF_ONE", "FAILURES")),
        (stream, ("OF_ONE_CLIENT",)),
    ):
        for name in names:
            assert hasattr(module, name), name
            setattr(module, name, NO_LIMIT)
    limits.CONNECTIONS = 4096  # type: ignore[misc] # it is the listening socket's backlog as well


class Line:
    """One connection over TLS, on which one request is asked after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext) -> Self:
        return cls(*await asyncio.open_connection(HOST, port, ssl=context))

    async def ask(self, request: bytes) -> bytes:
        """Return the body of the answer, which has to be a good one."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length: ")
        body = await self.reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        assert head.startswith(b"HTTP/1.1 200 "), (head, body)
        return body

    async def close(self) -> None:
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Site:
    """A gateway with so many doors and one carrier."""

    def __init__(self, folder: Path, doors: int) -> None:
        self.folder, self.port = folder, free_port()
        self.doors = some_doors(doors)
        self.carrier = Carrier(doors=self.doors)
        rows = "".join(
            f'[door.d{number}]\nid = "{door.id}"\nname = "{number}"\naccess_time = 30\n'
            f'relay = {{ board = "b", channel = {number} }}\n'
            for number, door in enumerate(self.doors, 1)
        )
        self.config, self.relay_log = folder / "gateway.toml", folder / "relay.log"
        folder.mkdir()
        self.config.write_text(
            f'name = "Parcel room"\nstate = "state"\n[listen]\nhost = "{HOST}"\nport = {self.port}\nannounce = false\n'
            f'[board.b]\nkind = "memory"\noutputs = {doors}\nlog = "relay.log"\n{rows}'
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.process: Forked
        self.bearer = ""

    @asynccontextmanager
    async def at_work(
        self, forks: Forks, *, sync_delay: float = 0.0, prepare: str | None = LIFTED
    ) -> AsyncIterator[Self]:
        """Start it, pair with it and let the carrier in everywhere."""
        self.process = await forks.start(self.config, sync_delay=sync_delay, prepare=prepare)
        try:
            async with network() as session:
                socket = self.folder / "state" / "control.sock"
                window = await asyncio.to_thread(
                    control.call, socket, "POST", "/pair", {"replace": False, "trust": True}
                )
                paired = await client.pair(session, HOST, self.port, window["code"], "Bench")
                self.bearer = paired.token
                asking = GatewayClient(session, HOST, self.port, paired.token, [paired.fingerprint])
                taken = await asking.put_policy(0, Policy("UTC", (self.carrier.admitted,)))
                assert not taken.pending
            yield self
            self.process.stop()
        finally:
            self.process.end()

    async def line(self) -> Line:
        return await Line.open(self.port, self.context)

    def request(self, method: str, path: str, body: Any = None, more: str = "") -> bytes:
        """Return a request as it is on the wire."""
        content = b"" if body is None else json.dumps(body).encode()
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {self.bearer}\r\n{more}"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content

    async def unlock(self, line: Line, door: int) -> bytes:
        """Return the request that opens a door once."""
        where = f"/v1/doors/{self.doors[door].id}"
        challenge = await line.ask(self.request("POST", f"{where}/challenge", {"iss": self.carrier.issuer}))
        now, nonce = int(time.time()), json.loads(challenge)["non"]
        token = self.carrier.token(nonce, aud=self.doors[door].id, iat=now, exp=now + 60, chk={"req": now - 2})
        return self.request("POST", f"{where}/unlock", {"token": token})

    async def unlocks(self, lines: Sequence[Line], each: int) -> list[list[bytes]]:
        """Return requests that open, for each line ``each`` of them, every line at a door of its own."""

        async def of(line: Line, door: int) -> list[bytes]:
            return [await self.unlock(line, door) for _ in range(each)]

        return await asyncio.gather(*(of(line, door) for door, line in enumerate(lines)))

    @property
    def opened(self) -> list[int]:
        """The channels that were switched on, in order."""
        lines = (line.split() for line in self.relay_log.read_text().splitlines())
        return [int(channel) for channel, what, _ in lines if what == "on"]
