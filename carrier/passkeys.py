"""Passkeys: what a driver's device is asked to sign, and whether it did (WebAuthn, by the ``webauthn`` library).

A device is registered by somebody who holds an invitation. From then on it proves who asks, for one request at a time:
the challenge is SHA-256 over what exactly is asked for, so that an assertion is worth nothing for another door, stop,
place or moment. What this file refuses to do: look anything up, decide about a door, take an assertion that a page of
another origin asked for, or repeat what it was given in an error. Whether the driver was verified by the device, and
whether its counter went on, are facts for the checks; everything else that is wrong is NotProven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import options_to_json_dict, parse_attestation_object, parse_client_data_json
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from vestibule_core import b64url

ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
PATIENCE: Final = 120
"""Seconds that a device, and the driver in front of it, have for an answer."""
QUICK: Final = 50
"""Seconds for a signature: a request is old after 60."""
_FORMATS: Final = frozenset({AttestationFormat.NONE, AttestationFormat.PACKED})
"""Of statements about a device. None is asked for; a device may sign one by its new key all the same."""


class NotProven(Exception):
    """The device did not sign this, or not for this page. The message names what does not fit."""


@dataclass(frozen=True, slots=True)
class Party:
    """For whom devices sign: the page of this cloud, and no other."""

    rp_id: str
    """Its domain."""
    origin: str
    """``https://`` and its host."""
    name: str
    """As a device shows it."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a device answers to ``registration_options``."""

    credential_id: bytes
    client_data: bytes
    attestation: bytes
    transports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a device answers to ``assertion_options``."""

    credential_id: bytes
    client_data: bytes
    authenticator_data: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A device that was just registered."""

    credential_id: bytes
    public_key: bytes
    """COSE."""
    sign_count: int
    backed_up: bool
    """It is kept by a cloud of the device's maker, and on more than one device."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A signature by the device's key over exactly this challenge, for exactly this page, by somebody who was there."""

    user_verified: bool
    """The device knew its owner, by finger, face or code."""
    sign_count: int
    count_rose: bool
    """False: a copy of the device has signed in between. A device that does not count always has 0."""


def challenge_of(content: bytes) -> bytes:
    """Return the challenge for a request whose canonical content is this. It has 32 random bytes, kept here, in it."""
    return hashlib.sha256(b"vestibule-request-1\0" + content).digest()


def canonical(content: dict[str, Any]) -> bytes:
    """Return the only spelling of a request's content."""
    return json.dumps(content, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


# ---- what a device is asked ----


def registration_options(
    party: Party, challenge: bytes, *, user_handle: bytes, name: str, known: Sequence[bytes]
) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.create`` (JSON); ``known``: devices that this driver has."""
    options = generate_registration_options(
        rp_id=party.rp_id,
        rp_name=party.name,
        user_id=user_handle,
        user_name=name,
        challenge=challenge,
        timeout=PATIENCE * 1000,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,  # so that a driver can sign in without a name
            require_resident_key=True,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=each) for each in known],
        supported_pub_key_algs=ALGORITHMS,
    )
    return options_to_json_dict(options)


def assertion_options(party: Party, challenge: bytes, allowed: Sequence[bytes]) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.get`` (JSON); ``allowed``: (): any passkey for this page."""
    options = generate_authentication_options(
        rp_id=party.rp_id,
        challenge=challenge,
        timeout=QUICK * 1000,
        allow_credentials=[PublicKeyCredentialDescriptor(id=each) for each in allowed],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json_dict(options)


# ---- what it answered ----


def challenge_in(client_data: bytes) -> bytes:
    """Return the challenge that a device says it signed, to look up what it was for; raise NotProven."""
    with _foreign():
        return parse_client_data_json(client_data).challenge


def verify_registration(party: Party, challenge: bytes, answer: Registration) -> NewPasskey:
    """Return the new passkey; raise NotProven."""
    spelt = b64url.encode(answer.credential_id)
    with _foreign():
        _not_framed(answer.client_data)
        if parse_attestation_object(answer.attestation).fmt not in _FORMATS:
            raise NotProven("a statement of another format")
        verified = verify_registration_response(
            credential={
                "id": spelt,
                "rawId": spelt,
                "type": "public-key",
                "response": {
                    "clientDataJSON": b64url.encode(answer.client_data),
                    "attestationObject": b64url.encode(answer.attestation),
                },
            },
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=party.origin,
            require_user_verification=True,
            supported_pub_key_algs=ALGORITHMS,
        )
    if verified.credential_id != answer.credential_id:
        raise NotProven("another credential than it says")
    return NewPasskey(
        verified.credential_id, verified.credential_public_key, verified.sign_count, verified.credential_backed_up
    )


def verify_assertion(party: Party, challenge: bytes, answer: Assertion, *, public_key: bytes, sign_count: int) -> Proof:
    """Return what is proven by a device with this key and this last count; raise NotProven."""
    spelt = b64url.encode(answer.credential_id)
    with _foreign():
        _not_framed(answer.client_data)
        verified = verify_authentication_response(
            credential={
                "id": spelt,
                "rawId": spelt,
                "type": "public-key",
                "response": {
                    "clientDataJSON": b64url.encode(answer.client_data),
                    "authenticatorData": b64url.encode(answer.authenticator_data),
                    "signature": b64url.encode(answer.signature),
                },
            },
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=party.origin,
            credential_public_key=public_key,
            credential_current_sign_count=0,  # the count and the verification are facts of their own, below
            require_user_verification=False,
        )
    new = verified.new_sign_count
    return Proof(verified.user_verified, new, count_rose=new > sign_count or new == sign_count == 0)


def _not_framed(client_data: bytes) -> None:
    if parse_client_data_json(client_data).cross_origin:
        raise NotProven("asked for inside a page of another origin")


@contextmanager
def _foreign() -> Iterator[None]:
    """Say NotProven for whatever the library makes of bytes that a stranger chose."""
    try:
        yield
    except WebAuthnException as err:
        raise NotProven(type(err).__name__) from err
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as err:
        # It reads CBOR and COSE without asking of what type a member is: those that a stranger can bring about.
        raise NotProven("not of the form that it should have") from err
