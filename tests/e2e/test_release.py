"""What a release consists of: built by the code of scripts/release, looked at as by a stranger who downloads it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker

from scripts import releasing
from scripts.releasing import INTEGRATION, REPOSITORY, SBOM, SUMS, ZIP, ReleaseRefused
from tests.gateway import process

MOMENT = 1_800_000_000
"""Seconds since 1970; what is built in these tests is dated with it."""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that a release of these files consists of."""
    dist = tmp_path_factory.mktemp("release") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(MOMENT))
        releasing.build(REPOSITORY, dist)
    return dist


def one(built: Path, pattern: str) -> Path:
    (path,) = built.glob(pattern)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with as much in it as the rules for tags and for the zip look at; everything is committed."""
    root = tmp_path / "project"
    package = root / INTEGRATION
    package.mkdir(parents=True)
    (package / "manifest.json").write_text('{"version": "1.2.3"}')
    (package / "__init__.py").write_text("")
    (root / ".gitignore").write_text("__pycache__/\n*.secret\n")
    (root / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-12-01\n\n- A bell.\n\n## 1.2.2\n\n- A door.\n"
    )
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "All of it")
    return root


def zipped(root: Path) -> zipfile.ZipFile:
    releasing.write_zip(root, root.parent / ZIP, MOMENT)
    return zipfile.ZipFile(root.parent / ZIP)


# ---- the zip ----


def test_the_zip_is_flat_and_complete(built: Path) -> None:
    """HACS and the Marketplace unpack it into custom_components/vestibule as it is."""
    folder = REPOSITORY / INTEGRATION
    there = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(built / ZIP) as archive:
        assert archive.testzip() is None
        assert "manifest.json" in archive.namelist()
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in there
        }
    committed = git(REPOSITORY, "ls-files", "--", INTEGRATION.as_posix()).splitlines()
    assert {REPOSITORY / name for name in committed if (REPOSITORY / name).exists()} <= there


def test_the_zip_tells_nothing_of_the_machine_it_was_built_on(built: Path) -> None:
    with zipfile.ZipFile(built / ZIP) as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == sorted(member.filename for member in members)
    assert {member.date_time for member in members} == {(2027, 1, 15, 8, 0, 0)}
    assert {member.external_attr >> 16 for member in members} == {stat.S_IFREG | 0o644}
    assert {(member.compress_type, member.create_system) for member in members} == {(zipfile.ZIP_STORED, 3)}


def test_what_git_ignores_is_not_released(project: Path) -> None:
    cache = project / INTEGRATION / "__pycache__"
    cache.mkdir()
    (cache / "lock.cpython-314.pyc").touch()
    (project / INTEGRATION / "intake-key.secret").touch()
    (project / INTEGRATION / "lock.py").touch()
    (project / INTEGRATION / "__init__.py").unlink()
    assert zipped(project).namelist() == ["lock.py", "manifest.json"]


def test_a_link_is_refused(project: Path) -> None:
    (project / INTEGRATION / "keys.py").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseRefused, match=r"links cannot be installed: .*keys\.py"):
        zipped(project)


def test_hacs_json_asks_for_the_zip() -> None:
    hacs = json.loads((REPOSITORY / "hacs.json").read_text())
    assert (hacs["zip_release"], hacs["filename"], hacs["hide_default_branch"]) == (True, ZIP, True)


# ---- the same again ----


@pytest.fixture
def another_time_zone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("another_time_zone")
def test_the_same_files_elsewhere_give_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder, written at another time with other modes, in another time zone."""
    elsewhere = tmp_path / "elsewhere"
    for name in git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (REPOSITORY / name).is_file():
            copy = elsewhere / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, copy)
            copy.chmod(0o700 if os.access(REPOSITORY / name, os.X_OK) else 0o600)  # git keeps no more of it
    git(elsewhere, "init", "--quiet")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(MOMENT))
    releasing.build(elsewhere, tmp_path / "again")
    assert (tmp_path / "again" / SUMS).read_text() == (built / SUMS).read_text()


def test_the_sources_give_the_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(one(built, "*.tar.gz")) as sources:
        sources.extractall(tmp_path, filter="data")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(MOMENT)}
    subprocess.run(command, cwd=one(tmp_path, "vestibule_gateway-*"), env=environment, check=True, timeout=60)
    assert one(tmp_path, "*.whl").read_bytes() == one(built, "*.whl").read_bytes()


def test_the_commit_dates_what_is_built(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{MOMENT} +0100")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Later")
    assert releasing.moment_of(project) == MOMENT


# ---- checksums and the list of what is in it ----


def test_the_checksums_are_of_every_file(built: Path) -> None:
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=built, check=True, capture_output=True)
    names = [line.removesuffix(": OK") for line in checked.stdout.decode().splitlines()]
    assert names == sorted(path.name for path in built.iterdir() if path.name != SUMS)
    version = releasing.version_of(REPOSITORY)
    wheel = f"vestibule_gateway-{version}"
    assert names == [SBOM, ZIP, f"{wheel}-py3-none-any.whl", f"{wheel}.tar.gz"]


def test_the_sbom_names_both_with_their_version_and_bytes(built: Path) -> None:
    sbom = json.loads((built / SBOM).read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sbom["serialNumber"])
    assert sbom["metadata"]["timestamp"] == "2027-01-15T08:00:00Z"
    gateway, integration = sbom["metadata"]["component"], sbom["components"][-1]
    for component, name, path in (
        (gateway, "vestibule-gateway", one(built, "*.whl")),
        (integration, "vestibule", built / ZIP),
    ):
        assert (component["name"], component["version"]) == (name, releasing.version_of(REPOSITORY))
        assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]
    manifest = json.loads((REPOSITORY / INTEGRATION / "manifest.json").read_text())
    brings = next(entry["dependsOn"] for entry in sbom["dependencies"] if entry["ref"] == integration["bom-ref"])
    named = {part["bom-ref"]: f"{part['name']}=={part['version']}" for part in sbom["components"]}
    assert [named[ref] for ref in brings] == manifest["requirements"]

    components = [gateway, *sbom["components"]]
    known = {component["bom-ref"] for component in components}
    assert len(known) == len(components)
    assert {entry["ref"] for entry in sbom["dependencies"]} == known
    assert {ref for entry in sbom["dependencies"] for ref in entry.get("dependsOn", [])} <= known


LOOK = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "homeassistant" not in sys.modules
print(json.dumps({found.name: found.version for found in importlib.metadata.distributions()}))
"""


def empty_environment(wheel: Path, folder: Path, *extras: str) -> Path:
    """Return the Python of an environment that holds a wheel, and what uv.lock names for it."""
    python, locked = folder / "empty" / "bin" / "python", folder / "locked.txt"
    export = ["export", "--frozen", "--no-default-groups", *extras, "--no-emit-project", "--output-file", locked]
    for arguments in (
        ["venv", "--python", sys.executable, folder / "empty"],
        export,
        ["pip", "install", "--python", python, "--no-deps", "--require-hashes", "--requirements", locked],
        ["pip", "install", "--python", python, "--no-deps", wheel],
        ["pip", "check", "--python", python],
    ):
        subprocess.run([releasing.uv(), "--quiet", *arguments], cwd=REPOSITORY, check=True, timeout=100)
    return python


def test_the_wheel_runs_alone_and_the_sbom_names_all_that_it_brings(built: Path, tmp_path: Path) -> None:
    """In an empty environment, with what uv.lock names, every module of the wheel can be imported."""
    wheel = one(built, "*.whl")
    python = empty_environment(wheel, tmp_path, "--all-extras")
    with zipfile.ZipFile(wheel) as archive:
        modules = [
            name[:-3].replace("/", ".").removesuffix(".__init__") for name in archive.namelist() if name.endswith(".py")
        ]
    # Programs, and what Alembic runs (never imported).
    modules = [module for module in modules if not module.endswith(".__main__") and ".migrations." not in module]
    assert "vestibule_core" in modules
    looked = subprocess.run([python, "-I", "-c", LOOK, *modules], check=True, stdout=subprocess.PIPE, timeout=60)
    installed = json.loads(looked.stdout)
    assert "homeassistant" not in installed

    sbom = json.loads((built / SBOM).read_text())
    named = [sbom["metadata"]["component"], *sbom["components"][:-1]]
    brought = {component["name"]: component["version"] for component in named if belongs_here(component)}
    assert brought == {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}


async def test_the_wheel_alone_is_a_gateway(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any extra, in an empty environment: it says what it can, is checked, runs, and is paired with."""
    python = empty_environment(one(built, "*.whl"), tmp_path)
    monkeypatch.setattr(process, "PROGRAM", [str(python.with_name("vestibule-gateway"))])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(tmp_path)
    status, said = await process.command("--help")
    assert status == 0
    assert "pair-strike" in said
    config = process.write_config(tmp_path)
    assert (await process.command("check", "--config", config))[0] == 0
    async with process.gateway_process(config) as gateway, process.network() as session:
        paired = await gateway.pair(session)
        assert len((await gateway.client(session, paired).doors()).doors) == 2
        assert "normal, locked, reachable" in (await gateway.command("status"))[1]
    with config.open("a") as file:
        file.write('[board.far]\nkind = "modbus"\nhost = "192.0.2.1"\n')
    status, said = await process.command("check", "--config", config)
    assert status == 2
    assert "pip install 'vestibule-gateway[modbus]'" in said


def belongs_here(component: dict[str, Any]) -> bool:
    """Whether a component of an SBOM is installed on a machine like this one."""
    markers = [p["value"] for p in component.get("properties", ()) if p["name"] == "uv:package:marker"]
    return all(Marker(marker).evaluate() for marker in markers)


# ---- the tag ----


def test_a_wrong_tag_is_refused_and_nothing_is_built() -> None:
    before = sorted(releasing.DIST.glob("*"))
    refused = subprocess.run(
        [sys.executable, "-m", "scripts.releasing", "--check-tag", "v0.0.9"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    version = releasing.version_of(REPOSITORY)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        "release: the tag is v0.0.9, but custom_components/vestibule/manifest.json has version "
        f"{version}: expected v{version}\n"
    )
    assert sorted(releasing.DIST.glob("*")) == before


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.3.0", "v1.2", "v1.2.3-rc1", "V1.2.3", "refs/tags/v1.2.3", ""])
def test_a_tag_is_the_version_with_a_v_and_nothing_else(project: Path, tag: str) -> None:
    with pytest.raises(ReleaseRefused, match=r"expected v1\.2\.3$"):
        releasing.check_tag(project, tag)


def test_the_right_tag_of_what_is_committed_gives_its_notes(project: Path) -> None:
    assert releasing.check_tag(project, "v1.2.3") == "- A bell.\n"


@pytest.mark.parametrize("heading", ["## [1.2.3]", "## 1.2.3", "## [1.2.3] - 2026-12-01"])
def test_notes_reach_to_the_next_version_or_the_end(project: Path, heading: str) -> None:
    (project / "CHANGELOG.md").write_text(f"{heading}\n\n### Added\n\n- A bell.\n")
    assert releasing.changes(project, "1.2.3") == "### Added\n\n- A bell.\n"


@pytest.mark.parametrize(
    "changelog",
    [
        "## Unreleased\n\n- A bell.\n",
        "## 1.2.3\n\n## 1.2.2\n\n- A door.\n",
        "## 1.2.30\n\n- A bell.\n",
        "## 1x2.3\n\n- A bell.\n",
    ],
)
def test_a_version_that_the_changelog_says_nothing_about_is_refused(project: Path, changelog: str) -> None:
    (project / "CHANGELOG.md").write_text(changelog)
    git(project, "commit", "--quiet", "--all", "--message", "Say nothing")
    with pytest.raises(ReleaseRefused, match=r'says nothing under a heading "## 1\.2\.3"'):
        releasing.check_tag(project, "v1.2.3")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "custom_components/vestibule/new.py"])
def test_what_is_not_committed_is_refused(project: Path, name: str) -> None:
    with (project / name).open("a") as file:
        file.write("\n")
    with pytest.raises(ReleaseRefused, match=r"(?s)not committed:\n.*" + re.escape(name.rpartition("/")[0])):
        releasing.check_tag(project, "v1.2.3")
