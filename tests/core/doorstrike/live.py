"""The bench (bench.py) for clients that run in an event loop: a strike that lives in the loop's time, and its radio.

``BenchRadio`` is a ``StrikeRadio``: what is written reaches the strike in order, one packet in a turn of the loop, and
so do notifications the other way. Verbs: ``walk_away`` and ``come_back``, ``cut``, ``cut_after``, ``mute``.

``in_no_time`` runs a test on a loop whose clock jumps to whatever is due next: minutes of waiting cost nothing, and
nothing is faked but the clock. A test that waits for something that will never happen fails at once.
"""

import asyncio
import functools
import json
import selectors

from tests.core.doorstrike.bench import ALL_CAPS, Bench
from vestibule_core.doorstrike.driver import BleStrike, Kept
from vestibule_core.doorstrike.effects import HoldRelay, StartPulse
from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import Now

EPOCH = 1_800_000_000.0


class JumpingSelector(selectors.DefaultSelector):
    """What lets a JumpingLoop's time pass."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        if ready := super().select(0):
            return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self.now += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    selector_class = JumpingSelector

    def __init__(self):
        self.selector = self.selector_class()
        super().__init__(self.selector)

    def time(self):
        return self.selector.now


def in_no_time(test, loop_factory=JumpingLoop):
    """Run an asynchronous test on a JumpingLoop. Whatever task it leaves behind fails it."""

    async def run(*args, **kwargs):
        await test(*args, **kwargs)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks were left behind: {left}"

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run(*args, **kwargs))

    return wrapped


def clock():
    """The running loop's."""
    now = asyncio.get_running_loop().time()
    return Now(wall=EPOCH + now, boot=now)


class LiveBench(Bench):
    """A bench whose time is the running loop's, with timers that go off by themselves."""

    def __init__(self, *args, **kwargs):
        self._offset = 1000.0 - asyncio.get_running_loop().time()
        self._timer = None
        super().__init__(*args, **kwargs)

    @property
    def now(self):
        return asyncio.get_running_loop().time() + self._offset

    @now.setter
    def now(self, value):
        """Bench's own ``wait`` lets time pass at once: move on with it."""
        self._offset += max(0.0, value - self.now)

    def _do(self, effects):
        super()._do(effects)
        self._arm()

    def _arm(self):
        if self._timer is not None:
            self._timer.cancel()
        dues = [self.relay_off_at, self.strike.due if self.strike else None]
        if dues := [due for due in dues if due not in (None, float("inf"))]:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, min(dues) - self.now) + 1e-6, self._due)

    def _due(self):
        if self.relay_off_at is not None and self.now >= self.relay_off_at:
            self.relay_off_at = None
            self.tell("pulse_complete", self.pulse)
        self.tell("elapsed")
        self._arm()

    def close(self):
        """Nothing goes off any more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def seq(self):
        """The number of the newest event."""
        return self.strike._device.history.seq

    @property
    def commands(self):
        """How many commands to release reached the relay."""
        return sum(isinstance(effect, StartPulse | HoldRelay) for effect in self.performed)


class _Air:
    """One link, as the bench sees it (its ``Wire``) and as a ``GattLink``."""

    def __init__(self, radio, number, lost):
        self.radio, self.bench, self.number, self._lost = radio, radio.bench, number, lost
        self.size = radio.size
        self.to_client = _Notifications(self)
        self._notified = None

    # ---- for Bench.run and Bench.wait, which drive clients without a loop ----

    due = None

    def step(self):
        return False

    def elapsed(self):
        pass

    # ---- GattLink ----

    async def subscribe(self, notified):
        self._notified = notified
        self._check()
        self.bench.tell("subscribed", self.number, self.size)
        await asyncio.sleep(0)
        self._check()

    async def write(self, fragment, *, with_response):
        self._check()
        assert len(fragment) <= self.size
        await asyncio.sleep(self.radio.latency)
        if self._packet(to_strike=True):
            for one in self.radio.tap(True, fragment):
                self.bench.tell("fragment", self.number, one)
        if with_response:
            await asyncio.sleep(0)
        self._check()

    async def close(self):
        self.radio.open_links.discard(self)
        if self.bench.wires.pop(self.number, None) is not None:
            self.bench.tell("disconnected", self.number)
            self._lost()

    # ---- the air ----

    def _check(self):
        if self.number not in self.bench.wires:
            raise StrikeUnreachable("the link is gone")

    def _packet(self, *, to_strike):
        """Return whether one more packet gets through."""
        if self.number not in self.bench.wires:
            return False
        if self.radio.packets_left == 0:
            self.radio.packets_left = None
            self.cut()
            return False
        if self.radio.packets_left is not None:
            self.radio.packets_left -= 1
        self.radio.carried += 1
        self.radio.written += to_strike
        return True

    def deliver(self, fragment):
        if fragment is None:
            self.cut()
        elif not self.radio.muted and self._packet(to_strike=False):
            for one in self.radio.tap(False, fragment):
                self._notified(one)

    def cut(self):
        """The link is lost, at both ends."""
        self.radio.open_links.discard(self)
        if self.bench.wires.pop(self.number, None) is not None:
            self.bench.tell("disconnected", self.number)
            self._lost()


class _Notifications:
    """What the bench puts packets into for the client."""

    def __init__(self, air):
        self._air = air

    def append(self, fragment):
        loop, latency = asyncio.get_running_loop(), self._air.radio.latency
        if latency:
            loop.call_later(latency, self._air.deliver, fragment)
        else:
            loop.call_soon(self._air.deliver, fragment)

    def extend(self, fragments):
        for fragment in fragments:
            self.append(fragment)


class BenchRadio:
    """How a bench is reached."""

    def __init__(self, bench, size=244):
        self.bench, self.size = bench, size
        self.in_range = True
        self.muted = False
        self.packets_left = None
        self.carried = self.written = 0
        """Packets, both ways, and those to the strike."""
        self.connections = 0
        self.attempts = 0
        self.most_links = 0
        self.latency = 0.0
        """Seconds that a packet takes; messages must be whole in one packet then."""
        self.patience = 0.05
        """How long an attempt out of range takes to fail, in seconds."""
        self.open_links = set()
        self.tap = lambda to_strike, fragment: [fragment]

    async def connect(self, lost):
        self.attempts += 1
        await asyncio.sleep(0.001)
        if not self.in_range or self.bench.strike is None:
            await asyncio.sleep(self.patience)
            raise StrikeUnreachable("it is out of range")
        self.connections += 1
        self.bench.connections += 1
        air = _Air(self, self.bench.connections, lost)
        self.open_links.add(air)
        self.most_links = max(self.most_links, len(self.open_links))
        self.bench.wires[air.number] = air
        self.bench.tell("connected", air.number)
        return air

    # ---- verbs ----

    def cut(self):
        """Every link is lost."""
        for air in list(self.open_links):
            air.cut()

    def walk_away(self):
        """Out of range: links are lost, and no other comes about."""
        self.in_range = False
        self.cut()

    def come_back(self):
        self.in_range = True

    def cut_after(self, packets):
        """The link breaks when that many more packets have been carried."""
        self.packets_left = packets

    def mute(self):
        """Nothing that the strike says arrives any more, and the link stays."""
        self.muted = True


class Rig:
    """A paired strike on a bench with its driver. Use it in an ``async with``.

    ``remembered`` is what the driver wanted stored, ``events`` what it told of, ``readings`` what it read.
    """

    def __init__(self, *, keep=False, caps=ALL_CAPS, size=244, seed=1):
        self.bench = LiveBench(caps, seed)
        self.radio = BenchRadio(self.bench, size)
        self.paired = self.bench.pair()
        self.other = self.bench.second(self.paired)
        """Another controller's slot."""
        self.remembered = []
        self.events = []
        self.readings = []
        self.keep = keep
        self.skipped = 0.0
        self.kept = Kept(self.paired, caps, self.bench.seq)
        self.start()

    def start(self):
        self.strike = BleStrike(
            self.radio,
            self.kept,
            keep_connected=self.keep,
            remember=self._remember,
            clock=self.clock,
            random=self.bench.random,
        )
        self.strike.on_event(self.events.append)
        self.strike.subscribe(self.readings.append)

    def clock(self):
        now = clock()
        return Now(now.wall + self.skipped, now.boot + self.skipped)

    def skip(self, seconds):
        """Let the driver's clock show that much more, while no timer of it runs."""
        self.skipped += seconds

    def _remember(self, kept):
        self.kept = Kept.from_json(json.loads(json.dumps(kept.to_json())))
        assert self.kept == kept
        self.remembered.append(kept)

    async def restart(self):
        """The program ends and starts again with what it remembered."""
        await self.strike.close()
        self.start()

    async def __aenter__(self):
        if self.keep:
            await self.until(lambda: self.strike.state)
        return self

    async def __aexit__(self, *_):
        await self.strike.close()
        self.bench.close()

    async def until(self, condition, seconds=5.0):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - a bench has no asyncio.Event
                await asyncio.sleep(0.005)

    def advertise(self):
        """Let the driver hear what the strike advertises."""
        if self.bench.strike is not None and self.radio.in_range:
            self.strike.seen(self.bench.strike.advertisement)

    async def polled(self):
        """Let an advertisement cause a poll, and wait until it is over."""
        before = self.radio.connections
        self.advertise()
        await self.until(lambda: self.radio.connections > before and self.idle)

    @property
    def idle(self):
        return not self.radio.open_links
