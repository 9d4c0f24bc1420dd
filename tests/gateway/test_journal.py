"""``vestibule-gateway journal``: what an auditor sees of a copied journal, on a machine without Home Assistant."""

import asyncio
import json
import math
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import termios
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.__main__ import main
from gateway.source import Unusable, open_journal
from tests.simulated import IDENTITY, Site, read_journal, small_journal, some_doors
from tests.simulated import open_journal as open_for_writing
from vestibule_core import audit
from vestibule_core.erasure import DAY, Due
from vestibule_core.evidence import note_of
from vestibule_core.kept import read_kept
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, EventName
from vestibule_core.note import Checkpoint, SignerKey

KEY = IDENTITY.verifier
STRANGER_KEY = SignerKey("vestibule/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))
STRANGER = STRANGER_KEY.verifier


@pytest.fixture
async def path(tmp_path):
    return await small_journal(tmp_path / "journal.db")


@pytest.fixture
def run(capsys):
    """Run the command; return its exit status, what it printed, and what it complained about."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "a bug of" not in printed.err
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
        db.execute(*statement if isinstance(statement, tuple) else (statement,))
    db.commit()
    db.close()


def leaves_of(path):
    return [leaf for (leaf,) in read_journal(path, "SELECT bytes FROM leaf ORDER BY seq")]


def cut_off_at_the_beginning(path, count):
    """As whoever can write the file could: what is left is all as signed."""
    tree = Tree().extend(leaves_of(path)[:count])
    alter(
        path,
        ("INSERT OR REPLACE INTO meta VALUES('base', ?)", (note_of(tree),)),
        ("DELETE FROM leaf WHERE seq <= ?", (count,)),
        ("DELETE FROM person WHERE seq <= ?", (count,)),
        ("DELETE FROM checkpoint WHERE size < ?", (count,)),
    )


def signed_by_another(path, signer, *, last=True):
    """Sign every entry anew; ``last`` False: but for the last one, whose signature is false."""
    checkpoints, tree = [], Tree()
    for leaf in leaves_of(path):
        tree = tree.append(leaf)
        checkpoints.append(signer.sign(Checkpoint(signer.verifier.name, tree.size, tree.root()).text))
    if not last:
        checkpoints[-1] = checkpoints[-1].replace("\n8\n", "\n9\n")
    rows = [("INSERT INTO checkpoint VALUES(?, ?)", row) for row in enumerate(checkpoints, 1)]
    alter(path, "DELETE FROM checkpoint", *rows)


def named_by(path, *keys):
    alter(path, ("UPDATE meta SET value = ? WHERE key = 'keys'", (json.dumps([str(key) for key in keys]),)))


# ---- verify ----


def test_one_command_verifies_a_copied_journal(path):
    """As it is typed: the installed command, in a process of its own."""
    command = shutil.which("vestibule-gateway", path=str(Path(sys.executable).parent))
    done = subprocess.run([command, "journal", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds:         entries 1 to 8 as signed, under 8 checkpoints" in done.stdout
    assert f"signed by:     {KEY} (8 checkpoints)" in done.stdout
    assert "time (UTC):    2027-01-15 08:00:01.000 (entry 1) to 2027-01-15 08:00:08.000" in done.stdout
    assert "compare it with the one" in done.stdout


def test_home_assistant_is_not_needed_and_not_touched(path):
    code = "import sys; from gateway.__main__ import main; main(sys.argv[1:]); sys.exit('homeassistant' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "journal", "verify", path], capture_output=True, check=True)


async def test_nothing_is_written_beside_a_journal_with_its_log(path, run, tmp_path):
    """As a backup has it, on a medium that cannot be written to: what is in the log is read all the same."""
    journal = await asyncio.to_thread(open_for_writing, path)
    journal.start(lambda _: None)
    await journal.append(AccessEvent(outcome=EventName.DOOR_CLOSED, door=some_doors(1)[0].id, at=1.8e9))
    backup = tmp_path / "backup"
    backup.mkdir()
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, backup)
    await asyncio.to_thread(journal.close)
    before = {file.name: file.read_bytes() for file in backup.iterdir()}
    with open_journal(backup / "journal.db") as source:
        assert len([entry for part in source.runs() for entry in part.entries()]) == 9
        assert {file.name for file in backup.iterdir()} == before.keys() == {"journal.db", "journal.db-wal"}
    assert run("journal", "verify", backup / "journal.db")[0] == 0
    assert {file.name: file.read_bytes() for file in backup.iterdir()} == before


def test_a_journal_that_is_copied_for_a_while_leaves_no_copy(path, run, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path.with_name("journal.db-wal").write_bytes(b"not the log of this journal")
    with open_journal(path) as source:
        [copy] = (tmp_path / "temporary").iterdir()
        assert copy.stat().st_mode & 0o777 == 0o700
        assert source.size == 8
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["pipe", "folder"])
def test_what_is_not_a_file_is_not_waited_for(path, run, tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for arguments in (
        ("verify", tmp_path / name),
        ("verify", path, "--checkpoint", tmp_path / name),
        ("verify", path, "--key", tmp_path / name),
        ("show", "/dev/zero"),
    ):
        status, _, err = run("journal", *arguments)
        assert (status, "is not a file" in err) == (2, True)
    path.with_name("journal.db.lock").unlink()
    os.mkfifo(path.with_name("journal.db.lock"))
    assert run("journal", "verify", path)[0] == 0


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_a_file_that_is_too_long_is_not_read(path, run, tmp_path, size):
    (tmp_path / "long").write_bytes(b"x" * size)
    for option in ("--checkpoint", "--key"):
        status, _, err = run("journal", "verify", path, option, tmp_path / "long")
        assert (status, "is longer than" in err) == (2, True)


WINDOWS = """
import sys
for name in ("fcntl", "termios", "pwd", "grp", "resource"):
    sys.modules[name] = None  # as if there were none
from gateway.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_machine_with_windows_verifies_what_was_exported_and_a_copied_journal(path, exported, run, tmp_path):
    """As far as that can be tried here: without the modules that Windows does not have."""
    run("journal", "proof", path, "3", "-o", tmp_path / "proof")
    for file in (exported, tmp_path / "proof", path):
        done = subprocess.run(
            [sys.executable, "-c", WINDOWS, "journal", "verify", file, "--key", str(KEY)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


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


def test_a_checkpoint_that_came_by_mail_is_read(path, run, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_bytes(
        run("journal", "verify", path)[1].partition("was cut off:\n\n")[2].replace("\n", "\r\n\r\n").encode()
    )
    status, out, _ = run("journal", "verify", path, "--checkpoint", kept)
    assert (status, "the checkpoint that was kept is one of this journal" in out) == (0, True)


def test_entries_that_are_not_there_any_more_are_told_of_and_may_have_been_cut_off(path, run, tmp_path):
    """Nothing in the file tells whether it was the journal that dropped them: what is known is said."""
    kept = tmp_path / "kept.txt"
    kept.write_text(read_journal(path, "SELECT note FROM checkpoint WHERE size = 3")[0][0])
    cut_off_at_the_beginning(path, 4)
    status, out, _ = run("journal", "verify", path)
    assert status == 0
    assert "gone:          entries 1 to 4 are not there any more" in out
    assert "time (UTC):    2027-01-15 08:00:05.000 (entry 5) to" in out
    assert "WARNING:       a journal drops only what is older than 24 months" in out
    status, out, err = run("journal", "verify", path, "--checkpoint", kept)
    assert (status, "not there any more, so it shows nothing" in err) == (2, True)
    assert "holds:" in out


async def test_entries_that_were_dropped_after_their_time_are_no_reason_to_warn(tmp_path, run):
    journal = await asyncio.to_thread(open_for_writing, tmp_path / "journal.db")
    journal.start(lambda _: None)
    for days in (0, 1, 20, 735):
        await journal.append(AccessEvent(outcome=EventName.DOOR_CLOSED, door=None, at=1.8e9 + days * DAY))
    assert await journal.retain(Due.at(1.8e9 + 735 * DAY, journal.newest, 30 * DAY))
    await asyncio.to_thread(journal.close)
    status, out, _ = run("journal", "verify", tmp_path / "journal.db")
    assert (status, "WARNING" in out) == (0, False)
    assert "gone:          entries 1 to 2 are not there any more" in out


def test_only_who_signed_is_named_as_who_signed(path, run):
    """An attacker's key signs, and the building's is in the journal's list."""
    named_by(path, STRANGER, KEY)
    signed_by_another(path, STRANGER_KEY)
    status, out, _ = run("journal", "verify", path)
    assert status == 0
    assert f"signed by:     {STRANGER} (8 checkpoints)" in out
    assert f"not signed by: {KEY} (named by the journal, signed nothing)" in out
    status, out, _ = run("journal", "verify", path, "--key", KEY)
    assert (status, "signed by:     " in out) == (1, False)
    assert f"not signed by: {KEY} (named by you, signed nothing)" in out


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


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "9" * 5000, "x"])
@pytest.mark.parametrize("verb", ["show", "proof"])
def test_a_number_that_no_entry_can_have_is_refused(path, verb, number, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["journal", verb, str(path), *(["--last"] if verb == "show" else []), number])
    assert ended.value.code == 2


def test_the_greatest_numbers_are_no_trouble(path, exported, run):
    for file in (path, exported):
        assert run("journal", "show", file, "--last", 2**63 - 1)[0] == 0
        assert run("journal", "proof", file, 2**63 - 1)[0] == 2


def odd_leaf(**fields):
    leaf = {"seq": 5, "t": 1.8e9, "door": None, "kind": "door_opened", "code": None, "means": None, "kid": None}
    text = json.dumps(leaf | {"spend_id": None, "commit": None} | fields, sort_keys=True, separators=(",", ":"))
    return text.encode()


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(("UPDATE leaf SET bytes = ? WHERE seq = 5", (odd_leaf(t=t),)), id=f"a time of {t!r:.20}")
        for t in (math.inf, -math.inf, math.nan, 1e15, 1e20, -1e20, 10**400, None)
    ]
    + [
        pytest.param(statement, id=name)
        for name, statement in {
            "an entry in text": "UPDATE leaf SET bytes = CAST(bytes AS TEXT) WHERE seq = 5",
            "an entry of another number": ("UPDATE leaf SET bytes = ? WHERE seq = 5", (odd_leaf(seq=6),)),
            "an entry far away": ("INSERT INTO leaf VALUES(9223372036854775807, ?)", (odd_leaf(),)),
            "a person in deep brackets": ("UPDATE person SET json = ? WHERE seq = 5", (DEEP,)),
            "a person who is a list": "UPDATE person SET json = '[]' WHERE seq = 5",
            "a person in no UTF-8": "UPDATE person SET json = CAST(x'ff1b5b324a' AS TEXT) WHERE seq = 5",
            "a person in bytes": "UPDATE person SET json = x'ff' WHERE seq = 5",
            "a checkpoint in bytes": "UPDATE checkpoint SET note = x'ff' WHERE size = 8",
            "a checkpoint far away": "INSERT INTO checkpoint VALUES(9223372036854775807, 'x')",
            "a base beyond all numbers": (
                "INSERT OR REPLACE INTO meta VALUES('base', ?)",
                (json.dumps({"size": 2**64, "peaks": ["00" * 32]}),),
            ),
            "a base in deep brackets": ("INSERT OR REPLACE INTO meta VALUES('base', ?)", (DEEP,)),
            "a base in bytes": "INSERT OR REPLACE INTO meta VALUES('base', x'ff')",
            "keys in deep brackets": ("UPDATE meta SET value = ? WHERE key = 'keys'", (DEEP,)),
        }.items()
    ],
)
def test_whatever_is_in_the_file_each_command_ends_with_a_sentence(path, run, statement, tmp_path):
    index = "CREATE INDEX leaf_door ON leaf(CAST(bytes AS TEXT) ->> '$.door')"
    alter(path, "DROP INDEX leaf_door", statement)
    with suppress(sqlite3.Error):  # SQLite's own JSON has stricter rules than the attacker
        alter(path, index)
    assert run("journal", "verify", path)[0] in {1, 2}
    for arguments in (("show", path), ("export", path, "-o", tmp_path / "text"), ("proof", path, "5", "--person")):
        status, out, err = run("journal", *arguments)
        assert (status, err.count("\n")) in {(0, 0), (2, 1)}
        assert "\x1b" not in out + err


@pytest.mark.parametrize("size", [-1, 10**400, 2**63])
def test_an_exported_journal_that_lies_about_its_length_is_read_on_a_terminal(exported, tmp_path, size):
    lines = exported.read_bytes().splitlines(keepends=True)
    exported.write_bytes(b"".join(lines[:-1]) + b'{"entries":%d}\n' % size)
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "gateway", "journal", "verify", str(exported)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=its, check=False)
    os.close(its)
    os.close(ours)
    assert done.returncode == 1
    assert b"DOES NOT HOLD" in done.stdout


def test_nothing_in_the_file_steers_the_terminal(path, run, tmp_path):
    """Names of keys and of other signers are whatever somebody made of them."""
    steers = SignerKey("v\x9b2J\u202e", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    note = read_journal(path, "SELECT note FROM checkpoint WHERE size = 8")[0][0]
    witness = note + f"\N{EM DASH} \x9b2J\u202e\x7f {b64encode(bytes(68)).decode()}\n"
    alter(path, ("UPDATE checkpoint SET note = ? WHERE size = 8", (witness,)))
    assert harmless(run("journal", "verify", path))[0] == 0
    named_by(path, steers.verifier)
    signed_by_another(path, steers)
    assert harmless(run("journal", "verify", path))[0] == 0
    signed_by_another(path, steers, last=False)
    assert harmless(run("journal", "verify", path))[0] == 1
    (tmp_path / "\x1b[2J").write_text("nothing")
    assert harmless(run("journal", "verify", tmp_path / "\x1b[2J"))[0] == 2


def harmless(printed):
    assert not [character for character in printed[1] + printed[2] if not character.isprintable() and character != "\n"]
    return printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_checkpoint_that_was_printed_to_a_file_is_kept_whatever_the_locale(path, tmp_path, encoding):
    command = [sys.executable, "-m", "gateway", "journal", "verify", path]
    with (tmp_path / "printed").open("wb") as file:
        subprocess.run(command, stdout=file, env=os.environ | {"PYTHONIOENCODING": encoding}, check=True)
    kept = (tmp_path / "printed").read_bytes().partition(b"was cut off:\n\n")[2]
    assert read_kept(kept.decode(), [KEY]).size == 8


def test_a_terminal_that_cannot_show_a_letter_is_no_error(path):
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "gateway", "journal", "verify", str(path)]
    subprocess.run(command, stdout=its, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True)
    os.close(its)
    assert b"\\u2014 vestibule/test" in os.read(ours, 10_000)
    os.close(ours)


def test_whoever_interrupts_it_sees_no_more_of_it(path, monkeypatch, run):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.journal.open_journal", interrupted)
    assert run("journal", "verify", path) == (130, "", "")


def test_a_bug_is_told_of_as_one_and_says_nothing_about_the_journal(path, monkeypatch, capsys):
    """Python itself would end with 1: "does not hold"."""
    monkeypatch.setattr("gateway.journal.open_journal", lambda path: 1 // 0)
    assert main(["journal", "verify", str(path)]) == 2
    printed = capsys.readouterr()
    assert "a bug of vestibule-gateway, which says nothing about the file: ZeroDivisionError" in printed.err
    assert "test_journal.py" in printed.err


def test_a_disk_that_is_full_is_told_of(path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "journal", "show", path], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"vestibule-gateway: [Errno 28] No space left on device\n")


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
        (("verify", path, "--checkpoint", tmp_path / "other"), "not a checkpoint"),
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


def test_a_proof_and_a_checkpoint_of_another_size_are_not_compared_and_that_is_said(path, run, tmp_path):
    run("journal", "proof", path, "3", "-o", tmp_path / "proof")
    for size in (5, 8):
        (tmp_path / f"kept{size}").write_text(
            read_journal(path, f"SELECT note FROM checkpoint WHERE size = {size}")[0][0]
        )
    proof = "verify", tmp_path / "proof", "--key", KEY
    assert run("journal", *proof, "--checkpoint", tmp_path / "kept8")[0] == 0
    status, out, err = run("journal", *proof, "--checkpoint", tmp_path / "kept5")
    assert status == 2
    assert "holds:" in out
    assert "it is of 5 entries, the proof's is of 8" in err
    assert "Verify the journal itself with it" in err


def test_what_is_written_is_nobody_elses_to_read(exported, path, run, tmp_path):
    run("journal", "proof", path, "3", "--person", "-o", tmp_path / "proof")
    assert [file.stat().st_mode & 0o777 for file in (exported, tmp_path / "proof")] == [0o600, 0o600]


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
