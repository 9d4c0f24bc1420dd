"""Secrets that a board is reached with: each the one line of a file that only its owner can read.

What this file refuses to do: say what is in one, or use one that others on this machine can read too.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from gateway.source import Unusable

_MOST: Final = 4096


def read_secret(path: Path) -> str:
    """Return the text in ``path``, without the white space around it. Blocks; raises Unusable."""
    try:
        # Without waiting, if it is a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Unusable(f"{path} is not a file")
            if stat.S_IMODE(mode) & 0o077:
                raise Unusable(f"{path} is a secret that others can read too: chmod 600 {path}")
            content = file.read(_MOST)
    except OSError as err:
        raise Unusable(f"{path}: {err.strerror}") from err
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Unusable(f"{path} is not the text that it should be") from None  # the error would show a part of it
    if not secret:
        raise Unusable(f"{path} is empty")
    return secret
