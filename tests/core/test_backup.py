"""A backup that is cut short: killed at each of its steps, what the next start says of the journal.

At rest, the files of a journal are those that a backup holds, byte for byte: a start cannot tell one from the other,
and says what it found rather than take a restored journal for its own (ADR 13). What that costs is a repair too many;
no entry, and no spend.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.core.crash_process import Processes
from tests.simulated import Site
from vestibule_core.journal import COPIED


@pytest.fixture(scope="module")
def processes():
    processes = Processes(module="tests.core.backup_process")
    yield processes
    processes.close()


def copied(path: Path) -> bool:
    """Whether the file without its log says that it is being copied."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return bool(db.execute("SELECT 1 FROM meta WHERE key = ?", (COPIED,)).fetchone())


STEPS = [
    # killed at, whether the next start says "restored, or cut short", sentence
    ("not begun", False, "nothing is being copied"),
    ("note written", True, "on the disk, in the log; nothing was copied, but nobody knows that"),
    ("log emptied", True, "on the disk, in the file: from here on a copy of it says that it is one"),
    ("begun", True, "the file is being read"),
    ("opened meanwhile", True, "and the doors work"),
    ("note taken back", False, "on the disk, in the log: whatever came of the copy, these are not its files"),
    ("ended", False, "it is over"),
]


@pytest.mark.parametrize("step, told, sentence", STEPS, ids=[row[0] for row in STEPS])
def test_crash_at_every_step_of_a_backup_loses_nothing(tmp_path, processes, step, told, sentence):
    report = processes.run("back_up", folder=tmp_path, kill_at=step)
    assert report.killed
    tokens = report.all("token")
    found = processes.run("begin", folder=tmp_path, tokens=tokens)
    assert found["codes"] == ["ALREADY_SPENT"] * len(tokens)
    assert (found["fresh"], found["pulses"]) == ("GRANTED", 1), "tokens are good as ever, and old ones move nothing"
    assert (found["restored"], found["lines"]) == (told, int(told))
    assert (found["disputed"], found["epochs"]) == (False, 0), "the journal goes on from all that it ever showed"
    assert found["upto"] == (report["at"] if told else None), (
        "by that an administrator can tell that nothing is missing"
    )


def test_a_stop_while_another_process_copies_leaves_it_the_files_and_loses_nothing(tmp_path, processes):
    """A Supervisor copies, and Home Assistant is restarted: nothing is copied back under the reader."""
    report = processes.run("back_up", folder=tmp_path, kill_at="stopped")
    assert not report.killed
    assert copied(tmp_path / "journal.db"), "the file is as it was when the copy began"
    found = processes.run("begin", folder=tmp_path, tokens=report.all("token"))
    assert found["codes"] == ["ALREADY_SPENT", "ALREADY_SPENT"]
    assert (found["restored"], found["upto"]) == (True, report["at"])


def test_what_was_found_is_said_until_it_is_confirmed_and_once_in_the_journal(tmp_path, processes):
    report = processes.run("back_up", folder=tmp_path, kill_at="begun")
    first = processes.run("begin", folder=tmp_path, tokens=[])
    second = processes.run("begin", folder=tmp_path, tokens=[], confirms=True)
    third = processes.run("begin", folder=tmp_path, tokens=[])
    assert [found["restored"] for found in (first, second, third)] == [True, True, False]
    assert [found["lines"] for found in (first, second, third)] == [1, 0, 0]
    assert first["upto"] == second["upto"] == report["at"]
    assert second["confirmed"] == "GRANTED"


# ---- the attack: a restored journal that is taken for one that was cut short ----


def files(folder: Path) -> dict[str, bytes]:
    return {end: file.read_bytes() for end in ("", "-wal") if (file := folder / f"journal.db{end}").exists()}


def test_row_32_the_backup_that_was_being_made_when_it_was_killed_is_told_of_when_it_is_restored(tmp_path, processes):
    """On the same disk, before anything was started there again, with an opening in between that is to be forgotten."""
    report = processes.run("back_up", folder=tmp_path, kill_at="opened meanwhile")
    (tmp_path / "journal.db-wal").unlink()  # of the backup, whose log was read before that opening
    found = processes.run("begin", folder=tmp_path, tokens=report.all("token"))
    assert found["codes"] == ["ALREADY_SPENT", "NONCE_UNKNOWN"]
    assert (found["restored"], found["lines"], found["pulses"]) == (True, 1, 1)
    assert found["upto"] < report["at"], "what is missing is later than the last that is there"


@pytest.mark.parametrize("dies", [True, False], ids=["killed again", "ended"])
def test_row_32_a_backup_that_outlives_what_it_was_begun_with_is_told_of_when_it_is_restored(tmp_path, processes, dies):
    """With a Supervisor, another process reads the files, and goes on while Home Assistant starts again.

    Each file may be read before or after that start, which takes the note back: what it writes instead says the same.
    """
    place = tmp_path / "living"
    place.mkdir()
    report = processes.run("back_up", folder=place, kill_at="opened meanwhile")
    before = files(place)
    assert processes.run("begin", folder=place, tokens=[], dies=dies).killed is dies
    after = files(place)
    for main in (before, after):
        for log in (before, after):
            restored = tmp_path / "restored"
            restored.mkdir()
            (restored / "journal.db").write_bytes(main[""])
            if "-wal" in log:
                (restored / "journal.db-wal").write_bytes(log["-wal"])
            found = processes.run("begin", folder=restored, tokens=report.all("token"))
            assert found["restored"]
            assert set(found["codes"]) <= {"ALREADY_SPENT", "NONCE_UNKNOWN"}
            assert (found["fresh"], found["pulses"]) == ("GRANTED", 1)
            shutil.rmtree(restored)


# ---- what there is no time of ----


async def test_what_an_older_version_found_is_still_told_of(path):
    async with Site(path) as site:
        await site.journal.note({"restored": "yes"})
    async with site.reopen() as again:
        assert (again.controller.by_hand.restored, again.controller.by_hand.restored_upto) == (True, None)


async def test_a_journal_without_entries_that_was_restored_is_told_of(path):
    async with Site(path) as site:
        await site.journal.begin_copy()
        backup = path.read_bytes()
        await site.journal.end_copy()
    path.write_bytes(backup)
    async with site.reopen() as again:
        assert (again.controller.by_hand.restored, again.controller.by_hand.restored_upto) == (True, None)
