"""At most once, whatever dies: a gateway killed at random while many callers open doors over the network (G8).

The default run is small; the long one makes the figures that docs/testing.md keeps and prints them (``-m long -s``).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gateway import control
from scripts.demo_home.home import free_port
from tests.gateway.forked import Forked, Forks, make_shim, syncs_of_unlocks
from tests.gateway.process import command, network
from tests.simulated import Carrier
from vestibule_core.api import client
from vestibule_core.api.client import GatewayClient, Paired
from vestibule_core.api.messages import Answer, DoorDescription
from vestibule_core.api.policy import Policy
from vestibule_core.errors import GatewayRefused, GatewayUnreachable, OutcomeUnknown
from vestibule_core.model import EventName, Word
from vestibule_core.token import spend_id

DOORS = 160
"""No caller comes to a door twice in one life of the gateway: a movement of its relay is of one token. There are more
than the gateway's limits let anybody open until it is killed.
"""
CALLERS = 8
LOAD = 0.25
"""Seconds of load in which a kill comes."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """What counts syncs and makes them take longer."""
    if (shim := make_shim(tmp_path_factory.mktemp("shim"))) is None:
        pytest.skip("no C compiler for the fsync shim")
    return shim


@pytest.fixture(scope="module")
def forks(shim):
    """Gateways that can be killed, with syncs that can be slowed down."""
    forks = Forks(shim)
    yield forks
    forks.close()


@dataclass
class Presented:
    """A token that was sent to a door, and what came back, if anything did."""

    door: DoorDescription
    channel: int
    carrier: Carrier
    text: str
    spend_id: bytes
    answer: Answer | None = None

    async def present(self, asking: GatewayClient) -> Answer:
        return await patiently(partial(asking.unlock, self.door.door.id, self.text, self.carrier.issuer))


@dataclass
class Building:
    """One gateway of many lives, on one state folder."""

    folder: Path
    carriers: list[Carrier] = field(default_factory=lambda: [Carrier(f"Parcels {number}") for number in range(3)])
    paired: Paired | None = None
    doors: list[DoorDescription] = field(default_factory=list)
    presented: list[Presented] = field(default_factory=list)
    """In the last life."""
    newest: int = 0
    """The journal's newest entry before that."""
    moved_before: int = 0
    """Movements before that."""
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    """A caller has opened a door in this life."""
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.port = free_port()
        doors = "".join(
            f'[door.d{number}]\nname = "{number}"\naccess_time = 30\nrelay = {{ board = "b", channel = {number} }}\n'
            for number in range(1, DOORS + 1)
        )
        self.config = self.folder / "gateway.toml"
        self.config.write_text(
            f'name = "Parcel room"\nstate = "state"\n[listen]\nhost = "127.0.0.1"\nport = {self.port}\n'
            f'announce = false\n[board.b]\nkind = "memory"\noutputs = {DOORS}\nlog = "relay.log"\n{doors}'
        )
        self.relay_log = self.folder / "relay.log"

    @property
    def moved(self) -> list[str]:
        """Each movement of a relay that there ever was, as ``CHANNEL on SECONDS`` or ``CHANNEL off SECONDS``."""
        return self.relay_log.read_text().splitlines() if self.relay_log.exists() else []

    def client(self, session) -> GatewayClient:
        assert self.paired is not None
        return GatewayClient(session, "127.0.0.1", self.port, self.paired.token, [self.paired.fingerprint])

    async def set_up(self, session) -> None:
        """Pair with it, and let carriers in at every door."""
        window = await asyncio.to_thread(
            control.call, self.folder / "state" / "control.sock", "POST", "/pair", {"replace": False, "trust": True}
        )
        self.paired = await client.pair(session, "127.0.0.1", self.port, window["code"], "Home Assistant")
        self.doors = list((await self.client(session).doors()).doors)
        for carrier in self.carriers:
            carrier.doors = tuple(description.door for description in self.doors)
        taken = await self.client(session).put_policy(
            0, Policy("UTC", tuple(carrier.admitted for carrier in self.carriers))
        )
        assert not taken.pending

    # ---- one life ----

    @asynccontextmanager
    async def life(self, forks: Forks, sync_delay: float):
        """Start the gateway, and see that nothing moves by itself; whoever uses it ends it."""
        before = self.moved
        gateway = await forks.start(self.config, sync_delay=sync_delay / 1000)
        try:
            async with network() as session:
                if self.paired is not None:
                    await self.client(session).doors()
                assert self.moved == before, "something moved at the start"
                yield gateway, session
        finally:
            gateway.end()

    async def open_doors(self, session, number: int) -> None:
        """Be one of the callers: open doors, one after the other, until the gateway is gone."""
        asking = self.client(session)
        for channel in range(number + 1, DOORS + 1, CALLERS):
            door, carrier = self.doors[channel - 1], self.carriers[channel % len(self.carriers)]
            nonce = (await patiently(partial(asking.challenge, door.door.id, carrier.issuer))).nonce
            now = int(time.time())
            claims = carrier.claims(nonce, aud=door.door.id, iat=now, exp=now + 60, chk={"req": now - 2})
            text = carrier.token(nonce, **claims)
            sent = Presented(door, channel, carrier, text, spend_id(carrier.issuer, claims["jti"]))
            self.presented.append(sent)
            sent.answer = await sent.present(asking)
            assert sent.answer.word is Word.GRANTED
            self.is_open.set()

    async def load_until_killed(self, gateway: Forked, session, kill_after: float) -> None:
        """Open doors with many callers at once, and kill the gateway meanwhile."""
        self.presented, self.moved_before = [], len(self.moved)
        self.newest = (await self.client(session).events(0, 1)).newest
        self.is_open.clear()
        callers = [asyncio.create_task(self.open_doors(session, number)) for number in range(CALLERS)]
        async with asyncio.timeout(20):
            await self.is_open.wait()
        await asyncio.sleep(kill_after)
        gateway.kill()
        for end in await asyncio.gather(*callers, return_exceptions=True):
            assert end is None or isinstance(end, GatewayUnreachable | OutcomeUnknown), end
        self.counted["tokens"] += len(self.presented)
        self.counted["answered"] += sum(sent.answer is not None for sent in self.presented)
        self.counted["kills in the middle of an unlock"] += any(sent.answer is None for sent in self.presented)

    async def look_back(self, session) -> None:
        """Compare what callers heard, what the journal has and what moved; then present each token once more."""
        asking = self.client(session)
        granted: set[bytes] = set()
        after, events = self.newest, None
        while events is None or events.events:
            events = await asking.events(after)
            for event in events.events:
                after = event.sequence or after
                if event.outcome is EventName.ACCESS_GRANTED and event.spend_id is not None:
                    assert event.spend_id not in granted, "a token was spent twice"
                    granted.add(event.spend_id)
        moved = self.moved
        movements = [line.split() for line in moved[self.moved_before :]]
        pulses = Counter(int(channel) for channel, what, _ in movements if what == "on")
        assert pulses.keys() <= {sent.channel for sent in self.presented}, "a door moved for which there was no token"
        assert granted <= {sent.spend_id for sent in self.presented}
        for sent in self.presented:
            assert pulses[sent.channel] <= 1, "a token moved the strike twice"
            assert pulses[sent.channel] <= (sent.spend_id in granted), "the strike moved without a durable record"
            if sent.answer is not None:
                assert sent.spend_id in granted, "an answer was lost"
                assert pulses[sent.channel] == 1
        for sent in self.presented:
            answer = await sent.present(asking)
            if sent.spend_id in granted:
                assert answer.word is Word.ALREADY_USED
            else:  # nothing was spent: it may come again with another challenge, which this gateway made
                assert answer.code == "NONCE_UNKNOWN"
            self.counted[f"replayed: {answer.word}"] += 1
        assert self.moved == moved, "a replay moved a strike"
        self.counted["pulses"] += pulses.total()
        self.counted["durable records"] += len(granted)


async def patiently[T](ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again if the gateway says that it is asked too often: it has not looked at it then."""
    while True:
        try:
            return await ask()
        except GatewayRefused as refused:
            if refused.status != 429:
                raise
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("sync_delay", [0, 5, 20], ids="{} ms more per sync".format)
@pytest.mark.parametrize("kills", [2, pytest.param(167, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
async def test_killed_under_load_no_answer_is_lost_and_nothing_moves_twice(tmp_path, forks, kills, sync_delay):
    """One state folder and one life after the other: start, present all tokens of the last life, open doors, kill."""
    chance, building = random.Random(kills + sync_delay), Building(tmp_path)
    async with building.life(forks, sync_delay) as (gateway, session):
        await building.set_up(session)
        await building.load_until_killed(gateway, session, chance.uniform(0, LOAD))
    for _ in range(kills - 1):
        async with building.life(forks, sync_delay) as (gateway, session):
            await building.look_back(session)
            await building.load_until_killed(gateway, session, chance.uniform(0, LOAD))
    status, said = await command("journal", "verify", tmp_path / "state" / "journal.db")  # as the last kill left it
    assert (status, said.startswith("holds:")) == (0, True), said
    async with building.life(forks, sync_delay) as (gateway, session):
        await building.look_back(session)
        gateway.stop()
    counted = building.counted
    assert counted["tokens"] >= counted["durable records"] >= counted["pulses"] >= counted["answered"] > 0
    assert counted["kills in the middle of an unlock"] > 0
    assert "error" not in (tmp_path / "output.log").read_text()
    print(f"\n{kills} kills, {sync_delay} ms more per sync: {dict(counted)}; {said.splitlines()[0]}")


def test_g6_a_lone_unlock_over_the_network_is_synced_exactly_once_before_the_relay_is_told(tmp_path, shim):
    """Counted by the operating system's own calls, in the gateway's process."""
    assert syncs_of_unlocks(tmp_path, shim, 5) == [1] * 5
