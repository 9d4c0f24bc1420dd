"""What was accepted before, as far as decisions need it: spends, their texts, and how many within the hour.

Filled by the journal's writer, just where a spend is written, so that two tokens in one commit count each other; read
from any thread. The journal itself stays the judge of what is spent: what is forgotten here is found there.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from .model import DoorId, Issuer

RECENT: Final = 10_000
"""Spends that are remembered; older ones are found by the journal's primary key."""
RECENT_TEXTS: Final = 1000
"""Spent texts that are remembered (A.2 step 1b), 700 bytes each. An older one is refused after its signature."""
HOUR: Final = 3600.0


class History:
    """The memory of one controller."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.spent: dict[tuple[Issuer, str], None] = {}
        self.texts: dict[str, None] = {}
        self._accepted: dict[tuple[Issuer, DoorId], deque[float]] = {}

    def remember(self, spend_key: tuple[Issuer, str], text: str | None = None) -> None:
        """Remember a spend, and the text of it."""
        _put(self.spent, spend_key, RECENT)
        if text is not None:
            self.remember_text(text)

    def remember_text(self, text: str) -> None:
        """Remember a text that is spent."""
        _put(self.texts, text, RECENT_TEXTS)

    def count(self, issuer: Issuer, door: DoorId, boot: float) -> None:
        """Count an accepted token; ``boot`` is seconds of boot time."""
        times = self._accepted.setdefault((issuer, door), deque())
        while times and times[0] <= boot - HOUR:
            times.popleft()
        times.append(boot)

    def accepted(self, issuer: Issuer, door: DoorId, boot: float) -> int:
        """Return how many tokens of ``issuer`` this door accepted within the hour before ``boot``."""
        times = self._accepted.get((issuer, door))
        return sum(at > boot - HOUR for at in tuple(times)) if times else 0


def _put[K](memory: dict[K, None], item: K, most: int) -> None:
    memory[item] = None
    if len(memory) > most:
        del memory[next(iter(memory))]
