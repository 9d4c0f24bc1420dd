"""docs/carriers.md says what is so: its example is the code's and can be followed from its text alone; its tables are
complete; its commands run and print what stands there.
"""

import asyncio
import hashlib
import json
import re
import shlex

import jwt
import pytest

from carrier.__main__ import main
from carrier.conformance.judging import STEP_OF
from carrier.conformance.playing import link_url, play
from tests.carrier import carriers_example as example
from tests.carrier.faulty_cloud import FaultyCloud
from tests.carrier.test_conformance_link import PATIENCE
from vestibule_core import b64url, jws, keyset, token
from vestibule_core.errors import Refused
from vestibule_core.link import messages
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import FROM_CLOUD, FROM_CONTROLLER, Close
from vestibule_core.model import Code, Word
from vestibule_core.note import VerifierKey

DOCUMENT = example.DOCUMENT.read_text("utf-8")
BY_HAND = {"MANUAL_NOT_ALLOWED", "PIN_MISSING", "PIN_WRONG", "PIN_LOCKED", "MODE_NOT_POSSIBLE"}


def block(name):
    """Return what an example says, from the document's text alone: its broken lines are put together again."""
    (said,) = re.findall(rf"<!-- example: {name} -->\n```text\n(.*?)\n```", DOCUMENT, re.DOTALL)
    return said.replace("\n", "")


def lines(name):
    (said,) = re.findall(rf"<!-- example: {name} -->\n```text\n(.*?)\n```", DOCUMENT, re.DOTALL)
    return said.splitlines()


# ---- the example ----


def test_the_example_is_what_the_code_says():
    assert example.anew(DOCUMENT) == DOCUMENT, f"if that is meant: {example.AGAIN}"
    assert sorted(example.shown(DOCUMENT)) == sorted(example.BLOCKS)


def test_the_private_keys_are_made_of_the_texts_that_the_document_names():
    said = {tuple(line.split()[:2]): line.split()[2] for line in lines("keys")}
    for name in ("root", "signing", "list", "controller"):
        private = hashlib.sha256(f"docs/carriers.md {name} key".encode()).hexdigest()
        assert said[name, "private"] == private
        key = jwt.algorithms.OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": said[name, "x"]})
        assert jws.key_id(key.public_bytes_raw()) == said[name, "kid"]


def test_an_independent_library_takes_the_token_apart_as_the_document_does():
    (key,) = jwt.PyJWKSet.from_json(block("jwk")).keys
    said = jwt.decode_complete(
        block("token"),
        key,
        algorithms=["EdDSA"],
        options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
    )
    assert said["header"] == json.loads(block("header"))
    assert said["payload"] == json.loads(block("payload"))


def test_the_frames_of_the_example_are_read_by_the_other_end_and_fit_together():
    root_key = json.loads(block("keys frame"))["root"]
    code = EnrolmentCode.parse(re.search(r"code +(\S+)", "\n".join(lines("code")))[1])
    assert code.root.hex() == block("fingerprint") == hashlib.sha256(b64url.decode(root_key.encode())).hexdigest()
    begin = FROM_CLOUD.decode(block("begin").encode())
    greeting = FROM_CONTROLLER.decode(block("hello frame").encode())
    assert greeting.secret == code.secret
    controller = VerifierKey.parse(json.loads(block("hello"))["ctl"])
    hello = messages.read_hello(greeting.jwt, controller, begin.issuer, begin.nonce)
    frame = FROM_CLOUD.decode(block("keys frame").encode())
    root = keyset.pin(begin.issuer, frame.root, code.root)
    published = keyset.read(frame.set, root, None, example.NOW)
    ask = FROM_CLOUD.decode(block("ask").encode())
    assert ask.door == hello.doors[0].id
    answer = FROM_CONTROLLER.decode(block("challenge frame").encode())
    challenge = messages.read_challenge(answer.jwt, controller, begin.issuer, ask.door)
    unlock = FROM_CLOUD.decode(block("unlock").encode())
    genuine = token.verify(unlock.token, {key.kid: key for key in published.trusted}, begin.issuer)
    assert genuine.claims.nonce == challenge.nonce
    assert genuine.claims.door == ask.door
    outcome, accepted = (FROM_CONTROLLER.decode(line.encode()) for line in lines("outcome"))
    assert (answer.id, outcome.id) == (ask.id, unlock.id)
    assert b64url.encode(accepted.jti) == genuine.claims.jti
    listed = FROM_CLOUD.decode(block("list frame").encode())
    issued = keyset.read_issued(listed.list, published, controller, example.DAY_IS_OVER)
    assert genuine.claims.jti in issued.jtis
    for text in (block("token")[:-1], block("token").replace(".", "..", 1)):
        with pytest.raises(Refused):
            token.verify(text, {key.kid: key for key in published.trusted}, begin.issuer)


def test_the_evidence_is_the_digest_of_salt_and_record():
    salt, record, evd = (line.split(maxsplit=1)[1] for line in lines("evidence"))
    assert b64url.encode(hashlib.sha256(bytes.fromhex(salt) + record.encode()).digest()) == evd
    assert json.loads(block("payload"))["evd"] == evd


# ---- the commands ----


def test_the_commands_print_what_stands_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "keys.json").write_text(block("keys frame"))
    (command,) = re.findall(r"```sh\n(vestibule-carrier conformance --token .*?)\n```", DOCUMENT, re.DOTALL)
    words = shlex.split(command.replace("\\\n", ""))[1:]
    monkeypatch.chdir(tmp_path)
    for name, text, status in (("accepted", block("token"), 0), ("refused", example.FAULTY_TOKEN, 1)):
        (tmp_path / "token.txt").write_text(text + "\n")
        assert main(words) == status
        assert capsys.readouterr().out.rstrip("\n") == "\n".join(lines(name))


async def test_the_report_on_a_cloud_has_these_lines():
    (said,) = re.findall(r"<!-- played: a cloud that is right -->\n```text\n(.*?)\n```", DOCUMENT, re.DOTALL)
    async with FaultyCloud() as cloud, asyncio.timeout(60):
        report = await play(link_url(cloud.url), cloud.code, PATIENCE)
    assert not report.refused

    def plain(text):
        return [re.sub(r" \(.*\)$", "", line) for line in text.splitlines()[2:] if line][:-1]

    on_loopback = "TLS, with a certificate of the public web: cannot be said"
    assert plain(said) == [
        line.replace(on_loopback, on_loopback.replace("cannot be said", "passed")) for line in plain(report.text())
    ]


def test_the_options_that_it_names_exist(capsys):
    with pytest.raises(SystemExit):
        main(["conformance", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z-]+", DOCUMENT[DOCUMENT.index("## 9. ") :].replace("<!--", "").replace("-->", "")))
    assert named - {"--"} <= options


# ---- the tables ----


def test_every_code_that_a_token_can_get_is_in_the_table_with_its_step_and_word():
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([0-9b, ]+) \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert {name for name, *_ in rows} == {code.name for code in Code} - BY_HAND - {"GRANTED"}
    assert len(rows) == len({name for name, *_ in rows})
    for name, steps, word in rows:
        assert Code[name].word == word
        assert Code[name] is Code.MALFORMED or STEP_OF[Code[name]] in steps.split(", ")


def test_every_word_close_code_and_frame_stands_there():
    for word in Word:
        assert f"| `{word}` |" in DOCUMENT
    for close in Close:
        assert f"| {close.value} |" in DOCUMENT
    for kind in ("nonce", "hello", "challenge", "refused", "unlock", "outcome", "accepted", "keys", "issued", "list"):
        assert f'"type":"{kind}"' in DOCUMENT


def test_what_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)", DOCUMENT):
        assert (example.DOCUMENT.parent / target).exists(), target
    for fragment in re.findall(r"\]\(#([^)]+)\)", DOCUMENT):
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
        }
        assert fragment in headings
