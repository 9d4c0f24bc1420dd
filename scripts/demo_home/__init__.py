"""The demo: a real Home Assistant with simulated relays, and a carrier's cloud that delivers to it.

Used by `scripts/demo`, `scripts/picture` and tests/e2e. `home.py` runs a Home Assistant, `building.py` sets one up as a
person would. `fleet.py` runs a carrier's cloud, `phone.py` is its driver's phone; `carrier.py` is another carrier, all
in one file, which has no link. `stage.py` is a door with everybody at it; `delivery.py` and `incidents.py` play what
happens there. `browser.py` is the manager and a driver who look at it.
"""
