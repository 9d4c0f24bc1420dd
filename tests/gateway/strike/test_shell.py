"""The shell around the protocol's machine, with real pieces and an air that only listens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.strike import shell as module
from gateway.strike.label import find_label
from gateway.strike.relay import MemoryOutput
from gateway.strike.shell import Shell
from gateway.strike.store import Store, StoreFailed
from tests.radio.until import until
from vestibule_core.doorstrike.device import ButtonHeld, CoverIs
from vestibule_core.doorstrike.log import Log
from vestibule_core.doorstrike.memory import Part, decode_log
from vestibule_core.doorstrike.wire import Advertisement, Caps, EventKind


class Listener:
    """An air on which nobody is; it keeps what the shell wanted."""

    def __init__(self) -> None:
        self.hung_up: list[int] = []
        self.advertised: list[Advertisement | None] = []

    def notify(self, link: int, fragments: Sequence[bytes]) -> None: ...

    def hang_up(self, link: int) -> None:
        self.hung_up.append(link)

    def hang_up_all(self) -> None:
        self.hung_up.append(0)

    def advertise(self, advertisement: Advertisement | None) -> None:
        self.advertised.append(advertisement)


class Disk(Store):
    """A state folder whose disk can fail. Verbs: ``fail``, ``recover``."""

    failing = False

    def fail(self) -> None:
        self.failing = True

    def recover(self) -> None:
        self.failing = False

    def keep(self, name: str, contents: bytes) -> None:
        if self.failing:
            raise StoreFailed("the disk is full")
        super().keep(name, contents)

    def log(self) -> Log:
        return decode_log(self.load()[Part.LOG])


@pytest.fixture
def air():
    return Listener()


@pytest.fixture
def light():
    return MemoryOutput()


@pytest.fixture
def disk(tmp_path):
    disk = Disk.open(tmp_path / "state")
    yield disk
    disk.close()


@pytest.fixture
async def shell(disk, air, light, monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY", 0.02)
    label, _ = find_label(disk)
    shell = Shell(label, Caps.TAMPER, disk, MemoryOutput(), air, shortest=0.5, longest=10, light=light)
    shell.power_up()
    yield shell
    shell.close()


async def test_the_light_is_on_while_the_window_is_open(shell, light, monkeypatch):
    assert not light.read()
    monkeypatch.setattr("vestibule_core.doorstrike.keyring.PAIRING_TIME", 0.1)
    shell.sensed(ButtonHeld(3))
    assert light.read()
    await until(lambda: not light.read())


async def test_a_light_that_fails_keeps_nobody_from_pairing(shell, light, air, monkeypatch):
    def fail(_):
        raise OSError(5, "no light")

    monkeypatch.setattr(light, "write", fail)
    shell.sensed(ButtonHeld(3))
    assert air.advertised[-1].flags & 1


async def test_a_disk_that_stays_full_is_asked_again_and_again(shell, disk, air):
    boots = disk.log().history.boots
    disk.fail()
    shell.sensed(CoverIs(open=True))
    assert air.advertised[-1] is None
    shell.connected(1)
    assert air.hung_up == [0, 1], "nobody is served meanwhile"
    await until(lambda: air.hung_up.count(0) >= 3)
    disk.recover()
    await until(lambda: air.advertised[-1] is not None)
    history = disk.log().history
    assert history.boots == boots + 1
    assert [event.kind for event in history.events[-2:]] == [EventKind.BOOT, EventKind.TAMPER], (
        "the cover is still open"
    )


async def test_a_first_start_on_a_full_disk_is_no_start(disk, air):
    label, _ = find_label(disk)
    disk.fail()
    shell = Shell(label, Caps(0), disk, MemoryOutput(), air, shortest=0.5, longest=10)
    with pytest.raises(StoreFailed):
        shell.power_up()
    shell.close()
    assert air.advertised == []


async def test_a_bug_ends_the_strike_and_is_not_swallowed(shell, air, monkeypatch):
    def bug(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("vestibule_core.doorstrike.peripheral.Peripheral.connected", bug)
    shell.connected(1)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(shell.failed, 1)
    shell.fragment(1, b"ignored")


async def test_a_ninth_link_is_not_served(shell, air):
    for link in range(1, 10):
        shell.connected(link)
    assert air.hung_up == [9]
