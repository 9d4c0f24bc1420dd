"""A node of ESPHome on a wire: what it is told, who is taken for it, and what comes of answers late, lost or wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import yaml
from aioesphomeapi import api_pb2 as pb
from aioesphomeapi.model import BinarySensorInfo, SupportsResponseType, UserService, UserServiceArg, UserServiceArgType
from aioesphomeapi.object_id import compute_object_id
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.check import check
from gateway.config import read_config
from gateway.relay import esphome
from gateway.relay.config import open_boards
from gateway.relay.esphome import Action, EsphomeBoard, find, milliseconds
from gateway.source import Unusable
from scripts.demo_home.relay_board import LOOPBACK
from tests.conftest import ROOT
from tests.gateway.process import gateway_process, network, write_config
from vestibule_core.api.messages import Operation
from vestibule_core.door import Lock
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.model import Code, EventName, Sense
from vestibule_core.strike import Pulse, Reading

from . import esphome_node
from .boards import ANN, PULSE, Door, esphome_config, hurry, until, until_reachable
from .esphome_node import Node, _Session

YAML = ROOT / "docs" / "esphome-door.yaml"
GATEWAY = ROOT / "docs" / "gateway.example.toml"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
async def node():
    async with Node() as node:
        yield node


@asynccontextmanager
async def at_work(node, folder, **changes):
    board = EsphomeBoard("hall", esphome_config(node, folder, **changes))
    await board.start()
    try:
        await until_reachable(board)
        yield board
    finally:
        await board.stop()


@pytest.fixture
async def board(node, tmp_path):
    async with at_work(node, tmp_path) as board:
        yield board


def board_of(node, folder, **changes):
    return EsphomeBoard("hall", esphome_config(node, folder, **changes))


# ---- what it is told ----


@given(st.floats(0.0001, 30))
def test_a_release_is_never_shorter_than_asked_for_and_less_than_a_millisecond_longer(seconds):
    ms = milliseconds(seconds)
    assert ms >= 1
    assert ms == 1 or -1e-3 <= ms - seconds * 1000 < 1


@pytest.mark.parametrize("seconds, ms", [(0.3, 300), (0.7, 700), (5.0, 5000), (0.0, 1), (4.0001, 4001), (1.001, 1001)])
def test_milliseconds_are_counted_without_a_rounding_error(seconds, ms):
    assert milliseconds(seconds) == ms


@pytest.mark.parametrize(
    "verb, calls",
    [
        pytest.param("release", [("vestibule_release", {"channel": 3, "ms": 5000})], id="a release of 5 s"),
        pytest.param("hold", [("vestibule_hold", {"channel": 3})], id="a hold"),
        pytest.param("secure", [("vestibule_secure", {"channel": 3})], id="off"),
        pytest.param("reach", [], id="whether it hears is asked without an action"),
    ],
)
@pytest.mark.parametrize(
    "api, responds",
    [((1, 19), pb.SUPPORTS_RESPONSE_ONLY), ((1, 12), pb.SUPPORTS_RESPONSE_OPTIONAL)],
    ids=["a node of today", "a node of the first version that answers"],
)
async def test_the_node_is_told_once_what_is_asked_for(node, tmp_path, verb, calls, api, responds):
    node.api, node.responds = api, responds
    async with at_work(node, tmp_path) as board:
        strike = board.channel(3)
        do = {"reach": strike.reach, "secure": strike.secure, "hold": lambda: strike.hold(None),
              "release": lambda: strike.release(PULSE)}  # fmt: skip
        await do[verb]()
        assert node.calls == calls


async def test_it_looks_at_the_node_again_and_again_and_tells_it_nothing_by_itself(node, board):
    await until(lambda: node.questions > 4)
    assert (node.calls, node.connections) == ([], 1)


async def test_the_reading_follows_an_answer_before_the_node_says_it_by_itself(node, board):
    heard = []
    board.channel(1).subscribe(heard.append)
    await board.channel(1).release(PULSE)
    assert board.channel(1).reading is Reading.RELEASED
    await board.channel(1).reach()
    assert heard == [Reading.RELEASED]


async def test_an_answer_that_is_older_than_what_the_node_has_said_since_changes_nothing(node, board):
    def late(answer):
        node.outputs[0] = True
        for session in node._sessions:
            session.tell_output(0)
        node.outputs[0] = False
        for session in node._sessions:
            session.tell_output(0)
        return answer

    node.garble(late)
    await board.channel(1).release(PULSE)
    assert board.channel(1).reading is Reading.SECURED


# ---- the node ends a release, whatever has died by then ----


async def test_a_release_ends_by_the_node_though_the_gateway_was_killed(tmp_path):
    async with Node() as node, network() as session:
        path = write_config(tmp_path, _toml(node, tmp_path, access_time=2))
        async with gateway_process(path) as gateway:
            paired = await gateway.pair(session)
            client = gateway.client(session, paired)
            doors = (await client.doors()).doors
            hall = next(door for door in doors if door.door.name == "Hall")
            await client.operate(hall.door.id, Operation.ACCESS, ANN)
            assert node.outputs[0]
            await gateway.kill()
        await until(lambda: not node.is_connected)
        assert node.outputs[0], "nothing but the node's own time ends it"
        await until(lambda: not node.outputs[0])
        async with gateway_process(path) as gateway:
            await until(lambda: node.is_connected)
            assert [action for action, _ in node.calls if action != "vestibule_secure"] == ["vestibule_release"]
        assert node.movements[0] == 1


async def test_a_release_that_is_longer_than_the_node_lets_be_is_refused_and_moves_nothing(node, board):
    with pytest.raises(StrikeRefused, match="longer than it releases") as raised:
        await board.channel(1).release(Pulse(bytes(16), 30.001))
    assert not raised.value.may_have_succeeded
    await board.channel(1).release(Pulse(bytes(16), 30.0))
    assert node.movements[0] == 1


async def test_a_node_that_starts_anew_during_a_release_is_locked_and_found_again(node, board):
    await board.channel(1).release(PULSE)
    await board.channel(2).hold(None)
    await node.reboot()
    await until(lambda: not board.channel(1).is_reachable)
    assert board.channel(1).reading is Reading.UNKNOWN
    assert "has closed the connection" in board.channel(1).reason
    await until_reachable(board)
    assert [board.channel(number).reading for number in (1, 2)] == [Reading.SECURED] * 2
    assert len(node.calls) == 2
    await board.channel(1).release(PULSE)
    assert node.movements[0] == 2


async def test_what_the_network_does_not_deliver_in_time_is_dropped_and_not_delivered_later(node):
    taken = await esphome._dial(LOOPBACK, node.port)
    try:
        waits = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert waits == esphome.ANSWER * 1000
    finally:
        taken.close()


# ---- start and stop ----


async def test_nothing_moves_at_the_start_and_an_output_that_is_on_is_left_to_its_owner(node, tmp_path):
    node.operate(4, True)
    async with at_work(node, tmp_path) as board:
        assert board.channel(4).reading is Reading.RELEASED
        assert board.channel(1).reading is Reading.SECURED
    assert node.calls == []
    assert node.outputs[3]


async def test_what_it_left_on_is_off_after_the_stop_and_nothing_else_is_touched(node, tmp_path):
    node.operate(4, True)
    async with at_work(node, tmp_path) as board:
        await board.channel(2).hold(None)
        await board.channel(3).release(Pulse(bytes(16), 20.0))
    assert node.outputs == [False, False, True, True, False, False, False, False], "a release ends itself"
    assert node.calls[-1] == ("vestibule_secure", {"channel": 2})
    await until(lambda: not node.is_connected)


async def test_a_hold_without_an_answer_is_ended_at_the_stop(node, tmp_path):
    async with at_work(node, tmp_path) as board:
        node.lose_answers()
        with pytest.raises(OutcomeUnknown):
            await board.channel(2).hold(None)
        assert node.outputs[1]
        node.obey()
    assert not node.outputs[1]


async def test_a_hold_that_was_refused_leaves_the_output_to_its_owner_at_the_stop(node, tmp_path):
    async with at_work(node, tmp_path) as board:
        node.operate(2, True)
        node.refuse()
        with pytest.raises(StrikeRefused):
            await board.channel(2).hold(None)
        node.obey()
    assert node.outputs[1]


async def test_a_dead_node_does_not_keep_the_gateway_from_stopping(node, tmp_path, caplog):
    board = board_of(node, tmp_path)
    await board.start()
    await until_reachable(board)
    for number in range(1, 9):
        await board.channel(number).hold(None)
    node.fall_silent()
    async with asyncio.timeout(3 * (esphome.ANSWER + esphome.GREETING)):  # not eight times as long as for one output
        await board.stop()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["output_left_on"] * 8


async def test_a_node_that_is_not_there_at_the_start_is_found_when_it_comes(node, tmp_path):
    await node.cut_power()
    board = board_of(node, tmp_path)
    async with asyncio.timeout(esphome.ANSWER):
        await board.start()
    assert board.input(1).sense is Sense.UNKNOWN
    await until(lambda: board.input(1).sense is Sense.FAULT)
    assert board.channel(1).reading is Reading.UNKNOWN
    assert "takes no connection" in board.channel(1).reason
    await node.restore_power()
    await until_reachable(board)
    assert board.input(1).sense is Sense.INACTIVE
    assert board.channel(1).reason is None
    await board.stop()


# ---- a door on it ----


async def test_an_unlock_is_one_release_and_the_door_says_when_it_is_locked_again(node, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await until(lambda: EventName.DOOR_RELOCKED in site.outcomes)
        assert [call for call in node.calls if call[0] != "vestibule_secure"] == [
            ("vestibule_release", {"channel": 1, "ms": 500})
        ]
        assert EventName.RELAY_OPERATED_ELSEWHERE not in site.outcomes


async def test_an_unlock_without_an_answer_is_unknown_and_one_release(node, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        node.lose_answers()
        decision = await site.controller.by_hand.open(site.door.id, ANN)
        assert decision.code is Code.OUTCOME_UNKNOWN
        node.obey()
        await until_reachable(board)
        await until(lambda: not node.outputs[0])
        assert node.movements[0] == 1
        assert [action for action, _ in node.calls].count("vestibule_release") == 1


async def test_an_unlock_through_a_node_that_is_away_says_so_and_tells_it_nothing(node, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        await node.cut_power()
        assert (await site.controller.by_hand.open(site.door.id, ANN)).code is Code.STRIKE_UNREACHABLE
        await node.restore_power()
        await until_reachable(board)
        assert [action for action, _ in node.calls if action != "vestibule_secure"] == []


async def test_a_relay_that_somebody_else_switches_is_told_of(node, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        await until(lambda: site.state.lock is Lock.LOCKED)
        node.operate(1, True)
        await until(lambda: EventName.RELAY_OPERATED_ELSEWHERE in site.outcomes)


# ---- answers that are late, lost or wrong ----


async def test_a_lost_answer_is_an_unknown_outcome_and_the_action_is_never_repeated(node, board):
    node.lose_answers()
    with pytest.raises(OutcomeUnknown) as raised:
        await board.channel(1).release(PULSE)
    assert raised.value.may_have_succeeded
    node.obey()
    await until(lambda: node.connections > 1)
    await until(lambda: board.channel(1).reading is Reading.RELEASED)  # it is found out by looking
    assert len(node.calls) == 1


async def test_a_link_that_is_cut_between_command_and_answer_is_an_unknown_outcome_at_once(node, board):
    node.garble(lambda _: node.hang_up())
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert asyncio.get_running_loop().time() - began < esphome.ANSWER, "nobody waits for a link that is gone"
    assert len(node.calls) == 1


async def test_a_caller_who_gives_up_leaves_no_answer_for_the_next_one(node, board):
    kept = []
    node.garble(kept.append)
    asking = asyncio.create_task(board.channel(1).release(PULSE))
    await until(lambda: kept)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    node.garble(lambda answer: [session._send(one) for session in node._sessions for one in kept] and None)
    with pytest.raises(OutcomeUnknown):
        await board.channel(2).release(PULSE)
    assert [call["channel"] for _, call in node.calls] == [1, 2]


async def test_a_node_that_is_lost_after_it_confirmed_has_confirmed(node, board):
    def confirm_and_go(due):
        for session in node._sessions:
            session._send(due)
            session._send(pb.DisconnectRequest())  # in one segment

    node.garble(confirm_and_go)
    await board.channel(1).release(PULSE)
    assert board.channel(1).reading is Reading.UNKNOWN


def answer(said, success=True):
    return lambda due: pb.ExecuteServiceResponse(call_id=due.call_id, success=success, response_data=said)


@pytest.mark.parametrize(
    "garbled",
    [
        pytest.param(answer(b'{"channel": 2, "on": true}'), id="of another output"),
        pytest.param(answer(b'{"channel": 1, "on": false}'), id="that it is off"),
        pytest.param(answer(b'{"channel": 1, "on": 1}'), id="that is no yes and no no"),
        pytest.param(answer(b'{"channel": true, "on": true}'), id="of no output"),
        pytest.param(answer(b'{"channel": 1}'), id="without a word of the output"),
        pytest.param(answer(b"[true]"), id="of another kind"),
        pytest.param(answer(b"{"), id="cut off"),
        pytest.param(answer(b"\xff"), id="of noise"),
        pytest.param(answer(b"[" * 60_000), id="without a bottom"),
        pytest.param(answer(b""), id="with nothing in it"),
        pytest.param(
            lambda due: pb.ExecuteServiceResponse(call_id=due.call_id + 1, success=True), id="to another question"
        ),
    ],
)
async def test_a_bad_answer_to_a_command_is_an_unknown_outcome_and_is_survived(node, board, garbled):
    node.garble(garbled)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert len(node.calls) == 1
    node.obey()
    await until_reachable(board)
    await board.channel(1).release(PULSE)


async def test_an_output_that_stays_on_is_not_taken_for_locked(node, board):
    await board.channel(1).release(PULSE)
    node.garble(answer(b'{"channel": 1, "on": true}'))
    with pytest.raises(StrikeRefused, match="its output is on"):
        await board.channel(1).secure()


async def test_a_refusal_is_told_in_the_words_of_the_node_on_one_line(node, board):
    node.refuse("busy\ninfo access_granted " + "x" * 1000)
    with pytest.raises(StrikeRefused) as raised:
        await board.channel(1).release(PULSE)
    assert "the node refused: busy?info access_granted" in str(raised.value)
    assert len(str(raised.value)) < 200
    assert node.movements == [0] * 8


# ---- who is taken for the node ----


async def failure_of(board):
    """Return why a board cannot be reached, and make sure that it was told nothing."""
    with pytest.raises(StrikeUnreachable) as raised:
        await board.channel(1).release(PULSE)
    await board.stop()
    assert board.channel(1).reading is Reading.UNKNOWN
    return str(raised.value)


async def test_a_node_that_speaks_in_the_clear_is_refused(node, tmp_path):
    node.encrypted = False
    assert "without encryption" in await failure_of(board_of(node, tmp_path))
    assert node.calls == []


async def test_a_node_with_another_key_is_refused(node, tmp_path):
    board = board_of(node, tmp_path)
    node.key = bytes(range(32))
    assert "its key is another one" in await failure_of(board)
    assert node.calls == []


async def test_somebody_who_only_says_that_the_key_was_right_is_refused(node, tmp_path, monkeypatch):
    async def pretend(session):
        await session._read_frame()
        session._frame(b"\0" + X25519PrivateKey.generate().public_key().public_bytes_raw() + bytes(16))
        raise ConnectionError

    monkeypatch.setattr(_Session, "_shake_hands", pretend)
    assert "its key is another one" in await failure_of(board_of(node, tmp_path))


@pytest.mark.parametrize("where", ["before", "after"])
async def test_another_node_at_the_address_is_refused_although_it_has_the_same_key(node, tmp_path, where):
    node.inner_name = "attic"
    if where == "before":
        node.name = "attic"
    said = await failure_of(board_of(node, tmp_path))
    assert "another node is at this address: attic, not hall" in said
    assert node.calls == []


async def test_a_node_that_leaves_its_name_out_is_refused(node, tmp_path):
    node.name = node.inner_name = ""
    assert "another node is at this address" in await failure_of(board_of(node, tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="a web server"),
        pytest.param(b"\1\0\0", id="an empty hello"),
        pytest.param(b"\1\0\1\2", id="another protocol"),
        pytest.param(b"\1\0\6\1hall\0\1\0\4\1Bad", id="a refusal"),
        pytest.param(b"", id="nobody"),
        pytest.param(os.urandom(64).replace(b"\0", b"\7"), id="noise"),
    ],
)
async def test_something_else_at_the_address_is_refused_with_a_reason(tmp_path, words):
    async def speak(reader, writer):
        await reader.readexactly(3)
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(speak, LOOPBACK, 0) as server:
        other = Node()
        other.port = server.sockets[0].getsockname()[1]
        said = await failure_of(board_of(other, tmp_path))
        assert re.search("does not speak as ESPHome|connection was lost|not answered in time|key is another", said)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"missing": {"vestibule_hold"}}, "it lacks the action vestibule_hold: see esphome-door.yaml"),
        (
            {"missing": {"vestibule_output_2", "vestibule_input_8"}},
            "the binary sensor vestibule_output_2, the binary sensor vestibule_input_8",
        ),
        ({"more_arguments": ("force",)}, "channel and ms, and nothing else, as arguments of the action vestibule_rel"),
        ({"responds": pb.SUPPORTS_RESPONSE_NONE}, "the answer of the action vestibule_release"),
        ({"responds": pb.SUPPORTS_RESPONSE_STATUS}, "the answer of the action vestibule_secure"),
    ],
)
async def test_a_node_without_the_program_of_the_example_is_told_nothing_and_what_it_lacks_is_named(
    node, tmp_path, change, says
):
    for name, value in change.items():
        setattr(node, name, value)
    board = board_of(node, tmp_path)
    with pytest.raises(StrikeUnreachable, match=re.escape(says)):
        await board.channel(1).release(PULSE)
    await until(lambda: not node.is_connected)
    assert node.calls == []
    await board.stop()


async def test_a_node_that_goes_as_soon_as_it_has_said_how_it_is_is_told_nothing(node, tmp_path, monkeypatch):
    def tell_and_go(session, request):
        session._subscribe(request)
        session._send(pb.DisconnectRequest())  # in one segment

    monkeypatch.setitem(esphome_node._ANSWERS, "SubscribeStatesRequest", tell_and_go)
    assert "lost before it said how it is" in await failure_of(board_of(node, tmp_path))
    assert node.calls == []


async def test_a_node_that_hangs_up_again_and_again_is_not_asked_without_a_pause(node, tmp_path, monkeypatch):
    monkeypatch.setattr(esphome, "FIRST_RETRY", 60.0)
    monkeypatch.setattr(esphome, "LONGEST_RETRY", 60.0)
    board = board_of(node, tmp_path)
    await board.start()
    await until_reachable(board)
    node.hang_up()
    await until(lambda: not board.is_reachable)
    await asyncio.sleep(0.1)  # nothing to wait for: nothing may happen
    assert node.connections == 1
    await board.stop()


# ---- nodes and doors beside each other ----


@pytest.mark.parametrize("how", ["silent", "away"])
async def test_a_dead_node_delays_no_door_of_another_one(node, board, tmp_path, how):
    folder = tmp_path / "other"
    folder.mkdir()
    async with Node() as others, at_work(others, folder) as dead:
        if how == "silent":
            others.fall_silent()
        else:
            await others.cut_power()
        stuck = [asyncio.create_task(dead.channel(number).release(PULSE)) for number in range(1, 9)]
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await board.channel(1).reach()
        await board.channel(1).release(PULSE)
        assert asyncio.get_running_loop().time() - began < esphome.ANSWER / 2
        failures = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(error, OutcomeUnknown | StrikeUnreachable) for error in failures)
        assert others.movements == [0] * 8


async def test_a_silent_node_makes_its_own_doors_unreachable_not_one_after_the_other(node, board):
    node.fall_silent()
    await until(lambda: not board.channel(1).is_reachable)
    began = asyncio.get_running_loop().time()
    errors = await asyncio.gather(*(board.channel(n).reach() for n in range(1, 9)), return_exceptions=True)
    assert all(isinstance(error, StrikeUnreachable) for error in errors)
    assert asyncio.get_running_loop().time() - began < 2 * (esphome.ANSWER + esphome.GREETING)
    assert {board.input(number).sense for number in range(1, 9)} == {Sense.FAULT}


async def test_doors_of_one_node_are_told_at_the_same_time_and_each_once(node, board):
    await asyncio.gather(*(board.channel(number).release(PULSE) for number in range(1, 9)))
    assert node.movements == [1] * 8
    assert node.connections == 1


async def test_a_slow_node_keeps_no_door_of_its_own_waiting_for_another_one(node, board):
    loop = asyncio.get_running_loop()
    slow = []

    def first_late(due):
        slow.append(due)
        if len(slow) > 1:
            return due
        loop.call_later(esphome.ANSWER / 2, lambda: [session._send(due) for session in node._sessions])
        return None

    node.garble(first_late)
    first = asyncio.create_task(board.channel(1).release(PULSE))
    await until(lambda: slow)
    await board.channel(2).release(PULSE)
    assert not first.done()
    await first
    assert node.movements[:2] == [1, 1]


async def test_a_node_that_is_back_is_reached_at_once_by_whoever_wants_in(node, tmp_path, monkeypatch):
    monkeypatch.setattr(esphome, "FIRST_RETRY", 60.0)
    monkeypatch.setattr(esphome, "LONGEST_RETRY", 60.0)
    async with at_work(node, tmp_path) as board:
        await node.cut_power()
        await until(lambda: not board.channel(1).is_reachable)
        await node.restore_power()
        await board.channel(1).reach()
        await board.channel(1).release(PULSE)
        assert node.movements[0] == 1


async def test_a_change_of_reach_reaches_those_who_watch(node, board):
    seen = []
    stop = board.channel(1).watch(lambda: seen.append(board.channel(1).is_reachable))
    await node.cut_power()
    await until(lambda: seen and seen[-1] is False)
    await node.restore_power()
    await until(lambda: seen[-1] is True)
    stop()


async def test_a_node_that_is_lost_and_back_is_logged_once_each(node, board, caplog):
    caplog.set_level(logging.INFO)
    await node.cut_power()
    await until(lambda: not board.channel(1).is_reachable)
    await asyncio.sleep(0.2)
    await node.restore_power()
    await until_reachable(board)
    assert [record.message for record in caplog.records] == ["board_lost", "board_back"]


# ---- inputs ----


async def test_inputs_are_heard_when_they_change(node, board):
    plain, inverted = board.input(3), board.input(3, inverted=True)
    heard = []
    stop = plain.subscribe(heard.append)
    node.press(3)
    await until(lambda: heard)
    assert (plain.sense, inverted.sense) == (Sense.ACTIVE, Sense.INACTIVE)
    node.press(3, False)
    await until(lambda: len(heard) > 1)
    assert heard == [Sense.ACTIVE, Sense.INACTIVE]
    stop()
    node.press(3)
    await until(lambda: inverted.sense is Sense.INACTIVE)
    assert len(heard) == 2


async def test_an_inverted_input_of_a_node_that_is_away_is_out_of_order_and_nothing_else(node, board):
    heard = []
    board.input(1, inverted=True).subscribe(heard.append)
    await node.cut_power()
    await until(lambda: heard)
    assert heard == [Sense.FAULT]


@pytest.mark.parametrize("inverted", [False, True])
async def test_an_input_of_which_the_node_knows_nothing_is_unknown(node, tmp_path, inverted):
    node.inputs[0] = None
    async with at_work(node, tmp_path) as board:
        assert board.input(1, inverted=inverted).sense is Sense.UNKNOWN
        node.press(1, False)
        await until(lambda: board.input(1).sense is Sense.INACTIVE)


async def test_an_output_of_which_the_node_knows_nothing_is_unknown_and_can_be_reached(node, tmp_path):
    node.outputs[0] = None
    board = board_of(node, tmp_path)
    seen = []
    board.channel(1).watch(lambda: seen.append(board.channel(1).is_reachable))
    await board.start()
    await until(lambda: seen == [True])
    assert board.channel(1).reading is Reading.UNKNOWN
    await board.stop()


# ---- trying it out ----


async def test_a_trial_says_who_the_node_is_and_how_it_is_and_moves_nothing(node, tmp_path):
    node.operate(2, True)
    node.press(5)
    said = await board_of(node, tmp_path).probe()
    assert re.fullmatch(r"node hall, ESPHome 2026\.10\.0, answers in \d+ ms; 8 outputs, on: 2; 8 inputs, on: 5", said)
    assert node.calls == []
    await until(lambda: not node.is_connected)


async def test_a_trial_of_a_node_that_is_not_there_says_so(node, tmp_path):
    await node.cut_power()
    with pytest.raises(StrikeUnreachable, match="takes no connection"):
        await board_of(node, tmp_path).probe()


async def test_a_trial_of_a_node_at_work_leaves_its_connection_alone(node, board):
    await board.probe()
    await until(lambda: node.questions > 4)
    assert node.connections == 1


# ---- the key ----


async def test_the_key_is_in_no_log_and_in_no_error(node, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("aioesphomeapi").setLevel(logging.DEBUG)  # as somebody might who looks for a fault
    try:
        board = board_of(node, tmp_path)
        said = [repr(board), repr(esphome_config(node, tmp_path))]
        await board.start()
        await until_reachable(board)
        await board.channel(1).release(PULSE)
        node.lose_answers()
        said.append(str(await _error_of(board.channel(1).release(PULSE))))
        real, node.key = node.key, bytes(range(32))
        await until(lambda: "key is another" in (board.reason or ""))
        node.encrypted = False
        await until(lambda: "without encryption" in (board.reason or ""))
        said.append(str(await _error_of(board.channel(1).reach())))
        await board.stop()
    finally:
        logging.getLogger("aioesphomeapi").setLevel(logging.CRITICAL)
    assert "ExecuteServiceRequest" in caplog.text, "the library has logged what it did"
    node.key = real
    everything = caplog.text + "".join(said)
    for secret in (node.key_text, node.key_text.rstrip("="), node.key.hex(), repr(node.key)):
        assert secret not in everything


async def _error_of(command):
    with pytest.raises((OutcomeUnknown, StrikeUnreachable)) as raised:
        await command
    return raised.value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    config = esphome_config(Node(), tmp_path)
    config.key_file.chmod(mode)
    with pytest.raises(Unusable, match=r"\[board.hall\] key_file: .*others can read too: chmod 600") as raised:
        open_boards({"hall": config})
    assert config.key_file.read_text().strip() not in str(raised.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "is empty"),
        ("c2hvcnQ=", "32 bytes in base64"),
        ("no base64 at all, but as long as it has to be", "32 bytes in base64"),
        ("A" * 43 + "=", "32 bytes in base64"),  # zeros: what every node takes that was not given a key
        ("ключ", "not the text that it should be"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, text, says):
    config = esphome_config(Node(), tmp_path)
    config.key_file.write_text(text)
    with pytest.raises(Unusable, match=says) as raised:
        open_boards({"hall": config})
    assert not text or text not in str(raised.value)


def test_a_key_that_is_not_there_or_no_file_is_refused_and_not_waited_for(tmp_path):
    config = esphome_config(Node(), tmp_path)
    with pytest.raises(Unusable, match="No such file"):
        open_boards({"hall": replace(config, key_file=tmp_path / "none")})
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Unusable, match="is not a file"):
        open_boards({"hall": replace(config, key_file=tmp_path / "pipe")})


# ---- the whole gateway ----


def _toml(node, folder, access_time=0.5):
    key_file = esphome_config(node, folder).key_file.name
    return f"""
[board.hall]
kind = "esphome"
host = "{LOOPBACK}"
port = {node.port}
node = "hall"
key_file = "{key_file}"
outputs = 2
inputs = 1

[door.hall]
name = "Hall"
access_time = {access_time}
relay = {{ board = "hall", channel = 1 }}
contact = {{ board = "hall", input = 1 }}
"""


async def test_a_node_is_checked_without_moving_it(node, tmp_path, capsys):
    path = write_config(tmp_path, _toml(node, tmp_path))
    assert await check(path) == 0
    assert "board    ok    hall: node hall, ESPHome 2026.10.0" in capsys.readouterr().out
    node.name = node.inner_name = "attic"
    assert await check(path) == 2
    assert "board    WRONG hall: another node is at this address: attic, not hall" in capsys.readouterr().out
    assert node.calls == []


def test_the_file_says_where_the_key_is_from_its_own_folder(tmp_path):
    node = Node()
    node.port = 6053
    config = read_config(write_config(tmp_path, _toml(node, tmp_path)))
    assert config.boards["hall"].key_file == tmp_path / "node.key"


# ---- the example for the node ----


class _Example(yaml.SafeLoader):
    """Takes ESPHome's tags as texts."""


_Example.add_multi_constructor("!", lambda loader, _, value: loader.construct_scalar(value))


@pytest.fixture(scope="module")
def example():
    return yaml.load(YAML.read_text("utf-8"), _Example)


def test_the_example_for_the_node_has_what_the_gateway_needs(example):
    services = [
        UserService(
            name=action["action"],
            key=number,
            args=[UserServiceArg(name, UserServiceArgType[kind.upper()]) for name, kind in action["variables"].items()],
            supports_response=SupportsResponseType[action["supports_response"].upper()],
        )
        for number, action in enumerate(example["api"]["actions"])
    ]
    names = [sensor["name"] for sensor in example["binary_sensor"]]
    sensors = [BinarySensorInfo(compute_object_id(name), key, name) for key, name in enumerate(names)]
    hall = read_config(GATEWAY).boards["hall"]
    found = find(sensors, services, hall.outputs, hall.inputs)
    assert found.missing == []
    assert set(found.actions) == set(Action)
    assert hall.node == example["substitutions"]["node"]
    assert hall.host == example["ethernet"]["manual_ip"]["static_ip"]


def test_the_example_for_the_node_is_shut_and_closed(example):
    assert {one["restore_mode"] for one in example["switch"]} == {"ALWAYS_OFF"}
    assert all(one["internal"] for one in example["switch"]), "nothing but the actions moves an output"
    assert example["api"]["encryption"]["key"] == "vestibule_hall_key", "not written into the example"
    assert {"web_server", "captive_portal", "improv_serial", "esp32_improv"}.isdisjoint(example)
    assert int(example["substitutions"]["longest"]) == 30_000
    assert len(re.findall(r"ms > 0 && ms <= \$\{longest\}", YAML.read_text())) == 1
    for number, script in enumerate(example["script"], 1):
        assert script["mode"] == "restart"
        on, wait, off = script["then"]
        assert (on, off) == ({"switch.turn_on": f"relay_{number}"}, {"switch.turn_off": f"relay_{number}"})
        assert wait == {"delay": "return ms;"}
