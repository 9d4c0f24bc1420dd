"""``vestibule-gateway journal``: what an auditor sees of a copied journal, on a machine without Home Assistant."""

import asyncio
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.__main__ import main
from gateway.source import Unusable, open_journal
from tests.simulated import IDENTITY, Site, small_journal, some_doors
from tests.simulated import open_journal as open_for_writing
from vestibule_core import audit
from vestibule_core.model import AccessEvent, EventName
from vestibule_core.note import Checkpoint, SignerKey

KEY = IDENTITY.verifier
STRANGER = SignerKey("vestibule/test", Ed25519PrivateKey.from_private_bytes(bytes(32))).verifier


@pytest.fixture
async def path(tmp_path):
    return await small_journal(tmp_path / "journal.db")


@pytest.fixture
def run(capsys):
    """Run the command; return its exit status, what it printed, and what it complained about."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def exported(path, run, tmp_path):
    status, _, err = run("journal", "export", path, "-o", tmp_path / "exported.jsonl")
    assert (status, err) == (0, "")
    return tmp_path / "exported.jsonl"


def alter(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


# ---- verify ----


def test_one_command_verifies_a_copied_journal(path):
    """As it is typed: the installed command, in a process of its own."""
    command = shutil.which("vestibule-gateway", path=str(Path(sys.executable).parent))
    done = subprocess.run([command, "journal", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds:         entries 1 to 8 as signed, under 8 checkpoints" in done.stdout
    assert f"signed by:     {KEY}" in done.stdout
    assert "compare it with the one" in done.stdout


def test_home_assistant_is_not_needed_and_not_touched(path):
    code = "import sys; from gateway.__main__ import main; main(sys.argv[1:]); sys.exit('homeassistant' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "journal", "verify", path], capture_output=True, check=True)


def test_a_journal_in_a_folder_that_cannot_be_written_to_is_verified(path, run):
    path.parent.chmod(0o500)
    assert run("journal", "verify", path)[0] == 0


@pytest.mark.parametrize("how", ["text", "file"])
def test_the_key_that_was_noted_elsewhere_is_the_one_that_counts(path, run, tmp_path, how):
    def verify(key):
        (tmp_path / "key").write_text(f"{key}\n")
        return run("journal", "verify", path, "--key", key if how == "text" else tmp_path / "key")

    status, out, _ = verify(KEY)
    assert status == 0
    assert "compare it" not in out
    status, out, _ = verify(STRANGER)
    assert status == 1
    assert "DOES NOT HOLD from entry 1 to 1" in out


def test_the_newest_checkpoint_that_is_printed_can_be_kept_and_shows_later_what_was_cut_off(path, run, tmp_path):
    out = run("journal", "verify", path)[1]
    kept = tmp_path / "kept.txt"
    kept.write_text(out.partition("was cut off:\n\n")[2])
    assert run("journal", "verify", path, "--checkpoint", kept)[0] == 0
    alter(path, *[f"DELETE FROM {table} WHERE {column} > 6" for table, column in
                  (("leaf", "seq"), ("person", "seq"), ("checkpoint", "size"))])  # fmt: skip
    assert run("journal", "verify", path)[0] == 0
    status, out, _ = run("journal", "verify", path, "--checkpoint", kept)
    assert status == 1
    assert "DOES NOT HOLD from entry 7 to 8" in out
    assert "entries 1 to 6 as signed" in out


def test_row_67_an_altered_entry_is_named(path, run):
    alter(path, "UPDATE leaf SET bytes = CAST(replace(bytes, 'door_opened', 'door_closed') AS BLOB) WHERE seq = 4")
    status, out, _ = run("journal", "verify", path)
    assert status == 1
    assert "DOES NOT HOLD from entry 4 to 4: they are not those that were signed" in out
    assert "entries 1 to 3 as signed; what comes after was not looked at" in out


def test_an_empty_journal_holds(tmp_path, run):
    open_for_writing(tmp_path / "journal.db").close()
    assert run("journal", "verify", tmp_path / "journal.db")[0] == 0


async def test_a_journal_that_is_written_to_is_left_alone(path, run):
    journal = await asyncio.to_thread(open_for_writing, path)
    status, _, err = run("journal", "verify", path)
    await asyncio.to_thread(journal.close)
    assert status == 2
    assert "is being written to" in err


@pytest.mark.parametrize("content", [b"", b"no journal", b'{"base":1}\n', b"SQLite format 3\0", b"\xff\n"], ids=repr)
def test_what_is_no_journal_cannot_be_judged(tmp_path, run, content):
    (tmp_path / "file").write_bytes(content)
    for verb in ("verify", "show", "export"):
        status, _, err = run("journal", verb, tmp_path / "file")
        assert status == 2
        assert str(tmp_path / "file") in err


def test_what_is_handed_over_wrongly_is_said(path, run, tmp_path):
    (tmp_path / "other").write_text("no note")
    for arguments, says in (
        (("verify", tmp_path / "nothing"), "No such file"),
        (("verify", path, "--key", "no key"), "--key: not a verifier key"),
        (("verify", path, "--checkpoint", tmp_path / "other"), "not a signed note"),
        (("verify", path, "--checkpoint", tmp_path / "nothing"), "No such file"),
        (("proof", path, "99"), "there is no entry 99"),
        (("export", path, "-o", path), "File exists"),
    ):
        status, _, err = run("journal", *arguments)
        assert (status, says in err) == (2, True), err


def content(path):
    with open_journal(path) as source:
        runs = list(source.runs())
        return source.header, runs, source.damage, audit.verify(source.header, runs, keys=[KEY])


def flipped_is_found_or_harmless(path, at):
    """Whether a flipped byte is found, by an auditor who has the key; False: it is nowhere in what the journal says."""
    right = content(path)
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
    try:
        header, runs, damage, verdict = content(path)
    except Unusable, ValueError:
        return True
    finally:
        path.write_bytes(data)
    if damage is not None or not verdict.holds:
        return True
    assert (header.base, header.base_note, runs) == (right[0].base, right[0].base_note, right[1]), (
        f"byte {at} was changed unnoticed"
    )
    return False


PARTS = 16


@pytest.mark.parametrize(
    "step, part", [(53, 0), *(pytest.param(1, part, marks=pytest.mark.long, id=f"all-{part}") for part in range(PARTS))]
)
async def test_row_67_no_flipped_byte_of_the_file_changes_what_it_says_unnoticed(tmp_path, step, part):
    """What has been spent, free pages and SQLite's own counters are no evidence."""
    path = await small_journal(tmp_path / "journal.db", entries=3)
    size = path.stat().st_size
    bytes_of_part = range(0, size, step) if step > 1 else range(size * part // PARTS, size * (part + 1) // PARTS)
    found = sum(flipped_is_found_or_harmless(path, at) for at in bytes_of_part)
    assert found or step == 1


# ---- show, export, proof ----


def test_the_newest_entries_are_shown_with_who_it_was(path, run):
    status, out, _ = run("journal", "show", path, "--last", "2")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["entry", "time", "(UTC)", "door", "what", "code", "means", "who"]
    assert [line.split()[0] for line in lines[1:]] == ["8", "7"]
    assert lines[1].endswith("User 8")
    assert "2027-01-15 08:00:08.000" in lines[1]


def test_those_of_one_door_are_shown(path, exported, run):
    for file in (path, exported):
        assert len(run("journal", "show", file, "--door", some_doors(1)[0].id)[1].splitlines()) == 9
        assert len(run("journal", "show", file, "--door", "door:another")[1].splitlines()) == 1


def test_an_exported_journal_shows_and_proves_the_same(path, exported, run):
    assert run("journal", "show", exported) == run("journal", "show", path)
    assert run("journal", "proof", exported, "3") == run("journal", "proof", path, "3")


def test_an_exported_journal_is_verified_by_the_same_command(exported, run):
    status, out, _ = run("journal", "verify", exported)
    assert status == 0
    assert "entries 1 to 8" in out
    exported.write_text(exported.read_text().replace("User 4", "User 5"))
    status, out, _ = run("journal", "verify", exported)
    assert status == 1
    assert "DOES NOT HOLD from entry 4 to 4" in out


def test_persons_can_be_left_out(path, run, tmp_path):
    run("journal", "export", path, "--without-persons", "-o", tmp_path / "text")
    assert "User" not in (tmp_path / "text").read_text()
    status, out, _ = run("journal", "verify", tmp_path / "text")
    assert (status, "persons:       0 entries" in out) == (0, True)
    assert "(deleted)" in run("journal", "show", tmp_path / "text")[1]


def test_a_broken_journal_is_not_exported(path, run, tmp_path):
    alter(path, "DELETE FROM leaf WHERE seq = 4")
    status, _, err = run("journal", "export", path, "-o", tmp_path / "text")
    assert status == 2
    assert "broken after entry 3" in err
    assert not (tmp_path / "text").exists()


def test_one_entry_is_proved_to_somebody_who_has_only_the_key(path, run, tmp_path):
    kept = tmp_path / "3.tlog-proof"
    assert run("journal", "proof", path, "3", "--person", "-o", kept)[0] == 0
    path.unlink()
    status, out, _ = run("journal", "verify", kept, "--key", KEY)
    assert status == 0
    assert "entry 3 is in the journal of vestibule/test" in out
    assert "User 3" in out
    status, _, err = run("journal", "verify", kept)
    assert (status, "--key" in err) == (2, True)
    assert run("journal", "verify", kept, "--key", STRANGER)[0] == 1
    assert run("journal", "show", kept)[0] == 2


def test_a_proof_that_contradicts_a_checkpoint_that_was_kept_does_not_hold(path, run, tmp_path):
    run("journal", "proof", path, "3", "-o", tmp_path / "proof")
    (tmp_path / "kept").write_text(IDENTITY.sign(Checkpoint("vestibule/test", 8, bytes(32)).text))
    status, out, _ = run("journal", "verify", tmp_path / "proof", "--key", KEY, "--checkpoint", tmp_path / "kept")
    assert (status, "DOES NOT HOLD" in out) == (1, True)


async def test_a_name_that_would_steer_a_terminal_is_shown_as_it_is(tmp_path, run):
    journal = await asyncio.to_thread(open_for_writing, tmp_path / "journal.db")
    journal.start(lambda _: None)
    event = AccessEvent(outcome=EventName.DOOR_BLOCKED, door=None, at=1.8e9)
    await journal.append(event, {"user_id": "u", "user": "\x1b[2Jnobody\n9  was here"})
    await asyncio.to_thread(journal.close)
    out = run("journal", "show", tmp_path / "journal.db")[1]
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
    assert "\ufffd[2Jnobody\ufffd9  was here" in out


async def test_a_delivery_is_shown_with_the_drivers_pseudonym(tmp_path, run):
    async with Site(tmp_path / "journal.db") as site:
        await site.present(site.token(sub="driver-of-today"))
    out = run("journal", "show", tmp_path / "journal.db")[1]
    granted = next(line for line in out.splitlines() if "access_granted" in line)
    assert granted.endswith("token  driver-of-today")


def test_on_a_terminal_it_shows_how_far_it_has_come(path):
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    os.set_blocking(ours, False)
    command = [sys.executable, "-m", "gateway", "journal", "verify", str(path)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=its, check=True)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(its)
    assert "verified" in shown
    assert "/8" in shown


def test_a_reader_that_goes_away_ends_it_quietly(path):
    command = f"{sys.executable} -m gateway journal export {path} | head -c 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"{", b"")
