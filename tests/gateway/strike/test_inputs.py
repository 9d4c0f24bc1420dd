"""Switches at the box, and what they say in the protocol's words."""

from __future__ import annotations

import asyncio

import pytest

from gateway.strike import inputs
from gateway.strike.inputs import SAID, Switches
from vestibule_core.doorstrike.device import BoltIs, ButtonHeld, ContactIs, CoverIs, ExitRequested
from vestibule_core.doorstrike.wire import Contact


@pytest.fixture
def heard():
    return []


@pytest.fixture
async def switches(heard):
    switches = Switches(heard.append)
    yield switches
    switches.close()


async def test_a_switch_is_closed_in_the_state_that_it_is_named_for(switches, heard):
    for name in ("contact", "tamper", "bolt"):
        switches.told(name, True)
        switches.told(name, False)
    assert heard == [
        ContactIs(Contact.CLOSED),
        ContactIs(Contact.OPEN),
        CoverIs(open=False),
        CoverIs(open=True),
        BoltIs(secured=True),
        BoltIs(secured=False),
    ]


async def test_who_wants_out_is_heard_once_a_press(switches, heard):
    switches.told("rex", True)
    switches.told("rex", False)
    assert heard == [ExitRequested()]


async def test_a_button_has_to_be_held(switches, heard, monkeypatch):
    monkeypatch.setattr(inputs, "PAIRING_HOLD", 0.05)
    monkeypatch.setattr(inputs, "RESET_HOLD", 0.15)
    switches.told("button", True)
    switches.told("button", False)
    await asyncio.sleep(0.2)
    assert heard == []
    switches.told("button", True)
    await asyncio.sleep(0.1)
    assert heard == [ButtonHeld(0.05)], "told while it is still held"
    await asyncio.sleep(0.1)
    switches.told("button", False)
    assert heard == [ButtonHeld(0.05), ButtonHeld(0.15)]


async def test_a_button_that_bounces_starts_over(switches, heard, monkeypatch):
    monkeypatch.setattr(inputs, "PAIRING_HOLD", 0.1)
    for _ in range(3):
        switches.told("button", True)
        await asyncio.sleep(0.06)
        switches.told("button", False)
    await asyncio.sleep(0.1)
    assert heard == []


def test_a_trial_can_say_what_a_box_can():
    assert {type(what) for what in SAID.values()} == {ContactIs, CoverIs, BoltIs, ButtonHeld, ExitRequested}
