"""What the gateway's documents say is so."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway import commands, limits, log, stream
from vestibule_core import intake

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


def test_the_limits_that_the_guide_names_are_the_programs():
    guide = (DOCS / "gateway.md").read_text("utf-8")
    _, _, section = guide.partition("## Under load, and under attack")
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|", section.partition("\n## ")[0], re.MULTILINE))
    for what, numbers in {
        "connections, all": [limits.CONNECTIONS],
        "connections of one address": [limits.OF_ONE_ADDRESS, limits.STRANGERS],
        "new connections from an address that no client has come from": [limits.ARRIVALS],
        "requests without a known bearer, of one address": [limits.STRANGER_BURST, limits.STRANGER_PER_SECOND],
        "requests of a client": [limits.CLIENT_BURST, limits.CLIENT_PER_SECOND],
        "tokens of all carriers; of one": [intake.PER_SECOND, intake.OF_ONE],
        "texts that are no genuine tokens, of one client for one carrier, or on one link": [intake.FAILURES],
        "changes of the policy or of clients, by one client": [limits.CHANGE_BURST, limits.CHANGE_AGAIN],
        "streams": [stream.STREAMS, stream.OF_ONE_CLIENT, stream.QUEUE],
        "lines of log": [log.OF_A_KIND, log.OF_ALL, log.OF_ALL_PER_SECOND],
    }.items():
        named = [int(number) for number in re.findall(r"\b[0-9]+\b", rows[what])]
        assert named == [int(number) for number in numbers], what
