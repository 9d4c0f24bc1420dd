"""How soon Home Assistant knows what is so at a strike without a kept connection, in true time: nothing is hurried."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

pytest.importorskip("noise", reason="noiseprotocol is not installed")
pytest.importorskip("bumble", reason="the virtual radio's Bluetooth stack is not installed")
pytest.importorskip("aiousbwatcher", reason="what Home Assistant's Bluetooth needs is not installed")

from tests.integration.site import Site
from tests.integration.test_ble import Strike, add_gate, building, entity, gate, strike_of
from tests.radio.ether import Radio
from tests.radio.until import until
from vestibule_core.doorstrike.device import BoltIs

__all__ = ["building", "gate"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled", "with_bluetooth")

IN_TIME = 10.0
"""Seconds."""


def everything_heard(site: Site, door: str, gate: Strike) -> Callable[[], bool]:
    return lambda: strike_of(site, door).kept.heard == gate.box.shell._machine._device.history.seq


async def test_the_truth_after_a_power_cut_in_the_middle_of_a_poll_is_known_in_ten_seconds(
    hass, radio: Radio, scanners, building, gate
):
    door = await add_gate(hass, building, gate)
    await until(everything_heard(building, door, gate), seconds=20)
    await until(lambda: not radio.links(), seconds=20)
    gate.open_door()
    await until(lambda: bool(radio.links()), seconds=IN_TIME)
    await gate.cut_power()
    await gate.power_up()
    began = time.monotonic()
    gate.tell(BoltIs(secured=True))
    gate.close_door()
    await until(everything_heard(building, door, gate), seconds=30)
    assert time.monotonic() - began < IN_TIME
    contact = entity(hass, "binary_sensor", door, "contact")
    await until(lambda: hass.states.get(contact).state == "off")
    assert building.lock(door).state == "locked"
    assert gate.pulses == 0


async def test_what_happens_just_after_a_poll_is_known_in_ten_seconds(hass, radio: Radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await until(everything_heard(building, door, gate), seconds=20)
    gate.open_door()
    await until(everything_heard(building, door, gate), seconds=20)
    began = time.monotonic()
    gate.close_door()
    await until(everything_heard(building, door, gate), seconds=30)
    assert time.monotonic() - began < IN_TIME
