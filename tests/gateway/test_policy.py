"""The policy of a gateway: set by compare-and-swap; what is less holds at once, what is more waits."""

import asyncio
from dataclasses import replace

import pytest

from gateway import policy as policy_module
from gateway.clients import Clients
from gateway.limits import CHANGE_AGAIN, CHANGE_BURST, TooManyChanges
from gateway.policy import Conflict, PolicyDesk, PolicyTooLarge, after_pairing, approve, keep_looking
from gateway.wait import DAY, NOTED_EVERY
from tests.gateway.at_work import Disk, policy_of
from tests.simulated import IDENTITY, Carrier, Clock, open_journal, read_journal, some_doors
from vestibule_core.api.messages import Client, ClientChange, ClientId, PolicyRequest, Scope
from vestibule_core.api.policy import EMPTY
from vestibule_core.errors import MalformedMessage, StoreFailed
from vestibule_core.model import EventName
from vestibule_core.policy import EvidenceLimits

HOME = Client(ClientId("0" * 16), "Home Assistant", frozenset(Scope), None)
DOORS = some_doors(3)


class Desk:
    """The policy of a gateway that is nothing besides."""

    def __init__(self, path):
        self.path, self.clock, self.events, self.changes = path, Clock(), [], 0
        self.trusts = False

    async def __aenter__(self):
        self.journal = await asyncio.to_thread(open_journal, self.path)
        try:
            notes = self.journal.notes()
            self.clients = Clients(self.journal, notes, clock=self.clock)
            self.policy = PolicyDesk(
                self.journal, notes, clock=self.clock, is_trusted=lambda: self.trusts, changed=self._changed
            )
        except BaseException:
            await asyncio.to_thread(self.journal.close)
            raise
        self.journal.start(self.events.append)
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.journal.close)

    async def restart(self):
        await self.__aexit__()
        await self.__aenter__()

    def _changed(self):
        self.changes += 1

    async def put(self, *carriers, base=None, version=None, zone="UTC"):
        base = self.policy.version if base is None else base
        request = PolicyRequest(base, base + 1 if version is None else version, policy_of(carriers, zone))
        return await self.policy.put(request, HOME)

    async def allow(self, *carriers):
        await self.put(*carriers)
        await self.policy.approve()

    @property
    def allowed(self):
        """Which doors each carrier may enter now."""
        building = self.policy.building(DOORS)
        return {carrier.name: sorted(DOORS.index(door) for door in DOORS if door.id in carrier.doors)
                for carrier in building.carriers.values()}  # fmt: skip

    @property
    def outcomes(self):
        return [event.outcome for event in self.events]


@pytest.fixture
async def desk(tmp_path):
    async with Desk(tmp_path / "journal.db") as desk:
        yield desk


def parcels(*doors, **kind):
    return Carrier("Parcels", [DOORS[number] for number in doors or (0,)], **kind)


async def test_a_new_gateway_allows_nothing(desk):
    assert (desk.policy.version, desk.policy.effective, desk.allowed) == (0, EMPTY, {})
    assert desk.policy.view.pending is None


async def test_what_is_more_waits_for_the_button(desk):
    taken = await desk.put(parcels())
    assert (taken.version, taken.pending, taken.seconds_left) == (1, True, DAY)
    assert desk.allowed == {}
    view = desk.policy.view
    assert (view.version, view.policy, view.pending.seconds_left) == (1, EMPTY, DAY)
    assert view.pending.policy == policy_of([parcels()])
    assert view.pending.why == ("Parcels: a new carrier",)
    assert await desk.policy.approve() == 1
    assert desk.allowed == {"Parcels": [0]}
    assert (desk.policy.view.version, desk.policy.view.pending) == (1, None)
    assert await desk.policy.approve() == 0
    assert desk.outcomes == [EventName.POLICY_PENDING, EventName.POLICY_CHANGED]
    await desk.restart()
    assert (desk.policy.version, desk.allowed) == (1, {"Parcels": [0]})


async def test_or_for_a_day_of_boot_time_which_no_wall_clock_shortens(desk):
    await desk.put(parcels())
    desk.clock.set_wall(by=10 * DAY)
    await desk.policy.look()
    assert desk.allowed == {}
    desk.clock.advance(DAY - 1)
    await desk.policy.look()
    assert (desk.allowed, desk.policy.view.pending.seconds_left) == ({}, 1)
    desk.clock.advance(1)
    await desk.policy.look()
    assert desk.allowed == {"Parcels": [0]}


async def test_a_restart_makes_the_wait_longer_and_never_shorter(desk):
    await desk.put(parcels())
    await desk.restart()
    assert desk.policy.view.pending.seconds_left == DAY
    desk.clock.advance(NOTED_EVERY)
    await desk.policy.look()
    desk.clock.advance(NOTED_EVERY - 1)
    await desk.policy.look()
    await desk.restart()
    assert desk.policy.view.pending.seconds_left == DAY - NOTED_EVERY
    assert desk.allowed == {}
    desk.clock.advance(DAY - NOTED_EVERY)
    await desk.policy.look()
    assert desk.allowed == {"Parcels": [0]}


async def test_what_is_less_holds_at_once_while_the_rest_waits(desk):
    await desk.allow(parcels(0))
    taken = await desk.put(parcels(1))
    assert taken.pending
    assert desk.allowed == {"Parcels": []}, "neither the door that is no more, nor the one that is new"
    await desk.restart()
    assert desk.allowed == {"Parcels": []}
    await desk.policy.approve()
    assert desk.allowed == {"Parcels": [1]}


async def test_what_is_only_less_waits_for_nobody(desk):
    await desk.allow(parcels(0, 1))
    taken = await desk.put(parcels(1, limits=EvidenceLimits(distance=10), rate=1))
    assert (taken.pending, taken.seconds_left) == (False, None)
    assert desk.allowed == {"Parcels": [1]}
    assert desk.outcomes[-1] is EventName.POLICY_CHANGED
    await desk.put()
    assert desk.allowed == {}


async def test_it_holds_before_it_is_on_the_disk(desk):
    await desk.allow(parcels(0))
    disk = Disk(desk.journal)
    disk.stall()
    changes = desk.changes
    putting = asyncio.create_task(desk.put())
    await asyncio.sleep(0)
    assert (desk.allowed, desk.changes) == ({}, changes + 1)
    disk.go_on()
    await putting


async def test_what_is_more_does_not_hold_before_it_is_on_the_disk(desk):
    desk.trusts = True
    disk = Disk(desk.journal)
    disk.stall()
    putting = asyncio.create_task(desk.put(parcels(0)))
    await asyncio.sleep(0.05)
    assert desk.allowed == {}
    disk.go_on()
    assert not (await putting).pending
    assert desk.allowed == {"Parcels": [0]}


async def test_a_disk_that_fails_allows_nothing_more_and_brings_nothing_back(desk):
    desk.trusts = True
    await desk.put(parcels(0))
    Disk(desk.journal).fails = True
    with pytest.raises(StoreFailed):
        await desk.put(parcels(1))
    assert (desk.policy.version, desk.allowed) == (1, {"Parcels": []})
    await desk.restart()
    assert (desk.policy.version, desk.allowed) == (1, {"Parcels": [0]}), "as it was on the disk"


async def test_an_approval_that_cannot_be_written_does_not_hold(desk):
    await desk.put(parcels())
    Disk(desk.journal).fails = True
    with pytest.raises(StoreFailed):
        await desk.policy.approve()
    assert desk.allowed == {}
    assert desk.policy.view.pending is not None


@pytest.mark.parametrize(
    "base, version", [(0, 1), (2, 3), (1, 3), (1, 1), (1, 0), (1, 2**63 - 1), (2**63 - 1, 2**63 - 1)]
)
async def test_who_does_not_know_what_he_replaces_replaces_nothing(desk, base, version):
    await desk.allow(parcels())
    with pytest.raises(Conflict) as conflict:
        await desk.put(base=base, version=version)
    assert conflict.value.version == 1
    assert desk.allowed == {"Parcels": [0]}


async def test_of_two_at_once_one_is_taken(desk):
    results = await asyncio.gather(desk.put(parcels(), base=0), desk.put(base=0), return_exceptions=True)
    assert results[0].version == 1
    assert isinstance(results[1], Conflict)


async def test_a_later_policy_takes_the_place_of_one_that_waits(desk):
    await desk.put(parcels(0, 1))
    await desk.put(parcels(1))
    await desk.policy.approve()
    assert (desk.policy.version, desk.allowed) == (2, {"Parcels": [1]})
    await desk.put(parcels(0))
    await desk.put(parcels(1))
    assert desk.policy.view.pending is not None
    assert desk.allowed == {"Parcels": []}, "what was taken away once has to be granted anew"
    await desk.put()
    assert await desk.policy.approve() == 0
    assert desk.allowed == {}


async def test_one_that_is_replaced_while_it_is_approved_does_not_hold(desk):
    await desk.put(parcels(0, 1))
    disk = Disk(desk.journal)
    disk.stall()
    approving = asyncio.create_task(desk.policy.approve())
    await asyncio.sleep(0)
    replacing = asyncio.create_task(desk.put())
    await asyncio.sleep(0)
    disk.go_on()
    await asyncio.gather(approving, replacing)
    assert (desk.policy.version, desk.allowed) == (2, {})
    await desk.restart()
    assert (desk.policy.version, desk.allowed, desk.policy.pending) == (2, {}, None)


async def test_the_button_pressed_as_the_day_ends_is_one_approval(desk):
    await desk.put(parcels())
    desk.clock.advance(DAY)
    assert sorted(await asyncio.gather(desk.policy.approve(), desk.policy.look(), desk.policy.approve()), key=str) == [
        0,
        1,
        None,
    ]
    assert desk.outcomes == [EventName.POLICY_PENDING, EventName.POLICY_CHANGED]
    assert desk.allowed == {"Parcels": [0]}


async def test_one_that_is_replaced_while_it_is_written_does_not_hold(desk):
    desk.trusts = True
    disk = Disk(desk.journal)
    disk.stall()
    first = asyncio.create_task(desk.put(parcels(0)))
    await asyncio.sleep(0)
    second = asyncio.create_task(desk.put(parcels(1)))
    await asyncio.sleep(0)
    disk.go_on()
    assert [taken.version for taken in await asyncio.gather(first, second)] == [1, 2]
    assert desk.allowed == {"Parcels": [1]}
    await desk.restart()
    assert desk.allowed == {"Parcels": [1]}


async def test_a_button_approves_everything_that_waits(desk):
    for_all = {"replaces": False, "trusts": False, "gateway_key": IDENTITY.verifier, "gateway_name": "Parcel room"}
    one, other = await desk.clients.pair("A", **for_all), await desk.clients.pair("B", **for_all)
    admin = desk.clients.registry.get(one.client_id).client
    await desk.clients.change(other.client_id, ClientChange(frozenset(Scope), None), admin)
    await desk.put(parcels())
    assert await approve(desk.policy, desk.clients) == 2
    assert await approve(desk.policy, desk.clients) == 0
    assert desk.clients.registry.get(other.client_id).client.scopes == frozenset(Scope)


async def test_time_passes_by_itself_also_when_the_journal_has_failed(desk, monkeypatch):
    monkeypatch.setattr(policy_module, "LOOK_EVERY", 0.001)
    looking = asyncio.create_task(keep_looking(desk.policy, desk.clients))
    await desk.put(parcels())
    desk.clock.advance(DAY)
    async with asyncio.timeout(5):
        while not desk.allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await desk.put(parcels(0, 1))
    Disk(desk.journal).fails = True
    desk.clock.advance(DAY)
    async with asyncio.timeout(5):
        while not desk.journal.failed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert not looking.done()
    assert desk.allowed == {"Parcels": [0]}
    looking.cancel()


async def test_what_would_not_fit_when_it_is_read_again_is_not_taken(desk, monkeypatch):
    desk.trusts = True
    monkeypatch.setattr(policy_module, "_NOTE", replace(policy_module._NOTE, most=300))
    with pytest.raises(PolicyTooLarge):
        await desk.put(*(Carrier(f"Carrier {number}", DOORS) for number in range(3)))
    assert desk.policy.version == 0
    monkeypatch.undo()
    assert (await desk.put(parcels())).version == 1


@pytest.mark.parametrize("trusts", [True, False])
async def test_a_policy_whose_note_is_longer_than_a_row_harms_no_journal_and_is_kept(desk, trusts):
    """It is short enough to be sent, but each of its letters takes six bytes in the note."""
    desk.trusts = trusts
    many = [Carrier(f"Carrier {number}", DOORS) for number in range(62)]
    for each in many:
        each.name += "é" * 180
    await desk.put(*many)
    assert not desk.journal.failed
    await desk.__aexit__()
    await desk.__aenter__()
    view = desk.policy.view
    assert len((view.policy if trusts else view.pending.policy).carriers) == 62


async def test_the_journal_says_who_asked_for_what(desk):
    await desk.put(parcels())
    await desk.policy.approve()
    await desk.__aexit__()
    asked, let_in = [text for (text,) in read_journal(desk.path, "SELECT json FROM person ORDER BY seq")]
    assert '"client":"0000000000000000"' in asked
    assert "Parcels: a new carrier" in asked
    assert '"name":"button"' in let_in
    await desk.__aenter__()


@pytest.mark.parametrize("name, text", [("policy", "{}"), ("policy:pending", "[]"), ("policy:waited", "soon")])
async def test_what_is_noted_and_cannot_be_read_allows_nothing(tmp_path, name, text):
    async with Desk(tmp_path / "journal.db") as desk:
        await desk.put(parcels())
        await desk.journal.note({name: text})
    with pytest.raises(MalformedMessage):
        await Desk(tmp_path / "journal.db").__aenter__()


# ---- what somebody could wear it out with, or leave behind ----


async def test_what_is_set_already_is_no_change(desk):
    """No version, no entry, no sync: a client that asks again and again wears out nothing."""
    for wanted in (parcels(), parcels(0, 1)):
        await desk.allow(wanted)
        written, version = desk.journal.sequence, desk.policy.version
        taken = await desk.put(wanted)
        assert (taken.version, taken.pending, desk.journal.sequence) == (version, False, written)
    await desk.put(parcels(0, 1, 2))
    written = desk.journal.sequence
    assert (await desk.put(parcels(0, 1, 2))).pending
    assert (await desk.put(parcels(0, 1, 2))).version == desk.policy.version
    assert desk.journal.sequence == written


async def test_two_who_set_it_in_turns_are_held_back(desk):
    for number in range(int(CHANGE_BURST)):
        await desk.put(parcels(number % 2))
    with pytest.raises(TooManyChanges):
        await desk.put(parcels(2))
    version = desk.policy.version
    desk.clock.advance(CHANGE_AGAIN)
    assert (await desk.put(parcels(2))).version == version + 1


async def test_names_of_any_length_are_written_down_with_the_change(desk):
    """A reason that did not fit once left memory and disk apart."""
    loud = [Carrier(f"C{number}", DOORS) for number in range(8)]
    for carrier in loud:
        carrier.name = "\N{PACKAGE}" * 200
    assert (await desk.put(*loud)).version == 1
    await desk.restart()
    assert (desk.policy.version, len(desk.policy.view.pending.policy.carriers)) == (1, 8)


async def test_trust_that_is_given_later_lets_what_waits_hold(desk):
    await desk.put(parcels())
    await after_pairing(desk.policy, desk.clients, replaced=False, trusted=False)
    assert desk.allowed == {}
    await after_pairing(desk.policy, desk.clients, replaced=False, trusted=True)
    assert desk.allowed == {"Parcels": [0]}


async def test_what_somebody_asked_for_who_was_replaced_is_forgotten(desk):
    await desk.allow(parcels())
    await desk.put(parcels(0, 1))
    await after_pairing(desk.policy, desk.clients, replaced=True, trusted=True)
    for _ in range(2):
        assert (desk.policy.view.pending, desk.allowed) == (None, {"Parcels": [0]})
        await desk.restart()
