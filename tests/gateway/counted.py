"""A program that counts what an unlock over the API costs the disk: ``python -m tests.gateway.counted FOLDER COUNT``.

It is a gateway and its client in one process, with tests/core/fsync_shim.c preloaded, and prints a list: for each of
COUNT lone unlocks, how many syncs there were from the request to the relay's command.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

from gateway.app import at_work
from gateway.config import read_config
from scripts.demo_home.home import free_port
from tests.gateway.process import network
from tests.simulated import Carrier
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient
from vestibule_core.api.policy import Policy
from vestibule_core.model import Word
from vestibule_core.strike import Pulse

TOML = """
name = "Parcel room"
state = "state"
[listen]
host = "127.0.0.1"
port = {port}
announce = false
[board.b]
kind = "memory"
[door.gate]
name = "Gate"
access_time = 0.5
relay = {{ board = "b", channel = 1 }}
"""
QUIET = 0.05
"""Seconds after which nothing of an unlock is under way any more."""


async def count(folder: Path, unlocks: int) -> list[int]:
    syncs, told, found = ctypes.CDLL(None).shim_syncs, [], []
    config = folder / "gateway.toml"
    config.write_text(TOML.format(port=free_port()))
    async with at_work(read_config(config)) as gateway, network() as session:
        channel: Any = gateway.boards["b"].channel(1)
        release = channel.release

        async def watched(pulse: Pulse) -> None:
            told.append(syncs())
            await release(pulse)

        channel.release = watched
        code = str(gateway.open_window(replace=False, trust=True)["code"])
        paired = await client.pair(session, "127.0.0.1", gateway.port, code, "Counter")
        asking = GatewayClient(session, "127.0.0.1", gateway.port, paired.token, [paired.fingerprint])
        (door,) = (doorway.door for doorway in gateway.doorways.values())
        carrier = Carrier(doors=[door])
        await asking.put_policy(0, Policy("UTC", (carrier.admitted,)))
        for _ in range(unlocks):
            nonce = (await asking.challenge(door.id, carrier.issuer)).nonce
            now = int(time.time())
            token = carrier.token(nonce, iat=now, exp=now + 60, chk={"req": now - 2})
            await gateway.controller.recorded()
            await asyncio.sleep(QUIET)
            before = syncs()
            answer = await asking.unlock(door.id, token, carrier.issuer)
            assert answer.word is Word.GRANTED, answer
            found.append(told.pop() - before)
            assert not told
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(count(Path(sys.argv[1]), int(sys.argv[2])))))
