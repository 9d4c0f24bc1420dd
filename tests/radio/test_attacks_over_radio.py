"""Rows 41 to 60, 71 to 75, 80 and 81 of the attack table (protocol F), packet by packet, over the virtual radio.

The tests are those of tests/core/doorstrike/test_attacks.py, on another bench (bench.py): the strike is its whole
program on a Bluetooth stack, the relay is one in memory whose log is compared, a client or an attacker is a bleak
client on a stack of its own, and whoever is in the middle sits on the ether. Rows that have an honest client are in
test_driver_attacked.py as well, where that client is the driver, and what is looked at is what comes out of it.

| row | what | here | with the driver |
|---|---|---|---|
| 41 | a handshake replayed | on the same link, on a new one | recorded, replayed by a stranger |
| 42 | a handshake held back | 4.9 s, 5.0 s, half of it, a fourth HELLO_REQ | until nobody looks |
| 43 | a good handshake after a bad one | one link | |
| 44 | HELLO rewritten | caps, version | caps, version |
| 45 | a handshake for a fake strike's old HELLO | taken to the real one | taken to the real one |
| 46 | a wrong key, a slot that is not there | the same ERR | |
| 47 | a key of low order, another length | strike and client | |
| 48 | a bit flipped | HS1, HS2, DATA both ways | the same |
| 49 | DATA twice, dropped, in another order | both ways | both ways |
| 50 | a message out of turn | four of them | |
| 51 | broken fragments | to the strike, to the client | instead of the answer |
| 52 | half a message, and no more | to the strike, to the client | to the driver |
| 53 | the same spend again | reconnected, a second controller | the same; eighty others: core, test_rate.py |
| 54 | the link lost | after the handshake | test_strike_over_radio.py: at every packet, 200 times at random |
| 55 | no right | to move, to read, to administer | all that it can ask for |
| 56 | a long pulse, a controller that vanishes | both | vanishes |
| 57 | pairing without button, code or window | all of them | without button, another code |
| 58 | a recorded pairing, a label that leaks | nothing opens | the key is not in it |
| 59 | a flood of advertisements | | a poll now and then, fewer and fewer |
| 60 | another version, another strike | both | both, and the real one after it |
| 71 | the button and the code of a strike in use | the power cut at every step too | a second driver |
| 72 | a request that arrives late | 4.9 s, 6 s, 59 s, another link | 6.5 s, 59 s |
| 73 | a query after another controller's unlock | four of them | with the first answer lost |
| 74 | a brown-out | before the relay, during the pulse | at every effect of an unlock |
| 75 | DUPLICATE of what was never sent | one | one |
| 80 | a torn ring | four of them, and a second power-up | one |
| 81 | two hosts from one backup | one after the other | one after the other, at once |
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from gateway.strike import air
from tests.core.doorstrike import test_attacks as attacks
from tests.core.doorstrike.test_attacks import *  # noqa: F403 - all of them
from tests.core.doorstrike.test_fuzz import say_anything
from tests.gateway.strike.strikes import OFTEN

from .bench import RadioBench

ROWS = [*range(41, 61), *range(71, 76), 80, 81]
WITHOUT_A_LINK = {"test_row_47_a_strike_with_a_key_of_low_order"}

for name in WITHOUT_A_LINK:
    del globals()[name]


def some(count):
    """Every ninth place in each run, the others in a long one."""
    return [pytest.param(place, marks=[] if place % 9 == 0 else pytest.mark.long) for place in range(count)]


@pytest.fixture
def new_bench(tmp_path, monkeypatch, radio_time):
    """In place of the one that makes benches without a radio."""
    monkeypatch.setattr(air, "INTERVAL", OFTEN)
    benches = []

    def new():
        number = len(benches)
        folder = tmp_path / str(number)
        folder.mkdir()
        benches.append(RadioBench(folder, random.Random(number).randbytes))
        return benches[-1]

    yield new
    for bench in benches:
        bench.close()


@pytest.mark.parametrize("place", some(70))
def test_row_48_a_bit_of_the_handshake_flipped_on_the_way_there(bench, paired, place):
    attacks.test_row_48_a_bit_of_the_handshake_flipped_on_the_way_there(bench, paired, place)


@pytest.mark.parametrize("place", some(74))
def test_row_48_a_bit_of_the_handshake_flipped_on_the_way_back(bench, paired, place):
    attacks.test_row_48_a_bit_of_the_handshake_flipped_on_the_way_back(bench, paired, place)


@pytest.mark.parametrize("place", some(41))
def test_row_48_a_bit_of_a_request_flipped(bench, paired, place):
    attacks.test_row_48_a_bit_of_a_request_flipped(bench, paired, place)


@pytest.mark.parametrize("place", some(44))
def test_row_48_a_bit_of_a_reply_flipped(bench, paired, place):
    attacks.test_row_48_a_bit_of_a_reply_flipped(bench, paired, place)


@pytest.mark.parametrize(
    "frames", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])], ids=str
)
def test_random_frames_into_the_strike(bench, frames):
    say_anything(bench, frames)


def test_no_attack_is_left_out():
    names = {name for name in vars(attacks) if name.startswith("test_")}
    assert names - set(globals()) == WITHOUT_A_LINK


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test_on_the_radio(row):
    driver = (Path(__file__).parent / "test_driver_attacked.py").read_text("utf-8")
    assert any(name.startswith(f"test_row_{row}_") for name in [*globals(), *re.findall(r"test_row_\w+", driver)])
    assert re.search(rf"^\| {row} \|", __doc__, re.MULTILINE)
