"""The daemon's log: one line for each thing that happened, as ``level event key=value`` or as JSON.

What it refuses to do: let a text from outside begin a line of its own. No secret, token or name of a person is ever
given to it; what is given to it is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from enum import StrEnum
from typing import Any, Final, override

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


def start(kind: LogFormat) -> None:
    """Log to standard error from now on."""
    to = logging.StreamHandler(sys.stderr)
    to.setFormatter(JsonFormat() if kind is LogFormat.JSON else TextFormat())
    logging.basicConfig(level=logging.INFO, handlers=[to], force=True)
    for name in ("aiohttp.access", "bleak", "pymodbus", "zeroconf"):  # chatty, and not for whoever looks after a door
        logging.getLogger(name).setLevel(logging.WARNING)
