"""Doors whose lock is a Bluetooth strike, reached by this machine's own adapter.

``Ears`` is one scan for all of them: what a strike advertises tells where it is, and that it has news. Its keys are in
``strikes/DOOR.json`` in the state folder, where ``pair_strike`` put them; how far its events have been heard is in the
journal, so it is as old as what the journal says of them. What this file refuses to do: pair while nobody held the
strike's button, or take an advertisement for more than a hint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, override

from bleak import BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakError

from gateway.ble import BleakRadio
from gateway.log import say
from gateway.source import Unusable
from vestibule_core import durable
from vestibule_core.controller import Controller
from vestibule_core.doorstrike.driver import BleStrike, Kept
from vestibule_core.doorstrike.hearing import HEARD, Heard, Hearing
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, ask_id, pair
from vestibule_core.doorstrike.wire import SERVICE, STRIKE_ID_SIZE, Advertisement, Flags, Violation, sensors_of
from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import DoorId, Sensor
from vestibule_core.strike import Capabilities, Pulse, Reading

FOLDER: Final = "strikes"
"""In the state folder."""
FIND: Final = 15.0
"""Seconds for which a strike that is to be paired is looked for."""
SETTLE: Final = 1.0
"""Seconds in which another one would be heard, too: they advertise several times in each."""
GONE_AFTER: Final = 60.0
"""Seconds after which a strike that is not heard any more is out of range."""
LOOK_EVERY: Final = 5.0
SCAN_AGAIN: Final = 30.0
"""Seconds after which an adapter that does not scan is tried again."""
SPENDS: Final = 64
"""How many releases of a door are known again in what its strike tells: as many as a strike remembers."""

_LOGGER: Final = logging.getLogger(__name__)

type Client = type[BaseBleakClient]
type Scanner = type[BaseBleakScanner]


# ---- what is kept of a strike ----


@dataclass(frozen=True, slots=True)
class StoredStrike:
    """A strike that was paired with this gateway."""

    address: str
    """Where it was last."""
    kept: Kept

    def write(self, state: Path, door: str) -> None:
        """Store it as the strike of a door, durably; raise OSError. Blocks."""
        folder = state / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.write(_file(state, door), json.dumps({"address": self.address} | self.kept.to_json()).encode())

    @classmethod
    def read(cls, state: Path, door: str) -> Self | None:
        """Return the strike of a door, None if none was paired; raise Unusable."""
        path = _file(state, door)
        try:
            stored = json.loads(path.read_bytes())
            return cls(str(stored["address"]), Kept.from_json(stored))
        except FileNotFoundError:
            return None
        except OSError as err:
            raise Unusable(f"{path} cannot be read: {err.strerror}") from err
        except (ValueError, KeyError, TypeError, Violation) as err:
            raise Unusable(f"{path} is not what pairing wrote: delete it and pair the strike again") from err


def _file(state: Path, door: str) -> Path:
    return state / FOLDER / f"{door}.json"


# ---- hearing advertisements ----


class Ears:
    """One scan for all strikes of this machine."""

    def __init__(self, backend: Scanner | None = None) -> None:
        """``backend``: another one than the system's."""
        self._backend = backend
        self._listeners: list[Callable[[BLEDevice, Advertisement], None]] = []
        self._scanning: asyncio.Task[None] | None = None

    def listen(self, heard: Callable[[BLEDevice, Advertisement], None]) -> Callable[[], None]:
        """Call ``heard`` with what each strike advertises, until the returned function is called."""
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard) if heard in self._listeners else None

    async def start(self) -> None:
        """Scan from now on; an adapter that cannot is tried again and again."""
        self._scanning = asyncio.get_running_loop().create_task(self._scan(), name="ears")

    async def stop(self) -> None:
        """Scan no more."""
        if self._scanning is not None:
            self._scanning.cancel()
            await asyncio.wait({self._scanning})
            self._scanning = None

    async def _scan(self) -> None:
        failed = False
        while True:
            try:
                async with self.scan():
                    failed = False
                    await asyncio.Event().wait()
            except StrikeUnreachable as err:
                if not failed:
                    say(_LOGGER, logging.WARNING, "bluetooth_failed", reason=str(err))
                failed = True
            await asyncio.sleep(SCAN_AGAIN)

    @asynccontextmanager
    async def scan(self) -> AsyncGenerator[None]:
        """Scan meanwhile. Raises StrikeUnreachable; bleak's exceptions are translated here."""
        try:
            scanner = BleakScanner(self._heard, backend=self._backend)
            await scanner.start()
        except (BleakError, OSError, EOFError) as err:
            raise StrikeUnreachable(f"Bluetooth cannot scan: {err}") from err
        try:
            yield
        finally:
            with suppress(BleakError, OSError, EOFError):  # the adapter has gone
                await scanner.stop()

    def _heard(self, device: BLEDevice, said: AdvertisementData) -> None:
        with suppress(KeyError, Violation):  # of something else, or of nothing that makes sense
            advertisement = Advertisement.parse(said.service_data[SERVICE])
            for heard in tuple(self._listeners):
                heard(device, advertisement)


# ---- a door's strike ----


class GatewayStrike(BleStrike):
    """A door's Bluetooth strike. Implements ``Channel``. Made in a running event loop."""

    def __init__(
        self,
        stored: StoredStrike,
        remember: Callable[[StoredStrike], None],
        ears: Ears,
        *,
        keep_connected: bool,
        notes: Mapping[str, str],
        client: Client | None = None,
    ) -> None:
        """``remember`` is called with what has to be stored from then on; ``notes`` are the journal's."""
        self.spends: Final[deque[bytes]] = deque(maxlen=SPENDS)
        """Releases of this gateway."""
        self._stored, self._store = stored, remember
        self._radio_of_it = BleakRadio(stored.address, backend=client)
        self._heard_at = time.monotonic()
        heard = Heard.read(notes.get(HEARD + stored.kept.paired.strike_id.hex()), stored.kept.heard)
        super().__init__(
            self._radio_of_it,
            replace(stored.kept, heard=heard.seq, booted=heard.booted),
            keep_connected=keep_connected,
            remember=self._take_note_of,
        )
        self._deaf = ears.listen(self._take)
        self._spawn(self._look_whether_it_is_there())

    @property
    def sensors(self) -> frozenset[Sensor]:
        """What it watches by itself."""
        return sensors_of(self.kept.caps)

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when what is known of it may have changed, until the returned function is called."""
        return self.on_change(listener)

    def hear(self, controller: Controller, door: DoorId, sensors: frozenset[Sensor]) -> Callable[[], None]:
        """Let the controller's door hear what the strike says; return what ends that.

        ``sensors``: those of its own that watch the door. The controller has started.
        """
        return Hearing(self, controller, door, sensors & self.sensors, self.spends, time.time).end

    @override
    async def release(self, pulse: Pulse) -> None:
        """Release, and know it again when the strike tells of it."""
        self.spends.append(pulse.spend_id)
        await super().release(pulse)

    @override
    async def close(self) -> None:
        """Let go of it, and hear nothing of it any more."""
        self._deaf()
        await super().close()

    def _take(self, device: BLEDevice, advertisement: Advertisement) -> None:
        strike_id = self.kept.paired.strike_id
        if advertisement.strike != strike_id[: len(advertisement.strike)]:
            return
        self._heard_at = time.monotonic()
        self._radio_of_it.device = device
        if device.address != self._stored.address:
            self._remember(replace(self._stored, address=device.address))
        self.seen(advertisement)

    async def _look_whether_it_is_there(self) -> None:
        there = False
        while True:
            was, there = there, time.monotonic() - self._heard_at < GONE_AFTER
            if was and not there:
                self.gone()
            await asyncio.sleep(LOOK_EVERY)

    def _take_note_of(self, kept: Kept) -> None:
        before = self._stored.kept
        # How far it has been heard is noted in the journal, with what came of it (Hearing).
        if (kept := replace(kept, heard=before.heard, booted=before.booted)) != before:
            self._remember(replace(self._stored, kept=kept))

    def _remember(self, stored: StoredStrike) -> None:
        self._stored = stored
        self._store(stored)


class UnpairedStrike:
    """In the place of a strike that has not been paired yet. Implements ``Channel``."""

    capabilities = Capabilities(device_timed=True, feedback=True)
    reading = Reading.UNKNOWN
    is_reachable = False
    sensors: frozenset[Sensor] = frozenset()

    def __init__(self, door: str) -> None:
        """Take the name of the door's table."""
        self.reason = f"it is not paired yet: vestibule-gateway pair-strike {door}"

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:  # noqa: ARG002 - nothing to tell
        """Do nothing."""
        return _nothing

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 - nothing to tell
        """Do nothing."""
        return _nothing

    def hear(self, *_: object) -> Callable[[], None]:
        """Do nothing."""
        return _nothing

    async def reach(self) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def release(self, pulse: Pulse) -> None:  # noqa: ARG002
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def hold(self, origin: object) -> None:  # noqa: ARG002
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def secure(self) -> None:
        """Raise StrikeUnreachable."""
        raise StrikeUnreachable(self.reason)

    async def close(self) -> None:
        """Do nothing."""


def _nothing() -> None:
    pass


class BleStrikes:
    """All Bluetooth strikes of a gateway."""

    def __init__(self, state: Path, *, client: Client | None = None, scanner: Scanner | None = None) -> None:
        """``client`` and ``scanner``: other backends of bleak than the system's."""
        self._state, self._client = state, client
        self._ears = Ears(scanner)
        self._strikes: list[GatewayStrike] = []

    def open(self, door: str, *, keep_connected: bool, notes: Mapping[str, str]) -> GatewayStrike | UnpairedStrike:
        """Return the strike of the door with this key in gateway.toml; ``notes`` are ``Journal.notes()``.

        Raises Unusable. In a running event loop.
        """
        if (stored := StoredStrike.read(self._state, door)) is None:
            return UnpairedStrike(door)

        def remember(stored: StoredStrike) -> None:
            # In the event loop: once in the life of a firmware or of an address, and small.
            try:
                stored.write(self._state, door)
            except OSError as err:
                say(_LOGGER, logging.ERROR, "strike_not_stored", door=door, reason=err.strerror)

        strike = GatewayStrike(
            stored, remember, self._ears, keep_connected=keep_connected, notes=notes, client=self._client
        )
        self._strikes.append(strike)
        return strike

    async def start(self) -> None:
        """Begin to listen, if there is anything to be heard."""
        if self._strikes:
            await self._ears.start()

    async def stop(self) -> None:
        """Let go of every strike: nothing of this is left when it returns."""
        await self._ears.stop()
        await asyncio.gather(*(strike.close() for strike in self._strikes))
        self._strikes = []


# ---- pairing ----


async def pair_strike(
    state: Path,
    door: str,
    code: str,
    name: str,
    *,
    client: Client | None = None,
    scanner: Scanner | None = None,
) -> StoredStrike:
    """Pair with the strike whose button was held, as ``name``, and store it as the one of a door.

    ``code`` is what is on its label: the code, or the text of the QR code. The gateway takes it into use when it is
    started the next time. Raises LabelError, PairingFailed, StrikeUnreachable or OSError.
    """
    scanned = Label.scanned(code) if ":" in code else None
    if scanned is None:
        Label.typed(bytes(STRIKE_ID_SIZE), code)  # before the radio is troubled
    device, advertisement = await _find(None if scanned is None else scanned.strike_id, Ears(scanner))
    radio = BleakRadio(device, backend=client)
    label = scanned or Label.typed(await ask_id(radio), code)
    if label.strike_id[: len(advertisement.strike)] != advertisement.strike:
        raise PairingFailed(PairingSlip.OTHER_STRIKE)
    kept = await pair(radio, label, name, window_open=Flags.PAIRING in advertisement.flags)
    stored = StoredStrike(device.address, kept)
    stored.write(state, door)
    return stored


async def _find(strike_id: bytes | None, ears: Ears) -> tuple[BLEDevice, Advertisement]:
    """Return the strike with this id, or the only one that can be paired now; raise StrikeUnreachable."""
    waiting: dict[bytes, tuple[BLEDevice, Advertisement]] = {}
    found = asyncio.Event()

    def heard(device: BLEDevice, advertisement: Advertisement) -> None:
        is_it = strike_id is None or advertisement.strike == strike_id[: len(advertisement.strike)]
        if is_it and Flags.PAIRING in advertisement.flags:
            waiting[advertisement.strike] = device, advertisement
            found.set()

    stop = ears.listen(heard)
    try:
        async with ears.scan():
            async with asyncio.timeout(FIND):
                await found.wait()
            await asyncio.sleep(SETTLE)
    except TimeoutError:
        raise StrikeUnreachable(
            "no strike can be paired: hold the button on its secure side for 3 seconds, and try again within 2 minutes"
        ) from None
    finally:
        stop()
    if len(waiting) > 1:
        raise StrikeUnreachable("more than one strike can be paired now: scan the QR code, or wait for 2 minutes")
    return next(iter(waiting.values()))
