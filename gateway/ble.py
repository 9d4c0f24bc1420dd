"""A strike by plain bleak: this machine's own Bluetooth adapter, without Home Assistant.

One ``BleakRadio`` reaches one strike; the driver (vestibule_core/doorstrike/driver.py) does everything else. All that
bleak raises becomes a StrikeUnreachable here, by its type: what it says as text differs from system to system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakDeviceNotFoundError, BleakError

from vestibule_core.doorstrike.connection import GattLink
from vestibule_core.doorstrike.fragments import SMALLEST
from vestibule_core.doorstrike.wire import RX, TX
from vestibule_core.errors import StrikeUnreachable

PATIENCE: Final = 15.0
"""Seconds for an attempt to connect."""


class BleakRadio:
    """How one strike is reached."""

    def __init__(self, device: BLEDevice | str, *, backend: type[BaseBleakClient] | None = None) -> None:
        """``device``: one that a scan found, or its address, which is then looked for each time."""
        self.device = device
        self._backend = backend
        self._use_cache = True

    async def connect(self, lost: Callable[[], None]) -> GattLink:
        """Connect, and learn the services unless they are known; raise StrikeUnreachable."""
        client = BleakClient(self.device, lambda _: lost(), timeout=PATIENCE, backend=self._backend)
        link: BleakLink | None = None
        try:
            with _translated():
                await client.connect(dangerous_use_bleak_cache=self._use_cache)
            link = _link(client)
            # A firmware that has changed since has its handles elsewhere: then they are learned anew.
            self._use_cache = link is not None
        finally:
            if link is None:
                with suppress(StrikeUnreachable), _translated():
                    await client.disconnect()
        if link is None:
            raise StrikeUnreachable("it has not the service of a strike: if it is one, restart it")
        return link


class BleakLink:
    """One connection."""

    def __init__(self, client: BleakClient, rx: BleakGATTCharacteristic, tx: BleakGATTCharacteristic) -> None:
        """Take a client that is connected."""
        self._client, self._rx, self._tx = client, rx, tx

    @property
    def size(self) -> int:
        """Bytes of a write without response."""
        return max(SMALLEST, self._rx.max_write_without_response_size)

    async def subscribe(self, notified: Callable[[bytes], None]) -> None:
        """Turn notifications on; raise StrikeUnreachable."""

        def heard(_: Any, fragment: bytearray) -> None:
            notified(bytes(fragment))

        with _translated():
            await self._client.start_notify(self._tx, heard)

    async def write(self, fragment: bytes, *, with_response: bool) -> None:
        """Write to RX; raise StrikeUnreachable."""
        with _translated():
            await self._client.write_gatt_char(self._rx, fragment, response=with_response)

    async def close(self) -> None:
        """Disconnect."""
        with _translated():
            await self._client.disconnect()


def _link(client: BleakClient) -> BleakLink | None:
    rx, tx = (client.services.get_characteristic(uuid) for uuid in (RX, TX))
    return None if rx is None or tx is None else BleakLink(client, rx, tx)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BleakDeviceNotFoundError as err:
        raise StrikeUnreachable("it was not heard: is it in range, and has it power?") from err
    except TimeoutError as err:
        raise StrikeUnreachable("it did not answer in time: is it in range?") from err
    except (BleakError, OSError, EOFError) as err:
        raise StrikeUnreachable(f"Bluetooth failed: {err}") from err
