"""Pairing with a strike: from its label's code to a slot of one's own that has proved its key (protocol B.5).

What it refuses to do: guess which of the two it is when the strike refuses, since a wrong code and a closed window look
the same on the air; whoever sees the strike's advertisements can say it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Final

from ..errors import OutcomeUnknown, StrikeUnreachable, VestibuleError  # noqa: TID252 - the core is imported relatively
from ..model import Now, read_clock  # noqa: TID252
from . import frames
from .client import Answered, Ended, Ending, Output, Paired, Verified
from .connection import REASONS, Connection, StrikeRadio
from .kept import Kept
from .pairing import PAIRING_SLOT, Label, slot_psk
from .wire import STRIKE_ID_SIZE, Caps, Command, Hello, Op, Result, Violation

PROVE_TIME: Final = 25.0
"""Seconds in which the new slot has to be used; the strike erases it after 30."""
CONNECT_LIMIT: Final = 20.0
PROVE_AGAIN: Final = 1.0


class PairingSlip(StrEnum):
    """Why a strike could not be paired; the word for a form's message."""

    NOT_ACCEPTED = "pairing_not_accepted"
    NO_WINDOW = "pairing_no_window"
    WRONG_CODE = "pairing_wrong_code"
    OTHER_STRIKE = "pairing_other_strike"
    VERSION = "pairing_version"
    NO_FREE_SLOT = "pairing_no_free_slot"


_ADVICE: Final = {
    PairingSlip.NOT_ACCEPTED: "hold the strike's button for 3 seconds, and compare the code with the label",
    PairingSlip.NO_WINDOW: "hold the button on the strike's secure side for 3 seconds, and try again within 2 minutes",
    PairingSlip.WRONG_CODE: "the code is not this strike's: compare it with the label inside of its cover",
    PairingSlip.OTHER_STRIKE: "another strike answers there: choose the one whose label this is",
    PairingSlip.VERSION: REASONS[Ending.VERSION],
    PairingSlip.NO_FREE_SLOT: "all slots of the strike are taken: delete one from the controller that administers it",
}


class PairingFailed(VestibuleError):
    """The strike was not paired. Holding the button again starts anew."""

    def __init__(self, slip: PairingSlip) -> None:
        """Say what to do about it."""
        super().__init__(_ADVICE[slip])
        self.slip = slip


async def ask_id(
    radio: StrikeRadio,
    *,
    clock: Callable[[], Now] = read_clock,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Return the whole id that whoever answers says it has: an advertisement has room for six bytes of eight.

    A wrong one is no risk, since the key of the label depends on it: nothing is paired then. It is asked for as by any
    client, who then finds that this is not its strike. Raises StrikeUnreachable or PairingFailed.
    """
    nobody = Paired(bytes(STRIKE_ID_SIZE), PAIRING_SLOT, bytes(frames.KEY_SIZE))
    async with _Session(radio, nobody, clock, random) as session:
        try:
            await session.open()
        except StrikeUnreachable as error:
            if session.ending is not Ending.OTHER_STRIKE:
                raise session.reason(error, None) from error
        assert session.said is not None
        return session.said.strike_id


async def pair(
    radio: StrikeRadio,
    label: Label,
    name: str,
    *,
    window_open: bool | None = None,
    clock: Callable[[], Now] = read_clock,
    random: Callable[[int], bytes] = os.urandom,
) -> Kept:
    """Get a slot under this ``name`` (16 bytes of UTF-8), use it once, and return what to keep.

    ``window_open`` is what the strike advertised last: only a better word for a refusal comes of it. Raises
    StrikeUnreachable or PairingFailed.
    """
    rand_c = random(frames.RAND_SIZE)
    session = _Session(radio, Paired(label.strike_id, PAIRING_SLOT, label.psk), clock, random)
    async with session:
        try:
            await session.open()
            heard = (await session.ask(Command(Op.QUERY))).state.evt_seq
            answer = await session.ask(Command(Op.SLOT_ADD), frames.SlotAdd(name, rand_c).encode())
        except (StrikeUnreachable, OutcomeUnknown) as error:
            raise session.reason(error, window_open) from error
    match answer.state.result:
        case Result.OK:
            pass
        case Result.RIGHTS:
            raise PairingFailed(PairingSlip.NO_WINDOW)
        case _:
            raise PairingFailed(PairingSlip.NO_FREE_SLOT)
    try:
        added = frames.SlotAdded.parse(answer.body)
    except Violation as err:
        raise StrikeUnreachable(REASONS[Ending.VIOLATION]) from err
    psk = slot_psk(label.strike_id, added.slot, rand_c, added.rand_s)
    return await _prove(radio, Paired(label.strike_id, added.slot, psk), heard, clock, random)


async def _prove(
    radio: StrikeRadio, paired: Paired, heard: int, clock: Callable[[], Now], random: Callable[[int], bytes]
) -> Kept:
    """Use the new slot once, so that the strike keeps it."""
    error: VestibuleError = StrikeUnreachable(REASONS[Ending.NO_ANSWER])
    with suppress(TimeoutError):
        async with asyncio.timeout(PROVE_TIME):
            while True:
                try:
                    async with _Session(radio, paired, clock, random) as session:
                        await session.open()
                        await session.ask(Command(Op.QUERY))
                        assert session.caps is not None
                        return Kept(session.paired, session.caps, heard)
                except (StrikeUnreachable, OutcomeUnknown) as failed:
                    error = failed
                await asyncio.sleep(PROVE_AGAIN)
    raise StrikeUnreachable(f"the new key could not be tried in time: {error}")


class _Session:
    """One connection of one's own."""

    def __init__(
        self, radio: StrikeRadio, paired: Paired, clock: Callable[[], Now], random: Callable[[int], bytes]
    ) -> None:
        self.paired = paired
        self._radio = radio
        self.ending: Ending | None = None
        self._connection = Connection(paired, keep=False, hear=self._hear, clock=clock, random=random)

    async def __aenter__(self) -> _Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    @property
    def caps(self) -> Caps | None:
        return self._connection.caps

    @property
    def said(self) -> Hello | None:
        return self._connection.said

    async def open(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await self._connection.open(self._radio)
        except TimeoutError:
            raise StrikeUnreachable(REASONS[Ending.NO_ANSWER]) from None

    async def ask(self, command: Command, body: bytes = b"") -> Answered:
        return await self._connection.ask(command, body)

    def reason(self, error: VestibuleError, window_open: bool | None) -> VestibuleError:
        match self.ending:
            case Ending.OTHER_STRIKE:
                return PairingFailed(PairingSlip.OTHER_STRIKE)
            case Ending.VERSION:
                return PairingFailed(PairingSlip.VERSION)
            case Ending.REFUSED if window_open is None:
                return PairingFailed(PairingSlip.NOT_ACCEPTED)
            case Ending.REFUSED:
                return PairingFailed(PairingSlip.WRONG_CODE if window_open else PairingSlip.NO_WINDOW)
            case _:
                return StrikeUnreachable(str(error))

    def _hear(self, output: Output) -> None:
        match output:
            case Verified(version):
                self.paired = replace(self.paired, version=version)
            case Ended(ending):
                self.ending = ending
