"""What helps somebody else to see what is wrong, in a file that can be published.

Built from what may be said, not by taking out what may not: no key, no hash, no address, no id and no name of a
person, door, carrier or entity is in it. Doors and carriers are numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from homeassistant.const import ATTR_ASSUMED_STATE, Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.device_registry import DeviceEntry

from .building import RadioStrike
from .const import DOMAIN, JOURNAL_FILE
from .embedded import Embedded, EmbeddedDoorway, VestibuleConfigEntry
from .registered import resolve
from .remote import GatewayConfigEntry, Remote
from .vestibule_core.door import DoorState
from .vestibule_core.hours import Day, WeeklyHours
from .vestibule_core.model import DoorId, Issuer
from .vestibule_core.policy import Carrier


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: VestibuleConfigEntry | GatewayConfigEntry
) -> dict[str, Any]:
    """Return the facts of the building, or of a gateway."""
    if isinstance(entry.runtime_data, Remote):
        return _gateway(entry.runtime_data)
    embedded = entry.runtime_data
    controller = embedded.controller
    numbers = {door: number for number, door in enumerate(embedded.doors, 1)}
    return {
        "building": {
            "stopped": controller.stopped,
            "lockdown": controller.by_hand.locked_down,
            "clock_is_trusted": controller.clock_is_trusted,
            "unreadable": len(embedded.setup.unreadable),
            "persons_kept_days": embedded.setup.persons_kept.days,
            "refusals_without_trace": {code.value: count for code, count in controller.counters.items()},
        },
        "journal": await _journal(hass, embedded),
        "doors": {str(numbers[door]): _door(hass, doorway) for door, doorway in embedded.doors.items()},
        "carriers": [
            _carrier(carrier, numbers) | _link(embedded, carrier.issuer)
            for carrier in controller.building.carriers.values()
        ],
    }


async def async_get_device_diagnostics(
    hass: HomeAssistant, entry: VestibuleConfigEntry | GatewayConfigEntry, device: DeviceEntry
) -> dict[str, Any]:
    """Return the facts of one door; of the building or the gateway, for its own device."""
    if isinstance(entry.runtime_data, Remote):
        return _gateway(entry.runtime_data)
    known = {identifier for domain, identifier in device.identifiers if domain == DOMAIN}
    for door, doorway in entry.runtime_data.doors.items():
        if door in known:
            return {"door": _door(hass, doorway)}
    return await async_get_config_entry_diagnostics(hass, entry)


def _gateway(remote: Remote) -> dict[str, Any]:
    standing = remote.standing
    return {
        "gateway": {
            "version": remote.version,
            "answers": remote.is_there,
            "lockdown": standing.lockdown,
            "clock_is_trusted": standing.clock_trusted,
            "journal_failed": standing.journal_failed,
            "journal_entries": standing.newest,
            "journal_restored": standing.restored,
            "journal_disputed": standing.disputed,
            "witness": {
                "trouble": remote.witness.trouble,
                "checkpoint": remote.witness.note,
                "earlier_checkpoints": remote.witness.before,
            },
            "carrier_alarms": sorted(each.alarm for each in standing.alarms),
            "policy_version": remote.policy.version if remote.policy else None,
            "policy_pending": len(remote.agreement.why_pending),
        },
        "doors": {
            str(number): {
                "model": doorway.described.model,
                "reachable": doorway.bolt.is_reachable,
                "device_timed": doorway.described.strike.device_timed,
                "feedback": doorway.described.strike.feedback,
                "sensors": sorted(doorway.door.sensors),
                "state": _state(doorway.state),
            }
            for number, doorway in enumerate(remote.doors.values(), 1)
        },
    }


async def _journal(hass: HomeAssistant, embedded: Embedded) -> dict[str, Any]:
    path = Path(hass.config.path(".storage", JOURNAL_FILE))
    return {
        "entries": embedded.journal_entries,
        "failed": embedded.journal_failed,
        "bytes": await hass.async_add_executor_job(_size, path),
        "log_bytes": await hass.async_add_executor_job(_size, path.with_name(f"{path.name}-wal")),
    }


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _door(hass: HomeAssistant, doorway: EmbeddedDoorway) -> dict[str, Any]:
    setup, strike, door = doorway.setup, doorway.strike, doorway.setup.door
    capabilities = strike.capabilities
    return {
        "access_time": door.access_time,
        "hours": _hours(door.hours),
        "relock": door.relock,
        "held_open_time": door.held_open_time,
        "pre_alarm_time": door.pre_alarm_time,
        "on_power_loss": door.on_power_loss,
        "manual": door.manual,
        "has_pin": door.pin is not None,
        "relay": {
            **_relay(hass, doorway),
            "reachable": strike.is_reachable,
            "reading": strike.reading,
            "device_timed": capabilities.device_timed,
            "feedback": capabilities.feedback,
            "can_secure": capabilities.can_secure,
            "can_hold": capabilities.can_hold,
        },
        "sensors": {sensor.value: _entity(hass, entity) for sensor, entity in setup.sensors.items()},
        "state": _state(doorway.state),
    }


def _relay(hass: HomeAssistant, doorway: EmbeddedDoorway) -> dict[str, Any]:
    relay = doorway.setup.relay
    if isinstance(relay, RadioStrike):
        # Why it is out of reach is left out: Home Assistant's words for it name addresses.
        return {
            "bluetooth": "bluetooth" in hass.config.components,
            "version": relay.version,
            "caps": [cap.name for cap in relay.caps],
            "keep_connected": relay.keep_connected,
            "battery": doorway.battery,
        }
    return {
        "domain": relay.domain,
        "releases_when": relay.releases_when,
        "returns": relay.returns,
        "reports": relay.reports,
        **_entity(hass, relay.entity),
    }


def _entity(hass: HomeAssistant, entity: str) -> dict[str, Any]:
    """Return what is known of an entity of another integration; which one it is, is its manager's affair."""
    entity_id = resolve(hass, entity)
    registered = er.async_get(hass).async_get(entity_id) if entity_id else None
    state = hass.states.get(entity_id) if entity_id else None
    return {
        "integration": registered.platform if registered else None,
        "disabled": registered.disabled if registered else None,
        "says": state.state if state and state.domain not in (Platform.BUTTON, "input_button") else None,
        "assumed": bool(state and state.attributes.get(ATTR_ASSUMED_STATE)),
    }


def _state(state: DoorState) -> dict[str, Any]:
    return {
        "lock": state.lock,
        "position": state.position,
        "mode": state.mode,
        "after_lockdown": state.after_lockdown,
        "alarm": state.alarm,
        "accepts_deliveries": state.accepts_deliveries,
        "tampered": state.tampered,
        "releasing": state.releasing,
        "securing": state.securing,
        "unanswered": state.unanswered,
        "contact": state.contact,
        "rex": state.rex,
        "tamper": state.tamper,
        "lock_monitor": state.lock_monitor,
    }


def _carrier(carrier: Carrier, numbers: Mapping[DoorId, int]) -> dict[str, Any]:
    limits = carrier.limits
    return {
        "doors": sorted(numbers[door] for door in carrier.doors if door in numbers),
        "keys": [
            {"alg": key.alg, "status": key.status, "from": key.valid_from, "until": key.valid_until}
            for key in carrier.keys
        ],
        "hours": _hours(carrier.hours),
        "rate": carrier.rate,
        "limits": {
            "methods": sorted(limits.methods),
            "distance": limits.distance,
            "accuracy": limits.accuracy,
            "position_age": limits.position_age,
            "request_age": limits.request_age,
        },
    }


def _link(embedded: Embedded, issuer: Issuer) -> dict[str, Any]:
    """Return how the link to a carrier's cloud is; None: it has none."""
    if (enrolment := embedded.setup.enrolments.get(issuer)) is None:
        return {"link": None}
    links, published = embedded.links, enrolment.published
    newest = links.newest_list(issuer)
    return {
        "link": {
            "state": links.state(issuer),
            "trouble": links.trouble(issuer),
            "locked_out": issuer in links.locked_out,
            "alarms": sorted(links.alarms(issuer)),
            "newest_list": newest.isoformat() if newest is not None else None,
            "key_set": {
                "version": published.version,
                "issued_at": published.issued_at,
                "expires_at": published.expires_at,
                "refused": links.keys_refused(issuer),
            },
        }
    }


def _hours(rows: WeeklyHours) -> Iterable[dict[str, Any]]:
    return [
        {"days": [day for day in Day if day in row.days], "from": row.begins.isoformat(), "to": row.ends.isoformat()}
        for row in rows
    ]
