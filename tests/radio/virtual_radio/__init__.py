"""Virtual radio: Bluetooth adapters without Bluetooth, for a Home Assistant that is otherwise real.

Each adapter is a Bumble host on a controller that is elsewhere, for example on a port of ``python -m tests.radio.hub``.
To Home Assistant it is a scanner like an ESPHome proxy: it hears adverts, makes connections, and has so many slots.

    virtual_radio:
      - transport: tcp-client:127.0.0.1:7002   # in Bumble's words
        name: Hallway
        address: F0:CA:C0:01:00:01
        slots: 3          # these three, and
        mtu: 247          # passive: true,
        passive: false    # may be left out

The folder is complete: it is copied into ``custom_components`` as it is. What this file refuses to do: import Home
Assistant before Home Assistant calls it, because the adapter in here is used without it as well.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble.transport import open_transport

from .adapter import LARGEST_MTU, Adapter

if TYPE_CHECKING:
    from homeassistant.core import Event, HomeAssistant
    from homeassistant.helpers.typing import ConfigType

DOMAIN: Final = "virtual_radio"


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Switch the adapters of the configuration on; they go off when Home Assistant stops."""
    from homeassistant.const import EVENT_HOMEASSISTANT_STOP

    off = AsyncExitStack()
    try:
        for one in config.get(DOMAIN) or []:
            await _switch_on(hass, one, off)
    except BaseException:  # as a rule nobody listens at the port: the radio has to be there first
        await off.aclose()
        raise

    async def switch_off(_: Event) -> None:
        await off.aclose()

    hass.bus.async_listen_once(EVENT_HOMEASSISTANT_STOP, switch_off)
    return True


async def _switch_on(hass: HomeAssistant, one: dict[str, Any], off: AsyncExitStack) -> None:
    from .scanner import register

    source, sink = await off.enter_async_context(await open_transport(one["transport"]))
    device = Device.from_config_with_hci(
        DeviceConfiguration(name=one["name"], address=Address(one["address"])), source, sink
    )
    adapter = Adapter(
        device,
        mtu=one.get("mtu", LARGEST_MTU),
        slots=one.get("slots", 3),
        active=not one.get("passive", False),
    )
    await off.enter_async_context(adapter)
    off.callback(register(hass, adapter))
