"""The worked example of docs/carriers.md: one delivery, from real keys, to the bit.

Every private key is the SHA-256 of a text that stands in the document, and every random value is fixed, so that whoever
builds a carrier can make the same bytes. A test makes all of it anew and compares. If a change is meant:

    python -m tests.carrier.carriers_example
"""

import hashlib
import re
import textwrap
from datetime import UTC, date, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carrier.conformance import judging, keyfile
from carrier.conformance.judging import Known
from tests.simulated import compact
from vestibule_core import b64url, challenge, jws, keyset, token
from vestibule_core.keys import SigningKey
from vestibule_core.keyset import Issued, KeySet, PublishedKey, Use
from vestibule_core.link import messages
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import FROM_CLOUD, FROM_CONTROLLER
from vestibule_core.model import Code, Word, issuer, new_door_id
from vestibule_core.note import SignerKey
from vestibule_core.token import Claims, Confirmations, DriverProof

DOCUMENT = Path(__file__).parents[2] / "docs" / "carriers.md"
AGAIN = "python -m tests.carrier.carriers_example"

ISSUER = issuer("https://parcels.example")
NOW = 1_790_000_000
DAY = date(2026, 9, 21)
DAY_IS_OVER = int(datetime(2026, 9, 22, 0, 10, tzinfo=UTC).timestamp())


def seed(what):
    """Return the private key that a text of the document makes."""
    return hashlib.sha256(f"docs/carriers.md {what}".encode()).digest()


def random16(what):
    """Return 16 bytes that would be random."""
    return seed(what)[:16]


ROOT, TOKENS, LISTS = (
    SigningKey(Ed25519PrivateKey.from_private_bytes(seed(f"{w} key"))) for w in ("root", "signing", "list")
)
CONTROLLER = SignerKey("vestibule/example", Ed25519PrivateKey.from_private_bytes(seed("controller key")))
DOOR = new_door_id(random16("door"))
JTI = b64url.encode(random16("jti"))
NONCE = challenge.make(seed("challenge secret"), DOOR, ISSUER, 5000.0, random16("salt")[:4])
SALT, RECORD = random16("evidence salt"), b'{"fix":[52.52009,13.405],"request":"req:1"}'

CLAIMS = Claims(
    ISSUER,
    DOOR,
    JTI,
    NOW,
    NOW + 60,
    "d-Hq3Vw0",
    "s-81kT2p",
    NONCE,
    Confirmations(DriverProof.PASSKEY, "r-7Yc4nA", 11, 8, 4, NOW - 3),
    b64url.encode(hashlib.sha256(SALT + RECORD).digest()),
)
TOKEN = token.issue(TOKENS, CLAIMS)
SET = KeySet(
    ISSUER,
    7,
    NOW - 86400,
    NOW - 86400 + 35 * 86400,
    (
        PublishedKey(b64url.decode(TOKENS.jwk()["x"].encode()), Use.TOKENS, NOW - 8 * 86400, NOW + 23 * 86400),
        PublishedKey(b64url.decode(LISTS.jwk()["x"].encode()), Use.ISSUED, NOW - 90 * 86400, NOW + 275 * 86400),
    ),
    None,
)
SET_TEXT = keyset.write(ROOT, SET)
ROOT_PUBLIC = b64url.decode(ROOT.jwk()["x"].encode())
CODE = EnrolmentCode("doors.parcels.example", hashlib.sha256(ROOT_PUBLIC).digest(), random16("enrolment secret"))
BEGIN = messages.Begin(random16("connection"), ISSUER, "Parcels")
HELLO = messages.write_hello(
    CONTROLLER,
    messages.Hello(
        CONTROLLER.verifier,
        ISSUER,
        BEGIN.nonce,
        random16("start"),
        (messages.LinkedDoor(DOOR, "Gate", "Europe/Berlin", 52.52, 13.405),),
        0,
        None,
    ),
)
CHALLENGE = messages.write_challenge(
    CONTROLLER, messages.SignedChallenge(CONTROLLER.verifier, DOOR, ISSUER, NONCE, challenge.LIFETIME)
)
LISTED = tuple(sorted((JTI, b64url.encode(random16("another jti")))))
LIST = keyset.write_issued(LISTS, Issued(ISSUER, CONTROLLER.verifier, DAY, DAY_IS_OVER, 0, 1, LISTED))

FAULTY = b64url.decode(TOKEN.split(".")[1].encode()).replace(b'"d":11', b'"d":10.6').replace(b"s-81kT2p", b"Number 7")
FAULTY_TOKEN = jws.sign(TOKENS, token.TYPE, FAULTY)


def header(text):
    return b64url.decode(text.split(".")[0].encode()).decode()


def payload(text):
    return b64url.decode(text.split(".")[1].encode()).decode()


def from_cloud(frame):
    return FROM_CLOUD.encode(frame).decode()


def from_controller(frame):
    return FROM_CONTROLLER.encode(frame).decode()


def report(text):
    """Return what the command prints about a token."""
    keys = keyfile.read(from_cloud(messages.Keys(ROOT_PUBLIC, SET_TEXT)), ISSUER, CODE.root.hex(), NOW + 1)
    known = Known(keys.keys, NOW + 1, ISSUER, DOOR, NONCE)
    return judging.report(text, known, judging.judge(text, known), keys.steps).text()


BLOCKS = {
    "keys": "\n".join(
        f"{what:11} {part:8} {value}"
        for what, public in (
            ("root", ROOT_PUBLIC),
            ("signing", SET.keys[0].public),
            ("list", SET.keys[1].public),
            ("controller", CONTROLLER.verifier.public),
        )
        for part, value in (
            ("private", seed(f"{what} key").hex()),
            ("x", b64url.encode(public)),
            ("kid", jws.key_id(public)),
        )
    ),
    "jwk": compact({"keys": [TOKENS.jwk() | {"kid": TOKENS.kid, "use": "sig", "alg": "EdDSA"}]}).decode(),
    "set": f"{header(SET_TEXT)}\n{payload(SET_TEXT)}",
    "keys frame": from_cloud(messages.Keys(ROOT_PUBLIC, SET_TEXT)),
    "fingerprint": CODE.root.hex(),
    "header": header(TOKEN),
    "payload": payload(TOKEN),
    "token": TOKEN,
    "evidence": f"salt    {SALT.hex()}\nrecord  {RECORD.decode()}\nevd     {CLAIMS.evidence}",
    "code": f"secret  {CODE.secret.hex()}\ncode    {CODE}",
    "begin": from_cloud(BEGIN),
    "hello": payload(HELLO),
    "hello frame": from_controller(messages.Greeting(HELLO, CODE.secret)),
    "ask": from_cloud(messages.AskChallenge(1, DOOR)),
    "challenge": f"{header(CHALLENGE)}\n{payload(CHALLENGE)}",
    "challenge frame": from_controller(messages.Challenge(1, CHALLENGE)),
    "unlock": from_cloud(messages.Unlock(2, TOKEN)),
    "outcome": "\n".join(
        from_controller(frame)
        for frame in (
            messages.Outcome(2, Word.GRANTED, Code.GRANTED),
            messages.Accepted(random16("jti"), DOOR, Code.GRANTED),
        )
    ),
    "list": payload(LIST),
    "list frame": from_cloud(messages.IssuedPart(LIST)),
    "accepted": report(TOKEN).rstrip("\n"),
    "refused": report(FAULTY_TOKEN).rstrip("\n"),
}
REPORTS = {"accepted", "refused"}
_BLOCK = re.compile(r"(<!-- example: ([a-z ]+) -->\n```text\n)(.*?)(\n```)", re.DOTALL)


def rendered(name):
    """Return a block as it stands in the document: long lines are broken, which means nothing."""
    if name in REPORTS:
        return BLOCKS[name]
    lines = BLOCKS[name].splitlines()
    return "\n".join(
        part
        for line in lines
        for part in (textwrap.wrap(line, 118, break_on_hyphens=False) if " " not in line[:12] else [line])
    )


def anew(document):
    """Return the document with each example as the code has it."""
    return _BLOCK.sub(lambda block: block[1] + rendered(block[2]) + block[4], document)


def shown(document):
    """Return the names of the examples that the document has."""
    return [block[2] for block in _BLOCK.finditer(document)]


if __name__ == "__main__":
    DOCUMENT.write_text(anew(DOCUMENT.read_text("utf-8")), "utf-8")
