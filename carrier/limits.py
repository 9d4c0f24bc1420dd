"""Limits: how often anybody may ask. Nobody can use up what a driver has.

Whoever has shown nothing that is known is counted by address; a device that has signed in and a dispatcher's key are
counted on their own, wherever they ask from: behind one address of a mobile network there may be thousands. What this
file refuses to do: tell an IPv6 address from its neighbours in the same /64, believe anybody but a proxy beside this
program about an address, or remember more than it was given room for.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Hashable, Iterable
from typing import Final

from aiohttp import hdrs, web

from vestibule_core.bucket import Buckets

STRANGER_PER_SECOND: Final = 1.0
STRANGER_BURST: Final = 60.0
"""Requests of one address without a session or a key that is known."""
DEVICE_PER_SECOND: Final = 2.0
DEVICE_BURST: Final = 60.0
WISH_PER_SECOND: Final = 0.2
WISH_BURST: Final = 12.0
"""Doors that one device may ask for: each is kept until the device has answered."""
KEY_PER_SECOND: Final = 50.0
KEY_BURST: Final = 200.0
ADDRESSES: Final = 10_000
"""Of addresses, devices and keys: how many are remembered."""


@functools.lru_cache(maxsize=ADDRESSES)
def network(host: str | None) -> str:
    """Return what counts as one address: of IPv6 the /64; without a known address, all are one."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def is_beside(host: str | None) -> bool:
    """Return whether an address is one that the public network has nobody at: a proxy in front of us may be there."""
    try:
        return ipaddress.ip_address((host or "").partition("%")[0]).is_private
    except ValueError:
        return False


def address_of(peer: str | None, forwarded: Iterable[str]) -> str:
    """Return who asks; ``forwarded``: each line of X-Forwarded-For, whose last part our own proxy has written.

    A proxy may add that part to the caller's line, or a line of its own behind it.
    """
    if (said := ",".join(forwarded)) and is_beside(peer):
        return network(said.rpartition(",")[2].strip())
    return network(peer)


def caller_of(request: web.BaseRequest) -> str:
    """Return who asks."""
    return address_of(request.remote, request.headers.getall(hdrs.X_FORWARDED_FOR, ()))


class Rates:
    """How often anybody may ask. Belongs to one event loop; each replica counts for itself."""

    def __init__(self) -> None:
        """Begin with everything allowed."""
        self._strangers: Buckets[Hashable] = Buckets(
            per_second=STRANGER_PER_SECOND, burst=STRANGER_BURST, most=ADDRESSES
        )
        self._devices: Buckets[Hashable] = Buckets(per_second=DEVICE_PER_SECOND, burst=DEVICE_BURST, most=ADDRESSES)
        self._wishes: Buckets[Hashable] = Buckets(per_second=WISH_PER_SECOND, burst=WISH_BURST, most=ADDRESSES)
        self._keys: Buckets[Hashable] = Buckets(per_second=KEY_PER_SECOND, burst=KEY_BURST, most=ADDRESSES)

    def stranger_may(self, address: str, now: float) -> bool:
        """Count a request of an address."""
        return self._strangers.take(address, now)

    def device_may(self, device: str, now: float) -> bool:
        """Count a request of a device that has signed in."""
        return self._devices.take(device, now)

    def may_wish(self, device: str, now: float) -> bool:
        """Count a door that a device asks for."""
        return self._wishes.take(device, now)

    def key_may(self, key: str, now: float) -> bool:
        """Count a request with a dispatcher's key."""
        return self._keys.take(key, now)
