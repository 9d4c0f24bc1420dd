"""The program behind ``vestibule-carrier run``: the cloud over HTTP, and what it sees to by itself.

It serves plain HTTP for a proxy on the same host or network, which speaks HTTPS. What it refuses to do: begin with
another schema than its own, or end while a decision is being made.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from datetime import timedelta
from typing import Final, Self

from aiohttp import web

from .cloud import Cloud
from .config import Config
from .decide import Desk, settle
from .keys import KeyFolder
from .links import Links
from .passkeys import Party
from .retention import retain
from .server import Api
from .store import Store, StoreUnavailable, schema
from .ways import Ways

_LOGGER = logging.getLogger(__name__)
END: Final = 30.0
"""Seconds for requests that are being answered when the program ends: more than a door takes."""
SETTLE_EVERY: Final = 5.0
RETAIN_EVERY: Final = 6 * 3600.0


class _Lines(logging.Formatter):
    """A line for each record, with its facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = "".join(f" {name}={value!r}" for name, value in getattr(record, "facts", {}).items())
        return f"{record.levelname.lower()}: {super().format(record)}{facts}"


class Front:
    """The cloud on the network."""

    def __init__(self, cloud: Cloud, runner: web.AppRunner, site: web.TCPSite, port: int) -> None:
        """Use ``Front.open``."""
        self.cloud, self._runner, self._site, self.port = cloud, runner, site, port
        self._keeping = asyncio.get_running_loop().create_task(cloud.ways.run())
        self._keeping.add_done_callback(lambda _: cloud.ending.set())  # it ends by being told to, or by a fault

    @classmethod
    async def open(cls, cloud: Cloud, host: str, port: int) -> Self:
        """Serve ``cloud`` at an address of this machine; ``port`` 0: a free one. Raises OSError, StoreUnavailable."""
        await cloud.ways.links.begin()
        runner = web.AppRunner(Api(cloud).app, access_log=None, shutdown_timeout=END)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        return cls(cloud, runner, site, runner.addresses[0][1])

    async def close(self) -> None:
        """Listen to nobody any more, and let what is in progress come to its end: first what drivers wait for, then
        the links that it needs.
        """
        self.cloud.ending.set()
        if self._site in self._runner.sites:  # not closed before
            await self._site.stop()
        await self.cloud.end()
        await self.cloud.ways.end()
        await self._runner.cleanup()
        await self.cloud.end()
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping  # a fault of it is not to be lost


async def serve(config: Config) -> None:
    """Serve a carrier's cloud until SIGTERM or SIGINT.

    Raises SchemaDiffers, StoreUnavailable, or OSError (the address is taken).
    """
    lines = logging.StreamHandler()
    lines.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[lines])
    store = Store(config.database)
    try:
        await schema.check(store)
        days = timedelta(days=config.retention.evidence)
        ring = KeyFolder(config.keys)
        ways = Ways(store, Links(store, ring, config.issuer, config.name))
        desk = Desk(store, ring, ways, config.issuer, config.limits, days)
        party = Party(config.host, config.origin, config.name)
        cloud = Cloud(desk, party, ways, typed_positions=config.typed_positions)
        front = await Front.open(cloud, config.listen.host, config.listen.port)
        _LOGGER.info("Serving %s at %s:%s", config.origin, config.listen.host, front.port)
        if cloud.typed_positions:
            _LOGGER.warning("Typed positions are taken: this is for trying it out, not for drivers")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, cloud.ending.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_settle(cloud))
                tasks.create_task(_retain(cloud, config))
        finally:
            await front.close()
    finally:
        await store.close()


async def _settle(cloud: Cloud) -> None:
    """End what replicas that were killed have left behind."""
    while not cloud.ending.is_set():
        try:
            free, unknown = await settle(cloud.store, cloud.now())
        except StoreUnavailable as err:
            _LOGGER.warning("The database does not answer: %s", err)
        else:
            if free or unknown:
                _LOGGER.warning("Ended what was left: %s doors given back, %s outcomes unknown", free, unknown)
        await cloud.until_ending(SETTLE_EVERY)


async def _retain(cloud: Cloud, config: Config) -> None:
    """Forget what is too old: now, because a program that is often started anew would never come to it, and then."""
    failed = False
    while not cloud.ending.is_set():
        try:
            await retain(cloud.store, config.retention, "retention", cloud.now(), scrub=failed)
            failed = False
        except StoreUnavailable as err:
            failed = True
            _LOGGER.warning("Nothing was forgotten: the database does not answer: %s", err)
        await cloud.until_ending(RETAIN_EVERY)
