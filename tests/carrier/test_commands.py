"""``vestibule-carrier``: a carrier from nothing to a route, by commands, as somebody types them."""

import json
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carrier.__main__ import _unmistaken, main
from carrier.keys import fingerprint, read_key
from tests.simulated import IDENTITY, some_doors
from vestibule_core.link.code import EnrolmentCode

ROOT = Path(__file__).parents[2]
DOOR = some_doors(1)[0].id


class Typed:
    """Somebody at a prompt."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys
        self.config = folder / "carrier.toml"
        self.config.write_text(
            'name = "Parcels"\nissuer = "https://parcels.example"\ndatabase = "sqlite:///carrier.db"\nkeys = "keys"\n'
        )

    def __call__(self, *words, config=True, status=0):
        """Type a command; return what it prints."""
        given = [str(word) for word in words] + (["--config", str(self.config)] if config else [])
        assert main(given) == status, self._capsys.readouterr()
        said = self._capsys.readouterr()
        return said.err if status else said.out

    def file(self, name, value):
        path = self.folder / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    def ready(self):
        """With a schema and published keys."""
        self("migrate")
        self("keys", "root", "--root", self.folder / "root.pem")
        self("keys", "rotate")
        self("keys", "publish", "--root", self.folder / "root.pem")
        return self

    def with_door(self):
        doors = self.file("doors.json", [{"id": DOOR, "name": "Gate", "lat": 52.52, "lon": 13.405, "radius": 60}])
        key = str(IDENTITY.verifier)
        words = ("building", "add", "Number 7", "--zone", "Europe/Berlin", "--controller-key", key, "--doors", doors)
        return self(*words).strip()


@pytest.fixture
def typed(tmp_path, capsys):
    return Typed(tmp_path, capsys)


def test_a_carrier_from_nothing_to_a_route(typed):
    typed.ready()
    driver = typed("driver", "add", "Erika Mustermann", "--vetted-until", "2099-01-01").strip()
    building = typed.with_door()
    now = datetime.now(UTC)
    times = [(now + timedelta(hours=hours)).isoformat() for hours in (-1, 1)]
    stop = {"building": building, "doors": [DOOR], "window_from": times[0], "window_to": times[1]}
    route = {"driver": driver, "day": now.date().isoformat(), "shift_from": times[0], "shift_to": times[1]}
    manifest = typed.file("today.json", {"routes": [route | {"stops": [stop]}]})
    assert typed("manifest", "import", manifest).startswith("route:")
    assert "the driver has a route at that time" in typed("manifest", "import", manifest, status=2)
    assert "signs" in typed("check")
    listed = typed("driver", "list")
    assert driver in listed
    assert "Erika Mustermann" in listed
    assert "vetted until 2099-01-02 00:00 UTC" in listed
    assert re.search(
        rf"{building}.*Number 7.*\n.*controller.*NOT CONNECTED\n.*{DOOR}.*Gate\n", typed("building", "list")
    )
    told = typed("audit")
    assert "command: route brought route:" in told
    assert "Erika" not in told
    assert typed("audit", "--last", "1").count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "--last", "-1"),
        ("audit", "--last", "0"),
        ("alarms", "--seen", str(2**63)),
        ("driver", "invite", "driver:\udcff"),
        ("building", "invite", "--name", "x", "--building", "building:\udcff"),
    ],
    ids=str,
)
def test_what_one_database_takes_and_the_other_does_not_reaches_neither(typed, words):
    typed.ready()
    with pytest.raises(SystemExit, match="2"):
        typed(*words)


def test_a_manifest_of_csv_with_a_wrong_line_says_which(typed):
    typed.ready()
    columns = "driver,day,shift_from,shift_to,building,doors,window_from,window_to,reference"
    manifest = typed.file("today.CSV", f"{columns}\nErika,2026-11-26,,,,,,,\n")
    said = typed("manifest", "import", manifest, status=2)
    assert "vestibule-carrier: line 2: driver: this has to be an id" in said


def test_a_driver_is_invited_revoked_vetted_and_removed(typed):
    typed.ready()
    driver = typed("driver", "add", "Erika").strip()
    assert "NOT VETTED" in typed("driver", "list")
    link = typed("driver", "invite", driver).splitlines()[0]
    assert re.fullmatch(r"https://parcels\.example/#join=[A-Za-z0-9_-]{43}", link)
    assert link.partition("=")[2] not in (typed.folder / "carrier.db").read_bytes().decode("latin-1")
    assert "2030-06-01" in typed("driver", "vetting", driver, "--until", "2030-05-31")
    assert "not vetted" in typed("driver", "vetting", driver)
    assert "like 2027-03-31" in typed("driver", "vetting", driver, "--until", "tomorrow", status=2)
    assert "0 devices" in typed("driver", "revoke", driver)
    assert "there is no device device:x" in typed("driver", "revoke", "device:x", status=2)
    typed("driver", "remove", driver)
    assert typed("driver", "list") == "no drivers\n"
    assert f"there is no driver {driver}" in typed("driver", "invite", driver, status=2)
    assert b"Erika" not in b"".join(path.read_bytes() for path in typed.folder.glob("carrier.db*"))


def test_keys_are_made_published_revoked_and_shown(typed):
    typed("migrate")
    assert "keys rotate" in typed("keys", "list")
    root = typed.folder / "root.pem"
    said = typed("keys", "root", "--root", root)
    assert re.search(r"SHA-256 +[0-9a-f]{64}\n", said)
    assert stat.S_IMODE(root.stat().st_mode) == 0o600
    assert "never written over" in typed("keys", "root", "--root", root, status=2)
    assert "no key to publish" in typed("keys", "publish", "--root", root, status=2)
    kid = typed("keys", "rotate").split()[1]
    assert typed("keys", "list").count("NOT PUBLISHED") == 2
    assert "no keys are published" in typed("check", status=2)
    assert "version 1" in typed("keys", "publish", "--root", root)
    following = typed.folder / "next.pem"
    typed("keys", "root", "--root", following)
    assert "version 2" in typed("keys", "publish", "--root", root, "--next-root", following)
    assert "not the root key" in typed("keys", "publish", "--root", _another(typed), status=2)
    assert "version 3" in typed("keys", "publish", "--root", following)
    assert "SOON" not in typed("check")
    typed("keys", "revoke", kid)
    assert re.search(rf"revoked +{kid}", typed("keys", "list"))
    assert "no published key may sign" in typed("check", status=2)


def _another(typed):
    path = typed.folder / "another.pem"
    typed("keys", "root", "--root", path)
    return path


@pytest.mark.parametrize("dashed", ["-" + "A" * 42, "--" + "A" * 41, "-" + "A" * 21, "-33.86,151.21"])
@pytest.mark.parametrize("around", [[], ["--config", "file"]])
def test_what_begins_with_a_dash_is_not_always_an_option(dashed, around):
    assert _unmistaken(["keys", "revoke", dashed, *around]) == ["keys", "revoke", *around, "--", dashed]
    assert _unmistaken(["keys", "revoke", *around, "--", dashed]) == ["keys", "revoke", *around, "--", dashed]
    assert _unmistaken(["one", "--of", dashed, *around]) == ["one", f"--of={dashed}", *around]
    assert _unmistaken(["one", f"--of={dashed}", "--position-age", "-1"]) == [
        "one",
        f"--of={dashed}",
        "--position-age",
        "-1",
    ]
    assert _unmistaken(["keys", "revoke", "A" * 43, *around]) == ["keys", "revoke", "A" * 43, *around]


@pytest.mark.parametrize("before", [[], ["--"]])
@pytest.mark.parametrize("dashed", ["-" + "A" * 42, "--" + "A" * 41])
def test_a_key_whose_thumbprint_begins_with_a_dash_is_revoked_as_any_other(typed, before, dashed):
    typed("migrate")
    words = ("keys", "revoke", "--config", typed.config, *before, dashed)
    assert f"there is no key {dashed}" in typed(*words, config=False, status=2)


def test_an_api_key_is_shown_once_and_revoked(typed):
    typed.ready()
    said = typed("api-key", "add", "depot", "--scope", "manifests", "--scope", "read")
    key, secret = re.search(r"(key:\w+)", said)[1], re.search(r"(vck_\S{43})", said)[1]
    listed = typed("api-key", "list")
    assert f"{key}  depot  manifests read" in listed
    assert secret not in listed
    assert "a scope is one of" in typed("api-key", "add", "x", "--scope", "all", status=2)
    typed("api-key", "revoke", key)
    assert "revoked" in typed("api-key", "list")
    assert "or it was revoked" in typed("api-key", "revoke", key, status=2)


def test_a_building_that_cannot_be_is_said(typed):
    typed.ready()
    building = typed.with_door()
    key = str(IDENTITY.verifier)

    def add(doors, zone="Europe/Berlin", key=key):
        path = typed.file("d.json", doors)
        return typed("building", "add", "x", "--zone", zone, "--controller-key", key, "--doors", path, status=2)

    other = str(IDENTITY.renamed("other/controller").verifier)
    good = {"id": some_doors(2)[1].id, "name": "Lobby"}
    assert "is, or was, in a building already" in add([good])
    assert "no time zone 'Mars/Olympus'" in add([good], zone="Mars/Olympus", key=other)
    assert "verifier key" in add([good], key="nonsense")
    assert "is a door of a building already" in add([good | {"id": DOOR}], key=other)
    assert "this is not JSON" in add("[", key=other)
    assert "a list of 1 to 64 doors" in add([], key=other)
    for change, says in (
        ({"id": "gate"}, "door 1: id: this has to be"),
        ({"name": ""}, "door 1: name: this has to be"),
        ({"lat": 1}, "door 1: a position has both"),
        ({"lat": 91, "lon": 0}, "door 1: lat and lon: these have to be degrees"),
        ({"lat": "1", "lon": 0}, "door 1: lat and lon: these have to be degrees"),
        ({"radius": 501}, "door 1: radius: this has to be 5 to 500"),
        ({"color": "red"}, "door 1: this has to be"),
    ):
        assert says in add([good | change], key=other)
    typed("building", "remove", building)
    assert typed("building", "list") == "no buildings\n"
    assert "there is no building" in typed("building", "remove", building, status=2)


def test_a_building_is_invited_by_a_code(typed):
    typed("migrate")
    assert "publish keys first" in typed("building", "invite", "--name", "Number 9", status=2)
    typed("keys", "root", "--root", typed.folder / "root.pem")
    typed("keys", "rotate")
    typed("keys", "publish", "--root", typed.folder / "root.pem")
    said = typed("building", "invite", "--name", "Number 9")
    code = EnrolmentCode.parse(said.splitlines()[0])
    assert code.host == "parcels.example"
    assert code.root == fingerprint(read_key(typed.folder / "root.pem"))
    assert "good for 7 days" in said
    assert EnrolmentCode.parse(typed("building", "invite", "--name", "x").splitlines()[0]).secret != code.secret
    assert code.secret not in b"".join(path.read_bytes() for path in typed.folder.glob("carrier.db*"))
    assert "1 to 30 days" in typed("building", "invite", "--name", "x", "--days", "31", status=2)
    assert "there is no building" in typed("building", "invite", "--name", "x", "--building", "building:x", status=2)
    building = typed.with_door()
    assert "good for 1 days" in typed("building", "invite", "--name", "x", "--building", building, "--days", "1")


def test_a_controller_is_removed_and_what_nobody_offers_is_said(typed):
    typed.ready()
    building, key = typed.with_door(), str(IDENTITY.verifier)
    typed("building", "remove", building, "--controller", key)
    assert "NO CONTROLLER OFFERS IT" in typed("building", "list")
    assert "there is no controller" in typed("building", "remove", building, "--controller", key, status=2)


def test_alarms_are_shown_until_they_are_seen(typed):
    typed.ready()
    assert typed("alarms") == "no alarms\n"
    building = typed.with_door()
    with closing(sqlite3.connect(typed.folder / "carrier.db")) as db, db:
        db.execute(
            "INSERT INTO alarm (at, kind, building_id, subject, detail) VALUES (?, 'never_issued', ?, 'AAAA', ?)",
            ("2026-11-26 10:00:00.000000", building, '{"door":"door:x"}'),
        )
    assert re.search(rf"1 +2026-11-26 10:00 UTC +never_issued AAAA building={building} door=door:x", typed("alarms"))
    assert typed("alarms", "--seen", "1") == "seen\n"
    assert typed("alarms") == "no alarms\n"
    assert ", seen" in typed("alarms", "--all")
    assert "no alarm 1 that waits" in typed("alarms", "--seen", "1", status=2)


def test_retention_says_what_it_deleted(typed):
    typed.ready()
    assert "evidence of 0 requests" in typed("retain")


def test_nothing_works_without_the_schema_or_the_database_or_the_file(typed):
    assert "vestibule-carrier migrate" in typed("driver", "list", status=2)
    assert "vestibule-carrier migrate" in typed("run", status=2)
    assert "was empty" in typed("migrate")
    assert "as before" in typed("migrate")
    typed.config.write_text(typed.config.read_text().replace("carrier.db", "no/folder/carrier.db"))
    assert "the database does not answer" in typed("driver", "list", status=2)
    typed.config.write_text("nonsense")
    assert "line 1" in typed("driver", "list", status=2)
    typed.config.unlink()
    assert "carrier.toml: No such file" in typed("driver", "list", status=2)
    typed.config.write_bytes(b"\xff")
    assert "not UTF-8" in typed("check", status=2)


def test_the_program_is_installed_and_says_what_it_can_do():
    done = subprocess.run(
        [sys.executable, "-m", "carrier", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    for command in (
        "run",
        "check",
        "migrate",
        "keys",
        "driver",
        "building",
        "manifest",
        "api-key",
        "alarms",
        "audit",
        "retain",
    ):
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


def test_help_loads_no_database():
    """`vestibule-carrier --help` answers at once, and also where the extra is not installed."""
    script = (
        "import contextlib, sys; from carrier.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_check_says_what_has_to_be_done_soon(typed, monkeypatch):
    typed.ready()
    assert "SOON" not in typed("check")
    monkeypatch.setattr("carrier.commands.working.now", lambda: datetime.now(UTC) + timedelta(days=29))
    said = typed("check")
    assert re.search(r"SOON +keys publish", said)
    assert re.search(r"SOON +keys rotate", said)
