"""What the demo keeps in its folder from one start to the next, and the making of it.

The folder holds a Home Assistant, a carrier's cloud with its driver's phone, the keys of another carrier and of its
driver's phone, the intake key that the building gave that one, and the password that a person signs in with, all made
at the first start and readable by their owner only. It may be removed; nothing else knows of it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vestibule_core.keys import SigningKey
from vestibule_core.model import Issuer

from . import building, carrier
from .building import Door
from .fleet import ROBIN, Fleet, FleetFailed
from .fleet import USUAL_PORT as CLOUDS_PORT
from .home import HOST, REPOSITORY, USUAL_PORT, VESTIBULE, Home, HomeFailed, answers, free_port, write_private
from .phone import Phone, Place
from .radio import Gate, NoRadio
from .room import NoGateway, Room

USUAL_FOLDER: Final = REPOSITORY / ".demo"
USER_NAME: Final = "manager"
DRIVER: Final = "driver-7"
ROUTE: Final = "R-117"
STOP: Final = "S-4"
# Letters and digits that cannot be taken for one another.
_READABLE: Final = "abcdefghjkmnpqrstuvwxyz23456789"


def command(folder: Path) -> str:
    """Return the command that starts the demo in a folder; with a verb added, one that plays to it."""
    return "scripts/demo" if folder == USUAL_FOLDER else f"scripts/demo --folder {shlex.quote(str(folder))}"


class NotRunning(HomeFailed):
    """There is no demo to talk to."""


def other_version(folder: Path) -> NotRunning:
    """Return what is wrong with a demo that this program did not make."""
    begin_anew = f"{command(folder)} --fresh"
    return NotRunning(f"The demo in {folder} is of another version. Begin anew with: {begin_anew}")


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that was set up."""

    port: int
    password: str
    """The manager's, to sign in with in a browser."""
    refresh_token: str
    """The manager's, too: what a play does and sees in Home Assistant as the manager."""
    client_id: str
    doors: tuple[Door, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it. Raises NotRunning if there is none."""
        try:
            kept = json.loads((folder / "demo.json").read_text("utf-8"))
            demo = cls(**(kept | {"doors": tuple(Door(**door) for door in kept["doors"])}))
            if [door.key for door in demo.doors] != [plan.key for plan in building.DOORS]:
                raise KeyError("doors")
            return demo
        except FileNotFoundError as err:
            raise NotRunning(f"There is no demo in {folder}. Start one with: {command(folder)}") from err
        except (TypeError, KeyError) as err:
            raise other_version(folder) from err

    def save(self, folder: Path) -> None:
        """Write it, for its owner only."""
        write_private(folder / "demo.json", json.dumps(asdict(self), indent=2))

    def door(self, key: str) -> Door:
        """Return a door by its short name."""
        (door,) = (door for door in self.doors if door.key == key)
        return door


def home_of(folder: Path, port: int, python: Path = Path(sys.executable)) -> Home:
    """Return the Home Assistant of the demo in a folder; ``python`` is of the environment that has it."""
    return Home(folder / "config", python, building.LATITUDE, building.LONGITUDE, port)


@contextlib.contextmanager
def running(folder: Path, *, wanted_port: int, fresh: bool) -> Iterator[tuple[Demo, Home, Fleet]]:
    """Run the demo in a folder, making it first if need be, for as long as the `with` lasts."""
    with contextlib.suppress(NotRunning):
        if answers((there := Demo.load(folder)).port):
            raise HomeFailed(f"The demo in {folder} is running already, at http://{HOST}:{there.port}")
    # demo.json is written last: a folder without it is of a first start that did not come to its end.
    first = fresh or not (folder / "demo.json").exists()
    if first:
        _remove(folder)
        begin(folder)
    elif not fleet_of(folder).is_founded:
        raise other_version(folder)
    with contextlib.ExitStack() as running:
        gate, room = None, None
        if first or Demo.load(folder).door(building.GATE).strike is not None:
            try:
                gate = running.enter_context(Gate(strike_of(folder)))
            except NoRadio as err:
                otherwise = "has a relay instead" if first else "cannot be reached"
                print(f"The gate's Bluetooth strike cannot be run, so it {otherwise}: {err}", flush=True)
        if first or Demo.load(folder).door(building.PARCEL_ROOM).gateway is not None:
            try:
                where = gateway_of(folder)
                parcel_room = Room(where, latitude=building.LATITUDE, longitude=building.LONGITUDE)
                room = running.enter_context(parcel_room)
            except NoGateway as err:
                otherwise = "has a relay instead" if first else "cannot be reached"
                print(f"The parcel room's gateway cannot be run, so the room {otherwise}: {err}", flush=True)
        # Two demos at a time are a person's, who chose the port of one; its cloud goes out of the way, too.
        fleet = running.enter_context(fleet_of(folder, CLOUDS_PORT if wanted_port == USUAL_PORT else 0))
        home = running.enter_context(home_of(folder, free_port(wanted_port)))
        home.radio = None if gate is None else gate.hears
        if first:
            demo = make(folder, home, gate=gate, room=room, fleet=fleet)
        else:
            demo = resume(folder, home)
            try:
                fleet.wait_until_linked(1 if room is None else 2)
            except FleetFailed as err:  # somebody may have removed the carrier in the browser
                print(err, flush=True)
        yield demo, home, fleet


def strike_of(folder: Path) -> Path:
    """Return the folder of the gate's Bluetooth strike."""
    return folder / building.GATE


def gateway_of(folder: Path) -> Path:
    """Return the folder of the parcel room's gateway and its relay board."""
    return folder / building.PARCEL_ROOM


def fleet_of(folder: Path, wanted_port: int = 0) -> Fleet:
    """Return the carrier that has a cloud, which listens there from its first start on, if nobody else does."""
    return Fleet(folder / "canal", wanted_port)


def robins_phone(folder: Path) -> Phone:
    """Return the phone of the driver of the plays."""
    return Phone(folder / "robin", fleet_of(folder), ROBIN)


def place_near(metres_away: float) -> Place:
    """Return where a phone is that is so many metres south of the building's doors."""
    position = _near(metres_north=-metres_away, accuracy=6.0)
    return Place(position.latitude, position.longitude, int(position.accuracy))


def talk_to(folder: Path) -> tuple[Demo, Home]:
    """Return the running demo of a folder, signed in as the manager. Raises NotRunning if it does not run."""
    demo = Demo.load(folder)
    if not answers(demo.port):
        raise NotRunning(f"The demo is not running. Start it in another terminal with: {command(folder)}")
    home = home_of(folder, demo.port)
    home.sign_in(demo.refresh_token, demo.client_id)
    if not home.is_started():
        raise NotRunning("The demo is still starting. Try again in a moment.")
    return demo, home


def cloud_of(folder: Path, demo: Demo) -> carrier.Cloud:
    """Return the cloud of Swift Parcels as it is today: one driver on one route, with one due stop, here."""
    places = {door.key: _near(metres_north=10.0 * number, accuracy=0.0) for number, door in enumerate(demo.doors)}
    return carrier.Cloud(
        issuer=Issuer(building.ISSUER),
        key=signing_key(folder),
        secret=(folder / "swift" / "pseudonyms").read_bytes(),
        drivers={DRIVER: phone_of(folder).key.public_key()},
        due={(DRIVER, ROUTE): frozenset({STOP})},
        places=places,
    )


def intake_of(folder: Path, demo: Demo) -> carrier.Intake:
    """Return the building's intake, with the key that Swift Parcels was given."""
    return carrier.Intake(HOST, demo.port, (folder / "swift" / "intake-key").read_text("ascii"))


def request(demo: Demo, door: Door, *, metres_away: float, now: float) -> carrier.Request:
    """Return what the driver's phone sends from somewhere south of a door."""
    place = 10.0 * demo.doors.index(door)
    position = _near(metres_north=place - metres_away, accuracy=6.0, taken_at=now - 2.0)
    return carrier.Request(DRIVER, ROUTE, STOP, door.key, position, asked_at=now)


def signing_key(folder: Path) -> SigningKey:
    """Return the key that the carrier signs with, made when it is first asked for."""
    return SigningKey(private_key(folder / "swift" / "signing-key.pem"))


def phone_of(folder: Path) -> carrier.Phone:
    """Return the driver's phone with its key, made when it is first asked for."""
    return carrier.Phone(DRIVER, private_key(folder / "phone" / "device-key.pem"))


# ---- making it ---------------------------------------------------------------------------------------------

_MARK: Final = "Made by scripts/demo. This folder may be removed.\n"


def make_carrier(folder: Path) -> str:
    """Found Swift Parcels and hire its driver, in an empty folder; return the key set that it publishes."""
    for part in ("swift", "phone"):
        (folder / part).mkdir(mode=0o700)
    write_private(folder / "swift" / "pseudonyms", secrets.token_hex(32))
    key, _ = signing_key(folder), phone_of(folder)
    return json.dumps({"keys": [key.jwk()]})


def begin(folder: Path) -> None:
    """Make the folder of a demo."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "README").write_text(_MARK, "utf-8")


def make(
    folder: Path,
    home: Home,
    *,
    integration: Path = VESTIBULE,
    gate: Gate | None = None,
    room: Room | None = None,
    fleet: Fleet | None = None,
) -> Demo:
    """Start a new Home Assistant and set it up, with this gate, this parcel room and this fleet if there are such.

    The folder holds nothing else, or does not exist.
    """
    begin(folder)
    jwk_set = make_carrier(folder)
    home.prepare(integration=integration)
    home.start()
    password = "-".join("".join(secrets.choice(_READABLE) for _ in range(4)) for _ in range(4))
    refresh_token = home.onboard("Building manager", USER_NAME, password)
    home.wait_until_started()
    try:
        made = building.set_up(home, jwk_set, gate, room, fleet)
    except HomeFailed as err:
        raise HomeFailed(f"{err}\n{home.last_words()}") from err
    write_private(folder / "swift" / "intake-key", made.intake_key)
    demo = Demo(home.port, password, refresh_token, f"{home.url}/", made.doors)
    demo.save(folder)
    return demo


def resume(folder: Path, home: Home) -> Demo:
    """Start the Home Assistant of a demo that was set up before."""
    kept = Demo.load(folder)
    demo = Demo(home.port, kept.password, kept.refresh_token, kept.client_id, kept.doors)
    home.prepare()
    home.start()
    home.sign_in(demo.refresh_token, demo.client_id)
    home.wait_until_started()
    demo.save(folder)
    return demo


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    mark = folder / "README"
    if any(folder.iterdir()) and not (mark.exists() and mark.read_text("utf-8") == _MARK):
        raise HomeFailed(f"{folder} holds something else than a demo; it is left alone.")
    shutil.rmtree(folder)


def private_key(path: Path) -> Ed25519PrivateKey:
    """Return the key in a file, made if there is none."""
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem.decode())
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def _near(metres_north: float, accuracy: float, taken_at: float | None = None) -> carrier.Position:
    """Return a position so many metres north of the building's first door."""
    degrees = metres_north / 111_195.0
    at = time.time() if taken_at is None else taken_at
    return carrier.Position(building.LATITUDE + degrees, building.LONGITUDE, accuracy, at)
