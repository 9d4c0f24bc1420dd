"""Gateways in processes of their own, which can be killed at any point of an unlock that is asked for over the network.

The jobs of tests/core/crash_process.py, with the API in front: the token comes in over TLS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core import crash_process as core
from tests.gateway.at_work import Gateway
from tests.simulated import Carrier, Clock, pulses_in, read_journal, some_doors
from vestibule_core.api.messages import Admission, Bearer, ClientId, Scope
from vestibule_core.erasure import DAY
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.model import DoorId, EventName, Now, read_clock


class _Watched(Gateway):
    """A gateway whose strike and journal tell where an unlock is."""

    def __init__(
        self,
        folder: Path,
        passing: Callable[[str], None],
        *,
        device_timed: bool = True,
        clock: Callable[[], Now] | None = None,
    ) -> None:
        door = some_doors(1)[0]
        strike = core._MortalStrike(passing, device_timed=device_timed, log=folder / "pulses")
        strikes: dict[DoorId, Any] = {door.id: strike}
        super().__init__(folder, strikes=strikes, clock=clock)

    async def watch(self, passing: Callable[[str], None]) -> None:
        self.journal._writer.db = core._Watched(self.journal._writer.db, passing)  # type: ignore[assignment]


@core._job
async def unlock_at_gateway(say: core.Say, folder: str, kill_at: str | None = None, device_timed: bool = True) -> None:
    """Pair, let a carrier in, open once with a token, and die at the named point."""

    def passing(point: str) -> None:
        if point == kill_at:
            core._die()

    carrier = Carrier()
    async with _Watched(Path(folder), passing, device_timed=device_timed) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        await gateway.watch(passing)
        text = carrier.token(await admin.challenge(gateway.door, carrier))
        say(token=text, bearer=admin.token)
        passing("challenged")
        say(code=await admin.code(gateway.door, text))
        await gateway.controller.recorded()


@core._job
async def replay_at_gateway(
    say: core.Say, folder: str, tokens: list[str], bearer: str, device_timed: bool = True
) -> None:
    """Start after a crash, see what moves by itself, and present the old tokens again with the bearer of before."""
    place = Path(folder)
    before = len(pulses_in(place / "pulses"))
    async with _Watched(place, lambda _: None, device_timed=device_timed) as gateway:
        await asyncio.sleep(0.01)
        say(moved_at_start=len(pulses_in(place / "pulses")) - before, secured=gateway.strike.times_secured)
        known = Admission(Bearer(bearer), ClientId("0" * 16), gateway.key, gateway.name, frozenset(Scope), False, ())
        admin = gateway.caller(known)
        say(codes=[await admin.code(gateway.door, text) for text in tokens])
        await gateway.controller.recorded()
        say(events=[event["outcome"] for event in (await admin.get("/v1/events?after=0")).json["events"]])
    say(spent=read_journal(place / "journal.db", "SELECT jti, state FROM spent ORDER BY rowid"))


@core._job
async def unlock_over_link(say: core.Say, folder: str, code: str, carrier: str, kill_at: str) -> None:
    """Be linked with the cloud of a carrier, which is let in, and die at the named point of an unlock."""

    def passing(point: str) -> None:
        if point == kill_at:
            core._die()

    entered = EnrolmentCode.parse(code)
    async with _Watched(Path(folder), passing, clock=read_clock) as gateway:
        await gateway.allow(await gateway.pair(), Carrier(carrier))
        await gateway.links.link(await gateway.links.meet(entered), entered.host)
        await gateway.watch(passing)
        say(door=gateway.door.id)
        await asyncio.sleep(20)


@core._job
async def lock_out(say: core.Say, folder: str, code: str, carrier: str, issued: str) -> None:
    """Accept a token of a linked carrier that is not in its day's list, and die as soon as the lock-out is told."""
    entered, clock = EnrolmentCode.parse(code), Clock(wall=time.time())
    async with _Watched(Path(folder), lambda _: None, clock=clock) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, Carrier(carrier))
        met = await gateway.links.meet(entered)
        await gateway.links.link(met, entered.host)
        await gateway.told(EventName.DOOR_RELEASED)
        gateway.controller._telling._host = lambda _: core._die()  # type: ignore[method-assign]
        say(bearer=admin.token)
        clock.advance(1.1 * DAY)
        await gateway.carriers.take_issued(met.issuer, issued, gateway.key)
        say(never_issued=sorted(alarm for _, alarm in gateway.carriers.alarms))
        clock.advance(DAY)
        await gateway.carriers.look(met.issuer, asks=False)
        say(survived=True)


if __name__ == "__main__":
    core.main()
