"""Controllers in processes of their own, which can be killed at any point of an unlock.

``Processes`` is the tests' side. The other side is one small process that has everything imported and forks a child for
each job, so that 200 killed controllers take seconds. A child runs a bare controller: a real journal, a strike whose
log survives SIGKILL, and the carrier that signs. It says what it does in lines of JSON; what it has said before it was
killed is known.

The points at which a child can kill itself are made here, around the production code: by the strike, and by a database
connection that looks at the statements passing through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulated import Moment, SimulatedStrike, Site, open_journal, pulses_in
from vestibule_core import journal
from vestibule_core.errors import VestibuleError
from vestibule_core.journal import Journal
from vestibule_core.model import Actor, Decision, DoorMode, EventName, Sense, Sensor
from vestibule_core.note import SignerKey
from vestibule_core.strike import Pulse

ROOT = Path(__file__).parent.parent.parent
ADMINISTRATOR = Actor(user_id="1", name="Ann", is_admin=True)
USER = Actor(user_id="2", name="Bob", is_admin=False)

# ---- the tests' side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a child that has ended."""

    killed: bool
    said: list[dict[str, Any]]

    def all(self, word: str) -> list[Any]:
        """Return what was said under this word, in order."""
        return [line[word] for line in self.said if word in line]

    def __getitem__(self, word: str) -> Any:
        """Return what was said last under this word."""
        return self.all(word)[-1]


class Processes:
    """Runs jobs, each in a child process, one after the other."""

    def __init__(self, preload: Path | None = None, module: str = "tests.core.crash_process") -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: str, *, kill_after: float | None = None, **arguments: Any) -> Report:
        """Run one job to its end; ``kill_after`` seconds after it says ``go``, kill it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"job": job, "kill_after": kill_after, "arguments": arguments}
        self._process.stdin.write(json.dumps(asked, default=str) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        report = Report(answer["killed"], answer["said"])
        assert not report.all("error"), report["error"]
        return report

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


# ---- the other side -------------------------------------------------------------------------------------------------

type Say = Callable[..., None]
_JOBS: dict[str, Callable[..., Awaitable[None]]] = {}


def _job(work: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    _JOBS[work.__name__] = work
    return work


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Watched:
    """A database connection that tells which statement of an unlock is passing."""

    def __init__(self, db: Any, passing: Callable[[str], None]) -> None:
        self._db = db
        self._passing = passing
        self._group = ""

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql.startswith("BEGIN"):
            self._group = ""
        if sql == "COMMIT" and self._group:
            self._passing(f"{self._group}: before COMMIT")
        result = self._db.execute(sql, *parameters)
        if sql.startswith("INSERT INTO spent"):
            self._group = "spend"
            self._passing("spend: inserted")
        elif not self._group and sql in _NOTES:
            self._group = "note"
            self._passing("note: written")
        elif sql.startswith("UPDATE spent"):
            self._group = "outcome"
        elif sql == "COMMIT" and self._group:
            self._passing(f"{self._group}: after COMMIT")
        elif "wal_checkpoint" in sql:
            self._passing("copied")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


_NOTES = ("INSERT OR REPLACE INTO meta VALUES(?, ?)", "DELETE FROM meta WHERE key = ?")


class _MortalStrike(SimulatedStrike):
    def __init__(self, passing: Callable[[str], None], **kind: Any) -> None:
        super().__init__(**kind)
        self._passing = passing
        self.at(Moment.REACHED, lambda: passing("reached"))
        self.at(Moment.TOLD, lambda: passing("told"))
        self.at(Moment.MOVED, lambda: passing("moved"))
        self.at(Moment.TOLD_TO_SECURE, lambda: passing("told to secure"))

    async def release(self, pulse: Pulse) -> None:
        await super().release(pulse)
        self._passing("confirmed")

    async def hold(self, origin: object) -> None:
        await super().hold(origin)
        self._passing("held")

    async def secure(self) -> None:
        await super().secure()
        self._passing("secured")


def _site(folder: str, passing: Callable[[str], None] = lambda _: None, *, device_timed: bool = True) -> Site:
    place = Path(folder)
    site = Site(place / "journal.db", device_timed=device_timed, setup={"sensors": frozenset({Sensor.TAMPER})})
    strike = _MortalStrike(passing, device_timed=device_timed, log=place / "pulses")
    site.strikes = {site.door.id: strike}
    return site


async def _quiet(site: Site) -> None:
    """Wait until the outcome is on the disk and the writer has nothing left to do, a copy of the log included."""
    while site.controller._telling._background or getattr(site.journal, "busy", False):  # noqa: ASYNC110 - a thread's flag
        await asyncio.sleep(0.001)


def _tell_when_busy(opened: Any) -> None:
    """From the beginning of a commit to the end of the copy that may follow it."""
    commit, copy_back = opened._commit, opened._copy_back

    def busy_commit(group: Any) -> None:
        opened.busy = True
        commit(group)
        opened.busy = not opened.failed

    def then_idle() -> None:
        copy_back()
        opened.busy = False

    opened._commit, opened._copy_back = busy_commit, then_idle


@contextlib.asynccontextmanager
async def _at_work(site: Site, passing: Callable[[str], None]) -> Any:
    journal.QUIET = 0.001  # type: ignore[misc]
    unwatched = Journal.open

    def watched(path: Path, signer: SignerKey) -> Journal:
        opened = unwatched(path, signer)
        opened._writer.db = _Watched(opened._writer.db, passing)  # type: ignore[assignment]
        _tell_when_busy(opened)
        return opened

    Journal.open = watched  # type: ignore[method-assign]
    async with site:
        yield site


@_job
async def unlock(say: Say, folder: str, number: int, kill_at: str | None = None, device_timed: bool = True) -> None:
    """Open once with a token, and die at the named point."""

    def passing(point: str) -> None:
        if point in {"told", "moved"}:
            say(point=point, syncs=_syncs() - before)
        if point == kill_at:
            _die()

    site = _site(folder, passing, device_timed=device_timed)
    async with _at_work(site, passing):
        text = site.token(jti=f"{number:021d}A", sub=f"driver-{number}")
        say(token=text)
        passing("challenged")
        before = _syncs()
        decision = await site.present(text)
        say(code=decision.code)
        await _quiet(site)


@_job
async def unlock_for_ever(say: Say, folder: str, number: int, device_timed: bool = True) -> None:
    """Open again and again, until killed."""
    site = _site(folder, device_timed=device_timed)
    async with site:
        say(go=True)
        for each in range(10_000):
            text = site.token(jti=f"{number:06d}{each:015d}A")
            say(token=text)
            decision = await site.present(text)
            say(code=decision.code)


@_job
async def unlocks_with_copies(say: Say, folder: str, count: int) -> None:
    """Unlock with a log that is copied back every few commits; tell the syncs of each unlock."""
    journal.CHECKPOINT_PAGES = 20  # type: ignore[misc]
    copies: list[str] = []
    syncs: list[int] = []
    before = 0

    def passing(point: str) -> None:
        if point == "copied":
            copies.append(point)
        if point == "spend: after COMMIT":  # what comes later (a copy) no longer holds up the strike
            syncs.append(_syncs() - before)

    site = _site(folder)
    async with _at_work(site, passing):
        for _ in range(count):
            text = site.token()
            before = _syncs()
            assert (await site.present(text)).granted
            await _quiet(site)
    say(syncs=syncs, copies=len(copies))


@_job
async def replay(say: Say, folder: str, tokens: list[str], device_timed: bool = True) -> None:
    """Start after a crash, see what moves by itself, and present the old tokens again."""
    before = len(pulses_in(Path(folder) / "pulses"))
    site = _site(folder, device_timed=device_timed)
    async with site:
        await asyncio.sleep(0.01)
        say(moved_at_start=len(pulses_in(Path(folder) / "pulses")) - before)
        say(codes=[(await site.present(text)).code for text in tokens])
        say(secured=site.strike.times_secured)
    say(events=[event.outcome for event in site.events])
    say(spent=site.spent())


def _orders(site: Site) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return what can be asked for by hand, or happens to a door, by a word for it."""
    controller, door = site.controller, site.door.id

    async def tamper() -> None:
        site.sense(Sensor.TAMPER)
        await site.told(EventName.DOOR_TAMPERED)

    async def clear_tamper() -> Decision:
        site.sense(Sensor.TAMPER, Sense.INACTIVE)
        return await controller.by_hand.clear_tamper(door, ADMINISTRATOR)

    return {
        "lockdown": lambda: controller.by_hand.set_lockdown(True, ADMINISTRATOR),
        "lift": lambda: controller.by_hand.set_lockdown(False, ADMINISTRATOR),
        "block": lambda: controller.by_hand.set_mode(door, DoorMode.BLOCKED, ADMINISTRATOR),
        "normal": lambda: controller.by_hand.set_mode(door, DoorMode.NORMAL, ADMINISTRATOR),
        "unlock": lambda: controller.by_hand.set_mode(door, DoorMode.UNLOCKED, ADMINISTRATOR),
        "no deliveries": lambda: controller.by_hand.set_deliveries(door, False, ADMINISTRATOR),
        "deliveries": lambda: controller.by_hand.set_deliveries(door, True, ADMINISTRATOR),
        "tamper": tamper,
        "clear tamper": clear_tamper,
    }


@_job
async def order(say: Say, folder: str, first: list[str], what: str, kill_at: str | None = None) -> None:
    """Do what comes first, then ``what``, and die at the named point of that."""
    begun: list[bool] = []

    def passing(point: str) -> None:
        if begun and point == kill_at:
            _die()

    site = _site(folder, passing, device_timed=False)
    async with _at_work(site, passing):
        for each in first:
            await _orders(site)[each]()
        begun.append(True)
        passing("asked")
        await _orders(site)[what]()
        say(confirmed=True)
        passing("confirmed")


@_job
async def orders_for_ever(say: Say, folder: str, seed: int) -> None:
    """Shut and open again and again, in any order, until killed."""
    chance = random.Random(seed)
    site = _site(folder, device_timed=False)
    async with site:
        say(go=True)
        for _ in range(10_000):
            what = chance.choice(["lockdown", "lift", "block", "normal", "unlock", "no deliveries", "deliveries"])
            say(asked=what)
            decision = await _orders(site)[what]()
            say(answered=decision.code)


@_job
async def look(say: Say, folder: str) -> None:
    """Start after a crash, and say how the door begins and whom it lets in."""
    site = _site(folder, device_timed=False)
    async with site:
        say(mode=site.state.mode, locked_down=site.controller.by_hand.locked_down)
        say(deliveries=site.state.accepts_deliveries, tampered=site.state.tampered)
        await asyncio.sleep(0.01)
        say(secured=site.strike.times_secured, holds=site.strike.holds, pulses=site.pulses)
        say(token=(await site.present(site.token())).code)
        say(by_hand=(await site.controller.by_hand.open(site.door.id, ADMINISTRATOR)).code)


@_job
async def open_another_journal(say: Say, path: str) -> None:
    """Try to open a journal."""
    try:
        open_journal(Path(path)).close()
        say(opened=True)
    except VestibuleError as error:
        say(opened=type(error).__name__)


@_job
async def failing_sync(say: Say, folder: str) -> None:
    """The disk fails once, at the sync of the spend; then the same token comes again."""
    site = _site(folder, passing := lambda point: _fail_next_sync() if point == "reached" and not said else None)
    said: list[bool] = []
    async with _at_work(site, passing):
        text = site.token()
        say(token=text)
        first = await site.present(text)
        said.append(True)
        syncs = _syncs()
        second = await site.present(text)
        say(codes=[first.code, second.code], failed=site.journal.failed, further_syncs=_syncs() - syncs)
        say(other=(await site.present(site.token())).code)
        say(by_hand=(await site.controller.by_hand.open(site.door.id, ADMINISTRATOR)).code)
        say(pulses=len(pulses_in(Path(folder) / "pulses")))


@_job
async def file_size_limit(say: Say, folder: str) -> None:
    """No file may grow any more: what a full disk or a quota looks like."""
    site = _site(folder)
    async with site:
        text = site.token()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (Path(folder) / "journal.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        say(codes=[(await site.present(text)).code for _ in range(2)], failed=site.journal.failed)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        say(after=(await site.present(text)).code, pulses=len(pulses_in(Path(folder) / "pulses")))


@_job
async def full_disk(say: Say, folder: str) -> None:
    """A file system of half a megabyte, full; then with room again, and the same token."""
    if (reason := _private_mounts()) or (reason := _mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", folder)):
        return say(skip=reason)
    site = _site(folder)
    async with site:
        text = site.token()
        with (Path(folder) / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(512))
        say(codes=[(await site.present(text)).code for _ in range(2)], failed=site.journal.failed)
        (Path(folder) / "filler").unlink()
        say(after=(await site.present(text)).code)
    async with site.reopen() as again:
        say(restarted=(await again.present(text)).code, good=(await again.present(again.token())).code)
    return say(pulses=site.pulses)


@_job
async def filling_disk(say: Say, folder: str, copy: str) -> None:
    """A file system of 40 MiB that fills up: to what refusals may not use, then entirely. The tests' side, which cannot
    see it, gets a copy of the journal.
    """
    if (reason := _private_mounts()) or (reason := _mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", folder)):
        return say(skip=reason)
    site = _site(folder)
    async with site:
        wrong = [site.carrier.token("A" * 22) for _ in range(2)]
        for text, free in zip(wrong, (journal.RESERVE + 2**20, journal.RESERVE - 4096), strict=True):
            _fill(Path(folder), leaving=free)
            await asyncio.sleep(journal.LOOK_EVERY)
            say(code=(await site.present(text)).code)
            await site.controller.recorded()
        text = site.token()
        say(at_reserve=(await site.present(text)).code)
        say(by_hand=(await site.controller.by_hand.open(site.door.id, USER)).code)
        await site.told(EventName.DOOR_RELEASED, 2)
        say(sequences=[(event.outcome, event.sequence) for event in site.events])
        site.events.clear()
        text = site.token()
        _fill(Path(folder), leaving=0)
        say(full=(await site.present(text)).code, failed=site.journal.failed)
        say(user=(await site.controller.by_hand.open(site.door.id, USER)).code)
        say(administrator=(await site.controller.by_hand.open(site.door.id, ADMINISTRATOR)).code)
    say(unrecorded=[(event.outcome, event.sequence) for event in site.events], pulses=site.pulses)
    _copy(Path(folder), Path(copy))
    return None


def _copy(folder: Path, copy: Path) -> None:
    for part in folder.glob("journal.db*"):
        (copy / part.name).write_bytes(part.read_bytes())


def _fill(folder: Path, *, leaving: int) -> None:
    """Write a file until no more than so many bytes of the file system are left."""
    disk = os.statvfs(folder)
    with (folder / "filler").open("ab", buffering=0) as filler:
        missing = disk.f_bavail * disk.f_frsize - leaving
        while missing > 0:
            missing -= filler.write(bytes(min(missing, 2**20)))


@_job
async def read_only_disk(say: Say, folder: str) -> None:
    """A journal on a file system that has become read-only."""
    async with _site(folder):
        pass
    if reason := _private_mounts() or _mount("--bind", folder, folder) or _mount("-o", "remount,bind,ro", folder):
        return say(skip=reason)
    before = (Path(folder) / "journal.db").read_bytes()
    try:
        open_journal(Path(folder) / "journal.db").close()
        say(opened=True)
    except VestibuleError as error:
        say(opened=type(error).__name__)
    return say(untouched=(Path(folder) / "journal.db").read_bytes() == before)


def _private_mounts() -> str:
    try:
        os.unshare(os.CLONE_NEWNS | (0 if os.geteuid() == 0 else os.CLONE_NEWUSER))
    except OSError as error:
        return f"no mount namespace of our own: {error}"
    return _mount("--make-rprivate", "/")


def _mount(*arguments: str) -> str:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _shim() -> Any:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "shim_syncs") else None


def _syncs() -> int:
    return int(shim.shim_syncs()) if (shim := _shim()) else 0


def _fail_next_sync() -> None:
    _shim().shim_fail_next(1)


def _child(job: dict[str, Any], pipe: int) -> None:
    def say(**words: Any) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    logging.disable(logging.CRITICAL)
    signal.alarm(20)  # a child that hangs fails its test, not the run
    try:
        asyncio.run(_JOBS[job["job"]](say, **job["arguments"]))
    except BaseException:
        say(error=traceback.format_exc())
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        ours, theirs = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(ours)
            _child(job, theirs)
        os.close(theirs)
        said = []
        with open(ours) as words:  # noqa: PTH123 - a file descriptor
            for word in words:
                said.append(json.loads(word))
                if "go" in said[-1] and job["kill_after"] is not None:
                    time.sleep(job["kill_after"])
                    os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"killed": os.WIFSIGNALED(status), "said": said}), flush=True)


if __name__ == "__main__":
    main()
