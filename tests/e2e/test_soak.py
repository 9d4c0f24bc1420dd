"""The soak: a short one from end to end, and that its judges would find what must not be."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.demo_home.home import REPOSITORY
from scripts.soaking import judgement
from scripts.soaking.judgement import Judgement
from scripts.soaking.traffic import NO_ANSWER, TURNED_AWAY, Presented
from scripts.soaking.witness import MIB, Gauge


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_minutes_of_everything_at_once_and_all_sides_count_the_same() -> None:
    command = [str(REPOSITORY / "scripts" / "soak"), "--minutes", "2", "--seed", "7"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("All sides counted the same.\n")


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """Two journals in which the token ``a`` is spent, by the gateway."""
    journals = {name: tmp_path / f"{name}.db" for name in ("building", "gateway")}
    for name, path in journals.items():
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE spent (jti TEXT, state TEXT)")
            db.executemany("INSERT INTO spent VALUES (?, ?)", [("a", "GRANTED")] if name == "gateway" else [])
            db.commit()
    return SimpleNamespace(journals=journals)


@pytest.mark.parametrize(
    "words, wrong",
    [
        ({"a": ["granted", "already_used"]}, []),
        ({"a": [NO_ANSWER, "already_used"], "b": ["granted"]}, ["a token that was granted is not spent"]),
        ({"a": ["refused"]}, ["a token is spent (GRANTED), and what was said is ['refused']"]),
        ({"a": [TURNED_AWAY]}, ["a token is spent that was not looked at"]),
        ({"b": ["refused"]}, ["something was spent that nobody presented"]),
    ],
    ids=["as it should be", "granted, not spent", "refused, and spent", "not looked at, and spent", "spent by nobody"],
)
def test_a_token_that_is_not_counted_the_same_on_both_sides_is_found(
    site: Any, words: dict[str, list[str]], wrong: list[str]
) -> None:
    found = Judgement()
    judgement._tokens(site, [Presented("door", jti, said) for jti, said in words.items()], found)
    assert set(wrong) <= set(found.wrong)
    assert bool(found.wrong) is bool(wrong)


def test_what_grows_without_an_end_is_found_and_what_only_warms_up_is_not() -> None:
    def gauge(growth: float, handles: int) -> list[str]:
        minutes = [number / 12 for number in range(12 * 12)]
        gauge = Gauge("gateway")
        for at in minutes:
            memory = 70 + 4 * min(at, 2.0) + growth * at
            gauge.seen.append((1, at * 60, int(memory * MIB), 20 + round(handles * at / 12)))
        return gauge.judge()[1]

    assert gauge(0.1, 0) == []
    assert gauge(1.5, 0) == ["gateway grows by 1.50 MiB a minute"]
    assert gauge(0.1, 40) == ["gateway had 60 file handles, and 33 more at the end"]
    assert gauge(6.0, 0)[0] == "gateway had 150 MiB in memory, more than 120"
