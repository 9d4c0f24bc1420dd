"""carrier.toml: what is right is read, and what is wrong is said with its line."""

from dataclasses import fields
from pathlib import Path

import pytest

from carrier.checks import Limits
from carrier.config import Config, ConfigError, Listen, parse_config, read_config
from carrier.retention import Retention

EXAMPLE = Path(__file__).parents[2] / "docs" / "carrier.example.toml"
GOOD = """\
name = "Parcels"
issuer = "https://doors.parcels.example"
database = "sqlite:///carrier.db"
keys = "keys"
"""


def config(text: str = "", instead: str = GOOD) -> Config:
    return parse_config(instead + text, Path("/etc/vestibule/carrier.toml"))


def test_the_shortest_file_that_says_everything():
    read = config()
    assert (read.name, read.issuer, read.origin) == ("Parcels", "https://doors.parcels.example", read.issuer)
    assert read.database.database == "/etc/vestibule/carrier.db"
    assert read.keys == Path("/etc/vestibule/keys")
    assert (read.listen, read.limits, read.retention) == (Listen(), Limits(), Retention())
    assert read.host == "doors.parcels.example"


def test_everything_can_be_said():
    more = (
        'origin = "https://app.parcels.example:8443"\n[listen]\nhost = "::1"\nport = 81\n[limits]\n'
        "distance = 40\naccuracy = 20\nfix_age = 10\nspeed = 50\nrequest_age = 30\nahead = 1\n"
        "[retention]\nevidence = 7\nreferences = 14\n"
    )
    read = config(more)
    assert (read.origin, read.host) == ("https://app.parcels.example:8443", "app.parcels.example")
    assert read.listen == Listen("::1", 81)
    assert read.limits == Limits(40, 20, 10, 50, 30, 1)
    assert read.retention == Retention(7, 14)


def test_the_example_is_right_and_names_every_key_with_its_default():
    read = read_config(EXAMPLE)
    assert (read.listen, read.limits, read.retention) == (Listen(), Limits(), Retention())
    text = EXAMPLE.read_text("utf-8")
    for kind in (Listen, Limits, Retention):
        assert all(f"\n{each.name} = " in text for each in fields(kind))


def test_postgresql_is_one_url():
    url = "postgresql://cloud@db.internal/vestibule"
    read = config(instead=GOOD.replace("sqlite:///carrier.db", url))
    assert (read.database.get_backend_name(), read.database.host) == ("postgresql", "db.internal")


WRONG = [
    ("what is no TOML", GOOD + "keys", "line 5"),
    ("a key that is not known", GOOD + "port = 1", 'line 5: port: this key is not known; the nearest one is "'),
    ("a key of a table that is not known", GOOD + "[limits]\ndistanz = 5", "line 6: limits.distanz: this key is not"),
    ("no name", GOOD.replace('name = "Parcels"', ""), "line 1: name: this is missing"),
    ("an empty name", GOOD.replace("Parcels", " "), "line 1: name: this has to be a name"),
    ("an issuer without https", GOOD.replace("https", "http"), "line 2: issuer: this has to be the carrier's URL"),
    ("an issuer that tokens could not name", GOOD.replace("parcels.example", "x" * 60), "line 2: issuer"),
    (
        "a database of another kind",
        GOOD.replace("sqlite:///carrier.db", "mysql://x"),
        "line 3: database: a database is",
    ),
    (
        "a database in memory",
        GOOD.replace("/carrier.db", ""),
        "line 3: database: a database of SQLite has to be a file",
    ),
    ("a page without https", GOOD + 'origin = "http://doors.example"', "line 5: origin: this has to be where"),
    ("a page with a path", GOOD + 'origin = "https://doors.example/app"', "line 5: origin: this has to be where"),
    ("a host by name", GOOD + '[listen]\nhost = "localhost"', "line 6: listen.host: this has to be an IP address"),
    ("a port that is none", GOOD + "[listen]\nport = 65536", "line 6: listen.port: this has to be a whole number"),
    ("a limit of no size", GOOD + "[limits]\ndistance = 0", "line 6: limits.distance: this has to be a whole number"),
    ("a limit that is yes", GOOD + "[limits]\ndistance = true", "line 6: limits.distance: this has to be"),
    ("a request older than a token", GOOD + "[limits]\nrequest_age = 101", "line 6: limits.request_age: this has"),
    ("evidence for ever", GOOD + "[retention]\nevidence = 100000", "line 6: retention.evidence: this has to be"),
    ("a table that is none", "limits = 5\n" + GOOD, "line 1: limits: this has to be a table"),
    ("a number as a name", GOOD.replace('"Parcels"', "5"), "line 1: name: this has to be a name"),
]


@pytest.mark.parametrize("text, says", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_said_with_its_line(text, says):
    with pytest.raises(ConfigError) as raised:
        config(instead=text)
    assert f"carrier.toml, {says}" in str(raised.value)


def test_a_file_that_is_no_text_is_said(tmp_path):
    path = tmp_path / "carrier.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(path)
