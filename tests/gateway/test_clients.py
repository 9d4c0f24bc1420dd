"""Who is paired, and what each client may do: what is less holds at once, what is more waits."""

import asyncio

import pytest

from gateway.clients import Clients, LastAdmin, Registry, TooManyClients, UnknownClient, less
from gateway.wait import DAY, NOTED_EVERY
from tests.gateway.at_work import Disk
from tests.simulated import IDENTITY, Clock, open_journal, read_journal
from vestibule_core.api.messages import MAX_CLIENTS, ClientChange, Scope
from vestibule_core.errors import MalformedMessage, StoreFailed
from vestibule_core.model import EventName

A, B = "https://a.example", "https://b.example"
READ, PRESENT, OPERATE, ADMIN = Scope


def rights(*scopes, issuers=None):
    return ClientChange(frozenset(scopes), None if issuers is None else frozenset(issuers))


class Desk:
    """The clients of a gateway that is nothing besides."""

    def __init__(self, path):
        self.path, self.clock, self.events = path, Clock(), []

    async def __aenter__(self):
        self.journal = await asyncio.to_thread(open_journal, self.path)
        self.clients = Clients(self.journal, self.journal.notes(), clock=self.clock)
        self.journal.start(self.events.append)
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.journal.close)

    async def restart(self):
        await self.__aexit__()
        await self.__aenter__()

    async def pair(self, name="Home Assistant", *, replaces=False, trusts=False):
        return await self.clients.pair(
            name, replaces=replaces, trusts=trusts, gateway_key=IDENTITY.verifier, gateway_name="Parcel room"
        )

    def may(self, who):
        one = self.clients.registry.get(who.client_id).client
        return ClientChange(one.scopes, one.issuers)

    async def change(self, who, wanted, by=None):
        admin = self.clients.registry.get((by or who).client_id).client
        return await self.clients.change(who.client_id, wanted, admin)

    @property
    def outcomes(self):
        return [event.outcome for event in self.events]


@pytest.fixture
async def desk(tmp_path):
    async with Desk(tmp_path / "journal.db") as desk:
        yield desk


# ---- pairing ----


async def test_the_first_client_may_do_everything_and_a_later_one_only_read(desk):
    first, later = await desk.pair(), await desk.pair("Panel")
    assert (first.scopes, desk.may(first)) == (frozenset(Scope), rights(*Scope))
    assert (later.scopes, desk.may(later)) == (frozenset({READ}), rights(READ))
    assert first.clients == ()
    assert [(peer.id, peer.name, peer.scopes) for peer in later.clients] == [
        (first.client_id, "Home Assistant", frozenset(Scope))
    ]


async def test_a_bearer_is_256_random_bits_of_which_only_the_hash_is_kept(desk):
    one, other = await desk.pair(), await desk.pair("Panel")
    assert len(one.token) == 43
    assert one.token != other.token
    assert desk.clients.registry.holder(one.token).id == one.client_id
    assert desk.clients.registry.holder(one.token[1:] + one.token[0]) is None
    await desk.restart()
    assert desk.clients.registry.holder(one.token).id == one.client_id, "after a restart as before"
    files = b"".join(part.read_bytes() for part in desk.path.parent.iterdir())
    assert one.token.encode() not in files
    assert one.token not in repr(one) + repr(desk.clients.registry)


async def test_who_replaces_the_others_is_alone_from_the_same_commit_on(desk):
    first, later = await desk.pair(), await desk.pair("Panel")
    new = await desk.pair("New", replaces=True)
    assert new.clients == ()
    assert desk.may(new) == rights(*Scope)
    assert [client.name for client in desk.clients.registry.clients] == ["New"]
    assert [desk.clients.registry.holder(gone.token) for gone in (first, later)] == [None, None]
    assert desk.outcomes == [EventName.CLIENT_PAIRED] * 3, "one entry, hence one commit"
    await desk.restart()
    assert [client.name for client in desk.clients.registry.clients] == ["New"]


async def test_trust_is_given_by_who_opens_the_window_and_ends_when_all_are_replaced(desk):
    assert not (await desk.pair()).trusted
    assert (await desk.pair("Panel", trusts=True)).trusted
    assert (await desk.pair("Another")).trusted
    await desk.restart()
    assert desk.clients.registry.trusted
    assert not (await desk.pair("New", replaces=True)).trusted
    await desk.restart()
    assert not desk.clients.registry.trusted


async def test_there_is_an_end_to_clients(desk):
    for number in range(MAX_CLIENTS):
        await desk.pair(f"Client {number}")
    with pytest.raises(TooManyClients):
        await desk.pair("One more")
    assert (await desk.pair("Instead of all", replaces=True)).client_id


async def test_a_journal_that_fails_pairs_nobody(desk):
    first = await desk.pair()
    Disk(desk.journal).fails = True
    with pytest.raises(StoreFailed):
        await desk.pair("New", replaces=True)
    assert [client.id for client in desk.clients.registry.clients] == [first.client_id]
    await desk.restart()
    assert [client.id for client in desk.clients.registry.clients] == [first.client_id]


# ---- what they may do ----

LESS = [
    (rights(READ, OPERATE), rights(READ), rights(READ), "one scope is taken away"),
    (rights(READ), rights(OPERATE), rights(), "one for another"),
    (rights(), rights(READ), rights(READ), "to read is no more"),
    (rights(PRESENT), rights(PRESENT, issuers=[A]), rights(PRESENT, issuers=[A]), "from all issuers to one"),
    (rights(PRESENT, issuers=[A]), rights(PRESENT), rights(PRESENT, issuers=[A]), "from one issuer to all"),
    (rights(PRESENT, issuers=[A]), rights(PRESENT, issuers=[B]), rights(PRESENT, issuers=[]), "one for another"),
    (rights(PRESENT, issuers=[A]), rights(READ), rights(READ), "who presents nothing presents nobody's"),
    (rights(READ), rights(PRESENT, issuers=[A]), rights(issuers=[A]), "to present is more, whosever it is"),
    (rights(*Scope), rights(*Scope), rights(*Scope), "nothing"),
]


@pytest.mark.parametrize("now, wanted, held, what", LESS, ids=[row[-1] for row in LESS])
def test_what_holds_at_once_is_never_more(now, wanted, held, what):
    assert less(now, wanted) == held
    assert less(held, wanted) == held


async def test_what_is_granted_waits_for_the_button(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    taken = await desk.change(panel, rights(READ, OPERATE), admin)
    assert (taken.pending, taken.seconds_left) == (True, DAY)
    assert desk.may(panel) == rights(READ)
    assert await desk.clients.approve() == 1
    assert desk.may(panel) == rights(READ, OPERATE)
    assert await desk.clients.approve() == 0
    assert desk.outcomes[2:] == [EventName.CLIENT_CHANGED] * 2
    await desk.restart()
    assert desk.may(panel) == rights(READ, OPERATE)


async def test_or_for_a_day_of_boot_time_which_no_wall_clock_shortens(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    desk.clock.set_wall(by=10 * DAY)
    await desk.clients.look()
    assert desk.may(panel) == rights(READ)
    desk.clock.advance(DAY - 1)
    await desk.clients.look()
    assert desk.may(panel) == rights(READ)
    desk.clock.advance(1)
    await desk.clients.look()
    assert desk.may(panel) == rights(READ, OPERATE)


async def test_a_restart_makes_the_wait_longer_and_never_shorter(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    desk.clock.advance(NOTED_EVERY)
    await desk.clients.look()
    desk.clock.advance(NOTED_EVERY - 1)
    await desk.clients.look()
    await desk.restart()
    wish = desk.clients.registry.get(panel.client_id).wish
    assert wish.wait.left(desk.clock().boot) == DAY - NOTED_EVERY
    desk.clock.advance(DAY - NOTED_EVERY)
    await desk.clients.look()
    assert desk.may(panel) == rights(READ, OPERATE)


async def test_nothing_waits_at_a_gateway_that_trusts(desk):
    admin, panel = await desk.pair(trusts=True), await desk.pair("Panel")
    taken = await desk.change(panel, rights(READ, OPERATE), admin)
    assert (taken.pending, taken.seconds_left) == (False, None)
    assert desk.may(panel) == rights(READ, OPERATE)


async def test_what_is_taken_away_holds_before_it_is_on_the_disk(desk):
    admin, panel = await desk.pair(trusts=True), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    disk = Disk(desk.journal)
    disk.stall()
    changing = asyncio.create_task(desk.change(panel, rights(PRESENT), admin))
    await asyncio.sleep(0)
    assert desk.may(panel) == rights()
    removing = asyncio.create_task(
        desk.clients.remove(panel.client_id, desk.clients.registry.get(admin.client_id).client)
    )
    await asyncio.sleep(0)
    assert desk.clients.registry.holder(panel.token) is None
    disk.go_on()
    await asyncio.gather(changing, removing)
    assert desk.clients.registry.holder(panel.token) is None, "what was asked for before brings nobody back"
    await desk.restart()
    assert desk.clients.registry.holder(panel.token) is None


async def test_and_holds_although_the_disk_fails_while_nothing_is_granted(desk):
    admin, panel = await desk.pair(trusts=True), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    Disk(desk.journal).fails = True
    with pytest.raises(StoreFailed):
        await desk.change(panel, rights(READ, PRESENT), admin)
    assert desk.may(panel) == rights(READ)
    await desk.restart()
    assert desk.may(panel) == rights(READ, OPERATE), "as it was on the disk"


async def test_a_later_wish_takes_the_place_of_an_earlier_one(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    await desk.change(panel, rights(READ, PRESENT, issuers=[A]), admin)
    await desk.clients.approve()
    assert desk.may(panel) == rights(READ, PRESENT, issuers=[A])
    await desk.change(panel, rights(READ), admin)
    assert await desk.clients.approve() == 0


async def test_a_wish_that_is_withdrawn_while_it_is_approved_is_not_granted(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    disk = Disk(desk.journal)
    disk.stall()
    approving = asyncio.create_task(desk.clients.approve())
    await asyncio.sleep(0)
    withdrawing = asyncio.create_task(desk.change(panel, rights(READ), admin))
    await asyncio.sleep(0)
    disk.go_on()
    await asyncio.gather(approving, withdrawing)
    assert desk.may(panel) == rights(READ)
    await desk.restart()
    assert desk.may(panel) == rights(READ)


async def test_an_approval_is_not_undone_by_what_is_noted_of_the_waiting(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, OPERATE), admin)
    desk.clock.advance(NOTED_EVERY)
    disk = Disk(desk.journal)
    disk.stall()
    both = [asyncio.create_task(work) for work in (desk.clients.approve(), desk.clients.look())]
    await asyncio.sleep(0.01)
    disk.go_on()
    await asyncio.gather(*both)
    assert desk.may(panel) == rights(READ, OPERATE)
    await desk.restart()
    assert desk.may(panel) == rights(READ, OPERATE)


@pytest.mark.parametrize("how", ["removed", "narrowed"])
async def test_who_is_removed_or_narrowed_while_the_button_is_pressed_gets_nothing_by_it(desk, how):
    """Also not after a restart: nothing stale is written behind what was taken away."""
    admin, one, two = await desk.pair(), await desk.pair("One"), await desk.pair("Two")
    for each in (one, two):
        await desk.change(each, rights(READ, OPERATE), admin)
    last = next(each for each in (one, two) if each.client_id == desk.clients.waiting[-1].client.id)
    disk = Disk(desk.journal)
    disk.stall()
    pressed = asyncio.create_task(desk.clients.approve())
    await asyncio.sleep(0.05)
    if how == "removed":
        by = desk.clients.registry.get(admin.client_id).client
        taking = asyncio.create_task(desk.clients.remove(last.client_id, by))
    else:
        taking = asyncio.create_task(desk.change(last, rights(), admin))
    await asyncio.sleep(0.05)
    disk.go_on()
    assert await pressed == 1
    await taking
    for _ in range(2):
        if how == "removed":
            assert desk.clients.registry.holder(last.token) is None
        else:
            assert desk.may(last) == rights()
        await desk.restart()


async def test_an_administrator_who_is_replaced_does_not_write_himself_back_meanwhile(desk):
    thief = await desk.pair("Thief")
    disk = Disk(desk.journal)
    disk.stall()
    pairing = asyncio.create_task(desk.pair("Owner", replaces=True))
    await asyncio.sleep(0.05)
    with pytest.raises(UnknownClient):
        await desk.change(thief, rights(READ, PRESENT, OPERATE, ADMIN))
    disk.go_on()
    owner = await pairing
    for _ in range(2):
        assert desk.clients.registry.holder(thief.token) is None
        assert ADMIN in desk.may(owner).scopes
        await desk.restart()


async def test_a_replacement_that_the_disk_does_not_take_replaces_nobody(desk):
    before = await desk.pair()
    disk = Disk(desk.journal)
    disk.fails = True
    with pytest.raises(StoreFailed):
        await desk.pair("Owner", replaces=True)
    assert ADMIN in desk.may(before).scopes


async def test_the_last_administrator_stays_one(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    client = desk.clients.registry.get(admin.client_id).client
    with pytest.raises(LastAdmin):
        await desk.clients.remove(admin.client_id, client)
    with pytest.raises(LastAdmin):
        await desk.change(admin, rights(READ, OPERATE))
    assert desk.may(admin) == rights(*Scope)
    await desk.change(panel, rights(READ, ADMIN), admin)
    with pytest.raises(LastAdmin):
        await desk.clients.remove(admin.client_id, client), "what waits administers nothing"
    await desk.clients.approve()
    await desk.clients.remove(admin.client_id, client)
    assert [one.name for one in desk.clients.registry.clients] == ["Panel"]


async def test_a_client_that_there_is_not(desk):
    admin = await desk.pair()
    client = desk.clients.registry.get(admin.client_id).client
    for which in ("0" * 16, "", "x", admin.client_id.upper() + "0"):
        with pytest.raises(UnknownClient):
            await desk.clients.change(which, rights(READ), client)
        with pytest.raises(UnknownClient):
            await desk.clients.remove(which, client)


async def test_who_watches_is_told_of_each_change(desk):
    admin = await desk.pair()
    seen = []
    desk.clients.watch(lambda: seen.append(len(desk.clients.registry.paired)))
    panel = await desk.pair("Panel")
    await desk.clients.remove(panel.client_id, desk.clients.registry.get(admin.client_id).client)
    assert seen == [2, 1]


# ---- what is written ----


async def test_the_journal_says_who_changed_what(desk):
    admin, panel = await desk.pair(), await desk.pair("Panel")
    await desk.change(panel, rights(READ, PRESENT, issuers=[A]), admin)
    await desk.clients.approve()
    await desk.clients.remove(panel.client_id, desk.clients.registry.get(admin.client_id).client)
    await desk.__aexit__()
    said = [text for (text,) in read_journal(desk.path, "SELECT json FROM person ORDER BY seq")]
    for text, words in zip(
        said,
        [
            ["Home Assistant", "admin", admin.client_id],
            ["Panel", '["read"]'],
            [A, f'"by":"{admin.client_id}"', '"waits":true'],
            [A, '"by":"button"', '"waits":false'],
            ["Panel", f'"by":"{admin.client_id}"'],
        ],
        strict=True,
    ):
        assert all(word in text for word in words), text
    leaves = " ".join(data.decode() for (data,) in read_journal(desk.path, "SELECT bytes FROM leaf"))
    assert "Panel" not in leaves
    await desk.__aenter__()


@pytest.mark.parametrize(
    "note", ["", "{}", '{"client":{}}', "[]", '{"client":null,"digest":"","wish":null,"waited":0}'], ids=repr
)
def test_a_note_that_cannot_be_read_makes_no_client(note):
    with pytest.raises(MalformedMessage):
        Registry.parse({"client:0123456789abcdef": note}, 0.0)
