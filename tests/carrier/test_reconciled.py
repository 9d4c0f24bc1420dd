"""Whether what buildings accepted was issued here: told at once, and listed each day (attack 70; protocol E)."""

import asyncio
import hashlib
import itertools
import json
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, time, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carrier import acceptances, alarms, keys, links, lists
from carrier.acceptances import Acceptance
from carrier.checks import Reason
from carrier.decide import Unreachable
from carrier.store import Prefix, Store, StoreUnavailable, database_url, new_id, schema
from carrier.store.tables import Issued, Request, RequestState
from tests.simulated import IDENTITY, Carrier, Clock, Site
from vestibule_core import b64url, keyset, reconcile
from vestibule_core.hours import Day, Hours
from vestibule_core.keyset import MAX_JTIS
from vestibule_core.link import messages
from vestibule_core.model import Code
from vestibule_core.note import SignerKey

from .linked import Linked, Replica, greet, invited, until, until_so
from .town import Town


@pytest.fixture
async def small(tmp_path):
    """The same on SQLite alone."""
    store = Store(database_url(f"sqlite:///{tmp_path}/carrier.db"))
    await schema.migrate(store)
    town = await Town.founded(store, tmp_path, stops=2)
    async with town.site:
        yield town
    await store.close()


async def sounded(town):
    return await town.rows("SELECT kind, subject FROM alarm ORDER BY id")


# ---- a stolen signing key (70) ----


async def test_70_with_a_stolen_signing_key_but_no_challenge_of_the_door_nothing_opens(small):
    stolen = small.carrier
    for nonce in ("A" * 22, b64url.encode(bytes(range(16)))):
        assert (await small.site.present(stolen.token(nonce))).code is Code.NONCE_UNKNOWN
    assert small.site.pulses == 0


async def test_70_with_a_stolen_signing_key_outside_the_buildings_hours_nothing_opens(small, tmp_path):
    closed = Carrier("Parcels", hours=(Hours(frozenset(Day), time(3), time(4)),))
    closed.key = small.carrier.key
    async with Site(tmp_path / "hours.db", carriers=[closed], clock=Clock(wall=small.now.timestamp())) as site:
        assert (await site.present(closed.token(site.challenge()))).code is Code.POLICY_HOURS
        assert site.pulses == 0


async def test_70_a_token_that_was_never_issued_is_an_alarm_as_soon_as_a_building_accepts_it(town, wire):
    """Whoever has the key and gets a challenge of the door opens it, as long as nobody knows: it is known at once."""
    async with Replica(town, wire) as cloud, Linked(town, wire.where) as building:
        await building.connected()
        forged = town.carrier.token(town.site.challenge())
        assert (await building.present(forged))[1] is Code.GRANTED
        await until_so(lambda: town.rows("SELECT 1 FROM alarm"))
        jti = b64url.encode(hashlib.sha256(b"Parcels 1").digest()[:16])
        assert await sounded(town) == [("never_issued", jti)]
        assert await town.rows("SELECT building_id FROM alarm") == [town.building]
        # Each reconnection tells of it again, also when somebody has seen it.
        async with town.store.transaction() as session:
            (alarm,) = await alarms.listed(session, 10)
            await alarms.see(session, alarm.id, "key:somebody", town.now)
        await building.tell_acceptances()
        assert (await cloud.ask()).state is RequestState.GRANTED
        await until(lambda: not any(each.settling for each in cloud.links._here.values()))
        assert len(await sounded(town)) == 1


async def test_70_a_token_without_a_due_stop_is_found_in_no_list_and_locks_the_carrier_out(small, wire):
    """The alarm is the cloud's; that the building believes it no more does not depend on the cloud."""
    async with Replica(small, wire) as cloud, Linked(small, wire.where) as building:
        await building.connected()
        state = reconcile.begin(small.carrier.issuer, 0, int(small.now.timestamp()))
        assert (await cloud.ask()).state is RequestState.GRANTED
        forged = small.carrier.token(small.site.challenge())
        assert (await building.present(forged))[1] is Code.GRANTED
        small.now = datetime.combine(small.now.date() + timedelta(days=1), time(0, 10), UTC)
        read = await asyncio.wrap_future(small.site.journal.accepted(small.carrier.issuer, 0))
        now = int(small.now.timestamp())
        state = reconcile.accept(state, [(spend.jti, spend.issued_at) for spend in read.spends], now)
        building.lists.clear()
        wire.cut()
        await until(lambda: len(building.lists) == 2)
        for part in building.lists:
            state = reconcile.take_list(state, part, now)
        assert state.alarms(now) == {reconcile.Alarm.NEVER_ISSUED}
        assert len(state.missing) == 1
        assert reconcile.look(state, now + 86400).locked_out


@pytest.mark.parametrize("building, door", [("building:other", None), (None, "door:" + "a" * 26)])
async def test_70_a_token_that_was_issued_for_another_door_is_an_alarm(town, building, door):
    assert (await town.ask()).state is RequestState.GRANTED
    (jti,) = await town.rows("SELECT jti FROM issued")
    told = Acceptance(building or town.building, "controller:x", jti, door or town.site.door.id, Code.GRANTED)
    await acceptances.look_up(town.store, [told], town.now)
    assert await sounded(town) == [("never_issued", jti)]


async def test_a_token_that_was_accepted_gives_no_door_back_whatever_else_is_said_of_it(town):
    async def cut():
        raise Unreachable

    town.link.before_unlock = cut
    assert (await town.ask()).state is RequestState.UNKNOWN
    (jti,) = await town.rows("SELECT jti FROM issued")
    told = Acceptance(town.building, "controller:x", jti, town.site.door.id, Code.POLICY_HOURS)
    await acceptances.look_up(town.store, [told], town.now)
    assert await town.rows("SELECT state, code FROM request") == [("refused_by_building", "POLICY_HOURS")]
    assert (await town.ask()).code == Reason.ALREADY_ASKED


async def test_acceptances_wait_while_the_database_is_away(small, wire, monkeypatch):
    monkeypatch.setattr(links, "_RETRY", 0.05)
    fails = itertools.count()
    really = acceptances.look_up

    async def look_up(*args):
        if next(fails) < 3:
            raise StoreUnavailable("away")
        await really(*args)

    monkeypatch.setattr(links, "look_up", look_up)
    async with Replica(small, wire), await greet(wire.where, IDENTITY) as raw:
        await raw.hear(messages.Keys)
        for number in range(110):
            await raw.say(messages.Accepted(number.to_bytes(16), small.site.door.id, Code.GRANTED))
        await until_so(lambda: _is(counted(small), [10]))


# ---- lists ----


def on(day, *clock):
    return datetime.combine(day, time(*clock), UTC)


DAY = date(2026, 9, 21)


@pytest.mark.parametrize(
    "now, newest",
    [
        (on(DAY, 0, 9, 59), DAY - timedelta(days=2)),
        (on(DAY, 0, 10), DAY - timedelta(days=1)),
        (on(DAY, 23, 59, 59), DAY - timedelta(days=1)),
    ],
)
def test_70_a_day_is_listed_from_ten_minutes_after_its_end_on(now, newest):
    assert lists.newest_day(now) == newest
    assert lists.may_ask_for(newest, now)
    assert not lists.may_ask_for(newest + timedelta(days=1), now)
    assert lists.may_ask_for(newest - timedelta(days=34), now)
    assert not lists.may_ask_for(newest - timedelta(days=35), now)


async def test_70_a_token_of_the_last_second_of_a_day_is_in_its_list(town):
    end = int(on(DAY, 23, 59, 59).timestamp())
    jtis = [b64url.encode(bytes([number] * 16)) for number in range(4)]
    await issue(town, dict(zip(jtis, (end - 86400, end - 86399, end, end + 1), strict=True)))
    (text,) = await written(town)
    assert list((await read(town, text)).jtis) == jtis[1:3]


async def test_a_list_has_the_tokens_of_the_building_alone_and_parts_that_fit(town):
    iat = int(on(DAY, 12).timestamp())
    ours = [b64url.encode(number.to_bytes(16)) for number in range(2 * MAX_JTIS + 1)]
    await issue(town, dict.fromkeys(ours, iat))
    await issue(town, {b64url.encode(b"another building"): iat}, building="building:another")
    parts = [await read(town, text) for text in await written(town)]
    assert [(part.part, part.parts, len(part.jtis)) for part in parts] == [(0, 3, 200), (1, 3, 200), (2, 3, 1)]
    assert sorted(itertools.chain(*(part.jtis for part in parts))) == sorted(ours)
    assert len({part.issued_at for part in parts}) == 1


async def test_after_midnight_each_link_gets_the_list_of_the_day_that_ended(small, wire, monkeypatch):
    monkeypatch.setattr(links, "LOOK_EVERY", 0.1)
    async with Replica(small, wire) as cloud, Linked(small, wire.where) as building:
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED
        today = small.now.date()
        days = [today - timedelta(days=2), today - timedelta(days=1)]
        await until(lambda: [(each.day, each.jtis) for each in building.lists] == [(day, ()) for day in days])
        small.now = on(today + timedelta(days=1), 0, 10)
        await until(lambda: len(building.lists) == 3)
        assert building.lists[2].day == today
        assert list(building.lists[2].jtis) == await small.rows("SELECT jti FROM issued")
        assert building.lists[2].controller == IDENTITY.verifier


async def test_a_list_is_given_again_when_asked_for_but_not_for_ever(small, wire):
    async with Replica(small, wire) as cloud, Linked(small, wire.where) as building:
        await building.connected()
        await until(lambda: len(building.lists) == 2)
        asked = lists.newest_day(small.now) - timedelta(days=30)
        building.line.ask_list(asked)
        await until(lambda: [each.day for each in building.lists[2:]] == [asked])
        building.line.ask_list(small.now.date())  # not over
        for ago in range(20):
            building.line.ask_list(asked + timedelta(days=ago))
        assert (await cloud.ask()).state is RequestState.GRANTED  # all of it was read
        await until(lambda: len(building.lists) == 10)
        await asyncio.sleep(0.2)
        assert len(building.lists) == 10


async def test_of_more_controllers_than_get_their_lists_together_each_gets_them(small, wire, monkeypatch):
    monkeypatch.setattr(links, "LISTS_TOGETHER", 1)
    really, all_are_here = lists.written, asyncio.Event()

    async def written(*args):
        await all_are_here.wait()
        return await really(*args)

    monkeypatch.setattr(lists, "written", written)
    async with Replica(small, wire), AsyncExitStack() as stack:
        lines = []
        for number in range(1, 4):
            key = SignerKey("vestibule/new", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
            secret = (await invited(small, wire.where, building=small.building)).secret
            lines.append(await stack.enter_async_context(await greet(wire.where, key, (), secret)))
            await lines[-1].hear(messages.Keys)
        all_are_here.set()
        for line in lines:
            for _ in range(lists.AT_HELLO):
                await line.hear(messages.IssuedPart)


async def test_a_list_that_cannot_be_signed_now_is_sent_later(small, wire, monkeypatch):
    monkeypatch.setattr(links, "LIST_RETRY", 0.1)
    async with Replica(small, wire) as cloud, Linked(small, wire.where) as building:
        ring, fails = cloud.links._keyring, itertools.count()

        class Missing:
            async def signer(self, kid):
                if next(fails) < 3:
                    raise keys.KeyUnusable("not there")
                return await ring.signer(kid)

        cloud.links._keyring = Missing()
        await building.connected()
        await until(lambda: len(building.lists) == 2)


# ---- helpers ----


async def issue(town, tokens, building=None):
    """Write tokens down as issued, each in its second."""
    async with town.store.transaction() as session:
        for jti, iat in tokens.items():
            request = Request(
                id=new_id(Prefix.REQUEST),
                driver_id=town.driver,
                device_id=town.device,
                stop_id=town.stop,
                door_id=town.site.door.id,
                asked_at=town.now,
                decided_at=town.now,
                state=RequestState.SIGNED,
                code=None,
                signed_jti=jti,
                told=[],
                evidence_digest="",
            )
            session.add(request)
            await session.flush()
            row = {"door_id": request.door_id, "building_id": building or town.building, "request_id": request.id}
            session.add(Issued(jti=jti, iat=iat, **row))


async def written(town, day=DAY):
    now = on(day + timedelta(days=1), 0, 10)
    who = {IDENTITY.verifier: town.building}
    signed = await lists.written(town.store, town.desk.keyring, town.carrier.issuer, who, day, now)
    return signed[IDENTITY.verifier]


async def read(town, text):
    (published,) = await town.rows("SELECT text FROM key_set")
    keys_ = keyset.kept(published, keyset.Root(town.carrier.issuer, keys.raw_public(town.root)))
    return keyset.read_issued(text, keys_, IDENTITY.verifier, int(on(DAY + timedelta(days=1), 1).timestamp()))


async def counted(town):
    """Return how many alarms were counted, but not written down one by one."""
    return [
        json.loads(detail)["count"] for detail in await town.rows("SELECT detail FROM alarm WHERE subject = 'more'")
    ]


async def _is(found, expected):
    return await found == expected
