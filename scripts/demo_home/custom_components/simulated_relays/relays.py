"""The three relays, and the log that counts what they did.

Each release is one line in `relays.log` in the configuration folder, appended before anyone is told that the
relay has moved:

    2026-11-23T14:40:01.123456+00:00 5321.004711 gate

wall time, monotonic seconds, relay. One write of one short line to a file opened for appending is whole or
absent, also when Home Assistant is killed in the middle; so the lines of the file are what the hardware did,
seen from outside. What this file refuses to do: restore anything. Like a relay after a power cut, each comes
up secured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.helpers.device_registry import DeviceInfo

from .doors import SimulatedDoor

DOMAIN = "simulated_relays"
LOG = "relays.log"


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay. ``returns_after`` None: it stays released until it is switched off."""

    key: str
    name: str
    model: str
    returns_after: float | None = None

    def device(self) -> DeviceInfo:
        """Return the device that the relay is in Home Assistant."""
        return DeviceInfo(identifiers={(DOMAIN, self.key)}, name=self.name, manufacturer="Simulated", model=self.model)


GATE = Relay("gate", "Gate relay", "Relay with a timer of its own", returns_after=3.0)
LOBBY = Relay("lobby", "Lobby relay", "Relay without a timer")
PARCEL_ROOM = Relay("parcel-room", "Parcel room relay", "Relay with a push button")
RELAYS = (GATE, LOBBY, PARCEL_ROOM)
CONF_GATE = "gate"
CONF_PARCEL_ROOM = "parcel_room"
OPTIONAL = {CONF_GATE: GATE, CONF_PARCEL_ROOM: PARCEL_ROOM}
"""The relays that can be left out, by the question in the form."""


@dataclass(frozen=True, slots=True)
class RelayLog:
    """The file that the releases are counted in."""

    path: Path

    def released(self, relay: Relay) -> None:
        """Append the line of one release; blocks."""
        line = f"{datetime.now(UTC).isoformat()} {time.monotonic():.6f} {relay.key}\n"
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the entities share: the log, and the doors by the short names of their relays."""

    log: RelayLog
    doors: Mapping[str, SimulatedDoor]


type RelaysConfigEntry = ConfigEntry[Hardware]


def relays_of(entry: RelaysConfigEntry) -> tuple[Relay, ...]:
    """Return the relays that were added; those of earlier versions were all three."""
    left_out = [relay for question, relay in OPTIONAL.items() if not entry.data.get(question, True)]
    return tuple(relay for relay in RELAYS if relay not in left_out)


def open_log(hass: HomeAssistant) -> RelayLog:
    """Return the log of this Home Assistant."""
    return RelayLog(Path(hass.config.path(LOG)))
