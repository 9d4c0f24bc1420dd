"""How a building becomes known: a code that is good once, and what each hello says about its doors."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carrier import buildings, enrolment, keys
from carrier.checks import Reason
from carrier.drivers import NoSuch, NotPossible
from carrier.store.tables import RequestState
from tests.simulated import IDENTITY, Site, some_doors
from vestibule_core import b64url
from vestibule_core.link import messages
from vestibule_core.link.client import LinkState, NotLinked, enrol
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import Close, Hello, LinkedDoor
from vestibule_core.note import SignerKey

from .linked import Linked, Replica, greet, invited, until, until_so
from .town import HOME

NEW_DOORS = tuple(
    LinkedDoor(door.id, door.name, "Europe/Vienna", 48.2, 16.37) for door in some_doors(2, "a new building")
)


def controller(number):
    return SignerKey("vestibule/new", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))


NEW = controller(1)


@pytest.fixture
async def cloud(town, wire):
    async with Replica(town, wire) as replica:
        yield replica


async def closed_with(where, key, secret, doors=NEW_DOORS):
    """Say hello with a secret; return how it ended, None if it was welcome."""
    async with await greet(where, key, doors, secret) as raw:
        try:
            await raw.hear(messages.Keys)
        except TypeError:  # aiohttp's word for: closed
            return raw.socket.close_code
    return None


# ---- codes ----


async def test_a_code_enrols_a_building_with_its_controller_and_its_doors(town, wire, cloud):
    code = EnrolmentCode.parse(str(await invited(town, wire.where)))

    def hello(begin):
        return Hello(NEW.verifier, begin.issuer, begin.nonce, bytes(16), NEW_DOORS, 0, None)

    async with Linked(town, wire.where) as building:
        now = int(town.now.timestamp())
        enrolled = await enrol(building.session, code, NEW, hello, now)
    assert (enrolled.issuer, enrolled.name) == (town.carrier.issuer, "Parcels")
    assert enrolled.root.fingerprint == keys.fingerprint(town.root)
    assert enrolled.published.version == 1
    ((id_, name, zone),) = await town.rows("SELECT id, name, zone FROM building WHERE name <> 'Number 7'")
    assert (name, zone) == ("Number 9", "Europe/Vienna")
    assert await town.rows(f"SELECT key FROM controller WHERE building_id = '{id_}'") == [str(NEW.verifier)]
    doors = await town.rows(f"SELECT id, name, lat, lon FROM door WHERE building_id = '{id_}'")
    assert sorted(doors) == sorted((door.id, door.name, 48.2, 16.37) for door in NEW_DOORS)


async def test_the_same_controller_may_come_with_its_code_again(town, wire, cloud):
    """The first answer may have been lost."""
    code = await invited(town, wire.where)
    for _ in range(2):
        assert await closed_with(wire.where, NEW, code.secret) is None
    assert await closed_with(wire.where, NEW, None) is None
    assert await town.rows("SELECT count(*) FROM building") == [2]


async def test_a_code_that_is_used_enrols_nobody_else(town, wire, cloud):
    code = await invited(town, wire.where)
    assert await closed_with(wire.where, NEW, code.secret) is None
    assert await closed_with(wire.where, controller(2), code.secret) == Close.CODE_UNUSABLE
    assert await closed_with(wire.where, IDENTITY, code.secret) == Close.CODE_UNUSABLE  # enrolled, by another one
    assert await town.rows("SELECT count(*) FROM controller") == [2]


async def test_of_twenty_controllers_with_one_code_at_once_one_is_enrolled(town, wire, cloud):
    code = await invited(town, wire.where)
    ended = await asyncio.gather(
        *(closed_with(wire.where, controller(number), code.secret, ()) for number in range(2, 22))
    )
    assert sorted(map(str, ended)) == sorted(["None"] + [str(Close.CODE_UNUSABLE)] * 19)
    assert await town.rows("SELECT count(*) FROM building") == await town.rows("SELECT count(*) FROM controller") == [2]


async def test_a_code_is_good_until_it_is_too_old(town, wire, cloud):
    code = await invited(town, wire.where, days=7)
    town.now += timedelta(days=7)
    assert await closed_with(wire.where, NEW, code.secret) == Close.CODE_UNUSABLE
    town.now -= timedelta(seconds=1)
    assert await closed_with(wire.where, NEW, code.secret) is None


async def test_a_secret_that_nobody_gave_out_enrols_nobody(town, wire, cloud):
    assert await closed_with(wire.where, NEW, bytes(16)) == Close.CODE_UNUSABLE
    assert await closed_with(wire.where, IDENTITY, bytes(16)) == Close.CODE_UNUSABLE
    async with Linked(town, wire.where) as building:
        await building.connected()
        code = EnrolmentCode(wire.where, keys.fingerprint(town.root), bytes(16))
        with pytest.raises(NotLinked) as refused:
            await enrol(building.session, code, NEW, _hello_of(NEW), int(town.now.timestamp()))
        assert refused.value.state is LinkState.CODE_UNUSABLE


async def test_a_gateway_joins_its_building_by_a_code_for_that_one(town, wire, cloud):
    code = await invited(town, wire.where, building=town.building)
    assert await closed_with(wire.where, NEW, code.secret) is None
    assert await town.rows("SELECT count(*) FROM building") == [1]
    assert await town.rows("SELECT building_id FROM controller") == [town.building] * 2


async def test_a_code_for_its_own_building_is_used_up_by_a_controller_that_is_there_already(town, wire, cloud):
    code = await invited(town, wire.where, building=town.building)
    assert await closed_with(wire.where, IDENTITY, code.secret) is None
    assert await closed_with(wire.where, NEW, code.secret) == Close.CODE_UNUSABLE


async def test_a_controller_of_another_building_is_not_moved_by_a_code(town, wire, cloud):
    code = await invited(town, wire.where)
    assert await closed_with(wire.where, IDENTITY, code.secret) == Close.NOT_ENROLLED
    assert await closed_with(wire.where, NEW, code.secret) is None  # the code was not used up by that


async def test_a_controller_that_was_removed_may_be_enrolled_anew(town, wire, cloud):
    async with town.store.transaction() as session:
        await buildings.remove(session, town.building, "command", town.now)
    doors = [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]
    assert await closed_with(wire.where, IDENTITY, None, doors) == Close.NOT_ENROLLED
    code = await invited(town, wire.where)
    assert await closed_with(wire.where, IDENTITY, code.secret, doors) is None
    (new,) = await town.rows("SELECT id FROM building WHERE removed_at IS NULL")
    assert await town.rows("SELECT building_id, lat FROM door") == [(new, HOME[0])]
    assert await town.rows("SELECT kind FROM alarm") == []


async def test_a_code_for_a_building_that_was_removed_is_not_good(town, wire, cloud):
    code = await invited(town, wire.where, building=town.building)
    async with town.store.transaction() as session:
        await buildings.remove(session, town.building, "command", town.now)
    assert await closed_with(wire.where, NEW, code.secret) == Close.CODE_UNUSABLE


async def test_a_codes_secret_is_kept_nowhere(town, wire, cloud):
    code = await invited(town, wire.where)
    assert await closed_with(wire.where, NEW, code.secret) is None
    kept = repr([await town.rows(f"SELECT * FROM {table}") for table in ("building_invitation", "audit", "alarm")])
    for form in (repr(code.secret)[2:-1], code.secret.hex(), b64url.encode(code.secret)):
        assert form not in kept


@pytest.mark.parametrize("name, building, error", [("", None, NotPossible), ("Number 9", "building:none", NoSuch)])
async def test_nobody_is_invited_without_a_name_or_to_a_building_that_is_not_there(town, name, building, error):
    with pytest.raises(error):
        async with town.store.transaction() as session:
            await enrolment.invite(session, name, building, timedelta(days=7), "command", town.now)


# ---- doors ----


async def test_a_door_that_nobody_offers_any_more_never_opens(town, wire, cloud):
    async with Linked(town, wire.where) as building:
        await building.connected()
        doors, building.doors = building.doors, ()
        wire.cut()
        await until_so(lambda: town.rows("SELECT 1 FROM door WHERE lat IS NULL"))
        assert (await cloud.ask()).code == Reason.DOOR_WITHOUT_POSITION
        building.doors = doors
        wire.cut()
        await until_so(lambda: town.rows("SELECT 1 FROM door WHERE lat IS NOT NULL"))
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED


async def test_a_door_is_called_and_placed_as_the_newest_hello_says(town, wire, cloud):
    (door,) = (LinkedDoor(door.id, "Gate\u202e\n", "Europe/Paris", 1.5, -2.5) for door in town.site.doors)
    assert await closed_with(wire.where, IDENTITY, None, [door]) is None
    assert await town.rows("SELECT name, lat, lon FROM door") == [("Gate??", 1.5, -2.5)]
    assert await town.rows("SELECT zone FROM building") == ["Europe/Paris"]
    assert (await cloud.ask()).code == Reason.TOO_FAR
    unplaced = replace(door, zone="Nowhere/Nothing", lat=None, lon=None)
    assert await closed_with(wire.where, IDENTITY, None, [unplaced]) is None
    assert await town.rows("SELECT lat, lon FROM door") == [(1.5, -2.5)]
    assert await town.rows("SELECT zone FROM building") == ["Europe/Paris"]


async def test_a_door_of_two_controllers_stays_while_one_offers_it(town, wire, cloud):
    code = await invited(town, wire.where, building=town.building)
    doors = [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]
    assert await closed_with(wire.where, NEW, code.secret, doors) is None
    assert await closed_with(wire.where, IDENTITY, None, []) is None
    assert await town.rows("SELECT lat FROM door") == [HOME[0]]
    assert await closed_with(wire.where, NEW, None, []) is None
    assert await town.rows("SELECT lat FROM door") == [None]


async def test_a_controller_of_a_building_that_is_enrolled_is_not_enrolled_as_another_building(town, wire, cloud):
    """A gateway by a code without its building: tokens for its doors would be in another building's lists."""
    theirs = [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]
    assert await closed_with(wire.where, NEW, (await invited(town, wire.where)).secret, theirs) == Close.NOT_ENROLLED
    assert await town.rows("SELECT count(*) FROM building") == [1]
    of_it = await invited(town, wire.where, building=town.building)
    assert await closed_with(wire.where, NEW, of_it.secret, theirs) is None


async def test_a_door_of_another_building_is_not_taken_and_is_an_alarm_once(town, wire, cloud):
    theirs = [LinkedDoor(door.id, "Mine", "Europe/Berlin", 0, 0) for door in town.site.doors]
    code = await invited(town, wire.where)
    assert await closed_with(wire.where, NEW, code.secret, NEW_DOORS) is None
    for _ in range(2):
        assert await closed_with(wire.where, NEW, None, [*theirs, *NEW_DOORS]) is None
    assert await town.rows("SELECT kind, subject FROM alarm") == [("door_of_another", town.site.door.id)]
    assert await town.rows(f"SELECT building_id, lat FROM door WHERE id = '{town.site.door.id}'") == [
        (town.building, HOME[0])
    ]
    offered = await town.rows(f"SELECT door_id FROM door_controller WHERE controller_key = '{NEW.verifier}'")
    assert sorted(offered) == sorted(door.id for door in NEW_DOORS)


# ---- which controller is asked ----


async def test_the_controller_that_was_enrolled_last_is_asked_first_and_the_next_if_it_gives_no_challenge(
    town, wire, cloud, tmp_path
):
    code = await invited(town, wire.where, building=town.building)
    doors = [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]
    town.now += timedelta(seconds=1)
    assert await closed_with(wire.where, NEW, code.secret, doors) is None
    town.now -= timedelta(seconds=1)
    site = Site(tmp_path / "gateway.db", carriers=[town.carrier], clock=town.site.clock)
    async with site, Linked(town, wire.where) as assistant, Linked(town, wire.where, site=site, key=NEW) as gateway:
        await assistant.connected()
        await gateway.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED
        assert (len(gateway.tokens), assistant.tokens) == (1, [])
        site.controller.stopped = True
        assert (await cloud.ask(stop=town.stops[1])).state is RequestState.GRANTED
        assert (len(gateway.tokens), len(assistant.tokens)) == (1, 1)
        site.controller.stopped = False
        await until(lambda: len(cloud.links) == 2)


def _hello_of(key):
    return lambda begin: Hello(key.verifier, begin.issuer, begin.nonce, bytes(16), NEW_DOORS, 0, None)
