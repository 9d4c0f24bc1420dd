"""What the end-to-end tests share: real Home Assistants, made by the same code as the demo's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo_home.home import REPOSITORY


@pytest.fixture(scope="session")
def newer_python() -> Path:
    """The interpreter of an environment with Home Assistant 2026.11.0 and without this project."""
    folder, pins = REPOSITORY / ".venv-2026.11", REPOSITORY / "tests" / "ha-2026.11.txt"
    mark, digest = folder / "pins.sha256", hashlib.sha256(pins.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not mark.exists() or mark.read_text() != digest:
        # Where scripts/setup has it from.
        uv = shutil.which("uv") or str(REPOSITORY / ".uv" / "bin" / "uv")
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "sync", "--quiet", "--python", str(python), str(pins)],
        ):
            subprocess.run(command, check=True, timeout=500, cwd=REPOSITORY)
        mark.write_text(digest)
    return python


@pytest.fixture(scope="session")
def own_python() -> Path:
    """The interpreter of the development environment, with Home Assistant 2026.10.4."""
    return Path(sys.executable)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for a demo, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def all_logs(config: Path) -> str:
    """Everything that a Home Assistant wrote for people to read."""
    logs = [config / "console.log", *config.glob("home-assistant.log*")]
    return "\n".join(log.read_text("utf-8", "replace") for log in logs)
