"""The demo as a stranger uses it: started by its script, played to from another terminal, ended by Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.demo_home.delivery import read_relays_log
from scripts.demo_home.home import REPOSITORY, answers, free_port

from .conftest import all_logs

pytestmark = pytest.mark.timeout(240)
DEMO = str(REPOSITORY / "scripts" / "demo")
READY = 150.0


@dataclass
class Running:
    """A demo that runs in "another terminal"."""

    folder: Path
    process: subprocess.Popen[bytes]
    expected: Counter[str] = field(default_factory=Counter)
    """How often each relay has to have released by now."""

    @property
    def printed(self) -> str:
        return self.folder.with_name("printed").read_text("utf-8")

    def deliver(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [DEMO, "--folder", str(self.folder), "deliver", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def released(self) -> Counter[str]:
        return Counter(key for _, key in read_relays_log(self.folder / "config" / "relays.log"))


def start(folder: Path, port: int) -> Running:
    with folder.with_name("printed").open("wb") as printed:
        command = [DEMO, "--folder", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
    running = Running(folder, process)
    deadline = time.monotonic() + READY
    while "Ctrl-C ends it." not in running.printed:
        if process.poll() is not None or time.monotonic() > deadline:
            end(running)
            pytest.fail(running.printed)
        time.sleep(0.1)
    return running


def end(running: Running) -> int:
    """Press Ctrl-C."""
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
    return running.process.wait(60)


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that has the folder in its command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (command := entry.read_bytes()):
                found[int(entry.parent.name)] = command.replace(b"\0", b" ").decode()
    return found


def home_assistant_of(folder: Path) -> int | None:
    return next((pid for pid, command in processes_of(folder).items() if "bare_hass" in command), None)


def sockets_of(process: int) -> set[tuple[str, str]]:
    """The kind and the local address of each internet socket that a process holds, as the kernel writes it."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir() if entry.is_symlink()]
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in links:
                found.add((kind, fields[1].split(":")[0]))
    return found


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Running]:
    running = start(place, free_port())
    yield running
    end(running)


def test_the_first_start_shows_where_and_how_to_sign_in(demo: Running) -> None:
    kept = json.loads((demo.folder / "demo.json").read_text())
    assert f"http://127.0.0.1:{kept['port']}" in demo.printed
    assert re.search(rf"password +{kept['password']}\n", demo.printed)
    assert "Home Assistant 2026.10.4 is running" in demo.printed


def test_the_printed_commands_name_the_folder_and_work_from_anywhere(demo: Running, tmp_path: Path) -> None:
    (printed,) = re.findall(r"^  scripts/demo (.* deliver gate) +a driver delivers", demo.printed, re.MULTILINE)
    assert shlex.split(printed) == ["--folder", str(demo.folder), "deliver", "gate"]
    relative = os.path.relpath(demo.folder, tmp_path)
    command = [DEMO, "--folder", relative, "deliver", "gate"]
    played = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert played.returncode == 0, played.stdout + played.stderr
    demo.expected["gate"] += 1
    assert demo.released() == demo.expected


def test_it_is_on_loopback_only(demo: Running) -> None:
    process = home_assistant_of(demo.folder)
    assert process is not None
    assert {address for _, address in sockets_of(process)} == {"0100007F"}  # 127.0.0.1


def test_what_is_secret_is_readable_by_its_owner_only(demo: Running) -> None:
    secrets = [
        demo.folder / "demo.json",
        *(demo.folder / "swift").iterdir(),
        *(demo.folder / "phone").iterdir(),
    ]
    assert len(secrets) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE(demo.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("door", ["gate", "lobby", "parcel-room"])
def test_a_delivery_opens_its_door_once(demo: Running, door: str) -> None:
    played = demo.deliver(door)
    assert played.returncode == 0, played.stdout + played.stderr
    assert "opened once and locked itself" in played.stdout
    demo.expected[door] += 1
    assert demo.released() == demo.expected


@pytest.mark.parametrize(
    "option, opens, told",
    [
        ("--replay", 1, "already used"),
        ("--forged", 0, "invalid token"),
        ("--wrong-door", 0, "no door of this building"),
        ("--too-far", 0, "outside the building's own limits (distance)"),
    ],
)
def test_a_refusal_is_shown_and_moves_nothing(demo: Running, option: str, opens: int, told: str) -> None:
    played = demo.deliver("gate", option)
    assert played.returncode == 0, played.stdout + played.stderr
    assert told in played.stdout
    demo.expected["gate"] += opens
    assert demo.released() == demo.expected


def test_a_second_demo_in_the_same_folder_says_that_there_is_one(demo: Running) -> None:
    command = [DEMO, "--folder", str(demo.folder)]
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "is running already, at http://127.0.0.1:" in second.stderr


def test_ctrl_c_leaves_nothing_behind_and_a_second_start_goes_on(demo: Running) -> None:
    port = json.loads((demo.folder / "demo.json").read_text())["port"]
    assert end(demo) == 0
    again_with = f"scripts/demo --folder {shlex.quote(str(demo.folder))}"
    assert f"Stopped. The demo is kept; start it again with: {again_with}\n" in demo.printed
    assert not answers(port)
    assert processes_of(demo.folder) == {}

    again = start(demo.folder, port)
    try:
        assert json.loads((demo.folder / "demo.json").read_text())["password"] in again.printed
        assert again.deliver("gate").returncode == 0
        demo.expected["gate"] += 1
        assert again.released() == demo.expected
    finally:
        assert end(again) == 0
    assert processes_of(demo.folder) == {}

    stopped = again.deliver("gate")
    assert stopped.returncode == 1
    assert "The demo is not running" in stopped.stderr
    assert stopped.stderr.endswith(f"{again_with}\n")

    kept = json.loads((demo.folder / "demo.json").read_text())
    logs = all_logs(demo.folder / "config")
    assert kept["password"] not in logs
    assert kept["refresh_token"] not in logs
    assert (demo.folder / "swift" / "intake-key").read_text() not in logs
    assert "eyJ" not in logs  # how every token of this kind begins
    assert " ERROR " not in logs, logs


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen([DEMO, "--folder", str(folder), "--port", str(free_port())], start_new_session=True)
    deadline = time.monotonic() + 60
    while home_assistant_of(folder) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert processes_of(folder) == {}


def test_a_folder_that_is_no_demo_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    command = [DEMO, "--fresh", "--folder", str(tmp_path)]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "left alone" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_the_help_is_a_page_that_needs_nothing_installed() -> None:
    shown = subprocess.run(
        ["/bin/bash", DEMO, "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert "scripts/demo deliver DOOR" in shown.stdout
    for option in ("--fresh", "--port", "--folder", "--replay", "--forged", "--wrong-door", "--too-far"):
        assert option in shown.stdout
