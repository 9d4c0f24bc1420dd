"""Databases for the tests: files of SQLite, and a PostgreSQL of the tests' own.

``Cluster`` is a real PostgreSQL in a temporary folder, reached by a Unix socket only. It has verbs: ``start``,
``kill`` (as a power cut would), ``restart``, ``create`` and ``drop``. PostgreSQL refuses to run as root, so that root
runs it as the user ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

WHY_NOT = "PostgreSQL's programs are not there (Debian: scripts/setup --postgresql)"


def binaries() -> Path | None:
    """Return the folder with PostgreSQL's programs; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if (path := shutil.which("initdb")) and (Path(path).parent / "postgres").exists():
        return Path(path).parent
    return None


class Cluster:
    """A PostgreSQL server."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        """Make one. ``durable``: its commits wait for the disk, as a carrier's do; tests do without."""
        self._programs, self._fsync = programs, "on" if durable else "off"
        self._user = next((name for name in ("postgres", "nobody") if os.geteuid() == 0 and _exists(name)), None)
        self.folder = Path(tempfile.mkdtemp(prefix="vestibule-pg-"))
        if self._user:
            shutil.chown(self.folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._there: list[str] = []
        options = ["-D", str(self.folder / "data"), "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync", "-N"]
        self._run("initdb", *options, "--locale=C")

    @property
    def pid(self) -> int:
        """The server's first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server and return when it answers."""
        settings = [
            "listen_addresses=",
            f"unix_socket_directories={self.folder}",
            f"fsync={self._fsync}",
            "max_connections=300",
        ]
        arguments = [part for setting in settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as(), self._programs / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "30", "status", tries=300)
        self._run("pg_isready", "-h", str(self.folder), "-t", "30", tries=300)

    def kill(self) -> None:
        """End the server at once, in the middle of whatever it does."""
        self._end(signal.SIGQUIT)  # "immediate": no transaction ends, the next start recovers

    def stop(self) -> None:
        """End the server."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        """Kill and start it."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """End the server, and remove all of it."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder)

    def create(self) -> str:
        """Make an empty database; return its URL."""
        self._databases += 1
        name = f"cloud{self._databases}"
        self._there.append(name)
        self._run("createdb", "-h", str(self.folder), "-U", "tests", name)
        return f"postgresql://tests@/{name}?host={self.folder}"

    def drop(self) -> None:
        """Drop all databases that were created."""
        while self._process is not None and self._there:
            self._run("dropdb", "-h", str(self.folder), "-U", "tests", "--force", self._there.pop())

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self.pid, how)
        self._process.wait(30)
        self._process = None

    def _as(self) -> list[str]:
        return (
            []
            if self._user is None
            else ["setpriv", f"--reuid={self._user}", "--clear-groups", f"--regid={_group(self._user)}"]
        )

    def _run(self, program: str, *arguments: str, tries: int = 1) -> None:
        for attempt in range(tries):
            done = subprocess.run(
                [*self._as(), self._programs / program, *arguments], capture_output=True, cwd=self.folder, check=False
            )
            if done.returncode == 0:
                return
            if attempt + 1 < tries:
                subprocess.run(["sleep", "0.1"], check=True)
        raise RuntimeError(f"{program}: {done.stdout.decode()}{done.stderr.decode()}")


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
