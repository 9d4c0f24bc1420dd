"""Limits: how many connections there may be, how long they may take, and how often anybody may ask.

A connection has a place from the moment when it is accepted, before its handshake: so many in all, so many of one
address, fewer of strangers. Where there is none left, the oldest connection that has shown no bearer gives way, so that
whoever merely holds connections open keeps nobody out. An address that no client has come from connects so often and no
oftener: a handshake costs more than an answer, to be closed before it next to nothing. What this file refuses to do:
tell an IPv6 address from its neighbours in the same /64, which one machine can have all of; and remember more addresses
than it was given room for.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vestibule_core.bucket import Buckets

_LOGGER = logging.getLogger(__name__)

CONNECTIONS: Final = 512
"""In all."""
OF_ONE_ADDRESS: Final = 256
STRANGERS: Final = 128
"""Connections of one address on which no bearer was shown yet. More than a client's whole pool at once."""
ARRIVALS: Final = 64
ARRIVALS_PER_SECOND: Final = 1.0
"""Connections that one address may begin as long as no client has come from there. What is more is closed at once."""
HANDSHAKE: Final = 10.0
"""Seconds in which the TLS handshake has to be over."""
IDLE: Final = 20.0
"""Seconds in which the head of a request has to be there, from the beginning of the connection or from the last
answer. More than the 15 s for which aiohttp's client keeps a connection: it is never closed under a request. Not more
than the client's ``COMMAND_DEADLINE``: what comes on it after a command was given up meets a closed connection.
"""
LINGER: Final = 2.0
"""Seconds for which what is left of a refused body is read and forgotten, so that its sender reads the answer."""
NO_ROOM: Final = 1.0
"""Seconds until the next connection is taken when the machine has no room for one."""

CLIENT_PER_SECOND: Final = 200.0
CLIENT_BURST: Final = 400.0
"""Requests of one client: more than the unlocks of all carriers together take."""
STRANGER_PER_SECOND: Final = 2.0
STRANGER_BURST: Final = 30.0
"""Requests of one address without a bearer that is known."""
ADDRESSES: Final = 1000
"""That are remembered."""
CHANGE_BURST: Final = 20.0
CHANGE_AGAIN: Final = 10.0
"""Changes of the policy or of clients that one client may ask for at once, and the seconds until one more. Each is
written, so whoever asks without a pause would wear out the disk. To remove a client is never one too many.
"""


@functools.lru_cache(maxsize=ADDRESSES)
def network(host: str | None) -> str:
    """Return what counts as one address: of IPv6 the /64; without a known address, all are one."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Rates:
    """How often clients and strangers may ask. Belongs to one event loop."""

    def __init__(self) -> None:
        """Begin with everything allowed."""
        self._clients: Buckets[str] = Buckets(per_second=CLIENT_PER_SECOND, burst=CLIENT_BURST, most=ADDRESSES)
        self._strangers: Buckets[str] = Buckets(per_second=STRANGER_PER_SECOND, burst=STRANGER_BURST, most=ADDRESSES)

    def client_may(self, client: str, now: float) -> bool:
        """Return whether a client may ask; ``now`` is seconds of boot time."""
        return self._clients.take(client, now)

    def stranger_may(self, host: str | None, now: float) -> bool:
        """Return whether whoever is at ``host`` may ask without a bearer. A client there is not held up by it."""
        return self._strangers.take(network(host), now)


class TooManyChanges(Exception):
    """This client has changed enough for now."""


class Changes:
    """How often each client may change what is written. None uses up what another one has."""

    def __init__(self) -> None:
        """Begin with everything allowed."""
        self._clients: Buckets[str] = Buckets(per_second=1 / CHANGE_AGAIN, burst=CHANGE_BURST, most=ADDRESSES)

    def take(self, client: str, now: float) -> None:
        """Count a change; ``now`` is seconds of boot time. Raises TooManyChanges."""
        if not self._clients.take(client, now):
            raise TooManyChanges


class Guest:
    """A connection that has a place."""

    __slots__ = ("address", "end", "is_known")

    def __init__(self, host: str | None, end: Callable[[], object]) -> None:
        """``end`` ends the connection at once."""
        self.address = network(host)
        self.end = end
        self.is_known = False
        """Whether a client has shown its bearer on it. ``Places.recognise`` says so."""


class Places:
    """The places for connections."""

    def __init__(self) -> None:
        """Begin with all of them free."""
        self._guests: dict[Guest, None] = {}
        self._by_address: dict[str, dict[Guest, None]] = {}
        self._arrivals: Buckets[str] = Buckets(per_second=ARRIVALS_PER_SECOND, burst=ARRIVALS, most=ADDRESSES)
        self._homes: dict[str, None] = {}
        """Addresses that clients have come from, the latest last."""

    def __len__(self) -> int:
        """Return how many are taken."""
        return len(self._guests)

    def take(self, guest: Guest, now: float) -> bool:
        """Give ``guest`` a place; return False if there is none for it, not even one of a stranger's.

        ``now`` is seconds that only go on.
        """
        if guest.address not in self._homes and not self._arrivals.take(guest.address, now):
            return False
        neighbours = self._by_address.get(guest.address, {})
        full: dict[Guest, None] | None = None
        if len(neighbours) >= OF_ONE_ADDRESS or sum(not other.is_known for other in neighbours) >= STRANGERS:
            full = neighbours
        elif len(self._guests) >= CONNECTIONS:
            full = self._guests
        if full is not None:
            gives_way = next((other for other in full if not other.is_known), None)
            if gives_way is None:
                return False
            end = gives_way.end
            self.leave(gives_way)
            end()
        self._guests[guest] = None
        self._by_address.setdefault(guest.address, {})[guest] = None
        return True

    def recognise(self, guest: Guest) -> None:
        """Know from now on that a client has shown its bearer there; may be repeated."""
        if guest.is_known:
            return
        guest.is_known = True
        self._homes.pop(guest.address, None)
        self._homes[guest.address] = None
        if len(self._homes) > ADDRESSES:
            del self._homes[next(iter(self._homes))]

    def leave(self, guest: Guest) -> None:
        """Take the place back; may be repeated."""
        if guest not in self._guests:
            return
        guest.end = _nothing  # else the two would hold each other in memory
        del self._guests[guest]
        neighbours = self._by_address[guest.address]
        del neighbours[guest]
        if not neighbours:
            del self._by_address[guest.address]


def _nothing() -> None:
    """End nothing: it has gone."""


class Connection(web.RequestHandler):
    """A connection of the API over TLS. A bad request is answered with a constant word and is in no log: its bytes are
    a stranger's, and a bearer may be among them.
    """

    __slots__ = ("_guest", "_places")

    def __init__(self, server: web.Server, guest: Guest, places: Places) -> None:
        """Serve ``guest``, who has one of ``places``."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE,
            lingering_time=LINGER,
            access_log=None,  # type: ignore[arg-type] # aiohttp's own way to say that there is none
            auto_decompress=False,  # what is small on the wire is small here
            logger=_LOGGER,
        )
        self._guest, self._places = guest, places

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        super().connection_lost(exc)
        self._places.leave(self._guest)

    def recognise(self) -> None:
        """Know from now on that a client has shown its bearer here."""
        self._places.recognise(self._guest)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what could not be read, or what failed here, with a constant word."""
        if isinstance(exc, HttpProcessingError):
            status, word = 400, "bad_request"
        else:
            word = "failed"
            _LOGGER.error("A request could not be answered", exc_info=exc)
        if request.writer.output_size > 0:  # half of an answer is out already
            raise ConnectionError("the answer was cut off")
        answer = web.json_response({"error": word}, status=status, headers={"Cache-Control": "no-store"})
        answer.force_close()
        return answer


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            both = socket.create_server(("", port), family=socket.AF_INET6, backlog=CONNECTIONS, dualstack_ipv6=True)
        except OSError as err:
            if err.errno != errno.EADDRNOTAVAIL:  # IPv6 is switched off
                raise
        else:
            return both
    return socket.create_server(("", port), backlog=CONNECTIONS)


RECORD: Final = 16 * 1024
"""Bytes that are read from a connection in one go: a TLS record holds no more. asyncio would make room for 256 KiB and
fill that with zeros, for each connection before its handshake: strangers' connections alone would take 160 MB."""


class Listener:
    """Accepts connections for an aiohttp server, over TLS, within the limits. Belongs to one event loop."""

    def __init__(self, server: web.Server, context: ssl.SSLContext) -> None:
        """Serve ``server`` under ``context``, once ``listen`` is called."""
        self.places = Places()
        sslproto.SSLProtocol.max_size = RECORD  # of this process, which is the gateway's own
        self._server = server
        self._context = context
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._greeting: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Take connections at ``host`` ("": at every address) from now on; return the port (for 0, a free one).

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        if host:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, place in dict.fromkeys((family, place[:2]) for family, _, _, _, place in found):
                self._sockets.append(socket.create_server(place, family=family, backlog=CONNECTIONS))
        else:
            self._sockets.append(_everywhere(port))
        for sock in self._sockets:
            sock.setblocking(False)
            self._accepting.append(loop.create_task(self._accept(sock)))
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take no more connections. Those that there are, are the server's to end."""
        for task in (tasks := [*self._accepting, *self._greeting]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except ConnectionError:  # gone before it was here
                continue
            except OSError as err:
                _LOGGER.warning("No connection can be taken: %s", err.strerror)
                await asyncio.sleep(NO_ROOM)
                continue
            guest = Guest(address[0], sock.close)
            if self.places.take(guest, loop.time()):
                greeting = loop.create_task(self._greet(guest, sock), eager_start=True)  # so that it has the socket
                guest.end = greeting.cancel
                self._greeting.add(greeting)
                greeting.add_done_callback(self._greeting.discard)
            else:
                sock.close()
            await asyncio.sleep(0)  # where many wait to be accepted, what is being served has its turn in between

    async def _greet(self, guest: Guest, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: Connection(self._server, guest, self.places),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE,
            )
        except OSError as err:  # no TLS, none that is good enough, or too late
            self.places.leave(guest)
            err.__traceback__ = None  # whose frames would hold the connection in memory, and it them
        except asyncio.CancelledError:
            self.places.leave(guest)
            raise
        else:
            if transport.is_closing():  # it ended in the handshake, and no protocol was told
                self.places.leave(guest)
            else:
                guest.end = transport.abort
