"""The demo: a real Home Assistant with simulated relays, and a carrier that delivers to it.

Used by `scripts/demo` and by tests/e2e. `home.py` runs a Home Assistant, `building.py` sets one up as a
person would, `carrier.py` is the carrier's cloud and its driver, `delivery.py` plays what happens at the
door.
"""
