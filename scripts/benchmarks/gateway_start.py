"""G15: how soon a gateway with years of history is ready, next to Home Assistant.

Both are started in turns, as they are: the gateway by its command, on a journal of 2*10^6 entries and 10^6 spent
tokens; a Home Assistant of its own without Vestibule.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from typing import Final

from tests.gateway.process import GatewayProcess, write_config
from vestibule_core.erasure import SPENDS_KEPT

from . import old_journal
from .live import Site
from .table import Row

ROUNDS: Final = 5


def readiness() -> list[Row]:
    """G15: seconds until the gateway is ready / until Home Assistant has started."""
    with old_journal.folder() as folder:
        config = write_config(Path(folder))
        asyncio.run(_start(config))  # makes its keys
        spent = _let_grow_old(Path(folder) / "state" / "journal.db")
        asyncio.run(_start(config))  # takes out what has had its time
        home = Site(Path(folder) / "home", 0)
        ours, theirs = [], []
        for round_ in range(ROUNDS + 1):
            began = time.monotonic()
            home.home.start()
            if not round_:  # the first start makes the registries
                home.home.onboard("Manager", "manager", "a password that nobody needs")
            home.home.wait_until_started()
            theirs.append(time.monotonic() - began)
            if not round_:
                time.sleep(12)  # the registries are written ten seconds after a change
            home.home.stop()
            ours.append(asyncio.run(_start(config)))
        with closing(sqlite3.connect(Path(folder) / "state" / "journal.db")) as db:
            assert db.execute("SELECT count(*) FROM spent").fetchone() == (spent,)
            (entries,) = db.execute("SELECT count(*) FROM leaf").fetchone()
    assert spent >= old_journal.MILLION <= entries
    ratio = statistics.median(one / other for one, other in zip(ours[1:], theirs[1:], strict=True))
    what = "gateway with 10^6 spent tokens and 2*10^6 entries, start until ready / start of Home Assistant"
    return [
        Row("G15", what, ratio, 0.25),
        Row("G15", "the same, seconds of the gateway", statistics.median(ours[1:]), None),
    ]


async def _start(config: Path) -> float:
    began = time.monotonic()
    gateway = await GatewayProcess.start(config)
    took = time.monotonic() - began
    await gateway.stop()
    return took


def _let_grow_old(journal: Path) -> int:
    """Put a journal of two million entries in the place of a new one; return how many tokens were spent in it.

    They were spent within the time for which they are remembered: else half of them would be taken out.
    """
    for part in journal.parent.glob("journal.db*"):
        part.unlink()
    copyfile(old_journal.of_two_million(), journal)
    with closing(sqlite3.connect(journal)) as db, db:
        (newest, oldest, count) = db.execute("SELECT max(at), min(at), count(*) FROM spent").fetchone()
        shrink = 0.9 * SPENDS_KEPT / (newest - oldest)
        if shrink < 1:
            db.execute("UPDATE spent SET at = ? - (? - at) * ?", (newest, newest, shrink))
    return int(count)
