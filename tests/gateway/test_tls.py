"""The gateway's certificate: made once, known by its fingerprint, TLS 1.3 only, and a next one announced beforehand."""

from __future__ import annotations

import hashlib
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import tls
from gateway.tls import Certificate, CertificateUnusable
from vestibule_core.api.messages import new_gateway_id, next_certificate_text
from vestibule_core.note import SignerKey, open_note

GATEWAY = new_gateway_id(bytes(16))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return tls.keep(tmp_path / "tls.pem", GATEWAY)


@contextmanager
def served(certificate: Certificate) -> Iterator[int]:
    """Greet one client, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            sock, _ = listening.accept()
            with sock, suppress(ssl.SSLError, ConnectionError):
                certificate.context().wrap_socket(sock, server_side=True).close()

        greeting = threading.Thread(target=greet)
        greeting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            greeting.join()


def greet(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock) as secured:
        der = secured.getpeercert(binary_form=True)
        assert der is not None
        return secured.version(), der


def test_it_is_made_once_and_for_its_owner_alone(certificate):
    assert stat.S_IMODE(certificate.path.stat().st_mode) == 0o600
    assert tls.keep(certificate.path, GATEWAY) == certificate


def test_it_is_valid_for_twenty_years_whatever_the_clock_says(certificate, monkeypatch):
    """It is trusted by its fingerprint; a client that looks at the dates all the same must find nothing wrong."""

    class InTheSeventies(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)

    monkeypatch.setattr(tls, "datetime", InTheSeventies)
    early = tls.keep(certificate.path.with_name("early.pem"), GATEWAY)
    for made in (certificate, early):
        read = x509.load_der_x509_certificate(made.der)
        assert read.not_valid_before_utc <= datetime.now(UTC)
        assert (read.not_valid_after_utc - read.not_valid_before_utc).days == 20 * 365
        assert read.not_valid_before_utc.year >= 2026


def test_a_client_sees_the_very_certificate_over_tls_1_3(certificate):
    with served(certificate) as port:
        version, der = greet(port, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert version == "TLSv1.3"
    assert certificate.fingerprint == hashlib.sha256(der).digest()


def test_older_tls_is_refused(certificate):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with served(certificate) as port, pytest.raises((ssl.SSLError, ConnectionError)):
        greet(port, old)


@pytest.mark.parametrize(
    "contents", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\x00" * 100], ids=["empty", "torn", "zeros"]
)
def test_one_that_cannot_be_read_is_not_replaced(tmp_path, contents):
    """Every client would take the gateway for an impostor."""
    path = tmp_path / "tls.pem"
    path.write_bytes(contents)
    with pytest.raises(CertificateUnusable, match="restore it from a backup"):
        tls.keep(path, GATEWAY)
    assert path.read_bytes() == contents


def test_the_key_of_another_certificate_is_noticed(certificate, tmp_path):
    other = tls.keep(tmp_path / "other.pem", GATEWAY).path.read_text()
    mixed = (
        certificate.path.read_text().partition("-----BEGIN CERTIFICATE")[0] + other[other.index("-----BEGIN CERT") :]
    )
    certificate.path.write_text(mixed)
    with pytest.raises(CertificateUnusable, match="do not belong together"):
        tls.look(certificate.path)


def test_a_file_that_others_could_read_is_closed_to_them(certificate):
    """A backup that was unpacked by hand forgets modes."""
    certificate.path.chmod(0o644)
    tls.look(certificate.path)
    assert stat.S_IMODE(certificate.path.stat().st_mode) == 0o600


def test_the_next_one_is_announced_under_the_gateways_own_key(certificate, tmp_path):
    signer = SignerKey("vestibule/x", Ed25519PrivateKey.generate())
    announced = certificate.announced(GATEWAY, signer)
    assert announced.fingerprint == certificate.fingerprint
    text = open_note(announced.note, [signer.verifier])
    assert text == next_certificate_text(GATEWAY, certificate.fingerprint)


def test_the_next_one_takes_the_place_of_the_old_one(certificate, tmp_path):
    following = tls.keep(tmp_path / "next-tls.pem", GATEWAY)
    switched = tls.switch(certificate.path, following.path)
    assert switched == tls.look(certificate.path)
    assert switched.fingerprint == following.fingerprint != certificate.fingerprint
    assert tls.look(following.path) is None


def test_there_is_nothing_to_switch_to_before_it_was_announced(certificate, tmp_path):
    with pytest.raises(CertificateUnusable, match="`vestibule-gateway keys next` announces one"):
        tls.switch(certificate.path, tmp_path / "next-tls.pem")
    assert tls.look(certificate.path) == certificate
