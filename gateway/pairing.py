"""The pairing window: for ten minutes, whoever knows a fresh code may pair, once (protocol C).

One code and one nonce for each window, one attempt a second, and one success closes it. Times are boot time. What this
file refuses to do: open by itself, or say what was wrong with an attempt.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vestibule_core.api.messages import PAIR_NONCE_SIZE, Client, GatewayId
from vestibule_core.api.pairing import RANDOM_SIZE, Host, new_code
from vestibule_core.model import Now
from vestibule_core.note import VerifierKey

from .clients import Clients

OPEN_FOR: Final = 600.0
"""Seconds."""
BETWEEN: Final = 1.0
"""Seconds between two attempts."""
_EPHEMERAL: Final = 32


class NoWindow(Exception):
    """Nobody may pair now."""


class TooSoon(Exception):
    """There was another attempt less than a second ago."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A window."""

    code: str
    nonce: bytes
    until: float
    replaces: bool
    trusts: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody was paired."""

    answer: bytes
    """Message 2."""
    replaced: bool
    """In the place of all others."""
    trusted: bool
    """With trust, which may be new."""


class Window:
    """Opens and closes. Belongs to one event loop."""

    def __init__(
        self,
        gateway: GatewayId,
        fingerprint: bytes,
        *,
        clock: Callable[[], Now],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Begin closed. ``fingerprint`` is SHA-256 of the certificate that the API has, in DER."""
        self.paired: Client | None = None
        """Who was paired last, by this program."""
        self._gateway = gateway
        self._fingerprint = fingerprint
        self._clock = clock
        self._random = random
        self._window: _Open | None = None
        self._next = 0.0
        """When the next attempt may be made."""

    def open(self, *, replaces: bool, trusts: bool) -> str:
        """Open it, or open it anew; return the code. One that was open before is closed by that.

        ``replaces``: who pairs is the administrator, and every other client is removed. ``trusts``: from then on, what
        an administrator asks for holds at once.
        """
        code, nonce = new_code(self._random(RANDOM_SIZE)), self._random(PAIR_NONCE_SIZE)
        self._window = _Open(code, nonce, self._clock().boot + OPEN_FOR, replaces, trusts)
        self.paired = None
        return code

    def close(self) -> None:
        """Close it; may be repeated."""
        self._window = None

    @property
    def nonce(self) -> bytes | None:
        """What an attempt is bound to; None: it is closed."""
        window = self._current()
        return window.nonce if window is not None else None

    @property
    def seconds_left(self) -> int | None:
        """How long it stays open; None: it is closed."""
        window = self._current()
        return math.ceil(window.until - self._clock().boot) if window is not None else None

    def _current(self) -> _Open | None:
        if self._window is not None and self._clock().boot >= self._window.until:
            self._window = None
        return self._window

    async def admit(self, body: bytes, clients: Clients, key: VerifierKey, name: str) -> Admitted:
        """Pair whoever sent ``body``. ``key`` and ``name`` are the gateway's.

        Raises NoWindow, TooSoon, or Violation if it does not prove to know the code; and as ``Clients.pair`` does.
        """
        if (window := self._current()) is None:
            raise NoWindow
        now = self._clock().boot
        if now < self._next:
            raise TooSoon
        self._next = now + BETWEEN
        host = Host(window.code, self._gateway, window.nonce, self._fingerprint)
        who = host.first(body)
        self._window = None  # before anything is waited for: one success, whatever comes of it
        admission = await clients.pair(
            who, replaces=window.replaces, trusts=window.trusts, gateway_key=key, gateway_name=name
        )
        self.paired = clients.registry.get(admission.client_id).client
        return Admitted(host.second(admission, self._random(_EPHEMERAL)), window.replaces, window.trusts)
