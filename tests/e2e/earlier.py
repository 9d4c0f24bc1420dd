"""Homes that earlier releases left behind, each written by the release's own code in a live Home Assistant.

A home has the demo's building, two drivers who were let in, a person who opened by hand, and a door that was blocked
before the next driver came. Recorded with `python -m tests.e2e.earlier RELEASE FOLDER`, FOLDER being the release's
`custom_components/vestibule`. The keys in it are of nothing else.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scripts.demo_home.building import Door, Part, entities_of
from scripts.demo_home.demo import Demo, home_of, make, make_carrier, signing_key
from scripts.demo_home.home import Home, free_port, write_private

from .conftest import Driver, journal_of

HOMES: Final = Path(__file__).parent / "homes"

KEPT: Final = (
    "core.area_registry",
    "core.config_entries",
    "core.device_registry",
    "core.entity_registry",
    "vestibule.journal.db",
)
"""What is kept of `.storage`: all that there is of the building. Users are made anew."""


def record(release: str, integration: Path) -> None:
    """Let a release live in a new home for a while, and keep what it leaves behind."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "demo"
        with home_of(folder, free_port()) as home:
            demo = make(folder, home, integration=integration)
            driver, parcel_room = Driver.of(folder, demo), demo.door("parcel-room")
            assert driver.deliver(demo.door("gate"))[0] == driver.deliver(demo.door("lobby"))[0] == "granted"
            home.perform("lock.unlock", {"entity_id": entities_of(home, demo.door("lobby"))[Part.LOCK]})
            mode = entities_of(home, parcel_room)[Part.MODE]
            home.perform("select.select_option", {"entity_id": mode, "option": "blocked"})
            assert driver.deliver(parcel_room)[0] == "refused"
        target = HOMES / release
        target.mkdir()
        for name in KEPT:
            shutil.copy(home.folder / ".storage" / name, target)
        kept = {
            "doors": [asdict(door) for door in demo.doors],
            "intake_key": (folder / "swift" / "intake-key").read_text(),
            "signing_key": signing_key(folder).private.private_bytes_raw().hex(),
        }
        (target / "home.json").write_text(json.dumps(kept, indent=2) + "\n")


def move_in(release: str, folder: Path, home: Home, *, ended: float) -> None:
    """Put today's integration into the home of a release that wrote its newest entry at ``ended`` (since 1970)."""
    kept = _kept(release)
    folder.mkdir(mode=0o700)
    make_carrier(folder)
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(kept["signing_key"]))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    write_private(folder / "swift" / "signing-key.pem", pem)
    write_private(folder / "swift" / "intake-key", kept["intake_key"])
    home.prepare()
    for name in KEPT:
        shutil.copy(HOMES / release / name, home.folder / ".storage")
    _postpone(journal_of(home.folder), ended)


def start(release: str, home: Home) -> Demo:
    """Start it, with a new user."""
    home.start()
    refresh_token = home.onboard("Building manager", "manager", "password")
    home.wait_until_started()
    doors = tuple(Door(**door) for door in _kept(release)["doors"])
    return Demo(home.port, "password", refresh_token, f"{home.url}/", doors)


def entities_then(release: str) -> dict[str, str]:
    """The ids of Vestibule's entities by their unique ids, as the release left them."""
    registry = json.loads((HOMES / release / "core.entity_registry").read_text())["data"]["entities"]
    return {entity["unique_id"]: entity["entity_id"] for entity in registry if entity["platform"] == "vestibule"}


def _kept(release: str) -> Any:
    return json.loads((HOMES / release / "home.json").read_text())


def _postpone(journal: Path, ended: float) -> None:
    """Let all of a journal have happened later: a real home is updated before persons have had their time.

    Nothing signs the entries of a journal that this is done to.
    """
    with closing(sqlite3.connect(journal)) as db, db:
        assert not db.execute("SELECT 1 FROM checkpoint").fetchone()
        leaves = {number: json.loads(data) for number, data in db.execute("SELECT seq, bytes FROM leaf")}
        later = ended - max(leaf["t"] for leaf in leaves.values())
        for number, leaf in leaves.items():
            as_written = db.execute("SELECT bytes FROM leaf WHERE seq = ?", (number,)).fetchone()
            assert (_encoded(leaf),) == as_written
            db.execute("UPDATE leaf SET bytes = ? WHERE seq = ?", (_encoded(leaf | {"t": leaf["t"] + later}), number))
        db.execute("UPDATE spent SET at = at + ?", (later,))


def _encoded(leaf: dict[str, object]) -> bytes:
    return json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]))
