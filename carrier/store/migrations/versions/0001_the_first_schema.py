"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward. There is no way back but the backup."""
    op.create_table(
        "alarm",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=True),
        sa.Column("subject", sa.String(length=60), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_by", sa.String(length=60), nullable=True),
        sa.CheckConstraint(
            "kind IN ('never_issued', 'contradicted', 'second_link', 'door_of_another')", name=op.f("ck_alarm_kind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_alarm_building_id_kind_subject"), "alarm", ["building_id", "kind", "subject"], unique=False
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_key_sha256")),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=60), nullable=False),
        sa.Column("what", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=60), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"], unique=False)
    op.create_table(
        "building",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_building")),
    )
    op.create_table(
        "driver",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("vetted_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_driver")),
    )
    op.create_table(
        "key_set",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("kids", sa.JSON(), nullable=False),
        sa.Column("root_kid", sa.String(length=43), nullable=False),
        sa.Column("next_root", sa.String(length=43), nullable=True),
        sa.Column("iat", sa.BigInteger(), nullable=False),
        sa.Column("exp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_key_set")),
    )
    op.create_table(
        "replica",
        sa.Column("id", sa.String(length=22), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replica")),
    )
    op.create_table(
        "request",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("driver_id", sa.String(length=40), nullable=False),
        sa.Column("device_id", sa.String(length=40), nullable=False),
        sa.Column("stop_id", sa.String(length=40), nullable=False),
        sa.Column("door_id", sa.String(length=31), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=True),
        sa.Column("signed_jti", sa.String(length=22), nullable=True),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("evidence_digest", sa.String(length=43), nullable=False),
        sa.CheckConstraint(
            "state IN ('asked', 'refused', 'unreachable', 'signed', 'granted', 'refused_by_building', 'unknown')",
            name=op.f("ck_request_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request")),
    )
    op.create_index(op.f("ix_request_asked_at"), "request", ["asked_at"], unique=False)
    op.create_index(op.f("ix_request_device_id_asked_at"), "request", ["device_id", "asked_at"], unique=False)
    op.create_index(op.f("ix_request_driver_id"), "request", ["driver_id"], unique=False)
    op.create_index(op.f("ix_request_state"), "request", ["state"], unique=False)
    op.create_table(
        "signing_key",
        sa.Column("kid", sa.String(length=43), nullable=False),
        sa.Column("use", sa.String(length=10), nullable=False),
        sa.Column("public", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sign_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sign_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("publish_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("file", sa.Text(), nullable=False),
        sa.CheckConstraint("\"use\" IN ('sig', 'issued')", name=op.f("ck_signing_key_use")),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_key")),
    )
    op.create_table(
        "building_invitation",
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["building_id"], ["building.id"], name=op.f("fk_building_invitation_building_id")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_building_invitation")),
    )
    op.create_table(
        "ceremony",
        sa.Column("challenge_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("driver_id", sa.String(length=40), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('register', 'request', 'sign_in')", name=op.f("ck_ceremony_kind")),
        sa.ForeignKeyConstraint(["driver_id"], ["driver.id"], name=op.f("fk_ceremony_driver_id")),
        sa.PrimaryKeyConstraint("challenge_sha256", name=op.f("pk_ceremony")),
    )
    op.create_index(op.f("ix_ceremony_driver_id"), "ceremony", ["driver_id"], unique=False)
    op.create_table(
        "controller",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["building_id"], ["building.id"], name=op.f("fk_controller_building_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_controller")),
    )
    op.create_index(op.f("ix_controller_building_id"), "controller", ["building_id"], unique=False)
    op.create_table(
        "device",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("driver_id", sa.String(length=40), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("backed_up", sa.Boolean(), nullable=False),
        sa.Column("transports", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["driver_id"], ["driver.id"], name=op.f("fk_device_driver_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
        sa.UniqueConstraint("credential_id", name=op.f("uq_device_credential_id")),
    )
    op.create_index(op.f("ix_device_driver_id"), "device", ["driver_id"], unique=False)
    op.create_table(
        "door",
        sa.Column("id", sa.String(length=31), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lat", sa.Double(), nullable=True),
        sa.Column("lon", sa.Double(), nullable=True),
        sa.Column("position_radius_m", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["building_id"], ["building.id"], name=op.f("fk_door_building_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_door")),
    )
    op.create_index(op.f("ix_door_building_id"), "door", ["building_id"], unique=False)
    op.create_table(
        "evidence",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("delete_after", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_evidence_request_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_evidence")),
    )
    op.create_index(op.f("ix_evidence_delete_after"), "evidence", ["delete_after"], unique=False)
    op.create_table(
        "invitation",
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("driver_id", sa.String(length=40), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["driver_id"], ["driver.id"], name=op.f("fk_invitation_driver_id")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_invitation")),
    )
    op.create_index(op.f("ix_invitation_driver_id"), "invitation", ["driver_id"], unique=False)
    op.create_table(
        "issued",
        sa.Column("jti", sa.String(length=22), nullable=False),
        sa.Column("door_id", sa.String(length=31), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=False),
        sa.Column("iat", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_issued_request_id")),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_issued")),
        sa.UniqueConstraint("request_id", name=op.f("uq_issued_request_id")),
    )
    op.create_index(op.f("ix_issued_building_id_iat"), "issued", ["building_id", "iat"], unique=False)
    op.create_table(
        "pseudonym",
        sa.Column("kind", sa.String(length=3), nullable=False),
        sa.Column("subject_id", sa.String(length=40), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("value", sa.String(length=22), nullable=False),
        sa.CheckConstraint("kind IN ('sub', 'stp', 'rte')", name=op.f("ck_pseudonym_kind")),
        sa.ForeignKeyConstraint(["building_id"], ["building.id"], name=op.f("fk_pseudonym_building_id")),
        sa.PrimaryKeyConstraint("kind", "subject_id", "building_id", "month", name=op.f("pk_pseudonym")),
        sa.UniqueConstraint("value", name=op.f("uq_pseudonym_value")),
    )
    op.create_table(
        "route",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("driver_id", sa.String(length=40), nullable=False),
        sa.Column("shift_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shift_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["driver_id"], ["driver.id"], name=op.f("fk_route_driver_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_route")),
    )
    op.create_index(op.f("ix_route_driver_id_day"), "route", ["driver_id", "day"], unique=False)
    op.create_table(
        "door_controller",
        sa.Column("door_id", sa.String(length=31), nullable=False),
        sa.Column("controller_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["controller_key"], ["controller.key"], name=op.f("fk_door_controller_controller_key")),
        sa.ForeignKeyConstraint(["door_id"], ["door.id"], name=op.f("fk_door_controller_door_id")),
        sa.PrimaryKeyConstraint("door_id", "controller_key", name=op.f("pk_door_controller")),
    )
    op.create_index(op.f("ix_door_controller_controller_key"), "door_controller", ["controller_key"], unique=False)
    op.create_table(
        "link",
        sa.Column("controller_key", sa.Text(), nullable=False),
        sa.Column("replica", sa.String(length=22), nullable=False),
        sa.Column("connection", sa.String(length=22), nullable=False),
        sa.Column("inst", sa.String(length=22), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["controller_key"], ["controller.key"], name=op.f("fk_link_controller_key")),
        sa.PrimaryKeyConstraint("controller_key", name=op.f("pk_link")),
    )
    op.create_index(op.f("ix_link_replica"), "link", ["replica"], unique=False)
    op.create_table(
        "outcome",
        sa.Column("jti", sa.String(length=22), nullable=False),
        sa.Column("word", sa.String(length=20), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["jti"], ["issued.jti"], name=op.f("fk_outcome_jti")),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_outcome")),
    )
    op.create_table(
        "session",
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_session_device_id")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_session")),
    )
    op.create_index(op.f("ix_session_device_id"), "session", ["device_id"], unique=False)
    op.create_table(
        "stop",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("route_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("building_id", sa.String(length=40), nullable=False),
        sa.Column("window_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("window_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('due', 'done', 'cancelled')", name=op.f("ck_stop_state")),
        sa.ForeignKeyConstraint(["building_id"], ["building.id"], name=op.f("fk_stop_building_id")),
        sa.ForeignKeyConstraint(["route_id"], ["route.id"], name=op.f("fk_stop_route_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stop")),
        sa.UniqueConstraint("route_id", "seq", name=op.f("uq_stop_route_id_seq")),
    )
    op.create_index(op.f("ix_stop_building_id"), "stop", ["building_id"], unique=False)
    op.create_table(
        "stop_door",
        sa.Column("stop_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("door_id", sa.String(length=31), nullable=False),
        sa.Column("opened_by", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["door_id"], ["door.id"], name=op.f("fk_stop_door_door_id")),
        sa.ForeignKeyConstraint(["opened_by"], ["request.id"], name=op.f("fk_stop_door_opened_by")),
        sa.ForeignKeyConstraint(["stop_id"], ["stop.id"], name=op.f("fk_stop_door_stop_id")),
        sa.PrimaryKeyConstraint("stop_id", "position", name=op.f("pk_stop_door")),
        sa.UniqueConstraint("stop_id", "door_id", name=op.f("uq_stop_door_stop_id_door_id")),
    )
    op.create_index(op.f("ix_stop_door_door_id"), "stop_door", ["door_id"], unique=False)
