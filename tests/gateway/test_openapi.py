"""The API's document (docs/gateway-api.openapi.yaml): it has every route, and the API does what it says.

Schemathesis asks a live gateway what the document allows and what it does not, as an administrator.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from gateway import limits
from gateway.policy import approve
from gateway.server import ROUTES
from tests.gateway.at_work import Gateway
from tests.simulated import Carrier
from vestibule_core.api.messages import ErrorWord
from vestibule_core.model import Code, EventName, read_clock

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "gateway-api.openapi.yaml"


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load(DOCUMENT.read_text("utf-8"))


def test_it_has_every_route_with_its_scope_and_no_other(document):
    written = {
        (method.upper(), path): operation.get("x-scope")
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert written == {(route.method, route.path): route.scope for route in ROUTES}


def test_what_anybody_may_ask_needs_no_bearer_and_everything_else_does(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            assert ("x-scope" in operation) is ("security" not in operation), path
            assert operation.get("security", [{"bearer": []}]) in ([], [{"bearer": []}])
            assert ("401" in operation["responses"]) is ("x-scope" in operation), path
    assert document["security"] == [{"bearer": []}]


def test_every_body_is_described_with_its_largest_size(document):
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert bool(route.most) is ("requestBody" in operation)
        assert bool(route.most) is ("413" in operation["responses"])


def test_its_words_are_those_of_the_program(document):
    schemas = document["components"]["schemas"]
    assert schemas["Code"]["enum"] == list(Code)
    assert schemas["Event"]["properties"]["outcome"]["enum"] == list(EventName)
    assert schemas["Failure"]["properties"]["error"]["enum"] == [*ErrorWord, "failed"]


def test_no_object_may_have_members_that_are_not_described(document):
    def objects(schema, place):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield place, schema
            for name, part in schema.items():
                yield from objects(part, f"{place}/{name}")
        elif isinstance(schema, list):
            for part in schema:
                yield from objects(part, place)

    parts = {"Standing", "Ahead"}  # of others, which are closed
    for place, schema in objects(document["components"]["schemas"], ""):
        if place.removeprefix("/") not in parts:
            assert False in (schema.get("additionalProperties"), schema.get("unevaluatedProperties")), place


CONFIG = """
[parameters]
"path.door" = {door}
"path.client" = {client}

[[operations]]
# What a key set or a time zone has to be, no schema can say.
include-path = "/v1/policy"
include-method = "PUT"
checks.positive_data_acceptance.enabled = false

[[operations]]
# It asks for no WebSocket.
include-path = "/v1/stream"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.parametrize(
    "examples", [8, pytest.param(150, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids=["some", "many"]
)
@pytest.mark.timeout(300)
async def test_the_api_does_what_it_says_and_no_request_makes_it_fail(tmp_path, examples, monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_BURST", 1000.0)  # it asks each thing without a bearer as well, all at once
    async with Gateway(tmp_path, doors=2, clock=read_clock) as gateway:
        admin = await gateway.pair()
        await asyncio.sleep(1)  # one attempt a second
        panel = await gateway.pair("Panel")
        await admin.put(f"/v1/clients/{panel.id}", {"scopes": ["admin"], "issuers": None})
        await approve(gateway.policy, gateway.clients)
        await gateway.allow(admin, Carrier())
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG.format(door=json.dumps(gateway.door.id), client=json.dumps(panel.id)))
        arguments = [
            *("--config-file", str(config), "run", str(DOCUMENT)),
            *("--url", f"https://127.0.0.1:{gateway.front.port}", "--tls-verify", "false"),
            *("-H", f"Authorization: Bearer {admin.token}"),
            *("--rate-limit", "150/s", "--max-examples", str(examples), "--continue-on-failure", "--no-color"),
            *("--phases", "coverage,fuzzing", "--suppress-health-check", "all", "--seed", "1"),
        ]
        tool = Path(sys.executable).with_name("st")
        asking = await asyncio.create_subprocess_exec(
            tool, *arguments, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await asking.communicate())[0].decode()
        assert asking.returncode == 0, said
        assert "Tested: 21" in said
        generated = re.search(r"(\d+) generated", said)
        assert generated is not None
        assert int(generated[1]) > 300, said
        assert not gateway.journal.failed
        assert "token" not in {event.means for event in gateway.events if event.code is Code.GRANTED}
