"""What every test of this repository needs, with Home Assistant or without."""

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# The same examples each time, so that a red run means a changed program; `scripts/test --all` looks further.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("default")

# A background job of a shell is deaf to an interruption, and so is what it starts: the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Home Assistant's test plugin has a regular package of this name, which would hide ours, a namespace package,
# if it were imported first. The run on the built wheel has no sources beside it and needs none.
if (ROOT / "custom_components").is_dir():
    import custom_components  # noqa: F401


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give back the sockets that Home Assistant's test plugin, where it is loaded, takes from every test."""
    if "pytest_socket" in sys.modules and (ROOT / "tests" / "integration") not in item.path.parents:
        sys.modules["pytest_socket"].enable_socket()
