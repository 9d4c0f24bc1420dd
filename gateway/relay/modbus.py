"""A relay board that speaks Modbus over TCP.

One connection for each board, one request at a time on it, and a deadline for each. Outputs are coils (01 to read, 05
to write), inputs are discrete inputs (02). A release is a flash-on, if the board has it: function 05 at the coil's
address plus ``flash`` with the time as its value, in units of 100 ms. The board itself ends it then, whatever has died
by that time. Else the output is switched on, and the controller switches it off.

A board that does not answer makes its own doors unreachable and keeps nobody else waiting. Its connection is closed
then, so that no late answer is taken for the next one's, and it is tried again after a while, a longer one each time.

What this file refuses to do: send a write twice. One whose answer did not arrive, or is not the echo that it has to be,
has an unknown outcome. Modbus knows no passwords: whoever can reach the board can open its doors (docs/gateway.md).
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final, override

from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest

from gateway.log import say
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable, VestibuleError
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Pulse, Reading

from .board import drop_at_the_end
from .config import Framing, ModbusConfig
from .line import FollowedBoard, ReportedOutput, looked_at, numbered, pause

ANSWER: Final = 1.0
"""Seconds in which a board has to take a connection, and to answer a request."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 10.0
"""Seconds between two attempts to reach a board that does not answer."""
UNIT: Final = 0.1
"""Seconds: what a flash-on counts in."""
LONGEST_FLASH: Final = 0x7FFF
"""Units: the most that the boards of Waveshare take. It is neither of the values that mean plain on and off."""
ON: Final = 0xFF00
OFF: Final = 0x0000

_LOGGER: Final = logging.getLogger(__name__)
# What it logs as an error (nobody answers) is an ordinary thing here, and said once by this module.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


def flash_units(seconds: float) -> int:
    """Return the value of a flash-on: never less than what was asked for, but for the most that a board can do."""
    return min(max(math.ceil(round(seconds / UNIT, 6)), 1), LONGEST_FLASH)


class WriteCoil(ModbusPDU):
    """Function 05 with any value, as request and as answer: pymodbus' own knows on and off only."""

    function_code = 5
    rtu_frame_size = 8

    def __init__(self, address: int = 0, value: int = 0, dev_id: int = 0, transaction_id: int = 0) -> None:
        """Write ``value``, 16 bits, to a coil."""
        super().__init__(dev_id=dev_id, transaction_id=transaction_id, address=address)
        self.value = value

    @override
    def encode(self) -> bytes:
        """Return what follows the function code."""
        return struct.pack(">HH", self.address, self.value)

    @override
    def decode(self, data: bytes) -> None:
        """Take what follows the function code."""
        self.address, self.value = struct.unpack(">HH", data[:4])


class _NoAnswer(Exception):
    """A request was sent and not answered in time or in sense; the connection is closed."""


class _Declined(Exception):
    """The board answered with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class ModbusBoard(FollowedBoard["ModbusChannel"]):
    """Implements ``Board``."""

    def __init__(self, name: str, config: ModbusConfig) -> None:
        """Make it; nothing is reached before ``start``."""
        super().__init__(
            name,
            Capabilities(device_timed=config.flash is not None, feedback=True, can_secure=True, can_hold=True),
            [ModbusChannel(self, config, index) for index in range(config.outputs)],
            config.inputs,
        )
        self._config = config
        self._turn = asyncio.Lock()
        self._client: AsyncModbusTcpClient | None = None
        self._request: asyncio.Task[ModbusPDU] | None = None
        self._has_answered = False
        """On the connection that is up."""
        self._began = -math.inf
        """When it was connected to last."""
        self._came_to_nothing = -math.inf
        """When a connection was begun on which there was not a single answer."""
        self._inputs_work = True
        self._look_now = asyncio.Event()

    # ---- life ----

    @override
    async def _let_go(self) -> None:
        self._forget()
        await asyncio.sleep(0)  # the socket is closed in the loop's next turn

    async def probe(self) -> str:
        """Read everything once; raise StrikeUnreachable."""
        began = monotonic()
        try:
            await self.look_at_outputs()
            took = monotonic() - began
            await self._look_at_inputs()
        finally:
            if self._following is None:
                self._close()
                await asyncio.sleep(0)
        on = [channel.number for channel in self._channels if channel.reading is Reading.RELEASED]
        said = [f"answers in {took * 1000:.0f} ms", f"{len(self._channels)} outputs, on: {numbered(on)}"]
        if self._inputs and not self._inputs_work:
            said.append("its inputs cannot be read: has it any?")
        elif self._inputs:
            closed = [number for number, one in enumerate(self._inputs, 1) if one.sense is Sense.ACTIVE]
            said.append(f"{len(self._inputs)} inputs, closed: {numbered(closed)}")
        return "; ".join(said)

    @override
    async def _follow(self) -> None:
        failures = 0
        while True:
            self._look_now.clear()
            try:
                await self.look_at_outputs()
                await self._look_at_inputs()
            except StrikeUnreachable:
                wait = pause(failures, FIRST_RETRY, LONGEST_RETRY)
                failures += 1
            except Exception:
                _LOGGER.exception("A board could not be read in an unforeseen way")
                self._lose("an unforeseen error")
                wait = LONGEST_RETRY
            else:
                wait, failures = self._config.poll, 0
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._look_now.wait()

    # ---- what is asked of it ----

    async def look_at_outputs(self) -> None:
        """Read all outputs; raise StrikeUnreachable."""
        async with self._its_turn():
            await self._read_outputs()

    async def _look_at_inputs(self) -> None:
        """Read all inputs. A board that declines has none; its outputs work all the same."""
        if not self._inputs:
            return
        async with self._its_turn():
            try:
                bits = await self._read(ReadDiscreteInputsRequest, len(self._inputs))
            except _NoAnswer as error:
                raise StrikeUnreachable(str(error)) from error
            except _Declined as declined:
                if self._inputs_work:
                    say(_LOGGER, logging.ERROR, "board_inputs_unreadable", board=self._name, reason=str(declined))
                self._inputs_work = False
                senses = [Sense.FAULT] * len(self._inputs)
            else:
                self._inputs_work = True
                senses = [Sense.ACTIVE if bit else Sense.INACTIVE for bit in bits]
        for one, sense in zip(self._inputs, senses, strict=True):
            one.say(sense)

    async def command(self, address: int, value: int, output: int, want: Reading, *, lasts: float = math.inf) -> None:
        """Write to a coil, once, and see whether ``output`` reads as wanted (for ``lasts`` seconds).

        Raises StrikeUnreachable (it was told nothing), StrikeRefused or OutcomeUnknown.
        """
        async with self._its_turn():
            told_at = monotonic()
            try:
                answer = await self._ask(WriteCoil(address, value, self._config.unit))
                if not isinstance(answer, WriteCoil) or (answer.address, answer.value) != (address, value):
                    raise self._nonsense()
            except _NoAnswer as error:
                raise OutcomeUnknown(str(error)) from error
            except _Declined as declined:
                raise _refusal(declined.code) from declined
            try:
                await self._read_outputs()
            except StrikeUnreachable:
                return  # it confirmed the command, and has been lost since
        if self._channels[output].reading is want or monotonic() - told_at >= lasts:
            return
        if want is Reading.SECURED:
            raise StrikeRefused("the board confirmed the command, but reads as released")
        raise OutcomeUnknown("the board confirmed the command, but does not read as released")

    # ---- one request ----

    @asynccontextmanager
    async def _its_turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and for a connection; raise StrikeUnreachable."""
        began = monotonic()
        async with self._turn:
            if self._client is None:
                if self._came_to_nothing >= began:  # that was tried while this one waited
                    raise StrikeUnreachable(self.reason or "the board does not answer")
                await self._connect()
            yield

    async def _connect(self) -> None:
        config, self._began = self._config, monotonic()
        client = AsyncModbusTcpClient(
            config.host,
            port=config.port,
            framer=FramerType.RTU if config.framing is Framing.RTU else FramerType.SOCKET,
            name=self._name,
            timeout=2 * ANSWER,  # never reached: this module has deadlines of its own
            retries=0,
            reconnect_delay=0,
            trace_connect=lambda up: None if up else self._link_lost(client),
        )
        client.register(WriteCoil)
        connected = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER):
                    connected = await client.connect()
        finally:
            if not connected:
                client.close()
        if not connected:
            self._lose("it takes no connection: has it power, and is its address right?")
            raise StrikeUnreachable(self.reason)
        assert client.ctx.transport is not None
        drop_at_the_end(client.ctx.transport.get_extra_info("socket"))
        self._client = client
        self._look_now.set()

    async def _read_outputs(self) -> None:
        try:
            bits = await self._read(ReadCoilsRequest, len(self._channels))
        except _NoAnswer as error:
            raise StrikeUnreachable(str(error)) from error
        except _Declined as declined:
            self._lose(f"its outputs cannot be read ({declined}): has it so many, and this unit id?")
            raise StrikeUnreachable(self.reason) from declined
        self._has_answered = True
        if self.reason is not None:
            say(_LOGGER, logging.INFO, "board_back", board=self._name)
            self.reason = None
        for channel, bit in zip(self._channels, bits, strict=True):
            channel.read(Reading.RELEASED if bit else Reading.SECURED)

    async def _read(self, request: type[ReadCoilsRequest], count: int) -> Sequence[bool]:
        answer = await self._ask(request(count=count, dev_id=self._config.unit))
        if answer.function_code != request.function_code or not count <= len(answer.bits) < count + 8:
            raise self._nonsense()
        return answer.bits[:count]

    async def _ask(self, request: ModbusPDU) -> ModbusPDU:
        """Send a request, once, and return the answer; raise _NoAnswer or _Declined.

        In a task of its own, because pymodbus swallows the cancellation of who waits. Eagerly, because between here and
        the write nothing must happen to the connection: it would make a new one by itself.
        """
        assert self._client is not None
        loop = asyncio.get_running_loop()
        self._request = task = loop.create_task(self._client.execute(False, request), eager_start=True)
        task.add_done_callback(looked_at)
        try:
            await asyncio.wait({task}, timeout=ANSWER)
        except asyncio.CancelledError:
            self._forget()
            raise
        finally:
            self._request = None
            task.cancel()
        if not task.done():
            self._lose("it has not answered in time")
            raise _NoAnswer(self.reason)
        if task.cancelled() or isinstance(task.exception(), ModbusException):
            if self._client is not None:
                self._lose("the connection was lost before it answered")
            raise _NoAnswer(self.reason)
        answer: ModbusPDU = task.result()
        if answer.isError():
            raise _Declined(answer.exception_code)
        return answer

    def _nonsense(self) -> _NoAnswer:
        self._lose("its answer is no answer to what it was asked: is something else on this address?")
        return _NoAnswer(self.reason)

    def _link_lost(self, client: AsyncModbusTcpClient) -> None:
        if client is self._client:
            if self._request is not None:
                self._request.cancel()
            self._lose("it has closed the connection")

    def _lose(self, reason: str) -> None:
        """Close the connection, and say why."""
        if self.reason is None:
            say(_LOGGER, logging.WARNING, "board_lost", board=self._name, reason=reason)
        self.reason = reason
        if not self._has_answered:
            self._came_to_nothing = self._began
        self._forget()

    def _forget(self) -> None:
        """Close the connection: nothing that was known of the board is known any more."""
        self._close()
        for channel in self._channels:
            channel.read(Reading.UNKNOWN)
        for one in self._inputs:
            one.say(Sense.FAULT)

    def _close(self) -> None:
        client, self._client, self._has_answered = self._client, None, False
        if client is not None:
            client.close()


class ModbusChannel(ReportedOutput):
    """An output of a board. Implements ``Channel``."""

    def __init__(self, board: ModbusBoard, config: ModbusConfig, index: int) -> None:
        """Take the number of its coil, from 0."""
        super().__init__(board, index + 1)
        self._board, self._index = board, index
        self._flash = None if config.flash is None else config.flash + index
        self._flashes_until = -math.inf

    async def reach(self) -> None:
        """Ask the board how its outputs are; raise StrikeUnreachable."""
        await self._board.look_at_outputs()

    async def release(self, pulse: Pulse) -> None:
        """Switch on: for the pulse's time, rounded up to 0.1 s, or until ``secure`` if the board has no timer."""
        if self._flash is None:
            await self._switch_on()
            return
        units = flash_units(pulse.seconds)
        lasts = units * UNIT
        self._flashes_until = monotonic() + ANSWER + lasts
        await self._board.command(self._flash, units, self._index, Reading.RELEASED, lasts=lasts)

    async def hold(self, origin: object) -> None:  # noqa: ARG002 - every strike is told; this one has no use for it
        """Switch on until ``secure``."""
        if monotonic() < self._flashes_until:
            # No manual says whether a flash that is running ends a plain on, too, when its time is over.
            await self._switch_off()
        await self._switch_on()

    async def secure(self) -> None:
        """Switch off; that ends a flash as well."""
        await self._switch_off()

    async def _switch_on(self) -> None:
        await self.leave_on(self._board.command(self._index, ON, self._index, Reading.RELEASED))

    async def _switch_off(self) -> None:
        await self._board.command(self._index, OFF, self._index, Reading.SECURED)
        self.was_left_on, self._flashes_until = False, -math.inf


def _refusal(code: int) -> VestibuleError:
    """Return what to raise for the exception code that answered a write (MODBUS Application Protocol V1.1b3, 7)."""
    match code:
        case 1 | 2 | 3:
            return StrikeRefused(f"the board does not know this command (Modbus exception {code}): has it flash-on?")
        case 6:
            return StrikeRefused("the board is busy: try again")
        case 10:
            return StrikeUnreachable("the adapter before the board has no way to it")
        case _:  # 4: it failed meanwhile; 5: it will do it; 11: the adapter has passed it on and heard nothing
            return OutcomeUnknown(f"the board does not say whether it moved (Modbus exception {code})")
