"""``vestibule-carrier conformance --url``: a building is played against a cloud, and whatever it does wrong is seen.

The cloud is a small one of its own (faulty_cloud.py): right, but for one fault. What stands in this table is what
another carrier's engineers read.
"""

import asyncio
import json
import os
import re
import ssl
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from carrier.__main__ import main
from carrier.conformance import playing
from carrier.conformance.playing import Patience, UrlUnusable, link_url, play

from .faulty_cloud import FaultyCloud

PATIENCE = Patience(driver=3.0, answer=3.0, token=3.0, quiet=0.3, silent=4.0)
"""Where something has to come, long enough for a busy machine."""
ANXIOUS = replace(PATIENCE, quiet=3.0)
"""For faults that are seen by what comes and should not."""
AT_ONCE = 24
"""Clouds that are played against at a time: almost all of it is waiting, and a busy machine has time for these."""


async def played(*faults, patience=PATIENCE, **cloud_is):
    """Return the cloud, and the report on it. Drivers come when they are asked to."""
    wanted = asyncio.Event()
    async with FaultyCloud(frozenset(faults), wanted=wanted, **cloud_is) as cloud, asyncio.timeout(60):
        report = await play(link_url(cloud.url), cloud.code, patience, tell=lambda _: wanted.set())
        report.text()
        json.dumps(report.json())
        return cloud, report


def playing_all(each):
    """Play against many clouds, a few at a time; return a task for each. ``each``: what ``played`` is given."""
    few = asyncio.Semaphore(AT_ONCE)

    async def play_one(faults, cloud_is):
        async with few:
            return await played(*faults, **cloud_is)

    return {name: asyncio.create_task(play_one(*how)) for name, how in each.items()}


def refused(report):
    return {step.what: step for step in report.steps if step.result == "refused"}


async def test_a_cloud_that_is_right_passes_and_its_alarm_is_named():
    cloud, report = await played()
    assert not report.refused, report.text()
    unseen = {step.what: step.why for step in report.steps if step.result == "cannot_be_said"}
    assert unseen.keys() == {
        "TLS, with a certificate of the public web",
        "an accepted jti that was never issued raises an alarm",
    }
    (jti,) = cloud.alarms
    assert unseen["an accepted jti that was never issued raises an alarm"].endswith(jti)
    assert report.verdict == "All that was looked at is as it has to be. 2 could not be looked at."
    assert len(cloud.issued) == 1
    assert len({step.clause for step in report.steps if step.clause.startswith("A.2 ")}) == 14


async def test_without_a_driver_it_says_what_it_has_not_seen():
    why = "no driver asked for the door within 3 s"
    (_, none), (_, three) = await asyncio.gather(played(drivers=0), played(drivers=3))
    assert not none.refused
    assert sum(step.why == why for step in none.steps) == 4
    assert sum(step.why == why for step in three.steps) == 1


FAULTS = [
    ("no websocket", "the cloud speaks first, with a number", 'send {"type":"nonce"'),
    ("says nothing", "the cloud speaks first, with a number", 'send {"type":"nonce"'),
    ("another first frame", "the cloud speaks first, with a number", 'send {"type":"nonce"'),
    ("issued first", "the cloud speaks first, with a number", 'send {"type":"nonce"'),
    ("no keys", "a hello with the code's secret is answered with the keys", "before anything else"),
    ("closes after the hello", "a hello with the code's secret is answered with the keys", "enrol the controller"),
    ("another root", "keys", "it is not signed by this root"),
    ("an old set", "keys", "it is too old"),
    ("another set of one version", "keys that come again are the same, or newer", "raise ver with each change"),
    ("older sets", "keys that come again are the same, or newer", "it rises with each set"),
    ("no list key", "a key that signs the daily list now", "publish a key of use issued"),
    ("one number for all", "each connection has a number of its own", "16 random bytes"),
    ("one number for all", "a hello of an earlier connection is refused", "check it before anything else"),
    ("takes old hellos", "a hello of an earlier connection is refused", "check it before anything else"),
    ("takes any signature", "a hello under this controller's name by another key is refused", "check it"),
    ("takes any signature", "nothing is signed for a challenge that its controller has not signed", "verify"),
    ("takes any issuer", "a hello to another issuer is refused", "close with 4003"),
    ("enrols anybody", "a hello of a controller that is not enrolled is refused", "close with 4003"),
    ("enrols anybody", "a code that was never given enrols nobody", "close with 4003"),
    ("codes for ever", "the code enrols no second controller", "close with 4003"),
    ("any challenge", "nothing is signed for a challenge of another door", "verify"),
    ("any challenge", "nothing is signed for a challenge given to another issuer", "verify"),
    ("never signs", "a signed challenge is answered with a token", "sign for it at once"),
    ("closes at a challenge", "a signed challenge is answered with a token", "sign for it at once"),
    ("twice", "a token is sent once", "never a second time"),
    ("binary frames", "frames have exactly their members", "docs/carriers.md"),
    ("a huge frame", "frames have exactly their members", "docs/carriers.md"),
    ("a bad frame for a token", "nothing is signed for a challenge of another door", "verify"),
    ("another door", "it asks for doors of the hello only", "what it offers"),
    ("a token without a challenge", "a token comes after its challenge", "sign for a challenge"),
    ("the number again", "the number comes once", "send it first, and once"),
    ("another frame", "frames have exactly their members", "docs/carriers.md"),
    ("no lists", "after a hello, the lists of the last two days come by themselves", "catch up"),
    ("no lists", "the list of a day that is over comes when it is asked for, whole", "one empty part"),
    ("lists once", "the list of a day that is over comes when it is asked for, whole", "one empty part"),
    ("half a list", "the list of a day that is over comes when it is asked for, whole", "all parts"),
    ("torn lists", "the list of a day that is over comes when it is asked for, whole", "the same parts and iat"),
    ("another's list", "after a hello, the lists of the last two days come by themselves", "ctl is the verifier key"),
    ("another's list", "the list of a day that is over comes when it is asked for, whole", "ctl is the verifier key"),
    ("closes at an alarm", "an accepted jti that was never issued raises an alarm", "keep the link"),
    ("two links", "a second connection of the same controller ends the first", "4001"),
    ("never again", "an enrolled controller comes back without the secret", "at any time"),
    ("reads anything", "a frame of another form ends the link", "4005"),
    ("waits for ever", "a connection that says no hello is closed", "anybody can open connections"),
    ("talks to strangers", "a connection that says no hello is closed", "say nothing before the hello"),
]


SPEAKS_UP = ("takes any signature", "any challenge", "a bad frame for a token", "twice", "closes at an alarm")
WAITED_FOR = ("reads anything", "half a list", "lists once", "no lists", "two links", "never signs", "waits for ever")


async def test_each_fault_of_a_cloud_is_seen(subtests):
    faults = dict.fromkeys([*SPEAKS_UP, *WAITED_FOR, *(fault for fault, *_ in FAULTS)])  # the longest ones first
    plays = playing_all(
        {fault: ((fault,), {"patience": ANXIOUS if fault in SPEAKS_UP else PATIENCE}) for fault in faults}
    )
    for fault, play_ in plays.items():
        with subtests.test(fault):
            _, report = await play_
            found = refused(report)
            for what, change in [(what, change) for name, what, change in FAULTS if name == fault]:
                assert what in found, report.text()
                assert any(change in each for each in found[what].change), found[what]
            many = f"{len(found)} requirements are not met."
            assert report.verdict.startswith(("One requirement is not met.", many))


async def test_a_cloud_that_closes_for_no_bad_challenge_has_still_signed_nothing():
    cloud, report = await played("keeps the link")
    assert not report.refused
    assert len(cloud.issued) == 1
    assert any(step.why == "nothing came" for step in report.steps)


BAD_TOKENS = [
    ({"iss": "https://other.example"}, "WRONG_ISSUER", "the key is https://faulty.example's"),
    ({"exp": 1.5}, "MALFORMED", "a whole number is needed"),
    ({"non": "A" * 22}, "NONCE_UNKNOWN", "copy it as it came"),
    ({"aud": "door:" + "a" * 26}, "WRONG_DOOR", "the door is"),
    ({"chk": {}}, "BAD_CLAIMS", "lacks the member chk.drv"),
    ({"more": True, "sub": "Erika Mustermann"}, "BAD_CLAIMS", "leave it out"),
]


async def test_a_bad_token_is_judged_by_the_building_at_work(subtests):
    plays = playing_all({what: ((), {"claims": claims}) for claims, _, what in BAD_TOKENS})
    for claims, code, what in BAD_TOKENS:
        with subtests.test(claims=claims):
            _, report = await plays[what]
            (step,) = (step for step in report.steps if step.result == "refused")
            assert step.code == code
            assert any(what in change for change in step.change)


async def test_a_cloud_that_cuts_links_at_any_time_is_come_back_to():
    cloud, report = await played("cuts the link")
    assert not report.refused, report.text()
    assert len(cloud.issued) == 1


async def test_a_cloud_that_takes_few_connections_is_not_blamed_for_it():
    _, report = await played("few connections")
    unseen = [step for step in report.steps if "no connection" in step.why]
    assert len(unseen) == 8
    assert not {step.what for step in unseen} & refused(report).keys()


async def test_the_enrolment_code_has_to_name_the_host():
    async with FaultyCloud() as cloud:
        report = await play(link_url(cloud.url.replace("127.0.0.1", "localhost")), cloud.code, PATIENCE)
    (step,) = (step for step in report.steps if step.what == "the enrolment code names this host")
    assert step.result == "cannot_be_said"
    assert "where buildings will go" in step.why


# ---- TLS ----


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost, and its key, in one file; nobody trusts it yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    at = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (path := tmp_path / "tls.pem").write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


def serving(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_that_nobody_trusts_is_refused(certificate):
    _, report = await played(tls=serving(certificate))
    (step,) = refused(report).values()
    assert step.what == "TLS, with a certificate of the public web"
    assert "any browser takes" in step.change[0]


_ALONE = """import sys
for name in ("aiosqlite", "alembic", "asyncpg", "sqlalchemy", "webauthn"):
    sys.modules[name] = None
from functools import partial
from carrier.__main__ import main
from carrier.conformance import playing
playing.Patience = partial(playing.Patience, quiet=1.0)
sys.exit(main(sys.argv[1:]))
"""


async def test_the_program_alone_judges_a_cloud_over_tls(certificate, tmp_path):
    """A process of its own, with the times that people meet, all but the silences, and without the packages that a
    cloud needs.
    """
    async with FaultyCloud(tls=serving(certificate)) as cloud, asyncio.timeout(90):
        words = (
            "conformance",
            "--url",
            cloud.url,
            "--code",
            str(cloud.code),
            "--wait",
            "20",
            "--position",
            "52.5,13.4",
        )
        environment = os.environ | {"SSL_CERT_FILE": str(certificate)}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _ALONE, *words, stdout=PIPE, stderr=PIPE, cwd=tmp_path, env=environment
        )
        said, complained = await program.communicate()
    assert program.returncode == 0, (said, complained)
    assert b"TLS, with a certificate of the public web: passed\n" in said
    assert said.endswith(b"All that was looked at is as it has to be. 1 could not be looked at.\n")
    assert str(cloud.code) not in said.decode() + complained.decode()


# ---- the command ----


@pytest.mark.parametrize(
    "text, url",
    [
        ("wss://doors.parcels.example/v1/link", "wss://doors.parcels.example/v1/link"),
        ("https://doors.parcels.example", "wss://doors.parcels.example/v1/link"),
        ("wss://doors.parcels.example:8443/", "wss://doors.parcels.example:8443/v1/link"),
        ("ws://127.0.0.1:8000", "ws://127.0.0.1:8000/v1/link"),
        ("http://localhost:8000/other", "ws://localhost:8000/other"),
    ],
)
def test_an_address_may_be_written_shortly(text, url):
    assert str(link_url(text)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "doors.parcels.example",
        "ftp://x",
        "ws://doors.parcels.example",
        "wss://x/?secret=1",
        "wss://a:b",
        "wss://u@x",
    ],
)
def test_what_is_no_address_of_a_link_is_refused(text):
    with pytest.raises(UrlUnusable):
        link_url(text)


async def test_the_command_plays_and_tells_a_person_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(playing, "Patience", lambda driver: replace(PATIENCE, driver=driver))
    async with FaultyCloud() as cloud:
        words = ["conformance", "--url", cloud.url, "--code", str(cloud.code), "--wait", "5", "--json"]
        assert await asyncio.to_thread(main, words) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["result"] == "accepted"
    assert re.findall(r"(\d) of 4: this one (?:has to fail|opens)\.", said.err) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "words, what",
    [
        ((), "--code is needed"),
        (("--code", "vst1.x"), "the code is not complete"),
        (("--code", "GOOD", "--url", "ftp://x"), "wss://doors.parcels.example/v1/link"),
        (("--code", "GOOD", "--position", "north"), "52.52,13.405"),
        (("--code", "GOOD", "--position", "91,0"), "52.52,13.405"),
        (("--code", "GOOD", "--position", "1,x"), "52.52,13.405"),
    ],
)
def test_options_that_make_no_sense_end_with_status_2(words, what, capsys):
    good = str(FaultyCloud.code.fget(_at_port_1()))
    given = ["conformance", "--url", "ws://127.0.0.1:1", *(good if word == "GOOD" else word for word in words)]
    assert main(given) == 2
    assert what in capsys.readouterr().err


def _at_port_1():
    cloud = FaultyCloud()
    cloud.port = 1
    return cloud


@pytest.mark.parametrize(
    "time, listed", [("00:09:59", "2026-11-23"), ("00:10:00", "2026-11-24"), ("23:59:59", "2026-11-24")]
)
def test_a_list_is_due_ten_minutes_after_its_day(time, listed):
    assert str(playing._last_listed(datetime.fromisoformat(f"2026-11-25T{time}+00:00"))) == listed
