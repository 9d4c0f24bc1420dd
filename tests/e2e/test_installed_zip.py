"""The zip of a release, alone in an empty configuration, opens a door on each Home Assistant we support."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts.demo_home.delivery import Play, play
from scripts.demo_home.demo import home_of, make
from scripts.demo_home.home import HERE, REPOSITORY, Home, HomeFailed, free_port
from scripts.demo_home.stage import read_relays_log
from scripts.releasing import write_zip

from .conftest import all_logs

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("python, version", [("own_python", "2026.10.4"), ("newer_python", "2026.11.0")])
def test_the_unpacked_zip_alone_loads_and_opens_a_door(
    python: str, version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write_zip(REPOSITORY, tmp_path / "vestibule.zip", 0x5EED_0000)
    with zipfile.ZipFile(tmp_path / "vestibule.zip") as downloaded:
        downloaded.extractall(tmp_path / "vestibule")  # as HACS and the Marketplace do
    folder = tmp_path / "demo"
    with home_of(folder, free_port(), request.getfixturevalue(python)) as home:
        make(folder, home, integration=tmp_path / "vestibule")
        assert home.get("/api/config")["version"] == version
        components = folder / "config" / "custom_components"
        assert {path.parent.name for path in components.glob("*/manifest.json")} == {"simulated_relays", "vestibule"}
        for door in ("gate", "lobby"):
            assert play(folder, door, Play.REPLAY)  # of the carrier without a link: no cloud is needed
    assert [key for _, key in read_relays_log(home.relays_log)] == ["gate", "lobby"]
    assert " ERROR " not in all_logs(home.folder)


def test_a_start_that_fails_is_told_with_the_end_of_the_log(tmp_path: Path, own_python: Path) -> None:
    empty = tmp_path / "site-packages"
    empty.mkdir()
    with Home(tmp_path / "config", own_python, port=free_port()) as home:
        home.__dict__["_site_packages"] = str(empty)
        home.prepare()
        with pytest.raises(HomeFailed, match=r"(?s)ended at its start \(exit code 1\).*No module named"):
            home.start()


def test_it_does_not_start_where_the_project_could_be_imported(tmp_path: Path, own_python: Path) -> None:
    """Else the tests above would prove nothing: the development environment has the core installed, too."""
    (tmp_path / "vestibule_core.py").touch()
    command = [str(own_python), "-I", "-S", str(HERE / "bare_hass.py"), str(tmp_path), "-c", str(tmp_path)]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1
    assert "vestibule_core can be imported" in refused.stderr
