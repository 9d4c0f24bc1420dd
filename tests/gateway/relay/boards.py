"""Boards as the tests want them: quick to look, quick to lose patience; and waiting for what they see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.relay import modbus
from gateway.relay.config import FLASH, ModbusConfig
from gateway.relay.modbus import ModbusBoard
from scripts.demo_home.relay_board import LOOPBACK
from tests.simulated import Site
from vestibule_core.model import Actor, read_clock
from vestibule_core.strike import Pulse

QUICK = 0.01
"""Seconds from one look at a board to the next."""
ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
PULSE = Pulse(b"\1" * 16, 5.0)


def config(port: int, **changes: Any) -> ModbusConfig:
    return ModbusConfig(**{"host": LOOPBACK, "port": port, "flash": FLASH, "inputs": 8, "poll": QUICK} | changes)


def hurry(monkeypatch: Any) -> None:
    monkeypatch.setattr(modbus, "ANSWER", 0.15)
    monkeypatch.setattr(modbus, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(modbus, "LONGEST_RETRY", 0.04)


class Door(Site):
    """A controller whose only door has this strike. It counts real time."""

    def __init__(self, path: Path, strike: Any, **setup: Any) -> None:
        super().__init__(path, clock=read_clock, access_time=0.5, setup=setup, strikes={})
        self.strikes = {self.door.id: strike}

    async def __aexit__(self, *_: object) -> None:
        await self.controller.stop()
        await asyncio.to_thread(self.journal.close)


async def until(happened: Callable[[], object], seconds: float = 5.0) -> None:
    """Return as soon as ``happened()`` is true; raise TimeoutError."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - a socket has no asyncio.Event
            await asyncio.sleep(0.002)


async def until_reachable(board: ModbusBoard) -> None:
    await until(lambda: board.channel(1).is_reachable)
