"""Names that more than one file of the integration uses."""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "vestibule"
MANUFACTURER: Final = "Vestibule"

EVENT_ACCESS: Final = "vestibule_access"
"""Fired on the bus once for each grant, each outcome, and each refusal of a token whose signature is good."""

JOURNAL_FILE: Final = "vestibule.journal.db"
IDENTITY_FILE: Final = "vestibule.identity.pem"

SUBENTRY_DOOR: Final = "door"
SUBENTRY_CARRIER: Final = "carrier"

CONF_BUILDING: Final = "building"
CONF_PERSONS_KEPT: Final = "persons_kept"

CONF_DOOR: Final = "door"
CONF_RELAY: Final = "relay"
CONF_ACCESS_TIME: Final = "access_time"
CONF_RELEASES_WHEN: Final = "releases_when"
CONF_RETURNS: Final = "returns"
CONF_REPORTS: Final = "reports"
CONF_RELAY_DOMAIN: Final = "relay_domain"
CONF_RELOCK: Final = "relock"
CONF_ON_POWER_LOSS: Final = "on_power_loss"
CONF_HELD_OPEN_TIME: Final = "held_open_time"
CONF_PRE_ALARM_TIME: Final = "pre_alarm_time"
CONF_MANUAL: Final = "manual"
CONF_PIN: Final = "pin"
CONF_PIN_SALT: Final = "salt"
CONF_PIN_DIGEST: Final = "digest"
CONF_REMOVE_PIN: Final = "remove_pin"

CONF_STRIKE: Final = "strike"
CONF_STRIKE_ID: Final = "strike_id"
CONF_ADDRESS: Final = "address"
CONF_SLOT: Final = "slot"
CONF_PSK: Final = "psk"
CONF_NEXT_PSK: Final = "next_psk"
CONF_VERSION: Final = "version"
CONF_CAPS: Final = "caps"
CONF_KEEP_CONNECTED: Final = "keep_connected"
CONF_HEARD: Final = "heard"
CONF_CODE: Final = "code"

CONF_GATEWAY: Final = "gateway"
CONF_GATEWAY_KEY: Final = "gateway_key"
CONF_FINGERPRINT: Final = "fingerprint"
CONF_NEXT_FINGERPRINT: Final = "next_fingerprint"
CONF_RIGHTS: Final = "rights"
CONF_DELETE: Final = "delete"

CONF_HOURS: Final = "hours"
CONF_HOURS_DAYS: Final = "days"
CONF_HOURS_FROM: Final = "from"
CONF_HOURS_TO: Final = "to"
CONF_RATE: Final = "rate"

CONF_ISSUER: Final = "issuer"
CONF_JWK_SET: Final = "jwk_set"
CONF_REVOKED: Final = "revoked"
CONF_DOORS: Final = "doors"
CONF_METHODS: Final = "methods"
CONF_DISTANCE: Final = "distance"
CONF_ACCURACY: Final = "accuracy"
CONF_POSITION_AGE: Final = "position_age"
CONF_REQUEST_AGE: Final = "request_age"
CONF_INTAKE_KEY_SHA256: Final = "intake_key_sha256"
CONF_NEW_INTAKE_KEY: Final = "new_intake_key"
