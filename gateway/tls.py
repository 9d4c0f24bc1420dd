"""The gateway's own certificate, which is trusted by its fingerprint alone, and the next one while it is announced.

TLS 1.3 and nothing older. What it refuses to do: make a new certificate where there is one that cannot be read, for
every client would take the gateway for an impostor.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from vestibule_core import durable
from vestibule_core.api.messages import GatewayId, NextCertificate, next_certificate_text
from vestibule_core.note import SignerKey

_LIFE: Final = timedelta(days=20 * 365)
_BEGINS: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A machine without a battery makes its certificate in 1970."""
_MOST: Final = 16384
"""Bytes of the file that are looked at."""


class CertificateUnusable(Exception):
    """The certificate cannot be read or made. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and where it lies, with its key."""

    path: Path
    der: bytes

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate, by which clients know the gateway."""
        return hashlib.sha256(self.der).digest()

    def context(self) -> ssl.SSLContext:
        """Return what serves with it; blocks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path)
        return context

    def announced(self, gateway: GatewayId, signer: SignerKey) -> NextCertificate:
        """Return what clients are told of it as the gateway's next one."""
        return NextCertificate(self.fingerprint, signer.sign(next_certificate_text(gateway, self.fingerprint)))


def keep(path: Path, gateway: GatewayId, *, make: bool = True) -> Certificate:
    """Return the certificate in ``path``; if there is none, ``make`` it. Blocks; raises CertificateUnusable."""
    try:
        if (known := look(path)) is not None:
            return known
        if not make:
            raise CertificateUnusable(
                f"{path} is not there: restore it from a backup, or make another one: `vestibule-gateway keys replace`"
            )
        return replace(path, gateway)
    except OSError as err:
        raise CertificateUnusable(f"{path}: {err}") from err


def replace(path: Path, gateway: GatewayId) -> Certificate:
    """Put a new certificate into ``path``, durably. Blocks; raises OSError."""
    durable.write(path, _made(gateway, datetime.now(UTC)))
    made = look(path)
    assert made is not None
    return made


def look(path: Path) -> Certificate | None:
    """Return the certificate in ``path``; None if there is none. Blocks; raises CertificateUnusable or OSError."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            os.fchmod(file.fileno(), 0o600)  # a backup that was unpacked by hand forgets modes
        text = file.read(_MOST)
    try:
        certificate, key = x509.load_pem_x509_certificate(text), load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise CertificateUnusable(f"{path} holds no key and certificate: restore it from a backup") from err
    whole = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*whole) != certificate.public_key().public_bytes(*whole):
        raise CertificateUnusable(f"the key and the certificate in {path} do not belong together: restore it")
    return Certificate(path, certificate.public_bytes(Encoding.DER))


def switch(now: Path, following: Path) -> Certificate:
    """Make the announced certificate the one that the next start uses, durably; raise CertificateUnusable, OSError."""
    if (certificate := look(following)) is None:
        raise CertificateUnusable("no next certificate is announced: `vestibule-gateway keys next` announces one")
    following.rename(now)
    durable.sync_directory(now.parent)
    return Certificate(now, certificate.der)


def _made(gateway: GatewayId, now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Vestibule gateway {gateway}")])
    begins = max(now.replace(microsecond=0) - timedelta(days=1), _BEGINS)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
