"""The dispatchers' API and its document (docs/carrier-api.openapi.yaml): it has every route, and does what it says.

Schemathesis asks a live cloud what the document allows and what it does not, with a key for everything.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from carrier import limits
from carrier.checks import Check, Opening, StopState
from carrier.dispatch_api import ROUTES
from carrier.intake import ErrorWord
from carrier.store.tables import AlarmKind, RequestState
from tests.carrier.served import Served

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "carrier-api.openapi.yaml"


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load(DOCUMENT.read_text("utf-8"))


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method.upper(), path, operation


def test_it_has_every_route_with_its_scope_and_no_other(document):
    written = {(method, path): operation.get("x-scope") for method, path, operation in operations(document)}
    assert written == {(route.method, route.path): route.who for route in ROUTES} | {("GET", "/health"): None}


def test_whatever_needs_a_key_says_so_and_may_be_refused(document):
    for _, path, operation in operations(document):
        assert ("x-scope" in operation) is ("security" not in operation), path
        assert ("401" in operation["responses"]) is ("x-scope" in operation), path
        assert "503" in operation["responses"], path


def test_every_body_is_described_with_what_a_wrong_one_gets(document):
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert bool(route.most) is ("requestBody" in operation)
        assert bool(route.most) is ({"400", "408", "413"} <= operation["responses"].keys()) or route.method == "GET"


def test_its_words_are_those_of_the_program(document):
    schemas = document["components"]["schemas"]
    assert schemas["Failure"]["properties"]["error"]["enum"] == list(ErrorWord)
    assert schemas["Opening"]["enum"] == list(Opening)
    assert schemas["Decision"]["properties"]["state"]["enum"] == list(RequestState)
    assert schemas["Decision"]["properties"]["checks"]["items"]["properties"]["check"]["enum"] == list(Check)
    assert schemas["Alarm"]["properties"]["kind"]["enum"] == list(AlarmKind)
    stop = schemas["Route"]["properties"]["stops"]["items"]
    assert stop["properties"]["state"]["enum"] == list(StopState)


CONFIG = """
[parameters]
"path.driver" = {driver}
"path.route" = {route}
"path.stop" = {stop}
"path.alarm" = {alarm}

[[operations]]
# Whether a driver and a building are there, and whether a moment comes after another one, no schema can say.
include-path = "/v1/manifests"
checks.positive_data_acceptance.enabled = false

[[operations]]
# It has no end.
include-path = "/v1/decisions/live"
enabled = false

[[operations]]
# After the first time there is nothing left to remove or to end, and names may not hold what cannot be printed.
include-method = "DELETE"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/alarms/{{alarm}}/seen"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/stops/{{stop}}/end"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/drivers"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/drivers/{{driver}}"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.parametrize(
    "examples", [6, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids=["some", "many"]
)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.timeout(300)
async def test_the_api_does_what_it_says_and_no_request_makes_it_fail(
    tmp_path, examples, database, monkeypatch, request
):
    monkeypatch.setattr(limits, "STRANGER_BURST", 5000.0)  # it asks each thing without a key as well, all at once
    url = request.getfixturevalue("cluster").create() if database == "postgresql" else ""
    async with Served(tmp_path, database=url) as served:
        phone = await served.phone()
        assert await phone.open() == ("granted", {})
        (route,) = (await served.ask("GET", f"/v1/routes?day={served.now().astimezone().date()}"))["routes"]
        config = tmp_path / "schemathesis.toml"
        named = {"driver": served.other, "route": route["id"], "stop": served.stop, "alarm": await served.alarm()}
        config.write_text(CONFIG.format(**{name: json.dumps(value) for name, value in named.items()}))
        arguments = [
            *("--config-file", str(config), "run", str(DOCUMENT)),
            *("--url", f"http://127.0.0.1:{served.front.port}"),
            *("-H", f"Authorization: Bearer {served.key}", "-H", "Host: swift.example"),
            *("--rate-limit", "150/s", "--max-examples", str(examples), "--continue-on-failure", "--no-color"),
            *("--phases", "coverage,fuzzing", "--suppress-health-check", "all", "--seed", "1"),
        ]
        tool = Path(sys.executable).with_name("st")
        asking = await asyncio.create_subprocess_exec(
            tool, *arguments, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await asking.communicate())[0].decode()
        assert asking.returncode == 0, said
        assert "Tested: 17" in said
        generated = re.search(r"(\d+) generated", said)
        assert generated is not None
        assert int(generated[1]) > 200, said
        assert (await served.ask("GET", "/health"))["status"] == "ok"
