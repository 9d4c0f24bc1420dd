"""A replica of a carrier's cloud as a process of its own, to be killed (test_killed.py).

    python -m tests.carrier.cloud_process DATABASE FOLDER POINT

It asks for the door of the town in FOLDER, and at POINT it is gone, as by a power cut. The building is in the same
process, with its journal and a strike whose log survives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from carrier.decide import decide
from carrier.store import Store, database_url
from vestibule_core.keys import SigningKey

from .town import Town


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _die() -> None:
    die()


class _DyingKey(SigningKey):
    def sign(self, message: bytes) -> bytes:
        die()
        raise AssertionError


class _DyingRing:
    def __init__(self, key: SigningKey) -> None:
        self._key = _DyingKey(key.private)

    async def signer(self, kid: str) -> SigningKey:
        return self._key


async def main(database: str, folder: Path, point: str) -> None:
    store = Store(database_url(database))
    town = await Town.again(store, folder)
    if point == "signing":
        town.desk = replace(town.desk, keyring=_DyingRing(town.carrier.key))
    else:
        setattr(town.link, point, _die)
    async with town.site:
        await decide(town.desk, town.asked())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
