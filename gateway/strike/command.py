"""``vestibule-gateway strike``: be a strike until told to stop, or say what keeps the box from being one.

Bumble, the QR code's library and the GPIO library are an extra: this module loads without them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.source import Unusable
from gateway.toml_table import ConfigError
from vestibule_core.doorstrike.device import PAIRING_HOLD, RESET_HOLD, ButtonHeld

from . import gpio
from .config import Config, chips, read_config
from .label import find_label, printed, read_label
from .store import Store, StoreFailed, StoreInUse

if TYPE_CHECKING:
    from vestibule_core.doorstrike.pairing import Label

    from .box import Box

_LOG: Final = logging.getLogger(__name__)
_EXTRA: Final = {"bumble", "gpiod", "segno"}
NOBODY: Final = "C0:00:00:00:00:01"
"""The address of a device that never goes on the air."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``strike``."""
    what = "be a BLE strike: a relay on this machine that a controller opens over Bluetooth"
    strike = commands.add_parser("strike", help=what, description=f"{what[0].upper()}{what[1:]}.")
    strike.add_argument("--config", type=Path, required=True, metavar="FILE", help="what hangs on this machine")
    instead = strike.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="say whether it could start: reads everything, moves nothing, and ends"
    )
    instead.add_argument(
        "--label", action="store_true", help="show the strike's label with its code, which is made if need be, and end"
    )
    strike.set_defaults(run=_strike)


def _strike(given: argparse.Namespace) -> int:
    with _explained():
        config = read_config(given.config)
        if given.label:
            print(printed(_label(config), config.name))
        elif given.check:
            asyncio.run(_check(config))
        else:
            _quiet()
            asyncio.run(_work(config))
        return 0


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what can be wrong at a box into words for whoever stands there. The one place for it."""
    try:
        yield
    except (ConfigError, StoreFailed, StoreInUse, gpio.LineError) as err:
        raise Unusable(str(err)) from err
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] not in _EXTRA:
            raise
        raise Unusable("a strike needs more packages: pip install 'vestibule-gateway[strike]'") from err


def _label(config: Config) -> Label:
    if (label := read_label(config.state)) is not None:
        return label
    store = Store.open(config.state)
    try:
        return find_label(store)[0]
    finally:
        store.close()


async def _check(config: Config) -> None:
    from .box import NoController, controller

    print(f"config      ok, {config.name}")
    for line in chips(config):
        gpio.look(line)
        print(f"line        ok, {line.chip} {line.line}")
    if config.state.exists():
        store = Store.open(config.state)
        try:
            store.load()
        finally:
            store.close()
        print(f"state       ok, {config.state}")
    else:
        print(f"state       {config.state} will be made at the first start")
    try:
        async with controller(config)(NOBODY) as reached, asyncio.timeout(10):
            await reached.device.power_on()
            await reached.device.power_off()
    except NoController as err:
        raise Unusable(str(err)) from err
    except TimeoutError as err:
        raise Unusable(f'the Bluetooth controller at "{config.transport}" does not answer') from err
    print(f"controller  ok, {config.transport}")


async def _work(config: Config) -> None:
    """Be the strike until SIGTERM or SIGINT. Raises Unusable if it cannot go on."""
    from .box import NoController, at_work, controller

    loop = asyncio.get_running_loop()
    # Signals that say what a button would: whoever may send them is root at the box, or the strike's own user.
    held = {signal.SIGUSR1: PAIRING_HOLD, signal.SIGUSR2: RESET_HOLD}
    asked_to_end: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not asked_to_end.done():
            asked_to_end.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        async with at_work(config, controller(config)) as box:
            failed = box.shell.failed
            for number, seconds in held.items():
                loop.add_signal_handler(number, box.shell.sensed, ButtonHeld(seconds))
            loop.set_exception_handler(_end_if_the_device_is_gone(failed))
            _introduce(box, config)
            # Not before the signals are taken: one that comes too early ends a process.
            _LOG.info("ready strike=%s address=%s", box.label.strike_id.hex(), box.address)
            await asyncio.wait([asked_to_end, box.gone, failed], return_when=asyncio.FIRST_COMPLETED)
            for number in held:
                loop.remove_signal_handler(number)
            if failed.done() and (bug := failed.exception()) is not None:
                _LOG.critical("failed", exc_info=bug)
                raise bug
            if box.gone.done():
                raise NoController("the Bluetooth controller is gone")
    except NoController as err:
        raise Unusable(str(err)) from err
    _LOG.info("ended")


def _end_if_the_device_is_gone(
    failed: asyncio.Future[None],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return an exception handler of an event loop.

    Bumble's HCI socket does not notice that its adapter is gone: reading fails, again and again, in the loop's hands.
    """

    def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(err := context.get("exception"), OSError) and not failed.done():
            failed.set_exception(err)
        loop.default_exception_handler(context)

    return unhandled


def _introduce(box: Box, config: Config) -> None:
    """Show the label at the first start, to a person only: what a service writes is kept in a log."""
    if not box.new:
        return
    if sys.stdout.isatty():
        print(printed(box.label, config.name), flush=True)
    else:
        _LOG.warning("label new: show it with --label")


def _quiet() -> None:
    """Log a line for each thing that happened, and of the Bluetooth stack only what is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("bumble").setLevel(logging.WARNING)
    os.umask(0o077)
