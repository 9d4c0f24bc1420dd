"""What systemd is told (sd_notify): that the gateway is ready, that it still works, that it stops.

Without systemd, nothing.
"""

from __future__ import annotations

import os
import socket


def tell(state: str) -> None:
    """Tell ``state``; somebody who does not listen is no reason to fail, nor to wait."""
    if not (address := os.environ.get("NOTIFY_SOCKET")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as to:
        try:
            to.connect("\0" + address[1:] if address.startswith("@") else address)
            to.sendall(state.encode())
        except OSError:  # it was restarted, or its socket is full: the next word may find room
            pass


def watchdog() -> float | None:
    """Return after how many seconds without a word systemd restarts this process; None: never."""
    try:
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        seconds = int(os.environ["WATCHDOG_USEC"]) / 1e6
    except KeyError, ValueError:
        return None
    return seconds if seconds > 0 else None
