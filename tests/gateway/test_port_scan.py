"""What a stranger on the network finds of a gateway: one port, TLS 1.3 only, and one question that is answered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from pathlib import Path

import pytest

from gateway.server import ROUTES
from tests.gateway.process import gateway_process, network, write_config

LISTEN = "0A"
"""The state of a listening TCP socket in /proc/net/tcp."""


def sockets(pid: int) -> dict[str, list[int]]:
    """The ports of a process, by protocol: of TCP those that it listens at, of UDP all."""
    links = (link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
    mine = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", str(link)))}
    ports: dict[str, list[int]] = {"tcp": [], "udp": []}
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if inode in mine and (protocol.startswith("udp") or state == LISTEN):
                ports[protocol.removesuffix("6")].append(int(local.rpartition(":")[2], 16))
    return ports


async def test_a_port_scan_finds_one_port_and_one_answer(tmp_path):
    async with gateway_process(write_config(tmp_path)) as gateway, network() as session:
        assert sockets(gateway.running.process.pid) == {"tcp": [gateway.port], "udp": []}
        answered = {}
        for route in ROUTES:
            url = f"https://127.0.0.1:{gateway.port}{route.path.format(door='door:' + 'a' * 26, client='0' * 16)}"
            async with session.request(route.method, url, ssl=False) as answer:
                answered[route.method, route.path] = answer.status
        assert [what for what, status in answered.items() if status == 200] == [("GET", "/v1/info")]
        assert {status for what, status in answered.items() if what[1] not in ("/v1/info", "/v1/pair")} == {401}
        assert answered["POST", "/v1/pair"] == 404, "there is no window"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, None], ids=["TLS 1.2", "no TLS"])
async def test_nothing_but_tls_1_3_is_spoken(tmp_path, newest):
    async with gateway_process(write_config(tmp_path)) as gateway:
        context = None
        if newest is not None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, newest
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await _ask(gateway.port, context)


async def _ask(port: int, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            return await reader.readexactly(12)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
