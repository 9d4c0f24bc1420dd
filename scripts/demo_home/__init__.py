"""The demo: a real Home Assistant with simulated relays, and a carrier that delivers to it.

Used by `scripts/demo`, `scripts/picture` and tests/e2e. `home.py` runs a Home Assistant, `building.py` sets one up as a
person would, `carrier.py` is the carrier's cloud and its driver. `stage.py` is a door with everybody at it;
`delivery.py` and `incidents.py` play what happens there. `browser.py` is a person who looks at it.
"""
