"""Signed notes and the checkpoints in them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), in their one spelling.

What is read is strict: a note either has the exact form that would be written, or is refused. Only Ed25519 is known.
Text of a note whose signature was not verified is never returned, but by ``note_parts``, which says so.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .curve import Flaw, flaw_of
from .merkle import HASH_SIZE
from .merkle import MAX_SIZE as MAX_SIZE

MAX_BYTES: Final = 64 * 1024
MAX_SIGNATURES: Final = 16

_ED25519: Final = b"\x01"  # the signature type
_PUBLIC_SIZE: Final = 32
_KEY_ID_SIZE: Final = 4
_DASH: Final = "\N{EM DASH} "
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteError(ValueError):
    """A note, a key or a checkpoint is not what it should be. The message says what to do about it."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and the name that its signatures carry."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Refuse what no signature line could name, and a key that proves nothing."""
        if not _is_name(self.name):
            raise NoteError(f"{self.name!r} cannot name a key: use letters and digits, no space and no plus sign")
        if len(self.public) != _PUBLIC_SIZE:
            raise NoteError(f"an Ed25519 public key has {_PUBLIC_SIZE} bytes, not {len(self.public)}")
        match flaw_of(self.public):
            case Flaw.WEAK:
                raise NoteError("anybody can sign under this key: do not rely on it, and ask where it came from")
            case Flaw.NO_POINT:
                raise NoteError("these bytes are no Ed25519 public key: copy it again")

    def __str__(self) -> str:
        """Return the text to hand to whoever is to verify."""
        return f"{self.name}+{self.key_id.hex()}+{encode(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``text`` spells; raise NoteError."""
        match text.split("+", 2):
            case name, key_id, encoded:
                key = decode(encoded)
            case _:
                raise NoteError("not a verifier key: copy the whole text, name+id+key, on one line")
        if key[:1] != _ED25519:
            raise NoteError("the verifier key is of a kind that is not known here: ask for an Ed25519 key")
        parsed = cls(name, key[1:])
        if key_id != parsed.key_id.hex():
            raise NoteError("the verifier key does not fit its id: copy it again, a character has changed")
        return parsed

    @property
    def key_id(self) -> bytes:
        """What a signature names the key by, next to the name; too short to tell keys apart safely."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_SIZE]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether the 64-byte ``signature`` is this key's over ``message``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SignerKey:
    """A private key and the name that its signatures carry."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """Sign as ``name``. Raises NoteError if that cannot be a name."""
        self.verifier: Final = VerifierKey(name, private.public_key().public_bytes_raw())
        self._private = private

    def sign(self, text: str) -> str:
        """Return the note of ``text`` with this key's signature. Raises NoteError if it cannot be a note's text."""
        if not text.endswith("\n"):
            raise NoteError("the text of a note has to end with a newline")
        signature = self.verifier.key_id + self._private.sign(_bytes(text))
        note = f"{text}\n{_DASH}{self.verifier.name} {encode(signature)}\n"
        _bytes(note)
        return note

    def sign_bytes(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``, which must not be the text of a note."""
        return self._private.sign(message)

    def renamed(self, name: str) -> SignerKey:
        """Return the same key under another name. Raises NoteError if that cannot be a name."""
        return SignerKey(name, self._private)


def open_note(note: str, keys: Collection[VerifierKey]) -> str:
    """Return the text of ``note``, signed by at least one of ``keys`` and falsely by none; raise NoteError."""
    return open_signed(note, keys)[0]


def open_signed(note: str, keys: Collection[VerifierKey]) -> tuple[str, tuple[VerifierKey, ...]]:
    """Return the text of ``note``, and which of ``keys`` have signed it, each once; raise NoteError as ``open_note``.

    Lines of other signers are ignored, as long as they have a signature line's form.
    """
    text, lines = note_parts(note)
    signed_by: dict[VerifierKey, None] = {}
    for name, key_id, signature in lines:
        named = [key for key in keys if key.name == name and key.key_id == key_id]
        if not named:
            continue
        if not (signers := [key for key in named if key.verifies(signature, text.encode())]):
            raise NoteError(f"the signature of {name}+{key_id.hex()} is false: the note was changed, do not rely on it")
        signed_by |= dict.fromkeys(signers)
    if not signed_by:
        raise NoteError("no known key has signed the note: check that the verifier key is the one of its writer")
    return text, tuple(signed_by)


def note_parts(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Return the text of ``note`` and the name, key id and signature of each line under it, **none of them verified**.

    Raises NoteError if it has not the form of a note.
    """
    _bytes(note)
    # The last empty line: the text may have some of its own.
    body, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NoteError("not a signed note: copy it whole, with the empty line and the newline at its end")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"the note has {len(lines)} signatures; at most {MAX_SIGNATURES} are looked at: remove some")
    return body + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    """Return the name, key id and signature of a signature line."""
    match line.removeprefix(_DASH).split(" "):
        case name, encoded if line.startswith(_DASH) and _is_name(name):
            raw = decode(encoded)
            if len(raw) > _KEY_ID_SIZE:
                return name, raw[:_KEY_ID_SIZE], raw[_KEY_ID_SIZE:]
    raise NoteError("the note has a line after its text that is not a signature: copy it again, without anything else")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log signs: how many leaves it had, and the root over them."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what could not be read again."""
        _bytes(self.origin)
        if not self.origin or "\n" in self.origin:
            raise NoteError("a checkpoint begins with its origin, on one line")
        if not 0 <= self.size <= MAX_SIZE:
            raise NoteError(f"a tree cannot have {self.size} leaves")
        if len(self.root) != HASH_SIZE:
            raise NoteError(f"a root has {HASH_SIZE} bytes, not {len(self.root)}")

    @property
    def text(self) -> str:
        """The text to sign."""
        return f"{self.origin}\n{self.size}\n{encode(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint that ``text`` spells; raise NoteError.

        Extension lines are refused: nobody who follows the log could check what they say.
        """
        match text.split("\n"):
            case origin, size, root, "":
                pass
            case _, _, _, _, *_:
                raise NoteError("the checkpoint has more than three lines: extension lines are not understood here")
            case _:
                raise NoteError("a checkpoint has three lines, each with a newline: origin, size and root")
        if not _DECIMAL.fullmatch(size):
            raise NoteError("the second line of a checkpoint is its size, in decimal without leading zeros")
        return cls(origin, int(size), decode(root))


def _is_name(name: str) -> bool:
    return bool(name) and not any(c.isspace() or c < " " or c == "+" or "\ud800" <= c <= "\udfff" for c in name)


def _bytes(text: str) -> bytes:
    """Return ``text`` in UTF-8; raise NoteError if no note could hold it."""
    try:
        raw = text.encode()
    except UnicodeEncodeError as err:
        raise NoteError("not Unicode text: a note is UTF-8") from err
    if len(raw) > MAX_BYTES:
        raise NoteError(f"longer than {MAX_BYTES} bytes: this cannot be a note")
    if _CONTROL.search(text):
        raise NoteError("a control character, which no note may have: copy it as plain text with Unix line ends")
    return raw


def encode(raw: bytes) -> str:
    """Return base64 (RFC 4648 section 4), as notes and proofs spell bytes."""
    return base64.b64encode(raw).decode()


def decode(text: str) -> bytes:
    """Return what base64 in its one spelling stands for; raise NoteError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as err:
        raise NoteError("not base64: copy it again, a character was lost or changed") from err
    if encode(raw) != text:  # bits that spell nothing, or padding: a second text for the same bytes
        raise NoteError("not base64 in its one spelling: copy it again, a character was lost or changed")
    return raw
