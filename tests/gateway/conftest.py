"""What the tests of the gateway share. Nothing here knows Home Assistant."""

import pytest

from tests.gateway.at_work import Gateway
from tests.gateway.process import network, write_config
from tests.simulated import Carrier


@pytest.fixture
async def gateway(tmp_path):
    """A gateway with two doors, unpaired."""
    async with Gateway(tmp_path, doors=2) as gateway:
        yield gateway


@pytest.fixture
async def admin(gateway):
    """Its first client."""
    return await gateway.pair()


@pytest.fixture
def carrier():
    return Carrier()


@pytest.fixture
def config(tmp_path):
    """The configuration of a gateway in a process of its own, which does not run yet."""
    return write_config(tmp_path)


@pytest.fixture
async def session():
    """What its clients ask with."""
    async with network() as session:
        yield session


@pytest.fixture
async def open_for(gateway, admin, carrier):
    """The first client, after ``carrier`` was let in."""
    await gateway.allow(admin, carrier)
    return admin
