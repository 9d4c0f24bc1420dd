"""The link to a carrier's cloud, as Home Assistant keeps it: deliveries, keys, and what a stranger on it cannot do."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import get_system_health_info
from pytest_homeassistant_custom_component.components.diagnostics import get_diagnostics_for_config_entry

from custom_components.vestibule import link
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.link import client
from custom_components.vestibule.vestibule_core.link.standing import STOOD, TELL_AFTER
from custom_components.vestibule.vestibule_core.model import Actor
from tests.integration.site import RelaySwitch, Site, self_signed
from tests.integration.test_translations import EN
from tests.link_cloud import DAY, Key, LinkCloud, b64

pytestmark = pytest.mark.usefixtures("socket_enabled")


@pytest.fixture
async def cloud(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LinkCloud]:
    """The carrier's cloud, at work. What is cut comes back at once, and not at random within seconds."""
    assert client.PAUSES[0] + client.SPREAD < 60
    monkeypatch.setattr(client, "PAUSES", (0.1, 0.5))
    async with LinkCloud() as cloud:
        yield cloud


@pytest.fixture
async def site(hass: HomeAssistant, relay: RelaySwitch, cloud: LinkCloud) -> AsyncGenerator[Site]:
    """A loaded building with one door and one carrier, whose cloud is linked."""
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    site.add_linked_carrier("Swift", cloud)
    await site.load()
    await linked(site, cloud)
    yield site
    await hass.config_entries.async_unload(site.entry.entry_id)


class Clock:
    """The calendar, which can be turned on. Timers go by another clock and are left alone, as is the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)
        monkeypatch.setattr(dt_util, "utcnow", lambda: datetime.fromtimestamp(time.time(), UTC))

    @property
    def now(self) -> float:
        return time.time()

    def tick(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def until(is_so: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - as an eye on the dashboard would
            await asyncio.sleep(0.01)


async def linked(site: Site, cloud: LinkCloud, hellos: int = 1) -> None:
    """Wait until the link stands, and Home Assistant says so."""
    await cloud.linked(hellos)
    await until(lambda: site.embedded.links.is_connected(cloud.issuer))


def connection(hass: HomeAssistant) -> str:
    return hass.states.get("binary_sensor.linden_court_connection_to_swift").state


def repairs(issue_registry) -> set[str]:
    """The repairs that are raised, each of which has all that its texts are about."""
    shown = {issue.translation_key: issue for issue in issue_registry.issues.values() if issue.domain == DOMAIN}
    for kind, issue in shown.items():
        words = EN["issues"][kind]
        form = words["fix_flow"]["step"]["confirm"] if issue.is_fixable else words
        for text in (words["title"], form["description"]):
            text.format(**issue.translation_placeholders)
    return set(shown)


def opened(site: Site) -> dict[str, Any]:
    """The data of the event of a decision."""
    return next(e.data for e in site.events if e.data["outcome"] in ("access_granted", "access_denied"))


# ---- what a cloud is told, and delivers -----------------------------------------------------------------------------


async def test_a_cloud_hears_which_doors_it_may_enter_where_they_are_and_what_the_journal_holds(hass, site, cloud):
    hello = cloud.connections[-1].hello
    home = {"lat": hass.config.latitude, "lon": hass.config.longitude, "zone": hass.config.time_zone}
    assert hello["doors"] == [{"id": site.door, "name": "Front door", **home}]
    assert (hello["aud"], hello["keyset_ver"], hello["ckpt"]) == (cloud.issuer, 1, site.embedded.journal.checkpoint)
    assert hello["ctl"] == str(site.embedded.journal.signer.verifier)
    assert "secret" not in cloud.connections[-1].greeting, "which is for the form alone"


async def test_a_door_that_has_a_position_of_its_own_is_there(hass, site, cloud):
    site.change("Front door", position={"latitude": 52.5, "longitude": 13.4})
    await linked(site, cloud, 2)
    (door,) = cloud.connections[-1].hello["doors"]
    assert (door["lat"], door["lon"]) == (52.5, 13.4)


async def test_a_delivery_over_the_link_opens_the_door_and_its_event_has_all_four_confirmations(site, cloud, relay):
    assert await cloud.deliver(site.door) == {"type": "outcome", "id": 1, "word": "granted", "code": "GRANTED"}
    await site.settle()
    assert relay.told == ["on"]
    told = opened(site)
    assert (told["outcome"], told["carrier"], told["means"]) == ("access_granted", "Swift", "token")
    confirmed = {
        "driver": "passkey",
        "route": True,
        "distance": 12,
        "accuracy": 8,
        "position_age": 3,
        "request_age": 2,
    }
    assert told["confirmed"] == confirmed
    said = json.dumps([event.data for event in site.events], default=str) + json.dumps(
        site.access().as_dict(), default=str
    )
    assert not any(word in said for word in ("driver-1", "stop-1", "route-1", cloud.jti))


async def test_the_event_entity_shows_what_was_confirmed_of_a_refusal(hass, site, cloud, relay):
    far = {"drv": "passkey", "rte": "route-1", "gps": {"d": 400, "acc": 8, "age": 3}, "req": int(time.time()) - 2}
    outcome = await cloud.deliver(site.door, chk=far)
    assert (outcome["word"], outcome["code"]) == ("refused", "POLICY_EVIDENCE")
    await site.settle()
    shown = site.access().attributes
    assert (shown["outcome"], shown["code"]) == ("access_denied", "POLICY_EVIDENCE")
    assert shown["confirmed"]["distance"] == 400
    assert relay.told == []


async def test_each_acceptance_is_told_at_once_and_once_more_after_a_cut(site, cloud):
    await cloud.deliver(site.door)
    first = cloud.connections[-1]
    told = {"type": "accepted", "jti": cloud.jti, "door": site.door, "code": "GRANTED"}
    await cloud.until(lambda: first.accepted == [told])
    first.cut()
    await linked(site, cloud, 2)
    second = cloud.connections[-1]
    await cloud.until(lambda: second.accepted == [told])


@pytest.mark.parametrize("how", ["cut", "doors changed"])
async def test_a_token_that_is_with_the_strike_when_its_link_ends_is_seen_to_its_end_and_told_later(
    site, cloud, relay, monkeypatch, how
):
    goes_on, heard = asyncio.Event(), relay._hear

    async def slowly(command: str) -> None:
        await heard(command)
        await goes_on.wait()

    monkeypatch.setattr(relay, "_hear", slowly)
    answer = await cloud.challenge(site.door)
    waiting = asyncio.create_task(cloud.unlock(cloud.token(site.door, answer["non"])))
    await until(lambda: relay.told == ["on"])
    if how == "cut":
        cloud.connections[-1].cut()
    else:
        site.change("Front door", position={"latitude": 1.0, "longitude": 2.0})
    await linked(site, cloud, 2)
    await asyncio.gather(waiting, return_exceptions=True)
    goes_on.set()
    told = {"type": "accepted", "jti": cloud.jti, "door": site.door, "code": "GRANTED"}
    await cloud.until(lambda: cloud.connections[-1].accepted == [told])
    await site.settle()
    assert relay.told == ["on"]
    assert ("door_released", "GRANTED") in site.outcomes()


async def test_a_token_that_came_another_way_is_told_as_well(site, cloud):
    token = cloud.token(site.door, await site.challenge())
    assert (await site.present(token))["word"] == "granted"
    await cloud.until(lambda: [frame["jti"] for frame in cloud.connections[-1].accepted] == [cloud.jti])


async def test_a_refused_token_is_told_to_nobody_as_accepted(site, cloud):
    await cloud.deliver(site.door)
    assert (await cloud.unlock(cloud.token(site.door, "A" * 22)))["word"] == "refused"
    await cloud.until(lambda: cloud.connections[-1].accepted)
    await site.settle()
    assert len(cloud.connections[-1].accepted) == 1


async def test_the_same_token_again_opens_nothing(site, cloud, relay):
    answer = await cloud.challenge(site.door)
    token = cloud.token(site.door, answer["non"])
    assert (await cloud.unlock(token))["word"] == "granted"
    assert (await cloud.unlock(token))["word"] == "already_used"
    await site.settle()
    assert relay.told == ["on"]


# ---- what a cloud cannot do -----------------------------------------------------------------------------------------


async def test_no_challenge_is_given_of_a_door_that_is_not_the_carriers(hass, site, cloud, relay):
    other = site.add_door("Cellar", "switch.elsewhere")
    await hass.async_block_till_done()
    assert (await cloud.challenge(other))["word"] == "refused"
    token = cloud.token(other, await site.challenge())
    assert (await cloud.unlock(token))["word"] == "refused"
    assert relay.told == []


async def test_the_token_of_one_carrier_on_the_link_of_another_opens_nothing(hass, site, cloud, relay):
    """Attack 79: it knows a challenge, and has the other's token."""
    async with LinkCloud("https://slow.example", "Slow") as other:
        site.add_linked_carrier("Slow", other)
        await linked(site, other)
        answer = await cloud.challenge(site.door)
        stolen = cloud.token(site.door, answer["non"])
        assert (await other.unlock(stolen))["word"] == "invalid_token"
        theirs = await other.challenge(site.door)
        assert (await other.unlock(cloud.token(site.door, theirs["non"])))["word"] == "invalid_token"
        assert relay.told == []
        assert (await cloud.unlock(stolen))["word"] == "granted", "and it was not spent by that"
        site.remove("Slow")
        await hass.async_block_till_done()


async def test_what_is_no_token_is_called_so(site, cloud, relay):
    for text in ("x", cloud.token(site.door, "A" * 22)[:-2], cloud.token("door:x", "A" * 22)):
        assert (await cloud.unlock(text))["word"] == "invalid_token"
    assert relay.told == []


async def test_another_carriers_cloud_at_the_same_address_is_turned_away(hass, site, cloud, issue_registry):
    cloud.issuer = "https://slow.example"
    cloud.connections[-1].cut()
    await until(lambda: "carrier_not_enrolled" in repairs(issue_registry))
    assert len(cloud.connections) == 1, "no hello was said to it"
    assert connection(hass) == "off"


# ---- keys -----------------------------------------------------------------------------------------------------------


async def taken(site: Site, version: int) -> None:
    """Wait until this version of the key set holds."""
    links = lambda: site.embedded.setup.enrolments  # noqa: E731
    await until(lambda: next(iter(links().values())).published.version == version)


async def test_a_newer_key_set_holds_at_once_and_what_it_drops_is_revoked(site, cloud, relay):
    before = await cloud.challenge(site.door)
    old, cloud.signing = cloud.signing, Key()
    await cloud.publish()
    await taken(site, 2)
    outcome = await cloud.unlock(cloud.token(site.door, before["non"]))
    assert outcome["word"] == "granted", "challenges stay good"
    answer = await cloud.challenge(site.door)
    outcome = await cloud.unlock(cloud.token(site.door, answer["non"], by=old))
    assert outcome["word"] == "invalid_token"
    await site.settle()
    assert ("access_denied", "KEY_REVOKED") in site.outcomes()
    stored = site.subentry("Swift").data
    assert [key["kid"] if "kid" in key else key["x"] for key in stored["dropped"]] != []
    assert relay.told == ["on"]


@pytest.fixture
async def second_version(site, cloud) -> None:
    cloud.version = 2
    cloud.text = cloud.key_set()
    await cloud.publish(cloud.text)
    await taken(site, 2)


def lower(cloud: LinkCloud) -> dict[str, Any]:
    return {"text": cloud.key_set(ver=1)}


def another_of_the_same_version(cloud: LinkCloud) -> dict[str, Any]:
    return {"text": cloud.key_set(ver=2, signing=[Key()])}


def by_an_online_key(cloud: LinkCloud) -> dict[str, Any]:
    return {"text": cloud.key_set(ver=3, by=cloud.signing)}


def by_a_new_root(cloud: LinkCloud) -> dict[str, Any]:
    thief = Key()
    return {"text": cloud.key_set(ver=3, by=thief), "root": thief}


def expired(cloud: LinkCloud) -> dict[str, Any]:
    now = int(time.time())
    return {"text": cloud.key_set(ver=3, iat=now - 30 * DAY, exp=now - 1)}


def of_another_issuer(cloud: LinkCloud) -> dict[str, Any]:
    return {"text": cloud.key_set(ver=3, iss="https://slow.example")}


def too_long(cloud: LinkCloud) -> dict[str, Any]:
    now = int(time.time())
    return {"text": cloud.key_set(ver=3, iat=now, exp=now + 36 * DAY)}


@pytest.mark.parametrize(
    "attack",
    [lower, another_of_the_same_version, by_an_online_key, by_a_new_root, expired, of_another_issuer, too_long],
)
async def test_a_set_that_its_root_has_not_made_newer_is_refused(
    hass, site, cloud, relay, second_version, issue_registry, attack
):
    """Attacks 36 and 78."""
    before = dict(site.subentry("Swift").data)
    await cloud.publish(**attack(cloud))
    await until(lambda: "carrier_keys_refused" in repairs(issue_registry))
    assert dict(site.subentry("Swift").data) == before
    assert connection(hass) == "on", "a better one may come"
    assert (await cloud.deliver(site.door))["word"] == "granted", "what was known holds"
    await cloud.publish(cloud.key_set(ver=4))
    await taken(site, 4)
    await until(lambda: "carrier_keys_refused" not in repairs(issue_registry))


async def test_a_set_with_another_carriers_key_is_refused_and_that_one_unaffected(hass, site, cloud, issue_registry):
    """Attack 78."""
    async with LinkCloud("https://slow.example", "Slow") as other:
        site.add_linked_carrier("Slow", other)
        await linked(site, other)
        other.version = 2
        await other.publish(other.key_set(signing=[other.signing, cloud.signing]))
        await until(lambda: "carrier_keys_refused" in repairs(issue_registry))
        assert (await cloud.deliver(site.door))["word"] == "granted"
        assert (await other.deliver(site.door))["word"] == "granted"
        site.remove("Slow")
        await hass.async_block_till_done()
        assert "carrier_keys_refused" not in repairs(issue_registry)


async def test_the_announced_root_may_come_next(site, cloud):
    after, cloud.next_root = cloud.next_root, Key()
    cloud.root = after
    await cloud.publish()
    await taken(site, 2)
    assert site.subentry("Swift").data["root"] == after.public.hex()
    await cloud.publish()
    await taken(site, 3)


async def test_a_carrier_that_has_new_keys_all_the_time_is_slowed_down_and_its_newest_ones_hold_in_the_end(
    site, cloud, monkeypatch
):
    """Each change of keys is one at each gateway, too, which takes few from Home Assistant: others' would wait."""
    monkeypatch.setattr(link, "LOOK_EVERY", 0.05)
    for _ in range(9):
        await cloud.publish()
    await taken(site, 5)
    await asyncio.sleep(0.3)
    await taken(site, 5)
    site.embedded.links.may_change.give_back(cloud.issuer)  # as time does
    await taken(site, 10)
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_keys_end_with_their_set_and_that_is_said_a_week_before(hass, site, cloud, relay, issue_registry, clock):
    clock.tick(20 * DAY - 60)
    await site.embedded.follow_entry()
    assert (await cloud.deliver(site.door))["word"] == "granted"
    assert "carrier_keys_end" not in repairs(issue_registry)
    clock.tick(4 * DAY)
    site.change("Swift", rate=7)
    await until(lambda: "carrier_keys_end" in repairs(issue_registry))
    outcome = await cloud.deliver(site.door)
    assert outcome["word"] == "invalid_token", "its own time is over: a thief has no use of a withheld set"
    await cloud.publish()
    await taken(site, 2)
    await until(lambda: "carrier_keys_end" not in repairs(issue_registry))
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_a_set_that_has_ended_meanwhile_is_read_at_the_next_start(hass, site, cloud, clock):
    await cloud.stop()
    clock.tick(40 * DAY)
    await hass.config_entries.async_reload(site.entry.entry_id)
    await hass.async_block_till_done()
    assert site.embedded.setup.unreadable == {}
    cloud.text, cloud.version = None, 2
    cloud.text = cloud.key_set()
    await cloud.start()
    await linked(site, cloud, 2)
    await taken(site, 2)


# ---- its life -------------------------------------------------------------------------------------------------------


async def test_the_connection_is_shown_and_comes_back(hass, site, cloud, entity_registry):
    assert connection(hass) == "on"
    entity = entity_registry.async_get("binary_sensor.linden_court_connection_to_swift")
    assert entity.entity_category == "diagnostic"
    await cloud.stop()
    await until(lambda: connection(hass) == "off")
    await cloud.start()
    await until(lambda: connection(hass) == "on")


async def test_the_connection_is_named_after_the_carrier(hass, site, cloud):
    entity = "binary_sensor.linden_court_connection_to_swift"
    assert hass.states.get(entity).name == "Linden Court Connection to Swift"
    site.change("Swift", new_title="Slow")
    await hass.async_block_till_done()
    assert hass.states.get(entity).name == "Linden Court Connection to Slow"
    assert connection(hass) == "on", "and nothing else has changed"
    assert len(cloud.connections) == 1


async def test_it_stands_again_after_a_restart_as_another_instance(hass, site, cloud):
    before = cloud.connections[-1]
    await hass.config_entries.async_unload(site.entry.entry_id)
    assert before.over.is_set()
    assert await hass.config_entries.async_setup(site.entry.entry_id)
    await linked(site, cloud, 2)
    after = cloud.connections[-1]
    assert after.hello["inst"] != before.hello["inst"]
    assert after.hello["ctl"] == before.hello["ctl"]


async def test_it_keeps_its_instance_when_it_comes_back(site, cloud):
    cloud.connections[-1].cut()
    await linked(site, cloud, 2)
    assert cloud.connections[1].hello["inst"] == cloud.connections[0].hello["inst"]


async def test_it_ends_with_home_assistant(hass, site, cloud):
    await hass.async_stop(force=True)
    assert cloud.connections[-1].over.is_set()


async def test_a_door_more_or_renamed_is_told_by_a_new_hello(hass, site, cloud):
    site.change("Front door", new_title="Street door")
    await linked(site, cloud, 2)
    assert [door["name"] for door in cloud.connections[-1].hello["doors"]] == ["Street door"]
    other = site.add_door("Cellar", "switch.elsewhere")
    site.change("Swift", doors=[site.door, other])
    await linked(site, cloud, 3)
    assert {door["id"] for door in cloud.connections[-1].hello["doors"]} == {site.door, other}
    site.change("Swift", rate=3)
    await hass.async_block_till_done()
    assert len(cloud.connections) == 3, "what it is not told of is no reason"


async def test_a_name_that_no_cloud_would_read_is_shortened(site, cloud):
    site.change("Front door", new_title="D\u202e" + "o" * 99)
    await linked(site, cloud, 2)
    assert [door["name"] for door in cloud.connections[-1].hello["doors"]] == ["D" + "o" * 59]


async def test_a_carrier_that_is_removed_loses_its_link_at_once(hass, site, cloud, relay, entity_registry):
    answer = await cloud.challenge(site.door)
    site.remove("Swift")
    await hass.async_block_till_done()
    await until(cloud.connections[-1].over.is_set)
    assert entity_registry.async_get("binary_sensor.linden_court_connection_to_swift") is None
    assert (await site.present(cloud.token(site.door, answer["non"])))["word"] == "invalid_token"
    assert relay.told == []


async def test_a_connection_of_a_carrier_that_was_removed_while_nothing_ran_is_gone(hass, site, cloud, entity_registry):
    await hass.config_entries.async_unload(site.entry.entry_id)
    registry = er.async_get(hass)
    ghost = registry.async_get_or_create(
        "binary_sensor", DOMAIN, f"{site.entry.data['building']}_link_gone", config_entry=site.entry
    )
    assert await hass.config_entries.async_setup(site.entry.entry_id)
    assert registry.async_get(ghost.entity_id) is None
    await linked(site, cloud, 2)


async def test_a_carrier_that_is_added_is_linked_without_a_reload(hass, site, cloud):
    controller = site.embedded.controller
    async with LinkCloud("https://slow.example", "Slow") as other:
        site.add_linked_carrier("Slow", other)
        await linked(site, other)
        assert hass.states.get("binary_sensor.linden_court_connection_to_slow").state == "on"
        assert site.embedded.controller is controller
        site.remove("Slow")
        await hass.async_block_till_done()


async def test_two_copies_of_one_installation_do_not_fight_and_the_manager_hears_of_it(
    hass, site, cloud, issue_registry
):
    await cloud.connections[-1].close(4001)
    await until(lambda: "carrier_taken_over" in repairs(issue_registry))
    assert connection(hass) == "off"
    await asyncio.sleep(1)  # within which it would be back from a mere cut
    assert len(cloud.connections) == 1


async def test_that_a_copy_has_taken_the_link_is_told_also_while_it_is_ours_again(
    hass, site, cloud, issue_registry, monkeypatch
):
    """Else it would be seen every other minute."""
    monkeypatch.setattr(client, "TAKEN_OVER_PAUSE", 0.1)
    await cloud.connections[-1].close(4001)
    await linked(site, cloud, 2)
    await hass.async_block_till_done()
    assert repairs(issue_registry) == {"carrier_taken_over"}
    monkeypatch.setattr(link, "CONTESTED", 0)
    site.change("Swift", rate=7)
    await until(lambda: repairs(issue_registry) == set())


async def test_a_building_that_the_cloud_does_not_know_any_more_says_so(hass, site, cloud, issue_registry):
    cloud.refuse_with = 4003
    cloud.connections[-1].cut()
    await until(lambda: "carrier_not_enrolled" in repairs(issue_registry))
    assert connection(hass) == "off"


class Later:
    """The hours for which links stand and fail, which can be let go by; timers and the loop's clock are left alone."""

    def __init__(self, hass: HomeAssistant, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self._hass, self._site, self._ahead = hass, site, 0.0
        monkeypatch.setattr(client, "monotonic", lambda: time.monotonic() + self._ahead)

    async def look(self, seconds: float = 0) -> None:
        """Let time go by, and have the repairs looked at."""
        self._ahead += seconds
        self._site.change("Swift", rate=self._site.subentry("Swift").data.get("rate", 0) + 1)  # as any change does
        await self._hass.async_block_till_done()

    async def stand(self, cloud: LinkCloud, seconds: float) -> None:
        """Let the link stand for so long, and its cloud be heard then."""
        await until(lambda: self._site.embedded.links.is_connected(cloud.issuer))
        connection = await cloud.linked(len(cloud.connections))
        await self.look(seconds)
        await connection.say(type="ping")
        await cloud.until(lambda: connection.pongs)


@pytest.fixture
def later(hass: HomeAssistant, site: Site, monkeypatch: pytest.MonkeyPatch) -> Later:
    return Later(hass, site, monkeypatch)


async def tried_again(cloud: LinkCloud, times: int = 2) -> None:
    tries = len(cloud.connections)
    await until(lambda: len(cloud.connections) >= tries + times)


@contextmanager
def in_between(port: int) -> Iterator[None]:
    """Somebody else answers at a port, with a certificate that nobody has vouched for. Not in our loop: it would say
    there that it was turned away.
    """
    context, listener = self_signed(), socket.create_server(("127.0.0.1", port))

    def answer() -> None:
        with suppress(OSError):  # until it is shut down
            while True:
                line, _ = listener.accept()
                with suppress(OSError):
                    context.wrap_socket(line, server_side=True).close()

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        answering.join()
        listener.close()


@pytest.mark.parametrize(
    "close, state, repair",
    [
        (4000, "not_ready", "carrier_not_ready"),  # it has published no keys
        (4005, "no_cloud", "carrier_no_cloud"),
        (None, "certificate", "carrier_certificate"),
    ],
)
async def test_what_only_people_can_mend_is_a_repair_after_a_quarter_of_an_hour_and_until_the_link_stands(
    hass, site, cloud, later, issue_registry, monkeypatch, request, close, state, repair
):
    links, was_here, other = site.embedded.links, client._is_here, ExitStack()
    request.addfinalizer(other.close)
    await later.stand(cloud, DAY)
    cloud.refuse_with = close
    if close is None:
        await cloud.stop()
        monkeypatch.setattr(client, "_is_here", lambda where: False)  # so that TLS is spoken
        other.enter_context(in_between(cloud.port))
    else:
        cloud.connections[-1].cut()
    await until(lambda: links.state(cloud.issuer) == state)
    await later.look(TELL_AFTER - 60)
    assert repairs(issue_registry) == set()
    trouble = links._lines[cloud.issuer].link._trouble
    await until(lambda: links._lines[cloud.issuer].link._trouble != trouble)  # tried again, with the same end
    await later.look(60)
    assert repairs(issue_registry) == {repair}
    (raised,) = (issue for issue in issue_registry.issues.values() if issue.domain == DOMAIN)
    assert raised.translation_placeholders == {"carrier": "Swift", "host": cloud.host}
    assert connection(hass) == "off"

    cloud.refuse_with = None
    if close is None:
        other.close()
        monkeypatch.setattr(client, "_is_here", was_here)
        await cloud.start()
    await until(lambda: links.is_connected(cloud.issuer))
    await later.stand(cloud, STOOD)
    await later.look()
    assert repairs(issue_registry) == set()


@pytest.mark.parametrize(
    "close, repair",
    [
        (1000, "carrier_unstable"),  # as a proxy does
        (4000, "carrier_not_ready"),
        (4005, "carrier_no_cloud"),
    ],
)
async def test_a_link_that_ends_soon_after_each_hello_is_a_repair_after_a_quarter_of_an_hour_and_until_one_stands(
    hass, site, cloud, later, issue_registry, close, repair
):
    taken_back = []
    hass.bus.async_listen(
        "repairs_issue_registry_updated", lambda event: taken_back.append(event.data["action"] == "remove")
    )
    await later.stand(cloud, DAY)
    cloud.end_with = close
    cloud.connections[-1].cut()
    await tried_again(cloud)
    await later.look(TELL_AFTER - 60)
    assert repairs(issue_registry) == set()
    await tried_again(cloud)
    await later.look(60)
    assert repairs(issue_registry) == {repair}
    (raised,) = (issue for issue in issue_registry.issues.values() if issue.domain == DOMAIN)
    assert raised.translation_placeholders == {"carrier": "Swift", "host": cloud.host}
    for _ in range(3):  # each of which is connected for a moment
        await tried_again(cloud, 1)
        await later.look(120)
    assert repairs(issue_registry) == {repair}
    assert not any(taken_back)

    cloud.end_with = None
    await tried_again(cloud, 1)
    await until(lambda: connection(hass) == "on")
    await later.look()
    assert repairs(issue_registry) == {repair}
    await later.stand(cloud, STOOD)
    await later.look()
    assert repairs(issue_registry) == set()


@pytest.mark.parametrize("close", [1000, 4000])
async def test_a_link_that_is_cut_now_and_then_or_whose_cloud_is_restarted_is_no_repair(
    site, cloud, later, issue_registry, close
):
    for number in range(1, 6):
        await later.stand(cloud, 600)
        await cloud.connections[-1].close(close)
        await linked(site, cloud, number + 1)
        await later.look()
        assert repairs(issue_registry) == set()


async def test_a_cloud_that_cannot_be_reached_is_no_repair_as_long_as_keys_and_lists_are_good(
    hass, site, cloud, later, issue_registry
):
    """It is the network, mostly; and the connection says so."""
    await cloud.stop()
    await until(lambda: site.embedded.links.state(cloud.issuer) == "unreachable")
    for _ in range(4):
        await later.look(TELL_AFTER / 2)
        assert repairs(issue_registry) == set()
    assert connection(hass) == "off"


async def test_after_an_epoch_the_link_is_still_the_same_controller_and_tells_of_the_new_journal(site, cloud):
    """ADR 11: the key stays, and with it the name that a cloud knows; only checkpoints have the name of the epoch."""
    before = cloud.connections[-1].hello
    assert (await cloud.deliver(site.door))["word"] == "granted"
    await site.settle()
    receipt = site.embedded.journal.checkpoint
    hand = site.embedded.controller.by_hand
    hand.dispute(receipt)
    assert hand.disputed
    decision = await hand.confirm_journal(Actor(user_id=None, name=None, is_admin=True))
    assert decision.granted
    assert not hand.disputed
    cloud.connections[-1].cut()
    await linked(site, cloud, 2)
    hello = cloud.connections[-1].hello
    assert hello["ctl"] == before["ctl"] == str(site.embedded.journal.signer.verifier)
    assert hello["ckpt"].partition("\n")[0].startswith(f"{site.embedded.journal.signer.verifier.name}/epoch/1/")
    assert (await cloud.deliver(site.door))["word"] == "granted"
    await site.settle()
    signed = site.embedded.links._lines[cloud.issuer].host.key.verifier
    assert str(signed) == hello["ctl"]


async def test_a_cloud_that_goes_away_for_a_moment_is_no_repair(hass, site, cloud, issue_registry):
    await cloud.connections[-1].close(4000)
    await linked(site, cloud, 2)
    assert repairs(issue_registry) == set()


# ---- what others see of it ------------------------------------------------------------------------------------------


async def test_the_diagnostics_say_how_the_link_is_and_nothing_that_opens(hass, site, cloud, hass_client):
    assert await async_setup_component(hass, "diagnostics", {})
    await cloud.deliver(site.door)
    await site.settle()
    found = await get_diagnostics_for_config_entry(hass, hass_client, site.entry)
    link = found["carriers"][0]["link"]
    assert (link["state"], link["trouble"], link["locked_out"], link["alarms"]) == ("connected", None, False, [])
    assert link["key_set"]["version"] == 1
    text = json.dumps(found)
    secrets = [
        cloud.issuer,
        cloud.host,
        cloud.root.public.hex(),
        cloud.signing.kid,
        b64(cloud.signing.public),
        cloud.jti,
    ]
    assert [secret for secret in secrets if secret in text] == []


async def test_the_system_information_counts_links(hass, site, cloud):
    assert await async_setup_component(hass, "system_health", {})
    assert (await get_system_health_info(hass, DOMAIN))["links"] == "1 of 1"
    await cloud.stop()
    await until(lambda: connection(hass) == "off")
    assert (await get_system_health_info(hass, DOMAIN))["links"] == "0 of 1"


async def test_no_secret_of_the_link_is_in_the_log(hass, site, cloud, caplog):
    await cloud.deliver(site.door)
    await cloud.unlock("rubbish-of-a-token")
    await cloud.publish("rubbish-of-a-set")
    await site.settle()
    secrets = ["driver-1", "rubbish", cloud.jti, str(cloud.text)]
    ours = [r.getMessage() for r in caplog.records if "vestibule" in r.name]
    assert not any(secret in line for line in ours for secret in secrets)
