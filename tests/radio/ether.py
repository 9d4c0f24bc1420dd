"""The ether between Bumble's controllers: who hears whom, how loudly, and which packets arrive.

Bumble's own link and controller are kind to whoever is tested on them: everybody hears everybody, a scan response is
the advertisement again, a link is never lost, a connection that was given up comes about later all the same. ``Radio``
and its controllers put that right. What this module refuses to do: know what is said over the air, but for the ATT
opcodes that a ``Tap`` counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, Self, override

from bumble import att, hci, ll
from bumble.controller import AdvertisingSet, Connection, Controller, LegacyAdvertiser
from bumble.core import PhysicalTransport
from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address, HCI_ErrorCode
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import (
    AsyncPipeSink,
    StreamPacketSink,
    StreamPacketSource,
    TransportLostError,
    TransportSink,
)

LOOPBACK: Final = "127.0.0.1"
NEAR: Final = -50
"""How loudly two devices hear each other unless told otherwise, in dBm."""

_LOST: Final = HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR
_Event: Final = hci.HCI_LE_Extended_Advertising_Report_Event.EventType


class Named(Protocol):
    """Anything on the radio: a Bumble device, an adapter, a peripheral."""

    @property
    def name(self) -> str: ...


type Who = str | Named
type _Pair = frozenset[str]
type _Way = tuple[str, str]
"""From whom to whom."""


def _name(who: Who) -> str:
    return who if isinstance(who, str) else who.name


def _pair(a: Who, b: Who) -> _Pair:
    return frozenset((_name(a), _name(b)))


# ---- what is said ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pdu:
    """One ATT packet on its way. ``number`` counts what its tap has seen, from 1."""

    number: int
    sender: str
    receiver: str
    raw: bytes

    @property
    def opcode(self) -> att.Opcode:
        return att.Opcode(self.raw[0])

    def __str__(self) -> str:
        return f"#{self.number} {self.sender} > {self.receiver} {self.opcode.name} {self.raw[1:].hex()}"


class Fate(StrEnum):
    """What becomes of a packet."""

    DELIVER = "deliver"
    DROP = "drop"
    """It never arrives, and nobody is told. No radio does that (it repeats or gives up); a broken stack does."""
    HOLD = "hold"
    """It waits until ``Tap.release``, and with it whatever follows in its direction."""
    CUT = "cut"
    """The link is lost before it arrives."""
    DELIVER_AND_CUT = "deliver_and_cut"
    """The link is lost when it has arrived: no answer to it gets through."""


class Tap:
    """Sees each ATT packet in both directions, between ``pair`` or everywhere, and may decide what becomes of it.

    **How round trips are counted**: a request of either side with its response, an error response included, is one; so
    is an indication with its confirmation. Commands (writes without response) and notifications are none, and so is a
    request whose answer never arrived. Only ATT counts: connecting and ending a link have no part in it.

    Packets have numbers, from 1. Verbs: ``cut_at``, ``drop_at``, ``hold_at`` and ``release``, or ``decide`` for
    anything else; ``reached`` waits for a packet. ``rewrite`` is somebody in the middle: whatever it says goes on.
    """

    def __init__(self, pair: _Pair | None = None) -> None:
        self.pdus: list[Pdu] = []
        self.round_trips = 0
        self._pair = pair
        self._decide: Callable[[Pdu], Fate] = lambda _: Fate.DELIVER
        self._unanswered: set[_Way] = set()
        self._rewrite: Callable[[Pdu], Iterable[bytes]] = lambda pdu: [pdu.raw]
        self._held: list[tuple[Connection, Callable[[], None]]] = []
        self._waiting: list[tuple[int, asyncio.Future[Pdu]]] = []

    def __str__(self) -> str:
        return "\n".join(map(str, self.pdus))

    # ---- verbs ----

    def decide(self, decide: Callable[[Pdu], Fate]) -> None:
        """Ask ``decide`` about each packet from now on."""
        self._decide = decide

    def rewrite(self, rewrite: Callable[[Pdu], Iterable[bytes]]) -> None:
        """Let what ``rewrite`` makes of each packet go on in its place: the same, something else, several, nothing."""
        self._rewrite = rewrite

    def cut_at(self, number: int, *, delivered: bool = False) -> None:
        """Lose the link at packet ``number``, before it arrives or when it has been ``delivered``."""
        self._at(number, Fate.DELIVER_AND_CUT if delivered else Fate.CUT)

    def drop_at(self, number: int) -> None:
        """Let packet ``number`` disappear."""
        self._at(number, Fate.DROP)

    def hold_at(self, number: int) -> None:
        """Keep packet ``number``, and what follows it in its direction, until ``release``."""
        self._at(number, Fate.HOLD)

    def _at(self, number: int, fate: Fate) -> None:
        self._decide = lambda pdu: fate if pdu.number == number else Fate.DELIVER

    def release(self) -> None:
        """Let go of what is held, in order. What belongs to a link that was lost meanwhile arrives nowhere."""
        held, self._held = self._held, []
        for _, deliver in held:
            deliver()

    async def reached(self, number: int) -> Pdu:
        """Return packet ``number`` once it has been sent."""
        if len(self.pdus) >= number:
            return self.pdus[number - 1]
        waiter: asyncio.Future[Pdu] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, waiter))
        return await waiter

    def sent(self, opcode: att.Opcode) -> list[Pdu]:
        """Return the packets of one kind."""
        return [pdu for pdu in self.pdus if pdu.opcode == opcode]

    # ---- what the radio tells it ----

    def _see(self, sender: str, end: _End, raw: bytes, carry: Callable[[bytes], None]) -> tuple[Fate, list[bytes]]:
        """Take note of a packet; return its fate and what goes on. What is held the tap itself carries on, later."""
        receiver = end.controller.name
        if self._pair is not None and self._pair != {sender, receiver}:
            return Fate.DELIVER, [raw]
        pdu = Pdu(len(self.pdus) + 1, sender, receiver, raw)
        self.pdus.append(pdu)
        for number, waiter in self._waiting:
            if number == pdu.number and not waiter.done():
                waiter.set_result(pdu)
        fate = self._decide(pdu)
        if fate not in (Fate.DROP, Fate.CUT):
            self._count(pdu)
        if fate is Fate.HOLD or (fate is Fate.DELIVER and any(link is end.link for link, _ in self._held)):

            def deliver() -> None:
                for packet in self._rewrite(pdu):
                    carry(packet)

            self._held.append((end.link, deliver))
            return Fate.HOLD, []
        return fate, [] if fate in (Fate.DROP, Fate.CUT) else list(self._rewrite(pdu))

    def _count(self, pdu: Pdu) -> None:
        if pdu.opcode in _ASKING:
            self._unanswered.add((pdu.sender, pdu.receiver))
        elif pdu.opcode in _ANSWERING and (pdu.receiver, pdu.sender) in self._unanswered:
            self._unanswered.remove((pdu.receiver, pdu.sender))
            self.round_trips += 1


_ASKING: Final = {*att.ATT_REQUESTS, att.Opcode.ATT_HANDLE_VALUE_INDICATION}
_ANSWERING: Final = {*att.ATT_RESPONSES, att.Opcode.ATT_HANDLE_VALUE_CONFIRMATION}


# ---- who says it ----------------------------------------------------------------------------------------------------


class RadioController(Controller):
    """A controller as they are sold, where Bumble's is simpler than that."""

    le_acl_data_packet_length = 251

    def __init__(self, name: str, radio: Radio, host: TransportSink | None = None) -> None:
        super().__init__(name, host_sink=host, link=radio)
        self.radio = radio
        self.scans_actively = True
        self.doomed: set[int] = set()
        """The handles of links that are lost and whose ends have not been told yet: nothing arrives over them."""

    # ---- on the air ----

    def advertiser(self, address: Address) -> AdvertisingSet | LegacyAdvertiser | None:
        """Return what advertises under ``address`` at the moment and can be connected to."""
        advertisers: list[AdvertisingSet | LegacyAdvertiser] = [
            *self.advertising_sets.values(),
            self.le_legacy_advertiser,
        ]
        return next((a for a in advertisers if a.enabled and a.address == address and _is_connectable(a)), None)

    def goes_by(self, address: Address) -> bool:
        """Return whether ``address`` is one of this controller's."""
        return (
            address in (self.random_address, self.public_address)
            or any(s.address == address for s in self.advertising_sets.values())
            or any(link.self_address == address for link in self.le_connections.values())
        )

    def hear(self, pdu: ll.AdvInd | ll.AdvExtInd, rssi: int, scan_response: bytes | None) -> None:
        """Take an advertisement off the air. ``scan_response`` is None of one that cannot be connected to."""
        connectable = scan_response is not None
        if self.le_scan_enable:
            kind = _Event.LEGACY_ADVERTISING_PDU_USED
            if connectable:
                kind |= _Event.CONNECTABLE_ADVERTISING | _Event.SCANNABLE_ADVERTISING
            self._report(pdu.advertiser_address, kind, rssi, pdu.data)
            if self.scans_actively and scan_response:
                self._report(pdu.advertiser_address, kind | _Event.SCAN_RESPONSE, rssi, scan_response)
        pending = self.pending_le_connection
        if connectable and pending is not None and pending.peer_address == pdu.advertiser_address:
            self.create_le_connection(pdu.advertiser_address)

    def _report(self, address: Address, kind: int, rssi: int, data: bytes) -> None:
        report = hci.HCI_LE_Extended_Advertising_Report_Event.Report(
            event_type=kind,
            address_type=address.address_type,
            address=address,
            primary_phy=hci.Phy.LE_1M,
            secondary_phy=0,
            advertising_sid=0xFF,
            tx_power=0x7F,
            rssi=rssi,
            periodic_advertising_interval=0,
            direct_address_type=0,
            direct_address=Address.ANY,
            data=data,
        )
        self.send_hci_packet(hci.HCI_LE_Extended_Advertising_Report_Event([report]))

    def fall_silent(self) -> None:
        """Stop advertising, scanning and connecting, and forget every link without a word, as a reset does."""
        self.le_legacy_advertiser.stop()
        for advertising in self.advertising_sets.values():
            advertising.stop()
        self.advertising_sets.clear()
        self.le_scan_enable = False
        self.pending_le_connection = None
        self.le_connections.clear()
        self.doomed.clear()

    def leave_host(self) -> None:
        """Disappear from the host, as an adapter does that is pulled out: what it waits for will not come."""
        host, self.hci_sink = self.hci_sink, None
        if isinstance(host, Host):
            host.emit("flush")
            host.emit("flush")  # again: upon the first, links end, and Bumble would advertise anew, for ever
            if host.pending_response is not None and not host.pending_response.done():
                host.pending_response.set_exception(TransportLostError("The controller is gone"))
        elif isinstance(host, StreamPacketSink):
            host.close()

    # ---- to and from its host ----

    @override
    def send_hci_packet(self, packet: hci.HCI_Packet) -> None:
        asyncio.get_running_loop().call_soon(self._tell_host, bytes(packet))

    def _tell_host(self, packet: bytes) -> None:
        if self.hci_sink is not None:
            self.hci_sink.on_packet(packet)

    @override
    def on_hci_reset_command(self, command: hci.HCI_Reset_Command) -> hci.HCI_StatusReturnParameters:
        self.radio.lose_links_of(self)
        self.fall_silent()
        return super().on_hci_reset_command(command)

    @override
    def on_hci_le_set_extended_scan_parameters_command(
        self, command: hci.HCI_LE_Set_Extended_Scan_Parameters_Command
    ) -> hci.HCI_StatusReturnParameters:
        self.scans_actively = bool(command.scan_types[0])
        return super().on_hci_le_set_extended_scan_parameters_command(command)

    @override
    def on_hci_le_create_connection_cancel_command(
        self, command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Bumble's keeps the attempt: the link would come about later, and the next attempt would be refused."""
        if (pending := self.pending_le_connection) is None:
            return hci.HCI_StatusReturnParameters(HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.pending_le_connection = None
        given_up = hci.HCI_LE_Connection_Complete_Event(
            status=HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address.address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(self.send_hci_packet, given_up)
        return hci.HCI_StatusReturnParameters(HCI_ErrorCode.SUCCESS)

    @override
    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """Bumble's fails for a link that is lost twice, as when both ends end it."""
        self.doomed.discard(connection.handle)
        if self.le_connections.get(connection.peer_address) is connection:
            super().on_le_disconnected(connection, reason)


def _is_connectable(advertiser: AdvertisingSet | LegacyAdvertiser) -> bool:
    if isinstance(advertiser, LegacyAdvertiser) or advertiser.parameters is None:
        return True
    return bool(advertiser.parameters.advertising_event_properties & 1)


# ---- the ether ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End:
    controller: RadioController
    link: Connection

    @property
    def is_up(self) -> bool:
        current = self.controller.le_connections.get(self.link.peer_address)
        return current is self.link and self.link.handle not in self.controller.doomed


class Radio(LocalLink):
    """The ether. Use it in an ``async with``, so that everybody on it falls silent at the end.

    Devices go by their names; wherever one is asked for, anything with a ``name`` will do. ``device`` makes one in
    this process, ``open_port`` a socket for one that lives in another.

    Verbs: ``walk_away`` and ``come_back``, ``set_rssi``, ``cut_link``, ``cut_power``; ``tap`` to watch and to meddle.
    """

    controllers: set[RadioController]  # type: ignore[assignment]  # all of them are made here

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Bumble's
        self._rssi: dict[_Pair, int] = {}
        self._apart: dict[_Pair, list[Callable[[], None]]] = {}
        """Who is out of range of whom, with the packets that wait for them to come back."""
        self._timers: dict[_Pair, asyncio.TimerHandle] = {}
        self._taps: list[Tap] = []
        self._servers: list[asyncio.Server] = []
        self._ports: set[_Port] = set()
        self._addresses = iter(range(1, 0xFFFF))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut everybody's power and close all ports."""
        for timer in self._timers.values():
            timer.cancel()
        for server in self._servers:
            server.close()
        for port in list(self._ports):
            port.hang_up()
        for controller in list(self.controllers):
            self.cut_power(controller)
        for server in self._servers:
            await server.wait_closed()

    # ---- who is on it ----

    def device(self, name: str, address: str | None = None) -> Device:
        """Return a new Bumble host with a controller on this radio. It does nothing before ``power_on``.

        ``address`` is its static random address, ``C0:...`` to ``FF:...``; one that nobody has by default.
        """
        controller = self._controller(name)
        address = address or self.an_address()
        config = DeviceConfiguration(name=name, address=Address(address))
        return Device(config=config, host=Host(controller, AsyncPipeSink(controller)))

    def an_address(self) -> str:
        """Return an address that nobody on this radio has been given."""
        number = next(self._addresses)
        return f"F0:CA:C0:00:{number >> 8:02X}:{number & 0xFF:02X}"

    async def open_port(self, name: str, port: int = 0) -> int:
        """Open a TCP port on loopback that is a controller (HCI) for one host in any process, and return its number.

        Bumble reaches it as ``tcp-client:127.0.0.1:PORT``. When the host hangs up or its process dies, that is a power
        cut of ``name``; the next one that calls gets a new controller. A second one at the same time is turned away.
        """
        server = await asyncio.get_running_loop().create_server(lambda: _Port(self, name), LOOPBACK, port)
        self._servers.append(server)
        number: int = server.sockets[0].getsockname()[1]
        return number

    def _controller(self, name: str, host: TransportSink | None = None) -> RadioController:
        if any(controller.name == name for controller in self.controllers):
            raise ValueError(f"There is a {name!r} on this radio already")
        return RadioController(name, self, host)

    def is_on(self, who: Who) -> bool:
        """Return whether ``who`` has power."""
        return any(controller.name == _name(who) for controller in self.controllers)

    # ---- verbs ----

    def set_rssi(self, a: Who, b: Who, dbm: int) -> None:
        """Let two devices hear each other with ``dbm`` from now on (below zero; -100 is barely heard)."""
        self._rssi[_pair(a, b)] = dbm

    def rssi(self, a: Who, b: Who) -> int:
        """Return how loudly two devices hear each other, in dBm."""
        return self._rssi.get(_pair(a, b), NEAR)

    def walk_away(self, a: Who, b: Who, *, supervision_timeout: float = 0.0) -> None:
        """Put two devices out of range of each other.

        A link between them is lost after ``supervision_timeout`` seconds; until then nothing gets through and nobody
        is told, as it is in the field (there 0.7 to 6 s). Who comes back in time gets what was sent meanwhile.
        """
        pair = _pair(a, b)
        self._apart.setdefault(pair, [])
        if supervision_timeout:
            self._timers[pair] = asyncio.get_running_loop().call_later(supervision_timeout, self._give_up, pair)
        else:
            self._give_up(pair)

    def come_back(self, a: Who, b: Who) -> None:
        """Put two devices in range of each other again."""
        pair = _pair(a, b)
        if timer := self._timers.pop(pair, None):
            timer.cancel()
        for arrive in self._apart.pop(pair, []):
            asyncio.get_running_loop().call_soon(arrive)

    def _give_up(self, pair: _Pair) -> None:
        self._timers.pop(pair, None)
        self._apart[pair].clear()
        self.cut_link(*pair)

    def cut_link(self, a: Who | None = None, b: Who | None = None) -> int:
        """Lose every link (of ``a``, between ``a`` and ``b``) at once and return how many there were.

        Both ends are told that it timed out. They stay in range: who advertises can be connected to at once.
        """
        asked = {_name(who) for who in (a, b) if who is not None}
        ends = [
            _End(controller, link)
            for controller in self.controllers
            for link in list(controller.le_connections.values())
            if asked <= {controller.name, self._peer_name(link)}
        ]
        for end in ends:
            end.controller.on_le_disconnected(end.link, _LOST)
        return sum(end.link.role == hci.Role.CENTRAL for end in ends)

    def cut_power(self, who: Who) -> None:
        """Take a device off the radio. It advertises no more, and the others' links to it are lost.

        Its host sees the controller disappear, and a process is hung up on. When power is back, it is a new ``device``
        with the same name.
        """
        for controller in [c for c in self.controllers if c.name == _name(who)]:
            self.lose_links_of(controller)
            controller.fall_silent()
            self.remove_controller(controller)
            controller.leave_host()

    @contextmanager
    def tap(self, a: Who | None = None, b: Who | None = None) -> Iterator[Tap]:
        """Watch the ATT packets between ``a`` and ``b``, or all of them, for as long as the ``with`` lasts."""
        tap = Tap(None if a is None or b is None else _pair(a, b))
        self._taps.append(tap)
        try:
            yield tap
        finally:
            self._taps.remove(tap)
            tap.release()

    def forge(self, sender: Who, receiver: Who, packet: bytes) -> None:
        """Let ``receiver`` hear an ATT packet that ``sender`` never sent, on the link between them."""
        for controller in self.controllers:
            for link in controller.le_connections.values():
                if controller.name == _name(receiver) and self._peer_name(link) == _name(sender):
                    data = len(packet).to_bytes(2, "little") + att.ATT_CID.to_bytes(2, "little") + packet
                    arrive = partial(controller.on_link_acl_data, link.peer_address, PhysicalTransport.LE, data)
                    self._carry(_name(sender), _End(controller, link), arrive)

    def links(self) -> set[_Pair]:
        """Return the pairs that are connected."""
        return {
            frozenset((controller.name, self._peer_name(link)))
            for controller in self.controllers
            for link in controller.le_connections.values()
        }

    # ---- how controllers meet ----

    def _peer_name(self, link: Connection) -> str:
        return next((c.name for c in self.controllers if c.goes_by(link.peer_address)), "")

    def _other_end(self, link: Connection) -> _End | None:
        for controller in self.controllers:
            other = controller.le_connections.get(link.self_address)
            if other is not None and other.self_address == link.peer_address:
                return _End(controller, other)
        return None

    def lose_links_of(self, controller: RadioController) -> None:
        """Tell the others that ``controller`` is not there any more."""
        for link in controller.le_connections.values():
            if (other := self._other_end(link)) is not None:
                other.controller.on_le_disconnected(other.link, _LOST)

    @override
    def send_advertising_pdu(self, sender_controller: Controller, packet: ll.AdvertisingPdu) -> None:
        assert isinstance(sender_controller, RadioController)
        loop = asyncio.get_running_loop()
        if isinstance(packet, ll.ConnectInd):
            loop.call_soon(self._connect, sender_controller, packet)
        elif isinstance(packet, ll.AdvInd | ll.AdvExtInd):
            advertiser = sender_controller.advertiser(packet.advertiser_address)
            response = None if advertiser is None else bytes(advertiser.scan_response_data)
            for receiver in self.controllers - {sender_controller}:
                if _pair(sender_controller, receiver) not in self._apart:
                    loop.call_soon(receiver.hear, packet, self.rssi(sender_controller, receiver), response)

    def _connect(self, central: RadioController, packet: ll.ConnectInd) -> None:
        for peripheral in self.controllers - {central}:
            if peripheral.advertiser(packet.advertiser_address) and _pair(central, peripheral) not in self._apart:
                peripheral.on_le_connect_ind(packet)
                return
        # Somebody else was quicker, or it has just gone. The central has told its host of a link already, as they do.
        link = central.le_connections.get(packet.advertiser_address)
        if link is not None:
            central.on_le_disconnected(link, HCI_ErrorCode.CONNECTION_FAILED_TO_BE_ESTABLISHED_ERROR)

    @override
    def send_ll_control_pdu(self, sender_address: Address, receiver_address: Address, packet: ll.ControlPdu) -> None:
        for controller in self.controllers:
            link = controller.le_connections.get(sender_address)
            if link is not None and link.self_address == receiver_address:
                arrive = partial(controller.on_ll_control_pdu, sender_address, packet)
                self._carry(self._peer_name(link), _End(controller, link), arrive)
                return
        # Bumble raises an error, into the controller. Who speaks to somebody who has left is not told so.

    @override
    def send_acl_data(
        self,
        sender_controller: Controller,
        destination_address: Address,
        transport: PhysicalTransport,
        data: bytes,
    ) -> None:
        assert isinstance(sender_controller, RadioController)
        link = sender_controller.le_connections.get(destination_address)
        if link is None or (end := self._other_end(link)) is None or not end.is_up:
            return
        sender = sender_controller.name

        def arrive(data: bytes) -> None:
            # Bumble says that it comes from the sender's random address, whichever the link was made with.
            self._carry(sender, end, lambda: end.controller.on_link_acl_data(link.self_address, transport, data))

        def carry(packet: bytes) -> None:
            arrive(len(packet).to_bytes(2, "little") + data[2:4] + packet)

        if int.from_bytes(data[2:4], "little") != att.ATT_CID:
            arrive(data)
            return
        packets = [data[4:]]
        for tap in self._taps:
            seen, packets = packets, []
            for packet in seen:
                fate, on_its_way = tap._see(sender, end, packet, carry)
                packets += on_its_way
                if fate in (Fate.CUT, Fate.DELIVER_AND_CUT):
                    for last in packets:
                        carry(last)
                    self._doom(_End(sender_controller, link), end)
                    return
        for packet in packets:
            carry(packet)

    def _carry(self, sender: str, end: _End, arrive: Callable[[], None]) -> None:
        """Let something arrive in the next turn of the event loop; later or never, if they are out of range."""

        def unless_lost() -> None:
            if end.controller.le_connections.get(end.link.peer_address) is end.link:
                arrive()

        if (waiting := self._apart.get(_pair(sender, end.controller))) is not None:
            waiting.append(unless_lost)
        else:
            asyncio.get_running_loop().call_soon(unless_lost)

    @staticmethod
    def _doom(*ends: _End) -> None:
        """Let nothing more through, and tell both ends in the next turn: the sender's packet is still in its hands."""
        for end in ends:
            end.controller.doomed.add(end.link.handle)
            asyncio.get_running_loop().call_soon(end.controller.on_le_disconnected, end.link, _LOST)


class _Port(StreamPacketSource):
    """A connection to a controller's port."""

    def __init__(self, radio: Radio, name: str) -> None:
        super().__init__()
        self._radio = radio
        self._name = name
        self._transport: asyncio.WriteTransport | None = None
        self._controller: RadioController | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        if self._radio.is_on(self._name):
            transport.abort()
            return
        self._transport = transport
        self._controller = self._radio._controller(self._name, StreamPacketSink(transport))
        self.set_packet_sink(self._controller)
        self._radio._ports.add(self)

    @override
    def connection_lost(self, _: Exception | None) -> None:
        self._radio._ports.discard(self)
        if self._controller is not None and self._controller in self._radio.controllers:
            self._radio.cut_power(self._controller)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
