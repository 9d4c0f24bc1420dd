"""Random and mutated frames into both ends: no crash, no unlock, and no more memory than one message."""

import random

import pytest

from tests.core.doorstrike.bench import Bench, unlock
from vestibule_core.doorstrike.client import Ended
from vestibule_core.doorstrike.fragments import FIRST, LAST, cut
from vestibule_core.doorstrike.wire import Command, Op
from vestibule_core.errors import StrikeUnreachable

HOW_MANY = [
    pytest.param(2_000, id="2000"),
    pytest.param(100_000, id="100000", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
]


def mutated(rng, known):
    """A frame: noise, a known one with something changed, or a well cut message of any content."""
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randrange(60))
        case 1:
            frame = bytearray(rng.choice(known))
            for _ in range(rng.randrange(1, 4)):
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            return bytes(frame)
        case 2:
            frame = rng.choice(known)
            return frame[: rng.randrange(len(frame) + 1)] + rng.randbytes(rng.choice([0, 0, 3]))
        case _:
            message = bytes([rng.choice([0, 1, 2, 3, 4, 0x7F])]) + rng.randbytes(rng.choice([0, 1, 27, 40, 69, 73]))
            return bytes([FIRST | LAST]) + len(message).to_bytes(2) + message


def say_anything(bench, frames):
    """Write that many frames to a strike on any bench, from strangers and within sessions."""
    rng = random.Random(frames)
    paired = bench.pair()
    recorded = bench.connect(paired)
    recorded.ask(unlock())
    known = [*recorded.sent, *recorded.heard, *cut(b"\x00", 20)]
    recorded.close()
    bench.wait(1)
    wire = None
    for _ in range(frames):
        if wire is None or not wire.alive:
            if rng.random() < 0.2:
                wire = bench.session(paired)
            else:
                wire, hello = bench.connect_raw()
                known[-1] = hello
            wire.take_over()
        if rng.random() < 0.1:
            bench.wait(rng.choice([0.1, 1.0, 5.0]))
        wire.write(mutated(rng, known))
        del wire.heard[:], wire.sent[:]
        bench.forget()
    assert bench.pulses == [0.5], "the recorded one"
    strike = bench.strike
    assert len(strike._links) <= 8
    assert all(len(link.incoming._so_far) <= 512 for link in strike._links.values())
    assert len(strike._device.history.events) <= 256
    assert sum(map(len, bench.flash.values())) < 10_000
    bench.wait(61)
    assert bench.connect(paired).ask(unlock(b"\x01" * 16)) is not None, "and the door still opens"


@pytest.mark.parametrize("frames", HOW_MANY)
def test_frames_into_the_strike(frames):
    say_anything(Bench(seed=2), frames)


@pytest.mark.parametrize("frames", HOW_MANY)
def test_frames_into_the_client(frames):
    rng = random.Random(frames)
    bench = Bench(seed=3)
    paired = bench.pair()
    recorded = bench.connect(paired)
    recorded.ask(unlock())
    known = [*recorded.heard, *recorded.sent]
    recorded.close()
    wire, told = None, []
    for _ in range(frames):
        if wire is None or not wire.alive:
            wire = bench.connect(paired)
            asked = rng.choice([None, Command(Op.QUERY), Command(Op.PING)])
            if asked is not None:
                wire.ask(asked) if rng.random() < 0.5 else wire.send(asked)
            before = len(wire.news)
        outputs = wire.client.notified(mutated(rng, known), bench.now)
        wire.take(outputs)
        told += [one for one in wire.news[before:] if not isinstance(one, Ended)]
        before = len(wire.news)
        assert len(wire.client._incoming._so_far) <= 512
        if rng.random() < 0.1:
            bench.wait(rng.choice([0.1, 1.0, 5.0]))
            before = len(wire.news)
        del bench.performed[:]
    assert told == [], "nothing of it is believed"
    assert bench.pulses == [0.5], "the recorded one"


def test_a_client_that_has_ended_stays_so():
    bench = Bench()
    wire = bench.connect(bench.pair())
    wire.to_client.append(b"")
    bench.run()
    with pytest.raises(StrikeUnreachable):
        wire.send(unlock())
