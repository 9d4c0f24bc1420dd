"""Activity on a door's page: one line per event, in history and live, saying who and why (docs/adr/0006)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from homeassistant.components.automation.const import DOMAIN as AUTOMATION
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from hypothesis import given
from hypothesis import strategies as st
from pytest_homeassistant_custom_component.common import mock_component
from pytest_homeassistant_custom_component.components.recorder.common import async_wait_recording_done

from custom_components.vestibule import logbook
from custom_components.vestibule.const import EVENT_ACCESS
from custom_components.vestibule.vestibule_core import telling
from custom_components.vestibule.vestibule_core.model import Code, EventName, Means
from tests.integration.site import Cloud, RelaySwitch, Site


@pytest.fixture(autouse=True)
def our_integration(recorder_mock: Any, enable_custom_integrations: None) -> None:
    """Load this project's integration, beside a recorder, which has to be there before Home Assistant is."""


@pytest.fixture
async def site(hass: HomeAssistant, relay: RelaySwitch, cloud: Cloud) -> AsyncGenerator[Site]:
    """A loaded building with Activity."""
    mock_component(hass, "frontend")
    assert await async_setup_component(hass, "logbook", {})
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    site.add_carrier("Swift Parcels", cloud)
    await site.load()
    yield site
    await site.settle()


def an_hour() -> dict[str, Any]:
    return {"start_time": (dt_util.utcnow() - timedelta(hours=1)).isoformat()}


class Page:
    """A door's page in the browser: what it asks Home Assistant for, and what it gets."""

    def __init__(self, site: Site, client: Any) -> None:
        self._site = site
        self._client = client
        self.live: list[dict[str, Any]] = []

    @property
    def _entities(self) -> list[str]:
        registry = er.async_get(self._site.hass)
        return [
            entity.entity_id
            for entity in er.async_entries_for_device(registry, self._site.device().id, include_disabled_entities=True)
        ]

    async def open(self) -> None:
        """Begin to follow what happens."""
        await self._client.send_json_auto_id({"type": "logbook/event_stream", **an_hour(), **self._about_the_door()})
        answer = await self._client.receive_json()
        assert answer["success"]
        while (await self._client.receive_json())["event"].get("partial"):  # history, until it goes live
            pass

    async def history(self) -> list[dict[str, Any]]:
        """Return what the door's page shows of the past."""
        return await self._ask(self._about_the_door())

    async def history_without_entities(self) -> list[dict[str, Any]]:
        """Return what is shown of the door's device alone."""
        return await self._ask({"device_ids": [self._site.device().id]})

    async def sentences(self) -> list[str]:
        """Return our own lines in Activity as a whole."""
        lines = await self._ask({})
        return [f"{line['name']} {line['message']}" for line in lines if line.get("domain") == "vestibule"]

    def _about_the_door(self) -> dict[str, Any]:
        return {"device_ids": [self._site.device().id], "entity_ids": self._entities}

    async def _ask(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        await async_wait_recording_done(self._site.hass)
        await self._client.send_json_auto_id({"type": "logbook/get_events", **an_hour(), **about})
        while (answer := await self._client.receive_json())["type"] == "event":
            self.live += answer["event"]["events"]
        return answer["result"]

    async def came(self, lines: int) -> list[dict[str, Any]]:
        """Return what was shown live: so many lines about the door's events."""
        async with asyncio.timeout(30):
            while len(self.about_events(self.live)) < lines:
                self.live += (await self._client.receive_json())["event"]["events"]
        return self.about_events(self.live)

    def about_events(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave the lines out that other entities of the door have: its lock, its mode."""
        others = {*self._entities} - {self._site.entity_id("event")}
        return [line for line in lines if line.get("entity_id") not in others]


@pytest.fixture
async def page(site: Site, hass_ws_client: Any) -> Page:
    """The door's page, opened."""
    page = Page(site, await hass_ws_client())
    await page.open()
    return page


def shown(line: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what the page says of a line: what happened, and the cause that is named if no user is."""
    return line["attributes"]["event_type"], line.get("context_name")


async def as_shown(page: Page, lines: int) -> list[tuple[str, str | None]]:
    """Return what is shown live, and later the same from history."""
    live = [shown(line) for line in await page.came(lines)]
    past = [shown(line) for line in page.about_events(await page.history())]
    assert past[-lines:] == live
    return live


async def test_a_delivery_is_one_line_for_each_event_and_names_the_carrier(site, page):
    await site.present(await site.token())
    assert await as_shown(page, 2) == [("access_granted", "Swift Parcels"), ("door_released", "Swift Parcels")]


async def test_a_refusal_is_one_line_and_says_who_and_why(site, page):
    await site.present(await site.token(distance=400))
    assert await as_shown(page, 1) == [("access_denied", "Swift Parcels (its confirmations are outside the limits)")]


async def test_the_lines_of_two_carriers_in_the_same_moment_are_not_mixed_up(hass, site, page):
    other = Cloud("https://other.example")
    site.add_carrier("Other Post", other)
    await hass.async_block_till_done()
    tokens = [await site.token(), await site.token(cloud=other, distance=400), await site.token()]
    await asyncio.gather(*(site.present(token) for token in tokens))
    lines = await as_shown(page, 5)
    assert sorted(lines) == [
        ("access_denied", "Other Post (its confirmations are outside the limits)"),
        ("access_granted", "Swift Parcels"),
        ("access_granted", "Swift Parcels"),
        ("door_released", "Swift Parcels"),
        ("door_released", "Swift Parcels"),
    ]


async def test_a_failed_relay_is_named(site, page, relay):
    token = await site.token()
    relay.lose()
    await site.present(token)
    assert await as_shown(page, 1) == [("access_denied", "Swift Parcels (the relay was not available)")]


async def test_the_locks_lines_name_the_carrier_too(site, page, relay):
    relay.own_pulse = 0.05
    await site.present(await site.token())
    await site.until("locked")
    lines = [line for line in await page.history() if line.get("entity_id") == site.entity_id("lock")]
    assert [(line["state"], line.get("context_name")) for line in lines[-3:]] == [
        ("unlocking", "Swift Parcels"),
        ("unlocked", "Swift Parcels"),
        ("locked", None),
    ]


async def test_a_token_that_a_user_hands_in_is_its_carriers_delivery_and_not_the_users(
    hass, site, page, relay, hass_admin_user
):
    """Home Assistant would name the user of a line's context, or of its parent, before anything else."""
    relay.own_pulse = 0.05
    carried = Context(user_id=hass_admin_user.id)
    await site.present(await site.token(), carried)
    await site.until("locked")
    assert await as_shown(page, 2) == [("access_granted", "Swift Parcels"), ("door_released", "Swift Parcels")]
    lines = await page.history()
    assert not [line for line in (*lines, *page.live) if line.get("context_user_id")]
    of_lock = [line.get("context_name") for line in lines if line.get("entity_id") == site.entity_id("lock")]
    assert of_lock[-3:] == ["Swift Parcels", "Swift Parcels", None]
    told = [event.context for event in site.events[:2]]
    assert {(context.user_id, context.parent_id) for context in told} == {(hass_admin_user.id, carried.id)}


async def test_a_person_is_named_by_home_assistant(hass, site, page, hass_admin_user):
    await site.unlock(context=Context(user_id=hass_admin_user.id))
    live = await page.came(2)
    past = page.about_events(await page.history())[-2:]
    for lines in (live, past):
        assert [line["attributes"]["event_type"] for line in lines] == ["access_granted", "door_released"]
        assert {line["context_user_id"] for line in lines} == {hass_admin_user.id}


async def test_an_automation_is_named_by_home_assistant(hass, site, page):
    assert await async_setup_component(hass, AUTOMATION, {AUTOMATION: {
        "alias": "Morning round",
        "trigger": {"platform": "event", "event_type": "morning"},
        "action": {"service": "lock.unlock", "target": {"entity_id": site.entity_id("lock")}},
    }})  # fmt: skip
    await hass.async_block_till_done()
    hass.bus.async_fire("morning")
    await hass.async_block_till_done()
    await site.settle()
    assert await as_shown(page, 2) == [("access_granted", "Morning round"), ("door_released", "Morning round")]


async def test_what_merely_happens_has_one_line_and_no_cause(hass, site, page, relay):
    relay.move(True)  # by somebody else
    await site.settle()
    assert await as_shown(page, 1) == [("relay_operated_elsewhere", None)]


async def test_a_door_that_is_asked_about_without_its_entities_shows_no_second_line(site, page):
    await site.present(await site.token())
    assert await page.history_without_entities() == []


async def test_activity_as_a_whole_tells_it_in_whole_sentences(hass, site, page, hass_admin_user):
    await site.present(await site.token(distance=400))
    by_hand = Context(user_id=hass_admin_user.id)
    blocked = {"entity_id": site.entity_id("select"), "option": "blocked"}
    await hass.services.async_call("select", "select_option", blocked, blocking=True, context=by_hand)
    with pytest.raises(ServiceValidationError):
        await site.unlock(context=by_hand)
    assert await page.sentences() == [
        "Swift Parcels (its confirmations are outside the limits) was denied access at Front door",
        "Front door was blocked by hand",
        "Front door denied access by hand: the door is blocked",
    ]


async def test_refusals_that_are_only_counted_are_one_line_of_the_building(hass, site, page, monkeypatch):
    monkeypatch.setattr(telling, "SUMMARY_AFTER", 0.05)
    granted = await site.token()
    await site.present(granted)
    for text in ("no token", granted, granted[:-20] + "A" * 20, granted[:-40] + "A" * 40):
        await site.present(text)
    async with asyncio.timeout(30):
        while site.events[-1].data["outcome"] != "refusals_counted":  # noqa: ASYNC110 - a minute, made short
            await asyncio.sleep(0.01)
    assert await page.sentences() == [
        "Swift Parcels was granted access at Front door",
        "Swift Parcels had Front door released",
        "The building refused and only counted 4 requests, most often: a wrong signature",
    ]
    assert [event.data.get("count", "absent") for event in site.events] == ["absent", "absent", 4]
    data = site.events[-1].data
    assert (data["door"], data["device"], data["means"], data["code"]) == (None, None, None, "BAD_SIGNATURE")
    assert "count" not in site.access().attributes


async def test_a_door_goes_by_its_present_name_and_a_removed_one_by_none(hass, site, page, device_registry):
    await site.present(await site.token(distance=400))
    device_registry.async_update_device(site.device().id, name_by_user="Main entrance")
    assert [line.split(") ")[1] for line in await page.sentences()] == ["was denied access at Main entrance"]
    site.remove("Front door")
    await hass.async_block_till_done()
    assert [line.split(") ")[1] for line in await page.sentences()] == ["was denied access at a door"]


# ---- the words ----


def test_there_are_words_for_every_event_and_every_code():
    assert logbook.AT_DOOR.keys() == set(EventName)
    assert logbook.WHY.keys() == set(Code) - {Code.GRANTED}
    assert logbook.HOW.keys() == set(Means)
    assert logbook.BY_CARRIER.keys() < set(EventName)
    assert set(EventName) > logbook.DONE


def test_every_event_makes_a_sentence():
    for outcome, means, carrier in product(EventName, [*Means, None], ["Swift Parcels", None]):
        name, message = logbook.words({"outcome": outcome, "means": means, "carrier": carrier, "code": None}, "Gate")
        sentence = f"{name} {message}"
        assert "Gate" in sentence, sentence
        assert not any(blunder in sentence for blunder in ("None", "{", "unknown kind", "  ")), sentence
        if carrier and outcome in logbook.BY_CARRIER:
            assert name == carrier


def test_what_follows_of_itself_is_not_said_to_be_done_by_hand():
    assert logbook.words({"outcome": "door_relocked", "means": "manual"}, "Gate") == ("Gate", "locked again")
    assert logbook.words({"outcome": "door_blocked", "means": "manual"}, "Gate") == ("Gate", "was blocked by hand")
    assert logbook.words({"outcome": "lockdown_on", "means": "automation"}, None) == (
        "The building",
        "was locked down by an automation",
    )


@pytest.mark.parametrize(
    "data, said",
    [
        ({"count": 1, "code": "MALFORMED"}, "refused and only counted 1 request: no token"),
        ({"count": 17, "code": "LATE"}, "refused and only counted 17 requests, most often: it took too long"),
        ({"count": 17, "code": "POLICY_MOON"}, "refused and only counted 17 requests"),
        ({"code": "LATE"}, "refused and only counted requests, most often: it took too long"),
        ({"count": "seventeen"}, "refused and only counted requests"),
    ],
)
def test_what_is_only_counted_is_said_with_its_number_and_the_most_frequent_reason(data, said):
    assert logbook.words({"outcome": "refusals_counted"} | data, None) == ("The building", said)


@pytest.mark.parametrize(
    "data, said",
    [
        ({"outcome": "strike_slot_added", "slot": 2}, "had a controller paired with its strike (slot 2)"),
        ({"outcome": "strike_slot_deleted", "slot": "two"}, "had a controller deleted from its strike"),
        ({"outcome": "strike_authentication_failed", "count": 1}, "had its strike tried without a valid key once"),
        ({"outcome": "strike_authentication_failed", "count": 3}, "had its strike tried without a valid key 3 times"),
        (
            {"outcome": "strike_authentication_failed", "count": 255},
            "had its strike tried without a valid key 255 times or more",
        ),
        ({"outcome": "strike_authentication_failed"}, "had its strike tried without a valid key"),
    ],
)
def test_what_was_done_to_a_strike_is_said_with_its_slot_or_how_often(data, said):
    assert logbook.words(data, "Gate") == ("Gate", said)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
ROWS = st.dictionaries(
    st.sampled_from(["outcome", "code", "carrier", "means", "device", "door", "sequence", "count", "slot"]) | st.text(),
    ANYTHING | st.sampled_from([*EventName, *Code, *Means]),
)


@given(rows=st.lists(ROWS, max_size=20))
def test_a_row_of_any_age_or_version_is_described_and_raises_nothing(rows):
    for row in rows:
        name, message = logbook.words(row, None)
        assert type(name) is type(message) is str
        assert name
        assert message


async def test_an_old_or_foreign_row_does_not_break_activity(hass, site, page, caplog):
    for row in (
        {},
        {"outcome": "teleported", "device": ["x"], "carrier": {"a": 1}},
        {"outcome": None, "device": None},
        {"outcome": "access_denied", "code": "POLICY_MOON", "device": "gone", "carrier": "Swift Parcels"},
    ):
        hass.bus.async_fire(EVENT_ACCESS, row)
    assert await page.sentences() == [
        "The building had an event of an unknown kind",
        "The building had an event of an unknown kind",
        "The building had an event of an unknown kind",
        "Swift Parcels was denied access at a door",
    ]
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
