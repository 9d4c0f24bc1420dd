"""carrier.toml: who the carrier is, where its database and its keys are, and what it asks of drivers.

Read once and strictly (docs/carrier.example.toml). What it refuses to do: guess at a key that it does not know.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.engine import URL

from vestibule_core.model import Issuer, issuer

from .checks import Limits
from .retention import Retention
from .store import database_url

DEFAULT_PORT: Final = 8480
_MOST: Final[Mapping[str, int]] = {
    # The widest that may make sense: buildings judge again by limits of their own, and a token has to be signed within
    # 120 s of the request. Of what is kept, little more than a year.
    "distance": 500,
    "accuracy": 500,
    "fix_age": 300,
    "speed": 400,
    "request_age": 100,
    "ahead": 30,
    "evidence": 400,
    "references": 400,
}


class ConfigError(ValueError):
    """The file cannot be used. The text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where drivers, dispatchers and buildings are served: behind a proxy that speaks HTTPS."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Config:
    """A carrier's cloud."""

    name: str
    issuer: Issuer
    origin: str
    """``https://host[:port]`` of the pages: what a passkey is bound to."""
    database: URL
    keys: Path
    """The folder with the private keys."""
    typed_positions: bool = False
    """Positions that a person typed are taken, and marked. For trying it out only."""
    listen: Listen = Listen()
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)

    @property
    def address(self) -> str:
        """``host[:port]`` of the pages: where buildings connect to."""
        return urlsplit(self.origin).netloc

    @property
    def host(self) -> str:
        """The host of the pages: a passkey's relying party."""
        return urlsplit(self.origin).hostname or ""


def read_config(path: Path) -> Config:
    """Return what a file says; raise ConfigError, or OSError. Relative paths in it begin at its own folder."""
    try:
        return parse_config(path.read_text("utf-8"), path)
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: this is not UTF-8 text") from err


def parse_config(text: str, path: Path) -> Config:
    """Return what ``text``, which is from ``path``, says; raise ConfigError."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{path}, line {err.lineno}: {err.msg}") from err
    top = _Table(path, text, "", values)
    top.only("name", "issuer", "origin", "database", "keys", "typed_positions", "listen", "limits", "retention")
    named = top.text("issuer", _is_issuer, 'the carrier\'s URL, at most 64 characters: "https://doors.example.com"')
    listen = top.table("listen")
    listen.only("host", "port")
    return Config(
        name=top.text("name", _is_name, "a name, 1 to 60 characters"),
        issuer=issuer(named),
        origin=top.text(
            "origin",
            _is_origin,
            'where the pages are, without a path: "https://doors.example.com"',
            "https://" + urlsplit(named).netloc,
        ),
        database=_database(top, path),
        keys=path.parent / top.text("keys", bool, "a path"),
        typed_positions=top.flag("typed_positions"),
        listen=Listen(
            host=listen.text("host", _is_address, "an IP address of this machine", Listen().host),
            port=listen.number("port", DEFAULT_PORT, 65535),
        ),
        limits=Limits(**top.table("limits").numbers(Limits)),
        retention=Retention(**top.table("retention").numbers(Retention)),
    )


def _database(top: _Table, path: Path) -> URL:
    spelt = top.text("database", bool, 'the URL of a database: "sqlite:///carrier.db"')
    try:
        url = database_url(spelt)
    except ValueError as err:
        raise top.error("database", str(err)) from err
    if url.get_backend_name() == "sqlite":
        return url.set(database=str(path.parent / (url.database or "")))
    return url


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file; every method raises ConfigError."""

    file: Path
    text_: str
    name: str
    values: Mapping[str, Any]

    def error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.file}, line {self._line(key)}: {f'{self.name}.{key}'.lstrip('.')}: {what}")

    def _line(self, key: str) -> int:
        """Return the line in which a key of this table is given, 1 if it is not."""
        table = ""
        for number, line in enumerate(self.text_.splitlines(), 1):
            if header := re.match(r"\s*\[\s*([a-z_]+)\s*\]", line):
                table = header[1]
                if table == key and not self.name:
                    return number
            elif table == self.name and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
                return number
        return 1

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, cutoff=0)[0]
                raise self.error(key, f'this key is not known; the nearest one is "{near}"')

    def table(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"this has to be a table: [{key}]")
        return _Table(self.file, self.text_, key, value)

    def text(self, key: str, good: Callable[[str], bool], wanted: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if value is None:
            raise self.error(key, "this is missing")
        if not isinstance(value, str) or not good(value):
            raise self.error(key, f"this has to be {wanted}")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if type(value) is not bool:
            raise self.error(key, "this has to be true or false")
        return value

    def number(self, key: str, default: int, most: int) -> int:
        value = self.values.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self.error(key, f"this has to be a whole number from 1 to {most}")
        return value

    def numbers(self, kind: type[Limits] | type[Retention]) -> dict[str, int]:
        defaults = {each.name: each.default for each in fields(kind)}
        self.only(*defaults)
        return {name: self.number(name, int(str(default)), _MOST[name]) for name, default in defaults.items()}


def _is_name(text: str) -> bool:
    return 0 < len(text.strip()) <= len(text) <= 60 and text.isprintable()


def _is_issuer(text: str) -> bool:
    try:
        return bool(issuer(text)) and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname == "localhost")
        return secure and bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}" and "@" not in text
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
