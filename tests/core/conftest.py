"""What the tests of the core share. Nothing here knows Home Assistant."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.conformance")

from tests.core.crash_process import Processes  # noqa: E402
from tests.simulated import Carrier, Clock, Site, open_journal  # noqa: E402


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def carrier():
    return Carrier()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path):
    """An open journal, and what it told."""
    journal = await asyncio.to_thread(open_journal, path)
    journal.told = []
    journal.start(journal.told.append)
    yield journal
    await asyncio.to_thread(journal.close)


@pytest.fixture
async def site(tmp_path):
    """A building with two doors and one carrier, at work."""
    async with Site(tmp_path / "journal.db", doors=2) as site:
        yield site


@pytest.fixture(scope="session")
def processes():
    """Controllers in processes of their own."""
    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def counted_processes(tmp_path_factory):
    """The same, with every sync counted and a disk that can be made to fail."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler for the fsync shim")
    shim = tmp_path_factory.mktemp("shim") / "fsync_shim.so"
    source = Path(__file__).with_name("fsync_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    processes = Processes(preload=shim)
    yield processes
    processes.close()
