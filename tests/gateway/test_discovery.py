"""The announcement in the local network, heard with a browser of its own on the loopback interface."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from gateway import discovery
from gateway.discovery import SERVICE, Announcement, local_name
from tests.gateway.process import Command, gateway_process, network, write_config
from vestibule_core.api.client import pair
from vestibule_core.api.messages import new_gateway_id

LOOPBACK = "127.0.0.1"
GATEWAY = new_gateway_id(os.urandom(16))
"""Another one in each process: tests that run at the same time hear each other."""


class Listener:
    """Who looks for gateways, as Home Assistant does."""

    def __init__(self) -> None:
        self.zeroconf = AsyncZeroconf(interfaces=[LOOPBACK])
        self.gone: set[str] = set()
        self._browser = AsyncServiceBrowser(self.zeroconf.zeroconf, SERVICE, handlers=[self._heard])

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self.gone.add(name)

    async def info(self, gateway: str) -> AsyncServiceInfo | None:
        info = AsyncServiceInfo(SERVICE, f"{gateway}.{SERVICE}")
        return info if await info.async_request(self.zeroconf.zeroconf, 200) else None

    async def addresses(self, gateway: str) -> list[str]:
        info = await self.info(gateway)
        return [] if info is None else info.parsed_addresses()

    async def until(self, gateway: str, **wanted: str) -> AsyncServiceInfo:
        """Return what is announced once it says what is wanted."""
        async with asyncio.timeout(20):
            while True:
                info = await self.info(gateway)
                if info is not None and wanted.items() <= said(info).items():
                    return info
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._browser.async_cancel()
        await self.zeroconf.async_close()


def said(info: AsyncServiceInfo) -> dict[str, str | None]:
    return {name.decode(): None if text is None else text.decode() for name, text in info.properties.items()}


@pytest.fixture
async def listener() -> AsyncGenerator[Listener]:
    listener = Listener()
    yield listener
    await listener.close()


@asynccontextmanager
async def announced(announcement: Announcement) -> AsyncGenerator[None]:
    running = asyncio.create_task(announcement.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_gateway_is_found_with_its_id_and_nothing_about_itself(listener):
    """Not its name, not its doors: whoever is in the network can hear it."""
    async with announced(Announcement(GATEWAY, 7443, [LOOPBACK])):
        info = await listener.until(GATEWAY)
        assert said(info) == {"id": GATEWAY, "v": "1", "pair": "0"}
        assert (info.port, info.parsed_addresses()) == (7443, [LOOPBACK])
        assert info.server == f"{local_name(GATEWAY)}."


async def test_an_open_window_is_announced_until_it_closes(listener):
    announcement = Announcement(GATEWAY, 7443, [LOOPBACK])
    async with announced(announcement):
        await listener.until(GATEWAY, pair="0")
        announcement.pairing(True)
        await listener.until(GATEWAY, pair="1")
        announcement.pairing(False)
        await listener.until(GATEWAY, pair="0")


async def test_a_gateway_that_stops_says_so(listener):
    async with announced(Announcement(GATEWAY, 7443, [LOOPBACK])):
        await listener.until(GATEWAY)
    async with asyncio.timeout(10):
        while f"{GATEWAY}.{SERVICE}" not in listener.gone:  # noqa: ASYNC110 - heard in a callback
            await asyncio.sleep(0.05)


async def test_addresses_that_change_are_announced_anew(listener, monkeypatch):
    """A lease that ran out. Looked at without addresses of its own given, on the loopback interface all the same."""
    addresses = ["192.0.2.7"]
    real = AsyncZeroconf.__init__
    monkeypatch.setattr(discovery, "_own_addresses", lambda: tuple(addresses))
    monkeypatch.setattr(discovery, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(AsyncZeroconf, "__init__", lambda self, interfaces: real(self, interfaces=[LOOPBACK]))
    async with announced(Announcement(GATEWAY, 7443, [])):
        assert (await listener.until(GATEWAY)).parsed_addresses() == ["192.0.2.7"]
        addresses[:] = ["192.0.2.8"]
        async with asyncio.timeout(20):
            while await listener.addresses(GATEWAY) != ["192.0.2.8"]:  # noqa: ASYNC110 - each is a question
                await asyncio.sleep(0.05)


async def test_without_a_network_it_is_tried_again(listener, monkeypatch, caplog):
    """At the boot of the machine. It is said once, not each minute."""
    tries: list[Any] = []
    real = AsyncZeroconf.__init__

    def fails(self: AsyncZeroconf, interfaces: Any) -> None:
        tries.append(interfaces)
        if len(tries) < 4:
            raise OSError(19, "No such device")
        real(self, interfaces=interfaces)

    monkeypatch.setattr(AsyncZeroconf, "__init__", fails)
    monkeypatch.setattr(discovery, "LOOK_EVERY", 0.05)
    async with announced(Announcement(GATEWAY, 7443, [LOOPBACK])):
        await listener.until(GATEWAY)
    assert [record.getMessage() for record in caplog.records if record.name == "gateway.discovery"] == [
        "announcement_failed"
    ]


def test_only_addresses_that_others_can_reach_are_announced():
    assert not {LOOPBACK, "::1"} & set(discovery._own_addresses())
    assert not [address for address in discovery._own_addresses() if address.startswith(("fe80:", "169.254."))]


async def test_the_process_is_found_and_its_window_is_seen(tmp_path, listener):
    async with gateway_process(write_config(tmp_path, announce=True)) as gateway, network() as session:
        status, said_keys = await gateway.command("keys")
        assert status == 0
        gateway_id = said_keys.split()[1]
        info = await listener.until(gateway_id, pair="0")
        assert info.port == gateway.port
        window = await Command.start("pair", "--config", gateway.config)
        code = (await window.until("code")).split()[-1]
        await listener.until(gateway_id, pair="1")
        await pair(session, LOOPBACK, gateway.port, code, "Home Assistant")
        await listener.until(gateway_id, pair="0")
        assert await window.ends() == 0
