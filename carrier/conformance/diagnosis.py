"""Why a token is refused, in the words of whoever has to change the program that made it.

The building's own functions say one code and stop (judging.py). This looks at all of a token, names the member and the
place, and finds what is wrong besides. What it refuses to do: give a verdict. Whether it agrees with the verdict, on
every token that a test can think of, is a test's business (tests/carrier/test_conformance.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vestibule_core import b64url
from vestibule_core.keys import Alg, KeyStatus, TrustedKey
from vestibule_core.model import Code, DoorId, Issuer, Limit, issuer
from vestibule_core.policy import EvidenceLimits
from vestibule_core.token import MAX_LENGTH, MAX_LIFETIME, MAX_PAYLOAD, TYPE, DriverProof, UnlockToken


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a token."""

    step: str
    """Of protocol A.2, in the order of which findings come."""
    code: Code
    what: str
    """What is wrong and what is needed, with its place."""


def look(text: str, keys: Mapping[str, TrustedKey], presenter: Issuer | None, now: int) -> tuple[Finding, ...]:
    """Return what is wrong with a token in steps 1 to 6, in their order, as far as it can be read.

    ``now``: seconds since 1970, by the building's clock.
    """
    return tuple(sorted(_look(text, keys, presenter, now), key=lambda finding: int(finding.step)))


def _look(text: str, keys: Mapping[str, TrustedKey], presenter: Issuer | None, now: int) -> Iterator[Finding]:
    yield from _form(text)
    segments = text.split(".")
    if len(segments) != 3 or len(text) > _FAR_TOO_LONG:
        return
    raw = [_decoded(segment) for segment in segments]
    for segment, step, name in zip(segments, ("1", "4", "4"), ("header", "payload", "signature"), strict=True):
        yield from _spelling(segment, step, name)
    header = _Reading("2", "header", Code.BAD_HEADER)
    if raw[0] is not None:
        yield from header.read(raw[0])
        yield from _header(header)
    key = None
    if isinstance(header.value, dict):
        kid, alg = header.value.get("kid"), header.value.get("alg")
        key = keys.get(kid) if isinstance(kid, str) else None
        if isinstance(kid, str) and isinstance(alg, str):
            yield from _key(kid, alg, keys, segments, raw)
    payload = _Reading("5", "payload", Code.BAD_CLAIMS)
    if raw[1] is not None:
        yield from payload.read(raw[1])
        yield from _claims(payload)
    if key is not None and isinstance(payload.value, dict) and isinstance(payload.value.get("iss"), str):
        yield from _issuer(payload.value["iss"], key, presenter)
    if key is not None:
        yield from _status(key, now)


def claimed_issuer(text: str) -> Issuer | None:
    """Return the issuer that a token says it is from, **unverified**; None if it says none."""
    segments = text.split(".")
    if len(segments) != 3 or len(text) > _FAR_TOO_LONG or (raw := _decoded(segments[1])) is None:
        return None
    payload = _Reading("5", "payload", Code.BAD_CLAIMS)
    list(payload.read(raw))
    said = _at(payload.value, ("iss",))
    try:
        return issuer(said) if type(said) is str else None
    except ValueError:
        return None


# ---- step 1: the form ----

_FAR_TOO_LONG: Final = 64 * 1024
_OUTSIDE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_SIGNATURE: Final = 86
_LIKELY: Final = {
    0: "there is none",
    43: "that is the length of an HMAC (HS256); a token is signed with a private key",
    342: "that is the length of an RSA signature; a token is signed with Ed25519 or P-256",
}


def _form(text: str) -> Iterator[Finding]:
    def wrong(what: str) -> Finding:
        return Finding("1", Code.MALFORMED, what)

    if len(text) > MAX_LENGTH:
        yield wrong(f"the text has {len(text)} characters; {MAX_LENGTH} are the most")
    if stranger := _OUTSIDE.search(text):
        char, at = stranger[0], stranger.start() + 1
        if char == "=":
            hint = "base64url is written without padding here"
        elif char in "+/":
            hint = "this is base64; base64url has - and _ in place of + and /"
        elif char.isspace():
            hint = "no white space, no line breaks"
        else:
            hint = "only base64url and two dots"
        yield wrong(f"character {at} of the text is {char!a}: {hint}")
    segments = text.split(".")
    if len(segments) != 3:
        of = "one segment" if len(segments) == 1 else f"{len(segments)} segments"
        yield wrong(f"the text has {of}; a token has three, header.payload.signature")
        return
    if not segments[1]:
        yield wrong("the payload is empty")
    if (length := len(segments[2])) != _SIGNATURE:
        likely = _LIKELY.get(length)
        if 93 <= length <= 97:
            likely = "that is the length of a DER-encoded ECDSA signature; here it is r and s, 32 bytes each"
        yield wrong(
            f"the signature has {length} characters; 64 bytes have {_SIGNATURE}" + (f" - {likely}" if likely else "")
        )


def _spelling(segment: str, step: str, name: str) -> Iterator[Finding]:
    if not _OUTSIDE.search(segment):
        try:
            b64url.decode(segment.encode())
        except ValueError:
            why = "a length that base64 cannot have" if len(segment) % 4 == 1 else "bits set that stand for nothing"
            yield Finding(step, Code.MALFORMED, f"the {name} ends in another way than base64url is encoded: {why}")


def _decoded(segment: str) -> bytes | None:
    """Return what a segment spells, however carelessly."""
    plain = segment.strip().rstrip("=").translate(str.maketrans("+/", "-_"))
    if _OUTSIDE.search(plain):
        return None
    if rest := len(plain) % 4:
        plain = plain[:-1] if rest == 1 else plain[:-1] + _without_spare_bits(plain[-1], rest)
    return b64url.decode(plain.encode())


def _without_spare_bits(char: str, rest: int) -> str:
    spare = 0b1111 if rest == 2 else 0b11
    return chr(b64url.ALPHABET[b64url.ALPHABET.index(char.encode()) & ~spare])


# ---- JSON, with places ----


class _Number(str):
    """A number as it is written."""

    __slots__ = ()

    @property
    def is_whole(self) -> bool:
        """Without point, exponent, NaN or Infinity."""
        return bool(re.fullmatch(r"-?[0-9]+", self))


_BLANK: Final = " \t\r\n"


class _Reading:
    """A part of a token, read more patiently than a building reads it."""

    def __init__(self, step: str, part: str, otherwise: Code) -> None:
        """``otherwise``: how it is refused if it is JSON, and says something else than it should."""
        self.step, self.part, self.otherwise = step, part, otherwise
        self.value: Any = None
        """Of two members with one name, the last one."""
        self._places: dict[tuple[str, ...], int] = {}
        self._written: dict[tuple[str, ...], str] = {}

    def wrong(self, what: str, *path: str, code: Code | None = None) -> Finding:
        """Return what is wrong with a member, or with all of it."""
        if not path:
            return Finding(self.step, code or self.otherwise, f"the {self.part} {what}")
        at = self._places.get(path)
        place = "" if at is None else f" (character {at + 1} of the {self.part})"
        written = "" if at is None else f" is {_short(self._written[path])}"
        return Finding(
            self.step, code or self.otherwise, f"{self.part} member {_short('.'.join(path))}{place}{written}: {what}"
        )

    def read(self, raw: bytes) -> Iterator[Finding]:
        """Read it; yield what is wrong with it as JSON."""

        def wrong(what: str) -> Finding:
            return self.wrong(what, code=Code.MALFORMED)

        if len(raw) > MAX_PAYLOAD:
            yield wrong(f"has {len(raw)} bytes; {MAX_PAYLOAD} are the most")
        if not raw.isascii():
            at = next(n for n, byte in enumerate(raw) if byte > 127)
            bom = raw[:3] == b"\xef\xbb\xbf" or raw[:2] in (b"\xff\xfe", b"\xfe\xff")
            yield wrong("begins with a byte order mark" if bom else f"has a byte at {at + 1} that is not ASCII")
        text = raw.decode("utf-8-sig", errors="replace")
        begins = len(text) - len(text.lstrip(_BLANK))
        if begins:
            yield wrong("begins with white space")
        fractions: list[str] = []
        twice: list[str] = []
        try:
            self.value, end = _decoder(fractions, twice).raw_decode(text, begins)
        except json.JSONDecodeError as err:
            yield wrong(f"is not JSON at character {err.pos + 1}: {err.msg}")
            return
        except RecursionError:
            yield wrong("is nested too deeply")
            return
        if text[end:]:
            yield wrong(f"has something after its JSON, from character {end + 1} on: {_short(text[end:])}")
        named = list(self._walk(text, begins, ())) if isinstance(self.value, dict) else []
        for name in dict.fromkeys(twice):
            path = next((path for path in reversed(named) if path[-1] == name and named.count(path) > 1), None)
            where = self._place(path) if path else ""
            yield wrong(f"has the member {_short(json.dumps(name))} twice{where}; each is there once")
        for number in dict.fromkeys(fractions):
            path = next((path for path in named if self._written[path] == number), None)
            if path is None:
                yield wrong(f"has the number {_short(number)}: {_WHOLE}")
            else:
                yield self.wrong(_WHOLE, *path, code=Code.MALFORMED)
        if not isinstance(self.value, dict):
            yield self.wrong("is no JSON object")

    def _place(self, path: tuple[str, ...]) -> str:
        return f", at character {self._places[path] + 1} again"

    def _walk(self, text: str, at: int, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Note where each member of the object at ``at`` stands, and of those inside it; yield their paths."""
        at += 1
        while True:
            at = _blank(text, at)
            if text[at] == "}":
                return
            if text[at] == ",":
                at = _blank(text, at + 1)
            name, end = _PLAIN.raw_decode(text, at)
            begins = _blank(text, _blank(text, end) + 1)
            path = (*above, name)
            value, end = _PLAIN.raw_decode(text, begins)
            self._places[path], self._written[path] = at, text[begins:end]
            yield path
            if isinstance(value, dict):
                yield from self._walk(text, begins, path)
            at = end


_WHOLE: Final = "a whole number is needed, without point, exponent, NaN or Infinity"
_PLAIN: Final = json.JSONDecoder()


def _decoder(fractions: list[str], twice: list[str]) -> json.JSONDecoder:
    def fraction(text: str) -> _Number:
        fractions.append(text)
        return _Number(text)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for n, name in enumerate(names) if name in names[:n])
        return dict(pairs)

    return json.JSONDecoder(object_pairs_hook=members, parse_int=_Number, parse_float=fraction, parse_constant=fraction)


def _blank(text: str, at: int) -> int:
    while text[at] in _BLANK:
        at += 1
    return at


def _short(text: str) -> str:
    """Return what can be quoted of it on a line."""
    said = text.encode("ascii", "backslashreplace").decode()
    return said if len(said) <= 48 else f"{said[:45]}..."


def _kind(value: object) -> str:
    match value:
        case _Number():
            return "a number"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case dict():
            return "an object"
        case list():
            return "a list"
    return "null"


# ---- step 2: the header ----

_NEVER: Final = {
    "jwk": "a building takes no key from a token",
    "jku": "a building fetches nothing",
    "x5u": "a building fetches nothing",
    "x5c": "a building takes no key from a token",
    "crit": "there are no extensions",
    "b64": "the payload is always encoded",
}
_HEADER: Final = ("alg", "kid", "typ")


def _header(header: _Reading) -> Iterator[Finding]:
    if not isinstance(members := header.value, dict):
        return
    for name in _HEADER:
        if name not in members:
            yield header.wrong(f"lacks the member {name}; it has exactly alg, kid and typ")
        elif isinstance(members[name], _Number) or not isinstance(members[name], str):
            yield header.wrong(f"a text is needed, not {_kind(members[name])}", name)
    for name in members.keys() - {*_HEADER}:
        yield header.wrong(f"leave it out: {_NEVER.get(name, 'the header has exactly alg, kid and typ')}", name)
    typ = members.get("typ")
    if type(typ) is str and typ != TYPE:
        kinds = {"door-keys+jwt": "this is a key set", "door-issued+jwt": "this is a list of what was issued"}
        what = f"{kinds[typ]}; " if typ in kinds else ""
        yield header.wrong(f'{what}a token has "{TYPE}"', "typ", code=Code.WRONG_TYPE)


# ---- steps 3 and 4: the key and the signature ----


def _key(
    kid: str, alg: str, keys: Mapping[str, TrustedKey], segments: list[str], raw: list[bytes | None]
) -> Iterator[Finding]:
    header, payload, _ = segments
    if isinstance(kid, _Number) or isinstance(alg, _Number):
        return
    key = keys.get(kid)
    if key is None:
        why = f"the building knows {_known(keys)}"
        if signer := _signer(keys.values(), raw[2], f"{header}.{payload}"):
            why = f"the signature is of {signer.kid}, so kid has to say that"
        elif not re.fullmatch(r"[A-Za-z0-9_-]{43}", kid):
            why = f"kid is the RFC 7638 thumbprint of the key, 43 characters; {why}"
        yield Finding("3", Code.UNKNOWN_KEY, f"header member kid is {_short(json.dumps(kid))}: {why}")
        return
    if alg != key.alg.value:
        what = f"this key is {'Ed25519' if key.alg is Alg.EDDSA else 'P-256'}, so alg is {key.alg.value}"
        yield Finding("3", Code.ALG_MISMATCH, f"header member alg is {_short(json.dumps(alg))}: {what}")
    if raw[2] is not None and len(raw[2]) == 64 and not key.verifies(raw[2], f"{header}.{payload}".encode()):
        yield Finding(
            "4",
            Code.BAD_SIGNATURE,
            f"the signature is not by {kid} over header.payload: {_signed(key, keys, segments, raw)}",
        )


def _known(keys: Mapping[str, TrustedKey]) -> str:
    return ", ".join(keys) if keys else "no key of this carrier"


def _signer(keys: Iterable[TrustedKey], signature: bytes | None, message: str) -> TrustedKey | None:
    if signature is None or len(signature) != 64:
        return None
    return next((key for key in keys if key.verifies(signature, message.encode())), None)


def _signed(key: TrustedKey, keys: Mapping[str, TrustedKey], segments: list[str], raw: list[bytes | None]) -> str:
    """Say what else it may have been made over, or by whom."""
    header, payload, _ = segments
    if signer := _signer(keys.values(), raw[2], f"{header}.{payload}"):
        return f"it is by {signer.kid}"
    signing = f"{header}.{payload}".encode()
    padded = ".".join(segment + "=" * (-len(segment) % 4) for segment in (header, payload)).encode()
    over = {
        "the payload's bytes alone": raw[1] or b"",
        "the payload segment alone": payload.encode(),
        "the JSON of header and payload, not encoded": (raw[0] or b"") + b"." + (raw[1] or b""),
        "a SHA-256 hash of it": hashlib.sha256(signing).digest(),
        "a SHA-512 hash of it": hashlib.sha512(signing).digest(),
        "segments with padding": padded,
        "header.payload and a line break": signing + b"\n",
    }
    assert raw[2] is not None
    for what, message in over.items():
        if key.verifies(raw[2], message):
            return f"it is over {what}"
    return "it is of another key, or over other bytes than were sent (encode once, sign that, send that)"


# ---- step 5: the claims ----

_LETTERS: Final = "A-Z a-z 0-9 . _ ~ : / -"
_REFERENCE: Final = (r"[A-Za-z0-9._~:/-]{1,40}", f"1 to 40 characters of {_LETTERS}")
_SIXTEEN: Final = (r"[A-Za-z0-9_-]{21}[AQgw]", "16 bytes in base64url, 22 characters of which the last is A, Q, g or w")
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "iss": (r"https://[A-Za-z0-9._~:/-]{1,56}", f"https:// and 1 to 56 characters of {_LETTERS}"),
    "aud": (
        r"door:[a-z2-7]{25}[aeimquy4]",
        "one door, door: and 26 characters of lower-case base32, as the building spells it",
    ),
    "jti": _SIXTEEN,
    "act": (r"unlock", '"unlock"'),
    "sub": _REFERENCE,
    "stp": _REFERENCE,
    "non": (_SIXTEEN[0], "the door's challenge, as it came: 22 characters"),
    "evd": (r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", "SHA-256 in base64url, 43 characters; or leave it out"),
    "chk.drv": ("|".join(DriverProof), f"one of {', '.join(DriverProof)}"),
    "chk.rte": _REFERENCE,
}
_MOMENT: Final = (1_700_000_000, 2**53 - 1, "seconds since 1970, from 1700000000 on (not milliseconds, not a text)")
_METRES: Final = (0, 10**6, "a whole number from 0 to 1000000")
_NUMBERS: Final[Mapping[str, tuple[int, int, str]]] = {
    "ver": (1, 1, "1"),
    "iat": _MOMENT,
    "exp": _MOMENT,
    "chk.req": _MOMENT,
    "chk.gps.d": _METRES,
    "chk.gps.acc": _METRES,
    "chk.gps.age": _METRES,
}
_OBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("ver", "iss", "aud", "jti", "iat", "exp", "act", "sub", "stp", "non", "chk"),
    "chk": ("drv", "rte", "gps", "req"),
    "chk.gps": ("d", "acc", "age"),
}
_UNWANTED: Final = {
    "cnf": "a phone does not present tokens itself",
    "nbf": "freshness is the challenge's",
    "lat": "coordinates never leave the carrier",
    "lon": "coordinates never leave the carrier",
}


def _claims(payload: _Reading) -> Iterator[Finding]:
    if not isinstance(payload.value, dict):
        return
    for of, names in _OBJECTS.items():
        path = tuple(of.split(".")) if of else ()
        if (members := _at(payload.value, path)) is _NOTHING:
            continue
        if not isinstance(members, dict):
            yield payload.wrong(f"an object is needed, with exactly {', '.join(names)}", *path)
            continue
        for name in names:
            if name not in members:
                yield payload.wrong(f"lacks the member {'.'.join((*path, name))}: {_needed((*path, name))}")
        for name in members.keys() - {*names} - ({"evd"} if not of else set()):
            why = _UNWANTED.get(name, f"exactly {', '.join(names)}{'' if of else ' and perhaps evd'} are there")
            yield payload.wrong(f"leave it out: {why}", *path, name)
    for name, (pattern, needed) in _TEXTS.items():
        value = _at(payload.value, path := tuple(name.split(".")))
        if value is not _NOTHING and not (type(value) is str and re.fullmatch(pattern, value)):
            yield payload.wrong(_texts_are(needed, value), *path)
    moments = {}
    for name, (least, most, needed) in _NUMBERS.items():
        value = _at(payload.value, path := tuple(name.split(".")))
        if value is _NOTHING or (isinstance(value, _Number) and not value.is_whole):  # which has been said
            continue
        if not isinstance(value, _Number) or value[0] == "-" or not least <= int(value) <= most:
            yield payload.wrong(f"{needed} is needed", *path)
        else:
            moments[name] = int(value)
    if "iat" in moments and "exp" in moments:
        life = moments["exp"] - moments["iat"]
        if life <= 0:
            yield payload.wrong("exp has to be later than iat", "exp")
        elif life > MAX_LIFETIME:
            what = f"{life} s after iat; {MAX_LIFETIME} s are the most"
            yield payload.wrong(what, "exp", code=Code.LIFETIME_TOO_LONG)


def _texts_are(needed: str, value: object) -> str:
    if isinstance(value, _Number) or not isinstance(value, str):
        return f"{needed} is needed, not {_kind(value)}"
    return f"{needed} is needed"


def _needed(path: tuple[str, ...]) -> str:
    name = ".".join(path)
    if name in _TEXTS:
        return _TEXTS[name][1]
    if name in _NUMBERS:
        return _NUMBERS[name][2]
    return f"an object of {', '.join(_OBJECTS[name])}; without the four confirmations nothing opens"


_NOTHING: Final = object()


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _NOTHING
        value = value[name]
    return value


# ---- step 6: whose it is ----


def _issuer(said: str, key: TrustedKey, presenter: Issuer | None) -> Iterator[Finding]:
    if said != key.issuer:
        what = f"payload member iss is {_short(said)}: the key is {key.issuer}'s"
        yield Finding("6", Code.WRONG_ISSUER, what)
    elif presenter is not None and said != presenter:
        what = f"payload member iss is {_short(said)}: it was brought by {presenter}"
        yield Finding("6", Code.WRONG_ISSUER, what)


def _status(key: TrustedKey, now: int) -> Iterator[Finding]:
    if key.opens(now):
        return
    if key.status is KeyStatus.REVOKED:
        why = "is revoked: sign with the current one"
    elif now < key.valid_from:
        why = f"signs from {key.valid_from} on (nbf), and it is {now}: sign with the one before"
    else:
        why = f"was good until {key.valid_until} (exp of key and set), and it is {now}: sign with the current one"
    yield Finding("6", Code.KEY_REVOKED, f"the key {key.kid} {why}")


# ---- steps 7 to 10: the building ----


def look_further(
    unlock: UnlockToken, door: DoorId | None, nonce: str | None, limits: EvidenceLimits
) -> Iterator[Finding]:
    """Yield what is wrong with a genuine token for this door, challenge and limits; None: not known."""
    claims, checks = unlock.claims, unlock.claims.confirmations
    if door is not None and claims.door != door:
        yield Finding("7", Code.WRONG_DOOR, f"payload member aud is {claims.door}: the door is {door}")
    if nonce is not None and claims.nonce != nonce:
        what = f"payload member non is {claims.nonce}: the door's challenge is {nonce}; copy it as it came"
        yield Finding("8", Code.NONCE_UNKNOWN, what)
    taken = claims.issued_at - checks.requested_at
    exceeded: list[tuple[bool, Limit, str]] = [
        (
            checks.driver not in limits.methods,
            Limit.METHOD,
            f"chk.drv is {checks.driver}: this building takes {' and '.join(sorted(limits.methods)) or 'nothing'}",
        ),
        (
            checks.distance > limits.distance,
            Limit.DISTANCE,
            f"chk.gps.d is {checks.distance} m: at most {limits.distance}",
        ),
        (
            checks.accuracy > limits.accuracy,
            Limit.ACCURACY,
            f"chk.gps.acc is {checks.accuracy} m: at most {limits.accuracy}",
        ),
        (
            checks.position_age > limits.position_age,
            Limit.POSITION_AGE,
            f"chk.gps.age is {checks.position_age} s: at most {limits.position_age}",
        ),
        (taken < 0, Limit.REQUEST_AGE, f"chk.req is {-taken} s after iat: a driver asks before a token is issued"),
        (
            taken > limits.request_age,
            Limit.REQUEST_AGE,
            f"chk.req is {taken} s before iat: at most {limits.request_age}",
        ),
    ]
    for is_exceeded, limit, what in exceeded:
        if is_exceeded:
            yield Finding("10", Code.POLICY_EVIDENCE, f"payload member {what} (limit {limit})")
