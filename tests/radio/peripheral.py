"""A plain GATT peripheral with the service that a door's strike has, and nothing behind it.

It is for the radio's own tests. What this module refuses to do: speak the strike's protocol. Run as
``python -m tests.radio.peripheral TRANSPORT ADDRESS`` it is one in a process of its own; it says ``ready``, then a line
for each write (``written 0102``), and answers each with a notification of the same bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Self

from bumble.att import ATT_Error, Attribute, AttributeValue, ErrorCode
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device, DeviceConfiguration
from bumble.gatt import Characteristic, Service
from bumble.hci import Address
from bumble.transport import open_transport

from .ether import Radio

SERVICE: Final = "cac00000-4afb-4df1-a811-ee3233c60005"
RX: Final = "cac00001-4afb-4df1-a811-ee3233c60005"
TX: Final = "cac00002-4afb-4df1-a811-ee3233c60005"
STRIKE_ID: Final = bytes.fromhex("a1b2c3d4e5f6")
INTERVAL: Final = 20.0
"""From advertisement to advertisement, in milliseconds: the shortest there is, so that tests do not wait."""


def advertisement(flags: int = 0, evt_seq: int = 0, strike_id: bytes = STRIKE_ID) -> bytes:
    """Return the 31 bytes that a strike advertises: flags and service data, exactly full."""
    of_service = bytes((1, flags)) + evt_seq.to_bytes(2, "little") + strike_id[:6]
    structures = [
        (AdvertisingData.Type.FLAGS, b"\6"),
        (AdvertisingData.Type.SERVICE_DATA_128_BIT_UUID, bytes(UUID(SERVICE)) + of_service),
    ]
    return bytes(AdvertisingData(structures))


def scan_response(name: str) -> bytes:
    """Return what it answers to a scan request: its service, and as much of its name as there is room for."""
    structures = [
        (AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(UUID(SERVICE))),
        (AdvertisingData.Type.COMPLETE_LOCAL_NAME, name.encode()[:11]),
    ]
    return bytes(AdvertisingData(structures))


class Peripheral:
    """A peripheral that keeps what is written to it. Use it in an ``async with``: it advertises from then on.

    ``on_radio`` is a radio in this process, or a Bumble device on any. ``mtu`` is the largest ATT MTU that it agrees
    to. ``written`` is what arrived at RX, with or without response.

    Verbs: ``notify``; ``advertise`` and ``stop_advertising``; ``refuse`` and ``accept`` say how it answers writes from
    now on; ``hang_up``; ``cut_power`` takes it off the radio.
    """

    def __init__(self, on_radio: Radio | Device, name: str, *, address: str | None = None, mtu: int = 247) -> None:
        self.radio = on_radio if isinstance(on_radio, Radio) else None
        self.device = on_radio.device(name, address) if isinstance(on_radio, Radio) else on_radio
        self.device.gatt_server.max_mtu = mtu
        self.name = name
        self.written: list[bytes] = []
        self.on_write: Callable[[bytes], None] = lambda _: None
        self._refusal: int | None = None
        self._tx: Characteristic[bytes] = Characteristic(TX, Characteristic.Properties.NOTIFY, Attribute.Permissions(0))
        rx: Characteristic[bytes] = Characteristic(
            RX,
            Characteristic.Properties.WRITE | Characteristic.Properties.WRITE_WITHOUT_RESPONSE,
            Attribute.Permissions.WRITEABLE,
            AttributeValue(write=self._on_write),
        )
        self.device.add_service(Service(SERVICE, [rx, self._tx]))

    async def __aenter__(self) -> Self:
        await self.device.power_on()
        await self.advertise()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.radio is not None:
            self.cut_power()

    @property
    def address(self) -> str:
        """Its address, ``AA:BB:CC:DD:EE:FF``."""
        return self.device.static_address.to_string(False)

    # ---- verbs ----

    async def advertise(self, flags: int = 0, evt_seq: int = 0) -> None:
        """Advertise, with these in the service data; whoever connects ends it, until the link is gone."""
        await self.device.start_advertising(
            auto_restart=True,
            advertising_data=advertisement(flags, evt_seq),
            scan_response_data=scan_response(self.name),
            advertising_interval_min=INTERVAL,
            advertising_interval_max=INTERVAL,
        )

    async def stop_advertising(self) -> None:
        """Advertise no more. Links stay."""
        await self.device.stop_advertising()

    async def notify(self, value: bytes) -> None:
        """Send ``value`` to whoever has subscribed to TX; what does not fit into the MTU is lost."""
        await self.device.notify_subscribers(self._tx, value)

    def refuse(self, code: int) -> None:
        """Answer writes with this ATT error, for example 0x0D."""
        self._refusal = code

    def accept(self) -> None:
        """Take what is written, as it does in the beginning."""
        self._refusal = None

    async def hang_up(self) -> None:
        """End its links."""
        for link in list(self.device.connections.values()):
            await link.disconnect()

    def cut_power(self) -> None:
        """Take it off the radio: its links are lost, and it is heard no more."""
        assert self.radio is not None, "It is on a radio elsewhere"
        self.radio.cut_power(self)

    def _on_write(self, _: Connection, value: bytes) -> None:
        if self._refusal is not None:
            raise ATT_Error(ErrorCode(self._refusal))
        self.written.append(value)
        self.on_write(value)


async def _run(transport_name: str, address: str) -> None:
    """Be one until the radio is gone."""
    async with await open_transport(transport_name) as (source, sink):
        config = DeviceConfiguration(name="peripheral", address=Address(address))
        device = Device.from_config_with_hci(config, source, sink)
        async with Peripheral(device, "peripheral") as peripheral, asyncio.TaskGroup() as answers:

            def on_write(value: bytes) -> None:
                print("written", value.hex(), flush=True)
                answers.create_task(peripheral.notify(value))

            peripheral.on_write = on_write
            print("ready", flush=True)
            await source.terminated


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
