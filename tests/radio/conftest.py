"""A radio with a peripheral and an adapter on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from . import virtual_time
from .ether import Radio
from .peripheral import Peripheral
from .virtual_radio.adapter import Adapter


@pytest.fixture
async def radio() -> AsyncGenerator[Radio]:
    async with Radio() as radio:
        yield radio


@pytest.fixture
async def gate(radio: Radio) -> AsyncGenerator[Peripheral]:
    async with Peripheral(radio, "gate") as gate:
        yield gate


@pytest.fixture
async def phone(radio: Radio) -> AsyncGenerator[Adapter]:
    async with Adapter(radio.device("phone")) as phone:
        yield phone


@pytest.fixture
def radio_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strikes live in the time of the loop they run in."""
    virtual_time.of_the_strike(monkeypatch)
