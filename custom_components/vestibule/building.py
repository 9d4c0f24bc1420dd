"""What the building entry says, in the words of the core.

Pure: reads the entry, touches nothing. Whatever is stored is parsed here once. A subentry that cannot be read (edited
by hand, or written by a newer version) is left out and named, so that one bad carrier does not lock the whole building.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from homeassistant.config_entries import ConfigEntry, ConfigSubentry

from .const import (
    CONF_ACCESS_TIME,
    CONF_ACCURACY,
    CONF_DISTANCE,
    CONF_DOOR,
    CONF_DOORS,
    CONF_ISSUER,
    CONF_JWK_SET,
    CONF_METHODS,
    CONF_POSITION_AGE,
    CONF_RELAY,
    CONF_RELEASES_WHEN,
    CONF_REPORTS,
    CONF_REQUEST_AGE,
    CONF_RETURNS,
    CONF_REVOKED,
    SUBENTRY_CARRIER,
    SUBENTRY_DOOR,
)
from .vestibule_core.errors import KeySetInvalid
from .vestibule_core.keys import KeyStatus, import_jwk_set
from .vestibule_core.model import Door, DoorId, door_id, issuer
from .vestibule_core.policy import Building, Carrier, EvidenceLimits
from .vestibule_core.token import DriverProof


class ReleasesWhen(StrEnum):
    """Which output of a switch lets people in."""

    ON = "on"
    OFF = "off"
    """A fail-safe lock: it holds as long as it has power."""


class Returns(StrEnum):
    """Who ends a release."""

    BY_ITSELF = "by_itself"
    BY_VESTIBULE = "by_vestibule"
    """Home Assistant does, as long as it lives; only with the manager's consent."""


@dataclass(frozen=True, slots=True)
class Relay:
    """An entity that drives a door's lock."""

    entity: str
    """Its id in the entity registry, which survives renaming; the entity id if it is not registered."""
    releases_when: ReleasesWhen
    returns: Returns
    reports: bool
    """Its states come from the hardware. Found out when the door is saved; the entity can come late at start."""


@dataclass(frozen=True, slots=True)
class DoorSetup:
    """A door subentry."""

    subentry_id: str
    door: Door
    relay: Relay


@dataclass(frozen=True, slots=True)
class BuildingSetup:
    """The whole entry."""

    building: Building
    doors: Mapping[DoorId, DoorSetup]
    unreadable: Mapping[str, str]
    """Titles by subentry id."""


def building_of(entry: ConfigEntry) -> BuildingSetup:
    """Return what the entry and its subentries say."""
    doors: dict[DoorId, DoorSetup] = {}
    carriers: list[Carrier] = []
    unreadable: dict[str, str] = {}
    for subentry in entry.subentries.values():
        try:
            if subentry.subentry_type == SUBENTRY_DOOR:
                door = _door(subentry)
                doors[door.door.id] = door
            elif subentry.subentry_type == SUBENTRY_CARRIER:
                carrier = _carrier(subentry)
                Building.of((), (*carriers, carrier))  # raises if it takes another's issuer or key
                carriers.append(carrier)
        except KeyError, TypeError, ValueError, KeySetInvalid:
            unreadable[subentry.subentry_id] = subentry.title
    return BuildingSetup(
        building=Building.of((setup.door for setup in doors.values()), carriers), doors=doors, unreadable=unreadable
    )


def _door(subentry: ConfigSubentry) -> DoorSetup:
    data = subentry.data
    return DoorSetup(
        subentry_id=subentry.subentry_id,
        door=Door(id=door_id(data[CONF_DOOR]), name=subentry.title, access_time=float(data[CONF_ACCESS_TIME])),
        relay=Relay(
            entity=str(data[CONF_RELAY]),
            releases_when=ReleasesWhen(data[CONF_RELEASES_WHEN]),
            returns=Returns(data[CONF_RETURNS]),
            reports=bool(data[CONF_REPORTS]),
        ),
    )


def _carrier(subentry: ConfigSubentry) -> Carrier:
    data = subentry.data
    name = issuer(data[CONF_ISSUER])
    revoked = frozenset(data[CONF_REVOKED])
    return Carrier(
        issuer=name,
        name=subentry.title,
        keys=tuple(
            replace(key, status=KeyStatus.REVOKED) if key.kid in revoked else key
            for key in import_jwk_set(data[CONF_JWK_SET], name)
        ),
        doors=frozenset(door_id(door) for door in data[CONF_DOORS]),
        limits=EvidenceLimits(
            methods=frozenset(DriverProof(method) for method in data[CONF_METHODS]),
            distance=int(data[CONF_DISTANCE]),
            accuracy=int(data[CONF_ACCURACY]),
            position_age=int(data[CONF_POSITION_AGE]),
            request_age=int(data[CONF_REQUEST_AGE]),
        ),
    )
