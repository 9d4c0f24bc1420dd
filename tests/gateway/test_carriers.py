"""Carriers' clouds that a gateway is linked with: enrolment, delivery, keys, reconciliation, and what goes wrong.

The cloud is one of tests/link_cloud.py on the loopback interface, with real keys; the gateway is real as well, in this
process with the clock in a test's hands, or in a process of its own. Numbers of attacks are rows of the protocol's
table.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.app import at_work
from gateway.carriers import AlreadyLinked, IsLockedOut, UnknownCarrier
from gateway.config import read_config
from tests.core.crash_process import Processes
from tests.gateway.at_work import Caller, Gateway
from tests.gateway.process import Command, GatewayProcess, command, gateway_process, network, write_config
from tests.link_cloud import Key, LinkCloud, b64
from tests.simulated import IDENTITY, Carrier, Clock, Moment, read_journal
from vestibule_core import b64url
from vestibule_core.api.policy import POLICY, Policy
from vestibule_core.erasure import DAY
from vestibule_core.errors import KeySetInvalid
from vestibule_core.journal import Spend
from vestibule_core.keys import KeyStatus, SigningKey
from vestibule_core.link import client as link_client
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.standing import CONTESTED, ENDS_SOON, STOOD, TELL_AFTER, LinkState
from vestibule_core.model import AccessEvent, Actor, Code, Door, EventName, Issuer, read_clock

SWIFT = Issuer("https://swift.example")


@pytest.fixture
async def cloud() -> AsyncGenerator[LinkCloud]:
    async with LinkCloud() as cloud:
        cloud.text = cloud.key_set()
        yield cloud


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway]:
    """A gateway with two doors, unpaired, whose wall clock is right."""
    async with Gateway(tmp_path, doors=2, clock=Clock(wall=time.time())) as gateway:
        yield gateway


@pytest.fixture
async def admin(gateway: Gateway) -> Caller:
    return await gateway.pair(trusts=True)


def swift() -> Carrier:
    """The carrier of the cloud as a policy has it: with a key that its cloud has never heard of."""
    return Carrier("Swift")


def genuine(carrier: Carrier, nonce: str) -> str:
    """Return a token of a carrier that is not linked, of now."""
    now = int(time.time())
    return carrier.token(nonce, iat=now, exp=now + 60, chk={"req": now})


async def link(gateway: Gateway, cloud: LinkCloud) -> None:
    """Link a gateway by the cloud's code, as the command does."""
    code = EnrolmentCode.parse(cloud.code())
    await gateway.links.link(await gateway.links.meet(code), code.host)
    await connected(gateway, Issuer(cloud.issuer))


def link_alarms(gateway: Gateway) -> list[str]:
    return [each.alarm.value for each in gateway.links.alarms]


async def connected(gateway: Gateway, who: Issuer = SWIFT) -> None:
    await until(lambda: gateway.links.facts(who)["connected"])


async def until(is_so: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - it may be brought about by another program
            await asyncio.sleep(0.01)


@pytest.fixture
async def linked(gateway: Gateway, admin: Caller, cloud: LinkCloud) -> Gateway:
    """The gateway, linked with the cloud, whose carrier the policy lets in at both doors."""
    await gateway.allow(admin, swift())
    await link(gateway, cloud)
    return gateway


async def rotate(cloud: LinkCloud, *signing: Key) -> None:
    """Publish the next key set, with these keys."""
    cloud.version += 1
    cloud.text = cloud.key_set(signing=list(signing))
    await cloud.publish(cloud.text)


async def last_code(gateway: Gateway) -> Code | None:
    """Return the code of the last event, once all is written."""
    await gateway.controller.recorded()
    return gateway.events[-1].code


async def refuses(gateway: Gateway) -> str:
    """Return why the newest key set was refused."""
    await until(lambda: any("refused" in wrong for wrong in gateway.links.facts(SWIFT)["wrong"]))
    (why,) = (wrong for wrong in gateway.links.facts(SWIFT)["wrong"] if "refused" in wrong)
    return str(why).rpartition(": ")[2]


# ---- enrolment and delivery, with the program itself ----


async def add(gateway: GatewayProcess, code: str, answer: str = "yes") -> tuple[int, str]:
    """Type a code at the gateway."""
    adding = await Command.start("carrier", "add", "--config", gateway.config)
    adding.type(f"{code}\n{answer}\n")
    return await adding.ends(), adding.said


async def let_in(gateway: GatewayProcess, carrier: Carrier) -> list[Door]:
    """Let a carrier in at both doors, as a Home Assistant does that goes away then."""
    async with network() as session:
        client = gateway.client(session, await gateway.pair(session, "--trust"))
        doors = [each.door for each in (await client.doors()).doors]
        carrier.doors = tuple(doors)
        await client.put_policy(0, Policy("Europe/Berlin", (carrier.admitted,)))
    return doors


async def test_a_carrier_is_linked_by_its_code_and_delivers_while_no_home_assistant_is_there(tmp_path, cloud):
    """Also after a restart, and without a trace of a token, a driver or the code in the log."""
    config = write_config(tmp_path, "latitude = 52.5\nlongitude = 13.4\n")  # of the yard
    code, tokens = cloud.code(), []
    async with gateway_process(config) as gateway:
        gate, yard = await let_in(gateway, swift())
        status, said = await add(gateway, code)
        assert status == 0, said
        assert "carrier     Swift Parcels (https://swift.example), its cloud at 127.0.0.1:" in said
        assert "Home Assistant lets it in as Swift." in said
        assert "linked      Swift Parcels (https://swift.example)" in said
        assert cloud.connections[0].greeting["secret"] == b64(cloud.secret)
        hello = (await cloud.linked(3)).hello  # to see whose cloud it is, to enrol, and the link
        assert "secret" not in cloud.connections[2].greeting
        assert [(door["id"], door["name"], door.get("lat"), door["zone"]) for door in hello["doors"]] == [
            (gate.id, "Gate", None, "Europe/Berlin"),
            (yard.id, "Yard", 52.5, "Europe/Berlin"),
        ]
        assert hello["ckpt"].startswith("vestibule/")
        assert (await cloud.deliver(yard.id))["word"] == "granted"
        tokens.append(cloud.jti)
        await cloud.until(lambda: cloud.connections[-1].accepted)
        assert cloud.connections[-1].accepted == [
            {"type": "accepted", "jti": cloud.jti, "door": yard.id, "code": "GRANTED"}
        ]
        assert gateway.movements[0] == "2 on"
        answer = await cloud.challenge(gate.id)
        spent = cloud.token(gate.id, answer["non"])
        assert (await cloud.unlock(spent))["code"] == "GRANTED"
        assert (await cloud.unlock(spent))["code"] == "ALREADY_SPENT"
        tokens.append(cloud.jti)
        first_life = gateway.running
    async with gateway_process(config) as gateway:
        again = await cloud.linked(4)
        assert again.hello["inst"] != hello["inst"]
        assert (await cloud.unlock(spent))["code"] == "ALREADY_SPENT"
        assert (await cloud.deliver(gate.id))["word"] == "granted"
        assert (await gateway.command("carrier"))[1].startswith("carrier  Swift Parcels  connected, 2 doors; ")
        status = (await gateway.command("status"))[1]
        assert re.search(r"^carrier +Swift Parcels +connected, 2 doors; ", status, re.MULTILINE), status
        assert "carrier  ok    Swift Parcels: connected" in (await gateway.command("check"))[1]
    log = first_life.said + gateway.running.said
    assert "carrier_link issuer=https://swift.example state=connected" in log
    for secret in (*tokens, spent, code, "driver-1", "stop-1", "route-1", b64(cloud.secret)):
        assert secret not in log


async def test_a_carrier_that_is_not_confirmed_is_not_linked(tmp_path, cloud):
    """Row 78: whose cloud it is, only a person can say. A cloud can claim any issuer that nobody knows yet."""
    async with gateway_process(write_config(tmp_path)) as gateway:
        cloud.issuer = "https://parcels.example"
        cloud.text = cloud.key_set()
        status, said = await add(gateway, cloud.code(), "no")
        assert status == 2
        assert "carrier     Swift Parcels (https://parcels.example)" in said
        assert "nothing was linked" in said
        assert (await gateway.command("carrier")) == (0, "no carrier is linked\n")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda code: code[:-1] + "x", "copy it again"),
        (lambda code: "7K3QM-X2V9A", "an enrolment code begins with vst1."),
    ],
)
async def test_a_code_that_is_mistyped_asks_nobody(tmp_path, cloud, spoil, words):
    async with gateway_process(write_config(tmp_path)) as gateway:
        status, said = await add(gateway, spoil(cloud.code()))
        assert status == 2
        assert words in said
        assert cloud.secret.hex() not in said
    assert not cloud.connections


async def test_what_keeps_a_carrier_from_being_linked_is_said(tmp_path, cloud):
    async with gateway_process(write_config(tmp_path)) as gateway:
        cloud.refuse_with = 4004
        status, said = await add(gateway, cloud.code())
        assert (status, "was used by somebody else, or is too old: ask for a new one" in said) == (2, True), said
        cloud.refuse_with = None
        root, cloud.root = cloud.root, Key()
        wrong = cloud.code()
        cloud.root, cloud.text = root, cloud.key_set()
        status, said = await add(gateway, wrong)
        assert (status, "the keys of this cloud cannot be trusted (wrong_root)" in said) == (2, True), said
        await cloud.stop()
        status, said = await add(gateway, cloud.code())
        assert (status, "no link: the cloud cannot be reached" in said) == (2, True), said
        for what in ("remove", "approve"):
            assert (await gateway.command("carrier", what))[0] == 2
            status, said = await gateway.command("carrier", what, "https://swift.example")
            assert (status, "there is no link to this carrier" in said) == (2, True), said
    status, said = await command("carrier", "--config", gateway.config)
    assert (status, "start it first" in said) == (2, True)


async def test_check_and_status_say_when_a_link_is_down_and_why(tmp_path, cloud):
    """Doors are not slower for that (protocol G)."""
    async with gateway_process(write_config(tmp_path)) as gateway, network() as session:
        assert (await add(gateway, cloud.code()))[0] == 0
        await cloud.linked(3)
        await cloud.stop()
        status, said = await gateway.command("check")
        assert status == 2
        assert "carrier  WRONG Swift Parcels: not connected: the cloud cannot be reached" in said
        status, said = await gateway.command("status")
        assert re.search(r"^carrier +Swift Parcels +NOT CONNECTED, no door, until", said, re.MULTILINE)
        assert re.search(r"^ +WRONG +not connected: the cloud cannot be reached", said, re.MULTILINE)
        client = gateway.client(session, await gateway.pair(session, "--trust"))
        carrier = Carrier(doors=[each.door for each in (await client.doors()).doors])
        await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        challenge = await client.challenge(carrier.doors[0].id, carrier.issuer)
        began = time.monotonic()
        answer = await client.unlock(carrier.doors[0].id, carrier.token(challenge.nonce))
        assert (answer.code, time.monotonic() - began < 1) == ("GRANTED", True)
    assert "carrier_link issuer=https://swift.example state=unreachable" in gateway.running.said


async def test_a_link_that_is_cut_soon_after_each_hello_is_wrong_also_while_a_new_one_looks_well(
    linked, cloud, monkeypatch
):
    ahead = 0.0
    monkeypatch.setattr(link_client, "monotonic", lambda: time.monotonic() + ahead)
    monkeypatch.setattr(link_client, "PAUSES", (0.05, 0.05))

    def wrong() -> list[str]:
        return linked.links.facts(SWIFT)["wrong"]

    async def tried_again() -> None:
        tries = len(cloud.connections)
        await until(lambda: len(cloud.connections) > tries + 1)

    cloud.end_with = 1000
    await cloud.connections[-1].close()
    await tried_again()
    ahead += TELL_AFTER - 60
    assert "no link has lasted" not in str(wrong())
    await tried_again()
    ahead += 60
    told = (
        "for 15 minutes no link has lasted: "
        "each ends soon: does a proxy or a firewall on the way cut it? If none does, ask the carrier"
    )
    (said,) = wrong()
    assert said.startswith(told)

    cloud.end_with = None
    tries = len(cloud.connections)
    await cloud.linked(tries + 1)
    await connected(linked)
    assert wrong() == [told]
    assert link_alarms(linked) == ["no_link"]
    ahead += STOOD
    standing = cloud.connections[-1]
    await standing.say(type="ping")
    await cloud.until(lambda: standing.pongs)
    assert wrong() == []
    linked.links.look_for_alarms()
    assert link_alarms(linked) == []


async def test_clients_hear_that_a_cloud_does_not_accept_the_gateway_any_more(linked, admin, cloud):
    async with admin.stream() as frames:
        assert (await frames.next())["alarms"] == []
        cloud.refuse_with = 4003
        cloud.connections[-1].cut()
        told = await frames.until(lambda frame: frame["type"] == "building" and frame["alarms"])
        assert told["alarms"] == [{"iss": SWIFT, "alarm": "no_link"}]
        await linked.links.unlink(SWIFT)
        await frames.until(lambda frame: frame["type"] == "building" and not frame["alarms"])


async def test_that_a_copy_of_the_gateway_has_taken_a_link_over_is_told_for_an_hour(linked, cloud, monkeypatch):
    monkeypatch.setattr(link_client, "TAKEN_OVER_PAUSE", 0.1)
    await cloud.connections[-1].close(4001)
    await cloud.linked(2)
    await connected(linked)
    (said,) = linked.links.facts(SWIFT)["wrong"]
    assert "within the last hour, something else was connected as this gateway" in said
    assert link_alarms(linked) == ["taken_over"]
    linked.clock.advance(CONTESTED)
    linked.links.look_for_alarms()
    assert (linked.links.facts(SWIFT)["wrong"], link_alarms(linked)) == ([], [])


async def test_that_a_gateway_stops_ends_no_alarm(linked, cloud):
    """Else its repair would flash at each restart."""
    linked.clock.advance(linked.carriers.held(SWIFT).published.expires_at - linked.clock().wall)
    linked.links.look_for_alarms()
    assert link_alarms(linked) == ["keys_end"]
    await linked.links.stop()
    assert link_alarms(linked) == ["keys_end"]


# ---- which doors ----


async def test_a_carrier_that_the_policy_does_not_let_in_is_offered_no_door_and_opens_none(gateway, admin, cloud):
    await link(gateway, cloud)
    assert cloud.connections[-1].hello["doors"] == []
    assert await cloud.challenge(gateway.door.id) == {"type": "refused", "id": 0, "word": "invalid_token"}
    outcome = await cloud.unlock(cloud.token(gateway.door.id, b64(bytes(16))))
    assert (outcome["word"], "code" in outcome, gateway.pulses) == ("invalid_token", False, 0)


async def test_the_cloud_hears_of_a_door_that_the_policy_gives_while_a_hello_is_under_way(linked, admin, cloud):
    less = swift()
    less.doors = linked.all_doors[:1]
    connections = len(cloud.connections)
    cloud.answers_hellos.clear()
    cloud.connections[-1].cut()
    await cloud.until(lambda: len(cloud.connections) > connections)
    assert len(cloud.connections[-1].hello["doors"]) == 2
    await linked.allow(admin, less)
    cloud.answers_hellos.set()
    await cloud.until(lambda: [door["id"] for door in cloud.connections[-1].hello["doors"]] == [linked.door.id])


async def test_the_cloud_hears_at_once_which_doors_the_policy_gives_or_takes(gateway, admin, cloud):
    await link(gateway, cloud)
    gateway.positions[gateway.all_doors[1].id] = (52.5, 13.4)
    connections = len(cloud.connections)
    await gateway.allow(admin, swift())
    offered = (await cloud.linked(connections + 1)).hello["doors"]
    assert {door["id"]: door.get("lat") for door in offered} == {
        gateway.all_doors[0].id: None,
        gateway.all_doors[1].id: 52.5,
    }
    less = swift()
    less.doors = gateway.all_doors[:1]
    await gateway.allow(admin, less)
    offered = (await cloud.linked(connections + 2)).hello["doors"]
    assert [door["id"] for door in offered] == [gateway.door.id]
    await gateway.allow(admin, less, Carrier("Another"))
    await asyncio.sleep(0.1)
    assert len(cloud.connections) == connections + 2, "what changes nothing for it, it does not hear"


@pytest.mark.parametrize("name, told", [("Door", 24), ("\N{SNOWMAN}" * 64, 12)])
async def test_a_hello_has_as_many_doors_as_there_is_room_for(tmp_path, cloud, name, told):
    clock = Clock(wall=time.time())
    async with Gateway(tmp_path, doors=26, clock=clock, setup={"name": name}) as gateway:
        await gateway.allow(await gateway.pair(trusts=True), swift())
        await link(gateway, cloud)
        offered = cloud.connections[-1].hello["doors"]
        assert [door["id"] for door in offered] == [door.id for door in gateway.all_doors[: len(offered)]]
        assert len(offered) == told
        assert (await cloud.deliver(gateway.door.id))["word"] == "granted"


async def test_hours_limits_and_rates_stay_those_of_the_policy(gateway, admin, cloud):
    strict = swift()
    strict.rate = 1
    await gateway.allow(admin, strict)
    await link(gateway, cloud)
    far = {"drv": "passkey", "rte": "r", "gps": {"d": 76, "acc": 8, "age": 3}, "req": int(time.time())}
    assert (await cloud.deliver(gateway.door.id, chk=far))["code"] == "POLICY_EVIDENCE"
    assert (await cloud.deliver(gateway.door.id))["code"] == "GRANTED"
    assert (await cloud.deliver(gateway.door.id))["code"] == "POLICY_RATE"


# ---- keys ----


async def test_a_rotation_is_heard_of_while_home_assistant_is_away(linked, admin, cloud):
    """Row 36, revoked key. Home Assistant comes back later, with an older policy: it brings no key back."""
    old, new = cloud.signing, Key()
    first = cloud.token(linked.door.id, (await cloud.challenge(linked.door.id))["non"], by=old)
    await rotate(cloud, new)
    await until(lambda: linked.carriers.held(SWIFT).published.version == 2)
    assert (await cloud.unlock(first))["word"] == "invalid_token"
    assert await last_code(linked) is Code.KEY_REVOKED
    cloud.signing = new
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    outdated = swift()
    outdated.key = SigningKey(old.private)
    for stale in (swift(), outdated):  # the policy's own key, and the one that the set has dropped
        await linked.allow(admin, stale)
        token = genuine(stale, await admin.challenge(linked.door, stale))
        said = (await admin.unlock(linked.door, token)).json
        assert (said["word"], await last_code(linked)) == ("invalid_token", Code.KEY_REVOKED)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    assert linked.pulses == 2


async def test_what_a_set_has_dropped_stays_dropped_after_a_restart_and_after_the_link(tmp_path, cloud):
    old, new = cloud.signing, Key()
    outdated = swift()
    outdated.key = SigningKey(old.private)
    async with Gateway(tmp_path, clock=Clock(wall=time.time())) as gateway:
        admin = await gateway.pair(trusts=True)
        await gateway.allow(admin, outdated)
        await link(gateway, cloud)
        await rotate(cloud, new)
        await until(lambda: gateway.carriers.held(SWIFT).published.version == 2)
    cloud.signing = new
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)

        async def judged() -> Code | None:
            await back.unlock(again.door, genuine(outdated, await back.challenge(again.door, outdated)))
            return await last_code(again)

        await connected(again)
        assert (await cloud.deliver(again.door.id))["word"] == "granted"
        assert await judged() is Code.KEY_REVOKED
        await again.links.unlink(SWIFT)
        assert await judged() is Code.KEY_REVOKED
        await link(again, cloud)
        assert await judged() is Code.KEY_REVOKED
        assert (await cloud.deliver(again.door.id))["word"] == "granted"
        assert again.pulses == 2


async def test_a_key_that_home_assistant_says_is_revoked_stays_so(linked, admin, cloud):
    """It may have heard of it before the gateway does."""
    carrier = swift()
    revoked = replace(linked.carriers.held(SWIFT).published.trusted[0], status=KeyStatus.REVOKED)
    admitted = replace(
        carrier.admitted, keys=(*carrier.trusted, revoked), doors=frozenset(door.id for door in linked.all_doors)
    )
    wanted = {"base": linked.policy.version, "version": linked.policy.version + 1}
    said = await admin.put("/v1/policy", {**wanted, "policy": POLICY.write(Policy("UTC", (admitted,)))})
    assert said.status == 200
    assert (await cloud.deliver(linked.door.id))["word"] == "invalid_token"


BAD_SETS: list[tuple[str, Callable[[LinkCloud], str], str]] = [
    ("an older version", lambda cloud: cloud.key_set(ver=1), "older_version"),
    ("another set of the same version", lambda cloud: cloud.key_set(ver=2, signing=[Key()]), "same_version"),
    ("signed by an online key", lambda cloud: cloud.key_set(ver=3, by=cloud.signing), "wrong_root"),
    (
        "served again past its time",
        lambda cloud: cloud.key_set(ver=3, iat=int(time.time()) - 31 * 86400, exp=int(time.time()) - 86400),
        "expired",
    ),
    ("under another issuer", lambda cloud: cloud.key_set(ver=3, iss="https://other.example"), "wrong_issuer"),
    ("for a year", lambda cloud: cloud.key_set(ver=3, exp=int(time.time()) + 365 * 86400), "lifetime_too_long"),
]


@pytest.mark.parametrize("_, make, reason", BAD_SETS, ids=[row[0] for row in BAD_SETS])
async def test_a_bad_set_is_refused_and_changes_nothing(linked, cloud, _, make, reason):
    """Row 36."""
    await rotate(cloud, cloud.signing)
    await until(lambda: linked.carriers.held(SWIFT).published.version == 2)
    connections = len(cloud.connections)
    await cloud.publish(make(cloud))
    assert await refuses(linked) == reason
    assert link_alarms(linked) == ["keys_refused"]
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    assert len(cloud.connections) == connections, "the link stays: a better set may come"
    cloud.version = 3
    await cloud.publish(cloud.key_set())
    await until(lambda: not linked.links.facts(SWIFT)["wrong"])
    assert link_alarms(linked) == []


async def test_a_set_that_is_withheld_ends_by_itself(linked, cloud):
    ends = linked.carriers.held(SWIFT).published.expires_at
    linked.clock.advance(ends - ENDS_SOON - linked.clock().wall - 1)
    linked.links.look_for_alarms()
    assert link_alarms(linked) == []
    linked.clock.advance(2)
    linked.links.look_for_alarms()
    assert link_alarms(linked) == ["keys_end"]
    linked.clock.advance(ENDS_SOON)
    outcome = await cloud.deliver(linked.door.id)
    assert (outcome["word"], await last_code(linked)) == ("invalid_token", Code.KEY_REVOKED)
    assert any(wrong.startswith("its keys ended on ") for wrong in linked.links.facts(SWIFT)["wrong"])


async def test_the_next_root_is_the_one_that_was_named_before(linked, cloud):
    stranger = Key()
    cloud.version = 2
    await cloud.publish(cloud.key_set(by=stranger), stranger)
    assert await refuses(linked) == "wrong_root"
    await cloud.publish(cloud.key_set(by=cloud.next_root), cloud.next_root)
    await until(lambda: linked.carriers.held(SWIFT).published.version == 2)
    cloud.version, old = 3, cloud.root
    await cloud.publish(cloud.key_set(by=old), old)
    assert await refuses(linked) == "wrong_root"


# ---- carriers among each other ----


@asynccontextmanager
async def another_cloud(issuer: str = "https://bad.example") -> AsyncGenerator[LinkCloud]:
    async with LinkCloud(issuer, "Bad Parcels") as cloud:
        cloud.text = cloud.key_set()
        yield cloud


async def test_a_cloud_that_publishes_anothers_key_is_refused_and_the_other_is_unaffected(linked, admin, cloud):
    """Row 78: a key of a linked carrier, and one that only the policy has."""
    plain = Carrier("Plain")
    await linked.allow(admin, swift(), plain)
    for anothers in (cloud.signing, Key(plain.key.private)):
        async with another_cloud() as bad:
            bad.text = bad.key_set(signing=[anothers])
            with pytest.raises(KeySetInvalid, match="anothers_key"):
                await link(linked, bad)
            bad.text = bad.key_set()
            await link(linked, bad)
            bad.version = 2
            await bad.publish(bad.key_set(signing=[anothers]))
            await until(lambda: "refused: key 1: anothers_key" in str(linked.links.facts(Issuer(bad.issuer))))
            await linked.links.unlink(Issuer(bad.issuer))
    await connected(linked)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    token = genuine(plain, await admin.challenge(linked.door, plain))
    assert await admin.code(linked.door, token) == "GRANTED"


async def test_who_has_published_a_key_before_its_owner_comes_does_not_keep_it(linked, admin, cloud):
    """Row 78, in the other order: the policy says whose it is."""
    plain = Carrier("Plain")
    async with another_cloud() as bad:
        bad.text = bad.key_set(signing=[Key(plain.key.private), bad.signing])
        await link(linked, bad)
        theirs = Carrier("Bad")
        assert theirs.issuer == bad.issuer
        await linked.allow(admin, swift(), theirs, plain)
        token = genuine(plain, await admin.challenge(linked.door, plain))
        assert await admin.code(linked.door, token) == "GRANTED"
        await connected(linked, theirs.issuer)
        assert (await bad.deliver(linked.door.id))["word"] == "granted", "its own key is its own"


async def test_a_set_under_anothers_issuer_is_refused(linked, cloud):
    """Row 78: nor can a cloud be linked that says it is one that is linked already; that one's link goes on."""
    connections = len(cloud.connections)
    async with another_cloud(cloud.issuer) as bad:
        with pytest.raises(AlreadyLinked):
            await link(linked, bad)
        bad.issuer = "https://bad.example"
        bad.text = bad.key_set(iss=cloud.issuer)
        with pytest.raises(KeySetInvalid, match="wrong_issuer"):
            await link(linked, bad)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    assert len(cloud.connections) == connections


async def test_a_token_of_one_carrier_on_the_link_of_another_opens_nothing(linked, admin, cloud):
    """Row 79. Neither does a challenge of one serve the other."""
    async with another_cloud() as bad:
        await linked.allow(admin, swift(), Carrier("Bad"))
        await link(linked, bad)
        await connected(linked)
        token = cloud.token(linked.door.id, (await cloud.challenge(linked.door.id))["non"])
        assert (await bad.unlock(token))["word"] == "invalid_token"
        assert (await cloud.unlock(token))["word"] == "granted"
        nonce = (await cloud.challenge(linked.door.id))["non"]
        assert (await bad.unlock(bad.token(linked.door.id, nonce)))["code"] == "NONCE_UNKNOWN"
        other = cloud.token(linked.all_doors[1].id, (await cloud.challenge(linked.door.id))["non"])
        assert (await cloud.unlock(other))["code"] == "NONCE_UNKNOWN"
        assert linked.pulses == 1


async def test_a_cloud_that_has_become_another_carriers_hears_nothing(linked, cloud):
    """Row 79: no hello for another issuer is ever signed."""
    hellos = len(cloud.connections)
    cloud.issuer = "https://other.example"
    await cloud.connections[-1].close()
    await until(lambda: linked.links._open[SWIFT].link.state is LinkState.WRONG_ISSUER)
    assert len(cloud.connections) == hellos
    assert "another carrier's cloud" in str(linked.links.facts(SWIFT)["wrong"])


# ---- what was accepted ----


async def test_a_token_that_came_another_way_is_told_to_its_carrier_as_well(linked, admin, cloud):
    """And what was told while the line was cut, is told again."""
    nonce = await admin.challenge(linked.door, swift())
    assert await admin.code(linked.door, cloud.token(linked.door.id, nonce)) == "GRANTED"
    first = cloud.jti
    await cloud.until(lambda: cloud.connections[-1].accepted)
    assert cloud.connections[-1].accepted[0]["jti"] == first
    connections = len(cloud.connections)
    cloud.connections[-1].cut()
    nonce = await admin.challenge(linked.door, swift())
    assert await admin.code(linked.door, cloud.token(linked.door.id, nonce)) == "GRANTED"
    again = await cloud.linked(connections + 1)
    await cloud.until(lambda: len(again.accepted) == 2)
    assert [frame["jti"] for frame in again.accepted] == [first, cloud.jti]
    linked.clock.advance(3601)
    again.cut()
    third = await cloud.linked(connections + 2)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    await cloud.until(lambda: third.accepted)
    assert [frame["jti"] for frame in third.accepted] == [cloud.jti], "not for ever"


async def test_what_came_of_a_release_that_failed_is_told_honestly(linked, cloud):
    linked.strike.lose_the_answer()
    assert (await cloud.deliver(linked.door.id))["word"] == "unknown_outcome"
    await cloud.until(lambda: cloud.connections[-1].accepted)
    assert cloud.connections[-1].accepted[0]["code"] == "OUTCOME_UNKNOWN"


# ---- reconciliation ----


async def test_a_link_that_comes_up_during_a_look_asks_for_its_lists_at_once(gateway, admin, cloud, monkeypatch):
    """Not when the next look is due: until then nobody would know of a stolen key."""
    await gateway.allow(admin, swift())
    look, looks = gateway.carriers.look, list[bool]()

    async def slow(who: Issuer, *, asks: bool) -> tuple[date, ...]:
        looks.append(asks)
        await connected(gateway)
        return await look(who, asks=asks)

    monkeypatch.setattr(gateway.carriers, "look", slow)
    await link(gateway, cloud)
    await until(lambda: len(looks) > 1)
    assert looks == [False, True]


def issued(cloud: LinkCloud, *jtis: str, day: date | None = None, **members: Any) -> str:
    return cloud.issued(str(IDENTITY.verifier), list(jtis), day=day or cloud.day, **members)


async def say_list(cloud: LinkCloud, text: str) -> None:
    await (await cloud.linked()).say(type="issued", list=text)


def alarms(gateway: Gateway) -> list[str]:
    return [alarm.value for _, alarm in gateway.carriers.alarms]


async def look(gateway: Gateway) -> tuple[date, ...]:
    return await gateway.carriers.look(SWIFT, asks=True)


async def stolen(gateway: Gateway, cloud: LinkCloud) -> None:
    """Somebody opens with a stolen key; the carrier's list of that day knows nothing of it."""
    assert (await cloud.deliver(gateway.door.id))["word"] == "granted"
    gateway.clock.advance(1.1 * DAY)
    await say_list(cloud, issued(cloud))
    await until(lambda: alarms(gateway) == ["never_issued"])


async def test_an_accepted_token_that_was_never_issued_alarms_and_locks_out_after_a_day(linked, admin, cloud):
    """Row 70. Clients see it; every other carrier goes on."""
    plain = Carrier("Plain")
    await linked.allow(admin, swift(), plain)
    await stolen(linked, cloud)
    standing = (await admin.get("/v1/doors")).json["alarms"]
    assert standing == [{"iss": SWIFT, "alarm": "never_issued"}]
    assert await look(linked) == (cloud.day,), "the list is asked for again"
    assert (await cloud.deliver(linked.door.id))["word"] == "granted", "not yet"
    async with admin.stream(linked.journal.sequence) as frames:
        linked.clock.advance(DAY)
        await look(linked)
        event = await frames.event(EventName.CARRIER_LOCKED_OUT)
        assert (event["issuer"], event["carrier"]) == (SWIFT, "Swift Parcels")
    assert {"iss": SWIFT, "alarm": "locked_out"} in (await admin.get("/v1/doors")).json["alarms"]
    assert (await cloud.deliver(linked.door.id))["code"] == "CARRIER_LOCKED_OUT"
    token = cloud.token(linked.door.id, await admin.challenge(linked.door, swift()))
    assert await admin.code(linked.door, token) == "CARRIER_LOCKED_OUT", "whichever way it comes"
    token = genuine(plain, await admin.challenge(linked.door, plain))
    assert await admin.code(linked.door, token) == "GRANTED"
    with pytest.raises(IsLockedOut):
        await linked.links.unlink(SWIFT)
    await linked.carriers.approve(SWIFT)
    assert alarms(linked) == []
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    assert linked.outcomes[-1] is not EventName.ACCESS_DENIED


async def test_a_thief_is_not_hidden_by_how_many_tokens_were_accepted(linked, cloud):
    """Row 70. The books of them all are longer than one row of the journal may be."""
    for number in range(1500):
        spend = Spend(SWIFT, b64url.encode(number.to_bytes(16)), linked.door.id, str(number), int(linked.clock().wall))
        event = AccessEvent(outcome=EventName.ACCESS_GRANTED, door=spend.door, at=linked.clock().wall, issuer=SWIFT)
        await linked.journal.spend(spend, event, {}, check_again=lambda: None, spent=lambda: None, notes={})
    await look(linked)
    await stolen(linked, cloud)
    linked.clock.advance(DAY)
    await look(linked)
    assert "locked_out" in alarms(linked)
    assert (await cloud.deliver(linked.door.id))["code"] == "CARRIER_LOCKED_OUT"
    assert not linked.journal.failed


async def test_a_list_that_comes_late_ends_the_alarm(linked, cloud):
    """Row 70: the gateway asks for it again over the link."""
    await stolen(linked, cloud)
    jti, connections = cloud.jti, len(cloud.connections)
    cloud.connections[-1].cut()
    again = await cloud.linked(connections + 1)
    await cloud.until(lambda: again.asked_lists)
    assert again.asked_lists == [cloud.day.isoformat()]
    await say_list(cloud, issued(cloud, jti, iat=int(linked.clock().wall)))
    await until(lambda: alarms(linked) == [])
    linked.clock.advance(DAY)
    await look(linked)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"


async def test_a_token_of_the_last_second_of_a_day_is_looked_for_in_that_days_list(linked, cloud):
    """Row 70: no lock-out, whatever the gateway's own clock says that day is."""
    day = datetime.now(UTC).date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    last = int(midnight.timestamp()) - 1
    chk = {"drv": "passkey", "rte": "r", "gps": {"d": 12, "acc": 8, "age": 3}, "req": last - 2}
    linked.clock.advance(last + 3 - linked.clock().wall)
    assert (await cloud.deliver(linked.door.id, iat=last, exp=last + 60, chk=chk))["word"] == "granted"
    jti = cloud.jti
    linked.clock.advance(DAY)
    await say_list(cloud, issued(cloud, jti))
    await say_list(cloud, issued(cloud, day=day + timedelta(days=1)))
    await until(lambda: linked.carriers._books[SWIFT].newest == day)
    linked.clock.advance(DAY)
    await look(linked)
    assert alarms(linked) == []


async def test_a_list_that_is_withheld_alarms_and_locks_nobody_out(linked, admin, cloud):
    """Row 70: whoever cuts the line must not be able to close the doors."""
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    linked.clock.advance(10 * DAY)
    await look(linked)
    assert alarms(linked) == ["no_list"]
    assert any("has not said for two days" in wrong for wrong in linked.links.facts(SWIFT)["wrong"])
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"


async def test_a_list_that_is_not_the_carriers_changes_nothing(linked, cloud):
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    linked.clock.advance(1.1 * DAY)
    before = linked.carriers._books[SWIFT]
    for text in (
        issued(cloud, by=cloud.signing),
        issued(cloud, iss="https://other.example"),
        cloud.issued(str(IDENTITY.verifier).replace("test", "other"), [], day=cloud.day),
        "no list",
    ):
        await say_list(cloud, text)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted", "the link stays"
    assert linked.carriers._books[SWIFT].lists == before.lists == ()


# ---- what must survive ----


@pytest.fixture(scope="module")
def gateways():
    processes = Processes(module="tests.gateway.crash_process")
    yield processes
    processes.close()


async def test_a_lock_out_survives_a_kill_in_the_moment_it_is_told(tmp_path, gateways, cloud):
    """Row 70: no restart is a way in."""
    cloud.token("door:x", b64(bytes(16)), iat=(began := int(time.time())))
    job = asyncio.to_thread(
        gateways.run, "lock_out", folder=tmp_path, code=cloud.code(), carrier="Swift", issued=issued(cloud)
    )
    running = asyncio.create_task(job)
    await until(lambda: cloud.connections and "secret" not in cloud.connections[-1].greeting, 20)
    (door,) = (each["id"] for each in (await cloud.linked()).hello["doors"])
    chk = {"drv": "passkey", "rte": "r", "gps": {"d": 12, "acc": 8, "age": 3}, "req": began - 2}
    assert (await cloud.deliver(door, iat=began, exp=began + 60, chk=chk))["word"] == "granted"
    report = await running
    assert (report.killed, report["never_issued"], report.all("survived")) == (True, ["never_issued"], [])
    connections = len(cloud.connections)
    async with Gateway(tmp_path, clock=Clock(wall=time.time() + 2.5 * DAY)) as again:
        assert alarms(again) == ["locked_out", "never_issued"]
        await cloud.linked(connections + 1)
        assert (await cloud.deliver(door))["code"] == "CARRIER_LOCKED_OUT"
        assert again.pulses == 0
        await again.carriers.approve(SWIFT)
        assert (await cloud.deliver(door))["code"] == "GRANTED"


@pytest.mark.parametrize("point", ["told", "moved"])
async def test_killed_in_the_middle_of_an_unlock_the_cloud_hears_that_nobody_knows(tmp_path, gateways, cloud, point):
    """It hears nothing at first, then, from the next life, that the outcome is unknown. Nothing moves again."""
    job = asyncio.to_thread(
        gateways.run, "unlock_over_link", folder=tmp_path, code=cloud.code(), carrier="Swift", kill_at=point
    )
    running = asyncio.create_task(job)
    await until(lambda: cloud.connections and "secret" not in cloud.connections[-1].greeting, 20)
    (door,) = (each["id"] for each in (await cloud.linked()).hello["doors"])
    with pytest.raises(asyncio.CancelledError):
        await cloud.deliver(door)
    assert (await running).killed
    connections = len(cloud.connections)
    async with Gateway(tmp_path, clock=read_clock) as again:
        back = await cloud.linked(connections + 1)
        await cloud.until(lambda: back.accepted)
        assert back.accepted == [{"type": "accepted", "jti": cloud.jti, "door": door, "code": "OUTCOME_UNKNOWN"}]
        assert again.pulses == 0
    assert read_journal(tmp_path / "journal.db", "SELECT state FROM spent") == [("UNKNOWN",)]


# ---- limits, and other doors ----


async def test_a_flood_on_a_link_is_limited_as_on_the_api(linked, admin, cloud):
    """And uses nothing up that another carrier, or a client, has."""
    plain = Carrier("Plain")
    await linked.allow(admin, swift(), plain)
    await connected(linked)
    words = [(await cloud.unlock(f"no.token.{number}"))["word"] for number in range(25)]
    assert words == ["invalid_token"] * 20 + ["unavailable"] * 5
    token = genuine(plain, await admin.challenge(linked.door, plain))
    assert await admin.code(linked.door, token) == "GRANTED"
    token = cloud.token(linked.door.id, await admin.challenge(linked.door, swift()))
    assert await admin.code(linked.door, token) == "GRANTED"
    linked.pass_time(1)
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"


async def test_clouds_that_hang_or_are_away_slow_no_other_door_down(linked, admin, cloud):
    """Protocol G: a link that hangs hangs alone."""
    plain = Carrier("Plain")
    await linked.allow(admin, swift(), plain)
    await connected(linked)
    linked.strikes[linked.all_doors[1].id].hang()
    hanging = asyncio.create_task(cloud.deliver(linked.all_doors[1].id))
    await linked.strikes[linked.all_doors[1].id].until(lambda strike: strike.commands)
    cloud.is_silent = True
    async with another_cloud() as away:
        await link(linked, away)
    began = time.monotonic()
    for _ in range(5):
        token = genuine(plain, await admin.challenge(linked.door, plain))
        assert await admin.code(linked.door, token) == "GRANTED"
    assert time.monotonic() - began < 2
    hanging.cancel()


async def test_what_is_being_answered_when_the_gateway_ends_is_answered(linked, cloud):
    moved = asyncio.Event()
    linked.strike.at(Moment.MOVED, lambda: asyncio.sleep(0.3))
    linked.strike.at(Moment.TOLD, moved.set)
    delivering = asyncio.create_task(cloud.deliver(linked.door.id))
    await moved.wait()
    await linked.links.stop()
    assert (await delivering)["word"] == "granted"


# ---- removal ----


async def test_a_carrier_that_was_removed_has_no_link_and_home_assistants_keys_hold_again(linked, admin, cloud):
    connection = cloud.connections[-1]
    was = await linked.links.unlink(SWIFT)
    assert was.name == "Swift Parcels"
    await until(connection.over.is_set)
    for asked in (linked.links.unlink, linked.carriers.approve):
        with pytest.raises(UnknownCarrier):
            await asked(SWIFT)
    carrier = swift()
    carrier.doors = linked.all_doors
    token = genuine(carrier, await admin.challenge(linked.door, carrier))
    assert await admin.code(linked.door, token) == "GRANTED"
    assert linked.outcomes.count(EventName.CARRIER_UNLINKED) == 1
    await asyncio.sleep(0.1)
    assert cloud.connections[-1] is connection
    events = (await admin.get("/v1/events?after=0")).json["events"]
    assert [event["outcome"] for event in events].count("carrier_linked") == 1


async def test_somebody_at_the_gateway_lets_a_carrier_in_again(tmp_path, cloud):
    async with at_work(read_config(write_config(tmp_path))) as gateway:
        config = tmp_path / "gateway.toml"
        met = await gateway.links.meet(EnrolmentCode.parse(cloud.code()))
        await gateway.links.link(met, cloud.host)
        await until(lambda: gateway.links.facts(SWIFT)["connected"])
        assert (await command("carrier", "approve", SWIFT, "--config", config))[1] == (
            "vestibule-gateway: nothing is held against this carrier\n"
        )
        gateway.carriers._books[SWIFT] = replace(gateway.carriers._books[SWIFT], locked_out=True)
        gateway.carriers._look_for_alarms()
        status, said = await command("check", "--config", config)
        assert (status, "carrier  WRONG Swift Parcels: LOCKED OUT, since tokens were accepted" in said) == (2, True), (
            said
        )
        status, said = await command("carrier", "remove", SWIFT, "--config", config)
        assert (status, "this carrier is locked out" in said) == (2, True), said
        assert await command("carrier", "approve", SWIFT, "--config", config) == (
            0,
            "approved    Swift Parcels (https://swift.example)\n",
        )
        assert (await command("check", "--config", config))[0] == 0
        status, said = await command("carrier", "remove", SWIFT, "--config", config)
        assert (status, said.splitlines()[0]) == (0, "removed     Swift Parcels (https://swift.example)")
        assert gateway.carriers.linked == {}


async def test_a_set_that_was_replaced_is_not_taken_when_the_carrier_is_linked_again(linked, cloud):
    """A removal is no way back to a key that a set has dropped."""
    first = cloud.text
    await rotate(cloud, Key())
    await until(lambda: linked.carriers.held(SWIFT).published.version == 2)
    await linked.links.unlink(SWIFT)
    cloud.text = first
    with pytest.raises(KeySetInvalid, match="older_version"):
        await link(linked, cloud)


async def test_to_remove_a_carrier_and_to_add_it_again_is_no_way_round_its_lists(linked, cloud):
    """Row 70: what was accepted and never issued is found all the same, and the day goes on."""
    await stolen(linked, cloud)
    await linked.links.unlink(SWIFT)
    assert alarms(linked) == [], "of a carrier without a link nobody knows what it issued"
    cloud.root, cloud.text = Key(), None  # also if it comes with another root
    await link(linked, cloud)
    assert alarms(linked) == ["never_issued"]
    linked.clock.advance(DAY)
    await look(linked)
    assert "locked_out" in alarms(linked)
    assert (await cloud.deliver(linked.door.id))["code"] == "CARRIER_LOCKED_OUT"


async def test_a_carrier_whose_day_is_over_is_not_removed_before_anybody_has_looked(linked, cloud):
    """Row 70: the removal itself looks."""
    await stolen(linked, cloud)
    linked.clock.advance(DAY)
    with pytest.raises(IsLockedOut):
        await linked.links.unlink(SWIFT)
    assert "locked_out" in alarms(linked)


async def test_what_was_accepted_just_before_the_removal_is_held_against_its_list_after_a_restart_too(tmp_path, cloud):
    """Row 70: and what the list has is in order, and not kept any longer."""
    async with Gateway(tmp_path, clock=Clock(wall=time.time())) as gateway:
        admin = await gateway.pair(trusts=True)
        await gateway.allow(admin, swift())
        await link(gateway, cloud)
        assert (await cloud.deliver(gateway.door.id))["word"] == "granted"
        good = cloud.jti
        assert (await cloud.deliver(gateway.door.id))["word"] == "granted"
        await gateway.links.unlink(SWIFT)
    async with gateway.reopen() as again:
        await link(again, cloud)
        again.clock.advance(1.1 * DAY)
        await say_list(cloud, issued(cloud, good))
        await until(lambda: alarms(again) == ["never_issued"])
        await again.carriers.approve(SWIFT)
        await again.links.unlink(SWIFT)
        assert not [name for name in again.journal.notes() if name.startswith(("books:", "left:"))]


async def test_after_an_epoch_a_link_is_still_the_same_controllers(linked, cloud):
    """ADR 11: the key stays, and with it the name that a cloud knows; only checkpoints have the name of the epoch."""
    before = cloud.connections[-1].hello
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    await linked.controller.recorded()
    hand = linked.controller.by_hand
    hand.dispute(linked.journal.checkpoint)
    assert (await cloud.deliver(linked.door.id))["word"] == "refused"
    assert (await hand.confirm_journal(Actor(user_id=None, name=None, is_admin=True))).granted
    cloud.connections[-1].cut()
    hello = (await cloud.linked(len(cloud.connections) + 1)).hello
    assert hello["ctl"] == before["ctl"] == str(IDENTITY.verifier) == str(linked.journal.signer.verifier)
    assert hello["ckpt"].startswith(f"{IDENTITY.verifier.name}/epoch/1/")
    assert (await cloud.deliver(linked.door.id))["word"] == "granted"
    linked.clock.advance(1.1 * DAY)
    await say_list(cloud, issued(cloud, cloud.jti))  # for the name that the cloud knows
    await until(lambda: linked.carriers._books[SWIFT].newest == cloud.day)
