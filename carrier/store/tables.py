"""The tables of a carrier's cloud. The migrations (migrations/) make exactly these, on SQLite and on PostgreSQL.

Coordinates stand in three places only: where a door is (``door``); in ``ceremony``, until the driver has confirmed the
wish, or retention comes by; and in ``evidence``, which is deleted when its time is over. Names stand in ``driver``,
``building``, ``door`` and ``api_key``; a parcel's reference stands in ``stop``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, override

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from carrier.checks import StopState


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware and in UTC, on SQLite as well, which knows no zones. A naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what is written."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value.astimezone(UTC)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what was read."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prefix(StrEnum):
    """What an id is of: its first word."""

    DRIVER = "driver"
    DEVICE = "device"
    BUILDING = "building"
    ROUTE = "route"
    STOP = "stop"
    REQUEST = "req"
    API_KEY = "key"


def new_id(of: Prefix) -> str:
    """Return a new id: ``driver:`` and 26 lower-case base32 characters that hold 128 random bits."""
    return f"{of}:{base64.b32encode(os.urandom(16)).decode().rstrip('=').lower()}"


def is_id(text: str, prefix: str) -> bool:
    """Return whether ``text`` is an id with this prefix. Nothing else is asked of the database: of what no text column
    holds (NUL, a lone surrogate), PostgreSQL and SQLite each make an error of their own.
    """
    return text.startswith(f"{prefix}:") and _RANDOM.fullmatch(text, len(prefix) + 1) is not None


_RANDOM: Final = re.compile("[a-z2-7]{26}")


def sha256(secret: str | bytes) -> bytes:
    """Return what is kept of a secret, and what it is found by."""
    return hashlib.sha256(secret if isinstance(secret, bytes) else secret.encode(errors="replace")).digest()


class RequestState(StrEnum):
    """What became of a driver's wish for a door."""

    ASKED = "asked"
    """Confirmed, and its door is claimed; nothing is signed yet."""
    REFUSED = "refused"
    """One of the four confirmations failed. Nothing was signed."""
    UNREACHABLE = "unreachable"
    """Confirmed, but the building gave no challenge, or its token certainly never left."""
    SIGNED = "signed"
    """A token is written down as issued, and may be on its way. Its outcome is not known yet."""
    GRANTED = "granted"
    """The building says that it released the door."""
    REFUSED_BY_BUILDING = "refused_by_building"
    """The building says that it did not."""
    UNKNOWN = "unknown"
    """A token left, or may have left, and nobody knows whether the door moved."""


class KeyUse(StrEnum):
    """What a key of the carrier signs."""

    TOKENS = "sig"
    ISSUED = "issued"
    """The daily list of what was issued."""


Id: Final = String(40)
DoorIdText: Final = String(31)
B64_16: Final = String(22)
B64_32: Final = String(43)


class Base(DeclarativeBase):
    """The root of all tables; constraints have names, so that a migration can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        datetime: UtcDateTime(),
        date: Date(),
        str: Text(),
        float: Double(),
        bytes: LargeBinary(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


def _one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(f"'{word}'" for word in words)})", name=column)


class Driver(Base):
    """Somebody who delivers. Removed, only the id is left, for what was recorded."""

    __tablename__ = "driver"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str | None]
    active: Mapped[bool]
    vetted_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Device(Base):
    """A passkey of a driver."""

    __tablename__ = "device"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    driver_id: Mapped[str] = mapped_column(Id, ForeignKey("driver.id"), index=True)
    credential_id: Mapped[bytes] = mapped_column(unique=True)
    public_key: Mapped[bytes]
    """COSE, as the authenticator gave it."""
    sign_count: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    backed_up: Mapped[bool]
    transports: Mapped[list[Any]]


class Invitation(Base):
    """A one-time link by which a driver adds a device. Only the hash of its secret is kept."""

    __tablename__ = "invitation"
    secret_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    driver_id: Mapped[str] = mapped_column(Id, ForeignKey("driver.id"), index=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Ceremony(Base):
    """A WebAuthn challenge that was given out, for one use. Only its hash is kept."""

    __tablename__ = "ceremony"
    __table_args__ = (CheckConstraint("kind IN ('register', 'request', 'sign_in')", name="kind"),)
    challenge_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    driver_id: Mapped[str | None] = mapped_column(Id, ForeignKey("driver.id"), index=True)
    """None: whoever signs in."""
    payload: Mapped[dict[str, Any]]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Session(Base):
    """A browser in which a device has signed in: it sees today's stops, and may ask. To open, each request needs the
    passkey. Only the hash of its secret is kept.
    """

    __tablename__ = "session"
    secret_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(Id, ForeignKey("device.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Building(Base):
    """A building whose doors the carrier may ask for."""

    __tablename__ = "building"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    zone: Mapped[str] = mapped_column(String(64))
    """IANA name of its time zone."""
    enrolled_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Controller(Base):
    """A program that opens doors of a building: Home Assistant, or a gateway with a link of its own."""

    __tablename__ = "controller"
    key: Mapped[str] = mapped_column(primary_key=True)
    """What it signs with, as a verifier key: name+id+key."""
    building_id: Mapped[str] = mapped_column(Id, ForeignKey("building.id"), index=True)
    enrolled_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class BuildingInvitation(Base):
    """An enrolment code, for one controller. Only the hash of its secret is kept."""

    __tablename__ = "building_invitation"
    secret_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    name: Mapped[str]
    """Of the building that is to be."""
    building_id: Mapped[str | None] = mapped_column(Id, ForeignKey("building.id"))
    """Which one is to be joined; None: a new one."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[str | None]
    """The controller's key."""


class Replica(Base):
    """A program that serves the cloud, as long as it says that it is there."""

    __tablename__ = "replica"
    id: Mapped[str] = mapped_column(B64_16, primary_key=True)
    """Another one with each start."""
    seen_at: Mapped[datetime]


class Link(Base):
    """A controller is connected, and to whom. A dead replica's stay until another one clears up."""

    __tablename__ = "link"
    controller_key: Mapped[str] = mapped_column(ForeignKey("controller.key"), primary_key=True)
    replica: Mapped[str] = mapped_column(B64_16, index=True)
    connection: Mapped[str] = mapped_column(B64_16)
    """Which one: nothing that was meant for this is sent over the next."""
    inst: Mapped[str] = mapped_column(B64_16)
    """Of the controller: another one with each of its starts."""
    since: Mapped[datetime]


class Door(Base):
    """A door of a building. The id is the building's."""

    __tablename__ = "door"
    id: Mapped[str] = mapped_column(DoorIdText, primary_key=True)
    building_id: Mapped[str] = mapped_column(Id, ForeignKey("building.id"), index=True)
    name: Mapped[str]
    lat: Mapped[float | None]
    lon: Mapped[float | None]
    position_radius_m: Mapped[int | None] = mapped_column(Integer)
    """Metres within which a phone has to be; None: the cloud's limit."""


class DoorController(Base):
    """Which controller offers which door, by its newest hello."""

    __tablename__ = "door_controller"
    door_id: Mapped[str] = mapped_column(DoorIdText, ForeignKey("door.id"), primary_key=True)
    controller_key: Mapped[str] = mapped_column(ForeignKey("controller.key"), primary_key=True, index=True)


class Route(Base):
    """The ordered stops of one driver on one day."""

    __tablename__ = "route"
    __table_args__ = (Index(None, "driver_id", "day"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[date]
    driver_id: Mapped[str] = mapped_column(Id, ForeignKey("driver.id"))
    shift_from: Mapped[datetime]
    shift_to: Mapped[datetime]
    source: Mapped[str]
    """Who brought it: ``command``, or the id of an API key."""
    created_at: Mapped[datetime]


class Stop(Base):
    """One delivery address of a route."""

    __tablename__ = "stop"
    __table_args__ = (UniqueConstraint("route_id", "seq"), _one_of("state", StopState))
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    route_id: Mapped[str] = mapped_column(Id, ForeignKey("route.id"))
    seq: Mapped[int] = mapped_column(Integer)
    building_id: Mapped[str] = mapped_column(Id, ForeignKey("building.id"), index=True)
    window_from: Mapped[datetime]
    window_to: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(10))
    reference: Mapped[str | None]
    """The dispatcher's own, of a parcel; deleted at retention."""


class StopDoor(Base):
    """A door on the path of a stop. It is claimed by one request, ever, unless nothing was signed for that."""

    __tablename__ = "stop_door"
    __table_args__ = (UniqueConstraint("stop_id", "door_id"),)
    stop_id: Mapped[str] = mapped_column(Id, ForeignKey("stop.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    door_id: Mapped[str] = mapped_column(DoorIdText, ForeignKey("door.id"), index=True)
    opened_by: Mapped[str | None] = mapped_column(Id, ForeignKey("request.id"))


class Request(Base):
    """A driver asked for one door of a stop."""

    __tablename__ = "request"
    __table_args__ = (_one_of("state", RequestState), Index(None, "device_id", "asked_at"), Index(None, "state"))
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    driver_id: Mapped[str] = mapped_column(Id, index=True)
    device_id: Mapped[str] = mapped_column(Id)
    stop_id: Mapped[str] = mapped_column(Id)
    """All as asked: there may be no such thing, or no more."""
    door_id: Mapped[str] = mapped_column(DoorIdText)
    asked_at: Mapped[datetime] = mapped_column(index=True)
    decided_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(20))
    code: Mapped[str | None] = mapped_column(String(40))
    """The reason of the first confirmation that failed, or the building's code."""
    signed_jti: Mapped[str | None] = mapped_column(B64_16)
    told: Mapped[list[Any]]
    """Each confirmation: check, passed, reason. Never what was measured."""
    evidence_digest: Mapped[str] = mapped_column(B64_32)


class Evidence(Base):
    """All that a decision was made of, coordinates included, until ``delete_after``."""

    __tablename__ = "evidence"
    request_id: Mapped[str] = mapped_column(Id, ForeignKey("request.id"), primary_key=True)
    salt: Mapped[bytes]
    record: Mapped[bytes]
    """JSON; these very bytes are what the digest is of."""
    delete_after: Mapped[datetime] = mapped_column(index=True)


class SigningKey(Base):
    """A key of the carrier; the private part is in a file."""

    __tablename__ = "signing_key"
    __table_args__ = (CheckConstraint("\"use\" IN ('sig', 'issued')", name="use"),)
    kid: Mapped[str] = mapped_column(B64_32, primary_key=True)
    use: Mapped[str] = mapped_column(String(10))
    public: Mapped[dict[str, Any]]
    """JWK."""
    made_at: Mapped[datetime]
    sign_from: Mapped[datetime]
    sign_until: Mapped[datetime]
    publish_until: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    file: Mapped[str]
    """Its name in the keys folder."""


class KeySet(Base):
    """A set of keys that the root signed."""

    __tablename__ = "key_set"
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str]
    root: Mapped[bytes]
    """The raw public key that signed it."""
    kids: Mapped[list[Any]]
    """Which keys are in it."""
    root_kid: Mapped[str] = mapped_column(B64_32)
    next_root: Mapped[str | None] = mapped_column(B64_32)
    """SHA-256 of the raw public key that may follow this root."""
    iat: Mapped[int] = mapped_column(BigInteger)
    exp: Mapped[int] = mapped_column(BigInteger)


class Issued(Base):
    """A token that was signed: written down before it leaves."""

    __tablename__ = "issued"
    __table_args__ = (Index(None, "building_id", "iat"),)
    jti: Mapped[str] = mapped_column(B64_16, primary_key=True)
    door_id: Mapped[str] = mapped_column(DoorIdText)
    building_id: Mapped[str] = mapped_column(Id)
    iat: Mapped[int] = mapped_column(BigInteger)
    """UTC seconds, as in the token."""
    request_id: Mapped[str] = mapped_column(Id, ForeignKey("request.id"), unique=True)


class OutcomeTold(Base):
    """What a building said about a token."""

    __tablename__ = "outcome"
    jti: Mapped[str] = mapped_column(B64_16, ForeignKey("issued.jti"), primary_key=True)
    word: Mapped[str] = mapped_column(String(20))
    code: Mapped[str | None] = mapped_column(String(40))
    at: Mapped[datetime]


class Pseudonym(Base):
    """By what a building knows a driver (``sub``), a stop (``stp``) or a route (``rte``): random, and another one in
    each building; that of a driver in each month, too.
    """

    __tablename__ = "pseudonym"
    __table_args__ = (CheckConstraint("kind IN ('sub', 'stp', 'rte')", name="kind"),)
    kind: Mapped[str] = mapped_column(String(3), primary_key=True)
    subject_id: Mapped[str] = mapped_column(Id, primary_key=True)
    building_id: Mapped[str] = mapped_column(Id, ForeignKey("building.id"), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    """UTC, ``2026-11``; empty for what does not rotate."""
    value: Mapped[str] = mapped_column(B64_16, unique=True)


class ApiKey(Base):
    """A dispatcher's key. Only its hash is kept."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    sha256: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class AlarmKind(StrEnum):
    """What somebody has to look into."""

    NEVER_ISSUED = "never_issued"
    """A building accepted a token that this cloud did not issue for that door: a signing key may be stolen."""
    CONTRADICTED = "contradicted"
    """A building accepted a token that it had answered otherwise, or that never left."""
    SECOND_LINK = "second_link"
    """Two programs are one controller at the same time: a copy, or a stolen identity."""
    DOOR_OF_ANOTHER = "door_of_another"
    """A controller offers a door that another building has, or a removed one had."""


class Alarm(Base):
    """Something that must not be. It stays until somebody has seen it."""

    __tablename__ = "alarm"
    __table_args__ = (
        _one_of("kind", AlarmKind),
        Index(None, "building_id", "kind", "subject"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(20))
    building_id: Mapped[str | None] = mapped_column(Id)
    subject: Mapped[str] = mapped_column(String(60))
    """Of a token, its jti; of a controller, the thumbprint of its key; of a door, its id; ``more``: of many."""
    detail: Mapped[dict[str, Any]]
    seen_at: Mapped[datetime | None]
    seen_by: Mapped[str | None] = mapped_column(String(60))


class Audit(Base):
    """Each change by anybody: by ids, never by names."""

    __tablename__ = "audit"
    __table_args__ = ({"sqlite_autoincrement": True},)
    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(60))
    what: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(60), index=True)
    detail: Mapped[dict[str, Any]]
