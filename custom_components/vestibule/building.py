"""What the building entry says, in the words of the core.

Pure: reads the entry, touches nothing. Whatever is stored is parsed here once. A subentry that cannot be read (edited
by hand, or written by a newer version) is left out and named, so that one bad carrier does not lock the whole building.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import time, tzinfo
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_HOST, CONF_LATITUDE, CONF_LONGITUDE

from .const import (
    CONF_ACCESS_TIME,
    CONF_ACCURACY,
    CONF_ADDRESS,
    CONF_CAPS,
    CONF_DISTANCE,
    CONF_DOOR,
    CONF_DOORS,
    CONF_DROPPED,
    CONF_HEARD,
    CONF_HELD_OPEN_TIME,
    CONF_HOURS,
    CONF_HOURS_DAYS,
    CONF_HOURS_FROM,
    CONF_HOURS_TO,
    CONF_INTAKE_KEY_SHA256,
    CONF_ISSUER,
    CONF_JWK_SET,
    CONF_KEEP_CONNECTED,
    CONF_KEY_SET,
    CONF_MANUAL,
    CONF_METHODS,
    CONF_NEXT_PSK,
    CONF_ON_POWER_LOSS,
    CONF_PERSONS_KEPT,
    CONF_PIN,
    CONF_PIN_DIGEST,
    CONF_PIN_SALT,
    CONF_POSITION,
    CONF_POSITION_AGE,
    CONF_PRE_ALARM_TIME,
    CONF_PSK,
    CONF_RATE,
    CONF_RELAY,
    CONF_RELAY_DOMAIN,
    CONF_RELEASES_WHEN,
    CONF_RELOCK,
    CONF_REPORTS,
    CONF_REQUEST_AGE,
    CONF_RETURNS,
    CONF_REVOKED,
    CONF_ROOT,
    CONF_SLOT,
    CONF_STRIKE,
    CONF_STRIKE_ID,
    CONF_VERSION,
    SUBENTRY_CARRIER,
    SUBENTRY_DOOR,
)
from .vestibule_core import keyset
from .vestibule_core.doorstrike.frames import KEY_SIZE
from .vestibule_core.doorstrike.slots import MOST as MOST_SLOTS
from .vestibule_core.doorstrike.wire import STRIKE_ID_SIZE, VERSION, Caps, sensors_of
from .vestibule_core.errors import KeySetInvalid
from .vestibule_core.hours import Day, Hours, WeeklyHours
from .vestibule_core.keys import KeyStatus, TrustedKey, import_jwk_set
from .vestibule_core.keyset import KeySet, Root
from .vestibule_core.model import Door, DoorId, Issuer, ManualRule, OnPowerLoss, RelockOn, Sensor, door_id, issuer
from .vestibule_core.pin import Pin
from .vestibule_core.policy import Building, Carrier, EvidenceLimits
from .vestibule_core.token import DriverProof


class RelayDomain(StrEnum):
    """What kinds of entities can drive a lock."""

    SWITCH = "switch"
    BUTTON = "button"
    INPUT_BUTTON = "input_button"
    LOCK = "lock"
    COVER = "cover"
    """A gate or a garage door."""


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


class PersonsKept(StrEnum):
    """How long the journal knows who it was; what happened stays for 24 months (protocol D)."""

    DAYS_30 = "days_30"
    DAYS_90 = "days_90"

    @property
    def days(self) -> int:
        """The time in days."""
        return int(self.removeprefix("days_"))


@dataclass(frozen=True, slots=True)
class Relay:
    """An entity that drives a door's lock."""

    entity: str
    """Its id in the entity registry, which survives renaming; the entity id if it is not registered."""
    releases_when: ReleasesWhen
    returns: Returns
    reports: bool
    """Its states come from the hardware. Found out when the door is saved; the entity can come late at start."""
    domain: RelayDomain
    """Fixed, because what it can do follows from it."""


@dataclass(frozen=True, slots=True)
class RadioStrike:
    """A strike that is reached over Bluetooth, and the key that it knows this building by."""

    strike_id: bytes
    slot: int
    psk: bytes = field(repr=False)
    next_psk: bytes | None = field(repr=False)
    """A key that the strike may have taken into use instead."""
    version: int
    """The highest version of the protocol that it has proved to speak."""
    caps: Caps
    keep_connected: bool
    address: str = field(compare=False)
    """Where it was when this was stored. It may be elsewhere since: what it advertises says who it is."""
    heard: int = field(compare=False)
    """The number of its newest event when it was paired: what was before is not this building's."""

    @property
    def sensors(self) -> frozenset[Sensor]:
        """What it watches by itself."""
        return sensors_of(self.caps)


@dataclass(frozen=True, slots=True)
class DoorSetup:
    """A door subentry."""

    subentry_id: str
    door: Door
    relay: Relay | RadioStrike
    """What moves its bolt."""
    sensors: Mapping[Sensor, str]
    """The entities that watch the door: each an id in the entity registry, or an entity id. They go before what a
    strike watches by itself; ``door.sensors`` has both."""
    position: tuple[float, float] | None
    """Latitude and longitude in degrees; None: where Home Assistant is."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A carrier whose cloud this building keeps a link with, as it is known by its newest key set."""

    subentry_id: str
    host: str
    """Of its cloud, with the port if it is not 443."""
    root: Root
    published: KeySet
    dropped: tuple[TrustedKey, ...]
    """Keys that an earlier set had, and this one has not: revoked."""

    @property
    def keys(self) -> tuple[TrustedKey, ...]:
        """What its tokens may be signed with, and what they may be no more."""
        return (*self.published.trusted, *self.dropped)


@dataclass(frozen=True, slots=True)
class BuildingSetup:
    """The whole entry."""

    building: Building
    doors: Mapping[DoorId, DoorSetup]
    unreadable: Mapping[str, str]
    """Titles by subentry id."""
    intake_keys: Mapping[str, Issuer]
    """Carriers by the SHA-256 (hex) of their intake keys; those that are linked have none."""
    enrolments: Mapping[Issuer, Enrolment]
    persons_kept: PersonsKept


def building_of(
    entry: ConfigEntry, zone: tzinfo, elsewhere: Iterable[DoorId] = (), locked_out: Container[Issuer] = ()
) -> BuildingSetup:
    """Return what the entry and its subentries say.

    ``zone`` is the time zone of its hours, ``elsewhere`` are the doors whose tokens gateways spend, ``locked_out`` are
    the carriers that an administrator has to approve again.
    """
    doors: dict[DoorId, DoorSetup] = {}
    carriers: list[Carrier] = []
    unreadable: dict[str, str] = {}
    intake_keys: dict[str, Issuer] = {}
    enrolments: dict[Issuer, Enrolment] = {}
    strikes: set[bytes] = set()
    for subentry in entry.subentries.values():
        try:
            if subentry.subentry_type == SUBENTRY_DOOR:
                door = _door(subentry)
                if door.door.id in doors:
                    raise ValueError("two doors share an id")
                if isinstance(door.relay, RadioStrike):
                    if door.relay.strike_id in strikes:
                        raise ValueError("two doors share a strike")
                    strikes.add(door.relay.strike_id)
                doors[door.door.id] = door
            elif subentry.subentry_type == SUBENTRY_CARRIER:
                enrolment = enrolment_of(subentry) if CONF_HOST in subentry.data else None
                intake_key = None if enrolment else str(subentry.data[CONF_INTAKE_KEY_SHA256])
                carrier = _carrier(subentry, enrolment, locked_out)
                Building.of((), (*carriers, carrier))  # raises if it takes another's issuer or key
                carriers.append(carrier)
                if intake_key is not None:
                    intake_keys[intake_key] = carrier.issuer
                if enrolment is not None:
                    enrolments[carrier.issuer] = enrolment
        except KeyError, TypeError, ValueError, KeySetInvalid:
            unreadable[subentry.subentry_id] = subentry.title
    return BuildingSetup(
        building=Building.of((setup.door for setup in doors.values()), carriers, zone=zone, elsewhere=elsewhere),
        doors=doors,
        unreadable=unreadable,
        intake_keys=intake_keys,
        enrolments=enrolments,
        persons_kept=persons_kept_of(entry.data),
    )


def persons_kept_of(data: Mapping[str, Any]) -> PersonsKept:
    """Return how long persons are kept; 30 days if nothing is stored.

    What is not understood is taken for the longest time: what is deleted does not come back when it is put right.
    """
    try:
        return PersonsKept(data.get(CONF_PERSONS_KEPT, PersonsKept.DAYS_30))
    except ValueError:
        return PersonsKept.DAYS_90


def _door(subentry: ConfigSubentry) -> DoorSetup:
    data = subentry.data
    sensors = {sensor: str(data[sensor]) for sensor in Sensor if data.get(sensor)}
    relay = moved_by(data)
    held_open_time = _seconds(data[CONF_HELD_OPEN_TIME]) if data.get(CONF_HELD_OPEN_TIME) else None
    pre_alarm_time = _seconds(data[CONF_PRE_ALARM_TIME]) if data.get(CONF_PRE_ALARM_TIME) else 0.0
    if held_open_time is not None and pre_alarm_time >= held_open_time:
        raise ValueError("a warning that comes before the door is opened")
    return DoorSetup(
        subentry_id=subentry.subentry_id,
        door=Door(
            id=door_id(data[CONF_DOOR]),
            name=subentry.title,
            access_time=_seconds(data[CONF_ACCESS_TIME]),
            hours=hours_of(data.get(CONF_HOURS) or ()),
            sensors=frozenset(sensors) | (relay.sensors if isinstance(relay, RadioStrike) else frozenset()),
            relock=RelockOn(data.get(CONF_RELOCK, RelockOn.TIMEOUT)),
            held_open_time=held_open_time,
            pre_alarm_time=pre_alarm_time,
            on_power_loss=OnPowerLoss(data.get(CONF_ON_POWER_LOSS, OnPowerLoss.FAIL_SECURE)),
            manual=ManualRule(data.get(CONF_MANUAL, ManualRule.EVERYONE)),
            pin=_pin(data.get(CONF_PIN)),
        ),
        relay=relay,
        sensors=MappingProxyType(sensors),
        position=_position(data.get(CONF_POSITION)),
    )


def _position(kept: Mapping[str, Any] | None) -> tuple[float, float] | None:
    if not kept:
        return None
    latitude, longitude = float(kept[CONF_LATITUDE]), float(kept[CONF_LONGITUDE])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError("not a place on earth")
    return latitude, longitude


def moved_by(data: Mapping[str, Any]) -> Relay | RadioStrike:
    """Return what moves the bolt of a stored door; raise KeyError, TypeError or ValueError."""
    return strike_of(data[CONF_STRIKE]) if CONF_STRIKE in data else relay_of(data)


def strike_of(data: Mapping[str, Any]) -> RadioStrike:
    """Return a strike as it is stored; raise KeyError, TypeError or ValueError."""
    strike = RadioStrike(
        strike_id=bytes.fromhex(data[CONF_STRIKE_ID]),
        slot=int(data[CONF_SLOT]),
        psk=bytes.fromhex(data[CONF_PSK]),
        next_psk=bytes.fromhex(data[CONF_NEXT_PSK]) if data[CONF_NEXT_PSK] is not None else None,
        version=int(data[CONF_VERSION]),
        caps=Caps(int(data[CONF_CAPS])),
        keep_connected=bool(data[CONF_KEEP_CONNECTED]),
        address=str(data[CONF_ADDRESS]),
        heard=int(data[CONF_HEARD]),
    )
    if len(strike.strike_id) != STRIKE_ID_SIZE or not 1 <= strike.slot <= MOST_SLOTS or strike.version < VERSION:
        raise ValueError("no strike has such an id, slot or version")
    if any(key is not None and len(key) != KEY_SIZE for key in (strike.psk, strike.next_psk)):
        raise ValueError("no strike has such a key")
    return strike


def stored_strike(strike: RadioStrike) -> dict[str, Any]:
    """Return a strike as ``strike_of`` reads it."""
    return {
        CONF_STRIKE_ID: strike.strike_id.hex(),
        CONF_SLOT: strike.slot,
        CONF_PSK: strike.psk.hex(),
        CONF_NEXT_PSK: strike.next_psk.hex() if strike.next_psk is not None else None,
        CONF_VERSION: strike.version,
        CONF_CAPS: int(strike.caps),
        CONF_KEEP_CONNECTED: strike.keep_connected,
        CONF_ADDRESS: strike.address,
        CONF_HEARD: strike.heard,
    }


def relay_of(data: Mapping[str, Any]) -> Relay:
    """Return the relay of a stored door; raise KeyError or ValueError."""
    relay = Relay(
        entity=str(data[CONF_RELAY]),
        releases_when=ReleasesWhen(data[CONF_RELEASES_WHEN]),
        returns=Returns(data[CONF_RETURNS]),
        reports=bool(data[CONF_REPORTS]),
        domain=RelayDomain(data.get(CONF_RELAY_DOMAIN, RelayDomain.SWITCH)),
    )
    if relay.releases_when is ReleasesWhen.OFF and relay.domain is not RelayDomain.SWITCH:
        raise ValueError("only a switch has an output that could be off")
    return relay


def hours_of(rows: Iterable[Mapping[str, Any]]) -> WeeklyHours:
    """Return weekly hours as they are stored; raise KeyError, TypeError or ValueError."""
    return tuple(
        Hours(
            days=frozenset(Day(day) for day in row[CONF_HOURS_DAYS]),
            begins=_clock(row[CONF_HOURS_FROM]),
            ends=_clock(row[CONF_HOURS_TO]),
        )
        for row in rows
    )


def _clock(text: str) -> time:
    clock = time.fromisoformat(text)
    if clock.tzinfo is not None:
        raise ValueError("hours are meant in the building's time zone")
    return clock


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError("not a time that passes")
    return seconds


def _pin(kept: Mapping[str, str] | None) -> Pin | None:
    return Pin(bytes.fromhex(kept[CONF_PIN_SALT]), bytes.fromhex(kept[CONF_PIN_DIGEST])) if kept else None


def enrolment_of(carrier: ConfigSubentry) -> Enrolment:
    """Return how a linked carrier is known; raise KeyError, TypeError, ValueError or KeySetInvalid."""
    data = carrier.data
    root = Root(issuer(data[CONF_ISSUER]), bytes.fromhex(data[CONF_ROOT]))
    return Enrolment(
        subentry_id=carrier.subentry_id,
        host=str(data[CONF_HOST]),
        root=root,
        published=keyset.kept(data[CONF_KEY_SET], root),
        dropped=_dropped(data[CONF_DROPPED], root.issuer),
    )


def _dropped(kept: list[dict[str, str]], of: Issuer) -> tuple[TrustedKey, ...]:
    keys = import_jwk_set(json.dumps({"keys": kept}), of) if kept else ()
    return tuple(replace(key, status=KeyStatus.REVOKED) for key in keys)


def _carrier(subentry: ConfigSubentry, enrolment: Enrolment | None, locked_out: Container[Issuer]) -> Carrier:
    data = subentry.data
    name = issuer(data[CONF_ISSUER])
    return Carrier(
        issuer=name,
        name=subentry.title,
        keys=enrolment.keys if enrolment is not None else _pasted_keys(data, name),
        doors=frozenset(door_id(door) for door in data[CONF_DOORS]),
        limits=EvidenceLimits(
            methods=frozenset(DriverProof(method) for method in data[CONF_METHODS]),
            distance=int(data[CONF_DISTANCE]),
            accuracy=int(data[CONF_ACCURACY]),
            position_age=int(data[CONF_POSITION_AGE]),
            request_age=int(data[CONF_REQUEST_AGE]),
        ),
        hours=hours_of(data.get(CONF_HOURS) or ()),
        rate=int(data[CONF_RATE]) if data.get(CONF_RATE) is not None else None,
        locked_out=name in locked_out,
    )


def _pasted_keys(data: Mapping[str, Any], of: Issuer) -> tuple[TrustedKey, ...]:
    revoked = frozenset(data[CONF_REVOKED])
    return tuple(
        replace(key, status=KeyStatus.REVOKED) if key.kid in revoked else key
        for key in import_jwk_set(data[CONF_JWK_SET], of)
    )


def known_keys(carrier: ConfigSubentry) -> tuple[TrustedKey, ...]:
    """Return the keys of a carrier as it is stored; none if they cannot be read (a repair says so)."""
    try:
        if CONF_HOST in carrier.data:
            return enrolment_of(carrier).keys
        return import_jwk_set(carrier.data[CONF_JWK_SET], Issuer(carrier.data[CONF_ISSUER]))
    except KeyError, TypeError, ValueError, KeySetInvalid:
        return ()
