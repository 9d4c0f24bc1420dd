"""A gateway in a process of its own, with a relay board in memory whose movements are read from its log."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp

from scripts.demo_home.home import free_port
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient, Paired
from vestibule_core.errors import NotPaired, PairingFailed

TOML = """
name = "Parcel room"
state = "state"

[listen]
host = "127.0.0.1"
port = {port}
announce = {announce}

[board.b]
kind = "memory"
log = "relay.log"

[door.gate]
name = "Gate"
access_time = 0.5
relay = {{ board = "b", channel = 1 }}

[door.yard]
name = "Yard"
access_time = 0.5
relay = {{ board = "b", channel = 2 }}
"""


def write_config(folder: Path, more: str = "", *, announce: bool = False) -> Path:
    """Write the configuration of a gateway at a free port of the loopback interface."""
    path = folder / "gateway.toml"
    path.write_text(TOML.format(port=free_port(), announce="true" if announce else "false") + more)
    return path


PROGRAM = [sys.executable, "-m", "gateway"]


class Command:
    """``vestibule-gateway`` with some arguments."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    @classmethod
    async def start(cls, *arguments: object, env: dict[str, str] | None = None) -> Self:
        return cls(
            await asyncio.create_subprocess_exec(
                *PROGRAM,
                *map(str, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=os.environ | (env or {}),
            )
        )

    @staticmethod
    def line(*arguments: object) -> str:
        """Return what a shell would be told."""
        return shlex.join([*PROGRAM, *map(str, arguments)])

    async def until(self, word: str) -> str:
        """Return the line in which ``word`` is said."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                self.said += line
                if word in line:
                    return line
        raise AssertionError(f"{word!r} was not said: {self.said}")

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    async def ends(self) -> int:
        """Return the exit status; everything that was said is in ``said``."""
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(30):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()


async def command(*arguments: object) -> tuple[int, str]:
    """Return how a command ended, and what it said."""
    started = await Command.start(*arguments)
    return await started.ends(), started.said


class GatewayProcess:
    """A gateway at work."""

    def __init__(self, config: Path, running: Command) -> None:
        self.config, self.running = config, running
        self.relay_log = config.parent / "relay.log"
        line = next(line for line in config.read_text().splitlines() if line.startswith("port = "))
        self.port = int(line.removeprefix("port = "))

    @classmethod
    async def start(cls, config: Path, env: dict[str, str] | None = None) -> Self:
        """Start one and return when it is ready."""
        running = await Command.start("run", "--config", config, env=env)
        gateway = cls(config, running)
        await running.until("info ready ")
        return gateway

    @property
    def movements(self) -> list[str]:
        """What the relays did, each as ``CHANNEL on`` or ``CHANNEL off``."""
        return [line.rpartition(" ")[0] for line in self.relay_log.read_text().splitlines()]

    async def moved(self, movement: str, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.movements.count(movement) < times:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)

    async def command(self, name: str, *arguments: str) -> tuple[int, str]:
        """Return how a command of this gateway ended, and what it said."""
        return await command(name, "--config", self.config, *arguments)

    async def pair(self, session: aiohttp.ClientSession, *how: str, name: str = "Home Assistant") -> Paired:
        """Pair as a client does, with the code that the command shows."""
        window = await Command.start("pair", "--config", self.config, *how)
        code = (await window.until("code")).split()[-1]
        while True:
            try:
                paired = await client.pair(session, "127.0.0.1", self.port, code, name)
                break
            except PairingFailed as err:  # it takes one attempt a second
                if err.reason is not NotPaired.BUSY:
                    raise
                await asyncio.sleep(0.2)
        assert await window.ends() == 0, window.said
        assert f"paired      {name} ({paired.client_id})" in window.said
        return paired

    def client(self, session: aiohttp.ClientSession, paired: Paired) -> GatewayClient:
        return GatewayClient(session, "127.0.0.1", self.port, paired.token, [paired.fingerprint])

    async def stop(self) -> None:
        """End it as systemd does."""
        self.running.process.send_signal(signal.SIGTERM)
        assert await self.running.ends() == 0, self.running.said

    async def kill(self) -> None:
        """End it as a power cut does."""
        self.running.process.kill()
        await self.running.ends()


@asynccontextmanager
async def gateway_process(config: Path, env: dict[str, str] | None = None) -> AsyncGenerator[GatewayProcess]:
    """A gateway in a process of its own, which is stopped at the end if it still runs."""
    gateway = await GatewayProcess.start(config, env)
    try:
        yield gateway
    finally:
        if gateway.running.process.returncode is None:
            await gateway.stop()


@asynccontextmanager
async def network() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session
