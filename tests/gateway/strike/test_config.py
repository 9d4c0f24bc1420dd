"""The configuration: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.strike.config import InputLine, MemoryRelay, OutputLine, Pull, parse_config, read_config
from gateway.strike.inputs import caps
from gateway.toml_table import ConfigError
from vestibule_core.doorstrike.wire import Caps

FILE = Path("/etc/vestibule/strike.toml")
LEAST = """
name = "Gate"
transport = "usb:0"
state = "/var/lib/vestibule-strike"

[relay]
kind = "gpio"
line = 17
"""
EXAMPLE = Path(__file__).parent.parent.parent.parent / "docs" / "strike.example.toml"


def test_the_least_that_a_box_needs():
    config = parse_config(LEAST, FILE)
    assert config.relay == OutputLine("/dev/gpiochip0", 17)
    assert (config.shortest, config.longest, config.hold) == (0.5, 10.0, False)
    assert caps(config) == Caps(0)


def test_the_example_is_a_good_one_and_names_everything():
    config = read_config(EXAMPLE)
    assert config.contact == InputLine("/dev/gpiochip0", 27)
    assert config.tamper == InputLine("/dev/gpiochip0", 22)
    assert None not in (config.bolt, config.button, config.rex, config.light)
    assert caps(config) == Caps.CONTACT | Caps.TAMPER | Caps.LOCK_MONITOR | Caps.REX


def test_an_input_can_be_the_other_way_round():
    config = parse_config(
        LEAST + '[contact]\nchip = "/dev/gpiochip1"\nline = 5\ninverted = true\npull = "none"\n', FILE
    )
    assert config.contact == InputLine("/dev/gpiochip1", 5, inverted=True, pull=Pull.NONE)


def test_a_relative_path_begins_at_the_files_own_folder():
    text = 'name = "x"\ntransport = "usb:0"\nstate = "state"\nrelay = { kind = "memory", log = "relay.log" }'
    config = parse_config(text, FILE)
    assert config.state == Path("/etc/vestibule/state")
    assert config.relay == MemoryRelay(Path("/etc/vestibule/relay.log"))


WRONG = [
    # what is in the file, the line, what is said about it
    (LEAST.replace('"Gate"', '"Gate'), 2, "Illegal character"),
    (LEAST.replace("name", "nmae"), 2, 'nmae: this key is not known; the nearest one is "name"'),
    (LEAST.replace("line = 17", "lien = 17"), 8, 'relay.lien: this key is not known; the nearest one is "line"'),
    (LEAST.replace('name = "Gate"', ""), 1, "name: this is missing"),
    (LEAST.replace('"Gate"', '""'), 2, "name: this has to be 1 to 32 characters"),
    (LEAST.replace('"Gate"', "7"), 2, "name: this has to be 1 to 32 characters"),
    (LEAST.replace('"usb:0"', '" "'), 3, "transport: this has to be a Bluetooth controller"),
    (LEAST.replace("line = 17", ""), 6, "relay.line: this is missing"),
    (LEAST.replace("17", "-1"), 8, "relay.line: this has to be the number of a line"),
    (LEAST.replace("17", "true"), 8, "relay.line: this has to be the number of a line"),
    (LEAST.replace('"gpio"', '"gpoi"'), 7, 'relay.kind: this has to be "gpio", or "memory"'),
    (LEAST + 'active_low = "no"', 9, "relay.active_low: this has to be true or false"),
    (LEAST + 'chip = "gpiochip0"', 9, "relay.chip: this has to be a device"),
    (LEAST + "[pulse]\nlongest = 11", 10, "pulse.longest: this has to be 0.5 to 10 seconds"),
    (LEAST + "[pulse]\nshortest = true", 10, "pulse.shortest: this has to be 0.5 to 10 seconds"),
    (LEAST + "[pulse]\nlongest = 2\nshortest = 3", 11, "pulse.shortest: the shortest pulse is longer than the longest"),
    (LEAST + '[contact]\nline = 4\npull = "left"', 11, 'contact.pull: this has to be one of "up", "down", "none"'),
    (LEAST + "[contact]\nline = 17", 10, "contact.line: this line is taken by [relay]"),
    ("relay = 3\n" + LEAST.partition("[relay]")[0], 1, "relay: this has to be a table: [relay]"),
    (LEAST.replace("\n[relay]", "simulated_inputs = true\n[relay]") + "[button]\nline = 3", 5, "remove one of the two"),
]


@pytest.mark.parametrize("text, line, said", WRONG, ids=[row[2].partition(" ")[0] + f"-{row[1]}" for row in WRONG])
def test_a_mistake_is_named_with_its_line(text, line, said):
    with pytest.raises(ConfigError) as error:
        parse_config(text, FILE)
    assert str(error.value).startswith(f"{FILE}, line {line}: ")
    assert said in str(error.value)


def test_a_file_of_another_kind_is_no_configuration(tmp_path):
    (tmp_path / "strike.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(tmp_path / "strike.toml")
