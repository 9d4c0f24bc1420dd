"""Real GPIO lines, by libgpiod's own Python package. Not tried on a machine of this project: there is none with lines.

The only module that knows ``gpiod``, which is imported when a configuration names a line. Requesting an output sets it
to *off* in the same system call, so that no line is ever on by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .config import InputLine, OutputLine, Pull

if TYPE_CHECKING:
    import gpiod

DEBOUNCE: Final = timedelta(milliseconds=20)
_CONSUMER: Final = "vestibule-strike"


class LineError(Exception):
    """A line cannot be had. The text says which, and why."""


@contextmanager
def _named(line: OutputLine | InputLine) -> Iterator[None]:
    """Say which line it was: libgpiod's errors do not."""
    try:
        yield
    except OSError as err:
        raise LineError(f"{line.chip} line {line.line}: {err.strerror}") from err
    except ValueError as err:
        raise LineError(f"{line.chip} has no line {line.line}") from err


def look(line: OutputLine | InputLine) -> None:
    """Return if a line could be had, without touching it; raise LineError."""
    import gpiod

    with _named(line), gpiod.Chip(line.chip) as chip:
        info = chip.get_line_info(line.line)
        if info.used:
            raise LineError(f"{line.chip} line {line.line} is in use by {info.consumer or 'the kernel'}")


class GpioOutput:
    """An output line; off from the moment that it is requested."""

    def __init__(self, line: OutputLine) -> None:
        """Request the line; raise LineError."""
        import gpiod
        from gpiod.line import Direction, Value

        self._line = line.line
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, active_low=line.active_low, output_value=Value.INACTIVE
        )
        with _named(line):
            self._request: gpiod.LineRequest = gpiod.request_lines(line.chip, {line.line: settings}, consumer=_CONSUMER)

    def write(self, on: bool) -> None:
        """Drive the line."""
        from gpiod.line import Value

        self._request.set_value(self._line, Value.ACTIVE if on else Value.INACTIVE)

    def read(self) -> bool:
        """Read the line's level back."""
        return bool(self._request.get_value(self._line))

    def close(self) -> None:
        """Release the line. What it does then is the kernel's choice (docs/strike.md)."""
        self._request.release()


class GpioInputs:
    """Input lines. ``told`` is called with a name and whether its switch is in the state that it is named for."""

    def __init__(self, lines: Mapping[str, InputLine], told: Callable[[str, bool], None]) -> None:
        """Request the lines, one request per line; raise LineError."""
        import gpiod
        from gpiod.line import Bias, Direction, Edge

        pulls = {Pull.UP: Bias.PULL_UP, Pull.DOWN: Bias.PULL_DOWN, Pull.NONE: Bias.DISABLED}
        self._told = told
        self._requests: dict[str, tuple[gpiod.LineRequest, int]] = {}
        for name, line in lines.items():
            settings = gpiod.LineSettings(
                direction=Direction.INPUT,
                edge_detection=Edge.BOTH,
                bias=pulls[line.pull],
                active_low=not line.inverted,  # a switch to ground: closed is low
                debounce_period=DEBOUNCE,
            )
            with _named(line):
                request = gpiod.request_lines(line.chip, {line.line: settings}, consumer=_CONSUMER)
            self._requests[name] = request, line.line

    def start(self, add_reader: Callable[..., object]) -> None:
        """Tell how every switch is, and from then on each change; ``add_reader`` is the event loop's."""
        for name, (request, _) in self._requests.items():
            self._tell(name)
            add_reader(request.fd, self._changed, name)

    def close(self, remove_reader: Callable[[int], object]) -> None:
        """Release the lines."""
        for request, _ in self._requests.values():
            remove_reader(request.fd)
            request.release()

    def _changed(self, name: str) -> None:
        self._requests[name][0].read_edge_events()
        self._tell(name)  # as it is now: of a burst, only where it ended is news

    def _tell(self, name: str) -> None:
        request, line = self._requests[name]
        self._told(name, bool(request.get_value(line)))
