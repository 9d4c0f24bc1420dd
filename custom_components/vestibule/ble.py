"""Strikes over Home Assistant's own Bluetooth stack: any adapter or proxy that it has, none of ours.

``HomeAssistantRadio`` is how the core's driver reaches one strike, ``HomeAssistantStrike`` a door's. Bleak's exceptions
are translated here and nowhere else. Imported only where Bluetooth is set up: a building without it needs none of its
packages. What this file refuses to do: wait for a strike without an end (the stack itself would, for a minute), leave a
connection behind, trust an advertisement for more than a hint, or read meaning into the text of an exception.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, override

import bleak_retry_connector
from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.exc import BleakError
from bluetooth_data_tools import monotonic_time_coarse
from homeassistant.components import bluetooth
from homeassistant.components.bluetooth import (
    BluetoothCallbackMatcher,
    BluetoothChange,
    BluetoothReachabilityIntent,
    BluetoothScanningMode,
    BluetoothServiceInfoBleak,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.event import async_track_time_interval

from .building import RadioStrike
from .vestibule_core.doorstrike.client import Paired
from .vestibule_core.doorstrike.driver import BleStrike, Kept
from .vestibule_core.doorstrike.hearing import Heard
from .vestibule_core.doorstrike.pairing import Label
from .vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, ask_id
from .vestibule_core.doorstrike.pairing_session import pair as core_pair
from .vestibule_core.doorstrike.wire import (
    RX,
    SERVICE,
    STRIKE_ID_SIZE,
    TX,
    Advertisement,
    Flags,
    Violation,
)
from .vestibule_core.errors import StrikeRefused, StrikeUnreachable
from .vestibule_core.strike import Pulse, Reading

_LOGGER = logging.getLogger(__name__)

CONNECT_DEADLINE: Final = 7.0
"""Seconds in which a strike must be connected to: what a power cut cut off must not keep the truth from being known in
ten (polling.py of the core). Whoever waits at a door sets a shorter one of his own.
"""
HANG_UP_DEADLINE: Final = 5.0
HEAR_AGAIN: Final = timedelta(seconds=1)
"""Home Assistant tells of an advertisement when it changes. One that could not be acted on at once is told again."""
STILL_THERE: Final = 30.0
"""Seconds since an advertisement in which it is not told again for nothing."""
ON_ITS_WAY: Final = 0.5
"""Seconds after a connection in which an advertisement of before it can still come in. It would be news for nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """A strike in range, as it advertises itself; nothing of it is proved."""

    address: str
    rssi: int
    advertisement: Advertisement

    @property
    def key(self) -> str:
        """What tells it from others: the part of its id that it advertises."""
        return self.advertisement.strike.hex()

    @property
    def pairs(self) -> bool:
        """Whether it says that its button was held."""
        return Flags.PAIRING in self.advertisement.flags


def found(info: BluetoothServiceInfoBleak) -> Found | None:
    """Return the strike that an advertisement is of, None if it is of none."""
    try:
        return Found(info.address, info.rssi, Advertisement.parse(info.service_data[SERVICE]))
    except KeyError, Violation:
        return None


def in_range(hass: HomeAssistant) -> list[Found]:
    """Return the strikes that could be connected to, the loudest first; of one that has moved, where it is now."""
    newest: dict[str, tuple[float, Found]] = {}
    for info in bluetooth.async_discovered_service_info(hass, connectable=True):
        if (strike := found(info)) is not None and info.time >= newest.get(strike.key, (0.0, strike))[0]:
            newest[strike.key] = info.time, strike
    return sorted((strike for _, strike in newest.values()), key=lambda strike: -strike.rssi)


def is_deaf(hass: HomeAssistant) -> bool:
    """Return whether there is nothing that could connect to a strike."""
    return bluetooth.async_scanner_count(hass, connectable=True) == 0


def find(hass: HomeAssistant, key: str) -> Found | None:
    """Return the strike with this key, if it is in range."""
    return next((strike for strike in in_range(hass) if strike.key == key), None)


async def pair(hass: HomeAssistant, strike: Found, code: str, *, keep_connected: bool) -> RadioStrike:
    """Pair with a strike by what is on its label, the code or the text of its QR code; return what to store.

    Raises LabelError, PairingFailed or StrikeUnreachable.
    """
    radio = HomeAssistantRadio(hass, strike.address)
    if ":" in code:
        label = Label.scanned(code)
    else:
        Label.typed(bytes(STRIKE_ID_SIZE), code)  # before the radio is troubled
        label = Label.typed(await ask_id(radio), code)
    if label.strike_id[: len(strike.advertisement.strike)] != strike.advertisement.strike:
        raise PairingFailed(PairingSlip.OTHER_STRIKE)
    kept = await core_pair(radio, label, hass.config.location_name or "Home Assistant", window_open=strike.pairs)
    return RadioStrike(
        strike_id=kept.paired.strike_id,
        slot=kept.paired.slot,
        psk=kept.paired.psk,
        next_psk=kept.next_psk,
        version=kept.paired.version,
        caps=kept.caps,
        keep_connected=keep_connected,
        address=strike.address,
        heard=kept.heard,
    )


class HomeAssistantRadio:
    """How one strike is reached. Implements the core's ``StrikeRadio``."""

    def __init__(self, hass: HomeAssistant, address: str) -> None:
        """Look for it at ``address``, until ``follow`` finds it elsewhere."""
        self.address = address.upper()
        self._hass = hass
        self._untrack: Callable[[], None] = _nothing
        self._asked_at = 0.0
        """When the last connection was over or could not be made, on the clock of Home Assistant's advertisements: what
        was advertised before that has been asked about.
        """

    @property
    def reason(self) -> str:
        """Why it cannot be reached, as Home Assistant sees it."""
        return bluetooth.async_address_reachability_diagnostics(
            self._hass, self.address, BluetoothReachabilityIntent.CONNECTION
        )

    @property
    def rssi(self) -> int | None:
        """How loud it was last heard, in dBm; None if it is not heard."""
        info = bluetooth.async_last_service_info(self._hass, self.address, connectable=True)
        return info.rssi if info is not None else None

    async def connect(self, lost: Callable[[], None]) -> Link:
        """Connect; ``lost`` is called when the link is gone. Raises StrikeUnreachable."""
        device = bluetooth.async_ble_device_from_address(self._hass, self.address, connectable=True)
        if device is None or is_deaf(self._hass):  # at a start, what was heard before is known sooner than who hears
            raise StrikeUnreachable(self.reason)
        with self._bleaks_errors():
            async with asyncio.timeout(CONNECT_DEADLINE):
                client = await bleak_retry_connector.establish_connection(
                    # Looked up now: Home Assistant puts its own in this place when it sets up Bluetooth.
                    bleak_retry_connector.BleakClientWithServiceCache,
                    device,
                    "door strike",
                    disconnected_callback=lambda _: lost(),
                    use_services_cache=True,
                    ble_device_callback=lambda: (
                        bluetooth.async_ble_device_from_address(self._hass, self.address, connectable=True) or device
                    ),
                )
        rx, tx = client.services.get_characteristic(RX), client.services.get_characteristic(TX)
        if rx is None or tx is None:
            with self._bleaks_errors():
                await client.clear_cache()  # what was remembered of another device at this address
            await _hang_up(client)
            self._asked()
            raise StrikeUnreachable("what answers at the strike's address is no door strike")
        return Link(client, rx, tx, self._asked)

    @contextmanager
    def _bleaks_errors(self) -> Iterator[None]:
        try:
            yield
        except (BleakError, TimeoutError) as err:
            self._asked()
            raise StrikeUnreachable(self.reason) from err

    def _asked(self) -> None:
        self._asked_at = monotonic_time_coarse()

    @callback
    def follow(
        self, strike_id: bytes, seen: Callable[[Advertisement], None], gone: Callable[[], None]
    ) -> Callable[[], None]:
        """Tell what the strike advertises, wherever it is, and when it is heard no more; return what ends that.

        May be asked for once.
        """

        @callback
        def heard(info: BluetoothServiceInfoBleak, _: BluetoothChange) -> None:
            strike = found(info)
            if strike is None or strike.key != strike_id[: len(strike.advertisement.strike)].hex():
                return
            if strike.address != self.address:
                self.address = strike.address
                self._track(gone)
            seen(strike.advertisement)

        @callback
        def hear_again(_: datetime) -> None:
            info = bluetooth.async_last_service_info(self._hass, self.address, connectable=True)
            if info is None or info.time < self._asked_at + ON_ITS_WAY:
                return
            if monotonic_time_coarse() - info.time < STILL_THERE:
                heard(info, BluetoothChange.ADVERTISEMENT)

        self._track(gone)
        stop = async_track_time_interval(self._hass, hear_again, HEAR_AGAIN)
        unregister = bluetooth.async_register_callback(
            self._hass,
            heard,
            BluetoothCallbackMatcher(service_data_uuid=SERVICE, connectable=True),
            BluetoothScanningMode.PASSIVE,
        )

        @callback
        def end() -> None:
            stop()
            unregister()
            self._untrack()

        return end

    @callback
    def offer_again(self) -> None:
        """Let Home Assistant discover the strike anew: it is no door any more."""
        bluetooth.async_rediscover_address(self._hass, self.address)

    def _track(self, gone: Callable[[], None]) -> None:
        self._untrack()
        self._untrack = bluetooth.async_track_unavailable(self._hass, lambda _: gone(), self.address, connectable=True)


class Link:
    """One connection to a strike. Implements the core's ``GattLink``."""

    def __init__(
        self,
        client: BleakClient,
        rx: BleakGATTCharacteristic,
        tx: BleakGATTCharacteristic,
        closed: Callable[[], None],
    ) -> None:
        """Take a client that is connected; ``closed`` is called when it is no more."""
        self._client, self._rx, self._tx, self._closed = client, rx, tx, closed

    @property
    def size(self) -> int:
        """Bytes of a write without response."""
        return self._rx.max_write_without_response_size

    async def subscribe(self, notified: Callable[[bytes], None]) -> None:
        """Call ``notified`` with each notification."""
        with _link_errors():
            await self._client.start_notify(self._tx, lambda _, value: notified(bytes(value)))

    async def write(self, fragment: bytes, *, with_response: bool) -> None:
        """Write to RX."""
        with _link_errors():
            await self._client.write_gatt_char(self._rx, fragment, response=with_response)

    async def close(self) -> None:
        """Disconnect; may be repeated."""
        try:
            await _hang_up(self._client)
        finally:
            self._closed()


@contextmanager
def _link_errors() -> Iterator[None]:
    try:
        yield
    except (BleakError, TimeoutError) as err:
        raise StrikeUnreachable("the connection failed") from err


async def _hang_up(client: BleakClient) -> None:
    """Disconnect; one that does not want to is let go of: its proxy ends it."""
    try:
        async with asyncio.timeout(HANG_UP_DEADLINE):
            await client.disconnect()
    except (BleakError, TimeoutError) as err:
        _LOGGER.debug("A link was not closed in order: %s", type(err).__name__)


# ---- a door's strike ----


class HomeAssistantStrike(BleStrike):
    """A door's strike over Home Assistant's radio. ``close`` it when it is the door's no more."""

    def __init__(
        self, hass: HomeAssistant, relay: RadioStrike, heard: Heard, remember: Callable[[RadioStrike], None]
    ) -> None:
        """``remember`` is called with what has to be stored from then on."""
        self.radio = HomeAssistantRadio(hass, relay.address)
        self.refusal: str | None = None
        """Why the last release was refused, in words for a person; None: it was not."""
        self.unheard_since: float | None = monotonic()
        """Seconds of ``time.monotonic``; None: it is in range."""
        self._store = remember
        self._stored = relay
        super().__init__(
            self.radio, _kept(relay, heard), keep_connected=relay.keep_connected, remember=self._take_note_of
        )
        self._unfollow = self.radio.follow(relay.strike_id, self.seen, self.gone)
        self.on_change(self._look_whether_it_is_there)

    @property
    def relay(self) -> RadioStrike:
        """The strike as it has to be stored."""
        return _stored(self.kept, self._stored, self.radio.address)

    @property
    def heard(self) -> Heard:
        """How far its events have been heard."""
        return Heard.of(self.kept)

    @property
    def why_unreachable(self) -> str:
        """Why it cannot be reached, in words for a person: what the strike said, or else what Home Assistant sees."""
        return self.reason or self.radio.reason

    @callback
    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever what is shown of the strike may have changed, until the returned one is called."""
        return self.on_change(listener)

    @override
    async def release(self, pulse: Pulse) -> None:
        """Release, and remember why it refused."""
        self.refusal = None
        try:
            await super().release(pulse)
        except StrikeRefused as refused:
            self.refusal = str(refused)
            raise

    async def put_back(self) -> None:
        """Return when it says that it is secured."""
        secured = asyncio.Event()
        undo = self.subscribe(lambda reading: secured.set() if reading is Reading.SECURED else None)
        try:
            if self.reading is not Reading.SECURED:
                await secured.wait()
        finally:
            undo()

    @override
    async def close(self) -> None:
        """Let go of it and hear nothing of it any more; may be repeated."""
        self._unfollow()
        self._unfollow = _nothing
        await super().close()

    @callback
    def _take_note_of(self, kept: Kept) -> None:
        stored = _stored(kept, self._stored, self.radio.address)
        if stored != self._stored:  # what it has heard is noted in the journal, with what came of it (Hearing)
            self._stored = stored
            self._store(stored)

    @callback
    def _look_whether_it_is_there(self) -> None:
        if self.is_reachable:
            self.unheard_since = None
        elif self.unheard_since is None:
            self.unheard_since = monotonic()


def _nothing() -> None:
    pass


def _kept(relay: RadioStrike, heard: Heard) -> Kept:
    paired = Paired(strike_id=relay.strike_id, slot=relay.slot, psk=relay.psk, version=relay.version)
    return Kept(paired=paired, caps=relay.caps, heard=heard.seq, booted=heard.booted, next_psk=relay.next_psk)


def _stored(kept: Kept, before: RadioStrike, address: str) -> RadioStrike:
    return replace(
        before,
        psk=kept.paired.psk,
        next_psk=kept.next_psk,
        version=kept.paired.version,
        caps=kept.caps,
        address=address,
    )
