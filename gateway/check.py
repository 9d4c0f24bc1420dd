"""``vestibule-gateway check``: whether the gateway could start, and whether its hardware answers. Moves nothing.

It takes nothing from a gateway that runs: the state folder is only looked at, boards are only asked, and so is the
gateway itself, for its links to carriers' clouds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

from vestibule_core import identity
from vestibule_core.api.messages import GatewayId
from vestibule_core.errors import StrikeUnreachable

from . import tls
from .config import Config, read_config
from .control import call
from .journal import printable
from .relay.config import ChannelConfig, open_boards
from .source import Unusable
from .state import Files, read_id, signs_as

PATIENCE: Final = 10.0
"""Seconds for a board to answer."""


async def check(path: Path) -> int:
    """Print a line for each thing; return 0 if all of it is good, else 2.

    Raises what keeps it from being looked at: ConfigError, StateUnusable, CertificateUnusable, IdentityUnusable,
    Unusable.
    """
    config = read_config(path)
    print(f"config   ok    {path}: {config.name}, {len(config.doors)} doors")
    gateway = _check_state(config)
    links_are_good = await asyncio.to_thread(_check_links, Files(config.state))
    answers = await _probed(config)
    for name, (good, said) in answers.items():
        print(f"board    {'ok   ' if good else 'WRONG'} {name}: {said}")
    good = links_are_good and all(good for good, _ in answers.values())
    for door in config.doors:
        if not isinstance(door.relay, ChannelConfig):
            from .relay.ble import StoredStrike

            stored = StoredStrike.read(config.state, door.key)
            good = good and stored is not None
            at = f"paired, was last at {stored.address}" if stored else f"not paired yet: pair-strike {door.key}"
            print(f"strike   {'ok   ' if stored else 'WRONG'} {door.key}: {at}")
        known_as = door.door(gateway).id if gateway is not None else "its id is made at the first start"
        print(f"door     ok    {door.key}: {door.name}, {known_as}")
    return 0 if good else 2


def _check_state(config: Config) -> GatewayId | None:
    files = Files(config.state)
    if (gateway := read_id(files)) is None:
        print(f"state    new   {config.state} is filled at the first start")
        return None
    identity.keep(files.identity, signs_as(gateway), make=False)
    tls.look(files.tls)
    tls.look(files.next_tls)
    print(f"state    ok    {config.state}: gateway {gateway}")
    return gateway


def _check_links(files: Files) -> bool:
    """Print a line for each link; of a gateway that does not run, nothing is known. Blocks."""
    try:
        told = call(files.control, "GET", "/carriers")["carriers"]
    except Unusable:
        return True
    for one in told:
        for wrong in one["wrong"]:
            print(f"carrier  WRONG {printable(one['name'])}: {printable(wrong)}")
        if not one["wrong"]:
            print(f"carrier  ok    {printable(one['name'])}: connected")
    return not any(one["wrong"] for one in told)


async def _probed(config: Config) -> dict[str, tuple[bool, str]]:
    boards = open_boards(config.boards)
    try:
        said = await asyncio.gather(*(_answer(board.probe()) for board in boards.values()))
        return dict(zip(boards, said, strict=True))
    finally:
        for board in boards.values():
            await board.stop()


async def _answer(probe: Awaitable[str]) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(PATIENCE):
            return True, await probe
    except StrikeUnreachable as err:
        return False, str(err)
    except TimeoutError:
        return False, f"it did not answer within {PATIENCE:g} s"
