"""The Bluetooth adapter of a computer: a bleak backend, client and scanner, on a Bumble device.

It behaves as BlueZ does where a caller depends on it: a connection waits for an advertisement and holds up nobody else
meanwhile, the MTU is negotiated, services are discovered anew unless the caller wants the cache, a lost link ends every
call under way, a refusal is a ``BleakGATTProtocolError``. What this module refuses to do: pair, import anything of
Home Assistant, or know of the radio behind the device, which may be a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, override

import bleak
from bleak.assigned_numbers import gatt_char_props_to_strs
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bleak.uuids import normalize_uuid_str
from bumble import att, core
from bumble.core import UUID, AdvertisingData
from bumble.device import Advertisement, Connection, Device, Peer
from bumble.hci import Address, HCI_Error, HCI_LE_Create_Connection_Cancel_Command

NAME: Final = "virtual_radio"
LARGEST_MTU: Final = 247
ATT_HEADER: Final = 3
_CCCD: Final = "00002902-0000-1000-8000-00805f9b34fb"
_PATIENCE: Final = 2.0
"""How long a connection may take once its advertisement was heard, in seconds, as in Linux."""
_ABORTED: Final = "le-connection-abort-by-local"
"""What BlueZ says of a link that was lost before it could be used; bleak-retry-connector knows it as transient."""

type Heard = Callable[[Advertisement], None]


# ---- the adapter ----------------------------------------------------------------------------------------------------


class Adapter:
    """One Bluetooth adapter, shared by any number of scanners and clients. Use it in an ``async with``.

    ``mtu`` is the largest ATT MTU it offers (23 to 517), ``slots`` how many links it can have at a time; ``active``
    scanners ask for scan responses.

    ``BleakClient(device, backend=adapter.client_class)`` and ``BleakScanner(callback, backend=adapter.scanner_class)``
    use it; code that must not know runs inside ``as_platform_backend()``.
    """

    def __init__(self, device: Device, *, mtu: int = LARGEST_MTU, slots: int = 3, active: bool = True) -> None:
        self.device = device
        self.mtu = mtu
        self.slots = slots
        self.taken: set[str] = set()
        """The addresses that have a slot: connected or being connected to."""
        self.services_cache: dict[str, tuple[_Service, ...]] = {}
        self.client_class: type[RadioClient] = type("VirtualRadioClient", (RadioClient,), {"adapter": self})
        self.scanner_class: type[RadioScanner] = type("VirtualRadioScanner", (RadioScanner,), {"adapter": self})
        self.slots_changed: Callable[[], None] = lambda: None
        self.active = active
        self._listeners: list[Heard] = []
        self._addresses: dict[str, Address] = {}
        self._connecting = asyncio.Lock()
        self._on = False
        device.host.on("advertising_report", self._on_report)
        device.on(device.EVENT_FLUSH, self._on_gone)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Switch it on. It scans from now on."""
        await self.device.power_on()
        await self.device.start_scanning(active=self.active, filter_duplicates=False)
        self._on = True

    async def stop(self) -> None:
        """Switch it off, which ends its links; nothing happens if the controller is gone already."""
        if self._on:
            for link in list(self.device.connections.values()):
                await link.disconnect()
            await self.device.stop_scanning()
            await self.device.power_off()

    @property
    def name(self) -> str:
        """What the radio knows it by."""
        return self.device.name

    @property
    def address(self) -> str:
        """Its own address, ``AA:BB:CC:DD:EE:FF``."""
        return self.device.static_address.to_string(False)

    @property
    def free_slots(self) -> int:
        """How many links it could have in addition."""
        return self.slots - len(self.taken)

    @contextlib.contextmanager
    def as_platform_backend(self) -> Iterator[None]:
        """Let code that says ``BleakClient(device)`` or ``BleakScanner()`` use this adapter meanwhile."""
        place: Any = bleak
        saved = place.get_platform_client_backend_type, place.get_platform_scanner_backend_type
        place.get_platform_client_backend_type = lambda: (self.client_class, NAME)
        place.get_platform_scanner_backend_type = lambda: (self.scanner_class, NAME)
        try:
            yield
        finally:
            place.get_platform_client_backend_type, place.get_platform_scanner_backend_type = saved

    def _on_gone(self) -> None:
        self._on = False

    # ---- scanning ----

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Call ``heard`` for each advertisement and scan response; return what ends that."""
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard)

    async def hear(self, address: str) -> Advertisement:
        """Wait for the next advertisement of ``address``."""
        address = address.upper()
        next_one: asyncio.Future[Advertisement] = asyncio.get_running_loop().create_future()

        def heard(advertisement: Advertisement) -> None:
            if (
                advertisement.address.to_string(False) == address
                and advertisement.is_connectable
                and not next_one.done()
            ):
                next_one.set_result(advertisement)

        stop = self.listen(heard)
        try:
            return await next_one
        finally:
            stop()

    async def find(self, address: str) -> BLEDevice:
        """Wait for an advertisement of ``address`` and return it as bleak's device."""
        advertisement = await self.hear(address)
        name = advertisement.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME)
        return BLEDevice(address.upper(), name if isinstance(name, str) else None, {"source": self.address})

    def _on_report(self, report: Any) -> None:
        if (advertisement := Advertisement.from_advertising_report(report)) is not None:
            self._addresses[advertisement.address.to_string(False)] = advertisement.address
            for heard in list(self._listeners):
                heard(advertisement)

    # ---- links ----

    def forget_services(self) -> None:
        """Make the next connection to anybody a cold one."""
        self.services_cache.clear()

    async def connect(self, address: str, timeout: float) -> Connection:
        """Connect to who was heard as ``address``; who disconnects frees the slot.

        Raises BleakError when there is no slot, BleakDeviceNotFoundError when it was never heard, and TimeoutError
        after ``timeout`` seconds.
        """
        address = address.upper()
        if (peer := self._addresses.get(address)) is None:
            raise BleakDeviceNotFoundError(address, f"Device with address {address} was not found")
        if address in self.taken:
            raise BleakError(f"{address} is connected already, or about to be")
        if self.free_slots <= 0:
            raise BleakError("No free connection slot")
        self._take(address)
        try:
            async with asyncio.timeout(timeout):
                link = await self._connect(address, peer)
        except BaseException:
            self._free(address)
            raise
        link.on(link.EVENT_DISCONNECTION, lambda _: self._free(address))
        return link

    async def _connect(self, address: str, peer: Address) -> Connection:
        while True:
            # Linux scans for all who are wanted and connects to whom it hears: who is away holds up nobody.
            await self.hear(address)
            async with self._connecting:
                attempt = asyncio.ensure_future(self.device.connect(peer, timeout=_PATIENCE))
                try:
                    await asyncio.wait({attempt})  # not a shield: that tells the loop of an attempt that was given up
                    link = attempt.result()
                except core.TimeoutError:
                    continue
                except core.BaseBumbleError as err:
                    raise BleakError(_ABORTED) from err
                except asyncio.CancelledError:
                    await self._abandon(attempt)
                    raise
            if self.device.connections.get(link.handle) is not link:
                raise BleakError(_ABORTED)  # lost before we got round to look
            return link

    async def _abandon(self, attempt: asyncio.Future[Connection]) -> None:
        """Give up an attempt to connect, which Bumble itself would let go on."""
        with contextlib.suppress(HCI_Error):  # it has come about already
            await self.device.send_sync_command(HCI_LE_Create_Connection_Cancel_Command())
        with contextlib.suppress(core.BaseBumbleError):
            await (await attempt).disconnect()

    def _take(self, address: str) -> None:
        self.taken.add(address)
        self.slots_changed()

    def _free(self, address: str) -> None:
        self.taken.discard(address)
        self.slots_changed()


# ---- bleak's client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Characteristic:
    handle: int
    uuid: str
    properties: int
    descriptors: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class _Service:
    handle: int
    uuid: str
    characteristics: tuple[_Characteristic, ...]


def _uuid(uuid: UUID) -> str:
    return normalize_uuid_str(uuid.to_hex_str("-"))


class RadioClient(BaseBleakClient):
    """bleak's client on an ``Adapter``."""

    adapter: ClassVar[Adapter]

    def __init__(self, address_or_ble_device: BLEDevice | str, **kwargs: Any) -> None:
        kwargs.setdefault("timeout", 30.0)
        super().__init__(address_or_ble_device, **kwargs)
        self._name = getattr(address_or_ble_device, "name", None)
        self._link: Connection | None = None
        self._peer: Peer | None = None
        self._lost: asyncio.Future[None] | None = None
        self._subscribed: set[int] = set()
        self._under_way: set[asyncio.Task[Any]] = set()

    @property
    @override
    def name(self) -> str:
        return self._name or self.address.replace(":", "-")

    @property
    @override
    def mtu_size(self) -> int:
        return att.ATT_DEFAULT_MTU if self._peer is None else self._peer.gatt_client.mtu

    @property
    @override
    def is_connected(self) -> bool:
        return self._link is not None

    # ---- the link ----

    @override
    async def connect(
        self, pair: bool, dangerous_use_bleak_cache: bool = False, timeout: float | None = None, **_: Any
    ) -> None:
        """Connect and learn the services, from the cache if the caller wants that and they are in it.

        Raises TimeoutError (seconds), BleakError when the link is lost meanwhile or there is no slot.
        """
        if pair:
            raise NotImplementedError("This adapter does not pair.")
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                await self._connect(use_cache=dangerous_use_bleak_cache)
        except TimeoutError:
            raise TimeoutError(f"{self.address} did not answer in time") from None

    async def _connect(self, *, use_cache: bool) -> None:
        link = await self.adapter.connect(self.address, timeout=3600)  # the caller has the deadline
        self._link, self._peer = link, Peer(link)
        self._lost = asyncio.get_running_loop().create_future()
        link.on(link.EVENT_DISCONNECTION, self._on_lost)
        try:
            with self._aborted_if_lost():
                await self._procedure(self._peer.request_mtu(self.adapter.mtu))
                services = self.adapter.services_cache.get(self.address.upper()) if use_cache else None
                if services is None:
                    services = await self._procedure(_discover(self._peer))
            self.adapter.services_cache[self.address.upper()] = services
            self.services = self._collection(services)
        except BaseException:
            await self.disconnect()
            raise

    @contextlib.contextmanager
    def _aborted_if_lost(self) -> Iterator[None]:
        try:
            yield
        except BleakError as err:
            if self._link is None:
                raise BleakError(_ABORTED) from err
            raise

    def _on_lost(self, _: int) -> None:
        assert self._lost is not None
        self._lost.set_result(None)
        for task in self._under_way:
            task.cancel()  # one whose caller has gone would wait for its answer until Bumble gives it up
        self._link = self._peer = None
        self.services = None
        self._subscribed.clear()
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    @override
    async def disconnect(self) -> None:
        if (link := self._link) is not None:
            with contextlib.suppress(core.BaseBumbleError):
                await link.disconnect()

    @override
    async def pair(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("This adapter does not pair.")

    @override
    async def unpair(self) -> None:
        raise NotImplementedError("This adapter does not pair.")

    async def clear_cache(self) -> bool:
        """Forget the services, as bleak-retry-connector asks for when they seem to have changed."""
        self.adapter.services_cache.pop(self.address.upper(), None)
        return True

    def _collection(self, services: tuple[_Service, ...]) -> BleakGATTServiceCollection:
        collection = BleakGATTServiceCollection()
        for service in services:
            of = BleakGATTService(None, service.handle, service.uuid)
            collection.add_service(of)
            for found in service.characteristics:
                properties = list(gatt_char_props_to_strs(found.properties))
                characteristic = BleakGATTCharacteristic(
                    None, found.handle, found.uuid, properties, lambda: self.mtu_size - ATT_HEADER, of
                )
                collection.add_characteristic(characteristic)
                for handle, uuid in found.descriptors:
                    collection.add_descriptor(BleakGATTDescriptor(None, handle, uuid, characteristic))
        return collection

    # ---- GATT ----

    async def _procedure[T](self, procedure: Coroutine[Any, Any, T]) -> T:
        """Return what came of a GATT procedure. Raises BleakError when it was refused or the link was lost."""
        if self._link is None or self._lost is None:
            procedure.close()
            raise BleakError("Not connected")
        # It goes on when the caller is cancelled: ATT has to wait for the answer before it may ask anything else.
        task = asyncio.create_task(procedure)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(_take_note)
        either: set[asyncio.Future[Any]] = {task, self._lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise BleakError("Disconnected")
        try:
            return task.result()
        except att.ATT_Error as err:
            raise BleakGATTProtocolError(err.error_code) from err
        except core.BaseBumbleError as err:
            raise BleakError(str(err)) from err
        except asyncio.CancelledError:
            raise BleakError("Disconnected") from None  # Bumble cancels what waits for an answer

    def _gatt(self) -> Any:
        if self._peer is None:
            raise BleakError("Not connected")
        return self._peer.gatt_client

    @override
    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **_: Any
    ) -> bytearray:
        return bytearray(await self._procedure(self._gatt().read_value(characteristic.handle)))

    @override
    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **_: Any
    ) -> bytearray:
        return bytearray(await self._procedure(self._gatt().read_value(descriptor.handle)))

    @override
    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: Any, response: bool) -> None:
        if ("write" if response else "write-without-response") not in characteristic.properties:
            raise BleakError("Operation is not supported")
        if not response and len(data) > characteristic.max_write_without_response_size:
            raise BleakError("Too long for a write without response")
        await self._procedure(self._gatt().write_value(characteristic.handle, bytes(data), with_response=response))

    @override
    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: Any) -> None:
        await self._procedure(self._gatt().write_value(descriptor.handle, bytes(data), with_response=True))

    @override
    async def start_notify(self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **_: Any) -> None:
        handle, cccd = characteristic.handle, characteristic.get_descriptor(_CCCD)
        if "notify" not in characteristic.properties or cccd is None:
            raise BleakError("Operation is not supported")
        if handle in self._subscribed:
            raise BleakError("Notifications are on already")
        # Before the CCCD is written: the first notification may come with the response.
        self._gatt().notification_subscribers[handle] = {lambda value: callback(bytearray(value))}
        self._subscribed.add(handle)
        try:
            await self.write_gatt_descriptor(cccd, b"\1\0")
        except BaseException:
            self._unsubscribe(handle)
            raise

    @override
    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        if characteristic.handle in self._subscribed:
            cccd = characteristic.get_descriptor(_CCCD)
            assert cccd is not None
            await self.write_gatt_descriptor(cccd, b"\0\0")
            self._unsubscribe(characteristic.handle)

    def _unsubscribe(self, handle: int) -> None:
        self._subscribed.discard(handle)
        if self._peer is not None:
            self._peer.gatt_client.notification_subscribers.pop(handle, None)


def _take_note(task: asyncio.Task[Any]) -> None:
    """Nobody may be left to hear how it ended."""
    if not task.cancelled():
        task.exception()


async def _discover(peer: Peer) -> tuple[_Service, ...]:
    """Ask for everything, service by service, as an ESP32 does; BlueZ gets along with less."""
    found = []
    for service in await peer.discover_services():
        characteristics = []
        for characteristic in await service.discover_characteristics():
            descriptors = [(d.handle, _uuid(d.type)) for d in await characteristic.discover_descriptors()]
            characteristics.append(
                _Characteristic(
                    characteristic.handle,
                    _uuid(characteristic.uuid),
                    int(characteristic.properties),
                    tuple(descriptors),
                )
            )
        found.append(_Service(service.handle, _uuid(service.uuid), tuple(characteristics)))
    return tuple(found)


# ---- bleak's scanner ------------------------------------------------------------------------------------------------


def advertisement_data(raw: bytes, rssi: int) -> AdvertisementData:
    """Return an advertisement and what belongs to it as bleak tells of it."""
    name: str | None = None
    uuids: list[str] = []
    of_services: dict[str, bytes] = {}
    of_manufacturers: dict[int, bytes] = {}
    power: int | None = None
    for kind, data in AdvertisingData.from_bytes(raw).ad_structures:
        if kind in _UUID_LISTS:
            size = _UUID_LISTS[kind]
            uuids += [_uuid(UUID.from_bytes(data[i : i + size])) for i in range(0, len(data) - size + 1, size)]
        elif kind in _SERVICE_DATA:
            size = _SERVICE_DATA[kind]
            of_services[_uuid(UUID.from_bytes(data[:size]))] = data[size:]
        elif kind in (AdvertisingData.Type.COMPLETE_LOCAL_NAME, AdvertisingData.Type.SHORTENED_LOCAL_NAME):
            name = data.decode("utf-8", "replace")
        elif kind == AdvertisingData.Type.MANUFACTURER_SPECIFIC_DATA:
            of_manufacturers[int.from_bytes(data[:2], "little")] = data[2:]
        elif kind == AdvertisingData.Type.TX_POWER_LEVEL:
            power = int.from_bytes(data[:1], "little", signed=True)
    return AdvertisementData(name, of_manufacturers, of_services, uuids, power, rssi, ())


_UUID_LISTS: Final = {2: 2, 3: 2, 4: 4, 5: 4, 6: 16, 7: 16}
_SERVICE_DATA: Final = {0x16: 2, 0x20: 4, 0x21: 16}


class RadioScanner(BaseBleakScanner):
    """bleak's scanner on an ``Adapter``: what is heard of a device adds up, as in BlueZ."""

    adapter: ClassVar[Adapter]

    def __init__(
        self, detection_callback: Any, service_uuids: list[str] | None, scanning_mode: str = "active", **_: Any
    ) -> None:
        super().__init__(detection_callback, service_uuids)
        self._said: dict[str, dict[bool, bytes]] = {}
        self._stop: Callable[[], None] | None = None

    @override
    async def start(self) -> None:
        self.seen_devices = {}
        self._stop = self.adapter.listen(self._on_heard)

    @override
    async def stop(self) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _on_heard(self, heard: Advertisement) -> None:
        address = heard.address.to_string(False)
        said = self._said.setdefault(address, {})
        said[heard.is_scan_response] = heard.data_bytes
        everything = said.get(False, b"") + said.get(True, b"")
        told = advertisement_data(everything, heard.rssi)
        if self.is_allowed_uuid(told.service_uuids):
            details = {"source": self.adapter.address}
            device = self.create_or_update_device(address, address, told.local_name, details, told)
            self.call_detection_callbacks(device, told)
