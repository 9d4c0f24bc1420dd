"""A gateway's server for the tests of its client: real TLS and real HTTP on loopback, and answers that a test chooses.

``Gateway`` answers as it is told and writes down what it was asked. ``Listener`` takes every connection, does TLS and
writes down what it receives; it is an impostor, a black hole, or cuts the line, as a test wants.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from vestibule_core.api.messages import INFO, Admission, Info
from vestibule_core.api.pairing import Host
from vestibule_core.errors import Violation


@dataclass(frozen=True)
class Identity:
    """A certificate with its key."""

    context: ssl.SSLContext
    fingerprint: bytes

    @classmethod
    def new(cls, folder: Path) -> Identity:
        """Make a self-signed one; its files go into ``folder``."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=7300))
            .sign(key, SHA256())
        )
        file = folder / f"{certificate.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(file)
        return cls(context, hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    authorization: str | None
    cookie: str | None
    body: bytes


class Gateway:
    """A server that answers what it is told to, to whatever it is asked."""

    def __init__(self, identity: Identity) -> None:
        """Have this certificate."""
        self.identity = identity
        self.asked: list[Asked] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self.identity.context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()

    def answers(self, body: bytes | str, status: int = 200) -> None:
        """Answer with this, from now on."""
        if isinstance(body, str):
            body = body.encode()

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status)

        self.answer = answer

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(
                request.method,
                request.path,
                request.query_string,
                request.headers.get("Authorization"),
                request.headers.get("Cookie"),
                await request.read(),
            )
        )
        assert self.answer is not None
        return await self.answer(request)


class Pairable(Gateway):
    """A gateway that can be paired, as the real one does it."""

    def __init__(self, identity: Identity, info: Info, code: str, admission: Admission) -> None:
        """Show ``code``, and admit whoever knows it."""
        super().__init__(identity)
        self.info, self.code, self.admission = info, code, admission
        self.names: list[str] = []
        self.status = 200
        self.answer = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/info":
            return web.Response(body=INFO.encode(self.info))
        assert (request.method, request.path) == ("POST", "/v1/pair")
        assert self.info.pair_nonce is not None
        if self.status != 200:
            return web.Response(body=b'{"error":"no"}', status=self.status)
        host = Host(self.code, self.info.id, self.info.pair_nonce, self.identity.fingerprint)
        try:
            self.names.append(host.first(await request.read()))
        except Violation:
            return web.Response(body=b'{"error":"forbidden"}', status=403)
        return web.Response(body=host.second(self.admission, bytes(range(32))))


class Listener:
    """Takes connections, and writes down each byte that arrives through TLS."""

    def __init__(self, identity: Identity) -> None:
        """Have this certificate."""
        self.identity = identity
        self.received = bytearray()
        self.something_came = asyncio.Event()
        self.connections = 0
        self.cuts_after: bytes | None = None
        """Cut the line as soon as this has arrived; None: stay silent."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.identity.context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            while part := await reader.read(65536):
                self.received += part
                self.something_came.set()
                if self.cuts_after is not None and self.cuts_after in self.received:
                    break
        except ConnectionError, asyncio.CancelledError:
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()
