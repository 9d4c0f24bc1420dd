"""The intake: how much a carrier's callers may ask for, before anything is verified (A.2 step 0).

One cap for all, and one for each source that counts only texts which were no genuine token: whoever has a good token
never pays, and no flood from elsewhere can use up what a source has left. Burns nothing: who is refused asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from .bucket import Bucket, Buckets
from .model import Code, Decision, Issuer

PER_SECOND: Final = 100.0
"""Requests of all carriers together."""
OF_ONE: Final = 50.0
"""Requests a second of one carrier: it cannot use up what is there for all."""
FAILURES: Final = 20.0
"""Texts that are no genuine tokens, in a row, of one source."""
FAILURES_PER_SECOND: Final = 1.0
SOURCES: Final = 1000
"""That are remembered."""


class Intake:
    """Counts for one building. Belongs to one event loop."""

    def __init__(self) -> None:
        """Begin with everything allowed."""
        self._all: Bucket | None = None
        self._of_one: Buckets[Issuer] = Buckets(per_second=OF_ONE, burst=OF_ONE, most=SOURCES)
        self._failures: Buckets[str] = Buckets(per_second=FAILURES_PER_SECOND, burst=FAILURES, most=SOURCES)

    async def judge(
        self, issuer: Issuer, source: str, now: float, present: Callable[[], Awaitable[Decision]]
    ) -> Decision:
        """Return what ``present`` decides on a text of ``source``, which pays for it; RATE_LIMITED if it has to wait.

        ``now`` is seconds of boot time.
        """
        if (code := self.admit(issuer, source, now)) is not None:
            return Decision(code)
        decision = await present()
        self.charge(source, decision, now)
        return decision

    def admit(self, issuer: Issuer, source: str, now: float) -> Code | None:
        """Return RATE_LIMITED if ``source``, of ``issuer``, has to wait, None if it may ask.

        ``now`` is seconds of boot time.
        """
        if not self._failures.has(source, now) or not self._of_one.take(issuer, now):
            return Code.RATE_LIMITED
        if self._all is None:
            self._all = Bucket(PER_SECOND, PER_SECOND, PER_SECOND, now)
        return None if self._all.take(now) else Code.RATE_LIMITED

    def charge(self, source: str, decision: Decision, now: float) -> None:
        """Let ``source`` pay for what came of its request."""
        if decision.code.is_charged:
            self._failures.take(source, now)
