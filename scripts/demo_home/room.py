"""The demo's parcel room: a relay board in a process of its own, and the gateway beside it in another.

Nothing of this is hardware: the board is relay_board.py, which the gateway reaches over real Modbus-TCP on 127.0.0.1.
The gateway is the one that runs on a small computer beside a door (docs/gateway.md), with that board in its
configuration; Home Assistant is paired with it by the code that its command shows. A driver stands at the door and goes
through it when it is released. What this file refuses to do: reach the gateway in any other way than whoever looks
after it does (its configuration, its commands, the signals of systemd), announce it on any network, and be needed:
without pymodbus, the demo's parcel room has a relay.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from . import hardware
from .hardware import OPENS_AFTER, PASSES_IN, TURN
from .home import HOST, REPOSITORY, HomeFailed, free_port, postponed, uninterrupted, write_private

PACKAGES: Final = ("pymodbus",)
RELAY: Final = 1
"""The board's relay that releases the door; its contact is the input of the same number."""

_CONFIGURATION: Final = """\
# Written anew at every start of the demo.
name = "Parcel room gateway"
state = "state"
time_zone = "UTC"

[listen]
host = "{host}"
port = {port}
announce = false

[board.parcel]
kind = "modbus"
host = "{host}"
port = {board}
inputs = 8

[door.parcel-room]
name = "Parcel room"
access_time = {access_time}
relay = {{ board = "parcel", channel = {relay} }}
contact = {{ board = "parcel", input = {relay} }}
held_open_time = {held_open}
pre_alarm_time = {pre_alarm}
latitude = {latitude}
longitude = {longitude}
"""


class NoGateway(HomeFailed):
    """The gateway, or its board, cannot be had here."""


@dataclass
class Room:
    """The board and the gateway, in a folder of their own. Use it in a `with`; both begin in there.

    Verbs: ``pull_open``, ``fall_shut``; ``stop`` (SIGTERM), ``kill`` (SIGKILL) and ``start`` the gateway.
    """

    folder: Path
    access_time: int = 5
    """Seconds."""
    held_open: float = 30.0
    """Seconds that the door may stand open. A third of that before, it is warned of."""
    latitude: float = 0.0
    longitude: float = 0.0
    """Where the door is, in degrees: what carriers' clouds measure drivers' positions by."""
    more: str = ""
    """What else is in the gateway's configuration."""
    port: int = 0
    """Where the gateway listens: chosen at the first start and kept, because Home Assistant knows it."""
    reached_at: int = 0
    """Where Home Assistant is told that it listens; 0: where it does."""
    _board: subprocess.Popen[str] | None = field(default=None, repr=False)
    _gateway: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _window: subprocess.Popen[str] | None = field(default=None, repr=False)
    _driver: threading.Thread | None = field(default=None, repr=False)
    _ending: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        """Start both. Raises NoGateway where that cannot be done."""
        if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
            raise NoGateway(f"this needs {', '.join(missing)}. Get it with: scripts/setup")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            board = self._start_board()
            kept = self.folder / "port"
            if not kept.exists():
                write_private(kept, str(free_port()))
            self.port = int(kept.read_text("ascii"))
            configuration = _CONFIGURATION.format(
                host=HOST,
                port=self.port,
                board=board,
                access_time=self.access_time,
                relay=RELAY,
                held_open=self.held_open,
                pre_alarm=round(self.held_open / 3, 1),
                latitude=self.latitude,
                longitude=self.longitude,
            )
            self.config.write_text(configuration + self.more, "utf-8")
            self.start()
        except BaseException:
            with uninterrupted():
                self.end()
            raise
        self._driver = threading.Thread(target=self._drive, name="driver at the parcel room", daemon=True)
        self._driver.start()
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self.end()

    def end(self) -> None:
        """End all processes: the gateway first, so that it leaves the board with every door locked."""
        self._ending.set()
        if self._driver is not None:
            self._driver.join()
        for process in (self._window, self._gateway, self._board):
            hardware.end(process)
        self._window = self._gateway = self._board = self._driver = None

    # ---- the processes ----

    @property
    def config(self) -> Path:
        """The gateway's configuration."""
        return self.folder / "gateway.toml"

    @property
    def state(self) -> Path:
        """The gateway's state folder."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """Everything that the gateway ever logged, from start to start."""
        return self.folder / "gateway.log"

    def _start_board(self) -> int:
        """Start the board, with the door closed; return where it listens."""
        command = [sys.executable, "-m", "scripts.demo_home.relay_board", "--log", os.fspath(self.folder / "board.log")]
        with (
            hardware.switches(self.folder) as switches,
            postponed(),
            (self.folder / "board-errors.log").open("ab") as errors,
        ):
            self._board = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=switches,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._board.stdout is not None
        match self._board.stdout.readline().split():
            case ["ready", port]:
                return int(port)
        raise NoGateway(f"the relay board did not start; {self.folder / 'board-errors.log'} says why.")

    def _command(self, name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "gateway", name, "--config", os.fspath(self.config), *more]

    def start(self) -> None:
        """Start the gateway; return when it is ready. Raises NoGateway."""
        said = self._said()
        with postponed(), self.log.open("ab") as log:
            self._gateway = subprocess.Popen(
                self._command("run"),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        if not hardware.wait(lambda: "info ready " in self._said()[len(said) :], self._gateway):
            raise NoGateway(f"the gateway did not start; {self.log} says why.")

    @property
    def process(self) -> int | None:
        """The id of the gateway's process while it runs."""
        return None if self._gateway is None or self._gateway.poll() is not None else self._gateway.pid

    def stop(self) -> None:
        """End the gateway as systemd does."""
        hardware.end(self._gateway)

    def kill(self) -> None:
        """Kill the gateway. The board has power still."""
        assert self._gateway is not None
        self._gateway.kill()
        self._gateway.wait()

    def _said(self) -> str:
        return self.log.read_text("utf-8") if self.log.exists() else ""

    # ---- whoever looks after the gateway ----

    def pairing_code(self, *, trusting: bool = True) -> str:
        """Open the pairing window and return the code that is shown. Raises NoGateway.

        ``trusting``: what whoever is paired asks for, holds at once, also if it is more.
        """
        hardware.end(self._window)
        with postponed():
            self._window = subprocess.Popen(
                self._command("pair", *(["--trust"] if trusting else [])),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        assert self._window.stdout is not None
        match (line := self._window.stdout.readline()).split():
            case ["code", code]:
                return code
        raise NoGateway(f"the gateway does not want to be paired: {line}{self._window.stdout.read()}")

    def status(self) -> str:
        """Return what the gateway's command says of it. Raises NoGateway."""
        shown = subprocess.run(self._command("status"), cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if shown.returncode:
            raise NoGateway(shown.stderr.strip())
        return shown.stdout

    def wait_until_allowed(self, carrier: str) -> None:
        """Wait until Home Assistant has told the gateway of a carrier. Raises NoGateway."""
        assert self._gateway is not None

        def is_allowed() -> bool:
            return any(line.startswith("policy ") and carrier in line for line in self.status().splitlines())

        if not hardware.wait(is_allowed, self._gateway):
            raise NoGateway(f"the gateway was not told of {carrier}.")

    def link(self, code: str) -> None:
        """Link the gateway to a carrier's cloud by an enrolment code, and say that it is the right one."""
        ran = subprocess.run(
            self._command("carrier", "add", code),
            cwd=REPOSITORY,
            input="yes\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise NoGateway(f"the gateway was not linked: {ran.stderr.strip()}")

    # ---- whoever stands at the door ----

    def pull_open(self) -> None:
        """Open the door."""
        hardware.sense(self.folder, _OPENED)

    def fall_shut(self) -> None:
        """Close the door."""
        hardware.sense(self.folder, _CLOSED)

    def _drive(self) -> None:
        """Be the driver."""
        seen = len(releases(self.folder))
        while not self._ending.wait(TURN):
            for _ in releases(self.folder)[seen:]:
                seen += 1
                threading.Thread(target=self._pass, daemon=True).start()

    def _pass(self) -> None:
        for seconds, step in (OPENS_AFTER, self.pull_open), (PASSES_IN, self.fall_shut):
            if self._ending.wait(seconds):
                return
            with contextlib.suppress(OSError):
                step()


_OPENED: Final = f"input {RELAY} on"
_CLOSED: Final = f"input {RELAY} off"


def pass_through(folder: Path) -> None:
    """Open the door, and let it fall shut in a while. Raises NoGateway if the board has no power."""
    try:
        hardware.pass_through(folder, _OPENED, _CLOSED)
    except OSError as err:
        raise NoGateway("The relay board of the parcel room has no power.") from err


def moves(folder: Path) -> list[tuple[datetime, str]]:
    """Return what the board's relay of the door did, in order: when, and on or off."""
    log = folder / "board.log"
    if not log.exists():
        return []
    whole, _, _ = log.read_text("ascii").rpartition("\n")
    lines = map(str.split, whole.splitlines())
    return [(datetime.fromisoformat(at).astimezone(UTC), word) for at, _, relay, word in lines if relay == str(RELAY)]


def releases(folder: Path) -> list[datetime]:
    """Return each release of the door, from the board's own log."""
    return [at for at, word in moves(folder) if word == "on"]
