"""The door as a lock: momentary, honest, and attributed to whoever opened it."""

from __future__ import annotations

import pytest
from homeassistant.core import Context, Event, callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import entity_registry as er

from custom_components.vestibule import strikes
from custom_components.vestibule.vestibule_core import door_task
from custom_components.vestibule.vestibule_core.errors import StoreFailed
from custom_components.vestibule.vestibule_core.model import Actor
from tests.integration.site import RelayButton


@pytest.fixture
def states(hass, site) -> list:
    """Every state that the lock takes, with its context."""
    taken = []

    @callback
    def take(event: Event) -> None:
        if event.data["entity_id"] == site.entity_id("lock"):
            taken.append(event.data["new_state"])

    hass.bus.async_listen("state_changed", take)
    return taken


async def test_unlocking_releases_for_a_moment_and_locks_by_itself(hass, site, relay, states, hass_admin_user):
    site.change("Front door", access_time=0.05)
    relay.own_pulse = 0.05
    person = Context(user_id=hass_admin_user.id)

    await site.unlock(context=person)
    await site.until("locked")
    await site.settle()

    assert [state.state for state in states] == ["unlocking", "unlocked", "locked"]
    assert [state.context == person for state in states] == [True, True, False]
    assert states[-1].context.user_id is None, "locking by itself is nobody's act"
    assert site.lock().attributes["changed_by"] == hass_admin_user.name
    assert relay.told == ["on"]
    assert relay.contexts == [person]
    assert [(e.data["means"], e.data["carrier"], e.data["stop"]) for e in site.events] == [("manual", None, False)] * 3
    assert site.outcomes() == [(what, "GRANTED") for what in ("access_granted", "door_released", "door_relocked")]
    assert [event.context == person for event in site.events] == [True, True, False]


async def test_an_automation_opens_without_a_name(hass, site):
    await site.unlock()
    assert site.lock().state == "unlocked"
    assert site.lock().attributes.get("changed_by") is None


async def test_somebody_who_was_deleted_counts_as_nobody(hass, site):
    with pytest.raises(HomeAssistantError):  # Home Assistant's own check of the user
        await site.unlock(context=Context(user_id="gone"))
    assert site.events == []


async def test_a_person_who_may_use_the_lock_but_not_its_relay_can_open(hass, site, relay, hass_read_only_user):
    lock = site.entity_id("lock")
    hass_read_only_user.mock_policy({"entities": {"entity_ids": {lock: True}}})
    person = Context(user_id=hass_read_only_user.id)
    await site.unlock(context=person)
    assert relay.told == ["on"]
    assert (relay.contexts[0].user_id, relay.contexts[0].parent_id) == (None, person.id)
    assert site.lock().context == person


async def test_lock_does_nothing_while_locked_and_says_that_it_waits_while_released(hass, site, relay):
    lock = {"entity_id": site.entity_id("lock")}
    await hass.services.async_call("lock", "lock", lock, blocking=True)
    await site.unlock()
    with pytest.raises(ServiceValidationError) as raised:
        await hass.services.async_call("lock", "lock", lock, blocking=True)
    assert raised.value.translation_key == "locks_by_itself"
    assert relay.told == ["on"]


async def test_lock_says_so_if_something_else_has_released_the_door(hass, site, relay):
    relay.move(True)
    await site.until("unlocked")
    with pytest.raises(ServiceValidationError) as raised:
        await hass.services.async_call("lock", "lock", {"entity_id": site.entity_id("lock")}, blocking=True)
    assert raised.value.translation_key == "released_elsewhere"
    assert raised.value.translation_placeholders == {"door": "Front door"}
    assert relay.told == []


async def unlock_fails(site, key: str) -> None:
    with pytest.raises(HomeAssistantError) as raised:
        await site.unlock()
    assert raised.value.translation_key == key
    assert raised.value.translation_placeholders == {"door": "Front door"}


async def test_a_relay_that_is_lost_makes_the_lock_unavailable(hass, site, relay):
    relay.lose()
    await hass.async_block_till_done()
    assert site.lock().state == "unavailable"
    assert site.access().state != "unavailable", "the first access after an outage must not be lost"
    relay.find()
    await hass.async_block_till_done()
    assert site.lock().state == "locked"


async def test_an_automation_that_holds_on_to_an_unavailable_lock_opens_nothing(hass, site, relay):
    relay.lose()
    doorway = site.embedded.doors[site.door]
    decision = await doorway.open_by_hand(Actor(None, None, is_admin=False), None)
    assert decision.code == "STRIKE_UNREACHABLE"


async def test_a_relay_that_does_not_move_is_not_taken_for_open(hass, site, relay, states, monkeypatch):
    monkeypatch.setattr(strikes, "CONFIRMATION", 0.02)
    relay.obeys = False
    await unlock_fails(site, "unlock_outcome_unknown")
    assert [state.state for state in states] == ["unlocking", "unknown"]
    assert site.outcomes() == [("access_granted", "GRANTED"), ("outcome_unknown", "OUTCOME_UNKNOWN")]
    assert relay.told == ["on"], "told once, and never again"


async def test_a_relay_that_turns_the_command_away_did_not_move(hass, site, relay):
    relay.error = ServiceValidationError("no")
    await unlock_fails(site, "unlock_strike_refused")
    assert site.lock().state == "locked"


@pytest.mark.parametrize("error", [HomeAssistantError("no answer"), TimeoutError(), RuntimeError("a driver's bug")])
async def test_a_relay_that_fails_in_the_middle_may_have_opened(hass, site, relay, error, caplog):
    relay.error = error
    await unlock_fails(site, "unlock_outcome_unknown")
    assert site.lock().state == "unknown"
    assert site.outcomes()[-1] == ("outcome_unknown", "OUTCOME_UNKNOWN")
    assert relay.told == ["on"], "told once, and never again"
    relay.error = None
    await site.unlock()
    assert site.lock().state == "unlocked"


async def test_a_relay_that_hangs_is_given_up_and_may_have_opened(hass, site, relay, monkeypatch):
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.02)
    relay.hangs = True
    await unlock_fails(site, "unlock_outcome_unknown")
    relay.hangs = False


async def test_too_many_at_one_door_are_turned_away(hass, site, monkeypatch):
    monkeypatch.setattr(door_task, "QUEUE", 0)
    await unlock_fails(site, "unlock_too_many")


async def test_a_request_that_waited_too_long_opens_nothing(hass, site, relay, monkeypatch):
    monkeypatch.setattr(door_task, "LATE_AFTER", -1)
    await unlock_fails(site, "unlock_late")
    assert relay.told == []


async def test_a_full_disk_keeps_people_out_but_not_an_administrator(hass, site, relay, hass_admin_user, monkeypatch):
    async def full(*_, **__):
        raise StoreFailed("disk full")

    monkeypatch.setattr(site.embedded._journal, "append", full)
    await unlock_fails(site, "store_failed")
    assert relay.told == []

    await site.unlock(context=Context(user_id=hass_admin_user.id))
    assert relay.told == ["on"]
    assert site.events[-1].data["sequence"] is None


async def test_a_full_disk_keeps_every_token_out(hass, site, relay, monkeypatch):
    async def full(*_, **__):
        raise StoreFailed("disk full")

    token = await site.token()
    monkeypatch.setattr(site.embedded._journal, "spend", full)
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("unavailable", "STORE_FAILED")
    assert relay.told == []


async def test_a_stopped_controller_opens_nothing(hass, site, relay):
    await site.embedded.stop()
    await unlock_fails(site, "unlock_stopped")
    assert relay.told == []


async def test_a_relay_moved_by_somebody_else_shows_on_the_lock(hass, site, relay, states):
    relay.move(True)
    await site.until("unlocked")
    relay.move(False)
    await site.until("locked")
    assert [state.context.user_id for state in states] == [None, None]


async def test_a_button_cannot_report_so_its_lock_is_assumed(hass, site):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id, access_time=0.05)
    await hass.async_block_till_done()
    assert site.lock(gate).state == "unknown", "nobody knows yet"
    assert site.lock(gate).attributes["assumed_state"] is True
    assert "assumed_state" not in site.lock().attributes

    await site.unlock(gate)
    assert button.told == ["press"]
    await site.until("locked", gate)


async def test_a_fail_safe_lock_releases_when_its_output_is_off(hass, site, relay):
    relay.move(True)
    site.change("Front door", releases_when="off", returns="by_vestibule", access_time=1.0)
    await site.until("locked")
    await site.unlock()
    assert site.lock().state == "unlocked"
    assert relay.is_on is False
    await site.until("locked")
    assert relay.told == ["off", "on"]


async def test_a_relay_that_vestibule_times_is_put_back_in_nobodys_name(hass, site, relay, states, hass_admin_user):
    site.change("Front door", returns="by_vestibule", access_time=0.05)
    await site.unlock(context=Context(user_id=hass_admin_user.id))
    await site.until("locked")
    assert relay.told == ["on", "off"]
    assert relay.contexts[1].user_id is None
    assert states[-1].context.user_id is None


async def test_a_door_that_cannot_be_put_back_is_tried_until_it_is(hass, site, relay, monkeypatch):
    monkeypatch.setattr("custom_components.vestibule.vestibule_core.door.SECURE_AGAIN", 0.02)
    site.change("Front door", returns="by_vestibule", access_time=1.0)
    await site.unlock()
    relay.error = HomeAssistantError("no answer")
    await site.until("unknown")
    assert relay.told.count("off") >= 1
    relay.error = None
    await site.until("locked")
    assert relay.is_on is False


async def test_the_lock_keeps_working_under_another_entity_id(hass, site, relay):
    er.async_get(hass).async_update_entity(site.entity_id("lock"), new_entity_id="lock.renamed")
    er.async_get(hass).async_update_entity(site.entity_id("event"), new_entity_id="event.renamed")
    await hass.async_block_till_done()
    await site.unlock()
    assert hass.states.get("lock.renamed").state == "unlocked"
    assert hass.states.get("event.renamed").attributes["event_type"] == "door_released"
