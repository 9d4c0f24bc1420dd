"""What all that answers a request shares: the desk that decides, the links, the page's address, the work in progress.

What it refuses to do: drop a decision because the program ends; that waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from .decide import Desk
from .passkeys import Party
from .store import Store
from .ways import Ways


class Cloud:
    """A carrier's cloud, as one program serves it. Belongs to one event loop."""

    def __init__(self, desk: Desk, party: Party, ways: Ways, *, typed_positions: bool = False) -> None:
        """Decide at ``desk``, and take links. ``typed_positions``: those that a person typed are taken, and marked; for
        tests only.
        """
        self.desk, self.party, self.ways, self.typed_positions = desk, party, ways, typed_positions
        self.followers = 0
        """Programs that follow the decisions."""
        self.ending = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()

    @property
    def store(self) -> Store:
        """The database."""
        return self.desk.store

    def now(self) -> datetime:
        """Return what time it is."""
        return self.desk.clock()

    def buildings_connected(self) -> int:
        """Return how many controllers hold a link to this replica."""
        return len(self.ways.links)

    def work(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something to its end, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(doing)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    @contextmanager
    def following(self) -> Iterator[None]:
        """Count somebody who follows the decisions."""
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1

    async def until_ending(self, seconds: float) -> None:
        """Wait so long, or until the program ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ending.wait()

    async def end(self) -> None:
        """Let what is in progress come to its end."""
        self.ending.set()
        await asyncio.gather(*self._work, return_exceptions=True)
