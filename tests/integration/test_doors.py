"""A door's mode, deliveries, lockdown, contact and problems in Home Assistant, and who may change them by hand."""

from __future__ import annotations

import asyncio
import os

import pytest
from homeassistant.components.homeassistant.exposed_entities import async_should_expose
from homeassistant.core import Context
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_capture_events

from custom_components.vestibule import strikes
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core import door as door_module
from custom_components.vestibule.vestibule_core import door_task
from custom_components.vestibule.vestibule_core.errors import StoreFailed
from custom_components.vestibule.vestibule_core.pin import Pin
from tests.integration.site import RelayButton, Site

CONTACT = "binary_sensor.contact"
REX = "binary_sensor.exit_button"
TAMPER = "binary_sensor.enclosure"


@pytest.fixture
def admin(hass_admin_user) -> Context:
    return Context(user_id=hass_admin_user.id)


@pytest.fixture
def resident(hass, hass_read_only_user) -> Context:
    """A user who may control every entity, as Home Assistant's own group of users may."""
    hass_read_only_user.mock_policy({"entities": True})
    return Context(user_id=hass_read_only_user.id)


@pytest.fixture
async def timed(site):
    """The front door on a relay that Vestibule times, and which can be held open therefore."""
    site.change("Front door", returns="by_vestibule", access_time=30.0)
    await site.hass.async_block_till_done()
    return site


@pytest.fixture
async def watched(hass, site):
    """The front door with a contact, an exit button and a tamper switch."""
    for entity in (CONTACT, REX, TAMPER):
        hass.states.async_set(entity, "off")
    site.change("Front door", contact=CONTACT, rex=REX, tamper=TAMPER, held_open_time=60.0, pre_alarm_time=15.0)
    await hass.async_block_till_done()
    return site


async def select(site, mode, context=None):
    target = {"entity_id": site.entity_id("select"), "option": mode}
    await site.hass.services.async_call("select", "select_option", target, blocking=True, context=context)
    await site.settle()


async def turn(site, what, on, context=None):
    entity = lockdown(site) if what == "lockdown" else site.entity_id("switch")
    service = "turn_on" if on else "turn_off"
    await site.hass.services.async_call("switch", service, {"entity_id": entity}, blocking=True, context=context)
    await site.settle()


def lockdown(site):
    building = site.entry.data["building"]
    return er.async_get(site.hass).async_get_entity_id("switch", DOMAIN, f"{building}_lockdown")


def state(site, kind, key=None):
    return site.hass.states.get(site.entity_id(kind, key=key))


async def sensed(site, entity, value):
    site.hass.states.async_set(entity, value)
    await site.settle()
    await asyncio.sleep(0)  # the door's own task
    await site.settle()


async def told(site, outcome):
    """Wait until this is told of."""
    async with asyncio.timeout(30):
        while outcome not in [outcome for outcome, _ in site.outcomes()]:  # noqa: ASYNC110 - as an eye would
            await asyncio.sleep(0.005)
    await site.settle()


# ---- the mode ----


async def test_a_relay_that_goes_back_by_itself_offers_no_holding_open(site):
    assert state(site, "select").attributes["options"] == ["normal", "blocked"]


async def test_a_relay_that_vestibule_times_can_hold_the_door_open(timed, relay, admin):
    assert state(timed, "select").attributes["options"] == ["normal", "unlocked", "blocked"]
    await select(timed, "unlocked", admin)
    assert relay.told == ["on"]
    assert timed.lock().state == "unlocked"
    assert state(timed, "select").state == "unlocked"
    assert timed.outcomes() == [("door_unlocked", "GRANTED")]
    await timed.hass.services.async_call("lock", "lock", {"entity_id": timed.entity_id("lock")}, blocking=True)
    await timed.settle()
    assert relay.told == ["on", "off"], "locking ends it"
    assert (timed.lock().state, state(timed, "select").state) == ("locked", "normal")


async def test_a_token_at_a_door_that_is_held_open_is_granted_without_a_pulse(timed, relay):
    await select(timed, "unlocked")
    answer = await timed.present(await timed.token())
    assert answer["word"] == "granted"
    assert relay.told == ["on"]
    assert timed.access().attributes["event_type"] == "door_already_unlocked"


async def test_a_mode_that_the_strike_cannot_do_is_refused(site, admin):
    with pytest.raises(HomeAssistantError):
        await select(site, "unlocked", admin)
    assert state(site, "select").state == "normal"


async def test_a_hold_that_fails_is_not_shown_as_held(timed, relay):
    relay.error = HomeAssistantError("no")
    with pytest.raises(HomeAssistantError):
        await select(timed, "unlocked")
    relay.error = None
    assert state(timed, "select").state == "normal"
    assert timed.lock().state != "unlocked"


async def test_a_blocked_door_lets_nobody_in(site, relay, admin):
    token = await site.token()
    await select(site, "blocked", admin)
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("refused", "DOOR_UNAVAILABLE"), "why is not told outside"
    assert site.access().attributes["code"] == "DOOR_BLOCKED", "and is told inside"
    with pytest.raises(ServiceValidationError) as raised:
        await site.unlock(context=admin)
    assert raised.value.translation_key == "door_blocked"
    assert relay.told == []
    await select(site, "normal", admin)
    assert (await site.present(token))["word"] == "granted"


async def test_a_blocked_door_stays_blocked_over_a_restart(hass, site, relay, admin):
    await select(site, "blocked", admin)
    await turn(site, "deliveries", False, admin)
    await hass.config_entries.async_reload(site.entry.entry_id)
    await hass.async_block_till_done()
    assert (state(site, "select").state, state(site, "switch").state) == ("blocked", "off")
    assert relay.told == []


# ---- deliveries and lockdown ----


async def test_a_door_that_takes_no_deliveries_still_opens_by_hand(site, relay):
    token = await site.token()
    await turn(site, "deliveries", False)
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("refused", "DELIVERIES_OFF")
    await site.unlock()
    assert relay.told == ["on"]
    await turn(site, "deliveries", True)
    assert site.outcomes()[-1] == ("deliveries_on", "GRANTED")


async def test_a_lockdown_shuts_every_door_and_survives_a_restart(hass, site, relay, admin):
    token = await site.token()
    await turn(site, "lockdown", True)
    assert (state(site, "select").state, hass.states.get(lockdown(site)).state) == ("locked_down", "on")
    assert "locked_down" in state(site, "select").attributes["options"]
    answer = await site.present(token)
    assert answer["code"] == "DOOR_UNAVAILABLE"
    with pytest.raises(ServiceValidationError) as raised:
        await site.unlock(context=admin)
    assert raised.value.translation_key == "locked_down"
    with pytest.raises(ServiceValidationError):
        await select(site, "normal", admin)
    await hass.config_entries.async_reload(site.entry.entry_id)
    await hass.async_block_till_done()
    assert hass.states.get(lockdown(site)).state == "on"
    assert relay.told == []
    await turn(site, "lockdown", False, admin)
    assert state(site, "select").state == "normal"
    await site.unlock(context=admin)
    assert relay.told == ["on"]


async def test_a_lockdown_ends_a_release_and_a_hold(timed, relay):
    await timed.unlock()
    await turn(timed, "lockdown", True)
    await timed.until("locked")
    assert relay.told == ["on", "off"]
    await turn(timed, "lockdown", False)
    await select(timed, "unlocked")
    await turn(timed, "lockdown", True)
    await timed.until("locked")
    await turn(timed, "lockdown", False)
    assert state(timed, "select").state == "normal", "a door that was held open is not after a lockdown"
    assert relay.told == ["on", "off"] * 2


async def test_a_lockdown_that_cannot_be_written_holds_and_says_so(hass, site, relay, monkeypatch):
    async def fails(*_, **__):
        raise StoreFailed("disk full")

    monkeypatch.setattr(site.embedded._journal, "append", fails)
    with pytest.raises(HomeAssistantError) as raised:
        await turn(site, "lockdown", True)
    assert raised.value.translation_key == "store_failed"
    monkeypatch.undo()
    assert hass.states.get(lockdown(site)).state == "on"
    with pytest.raises(ServiceValidationError):
        await site.unlock()
    assert relay.told == []


# ---- by whose hand ----

WEAKEN = [
    ("unlock", lambda site, context: site.unlock(context=context)),
    ("hold open", lambda site, context: select(site, "unlocked", context)),
    ("unblock", lambda site, context: select(site, "normal", context)),
    ("take deliveries", lambda site, context: turn(site, "deliveries", True, context)),
    ("lift the lockdown", lambda site, context: turn(site, "lockdown", False, context)),
]
BEFORE = {
    "unblock": lambda site: select(site, "blocked"),
    "take deliveries": lambda site: turn(site, "deliveries", False),
    "lift the lockdown": lambda site: turn(site, "lockdown", True),
}
OPENS = {"unlock", "hold open"}


async def weaken(site, name, do, context):
    """Return how weakening the door went: None, or the key of the refusal."""
    await BEFORE.get(name, lambda _: asyncio.sleep(0))(site)
    try:
        await do(site, context)
    except ServiceValidationError as refused:
        return refused.translation_key
    return None


@pytest.mark.parametrize("name, do", WEAKEN, ids=[name for name, _ in WEAKEN])
@pytest.mark.parametrize("rule", ["everyone", "administrators", "nobody"])
async def test_the_manual_rule_covers_every_way_to_weaken_a_door(timed, relay, admin, resident, rule, name, do):
    timed.change("Front door", manual=rule)
    await timed.hass.async_block_till_done()
    expected = {
        "everyone": (None, None, None),
        "administrators": ("manual_not_allowed", None, None),
        # Nobody opens; what was shut, administrators (and what they have automated) still take back.
        "nobody": ("manual_not_allowed",) + (("manual_not_allowed",) * 2 if name in OPENS else (None, None)),
    }[rule]
    got = tuple([await weaken(timed, name, do, who) for who in (resident, None, admin)])
    assert got == expected
    if rule == "nobody" and name in OPENS:
        assert relay.told == []


async def test_making_a_door_safer_is_anybodys(timed, resident):
    timed.change("Front door", manual="nobody")
    await timed.hass.async_block_till_done()
    await select(timed, "blocked", resident)
    await turn(timed, "deliveries", False, resident)
    await turn(timed, "lockdown", True, resident)
    assert [outcome for outcome, _ in timed.outcomes()] == ["door_blocked", "deliveries_off", "lockdown_on"]


async def test_what_is_done_by_hand_is_recorded_with_who_or_what_did_it(timed, admin):
    await select(timed, "blocked", admin)
    await select(timed, "normal")
    assert [event.data["means"] for event in timed.events] == ["manual", "automation"]
    assert timed.events[0].context.user_id == admin.user_id


@pytest.fixture
async def with_pin(timed):
    salt = os.urandom(16)
    digest = Pin.of("4711", salt).digest
    timed.change("Front door", pin={"salt": salt.hex(), "digest": digest.hex()})
    await timed.hass.async_block_till_done()
    return timed


async def unlock_with(site, code, context=None):
    data = {"entity_id": site.entity_id("lock")} | ({"code": code} if code else {})
    await site.hass.services.async_call("lock", "unlock", data, blocking=True, context=context)
    await site.settle()


async def test_a_pin_is_asked_of_everybody_at_the_lock(with_pin, relay, admin, resident):
    assert with_pin.lock().attributes["code_format"] == r"^\d{4,8}$"
    for context in (admin, resident, None):
        with pytest.raises(ServiceValidationError):
            await unlock_with(with_pin, None, context)
        with pytest.raises(ServiceValidationError) as raised:
            await unlock_with(with_pin, "4712", context)
        assert raised.value.translation_key == "pin_wrong"
    assert relay.told == []
    await unlock_with(with_pin, "4711", resident)
    assert relay.told == ["on"]


async def test_who_has_to_know_the_pin_cannot_go_round_it(with_pin, relay, resident, admin):
    for name, do in WEAKEN[1:]:
        assert await weaken(with_pin, name, do, resident) == "pin_missing", name
        await do(with_pin, admin)
        await select(with_pin, "normal", admin)


async def test_wrong_pins_run_out(with_pin, resident):
    for _ in range(5):
        with pytest.raises(ServiceValidationError):
            await unlock_with(with_pin, "0000", resident)
    with pytest.raises(ServiceValidationError) as raised:
        await unlock_with(with_pin, "4711", resident)
    assert raised.value.translation_key == "pin_locked"


async def test_no_control_of_a_door_is_exposed_to_voice_assistants_unasked(hass, site):
    """They call without a user, as an automation does."""
    assert await async_setup_component(hass, "homeassistant", {})
    for entity in er.async_entries_for_config_entry(er.async_get(hass), site.entry.entry_id):
        if entity.domain in {"lock", "select", "switch"}:
            assert not async_should_expose(hass, "conversation", entity.entity_id), entity.entity_id


async def test_the_release_is_shown_with_who_asked_for_it_and_not_with_who_asks_meanwhile(
    hass, timed, relay, admin, resident, monkeypatch
):
    monkeypatch.setattr(strikes, "CONFIRMATION", 30.0)
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 40.0)
    states = async_capture_events(hass, "state_changed")
    relay.obeys = False  # answers late
    unlocking = asyncio.create_task(timed.unlock(context=resident))
    await timed.until("unlocking")
    holding = asyncio.create_task(select(timed, "unlocked", admin))
    while ("door_unlocked", "GRANTED") not in timed.outcomes():  # noqa: ASYNC110 - nothing may be settled yet
        await asyncio.sleep(0.005)
    relay.move(True)
    await unlocking
    relay.obeys = True
    await holding
    lock = timed.entity_id("lock")
    shown = [(e.data["new_state"].state, e.context.user_id) for e in states if e.data["entity_id"] == lock]
    assert shown[:2] == [("unlocking", resident.user_id), ("unlocked", resident.user_id)]


# ---- what watches the door ----


async def test_entities_come_and_go_with_what_watches_the_door(hass, watched):
    assert state(watched, "binary_sensor", "contact").state == "off"
    assert state(watched, "binary_sensor", "contact").attributes["device_class"] == "door"
    watched.change("Front door", contact=None)
    await hass.async_block_till_done()
    registry = er.async_get(hass)
    assert registry.async_get_entity_id("binary_sensor", DOMAIN, f"{watched.door}_contact") is None
    watched.change("Front door", rex=None, tamper=None)
    await hass.async_block_till_done()
    assert registry.async_get_entity_id("binary_sensor", DOMAIN, f"{watched.door}_problem") is None, (
        "nothing could tell"
    )
    watched.change("Front door", contact=CONTACT)
    await hass.async_block_till_done()
    assert state(watched, "binary_sensor", "contact").state == "off"


async def test_another_contact_that_stands_open_is_found_open_and_not_forced(hass, watched):
    hass.states.async_set("binary_sensor.other_contact", "on")
    watched.change("Front door", contact="binary_sensor.other_contact")
    await hass.async_block_till_done()
    await watched.settle()
    assert state(watched, "binary_sensor", "contact").state == "on"
    assert watched.events == []
    assert state(watched, "binary_sensor", "problem").state == "off"


async def test_setting_a_door_up_anew_adds_no_listeners(hass, watched):
    doorway = watched.embedded.doors[watched.door]
    before = len(doorway._state_listeners), sum(hass.bus.async_listeners().values())
    for seconds in range(10, 20):
        watched.change("Front door", access_time=float(seconds))
        await hass.async_block_till_done()
    assert (len(doorway._state_listeners), sum(hass.bus.async_listeners().values())) == before


async def test_diagnostics_are_disabled_until_somebody_wants_them(hass, watched):
    registry = er.async_get(hass)
    for entity in er.async_entries_for_config_entry(registry, watched.entry.entry_id):
        wanted = not (entity.domain == "sensor" or entity.unique_id.endswith(("_tamper", "_lock_monitor", "_rex")))
        assert (entity.disabled_by is None) is wanted, entity.entity_id


async def test_an_access_is_taken_when_the_door_opens(watched):
    await watched.present(await watched.token())
    await sensed(watched, CONTACT, "on")
    await sensed(watched, CONTACT, "off")
    assert [outcome for outcome, _ in watched.outcomes()] == [
        "access_granted",
        "door_released",
        "access_taken",
        "door_closed",
    ]
    assert watched.events[2].data["carrier"] == "Parcel Express"
    assert state(watched, "binary_sensor", "contact").state == "off"


async def test_a_door_that_opens_without_access_or_request_is_forced(watched):
    await sensed(watched, CONTACT, "on")
    assert watched.outcomes() == [("door_forced_open", None)]
    problem = state(watched, "binary_sensor", "problem")
    assert (problem.state, problem.attributes["reasons"]) == ("on", ["door_forced_open"])
    await sensed(watched, CONTACT, "off")
    assert state(watched, "binary_sensor", "problem").state == "off"


async def test_a_request_to_exit_explains_an_opening(watched):
    await sensed(watched, REX, "on")
    await sensed(watched, CONTACT, "on")
    assert watched.outcomes() == [("door_opened", None)]
    assert state(watched, "binary_sensor", "problem").state == "off"


async def test_a_door_that_stays_open_is_warned_of_and_then_held_open(watched, monkeypatch):
    watched.change("Front door", held_open_time=0.1, pre_alarm_time=0.05)
    await watched.hass.async_block_till_done()
    await sensed(watched, REX, "on")
    await sensed(watched, CONTACT, "on")
    await told(watched, "door_held_open")
    assert [outcome for outcome, _ in watched.outcomes()][1:] == ["door_held_open_warning", "door_held_open"]
    assert state(watched, "binary_sensor", "problem").attributes["reasons"] == ["door_held_open"]


async def test_a_tampered_door_takes_no_token_until_somebody_has_looked(hass, watched, relay):
    await sensed(watched, TAMPER, "on")
    await sensed(watched, TAMPER, "off")
    answer = await watched.present(await watched.token())
    assert answer["code"] == "DOOR_UNAVAILABLE"
    assert state(watched, "binary_sensor", "problem").attributes["reasons"] == ["tampered"]
    await hass.config_entries.async_reload(watched.entry.entry_id)
    await hass.async_block_till_done()
    assert state(watched, "binary_sensor", "problem").attributes["reasons"] == ["tampered"], "also after a restart"
    assert relay.told == []


async def test_a_sensor_that_is_out_of_reach_is_a_fault_and_not_a_closed_door(watched):
    await sensed(watched, CONTACT, "unavailable")
    assert state(watched, "binary_sensor", "contact").state == "unavailable"
    assert state(watched, "binary_sensor", "problem").attributes["reasons"] == ["contact_fault"]
    assert watched.events == []


async def test_a_sensor_that_has_not_spoken_since_the_start_is_unknown(hass, watched):
    await sensed(watched, CONTACT, "unknown")
    assert state(watched, "binary_sensor", "contact").state == "unknown"
    assert state(watched, "binary_sensor", "problem").state == "off"


async def test_the_bolts_own_word_counts_for_the_lock(hass, site, relay):
    hass.states.async_set("binary_sensor.bolt", "on")
    site.change("Front door", lock_monitor="binary_sensor.bolt")
    await hass.async_block_till_done()
    assert site.lock().state == "unlocked", "the relay is off, and the bolt is not home"
    await sensed(site, "binary_sensor.bolt", "off")
    assert site.lock().state == "locked"


async def test_a_relay_that_somebody_else_switches_is_told_of(watched, relay):
    relay.move(True)
    await told(watched, "relay_operated_elsewhere")
    assert watched.outcomes() == [("relay_operated_elsewhere", None)]
    assert watched.access().attributes["means"] is None


async def test_relock_on_open_ends_the_access_when_the_door_opens(timed, relay):
    timed.hass.states.async_set(CONTACT, "off")
    timed.change("Front door", contact=CONTACT, relock="open")
    await timed.hass.async_block_till_done()
    await timed.present(await timed.token())
    assert relay.told == ["on"]
    await sensed(timed, CONTACT, "on")
    await timed.until("locked")
    assert relay.told == ["on", "off"]


async def test_a_door_that_nobody_opens_is_not_taken(hass, watched, relay, monkeypatch):
    monkeypatch.setattr(door_module, "GRACE", 0.01)
    watched.change("Front door", access_time=0.05)
    relay.own_pulse = 0.03
    await hass.async_block_till_done()
    await watched.present(await watched.token())
    await told(watched, "access_not_taken")
    assert [outcome for outcome, _ in watched.outcomes()] == [
        "access_granted",
        "door_released",
        "door_relocked",
        "access_not_taken",
    ]


# ---- hours ----


async def test_hours_are_kept_in_home_assistants_time_zone_and_follow_it(hass, site, freezer):
    freezer.move_to("2026-06-15T10:30:00+00:00")  # a Monday
    await hass.config.async_update(time_zone="Europe/Berlin")  # 12:30
    row = {"days": ["mon"], "from": "12:00:00", "to": "13:00:00"}
    site.change("Front door", hours=[row])
    await hass.async_block_till_done()
    now = int(dt_util.utcnow().timestamp())
    at = {"issued_at": now, "expires_at": now + 60, "requested_at": now - 4}
    assert (await site.present(await site.token(**at)))["word"] == "granted"
    await hass.config.async_update(time_zone="Europe/London")  # 11:30
    await hass.async_block_till_done()
    answer = await site.present(await site.token(**at))
    assert (answer["word"], answer["code"]) == ("refused", "POLICY_HOURS")


async def test_a_carrier_that_comes_too_often_is_refused(site):
    site.change("Parcel Express", rate=1)
    await site.hass.async_block_till_done()
    first, second = await site.token(), await site.token()
    assert (await site.present(first))["word"] == "granted"
    assert (await site.present(second))["code"] == "POLICY_RATE"


async def test_a_button_relay_can_only_be_blocked(hass, cloud):
    relay = RelayButton("strike")
    await relay.install(hass)
    site = Site(hass, cloud)
    site.add_door("Gate", relay.entity_id, relay_domain="button")
    await site.load()
    assert state(site, "select").attributes["options"] == ["normal", "blocked"]
