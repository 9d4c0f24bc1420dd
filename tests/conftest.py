"""What every test of this repository needs, with Home Assistant or without."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from scripts.demo_home import home

ROOT = Path(__file__).parent.parent

# The same examples each time, so that a red run means a changed program; `scripts/test --all` looks further.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("default")
# It draws the constants of all modules of ours that happen to be loaded, too: a test alone would have other examples.
providers._get_local_constants = lambda: providers._local_constants

# A background job of a shell is deaf to an interruption, and so is what it starts: the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No worker takes the port of another one's server that is away for a moment.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    home.PORTS = home.PORTS[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]

# Home Assistant's test plugin has a regular package of this name, which would hide ours, a namespace package,
# if it were imported first. The run on the built wheel has no sources beside it and needs none.
if (ROOT / "custom_components").is_dir():
    import custom_components  # noqa: F401


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give back the sockets that Home Assistant's test plugin, where it is loaded, takes from every test."""
    if "pytest_socket" in sys.modules and (ROOT / "tests" / "integration") not in item.path.parents:
        sys.modules["pytest_socket"].enable_socket()
