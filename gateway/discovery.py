"""The gateway's announcement in the local network (mDNS): ``_vestibule._tcp.local.`` with id, v and pair.

Hints, and nothing more: a client knows the gateway by its certificate. The gateway works without it; while there is no
network it is tried again each minute, and addresses that change are announced anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from vestibule_core.api.messages import GatewayId

from .log import say

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

_LOGGER = logging.getLogger(__name__)

SERVICE: Final = "_vestibule._tcp.local."
PROTOCOL: Final = "1"
LOOK_EVERY: Final = 60.0
"""Seconds after which addresses that have changed are noticed."""
_PATIENCE: Final = 2.0
"""Seconds to say goodbye."""


def local_name(gateway: GatewayId) -> str:
    """Return the gateway's own name in the local network."""
    return f"vestibule-{gateway}.local"


class Announcement:
    """Says where the gateway is, for as long as ``run`` is awaited."""

    def __init__(self, gateway: GatewayId, port: int, addresses: Sequence[str]) -> None:
        """``addresses``: those to be found at, and the interfaces to say it on; none: all that the machine has."""
        self._id, self._port, self._addresses = gateway, port, tuple(addresses)
        self._pair = False
        self._changed = asyncio.Event()
        self._zeroconf: AsyncZeroconf | None = None
        self._said: tuple[tuple[str, ...], bool] | None = None
        self._failed = False

    def pairing(self, is_open: bool) -> None:
        """Say from now on that a client can be paired, or cannot."""
        self._pair = is_open
        self._changed.set()

    async def run(self) -> None:
        """Announce until cancelled, and take it back then."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._bring_in_line()
                    self._failed = False
                except OSError as err:
                    await self._withdraw()
                    if not self._failed:
                        say(_LOGGER, logging.WARNING, "announcement_failed", error=str(err), retry_in=LOOK_EVERY)
                    self._failed = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._changed.wait()
        finally:
            await self._withdraw()

    async def _bring_in_line(self) -> None:
        wanted = self._addresses or await asyncio.to_thread(_own_addresses), self._pair
        if self._said == wanted:
            return
        # Taken back and said anew: a listener that heard another word in between may take the same word for an old one.
        await self._withdraw()
        await self._announce(*wanted)
        self._said = wanted

    async def _announce(self, addresses: tuple[str, ...], pair: bool) -> None:
        from zeroconf import InterfaceChoice
        from zeroconf.asyncio import AsyncZeroconf

        interfaces: Any = list(self._addresses) or InterfaceChoice.All
        self._zeroconf = AsyncZeroconf(interfaces=interfaces)
        # Without asking whether the name is taken: it is an id, and nobody who says otherwise keeps us from saying it.
        service = self._service(addresses, pair)
        await (await self._zeroconf.async_register_service(service, cooperating_responders=True))

    def _service(self, addresses: tuple[str, ...], pair: bool) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        return AsyncServiceInfo(
            SERVICE,
            f"{self._id}.{SERVICE}",
            port=self._port,
            properties={"id": self._id, "v": PROTOCOL, "pair": "1" if pair else "0"},
            server=f"{local_name(self._id)}.",
            parsed_addresses=list(addresses),
        )

    async def _withdraw(self) -> None:
        zeroconf, self._zeroconf, self._said = self._zeroconf, None, None
        if zeroconf is not None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_PATIENCE):
                    await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()


def _own_addresses() -> tuple[str, ...]:
    """Return the addresses of this machine that others can reach, IPv4 first."""
    import ifaddr

    found = {ip.ip[0] if isinstance(ip.ip, tuple) else ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips}
    parsed = [ipaddress.ip_address(text) for text in found]
    usable = [ip for ip in parsed if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)]
    return tuple(str(ip) for ip in sorted(usable, key=lambda ip: (ip.version, int(ip))))
