"""What was accepted before, as far as decisions need it: spends, their texts, and how many within the hour.

Filled by the journal's writer, just where a spend is written, so that two tokens in one commit count each other; read
from any thread. The journal itself stays the judge of what is spent: what is forgotten here is found there.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import Final

from .model import DoorId, Issuer

RECENT: Final = 10_000
"""Spends that are remembered; older ones are found by the journal's primary key."""
RECENT_TEXTS: Final = 1000
"""Spent texts whose digests are remembered (A.2 step 1b). An older one is refused after its signature."""
HOUR: Final = 3600.0


class Texts:
    """Which texts were presented, and none of them: a driver who was deleted must not be left in here."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._digests: dict[int, bytes] = {}
        """The digest of each text by Python's own hash of it, which costs a twentieth: only a text that has been seen
        before is hashed twice. Two texts with the same one (nobody can choose it) replace each other, and the journal
        knows both."""

    def __contains__(self, text: object) -> bool:
        """Return whether this very text was remembered."""
        digest = self._digests.get(hash(text))
        return digest is not None and isinstance(text, str) and digest == sha256(text.encode()).digest()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._digests)

    def add(self, text: str) -> None:
        """Remember a text, and forget the one that was added first if there are too many."""
        _put(self._digests, hash(text), sha256(text.encode()).digest(), RECENT_TEXTS)


class History:
    """The memory of one controller."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.spent: dict[tuple[Issuer, str], None] = {}
        self.texts = Texts()
        self._accepted: dict[tuple[Issuer, DoorId], deque[float]] = {}

    def remember(self, spend_key: tuple[Issuer, str], text: str | None = None) -> None:
        """Remember a spend, and the text of it."""
        _put(self.spent, spend_key, None, RECENT)
        if text is not None:
            self.texts.add(text)

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


def _put[K, V](memory: dict[K, V], item: K, value: V, most: int) -> None:
    memory[item] = value
    if len(memory) > most:
        del memory[next(iter(memory))]
