"""Entities of others that a door depends on: found by their id in the entity registry, which survives renaming."""

from __future__ import annotations

from collections.abc import Callable

from homeassistant.core import Event, EventStateChangedData, HomeAssistant, State, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.event import (
    async_track_entity_registry_updated_event,
    async_track_state_change_event,
)


def resolve(hass: HomeAssistant, entity: str) -> str | None:
    """Return the entity id of this moment; None if it is registered no more."""
    return er.async_resolve_entity_id(er.async_get(hass), entity)


@callback
def follow(hass: HomeAssistant, entity: str, listener: Callable[[State | None], None]) -> Callable[[], None]:
    """Call ``listener`` whenever the entity's state changes, also after it was renamed; may be undone twice."""
    watched: str | None = None
    unwatch: Callable[[], None] = _nothing

    @callback
    def changed(event: Event[EventStateChangedData]) -> None:
        listener(event.data["new_state"])

    @callback
    def watch() -> None:
        nonlocal watched, unwatch
        unwatch()
        if (watched := resolve(hass, entity)) is None:
            # Gone; an entity that comes back gets its old id in the registry.
            unwatch = hass.bus.async_listen(er.EVENT_ENTITY_REGISTRY_UPDATED, registered)
            return
        # By entity, not with a listener for all: hundreds of doors would each hear of every entity in the house.
        stop_states = async_track_state_change_event(hass, watched, changed)
        stop_registry = async_track_entity_registry_updated_event(hass, watched, registered)

        @callback
        def stop() -> None:
            stop_states()
            stop_registry()

        unwatch = stop

    @callback
    def registered(_: Event[er.EventEntityRegistryUpdatedData]) -> None:
        if resolve(hass, entity) != watched:
            watch()
            listener(hass.states.get(watched) if watched else None)

    watch()

    @callback
    def unfollow() -> None:
        nonlocal unwatch
        unwatch()
        unwatch = _nothing

    return unfollow


def _nothing() -> None:
    """Undo nothing."""
