"""What the gateway is compared with: the same server, with something simpler in place of an unlock.

Each function is called in the process of a gateway before it is one (``Forks.start``).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web

from gateway import server
from gateway.server import Asked
from vestibule_core import token
from vestibule_core.api import messages
from vestibule_core.model import Code, Decision

from .gateway_site import lift

_GRANTED = messages.Answer.of(Decision(Code.GRANTED))


def _in_place_of_an_unlock(answer: Callable[[Asked], Awaitable[web.Response]]) -> None:
    lift()
    server.ROUTES = tuple(  # type: ignore[misc, assignment]
        replace(route, answer=answer) if route.answer is server._unlock else route for route in server.ROUTES
    )


def verifies() -> None:
    """Verify the token, and say that it is good."""

    async def answer(asked: Asked) -> web.Response:
        _verify(asked)
        return server._said(messages.ANSWER, _GRANTED)

    _in_place_of_an_unlock(answer)


def _verify(asked: Asked) -> token.UnlockToken:
    controller, wanted = asked.edge.controller, asked.read(messages.UNLOCK_REQUEST)
    return token.verify(wanted.token, controller.building.keys, wanted.issuer, controller._history.texts)


def _beside_the_journal(asked: Asked) -> Path:
    edge: Any = asked.edge
    return Path(edge.config.state) / "rival.db"


def verifies_with_pyjwt() -> None:
    """Verify the token as programs usually do, and say that it is good."""

    async def answer(asked: Asked) -> web.Response:
        (key,) = asked.edge.controller.building.keys.values()
        text = asked.read(messages.UNLOCK_REQUEST).token
        jwt.decode(text, key.public, algorithms=["EdDSA"], audience=asked.door(), issuer=key.issuer)
        return server._said(messages.ANSWER, _GRANTED)

    _in_place_of_an_unlock(answer)


def commits_each_by_itself() -> None:
    """Verify the token, note that it is spent in a commit of its own, and say that it is good."""
    writer = ThreadPoolExecutor(1)

    @cache
    def database(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE spent(iss, jti, PRIMARY KEY(iss, jti))")
        return db

    def spend(unlock: token.UnlockToken, path: Path) -> None:
        database(path).execute("INSERT INTO spent VALUES(?, ?)", unlock.spend_key)

    async def answer(asked: Asked) -> web.Response:
        await asyncio.get_running_loop().run_in_executor(writer, spend, _verify(asked), _beside_the_journal(asked))
        return server._said(messages.ANSWER, _GRANTED)

    _in_place_of_an_unlock(answer)
