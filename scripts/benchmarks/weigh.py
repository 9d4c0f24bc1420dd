"""A process of its own that starts a controller and says what it has in memory; run by history.py.

``in_use`` is what the kernel counts as the process's own memory, SQLite's cache included; ``traced`` is what Python
allocated since the controller began to start.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from pathlib import Path

from tests.simulated import Site


async def weigh(path: Path, doors: int, how: str) -> int:
    """Return bytes."""
    if how == "traced":
        tracemalloc.start()
    async with Site(path, doors=doors):
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if how == "traced" else _in_use()


def _in_use() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


if __name__ == "__main__":
    print(asyncio.run(weigh(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
