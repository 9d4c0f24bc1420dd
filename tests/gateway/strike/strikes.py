"""Strikes on a virtual radio, with verbs: ``Gate`` in this process, ``GateProcess`` in one of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from gateway.strike.air import address_of
from gateway.strike.box import Box, Reached, at_work
from gateway.strike.config import Config, parse_config
from gateway.strike.inputs import SAID
from gateway.strike.label import read_label
from tests.radio.ether import LOOPBACK, Radio
from vestibule_core.doorstrike.pairing import Label

ROOT = Path(__file__).parent.parent.parent.parent

OFTEN = 20.0
"""Milliseconds from advertisement to advertisement, where nobody wants to wait for the true ones."""

CONFIG = """
name = "Gate"
transport = "tcp-client:{host}:{port}"
state = "state"
simulated_inputs = true

[relay]
kind = "memory"
log = "relay.log"

[pulse]
longest = {longest}
"""


def configuration(port: int = 1, longest: float = 0.5) -> str:
    """Return a strike's configuration; a pulse of it is short, whatever is asked for."""
    return CONFIG.format(host=LOOPBACK, port=port, longest=longest)


class OnDisk:
    """What can be seen of a strike without asking it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def label(self) -> Label:
        """What is printed inside of its cover."""
        label = read_label(self.folder / "state")
        assert label is not None
        return label

    @property
    def address(self) -> str:
        return address_of(self.label.strike_id)

    @property
    def moves(self) -> list[tuple[str, float]]:
        """What the relay did, in order: on or off, and when on the monotonic clock."""
        log = self.folder / "relay.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(word, float(at)) for word, at in map(str.split, lines)]

    @property
    def pulses(self) -> int:
        """How often the bolt was released."""
        return [word for word, _ in self.moves].count("on")


class Gate(OnDisk):
    """A strike in this process. Verbs: ``power_up``, ``cut_power``, ``hold_button``, and ``sense`` for its inputs."""

    def __init__(self, radio: Radio, folder: Path, longest: float = 0.5, *, hold: bool = False) -> None:
        super().__init__(folder)
        self.radio = radio
        text = configuration(longest=longest).replace("simulated_inputs = true", "")
        text = text.replace('kind = "memory"', 'kind = "memory"\nhold = true') if hold else text
        self.config: Config = parse_config(text, folder / "strike.toml")
        self.box: Box
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        await self.power_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut_power()

    async def power_up(self) -> None:
        stack = AsyncExitStack()
        self.box = await stack.enter_async_context(at_work(self.config, self._reach))
        self._stack = stack

    async def cut_power(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
            self._stack = None

    @asynccontextmanager
    async def _reach(self, address: str) -> AsyncGenerator[Reached]:
        try:
            yield Reached(self.radio.device("gate", address), asyncio.get_running_loop().create_future())
        finally:
            self.radio.cut_power("gate")

    def sense(self, line: str) -> None:
        """Let an input say something, in the words of simulated inputs."""
        self.box.shell.sensed(SAID[line])

    def hold_button(self) -> None:
        self.sense("button 3")


class GateProcess(OnDisk):
    """A strike in a process of its own, on a port of a radio. Use it in an ``async with``.

    Verbs: ``start``, ``kill`` (SIGKILL), ``stop`` (SIGTERM), ``hold_button`` (a signal), ``sense`` (by standard input).
    ``mortal``: it can be told by ``die_at`` when to kill itself (mortal.py).
    """

    def __init__(self, folder: Path, port: int, *, mortal: bool = False, longest: float = 0.5) -> None:
        super().__init__(folder)
        (folder / "strike.toml").write_text(configuration(port, longest))
        self._module = "tests.gateway.strike.mortal" if mortal else "gateway"
        self.said: list[str] = []
        self.process: Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Power is on; returns when it is on the air."""
        command = [sys.executable, "-m", self._module, "strike", "--config", str(self.folder / "strike.toml")]
        self.said = []
        self.process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stderr=PIPE)
        self._reading = asyncio.create_task(self._read())
        await self.until_said("INFO ready")

    async def until_said(self, begin: str) -> None:
        """Wait for a line of its log."""
        async with asyncio.timeout(20):
            # Not ``until``, which never rests: the process needs a processor to get there.
            while not (self._has_said(begin) or self._reading.done()):  # noqa: ASYNC110 - a line is all it tells by
                await asyncio.sleep(0.005)
        assert self._has_said(begin), self.said

    def _has_said(self, begin: str) -> bool:
        return any(line.startswith(begin) for line in self.said)

    async def gone(self) -> int:
        """Wait for its end; return its status."""
        status = await self.process.wait()
        await self._reading
        self.process._transport.close()  # type: ignore[attr-defined]  # or it is closed with the loop, with a warning
        return status

    async def kill(self) -> None:
        """It dies at once."""
        if self.process.returncode is None:
            self.process.kill()
        await self.gone()

    async def stop(self) -> int:
        """Ask it to end; return its status."""
        self.process.terminate()
        return await self.gone()

    async def hold_button(self) -> None:
        self.process.send_signal(signal.SIGUSR1)
        await self.until_said("INFO pairing open")

    async def sense(self, line: str) -> None:
        """Let an input say something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    def die_at(self, point: int | None) -> None:
        """Let the next unlock end at this point (mortal.py); None: let it live."""
        if point is None:
            (self.folder / "die_at").unlink()
        else:
            (self.folder / "die_at").write_text(str(point))

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode().rstrip())
