"""Every word that a person can meet is translated, in each language, and nothing else is in the files."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from custom_components.vestibule import actor, carrier_flow, event, issues, services
from custom_components.vestibule.building import PersonsKept, ReleasesWhen, Returns
from custom_components.vestibule.vestibule_core.api.pairing import CodeSlip
from custom_components.vestibule.vestibule_core.doorstrike.wire import Rights
from custom_components.vestibule.vestibule_core.errors import NotPaired
from custom_components.vestibule.vestibule_core.hours import Day
from custom_components.vestibule.vestibule_core.link.code import Slip as EnrolmentSlip
from custom_components.vestibule.vestibule_core.model import Code, ManualRule, Means, OnPowerLoss, RelockOn
from custom_components.vestibule.vestibule_core.token import DriverProof

PACKAGE = Path(actor.__file__).parent
FORMS = ("carrier_flow", "config_flow", "forms", "gateway_flow", "strike_flow")
PLATFORMS = {"binary_sensor", "event", "lock", "select", "sensor", "switch"}
LANGUAGES = sorted(path.stem for path in (PACKAGE / "translations").glob("*.json"))


def texts(language: str) -> dict[str, Any]:
    return json.loads((PACKAGE / "translations" / f"{language}.json").read_text("utf-8"))


EN = texts("en")


def flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def nodes(file: str, kind: type[ast.AST]) -> Iterator[Any]:
    for node in ast.walk(ast.parse((PACKAGE / file).read_text("utf-8"))):
        if isinstance(node, kind):
            yield node


def keywords(file: str, name: str) -> set[str]:
    """Return the literal values that a keyword argument is given in a file, also one of two."""
    return {
        part.value
        for node in nodes(file, ast.keyword)
        if node.arg == name
        for part in ast.walk(node.value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def test_every_error_that_is_raised_has_a_text_and_every_text_an_error():
    raised = {*actor._NOT_YOURS.values(), *actor._FAILED.values(), *actor._BECAUSE.values()}
    raised |= {*services._NO_CHALLENGE.values()}
    for path in PACKAGE.glob("*.py"):
        if path.stem not in (PLATFORMS - {"lock"}) | {*FORMS}:
            raised |= keywords(path.name, "translation_key")
    assert raised == EN["exceptions"].keys()
    assert EN["issues"].keys() == {kind.value for kind in issues.Kind}


def test_every_code_that_can_end_an_unlock_by_hand_has_a_message():
    # What only a token can meet (steps 1 to 10 of the protocol) cannot happen by hand.
    by_token = {
        code
        for code in Code
        if code.word in {"invalid_token", "already_used"} or code.startswith(("NONCE_", "POLICY_"))
    } | {Code.NOT_SPENDER, Code.CLOCK_UNTRUSTED, Code.DELIVERIES_OFF, Code.CARRIER_LOCKED_OUT}
    assert actor._NOT_YOURS.keys() | actor._FAILED.keys() == set(Code) - by_token - {Code.GRANTED}
    assert not actor._NOT_YOURS.keys() & actor._FAILED.keys()


def test_every_entity_has_a_name_of_its_own_or_of_its_device_class():
    named = {(path, key) for path in PLATFORMS for key in keywords(f"{path}.py", "translation_key") if path != "lock"}
    for path in PLATFORMS:
        for node in nodes(f"{path}.py", ast.Assign):
            if getattr(node.targets[0], "id", None) == "_attr_translation_key":
                named.add((path, node.value.value))
    written = {(path, key) for path, entities in EN["entity"].items() for key in entities}
    assert written == named


def flows() -> dict[str, dict[str, Any]]:
    subentries = EN["config_subentries"]
    return {"BuildingFlow": EN["config"], "DoorFlow": subentries["door"], "CarrierFlow": subentries["carrier"]}


CLASSES = {node.name: node for file in FORMS for node in nodes(f"{file}.py", ast.ClassDef)}


def family(name: str) -> list[ast.ClassDef]:
    """Return a class of the forms, and those of them that it is made of."""
    flow = CLASSES[name]
    bases = [base.id for base in flow.bases if isinstance(base, ast.Name) and base.id in CLASSES]
    return [flow, *(parent for base in bases for parent in family(base))]


@pytest.mark.parametrize("name", ["BuildingFlow", "DoorFlow", "CarrierFlow"])
def test_every_step_and_error_of_a_form_has_its_text(name):
    strings, flow = flows()[name], family(name)
    steps = {
        node.name.removeprefix("async_step_")
        for part in flow
        for node in part.body
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("async_step_")
    }
    assert strings["step"].keys() == steps - {"bluetooth", "zeroconf", "reauth"}, "which go on to a form, and have none"

    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    shared = [node for file in FORMS for kind in kinds for node in nodes(f"{file}.py", kind) if node.col_offset == 0]
    literals = {node.value for part in (*flow, *shared) for node in ast.walk(part) if isinstance(node, ast.Constant)}
    literals |= {*carrier_flow._NOT_LINKED.values(), *carrier_flow._NOT_TAKEN.values()}
    literals |= {*EnrolmentSlip} if name == "CarrierFlow" else set()
    patterns = [r"(\w+)_range" if name == "CarrierFlow" else "x", "key_set_.*", *slips(), *not_paired()]
    for error in strings["error"]:
        assert error in literals or any(re.fullmatch(pattern, error) for pattern in patterns), f"never shown: {error}"


def slips() -> set[str]:
    """What can be wrong with a strike's code, and with pairing it. Read, not imported: that needs Noise."""
    return {
        node.value.value
        for file in ("pairing", "pairing_session")
        for enum in nodes(f"vestibule_core/doorstrike/{file}.py", ast.ClassDef)
        if enum.name in ("Slip", "PairingSlip")
        for node in enum.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }


def not_paired() -> set[str]:
    """Why a gateway was not paired."""
    return {f"gateway_{reason}" for reason in NotPaired}


def test_every_flow_of_the_forms_is_looked_at():
    assert CLASSES.keys() == {part.name for name in flows() for part in family(name)}


def test_everything_that_can_be_wrong_with_an_enrolment_code_has_its_text():
    assert set(EnrolmentSlip) <= EN["config_subentries"]["carrier"]["error"].keys()


def test_every_reason_not_to_pair_has_its_text():
    assert len(slips()) == 10
    assert not_paired() | set(CodeSlip) <= EN["config"]["error"].keys()
    for flow in (EN["config"], EN["config_subentries"]["door"]):
        assert slips() <= flow["error"].keys()


def test_every_reason_to_refuse_a_key_set_has_its_text():
    calls = nodes("vestibule_core/keys.py", ast.Call)
    reasons = {
        node.args[0].value
        for node in calls
        if isinstance(node.func, ast.Name)
        and node.func.id == "KeySetInvalid"
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(reasons) == 14
    errors = EN["config_subentries"]["carrier"]["error"]
    assert {key for key in errors if key.startswith("key_set_")} == {f"key_set_{reason}" for reason in reasons} | {
        "key_set_of_another_carrier"
    }


def test_every_field_of_a_form_is_explained():
    for strings in flows().values():
        for step in strings["step"].values():
            assert step.get("data", {}).keys() == step.get("data_description", {}).keys()


def test_every_choice_and_every_state_has_its_text():
    selectors = EN["selector"]
    choices = {
        "days": Day,
        "manual": ManualRule,
        "methods": DriverProof,
        "on_power_loss": OnPowerLoss,
        "persons_kept": PersonsKept,
        "releases_when": ReleasesWhen,
        "relock": RelockOn,
        "returns": Returns,
        "rights": [right.name.lower() for right in Rights],
        "slot": ["own", "waiting", "nothing"],
    }
    assert selectors.keys() == choices.keys() | {"hours"}
    for name, options in choices.items():
        assert selectors[name]["options"].keys() == {getattr(option, "value", option) for option in options}
    assert selectors["hours"]["fields"].keys() == {"days", "from", "to"}
    attributes = EN["entity"]["event"]["access"]["state_attributes"]
    for attribute in ("event_type", "outcome"):
        assert attributes[attribute]["state"].keys() == set(event._EVENT_TYPES)
    assert attributes["means"]["state"].keys() == {means.value for means in Means}


def test_every_action_and_field_has_its_text_and_icon():
    described = yaml.safe_load((PACKAGE / "services.yaml").read_text("utf-8"))
    icons = json.loads((PACKAGE / "icons.json").read_text("utf-8"))
    assert described.keys() == EN["services"].keys() == icons["services"].keys()
    for name, action in described.items():
        assert action["fields"].keys() == EN["services"][name]["fields"].keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_with_the_same_placeholders(language):
    theirs, ours = dict(flat(texts(language))), dict(flat(EN))
    assert theirs.keys() == ours.keys()
    for key, text in theirs.items():
        placeholders = re.findall(r"{\w+}", text)
        assert sorted(placeholders) == sorted(re.findall(r"{\w+}", ours[key])), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_texts_keep_home_assistants_rules(language):
    for key, text in flat(texts(language)):
        assert text == text.strip() != "", key
        assert "://" not in text, f"a link goes through a placeholder: {key}"
        assert not re.search(r"<[a-z/]", text), f"no HTML: {key}"
        assert not re.search(r"'{\w+}'", text), key
        assert all(re.fullmatch("[a-z0-9-_]+", part) for part in key.split(".")), key
