"""A passkey, made of software: a real key (ES256), real flags and counters, CBOR as the standard says.

What a driver's phone does when somebody has unlocked it; for the demo, and for the tests of the carrier's cloud. It
does what it is told, also what a good device never does: ``verifies_user``, ``counter``, ``origin`` and ``rp_id`` are
the user's to set. ``copy`` is a cloned device. Everything is spelt as the carrier's API wants it.
"""

from __future__ import annotations

import hashlib
import json
import os
from copy import copy as shallow
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from vestibule_core import b64url

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


@dataclass
class Authenticator:
    """One device with one passkey."""

    origin: str
    rp_id: str
    verifies_user: bool = True
    user_is_there: bool = True
    counter: int | None = 0
    """None: a device that does not count."""
    cross_origin: bool = False
    flags: int = 0
    """Further ones."""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def id(self) -> str:
        """Its name at the cloud."""
        return b64url.encode(self.credential_id)

    def copy(self) -> Authenticator:
        """Return a clone of the device."""
        return shallow(self)

    def create(self, options: dict[str, Any], **members: Any) -> dict[str, Any]:
        """Answer ``navigator.credentials.create``."""
        public = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32), -3: public.y.to_bytes(32)}
        attested = bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + cbor2.dumps(cose)
        statement = {"fmt": "none", "attStmt": {}, "authData": self._authenticator_data(AT) + attested}
        return {
            "id": self.id,
            "clientDataJSON": b64url.encode(self._client_data("webauthn.create", options["challenge"])),
            "attestationObject": b64url.encode(cbor2.dumps(statement)),
            "transports": ["internal"],
        } | members

    def get(self, options: dict[str, Any], **members: Any) -> dict[str, Any]:
        """Answer ``navigator.credentials.get``."""
        client_data = self._client_data("webauthn.get", options["challenge"])
        authenticator_data = self._authenticator_data()
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        return {
            "id": self.id,
            "clientDataJSON": b64url.encode(client_data),
            "authenticatorData": b64url.encode(authenticator_data),
            "signature": b64url.encode(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
        } | members

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps(
            {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.cross_origin}
        ).encode()

    def _authenticator_data(self, flags: int = 0) -> bytes:
        flags |= self.flags | (UP if self.user_is_there else 0) | (UV if self.verifies_user else 0)
        if self.counter is not None:
            self.counter += 1
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + (self.counter or 0).to_bytes(4)
