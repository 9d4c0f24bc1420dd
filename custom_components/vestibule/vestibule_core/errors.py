"""Every error of the core: one root, and a leaf for each thing that a caller does differently.

``may_have_succeeded`` tells whether the door may have moved although this was raised: such a command is never sent
again. ``temporary`` tells whether asking again later can help.
"""

from __future__ import annotations

from enum import StrEnum

from .model import Code


class VestibuleError(Exception):
    """The root. Catch a leaf, not this."""

    may_have_succeeded = False
    temporary = False


class KeySetInvalid(VestibuleError):
    """A JWK set cannot be trusted. ``reason`` is a word for the form's message; ``position`` counts keys from 1."""

    def __init__(self, reason: str, position: int = 0) -> None:
        """Say why, and at which key of the set (0: the set itself)."""
        super().__init__(f"key {position}: {reason}" if position else reason)
        self.reason = reason
        self.position = position


class Refused(VestibuleError):
    """A request is refused; nothing moved. ``code`` says why."""

    def __init__(self, code: Code) -> None:
        """Refuse with this code."""
        super().__init__(code.value)
        self.code = code


class MalformedMessage(VestibuleError):
    """A message from another program is not what the protocol says (wire.py)."""


class Violation(VestibuleError):
    """The other end does not keep to the protocol, or is not who it says: the link is closed. One kind for all of it,
    so that nobody can tell a wrong key from a wrong byte.
    """


class StrikeUnreachable(VestibuleError):
    """The strike cannot be reached; it was not told anything."""

    temporary = True


class StrikeRefused(VestibuleError):
    """The strike answered that it did not move."""


class SpentElsewhere(StrikeRefused):
    """The strike did not move: another controller has spent the same token there."""


class OutcomeUnknown(VestibuleError):
    """The strike, or its gateway, was told, and did not answer in time or in sense."""

    may_have_succeeded = True


class GatewayUnreachable(VestibuleError):
    """The gateway did not answer. It was told nothing, or only asked something that changes nothing."""

    temporary = True


class GatewayImpostor(VestibuleError):
    """What answers in the gateway's place has another certificate. It was told nothing."""

    def __init__(self, fingerprint: bytes) -> None:
        """Say which certificate was met: its SHA-256."""
        super().__init__(f"another certificate: {fingerprint.hex()}")
        self.fingerprint = fingerprint


class GatewayForbidden(VestibuleError):
    """The gateway does not know this client any more: pair again."""


class GatewayRefused(VestibuleError):
    """The gateway did not do it. ``status`` is of HTTP, ``error`` its own word for why."""

    def __init__(self, status: int, error: str) -> None:
        """Say why."""
        super().__init__(f"{status} {error}")
        self.status = status
        self.error = error


class PolicyConflict(GatewayRefused):
    """The policy is another one than was thought: read it, and go on from there."""

    def __init__(self, version: int) -> None:
        """Say which one it is."""
        super().__init__(409, f"version {version}")
        self.version = version


class NotPaired(StrEnum):
    """Why a gateway was not paired."""

    NO_WINDOW = "no_window"
    """Nobody allowed it at the gateway, or no more."""
    WRONG_CODE = "wrong_code"
    """Or somebody is in between: neither end could tell the difference."""
    BUSY = "busy"
    """Too many attempts; in a moment again."""


class PairingFailed(VestibuleError):
    """A gateway was not paired."""

    def __init__(self, reason: NotPaired) -> None:
        """Say why."""
        super().__init__(reason.value)
        self.reason = reason


class StoreFailed(VestibuleError):
    """The journal could not be written. It stays closed until it is opened anew (protocol D)."""


class JournalInUse(VestibuleError):
    """Another process holds the journal: two controllers would each spend the same token."""

    temporary = True


class JournalTooNew(VestibuleError):
    """The journal was written by a newer version; writing to it could lose what that version relies on."""


class JournalDamaged(VestibuleError):
    """The file is not a journal, SQLite found it damaged, or its newest entries are not those that were signed."""


class JournalUnsigned(VestibuleError):
    """The journal was written by a version that did not sign: there is nothing to verify it by."""


class JournalMoved(VestibuleError):
    """Entries that were about to be read were dropped after their time: begin again, with a new header."""

    temporary = True


class BackupRunning(VestibuleError):
    """The journal's file is being copied: what is deleted now would live on in the copy."""

    temporary = True


class IdentityMissing(VestibuleError):
    """The key that signed the journal is not there. A new one is made only if an administrator wants to go on so."""


class IdentityUnusable(VestibuleError):
    """The controller's key cannot be read or made. It is not replaced: a new one would be another controller's."""
