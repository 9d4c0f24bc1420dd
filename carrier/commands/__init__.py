"""``vestibule-carrier run``, ``check``, ``migrate``, and what looks after keys, drivers, buildings and routes.

They work on the database that the running cloud works on, by the same functions as its API. The heavy part of the
program is loaded only by a command that runs.
"""

from __future__ import annotations

from . import buildings, cloud, dispatch, drivers, keys
from .working import Commands, Unusable

__all__ = ["Unusable", "add_commands"]


def add_commands(commands: Commands) -> None:
    """Add them."""
    for group in (cloud, keys, drivers, buildings, dispatch):
        group.add(commands)
