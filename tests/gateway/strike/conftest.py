"""A radio with a phone on it, and strikes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from gateway.strike import air
from tests.radio.ether import Radio
from tests.radio.virtual_radio.adapter import Adapter
from vestibule_core.doorstrike import keyring

from .strikes import OFTEN, Gate, GateProcess


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what these tests would only wait for, at the strikes in this process.

    One attempt to pair in a second is the rule; how it is kept is the protocol's own tests' to see.
    """
    monkeypatch.setattr(keyring, "ATTEMPT_GAP", 0.001)
    monkeypatch.setattr(air, "INTERVAL", OFTEN)


@pytest.fixture
async def radio() -> AsyncGenerator[Radio]:
    async with Radio() as radio:
        yield radio


@pytest.fixture
async def phone(radio: Radio) -> AsyncGenerator[Adapter]:
    async with Adapter(radio.device("phone")) as phone:
        yield phone


@pytest.fixture
async def gate(radio: Radio, tmp_path: Path) -> AsyncGenerator[Gate]:
    async with Gate(radio, tmp_path) as gate:
        yield gate


@pytest.fixture
async def gate_process(radio: Radio, tmp_path: Path) -> AsyncGenerator[GateProcess]:
    async with GateProcess(tmp_path, await radio.open_port("gate")) as gate:
        yield gate


@pytest.fixture
async def mortal(radio: Radio, tmp_path: Path) -> AsyncGenerator[GateProcess]:
    async with GateProcess(tmp_path, await radio.open_port("gate"), mortal=True) as gate:
        yield gate
