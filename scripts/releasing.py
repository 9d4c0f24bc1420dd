"""Builds what a release consists of: the zip that HACS unpacks, the wheel and its sources, an SBOM, their checksums.

The same commit gives the same bytes again: all times are the commit's, and no path, mode or clock of this machine gets
in. What this file refuses to do: build for a tag that is not the version of the integration, that the changelog says
nothing about, or of files that are not committed. It signs and uploads nothing; that is the workflow's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parent.parent
DIST: Final = REPOSITORY / "dist"
INTEGRATION: Final = Path("custom_components", "vestibule")
ZIP: Final = "vestibule.zip"
"""As hacs.json names it, without a version."""
SBOM: Final = "vestibule.cdx.json"
SUMS: Final = "SHA256SUMS"


class ReleaseRefused(Exception):
    """This must not be released; the text is for a person."""


def main() -> None:
    """Build dist/."""
    parser = argparse.ArgumentParser(
        prog="scripts/release", description="Build what a release consists of, into dist/."
    )
    parser.add_argument("--check-tag", metavar="TAG", help="refuse to build if this is not what TAG has to be")
    parser.add_argument("--notes", metavar="FILE", type=Path, help="write what the changelog says of TAG")
    arguments = parser.parse_args()
    if arguments.notes and not arguments.check_tag:
        parser.error("--notes needs --check-tag")
    try:
        if arguments.check_tag:
            notes = check_tag(REPOSITORY, arguments.check_tag)
            if arguments.notes:
                arguments.notes.write_text(notes, "utf-8")
        shutil.rmtree(DIST, ignore_errors=True)
        build(REPOSITORY, DIST)
    except ReleaseRefused as refused:
        sys.exit(f"release: {refused}")
    print((DIST / SUMS).read_text("ascii"), end="")


def version_of(root: Path) -> str:
    """Return the one version that zip and wheel have."""
    version: str = _manifest(root)["version"]
    return version


def _manifest(root: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((root / INTEGRATION / "manifest.json").read_text("utf-8"))
    return manifest


# ---- what may be released ----


def check_tag(root: Path, tag: str) -> str:
    """Return what the changelog says of a tag. Raises ReleaseRefused if the tag must not be built from these files."""
    version = version_of(root)
    if tag != f"v{version}":
        raise ReleaseRefused(
            f"the tag is {tag}, but {INTEGRATION}/manifest.json has version {version}: expected v{version}"
        )
    notes = changes(root, version)
    if not notes:
        raise ReleaseRefused(f'CHANGELOG.md says nothing under a heading "## {version}"')
    if dirty := _git(root, "status", "--porcelain").splitlines():
        raise ReleaseRefused("these files are not committed:\n" + "\n".join(dirty))
    return notes


def changes(root: Path, version: str) -> str:
    """Return what stands under a version's heading in the changelog: `## 1.2.3`, also in brackets or with a date."""
    heading = rf"^## \[?{re.escape(version)}\]?(?:[ \t][^\n]*)?\n(.*?)(?=^## |\Z)"
    found = re.search(heading, (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return found[1].strip() + "\n" if found and found[1].strip() else ""


# ---- what it consists of ----


def build(root: Path, dist: Path) -> None:
    """Build everything into ``dist``, which does not exist yet."""
    dist.mkdir(parents=True)
    moment = moment_of(root)
    write_zip(root, dist / ZIP, moment)
    _build_wheel(root, dist, moment)
    _write_sbom(root, dist, moment)
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(dist.iterdir())]
    (dist / SUMS).write_text("".join(sums), "ascii")


def moment_of(root: Path) -> int:
    """Return the seconds since 1970 that everything built is dated with."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct"))


def files_of(root: Path) -> list[Path]:
    """Return the integration's files: what git has or, where nothing was committed yet, would take."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", INTEGRATION.as_posix())
    paths = sorted({root / name for name in listed.split("\0") if name})
    if links := [path for path in paths if path.is_symlink()]:
        raise ReleaseRefused(f"links cannot be installed: {', '.join(map(str, links))}")
    return [path for path in paths if path.is_file()]


def write_zip(root: Path, target: Path, moment: int) -> None:
    """Write what HACS and the Marketplace unpack into custom_components/vestibule: no folder around it."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in files_of(root):
            member = zipfile.ZipInfo(path.relative_to(root / INTEGRATION).as_posix(), time.gmtime(moment)[:6])
            member.create_system = 3  # Unix
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            # Not compressed: what zlib makes of the same bytes differs from one zlib to the next.
            archive.writestr(member, path.read_bytes(), zipfile.ZIP_STORED)


def _build_wheel(root: Path, dist: Path, moment: int) -> None:
    """Build the wheel and its sources with the hatchling that uv.lock names."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", os.fspath(dist)]
    _run(command, root, {"SOURCE_DATE_EPOCH": str(moment)})


def _write_sbom(root: Path, dist: Path, moment: int) -> None:
    """Write the SBOM: the wheel with what uv.lock gives it, and the integration with what its manifest requires."""
    version = version_of(root)
    (wheel,) = dist.glob("*.whl")
    export = ["export", "--quiet", "--frozen", "--no-default-groups", "--all-extras", "--format", "cyclonedx1.5"]
    sbom = json.loads(_run([uv(), *export, "--preview-features", "sbom-export"], root))
    licences = [{"license": {"id": "Apache-2.0"}}]
    gateway = sbom["metadata"]["component"]
    purl = f"pkg:github/vestibule-access/vestibule@v{version}"  # where both are to be had; neither is on PyPI
    gateway |= {"version": version, "licenses": licences, "purl": purl, "hashes": [_hash(wheel)]}
    integration: dict[str, Any] = {
        "type": "application",
        "bom-ref": f"{ZIP}@{version}",
        "name": "vestibule",
        "version": version,
        "description": "Integration for Home Assistant, with what it needs besides.",
        "licenses": licences,
        "purl": purl,
        "hashes": [_hash(dist / ZIP)],
    }
    # Each is among the wheel's own as well, at the version that the manifest pins.
    required = dict(requirement.split("==") for requirement in _manifest(root)["requirements"])
    parts = [part for part in sbom["components"] if required.get(part["name"]) == part["version"]]
    if {part["name"] for part in parts} != required.keys():
        raise ReleaseRefused(f"uv.lock has other versions than the manifest of {', '.join(required)}")
    sbom["components"].append(integration)
    sbom["dependencies"].append({"ref": integration["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]})
    # In place of the moment of this run and a random number.
    sbom["metadata"]["timestamp"] = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    del sbom["serialNumber"]
    sbom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(sbom)).urn
    (dist / SBOM).write_text(json.dumps(sbom, indent=2) + "\n", "utf-8")


def uv() -> str:
    """Return the uv that scripts/setup uses."""
    return shutil.which("uv") or os.fspath(REPOSITORY / ".uv" / "bin" / "uv")


def _hash(path: Path) -> dict[str, str]:
    return {"alg": "SHA-256", "content": _sha256(path)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return _run(["git", *arguments], root)


def _run(command: list[str], root: Path, environment: dict[str, str] | None = None) -> str:
    """Return what a command says. Raises ReleaseRefused with its complaint if it fails."""
    done = subprocess.run(
        command, check=False, cwd=root, env=os.environ | (environment or {}), capture_output=True, text=True
    )
    if done.returncode:
        raise ReleaseRefused(f"{' '.join(command[:4])} ... failed:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
