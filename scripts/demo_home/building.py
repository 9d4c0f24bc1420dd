"""The demo's building: a gate, a lobby and a parcel room, and one carrier that may deliver there.

Set up through the forms that a building manager fills in, over Home Assistant's REST API; what a form shows
only once is read off the form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from .home import Home, HomeFailed

LATITUDE: Final = 52.09083
LONGITUDE: Final = 5.12222

CARRIER: Final = "Swift Parcels"
ISSUER: Final = "https://swift.example"

MAX_DISTANCE: Final = 75
"""Metres from the door within which the building wants the driver's phone to be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A door as it is going to be set up."""

    key: str
    name: str
    relay: str
    access_time: int
    returns: str
    area: str


DOORS: Final = (
    Plan("gate", "Gate", "switch.gate_relay", 3, "by_itself", "Courtyard"),
    Plan("lobby", "Lobby", "switch.lobby_relay", 4, "by_vestibule", "Entrance hall"),
    Plan("parcel-room", "Parcel room", "button.parcel_room_relay", 5, "by_itself", "Ground floor"),
)


@dataclass(frozen=True, slots=True)
class Door:
    """A door as it was set up."""

    key: str
    name: str
    id: str
    access_time: int


@dataclass(frozen=True, slots=True)
class Building:
    """What the set-up made."""

    doors: tuple[Door, ...]
    intake_key: str
    """What the carrier was given to call in with; shown once."""


def set_up(home: Home, jwk_set: str) -> Building:
    """Set the integration up in a Home Assistant that somebody with administrator rights has signed in to."""
    home.flow("simulated_relays", [("user", {})])
    made = home.flow("vestibule", [("user", {"name": "Demo building"})])[-1]
    entry = made["result"]["entry_id"]
    # Adding the building goes on to its first door.
    first, *others = DOORS
    doors = (
        _add_door(home, entry, first, begun=made["next_flow"][1]),
        *(_add_door(home, entry, plan) for plan in others),
    )
    _place(home, doors)
    return Building(doors, _add_carrier(home, entry, doors, jwk_set))


def _add_door(home: Home, entry: str, plan: Plan, *, begun: str | None = None) -> Door:
    form = {
        "name": plan.name,
        "relay": plan.relay,
        "access_time": plan.access_time,
        "releases_when": "on",
        "returns": plan.returns,
    }
    shown = home.flow((entry, "door"), [("user", form), ("give", {})], begun=begun)
    return Door(plan.key, plan.name, _read_off(shown, "give", r"door:[a-z2-7]{26}"), plan.access_time)


def _add_carrier(home: Home, entry: str, doors: tuple[Door, ...], jwk_set: str) -> str:
    form = {
        "name": CARRIER,
        "issuer": ISSUER,
        "jwk_set": jwk_set,
        "doors": [door.id for door in doors],
        "methods": ["passkey", "device_key"],
        "distance": MAX_DISTANCE,
        "accuracy": 50,
        "position_age": 30,
        "request_age": 120,
    }
    shown = home.flow((entry, "carrier"), [("user", form), ("confirm", {}), ("intake_key", {})])
    return _read_off(shown, "intake_key", r"[A-Za-z0-9_-]{43}")


def _place(home: Home, doors: tuple[Door, ...]) -> None:
    """Put each door where it is, in place of the rooms of a flat that Home Assistant begins with."""
    areas, devices = home.commands({"type": "config/area_registry/list"}, {"type": "config/device_registry/list"})
    home.commands(*({"type": "config/area_registry/delete", "area_id": area["area_id"]} for area in areas))
    made = home.commands(*({"type": "config/area_registry/create", "name": plan.area} for plan in DOORS))
    device_of = {identifier: device["id"] for device in devices for _, identifier in device["identifiers"]}
    home.commands(
        *(
            {"type": "config/device_registry/update", "device_id": device_of[key], "area_id": area["area_id"]}
            for door, area in zip(doors, made, strict=True)
            for key in (door.id, door.key)  # the door, and the relay that drives it
        )
    )


def _read_off(shown: list[dict[str, Any]], step: str, pattern: str) -> str:
    """Return what looks like ``pattern`` in the text of a form, as a person would read it."""
    for form in shown:
        if form.get("step_id") == step:
            for text in form["description_placeholders"].values():
                if found := re.search(pattern, str(text)):
                    return found.group()
    raise HomeFailed(f"The form {step!r} did not show anything like {pattern}.")


def lock_of(home: Home, door: Door) -> str:
    """Return the entity id of a door's lock."""
    for state in home.get("/api/states"):
        if state["entity_id"].startswith("lock.") and state["attributes"].get("friendly_name") == door.name:
            return str(state["entity_id"])
    raise HomeFailed(f"{door.name} has no lock in Home Assistant.")
