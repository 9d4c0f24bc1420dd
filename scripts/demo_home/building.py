"""The demo's building: a gate with a Bluetooth strike, a lobby, a parcel room with a gateway, and two carriers.

One has a cloud to which the building is linked (fleet.py). The other has none: it is known by its public keys, and
calls in with a key of the building's (carrier.py).

Set up and changed through the forms that a building manager fills in, over Home Assistant's REST API; what a form
shows only once is read off the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from . import fleet as canal
from .fleet import Fleet
from .home import HOST, Home, HomeFailed
from .radio import Gate
from .room import Room

LATITUDE: Final = 52.09083
LONGITUDE: Final = 5.12222

BUILDING: Final = "Demo building"
CARRIER: Final = "Swift Parcels"
"""The carrier without a cloud."""
ISSUER: Final = "https://swift.example"

MAX_DISTANCE: Final = 75
"""Metres from the door within which the building wants the driver's phone to be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A door as it is going to be set up: what is typed into its forms."""

    key: str
    name: str
    area: str
    relay: str
    access_time: int
    returns: str
    sensors: Mapping[str, str]
    relock: str | None = None
    """What ends an access early; None where the relay leaves nothing to choose."""
    manual: str = "everyone"

    @property
    def forms(self) -> list[tuple[str, dict[str, Any]]]:
        """The pages in turn."""
        relay = {
            "name": self.name,
            "relay": self.relay,
            "access_time": self.access_time,
            "releases_when": "on",
            "returns": self.returns,
            "on_power_loss": "fail_secure",
        }
        relock = {} if self.relock is None else {"relock": self.relock}
        return [
            ("relay", relay),
            ("watch", dict(self.sensors)),
            ("opened", {"held_open_time": 30, "pre_alarm_time": 10, **relock}),
            ("admit", {"manual": self.manual}),
            ("give", {}),
        ]


GATE: Final = "gate"
"""The key of the door that has a Bluetooth strike, where there is a radio; as it stands in DOORS, it has a relay."""
PARCEL_ROOM: Final = "parcel-room"
"""The key of the door that a gateway has, where there can be one; as it stands in DOORS, it has a relay."""
DISCOVERY: Final = 30.0
"""Seconds within which Home Assistant finds a strike."""

DOORS: Final = (
    Plan(
        key=GATE,
        name="Gate",
        area="Courtyard",
        relay="switch.gate_relay",
        access_time=3,
        returns="by_itself",
        sensors={"contact": "binary_sensor.gate_relay_door"},
        relock="timeout",
    ),
    Plan(
        key="lobby",
        name="Lobby",
        area="Entrance hall",
        relay="switch.lobby_relay",
        access_time=4,
        returns="by_vestibule",
        sensors={
            "contact": "binary_sensor.lobby_relay_door",
            "rex": "binary_sensor.lobby_relay_request_to_exit",
            "tamper": "binary_sensor.lobby_relay_tamper",
        },
        relock="close",
    ),
    Plan(
        key=PARCEL_ROOM,
        name="Parcel room",
        area="Ground floor",
        relay="button.parcel_room_relay",
        access_time=5,
        returns="by_itself",
        sensors={"contact": "binary_sensor.parcel_room_relay_door"},
    ),
)


@dataclass(frozen=True, slots=True)
class Door:
    """A door as it was set up."""

    key: str
    name: str
    id: str
    access_time: int
    has_rex: bool
    """There is an exit button, or something else that tells who leaves."""
    strike: str | None = None
    """The id of its Bluetooth strike, by which Home Assistant knows the door; None: it has none."""
    gateway: str | None = None
    """The id of the gateway that has it; None: the building itself has it."""

    @property
    def has_relay(self) -> bool:
        """Whether a relay of Home Assistant's releases it."""
        return self.strike is None and self.gateway is None


@dataclass(frozen=True, slots=True)
class Building:
    """What the set-up made."""

    doors: tuple[Door, ...]
    intake_key: str
    """What the carrier was given to call in with; shown once."""


def set_up(
    home: Home, jwk_set: str, gate: Gate | None = None, room: Room | None = None, fleet: Fleet | None = None
) -> Building:
    """Set the integration up in a Home Assistant that somebody with administrator rights has signed in to.

    The gate's strike and the parcel room's gateway are paired if there are such; else those doors have relays, too. The
    building is linked to the cloud of the ``fleet``, if there is one.
    """
    if "virtual_radio" not in home.get("/api/components"):
        gate = None
    elsewhere = {key for key, there in ((GATE, gate), (PARCEL_ROOM, room)) if there is not None}
    plans = [plan for plan in DOORS if plan.key not in elsewhere]
    home.flow("simulated_relays", [("user", {"gate": gate is None, "parcel_room": room is None})])
    made = home.flow("vestibule", [("user", {"name": BUILDING})])[-1]
    entry = made["result"]["entry_id"]
    # Adding the building goes on to its first door.
    first, *others = plans
    doors = [
        _add_door(home, entry, first, begun=made["next_flow"][1]),
        *(_add_door(home, entry, plan) for plan in others),
    ]
    if gate is not None:
        doors.insert(0, _pair(home, entry, gate))
    if room is not None:
        doors.append(_pair_gateway(home, room))
    _place(home, doors)
    intake_key = _add_carrier(home, entry, doors, jwk_set)
    if fleet is not None:
        _enrol(home, entry, doors, fleet)
    if room is not None:
        room.wait_until_allowed(CARRIER)
        if fleet is not None:
            room.wait_until_allowed(canal.NAME)
            room.link(fleet.enrolment_code(BUILDING, one_more_of=fleet.building()["id"]))
            fleet.wait_until_linked(2)
    return Building(tuple(doors), intake_key)


def _add_door(home: Home, entry: str, plan: Plan, *, begun: str | None = None) -> Door:
    shown = home.flow((entry, "door"), plan.forms, begun=begun)
    door_id = _read_off(shown, "give", r"door:[a-z2-7]{26}")
    return Door(plan.key, plan.name, door_id, plan.access_time, has_rex="rex" in plan.sensors)


def _pair(home: Home, entry: str, gate: Gate) -> Door:
    """Make a door of the strike that Home Assistant has found by itself."""
    flow = home.discovered("vestibule", "bluetooth", DISCOVERY)
    gate.hold_button()
    (plan,) = (plan for plan in DOORS if plan.key == GATE)
    form = {
        "name": plan.name,
        "access_time": plan.access_time,
        "on_power_loss": "fail_secure",
        "keep_connected": False,
        "code": gate.code,
    }
    path = f"/api/config/config_entries/flow/{flow}"
    home.get(path)
    done = home.post(path, form)
    # The flow of a strike ends with a message: its door is a part of the building, no entry of its own.
    if done.get("reason") != "door_added":
        raise HomeFailed(f"The strike was not paired: {done.get('errors') or done}")
    (subentries,) = home.commands({"type": "config_entries/subentries/list", "entry_id": entry})
    (strike,) = (each["unique_id"] for each in subentries if each["title"] == plan.name)
    door = done["description_placeholders"]["door"]
    has_rex = f"{door}_rex" in _registered(home)
    return Door(GATE, plan.name, door, plan.access_time, has_rex, strike)


def _pair_gateway(home: Home, room: Room) -> Door:
    """Add the gateway at its address, with the code that it shows; return the door that it brings along."""
    (plan,) = (plan for plan in DOORS if plan.key == PARCEL_ROOM)
    address = {"host": HOST, "port": room.reached_at or room.port}
    made = home.flow("vestibule", [("gateway", address), ("gateway_code", {"code": room.pairing_code()})])[-1]
    (devices,) = home.commands({"type": "config/device_registry/list"})
    ours = [device for device in devices if made["result"]["entry_id"] in device["config_entries"]]
    (door,) = (identifier for device in ours for _, identifier in device["identifiers"] if device["name"] == plan.name)
    (gateway,) = (id_ for device in ours for _, id_ in device["identifiers"] if device["model"] == "Gateway")
    return Door(plan.key, plan.name, door, room.access_time, has_rex=False, gateway=gateway)


def _add_carrier(home: Home, entry: str, doors: Sequence[Door], jwk_set: str) -> str:
    form = {"name": CARRIER, "issuer": ISSUER, "jwk_set": jwk_set, **_terms(doors)}
    shown = home.flow((entry, "carrier"), [("keys", form), ("confirm", {}), ("intake_key", {})])
    return _read_off(shown, "intake_key", r"[A-Za-z0-9_-]{43}")


def _enrol(home: Home, entry: str, doors: Sequence[Door], fleet: Fleet) -> None:
    """Add the carrier that has a cloud, with the code that it gave."""
    form = {"code": fleet.enrolment_code(BUILDING), **_terms(doors)}
    home.flow((entry, "carrier"), [("code", form), ("enrolled", {"name": canal.NAME})])
    fleet.wait_until_linked(1)


def _terms(doors: Sequence[Door]) -> dict[str, Any]:
    """Return what a carrier may."""
    return {
        "doors": [door.id for door in doors],
        "methods": ["passkey", "device_key"],
        "distance": MAX_DISTANCE,
        "accuracy": 50,
        "position_age": 30,
        "request_age": 120,
    }


def _place(home: Home, doors: Sequence[Door]) -> None:
    """Put each door where it is, in place of the rooms of a flat that Home Assistant begins with."""
    areas, devices = home.commands({"type": "config/area_registry/list"}, {"type": "config/device_registry/list"})
    home.commands(*({"type": "config/area_registry/delete", "area_id": area["area_id"]} for area in areas))
    area_of = {plan.key: plan.area for plan in DOORS}
    names = sorted(area_of.values())
    made = home.commands(*({"type": "config/area_registry/create", "name": name} for name in names))
    id_of = {area["name"]: area["area_id"] for area in made}
    device_of = {identifier: device["id"] for device in devices for _, identifier in device["identifiers"]}
    home.commands(
        *(
            {"type": "config/device_registry/update", "device_id": device_of[key], "area_id": id_of[area_of[door.key]]}
            for door in doors
            for key in (door.id, door.gateway, door.key if door.has_relay else None)  # the door, and what drives it
            if key is not None
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


# ---- the building as it is ----


class Part(StrEnum):
    """What a door is made of in Home Assistant, as its entities' unique ids end."""

    LOCK = "lock"
    ACCESS = "access"
    CONTACT = "contact"
    PROBLEM = "problem"
    MODE = "mode"
    DELIVERIES = "accept_deliveries"


def entities_of(home: Home, door: Door) -> dict[Part, str]:
    """Return the entity ids of a door, whatever they have been renamed to."""
    registered = _registered(home)
    try:
        return {part: registered[f"{door.id}_{part}"] for part in Part}
    except KeyError as err:
        raise HomeFailed(f"{door.name} is not as the demo set it up. Begin anew with --fresh.") from err


def lockdown_of(home: Home, doors: Sequence[Door]) -> str:
    """Return the entity id of the building's lockdown; the gateways of ``doors`` have one each besides."""
    others = {f"{door.gateway}_lockdown" for door in doors}
    for unique_id, entity_id in _registered(home).items():
        if unique_id.endswith("_lockdown") and unique_id not in others:
            return entity_id
    raise HomeFailed("The building is not in Home Assistant any more. Begin anew with --fresh.")


def _registered(home: Home) -> dict[str, str]:
    (entries,) = home.commands({"type": "config/entity_registry/list"})
    return {entry["unique_id"]: entry["entity_id"] for entry in entries if entry["platform"] == "vestibule"}


type Forms = dict[str, dict[str, Any]]
"""What forms show before anybody types, by form and field; None: an empty field."""


def known_as(door: Door) -> str:
    """Return the unique id of a door's forms."""
    return door.strike or door.id


def forms_of(home: Home, kind: str, unique_id: str) -> Forms:
    """Go through the forms of a door or a carrier, change nothing, and return what they show."""
    return _reconfigure(home, kind, unique_id, {})


def change(home: Home, kind: str, unique_id: str, step: str, what: Mapping[str, Any]) -> dict[str, Any]:
    """Change fields in one form of a door or a carrier, leave all else as it is, and return what they were."""
    shown = _reconfigure(home, kind, unique_id, {step: what})[step]
    return {field: shown[field] for field in what}


def key_set_version(home: Home, issuer: str) -> str:
    """Return the version of a linked carrier's keys, as its form shows it."""
    entry, subentry = _found(home, "carrier", issuer)
    path = "/api/config/config_entries/subentries/flow"
    form = home.post(path, {"handler": [entry, "carrier"], "subentry_id": subentry})
    home.delete(f"{path}/{form['flow_id']}")
    return str(form["description_placeholders"]["version"])


def _reconfigure(home: Home, kind: str, unique_id: str, changes: Mapping[str, Mapping[str, Any]]) -> Forms:
    entry, subentry = _found(home, kind, unique_id)
    return home.reconfigure(entry, kind, subentry, changes)


def _found(home: Home, kind: str, unique_id: str) -> tuple[str, str]:
    """Return the ids of the entry and the subentry of a door or a carrier."""
    for entry in home.get("/api/config/config_entries/entry?domain=vestibule"):
        (subentries,) = home.commands({"type": "config_entries/subentries/list", "entry_id": entry["entry_id"]})
        for subentry in subentries:
            if (subentry["subentry_type"], subentry["unique_id"]) == (kind, unique_id):
                return entry["entry_id"], subentry["subentry_id"]
    raise HomeFailed(f"The {kind} is not in Home Assistant any more. Begin anew with --fresh.")
