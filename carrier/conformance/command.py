"""``vestibule-carrier conformance``: its options, and how it ends. It needs neither a configuration nor a database."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carrier.commands import Unusable

if TYPE_CHECKING:
    from .report import Report

_WHAT = "say what a building would do with a token, or with a carrier's cloud, and why"
_END = """exit status: 0 a building would let it in, 1 it would refuse (the report says why), 2 the command could not
be carried out. docs/carriers.md has an example of each."""
_MOST = 1024 * 1024


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it."""
    parser = commands.add_parser("conformance", help=_WHAT, description=f"{_WHAT[0].upper()}{_WHAT[1:]}.", epilog=_END)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--token", metavar="FILE", help="judge the token in this file; -: standard input")
    what.add_argument("--url", help="play a building against the cloud whose link is there: wss://host/v1/link")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    token = parser.add_argument_group("with --token")
    token.add_argument("--keys", type=Path, metavar="FILE", help="a JWK set, a signed key set, or a frame of keys")
    token.add_argument("--root", metavar="ROOT", help="of a signed set: SHA-256 of the root in hex, or the raw key")
    token.add_argument("--issuer", help="whom the presenter speaks for")
    token.add_argument("--door", help="the door that it is presented at")
    token.add_argument("--nonce", help="the challenge that the door gave")
    token.add_argument("--now", type=int, metavar="SECONDS", help="since 1970, by the building's clock (default: now)")
    token.add_argument("--method", action="append", help="that the building accepts (default: passkey and device_key)")
    for name, unit, default in _LIMITS:
        token.add_argument(f"--{name}", type=int, metavar=unit, help=f"the building's limit (default: {default})")
    url = parser.add_argument_group("with --url")
    url.add_argument("--code", help="an enrolment code for a new building, used up by this")
    url.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for each driver's request (default: 60)"
    )
    url.add_argument("--position", metavar="LAT,LON", default="0,0", help="where the door is said to be (default: 0,0)")
    parser.set_defaults(run=_run)


_LIMITS = (
    ("distance", "METRES", 75),
    ("accuracy", "METRES", 50),
    ("position-age", "SECONDS", 30),
    ("request-age", "SECONDS", 120),
)


def _run(given: argparse.Namespace) -> int:
    made = _of_token(given) if given.token is not None else _of_url(given)
    if given.json:
        print(json.dumps(made.json(), indent=2))
    else:
        print(made.text(), end="")
    return 1 if made.refused else 0


def _of_token(given: argparse.Namespace) -> Report:
    from vestibule_core.model import door_id, issuer
    from vestibule_core.policy import EvidenceLimits
    from vestibule_core.token import DriverProof

    from . import keyfile
    from .diagnosis import claimed_issuer
    from .judging import Known, judge, report

    if given.keys is None:
        raise Unusable("--keys FILE is needed: the public keys that the token is to be judged by")
    if given.nonce is not None and (len(given.nonce) != 22 or not given.nonce.isascii()):
        raise Unusable("--nonce is the challenge as the door gave it, 22 characters")
    limits: dict[str, Any] = {
        name: value
        for name in ("distance", "accuracy", "position_age", "request_age")
        if (value := getattr(given, name)) is not None
    }
    try:
        of = issuer(given.issuer) if given.issuer is not None else None
        door = door_id(given.door) if given.door is not None else None
        if given.method:
            limits["methods"] = frozenset(DriverProof(method) for method in given.method)
    except ValueError as err:
        raise Unusable(f"{err}: see docs/protocol.md, A.1") from err
    text = _token(given.token)
    now = int(time.time()) if given.now is None else given.now
    try:
        keys = keyfile.read(_read(given.keys), of, given.root, now, claimed_issuer(text))
    except keyfile.KeysNotReadable as err:
        raise Unusable(f"{given.keys}: {err}") from err
    known = Known(keys.keys, now, of, door, given.nonce, EvidenceLimits(**limits))
    return report(text, known, judge(text, known), keys.steps)


def _of_url(given: argparse.Namespace) -> Report:
    from vestibule_core.link.code import CodeInvalid, EnrolmentCode

    from . import playing

    if given.code is None:
        raise Unusable("--code is needed: an enrolment code that your cloud has made for a new building")
    try:
        code = EnrolmentCode.parse(given.code)
        url = playing.link_url(given.url)
    except (CodeInvalid, playing.UrlUnusable) as err:
        raise Unusable(str(err)) from err
    patience = playing.Patience(driver=given.wait)
    return asyncio.run(playing.play(url, code, patience, _position(given.position), _tell))


def _position(text: str) -> tuple[float, float]:
    match text.split(","):
        case lat, lon:
            with contextlib.suppress(ValueError):
                if abs(degrees := float(lat)) <= 90 and abs(float(lon)) <= 180:
                    return degrees, float(lon)
    raise Unusable("--position is degrees of latitude and longitude: 52.52,13.405")


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _token(where: str) -> str:
    """Return the token of a file, without the line break that ends its line. What is not UTF-8 is no token either."""
    raw = sys.stdin.buffer.read(_MOST) if where == "-" else Path(where).read_bytes()[:_MOST]
    return raw.decode(errors="replace").removesuffix("\n").removesuffix("\r")


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[:_MOST].decode()
    except UnicodeDecodeError as err:
        raise Unusable(f"{path}: this is not UTF-8 text") from err
