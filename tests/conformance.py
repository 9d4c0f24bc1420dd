"""One suite for every strike: what a controller relies on, whoever drives the bolt.

To run it over a driver, subclass it in a test module and give it a harness::

    class RelayHarness(StrikeHarness):
        errors = vestibule_core.errors        # the module by the name that the driver imports it by

        def __init__(self): self.strike = ...
        def pulse(self, seconds=60.0): return Pulse(bytes(16), seconds)
        ...

    class TestRelay(StrikeConformance):
        @pytest.fixture
        async def harness(self):
            yield RelayHarness()

Subclass it once more for each set of capabilities (with and without feedback, device-timed or not). A verb that the
hardware cannot be put through calls ``pytest.skip`` with the reason. This file imports nothing of the core: in one
process the core can have two import names, and a driver's errors are only the harness's to know.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from types import ModuleType
from typing import Any

import pytest


class StrikeHarness(ABC):
    """A driver with its hardware, real or simulated, and the hands that do things to it."""

    strike: Any
    """The driver under test, reachable, secured and obedient."""
    errors: ModuleType
    """``vestibule_core.errors`` under the import name that the driver uses."""
    patience = 0.2
    """Seconds after which a caller gives up on a command that hangs."""

    @abstractmethod
    def pulse(self, seconds: float = 60.0) -> Any:
        """A ``Pulse`` of the driver's import name."""

    @property
    @abstractmethod
    def commands(self) -> int:
        """How many release commands the hardware got, carried out or not."""

    @property
    @abstractmethod
    def movements(self) -> int:
        """How often the hardware moved to released."""

    @property
    @abstractmethod
    def is_secured(self) -> bool:
        """Whether the bolt is secured, as an eye at the door sees it."""

    @abstractmethod
    async def make_unreachable(self) -> None:
        """Cut the power or the link."""

    @abstractmethod
    async def make_reachable(self) -> None:
        """Give it back."""

    @abstractmethod
    async def refuse(self) -> None:
        """Make the hardware answer no to the next commands."""

    @abstractmethod
    async def hang(self) -> None:
        """Make the hardware leave the next commands without an answer."""

    @abstractmethod
    async def operate_by_someone_else(self, *, released: bool) -> None:
        """Move the bolt without the driver."""

    async def settle(self) -> None:
        """Wait until what the hardware has reported has arrived."""
        await asyncio.sleep(0)

    async def until_secured(self) -> None:
        """Wait until the device's own timer has put the bolt back."""
        async with asyncio.timeout(5):
            while not self.is_secured:  # noqa: ASYNC110 - hardware has no asyncio.Event
                await asyncio.sleep(0.005)


class StrikeConformance:
    """Every driver passes all of it; see the module for how to subclass it."""

    @pytest.fixture
    def harness(self) -> StrikeHarness:
        raise NotImplementedError("a subclass gives the harness")

    # ---- reading ----

    async def test_the_reading_is_unknown_without_feedback_and_true_with_it(self, harness):
        if harness.strike.capabilities.feedback:
            assert harness.strike.reading == "secured"
        else:
            assert harness.strike.reading == "unknown"

    async def test_an_unreachable_strike_never_reads_secured(self, harness):
        await harness.make_unreachable()
        await harness.settle()
        assert harness.strike.reading == "unknown"

    async def test_readings_follow_the_hardware_and_reach_the_listener(self, harness):
        if not harness.strike.capabilities.feedback:
            pytest.skip("this strike has no feedback")
        heard = []
        unsubscribe = harness.strike.subscribe(heard.append)
        await harness.operate_by_someone_else(released=True)
        await harness.settle()
        assert harness.strike.reading == "released"
        assert heard[-1] == "released"
        await harness.operate_by_someone_else(released=False)
        await harness.settle()
        assert harness.strike.reading == "secured"
        assert heard[-1] == "secured"
        unsubscribe()

    async def test_a_strike_without_feedback_never_claims_a_position(self, harness):
        if harness.strike.capabilities.feedback:
            pytest.skip("this strike has feedback")
        heard = []
        unsubscribe = harness.strike.subscribe(heard.append)
        await harness.strike.release(harness.pulse())
        await harness.settle()
        assert harness.strike.reading == "unknown"
        assert set(heard) <= {"unknown"}
        unsubscribe()

    async def test_an_unsubscribed_listener_hears_nothing_more(self, harness):
        heard, others = [], []
        unsubscribe = harness.strike.subscribe(heard.append)
        stop_others = harness.strike.subscribe(others.append)
        unsubscribe()
        unsubscribe()  # a second time is nothing
        await harness.strike.release(harness.pulse())
        await harness.settle()
        assert heard == []
        if harness.strike.capabilities.feedback:
            assert others, "another listener still hears"
        stop_others()

    async def test_capabilities_are_fixed_for_life(self, harness):
        before = harness.strike.capabilities
        await harness.strike.release(harness.pulse())
        await harness.make_unreachable()
        await harness.settle()
        assert harness.strike.capabilities == before

    # ---- reach ----

    async def test_reach_moves_nothing(self, harness):
        await harness.strike.reach()
        assert (harness.commands, harness.movements) == (0, 0)
        assert harness.is_secured

    async def test_reach_of_an_unreachable_strike_says_so_and_moves_nothing(self, harness):
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable) as raised:
            await harness.strike.reach()
        assert raised.value.temporary
        assert not raised.value.may_have_succeeded
        assert (harness.commands, harness.movements) == (0, 0)

    async def test_reach_works_again_when_the_strike_is_back(self, harness):
        await harness.make_unreachable()
        await harness.settle()
        await harness.make_reachable()
        await harness.settle()
        await harness.strike.reach()
        assert harness.movements == 0

    # ---- release ----

    async def test_release_moves_exactly_once(self, harness):
        await harness.strike.reach()
        await harness.strike.release(harness.pulse())
        await harness.settle()
        assert (harness.commands, harness.movements) == (1, 1)
        assert not harness.is_secured
        if harness.strike.capabilities.feedback:
            assert harness.strike.reading == "released"

    async def test_release_of_an_unreachable_strike_says_so_and_moves_nothing(self, harness):
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable):
            await harness.strike.release(harness.pulse())
        assert harness.movements == 0

    async def test_a_release_that_failed_is_not_made_up_for_later(self, harness):
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable):
            await harness.strike.release(harness.pulse())
        await harness.make_reachable()
        await harness.settle()
        await harness.strike.reach()
        await harness.settle()
        assert harness.movements == 0

    async def test_a_refused_release_says_that_nothing_moved(self, harness):
        await harness.refuse()
        with pytest.raises(harness.errors.StrikeRefused) as raised:
            await harness.strike.release(harness.pulse())
        assert not raised.value.may_have_succeeded
        assert (harness.commands, harness.movements) == (1, 0), "asked once, and never again"

    async def test_a_release_without_an_answer_may_have_happened_and_is_never_sent_twice(self, harness):
        await harness.hang()
        error = await _error_of(harness, harness.strike.release(harness.pulse()))
        assert isinstance(error, TimeoutError) or error.may_have_succeeded
        await harness.settle()
        assert harness.commands == 1
        assert harness.movements <= 1

    async def test_a_device_timed_strike_goes_back_by_itself(self, harness):
        if not harness.strike.capabilities.device_timed:
            pytest.skip("the controller times this strike")
        await harness.strike.release(harness.pulse(0.02))
        await harness.until_secured()
        await harness.settle()
        if harness.strike.capabilities.feedback:
            assert harness.strike.reading == "secured"
        assert harness.commands == 1

    async def test_a_controller_timed_strike_stays_until_it_is_put_back(self, harness):
        if harness.strike.capabilities.device_timed:
            pytest.skip("the device times itself")
        await harness.strike.release(harness.pulse(0.01))
        await asyncio.sleep(0.05)  # nothing to wait for: nothing may happen
        assert not harness.is_secured
        await harness.strike.secure()
        assert harness.is_secured

    # ---- hold ----

    async def test_a_hold_lasts_until_it_is_put_back(self, harness):
        _needs_hold(harness)
        await harness.strike.reach()
        await harness.strike.hold(None)
        await harness.settle()
        await asyncio.sleep(0.05)  # nothing to wait for: nothing may happen
        assert not harness.is_secured
        assert harness.movements <= 1
        if harness.strike.capabilities.feedback:
            assert harness.strike.reading == "released"
        await harness.strike.secure()
        await harness.settle()
        assert harness.is_secured

    async def test_a_hold_outlasts_an_access_that_was_running(self, harness):
        _needs_hold(harness)
        await harness.strike.release(harness.pulse(0.02))
        await harness.strike.hold(None)
        await asyncio.sleep(0.05)
        assert not harness.is_secured

    async def test_hold_of_an_unreachable_strike_says_so_and_moves_nothing(self, harness):
        _needs_hold(harness)
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable):
            await harness.strike.hold(None)
        assert harness.movements == 0

    async def test_a_refused_hold_says_that_nothing_moved(self, harness):
        _needs_hold(harness)
        await harness.refuse()
        with pytest.raises(harness.errors.StrikeRefused):
            await harness.strike.hold(None)
        assert harness.movements == 0

    async def test_a_hold_without_an_answer_is_not_taken_for_done(self, harness):
        _needs_hold(harness)
        await harness.hang()
        error = await _error_of(harness, harness.strike.hold(None))
        assert isinstance(error, TimeoutError) or error.may_have_succeeded
        assert harness.movements <= 1

    async def test_only_what_goes_back_on_command_stays_released(self, harness):
        can = harness.strike.capabilities
        assert can.can_secure or not can.can_hold, "nothing would end a hold"
        assert can.can_secure or can.device_timed, "nothing would end an access"

    # ---- secure ----

    async def test_secure_puts_it_back_and_may_be_repeated(self, harness):
        _needs_secure(harness)
        await harness.strike.release(harness.pulse())
        await harness.strike.secure()
        await harness.strike.secure()
        await harness.settle()
        assert harness.is_secured
        assert harness.movements == 1
        if harness.strike.capabilities.feedback:
            assert harness.strike.reading == "secured"

    async def test_secure_of_a_secured_strike_never_releases_it(self, harness):
        _needs_secure(harness)
        await harness.strike.secure()
        await harness.settle()
        assert harness.is_secured
        assert (harness.commands, harness.movements) == (0, 0)

    async def test_secure_of_an_unreachable_strike_says_so(self, harness):
        _needs_secure(harness)
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable):
            await harness.strike.secure()

    async def test_a_refused_secure_says_so(self, harness):
        _needs_secure(harness)
        await harness.refuse()
        with pytest.raises(harness.errors.StrikeRefused):
            await harness.strike.secure()

    async def test_a_secure_without_an_answer_is_not_taken_for_done(self, harness):
        _needs_secure(harness)
        await harness.hang()
        error = await _error_of(harness, harness.strike.secure())
        assert isinstance(error, TimeoutError) or error.may_have_succeeded

    async def test_it_can_be_used_again_after_each_of_its_failures(self, harness):
        await harness.make_unreachable()
        with pytest.raises(harness.errors.StrikeUnreachable):
            await harness.strike.reach()
        await harness.make_reachable()
        await harness.settle()
        await harness.strike.release(harness.pulse())
        await harness.settle()
        assert harness.movements == 1


def _needs_hold(harness: StrikeHarness) -> None:
    if not harness.strike.capabilities.can_hold:
        pytest.skip("this strike does not stay released")


def _needs_secure(harness: StrikeHarness) -> None:
    if not harness.strike.capabilities.can_secure:
        pytest.skip("this strike cannot be told to go back")


async def _error_of(harness: StrikeHarness, command: Awaitable[None]) -> Any:
    """Return what a command that gets no answer ends in; it must not end well."""
    try:
        async with asyncio.timeout(harness.patience):
            await command
    except (TimeoutError, harness.errors.VestibuleError) as error:
        return error
    pytest.fail("a command without an answer was taken for done")
