"""``vestibule-carrier run`` as a program of its own: it starts on its own schema only, is honest, ends when told."""

import asyncio
import json
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from scripts.demo_home.home import free_port
from tests.carrier.linked import until

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
name = "Swift Parcels"
issuer = "https://swift.example"
origin = "https://swift.example"
database = "sqlite:///carrier.db"
keys = "keys"

[listen]
port = {port}
"""


@pytest.fixture
def config(tmp_path):
    path, port = tmp_path / "carrier.toml", free_port()
    path.write_text(CONFIG.format(port=port))
    return path, port


async def command(*arguments):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "carrier", *map(str, arguments)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_it_does_not_start_on_an_empty_database(config):
    process = await command("run", "--config", config[0])
    _, complaint = await process.communicate()
    assert process.returncode == 2
    assert b"vestibule-carrier migrate" in complaint


async def test_it_serves_forgets_and_ends_when_told(config):
    path, port = config
    process = await command("migrate", "--config", path)
    await process.communicate()
    assert process.returncode == 0
    with closing(sqlite3.connect(path.parent / "carrier.db")) as db, db:  # a wish that nobody confirmed
        what = (b"x" * 32, "request", '{"content": "52.5163"}', "2026-01-01 00:00:00.000000")
        db.execute("INSERT INTO ceremony (challenge_sha256, kind, payload, expires_at) VALUES (?, ?, ?, ?)", what)
    process = await command("run", "--config", path)
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            while True:
                try:
                    async with http.get("/health") as answer:
                        assert json.loads(await answer.text()) == {"status": "ok", "buildings_connected": 0}
                        break
                except aiohttp.ClientConnectorError:
                    assert process.returncode is None, await process.communicate()
                    await asyncio.sleep(0.1)
            async with http.get("/", headers={"Host": "swift.example"}) as answer:
                assert "<main" in await answer.text()
            await until(lambda: not any(b"52.5163" in part.read_bytes() for part in path.parent.glob("carrier.db*")))
            process.send_signal(signal.SIGTERM)
            said = (await process.communicate())[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said
    assert "Serving https://swift.example at 127.0.0.1" in said
    assert "Traceback" not in said
