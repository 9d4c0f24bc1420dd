"""An ESPHome Bluetooth proxy: the native API on one side, an adapter of the virtual radio on the other.

Home Assistant's stock ``esphome`` integration, bleak-esphome and aioesphomeapi work with it unchanged. It does what the
firmware does as far as a caller can tell: raw adverts, a few slots, services kept by the client, a CCCD that the client
writes, an answer to each write (to those without response, too), errors as numbers. What this module refuses to do:
encryption, and anything that is not Bluetooth.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from aioesphomeapi import BluetoothProxyFeature, api_pb2
from aioesphomeapi.core import MESSAGE_TYPE_TO_PROTO
from bleak.exc import BleakError
from bumble import att, core
from bumble.core import UUID
from bumble.device import Advertisement, Peer
from bumble.gatt_client import Client as GattClient

from .ether import LOOPBACK
from .virtual_radio.adapter import Adapter

pb: Any = api_pb2  # made at run time, out of a description

FEATURES: Final = (
    BluetoothProxyFeature.PASSIVE_SCAN
    | BluetoothProxyFeature.ACTIVE_CONNECTIONS
    | BluetoothProxyFeature.REMOTE_CACHING
    | BluetoothProxyFeature.CACHE_CLEARING
    | BluetoothProxyFeature.RAW_ADVERTISEMENTS
)
CONNECT_TIMEOUT: Final = 20.0
"""Seconds after which the firmware gives up."""
GATT_ERROR: Final = 133
"""ESP_GATT_ERROR: what the firmware says of a connection that did not come about."""
NOT_CONNECTED: Final = -1

_TYPES: Final = {kind.__name__: number for number, kind in MESSAGE_TYPE_TO_PROTO.items()}
_CONNECT: Final = {
    pb.BLUETOOTH_DEVICE_REQUEST_TYPE_CONNECT_V3_WITH_CACHE,
    pb.BLUETOOTH_DEVICE_REQUEST_TYPE_CONNECT_V3_WITHOUT_CACHE,
}


def _number(address: str) -> int:
    return int(address.replace(":", ""), 16)


def _address(number: int) -> str:
    return number.to_bytes(6).hex(":").upper()


def _words(of: UUID) -> list[int]:
    number = uuid.UUID(bytes=bytes(reversed(of.to_bytes(force_128=True)))).int
    return [number >> 64, number & (1 << 64) - 1]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class EsphomeProxy:
    """A proxy around ``adapter``. Use it in an ``async with``: it listens on ``port`` of 127.0.0.1 from then on.

    ``name`` is what Home Assistant calls it, ``mac`` its identity there. ``cut_power`` drops all who speak to it.
    """

    def __init__(self, adapter: Adapter, *, name: str = "hallway-proxy", mac: str = "06:35:69:AB:F6:80") -> None:
        self.adapter = adapter
        self.name = name
        self.mac = mac
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sessions: dict[_Session, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut_power()

    async def cut_power(self) -> None:
        """Stop listening and drop everybody; links over it end."""
        assert self._server is not None
        self._server.close()
        sessions = dict(self._sessions)
        for session in sessions:
            session.writer.transport.abort()
        await asyncio.gather(*sessions.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._sessions[session] = task
        try:
            await session.run()
        except asyncio.IncompleteReadError, ConnectionError:
            pass  # it hung up
        finally:
            del self._sessions[session]
            await session.end()
            writer.close()


class _Session:
    """One client of the proxy."""

    def __init__(self, proxy: EsphomeProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._proxy = proxy
        self._adapter = proxy.adapter
        self._reader = reader
        self._peers: dict[int, Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deaf: Callable[[], None] | None = None
        self._wants_free = False

    # ---- messages ----

    async def run(self) -> None:
        """Answer until it hangs up, or speaks anything but plaintext."""
        while await self._reader.readexactly(1) == b"\0":
            size, number = await self._read_varint(), await self._read_varint()
            body = await self._reader.readexactly(size)
            message = MESSAGE_TYPE_TO_PROTO.get(number)
            if message is None or (answer := _ANSWERS.get(message.__name__)) is None:
                continue
            if (rest := answer(self, message.FromString(body))) is not None:
                task = asyncio.ensure_future(rest)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _read_varint(self) -> int:
        number = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            number |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return number
            shift += 7

    def _send(self, message: Any) -> None:
        body = message.SerializeToString()
        if not self.writer.is_closing():
            self.writer.write(b"\0" + _varint(len(body)) + _varint(_TYPES[type(message).__name__]) + body)

    async def end(self) -> None:
        """End its links: the firmware keeps none for a client that is gone."""
        self._unsubscribe(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in list(self._peers.values()):
            with contextlib.suppress(core.BaseBumbleError):
                await peer.connection.disconnect()

    # ---- who it is ----

    def _hello(self, _: Any) -> None:
        self._send(pb.HelloResponse(api_version_major=1, api_version_minor=12, server_info="", name=self._proxy.name))

    def _disconnect(self, _: Any) -> None:
        self._send(pb.DisconnectResponse())
        self.writer.close()

    def _device_info(self, _: Any) -> None:
        self._send(
            pb.DeviceInfoResponse(
                name=self._proxy.name,
                friendly_name=self._proxy.name,
                mac_address=self._proxy.mac,
                bluetooth_mac_address=self._adapter.address,
                esphome_version="2026.10.0",
                compilation_time="2026-10-01 00:00:00 +0000",
                model="virtual",
                manufacturer="virtual",
                bluetooth_proxy_feature_flags=int(FEATURES),
            )
        )

    # ---- adverts ----

    def _subscribe(self, _: Any) -> None:
        if self._deaf is None:
            self._deaf = self._adapter.listen(self._heard)

    def _unsubscribe(self, _: Any) -> None:
        if self._deaf is not None:
            self._deaf()
            self._deaf = None

    def _heard(self, heard: Advertisement) -> None:
        one = pb.BluetoothLERawAdvertisement(
            address=_number(heard.address.to_string(False)),
            rssi=heard.rssi,
            address_type=int(heard.address.is_random),
            data=heard.data_bytes,
        )
        self._send(pb.BluetoothLERawAdvertisementsResponse(advertisements=[one]))

    # ---- links ----

    def _want_free(self, _: Any) -> None:
        self._wants_free = True
        self._tell_free()

    def _tell_free(self) -> None:
        if self._wants_free:
            taken = [_number(address) for address in self._adapter.taken]
            self._send(
                pb.BluetoothConnectionsFreeResponse(
                    free=self._adapter.free_slots, limit=self._adapter.slots, allocated=taken
                )
            )

    async def _device(self, m: Any) -> None:
        if m.request_type in _CONNECT:
            await self._connect(m.address)
        elif m.request_type == pb.BLUETOOTH_DEVICE_REQUEST_TYPE_DISCONNECT:
            if (peer := self._peers.get(m.address)) is not None:
                await peer.connection.disconnect()
            else:
                self._lost(m.address, 0)
        elif m.request_type == pb.BLUETOOTH_DEVICE_REQUEST_TYPE_CLEAR_CACHE:
            self._send(pb.BluetoothDeviceClearCacheResponse(address=m.address, success=True))

    async def _connect(self, number: int) -> None:
        try:
            link = await self._adapter.connect(_address(number), CONNECT_TIMEOUT)
            peer = self._peers[number] = Peer(link)
            link.on(link.EVENT_DISCONNECTION, lambda reason: self._lost(number, reason))
            mtu = await peer.request_mtu(self._adapter.mtu)
        except BleakError, TimeoutError:
            self._send(pb.BluetoothDeviceConnectionResponse(address=number, connected=False, error=GATT_ERROR))
        except core.BaseBumbleError, asyncio.CancelledError:
            return  # lost already, and said so
        else:
            self._send(pb.BluetoothDeviceConnectionResponse(address=number, connected=True, mtu=mtu))
        self._tell_free()

    def _lost(self, number: int, reason: int) -> None:
        self._peers.pop(number, None)
        self._send(pb.BluetoothDeviceConnectionResponse(address=number, connected=False, error=int(reason)))
        asyncio.get_running_loop().call_soon(self._tell_free)

    # ---- GATT ----

    async def _services(self, m: Any) -> None:
        if (peer := self._peers.get(m.address)) is None:
            return self._refuse(m, NOT_CONNECTED)
        for service in await peer.discover_services():
            characteristics = []
            for found in await service.discover_characteristics():
                descriptors = [
                    pb.BluetoothGATTDescriptor(uuid=_words(one.type), handle=one.handle)
                    for one in await found.discover_descriptors()
                ]
                characteristics.append(
                    pb.BluetoothGATTCharacteristic(
                        uuid=_words(found.uuid),
                        handle=found.handle,
                        properties=int(found.properties),
                        descriptors=descriptors,
                    )
                )
            one_service = pb.BluetoothGATTService(
                uuid=_words(service.uuid), handle=service.handle, characteristics=characteristics
            )
            self._send(pb.BluetoothGATTGetServicesResponse(address=m.address, services=[one_service]))
        self._send(pb.BluetoothGATTGetServicesDoneResponse(address=m.address))
        return None

    def _refuse(self, m: Any, code: int) -> None:
        self._send(pb.BluetoothGATTErrorResponse(address=m.address, handle=getattr(m, "handle", 0), error=code))

    async def _ask(self, m: Any, ask: Callable[[GattClient], Awaitable[Any]], answer: Callable[[Any], Any]) -> None:
        if (peer := self._peers.get(m.address)) is None:
            return self._refuse(m, NOT_CONNECTED)
        try:
            value = await ask(peer.gatt_client)
        except att.ATT_Error as err:
            return self._refuse(m, err.error_code)
        except core.BaseBumbleError, asyncio.CancelledError:
            return None  # the link was lost, and that is what the client is told
        return self._send(answer(value))

    async def _read(self, m: Any) -> None:
        await self._ask(
            m,
            lambda gatt: gatt.read_value(m.handle),
            lambda value: pb.BluetoothGATTReadResponse(address=m.address, handle=m.handle, data=value),
        )

    async def _write(self, m: Any) -> None:
        await self._ask(
            m,
            lambda gatt: gatt.write_value(m.handle, m.data, with_response=getattr(m, "response", True)),
            lambda _: pb.BluetoothGATTWriteResponse(address=m.address, handle=m.handle),
        )

    def _notify(self, m: Any) -> None:
        """Only listen: the client writes the CCCD itself."""
        if (peer := self._peers.get(m.address)) is None:
            return self._refuse(m, NOT_CONNECTED)
        subscribers = peer.gatt_client.notification_subscribers
        if m.enable:
            subscribers[m.handle] = {
                lambda value: self._send(
                    pb.BluetoothGATTNotifyDataResponse(address=m.address, handle=m.handle, data=bytes(value))
                )
            }
        else:
            subscribers.pop(m.handle, None)
        return self._send(pb.BluetoothGATTNotifyResponse(address=m.address, handle=m.handle))


_ANSWERS: Final[dict[str, Callable[[_Session, Any], Awaitable[None] | None]]] = {
    "HelloRequest": _Session._hello,
    "AuthenticationRequest": lambda session, _: session._send(pb.AuthenticationResponse()),
    "PingRequest": lambda session, _: session._send(pb.PingResponse()),
    "ListEntitiesRequest": lambda session, _: session._send(pb.ListEntitiesDoneResponse()),
    "GetTimeRequest": lambda session, _: session._send(pb.GetTimeResponse()),
    "DisconnectRequest": _Session._disconnect,
    "DeviceInfoRequest": _Session._device_info,
    "SubscribeBluetoothLEAdvertisementsRequest": _Session._subscribe,
    "UnsubscribeBluetoothLEAdvertisementsRequest": _Session._unsubscribe,
    "SubscribeBluetoothConnectionsFreeRequest": _Session._want_free,
    "BluetoothDeviceRequest": _Session._device,
    "BluetoothGATTGetServicesRequest": _Session._services,
    "BluetoothGATTReadRequest": _Session._read,
    "BluetoothGATTReadDescriptorRequest": _Session._read,
    "BluetoothGATTWriteRequest": _Session._write,
    "BluetoothGATTWriteDescriptorRequest": _Session._write,
    "BluetoothGATTNotifyRequest": _Session._notify,
}
