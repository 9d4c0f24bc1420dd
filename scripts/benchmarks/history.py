"""G9, G10 and G19: what years of history cost: an unlock, the memory, and whoever verifies the journal.

The journals are on a disk and small enough for the kernel to keep them in memory, so that what is compared is work,
not the disk's reading. What is compared is done in turns in one process; memory is that of processes of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.source import open_journal
from tests.simulated import Site
from vestibule_core import evidence
from vestibule_core.audit import verify
from vestibule_core.history import RECENT, RECENT_TEXTS, History
from vestibule_core.model import Code
from vestibule_core.schema import look

from . import old_journal
from .table import Row

ROUNDS: Final = 5
UNLOCKS: Final = 200
"""Unlocks of a round at each of the two controllers."""
DOORS: Final = 1000
PROCESSES: Final = 5
NEWEST: Final = 50


# ---- G9 ----


def accepts() -> list[Row]:
    """G9: an accepted token at a controller with years behind it / at a new one."""
    with old_journal.folder() as folder:
        copyfile(old_journal.of_two_million(), Path(folder) / "old.db")
        os.sync()
        return asyncio.run(_accepts(Path(folder)))


async def _accepts(folder: Path) -> list[Row]:
    waited, cpu = [], []
    doors = len(old_journal.DOORS)
    async with Site(folder / "new.db", doors=doors) as new, Site(folder / "old.db", doors=doors) as old:
        for _ in range(ROUNDS):
            costs: dict[Site, list[tuple[int, int]]] = {new: [], old: []}
            for _ in range(UNLOCKS):
                for site in (new, old):
                    costs[site].append(await _unlock(site))
            of_new, of_old = ([statistics.median(one) for one in zip(*costs[site], strict=True)] for site in (new, old))
            waited.append(of_old[0] / of_new[0])
            cpu.append(of_old[1] / of_new[1])
        assert old.journal.sequence == 2 * old_journal.MILLION + new.journal.sequence
    what = "with 10^6 spent tokens and 2*10^6 entries / with none"
    return [
        Row("G9", f"lone accepted unlock {what}, CPU until its outcome is recorded", statistics.median(cpu), 1.15),
        Row("G9", "the same, time until the decision (waits for the disk's sync)", statistics.median(waited), 1.15),
    ]


async def _unlock(site: Site) -> tuple[int, int]:
    """Return nanoseconds until the decision, and of the process's CPU until the outcome is recorded as well."""
    text = site.token()
    began, used = time.perf_counter_ns(), time.process_time_ns()
    decision = await site.controller.present(text, site.carrier.principal)
    decided = time.perf_counter_ns()
    await site.controller.recorded()
    used = time.process_time_ns() - used
    assert decision.code is Code.GRANTED, decision
    return decided - began, used


# ---- G10 ----


def memory() -> list[Row]:
    """G10: what a process has in memory for each token that was spent, and for each door."""
    with old_journal.folder() as folder:
        new, old = Path(folder) / "new.db", Path(folder) / "old.db"
        copyfile(old_journal.of_two_million(), old)
        kinds = {"new": (new, 1), "old": (old, 1), "doors": (new, 1 + DOORS)}
        rounds = [{kind: _weigh(*arguments) for kind, arguments in kinds.items()} for _ in range(PROCESSES)]
        in_use = {kind: statistics.median(weights[kind] for weights in rounds) for kind in kinds}
        traced = _weigh(old, 1, "traced") - _weigh(new, 1, "traced")
    return [
        Row("G10", "memory of a controller for each of 10^6 spent tokens in its journal, bytes",
            (in_use["old"] - in_use["new"]) / old_journal.MILLION, 60),
        Row("G10", f"of that, for each of the newest {RECENT} spends, which are remembered, bytes",
            traced / RECENT, None),
        Row("G10", f"besides, for each of the newest {RECENT_TEXTS} spent texts, bytes", _weight_of_a_text(), None),
        Row("G10", "memory of a controller for each door at rest, its simulated strike included, kB",
            (in_use["doors"] - in_use["new"]) / DOORS / 1000, 12),
    ]  # fmt: skip


def _weigh(path: Path, doors: int, how: str = "in_use") -> int:
    """Return bytes of a fresh process that has a controller with so many doors."""
    command = [sys.executable, "-m", "scripts.benchmarks.weigh", str(path), str(doors), how]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _weight_of_a_text() -> float:
    texts = (old_journal.CARRIER.token("n" * 22) for _ in range(RECENT_TEXTS))
    history = History()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for text in texts:
        history.texts.add(text)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / RECENT_TEXTS


# ---- G19 ----


def verification() -> list[Row]:
    """G19: verifying a journal / hashing its entries one after the other; the newest entries of a door."""
    path = old_journal.of_a_million()
    ratios = []
    for _ in range(ROUNDS):
        least = _cpu(lambda: _chain(path))
        ratios.append(_cpu(lambda: _verify(path)) / least)
    return [
        Row(
            "G19",
            "verify a journal of 10^6 entries / a bare SHA-256 chain over them, CPU",
            statistics.median(ratios),
            3,
        ),
        Row("G19", f"newest {NEWEST} entries of a door, of 2*10^6 at 100 doors / raw Ed25519 verify", _newest(), 15),
    ]


def _verify(path: Path) -> None:
    """Do what ``vestibule-gateway journal verify`` does."""
    with open_journal(path) as source:
        verdict = verify(source.header, source.runs())
        assert source.damage is None
        assert verdict.holds
        assert verdict.entries == old_journal.MILLION


def _chain(path: Path) -> None:
    """Do the least that shows whether entries were changed: a hash over each and the hash before it."""
    value = bytes(32)
    with look(path) as db:
        for (entry,) in db.execute("SELECT bytes FROM leaf ORDER BY seq"):
            value = hashlib.sha256(value + entry).digest()


def _cpu(work: Callable[[], None]) -> int:
    began = time.process_time_ns()
    work()
    return time.process_time_ns() - began


def _newest() -> float:
    private, message = Ed25519PrivateKey.generate(), os.urandom(600)
    public, signature = private.public_key(), private.sign(message)
    clock, rounds = time.perf_counter_ns, []
    with look(old_journal.of_two_million()) as db:
        for _ in range(ROUNDS):
            reading, verifying = [], []
            for door in old_journal.DOORS * 2:
                start = clock()
                public.verify(signature, message)
                middle = clock()
                entries = evidence.read_newest(db, door.id, NEWEST, trusts_index=True)
                reading.append(clock() - middle)
                verifying.append(middle - start)
                assert len(entries) == NEWEST
            rounds.append(statistics.median(reading) / statistics.median(verifying))
    return statistics.median(rounds)
