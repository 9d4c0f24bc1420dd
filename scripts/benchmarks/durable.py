"""G6 and G8: what a spend costs the disk, and that it holds against races and kills.

The processes, the strike and the shim that counts syncs are the tests' own (tests/core/crash_process.py).
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from tests.core.crash_process import ROOT, Processes
from tests.simulated import Site, pulses_in

from .table import Row

KILLS = 200
TOKENS = 100
CALLERS = 200
UNLOCKS = 25


def syncs_of_an_unlock() -> list[Row]:
    """G6: syncs from the presentation of a token to the command at the strike, the most of many unlocks."""
    if (compiler := shutil.which("cc")) is None:
        raise SystemExit("G6 counts syncs with a small C library: please install a C compiler (cc).")
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "fsync_shim.so"
        source = ROOT / "tests" / "core" / "fsync_shim.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        processes = Processes(preload=shim)
        lone = [
            line["syncs"]
            for number in range(UNLOCKS)
            for line in processes.run("unlock", folder=folder, number=number).said
            if line.get("point") == "told"
        ]
        with_copies = processes.run("unlocks_with_copies", folder=folder, count=UNLOCKS)["syncs"]
        processes.close()
    return [
        Row("G6", f"syncs before the strike command, most of {UNLOCKS} lone unlocks", max(lone), 1),
        Row("G6", f"the same, with the log copied back in between, most of {UNLOCKS}", max(with_copies), 1),
    ]


def races_and_kills() -> list[Row]:
    """G8: strikes for each token under concurrent presentations; strikes and records under SIGKILL."""
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_race(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        return rows + _kills(Path(folder))


async def _race(folder: Path) -> list[Row]:
    async with Site(folder / "journal.db") as site:
        for _ in range(TOKENS):
            text = site.token()
            await asyncio.gather(*(site.present(text) for _ in range(CALLERS)))
        strikes = Counter(pulse.spend_id for pulse in site.strike.pulses)
    what = f"strikes for one token presented by {CALLERS} callers at once"
    return [
        Row("G8", f"{what}, most of {TOKENS} tokens", max(strikes.values()), 1),
        Row("G8", f"{what}, tokens that opened", len(strikes), TOKENS, at_least=True),
    ]


def _kills(folder: Path) -> list[Row]:
    chance, processes = random.Random(KILLS), Processes()  # noqa: S311 - the same moments in each run
    tokens: list[str] = []
    moved_at_start = 0
    for number in range(KILLS):
        report = processes.run("unlock_for_ever", folder=folder, number=number, kill_after=chance.uniform(0, 0.03))
        tokens += report.all("token")
        again = processes.run("replay", folder=folder, tokens=report.all("token")[-3:])
        moved_at_start += again["moved_at_start"]
    records = len(processes.run("replay", folder=folder, tokens=tokens)["spent"])
    processes.close()
    pulses = pulses_in(folder / "pulses")
    under = f"{KILLS} SIGKILLs, {len(tokens)} tokens, each presented again after the kill"
    return [
        Row("G8", f"{under}: strikes for one token, most", max(Counter(pulses).values()), 1),
        Row("G8", f"{under}: strikes / durable records", len(pulses) / records, 1),
        Row("G8", f"{under}: strikes at start", moved_at_start, 0),
    ]
