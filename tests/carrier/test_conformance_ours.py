"""Our own cloud does what ``conformance --url`` asks of every carrier's: the program itself, with real keys."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from carrier import drivers, enrolment, keys, manifests
from carrier.app import Front
from carrier.checks import Asked, AssertionFacts, Fix
from carrier.cloud import Cloud
from carrier.conformance.playing import Patience, link_url, play
from carrier.decide import Desk, decide
from carrier.links import Links
from carrier.passkeys import Party
from carrier.store import Prefix, Store, database_url, new_id, schema
from carrier.store.tables import Alarm, AlarmKind, Door, RequestState
from carrier.ways import Ways
from scripts.demo_home.home import free_port
from vestibule_core.keys import SigningKey
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.model import issuer

HERE = (52.52, 13.405)
NAME = "Parcels"


def now():
    return datetime.now(UTC)


@asynccontextmanager
async def a_cloud(folder):
    """A cloud at work, with published keys, a driver, and an enrolment code."""
    store, ring, root = Store(database_url(f"sqlite:///{folder}/carrier.db")), keys.KeyFolder(folder / "keys"), None
    try:
        await schema.migrate(store)
        of, root = issuer("https://parcels.example"), SigningKey.generate()
        async with store.transaction() as session:
            await keys.rotate(session, ring, "test", now())
            await keys.publish(session, of, root, None, "test", now())
            secret = await enrolment.invite(session, "Number 7", None, timedelta(days=1), "test", now())
            driver = await drivers.add(session, "Erika Mustermann", now() + timedelta(days=30), "test", now())
            device = await drivers.add_device(
                session,
                driver.id,
                credential_id=b"passkey",
                public_key=b"key",
                sign_count=0,
                backed_up=False,
                transports=[],
                now=now(),
            )
        ways, port = Ways(store, Links(store, ring, of, NAME)), free_port()
        desk = Desk(store, ring, ways, of)
        cloud = Cloud(desk, Party("localhost", f"http://localhost:{port}", NAME), ways)
        front = await Front.open(cloud, "127.0.0.1", port)
        try:
            code = EnrolmentCode(f"localhost:{port}", keys.fingerprint(root), secret)
            yield desk, code, driver.id, device.id
        finally:
            await front.close()
    finally:
        await store.close()


async def deliver(desk, driver, device):
    """Bring a stop at the door as soon as there is one, and ask for it until it opens; return how it went each time."""
    while True:
        await asyncio.sleep(0.1)
        async with desk.store.transaction() as session:
            if (door := await session.scalar(select(Door).where(Door.lat.is_not(None)))) is not None:
                break
    begins, ends = now() - timedelta(hours=1), now() + timedelta(hours=1)
    stop = manifests.NewStop(1, door.building_id, (door.id,), begins, ends, "parcel-4711")
    async with desk.store.transaction() as session:
        route = manifests.NewRoute(1, driver, now().date(), begins, ends, (stop,))
        await manifests.bring(session, [route], "test", now())
    (stop_id,) = await _rows(desk.store, "SELECT id FROM stop")
    went = []
    while RequestState.GRANTED not in went and len(went) < 20:
        asked = Asked(
            new_id(Prefix.REQUEST),
            driver,
            device,
            AssertionFacts(True, True, True),
            stop_id,
            door.id,
            Fix(*HERE, 8.0, now()),
            now(),
        )
        went.append((await decide(desk, asked)).state)
        await asyncio.sleep(0.2)
    return went


async def _rows(store, sql):
    async with store.connection() as connection:
        return [row[0] for row in await connection.exec_driver_sql(sql)]


async def test_our_own_cloud_does_what_is_asked_of_every_carriers(tmp_path):
    async with a_cloud(tmp_path) as (desk, code, driver, device), asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        delivery = tasks.create_task(deliver(desk, driver, device))
        patience = Patience(driver=15.0, answer=10.0, token=10.0, quiet=1.0, silent=20.0)
        report = await play(link_url(f"ws://{code.host}"), code, patience, HERE)
        assert not report.refused, report.text()
        unseen = [step for step in report.steps if step.result == "cannot_be_said"]
        assert {step.what for step in unseen} <= {
            "TLS, with a certificate of the public web",
            "an accepted jti that was never issued raises an alarm",
            "it pings",
        }
        went = await delivery
        assert went[-1] is RequestState.GRANTED
        assert set(went[:-1]) == {RequestState.UNREACHABLE}
        (jti,) = (step.why.rpartition(" ")[2] for step in unseen if step.what.endswith("raises an alarm"))
        async with asyncio.timeout(10):
            while jti not in (told := json.dumps(await alarms_of(desk.store))):  # noqa: ASYNC110 - another task's
                await asyncio.sleep(0.1)
        assert AlarmKind.NEVER_ISSUED in told


async def alarms_of(store):
    async with store.transaction() as session:
        return [[each.kind, each.subject, each.detail] for each in await session.scalars(select(Alarm))]
