"""What a box says that it has: what hangs on it, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.strike.config import parse_config
from gateway.strike.inputs import caps
from vestibule_core.doorstrike.wire import Caps

BARE = """
name = "Gate"
transport = "usb:0"
state = "state"

[relay]
kind = "memory"
"""


@pytest.mark.parametrize(
    "more, has",
    [
        ("", Caps(0)),
        ("[contact]\nline = 1", Caps.CONTACT),
        ("[tamper]\nline = 1", Caps.TAMPER),
        ("[bolt]\nline = 1", Caps.LOCK_MONITOR),
        ("[rex]\nline = 1", Caps.REX),
        ("[button]\nline = 1", Caps(0)),  # it pairs, and asks for no exit
        ("hold = true", Caps.HOLD),
    ],
)
def test_a_box_has_what_its_configuration_names(more, has):
    assert caps(parse_config(f"{BARE}{more}\n", Path("strike.toml"))) == has


def test_a_trial_can_say_whatever_a_box_without_a_battery_can():
    config = parse_config(f"simulated_inputs = true\n{BARE}", Path("strike.toml"))
    assert caps(config) == Caps.CONTACT | Caps.TAMPER | Caps.LOCK_MONITOR | Caps.REX
