"""Messages cut to what one radio packet carries, and put together again (protocol B.1).

A fragment is a header byte and data: FIRST, LAST and a sequence number that starts at 0 with each message; after FIRST
stands the message's length. The reassembler forgives nothing: whatever `cut` would not have made is a Violation, after
which the link is closed, and it never holds more than one message of at most 512 bytes.
"""

from __future__ import annotations

from typing import Final

from .wire import MAX_MESSAGE, Violation

FIRST: Final = 0x80
LAST: Final = 0x40
_SEQ: Final = 0x3F

SMALLEST: Final = 20
"""Bytes of a fragment at the smallest ATT_MTU, 23."""
GAP: Final = 2.0
"""Seconds between two fragments of one message."""


def cut(message: bytes, size: int) -> tuple[bytes, ...]:
    """Return ``message`` as fragments of at most ``size`` bytes, which is ATT_MTU - 3 and at least SMALLEST.

    A client writes the last one with response, all others without.
    """
    if size < SMALLEST or not 1 <= len(message) <= MAX_MESSAGE:
        raise ValueError("no such message or fragment")
    framed = len(message).to_bytes(2) + message
    pieces = [framed[start : start + size - 1] for start in range(0, len(framed), size - 1)]
    flags = [FIRST, *[0] * (len(pieces) - 1)]
    flags[-1] |= LAST
    return tuple(bytes([flag | seq]) + piece for seq, (flag, piece) in enumerate(zip(flags, pieces, strict=True)))


class Reassembler:
    """The fragments of one direction of one link."""

    def __init__(self) -> None:
        """Wait for a FIRST."""
        self.due: float | None = None
        """When the next fragment is too late, in the caller's monotonic seconds; None: none is missing."""
        self._total = 0
        self._seq = 0
        self._so_far = b""

    def feed(self, fragment: bytes, now: float) -> bytes | None:
        """Return the message that this fragment completes, if it does; raise Violation."""
        self.elapse(now)
        if not fragment:
            raise Violation("an empty fragment")
        header, piece = fragment[0], fragment[1:]
        if header & FIRST:
            if self.due is not None:
                raise Violation("a second FIRST")
            self._total, self._seq, self._so_far, piece = int.from_bytes(piece[:2]), 0, b"", piece[2:]
            if not 1 <= self._total <= MAX_MESSAGE:
                raise Violation("a message of an impossible length")
        elif self.due is None:
            raise Violation("no FIRST")
        if header & _SEQ != self._seq & _SEQ:
            raise Violation("a fragment is missing")
        if not piece:
            raise Violation("a fragment without data")
        self._so_far += piece
        self._seq += 1
        if len(self._so_far) > self._total or bool(header & LAST) != (len(self._so_far) == self._total):
            raise Violation("LAST is not where the message ends")
        if not header & LAST:
            self.due = now + GAP
            return None
        self.due = None
        return self._so_far

    def elapse(self, now: float) -> None:
        """Raise Violation if a fragment is overdue."""
        if self.due is not None and now >= self.due:
            raise Violation("a fragment is overdue")
