"""A backup of a gateway that works: it is whole, the doors go on, and whoever begins with it says that it is one."""

from __future__ import annotations

import asyncio
import io
import signal
import sqlite3
import stat
import subprocess
import tarfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from gateway import backup
from gateway.app import Gateway, at_work
from gateway.config import read_config
from gateway.control import call
from gateway.source import Unusable
from gateway.state import Files
from tests.gateway.at_work import Disk
from tests.gateway.filled import fill
from tests.gateway.process import Command, command, gateway_process, write_config
from tests.gateway.test_app import carrier_of, token_for
from vestibule_core import journal
from vestibule_core.api.messages import Confirmed
from vestibule_core.api.policy import Policy
from vestibule_core.errors import BackupRunning
from vestibule_core.model import Actor, Code, Word

ANN = Actor("1", "Ann", is_admin=True)
LARGE = 5_000
"""Entries of a journal that is not read at once."""


@pytest.fixture
async def large(config: Path) -> Path:
    """The configuration of a gateway with a large journal, which does not run."""
    async with at_work(read_config(config)):
        pass
    await fill(config, LARGE, 3600.0)
    return config


def unpack(tar: Path, folder: Path) -> Path:
    """Restore a backup on another machine, as the documentation says, and return its configuration."""
    (folder / "state").mkdir(parents=True)
    subprocess.run(["tar", "-xf", tar, "-C", folder / "state"], check=True)
    return write_config(folder)


def says_it_is_a_copy(journal: Path) -> bool:
    with closing(sqlite3.connect(journal)) as db:
        return bool(db.execute("SELECT 1 FROM meta WHERE key = 'copied'").fetchone())


def socket_of(gateway: Gateway) -> Path:
    return gateway._state.files.control


async def begin(gateway: Gateway, turn: str) -> None:
    """Begin a backup as a command does that never ends it."""
    await asyncio.to_thread(call, socket_of(gateway), "POST", "/backup", {"turn": turn})


async def end(gateway: Gateway, turn: str) -> None:
    await asyncio.to_thread(call, socket_of(gateway), "DELETE", "/backup", {"turn": turn})


async def write(gateway: Gateway, into: BinaryIO) -> None:
    """Make a backup as the command does it, of a gateway in this process."""
    await asyncio.to_thread(backup.write, gateway._state.files, into, partial(call, socket_of(gateway)))


def rests(gateway: Gateway) -> bool:
    try:
        gateway.journal.check_not_copied()
    except BackupRunning:
        return True
    return False


async def goes_on(gateway: Gateway) -> None:
    async with asyncio.timeout(10):
        while rests(gateway):  # noqa: ASYNC110 - what is wanted is its end
            await asyncio.sleep(0.01)


async def test_a_backup_is_the_same_gateway_again_and_says_that_it_was_restored_until_an_administrator_knows(
    config, session, tmp_path
):
    tar, spent = tmp_path / "backup.tar", []
    async with gateway_process(config) as gateway:
        paired = await gateway.pair(session, "--trust")
        client = gateway.client(session, paired)
        carrier = await carrier_of(client)
        await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        spent.append(await token_for(client, carrier))
        assert (await client.unlock(carrier.doors[0].id, spent[0])).word is Word.GRANTED
        status, said = await gateway.command("backup", str(tar))
        assert (status, said.splitlines()) == (
            0,
            [
                f"written     {tar}: who has it can open the doors, so keep it as you keep their keys",
                f"not in it   {config}, and the files with keys and passwords that it names",
            ],
        )
        spent.append(await token_for(client, carrier))
        assert (await client.unlock(carrier.doors[0].id, spent[1])).word is Word.GRANTED
        assert "restored" not in (await gateway.command("status"))[1], "it is no copy itself"
    assert "info backup_begun" in gateway.running.said
    assert "info backup_ended" in gateway.running.said
    assert stat.S_IMODE(tar.stat().st_mode) == 0o600
    assert not says_it_is_a_copy(tmp_path / "state" / "journal.db")

    again = unpack(tar, tmp_path / "again")
    assert (await command("journal", "verify", tmp_path / "again" / "state" / "journal.db"))[0] == 0
    async with gateway_process(again) as restored:
        assert restored.movements == []
        client = restored.client(session, paired)
        hello = await anext(client.stream(0))
        assert (hello.id, hello.restored) == (paired.gateway_id, True)
        assert "restored" in (await restored.command("status"))[1]
        answers = [await client.unlock(carrier.doors[0].id, token) for token in spent]
        assert [answer.code for answer in answers] == [Code.ALREADY_SPENT, Code.NONCE_UNKNOWN]
        assert restored.movements == []
        assert (await client.unlock(carrier.doors[0].id, await token_for(client, carrier))).word is Word.GRANTED
        await client.confirm(Confirmed.RESTORED, ANN)
        assert "restored" not in (await restored.command("status"))[1]


async def test_the_doors_work_while_a_backup_is_made_and_nothing_of_that_is_lost_or_in_it(large, tmp_path, monkeypatch):
    """Nor does the journal copy its log back under the reader, however long that has become."""
    monkeypatch.setattr(journal, "CHECKPOINT_PAGES", 1)
    monkeypatch.setattr(journal, "MOST_PAGES", 1)
    while_it_rests: list[bool] = []

    class Slow(io.BytesIO):
        """Has a door used before it takes each of the first pieces."""

        def write(self, piece: Any) -> int:
            if len(while_it_rests) < 3:
                doing = gateway.controller.by_hand.open(door, ANN)
                assert asyncio.run_coroutine_threadsafe(doing, loop).result(10).granted
                while_it_rests.append(rests(gateway))
            return super().write(piece)

    loop, into = asyncio.get_running_loop(), Slow()
    async with at_work(read_config(large)) as gateway:
        door = next(iter(gateway.doorways))
        await write(gateway, into)
        await goes_on(gateway)
        newest = gateway.journal.sequence
    assert while_it_rests == [True] * 3
    (tmp_path / "backup.tar").write_bytes(into.getvalue())
    unpack(tmp_path / "backup.tar", tmp_path / "again")
    folders = (tmp_path / "state", tmp_path / "again" / "state")
    verified = [await command("journal", "verify", folder / "journal.db") for folder in folders]
    assert [status for status, _ in verified] == [0, 0], verified
    entries = []
    for folder in folders:
        with closing(sqlite3.connect(folder / "journal.db")) as db:
            entries.append(db.execute("SELECT count(*) FROM leaf").fetchone()[0])
    assert newest == entries[0] > entries[1] == LARGE
    assert [says_it_is_a_copy(folder / "journal.db") for folder in folders] == [False, True]


async def test_whoever_never_ends_a_backup_does_not_keep_the_journal_at_rest(config, monkeypatch):
    """Its log would grow, and nobody could be deleted from it. What was copied is no backup then."""
    monkeypatch.setattr(backup, "LONGEST", 0.5)
    async with at_work(read_config(config)) as gateway:
        await begin(gateway, "first")
        await goes_on(gateway)
        with pytest.raises(Unusable, match="this took longer than 0 minutes"):
            await end(gateway, "first")


async def test_a_backup_takes_the_turn_of_one_that_was_killed(config):
    async with at_work(read_config(config)) as gateway:
        await begin(gateway, "killed")
        assert rests(gateway)
        await write(gateway, io.BytesIO())
        await goes_on(gateway)
        with pytest.raises(Unusable, match="another backup was begun meanwhile"):
            await end(gateway, "killed")


async def test_a_backup_that_cannot_be_written_ends_at_once(config):
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    async with at_work(read_config(config)) as gateway:
        with pytest.raises(OSError, match="No space left"):
            await write(gateway, Full())
        await goes_on(gateway)


async def test_a_command_that_is_told_to_end_leaves_no_half_of_a_file_and_the_journal_goes_on(config, tmp_path):
    """Its terminal was closed, say."""
    async with gateway_process(config) as gateway:
        gateway.running.process.send_signal(signal.SIGSTOP)
        told = await Command.start("backup", "--config", config, tmp_path / "new.tar")
        async with asyncio.timeout(10):
            while not (tmp_path / "new.tar").exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.01)
        told.process.send_signal(signal.SIGHUP)
        gateway.running.process.send_signal(signal.SIGCONT)
        assert await told.ends() == 130
        assert not (tmp_path / "new.tar").exists()
    assert not says_it_is_a_copy(tmp_path / "state" / "journal.db")


async def test_of_a_gateway_that_is_killed_in_the_middle_there_is_no_backup_and_it_says_what_it_finds(config, tmp_path):
    """That is, as much as a restored one: its files are the same (ADR 13)."""
    async with gateway_process(config) as gateway:
        files = Files(tmp_path / "state")

        def ask(method: str, what: str, wanted: Any) -> None:
            call(files.control, method, what, wanted)
            gateway.running.process.kill()

        with pytest.raises(Unusable):
            await asyncio.to_thread(backup.create, tmp_path / "new.tar", lambda into: backup.write(files, into, ask))
        assert not (tmp_path / "new.tar").exists()
        await gateway.running.ends()
    async with gateway_process(config) as gateway:
        assert "restored" in (await gateway.command("status"))[1]


async def test_a_gateway_that_stops_in_the_middle_is_no_restored_one(config, tmp_path):
    async with at_work(read_config(config)) as gateway:
        await begin(gateway, "first")
        assert rests(gateway)
    assert not says_it_is_a_copy(tmp_path / "state" / "journal.db")


async def test_a_tar_that_was_cut_makes_no_gateway(config, tmp_path):
    """With what there is of it, an empty one of the same name would begin, and let spent tokens in."""
    into = io.BytesIO()
    async with at_work(read_config(config)) as gateway:
        await write(gateway, into)
    with tarfile.open(fileobj=io.BytesIO(into.getvalue())) as whole:
        members = whole.getmembers()
    assert [member.name for member in members] == ["journal.db", "identity.pem", "tls.pem", "id"]
    assert {(member.mode, member.uid, member.uname) for member in members} == {(0o600, 0, "")}
    for number, member in enumerate(members[1:], 1):
        cut = tmp_path / f"cut-{number}.tar"
        cut.write_bytes(into.getvalue()[: member.offset])
        status, said = await command("run", "--config", unpack(cut, tmp_path / str(number)))
        assert (status, "id is not there, but a journal is" in said) == (2, True), said


async def test_a_strikes_keys_are_in_it(config, tmp_path):
    into, strikes = io.BytesIO(), tmp_path / "state" / "strikes"
    async with at_work(read_config(config)) as gateway:
        (strikes / "gate.json").write_bytes(b"{}")
        (strikes / "gate.json.new").write_bytes(b"of a process that was killed")
        await write(gateway, into)
    with tarfile.open(fileobj=io.BytesIO(into.getvalue())) as tar:
        assert [name for name in tar.getnames() if "strikes" in name] == ["strikes/gate.json"]


async def test_a_backup_replaces_no_file_and_leaves_none_where_it_cannot_be_made(config, tmp_path):
    there, new = tmp_path / "there.tar", tmp_path / "new.tar"
    there.write_bytes(b"the only backup")
    status, said = await command("backup", "--config", config, new)
    nobody = f"vestibule-gateway: no gateway runs with the state folder {tmp_path / 'state'}: start it first\n"
    assert (status, said) == (2, nobody)
    async with gateway_process(config) as gateway:
        status, said = await gateway.command("backup", str(there))
        assert (status, said) == (2, f"vestibule-gateway: {there} is there already: choose another name\n")
        status, said = await gateway.command("backup", str(tmp_path / "no" / "folder.tar"))
        assert (status, said) == (
            2,
            f"vestibule-gateway: {tmp_path / 'no' / 'folder.tar'}: No such file or directory: there is no backup\n",
        )
    assert there.read_bytes() == b"the only backup"
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["there.tar"]


async def test_to_standard_output_goes_the_tar_and_nothing_else(config, tmp_path):
    async with gateway_process(config):
        line = Command.line("backup", "--config", config, "-")
        piped = await asyncio.create_subprocess_shell(f"{line} > {tmp_path / 'piped.tar'}")
        assert await piped.wait() == 0
        with tarfile.open(tmp_path / "piped.tar") as tar:
            assert tar.getnames()[-1] == "id"
        full = await asyncio.create_subprocess_shell(f"{line} > /dev/full", stderr=asyncio.subprocess.PIPE)
        _, said = await full.communicate()
        assert (full.returncode, said) == (2, b"vestibule-gateway: -: No space left on device: there is no backup\n")
        ended = await asyncio.create_subprocess_shell(
            f"bash -o pipefail -c '{line} | true'", stderr=asyncio.subprocess.PIPE
        )
        _, said = await ended.communicate()
        assert (ended.returncode, said) == (
            2,
            b"vestibule-gateway: whoever took the backup has ended: there is none\n",
        )


async def test_a_journal_that_cannot_be_written_is_not_copied(config):
    async with at_work(read_config(config)) as gateway:
        Disk(gateway.journal).fails = True
        refused = await gateway.controller.by_hand.set_deliveries(next(iter(gateway.doorways)), False, ANN)
        assert refused.code is Code.STORE_FAILED
        with pytest.raises(Unusable, match="a copy could not say that it is one"):
            await write(gateway, io.BytesIO())
