"""One row of the table of goals, and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A goal, what was measured for it, the figure, and the limit (None: told for comparison)."""

    goal: str
    what: str
    value: float
    limit: float | None
    at_least: bool = False

    def __str__(self) -> str:
        """Return the row in Markdown."""
        figure = f"{self.value:.2f}" if isinstance(self.value, float) else f"{self.value}"
        if self.limit is None:
            return f"| {self.goal} | {self.what} | {figure} | | |"
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        sign = ">=" if self.at_least else "<="
        return f"| {self.goal} | {self.what} | {figure} | {sign} {self.limit:g} | {'yes' if met else '**no**'} |"


def machine() -> str:
    """Return what the figures came from, in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of a virtual machine ({model}), Linux, Python {platform.python_version()}, "
        f"{ssl.OPENSSL_VERSION}, SQLite {sqlite3.sqlite_version}"
    )
