"""The forms of a carrier: by the enrolment code of its cloud, or by a key set and an intake key of ours.

By code, this Home Assistant connects to the cloud at once, and has it name its carrier and its keys: there is nothing
else to compare, since the code holds the root's fingerprint. That enrols it at the cloud. Whoever goes no further has
let nobody in: no key was kept and no door answers, and the same code may be entered again. An intake key is made here,
shown once and kept only as a hash. Each error leaves what was typed in the form, but for what holds a secret: a code
that was used up, or a private key, whose owner has to replace it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import probatio
from homeassistant.components.http.const import KEY_HASS_USER
from homeassistant.config_entries import (
    SOURCE_USER,
    ConfigEntryState,
    ConfigSubentry,
    ConfigSubentryFlow,
    SubentryFlowResult,
)
from homeassistant.const import CONF_HOST, CONF_NAME
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers.http import current_request
from homeassistant.helpers.network import NoURLAvailableError, get_url
from homeassistant.helpers.selector import (
    BooleanSelector,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
from homeassistant.util import dt as dt_util

from .actor import async_actor
from .building import enrolment_of, known_keys
from .const import (
    CONF_ACCURACY,
    CONF_APPROVE,
    CONF_CODE,
    CONF_DISTANCE,
    CONF_DOORS,
    CONF_HOURS,
    CONF_INTAKE_KEY_SHA256,
    CONF_ISSUER,
    CONF_JWK_SET,
    CONF_METHODS,
    CONF_NEW_INTAKE_KEY,
    CONF_POSITION_AGE,
    CONF_RATE,
    CONF_REQUEST_AGE,
    CONF_REVOKED,
    SUBENTRY_CARRIER,
    SUBENTRY_DOOR,
)
from .embedded import doors_elsewhere
from .forms import (
    NAME,
    NO_FIELDS,
    Errors,
    UserInput,
    choices,
    number,
    stored_door_id,
    subentries,
    typed_hours,
    typed_name,
    weekly,
)
from .link import enrol_here, stored_key_set
from .vestibule_core.errors import KeySetInvalid
from .vestibule_core.keys import TrustedKey, import_jwk_set
from .vestibule_core.link.client import Enrolled, NotLinked, WrongIssuer
from .vestibule_core.link.code import CodeInvalid, EnrolmentCode
from .vestibule_core.link.messages import MAX_DOORS
from .vestibule_core.link.standing import LinkState
from .vestibule_core.model import Issuer, issuer
from .vestibule_core.policy import EvidenceLimits
from .vestibule_core.token import DriverProof

_RATE: Final = (1, 1000)
_DEFAULT_RATE: Final = 12

_DEFAULTS: Final = EvidenceLimits()
_LIMITS: Final[Mapping[str, tuple[int, int, int, str]]] = {
    # field: default, least, most, unit
    CONF_DISTANCE: (_DEFAULTS.distance, 1, 1000, "m"),
    CONF_ACCURACY: (_DEFAULTS.accuracy, 1, 1000, "m"),
    CONF_POSITION_AGE: (_DEFAULTS.position_age, 1, 300, "s"),
    CONF_REQUEST_AGE: (_DEFAULTS.request_age, 1, 600, "s"),
}
_NOT_LINKED: Final = {
    LinkState.UNREACHABLE: "enrol_unreachable",
    LinkState.CERTIFICATE: "enrol_certificate",
    LinkState.NO_CLOUD: "enrol_no_cloud",
    LinkState.NOT_ENROLLED: "enrol_turned_away",
    LinkState.CODE_UNUSABLE: "enrol_code_unusable",
}
"""What is wrong with a cloud that did not enrol this building; anything else passes by itself."""
_NOT_TAKEN: Final = {
    "wrong_root": "enrol_wrong_root",
    "anothers_key": "enrol_anothers_key",
    "expired": "enrol_set_expired",
}
"""What is wrong with its key set, as far as somebody can do something about it."""
_TEXT: Final = TextSelector(TextSelectorConfig(multiline=True))
"""For what is pasted: a key set, or a code, in which white space means nothing."""


class CarrierFlow(ConfigSubentryFlow):
    """A carrier: whose tokens open which doors, signed with which keys, after how good a look at the driver."""

    def __init__(self) -> None:
        """Begin without a carrier."""
        self._title = ""
        self._data: dict[str, Any] = {}
        self._keys: tuple[TrustedKey, ...] = ()
        self._intake_key: str | None = None
        """In clear only while this flow lives."""
        self._enrolled: Enrolled | None = None

    async def async_step_user(self, _: UserInput | None = None) -> SubentryFlowResult:
        """Ask how the carrier comes to its doors."""
        return self.async_show_menu(step_id="user", menu_options=["code", "keys"])

    async def async_step_reconfigure(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change a carrier."""
        if CONF_HOST in self._get_reconfigure_subentry().data:
            return await self.async_step_linked()
        return await self._keys_again(user_input)

    # ---- by an enrolment code ----

    async def async_step_code(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for the code and what the carrier may, and connect to its cloud."""
        fields = {probatio.Required(CONF_CODE): _TEXT, **await self._terms()}
        if user_input is None:
            return self._show("code", fields, {CONF_RATE: _DEFAULT_RATE})
        errors: Errors = {}
        placeholders: dict[str, str] = {}
        self._data = self._take_terms(user_input, errors, placeholders)
        code = _code(user_input[CONF_CODE], errors)
        if not user_input[CONF_DOORS]:
            errors[CONF_DOORS] = "doors_empty"
        elif len(user_input[CONF_DOORS]) > MAX_DOORS:
            errors[CONF_DOORS] = "doors_too_many"
        if code is not None and not errors:
            await self._enrol(code, errors, placeholders)
        if errors:
            return self._show("code", fields, user_input, errors, placeholders)
        return await self.async_step_enrolled()

    async def async_step_enrolled(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show whose cloud it is, and let the carrier in."""
        enrolled = self._enrolled
        assert enrolled is not None
        fields: dict[probatio.Marker, Any] = {probatio.Required(CONF_NAME): NAME}
        shown = {
            "issuer": enrolled.issuer,
            "host": self._data[CONF_HOST],
            "root": _grouped(enrolled.root.fingerprint.hex()),
            "keys": "\n".join(f"- `{key.kid}`" for key in enrolled.published.trusted),
            "until": _date(enrolled.published.expires_at),
        }
        if user_input is None:
            return self._show("enrolled", fields, {CONF_NAME: enrolled.name}, None, shown, last=True)
        errors: Errors = {}
        self._title = typed_name(user_input, errors)
        if errors:
            return self._show("enrolled", fields, user_input, errors, shown, last=True)
        return self.async_create_entry(title=self._title, data=self._data, unique_id=self._data[CONF_ISSUER])

    async def async_step_linked(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Change what a carrier that is linked may do; and let one in again that is locked out."""
        subentry = self._get_reconfigure_subentry()
        entry = self._get_entry()
        links = entry.runtime_data.links if entry.state is ConfigEntryState.LOADED else None
        name = Issuer(subentry.data[CONF_ISSUER])
        is_locked_out = links is not None and name in links.locked_out
        fields: dict[probatio.Marker, Any] = {probatio.Required(CONF_NAME): NAME, **await self._terms()}
        if is_locked_out:
            fields = {probatio.Required(CONF_APPROVE, default=False): BooleanSelector(), **fields}
        shown = {"issuer": name, "host": subentry.data[CONF_HOST], **_key_set_shown(subentry)}
        if user_input is None:
            return self._show("linked", fields, {**subentry.data, CONF_NAME: subentry.title}, None, shown)
        errors: Errors = {}
        self._title = typed_name(user_input, errors)
        terms = self._take_terms(user_input, errors, shown)
        if len(user_input[CONF_DOORS]) > MAX_DOORS:
            errors[CONF_DOORS] = "doors_too_many"
        if errors:
            return self._show("linked", fields, user_input, errors, shown)
        if links is not None and user_input.get(CONF_APPROVE):
            origin = Context(user_id=_user_id())
            decision = await links.approve(name, await async_actor(self.hass, origin), origin)
            if not decision.granted:
                return self._show("linked", fields, user_input, {CONF_APPROVE: "store_failed"}, shown)
        return self.async_update_and_abort(entry, subentry, title=self._title, data_updates=terms)

    async def _enrol(self, code: EnrolmentCode, errors: Errors, placeholders: dict[str, str]) -> None:
        """Connect to the carrier's cloud and keep what it says, or say why that cannot be."""
        entry = self._get_entry()
        if entry.state is not ConfigEntryState.LOADED:
            errors["base"] = "not_loaded"
            return
        placeholders["host"] = code.host
        others = list(subentries(entry, SUBENTRY_CARRIER))
        taken = {Issuer(str(other.data.get(CONF_ISSUER))) for other in others}
        kids = {key.kid for other in others for key in known_keys(other)}
        try:
            enrolled = await enrol_here(self.hass, entry.runtime_data, code, self._data[CONF_DOORS], taken, kids)
        except NotLinked as err:
            errors["base"] = _NOT_LINKED.get(err.state, "enrol_busy")
            return
        except WrongIssuer as err:
            errors["base"] = "enrol_issuer_used"
            placeholders["issuer"] = err.said
            return
        except KeySetInvalid as err:
            errors["base"] = _NOT_TAKEN.get(err.reason, "enrol_set_refused")
            placeholders["detail"] = err.reason
            return
        self._enrolled = enrolled
        self._data |= {
            CONF_HOST: code.host,
            CONF_ISSUER: enrolled.issuer,
            **stored_key_set(enrolled.root, enrolled.text, enrolled.published),
        }

    # ---- by a key set ----

    async def async_step_keys(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Ask for a new carrier."""
        if user_input is None:
            return await self._ask("keys", {CONF_RATE: _DEFAULT_RATE})
        if refused := await self._take("keys", user_input, None):
            return refused
        self._data[CONF_REVOKED] = []
        self._new_intake_key()
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show the keys' fingerprints, to be compared with what the carrier says."""
        if user_input is None:
            return self.async_show_form(
                step_id="confirm",
                data_schema=NO_FIELDS,
                description_placeholders={
                    "name": self._title,
                    "keys": "\n".join(f"- `{key.kid}` ({key.alg})" for key in self._keys),
                },
                last_step=self._intake_key is None,
            )
        return await self._save_or_show_key()

    async def async_step_intake_key(self, user_input: UserInput | None = None) -> SubentryFlowResult:
        """Show the new intake key, this once."""
        if user_input is None:
            assert self._intake_key is not None
            chosen = self._data[CONF_DOORS]
            doors = [f"- {door['label']}: `{door['value']}`" for door in self._doors if door["value"] in chosen]
            return self.async_show_form(
                step_id="intake_key",
                data_schema=NO_FIELDS,
                description_placeholders={
                    "name": self._title,
                    "address": _address(self.hass),
                    "doors": "\n".join(doors) or "...",
                    "intake_key": self._intake_key,
                },
                last_step=True,
            )
        return self._save()

    async def _keys_again(self, user_input: UserInput | None) -> SubentryFlowResult:
        """Change a carrier, revoke its keys or give it a new intake key."""
        subentry = self._get_reconfigure_subentry()
        known = known_keys(subentry)
        if user_input is None:
            return await self._ask("reconfigure", {**subentry.data, CONF_NAME: subentry.title}, known=known)
        if refused := await self._take("reconfigure", user_input, subentry, known):
            return refused
        kids = {key.kid for key in self._keys}
        # A key that was revoked and is in the set no more stays revoked: it may come back with an old set.
        gone = set(subentry.data.get(CONF_REVOKED) or ()) - {key.kid for key in known}
        self._data[CONF_REVOKED] = sorted(gone | set(user_input[CONF_REVOKED]))
        if user_input[CONF_NEW_INTAKE_KEY]:
            self._new_intake_key()
        if kids - {key.kid for key in known}:
            return await self.async_step_confirm()
        return await self._save_or_show_key()

    async def _save_or_show_key(self) -> SubentryFlowResult:
        return self._save() if self._intake_key is None else await self.async_step_intake_key()

    def _save(self) -> SubentryFlowResult:
        if self.source == SOURCE_USER:
            return self.async_create_entry(title=self._title, data=self._data, unique_id=self._data[CONF_ISSUER])
        return self.async_update_and_abort(
            self._get_entry(),
            self._get_reconfigure_subentry(),
            title=self._title,
            data_updates=self._data,
            unique_id=self._data[CONF_ISSUER],
        )

    def _new_intake_key(self) -> None:
        self._intake_key = secrets.token_urlsafe(32)
        self._data[CONF_INTAKE_KEY_SHA256] = hashlib.sha256(self._intake_key.encode()).hexdigest()

    # ---- the forms ----

    @property
    def _doors(self) -> list[SelectOptionDict]:
        """The building's doors, and those that its gateways have."""
        here = [
            SelectOptionDict(value=door, label=subentry.title)
            for subentry in subentries(self._get_entry(), SUBENTRY_DOOR)
            if (door := stored_door_id(subentry)) is not None
        ]
        elsewhere = doors_elsewhere(self.hass).items()
        return here + [SelectOptionDict(value=door, label=name) for door, name in elsewhere]

    async def _terms(self) -> dict[probatio.Marker, Any]:
        """Return the fields for what a carrier may."""
        return {
            probatio.Required(CONF_DOORS, default=list): choices(self._doors),
            probatio.Required(CONF_METHODS, default=sorted(_DEFAULTS.methods)): SelectSelector(
                SelectSelectorConfig(
                    options=[proof.value for proof in DriverProof], multiple=True, translation_key=CONF_METHODS
                )
            ),
            **{
                probatio.Required(field, default=default): number(1, unit)
                for field, (default, _, _, unit) in _LIMITS.items()
            },
            probatio.Optional(CONF_HOURS): await weekly(self.hass),
            probatio.Optional(CONF_RATE): number(1),
        }

    @staticmethod
    def _take_terms(user_input: UserInput, errors: Errors, placeholders: dict[str, str]) -> dict[str, Any]:
        """Return what a carrier may, as it is stored; nothing if anything is wrong, which is added to ``errors``."""
        if not user_input[CONF_METHODS]:
            errors[CONF_METHODS] = "methods_empty"
        for field, (_, least, most, _) in _LIMITS.items():
            if not least <= user_input[field] <= most:
                errors[field] = f"{field}_range"
        rate = user_input.get(CONF_RATE)
        if rate is not None and not _RATE[0] <= rate <= _RATE[1]:
            errors[CONF_RATE] = "rate_range"
        hours = typed_hours(user_input, errors, placeholders)
        if errors:
            return {}
        return {
            CONF_DOORS: user_input[CONF_DOORS],
            CONF_METHODS: user_input[CONF_METHODS],
            **{field: int(user_input[field]) for field in _LIMITS},
            CONF_HOURS: hours,
            CONF_RATE: None if rate is None else int(rate),
        }

    async def _ask(
        self,
        step: str,
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: dict[str, str] | None = None,
        known: tuple[TrustedKey, ...] = (),
    ) -> SubentryFlowResult:
        """Show the page of a carrier with a key set."""
        fields: dict[probatio.Marker, Any] = {
            probatio.Required(CONF_NAME): NAME,
            probatio.Required(CONF_ISSUER): TextSelector(TextSelectorConfig(type=TextSelectorType.URL)),
            probatio.Required(CONF_JWK_SET): _TEXT,
            **await self._terms(),
        }
        shown = dict(values)
        if step == "reconfigure":
            keys = [SelectOptionDict(value=key.kid, label=f"{key.kid} ({key.alg})") for key in known]
            fields[probatio.Required(CONF_REVOKED, default=list)] = choices(keys)
            fields[probatio.Required(CONF_NEW_INTAKE_KEY, default=False)] = BooleanSelector()
            offered = {key.kid for key in known}  # a key that is gone cannot be shown as chosen
            shown[CONF_REVOKED] = [kid for kid in shown.get(CONF_REVOKED) or () if kid in offered]
        return self._show(step, fields, shown, errors, placeholders)

    def _show(
        self,
        step: str,
        fields: Mapping[probatio.Marker, Any],
        values: Mapping[str, Any],
        errors: Errors | None = None,
        placeholders: Mapping[str, str] | None = None,
        *,
        last: bool = False,
    ) -> SubentryFlowResult:
        shown = {name: value for name, value in values.items() if value is not None}
        if CONF_DOORS in shown:  # a door that is gone cannot be shown as chosen
            offered = {door["value"] for door in self._doors}
            shown[CONF_DOORS] = [door for door in shown[CONF_DOORS] if door in offered]
        texts = {"position": "", "row": "", "host": "", "detail": "", "most": str(MAX_DOORS)}
        return self.async_show_form(
            step_id=step,
            data_schema=self.add_suggested_values_to_schema(probatio.Schema(dict(fields)), shown),
            errors=errors,
            description_placeholders={**texts, "example": "https://carrier.example", **(placeholders or {})},
            last_step=last,
        )

    async def _take(
        self, step: str, user_input: UserInput, itself: ConfigSubentry | None, known: tuple[TrustedKey, ...] = ()
    ) -> SubentryFlowResult | None:
        """Keep what the page of a carrier with a key set says, if it is without errors; else return it again."""
        errors: Errors = {}
        placeholders: dict[str, str] = {}
        shown = dict(user_input)
        self._title = typed_name(user_input, errors)
        others = list(subentries(self._get_entry(), SUBENTRY_CARRIER, itself))
        try:
            name = issuer(user_input[CONF_ISSUER].strip())
        except ValueError:
            errors[CONF_ISSUER] = "issuer_invalid"
            name = Issuer("")
        if any(other.data.get(CONF_ISSUER) == name for other in others):
            errors[CONF_ISSUER] = "issuer_used"
        try:
            keys = import_jwk_set(user_input[CONF_JWK_SET], name)
        except KeySetInvalid as err:
            keys = ()
            errors[CONF_JWK_SET] = f"key_set_{err.reason}"
            placeholders["position"] = str(err.position)
            if err.reason == "private_key":
                del shown[CONF_JWK_SET]
        taken = {key.kid for other in others for key in known_keys(other)}
        for position, key in enumerate(keys, 1):
            if key.kid in taken:
                errors[CONF_JWK_SET] = "key_set_of_another_carrier"
                placeholders["position"] = str(position)
        terms = self._take_terms(user_input, errors, placeholders)
        if errors:
            return await self._ask(step, shown, errors, placeholders, known)
        self._keys = keys
        self._data = {
            CONF_ISSUER: name,
            CONF_JWK_SET: json.dumps({"keys": [key.jwk() for key in keys]}, indent=1),
            **terms,
        }
        return None


def _user_id() -> str | None:
    """Return who fills in the form; None: no person, but a program inside of Home Assistant."""
    request = current_request.get()
    return None if request is None else request[KEY_HASS_USER].id


def _code(entered: str, errors: Errors) -> EnrolmentCode | None:
    try:
        return EnrolmentCode.parse(entered)
    except CodeInvalid as err:
        errors[CONF_CODE] = err.slip.value
        return None


def _key_set_shown(carrier: ConfigSubentry) -> dict[str, str]:
    """Return what is to be known of the newest key set of a linked carrier; dashes if it cannot be read."""
    try:
        published = enrolment_of(carrier).published
    except ValueError, KeyError, TypeError, KeySetInvalid:
        return dict.fromkeys(("version", "signed", "until"), "-")
    return {
        "version": str(published.version),
        "signed": _date(published.issued_at),
        "until": _date(published.expires_at),
    }


def _date(seconds: int) -> str:
    return dt_util.as_local(dt_util.utc_from_timestamp(seconds)).strftime("%Y-%m-%d %H:%M")


def _grouped(fingerprint: str) -> str:
    """Return a fingerprint so that two people can compare it on the telephone."""
    return " ".join(fingerprint[place : place + 8] for place in range(0, len(fingerprint), 8))


def _address(hass: HomeAssistant) -> str:
    """Return where carriers reach this Home Assistant; if it does not know that, what such an address looks like."""
    try:
        return get_url(hass, allow_internal=False, prefer_external=True)
    except NoURLAvailableError:
        return "https://homeassistant.example"
