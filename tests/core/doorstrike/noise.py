"""Noise_NNpsk0_25519_ChaChaPoly_SHA256 by its primitives alone, as a firmware without a Noise library has it.

Opens a handshake whose two private keys are known. Shares nothing with handshake.py and its library: where both agree
on a vector or on the capture, neither has it from the other.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

NAME = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256"


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def unsealed(key, count, sealed, associated=b""):
    """The plaintext of the AEAD under Noise's nonce."""
    return ChaCha20Poly1305(key).decrypt(bytes(4) + count.to_bytes(8, "little"), sealed, associated)


def _derived(chaining_key, secret, count):
    key = hmac.digest(chaining_key, secret, "sha256")
    outputs = [b""]
    for number in range(1, count + 1):
        outputs.append(hmac.digest(key, outputs[-1] + bytes([number]), "sha256"))
    return outputs[1:]


class Handshake:
    """One handshake, as it goes on: first HS1, then HS2, given as they are sent. Both raise InvalidTag."""

    def __init__(self, psk, hello, slot):
        self._chaining_key = self.h = hashlib.sha256(NAME).digest()
        self._mix_hash(b"DoorStrike/1" + hello + bytes([slot]))
        self._chaining_key, mixed, _ = _derived(self._chaining_key, psk, 3)
        self._mix_hash(mixed)

    def first(self, hs1, client_private):
        """Return the payload of HS1."""
        e, sealed = hs1[2:34], hs1[34:]
        assert e == public(client_private)
        self._client_private = client_private
        self._mix_hash(e)
        self.hs1_key = self._mix_key(e)
        return self._open(self.hs1_key, sealed)

    def second(self, hs2, strike_private):
        """Return the payload of HS2."""
        e, sealed = hs2[1:33], hs2[33:]
        assert e == public(strike_private)
        self._mix_hash(e)
        self._mix_key(e)
        theirs = X25519PrivateKey.from_private_bytes(strike_private).public_key()
        self.shared_secret = X25519PrivateKey.from_private_bytes(self._client_private).exchange(theirs)
        self.hs2_key = self._mix_key(self.shared_secret)
        payload = self._open(self.hs2_key, sealed)
        self.client_key, self.strike_key = _derived(self._chaining_key, b"", 2)
        return payload

    def _mix_hash(self, some):
        self.h = hashlib.sha256(self.h + some).digest()

    def _mix_key(self, secret):
        self._chaining_key, key = _derived(self._chaining_key, secret, 2)
        return key

    def _open(self, key, sealed):
        payload = unsealed(key, 0, sealed, self.h)
        self._mix_hash(sealed)
        return payload
