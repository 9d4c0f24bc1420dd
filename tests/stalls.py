"""A plugin that stalls every event loop now and then, as a busy machine does: ``python -m pytest -p tests.stalls ...``.

It finds tests, and code, that take for granted what comes first. One in fifty turns of a loop takes up to 60 ms longer.
"""

import asyncio.base_events
import random
import time

SHARE = 0.02
LONGEST = 0.06
"""Seconds."""

_chance = random.SystemRandom()  # a test may seed the usual one
_sleep, _turn = time.sleep, asyncio.base_events.BaseEventLoop._run_once  # type: ignore[attr-defined]


def _stalled_turn(loop: asyncio.base_events.BaseEventLoop) -> None:
    if _chance.random() < SHARE:
        _sleep(_chance.uniform(0, LONGEST))
    _turn(loop)


asyncio.base_events.BaseEventLoop._run_once = _stalled_turn  # type: ignore[attr-defined]
