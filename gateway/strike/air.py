"""The strike on a Bluetooth controller: its GATT service, its links and its advertisement (protocol B.1), on Bumble.

The only module that knows Bumble, apart from ``box``, which opens the transport. Links have numbers here that are never
used twice. What it refuses to do: know what the fragments say, and pair as an operating system does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bumble import smp
from bumble.att import ATT_Handle_Value_Notification, Attribute, AttributeValue
from bumble.core import UUID, AdvertisingData, BaseBumbleError
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service
from bumble.hci import HCI_ErrorCode, HCI_LE_Set_Advertising_Data_Command

from vestibule_core.doorstrike.wire import RX, SERVICE, TX, Advertisement

if TYPE_CHECKING:
    from .shell import Shell

INTERVAL: Final = 100.0
"""Milliseconds from advertisement to advertisement: a strike on mains power is to be found at once."""
POWER_ON: Final = 10.0
"""Seconds for a controller to answer at all."""
DRAIN: Final = 1.0
"""Seconds for what was still to be sent on a link that is let go."""
RETRY: Final = 5.0
"""Seconds after which a controller that refuses to advertise is asked again, unless a link ends before."""
ATT_HEADER: Final = 3
LONGEST_NAME: Final = 11
"""Bytes that the scan response has room for."""

_LOG: Final = logging.getLogger(__name__)


def address_of(strike_id: bytes) -> str:
    """Return the static random address of a strike: always the same one, whatever the Bluetooth controller is."""
    raw = bytearray(hashlib.sha256(b"DoorStrike/1 address" + strike_id).digest()[:6])
    raw[0] |= 0xC0
    return ":".join(f"{byte:02X}" for byte in raw)


def advertising_data(advertisement: Advertisement) -> bytes:
    """Return the 31 bytes of an advertisement."""
    structures = [
        (AdvertisingData.Type.FLAGS, b"\6"),
        (AdvertisingData.Type.SERVICE_DATA_128_BIT_UUID, bytes(UUID(SERVICE)) + advertisement.encode()),
    ]
    return bytes(AdvertisingData(structures))


def scan_response(name: str) -> bytes:
    """Return the service, and as much of the name as there is room for."""
    short = name.encode()[:LONGEST_NAME].decode(errors="ignore").encode()
    kind = AdvertisingData.Type
    structures = [
        (kind.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(UUID(SERVICE))),
        (kind.COMPLETE_LOCAL_NAME if short == name.encode() else kind.SHORTENED_LOCAL_NAME, short),
    ]
    return bytes(AdvertisingData(structures))


class BumbleAir:
    """The strike's end of the radio, on a Bumble device that is not powered on yet."""

    def __init__(self, device: Device, name: str) -> None:
        """Set the service up. ``start`` goes on the air."""
        self._device = device
        self._scan_response = scan_response(name)
        self._shell: Shell | None = None
        self._links: dict[Connection, int] = {}
        self._connections: dict[int, Connection] = {}
        self._count = 0
        self._wanted: Advertisement | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tx: Characteristic[bytes] = Characteristic(TX, Characteristic.Properties.NOTIFY, Attribute.Permissions(0))
        rx: Characteristic[bytes] = Characteristic(
            RX,
            Characteristic.Properties.WRITE | Characteristic.Properties.WRITE_WITHOUT_RESPONSE,
            Attribute.Permissions.WRITEABLE,
            AttributeValue(write=self._on_write),
        )
        self._tx.on(self._tx.EVENT_SUBSCRIPTION, self._on_subscription)
        device.add_service(Service(SERVICE, [rx, self._tx]))
        device.l2cap_channel_manager.register_fixed_channel(smp.SMP_CID, self._on_smp)
        device.on(device.EVENT_CONNECTION, self._on_connection)

    async def start(self, shell: Shell) -> None:
        """Power the controller on, and advertise what was last wanted; raise BaseBumbleError or TimeoutError."""
        self._shell = shell
        async with asyncio.timeout(POWER_ON):
            await self._device.power_on()
        self._spawn(self._keep_advertising())

    async def stop(self, *, lost: bool) -> None:
        """Leave the air; if the controller is ``lost``, without a word to it."""
        self._shell = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if lost or not self._device.powered_on:
            return
        with suppress(BaseBumbleError, TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._device.stop_advertising()
                for connection in list(self._connections.values()):
                    await connection.disconnect()
        await self._device.power_off()

    # ---- what the shell wants: the Air protocol ----

    def notify(self, link: int, fragments: Sequence[bytes]) -> None:
        """Send these to a link that may be gone."""
        if (connection := self._connections.get(link)) is not None:
            for fragment in fragments:
                # Bumble's own notify_subscriber is a coroutine; without a value to fetch it would do just this.
                pdu = ATT_Handle_Value_Notification(attribute_handle=self._tx.handle, attribute_value=fragment)
                self._device.gatt_server.send_gatt_pdu(connection, bytes(pdu))

    def hang_up(self, link: int) -> None:
        """Let go of a link, after what was to be sent on it."""
        if (connection := self._connections.get(link)) is not None:
            self._spawn(self._hang_up(connection))

    def hang_up_all(self) -> None:
        """Let go of every link."""
        for link in list(self._connections):
            self.hang_up(link)

    def advertise(self, advertisement: Advertisement | None) -> None:
        """Advertise this from now on; None: nothing."""
        self._wanted = advertisement
        self._wake.set()

    # ---- what happens on the radio ----

    def _on_connection(self, connection: Connection) -> None:
        if self._shell is None:
            return
        self._count += 1
        link = self._count
        self._links[connection], self._connections[link] = link, connection
        connection.on(connection.EVENT_DISCONNECTION, lambda _: self._on_disconnection(connection))
        _LOG.info("link up link=%d", link)
        self._shell.connected(link)
        self._wake.set()  # whoever connects ends the advertisement

    def _on_disconnection(self, connection: Connection) -> None:
        if (link := self._links.pop(connection, None)) is None:
            return
        del self._connections[link]
        _LOG.info("link down link=%d", link)
        if self._shell is not None:
            self._shell.disconnected(link)
        self._wake.set()

    def _on_subscription(self, connection: Connection, notify: bool, _: bool) -> None:
        # In the next turn, so that the answer to the subscription comes before the first notification.
        if notify and (link := self._links.get(connection)) is not None:
            asyncio.get_running_loop().call_soon(self._subscribed, connection, link)

    def _subscribed(self, connection: Connection, link: int) -> None:
        if self._shell is not None:
            self._shell.subscribed(link, connection.att_mtu - ATT_HEADER)

    def _on_write(self, connection: Connection, fragment: bytes) -> None:
        if self._shell is not None and (link := self._links.get(connection)) is not None:
            self._shell.fragment(link, fragment)

    def _on_smp(self, handle: int, pdu: bytes) -> None:
        """The links' keys are the protocol's own: whoever wants to pair or bond hears that it is not supported."""
        if pdu[:1] != bytes([smp.CommandCode.PAIRING_FAILED]):
            refusal = bytes([smp.CommandCode.PAIRING_FAILED, smp.ErrorCode.PAIRING_NOT_SUPPORTED])
            self._device.send_l2cap_pdu(handle, smp.SMP_CID, refusal)

    # ---- in the background ----

    async def _hang_up(self, connection: Connection) -> None:
        queue = self._device.host.get_data_packet_queue(connection.handle)
        with suppress(ValueError, TimeoutError):  # nothing was ever sent; the other end takes nothing any more
            async with asyncio.timeout(DRAIN):
                if queue is not None and queue.pending:
                    await queue.drain(connection.handle)
        if connection in self._links:
            with suppress(BaseBumbleError):  # it has just gone by itself
                await connection.disconnect(HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR)

    async def _keep_advertising(self) -> None:
        """Be on the air with what is wanted, also while links are up, as far as the controller can."""
        while True:
            self._wake.clear()
            try:
                await self._put_on_air()
                again = None
            except BaseBumbleError as err:
                _LOG.debug("advertising refused error=%s", err)
                again = RETRY
            with suppress(TimeoutError):
                async with asyncio.timeout(again):
                    await self._wake.wait()

    async def _put_on_air(self) -> None:
        device = self._device
        if self._wanted is None:
            await device.stop_advertising()
            return
        data = advertising_data(self._wanted)
        if (advertising := device.legacy_advertising_set) is not None:
            if data != device.advertising_data:
                await advertising.set_advertising_data(data)
                device.advertising_data = data
            if not advertising.enabled:
                await advertising.start()
        elif device.legacy_advertiser is not None:
            device.advertising_data = data
            await device.send_sync_command(HCI_LE_Set_Advertising_Data_Command(advertising_data=data))
        else:
            await device.start_advertising(
                advertising_data=data,
                scan_response_data=self._scan_response,
                advertising_interval_min=INTERVAL,
                advertising_interval_max=INTERVAL,
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
