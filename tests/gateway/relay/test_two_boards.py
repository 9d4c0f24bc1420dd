"""Two boards at one gateway, one of them dead: the doors of the other one are as quick as before.

Nothing is timed here (``scripts/bench Dead`` does that). What is shown is that nobody waits: while the dead board's
door is still being reached, the other one's is opened, over the API as over the board's own wire.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from gateway.app import at_work
from gateway.config import read_config
from scripts.demo_home.relay_board import LOOPBACK, RelayBoard
from tests.gateway.process import network, write_config
from tests.simulated import Carrier
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient
from vestibule_core.api.messages import Operation
from vestibule_core.api.policy import Policy
from vestibule_core.model import Actor, Code, Word

from .boards import until

ANN = Actor("1", "Ann", is_admin=True)
BOARD = """
[board.{name}]
kind = "modbus"
host = "{host}"
port = {port}
poll = 0.1

[door.{name}]
name = "{name}"
access_time = 0.5
relay = {{ board = "{name}", channel = 1 }}
"""


class BlackHole:
    """A host that takes no connection and says nothing of it: its backlog is full, and the kernel drops what comes."""

    def __init__(self) -> None:
        self._listening = socket.create_server((LOOPBACK, 0), backlog=0)
        self.port = int(self._listening.getsockname()[1])
        self._filling = [socket.socket() for _ in range(4)]
        for sock in self._filling:
            sock.setblocking(False)
            sock.connect_ex((LOOPBACK, self.port))

    def close(self) -> None:
        for sock in (*self._filling, self._listening):
            sock.close()


@asynccontextmanager
async def dead_board(how: str) -> AsyncGenerator[int]:
    """Return the port of one."""
    if how == "takes no connection":
        hole = BlackHole()
        yield hole.port
        hole.close()
        return
    async with RelayBoard() as board:
        board.fall_silent()
        yield board.port


@pytest.mark.parametrize("how", ["takes connections and never answers", "takes no connection"])
async def test_while_a_dead_board_is_asked_the_other_ones_doors_open(tmp_path, how):
    async with RelayBoard() as relays, dead_board(how) as port, network() as session:
        boards = "".join(
            BOARD.format(name=name, host=LOOPBACK, port=at) for name, at in (("alive", relays.port), ("dead", port))
        )
        async with at_work(read_config(write_config(tmp_path, boards))) as gateway:
            code = str(gateway.open_window(replace=False, trust=True)["code"])
            paired = await client.pair(session, "127.0.0.1", gateway.port, code, "Home Assistant")
            asking = GatewayClient(session, "127.0.0.1", gateway.port, paired.token, [paired.fingerprint])
            *_, alive, dead = gateway.doorways.values()
            carrier = Carrier(doors=[alive.door, dead.door])
            await asking.put_policy(0, Policy("UTC", (carrier.admitted,)))
            await until(lambda: alive.described.reachable)

            async def token(door):
                nonce, now = (await asking.challenge(door.id, carrier.issuer)).nonce, int(time.time())
                return carrier.token(nonce, aud=door.id, iat=now, exp=now + 60, chk={"req": now - 2})

            for opened in range(3):
                text = await token(dead)
                waiting = [
                    asyncio.create_task(asking.operate(dead.id, Operation.ACCESS, ANN, None)),
                    asyncio.create_task(asking.unlock(dead.id, text, carrier.issuer)),
                ]
                await asyncio.sleep(0.02)
                assert await asking.operate(alive.id, Operation.ACCESS, ANN, None) is Code.GRANTED
                answer = await asking.unlock(alive.id, await token(alive), carrier.issuer)
                assert answer.word is Word.GRANTED
                assert not dead.described.reachable
                assert alive.described.reachable
                assert not any(task.done() for task in waiting), "the dead one is still being asked"
                by_hand, by_token = await asyncio.gather(*waiting)
                assert (by_hand, by_token.word) == (Code.STRIKE_UNREACHABLE, Word.UNAVAILABLE)
                assert relays.movements[0] >= 1 + opened
            await gateway.controller.recorded()
            assert {spend.spend.door for spend in gateway.journal.recent_spends(100)} == {alive.id}, (
                "none is spent there"
            )
