"""A relay board that speaks Modbus over TCP, made of software: relays with timers, inputs, and a power supply.

It behaves as the boards of Waveshare do as far as the gateway depends on it: coils can be read (01) and written (05),
a value written to the coil's address plus 0x0200 switches it on for that many tenths of a second, inputs can be read
(02), anything else is answered with an exception code. It listens on 127.0.0.1 only. It counts what the relays did, not
what they were told. Nothing of the gateway is used in here: it is the other end of the wire.

As a process: ``python -m scripts.demo_home.relay_board --port N --log FILE``. Each movement of a relay is one line of
the log, on the kernel's side before it is confirmed::

    2026-11-23T14:40:01.123456+00:00 5321.004711 1 on

wall time, monotonic seconds, relay, on or off. Lines on standard input are the verbs: ``input 2 on``, ``input 2 off``,
``relay 1 on``, ``relay 1 off``, ``power off``, ``power on``, ``silent``, ``obey``. It ends when told to (SIGTERM).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Final, Self

from .home import free_port

LOOPBACK: Final = "127.0.0.1"
FLASH: Final = 0x0200
ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
_HEADER: Final = struct.Struct(">HHHB")


class RelayBoard:
    """A board. Use it in an ``async with``; ``port`` is where it listens.

    Relays and inputs are counted from 1. Verbs: ``press`` an input, ``operate`` a relay by hand, ``stick`` it,
    ``cut_power`` and ``restore_power`` (which puts every relay off); ``fall_silent``, ``lose_answers``, ``decline``,
    ``garble`` and ``obey`` say how it answers from now on. ``timed`` False: it has no flash-on.
    """

    def __init__(
        self, *, outputs: int = 8, inputs: int = 8, unit: int = 1, timed: bool = True, port: int = 0,
        log: Path | None = None,
    ) -> None:  # fmt: skip
        self.relays = [False] * outputs
        self.inputs = [False] * inputs
        self.frames: list[bytes] = []
        """What it was sent, without the six bytes of transaction, protocol and length."""
        self.movements = [0] * outputs
        """How often each relay was switched on."""
        self.connections = 0
        """How often somebody has connected."""
        self.port = port
        self.flash = FLASH
        self.in_pieces = False
        """Answers arrive byte by byte."""
        self._unit, self._timed = unit, timed
        self._stuck: set[int] = set()
        self._silent = False
        self._answer: Callable[[bytes, bytes], bytes] | None = None
        self._declines: int | None = None
        self._declined: int | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._log = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    async def __aenter__(self) -> Self:
        await self.restore_power()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut_power()
        if self._log is not None:
            os.close(self._log)

    # ---- what can be seen of it ----

    @property
    def is_powered(self) -> bool:
        return self._server is not None

    @property
    def is_connected(self) -> bool:
        return bool(self._links)

    @property
    def writes(self) -> list[bytes]:
        """The frames that wrote something."""
        return [frame for frame in self.frames if frame[1] == 5]

    # ---- verbs ----

    async def restore_power(self) -> None:
        """Power is on: it listens, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port or free_port())
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut_power(self) -> None:
        """Power is off: every relay is, too, and nobody hears anything."""
        for number in range(1, len(self.relays) + 1):
            self._move(number, False)
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for link in self._links:
                link.close()
            await server.wait_closed()

    def hang_up(self) -> None:
        """Close the connections that there are."""
        for link in self._links:
            link.close()

    def press(self, number: int, on: bool = True) -> None:
        """Close the circuit of an input, or open it."""
        self.inputs[number - 1] = on

    def operate(self, number: int, on: bool) -> None:
        """Switch a relay without a word on the wire."""
        self._move(number, on)

    def stick(self, number: int) -> None:
        """Let a relay stay where it is, whatever the board says of it."""
        self._stuck.add(number)

    def fall_silent(self) -> None:
        """Hear nothing, and answer nothing, with the connection up."""
        self._silent = True

    def lose_answers(self) -> None:
        """Do what is written, without an answer. Whoever reads is answered."""
        self._answer = lambda asked, answer: b"" if asked[1] == 5 else answer

    def garble(self, answer: bytes | Callable[[bytes, bytes], bytes]) -> None:
        """Do what is written, and answer this; or what ``answer`` makes of the frames that were sent and are due."""
        self._answer = answer if callable(answer) else lambda *_: answer

    def decline(self, code: int, *, function: int | None = None) -> None:
        """Answer with an exception code, and do nothing; ``function``: only that one's."""
        self._declines, self._declined = code, function

    def obey(self) -> None:
        """Behave again."""
        self._silent, self._answer, self._declines = False, None, None

    # ---- the wire ----

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        self.connections += 1
        try:
            while True:
                transaction, protocol, length, unit = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                if protocol or not 2 <= length <= 254:
                    return
                asked = bytes([unit]) + await reader.readexactly(length - 1)
                if self._silent or unit != self._unit:
                    continue
                self.frames.append(asked)
                if (answer := self._due(asked)) and (frame := self._spoken(asked, answer)):
                    frame = struct.pack(">HHH", transaction, 0, len(frame)) + frame
                    for piece in batched(frame, 1 if self.in_pieces else len(frame), strict=True):
                        writer.write(bytes(piece))
                        await asyncio.sleep(0)
        except asyncio.IncompleteReadError, ConnectionError:
            pass
        finally:
            self._links.discard(writer)
            writer.close()

    def _spoken(self, asked: bytes, answer: bytes) -> bytes:
        return answer if self._answer is None else self._answer(asked, answer)

    def _due(self, asked: bytes) -> bytes:
        """Do what a frame asks for; return the answer to it."""
        unit, function = asked[0], asked[1]
        if self._declines is not None and self._declined in (None, function):
            result: bytes | int = self._declines
        elif function in (1, 2) and len(asked) == 6:
            result = self._read(self.relays if function == 1 else self.inputs, *struct.unpack(">HH", asked[2:]))
        elif function == 5 and len(asked) == 6:
            result = self._write(*struct.unpack(">HH", asked[2:]))
        else:
            result = ILLEGAL_FUNCTION
        if isinstance(result, int):
            return bytes([unit, function | 0x80, result])
        return bytes([unit, function]) + (result or asked[2:])

    def _read(self, bits: list[bool], start: int, count: int) -> bytes | int:
        if not bits:
            return ILLEGAL_FUNCTION
        if not count >= 1 or start + count > len(bits):
            return ILLEGAL_ADDRESS
        return _packed(bits[start : start + count])

    def _write(self, address: int, value: int) -> bytes | int:
        coils = range(len(self.relays))
        if address in coils and value in (0xFF00, 0):
            self._move(address + 1, value != 0)
        elif self._timed and address - self.flash in coils and 1 <= value <= 0x7FFF:
            number = address - self.flash + 1
            self._move(number, True)
            self._timers[number] = asyncio.get_running_loop().call_later(value / 10, self._move, number, False)
        elif address in coils or (self._timed and address - self.flash in coils):
            return ILLEGAL_VALUE
        else:
            return ILLEGAL_ADDRESS
        return b""  # the echo of what was written

    # ---- the relays ----

    def _move(self, number: int, on: bool) -> None:
        if (timer := self._timers.pop(number, None)) is not None:
            timer.cancel()
        if self.relays[number - 1] is on or number in self._stuck:
            return
        self.relays[number - 1] = on
        self.movements[number - 1] += on
        if self._log is not None:
            line = f"{datetime.now(UTC).isoformat()} {time.monotonic():.6f} {number} {'on' if on else 'off'}\n"
            os.write(self._log, line.encode())


def _packed(bits: list[bool]) -> bytes:
    number = sum(1 << place for place, bit in enumerate(bits) if bit)
    size = (len(bits) + 7) // 8
    return bytes([size]) + number.to_bytes(size, "little")


# ---- as a process ----


async def _obey(board: RelayBoard, line: str) -> None:
    """Do what a line of standard input says; raise ValueError."""
    match line.split():
        case ["input", number, ("on" | "off") as word]:
            board.press(int(number), word == "on")
        case ["relay", number, ("on" | "off") as word]:
            board.operate(int(number), word == "on")
        case ["power", "off"]:
            await board.cut_power()
        case ["power", "on"]:
            await board.restore_power()
        case ["silent"]:
            board.fall_silent()
        case ["obey"]:
            board.obey()
        case _:
            raise ValueError(line)


async def _run(given: argparse.Namespace) -> None:
    board = RelayBoard(
        outputs=given.outputs, inputs=given.inputs, timed=not given.untimed, port=given.port, log=given.log
    )
    loop = asyncio.get_running_loop()
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    said = asyncio.StreamReader()
    with contextlib.suppress(ValueError):  # standard input is a file: nothing will be said
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    async with board:
        print(f"ready {board.port}", flush=True)
        listening = asyncio.create_task(_listen(board, said))
        await told_to_end.wait()
        listening.cancel()


async def _listen(board: RelayBoard, said: asyncio.StreamReader) -> None:
    async for line in said:
        try:
            await _obey(board, line.decode())
        except ValueError, IndexError:
            print(f"not understood: {line!r}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="relay_board", description="A relay board made of software, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="where it listens; the number is printed")
    parser.add_argument("--log", type=Path, help="a file that gets a line for each movement of a relay")
    parser.add_argument("--outputs", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--untimed", action="store_true", help="it has no flash-on")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
