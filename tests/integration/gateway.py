"""A gateway in a process of its own, as Home Assistant meets it: on loopback, with relays in memory.

Home Assistant and the gateway share bytes and nothing else: no module of the gateway is imported here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Self

from scripts.demo_home.home import free_port

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
"""The gateway's own environment, whichever Home Assistant is tested."""

TOML = """
name = "Parcel room gateway"
state = "state"

[listen]
host = "127.0.0.1"
port = {port}
announce = false

[board.b]
kind = "memory"
log = "relay.log"

[door.parcel-room]
name = "Parcel room"
access_time = 0.5
relay = {{ board = "b", channel = 1 }}
contact = {{ board = "b", input = 1 }}
"""

YARD = """
[door.yard]
name = "Yard"
access_time = 0.5
relay = { board = "b", channel = 2 }
"""


class Gateway:
    """A gateway at work, or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "gateway.toml"
        self.write(YARD)
        self._running: asyncio.subprocess.Process | None = None

    def write(self, *more: str) -> None:
        """Be configured with these tables besides."""
        self.config.write_text(TOML.format(port=self.port) + "".join(more))

    async def start(self) -> Self:
        self._running = await self._command("run")
        await self._until(self._running, " ready ")
        return self

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._running is not None and self._running.returncode is None:
            self._running.send_signal(how)
            await self._running.communicate()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._running is not None
        self._running.send_signal(number)

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    async def code(self, *how: str) -> str:
        """Open the pairing window and return the code that is shown."""
        window = await self._command("pair", *how)
        line = await self._until(window, "code")
        self._windows = [*getattr(self, "_windows", []), window]
        return line.split()[-1]

    async def close(self) -> None:
        """End everything."""
        await self.stop()
        for window in getattr(self, "_windows", []):
            if window.returncode is None:
                window.terminate()
            await window.communicate()

    async def command(self, name: str, *more: str) -> str:
        command = await self._command(name, *more)
        said, _ = await command.communicate()
        assert command.returncode == 0, said.decode()
        return said.decode()

    async def fill(self, entries: int, seconds_ago: float) -> None:
        """Have so many entries more in its journal, from so long ago on; it does not run."""
        filling = await asyncio.create_subprocess_exec(
            *(str(PYTHON), "-m", "tests.gateway.filled", str(self.config), str(entries), str(seconds_ago)), cwd=ROOT
        )
        assert await filling.wait() == 0

    @property
    def movements(self) -> list[str]:
        """What the relays did, each as ``CHANNEL on`` or ``CHANNEL off``."""
        log = self.folder / "relay.log"
        return [line.rpartition(" ")[0] for line in log.read_text().splitlines()] if log.exists() else []

    async def _command(self, name: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(str(PYTHON), "-m", "gateway", name, "--config", str(self.config), *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    async def _until(self, command: asyncio.subprocess.Process, word: str) -> str:
        assert command.stdout is not None
        said = ""
        async with asyncio.timeout(30):
            while line := (await command.stdout.readline()).decode():
                said += line
                if word in line:
                    return line
        raise AssertionError(f"{word!r} was not said: {said}")
