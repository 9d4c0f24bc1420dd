"""A Shelly: what it is told, what comes of answers that are late, lost or wrong, and who is not believed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import socket
import sys
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay import shelly as module
from gateway.relay import shelly_rpc as rpc
from gateway.relay.config import open_boards, read_boards
from gateway.relay.shelly import seconds_on
from gateway.source import Unusable
from gateway.toml_table import Table
from tests.conftest import ROOT
from vestibule_core.door import Lock
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.model import Code, EventName, Sense
from vestibule_core.strike import Pulse, Reading

from .boards import ANN, PULSE, QUICK, Door, hurry, shelly, until, until_reachable
from .shelly_unit import FIRMWARE_1, FIRMWARE_2, FIRST_GENERATION, ID, LOOPBACK, PASSWORD, ShellyUnit

OTHER = "shellyplus2-ffffffffffff"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
async def unit():
    async with ShellyUnit() as unit:
        yield unit


@asynccontextmanager
async def at_work(unit, *, wait=True, **changes):
    board = shelly(unit, **changes)
    await board.start()
    try:
        if wait:
            await until_reachable(board)
        yield board
    finally:
        await board.stop()


@pytest.fixture
async def board(unit):
    async with at_work(unit) as board:
        yield board


def commands(unit):
    """What was sent to switch, carried out or turned away."""
    return [frame["params"] for frame in unit.frames if frame["method"] == "Switch.Set"]


async def reason_of(board, says):
    """Wait until it says why it does not answer."""
    await until(lambda: board.reason is not None and says in board.reason)
    with pytest.raises(StrikeUnreachable) as raised:
        await board.channel(1).release(PULSE)
    assert says in str(raised.value)


# ---- what it is told ----


@given(st.floats(0.001, 4000))
def test_a_timer_is_never_shorter_than_asked_for_and_less_than_a_tenth_longer(seconds):
    assert -1e-6 <= seconds_on(seconds) - max(seconds, 0.1) < 0.1


@pytest.mark.parametrize("seconds, timer", [(0.3, 0.3), (0.7, 0.7), (5.0, 5.0), (5.01, 5.1), (0.0, 0.1)])
def test_tenths_of_a_second_are_counted_without_a_rounding_error(seconds, timer):
    assert seconds_on(seconds) == timer


ON, OFF, TIMED = {"id": 1, "on": True}, {"id": 1, "on": False}, {"id": 1, "on": True, "toggle_after": 5.0}


@pytest.mark.parametrize(
    "verb, told",
    [
        pytest.param("release", [TIMED], id="a release is an on that the unit ends"),
        pytest.param("hold", [ON], id="a hold is a plain on"),
        pytest.param("secure", [OFF], id="off"),
        pytest.param("reach", [], id="whether it hears is asked without a command"),
        pytest.param("release hold", [TIMED, OFF, ON], id="a timer that is running is ended before a hold"),
    ],
)
@pytest.mark.parametrize("firmware", [FIRMWARE_1, FIRMWARE_2])
async def test_the_unit_is_told_word_for_word(verb, told, firmware):
    async with ShellyUnit(firmware=firmware) as unit, at_work(unit) as board:
        strike = board.channel(2)
        do = {"reach": strike.reach, "secure": strike.secure, "hold": lambda: strike.hold(None),
              "release": lambda: strike.release(PULSE)}  # fmt: skip
        for one in verb.split():
            await do[one]()
        assert commands(unit) == unit.orders == told


async def test_a_release_is_one_request_on_the_connection_that_reach_has_proven(unit):
    async with at_work(unit, poll=30.0) as board:
        await until(lambda: "Shelly.GetConfig" in unit.methods)
        await board.channel(1).reach()
        before = len(unit.frames)
        await board.channel(1).release(PULSE)
        assert unit.methods[before:] == ["Switch.Set", "Switch.GetStatus"]
        assert unit.connections == 1
        assert unit.turned_away == 0


# ---- start and stop ----


async def test_nothing_moves_at_the_start_and_an_output_that_is_on_is_left_to_its_owner(unit):
    unit.operate(2, True)
    async with at_work(unit) as board:
        assert board.channel(2).reading is Reading.RELEASED
        assert board.channel(1).reading is Reading.SECURED
        await until(lambda: len(unit.frames) > 10)
    assert commands(unit) == []
    assert unit.relays[1]


async def test_what_it_left_on_is_off_after_the_stop_and_nothing_else_is_touched():
    async with ShellyUnit(outputs=4) as unit:
        unit.operate(4, True)
        async with at_work(unit, outputs=4) as board:
            await board.channel(2).hold(None)
            await board.channel(3).release(Pulse(bytes(16), 60.0))
        assert unit.relays == [False, False, True, True], "a timed release ends itself"
        await until(lambda: not unit.is_connected)


async def test_a_hold_that_a_release_has_followed_is_ended_by_the_unit(unit):
    async with at_work(unit) as board:
        await board.channel(2).hold(None)
        await board.channel(2).release(Pulse(bytes(16), 0.3))
    assert unit.relays[1]
    await until(lambda: not unit.relays[1])
    assert [order["on"] for order in unit.orders] == [True, True]


async def test_a_hold_without_an_answer_is_ended_at_the_stop(unit):
    async with at_work(unit) as board:
        unit.lose_answers()
        with pytest.raises(OutcomeUnknown):
            await board.channel(2).hold(None)
        assert unit.relays[1]
        unit.obey()
    assert not unit.relays[1]


async def test_a_hold_that_was_refused_leaves_the_output_to_its_owner_at_the_stop(unit):
    async with at_work(unit) as board:
        unit.operate(2, True)
        unit.decline(-109)
        with pytest.raises(StrikeRefused):
            await board.channel(2).hold(None)
        unit.obey()
    assert unit.relays[1]


async def test_a_dead_unit_does_not_keep_the_gateway_from_stopping(caplog):
    async with ShellyUnit(outputs=4) as unit:
        board = shelly(unit, outputs=4)
        await board.start()
        await until_reachable(board)
        for number in range(1, 5):
            await board.channel(number).hold(None)
        unit.fall_silent()
        async with asyncio.timeout(6 * module.ANSWER):
            await board.stop()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["output_left_on"] * 4


async def test_a_unit_that_is_not_there_at_the_start_is_found_when_it_comes(unit):
    await unit.cut_power()
    async with at_work(unit, wait=False) as board:
        assert board.input(1).sense is Sense.UNKNOWN
        await until(lambda: board.input(1).sense is Sense.FAULT)
        assert board.channel(1).reading is Reading.UNKNOWN
        assert "takes no connection" in board.channel(1).reason
        await unit.restore_power()
        await until_reachable(board)
        assert board.input(1).sense is Sense.INACTIVE
        assert board.channel(1).reason is None


RELEASES = """
import asyncio, sys
from tests.gateway.relay.boards import shelly, until_reachable
from vestibule_core.strike import Pulse

class Where:
    port = int(sys.argv[1])

async def release():
    board = shelly(Where)
    await board.start()
    await until_reachable(board)
    await board.channel(1).release(Pulse(bytes(16), 0.5))
    print("released", flush=True)
    await asyncio.sleep(60)

asyncio.run(release())
"""


async def test_a_release_is_ended_by_the_unit_although_the_gateway_was_killed(unit):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RELEASES, str(unit.port), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert await process.stdout.readline() == b"released\n"
    process.kill()
    await process.wait()
    process._transport.close()
    assert unit.relays[0]
    await until(lambda: not unit.relays[0])
    assert commands(unit) == [{"id": 0, "on": True, "toggle_after": 0.5}]


# ---- a door on it ----


async def test_an_unlock_is_one_release_and_the_door_says_when_it_is_locked_again(unit, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await until(lambda: EventName.DOOR_RELOCKED in site.outcomes)
        assert [order for order in unit.orders if order["on"]] == [{"id": 0, "on": True, "toggle_after": 0.5}]
        assert EventName.RELAY_OPERATED_ELSEWHERE not in site.outcomes


async def test_an_unlock_whose_answer_was_lost_is_unknown_and_one_release(unit, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        unit.lose_answers()
        decision = await site.controller.by_hand.open(site.door.id, ANN)
        assert decision.code is Code.OUTCOME_UNKNOWN
        unit.obey()
        await until(lambda: not unit.relays[0])
        assert [order["on"] for order in unit.orders].count(True) == unit.movements[0] == 1


async def test_a_relay_that_somebody_else_switches_is_told_of(unit, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        await until(lambda: site.state.lock is Lock.LOCKED)
        unit.operate(1, True)
        await until(lambda: EventName.RELAY_OPERATED_ELSEWHERE in site.outcomes)


# ---- the password ----


async def test_a_401_to_a_release_says_that_nothing_moved_and_is_not_answered_with_another_one(unit):
    async with at_work(unit, poll=30.0) as board:
        await until(lambda: "Shelly.GetConfig" in unit.methods)
        await board.channel(1).reach()
        unit.forget_challenges()  # between reach and release
        with pytest.raises(StrikeRefused) as raised:
            await board.channel(1).release(PULSE)
        assert not raised.value.may_have_succeeded
        assert len(commands(unit)) == 1
        assert unit.orders == []
        await board.channel(1).release(PULSE)  # the next one has the new challenge
        assert unit.movements[0] == 1


async def test_a_challenge_that_ran_out_is_replaced_before_a_token_is_spent(unit):
    async with at_work(unit, poll=30.0) as board:
        await until(lambda: "Shelly.GetConfig" in unit.methods)
        unit.forget_challenges()
        await board.channel(1).reach()
        await board.channel(1).release(PULSE)
        assert len(commands(unit)) == unit.movements[0] == 1


async def test_a_challenge_is_replaced_before_it_runs_out(unit, monkeypatch):
    monkeypatch.setattr(module, "FRESH", 0.05)
    async with at_work(unit):
        await until(lambda: sum("auth" not in frame for frame in unit.frames) >= 5)
    assert unit.turned_away == 0, "each was still good"


async def test_one_challenge_serves_many_requests_with_rising_counts(unit, board):
    await until(lambda: len(unit.frames) > 30)
    proofs = [frame["auth"] for frame in unit.frames if "auth" in frame]
    assert len({proof["nonce"] for proof in proofs}) == 1
    assert [proof["nc"] for proof in proofs] == list(range(1, len(proofs) + 1))
    assert len({proof["cnonce"] for proof in proofs}) == len(proofs)


@pytest.mark.parametrize("firmware", [FIRMWARE_1, FIRMWARE_2])
async def test_a_wrong_password_is_said_and_not_tried_until_the_unit_locks_everybody_out(firmware, monkeypatch):
    monkeypatch.setattr(module, "LOCKED_OUT", 60.0)
    async with ShellyUnit(firmware=firmware) as unit, at_work(unit, wait=False, password="guess") as board:
        await reason_of(board, "does not take the password")
        for _ in range(20):
            with pytest.raises(StrikeUnreachable):
                await board.channel(1).reach()
        assert unit.turned_away == 1
        assert commands(unit) == []


async def test_a_password_that_is_right_again_is_tried_after_a_while(unit):
    unit.password = "another one"
    async with at_work(unit, wait=False) as board:
        await reason_of(board, "does not take the password")
        unit.password = PASSWORD
        await until_reachable(board)


async def test_a_unit_that_has_locked_everybody_out_is_left_alone(unit, monkeypatch):
    monkeypatch.setattr(module, "LOCKED_OUT", 60.0)
    unit.decline(429, method="Shelly.GetStatus")
    async with at_work(unit, wait=False) as board:
        await reason_of(board, "too many attempts")
        before = unit.connections
        await asyncio.sleep(5 * module.LONGEST_RETRY)
        assert unit.connections == before


async def test_a_unit_that_locks_out_at_the_release_has_not_moved_and_is_asked_for_a_challenge_first(unit):
    async with at_work(unit, poll=30.0) as board:
        await until(lambda: "Shelly.GetConfig" in unit.methods)
        unit.decline(429)
        with pytest.raises(StrikeRefused):
            await board.channel(1).release(PULSE)
        unit.obey()
        await board.channel(1).release(PULSE)
        assert [("auth" in frame) for frame in unit.frames if frame["method"] == "Switch.Set"] == [True, True]
        assert unit.movements[0] == 1


async def test_a_challenge_of_another_unit_gets_no_proof(unit):
    def other_realm(_, due):
        return due.replace(f'\\"{ID}\\"', f'\\"{OTHER}\\"')

    unit.garble(other_realm)
    async with at_work(unit, wait=False) as board:
        await reason_of(board, "something else on this address")
        assert not any("auth" in frame for frame in unit.frames)


# ---- who is not believed ----


async def test_a_unit_without_a_password_is_refused(unit):
    unit.password = None
    async with at_work(unit, wait=False) as board:
        await reason_of(board, "has no password")
        assert set(unit.methods) == {"Shelly.GetDeviceInfo"}


async def test_a_unit_whose_password_is_taken_away_is_refused_from_then_on(unit):
    async with at_work(unit) as board:
        await board.channel(1).reach()
        unit.password = None
        await unit.restart()
        await reason_of(board, "has no password")
        assert commands(unit) == []


async def test_a_unit_without_a_password_is_taken_if_one_says_so_and_that_is_logged(unit, caplog):
    unit.password = None
    async with at_work(unit, password=None) as board:
        await board.channel(1).release(PULSE)
        await until(lambda: [r for r in caplog.records if r.message == "board_endangered"])
        assert unit.movements[0] == 1
    (record,) = [record for record in caplog.records if record.message == "board_endangered"]
    assert "no password" in record.facts["reason"]


async def test_a_unit_that_wants_a_password_which_nobody_told_is_not_asked_further(unit):
    async with at_work(unit, wait=False, password=None) as board:
        await reason_of(board, "password_file")
        assert set(unit.methods) == {"Shelly.GetDeviceInfo"}


async def test_another_unit_on_the_address_is_sent_nothing(unit):
    async with at_work(unit, wait=False, device=OTHER) as board:
        await reason_of(board, f"another unit answers on its address: {ID}")
        assert {json.dumps(sorted(frame)) for frame in unit.frames} == {'["id", "method", "params", "src"]'}
        assert set(unit.methods) == {"Shelly.GetDeviceInfo"}


async def test_a_unit_that_is_exchanged_gets_no_release_and_no_proof(unit):
    async with at_work(unit, device=ID.upper().replace("SHELLYPLUS2", "shellyplus2")) as board:
        await board.channel(1).reach()
        await unit.cut_power()
        before = len(unit.frames)
        unit.id = OTHER
        await unit.restore_power()
        await reason_of(board, "another unit answers")
        assert not any("auth" in frame for frame in unit.frames[before:])
        assert commands(unit) == []


@pytest.mark.parametrize(
    "said, says",
    [
        pytest.param(FIRST_GENERATION, "first generation", id="a Shelly of the first generation"),
        pytest.param({"hello": "world"}, "takes no WebSocket (HTTP 404)", id="something else"),
        pytest.param(
            FIRST_GENERATION | {"": "x" * 100_000},
            "takes no WebSocket (HTTP 404)",
            id="something that talks without end",
        ),
    ],
)
async def test_what_is_no_shelly_of_the_second_generation_is_refused_in_words(unit, said, says):
    unit.be_something_else(said)
    async with at_work(unit, wait=False) as board:
        await reason_of(board, says)


async def test_a_redirect_is_not_followed(unit):
    async with ShellyUnit() as other:
        unit.redirect(f"http://{LOOPBACK}:{other.port}/rpc")
        async with at_work(unit, wait=False) as board:
            await reason_of(board, "elsewhere (HTTP 307)")
            await asyncio.sleep(4 * module.LONGEST_RETRY)
        assert (other.connections, other.frames) == (0, [])


@pytest.mark.parametrize(
    "changes, says",
    [
        pytest.param({"outputs": 3}, "it has 2 outputs, not 3", id="outputs"),
        pytest.param({"inputs": 4}, "it has 2 inputs, not 4", id="inputs"),
    ],
)
async def test_a_unit_with_fewer_lines_than_it_should_have_is_refused(unit, changes, says):
    async with at_work(unit, wait=False, **changes) as board:
        await reason_of(board, says)
        assert commands(unit) == []


async def test_a_unit_is_not_listened_to_before_it_has_said_who_it_is(unit):
    def push(frame, due):
        if frame["method"] == "Shelly.GetDeviceInfo":
            unit.say('{"method": "NotifyStatus", "params": {"switch:0": {"output": true}, "input:0": {"state": true}}}')
        return due

    unit.garble(push)
    board = shelly(unit, device=OTHER)
    heard = []
    board.channel(1).subscribe(heard.append)
    board.input(1).subscribe(heard.append)
    async with asyncio.timeout(5):
        with pytest.raises(StrikeUnreachable):
            await board.probe()
    assert set(heard) == {Sense.FAULT}


async def test_a_unit_that_may_be_exchanged_gets_no_proof_that_was_made_for_the_other_one(unit):
    async with at_work(unit) as board:
        await unit.cut_power()
        await until(lambda: not board.channel(1).is_reachable)
        before = len(unit.frames)
        unit.id = OTHER
        await unit.restore_power()
        await until_reachable(board)
        assert {frame["auth"]["realm"] for frame in unit.frames[before:] if "auth" in frame} == {OTHER}


# ---- answers that are late, lost or wrong ----


async def test_a_lost_answer_is_an_unknown_outcome_and_the_command_is_never_repeated(unit, board):
    unit.lose_answers()
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    unit.obey()
    await until(lambda: unit.connections > 1)
    await until(lambda: board.channel(1).reading is Reading.RELEASED)  # it is found out by looking
    assert len(commands(unit)) == 1


async def test_an_answer_that_comes_too_late_is_an_unknown_outcome_and_is_not_taken_for_the_next_one(unit, board):
    unit.be_slow(2 * module.ANSWER)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    unit.obey()
    await until_reachable(board)
    await board.channel(2).release(PULSE)
    assert unit.movements == [1, 1]


async def test_a_unit_that_dies_of_the_release_is_an_unknown_outcome_at_once(unit, board):
    def die(frame, due):
        if frame["method"] != "Switch.Set":
            return due
        unit.hang_up()
        return ""

    unit.garble(die)
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert asyncio.get_running_loop().time() - began < module.ANSWER, "nobody waits for a link that is gone"
    assert len(commands(unit)) == 1


async def test_a_unit_that_talks_nonsense_instead_of_an_answer_is_not_waited_for(unit, board):
    def rave(frame, due):
        if frame["method"] != "Switch.Set":
            return due
        unit.say('{"method": "NotifyStatus", "params": {"switch:0": {"output": "maybe"}}}')
        return ""

    unit.garble(rave)
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert asyncio.get_running_loop().time() - began < module.ANSWER


async def test_a_unit_that_restarts_between_reach_and_release_moves_once_on_a_connection_that_it_knows(unit):
    async with at_work(unit, poll=30.0) as board:
        await board.channel(1).reach()
        await unit.restart()
        await until(lambda: not board.channel(1).is_reachable)
        await board.channel(1).release(PULSE)
        assert len(commands(unit)) == unit.movements[0] == 1


async def test_a_unit_that_is_gone_between_reach_and_release_was_told_nothing(unit):
    async with at_work(unit, poll=30.0) as board:
        await board.channel(1).reach()
        await unit.cut_power()
        await until(lambda: not board.channel(1).is_reachable)
        with pytest.raises(StrikeUnreachable):
            await board.channel(1).release(PULSE)
    assert commands(unit) == []


async def test_a_caller_who_gives_up_leaves_no_answer_and_no_connection_for_the_next_one(unit, board):
    unit.lose_answers()
    asking = asyncio.create_task(board.channel(1).release(PULSE))
    await until(lambda: commands(unit))
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    unit.obey()
    await board.channel(2).release(PULSE)
    assert unit.connections == 2
    assert len(commands(unit)) == 2


async def test_a_connection_that_is_given_up_is_reset_so_that_nothing_is_delivered_later():
    ended = asyncio.get_running_loop().create_future()

    async def mute(reader, writer):
        try:
            while await reader.read(1000):
                pass
            ended.set_result(None)
        except ConnectionError as error:
            ended.set_result(error)
        finally:
            writer.close()

    server = await asyncio.start_server(mute, LOOPBACK, 0)

    class Mute:
        port = server.sockets[0].getsockname()[1]

    async with server:
        with pytest.raises(StrikeUnreachable, match="takes no connection"):
            await shelly(Mute).probe()
        assert isinstance(await ended, ConnectionResetError)


def _of_another(_, due):
    return json.dumps(json.loads(due) | {"id": 999_999})


ANSWERS = [
    pytest.param(_of_another, id="to another request"),
    pytest.param(lambda *_: "\0", id="that is no JSON"),
    pytest.param(lambda *_: "[" * 50_000, id="that is deeper than anybody reads"),
    pytest.param(lambda *_: "[]", id="that is a list"),
    pytest.param(lambda frame, _: json.dumps({"id": frame["id"]}), id="with nothing in it"),
    pytest.param(lambda frame, _: json.dumps({"id": frame["id"], "result": {}}), id="with an empty result"),
    pytest.param(
        lambda frame, _: json.dumps({"id": frame["id"], "result": {"was_on": 1}}), id="with a number for a bool"
    ),
    pytest.param(lambda frame, _: json.dumps({"id": True, "result": {"was_on": False}}), id="with an id that is none"),
    pytest.param(lambda frame, _: json.dumps({"id": frame["id"], "error": "no"}), id="with an error without a code"),
    pytest.param(lambda _, due: due + " " * 100_000, id="that is larger than any"),
    pytest.param(lambda _, due: due.encode(), id="in binary"),
]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_bad_answer_to_a_release_is_an_unknown_outcome_and_is_survived(unit, board, answer):
    unit.garble(lambda frame, due: answer(frame, due) if frame["method"] == "Switch.Set" else due)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert len(commands(unit)) == 1
    unit.obey()
    await until_reachable(board)
    await board.channel(1).release(PULSE)


@pytest.mark.parametrize("method", ["Shelly.GetDeviceInfo", "Shelly.GetStatus"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_unit_that_answers_badly_is_unreachable_and_moves_nothing(unit, answer, method):
    unit.garble(lambda frame, due: answer(frame, due) if frame["method"] == method else due)
    async with at_work(unit, wait=False) as board:
        await until(lambda: board.reason is not None)
        with pytest.raises(StrikeUnreachable):
            await board.channel(1).reach()
        assert commands(unit) == []
        unit.obey()
        await until_reachable(board)


@pytest.mark.parametrize(
    "method, before, after",
    [
        ("Shelly.GetDeviceInfo", '"SNSW-102X16EU"', '"\\u001b[2J"'),  # would clear somebody's screen
        ("Shelly.GetDeviceInfo", '"auth_en": true', '"auth_en": "yes"'),
        ("Shelly.GetStatus", '"output": false', '"output": "off"'),
        ("Switch.GetStatus", '"output": false', '"output": null'),
        ("Switch.GetStatus", '"output"', '"ison"'),
    ],
)
async def test_an_answer_of_another_form_than_documented_is_not_believed(unit, method, before, after):
    unit.garble(lambda frame, due: due.replace(before, after) if frame["method"] == method else due)
    async with at_work(unit, wait=False, poll=30.0) as board:
        with pytest.raises(StrikeUnreachable, match="no answer to what it was asked"):
            await board.channel(1).reach()
        assert commands(unit) == []


async def test_a_unit_that_cannot_say_how_it_is_moves_nothing(unit):
    unit.decline(-114, method="Shelly.GetStatus")
    async with at_work(unit, wait=False) as board:
        await reason_of(board, "does not answer Shelly.GetStatus (error -114)")
        assert commands(unit) == []


def test_a_first_generation_that_spoke_rpc_would_be_refused_all_the_same():
    assert rpc.objection(rpc.Unit(ID, 1, "SHSW-25", "1.14", True), None, has_password=True) == rpc.FIRST_GENERATION


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            '{"method": "NotifyStatus", "params": {"switch:0": {"output": "on"}}}', id="an output that is a word"
        ),
        pytest.param('{"method": 3}', id="a method that is none"),
        pytest.param(b"\x00\x01", id="bytes"),
    ],
)
async def test_a_bad_notification_ends_the_connection_and_another_one_is_made(unit, board, said):
    unit.say(said)
    await until(lambda: unit.connections > 1)
    await until_reachable(board)


@pytest.mark.parametrize(
    "said",
    [
        '{"method": "NotifyEvent", "params": {"events": [{"component": "input:0", "event": "btn_down"}]}}',
        '{"method": "NotifyStatus"}',
        '{"method": "NotifyStatus", "params": {"switch:0": null, "input:7": {"state": true}}}',
        '{"method": "NotifyStatus", "params": {"switch:1": {"apower": 3}, "input:1": {"percent": 3}}}',
        '{"id": 7, "src": "x", "method": "Shelly.Beep"}',
    ],
)
async def test_a_notification_of_something_else_changes_nothing(unit, board, said):
    unit.say(said)
    before = len(unit.frames)
    await until(lambda: len(unit.frames) > before + 4)
    assert unit.connections == 1
    assert {board.channel(1).reading, board.channel(2).reading} == {Reading.SECURED}


@pytest.mark.parametrize(
    "code, error",
    [
        (401, StrikeRefused),
        (404, StrikeRefused),
        (429, StrikeRefused),
        (-103, StrikeRefused),
        (-105, StrikeRefused),
        (-109, StrikeRefused),
        (-104, OutcomeUnknown),  # its own deadline
        (-113, OutcomeUnknown),  # it failed while it did it
        (500, OutcomeUnknown),
        (-1, OutcomeUnknown),
    ],
)
async def test_an_error_is_read_as_no_only_where_nothing_can_have_moved(unit, board, code, error):
    if code == 401:
        challenge = {"nonce": "x", "nc": 1, "realm": ID, "algorithm": "SHA-256"}
        answer = {"error": {"code": 401, "message": json.dumps(challenge)}}
        unit.garble(lambda f, due: json.dumps({"id": f["id"]} | answer) if f["method"] == "Switch.Set" else due)
    else:
        unit.decline(code)
    with pytest.raises(error) as raised:
        await board.channel(1).release(PULSE)
    assert raised.value.may_have_succeeded is (error is OutcomeUnknown)
    assert len(commands(unit)) == 1


async def test_a_relay_that_does_not_follow_is_not_taken_for_open(unit, board):
    unit.stick(1)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)


async def test_a_relay_that_stays_on_is_not_taken_for_locked(unit, board):
    await board.channel(1).release(PULSE)
    unit.stick(1)
    with pytest.raises(StrikeRefused):
        await board.channel(1).secure()
    assert board.channel(1).reading is Reading.RELEASED


async def test_a_unit_that_is_lost_after_it_confirmed_has_confirmed(unit, board):
    def confirm_and_die(frame, due):
        if frame["method"] == "Switch.Set":
            unit.fall_silent()
        return due

    unit.garble(confirm_and_die)
    await board.channel(1).release(PULSE)
    assert board.channel(1).reading is Reading.UNKNOWN


# ---- units and doors beside each other ----


async def test_a_silent_unit_delays_no_door_of_another_one(unit, board):
    async with ShellyUnit(outputs=4) as others, at_work(others, outputs=4) as dead:
        others.fall_silent()
        stuck = [asyncio.create_task(dead.channel(number).release(PULSE)) for number in range(1, 5)]
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await board.channel(1).reach()
        await board.channel(1).release(PULSE)
        assert asyncio.get_running_loop().time() - began < module.ANSWER / 2
        errors = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(error, OutcomeUnknown | StrikeUnreachable) for error in errors)
        assert others.movements == [0] * 4


async def test_a_silent_unit_makes_its_own_doors_unreachable_not_one_after_the_other():
    async with ShellyUnit(outputs=4) as unit, at_work(unit, outputs=4) as board:
        unit.fall_silent()
        await until(lambda: not board.channel(1).is_reachable)
        began = asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(board.channel(number).reach()) for number in (1, 2, 3, 4) * 2]
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, StrikeUnreachable) for error in errors)
        assert asyncio.get_running_loop().time() - began < 7 * module.ANSWER, "it would be eight"
        assert {board.input(number).sense for number in (1, 2)} == {Sense.FAULT}


async def test_doors_of_one_unit_are_told_one_at_a_time_and_each_once():
    async with ShellyUnit(outputs=4) as unit, at_work(unit, outputs=4) as board:
        await asyncio.gather(*(board.channel(number).release(PULSE) for number in range(1, 5)))
        assert unit.movements == [1] * 4
        assert unit.connections == 1


async def test_a_unit_that_is_back_is_reached_at_once_by_whoever_wants_in(unit, monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY", 60.0)
    monkeypatch.setattr(module, "LONGEST_RETRY", 60.0)
    async with at_work(unit) as board:
        await unit.cut_power()
        await until(lambda: not board.channel(1).is_reachable)
        await asyncio.sleep(5 * QUICK)
        await unit.restore_power()
        await board.channel(1).reach()
        assert board.input(1).sense is Sense.INACTIVE
    assert commands(unit) == []


async def test_a_unit_that_stays_away_is_tried_less_and_less_and_not_all_at_once(monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY", 0.25)
    monkeypatch.setattr(module, "LONGEST_RETRY", 10.0)
    waits = []
    monkeypatch.setattr(random, "uniform", lambda least, most: waits.append((least, most)) or 0.0)
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))

        class Nobody:
            port = nobody.getsockname()[1]

        board = shelly(Nobody)
        await board.start()
        await until(lambda: len(waits) > 8)
        await board.stop()
    assert [most for _, most in waits[:8]] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert all(least == most / 2 for least, most in waits)


async def test_what_goes_on_is_said_once(unit, caplog):
    caplog.set_level(logging.INFO, "gateway")
    async with at_work(unit) as board:
        unit.fall_silent()
        await until(lambda: not board.channel(1).is_reachable)
        await asyncio.sleep(4 * module.ANSWER)
        unit.obey()
        await until_reachable(board)
    messages = [record.message for record in caplog.records]
    assert (messages.count("board_lost"), messages.count("board_back")) == (1, 1)


# ---- inputs ----


async def test_an_input_is_heard_of_without_being_asked_for(unit):
    async with at_work(unit, poll=30.0) as board:
        await until(lambda: "Shelly.GetConfig" in unit.methods)
        plain, inverted = board.input(2), board.input(2, inverted=True)
        heard = []
        stop = plain.subscribe(heard.append)
        asked = len(unit.frames)
        unit.press(2)
        await until(lambda: heard, seconds=0.5)
        assert (plain.sense, inverted.sense) == (Sense.ACTIVE, Sense.INACTIVE)
        unit.press(2, False)
        await until(lambda: len(heard) > 1, seconds=0.5)
        assert heard == [Sense.ACTIVE, Sense.INACTIVE]
        assert len(unit.frames) == asked
        stop()


async def test_a_notification_that_got_lost_is_made_up_for_by_looking(unit, board):
    unit.inputs[0] = True
    await until(lambda: board.input(1).sense is Sense.ACTIVE)


async def test_an_input_of_a_unit_that_is_away_is_out_of_order_and_nothing_else(unit, board):
    heard = []
    board.input(1, inverted=True).subscribe(heard.append)
    await unit.cut_power()
    await until(lambda: heard)
    assert heard == [Sense.FAULT]


async def test_an_input_that_is_a_button_is_no_contact(unit, board):
    unit.press(1, None)
    await until(lambda: board.input(1).sense is Sense.FAULT)
    assert board.input(1, inverted=True).sense is Sense.FAULT
    await board.channel(1).release(PULSE)


# ---- trying it out ----


async def test_a_trial_says_what_the_unit_says_and_moves_nothing(unit):
    unit.operate(2, True)
    unit.press(1)
    said = await shelly(unit).probe()
    assert said.startswith(f"SNSW-102X16EU, firmware 2.0.1, {ID}; answers in ")
    assert said.endswith(" ms; 2 outputs, on: 2; 2 inputs, closed: 1")
    assert commands(unit) == []
    await until(lambda: not unit.is_connected)


@pytest.mark.parametrize(
    "where, change, says",
    [
        ("output", {"initial_state": "on"}, "output 1 is on when the power comes back"),
        ("output", {"initial_state": "restore_last"}, "output 1 is as before"),
        ("output", {"initial_state": "match_input"}, "output 1 is as its input says"),
        ("output", {"in_mode": "follow"}, "output 1 is moved by its input"),
        ("output", {"in_mode": "flip"}, "output 1 is moved by its input"),
        ("output", {"auto_on": True}, "output 1 switches itself on"),
        ("output", {"auto_off": True}, "cannot be held open"),
        ("input", {"type": "button"}, "input 1 is disabled in the unit, or no switch"),
        ("input", {"enable": False}, "input 1 is disabled in the unit, or no switch"),
        ("input", {"invert": True}, "input 1 is inverted"),
        ("services", {"cloud": True}, "connected to a cloud"),
        ("services", {"mqtt": True}, "connected to an MQTT broker"),
        ("services", {"ws": True}, "connected to an outbound WebSocket"),
    ],
)
async def test_what_endangers_a_door_is_said_by_a_trial_and_once_in_the_log(unit, caplog, where, change, says):
    {"output": unit.output_config[0], "input": unit.input_config[0], "services": unit.services}[where].update(change)
    (warning,) = [part for part in (await shelly(unit).probe()).split("; ") if part.startswith("WARNING: ")]
    assert says in warning
    caplog.clear()
    async with at_work(unit) as board:
        await until(lambda: unit.methods.count("Shelly.GetConfig") == 2)
        await board.channel(1).release(PULSE)
        await unit.restart()
        await until(lambda: unit.methods.count("Shelly.GetConfig") == 3)
    (record,) = [record for record in caplog.records if record.message == "board_endangered"]
    assert says in record.facts["reason"]


async def test_settings_of_lines_that_are_not_used_are_nobodys_business(unit):
    unit.output_config[1]["initial_state"] = "on"
    unit.input_config[0]["invert"] = True
    assert "WARNING" not in await shelly(unit, outputs=1, inputs=0).probe()


async def test_a_trial_of_a_unit_that_is_not_there_says_so(unit):
    await unit.cut_power()
    with pytest.raises(StrikeUnreachable, match="takes no connection"):
        await shelly(unit).probe()


async def test_a_trial_of_a_unit_at_work_leaves_its_connection_alone(unit, board):
    await board.probe()
    before = len(unit.frames)
    await until(lambda: len(unit.frames) > before + 4)
    assert unit.connections == 1


# ---- secrets ----


async def test_neither_the_password_nor_a_proof_is_ever_logged_or_in_an_error(unit, caplog):
    caplog.set_level(logging.DEBUG)
    errors = []

    async def tried(command):
        try:
            await command
        except Exception as error:
            errors.append(error)

    async with at_work(unit) as board:
        await tried(board.channel(1).release(PULSE))
        unit.forget_challenges()
        await tried(board.channel(1).release(PULSE))
        unit.lose_answers()
        await tried(board.channel(1).release(PULSE))
        unit.garble(
            lambda frame, due: json.dumps(frame) if frame["method"] == "Switch.Set" else due
        )  # echoes the proof
        await until_reachable(board)
        await tried(board.channel(1).release(PULSE))
        unit.obey()
        unit.password = "another one"
        await unit.restart()
        await reason_of(board, "does not take the password")
        await tried(board.probe())
        said = f"{board.reason} {board!r} {vars(board.channel(1))}"
    chain = [text for error in errors for text in _texts(error)]
    logged = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    secret = hashlib.sha256(f"admin:{ID}:{PASSWORD}".encode()).hexdigest()
    proofs = [frame["auth"]["response"] for frame in unit.frames if "auth" in frame]
    assert len(errors) > 2
    assert proofs
    for text in [said, *chain, *logged]:
        assert not any(word in text for word in (PASSWORD, secret, *proofs)), text


def _texts(error):
    while error is not None:
        yield repr(error)
        error = error.__cause__ or error.__context__


# ---- the parser ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["method", "NotifyStatus", "SHA-256", ID, "2.0.1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "method", "params", "result", "error", "code", "message", "switch:0", "input:0",
                         "output", "state", "nonce", "nc", "realm", "algorithm", "gen", "model", "ver", "auth_en",
                         "cloud", "connected", "initial_state", "type"]), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip
UNIT = rpc.Unit(ID, 2, "SNSW-102X16EU", "2.0.1", True)


@given(st.one_of(st.text(), JSON.map(json.dumps)))
def test_whatever_a_unit_says_is_a_frame_or_garbage(text):
    try:
        frame = rpc.read_frame(text)
    except rpc.Garbage:
        return
    match frame:
        case rpc.Answer(number, result, code):
            assert type(number) is int
            assert type(code) is int
            assert result is None or isinstance(result, dict)
        case rpc.Notice(method, params):
            assert isinstance(method, str)
            assert isinstance(params, dict)


@given(st.dictionaries(st.sampled_from(["id", "gen", "model", "ver", "auth_en"]), JSON))
def test_whoever_a_unit_says_that_it_is_is_words_or_garbage(info):
    try:
        unit = rpc.read_unit(info)
    except rpc.Garbage:
        return
    assert all(text.isascii() and text.isprintable() for text in (unit.id, unit.model, unit.version))


@given(st.one_of(st.text(), JSON.map(json.dumps)))
def test_a_challenge_is_one_or_garbage_and_can_be_answered(text):
    try:
        challenge = rpc.read_challenge(text, UNIT)
    except rpc.Garbage:
        return
    assert rpc.proof(challenge, PASSWORD)["realm"] == ID


@pytest.mark.parametrize("nonce", ["fAkE==", 1625038762])
@pytest.mark.parametrize("count", [1, "1"])
def test_a_challenge_is_read_and_its_nonce_goes_back_as_it_came(nonce, count):
    text = json.dumps({"auth_type": "digest", "nonce": nonce, "nc": count, "realm": ID, "algorithm": "SHA-256"})
    made = rpc.proof(rpc.read_challenge(text, UNIT), PASSWORD)
    assert (made["nonce"], made["nc"], made["username"]) == (nonce, 1, "admin")


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "MD5"}, {"algorithm": None}, {"realm": OTHER}, {"nonce": ""}, {"nonce": "\ud800"},
        {"nonce": True},
        {"nonce": "x" * 257}, {"nonce": -1}, {"nonce": "a b"}, {"nc": 0}, {"nc": "-1"}, {"nc": 2**31}, {"nc": 1.5},
    ],
)  # fmt: skip
def test_a_challenge_that_is_weak_or_strange_is_not_answered(change):
    good = {"nonce": "n", "nc": 1, "realm": ID, "algorithm": "SHA-256"}
    with pytest.raises(rpc.Garbage):
        rpc.read_challenge(json.dumps(good | change), UNIT)


@given(JSON, JSON)
def test_whatever_its_state_and_settings_are_they_are_read_or_garbage(status, config):
    state, settings = ({"switch:0": one, "input:0": one, "cloud": one} for one in (status, config))
    try:
        readings = rpc.read_outputs(state, 2)
    except rpc.Garbage:
        return
    assert set(readings.values()) <= {Reading.SECURED, Reading.RELEASED}
    assert set(rpc.read_inputs(state, 2).values()) <= {Sense.ACTIVE, Sense.INACTIVE, Sense.FAULT}
    assert all(isinstance(danger, str) for danger in rpc.dangers(state, settings, 2, 2))
    assert rpc.missing(state, 2, 2) is not None


# ---- the table ----

FILE = ROOT / "gateway.toml"


def opened(folder, text):
    return open_boards(
        read_boards(Table.parse(f'[board.hall]\nkind = "shelly"\nhost = "10.0.0.7"\n{text}', folder / "x.toml"))
    )


def test_the_password_is_read_from_a_file_beside_the_configuration(tmp_path):
    secret = tmp_path / "hall.password"
    secret.touch(0o600)
    secret.write_text(f"{PASSWORD}\n")
    assert opened(tmp_path, 'password_file = "hall.password"')["hall"]._password == PASSWORD


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_password_that_others_on_the_machine_can_read_is_refused(tmp_path, mode):
    secret = tmp_path / "hall.password"
    secret.write_text(PASSWORD)
    secret.chmod(mode)
    with pytest.raises(Unusable, match="others can read") as raised:
        opened(tmp_path, 'password_file = "hall.password"')
    assert PASSWORD not in str(raised.value)


def test_a_password_that_is_not_there_is_said(tmp_path):
    with pytest.raises(Unusable, match=r"hall\.password"):
        opened(tmp_path, 'password_file = "hall.password"')


def test_a_unit_without_a_password_needs_no_file(tmp_path):
    assert opened(tmp_path, "allow_open = true")["hall"]._password is None
