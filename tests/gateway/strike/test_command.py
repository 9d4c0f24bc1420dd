"""``vestibule-gateway strike``: what a person sees who types it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from gateway.__main__ import main
from gateway.strike.label import read_label
from tests.radio.ether import Radio

from .strikes import ROOT, configuration


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "strike.toml"
    path.write_text(configuration())
    return path


def test_the_label_is_shown_and_stays(config, capsys):
    assert main(["strike", "--config", str(config), "--label"]) == 0
    first = capsys.readouterr().out
    label = read_label(config.parent / "state")
    assert label is not None
    assert label.grouped in first
    assert main(["strike", "--config", str(config), "--label"]) == 0
    assert capsys.readouterr().out == first


def test_a_mistake_in_the_configuration_is_said_in_one_line(config, capsys):
    config.write_text(config.read_text().replace("longest", "longset"))
    assert main(["strike", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f'vestibule-gateway: {config}, line 12: pulse.longset: this key is not known; the nearest one is "longest"'
    ]


def test_a_configuration_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["strike", "--config", str(tmp_path / "no.toml")]) == 2
    assert "no.toml" in capsys.readouterr().err


def test_no_bluetooth_controller_is_said_and_the_relay_is_off_by_then(config, capsys):
    """What a process that was killed during a pulse has left on does not wait for a radio."""
    assert main(["strike", "--config", str(config)]) == 2
    assert 'there is no Bluetooth controller at "tcp-client:127.0.0.1:1"' in capsys.readouterr().err
    assert (config.parent / "relay.log").read_text().startswith("off ")


async def test_a_check_opens_everything_and_moves_nothing(config, radio: Radio, capsys):
    config.write_text(configuration(await radio.open_port("gate")))
    assert await asyncio.to_thread(main, ["strike", "--config", str(config), "--check"]) == 0
    said = capsys.readouterr().out
    assert "controller  ok" in said
    assert "will be made at the first start" in said
    assert not (config.parent / "state").exists()
    assert not (config.parent / "relay.log").exists()


def test_a_check_names_a_line_that_is_not_there(config, capsys):
    text = config.read_text().replace('"memory"\nlog = "relay.log"', '"gpio"\nchip = "/dev/gpiochip99"\nline = 1')
    config.write_text(text)
    assert main(["strike", "--config", str(config), "--check"]) == 2
    assert "/dev/gpiochip99" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["bumble", "segno"])
def test_without_its_packages_it_says_which_extra_has_them(config, missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from gateway.__main__ import main; sys.exit(main())"
    instead = [] if missing == "bumble" else ["--label"]
    command = [sys.executable, "-c", program, "strike", "--config", str(config), *instead]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "vestibule-gateway[strike]" in done.stderr
