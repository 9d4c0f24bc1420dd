"""Lets the test package made for Home Assistant 2026.10.4 load on 2026.11.0: `pytest -p tests.ha_2026_11`.

What it needs is the order of three imports, and one name that has moved. What this file refuses to do: change what
is tested. It goes when there is a test package for 2026.11.
"""

# ruff: noqa: F401, I001

# First of all: from 2026.11 on it puts httpx2 in the place of httpx, which must not have been imported by then.
import homeassistant

# Before anything else of Home Assistant, as the test package does it: code that holds the original clock stands still
# for no test that freezes time.
from pytest_homeassistant_custom_component import patch_json, patch_recorder, patch_time

# The test package looks for it in the package.
from homeassistant.components import logger
from homeassistant.components.logger.helpers import _clear_logger_overwrites

logger._clear_logger_overwrites = _clear_logger_overwrites
