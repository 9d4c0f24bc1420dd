"""Names that more than one file of the integration uses."""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "vestibule"
MANUFACTURER: Final = "Vestibule"

EVENT_ACCESS: Final = "vestibule_access"
"""Fired on the bus once for each grant, each outcome, and each refusal of a token whose signature is good."""

JOURNAL_FILE: Final = "vestibule.journal.db"

SUBENTRY_DOOR: Final = "door"
SUBENTRY_CARRIER: Final = "carrier"

CONF_BUILDING: Final = "building"

CONF_DOOR: Final = "door"
CONF_RELAY: Final = "relay"
CONF_ACCESS_TIME: Final = "access_time"
CONF_RELEASES_WHEN: Final = "releases_when"
CONF_RETURNS: Final = "returns"
CONF_REPORTS: Final = "reports"

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
