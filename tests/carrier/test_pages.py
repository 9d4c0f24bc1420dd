"""The pages: small, from this host alone, under a policy that lets nothing else in, and with a word for everything."""

import json
import re
from pathlib import Path

import pytest

from carrier import server, words
from carrier.checks import Check, Opening, Reason, StopState
from carrier.intake import ErrorWord
from carrier.store.tables import RequestState
from tests.carrier.served import Served
from vestibule_core.model import Code, Word

WEB = Path(server.__file__).parent / "web"
ROOT = Path(server.__file__).parent.parent


@pytest.fixture
async def served(tmp_path):
    async with Served(tmp_path) as served:
        yield served


async def test_every_answer_has_the_headers_that_keep_others_out(served):
    for path, status in (
        ("/", 200),
        ("/dispatch", 200),
        ("/web/driver.js", 200),
        ("/driver/today", 401),
        ("/none", 404),
    ):
        async with served.http.get(path) as answer:
            assert answer.status == status
            assert answer.headers.items() >= server.HEADERS.items()
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
            assert answer.headers["Cache-Control"] == ("no-cache" if status == 200 else "no-store")
            assert "Set-Cookie" not in answer.headers


def test_the_policy_allows_our_own_files_and_nothing_inline():
    policy = dict(part.strip().partition(" ")[::2] for part in server.POLICY.split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert {policy[name] for name in policy if name.endswith("-src")} == {"'none'", "'self'"}
    assert "unsafe" not in server.POLICY


async def test_a_page_for_another_host_is_not_given(served):
    async with served.http.get("/", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403


async def test_a_file_that_has_not_changed_is_not_sent_again_and_text_is_packed(served):
    async with served.http.get("/web/words.js", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.read() == (WEB / "words.js").read_bytes()
        tag = answer.headers["ETag"]
    async with served.http.get("/web/words.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    async with served.http.get("/web/../server.py") as answer:
        assert answer.status == 404


def test_the_pages_have_nothing_inline_and_ask_no_other_host():
    for file in WEB.iterdir():
        if file.suffix in {".html", ".js", ".css"}:
            text = file.read_text("utf-8")
            assert not re.search(r"(https?:)?//(?!\s)[a-z0-9.-]+\.[a-z]{2,}", text), file
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text), file
            if file.suffix == ".html":
                assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", text), file


def test_what_a_driver_loads_is_less_than_54_kilobytes():
    files = {file for file in WEB.iterdir() if file.stem != "dispatch"}
    assert sum(file.stat().st_size for file in files) < 54_000


def test_the_icon_is_the_projects_and_the_manifest_names_icons_that_are_there():
    assert (WEB / "icon.svg").read_bytes() == (ROOT / "docs" / "brand" / "icon.svg").read_bytes()
    for icon in json.loads((WEB / "manifest.webmanifest").read_text())["icons"]:
        assert (WEB / icon["src"].removeprefix("/web/")).exists()


# ---- words ----


def section(language: str) -> str:
    return re.search(
        rf"^const {language} = {{\n(.*?)^}};", (WEB / "words.js").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )[1]


def keys(text: str, indent: int = 2) -> set[str]:
    return set(re.findall(rf"^ {{{indent}}}(\w+):", text, re.MULTILINE))


def blocks(language: str) -> dict[str, set[str]]:
    """The words of one language, each with the words under it."""
    bare = re.sub('"[^"]*"', "", section(language))
    found = re.findall(r"^ {2}(\w+): (\{\n.*?^ {2}\}|.*?),$", bare, re.DOTALL | re.MULTILINE)
    return {word: set(re.findall(r"(\w+): ", block)) for word, block in found}


def test_english_and_german_have_the_same_words():
    english, german = blocks("en"), blocks("de")
    assert english == german
    assert english.keys() == keys(section("en"))
    assert english["passed"] == set(Check)
    assert english["position"] == {"denied", "none"}
    for match in re.finditer(r"^ {2}(\w+): (.*)$", section("en"), re.MULTILINE):
        told = re.search(rf"^ {{2}}{match[1]}: (.*)$", section("de"), re.MULTILINE)[1]
        assert set(re.findall(r"\{\w+\}", match[2])) == set(re.findall(r"\{\w+\}", told)), match[1]


def test_the_page_says_every_word_that_there_is():
    page = (WEB / "driver.js").read_text("utf-8")
    assert blocks("en").keys() == set(re.findall(r"(?<!/)\bwords\.(\w+)", page))


def test_every_reason_has_words_in_both_languages_that_say_what_to_do():
    assert words.REASONS.keys() == set(Reason)
    assert keys(section("deReasons")) == {*Reason, *words.BUILDING}
    for told in (*words.REASONS.values(), *words.BUILDING.values()):
        assert told.what.endswith(".")
        assert told.advice.endswith((".", "?"))


def test_every_code_that_a_building_tells_a_driver_about_has_words():
    about_the_token = {"WRONG_DOOR", "NOT_SPENDER", "ALREADY_SPENT", "NONCE_UNKNOWN", "NONCE_EXPIRED"}
    in_a_hurry = {"RATE_LIMITED", "STORE_FAILED", "LATE", "STOPPING"}
    by_hand = {"MANUAL_NOT_ALLOWED", "PIN_MISSING", "PIN_WRONG", "PIN_LOCKED", "MODE_NOT_POSSIBLE"}
    told = {code.told for code in Code if code.told and code.word not in (Word.GRANTED, Word.UNKNOWN_OUTCOME)}
    assert told - about_the_token - in_a_hurry - by_hand == words.BUILDING.keys() - {"NO_SIGNING_KEY", "REFUSED"}


def test_every_outcome_and_every_refusal_has_words_and_no_other_has():
    own = {"refused_for_now", "unheard", "unsent"}
    assert blocks("en")["outcomes"] == own | set(RequestState) - {RequestState.ASKED, RequestState.SIGNED}
    too_rare = {ErrorWord.TIMEOUT, ErrorWord.TOO_LARGE}
    signs_in = {ErrorWord.UNAUTHORIZED}
    own = {"offline", "unknownDevice", "failed"}
    assert blocks("en")["failed"] == own | set(ErrorWord) - too_rare - signs_in
    assert blocks("en")["doorStates"] == set(Opening)
    assert blocks("en")["stopStates"] == set(StopState) - {StopState.DUE}
