"""A replica of a carrier's cloud that takes links, as a process of its own, to be killed (test_replicas.py).

    python -m tests.carrier.replica_process DATABASE FOLDER WHERE POINT

It serves the town in FOLDER, whose links are for WHERE, and says its port. A line on standard input lets it ask for the
door. At POINT it is gone, as by a power cut.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from carrier.connection import Connection
from carrier.decide import Answer
from carrier.store import Store, database_url

from .cloud_process import die
from .linked import Replica
from .town import Town


@dataclass
class Elsewhere:
    """The wire, which another process holds."""

    where: str

    def lead_to(self, replica: Replica) -> None:
        print(replica.port, flush=True)


def arm(replica: Replica, point: str) -> None:
    """Be gone at a point between signing and outcome: of what this replica asks, or of what it passes on."""
    ways, passing = replica.ways, Connection.unlock

    async def unlock(*_: object) -> Answer:
        die()
        raise AssertionError

    async def asked(challenge, text):
        await type(ways).unlock(ways, challenge, text)
        die()

    async def passed(connection, text):
        await passing(connection, text)
        die()

    match point:
        case "signed":
            ways.unlock = unlock
        case "answered":
            ways.unlock = asked
        case "handed":
            Connection.unlock = unlock
        case "passed":
            Connection.unlock = passed


async def main(database: str, folder: Path, where: str, point: str) -> None:
    town = await Town.again(Store(database_url(database)), folder)
    replica = Replica(town, Elsewhere(where))
    arm(replica, point)
    async with replica:
        await asyncio.to_thread(sys.stdin.readline)
        await replica.ask()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
