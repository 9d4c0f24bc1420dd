"""A radio with this machine's adapter on it, and a Bluetooth strike."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.gateway.strike.strikes import Gate
from tests.radio.ether import Radio
from tests.radio.virtual_radio.adapter import Adapter
from vestibule_core.doorstrike.wire import Caps

CAPS = Caps.CONTACT | Caps.TAMPER | Caps.HOLD


@pytest.fixture
async def radio() -> AsyncGenerator[Radio]:
    async with Radio() as radio:
        yield radio


@pytest.fixture
async def adapter(radio: Radio) -> AsyncGenerator[Adapter]:
    async with Adapter(radio.device("adapter")) as adapter:
        yield adapter


@pytest.fixture
async def gate(radio: Radio, tmp_path: Path) -> AsyncGenerator[Gate]:
    folder = tmp_path / "gate"
    folder.mkdir()
    with patch("gateway.strike.box.caps", lambda _: CAPS):  # as if it had those lines: nothing here has any
        async with Gate(radio, folder) as gate:
            gate.sense("contact closed")
            yield gate
