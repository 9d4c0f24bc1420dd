"""Strikes that only Home Assistant can reach: an entity as the relay that drives a door's lock (by radio: ble.py).

What each kind of relay is told and what its states mean is a row of a table. A service call that returns has not moved
anything yet: one aimed at an unavailable entity succeeds silently. So the entity is looked at before the call, and a
relay with states has to report after it that it does what it was told. What this file refuses to do: call anything at
start, or call a release twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from homeassistant.auth.permissions.const import POLICY_CONTROL
from homeassistant.components.button.const import SERVICE_PRESS
from homeassistant.components.cover.const import CoverState
from homeassistant.components.lock.const import LockState
from homeassistant.const import (
    ATTR_ASSUMED_STATE,
    ATTR_ENTITY_ID,
    SERVICE_CLOSE_COVER,
    SERVICE_LOCK,
    SERVICE_OPEN_COVER,
    SERVICE_TURN_OFF,
    SERVICE_TURN_ON,
    SERVICE_UNLOCK,
    STATE_OFF,
    STATE_ON,
    STATE_UNAVAILABLE,
)
from homeassistant.core import Context, Event, EventStateChangedData, HomeAssistant, State, callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers.event import async_track_state_change_event

from .building import RadioStrike, Relay, RelayDomain, ReleasesWhen, Returns
from .registered import follow, resolve
from .vestibule_core.doorstrike.wire import Caps
from .vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from .vestibule_core.strike import Capabilities, Pulse, Reading

CONFIRMATION: Final = 2.0
"""Seconds in which a relay must report that it does what it was told."""
MOTOR_CONFIRMATION: Final = 8.0
"""The same, for what moves by a motor or is asked by radio."""


@dataclass(frozen=True, slots=True)
class Command:
    """A service call, and the states that confirm it. Without states, all that can be known is that it went through."""

    service: str
    confirmed_by: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Kind:
    """What the relays of one kind are told, and what their states mean."""

    release: Command
    secure: Command | None = None
    """None: it cannot be told to go back."""
    readings: Mapping[str, Reading] = MappingProxyType({})
    """Any other state is UNKNOWN."""
    has_motor: bool = False


_ON: Final = Command(SERVICE_TURN_ON, frozenset({STATE_ON}))
_OFF: Final = Command(SERVICE_TURN_OFF, frozenset({STATE_OFF}))
_BUTTON: Final = Kind(Command(SERVICE_PRESS))

_KINDS: Final[Mapping[tuple[RelayDomain, ReleasesWhen], Kind]] = {
    (RelayDomain.SWITCH, ReleasesWhen.ON): Kind(_ON, _OFF, {STATE_OFF: Reading.SECURED, STATE_ON: Reading.RELEASED}),
    (RelayDomain.SWITCH, ReleasesWhen.OFF): Kind(_OFF, _ON, {STATE_ON: Reading.SECURED, STATE_OFF: Reading.RELEASED}),
    (RelayDomain.BUTTON, ReleasesWhen.ON): _BUTTON,
    (RelayDomain.INPUT_BUTTON, ReleasesWhen.ON): _BUTTON,
    (RelayDomain.LOCK, ReleasesWhen.ON): Kind(
        Command(SERVICE_UNLOCK, frozenset({LockState.UNLOCKED, LockState.OPEN})),
        Command(SERVICE_LOCK, frozenset({LockState.LOCKED})),
        {
            LockState.LOCKED: Reading.SECURED,
            LockState.UNLOCKING: Reading.RELEASED,
            LockState.UNLOCKED: Reading.RELEASED,
            LockState.OPENING: Reading.RELEASED,
            LockState.OPEN: Reading.RELEASED,
            LockState.LOCKING: Reading.RELEASED,
            # JAMMED is UNKNOWN: the bolt is somewhere in between.
        },
        has_motor=True,
    ),
    (RelayDomain.COVER, ReleasesWhen.ON): Kind(
        # A gate takes its time: it has confirmed when it moves. Its reading says when it is there.
        Command(SERVICE_OPEN_COVER, frozenset({CoverState.OPENING, CoverState.OPEN})),
        Command(SERVICE_CLOSE_COVER, frozenset({CoverState.CLOSING, CoverState.CLOSED})),
        {
            CoverState.CLOSED: Reading.SECURED,
            CoverState.OPENING: Reading.RELEASED,
            CoverState.OPEN: Reading.RELEASED,
            CoverState.CLOSING: Reading.RELEASED,
        },
        has_motor=True,
    ),
}


def reports(state: State) -> bool:
    """Return whether a relay's states come from the hardware: it has some, and does not merely assume them."""
    has_states = bool(_KINDS[RelayDomain(state.domain), ReleasesWhen.ON].readings)
    return has_states and not state.attributes.get(ATTR_ASSUMED_STATE)


def capabilities(relay: Relay | RadioStrike) -> Capabilities:
    """Return what a relay or a strike can do."""
    if isinstance(relay, RadioStrike):
        return Capabilities(device_timed=True, feedback=True, can_hold=Caps.HOLD in relay.caps)
    device_timed = relay.returns is Returns.BY_ITSELF
    can_secure = _KINDS[relay.domain, relay.releases_when].secure is not None
    if relay.domain is RelayDomain.COVER and device_timed:
        can_secure = False  # what crushes people is closed by us only if the manager agreed to it
    return Capabilities(
        device_timed=device_timed,
        feedback=relay.reports,
        can_secure=can_secure,
        can_hold=can_secure and not device_timed,
    )


class EntityStrike:
    """An entity as a door's strike. Implements the core's ``Strike``."""

    def __init__(self, hass: HomeAssistant, relay: Relay) -> None:
        """Take the relay as the manager set it up; it need not exist yet."""
        self.relay = relay
        self.capabilities: Final = capabilities(relay)
        self._hass = hass
        self._kind = _KINDS[relay.domain, relay.releases_when]
        self._listeners: list[Callable[[Reading], None]] = []
        self._unfollow: Callable[[], None]

    @property
    def entity_id(self) -> str | None:
        """The relay's entity id of this moment; None if it is registered no more."""
        return resolve(self._hass, self.relay.entity)

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
        return self._kind.readings.get(state.state, Reading.UNKNOWN)

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` whenever the relay's state changes, also after it was renamed."""
        if not self._listeners:  # followed once for all of them
            self._unfollow = follow(self._hass, self.relay.entity, self._changed)
        self._listeners.append(listener)

        @callback
        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                if not self._listeners:
                    self._unfollow()

        return unsubscribe

    @callback
    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever what is shown of the strike may have changed, until the returned one is called."""
        return self.subscribe(lambda _: listener())

    @callback
    def _changed(self, _: State | None) -> None:
        for listener in tuple(self._listeners):
            listener(self.reading)

    async def reach(self) -> None:
        """Make sure that the relay is there; raise StrikeUnreachable."""
        self._reached()

    async def release(self, pulse: Pulse) -> None:
        """Release once. Raises StrikeUnreachable, StrikeRefused or OutcomeUnknown."""
        await self._release(pulse.origin)

    async def hold(self, origin: object) -> None:
        """Release until ``secure``: nothing but us ends it. Raises as ``release`` does."""
        if not self.capabilities.can_hold:
            raise StrikeRefused(f"{self.entity_id} does not stay released")
        await self._release(origin)

    async def secure(self) -> None:
        """Put the relay back, also before its own time is over. Raises as ``release`` does."""
        if (command := self._kind.secure) is None or not self.capabilities.can_secure:
            raise StrikeRefused(f"{self.entity_id} cannot be put back")
        if not await self._tell(command, None):
            raise OutcomeUnknown(f"{self.entity_id} did not report that it is back")

    async def _release(self, origin: object) -> None:
        context = await self._context_for(self._reached().entity_id, origin)
        if not await self._tell(self._kind.release, context):
            # The call went through and may still be on its way: no refusal. The door ends it if nobody else does.
            raise OutcomeUnknown(f"{self.entity_id} did not report that it released")

    @property
    def _state(self) -> State | None:
        entity_id = self.entity_id
        state = self._hass.states.get(entity_id) if entity_id else None
        # An entity of another kind hears none of our commands, and Home Assistant would not say so.
        return state if state is not None and state.domain == self.relay.domain else None

    def _reports(self, state: State) -> bool:
        return self.capabilities.feedback and reports(state)  # a relay can begin to assume after it was set up

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

    async def _tell(self, command: Command, context: Context | None) -> bool:
        """Call the relay's service, once; return whether it is, or was for a moment, in a state that confirms it."""
        before = self._reached()
        reported = asyncio.Event()
        if before.state in command.confirmed_by or not self._reports(before):
            reported.set()  # nothing more will be told than that the call went through

        @callback
        def changed(event: Event[EventStateChangedData]) -> None:
            if (state := event.data["new_state"]) is not None and state.state in command.confirmed_by:
                reported.set()

        # Listening begins before the call: a relay with a short pulse of its own is back before the call returns.
        stop = async_track_state_change_event(self._hass, before.entity_id, changed)
        try:
            with _home_assistants_errors(before.entity_id):
                await self._hass.services.async_call(
                    self.relay.domain,
                    command.service,
                    {ATTR_ENTITY_ID: before.entity_id},
                    blocking=True,
                    context=context,
                )
            try:
                async with asyncio.timeout(MOTOR_CONFIRMATION if self._kind.has_motor else CONFIRMATION):
                    await reported.wait()
            except TimeoutError:
                return False
        finally:
            stop()
        return True


class AbsentStrike:
    """A strike that needs Bluetooth, where there is none. Implements the core's ``Strike``: nothing moves it."""

    is_reachable: Final = False
    reading: Final = Reading.UNKNOWN
    reason: Final = "Bluetooth is not set up in Home Assistant"

    def __init__(self, relay: RadioStrike) -> None:
        """Stand for it until Bluetooth is set up."""
        self.relay = relay
        self.capabilities: Final = capabilities(relay)

    def subscribe(self, _: Callable[[Reading], None]) -> Callable[[], None]:
        """There is nothing to be told of."""
        return lambda: None

    def watch(self, _: Callable[[], None]) -> Callable[[], None]:
        """There is nothing to be told of."""
        return lambda: None

    async def reach(self) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def release(self, _: Pulse) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def hold(self, _: object) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def secure(self) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)


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
