"""The arrows between the folders. An import that points the wrong way fails here, before it becomes a habit.

custom_components/vestibule/*.py ─► vestibule_core ◄─ gateway/*, carrier/*
      (Home Assistant)               (neither)       (no Home Assistant)
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INTEGRATION = ROOT / "custom_components" / "vestibule"
CORE = INTEGRATION / "vestibule_core"

ACTS = {
    "__init__",
    "api/__init__",
    "api/body",
    "api/client",
    "doorstrike/__init__",
    "doorstrike/connection",
    "doorstrike/driver",
    "doorstrike/hearing",
    "doorstrike/pairing_session",
    "by_hand",
    "controller",
    "door_task",
    "durable",
    "erasure",
    "evidence",
    "identity",
    "journal",
    "link/__init__",
    "link/client",
    "new_key",
    "receipts",
    "schema",
    "strike",
    "telling",
    "writer",
}
KNOWN_IN_ONE_PLACE = {
    "nnpsk0.py": {"noise"},
    "api/client.py": {"aiohttp", "yarl"},
    "link/client.py": {"aiohttp", "yarl"},
}
OUTSIDE = {
    "aiohttp",
    "asyncio",
    "logging",
    "os",
    "pathlib",
    "random",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


DECIDES = {path.relative_to(CORE).with_suffix("").as_posix() for path in sources(CORE)} - ACTS
"""The modules of the core that are functions of what they are given."""
HOSTS = [*sources(ROOT / "gateway"), *sources(ROOT / "carrier")]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each imported module as (level, name): level 0 is absolute, 1 is `from .`, 2 is `from ..`.

    Type-only and local imports count: they are arrows, too.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name) for alias in names)
            case ast.ImportFrom(level=level, module=None, names=names):
                yield from ((level, alias.name) for alias in names)
            case ast.ImportFrom(level=level, module=str(module)):
                yield level, module
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield 0, module


def arrows(path: Path) -> Iterator[tuple[str, bool]]:
    """Each import of a file: absolute as (its top-level name, False), relative as (its path, True)."""
    place = path.relative_to(ROOT).parts
    for level, module in imports(ast.parse(path.read_text("utf-8"), str(path))):
        if level == 0:
            yield module.partition(".")[0], False
        else:
            yield "/".join((*place[:-level], *module.split("."))), True


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources(CORE), ids=named)
def test_the_core_knows_the_standard_library_cryptography_and_itself(path):
    """The Noise protocol is known in one place, and so is HTTP."""
    others = {"cryptography"} | KNOWN_IN_ONE_PLACE.get(path.relative_to(CORE).as_posix(), set())
    for name, relative in arrows(path):
        if relative:
            assert name.startswith(f"{named(CORE)}/"), f"leaves the core: {name}"
        else:
            assert name in sys.stdlib_module_names or name in others, f"not for the core: {name}"


@pytest.mark.parametrize("name", sorted(DECIDES))
def test_what_decides_knows_no_event_loop_no_disk_no_clock_and_no_log(name):
    """The clock is read in one place, `model.read_clock`, once for a decision."""
    may = {"time"} if name == "model" else set()
    assert {imported for imported, relative in arrows(CORE / f"{name}.py") if not relative} & OUTSIDE <= may


def test_what_decides_has_to_be_covered_entirely():
    listed = re.search(r"^core=\(\{(.+)\}\)$", (ROOT / "scripts" / "test").read_text("utf-8"), re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split(",")) == DECIDES


@pytest.mark.parametrize("path", [p for p in sources(INTEGRATION) if CORE not in p.parents], ids=named)
def test_the_integration_reaches_the_core_by_a_relative_import_only(path):
    """HACS copies this folder alone: an absolute `vestibule_core` exists in the development tree only."""
    for name, relative in arrows(path):
        if relative:
            assert name.startswith(f"{named(INTEGRATION)}/"), f"leaves the integration: {name}"
        else:
            assert name not in {"vestibule_core", "custom_components", "gateway", "carrier", "tests"}


if HOSTS:

    @pytest.mark.parametrize("path", HOSTS, ids=named)
    def test_the_gateway_and_the_carrier_run_without_home_assistant(path):
        for name, relative in arrows(path):
            if relative:
                assert name.split("/")[0] == path.relative_to(ROOT).parts[0]
            else:
                assert name not in {"homeassistant", "custom_components", "tests"}


def test_custom_components_stays_a_namespace_package():
    """Integrations share that folder in Home Assistant; a package of ours would hide the others."""
    assert not (ROOT / "custom_components" / "__init__.py").exists()


def test_what_hacs_copies_holds_real_files_only():
    assert [named(path) for path in INTEGRATION.rglob("*") if path.is_symlink()] == []
