"""What the demo's pieces of hardware have in common: each is a process, with a pipe for what its switches say.

A driver stands at each door and goes through it when it is released; a stranger goes through unasked.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

OPENS_AFTER: Final = 0.8
"""Seconds from a release until the driver has pulled the door open."""
PASSES_IN: Final = 1.5
"""Seconds in which whoever opened it is through and it has fallen shut."""
PATIENCE: Final = 30.0
"""Seconds for a process to begin."""
END: Final = 5.0
"""Seconds for a process to end when it is asked to."""
TURN: Final = 0.05
"""Seconds between two looks."""


@contextlib.contextmanager
def switches(folder: Path) -> Iterator[int]:
    """Open the reading end of the pipe in a folder, made when it is first asked for, for a process to begin with."""
    inputs = folder / "inputs"
    if not inputs.exists():
        os.mkfifo(inputs, 0o600)
    # Open for both: no end of the input, whoever has it open.
    reading = os.open(inputs, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield reading
    finally:
        os.close(reading)


def sense(folder: Path, what: str) -> None:
    """Let a switch of the hardware in a folder say something. Raises OSError if it has no power."""
    inputs = os.open(folder / "inputs", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(inputs, f"{what}\n".encode())
    finally:
        os.close(inputs)


def pass_through(folder: Path, opened: str, closed: str) -> None:
    """Open a door, and let it fall shut in a while; in its contact's words. Raises OSError if it has no power."""
    sense(folder, opened)

    def fall_shut() -> None:
        with contextlib.suppress(OSError):
            sense(folder, closed)

    threading.Timer(PASSES_IN, fall_shut).start()


def end(process: subprocess.Popen[Any] | None) -> None:
    """End a process as a shutdown would, and wait for it."""
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def wait(true: Callable[[], bool], process: subprocess.Popen[Any]) -> bool:
    """Return whether it is so within a while; at once if the process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(TURN)
    return True
