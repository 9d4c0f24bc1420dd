"""``vestibule-gateway journal``: what an auditor does with a journal, offline and trusting nobody.

Everything here only reads. What comes out of a journal may have been written by anybody who could reach a door: it is
stripped of what a terminal would obey before it is shown.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from tqdm import tqdm

from vestibule_core import audit, bundle, proof
from vestibule_core.audit import Kept, Verdict
from vestibule_core.evidence import Entry, Run
from vestibule_core.kept import read_kept
from vestibule_core.model import DoorId
from vestibule_core.note import MAX_BYTES, MAX_SIZE, Checkpoint, NoteError, VerifierKey

from .source import Source, Unusable, open_journal, read_proof, read_text

NEWEST: Final = 50
"""Entries that are shown if nobody says how many."""

_WIDEST: Final = 80
"""Characters of a column."""

_JOURNAL: Final = "a journal's file that nobody writes to, or an exported journal"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``journal`` and what it can do."""
    journal = commands.add_parser("journal", help="verify, show or export a journal, or prove one entry of it")
    verbs = journal.add_subparsers(title="commands", metavar="COMMAND", required=True)

    what = "say whether a journal or a proof is what was signed, or where it first is not"
    verify = _verb(verbs, "verify", _verify, what, f"{_JOURNAL}, or the proof of an entry")
    verify.add_argument(
        "--key", action="append", default=[], metavar="KEY",
        help="who has to have signed: a verifier key (name+id+key), or a file that holds one; may be repeated. "
        "Without it, the keys that the journal itself names",
    )  # fmt: skip
    verify.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a checkpoint of this journal that was kept elsewhere"
    )

    show = _verb(verbs, "show", _show, "show the newest entries, with who it was as far as that is still known")
    show.add_argument("--door", metavar="DOOR", help="of one door, by its id")
    show.add_argument("--last", type=_count, default=NEWEST, metavar="N", help=f"how many (default {NEWEST})")

    export = _verb(verbs, "export", _export, "write a journal as one text, with all that a verifier needs")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: standard output)")
    export.add_argument(
        "--without-persons", action="store_true", help="leave out who it was; it can be verified as well"
    )

    one = _verb(verbs, "proof", _proof, "write the proof that one entry is in a journal")
    one.add_argument("entry", type=_count, metavar="ENTRY", help="its number")
    one.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: standard output)")
    one.add_argument("--person", action="store_true", help="with who it was")


def _verb(verbs: Any, name: str, run: Any, what: str, of: str = _JOURNAL) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    verb.add_argument("file", type=Path, metavar="FILE", help=of)
    verb.set_defaults(run=run)
    return verb


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_SIZE:
        raise ValueError
    return number


# ---- verify ----


def _verify(given: argparse.Namespace) -> int:
    keys = [_key(text) for text in given.key]
    if (entry_proof := read_proof(given.file)) is not None:
        return _verify_proof(given, entry_proof, keys)
    with open_journal(given.file) as source:
        kept = _kept(given.checkpoint, keys or source.header.keys)
        with _progress(source, "verified") as runs:
            verdict = audit.verify(source.header, runs, keys=keys, kept=kept)
        for line in _judgement(verdict, source.damage, has_keys=bool(keys)):
            print(printable(line))
    if not verdict.holds or source.damage is not None:
        return 1
    if verdict.kept is Kept.TOO_OLD:
        raise Unusable(f"--checkpoint {given.checkpoint}: what it is about is not there any more, so it shows nothing")
    return 0


def _judgement(verdict: Verdict, damage: str | None, *, has_keys: bool) -> Iterator[str]:
    """Say what was found, for a person."""
    first, last = verdict.dropped + 1, verdict.dropped + verdict.entries
    proved = f"entries {first} to {last}" if verdict.entries else "no entry"
    if (failure := verdict.failure) is not None:
        yield f"DOES NOT HOLD from entry {failure.first} to {failure.last}: {failure.why}"
        yield f"before that:   {proved} as signed; what comes after was not looked at"
    elif damage is not None:
        yield f"DAMAGED:       {damage}"
        yield f"even so:       {proved} as signed"
    else:
        yield f"holds:         {proved} as signed, under {_number(verdict.checkpoints, 'checkpoint')}"
    if verdict.dropped:
        yield f"gone:          entries 1 to {verdict.dropped} are not there any more"
    if verdict.oldest is not None and verdict.latest is not None:
        yield f"time (UTC):    {_time(verdict.oldest)} (entry {first}) to {_time(verdict.latest)}"
    if verdict.may_be_cut:
        yield "WARNING:       a journal drops only what is older than 24 months. What is gone here may be younger"
    if failure is None:
        yield f"persons:       {_number(verdict.persons, 'entry', 'entries')} still say who it was, as committed to"
    for key, count in verdict.signed:
        yield f"signed by:     {key} ({_number(count, 'checkpoint')})"
    signed = {key for key, _ in verdict.signed}
    for key in verdict.keys:
        if key not in signed:
            yield f"not signed by: {key} (named by {'you' if has_keys else 'the journal'}, signed nothing)"
    if signed and not has_keys:
        yield "               Only the journal says whose key signed: compare it with the one that Home Assistant shows"
        yield "               (action vestibule.verify_journal), or hand that one over with --key."
    if verdict.kept is Kept.MATCHES:
        yield "kept:          the checkpoint that was kept is one of this journal"
    if verdict.newest is not None and verdict.holds and damage is None:
        yield "newest proved checkpoint; kept elsewhere, it shows later (--checkpoint) that nothing was cut off:"
        yield ""
        yield from verdict.newest.rstrip("\n").split("\n")


def _verify_proof(given: argparse.Namespace, entry_proof: proof.EntryProof, keys: Sequence[VerifierKey]) -> int:
    if not keys:
        raise Unusable("a proof is worth as much as the key it is checked by: hand it over with --key")
    kept = _kept(given.checkpoint, keys)
    try:
        entry, checkpoint = entry_proof.check(keys)
        if kept is not None and kept.size == checkpoint.size and kept.root != checkpoint.root:
            raise NoteError("the checkpoint that was kept has as many entries, and others")
    except NoteError as err:
        print(f"DOES NOT HOLD: {printable(str(err))}")
        return 1
    print(f"holds:         entry {entry_proof.sequence} is in the journal of {printable(checkpoint.origin)}")
    _print_table([entry])
    if kept is not None and kept.size != checkpoint.size:
        raise Unusable(
            f"--checkpoint {given.checkpoint}: it is of {_number(kept.size, 'entry', 'entries')}, the proof's is of "
            f"{checkpoint.size}: whether they are of one journal is not known. Verify the journal itself with it"
        )
    return 0


def _key(text: str) -> VerifierKey:
    try:
        return VerifierKey.parse(read_text(Path(text), MAX_BYTES).strip() if Path(text).exists() else text)
    except NoteError as err:
        raise Unusable(f"--key: {err}") from err


def _kept(path: Path | None, keys: Sequence[VerifierKey]) -> Checkpoint | None:
    if path is None:
        return None
    try:
        return read_kept(read_text(path, MAX_BYTES), keys)
    except NoteError as err:
        raise Unusable(f"--checkpoint {path}: {err}") from err


# ---- show, export, proof ----


def _show(given: argparse.Namespace) -> int:
    with open_journal(given.file) as source:
        _print_table(source.newest(DoorId(given.door) if given.door else None, given.last))
    return 0


def _export(given: argparse.Namespace) -> int:
    with open_journal(given.file) as source, _output(given.output) as output:
        output.write(bundle.encode_header(source.header))
        last = source.header.base.size
        with _progress(source, "exported") as runs:
            for run in runs:
                output.write(bundle.encode_run(run, persons=not given.without_persons))
                last = run.last
        output.write(bundle.encode_end(last))
    return 0


def _proof(given: argparse.Namespace) -> int:
    with open_journal(given.file) as source, _progress(source, "read") as runs:
        try:
            text = str(proof.prove(source.header, runs, given.entry, person=given.person))
        except NoteError as err:
            raise Unusable(f"{given.file}: {err}") from err
    with _output(given.output) as output:
        output.write(text.encode())
    return 0


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Write to standard output, or to a new file, nobody else's to read and removed if something fails half-way."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with open(path, "xb", opener=partial(os.open, mode=0o600)) as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


# ---- what a person sees ----


@contextmanager
def _progress(source: Source, verb: str) -> Iterator[Iterable[Run]]:
    """Show on a terminal how far the runs have come."""
    gone = source.header.base.size
    # What a text says of itself may be any number.
    total = source.size - gone if source.size is not None and gone <= source.size <= MAX_SIZE else None
    with tqdm(total=total, desc=verb, unit=" entries", disable=None, leave=False, file=sys.stderr) as bar:

        def runs() -> Iterator[Run]:
            for run in source.runs():
                yield run
                bar.update(len(run.leaves))

        yield runs()


def _print_table(entries: Sequence[Entry]) -> None:
    rows = [("entry", "time (UTC)", "door", "what", "code", "means", "who"), *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(entry: Entry) -> tuple[str, ...]:
    leaf = entry.leaf
    cells = str(leaf.sequence), _time(leaf.at), leaf.door or "", leaf.kind, leaf.code or "", leaf.means or ""
    return tuple(printable(cell[:_WIDEST]) for cell in (*cells, _who(entry)))


def _who(entry: Entry) -> str:
    if entry.person is None:
        return "(deleted)" if entry.leaf.commit else ""
    try:
        return entry.who or ""
    except ValueError:
        return "(unreadable)"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def printable(text: str) -> str:
    """Return a line of text without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"
