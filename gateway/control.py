"""The control socket: how whoever may write in the state folder asks the gateway that runs in it.

It is a Unix socket that only the gateway's own user can open, so it asks for no key: that user could as well read the
gateway's own. Nothing here opens a door. Both ends are here: the application that the gateway serves on the socket, and
the call that a command makes.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, override

from aiohttp import web

from .source import Unusable

PATIENCE: Final = 20.0
"""Seconds for an answer: a commit may take long on a slow disk."""

type Facts = Mapping[str, Any]


class Controlled(Protocol):
    """What a command may ask of a gateway. What cannot be done raises Unable."""

    def open_window(self, *, replace: bool, trust: bool) -> Facts:
        """Open the pairing window; return its ``code``, and its state."""
        ...

    def window_state(self) -> Facts:
        """Return which ``window`` is open for how many ``seconds`` (None: none), and who was ``paired`` last."""
        ...

    def close_window(self) -> None:
        """Close it."""
        ...

    async def approve(self) -> Facts:
        """Let what waits for somebody at the gateway hold at once; return how much did, as ``approved``, and what
        waits then, as ``waiting`` does.
        """
        ...

    def waiting(self) -> Facts:
        """Return what waits: of the ``policy`` the reasons, and the wishes of ``clients``."""
        ...

    def announce_certificate(self) -> Awaitable[Facts]:
        """Announce a next certificate; return its ``fingerprint``."""
        ...

    def status(self) -> Facts:
        """Return how everything is, for a person."""
        ...

    async def link_carrier(self, code: str, issuer: str | None) -> Facts:
        """Have a link to the cloud that an enrolment code names, if it is this carrier's; return its ``issuer`` and
        ``name``. ``issuer`` None: only say whose it is, and as whom the policy has ``let_in`` that one (None: not).
        """
        ...

    async def unlink_carrier(self, issuer: str) -> Facts:
        """Have that link no more; return which carrier it was to."""
        ...

    async def approve_carrier(self, issuer: str) -> Facts:
        """Let a carrier in again that was locked out; return which one it is."""
        ...

    def linked(self) -> Facts:
        """Return the ``carriers`` that there is a link to, and how each link is."""
        ...

    async def begin_backup(self, turn: str) -> Facts:
        """Let the journal's file rest for whoever copies it; ``turn`` is a word of theirs that nobody else says."""
        ...

    async def end_backup(self, turn: str) -> Facts:
        """Let it go on. What was copied is of no use if this is refused."""
        ...


class Unable(Exception):
    """What was asked cannot be done now. The text is for a person."""


def application(gateway: Controlled) -> web.Application:
    """Return what is served on the socket."""

    async def pair(request: web.Request) -> Facts:
        wanted = await request.json()
        return gateway.open_window(replace=bool(wanted["replace"]), trust=bool(wanted["trust"]))

    async def pairing(_: web.Request) -> Facts:
        return gateway.window_state()

    async def unpair(_: web.Request) -> Facts:
        gateway.close_window()
        return {}

    async def waiting(_: web.Request) -> Facts:
        return gateway.waiting()

    async def approve(_: web.Request) -> Facts:
        return await gateway.approve()

    async def next_certificate(_: web.Request) -> Facts:
        return await gateway.announce_certificate()

    async def status(_: web.Request) -> Facts:
        return gateway.status()

    async def carriers(_: web.Request) -> Facts:
        return gateway.linked()

    async def link_carrier(request: web.Request) -> Facts:
        wanted = await request.json()
        return await gateway.link_carrier(str(wanted["code"]), wanted["issuer"])

    async def unlink_carrier(request: web.Request) -> Facts:
        return await gateway.unlink_carrier(str((await request.json())["issuer"]))

    async def approve_carrier(request: web.Request) -> Facts:
        return await gateway.approve_carrier(str((await request.json())["issuer"]))

    async def begin_backup(request: web.Request) -> Facts:
        return await gateway.begin_backup(str((await request.json())["turn"]))

    async def end_backup(request: web.Request) -> Facts:
        return await gateway.end_backup(str((await request.json())["turn"]))

    app = web.Application()
    app.router.add_post("/backup", _answering(begin_backup))
    app.router.add_delete("/backup", _answering(end_backup))
    app.router.add_get("/carriers", _answering(carriers))
    app.router.add_post("/carriers", _answering(link_carrier))
    app.router.add_delete("/carriers", _answering(unlink_carrier))
    app.router.add_post("/carriers/approve", _answering(approve_carrier))
    app.router.add_post("/pair", _answering(pair))
    app.router.add_get("/pair", _answering(pairing))
    app.router.add_delete("/pair", _answering(unpair))
    app.router.add_get("/approve", _answering(waiting))
    app.router.add_post("/approve", _answering(approve))
    app.router.add_post("/next-certificate", _answering(next_certificate))
    app.router.add_get("/status", _answering(status))
    return app


def _answering(
    work: Callable[[web.Request], Awaitable[Facts]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(dict(await work(request)))
        except Unable as err:
            return web.json_response({"error": str(err)}, status=409)

    return answer


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(path: Path, method: str, what: str, wanted: Facts | None = None) -> dict[str, Any]:
    """Ask the gateway whose control socket is ``path``; blocks. Raises Unusable."""
    connection = _Connection(path)
    try:
        connection.request(method, what, None if wanted is None else json.dumps(wanted))
        response = connection.getresponse()
        answer = json.loads(response.read()) if response.status in (200, 409) else {}
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise Unusable(f"no gateway runs with the state folder {path.parent}: start it first") from err
    except PermissionError as err:
        raise Unusable(f"{path} belongs to the gateway's user: run this command as that user, or as root") from err
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise Unusable(f"the gateway at {path} does not answer: {err or type(err).__name__}") from err
    finally:
        connection.close()
    if response.status != 200:
        raise Unusable(answer.get("error") or f"the gateway answered {response.status}: its log says more")
    return dict(answer)
