"""Home Assistant's WebSocket API, as one who waits for each answer uses it.

Its event loop runs in a thread of its own, because who drives a browser has one in theirs already.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import aiohttp

PATIENCE: Final = 30.0
"""Seconds until an answer that does not come is an error."""
TURN: Final = 0.2
"""Seconds."""


class CommandRefused(Exception):
    """Home Assistant did not do it; the text is its own."""


class Closed(Exception):
    """Home Assistant closed the connection."""


class WebSocket:
    """One connection; use it in a `with`."""

    def __init__(self, url: str, access: str | None) -> None:
        """Connect to the Home Assistant at ``url``, as whoever the access token ``access`` is of."""
        self._url = f"{url}/api/websocket"
        self._access = access
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1)
        self._number = 0
        self._told: deque[Any] = deque()

    def __enter__(self) -> Self:
        try:
            self._do(self._connect())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._open.aclose())
        self._end()

    def command(self, command: Mapping[str, Any]) -> Any:
        """Return the result of a command. Raises CommandRefused."""
        return self._do(self._command(command))

    def told(self, patience: float) -> Any:
        """Return what is told next to a subscription; None if it takes more than ``patience`` seconds."""
        deadline = time.monotonic() + patience
        # In short turns: Ctrl-C does not reach the thread, and what ends the connection waits for it.
        turn = max(min(patience, TURN), 0.001)  # aiohttp would wait for ever in 0 seconds
        while (told := self._do(self._next(turn))) is None and time.monotonic() < deadline:
            pass
        return told

    def _do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._runner.run, work).result()

    def _end(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _connect(self) -> None:
        async with contextlib.AsyncExitStack() as connecting:
            session = await connecting.enter_async_context(aiohttp.ClientSession())
            self._socket = await connecting.enter_async_context(session.ws_connect(self._url, max_msg_size=0))
            await self._receive(PATIENCE)
            await self._socket.send_json({"type": "auth", "access_token": self._access})
            if (answer := await self._receive(PATIENCE))["type"] != "auth_ok":
                raise CommandRefused(answer["message"])
            self._open = connecting.pop_all()

    async def _command(self, command: Mapping[str, Any]) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, **command})
        while (answer := await self._receive(PATIENCE))["type"] != "result":
            self._told.append(answer["event"])
        if not answer["success"]:
            raise CommandRefused(answer["error"]["message"])
        return answer["result"]

    async def _next(self, patience: float) -> Any:
        if self._told:
            return self._told.popleft()
        try:
            return (await self._receive(patience))["event"]
        except TimeoutError:
            return None

    async def _receive(self, patience: float) -> Any:
        message = await self._socket.receive(timeout=patience)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise Closed("Home Assistant closed the connection.")
        return message.json()
