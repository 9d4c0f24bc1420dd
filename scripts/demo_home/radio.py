"""The demo's gate: a Bluetooth strike in a process of its own, on a virtual radio in another.

Nothing of this is Bluetooth hardware: the radio listens on 127.0.0.1 only. The strike is the one that runs on a
Raspberry Pi (docs/strike.md), with a file in place of a relay. A driver stands at the gate and goes through it when it
is released. What this file refuses to do: reach the strike in any other way than a person at its box could (its label,
its button, its switches and the power), and be needed: without the packages that a radio takes, the demo's gate has a
relay.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from . import hardware
from .hardware import OPENS_AFTER, PASSES_IN, TURN
from .home import HOST, REPOSITORY, HomeFailed, postponed, uninterrupted

PACKAGES: Final = ("bumble", "segno", "noise", "bleak", "bleak_retry_connector", "habluetooth", "aiousbwatcher")
_BOOTED: Final = time.time() - time.monotonic()

_CONFIGURATION: Final = """\
# Written anew at every start of the demo.
name = "Gate"
transport = "{transport}"
state = "state"
simulated_inputs = true

[relay]
kind = "memory"
log = "relay.log"
"""


class NoRadio(HomeFailed):
    """There is no virtual radio to be had here."""


@dataclass
class Gate:
    """The radio and the strike, in a folder of their own. Use it in a `with`; it begins in there.

    Verbs: ``hold_button``, ``pull_open``, ``fall_shut``, ``cut_power`` (SIGKILL), ``power_up``.
    """

    folder: Path
    hears: str = ""
    """Where Home Assistant's adapter is on the radio, in Bumble's words."""
    _radio: subprocess.Popen[str] | None = field(default=None, repr=False)
    _strike: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _driver: threading.Thread | None = field(default=None, repr=False)
    _ending: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        """Start both. Raises NoRadio where that cannot be done."""
        if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
            raise NoRadio(f"These packages are missing: {', '.join(missing)}.")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            ports = self._start_radio()
            self.hears = ports["courtyard"]
            configuration = _CONFIGURATION.format(transport=ports["strike"])
            (self.folder / "strike.toml").write_text(configuration, "utf-8")
            self.power_up()
        except BaseException:
            with uninterrupted():
                self.end()
            raise
        self._driver = threading.Thread(target=self._drive, name="driver at the gate", daemon=True)
        self._driver.start()
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self.end()

    def end(self) -> None:
        """End both processes."""
        self._ending.set()
        if self._driver is not None:
            self._driver.join()
        hardware.end(self._strike)
        hardware.end(self._radio)
        self._strike = self._radio = self._driver = None

    # ---- the processes ----

    def _start_radio(self) -> dict[str, str]:
        command = [sys.executable, "-m", "tests.radio.hub", "strike=0", "courtyard=0"]
        with postponed(), (self.folder / "radio.log").open("ab") as log:
            self._radio = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._radio.stdout is not None
        ports: dict[str, str] = {}
        for line in self._radio.stdout:
            if line == "ready\n":
                return ports
            name, transport = line.split()
            if not transport.startswith(f"tcp-client:{HOST}:"):
                break
            ports[name] = transport
        raise NoRadio(f"The virtual radio did not start; {self.folder / 'radio.log'} says why.")

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "gateway", "strike", "--config", os.fspath(self.folder / "strike.toml")]

    def power_up(self, *, contact: str = "closed") -> None:
        """Start the strike at a gate that is closed, or open; return when it is on the air. Raises NoRadio."""
        said = self._said()
        with hardware.switches(self.folder) as switches:
            with postponed(), (self.folder / "strike.log").open("ab") as log:
                self._strike = subprocess.Popen(
                    self._command,
                    cwd=REPOSITORY,
                    stdin=switches,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
            for what in (f"contact {contact}", "cover closed", "bolt secured"):
                self._sense(what)
            self._wait_until(lambda: "INFO ready" in self._said()[len(said) :], "did not start")

    def cut_power(self) -> None:
        """Kill the strike."""
        assert self._strike is not None
        self._strike.kill()
        self._strike.wait()

    def _said(self) -> str:
        log = self.folder / "strike.log"
        return log.read_text("utf-8") if log.exists() else ""

    def _wait_until(self, true: Callable[[], bool], what: str) -> None:
        assert self._strike is not None
        if not hardware.wait(true, self._strike):
            raise NoRadio(f"The strike {what}; {self.folder / 'strike.log'} says why.")

    # ---- whoever stands at the box ----

    @property
    def code(self) -> str:
        """The code on the label, read off it."""
        shown = subprocess.run([*self._command, "--label"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if (found := re.search(r"^code +(\S.*?) *$", shown.stdout, re.MULTILINE)) is None:
            raise NoRadio(f"The strike does not show its label: {shown.stderr}")
        return found[1]

    def hold_button(self) -> None:
        """Hold it for three seconds: a controller can be paired from now on, for a while."""
        assert self._strike is not None
        said = self._said()
        self._strike.send_signal(signal.SIGUSR1)
        self._wait_until(lambda: "INFO pairing open" in self._said()[len(said) :], "does not want to be paired")

    def pull_open(self) -> None:
        """Open the gate."""
        self._sense("contact open")

    def fall_shut(self) -> None:
        """Close the gate."""
        self._sense("contact closed")

    def _sense(self, what: str) -> None:
        hardware.sense(self.folder, what)

    def _drive(self) -> None:
        """Be the bolt's switch, and the driver."""
        seen = len(moves(self.folder))
        while not self._ending.wait(TURN):
            for word, _ in moves(self.folder)[seen:]:
                seen += 1
                with contextlib.suppress(OSError):  # nobody has power
                    self._sense("bolt open" if word == "on" else "bolt secured")
                if word == "on":
                    threading.Thread(target=self._pass, daemon=True).start()

    def _pass(self) -> None:
        strike = self._strike
        for seconds, step in (OPENS_AFTER, self.pull_open), (PASSES_IN, self.fall_shut):
            if self._ending.wait(seconds) or self._strike is not strike:
                return  # or the power was cut meanwhile: somebody else's story
            with contextlib.suppress(OSError):
                step()


def pass_through(folder: Path) -> None:
    """Open the gate, and let it fall shut in a while. Raises NoRadio if the strike has no power."""
    try:
        hardware.pass_through(folder, "contact open", "contact closed")
    except OSError as err:
        raise NoRadio("The strike at the gate has no power.") from err


def moves(folder: Path) -> list[tuple[str, float]]:
    """Return what the strike's relay did, in order: on or off, and when on the monotonic clock."""
    log = folder / "relay.log"
    if not log.exists():
        return []
    whole, _, _ = log.read_text("ascii").rpartition("\n")
    return [(word, float(at)) for word, at in map(str.split, whole.splitlines())]


def releases(folder: Path) -> list[datetime]:
    """Return each release of the strike's bolt, from its relay's own log."""
    return [datetime.fromtimestamp(_BOOTED + at, UTC) for word, at in moves(folder) if word == "on"]
