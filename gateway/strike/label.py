"""The label of this box: made once, kept in the state folder, shown to whoever is at the box.

The code is a key. What this module refuses to do: write it to a log, or make a new one for a strike that has slots,
whose controllers would no longer know it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

from vestibule_core.doorstrike.pairing import RANDOM_SIZE, Label, LabelError
from vestibule_core.doorstrike.wire import STRIKE_ID_SIZE

from .store import Store, StoreFailed

_FILE: Final = "label"
_MISSING: Final = (
    "the state folder has a strike's memory, but not its label: restore the file, or start with an empty folder"
)
_DAMAGED: Final = "the file with the label is damaged: restore it, or start with an empty folder"


def read_label(folder: Path) -> Label | None:
    """Return the label in a state folder, whoever uses that; None: there is none. Blocks; raises StoreFailed."""
    try:
        return Label.scanned((folder / _FILE).read_text("ascii"))
    except FileNotFoundError:
        return None
    except (LabelError, UnicodeDecodeError) as err:
        raise StoreFailed(_DAMAGED) from err
    except OSError as err:
        raise StoreFailed(str(err)) from err


def find_label(store: Store) -> tuple[Label, bool]:
    """Return the label, and whether it has just been made. Blocks; raises StoreFailed."""
    if (label := read_label(store.folder)) is not None:
        return label, False
    if store.load():
        raise StoreFailed(_MISSING)
    label = Label.new(os.urandom(STRIKE_ID_SIZE), os.urandom(RANDOM_SIZE))
    store.keep(_FILE, label.qr.encode())
    return label, True


def printed(label: Label, name: str) -> str:
    """Return the label as a text to print, with its QR code."""
    import segno

    picture = io.StringIO()
    segno.make(label.qr, error="m", micro=False).terminal(picture, compact=True)
    return (
        f"{picture.getvalue()}\n"
        f"strike {label.strike_id.hex()}   {name}\n"
        f"code   {label.grouped}\n\n"
        "Keep this inside of the strike's cover and nowhere else: whoever has the code and holds the button can pair.\n"
    )
