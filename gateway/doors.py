"""The gateway's doors: what the core knows of each, joined with the hardware that gateway.toml names for it.

It only joins: what a sensor says goes to the controller, what changes goes to whoever listens. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from vestibule_core.api.messages import DoorDescription
from vestibule_core.controller import Controller
from vestibule_core.door import DoorState
from vestibule_core.model import Door, DoorId, Sensor

from .config import DoorConfig
from .relay.board import Channel, Input

type Hear = Callable[[Controller], Callable[[], None]]
"""Lets a controller's door hear what a strike tells by itself; returns what ends that."""


class Doorway:
    """A door with its strike and its inputs."""

    def __init__(
        self,
        config: DoorConfig,
        door: Door,
        channel: Channel,
        model: str,
        inputs: Mapping[Sensor, Input],
        hear: Hear | None = None,
    ) -> None:
        """Take what belongs together. ``model`` names the hardware, for people; ``hear`` follows a strike's events."""
        self.config, self.door, self.channel, self.model = config, door, channel, model
        self.state = DoorState()
        self._inputs = inputs
        self._hear = hear
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    def id(self) -> DoorId:
        """The door's id, for life."""
        return self.door.id

    @property
    def described(self) -> DoorDescription:
        """The door as clients are told of it."""
        return DoorDescription(self.door, self.model, self.channel.capabilities, self.channel.is_reachable, self.state)

    def attach(self, controller: Controller, changed: Callable[[DoorId], None]) -> None:
        """Follow the controller's door, its strike and its inputs; ``changed`` is called when it may be another."""

        def state_changed(state: DoorState) -> None:
            self.state = state
            changed(self.id)

        self.state = controller.state(self.id)
        self._unsubscribe = [
            controller.subscribe(self.id, state_changed),
            self.channel.watch(partial(changed, self.id)),
        ]
        for sensor, source in self._inputs.items():
            self._unsubscribe.append(source.subscribe(partial(controller.sense, self.id, sensor)))
            controller.sense(self.id, sensor, source.sense)
        if self._hear is not None:
            self._unsubscribe.append(self._hear(controller))

    def detach(self) -> None:
        """Follow nothing any more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
