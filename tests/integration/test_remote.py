"""A gateway in Home Assistant, against a real one in a process of its own: protocol C and rows 35, 61 to 63 of F."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import shutil
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from homeassistant.config_entries import SOURCE_REAUTH, ConfigEntryDisabler, ConfigEntryState
from homeassistant.core import Context, HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.service_info.zeroconf import ZeroconfServiceInfo
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_capture_events, async_fire_time_changed

from custom_components.vestibule import agreement, embedded, gateway_flow, gateway_issues, remote
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.diagnostics import async_get_config_entry_diagnostics
from custom_components.vestibule.vestibule_core.api import policy as policies
from custom_components.vestibule.vestibule_core.api.client import GatewayClient
from custom_components.vestibule.vestibule_core.api.messages import (
    BuildingChanged,
    DoorChanged,
    Happened,
    Newer,
    NextCertificate,
    Standing,
    next_certificate_text,
)
from custom_components.vestibule.vestibule_core.errors import (
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    StoreFailed,
)
from custom_components.vestibule.vestibule_core.model import AccessEvent, Actor, Code, DoorId, EventName, Principal
from custom_components.vestibule.vestibule_core.note import SignerKey
from tests.integration.gateway import YARD, Gateway
from tests.integration.site import Site, self_signed

pytestmark = pytest.mark.usefixtures("socket_enabled")

ROOM, OTHER = "Parcel room", "Yard"
NEVER = "00000-00000-00000-00000"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a lost gateway again at once; one that is there may be slow, as the machine that tests is."""
    assert (remote.PAUSES, agreement.AGAIN, embedded.GATEWAYS_TIME) == ((1.0, 60.0), (1.0, 60.0), 2.0)
    monkeypatch.setattr(embedded, "GATEWAYS_TIME", 4.0)
    for module, name in ((remote, "PAUSES"), (agreement, "AGAIN")):
        monkeypatch.setattr(module, name, (0.05, 0.2))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway]:
    """A gateway with two doors, at work and unpaired."""
    gateway = await Gateway(tmp_path).start()
    yield gateway
    await gateway.close()


async def until(holds: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - another process tells of it
            await asyncio.sleep(0.02)


async def begin(hass: HomeAssistant, gateway: Gateway) -> dict[str, Any]:
    """Name the gateway in the form; return the page that asks for the code."""
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    assert (flow["type"], flow["step_id"]) == (FlowResultType.FORM, "gateway")
    return await say(hass, flow, host="127.0.0.1", port=gateway.port)


async def say(hass: HomeAssistant, flow: dict[str, Any], **typed: Any) -> dict[str, Any]:
    return await hass.config_entries.flow.async_configure(flow["flow_id"], typed)


async def enter(hass: HomeAssistant, flow: dict[str, Any], code: str) -> dict[str, Any]:
    """Type the code; the gateway takes one attempt a second."""
    flow = await say(hass, flow, code=code)
    while flow.get("errors") == {"base": "gateway_busy"}:
        await asyncio.sleep(0.2)
        flow = await say(hass, flow, code=code)
    return flow


class Paired:
    """A gateway and its entry in Home Assistant."""

    def __init__(self, site: Site, gateway: Gateway, entry: MockConfigEntry) -> None:
        self.hass, self.site, self.gateway, self.entry = site.hass, site, gateway, entry

    @property
    def doors(self) -> dict[str, DoorId]:
        return {name: DoorId(door) for door, name in self.entry.data["doors"].items()}

    def state(self, kind: str, key: str, name: str | None = ROOM) -> str:
        whose = self.doors[name] if name else self.entry.unique_id
        entity = er.async_get(self.hass).async_get_entity_id(kind, DOMAIN, f"{whose}_{key}")
        assert entity is not None
        state = self.hass.states.get(entity)
        assert state is not None
        return state.state

    def entity(self, kind: str, key: str, name: str = ROOM) -> str:
        found = er.async_get(self.hass).async_get_entity_id(kind, DOMAIN, f"{self.doors[name]}_{key}")
        assert found is not None
        return found

    def outcomes(self, name: str = ROOM) -> list[str]:
        return [event.data["outcome"] for event in self.site.events if event.data["door"] == self.doors[name]]

    async def grant(self) -> None:
        """Let the building's carrier in at every door of the gateway, and have that in force there."""
        await self.change_carrier(doors=[self.site.door, *self.doors.values()])

    async def change_carrier(self, **data: Any) -> None:
        """Change the building's carrier, and wait until the gateway has taken that."""
        self.site.change("Parcel Express", **data)
        async with asyncio.timeout(10):
            while not await self._is_agreed():  # noqa: ASYNC110 - a gateway has no asyncio.Event
                await asyncio.sleep(0.02)
        await self.settle()

    async def _is_agreed(self) -> bool:
        """Whether the gateway was asked for what the building wants now, and not for what it wanted before."""
        remote = self.entry.runtime_data
        view = await remote.client.policy()
        newest = view.pending.policy if view.pending else view.policy
        wanted = agreement.wanted_policy(self.hass, remote.doors, newest)
        return policies.encode(newest) == policies.encode(wanted) and remote.policy.version == view.version

    async def settle(self) -> None:
        await self.hass.async_block_till_done()

    @property
    def lockdown_of_the_building(self) -> str:
        return self._switch(self.site.embedded.id)

    @property
    def lockdown_of_the_gateway(self) -> str:
        return self._switch(self.entry.unique_id)

    def _switch(self, whose: str) -> str:
        found = er.async_get(self.hass).async_get_entity_id("switch", DOMAIN, f"{whose}_lockdown")
        assert found is not None
        return found

    async def lock_down(self) -> None:
        """Lock the building down."""
        await self.call("switch", "turn_on", entity_id=self.lockdown_of_the_building)
        await self.settle()

    async def call(self, domain: str, service: str, context: Context | None = None, **data: Any) -> None:
        await self.hass.services.async_call(domain, service, data, blocking=True, context=context)

    async def lose(self) -> None:
        """Kill the gateway, and wait until that is noticed."""
        await self.gateway.kill()
        await until(lambda: not self.entry.runtime_data.is_there)
        await self.settle()

    async def is_set_up_again(self) -> None:
        """Let the minutes pass after which Home Assistant tries it again, until it has done so."""
        for _ in range(600):  # no timeout: that would be over as well when minutes pass
            if self.entry.state is ConfigEntryState.SETUP_RETRY:
                async_fire_time_changed(self.hass, dt_util.utcnow() + timedelta(minutes=2))
            await asyncio.sleep(0.05)
            if self.entry.state is ConfigEntryState.LOADED:
                break
        assert self.entry.state is ConfigEntryState.LOADED
        await self.settle()

    async def find(self) -> None:
        """Start it again, and wait until that is noticed."""
        await self.gateway.start()
        await until(lambda: self.entry.runtime_data.is_there)
        await self.settle()


@pytest.fixture
async def paired(hass: HomeAssistant, site: Site, gateway: Gateway) -> AsyncGenerator[Paired]:
    """A gateway that trusts this Home Assistant, paired by the forms."""
    flow = await begin(hass, gateway)
    flow = await enter(hass, flow, await gateway.code("--trust"))
    assert flow["type"] is FlowResultType.CREATE_ENTRY, flow
    await hass.async_block_till_done()
    await until(lambda: flow["result"].runtime_data.policy.version > 0)  # the time zone, and nobody yet
    yield Paired(site, gateway, flow["result"])
    if hass.config_entries.async_get_entry(flow["result"].entry_id) is not None:
        await hass.config_entries.async_unload(flow["result"].entry_id)


# ---- pairing ----


async def test_a_gateway_is_paired_by_its_code_and_its_doors_are_there(hass, site, gateway, device_registry):
    flow = await begin(hass, gateway)
    assert flow["step_id"] == "gateway_code"
    flow = await enter(hass, flow, (await gateway.code()).lower())
    await hass.async_block_till_done()
    assert (flow["type"], flow["title"]) == (FlowResultType.CREATE_ENTRY, "Parcel room gateway")

    entry = flow["result"]
    devices = dr.async_entries_for_config_entry(device_registry, entry.entry_id)
    by_name = {device.name: device for device in devices}
    assert by_name.keys() == {"Parcel room gateway", ROOM, OTHER}
    assert by_name[ROOM].via_device_id == by_name["Parcel room gateway"].id
    assert by_name["Parcel room gateway"].sw_version == "0.2.0"
    paired = Paired(site, gateway, entry)
    assert (paired.state("lock", "lock"), paired.state("select", "mode")) == ("locked", "normal")
    assert paired.state("binary_sensor", "connection", None) == "on"
    assert gateway.movements == []
    assert dict(entry.supported_subentry_types) == {}, "it has its doors itself"
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert entry.state is ConfigEntryState.NOT_LOADED


@pytest.mark.parametrize(
    "typed, errors",
    [
        ({"host": "127.0.0.1", "port": 0}, {"port": "port_range"}),
        ({"host": "127.0.0.1", "port": 1}, {"base": "gateway_unreachable"}),
        ({"host": "no such host", "port": 7443}, {"base": "gateway_unreachable"}),
    ],
    ids=["no port", "nobody", "no host"],
)
async def test_an_address_where_no_gateway_is_stays_in_the_form(hass, site, typed, errors):
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    flow = await say(hass, flow, **typed)
    assert flow["errors"] == errors
    suggested = {str(key): key.description["suggested_value"] for key in flow["data_schema"].schema}
    assert suggested == typed


async def test_a_web_server_is_no_gateway(hass, site, hass_client):
    assert await async_setup_component(hass, "api", {})
    client = await hass_client()
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    flow = await say(hass, flow, host="127.0.0.1", port=client.server.port)
    assert flow["errors"] == {"base": "gateway_unreachable"}, "it speaks no TLS"


async def test_a_code_with_a_slip_is_named_and_a_window_that_is_not_open_as_well(hass, site, gateway):
    flow = await begin(hass, gateway)
    flow = await say(hass, flow, code="AAAAA")
    assert flow["errors"] == {"code": "code_length"}
    flow = await say(hass, flow, code="U" * 20)
    assert flow["errors"] == {"code": "code_character"}
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_no_window"}


async def test_a_wrong_code_pairs_nobody_and_the_right_one_does_afterwards(hass, site, gateway):
    flow = await begin(hass, gateway)
    code = await gateway.code()
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_wrong_code"}
    flow = await enter(hass, flow, code)
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    await hass.config_entries.async_unload(flow["result"].entry_id)


async def test_a_gateway_that_another_home_assistant_steers_is_taken_over_only_on_purpose(hass, site, paired, gateway):
    """Who has it now is named; with ``--replace`` he loses it, and is told to pair again."""
    await hass.config_entries.async_unload(paired.entry.entry_id)
    hass.config_entries.async_update_entry(paired.entry, unique_id="elsewhere")
    flow = await begin(hass, gateway)
    flow = await enter(hass, flow, await gateway.code())
    assert flow["errors"] == {"base": "gateway_taken"}
    assert flow["description_placeholders"]["others"] == "test home"

    flow = await enter(hass, flow, await gateway.code("--replace"))
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    assert await hass.config_entries.async_setup(paired.entry.entry_id) is False
    assert paired.entry.state is ConfigEntryState.SETUP_ERROR
    assert [flow["context"]["source"] for flow in hass.config_entries.flow.async_progress()] == [SOURCE_REAUTH]
    await hass.config_entries.async_unload(flow["result"].entry_id)


async def test_without_a_building_no_gateway_is_offered(hass, gateway):
    flow = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": "zeroconf"}, data=announced("a" * 26, gateway.port)
    )
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "no_building")


def announced(gateway_id: str, port: int, host: str = "127.0.0.1") -> ZeroconfServiceInfo:
    from ipaddress import ip_address

    return ZeroconfServiceInfo(
        ip_address=ip_address(host),
        ip_addresses=[ip_address(host)],
        port=port,
        hostname="gateway.local.",
        type="_vestibule._tcp.local.",
        name=f"{gateway_id}._vestibule._tcp.local.",
        properties={"id": gateway_id, "v": "1", "pair": "0"},
    )


async def announce(hass: HomeAssistant, info: ZeroconfServiceInfo) -> dict[str, Any]:
    return await hass.config_entries.flow.async_init(DOMAIN, context={"source": "zeroconf"}, data=info)


async def test_a_gateway_that_announces_itself_is_offered(hass, site, gateway):
    said = await gateway.command("status")
    gateway_id = next(word.strip(",") for word in said.split() if len(word.strip(",")) == 26)
    flow = await announce(hass, announced(gateway_id, gateway.port))
    assert flow["step_id"] == "gateway_code"
    assert flow["description_placeholders"]["gateway"] == gateway_id[:6]
    (offered,) = hass.config_entries.flow.async_progress()
    assert offered["context"]["title_placeholders"] == {"name": f"Gateway {gateway_id[:6]}"}
    flow = await enter(hass, flow, await gateway.code())
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    assert flow["result"].unique_id == gateway_id
    await hass.config_entries.async_unload(flow["result"].entry_id)

    assert (await announce(hass, announced("not an id", 1)))["reason"] == "no_gateway"


async def test_a_known_gateway_is_followed_to_where_it_is_and_nowhere_else(hass, paired, gateway):
    """Anybody on the network can announce anything."""
    known = paired.entry.data
    flow = await announce(hass, announced(paired.entry.unique_id, 9))
    assert (flow["reason"], paired.entry.data) == ("already_configured", known)

    with_old_port = {**known, "port": 9}
    hass.config_entries.async_update_entry(paired.entry, data=with_old_port)
    flow = await announce(hass, announced(paired.entry.unique_id, gateway.port))
    assert (flow["reason"], paired.entry.data["port"]) == ("already_configured", gateway.port)
    await hass.async_block_till_done()
    await until(lambda: paired.entry.state is ConfigEntryState.LOADED)


async def test_what_is_announced_as_it_is_known_changes_nothing(hass, paired, gateway):
    before = paired.entry.data
    flow = await announce(hass, announced(paired.entry.unique_id, gateway.port))
    assert (flow["reason"], paired.entry.data) == ("already_configured", before)


@pytest.fixture
async def machine_in_between() -> AsyncGenerator[list[bytes]]:
    """A TLS server that answers every request with the bytes in the list; its port is the list's first entry."""
    answers: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = answers[1] if len(answers) == 2 else answers.pop(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=self_signed())
    answers.append(str(server.sockets[0].getsockname()[1]).encode())
    yield answers
    server.close()


async def test_what_answers_with_nonsense_is_no_gateway(hass, site, machine_in_between):
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    machine_in_between.append(b"<html>")
    flow = await say(hass, flow, host="127.0.0.1", port=int(machine_in_between[0]))
    assert flow["errors"] == {"base": "gateway_strange"}

    asked = b'{"id": "%b", "version": "1", "pair": true, "pair_nonce": "%b"}' % (b"a" * 26, b"A" * 22)
    machine_in_between[1:] = [asked]
    flow = await say(hass, flow, host="127.0.0.1", port=int(machine_in_between[0]))
    assert flow["step_id"] == "gateway_code"
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_wrong_code"}, "what it says proves nothing"
    machine_in_between[1:] = [b"<html>"]
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_strange"}


async def test_a_gateway_that_goes_away_before_the_code_is_typed_can_be_tried_again(hass, site, gateway):
    flow = await begin(hass, gateway)
    await gateway.stop()
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_unreachable"}


async def test_row_61_somebody_in_between_changes_the_certificate_and_nothing_is_sent(hass, site, gateway, monkeypatch):
    flow = await begin(hass, gateway)

    async def met_another(*_: Any) -> None:
        raise GatewayImpostor(bytes(32))

    monkeypatch.setattr(gateway_flow, "pair", met_another)
    flow = await say(hass, flow, code=NEVER)
    assert flow["errors"] == {"base": "gateway_wrong_code"}


async def test_pairing_again_with_another_gateway_is_not_replacing_it_by_accident(hass, paired, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    other = await Gateway(folder).start()
    try:
        at_other = {**paired.entry.data, "port": other.port}
        context = {"source": SOURCE_REAUTH, "entry_id": paired.entry.entry_id}
        flow = await hass.config_entries.flow.async_init(DOMAIN, context=context, data=at_other)
        flow = await enter(hass, flow, await other.code())
        assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "other_gateway")

        flow = await begin(hass, other)
        flow = await enter(hass, flow, await other.code("--replace"))
        assert flow["type"] is FlowResultType.CREATE_ENTRY
        await hass.async_block_till_done()
        second = flow["result"]
        context = {"source": "reconfigure", "entry_id": paired.entry.entry_id}
        flow = await hass.config_entries.flow.async_init(DOMAIN, context=context)
        flow = await say(hass, flow, host="127.0.0.1", port=other.port)
        flow = await enter(hass, flow, await other.code("--replace"))
        assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "already_configured")
        await hass.config_entries.async_unload(second.entry_id)
    finally:
        await other.close()


# ---- a delivery ----


async def test_row_35_a_token_for_a_gateways_door_is_carried_there_and_opens_it_once(paired, cloud):
    await paired.grant()
    site, door = paired.site, paired.doors[ROOM]
    token = await site.token(door)
    assert (await site.present(token))["word"] == "granted"
    assert (await site.present(token))["word"] == "already_used"
    await until(lambda: paired.gateway.movements.count("1 off") == 1)
    assert paired.gateway.movements == ["1 on", "1 off"]
    await until(lambda: "door_relocked" in paired.outcomes() or "access_not_taken" in paired.outcomes())
    assert paired.outcomes()[:2] == ["access_granted", "door_released"]
    granted = next(event for event in site.events if event.data["door"] == door)
    assert (granted.data["carrier"], granted.data["means"], granted.data["stop"]) == ("Parcel Express", "token", True)
    assert granted.data["gateway"] == "Parcel room gateway"
    access = paired.hass.states.get(paired.entity("event", "access"))
    assert access.attributes["event_type"] in ("door_released", "access_not_taken")


async def test_row_35_inside_the_wrong_controller_it_is_refused(paired):
    """Nothing of Home Assistant's own tries: the embedded controller says whose door it is."""
    await paired.grant()
    door = paired.doors[ROOM]
    token = await paired.site.token(door)
    decision = await paired.site.embedded.controller.present(token, Principal())
    assert decision.code is Code.NOT_SPENDER
    assert paired.gateway.movements == []


async def test_a_carrier_calls_home_assistant_and_the_gateways_door_opens(paired, hass_client_no_auth):
    key = secrets.token_urlsafe(32)
    paired.site.change("Parcel Express", intake_key_sha256=hashlib.sha256(key.encode()).hexdigest())
    client = await hass_client_no_auth()
    url, headers = f"/api/vestibule/doors/{paired.doors[ROOM]}", {"Authorization": f"Bearer {key}"}
    assert (await client.post(f"{url}/challenge", headers=headers)).status == 403, "it has not been let in there yet"
    await paired.grant()

    challenge = await (await client.post(f"{url}/challenge", headers=headers)).json()
    token = paired.site.cloud.token(paired.doors[ROOM], challenge["non"])
    body = json.dumps({"token": token})
    answer = await client.post(f"{url}/unlock", data=body, headers=headers)
    assert (answer.status, await answer.json()) == (200, {"word": "granted", "code": "GRANTED"})
    rubbish = await client.post(f"{url}/unlock", data=json.dumps({"token": "x"}), headers=headers)
    assert (await rubbish.json())["word"] == "invalid_token"

    await paired.lose()
    answer = await client.post(f"{url}/unlock", data=body, headers=headers)
    assert answer.status == 503, "nothing was asked, so asking again is no harm"
    assert (await client.post(f"{url}/challenge", headers=headers)).status == 503
    await paired.find()


# ---- by hand ----


async def test_whoever_opens_by_hand_is_named_here_and_in_the_gateways_journal(paired, hass_admin_user):
    context = Context(user_id=hass_admin_user.id)
    await paired.call("lock", "unlock", context, entity_id=paired.entity("lock", "lock"))
    await until(lambda: "door_released" in paired.outcomes())
    await until(lambda: paired.gateway.movements == ["1 on", "1 off"])
    lock = paired.hass.states.get(paired.entity("lock", "lock"))
    assert lock.attributes["changed_by"] == hass_admin_user.name
    events = [event for event in paired.site.events if event.data["outcome"] == "access_granted"]
    assert [event.context.id for event in events] == [context.id]


async def test_a_gateways_door_is_blocked_held_open_and_its_deliveries_are_switched_off(paired):
    mode, deliveries = paired.entity("select", "mode"), paired.entity("switch", "accept_deliveries")
    await paired.call("select", "select_option", entity_id=mode, option="unlocked")
    await until(lambda: paired.state("select", "mode") == "unlocked")
    assert paired.gateway.movements == ["1 on"]
    await paired.call("lock", "lock", entity_id=paired.entity("lock", "lock"))
    await until(lambda: paired.state("select", "mode") == "normal" and paired.gateway.movements == ["1 on", "1 off"])
    await paired.call("select", "select_option", entity_id=mode, option="blocked")
    await until(lambda: paired.state("select", "mode") == "blocked")
    with pytest.raises(HomeAssistantError, match="blocked"):
        await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
    await paired.call("switch", "turn_off", entity_id=deliveries)
    await until(lambda: paired.state("switch", "accept_deliveries") == "off")


# ---- away ----


async def test_a_gateway_that_is_away_shows_nothing_as_known_and_misses_no_event(paired, caplog):
    await paired.grant()
    caplog.set_level(logging.INFO)
    await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
    await until(lambda: "access_not_taken" in paired.outcomes() or "door_relocked" in paired.outcomes())
    await paired.lose()
    assert paired.state("lock", "lock") == paired.state("select", "mode") == "unavailable"
    assert paired.state("binary_sensor", "connection", None) == "off"
    assert paired.state("event", "access") != "unavailable", "triggers miss the first event after that"
    doorway = paired.entry.runtime_data.doors[paired.doors[ROOM]]
    decision = await doorway.open_by_hand(Actor(None, None, is_admin=False), None)
    assert decision.code is Code.STRIKE_UNREACHABLE
    assert doorway.why_not[decision.code] == "its gateway Parcel room gateway does not answer"

    await paired.find()
    assert (paired.state("lock", "lock"), paired.state("select", "mode")) == ("locked", "normal")
    assert paired.state("binary_sensor", "connection", None) == "on"
    said = [record.message for record in caplog.records if record.name.endswith("vestibule.remote")]
    assert len(said) == 2, said
    assert paired.gateway.movements.count("1 on") == 1, "nothing moves at the start"
    sequences = [event.data["sequence"] for event in paired.site.events if event.data["door"] in paired.doors.values()]
    assert sequences == sorted(set(sequences))


async def test_what_happened_while_home_assistant_was_away_is_told_once_and_old_news_sets_nothing_off(paired):
    """The event entity, on which automations are built, hears nothing that is older than a minute."""
    await paired.grant()
    hass, entry = paired.hass, paired.entry
    door = paired.doors[ROOM]
    token = await paired.site.token(door)
    assert await hass.config_entries.async_unload(entry.entry_id)
    client = remote._client(remote.new_session(hass), entry)
    assert (await client.unlock(door, token, None)).word == "granted"
    before = len(paired.site.events)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await until(lambda: "door_released" in [event.data["outcome"] for event in paired.site.events[before:]])
    assert await hass.config_entries.async_reload(entry.entry_id)
    await paired.settle()
    sequences = [event.data["sequence"] for event in paired.site.events if event.data["door"] == door]
    assert sequences == sorted(set(sequences)), "each once, in order"


async def test_doors_come_and_go_with_the_gateways_configuration(paired, device_registry):
    gone = paired.doors[OTHER]
    await paired.gateway.stop()
    paired.gateway.write(YARD.replace("yard", "cellar").replace("Yard", "Cellar"))
    await paired.find()
    await until(lambda: paired.doors.keys() == {ROOM, "Cellar"})
    await paired.settle()
    assert paired.state("lock", "lock", "Cellar") == "locked"
    assert device_registry.async_get_device_by_identifier((DOMAIN, gone), paired.entry.entry_id) is None
    assert not er.async_get(paired.hass).async_get_entity_id("lock", DOMAIN, f"{gone}_lock")


# ---- lockdown ----


async def test_the_buildings_lockdown_holds_at_the_gateway_and_is_pending_until_it_does(paired):
    hass, site = paired.hass, paired.site
    switch = er.async_get(hass).async_get_entity_id("switch", DOMAIN, f"{site.embedded.id}_lockdown")
    await paired.call("switch", "turn_on", entity_id=switch)
    await until(lambda: paired.state("switch", "lockdown", None) == "on")
    await until(lambda: hass.states.get(switch).attributes["pending"] == [])
    assert paired.state("select", "mode") == "locked_down"
    await paired.call("switch", "turn_off", entity_id=switch)
    await until(lambda: paired.state("switch", "lockdown", None) == "off")

    await paired.lose()
    await paired.call("switch", "turn_on", entity_id=switch)
    await paired.settle()
    assert hass.states.get(switch).attributes["pending"] == ["Parcel room gateway"]
    await paired.find()
    await until(lambda: paired.state("switch", "lockdown", None) == "on")
    await until(lambda: hass.states.get(switch).attributes["pending"] == [])


# ---- the policy ----


async def test_what_is_more_waits_at_a_gateway_for_its_button(hass, site, gateway):
    flow = await begin(hass, gateway)
    flow = await enter(hass, flow, await gateway.code())
    await hass.async_block_till_done()
    paired = Paired(site, gateway, flow["result"])
    site.change("Parcel Express", doors=[site.door, *paired.doors.values()])
    issue = f"gateway_pending_{paired.entry.unique_id}"
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)
    shown = ir.async_get(hass).async_get_issue(DOMAIN, issue).translation_placeholders
    assert "a new carrier" in shown["why"]
    assert not await may_be_asked(paired)

    await gateway.command("approve")
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is None)
    assert (await site.present(await site.token(paired.doors[ROOM])))["word"] == "granted"

    await paired.change_carrier(doors=[site.door])
    assert not await may_be_asked(paired), "what is less holds at once"
    await hass.config_entries.async_unload(paired.entry.entry_id)


async def may_be_asked(paired: Paired) -> bool:
    """Return whether the carrier is given a challenge of the gateway's door."""
    try:
        return bool(await paired.site.challenge(paired.doors[ROOM]))
    except HomeAssistantError:
        return False


# ---- keys ----


async def test_a_gateway_that_does_not_know_us_any_more_is_paired_again(hass, paired, gateway):
    await gateway.stop()
    await until(lambda: not paired.entry.runtime_data.is_there)
    hass.config_entries.async_update_entry(paired.entry, data={**paired.entry.data, "token": "A" * 43})
    await gateway.start()
    await until(lambda: hass.config_entries.flow.async_progress())
    (flow,) = hass.config_entries.flow.async_progress()
    assert (flow["context"]["source"], flow["step_id"]) == (SOURCE_REAUTH, "gateway_code")
    flow = await enter(hass, flow, await gateway.code("--replace"))
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "reauth_successful")
    await until(lambda: paired.entry.state is ConfigEntryState.LOADED and paired.entry.runtime_data.is_there)
    await paired.settle()
    assert paired.state("lock", "lock") == "locked"


async def test_row_62_what_has_another_certificate_in_the_gateways_place_is_told_nothing(hass, paired, tmp_path):
    """It is never sent the bearer, and nothing of it is shown as the gateway's."""
    await paired.gateway.stop()
    await until(lambda: not paired.entry.runtime_data.is_there)
    folder = tmp_path / "impostor"
    folder.mkdir()
    impostor = Gateway(folder)
    impostor.port = paired.gateway.port
    impostor.write(YARD)
    await impostor.start()
    try:
        await asyncio.sleep(0.5)
        assert not paired.entry.runtime_data.is_there
        assert paired.state("lock", "lock") == "unavailable"
        doorway = paired.entry.runtime_data.doors[paired.doors[ROOM]]
        decision = await doorway.open_by_hand(Actor(None, None, is_admin=False), None)
        assert decision.code is Code.STRIKE_UNREACHABLE
        assert impostor.movements == []
        assert not await hass.config_entries.async_reload(paired.entry.entry_id)
        assert paired.entry.state is ConfigEntryState.SETUP_RETRY
        assert "has another certificate. Nothing was sent to it" in paired.entry.reason
    finally:
        await impostor.close()
    await paired.gateway.start()
    await paired.is_set_up_again()  # and nobody has to help
    assert paired.state("lock", "lock") == "locked"


async def test_a_gateway_is_replaced_by_another_one(hass, paired, tmp_path):
    folder = tmp_path / "replacement"
    folder.mkdir()
    other = await Gateway(folder).start()
    try:
        context = {"source": "reconfigure", "entry_id": paired.entry.entry_id}
        flow = await hass.config_entries.flow.async_init(DOMAIN, context=context)
        assert flow["step_id"] == "gateway_again"
        flow = await say(hass, flow, host="127.0.0.1", port=other.port)
        flow = await enter(hass, flow, await other.code("--trust"))
        assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
        await until(lambda: paired.entry.state is ConfigEntryState.LOADED and paired.entry.runtime_data.is_there)
        await paired.settle()
        assert paired.entry.data["port"] == other.port
        assert paired.state("lock", "lock") == "locked"
    finally:
        await other.close()


async def test_the_next_certificate_is_announced_and_then_followed(paired):
    await paired.gateway.command("keys", "next")
    await until(lambda: paired.entry.data["next_fingerprint"])
    announced, before = paired.entry.data["next_fingerprint"], paired.entry.data["fingerprint"]
    await paired.gateway.command("keys", "switch")
    await paired.gateway.stop()
    await paired.find()
    assert before != paired.entry.data["fingerprint"] == announced
    assert paired.entry.data["next_fingerprint"] is None
    assert paired.state("lock", "lock") == "locked"


# ---- what was asked and not heard ----


def failing_once(method: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have the client's first such request fail, while the stream lives on; return what was asked."""
    real, asked = getattr(GatewayClient, method), []

    async def ask(client: GatewayClient, *what: Any) -> Any:
        asked.append(what)
        if len(asked) == 1:
            raise error
        return await real(client, *what)

    monkeypatch.setattr(GatewayClient, method, ask)
    return asked


@pytest.mark.parametrize(
    "error", [GatewayUnreachable("no answer"), GatewayRefused(429, "too_many_requests"), RuntimeError("a bug of ours")]
)
async def test_a_carrier_that_was_taken_away_is_so_at_the_gateway_although_a_request_was_lost(
    hass, paired, monkeypatch, error
):
    await paired.grant()
    asked = failing_once("put_policy", error, monkeypatch)
    issue = f"gateway_disagrees_{paired.entry.unique_id}"
    raised = async_capture_events(hass, ir.EVENT_REPAIRS_ISSUE_REGISTRY_UPDATED)  # it is soon taken back
    paired.site.change("Parcel Express", doors=[paired.site.door])
    await until(lambda: ("create", issue) in [(event.data["action"], event.data["issue_id"]) for event in raised])
    await until(lambda: len(asked) == 2)
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is None)
    assert not (await paired.entry.runtime_data.client.policy()).policy.carriers


async def test_a_lockdown_is_carried_again_if_it_was_lost_and_no_token_is_carried_meanwhile(paired, monkeypatch):
    await paired.grant()
    token = await paired.site.token(paired.doors[ROOM])
    asked = failing_once("lockdown", GatewayUnreachable("no connection"), monkeypatch)
    await paired.lock_down()
    assert (await paired.site.present(token))["code"] == "DOOR_UNAVAILABLE"
    await until(lambda: paired.state("switch", "lockdown", None) == "on")
    assert len(asked) == 2
    assert paired.gateway.movements == []
    with pytest.raises(HomeAssistantError, match="locked down"):
        await paired.call("switch", "turn_off", entity_id=paired.lockdown_of_the_gateway)


async def test_a_lockdown_that_the_gateway_refuses_is_asked_for_with_pauses(paired, monkeypatch):
    """What says that it is pending must not set it off again."""
    asked = []

    async def refuse(_: GatewayClient, *what: Any) -> Any:
        asked.append(what)
        raise GatewayRefused(429, "too_many_requests")

    monkeypatch.setattr(GatewayClient, "lockdown", refuse)
    await paired.lock_down()
    await until(lambda: len(asked) >= 2)
    await asyncio.sleep(1)
    assert len(asked) <= 12
    assert paired.hass.states.get(paired.lockdown_of_the_building).attributes["pending"] == ["Parcel room gateway"]


async def test_a_lockdown_holds_at_the_gateway_although_home_assistants_own_disk_fails(paired, monkeypatch):
    def full(*_: Any, **__: Any) -> Any:
        failed = paired.hass.loop.create_future()
        failed.set_exception(StoreFailed("the disk is full"))
        return failed

    monkeypatch.setattr(paired.site.embedded.journal, "append", full)
    with pytest.raises(HomeAssistantError):
        await paired.lock_down()
    await until(lambda: paired.state("switch", "lockdown", None) == "on")


async def test_a_gateway_that_was_away_when_home_assistant_started_is_pending_and_is_not_asked(
    hass, paired, hass_client_no_auth
):
    key = secrets.token_urlsafe(32)
    await paired.change_carrier(
        doors=[paired.site.door, *paired.doors.values()],
        intake_key_sha256=hashlib.sha256(key.encode()).hexdigest(),
    )
    client = await hass_client_no_auth()
    await paired.gateway.kill()
    assert not await hass.config_entries.async_reload(paired.entry.entry_id)
    assert paired.entry.state is ConfigEntryState.SETUP_RETRY
    url, headers = f"/api/vestibule/doors/{paired.doors[ROOM]}", {"Authorization": f"Bearer {key}"}
    for verb, body in (("challenge", ""), ("unlock", json.dumps({"token": "x"}))):
        assert (await client.post(f"{url}/{verb}", data=body, headers=headers)).status == 503
    with pytest.raises(HomeAssistantError, match="does not answer"):
        await paired.site.challenge(paired.doors[ROOM])
    await paired.lock_down()
    pending = hass.states.get(paired.lockdown_of_the_building).attributes["pending"]
    assert pending == ["Parcel room gateway"]


@pytest.mark.parametrize("expected_lingering_timers", [True])  # of aiohttp: a frame came while the socket was closed
async def test_a_bug_ends_no_following(paired, caplog):
    """Else the doors would be shown as they were for ever."""
    follower, once = paired.entry.runtime_data, [True]

    def stumble() -> None:
        if once:
            once.clear()
            raise RuntimeError("any bug of a listener")

    undo = follower.doors[paired.doors[ROOM]].on_state(stumble)
    with contextlib.suppress(HomeAssistantError):
        await paired.call("select", "select_option", entity_id=paired.entity("select", "mode"), option="blocked")
    await until(lambda: "A bug of Vestibule ends the connection" in caplog.text)
    await until(lambda: follower.is_there and paired.state("select", "mode") == "blocked")
    undo()
    await paired.lose()
    assert paired.state("lock", "lock") == "unavailable"


async def test_two_home_assistants_that_steer_one_gateway_do_not_wear_out_its_disk(hass, paired, monkeypatch):
    """A copy that was restored from a backup has the same bearer, and older carriers."""
    await paired.grant()
    follower = paired.entry.runtime_data
    issue = f"gateway_contested_{paired.entry.unique_id}"
    monkeypatch.setattr(agreement, "CONTESTED", (0.4, 0.8))
    versions = []
    for _ in range(4):
        view = await follower.client.policy()
        other = replace(view.policy, carriers=tuple(replace(each, name="Older") for each in view.policy.carriers))
        if view.policy != other:
            await follower.client.put_policy(view.version, other)
            versions.append(monotonic())
        await until(lambda before=view.version: follower.policy.version > before + 1)
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)
    assert versions[-1] - versions[0] > 0.4, "not as fast as the two can"


async def test_a_gateway_whose_clock_is_behind_tells_news_all_the_same(paired):
    follower, door = paired.entry.runtime_data, paired.doors[ROOM]
    at = dt_util.utcnow().timestamp() - 120
    event = AccessEvent(outcome=EventName.DOOR_FORCED_OPEN, door=door, at=at, sequence=follower._seen + 1)
    follower._take(Happened(event))
    await paired.settle()
    access = paired.hass.states.get(paired.entity("event", "access"))
    assert access.attributes["event_type"] == "door_forced_open"
    assert "late" not in paired.site.events[-1].data


async def test_what_is_old_when_the_gateway_is_met_again_sets_nothing_off(paired):
    follower, door = paired.entry.runtime_data, paired.doors[ROOM]
    at = dt_util.utcnow().timestamp() - 120
    follower._backlog = follower._seen + 1
    follower._take(
        Happened(AccessEvent(outcome=EventName.DOOR_FORCED_OPEN, door=door, at=at, sequence=follower._backlog))
    )
    await paired.settle()
    access = paired.hass.states.get(paired.entity("event", "access"))
    assert access.attributes.get("event_type") != "door_forced_open"
    assert paired.site.events[-1].data["late"] is True


async def test_a_gateway_that_is_on_offer_can_be_added_by_its_address_and_replace_another(hass, paired, tmp_path):
    """It announces itself all the time."""
    folder = tmp_path / "offered"
    folder.mkdir()
    other = await Gateway(folder).start()
    try:
        said = await other.command("status")
        gateway_id = next(word.strip(",") for word in said.split() if len(word.strip(",")) == 26)
        assert (await announce(hass, announced(gateway_id, other.port)))["step_id"] == "gateway_code"
        assert (await begin(hass, other))["step_id"] == "gateway_code"
        context = {"source": "reconfigure", "entry_id": paired.entry.entry_id}
        flow = await hass.config_entries.flow.async_init(DOMAIN, context=context)
        flow = await say(hass, flow, host="127.0.0.1", port=other.port)
        flow = await enter(hass, flow, await other.code("--trust"))
        assert flow["reason"] == "reconfigure_successful"
        await until(lambda: paired.entry.state is ConfigEntryState.LOADED and paired.entry.runtime_data.is_there)
        await paired.settle()
    finally:
        await other.close()


# ---- what is said ----


async def test_a_gateway_that_is_away_for_an_hour_is_a_repair(hass, paired, monkeypatch):
    issue = f"gateway_away_{paired.entry.unique_id}"
    await paired.lose()
    assert ir.async_get(hass).async_get_issue(DOMAIN, issue) is None
    monkeypatch.setattr(gateway_issues, "AWAY", 0.0)
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(minutes=4))
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)
    await paired.find()
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is None)


@pytest.mark.parametrize("end", ["it answers", "it is disabled", "it is removed"])
async def test_a_gateway_that_is_dead_when_home_assistant_starts_is_a_repair_after_an_hour(
    hass, paired, monkeypatch, end
):
    """Until it is back, or nobody expects it any more."""
    issue = f"gateway_away_{paired.entry.unique_id}"
    await paired.gateway.kill()
    assert not await hass.config_entries.async_reload(paired.entry.entry_id)
    assert paired.entry.state is ConfigEntryState.SETUP_RETRY
    for minutes in (5, 55):
        async_fire_time_changed(hass, dt_util.utcnow() + timedelta(minutes=minutes))  # and it is tried again and again
        await paired.settle()
        await until(lambda: paired.entry.state is ConfigEntryState.SETUP_RETRY)
        assert ir.async_get(hass).async_get_issue(DOMAIN, issue) is None
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(minutes=61))
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)
    await hass.config_entries.async_reload(paired.entry.entry_id)  # as when something announces itself in its name
    assert ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None
    if end == "it answers":
        await paired.gateway.start()
        await paired.is_set_up_again()
    elif end == "it is disabled":
        await hass.config_entries.async_set_disabled_by(paired.entry.entry_id, ConfigEntryDisabler.USER)
    else:
        await hass.config_entries.async_remove(paired.entry.entry_id)
    assert ir.async_get(hass).async_get_issue(DOMAIN, issue) is None


@pytest.fixture
async def confirm(hass: HomeAssistant, paired: Paired, hass_client: Any) -> Callable[[str], Awaitable[str]]:
    """Open a repair's form and press its button, as an administrator; return what comes of it."""
    assert await async_setup_component(hass, "repairs", {})
    client = await hass_client()

    async def confirm(issue: str) -> str:
        url = "/api/repairs/issues/fix"
        form = await (await client.post(url, json={"handler": DOMAIN, "issue_id": issue})).json()
        answer = await (await client.post(f"{url}/{form['flow_id']}", json={})).json()
        return answer.get("reason") or answer["type"]

    return confirm


async def test_a_gateway_that_was_restored_from_a_backup_says_so_until_an_administrator_knows(hass, paired, confirm):
    backup, state = paired.gateway.folder / "backup.tar", paired.gateway.folder / "state"
    assert "written" in await paired.gateway.command("backup", str(backup))
    await paired.gateway.stop()
    await until(lambda: not paired.entry.runtime_data.is_there)
    await hass.async_add_executor_job(shutil.rmtree, state)
    with tarfile.open(backup) as archive:
        archive.extractall(state, filter="data")
    await paired.find()
    issue = f"gateway_restored_{paired.entry.unique_id}"
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)
    assert await confirm(issue) == "create_entry"
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is None)
    await until(lambda: "restore_confirmed" in [event.data["outcome"] for event in paired.site.events])


async def test_a_gateways_clock_its_journal_and_a_tampered_door_are_repairs_while_they_are_so(
    hass, paired, confirm, monkeypatch
):
    """As it would tell of them."""
    monkeypatch.setattr(gateway_issues, "SETTLED", 6.0)
    follower, door = paired.entry.runtime_data, paired.doors[ROOM]
    standing = follower.standing

    def tell(**changes: Any) -> None:
        facts = {name: getattr(standing, name) for name in Standing.__dataclass_fields__} | changes
        follower._take(BuildingChanged(policy=follower.policy, next=None, **facts))

    def tampered(is_so: bool) -> None:
        described = follower.doors[door].described
        follower._take(DoorChanged(replace(described, state=replace(described.state, tampered=is_so))))

    def raised() -> set[str]:
        return {
            issue.issue_id.partition("_" + paired.entry.unique_id)[0] for issue in ir.async_get(hass).issues.values()
        }

    async def issues() -> set[str]:
        await paired.settle()
        return raised()

    tell(clock_trusted=False, journal_failed=True)
    tampered(True)
    assert await issues() == {"gateway_clock", "gateway_failed", f"tampered_{door}"}
    assert await confirm(f"gateway_clock_{paired.entry.unique_id}") == "create_entry"
    assert await confirm(f"tampered_{door}") == "create_entry"
    await until(lambda: "clock_confirmed" in [event.data["outcome"] for event in paired.site.events])
    assert await issues() == {"gateway_failed"}, "none flashes up again before the gateway has said that it is over"
    tell()
    tampered(False)
    await until(lambda: not raised(), 30)
    tampered(True)
    assert await issues() == {f"tampered_{door}"}
    await paired.lose()
    assert await issues() == {f"tampered_{door}"}, "nobody has looked at it meanwhile"
    assert await confirm(f"tampered_{door}") == "not_possible"


async def test_what_was_confirmed_and_is_so_all_the_same_is_raised_again(hass, paired, confirm):
    """An administrator confirms one receipt, and there is another one: the gateway stays disputed."""
    follower = paired.entry.runtime_data
    facts = {name: getattr(follower.standing, name) for name in Standing.__dataclass_fields__} | {"disputed": True}
    disputed = BuildingChanged(policy=follower.policy, next=None, **facts)
    issue = f"gateway_disputed_{paired.entry.unique_id}"
    follower._take(disputed)
    await paired.settle()
    assert await confirm(issue) == "create_entry"
    follower._take(disputed)
    await until(lambda: ir.async_get(hass).async_get_issue(DOMAIN, issue) is not None)


# ---- what a gateway says that it should not ----


async def test_a_certificate_that_the_gateway_has_not_signed_is_not_followed(paired, caplog):
    follower = paired.entry.runtime_data
    standing = {name: getattr(follower.standing, name) for name in Standing.__dataclass_fields__}
    stranger = SignerKey("somebody", Ed25519PrivateKey.generate())
    text = next_certificate_text(follower.id, bytes(32))
    for note in (stranger.sign(text), "no note"):
        follower._take(BuildingChanged(policy=follower.policy, next=NextCertificate(bytes(32), note), **standing))
    assert paired.entry.data["next_fingerprint"] is None
    assert caplog.text.count("announces a certificate that it has not signed") == 2


async def test_a_journal_that_has_become_shorter_is_said_and_followed_from_there(paired, caplog):
    """Whether that is a rollback is for people to find out; nothing is told twice meanwhile."""
    follower = paired.entry.runtime_data
    follower._seen = 10_000
    await paired.lose()
    await paired.find()
    assert "has fewer entries in its journal than it had" in caplog.text
    await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
    await until(lambda: "door_released" in paired.outcomes())


async def test_a_word_that_only_a_newer_gateway_knows_stops_nothing(paired, caplog):
    follower = paired.entry.runtime_data
    follower._take(Newer(follower._seen + 1))
    assert "tells of something that is new to this version of Vestibule" in caplog.text
    assert follower.is_there


async def test_nothing_secret_of_a_gateway_is_in_diagnostics_states_or_logs(hass, paired, caplog):
    caplog.set_level(logging.DEBUG)
    await paired.grant()
    await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
    facts = await async_get_config_entry_diagnostics(hass, paired.entry)
    assert facts["gateway"]["answers"] is True
    data = paired.entry.data
    everything = json.dumps(facts) + str([state.as_dict() for state in hass.states.async_all()]) + caplog.text
    for secret in (data["token"], data["fingerprint"], data["gateway_key"]):
        assert secret not in everything
    assert data["host"] not in json.dumps(facts)
