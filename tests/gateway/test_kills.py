"""The gateway killed at any moment under load: what moved is on the disk, and nothing moves at the next start."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.gateway.process import command, gateway_process, network, write_config
from tests.gateway.test_app import carrier_of, token_for
from tests.simulated import Carrier, read_journal
from vestibule_core.api.client import GatewayClient
from vestibule_core.api.policy import Policy
from vestibule_core.errors import GatewayRefused, GatewayUnreachable, OutcomeUnknown
from vestibule_core.model import Word

DRIVERS = 4
"""At each door at the same time."""


async def drive(client: GatewayClient, carrier: Carrier, door: int, answers: dict[str, Word]) -> None:
    """Deliver again and again until the gateway is gone; note what was answered to each token."""
    while True:
        try:
            token = await token_for(client, carrier, door)
            answers[token] = (await client.unlock(carrier.doors[door].id, token)).word
        except OutcomeUnknown, GatewayUnreachable:
            return
        except GatewayRefused:  # too many at once: nothing was judged
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kills", [8, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_killed_at_any_moment_under_load_no_strike_is_without_its_record(tmp_path: Path, kills: int) -> None:
    config, dice = write_config(tmp_path), random.Random(7)
    answers: dict[str, Word] = {}
    async with network() as session:
        async with gateway_process(config) as gateway:
            paired = await gateway.pair(session, "--trust")
            client = gateway.client(session, paired)
            carrier = await carrier_of(client)
            await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        moved = 0
        for _ in range(kills):
            async with gateway_process(config) as gateway:
                on = [movement for movement in gateway.movements if movement.endswith("on")]
                assert len(on) == moved, "something moved at the start"
                driving = [
                    asyncio.create_task(drive(client, carrier, door, answers))
                    for door in (0, 1)
                    for _ in range(DRIVERS)
                ]
                await asyncio.sleep(dice.uniform(0.02, 0.4))
                await gateway.kill()
                await asyncio.gather(*driving)
                moved = len([movement for movement in gateway.movements if movement.endswith("on")])
        granted = [token for token, word in answers.items() if word is Word.GRANTED]
        async with gateway_process(config):
            for token in granted[-20:]:
                again = [(await client.unlock(door.id, token)).word for door in carrier.doors]
                assert Word.ALREADY_USED in again
                assert Word.GRANTED not in again
    journal = tmp_path / "state" / "journal.db"
    spent = len(read_journal(journal, "SELECT jti FROM spent"))
    assert moved <= spent
    assert len(granted) <= spent
    assert granted
    status, said = await command("journal", "verify", journal)
    assert status == 0, said
