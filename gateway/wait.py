"""Waiting: what would allow more holds after the gateway's button, or after a day (protocol C).

A day of boot time: no clock that somebody can set makes it shorter. What has been waited is noted now and then, so that
a restart makes it a little longer and never shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0
"""Seconds that what would allow more has to wait."""
NOTED_EVERY: Final = 600.0
"""Seconds of waiting that a restart may lose."""
LOOK_EVERY: Final = 60.0
"""Seconds after which it is looked whether something has waited for long enough."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long something has waited: ``noted`` seconds until ``since``, which is seconds of boot time."""

    noted: float
    since: float

    def so_far(self, now: float) -> float:
        """Return the seconds that it has waited."""
        return self.noted + max(0.0, now - self.since)

    def left(self, now: float) -> int:
        """Return the whole seconds that are left; 0: it is over."""
        return math.ceil(max(0.0, DAY - self.so_far(now)))
