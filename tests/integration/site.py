"""A building in Home Assistant as the tests see it: its entry, its relays and a carrier's cloud.

The relays are real entities of a real platform, the tokens are signed with real keys, the journal is a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from homeassistant.components.button import ButtonEntity
from homeassistant.components.cover import CoverDeviceClass, CoverEntity, CoverEntityFeature
from homeassistant.components.lock import LockEntity
from homeassistant.components.switch import SwitchEntity
from homeassistant.config_entries import ConfigSubentry
from homeassistant.core import Context, Event, HomeAssistant, State, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_component import DATA_INSTANCES
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_capture_events,
    setup_test_component_platform,
)

from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.embedded import Embedded
from custom_components.vestibule.vestibule_core import b64url
from custom_components.vestibule.vestibule_core.keys import Alg, SigningKey
from custom_components.vestibule.vestibule_core.model import DoorId, Issuer, new_door_id
from custom_components.vestibule.vestibule_core.token import Claims, Confirmations, DriverProof, issue
from tests.link_cloud import LinkCloud


class _Relay(Entity):
    """What all kinds of relay have: a record of what they were told, and ways to fail."""

    _attr_should_poll = False
    domain = ""

    def __init__(self, name: str) -> None:
        self._attr_name = name
        self._attr_unique_id = f"relay_{name}"
        self.told: list[str] = []
        """Every command that arrived, carried out or not."""
        self.contexts: list[Context | None] = []
        self.error: Exception | None = None
        """Raised instead of obeying."""
        self.hangs = False

    async def install(self, hass: HomeAssistant, *others: _Relay) -> None:
        if (component := hass.data.get(DATA_INSTANCES, {}).get(self.domain)) is not None:  # others were here before
            await component.async_add_entities([self, *others])
        else:
            setup_test_component_platform(hass, self.domain, [self, *others])
            assert await async_setup_component(hass, self.domain, {self.domain: {"platform": "test"}})
        await hass.async_block_till_done()

    async def _hear(self, command: str) -> None:
        self.told.append(command)
        self.contexts.append(self._context)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error

    @callback
    def lose(self) -> None:
        self._attr_available = False
        self.async_write_ha_state()

    @callback
    def find(self) -> None:
        self._attr_available = True
        self.async_write_ha_state()


class _MovingRelay(_Relay):
    """What is in one of two positions: it is on, unlocked or open, or it is not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.obeys = True
        """Else it takes commands and does nothing, as a relay behind a dead bridge does."""
        self.own_pulse: float | None = None
        """Seconds after which its own timer puts it back; 0: before the command has returned."""
        self.moved: Callable[[bool], None] = lambda _: None

    async def _obey(self, command: str, *, there: bool) -> None:
        await self._hear(command)
        if not self.obeys:
            return
        self.move(there)
        if there and self.own_pulse == 0:
            self.move(False)
        elif there and self.own_pulse:
            self.hass.loop.call_later(self.own_pulse, self.move, False)

    @callback
    def move(self, there: bool) -> None:
        """Go to on, unlocked or open, or back."""
        self.moved(there)
        self._show(there)
        self.async_write_ha_state()

    def _show(self, there: bool) -> None:
        raise NotImplementedError


class RelaySwitch(_MovingRelay, SwitchEntity):
    """A switch whose output drives a lock."""

    domain = "switch"

    def __init__(self, name: str, *, is_on: bool = False) -> None:
        super().__init__(name)
        self._attr_is_on = is_on

    async def async_turn_on(self, **kwargs: Any) -> None:
        await self._obey("on", there=True)

    async def async_turn_off(self, **kwargs: Any) -> None:
        await self._obey("off", there=False)

    def _show(self, there: bool) -> None:
        self._attr_is_on = there


class RelayLock(_MovingRelay, LockEntity):
    """A lock of another integration, locked."""

    domain = "lock"
    _attr_is_locked = True

    async def async_unlock(self, **kwargs: Any) -> None:
        await self._obey("unlock", there=True)

    async def async_lock(self, **kwargs: Any) -> None:
        await self._obey("lock", there=False)

    def _show(self, there: bool) -> None:
        self._attr_is_locked = not there


class RelayCover(_MovingRelay, CoverEntity):
    """A gate, closed. ``travel``: the seconds it takes from one end to the other."""

    domain = "cover"
    _attr_device_class = CoverDeviceClass.GATE
    _attr_supported_features = CoverEntityFeature.OPEN | CoverEntityFeature.CLOSE
    _attr_is_closed = True

    def __init__(self, name: str, *, travel: float = 0) -> None:
        super().__init__(name)
        self.travel = travel
        self._arrival: asyncio.TimerHandle | None = None

    async def async_open_cover(self, **kwargs: Any) -> None:
        await self._obey("open", there=True)

    async def async_close_cover(self, **kwargs: Any) -> None:
        await self._obey("close", there=False)

    def _show(self, there: bool) -> None:
        self._attr_is_opening, self._attr_is_closing = there, not there
        if self._arrival:
            self._arrival.cancel()
        if self.travel:
            self._attr_is_closed = False  # it has begun to move
            self._arrival = self.hass.loop.call_later(self.travel, self.arrive, there)
        else:
            self._attr_is_opening = self._attr_is_closing = False
            self._attr_is_closed = not there

    @callback
    def arrive(self, there: bool) -> None:
        """Be at the end of the way."""
        self._attr_is_opening = self._attr_is_closing = False
        self._attr_is_closed = not there
        self.async_write_ha_state()


class RelayButton(_Relay, ButtonEntity):
    """A button that makes a relay pulse by itself."""

    domain = "button"

    async def async_press(self) -> None:
        await self._hear("press")


class Cloud:
    """A carrier's cloud: signs tokens for the challenges that it is given."""

    def __init__(self, issuer: str = "https://parcel.example", alg: Alg = Alg.EDDSA) -> None:
        self.issuer = Issuer(issuer)
        self.key = SigningKey.generate(alg)

    def token(self, door: str, challenge: str, **changes: Any) -> str:
        """Return a token; ``changes`` are fields of Claims, or of Confirmations under their own names."""
        now = int(time.time())
        checks = {
            "driver": DriverProof.PASSKEY,
            "route": "route-7",
            "distance": 12,
            "accuracy": 8,
            "position_age": 3,
            "requested_at": now - 4,
        }
        checks |= {name: changes.pop(name) for name in checks.keys() & changes.keys()}
        claims = {
            "issuer": self.issuer,
            "door": DoorId(door),
            "jti": b64url.encode(os.urandom(16)),
            "issued_at": now,
            "expires_at": now + 60,
            "subject": "driver-of-this-month",
            "stop": "stop-42",
            "nonce": challenge,
            "confirmations": Confirmations(**checks),
        }
        return issue(self.key, Claims(**(claims | changes)))


class Site:
    """The building entry with its doors and carriers."""

    def __init__(self, hass: HomeAssistant, cloud: Cloud | LinkCloud) -> None:
        self.hass = hass
        self.cloud = cloud
        self.entry = MockConfigEntry(
            domain=DOMAIN, title="Linden Court", unique_id="building", data={"building": "b" * 26}
        )
        self.entry.add_to_hass(hass)
        self.doors: list[DoorId] = []
        self.events: list[Event] = async_capture_events(hass, "vestibule_access")

    # ---- setting up ----

    def add_door(self, name: str, relay: str, **data: Any) -> DoorId:
        door = new_door_id(os.urandom(16))
        registered = er.async_get(self.hass).async_get(relay)
        defaults = {
            "door": door,
            "relay": registered.id if registered else relay,
            "access_time": 5.0,
            "releases_when": "on",
            "returns": "by_itself",
            "relay_domain": relay.partition(".")[0],
            "reports": not relay.startswith(("button.", "input_button.")),
        }
        self._add("door", name, defaults | data, door)
        self.doors.append(door)
        return door

    def add_carrier(self, name: str, cloud: Cloud, **data: Any) -> None:
        defaults = {
            "issuer": cloud.issuer,
            "jwk_set": json.dumps({"keys": [cloud.key.jwk()]}),
            "revoked": [],
            "doors": list(self.doors),
            "methods": ["passkey", "device_key"],
            "distance": 75,
            "accuracy": 50,
            "position_age": 30,
            "request_age": 120,
            "intake_key_sha256": "0" * 64,
        }
        self._add("carrier", name, defaults | data, cloud.issuer)

    def add_linked_carrier(self, name: str, cloud: LinkCloud, **data: Any) -> None:
        """Have a carrier as its form leaves it once it was enrolled by a code."""
        if cloud.text is None:
            cloud.text = cloud.key_set()  # the same one each time
        defaults = {
            "host": cloud.host,
            "issuer": cloud.issuer,
            "root": cloud.root.public.hex(),
            "key_set": cloud.text,
            "dropped": [],
            "doors": list(self.doors),
            "methods": ["passkey", "device_key"],
            "distance": 75,
            "accuracy": 50,
            "position_age": 30,
            "request_age": 120,
        }
        self._add("carrier", name, defaults | data, cloud.issuer)

    def _add(self, kind: str, title: str, data: dict[str, Any], unique_id: str) -> None:
        self.hass.config_entries.async_add_subentry(
            self.entry,
            ConfigSubentry(data=MappingProxyType(data), subentry_type=kind, title=title, unique_id=unique_id),
        )

    async def load(self) -> None:
        assert await self.hass.config_entries.async_setup(self.entry.entry_id)
        await self.hass.async_block_till_done()

    def change(self, title: str, *, new_title: str | None = None, **data: Any) -> None:
        """Change the subentry of this title."""
        subentry = self.subentry(title)
        self.hass.config_entries.async_update_subentry(
            self.entry, subentry, title=new_title or title, data={**subentry.data, **data}
        )

    def remove(self, title: str) -> None:
        self.hass.config_entries.async_remove_subentry(self.entry, self.subentry(title).subentry_id)

    def subentry(self, title: str) -> ConfigSubentry:
        return next(s for s in self.entry.subentries.values() if s.title == title)

    # ---- looking ----

    @property
    def door(self) -> DoorId:
        """The first door."""
        return self.doors[0]

    @property
    def embedded(self) -> Embedded:
        return self.entry.runtime_data

    def entity_id(self, kind: str, door: DoorId | None = None, key: str | None = None) -> str:
        """Return the entity id of a door's entity; ``key`` tells those of one kind apart."""
        key = key or {"lock": "lock", "event": "access", "select": "mode", "switch": "accept_deliveries"}[kind]
        found = er.async_get(self.hass).async_get_entity_id(kind, DOMAIN, f"{door or self.door}_{key}")
        assert found is not None
        return found

    def lock(self, door: DoorId | None = None) -> State:
        state = self.hass.states.get(self.entity_id("lock", door))
        assert state is not None
        return state

    def access(self, door: DoorId | None = None) -> State:
        state = self.hass.states.get(self.entity_id("event", door))
        assert state is not None
        return state

    def device(self, door: DoorId | None = None) -> dr.DeviceEntry | None:
        registry = dr.async_get(self.hass)
        return registry.async_get_device_by_identifier((DOMAIN, door or self.door), self.entry.entry_id)

    def outcomes(self) -> list[tuple[str, str]]:
        return [(event.data["outcome"], event.data["code"]) for event in self.events]

    # ---- doing ----

    async def challenge(self, door: DoorId | None = None, cloud: Cloud | None = None) -> str:
        answer = await self.call("request_challenge", door=door or self.door, issuer=(cloud or self.cloud).issuer)
        return answer["challenge"]

    async def token(self, door: DoorId | None = None, cloud: Cloud | None = None, **changes: Any) -> str:
        """Return a token for a fresh challenge."""
        cloud = cloud or self.cloud
        return cloud.token(door or self.door, await self.challenge(door, cloud), **changes)

    async def present(self, token: Any, context: Context | None = None) -> dict[str, Any]:
        answer = await self.call("present_token", context, token=token)
        await self.settle()
        return answer

    async def call(self, service: str, context: Context | None = None, **data: Any) -> dict[str, Any]:
        answer = await self.hass.services.async_call(
            DOMAIN, service, data, blocking=True, return_response=True, context=context
        )
        assert isinstance(answer, dict)
        return answer

    async def unlock(self, door: DoorId | None = None, context: Context | None = None) -> None:
        try:
            await self.hass.services.async_call(
                "lock", "unlock", {"entity_id": self.entity_id("lock", door)}, blocking=True, context=context
            )
        finally:
            await self.settle()

    async def settle(self) -> None:
        """Wait until the outcome, which nobody waits for, is in the journal and told."""
        await self.embedded.controller.recorded()
        await self.hass.async_block_till_done()

    async def until(self, state: str, door: DoorId | None = None) -> None:
        async with asyncio.timeout(30):
            while self.lock(door).state != state:  # noqa: ASYNC110 - as an eye on the dashboard would
                await asyncio.sleep(0.005)


def self_signed() -> ssl.SSLContext:
    """Return what a server speaks TLS with whose certificate nobody has vouched for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "in between")])
    now = dt_util.utcnow()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(certificate.public_bytes(Encoding.PEM))
        file.flush()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file.name)
    return context
