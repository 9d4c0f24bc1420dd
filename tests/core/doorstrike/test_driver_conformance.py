"""The driver passes what every strike driver passes, with a kept connection and without one, in real time."""

import asyncio
import os

import pytest

from tests.conformance import StrikeConformance, StrikeHarness
from tests.core.doorstrike.bench import ALL_CAPS, unlock
from tests.core.doorstrike.live import Rig
from vestibule_core import errors
from vestibule_core.doorstrike.polling import GAP
from vestibule_core.doorstrike.wire import Caps, Command, Op
from vestibule_core.strike import Pulse


class Harness(StrikeHarness):
    """A strike on the bench, and a second controller that operates it as well."""

    errors = errors

    def __init__(self, rig):
        self.rig = rig
        self.before = 0

    @property
    def strike(self):
        return self.rig.strike

    def pulse(self, seconds=60.0):
        return Pulse(os.urandom(16), seconds)

    @property
    def commands(self):
        return self.rig.bench.commands - self.before

    @property
    def movements(self):
        return len(self.rig.bench.pulses) - self.before

    @property
    def is_secured(self):
        return not self.rig.bench.released

    async def make_unreachable(self):
        self.rig.radio.walk_away()
        if self.rig.keep:
            await self.rig.until(lambda: self.strike.state is None, 2.0)  # the first attempt to reconnect has failed
        else:
            self.strike.gone()

    async def make_reachable(self):
        self.rig.radio.come_back()
        self.rig.advertise()

    async def refuse(self):
        self.rig.bench.jammed = True

    async def hang(self):
        await self.strike.reach()
        self.rig.radio.mute()

    async def operate_by_someone_else(self, *, released):
        wire = self.rig.bench.session(self.rig.other)
        wire.ask(unlock(os.urandom(16), 1000) if released else Command(Op.RELOCK))
        wire.close()
        self.before += released
        if not self.rig.keep:
            self.rig.skip(GAP)
            before = self.rig.radio.connections
            await self.rig.until(lambda: self.rig.radio.connections > before or self.rig.advertise())

    async def settle(self):
        """A kept connection hears at once; else what a poll fetches is here when it is over."""
        await asyncio.sleep(0.02)
        if self.rig.radio.in_range and not self.rig.radio.muted and not self.rig.bench.released:
            await self.rig.until(lambda: self.rig.keep or self.rig.idle)


class _Conformance(StrikeConformance):
    how = {}  # noqa: RUF012 - a subclass says how

    @pytest.fixture
    async def harness(self):
        async with Rig(**self.how) as rig:
            if not rig.keep:
                await rig.polled()
            yield Harness(rig)


class TestBleStrike(_Conformance):
    pass


class TestBleStrikeWithAKeptConnection(_Conformance):
    how = {"keep": True}  # noqa: RUF012


class TestBleStrikeThatDoesNotHold(_Conformance):
    how = {"caps": ALL_CAPS & ~Caps.HOLD}  # noqa: RUF012
