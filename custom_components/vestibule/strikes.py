"""Strikes that only Home Assistant can reach: an entity as the relay that drives a door's lock.

A service call that returns has not moved anything yet: one aimed at an unavailable entity succeeds silently. So the
entity is looked at before the call, and a switch has to report its new state after it. What this file refuses to do:
call anything at start, or call a release twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from homeassistant.auth.permissions.const import POLICY_CONTROL
from homeassistant.components.button.const import DOMAIN as BUTTON
from homeassistant.components.button.const import SERVICE_PRESS
from homeassistant.components.input_button import DOMAIN as INPUT_BUTTON
from homeassistant.components.switch.const import DOMAIN as SWITCH
from homeassistant.const import (
    ATTR_ASSUMED_STATE,
    ATTR_ENTITY_ID,
    SERVICE_TURN_OFF,
    SERVICE_TURN_ON,
    STATE_OFF,
    STATE_ON,
    STATE_UNAVAILABLE,
)
from homeassistant.core import Context, Event, EventStateChangedData, HomeAssistant, State, callback, split_entity_id
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.event import async_track_state_change_event

from .building import Relay, ReleasesWhen, Returns
from .vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from .vestibule_core.strike import Capabilities, Pulse, Reading

RELAY_DOMAINS: Final = (SWITCH, BUTTON, INPUT_BUTTON)

CONFIRMATION: Final = 2.0
"""Seconds in which a switch must report the state that it was told to take."""


def reports(state: State) -> bool:
    """Return whether a relay's states come from the hardware: a switch that does not merely assume them."""
    return state.domain == SWITCH and not state.attributes.get(ATTR_ASSUMED_STATE)


class EntityStrike:
    """A switch, button or input button as a door's strike. Implements the core's ``Strike``."""

    def __init__(self, hass: HomeAssistant, relay: Relay) -> None:
        """Take the relay as the manager set it up; it need not exist yet."""
        self.relay = relay
        self._hass = hass
        opens_on = relay.releases_when is ReleasesWhen.ON
        self._released, self._secured = (STATE_ON, STATE_OFF) if opens_on else (STATE_OFF, STATE_ON)
        self.capabilities: Final = Capabilities(device_timed=relay.returns is Returns.BY_ITSELF, feedback=relay.reports)

    @property
    def entity_id(self) -> str | None:
        """The relay's entity id of this moment; None if it is registered no more."""
        return er.async_resolve_entity_id(er.async_get(self._hass), self.relay.entity)

    @property
    def is_reachable(self) -> bool:
        """Whether the relay would hear a command."""
        return _is_there(self._state)

    @property
    def reading(self) -> Reading:
        """What the relay last reported."""
        state = self._state
        if state is None or not self._reports(state):
            return Reading.UNKNOWN
        return {self._secured: Reading.SECURED, self._released: Reading.RELEASED}.get(state.state, Reading.UNKNOWN)

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` whenever the relay's state changes, also after it was renamed."""
        watched: str | None = None
        unwatch: Callable[[], None] = _nothing

        @callback
        def changed(_: Event[EventStateChangedData]) -> None:
            listener(self.reading)

        @callback
        def watch() -> None:
            nonlocal watched, unwatch
            unwatch()
            watched = self.entity_id
            unwatch = async_track_state_change_event(self._hass, watched, changed) if watched else _nothing

        @callback
        def registered(_: Event[er.EventEntityRegistryUpdatedData]) -> None:
            if self.entity_id != watched:
                watch()
                listener(self.reading)

        watch()
        unregister: Callable[[], None] = self._hass.bus.async_listen(er.EVENT_ENTITY_REGISTRY_UPDATED, registered)

        @callback
        def unsubscribe() -> None:
            nonlocal unregister, unwatch
            unregister()
            unwatch()
            unregister = unwatch = _nothing

        return unsubscribe

    async def reach(self) -> None:
        """Make sure that the relay is there; raise StrikeUnreachable."""
        self._reached()

    async def release(self, pulse: Pulse) -> None:
        """Release once. Raises StrikeUnreachable, StrikeRefused or OutcomeUnknown."""
        entity_id = self._reached().entity_id
        context = await self._context_for(entity_id, pulse.origin)
        if split_entity_id(entity_id)[0] != SWITCH:
            await self._call(entity_id, SERVICE_PRESS, context)
        elif not await self._switch(self._released, context):
            # The call went through and may still be on its way: no refusal. The door ends it if nobody else does.
            raise OutcomeUnknown(f"{entity_id} did not report that it released")

    async def secure(self) -> None:
        """Put a switch back that does not go back by itself. Raises as ``release`` does."""
        if not await self._switch(self._secured, None):
            raise OutcomeUnknown(f"{self.entity_id} did not report that it is back")

    @property
    def _state(self) -> State | None:
        entity_id = self.entity_id
        return self._hass.states.get(entity_id) if entity_id else None

    def _reports(self, state: State) -> bool:
        return self.capabilities.feedback and reports(state)  # a switch can begin to assume after it was set up

    def _reached(self) -> State:
        state = self._state
        if state is None or not _is_there(state):
            raise StrikeUnreachable(f"{self.entity_id or 'the relay'} is not available")
        return state

    async def _context_for(self, entity_id: str, origin: object) -> Context | None:
        """Return in whose name the relay is called: whoever asked for the access, so that Activity shows them.

        A person who may use the door, or present a token, need not be allowed to switch its relay. Then only the
        connection is kept: Home Assistant would refuse the call in their name.
        """
        if not isinstance(origin, Context):
            return None
        if origin.user_id is None:
            return origin
        user = await self._hass.auth.async_get_user(origin.user_id)
        if user is not None and user.permissions.check_entity(entity_id, POLICY_CONTROL):
            return origin
        return Context(parent_id=origin.id)

    async def _switch(self, wanted: str, context: Context | None) -> bool:
        """Turn the switch; return whether it is, or was for a moment, in the wanted state."""
        before = self._reached()
        reported = asyncio.Event()
        if before.state == wanted or not self._reports(before):
            reported.set()  # nothing more will be told than that the call went through

        @callback
        def changed(event: Event[EventStateChangedData]) -> None:
            if (state := event.data["new_state"]) is not None and state.state == wanted:
                reported.set()

        # Listening begins before the call: a relay with a short pulse of its own is back before the call returns.
        stop = async_track_state_change_event(self._hass, before.entity_id, changed)
        try:
            await self._call(before.entity_id, SERVICE_TURN_ON if wanted == STATE_ON else SERVICE_TURN_OFF, context)
            try:
                async with asyncio.timeout(CONFIRMATION):
                    await reported.wait()
            except TimeoutError:
                return False
        finally:
            stop()
        return True

    async def _call(self, entity_id: str, service: str, context: Context | None) -> None:
        with _home_assistants_errors(entity_id):
            await self._hass.services.async_call(
                split_entity_id(entity_id)[0], service, {ATTR_ENTITY_ID: entity_id}, blocking=True, context=context
            )


@contextmanager
def _home_assistants_errors(entity_id: str) -> Iterator[None]:
    """Translate what a service call raises; the only place that knows Home Assistant's exceptions of a relay."""
    try:
        yield
    except ServiceValidationError as err:  # turned away before anything was sent
        raise StrikeRefused(f"{entity_id} refused the command") from err
    except HomeAssistantError as err:  # a device that did not answer may have heard all the same
        raise OutcomeUnknown(f"{entity_id} failed to answer") from err


def _is_there(state: State | None) -> bool:
    # "unknown" is there: a button that was never pressed, a switch that cannot tell.
    return state is not None and state.state != STATE_UNAVAILABLE


def _nothing() -> None:
    """Undo nothing."""
