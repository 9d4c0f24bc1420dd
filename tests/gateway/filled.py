"""Fills the journal of a gateway that does not run, as so many accesses would have: ``CONFIG COUNT SECONDS_AGO``."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import closing
from pathlib import Path

from gateway.config import read_config
from gateway.state import State, door_id_of, signs_as
from vestibule_core import identity
from vestibule_core.journal import Journal
from vestibule_core.model import AccessEvent, Code, EventName, Means

ACCESS = (
    (EventName.ACCESS_GRANTED, Code.GRANTED, Means.MANUAL),
    (EventName.DOOR_RELEASED, Code.GRANTED, Means.MANUAL),
    (EventName.ACCESS_TAKEN, None, None),
    (EventName.DOOR_CLOSED, None, None),
    (EventName.DOOR_RELOCKED, None, None),
)


async def fill(config: Path, count: int, ago: float) -> None:
    """Write ``count`` entries of the gateway's first door, a tenth of a second apart from ``ago`` seconds ago on."""
    read = read_config(config)
    with closing(State.open(read.state)) as state:
        door = door_id_of(state.id, read.doors[0].key)
        journal = Journal.open(
            state.files.journal, lambda _: identity.keep(state.files.identity, signs_as(state.id), make=False)
        )
        with closing(journal):
            journal.start(lambda _: None)
            began = time.time() - ago
            written = []
            for number in range(count):
                outcome, code, means = ACCESS[number % len(ACCESS)]
                event = AccessEvent(outcome, door, began + number / 10, code, means)
                written.append(journal.append(event))
            await asyncio.gather(*written)


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
