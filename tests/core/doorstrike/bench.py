"""A strike on a bench and the clients around it: both ends of DoorStrike/1 with everything in between in memory.

``Bench`` is the strike's shell as it has to be written: it performs effects in order, keeps what is persisted on a
flash that survives ``cut_power`` (torn, if asked for), and has a relay whose timer is its own. ``connect`` gives a
``Wire``, the client's shell: packets wait in two queues until ``run`` delivers them, and on their way they can be cut
off, changed, dropped, doubled or kept for later by whoever sits at ``tap``.

There is another one with the same verbs, where the strike is the real one and packets go over the virtual radio
(tests/radio/bench.py). ``AnyBench`` is what both have in common, and what a test may use that is to run on both.
"""

import random
from collections import deque
from dataclasses import replace

from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.client import Answered, Client, Ended, Greeted, Paired, Told, Verified, Write
from vestibule_core.doorstrike.device import ButtonHeld
from vestibule_core.doorstrike.effects import Disconnect, HoldRelay, Notify, Persist, StartPulse, StopRelay
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.peripheral import Peripheral
from vestibule_core.doorstrike.wire import Caps, Command, Op, Rights

STRIKE_ID = bytes.fromhex("a1b2c3d4e5f60718")
ALL_CAPS = Caps.CONTACT | Caps.TAMPER | Caps.BATTERY | Caps.HOLD | Caps.LOCK_MONITOR
SPEND = bytes(range(16))


class PowerCut(Exception):
    """Nothing of what was to be done next is done."""


def unlock(spend_id=SPEND, pulse_cs=50):
    return Command(Op.UNLOCK, pulse_cs, spend_id)


class AnyBench:
    """A strike that clients connect to.

    It has ``now``, ``label``, ``random``, ``flash``, ``strike`` (the protocol's machine, None without power),
    ``pulses``, ``released`` and ``effects_left``. Verbs: ``connect``, ``wait``, ``run``, ``sense``, ``power_up``,
    ``cut_power``, and what follows here.
    """

    def reboot(self, seconds=1.0):
        self.cut_power()
        self.now += seconds
        self.power_up()

    def hold_button(self, seconds=3.0):
        self.sense(ButtonHeld(seconds))

    def forget(self):
        """Keep nothing for a test that does not look at it."""

    # ---- clients ----

    def connect_raw(self, size=244):
        """Connect with no client behind: a stranger's own program."""
        wire = self.connect(Paired(STRIKE_ID, 1, bytes(32)), size)
        wire.take_over()
        return wire, wire.heard[-1]

    def pair(self, name="Home Assistant"):
        """Hold the button, pair with the label's code, and prove the new slot once."""
        self.wait(1)  # one attempt in a second
        self.hold_button()
        wire = self.connect(Paired(STRIKE_ID, 0, self.label.psk))
        wire.ask(Command(Op.QUERY))
        rand_c = self.random(32)
        added = frames.SlotAdded.parse(wire.ask(Command(Op.SLOT_ADD), frames.SlotAdd(name, rand_c).encode()).body)
        wire.close()
        paired = Paired(STRIKE_ID, added.slot, slot_psk(STRIKE_ID, added.slot, rand_c, added.rand_s))
        self.session(paired).close()
        return paired

    def session(self, paired, **how):
        """A connection that is READY."""
        wire = self.connect(paired, **how)
        wire.ask(Command(Op.PING))
        return wire

    def grant(self, admin, slot, rights):
        wire = self.session(admin)
        state = wire.ask(Command(Op.SLOT_RIGHTS), frames.SlotRights(slot, rights).encode()).state
        wire.close()
        return state.result

    def second(self, admin, rights=Rights.MANUAL | Rights.EVENTS):
        """Another controller, with these rights."""
        paired = self.pair("another")
        self.grant(admin, paired.slot, rights)
        return paired


class Bench(AnyBench):
    """A strike, its relay and its flash."""

    def __init__(self, caps=ALL_CAPS, seed=1):
        self.now = 1000.0
        self.caps = caps
        self.random = random.Random(seed).randbytes
        self.label = Label.new(STRIKE_ID, self.random(12))
        self.flash = {}
        self.pulses = []
        """The seconds of each release, HOLD as infinity."""
        self.relay_off_at = None
        self.jammed = False
        self.wires = {}
        self.connections = 0
        self.effects_left = None
        """Power is cut when that many effects have been performed."""
        self.tears = False
        """What is being written when the power is cut is torn."""
        self.performed = []
        self.strike = None
        self.power_up()

    # ---- power ----

    def power_up(self):
        self.pulse = None
        self.relay_off_at = None
        self.strike = Peripheral(self.label, self.caps, dict(self.flash), self.random, self.now)
        self._do(self.strike.boot())

    def cut_power(self):
        self.strike = None
        self.relay_off_at = None
        for wire in list(self.wires.values()):
            wire.cut()

    # ---- the strike's shell ----

    def tell(self, method, *args):
        """Call a method of the strike and do what it says."""
        if self.strike is not None:
            self._do(getattr(self.strike, method)(*args, self.now))

    def sense(self, what):
        self.tell("sensed", what)

    def _do(self, effects):
        try:
            answer = None
            for effect in effects:
                if self.effects_left is not None:
                    if self.effects_left == 0:
                        if self.tears and isinstance(effect, Persist):
                            self.flash[effect.part] = effect.contents[: len(effect.contents) // 2]
                        raise PowerCut
                    self.effects_left -= 1
                self.performed.append(effect)
                answer = self._perform(effect) or answer
            if answer is not None:
                self.tell(answer)
        except PowerCut:
            self.effects_left = None
            self.cut_power()

    def _perform(self, effect):
        match effect:
            case Persist(part, contents):
                self.flash[part] = contents
            case StartPulse() | HoldRelay() | StopRelay() if self.jammed:
                return "relay_failed"
            case StartPulse(seconds, number):
                self.pulses.append(seconds)
                self.relay_off_at, self.pulse = self.now + seconds, number
                return "relay_done"
            case HoldRelay():
                self.pulses.append(float("inf"))
                self.relay_off_at = float("inf")
                return "relay_done"
            case StopRelay():
                self.relay_off_at = None
                return "relay_done"
            case Notify(link, fragments):
                if link in self.wires:
                    self.wires[link].to_client.extend(fragments)
            case Disconnect(link):
                if link in self.wires:
                    self.wires[link].to_client.append(None)
        return None

    @property
    def released(self):
        return self.relay_off_at is not None

    def forget(self):
        del self.performed[:]

    # ---- time ----

    def wait(self, seconds):
        """Let time pass, with everything that is due in it, and deliver what comes of it."""
        end = self.now + seconds
        while True:
            self.run()
            dues = [wire.due for wire in self.wires.values()] + [self.relay_off_at]
            dues.append(self.strike.due if self.strike else None)
            due = min([end, *(due for due in dues if due is not None)])
            self.now = max(self.now, due)
            if self.relay_off_at is not None and self.now >= self.relay_off_at:
                self.relay_off_at = None
                self.tell("pulse_complete", self.pulse)
            self.tell("elapsed")
            for wire in list(self.wires.values()):
                wire.elapsed()
            if due >= end:
                self.run()
                return

    def run(self):
        """Deliver every packet that is on its way."""
        while sum(wire.step() for wire in list(self.wires.values())):
            pass

    # ---- clients ----

    def connect(self, paired, size=244, keep=False, tap=None, cut_after=None, subscribe=True):
        """Connect, subscribe and deliver what comes: the HELLO."""
        self.connections += 1
        wire = Wire(self, self.connections, Client(paired, size, self.random, self.now, keep=keep), size)
        wire.tap = tap or wire.tap
        wire.cut_after = cut_after
        self.wires[wire.number] = wire
        self.tell("connected", wire.number)
        if subscribe:
            self.tell("subscribed", wire.number, size)
        self.run()
        return wire


class Wire:
    """One connection: the client and the air between it and the strike."""

    def __init__(self, bench, number, client, size):
        self.bench, self.number, self.client, self.size = bench, number, client, size
        self.to_strike, self.to_client = deque(), deque()
        self.news = []
        self.heard = []
        """The fragments that reached the client."""
        self.sent = []
        """The fragments that reached the strike."""
        self.tap = lambda to_strike, fragment: [fragment]
        self.cut_after = None
        """The link breaks when that many packets have been carried."""
        self.held = False
        """Somebody in the middle keeps what is for the strike."""
        self.taken_over = False

    def step(self):
        """Carry one packet, if there is any."""
        to_strike = self.to_strike and not self.held
        if self.number not in self.bench.wires or not (to_strike or self.to_client):
            return False
        if self.cut_after == 0:
            self.cut()
            return False
        if self.cut_after is not None:
            self.cut_after -= 1
        if to_strike:
            for fragment in self.tap(True, self.to_strike.popleft()):
                self.sent.append(fragment)
                self.bench.tell("fragment", self.number, fragment)
        elif (fragment := self.to_client.popleft()) is None:
            self.cut()
        else:
            for changed in self.tap(False, fragment):
                self.hear(changed)
        return True

    def hear(self, fragment):
        """This has arrived at the client."""
        self.heard.append(fragment)
        if not self.taken_over:
            self.take(self.client.notified(fragment, self.bench.now))

    def cut(self):
        """The link is lost, at both ends."""
        if self.bench.wires.pop(self.number, None) is not None:
            self.bench.tell("disconnected", self.number)
            self.take(self.client.lost())

    def take_over(self):
        """From now on somebody else's program has this connection: the client hears nothing, and says nothing."""
        self.taken_over = True

    @property
    def due(self):
        """When the client's time is over for something."""
        return None if self.taken_over else self.client.due

    def elapsed(self):
        if not self.taken_over:
            self.take(self.client.elapsed(self.bench.now))

    # ---- somebody in the middle, besides ``tap`` ----

    def hold(self):
        """Keep what is sent to the strike, until ``release``."""
        self.held = True

    def release(self):
        """Let go of what was held, and return what the client heard of it."""
        before = len(self.heard)
        self.held = False
        self.bench.run()
        return self.heard[before:]

    def inject(self, *fragments):
        """Let the client hear these, as if the strike had said them."""
        self.to_client.extend(fragments)
        self.bench.run()

    # ---- the client ----

    def close(self):
        self.take(self.client.close())

    def take(self, outputs):
        for output in outputs:
            match output:
                case Write(fragment):
                    self.to_strike.append(fragment)
                case Ended():
                    self.news.append(output)
                    if self.bench.wires.pop(self.number, None) is not None:
                        self.bench.tell("disconnected", self.number)
                case _:
                    self.news.append(output)

    def send(self, command, body=b""):
        """Send a command without delivering it."""
        self.take(self.client.command(command, self.bench.now, body))

    def ask(self, command, body=b""):
        """Send a command and return its answer; None if there was none."""
        before = len(self.news)
        self.send(command, body)
        self.bench.run()
        return next((one for one in self.news[before:] if isinstance(one, Answered)), None)

    def write(self, *fragments):
        """Write to RX as a stranger; return what the strike notified."""
        before = len(self.heard)
        self.to_strike.extend(fragments)
        self.bench.run()
        return self.heard[before:]

    @property
    def alive(self):
        return self.number in self.bench.wires

    @property
    def greeted(self):
        return any(isinstance(one, Greeted) for one in self.news)

    @property
    def verified(self):
        return any(isinstance(one, Verified) for one in self.news)

    @property
    def ended(self):
        return next((one for one in self.news if isinstance(one, Ended)), None)

    @property
    def events(self):
        return [one.event for one in self.news if isinstance(one, Told)]


def events_of(wire, start=1):
    """All events of the strike, asked for page by page."""
    found = []
    while page := frames.open_events(wire.ask(Command(Op.EVENTS), frames.events_from(start)).body):
        found += page
        start = page[-1].seq + 1
    return found


def with_psk(paired, psk):
    return replace(paired, psk=psk)
