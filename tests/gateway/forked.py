"""Gateways as children of one process that has everything imported: each is there in milliseconds, and can be killed.

``Forks`` is the tests' side. A child is the command ``vestibule-gateway run`` on a configuration of its own; every sync
of it may be made to take longer, as on an SD card.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gateway.app  # noqa: F401 - so that no child has to import it
from gateway.__main__ import main as command

ROOT = Path(__file__).parent.parent.parent

# ---- the tests' side ------------------------------------------------------------------------------------------------


def make_shim(folder: Path) -> Path | None:
    """Compile tests/core/fsync_shim.c into ``folder``; None: there is no C compiler."""
    if (compiler := shutil.which("cc")) is None:
        return None
    shim, source = folder / "fsync_shim.so", ROOT / "tests" / "core" / "fsync_shim.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def _environment(preload: Path | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return environment if preload is None else environment | {"LD_PRELOAD": str(preload)}


def syncs_of_unlocks(folder: Path, shim: Path, count: int) -> list[int]:
    """Return, for each of ``count`` lone unlocks, the syncs from the request to the relay's command (counted.py)."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.gateway.counted", folder, str(count)],
        cwd=ROOT,
        env=_environment(shim),
        check=True,
        stdout=subprocess.PIPE,
    )
    return list(json.loads(ran.stdout))


class Forked:
    """A gateway at work."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self._forks, self.pid = forks, pid
        self._has_ended = False

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._end(signal.SIGKILL) == -signal.SIGKILL

    def stop(self) -> None:
        """End it as systemd does."""
        assert self._end(signal.SIGTERM) == 0

    def end(self) -> None:
        """End it if it has not ended yet."""
        if not self._has_ended:
            self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        os.kill(self.pid, how)
        status = self._forks.ask(reap=self.pid)
        self._has_ended = True
        return int(status)

    @property
    def cpu(self) -> int:
        """Nanoseconds of CPU that it has had so far, with all its threads."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads)


class Forks:
    """Starts gateways. ``preload``: what ``make_shim`` made; without it no sync takes longer."""

    def __init__(self, preload: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.forked"],
            cwd=ROOT,
            env=_environment(preload),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    async def start(self, config: Path, *, sync_delay: float = 0.0, prepare: str | None = None) -> Forked:
        """Start one and return when it is ready; what it says is in ``output.log`` beside its configuration.

        ``sync_delay``: seconds that each sync takes besides. ``prepare``: a function that the child calls before it is
        a gateway, as ``module:name``.
        """
        notify = config.parent / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            notify.unlink(missing_ok=True)
            told.bind(str(notify))
            told.setblocking(False)
            pid = self.ask(run=str(config), delay=round(sync_delay * 1e6), prepare=prepare)
            try:
                async with asyncio.timeout(60):
                    assert await asyncio.get_running_loop().sock_recv(told, 100) == b"READY=1"
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError((config.parent / "output.log").read_text()) from None
        return Forked(self, pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


# ---- the other side -------------------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG = 1


def _child(order: dict[str, Any]) -> None:
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left behind
    folder = Path(order["run"]).parent
    output = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["NOTIFY_SOCKET"] = str(folder / "notify")
    if order["delay"]:
        library.shim_delay(order["delay"])
    if order["prepare"] is not None:
        module, _, name = order["prepare"].partition(":")
        getattr(importlib.import_module(module), name)()
    status = 70
    with contextlib.suppress(SystemExit):
        status = command(["run", "--config", order["run"]])
    os._exit(status)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            _, status = os.waitpid(order["reap"], 0)
            answer = os.waitstatus_to_exitcode(status)
        elif (answer := os.fork()) == 0:
            _child(order)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
