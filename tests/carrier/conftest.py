"""A database of each kind for the tests of a carrier's cloud."""

import pytest

from carrier.store import Store, database_url, schema

from .databases import WHY_NOT, Cluster, binaries
from .linked import Wire
from .town import Town


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL of this process's own."""
    if (programs := binaries()) is None:
        pytest.skip(WHY_NOT)
    cluster = Cluster(programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def cluster(server):
    """The same, for one test, whose databases go with it: to remove all of them at the end takes half a minute."""
    yield server
    server.drop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return database_url(f"sqlite:///{tmp_path}/carrier.db")
    return database_url(request.getfixturevalue("cluster").create())


@pytest.fixture
async def store(url):
    """A store with the schema, on each kind of database."""
    store = Store(url)
    await schema.migrate(store)
    yield store
    await store.close()


@pytest.fixture
async def town(store, tmp_path):
    """A carrier with a building at work, on each kind of database."""
    town = await Town.founded(store, tmp_path, stops=2)
    async with town.site:
        yield town


@pytest.fixture
async def wire():
    """The way that links take."""
    async with Wire() as wire:
        yield wire
