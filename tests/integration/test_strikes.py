"""Entities as strikes: the suite that every driver passes, and what only Home Assistant does to a relay."""

from __future__ import annotations

import asyncio

import pytest
from homeassistant.auth.permissions.const import POLICY_CONTROL
from homeassistant.components.cover import CoverEntityFeature
from homeassistant.components.input_button import DOMAIN as INPUT_BUTTON
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component

from custom_components.vestibule import strikes
from custom_components.vestibule.building import Relay, RelayDomain, ReleasesWhen, Returns
from custom_components.vestibule.strikes import EntityStrike
from custom_components.vestibule.vestibule_core import errors
from custom_components.vestibule.vestibule_core.strike import Capabilities, Pulse, Reading
from tests.conformance import StrikeConformance, StrikeHarness
from tests.integration.site import RelayButton, RelayCover, RelayLock, RelaySwitch


def relay_of(hass: HomeAssistant, entity_id: str, **changes) -> Relay:
    registered = er.async_get(hass).async_get(entity_id)
    state = hass.states.get(entity_id)
    return Relay(
        **{
            "entity": registered.id if registered else entity_id,
            "domain": RelayDomain(entity_id.partition(".")[0]),
            "releases_when": ReleasesWhen.ON,
            "returns": Returns.BY_ITSELF,
            "reports": state is not None and strikes.reports(state),
        }
        | changes
    )


# ---- the suite of every strike --------------------------------------------------------------------------------------


class EntityHarness(StrikeHarness):
    """An entity with hands on it. It is *there* when it is on, unlocked or open."""

    errors = errors
    movements = 0

    def __init__(self, hass: HomeAssistant, entity: RelaySwitch | RelayLock | RelayCover, relay: Relay) -> None:
        self.entity = entity
        self.strike = EntityStrike(hass, relay)
        self._released = relay.releases_when is ReleasesWhen.ON
        self._is_there = not self._released
        self._release_command = {"lock": "unlock", "cover": "open"}.get(entity.domain, relay.releases_when)
        entity.moved = self._moved

    def _moved(self, there: bool) -> None:
        self.movements += there is self._released
        self._is_there = there

    def pulse(self, seconds: float = 60.0) -> Pulse:
        if self.strike.capabilities.device_timed and seconds < 1:
            self.entity.own_pulse = seconds
        return Pulse(bytes(16), seconds)

    @property
    def commands(self) -> int:
        return self.entity.told.count(self._release_command)

    @property
    def is_secured(self) -> bool:
        return self._is_there is not self._released

    async def make_unreachable(self) -> None:
        self.entity.lose()

    async def make_reachable(self) -> None:
        self.entity.find()

    async def refuse(self) -> None:
        self.entity.error = ServiceValidationError("no")

    async def hang(self) -> None:
        self.entity.hangs = True

    async def operate_by_someone_else(self, *, released: bool) -> None:
        self.entity.move(released is self._released)

    async def settle(self) -> None:
        await asyncio.sleep(0)


def assuming[T: (RelaySwitch, RelayLock, RelayCover)](entity: T) -> T:
    entity._attr_assumed_state = True
    return entity


async def harness_of(hass, entity, **changes) -> EntityHarness:
    await entity.install(hass)
    return EntityHarness(hass, entity, relay_of(hass, entity.entity_id, **changes))


class TestSwitchThatGoesBackByItself(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass, relay):
        return EntityHarness(hass, relay, relay_of(hass, relay.entity_id))


class TestSwitchThatVestibuleTimes(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass, relay):
        return EntityHarness(hass, relay, relay_of(hass, relay.entity_id, returns=Returns.BY_VESTIBULE))


class TestFailSafeSwitch(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        switch = RelaySwitch("magnet", is_on=True)
        return await harness_of(hass, switch, returns=Returns.BY_VESTIBULE, releases_when=ReleasesWhen.OFF)


class TestSwitchThatOnlyAssumesItsState(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, assuming(RelaySwitch("blind")), returns=Returns.BY_VESTIBULE)


class TestLockThatGoesBackByItself(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, RelayLock("bolt"))


class TestLockThatVestibuleTimes(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, RelayLock("bolt"), returns=Returns.BY_VESTIBULE)


class TestLockThatOnlyAssumesItsState(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, assuming(RelayLock("bolt")), returns=Returns.BY_VESTIBULE)


class TestGateThatClosesByItself(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, RelayCover("gate"))


class TestGateThatVestibuleTimes(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        return await harness_of(hass, RelayCover("gate"), returns=Returns.BY_VESTIBULE)


# ---- what only Home Assistant does ----------------------------------------------------------------------------------


@pytest.fixture
def strike(hass, relay):
    return EntityStrike(hass, relay_of(hass, relay.entity_id))


PULSE = Pulse(bytes(16), 5.0)


async def test_a_relay_that_is_back_before_the_call_returns_has_released(strike, relay):
    relay.own_pulse = 0
    await strike.release(PULSE)
    assert (strike.reading, relay.told) == (Reading.SECURED, ["on"])


async def test_a_second_release_while_released_is_confirmed_by_the_call(strike, relay):
    await strike.release(PULSE)
    await strike.release(PULSE)
    assert relay.told == ["on", "on"]


async def test_a_relay_that_reports_late_has_released(hass, strike, relay):
    relay.obeys = False
    hass.loop.call_later(0.05, relay.move, True)
    await strike.release(PULSE)
    assert strike.reading is Reading.RELEASED


async def test_a_relay_that_was_told_and_reports_nothing_may_have_moved(strike, relay, monkeypatch):
    """The call went through: it can be late, and is neither a success nor a refusal."""
    monkeypatch.setattr(strikes, "CONFIRMATION", 0.02)
    relay.obeys = False
    with pytest.raises(errors.OutcomeUnknown) as raised:
        await strike.release(PULSE)
    assert raised.value.may_have_succeeded
    assert relay.told == ["on"], "and is not told again"


async def test_a_relay_that_does_not_go_back_is_not_taken_for_secured(hass, relay, monkeypatch):
    monkeypatch.setattr(strikes, "CONFIRMATION", 0.02)
    strike = EntityStrike(hass, relay_of(hass, relay.entity_id, returns=Returns.BY_VESTIBULE))
    await strike.release(PULSE)
    relay.obeys = False
    with pytest.raises(errors.OutcomeUnknown):
        await strike.secure()


async def test_a_relay_that_is_renamed_is_followed(hass, strike, relay):
    heard = []
    unsubscribe = strike.subscribe(heard.append)
    er.async_get(hass).async_update_entity(relay.entity_id, new_entity_id="switch.strike")
    await hass.async_block_till_done()
    heard.clear()
    relay.move(True)
    await hass.async_block_till_done()
    assert heard == [Reading.RELEASED]
    await strike.release(PULSE)
    assert relay.told == ["on"]
    unsubscribe()


async def test_a_relay_that_is_deleted_is_unreachable_until_it_comes_back(hass, strike, relay, entity_registry):
    heard = []
    unsubscribe = strike.subscribe(heard.append)
    entity_registry.async_remove(relay.entity_id)
    await hass.async_block_till_done()
    assert strike.entity_id is None
    assert not strike.is_reachable
    assert heard[-1] is Reading.UNKNOWN
    for command in (strike.reach(), strike.release(PULSE), strike.secure()):
        with pytest.raises(errors.StrikeUnreachable):
            await command

    again = entity_registry.async_get_or_create("switch", "test", "relay_relay")
    hass.states.async_set(again.entity_id, "off")
    await hass.async_block_till_done()
    assert heard[-1] is Reading.SECURED
    await strike.reach()
    unsubscribe()


async def test_a_relay_whose_registration_changes_in_another_way_has_no_news(hass, strike, relay, entity_registry):
    heard = []
    unsubscribe = strike.subscribe(heard.append)
    entity_registry.async_update_entity(relay.entity_id, aliases=["strike plate"])
    entity_registry.async_get_or_create("switch", "test", "another")
    await hass.async_block_till_done()
    assert heard == []
    unsubscribe()


async def test_a_state_that_is_neither_on_nor_off_is_unknown(hass, strike, relay):
    hass.states.async_set(relay.entity_id, "unknown")
    assert strike.reading is Reading.UNKNOWN
    assert strike.is_reachable


async def test_a_service_that_is_gone_refuses(hass, strike, relay):
    hass.services.async_remove("switch", "turn_on")
    with pytest.raises(errors.StrikeRefused):
        await strike.release(PULSE)


async def test_a_device_that_does_not_answer_may_have_moved(strike, relay):
    relay.error = HomeAssistantError("timeout")
    with pytest.raises(errors.OutcomeUnknown) as raised:
        await strike.release(PULSE)
    assert raised.value.may_have_succeeded


@pytest.mark.parametrize(
    "make, reports, reading",
    [
        (RelaySwitch, True, Reading.RELEASED),
        (lambda name: assuming(RelaySwitch(name)), False, Reading.UNKNOWN),
        (lambda name: assuming(RelaySwitch(name)), True, Reading.UNKNOWN),  # it did not assume when the door was saved
        (RelaySwitch, False, Reading.UNKNOWN),  # it did
        (RelayButton, False, Reading.UNKNOWN),
        (RelayLock, True, Reading.RELEASED),
        (RelayCover, True, Reading.RELEASED),
        (lambda name: assuming(RelayCover(name)), True, Reading.UNKNOWN),
    ],
)
async def test_capabilities_are_fixed_though_the_relay_comes_late(hass, make, reports, reading):
    late = make("late")
    strike = EntityStrike(hass, relay_of(hass, f"{late.domain}.late", reports=reports))
    before = strike.capabilities
    assert (before.device_timed, before.feedback) == (True, reports)
    assert (strike.is_reachable, strike.reading) == (False, Reading.UNKNOWN)

    await late.install(hass)
    assert late.told == [], "it moves nothing when it comes"
    assert strike.capabilities == before
    await strike.release(PULSE)
    assert (strike.capabilities, strike.reading) == (before, reading)
    late.lose()
    assert (strike.capabilities, strike.reading) == (before, Reading.UNKNOWN)


@pytest.mark.parametrize(
    "domain, returns, can_secure, can_hold",
    [
        ("switch", Returns.BY_ITSELF, True, False),  # sooner than its timer would
        ("switch", Returns.BY_VESTIBULE, True, True),
        ("lock", Returns.BY_ITSELF, True, False),
        ("lock", Returns.BY_VESTIBULE, True, True),
        ("cover", Returns.BY_ITSELF, False, False),  # the manager did not agree that Vestibule closes it
        ("cover", Returns.BY_VESTIBULE, True, True),
        ("button", Returns.BY_ITSELF, False, False),
        ("input_button", Returns.BY_ITSELF, False, False),
    ],
)
async def test_what_a_relay_can_do_follows_from_its_kind_and_from_who_ends_a_release(
    hass, domain, returns, can_secure, can_hold
):
    strike = EntityStrike(hass, relay_of(hass, f"{domain}.strike", returns=returns, reports=False))
    assert strike.capabilities == Capabilities(
        device_timed=returns is Returns.BY_ITSELF, feedback=False, can_secure=can_secure, can_hold=can_hold
    )


@pytest.mark.parametrize("kind", ["button", "input_button"])
async def test_a_button_is_pressed_once_and_cannot_be_put_back(hass, kind):
    if kind == INPUT_BUTTON:
        assert await async_setup_component(hass, INPUT_BUTTON, {INPUT_BUTTON: {"gong": {}}})
        entity_id = "input_button.gong"
    else:
        button = RelayButton("gong")
        await button.install(hass)
        entity_id = button.entity_id
    strike = EntityStrike(hass, relay_of(hass, entity_id))
    await strike.reach()  # never pressed before: its state is unknown, which is no obstacle
    await strike.release(PULSE)
    pressed = hass.states.get(entity_id).state
    assert pressed != "unknown"
    assert strike.reading is Reading.UNKNOWN
    for command in (strike.secure(), strike.hold(None)):
        with pytest.raises(errors.StrikeRefused):
            await command
    assert hass.states.get(entity_id).state == pressed


@pytest.mark.parametrize("make", [RelaySwitch, RelayLock, RelayCover])
async def test_what_goes_back_by_itself_is_not_told_to_stay(hass, make):
    entity = make("strike")
    harness = await harness_of(hass, entity)
    with pytest.raises(errors.StrikeRefused):
        await harness.strike.hold(None)
    assert entity.told == []


async def test_an_entity_of_another_kind_is_out_of_reach(hass, relay):
    """Home Assistant would take a press of a switch for done."""
    strike = EntityStrike(hass, relay_of(hass, relay.entity_id, domain=RelayDomain.BUTTON))
    assert not strike.is_reachable
    for command in (strike.reach(), strike.release(PULSE)):
        with pytest.raises(errors.StrikeUnreachable):
            await command


# ---- in whose name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [RelaySwitch, RelayLock, RelayCover])
async def test_whoever_asked_is_shown_with_the_relay_and_nobody_with_what_follows(hass, make, hass_admin_user):
    entity = make("strike")
    strike = (await harness_of(hass, entity, returns=Returns.BY_VESTIBULE)).strike
    asked = Context(user_id=hass_admin_user.id)
    await strike.release(Pulse(bytes(16), 5.0, asked))
    await strike.secure()
    held = Context()  # by an automation
    await strike.hold(held)
    assert [entity.contexts[0], entity.contexts[2]] == [asked, held]
    assert entity.contexts[1].user_id is None


@pytest.mark.parametrize("command", ["release", "hold"])
async def test_who_may_not_switch_the_relay_is_let_in_without_a_name(hass, relay, command, hass_read_only_user):
    assert not hass_read_only_user.permissions.check_entity(relay.entity_id, POLICY_CONTROL)
    strike = EntityStrike(hass, relay_of(hass, relay.entity_id, returns=Returns.BY_VESTIBULE))
    asked = Context(user_id=hass_read_only_user.id)
    await (strike.hold(asked) if command == "hold" else strike.release(Pulse(bytes(16), 5.0, asked)))
    (context,) = relay.contexts
    assert (context.user_id, context.parent_id) == (None, asked.id)


# ---- locks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, reading",
    [
        ("locked", Reading.SECURED),
        ("unlocked", Reading.RELEASED),
        ("open", Reading.RELEASED),
        ("unlocking", Reading.RELEASED),
        ("locking", Reading.RELEASED),  # not yet
        ("opening", Reading.RELEASED),
        ("jammed", Reading.UNKNOWN),
        ("unknown", Reading.UNKNOWN),
        ("unavailable", Reading.UNKNOWN),
    ],
)
async def test_a_lock_is_secured_when_it_says_locked_and_at_no_other_time(hass, state, reading):
    hass.states.async_set("lock.bolt", state)
    assert EntityStrike(hass, relay_of(hass, "lock.bolt", reports=True)).reading is reading


@pytest.fixture
async def bolt(hass):
    """A lock that Vestibule times."""
    return await harness_of(hass, RelayLock("bolt"), returns=Returns.BY_VESTIBULE)


@pytest.mark.parametrize("confirming", ["unlocked", "open"])
async def test_a_lock_has_released_when_it_is_unlocked_not_when_it_begins_to_be(hass, bolt, monkeypatch, confirming):
    monkeypatch.setattr(strikes, "CONFIRMATION", 0.01)  # a lock is given longer
    bolt.entity.obeys = False
    hass.loop.call_later(0.01, hass.states.async_set, "lock.bolt", "unlocking")
    released = hass.async_create_task(bolt.strike.release(PULSE))
    await asyncio.sleep(0.05)
    assert hass.states.get("lock.bolt").state == "unlocking"
    assert not released.done()
    hass.states.async_set("lock.bolt", confirming)
    await released
    assert bolt.entity.told == ["unlock"]


@pytest.mark.parametrize("state", ["locking", "jammed", "unlocked"])
async def test_a_lock_that_does_not_lock_is_not_taken_for_locked(hass, bolt, monkeypatch, state):
    await bolt.strike.release(PULSE)
    monkeypatch.setattr(strikes, "MOTOR_CONFIRMATION", 0.05)
    bolt.entity.obeys = False
    hass.loop.call_later(0.01, hass.states.async_set, "lock.bolt", state)
    with pytest.raises(errors.OutcomeUnknown):
        await bolt.strike.secure()


async def test_a_lock_that_asks_for_a_code_which_nobody_has_refuses(bolt):
    bolt.entity._attr_code_format = r"^\d{6}$"
    with pytest.raises(errors.StrikeRefused):
        await bolt.strike.release(PULSE)
    assert bolt.entity.told == []


# ---- gates and garage doors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, reading",
    [
        ("closed", Reading.SECURED),
        ("opening", Reading.RELEASED),
        ("open", Reading.RELEASED),
        ("closing", Reading.RELEASED),  # not yet
        ("unknown", Reading.UNKNOWN),
        ("unavailable", Reading.UNKNOWN),
    ],
)
async def test_a_gate_is_secured_when_it_says_closed_and_at_no_other_time(hass, state, reading):
    hass.states.async_set("cover.gate", state)
    assert EntityStrike(hass, relay_of(hass, "cover.gate", reports=True)).reading is reading


async def test_a_gate_has_confirmed_when_it_moves_and_is_secured_when_it_is_there(hass):
    gate = RelayCover("gate", travel=60)
    strike = (await harness_of(hass, gate, returns=Returns.BY_VESTIBULE)).strike
    heard = []
    unsubscribe = strike.subscribe(heard.append)
    await strike.release(PULSE)
    assert hass.states.get("cover.gate").state == "opening"
    gate.arrive(True)
    await strike.secure()
    assert hass.states.get("cover.gate").state == "closing"
    assert strike.reading is Reading.RELEASED
    gate.arrive(False)
    assert strike.reading is Reading.SECURED
    await hass.async_block_till_done()
    assert heard == [Reading.RELEASED] * 3 + [Reading.SECURED]
    assert gate.told == ["open", "close"]
    unsubscribe()
    gate._arrival.cancel()


@pytest.mark.parametrize("command", ["release", "secure"])
async def test_a_gate_that_does_not_move_is_not_taken_for_moving(hass, monkeypatch, command):
    monkeypatch.setattr(strikes, "MOTOR_CONFIRMATION", 0.02)
    gate = RelayCover("gate")
    strike = (await harness_of(hass, gate, returns=Returns.BY_VESTIBULE)).strike
    if command == "secure":
        await strike.release(PULSE)
    gate.obeys = False
    with pytest.raises(errors.OutcomeUnknown):
        await (strike.release(PULSE) if command == "release" else strike.secure())


async def test_a_gate_that_closes_by_itself_is_never_closed_by_us(hass):
    gate = RelayCover("gate")
    strike = (await harness_of(hass, gate)).strike
    await strike.release(PULSE)
    with pytest.raises(errors.StrikeRefused):
        await strike.secure()
    assert gate.told == ["open"]


async def test_a_gate_that_can_no_longer_be_told_to_close_says_so(hass):
    gate = RelayCover("gate")
    strike = (await harness_of(hass, gate, returns=Returns.BY_VESTIBULE)).strike
    await strike.hold(None)
    gate._attr_supported_features = CoverEntityFeature.OPEN
    gate.async_write_ha_state()
    with pytest.raises(errors.StrikeRefused):
        await strike.secure()
    assert gate.told == ["open"]
