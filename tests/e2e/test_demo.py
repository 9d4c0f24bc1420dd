"""The demo as a stranger uses it: started by its script, played to from another terminal, ended by Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scripts.demo_home import radio, room
from scripts.demo_home.building import GATE, PARCEL_ROOM, Door, Part, entities_of, forms_of, known_as
from scripts.demo_home.delivery import Play
from scripts.demo_home.delivery import play as play_at
from scripts.demo_home.demo import gateway_of, strike_of, talk_to
from scripts.demo_home.demo import running as running_demo
from scripts.demo_home.fleet import ISSUER
from scripts.demo_home.home import REPOSITORY, Home, HomeFailed, answers, free_port
from scripts.demo_home.stage import read_relays_log

from .conftest import all_logs, errors, lines_of, recorded

pytestmark = pytest.mark.timeout(240)
DEMO = str(REPOSITORY / "scripts" / "demo")
READY = 150.0
TRUTH = 10.0
"""Seconds within which Home Assistant has to show what happened at a strike while nobody was connected to it."""
PLAYS = (
    "--wrong-place",
    "--wrong-route",
    "--early",
    "--revoked",
    "--replay",
    "--forged",
    "--wrong-door",
    "--outside-hours",
    "--rate",
)


@dataclass
class Running:
    """A demo that runs in "another terminal"."""

    folder: Path
    process: subprocess.Popen[bytes]
    expected: Counter[str] = field(default_factory=Counter)
    """How often each relay has to have released by now."""
    linked: Counter[str] = field(default_factory=Counter)
    """How often of these for the carrier that is linked."""

    @property
    def printed(self) -> str:
        return self.folder.with_name("printed").read_text("utf-8")

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [DEMO, "--folder", str(self.folder), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)

    def talk(self, door: str) -> tuple[Home, Door]:
        """As the manager."""
        demo, home = talk_to(self.folder)
        return home, demo.door(door)

    def released(self) -> Counter[str]:
        by_relays = Counter(key for _, key in read_relays_log(self.folder / "config" / "relays.log"))
        by_strike = Counter({GATE: len(radio.releases(strike_of(self.folder)))})
        by_board = Counter({PARCEL_ROOM: len(room.releases(gateway_of(self.folder)))})
        return by_relays + by_strike + by_board


def start(folder: Path, port: int) -> Running:
    with folder.with_name("printed").open("wb") as printed:
        command = [DEMO, "--folder", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
    running = Running(folder, process)
    deadline = time.monotonic() + READY
    while "Ctrl-C ends it." not in running.printed:
        if process.poll() is not None or time.monotonic() > deadline:
            end(running)
            pytest.fail(running.printed)
        time.sleep(0.1)
    return running


def end(running: Running) -> int:
    """Press Ctrl-C."""
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
    return running.process.wait(60)


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that has the folder in its command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (command := entry.read_bytes()):
                found[int(entry.parent.name)] = command.replace(b"\0", b" ").decode()
    return found


def home_assistant_of(folder: Path) -> int | None:
    return next((pid for pid, command in processes_of(folder).items() if "bare_hass" in command), None)


def sockets_of(process: int) -> set[tuple[str, str]]:
    """The kind and the local address of each internet socket that a process holds, as the kernel writes it."""
    links, found = set(), set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it opens and closes files meanwhile
            links.add(str(entry.readlink()))
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in links:
                found.add((kind, fields[1].split(":")[0]))
    return found


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Running]:
    running = start(place, free_port())
    yield running
    end(running)


def test_the_first_start_shows_where_and_how_to_sign_in(demo: Running) -> None:
    kept = json.loads((demo.folder / "demo.json").read_text())
    assert f"http://127.0.0.1:{kept['port']}" in demo.printed
    assert re.search(rf"password +{kept['password']}\n", demo.printed)
    assert "Home Assistant 2026.10.4 is running" in demo.printed
    for play in (*PLAYS, "dispatch", "walk-in", "lockdown on", "lockdown off", "outage"):
        assert play in demo.printed
    assert re.search(r"page +http://localhost:\d+/#join=[A-Za-z0-9_-]{43}\n", demo.printed)
    assert "type 52.09083 and 5.12222 there" in demo.printed
    assert re.search(
        r"dispatcher http://localhost:\d+/dispatch +with the API key vck_[A-Za-z0-9_-]{43}\n", demo.printed
    )


def test_the_printed_commands_name_the_folder_and_work_from_anywhere(demo: Running, tmp_path: Path) -> None:
    (printed,) = re.findall(r"^  scripts/demo (.* deliver gate) +a driver delivers", demo.printed, re.MULTILINE)
    assert shlex.split(printed) == ["--folder", str(demo.folder), "deliver", "gate"]
    relative = os.path.relpath(demo.folder, tmp_path)
    command = [DEMO, "--folder", relative, "deliver", "gate"]
    played = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert played.returncode == 0, played.stdout + played.stderr
    demo.expected["gate"] += 1
    demo.linked["gate"] += 1
    assert demo.released() == demo.expected


def test_it_is_on_loopback_only(demo: Running) -> None:
    processes = processes_of(demo.folder)
    for what in "bare_hass", "gateway run", "relay_board", "gateway strike", "carrier run":
        assert [command for command in processes.values() if what in command], f"{what} runs"
    assert {address for process in processes for _, address in sockets_of(process)} == {"0100007F"}  # 127.0.0.1


def test_what_is_secret_is_readable_by_its_owner_only(demo: Running) -> None:
    secrets = [
        demo.folder / "demo.json",
        *(demo.folder / "swift").iterdir(),
        *(demo.folder / "phone").iterdir(),
        *(demo.folder / "robin").iterdir(),
        *(path for path in (demo.folder / "canal").iterdir() if path.is_file() and path.name != "cloud.log"),
        *(demo.folder / "canal" / "keys").iterdir(),
        *(demo.folder / "gate" / "state").iterdir(),
        *(path for path in (demo.folder / "parcel-room" / "state").iterdir() if not path.is_dir()),
    ]
    assert {path.name for path in secrets} >= {
        "intake-key",
        "identity.pem",
        "tls.pem",
        "journal.db",
        "control.sock",
        "root.pem",
        "carrier.db",
        "api-key",
        "passkey.json",
    }
    modes = set()
    for path in secrets:
        with contextlib.suppress(FileNotFoundError):  # what is written anew has another name meanwhile
            modes.add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {0o600}
    assert stat.S_IMODE(demo.folder.stat().st_mode) == 0o700


def test_the_carrier_is_no_user_of_home_assistant(demo: Running) -> None:
    home, _ = demo.talk("gate")
    (users,) = home.commands({"type": "config/auth/list"})
    assert [user["name"] for user in users if not user["system_generated"]] == ["Building manager"]


def test_only_the_lobby_has_a_relay_in_home_assistant(demo: Running) -> None:
    """The gate is reached over the radio only, and the parcel room through its gateway."""
    home, gate = demo.talk("gate")
    assert gate.strike is not None
    assert demo.talk("parcel-room")[1].gateway is not None
    (entities,) = home.commands({"type": "config/entity_registry/list"})
    assert {entity["unique_id"] for entity in entities if entity["platform"] == "simulated_relays"} == {
        "lobby",
        "lobby-door",
        "lobby-rex",
        "lobby-tamper",
    }
    for door in "gate", "parcel-room":
        assert home.perform("simulated_relays.open_door", {"door": door}) == "This door has no simulated relay"


def test_the_gateway_is_in_home_assistant_with_its_door_behind_it(demo: Running) -> None:
    home, door = demo.talk("parcel-room")
    devices, areas = home.commands({"type": "config/device_registry/list"}, {"type": "config/area_registry/list"})
    by_id = {identifier: device for device in devices for _, identifier in device["identifiers"]}
    gateway = by_id[door.gateway]
    assert (gateway["name"], gateway["model"]) == ("Parcel room gateway", "Gateway")
    assert by_id[door.id]["via_device_id"] == gateway["id"]
    (area,) = {by_id[each]["area_id"] for each in (door.id, door.gateway)}
    assert [each["name"] for each in areas if each["area_id"] == area] == ["Ground floor"]
    assert "holds at once" in gateway_status(demo), "it was paired with --trust"


def gateway_status(demo: Running) -> str:
    return room.Room(gateway_of(demo.folder)).status()


@pytest.mark.parametrize("door, locks", [("gate", 3.2), ("lobby", 2.3), ("parcel-room", 5.0)])
def test_a_delivery_opens_its_door_once_and_all_of_it_is_told(demo: Running, door: str, locks: float) -> None:
    played = demo.play("deliver", door)
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"(relay|strike) +released once\n", played.stdout)
    for what, after in ("door +opened", 0.8), ("door +closed", 2.3), ("lock +locked again,", locks):
        (seconds,) = re.findall(rf"{what} (\d+\.\d) s after the release", played.stdout)
        assert float(seconds) >= after, played.stdout
    (events,) = re.findall(r"events +(.+)\n", played.stdout)
    told, shut = events.split(", "), ["door closed", "door relocked"]
    assert told[:3] == ["access granted", "door released", "access taken"]
    # At the gate, the one is the driver's doing and the other the strike's, and less than a second lies between.
    assert told[3:] == shut or (door == GATE and told[3:] == shut[::-1])
    decided = re.search(r"(building|gateway) +✓ granted +(\d+\.\d) ms", played.stdout)
    assert decided is not None
    assert decided[1] == ("gateway" if door == "parcel-room" else "building")
    print(f"{door}: granted after {decided[2]} ms")
    for step in "You", "Your route", "Where you are", "The time":
        assert re.search(rf"✓ {step} +[A-Z]", played.stdout), "each confirmation is shown"
    assert re.search(r"phone +The door is released. Go in now: it locks again in a few seconds.\n", played.stdout)
    assert re.search(
        r"with: passkey; a due stop of the route; 12 m ± 6 m, \d s old; asked \d s ago\n", played.stdout
    ), "all four confirmations are told by Home Assistant's bus"
    assert "opened once and locked itself" in played.stdout
    demo.expected[door] += 1
    demo.linked[door] += 1
    assert demo.released() == demo.expected


@pytest.mark.parametrize("key", ["gate", "parcel-room"])
def test_one_access_leaves_few_states_one_event_for_each_line_of_the_journal_and_one_line_for_each_event(
    demo: Running, key: str
) -> None:
    """G14: at most ten recorded states at its door, and none elsewhere."""
    home, door = demo.talk(key)
    access = entities_of(home, door)[Part.ACCESS]
    entities, devices = home.commands({"type": "config/entity_registry/list"}, {"type": "config/device_registry/list"})
    ours = {entity["entity_id"]: entity["device_id"] for entity in entities if entity["platform"] == "vestibule"}
    (device,) = (device["id"] for device in devices if ["vestibule", door.id] in device["identifiers"])
    at_the_door = [entity for entity, where in ours.items() if where == device]
    assert len(set(ours.values())) == 5  # three doors, the building and the gateway

    def activity() -> list[dict[str, Any]]:
        return home.activity(began, entity_ids=at_the_door, device_ids=[device])

    began = datetime.now(UTC).isoformat()
    activity()
    before = recorded(demo.folder)
    assert demo.play("deliver", key).returncode == 0
    demo.expected[key] += 1
    demo.linked[key] += 1
    lines = activity()
    after = recorded(demo.folder)

    states = Counter(entity for entity in after.states[len(before.states) :] if entity in ours)
    assert states.keys() <= set(at_the_door)
    assert states.total() <= 10
    sequences = after.sequences[len(before.sequences) :]
    assert sequences == list(range(sequences[0], sequences[0] + 5))
    by_entity = Counter(line.get("entity_id") for line in lines)
    # Closed and locked again are the lines of the contact and of the lock.
    assert by_entity[access] == len(sequences) - 2
    assert by_entity[None] == 0  # the events of the bus are no second lines
    print(f"recorded states {dict(states)}, events {len(sequences)}, lines of Activity {dict(by_entity)}")


@pytest.mark.parametrize("door", ["gate", "parcel-room"])
@pytest.mark.parametrize(
    "option, opens, told",
    [
        (
            "--wrong-place",
            0,
            [
                r"phone +Not opened. You are not at this door. Go to the door, then try again.",
                r"phone +The building refused. The building asks for a closer or newer position.",
                r"activity +Canal Couriers \(its confirmations are outside the limits\) was denied access",
            ],
        ),
        ("--wrong-route", 0, [r"phone +Not opened. This stop is not on your route.", r"events +none"]),
        ("--early", 0, [r"phone +Not opened. It is too early for this stop.", r"events +none"]),
        ("--revoked", 0, [r"phone +This passkey is not known. It may have been withdrawn."]),
        ("--replay", 1, ["already used"]),
        ("--forged", 0, ["invalid token"]),
        ("--wrong-door", 0, ["not a token for this door"]),
    ],
)
def test_a_refusal_is_shown_and_moves_nothing(
    demo: Running, option: str, opens: int, told: list[str], door: str
) -> None:
    played = demo.play("deliver", door, option)
    assert played.returncode == 0, played.stdout + played.stderr
    for words in told:
        assert re.search(words, played.stdout), played.stdout
    demo.expected[door] += opens
    assert demo.released() == demo.expected


def test_a_stolen_key_that_was_revoked_opens_nothing_and_is_seen(demo: Running) -> None:
    played = demo.play("deliver", "lobby", "--revoked")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"building +✗ invalid token", played.stdout)
    assert re.search(r"activity +Canal Couriers \(a revoked key\) was denied access at Lobby\n", played.stdout)
    assert demo.released() == demo.expected
    home, _ = demo.talk("lobby")
    (issues,) = home.commands({"type": "repairs/list_issues"})
    ours = [issue["translation_key"] for issue in issues["issues"] if issue["domain"] == "vestibule"]
    assert "key_revoked" in ours


@pytest.mark.parametrize("key", ["gate", "lobby"])
def test_outside_of_its_hours_a_door_refuses_and_the_hours_are_put_back(demo: Running, key: str) -> None:
    played = demo.play("deliver", key, "--outside-hours")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(
        rf"manager +opens the {key} for deliveries from \d\d:00 to \d\d:00; it is \d\d:\d\d", played.stdout
    )
    assert "refused: outside the hours of deliveries" in played.stdout
    assert f"puts the hours of the {key} back" in played.stdout
    assert demo.released() == demo.expected
    home, door = demo.talk(key)
    assert forms_of(home, "door", known_as(door))["admit"]["hours"] == []


def test_outside_of_a_carriers_hours_the_gateway_refuses_and_the_hours_are_put_back(demo: Running) -> None:
    played = demo.play("deliver", "parcel-room", "--outside-hours")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"manager +lets Canal Couriers deliver from \d\d:00 to \d\d:00; it is \d\d:\d\d", played.stdout)
    assert re.search(r"gateway +✗ refused: outside the hours of deliveries", played.stdout)
    assert "puts the hours of Canal Couriers back" in played.stdout
    assert re.search(r"events +policy changed, access denied, policy changed\n", played.stdout)
    assert demo.released() == demo.expected
    home, _ = demo.talk("parcel-room")
    assert forms_of(home, "carrier", ISSUER)["linked"]["hours"] == []


def test_hours_are_put_back_also_when_the_play_fails(demo: Running) -> None:
    key = demo.folder / "canal" / "api-key"
    kept = key.read_text()
    key.write_text("vck_" + "A" * 43)
    try:
        played = demo.play("deliver", "lobby", "--outside-hours")
    finally:
        key.write_text(kept)
    assert played.returncode == 1
    assert "The carrier's cloud answered 401 to " in played.stderr
    assert "Traceback" not in played.stderr
    assert "puts the hours of the lobby back" in played.stdout
    home, door = demo.talk("lobby")
    assert forms_of(home, "door", door.id)["admit"]["hours"] == []


@pytest.mark.parametrize("key, name", [("lobby", "lobby"), ("parcel-room", "parcel room")])
def test_more_accesses_than_allowed_within_the_hour_are_refused_and_the_limit_is_put_back(
    demo: Running, key: str, name: str
) -> None:
    so_far = demo.linked[key]
    played = demo.play("deliver", key, "--rate")
    assert played.returncode == 0, played.stdout + played.stderr
    demo.expected[key] += 1
    assert (
        f"allows Canal Couriers {so_far + 1} accesses an hour at each door; at the {name} so far: {so_far}"
        in played.stdout
    )
    assert "refused: as often as allowed within the hour" in played.stdout
    assert demo.released() == demo.expected
    home, _ = demo.talk(key)
    assert forms_of(home, "carrier", ISSUER)["linked"]["rate"] is None


def test_whoever_walks_in_at_the_lobby_forces_it(demo: Running) -> None:
    played = demo.play("walk-in")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"problem +on: door forced open\n", played.stdout)
    assert re.search(r"events +door forced open, door closed\n", played.stdout)
    assert demo.released() == demo.expected


def test_a_door_without_an_exit_button_is_opened_not_forced(demo: Running) -> None:
    played = demo.play("walk-in", "parcel-room")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"problem +off\n", played.stdout)
    assert re.search(r"events +door opened, door closed\n", played.stdout)
    assert demo.released() == demo.expected


def test_a_strike_that_nobody_is_connected_to_tells_that_it_was_forced(demo: Running) -> None:
    home, door = demo.talk("gate")
    began = datetime.now(UTC).isoformat()
    played = demo.play("walk-in", "gate")
    assert played.returncode == 0, played.stdout + played.stderr
    assert re.search(r"problem +on: door forced open\n", played.stdout)
    assert re.search(r"events +door forced open, door closed\n", played.stdout)
    assert demo.released() == demo.expected
    for what in "forced open", "closed":
        (seconds,) = re.findall(rf"door {what}.* (\d+\.\d) s after it was", played.stdout)
        assert float(seconds) < TRUTH
    shown = home.activity(began, entity_ids=[entities_of(home, door)[Part.CONTACT]])
    assert [line["state"] for line in shown] == ["on", "off"]


def test_a_lockdown_lets_nobody_in_until_it_is_lifted(demo: Running) -> None:
    on = demo.play("lockdown", "on")
    assert on.returncode == 0, on.stdout + on.stderr
    assert "Gate: locked down, Lobby: locked down, Parcel room: locked down\n" in on.stdout
    assert "Gate was not opened: the building is locked down. Lift the lockdown first" in on.stdout
    assert re.search(r"events +lockdown on, lockdown on, access denied, access denied\n", on.stdout), (
        "at the gateway, too"
    )

    for door, name in ("lobby", "lobby"), ("parcel-room", "parcel room"):
        refused = demo.play("deliver", door)
        assert refused.returncode == 0, refused.stdout + refused.stderr
        assert f"The building is locked down: the {name} stayed locked." in refused.stdout
    cannot_be_shown = demo.play("deliver", "lobby", "--replay")
    assert cannot_be_shown.returncode == 1
    assert "The building is locked down, so this cannot be shown. Lift that with: " in cannot_be_shown.stderr

    off = demo.play("lockdown", "off")
    assert off.returncode == 0, off.stdout + off.stderr
    assert "Gate: normal, Lobby: normal, Parcel room: normal\n" in off.stdout
    assert demo.released() == demo.expected


@pytest.mark.parametrize("how", [[], ["--long"]], ids=["short", "long"])
def test_while_home_assistant_is_down_the_parcel_room_opens_and_that_is_told_afterwards(
    demo: Running, how: list[str]
) -> None:
    home_assistant = home_assistant_of(demo.folder)
    played = demo.play("outage", *how)
    assert played.returncode == 0, played.stdout + played.stderr
    demo.expected["parcel-room"] += 1
    demo.linked["parcel-room"] += 1
    assert demo.released() == demo.expected
    assert home_assistant_of(demo.folder) not in (home_assistant, None), "it is another process"
    assert re.search(r"home +Home Assistant is stopped: nothing answers at http://127.0.0.1:\d+\n", played.stdout)
    assert re.search(
        r"gateway +✓ granted, over its own link to the cloud +\d+\.\d ms\n(.*\n)+ +home +Home Assistant is up again",
        played.stdout,
    )
    told = re.findall(r"activity +(\d\d:\d\d:\d\d)  (.*?)(  \(late\))?\n", played.stdout)
    assert [words for _, words, _ in told] == [
        "Canal Couriers was granted access at Parcel room",
        "Canal Couriers had Parcel room released",
        "Canal Couriers opened Parcel room",
        "Parcel room was closed",
        "Canal Couriers was let in before Parcel room locked again",
    ]
    assert {bool(late) for _, _, late in told} == {bool(how)}
    # By the hours alone: what goes over midnight falls back once.
    assert sum(after < before for (before, *_), (after, *_) in itertools.pairwise(told)) <= (told[-1][0] < told[0][0])
    print(f"told with {told[0][0]} to {told[-1][0]}")


def test_an_outage_whose_player_dies_comes_to_an_end(demo: Running) -> None:
    before = home_assistant_of(demo.folder)
    player = subprocess.Popen(
        [DEMO, "--folder", str(demo.folder), "outage"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert player.stdout is not None
    while "Home Assistant is stopped" not in player.stdout.readline():
        assert player.poll() is None
    player.kill()
    player.wait()
    player.stdout.close()
    deadline = time.monotonic() + READY
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        with contextlib.suppress(HomeFailed, OSError):
            demo.talk("gate")
            break
    assert home_assistant_of(demo.folder) not in (before, None)
    time.sleep(6)  # the access, if it came to that, is over
    demo.expected = demo.released()


def test_a_second_demo_in_the_same_folder_says_that_there_is_one(demo: Running) -> None:
    command = [DEMO, "--folder", str(demo.folder)]
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "is running already, at http://127.0.0.1:" in second.stderr


def test_ctrl_c_leaves_nothing_behind_and_a_second_start_goes_on(demo: Running) -> None:
    port = json.loads((demo.folder / "demo.json").read_text())["port"]
    assert end(demo) == 0
    again_with = f"scripts/demo --folder {shlex.quote(str(demo.folder))}"
    assert f"Stopped. The demo is kept; start it again with: {again_with}\n" in demo.printed
    assert not answers(port)
    assert processes_of(demo.folder) == {}

    again = start(demo.folder, port)
    try:
        assert json.loads((demo.folder / "demo.json").read_text())["password"] in again.printed
        for door in "gate", "parcel-room":
            assert again.play("deliver", door).returncode == 0
            demo.expected[door] += 1
        assert again.released() == demo.expected
    finally:
        assert end(again) == 0
    assert processes_of(demo.folder) == {}

    stopped = again.play("deliver", "gate")
    assert stopped.returncode == 1
    assert "The demo is not running" in stopped.stderr
    assert stopped.stderr.endswith(f"{again_with}\n")

    kept = json.loads((demo.folder / "demo.json").read_text())
    logs = all_logs(demo.folder / "config")
    assert kept["password"] not in logs
    assert kept["refresh_token"] not in logs
    assert (demo.folder / "swift" / "intake-key").read_text() not in logs
    assert "vst1." not in logs
    assert "eyJ" not in logs  # how every token of this kind begins
    assert errors(demo.folder / "config") == []


def test_every_line_of_the_two_journals_was_told_once_and_in_order(demo: Running) -> None:
    """Home Assistant and the gateway have been stopped by now."""
    gateway_door = next(
        door for door in json.loads((demo.folder / "demo.json").read_text())["doors"] if door["gateway"]
    )
    told = recorded(demo.folder).events
    of_doors = [event["sequence"] for event in told if event["door"] == gateway_door["id"]]
    assert len(of_doors) > 10
    assert of_doors == sorted(of_doors)

    buildings = lines_of(demo.folder / "config" / ".storage" / "vestibule.journal.db")
    gateways = lines_of(demo.folder / "parcel-room" / "state" / "journal.db")
    assert len(buildings) > 30
    paired = 1  # what was before Home Assistant knew the gateway is of no interest to it
    assert Counter(event["sequence"] for event in told) == Counter(buildings) + Counter(gateways[paired:])


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen([DEMO, "--folder", str(folder), "--port", str(free_port())], start_new_session=True)
    deadline = time.monotonic() + 60
    while home_assistant_of(folder) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert processes_of(folder) == {}


def test_without_what_they_take_the_gate_and_the_parcel_room_have_relays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(radio, "PACKAGES", ("bleak", "of_another_planet"))
    monkeypatch.setattr(room, "PACKAGES", ("pymodbus_of_another_planet",))
    with running_demo(tmp_path / "demo", wanted_port=free_port(), fresh=False) as (demo, home, _):
        said = capsys.readouterr().out
        assert "so it has a relay instead: These packages are missing: of_another_planet." in said
        assert (
            "so the room has a relay instead: this needs pymodbus_of_another_planet. Get it with: scripts/setup" in said
        )
        assert [door.key for door in demo.doors if door.has_relay] == ["gate", "lobby", "parcel-room"]
        assert "bluetooth" not in home.get("/api/components")
        for door in "gate", "parcel-room":
            assert play_at(tmp_path / "demo", door, Play.DELIVERY)
        assert [key for _, key in read_relays_log(home.relays_log)] == ["gate", "parcel-room"]


def test_a_folder_that_is_no_demo_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    command = [DEMO, "--fresh", "--folder", str(tmp_path)]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "left alone" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


_DOOR = '{"key": "gate", "name": "Gate", "id": "door:2222", "access_time": 3, "has_rex": false}'


@pytest.mark.parametrize("doors", ['{"key": "gate"}', _DOOR])
def test_a_demo_of_another_version_is_not_gone_on_with(tmp_path: Path, doors: str) -> None:
    rest = '"port": 8123, "password": "", "refresh_token": "", "client_id": ""'
    (tmp_path / "demo.json").write_text(f'{{{rest}, "doors": [{doors}]}}')
    command = [DEMO, "--folder", str(tmp_path)]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"Begin anew with: scripts/demo --folder {shlex.quote(str(tmp_path))} --fresh\n")


def test_the_help_is_a_page_that_needs_nothing_installed() -> None:
    shown = subprocess.run(
        ["/bin/bash", DEMO, "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert "scripts/demo deliver [DOOR]" in shown.stdout
    assert "scripts/demo dispatch" in shown.stdout
    assert "scripts/demo walk-in [DOOR]" in shown.stdout
    assert "scripts/demo lockdown on|off" in shown.stdout
    assert "scripts/demo outage" in shown.stdout
    for option in ("--fresh", "--port", "--folder", *PLAYS):
        assert option in shown.stdout
