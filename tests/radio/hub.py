"""A radio in a process of its own, with a TCP port on loopback for each device.

``python -m tests.radio.hub gate=7001 hallway=7002`` opens the ports (0: any free one), says for each how Bumble reaches
it (``gate tcp-client:127.0.0.1:7001``), then ``ready``, and runs until SIGTERM or SIGINT. Everybody is in range of
everybody. What this module refuses to do: listen on anything but loopback.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from .ether import LOOPBACK, Radio


async def run(ports: dict[str, int]) -> None:
    """Keep a radio with these ports, by the names of their devices."""
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    async with Radio() as radio:
        for name, wanted in ports.items():
            port = await radio.open_port(name, wanted)
            print(f"{name} tcp-client:{LOOPBACK}:{port}", flush=True)
        print("ready", flush=True)
        await asked_to_end.wait()


if __name__ == "__main__":
    pairs = (argument.partition("=") for argument in sys.argv[1:])
    asyncio.run(run({name: int(port or 0) for name, _, port in pairs}))
