"""Entities as strikes: the suite that every driver passes, and what only Home Assistant does to a relay."""

from __future__ import annotations

import asyncio

import pytest
from homeassistant.components.input_button import DOMAIN as INPUT_BUTTON
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component

from custom_components.vestibule import strikes
from custom_components.vestibule.building import Relay, ReleasesWhen, Returns
from custom_components.vestibule.strikes import EntityStrike
from custom_components.vestibule.vestibule_core import errors
from custom_components.vestibule.vestibule_core.strike import Capabilities, Pulse, Reading
from tests.conformance import StrikeConformance, StrikeHarness
from tests.integration.site import RelayButton, RelaySwitch


def relay_of(hass: HomeAssistant, entity_id: str, **changes) -> Relay:
    registered = er.async_get(hass).async_get(entity_id)
    state = hass.states.get(entity_id)
    return Relay(
        **{
            "entity": registered.id if registered else entity_id,
            "releases_when": ReleasesWhen.ON,
            "returns": Returns.BY_ITSELF,
            "reports": state is not None and strikes.reports(state),
        }
        | changes
    )


# ---- the suite of every strike --------------------------------------------------------------------------------------


class SwitchHarness(StrikeHarness):
    """A switch entity with hands on it."""

    errors = errors

    def __init__(self, hass: HomeAssistant, switch: RelaySwitch, relay: Relay) -> None:
        self.hass, self.switch = hass, switch
        self.strike = EntityStrike(hass, relay)
        self._releases = "on" if relay.releases_when is ReleasesWhen.ON else "off"
        self._released = relay.releases_when is ReleasesWhen.ON
        self.movements = 0
        switch.moved = self._count

    movements = 0

    def _count(self, is_on: bool) -> None:
        self.movements += is_on is self._released

    def pulse(self, seconds: float = 60.0) -> Pulse:
        if self.strike.capabilities.device_timed and seconds < 1:
            self.switch.own_pulse = seconds
        return Pulse(bytes(16), seconds)

    @property
    def commands(self) -> int:
        return self.switch.told.count(self._releases)

    @property
    def is_secured(self) -> bool:
        return self.switch.is_on is not self._released

    async def make_unreachable(self) -> None:
        self.switch.lose()

    async def make_reachable(self) -> None:
        self.switch.find()

    async def refuse(self) -> None:
        self.switch.error = ServiceValidationError("no")

    async def hang(self) -> None:
        self.switch.hangs = True

    async def operate_by_someone_else(self, *, released: bool) -> None:
        self.switch.move(released is self._released)

    async def settle(self) -> None:
        await asyncio.sleep(0)


class TestSwitchThatGoesBackByItself(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass, relay):
        return SwitchHarness(hass, relay, relay_of(hass, relay.entity_id))


class TestSwitchThatVestibuleTimes(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass, relay):
        return SwitchHarness(hass, relay, relay_of(hass, relay.entity_id, returns=Returns.BY_VESTIBULE))


class TestFailSafeSwitch(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        switch = RelaySwitch("magnet", is_on=True)
        await switch.install(hass)
        relay = relay_of(hass, switch.entity_id, returns=Returns.BY_VESTIBULE, releases_when=ReleasesWhen.OFF)
        return SwitchHarness(hass, switch, relay)


class TestSwitchThatOnlyAssumesItsState(StrikeConformance):
    @pytest.fixture
    async def harness(self, hass):
        switch = assuming_switch("blind")
        await switch.install(hass)
        return SwitchHarness(hass, switch, relay_of(hass, switch.entity_id, returns=Returns.BY_VESTIBULE))


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


def assuming_switch(name: str) -> RelaySwitch:
    switch = RelaySwitch(name)
    switch._attr_assumed_state = True
    return switch


@pytest.mark.parametrize(
    "make, reports, reading",
    [
        (RelaySwitch, True, Reading.RELEASED),
        (assuming_switch, False, Reading.UNKNOWN),
        (assuming_switch, True, Reading.UNKNOWN),  # it did not assume when the door was saved
        (RelaySwitch, False, Reading.UNKNOWN),  # it did
        (RelayButton, False, Reading.UNKNOWN),
    ],
)
async def test_capabilities_are_fixed_though_the_relay_comes_late(hass, make, reports, reading):
    late = make("late")
    strike = EntityStrike(hass, relay_of(hass, f"{late.domain}.late", reports=reports))
    before = strike.capabilities
    assert before == Capabilities(device_timed=True, feedback=reports)
    assert (strike.is_reachable, strike.reading) == (False, Reading.UNKNOWN)

    await late.install(hass)
    assert strike.capabilities == before
    await strike.release(PULSE)
    assert (strike.capabilities, strike.reading) == (before, reading)
    late.lose()
    assert (strike.capabilities, strike.reading) == (before, Reading.UNKNOWN)


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
    assert strike.capabilities == Capabilities(device_timed=True, feedback=False)
    await strike.reach()  # never pressed before: its state is unknown, which is no obstacle
    await strike.release(PULSE)
    assert hass.states.get(entity_id).state != "unknown"
    assert strike.reading is Reading.UNKNOWN
    with pytest.raises(errors.StrikeRefused):
        await strike.secure()
