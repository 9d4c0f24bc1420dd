"""Token buckets, by key and bounded: how often something may happen.

Not a decision of its own and no clock: whoever asks says what time it is (seconds of boot time).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Holds ``burst`` at the most and gains ``per_second``."""

    per_second: float
    burst: float
    level: float
    at: float

    def left(self, now: float) -> float:
        """Return what is in it at ``now``."""
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.per_second)
        self.at = now
        return self.level

    def take(self, now: float) -> bool:
        """Take one; return False if there is none."""
        if self.left(now) < 1:
            return False
        self.level -= 1
        return True


class Buckets[K: Hashable]:
    """A bucket for each key; the keys that were used longest ago are forgotten, as if they were full again."""

    def __init__(self, *, per_second: float, burst: float, most: int) -> None:
        """Keep ``most`` keys."""
        self._per_second, self._burst, self._most = per_second, burst, most
        self._by_key: dict[K, Bucket] = {}

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._by_key)

    def has(self, key: K, now: float) -> bool:
        """Return whether there is one to take."""
        bucket = self._by_key.get(key)
        return bucket is None or bucket.left(now) >= 1

    def take(self, key: K, now: float) -> bool:
        """Take one; return False if there is none."""
        bucket = self._by_key.pop(key, None) or Bucket(self._per_second, self._burst, self._burst, now)
        self._by_key[key] = bucket  # the newest, last
        if len(self._by_key) > self._most:
            del self._by_key[next(iter(self._by_key))]
        return bucket.take(now)

    def forget(self, which: Callable[[K], bool]) -> None:
        """Forget the keys of which ``which`` says so, as if they were full again."""
        for key in [key for key in self._by_key if which(key)]:
            del self._by_key[key]

    def give_back(self, key: K) -> None:
        """Give back what was taken last."""
        if (bucket := self._by_key.get(key)) is not None:
            bucket.level = min(bucket.burst, bucket.level + 1)
