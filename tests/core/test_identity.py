"""The controller's key is made once, kept from others, and never replaced by another. Protocol D and E."""

import logging
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from vestibule_core import identity
from vestibule_core.errors import IdentityMissing, IdentityUnusable

NAME = "vestibule/test"


def made(path):
    return identity.keep(path, NAME, make=True)


def found(path):
    return identity.keep(path, NAME, make=False)


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "identity.pem"
    key = made(path)
    assert key.verifier.name == NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made(path).verifier == found(path).verifier == key.verifier
    assert [file.name for file in tmp_path.iterdir()] == ["identity.pem"]


def test_a_key_that_is_missing_is_not_made_unasked(tmp_path):
    with pytest.raises(IdentityMissing, match=r"identity\.pem"):
        found(tmp_path / "identity.pem")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_start_left_is_no_key(tmp_path):
    (tmp_path / "identity.pem.new").write_text("half a k")
    with pytest.raises(IdentityMissing):
        found(tmp_path / "identity.pem")
    made(tmp_path / "identity.pem")
    assert [file.name for file in tmp_path.iterdir()] == ["identity.pem"]


def test_a_key_that_others_could_read_is_shut_and_told_of(tmp_path, caplog):
    path = tmp_path / "identity.pem"
    key = made(path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert found(path).verifier == key.verifier
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


@pytest.mark.parametrize("keep", [made, found])
def test_a_file_that_holds_no_key_is_not_replaced(tmp_path, keep):
    path = tmp_path / "identity.pem"
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\n", elliptic):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(IdentityUnusable, match=r"identity\.pem holds"):
            keep(path)
        assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(IdentityUnusable, match="nowhere"):
        made(tmp_path / "nowhere" / "identity.pem")
