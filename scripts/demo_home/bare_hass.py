"""Start Home Assistant as a building has it: with nothing of this project on the import path.

Run as `python -I -S bare_hass.py SITE_PACKAGES -c CONFIG ...`. Without `site` no .pth file is read, so that
the development environment's editable install of `vestibule_core` does not exist: what loads is the folder
copied into CONFIG. What this file refuses to do: start where that is not so, listen for multicast
on the networks of this machine, or use its Bluetooth adapters and serial ports.
"""

import importlib.util
import sys

sys.path.append(sys.argv.pop(1))

for ours in ("vestibule_core", "custom_components.vestibule"):
    top = ours.partition(".")[0]
    if importlib.util.find_spec(top) and importlib.util.find_spec(ours):
        sys.exit(f"{ours} can be imported from {sys.path}: a copied folder would not be tested alone")

import zeroconf  # noqa: E402 - not importable before


class LoopbackZeroconf(zeroconf.Zeroconf):
    """Home Assistant's HTTP client looks up names over multicast DNS, too, on every network. Not here."""

    def __init__(self, **_: object) -> None:
        super().__init__(interfaces=["127.0.0.1"], unicast=True)


zeroconf.Zeroconf = LoopbackZeroconf  # type: ignore[assignment, misc]  # before Home Assistant makes its own of it

if importlib.util.find_spec("bluetooth_adapters"):
    import bluetooth_adapters

    class NoAdapters(bluetooth_adapters.BluetoothAdapters):
        """At its first start, Home Assistant would take those of this machine without asking. Not here."""

        @property
        def adapters(self) -> dict[str, bluetooth_adapters.AdapterDetails]:
            return {}

        @property
        def default_adapter(self) -> str:
            return "none"

    bluetooth_adapters.get_adapters = NoAdapters

if importlib.util.find_spec("serialx"):
    import serialx

    # Bluetooth brings USB discovery along.
    serialx.list_serial_ports = lambda *_, **__: []

from homeassistant.__main__ import main  # noqa: E402 - not importable before

sys.exit(main())
