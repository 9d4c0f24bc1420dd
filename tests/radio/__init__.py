"""A virtual Bluetooth radio: real Bluetooth stacks (Bumble) that hear each other through software, without hardware.

What is tested on it is unmodified: bleak, bleak-retry-connector, habluetooth, Home Assistant's own Bluetooth stack and
its stock ESPHome integration on one side, any Bumble host on the other. Nothing of bleak is mocked.

- ``ether.Radio`` is the ether. It holds the controllers and says who hears whom, how loudly, and which packets arrive.
- ``virtual_radio.adapter.Adapter`` is the Bluetooth adapter of a computer: a bleak backend, client and scanner.
- ``peripheral.Peripheral`` is a plain GATT peripheral; ``python -m tests.radio.peripheral`` is a process of one.
- ``hub`` keeps a radio in a process of its own: ``python -m tests.radio.hub gate=7001 hallway=7002``.
- ``virtual_radio`` is an integration for a live Home Assistant, and ``virtual_radio.scanner`` what it is made of.
- ``esphome.EsphomeProxy`` is an ESPHome Bluetooth proxy.
- ``site.Site`` is a whole door on it: the strike's program, the driver, and others who want something. ``bench`` is the
  same for what is said packet by packet, with the tests of tests/core/doorstrike/test_attacks.py. ``middle.Middle`` is
  somebody in between, ``fragile.FragileGate`` a strike that loses its power in the wrong moment.
- ``virtual_time`` lets minutes of all that pass at once.

```python
from tests.radio.ether import Radio
from tests.radio.peripheral import RX, Peripheral
from tests.radio.virtual_radio.adapter import Adapter

async with Radio() as radio, Peripheral(radio, "gate") as gate, Adapter(radio.device("phone")) as phone:
    device = await phone.find(gate.address)
    with radio.tap() as tap:
        async with BleakClient(device, backend=phone.client_class) as client:
            await client.write_gatt_char(RX, b"hello", response=True)
    assert gate.written == [b"hello"]
    assert tap.round_trips <= 15
    radio.walk_away("phone", "gate")
```

What is not faithful:

- Time. A packet arrives in the next turn of the event loop or never: no connection intervals, no collisions, no noise.
  Adverts keep their interval. A connection takes two of them.
- Whoever is in range is heard whole, whatever the RSSI: it only says who is preferred.
- No pairing and no encryption: the door's protocol needs neither. No BlueZ behind the adapter, so no D-Bus errors, but
  for the one text that bleak-retry-connector looks for.
- Discovery asks service by service, as an ESP32 does: 14 ATT round trips for a cold unlock, 15 at an MTU of 23, two of
  Bumble's own services included. BlueZ needs fewer.
- The proxy speaks plaintext only, and always negotiates the MTU before it says that it is connected.
"""
