"""What the gateway's documents say is so."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway import commands

DOCS = Path(__file__).parent.parent.parent / "docs"
UNIT = DOCS / "vestibule-gateway.service"


def test_every_command_is_in_the_guide():
    subcommands = argparse.ArgumentParser().add_subparsers()
    commands.add_commands(subcommands)
    guide = (DOCS / "gateway.md").read_text("utf-8")
    for name in subcommands.choices:
        assert re.search(rf"^\| `{name}[` ]", guide, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_the_unit_is_one_that_systemd_understands_and_finds_closed(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    looked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, timeout=30
    )
    exposure = re.search(r"Overall exposure level for \S+ ([0-9.]+)", looked.stdout)
    assert exposure is not None, looked.stderr
    assert float(exposure[1]) < 2


def test_the_unit_waits_for_what_the_program_says():
    text = UNIT.read_text()
    assert "Type=notify" in text
    assert re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)
