"""An adapter as a connectable scanner of Home Assistant's Bluetooth stack, as an ESPHome proxy is one.

Home Assistant hears its adverts, chooses between scanners by RSSI, slots and failures, and connects through it. What
this module refuses to do: choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import override

from bluetooth_data_tools import monotonic_time_coarse
from bumble.device import Advertisement
from habluetooth import Allocations, BaseHaRemoteScanner, BluetoothScanningMode, HaBluetoothConnector, get_manager
from homeassistant.components.bluetooth import async_register_scanner
from homeassistant.core import HomeAssistant

from .adapter import Adapter


class VirtualScanner(BaseHaRemoteScanner):
    """Tells Home Assistant what an adapter hears, and how many slots it has left."""

    def __init__(self, adapter: Adapter) -> None:
        source = adapter.address
        connector = HaBluetoothConnector(adapter.client_class, source, lambda: adapter.free_slots > 0)
        mode = BluetoothScanningMode.ACTIVE if adapter.active else BluetoothScanningMode.PASSIVE
        super().__init__(source, adapter.name, connector, True, mode, mode)
        self.radio = adapter

    def heard(self, advertisement: Advertisement) -> None:
        """Pass an advertisement on."""
        kind = "random" if advertisement.address.is_random else "public"
        self._async_on_raw_advertisement(
            advertisement.address.to_string(False),
            advertisement.rssi,
            advertisement.data_bytes,
            {"props": {"AddressType": kind}},
            monotonic_time_coarse(),
        )

    @override
    def get_allocations(self) -> Allocations:
        radio = self.radio
        return Allocations(self.source, radio.slots, radio.free_slots, sorted(radio.taken))

    def slots_changed(self) -> None:
        """Tell Home Assistant how many slots are left."""
        get_manager().async_on_allocation_changed(self.get_allocations())


def register(hass: HomeAssistant, adapter: Adapter) -> Callable[[], None]:
    """Make ``adapter`` one of Home Assistant's scanners; return what ends that."""
    scanner = VirtualScanner(adapter)
    cancels = [
        scanner.async_setup(),
        async_register_scanner(hass, scanner),
        adapter.listen(scanner.heard),
    ]
    adapter.slots_changed = scanner.slots_changed
    scanner.slots_changed()

    def end() -> None:
        adapter.slots_changed = lambda: None
        for cancel in reversed(cancels):
            cancel()

    return end
