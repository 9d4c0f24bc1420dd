"""Floods at a gateway that is a process of its own, over TLS: rows 27, 28 and 65 of protocol F as they are meant.

What is measured is the process's: its memory as the kernel counts it, its file handles, its log. The callers are bare
sockets that do not wait for one answer before they ask the next thing, so that a flood is one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway import control, limits
from scripts.benchmarks.gateway_site import HOST, LIFTED, Line, Site
from tests.core.test_attacks import bad_tokens
from tests.gateway.forked import Forks
from tests.gateway.process import network
from tests.simulated import Carrier
from vestibule_core import telling
from vestibule_core.api.client import GatewayClient, pair
from vestibule_core.api.policy import Policy

A, B = Carrier("A Parcels"), Carrier("B Parcels")
AT_ONCE = 25
"""Requests of a connection that wait for an answer. Of more than 64 KiB of them aiohttp loses its way."""
KB, MB = 1024, 1024 * 1024
A_CONNECTION = 120 * KB
"""Memory that one over TLS may take: half of it is OpenSSL's."""


@pytest.fixture(scope="module")
def forks():
    forks = Forks()
    yield forks
    forks.close()


class Client:
    """A program that may present the tokens of one carrier."""

    def __init__(self, site: Site, bearer: str, carrier: Carrier) -> None:
        self.site, self.bearer, self.carrier = site, bearer, carrier

    def request(self, method: str, path: str, body: object = None) -> bytes:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {self.bearer}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content

    @property
    def challenge(self) -> bytes:
        """A request for one."""
        return self.request("POST", f"{self.site.at}/challenge", {"iss": self.carrier.issuer})

    def unlock(self, token: str) -> bytes:
        return self.request("POST", f"{self.site.at}/unlock", {"token": token})

    async def token(self, line: Line) -> str:
        """Return a good one."""
        nonce, now = json.loads(await line.ask(self.challenge))["non"], int(time.time())
        aud = self.site.doors[0].id
        return self.carrier.token(nonce, aud=aud, iat=now, exp=now + 60, chk={"req": now - 2})

    async def opens(self, line: Line) -> bool:
        answer = json.loads(await line.ask(self.unlock(await self.token(line))))
        return bool(answer["word"] == "granted")


class Besieged(Site):
    """A gateway with one door and two carriers' programs."""

    @property
    def at(self) -> str:
        return f"/v1/doors/{self.doors[0].id}"

    @asynccontextmanager
    async def at_work_for(self, forks: Forks, prepare: str | None):
        async with self.at_work(forks, prepare=prepare), network() as session, await self.line() as line:
            manager = GatewayClient(session, HOST, self.port, self.bearer, [await self._fingerprint()])
            for carrier in (A, B):
                carrier.doors = self.doors
            await manager.put_policy(1, Policy("UTC", (A.admitted, B.admitted)))
            self.a, self.b = [await self._pair(session, line, carrier) for carrier in (A, B)]
            yield self

    async def _fingerprint(self) -> bytes:
        status = await asyncio.to_thread(control.call, self.folder / "state" / "control.sock", "GET", "/status")
        return bytes.fromhex(status["certificate"])

    async def _pair(self, session, line: Line, carrier: Carrier) -> Client:
        socket = self.folder / "state" / "control.sock"
        window = await asyncio.to_thread(control.call, socket, "POST", "/pair", {"replace": False, "trust": True})
        await asyncio.sleep(1.05)  # one attempt a second
        paired = await pair(session, HOST, self.port, window["code"], carrier.name)
        change = {"scopes": ["present"], "issuers": [carrier.issuer]}
        await line.ask(self.request("PUT", f"/v1/clients/{paired.client_id}", change))
        return Client(self, paired.token, carrier)

    async def newest(self) -> int:
        """The number of its journal's newest entry."""
        async with await self.line() as line:
            return int(json.loads(await line.ask(self.request("GET", "/v1/doors")))["newest"])

    async def refused(self) -> Counter[str]:
        """What it has counted of texts that are no tokens."""
        status = await asyncio.to_thread(control.call, self.folder / "state" / "control.sock", "GET", "/status")
        return Counter(status["refused"])

    @property
    def memory(self) -> int:
        """Bytes of its own."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", text)[1]) * KB

    @property
    def handles(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def log(self) -> list[str]:
        return (self.folder / "output.log").read_text().splitlines()

    async def reach(self, source: str = HOST) -> Line:
        """Connect from an address."""
        return Line(
            *await asyncio.open_connection(HOST, self.port, ssl=self.context, local_addr=(source, 0)),
        )


async def flood(line: Line, requests: Iterable[bytes]) -> Counter[int]:
    """Send without waiting for answers, up to AT_ONCE; return the statuses that came."""
    statuses: Counter[int] = Counter()
    rest = iter(requests)
    while batch := list(itertools.islice(rest, AT_ONCE)):
        line.writer.write(b"".join(batch))
        for _ in batch:
            head = await line.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"ontent-[Ll]ength: (\d+)", head)
            await line.reader.readexactly(int(length[1]))
            statuses[int(head[9:12])] += 1
    return statuses


class Quoting:
    """What ``bad_tokens`` asks of a building: its carrier, and a good token."""

    def __init__(self, carrier: Carrier, good: str) -> None:
        self.carrier, self._good = carrier, good

    def token(self) -> str:
        return self._good


@pytest.mark.parametrize(
    "how, tokens",
    [
        (None, 4_000),
        (LIFTED, 6_000),
        pytest.param(LIFTED, 10**6, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
    ids=["with its limits", "without its limits", "without its limits, a million"],
)
async def test_row_27_bad_tokens_in_bulk_then_the_good_one(tmp_path, forks, how, tokens):
    """10^6 bad tokens from one source, some quoting a live challenge, then the good one: journal grows < 1 leaf/min,
    memory flat, the good one opens. Also if each of them is judged, and none turned away before.
    """
    async with Besieged(tmp_path / "site", 1).at_work_for(forks, how) as site, await site.reach("127.0.1.1") as from_a:
        bad = bad_tokens(Quoting(A, await site.a.token(from_a)))
        requests = (site.a.unlock(text) for text in bad)
        began, before = time.monotonic(), await site.newest()
        answers = await flood(from_a, itertools.islice(requests, tokens // 2))
        half = site.memory
        answers += await flood(from_a, itertools.islice(requests, tokens - tokens // 2))
        full = site.memory
        counted = await site.refused()
        assert full - half < MB, "memory is flat"
        minutes = (time.monotonic() - began) / telling.SUMMARY_AFTER
        assert await site.newest() - before <= minutes
        assert answers.total() == tokens
        if how is None:
            assert answers.keys() == {200, 429}
            assert answers[200] <= 21 + time.monotonic() - began, "a burst, and one a second"
        else:
            assert answers.keys() == {200}
            assert counted.total() == tokens
        async with await site.reach() as from_b:
            assert await site.b.opens(from_b)
        if how is not None:
            assert await site.a.opens(from_a), "a good one of the same source, too"
        assert len([line for line in site.log if " access_granted " in line]) == (1 if how is None else 2)
        assert site.opened == [1], "the second one prolongs what the first one began"
        assert not [line for line in site.log if "error" in line or "warning" in line]


@pytest.mark.parametrize("how", [None, LIFTED], ids=["with its limits", "without its limits"])
async def test_row_28_10_000_challenge_requests_by_one_principal(tmp_path, forks, how):
    """10 000 challenge requests by one principal: other issuers still get one that opens; nothing stored."""
    async with Besieged(tmp_path / "site", 1).at_work_for(forks, how) as site, AsyncExitStack() as stack:
        from_a, from_b = [await stack.enter_async_context(await site.reach(source)) for source in ("127.0.1.1", HOST)]
        early, before, began = await site.b.token(from_b), await site.newest(), time.monotonic()
        asked = await flood(from_a, [site.a.challenge] * 1_000)
        memory = site.memory
        flooding = asyncio.create_task(flood(from_a, [site.a.challenge] * 9_000))
        await asyncio.sleep(0.1)
        assert b'"granted"' in await from_b.ask(site.b.unlock(early)), "also one of before the flood"
        assert await site.b.opens(from_b)
        assert not flooding.done(), "all that was in the middle of it"
        asked += await flooding
        took = time.monotonic() - began
        assert site.memory - memory < MB, "nothing is stored"
        assert await site.newest() - before == 4, "two openings, and nothing else"
        assert asked.total() == 10_000
        if how is None:
            most = limits.CLIENT_BURST + took * limits.CLIENT_PER_SECOND
            assert limits.CLIENT_BURST <= asked[200] <= most
            assert asked[429] == 10_000 - asked[200]
            await asyncio.sleep(0.1)
        else:
            assert asked == {200: 10_000}
        assert await site.a.opens(from_a), "the principal itself, when it has come to rest"


async def test_row_65_large_and_endless_bodies_and_500_idle_connections(tmp_path, forks):
    """9 KiB body, endless chunked body, 500 idle TLS connections: 413 / closed / capped. The handles and the memory
    that they take are bounded, nothing of it is in the log, and a good token opens meanwhile.
    """
    async with Besieged(tmp_path / "site", 1).at_work_for(forks, None) as site, AsyncExitStack() as stack:

        async def opens() -> bool:
            async with await site.reach() as line:
                return await site.b.opens(line)

        assert await opens()
        memory, handles, lines = site.memory, site.handles, len(site.log)

        async with await site.reach("127.0.1.1") as line:
            line.writer.write(site.a.request("POST", f"{site.at}/unlock", b"x" * 9 * KB))
            assert (await line.reader.readline()).split()[1] == b"413"

        async with await site.reach("127.0.1.1") as line:
            head = f"POST {site.at}/unlock HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {site.a.bearer}\r\n"
            line.writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            async with asyncio.timeout(10):
                with suppress(ConnectionError):
                    while not line.writer.is_closing():
                        line.writer.write(b"400\r\n" + b"x" * KB + b"\r\n")
                        await line.writer.drain()

        async def idle(source: str, number: int) -> int:
            """Open so many; return on how many the handshake was done."""
            opening = (site.reach(source) for _ in range(number))
            lines = await asyncio.gather(*opening, return_exceptions=True)
            there = [line for line in lines if isinstance(line, Line)]
            assert all(isinstance(line, Line | OSError) for line in lines)
            for line in there:
                stack.push_async_callback(line.close)
            return len(there)

        assert limits.ARRIVALS <= await idle("127.0.2.1", 250) <= limits.ARRIVALS + 20, "one address"
        assert await idle("127.0.1.1", 150) >= limits.STRANGERS, "one that a client has come from"
        assert site.handles - handles <= limits.ARRIVALS + 20 + limits.STRANGERS + 4
        assert await opens()
        for number in range(10):
            assert await idle(f"127.0.3.{number}", 60) > 0, "together they are more than there may be"
        assert limits.CONNECTIONS - 10 <= site.handles - handles <= limits.CONNECTIONS + 10
        assert site.memory - memory < limits.CONNECTIONS * A_CONNECTION
        assert await opens()
        said = Counter(line.split()[1] for line in site.log[lines:])
        assert said.keys() <= {"access_granted", "door_released", "pairing_closed"}, "nothing of a stranger"
        assert said.total() <= 8
        async with await site.reach("127.0.4.1") as newcomer:
            newcomer.writer.write(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await newcomer.reader.readline()).split()[1] == b"200"
