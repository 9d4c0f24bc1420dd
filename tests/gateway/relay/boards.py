"""Boards as the tests want them: quick to look, quick to lose patience; and waiting for what they see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.relay import esphome, modbus
from gateway.relay import shelly as shelly_module
from gateway.relay.config import FLASH, EsphomeConfig, ModbusConfig, ShellyConfig
from gateway.relay.esphome import EsphomeBoard
from gateway.relay.modbus import ModbusBoard
from gateway.relay.shelly import ShellyBoard
from scripts.demo_home.relay_board import LOOPBACK
from tests.simulated import Site
from vestibule_core.model import Actor, read_clock
from vestibule_core.strike import Pulse

from .esphome_node import Node
from .shelly_unit import PASSWORD, ShellyUnit

QUICK = 0.01
"""Seconds from one look at a board to the next."""
ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
PULSE = Pulse(b"\1" * 16, 5.0)


def config(port: int, **changes: Any) -> ModbusConfig:
    return ModbusConfig(**{"host": LOOPBACK, "port": port, "flash": FLASH, "inputs": 8, "poll": QUICK} | changes)


def esphome_config(node: Node, folder: Path, **changes: Any) -> EsphomeConfig:
    """What it takes to reach a node, with its key in a file of ``folder``."""
    key_file = folder / "node.key"
    key_file.touch(0o600)
    key_file.write_text(node.key_text + "\n")
    given = {"host": LOOPBACK, "node": "hall", "key_file": key_file, "port": node.port, "outputs": 8, "inputs": 8}
    return EsphomeConfig(**given | changes)


def shelly(unit: ShellyUnit, *, password: str | None = PASSWORD, **changes: Any) -> ShellyBoard:
    """A board that is this unit."""
    given = {"host": LOOPBACK, "password_file": None, "port": unit.port, "outputs": 2, "inputs": 2, "poll": QUICK}
    return ShellyBoard("hall", ShellyConfig(**given | changes), password)


def hurry(monkeypatch: Any) -> None:
    monkeypatch.setattr(modbus, "ANSWER", 0.4)
    monkeypatch.setattr(modbus, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(modbus, "LONGEST_RETRY", 0.04)
    monkeypatch.setattr(esphome, "ANSWER", 0.4)
    monkeypatch.setattr(esphome, "GREETING", 1.0)
    monkeypatch.setattr(esphome, "LOOK", 0.02)
    monkeypatch.setattr(esphome, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(esphome, "LONGEST_RETRY", 0.04)
    monkeypatch.setattr(shelly_module, "ANSWER", 0.4)
    monkeypatch.setattr(shelly_module, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(shelly_module, "LONGEST_RETRY", 0.04)
    monkeypatch.setattr(shelly_module, "LOCKED_OUT", 0.1)


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


async def until_reachable(board: EsphomeBoard | ModbusBoard | ShellyBoard) -> None:
    await until(lambda: board.channel(1).is_reachable)
