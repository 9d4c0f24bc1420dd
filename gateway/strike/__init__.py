"""A Linux box as a BLE strike: a Raspberry Pi with a relay, say (docs/strike.md, vestibule_core.doorstrike).

- ``config``   the file that says what hangs on the box
- ``label``    the code inside of the cover: made once, shown to whoever is at the box
- ``store``    what has to survive a power cut
- ``relay``    the bolt's output and the timer that ends a pulse; ``gpio`` is real lines, ``relay`` has one of memory
- ``inputs``   contact, cover, bolt, button: what they say, as the protocol's words
- ``shell``    the protocol's machine at work: its effects, in order
- ``air``      the GATT service and the advertisement, on Bumble
- ``box``      all of it put together; ``command`` is what a person types

What the package refuses to do: move anything at power-up, and import Home Assistant.
"""
