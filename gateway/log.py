"""The daemon's log: one line for each thing that happened, as ``level event key=value`` or as JSON.

What it refuses to do: let a text from outside begin a line of its own, and fill a disk, whatever happens again and
again. No secret, token or name of a person is ever given to it; what is given to it is written, or counted.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, override

from vestibule_core.bucket import Bucket, Buckets

OF_A_KIND: Final = 300
OF_A_KIND_PER_SECOND: Final = 1.0
"""Lines of one kind: of one event, or one sentence of a module."""
OF_ALL: Final = 1500
OF_ALL_PER_SECOND: Final = 5.0
"""Lines of all kinds. Of those that are left out, the next line of their kind tells the number."""
KINDS: Final = 1000
"""That are remembered."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+,%-]+")


class LogFormat(StrEnum):
    """How a line is spelled."""

    TEXT = "text"
    JSON = "json"


def say(logger: logging.Logger, level: int, event: str, **facts: Any) -> None:
    """Log ``event``, a word, with what belongs to it."""
    logger.log(level, event, extra={"facts": facts})  # noqa: G010, RUF100 - the event is a constant of the caller


class _Format(logging.Formatter):
    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts = dict(getattr(record, "facts", {}))
        if not hasattr(record, "facts"):  # of a module that says a sentence
            facts["from"] = record.name
        if (left_out := getattr(record, "left_out", 0)) > 0:
            facts["left_out"] = left_out
        if record.exc_info is not None and record.exc_info[1] is not None:
            facts["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return facts


class TextFormat(_Format):
    """``info ready id=abc doors=3``"""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = (f"{name}={_value(fact)}" for name, fact in self._facts(record).items())
        return " ".join((record.levelname.lower(), _value(record.getMessage()), *facts))


class JsonFormat(_Format):
    """One JSON object for each line, with the time."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        what = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(what | self._facts(record), default=str)


def _value(fact: object) -> str:
    text = (
        fact if isinstance(fact, str) else "" if fact is None else f"{fact:g}" if isinstance(fact, float) else str(fact)
    )
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class Enough(logging.Filter):
    """Leaves out what comes too often, and has the next line of its kind say how many there were. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is in seconds, and only goes on."""
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: Buckets[tuple[str, str]] = Buckets(per_second=OF_A_KIND_PER_SECOND, burst=OF_A_KIND, most=KINDS)
        self._all = Bucket(OF_ALL_PER_SECOND, OF_ALL, OF_ALL, clock())
        self._left_out: dict[tuple[str, str], int] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        kind = record.name, str(record.msg)
        with self._lock:
            now = self._clock()
            if not self._kinds.take(kind, now) or not self._all.take(now):
                if kind in self._left_out or len(self._left_out) < KINDS:
                    self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return False
            record.left_out = self._left_out.pop(kind, 0)
        return True


def start(kind: LogFormat) -> None:
    """Log to standard error from now on."""
    to = logging.StreamHandler(sys.stderr)
    to.addFilter(Enough())
    to.setFormatter(JsonFormat() if kind is LogFormat.JSON else TextFormat())
    logging.basicConfig(level=logging.INFO, handlers=[to], force=True)
    # Chatty, and not for whoever looks after a door.
    for name in ("aioesphomeapi", "aiohttp.access", "bleak", "pymodbus", "zeroconf"):
        logging.getLogger(name).setLevel(logging.WARNING)
