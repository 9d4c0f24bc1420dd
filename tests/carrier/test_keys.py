"""The carrier's keys: files, rotation with two that overlap, revocation, and the set that the root signs."""

import hashlib
import json
import stat
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from carrier import keys
from carrier.drivers import NoSuch, NotPossible
from carrier.keys import KeyFolder, KeyUnusable
from carrier.store import Store, database_url, schema
from carrier.store.tables import KeyUse
from tests.simulated import Carrier
from vestibule_core import b64url, keyset
from vestibule_core.errors import KeySetInvalid
from vestibule_core.keys import SigningKey, import_jwk_set
from vestibule_core.model import Issuer

from .town import NOW, Town

ISSUER = Issuer("https://parcels.example")
DAY = timedelta(days=1)


class Cloud:
    """A cloud with nothing but keys, on the day that ``now`` says."""

    def __init__(self, store, folder):
        self.store, self.ring, self.now = store, KeyFolder(folder), NOW
        self.root = SigningKey.generate()

    async def do(self, what, *arguments):
        async with self.store.transaction() as session:
            return await what(session, *arguments)

    async def rotate(self):
        return await self.do(keys.rotate, self.ring, "command", self.now)

    async def publish(self, root=None, following=None):
        return await self.do(keys.publish, ISSUER, root or self.root, following, "command", self.now)

    async def revoke(self, kid):
        return await self.do(keys.revoke, kid, "command", self.now)

    async def current(self, use=KeyUse.TOKENS):
        return await self.do(keys.current, use, self.now)


@pytest.fixture
async def cloud(tmp_path):
    store = Store(database_url(f"sqlite:///{tmp_path}/carrier.db"))
    await schema.migrate(store)
    yield Cloud(store, tmp_path / "keys")
    await store.close()


def said(row):
    header, payload, signature = row.text.split(".")
    return tuple(json.loads(b64url.decode(part.encode())) for part in (header, payload)), signature


# ---- files ----


async def test_a_private_key_is_its_owner_s_alone(cloud, tmp_path):
    (made, _) = await cloud.rotate()
    path = tmp_path / "keys" / made.file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert b"PRIVATE KEY" in path.read_bytes()
    assert (await cloud.ring.signer(made.kid)).kid == made.kid


async def test_a_key_that_others_could_read_is_not_used(cloud, tmp_path):
    (made, _) = await cloud.rotate()
    (tmp_path / "keys" / made.file).chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        await cloud.ring.signer(made.kid)


async def test_a_file_with_another_key_than_its_name_says_is_not_used(cloud, tmp_path):
    one, other = await cloud.rotate()
    (tmp_path / "keys" / one.file).write_bytes((tmp_path / "keys" / other.file).read_bytes())
    with pytest.raises(KeyUnusable, match="another key"):
        await cloud.ring.signer(one.kid)


def test_what_is_no_ed25519_key_is_not_used(tmp_path):
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text, why in ((b"nothing", "no key"), (pem, "not Ed25519")):
        path = tmp_path / "key.pem"
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(KeyUnusable, match=why):
            keys.read_key(path)
    with pytest.raises(KeyUnusable, match="No such file"):
        keys.read_key(tmp_path / "none.pem")


def test_a_key_is_never_written_over(tmp_path):
    path = tmp_path / "root.pem"
    keys.write_key(path, SigningKey.generate())
    before = path.read_bytes()
    with pytest.raises(KeyUnusable, match="never written over"):
        keys.write_key(path, SigningKey.generate())
    assert path.read_bytes() == before


# ---- rotation ----


async def test_nothing_signs_before_it_is_published(cloud):
    with pytest.raises(KeyUnusable, match="keys rotate"):
        await cloud.current()
    (made, listing) = await cloud.rotate()
    with pytest.raises(KeyUnusable, match="keys publish"):
        await cloud.current()
    await cloud.publish()
    assert await cloud.current() == made.kid
    assert await cloud.current(KeyUse.ISSUED) == listing.kid


async def test_the_next_key_is_published_for_a_week_before_it_signs_and_two_overlap(cloud):
    (first, _) = await cloud.rotate()
    await cloud.publish()
    cloud.now += 20 * DAY
    (second,) = await cloud.rotate()
    (_, payload), _ = said(await cloud.publish())
    assert {first.kid, second.kid} <= {key["kid"] for key in payload["keys"]}
    assert await cloud.current() == first.kid
    cloud.now += 7 * DAY - timedelta(seconds=1)
    assert await cloud.current() == first.kid
    cloud.now += timedelta(seconds=1)
    assert await cloud.current() == second.kid
    assert first.sign_until > cloud.now  # both may: should the second one have to be revoked, the first one signs again
    await cloud.revoke(second.kid)
    assert await cloud.current() == first.kid


async def test_a_key_that_comes_late_begins_when_the_last_one_ends(cloud):
    (first, _) = await cloud.rotate()
    cloud.now += 29 * DAY
    (second,) = await cloud.rotate()
    assert second.sign_from == first.sign_until
    with pytest.raises(NotPossible, match="made already"):
        await cloud.rotate()


async def test_a_building_whose_clock_is_behind_takes_the_next_key_from_its_first_second_on(cloud):
    """Its tokens would be refused there as those of a revoked key."""
    await cloud.rotate()
    cloud.now += 29 * DAY
    (second,) = await cloud.rotate()
    row = await cloud.publish()
    raw = cloud.root.private.public_key().public_bytes_raw()
    read = keyset.read(row.text, keyset.pin(ISSUER, raw, hashlib.sha256(raw).digest()), None, row.iat)
    (next_one,) = (key for key in read.trusted if key.kid == second.kid)
    begins = second.sign_from.timestamp()
    assert (next_one.opens(begins - 300), next_one.opens(begins - 301)) == (True, False)


async def test_a_key_signs_for_30_days_and_stays_published_for_one_more(cloud):
    (first, _) = await cloud.rotate()
    cloud.now += 29 * DAY
    await cloud.publish()
    cloud.now += DAY - timedelta(seconds=1)
    assert await cloud.current() == first.kid
    cloud.now += timedelta(seconds=1)
    with pytest.raises(KeyUnusable, match="no published key may sign now"):
        await cloud.current()
    await cloud.rotate()
    assert first.kid in (await cloud.publish()).kids
    cloud.now += DAY
    assert first.kid not in (await cloud.publish()).kids


async def test_a_set_that_buildings_do_not_believe_any_more_lets_nothing_sign(cloud):
    await cloud.rotate()
    await cloud.publish()
    cloud.now += 20 * DAY
    await cloud.rotate()
    cloud.now += 15 * DAY
    with pytest.raises(KeyUnusable, match="too old"):
        await cloud.current()


async def test_a_revoked_key_signs_nothing_and_is_in_no_later_set(cloud):
    (made, _) = await cloud.rotate()
    await cloud.publish()
    await cloud.revoke(made.kid)
    with pytest.raises(KeyUnusable):
        await cloud.current()
    with pytest.raises(NotPossible, match="no key to publish"):
        await cloud.publish()
    (second,) = await cloud.rotate()
    assert second.sign_from == cloud.now  # there is no other that could sign meanwhile
    row = await cloud.publish()
    assert (row.version, made.kid in row.kids) == (2, False)
    assert await cloud.current() == second.kid
    with pytest.raises(NoSuch):
        await cloud.revoke(made.kid)


# ---- the set ----


async def test_the_root_signs_a_set_with_a_rising_version_for_35_days(cloud):
    (made, listing) = await cloud.rotate()
    row = await cloud.publish()
    (header, payload), signature = said(row)
    assert header == {"alg": "EdDSA", "kid": cloud.root.kid, "typ": "door-keys+jwt"}
    assert (payload["iss"], payload["ver"], payload["next"]) == (ISSUER, 1, None)
    assert payload["exp"] - payload["iat"] == 35 * 86400
    assert [(key["kid"], key["use"]) for key in payload["keys"]] == [(listing.kid, "issued"), (made.kid, "sig")]
    signed = row.text.rpartition(".")[0].encode()
    cloud.root.private.public_key().verify(b64url.decode(signature.encode()), signed)
    with pytest.raises(InvalidSignature):
        (await cloud.ring.signer(made.kid)).private.public_key().verify(b64url.decode(signature.encode()), signed)
    assert (await cloud.publish()).version == 2


async def test_a_building_reads_each_set_and_takes_the_next_root_that_was_named(cloud):
    (made, _) = await cloud.rotate()
    raw = cloud.root.private.public_key().public_bytes_raw()
    root = keyset.pin(ISSUER, raw, hashlib.sha256(raw).digest())
    first = await cloud.publish()
    read = keyset.read(first.text, root, None, first.iat)
    assert made.kid in [key.kid for key in read.keys]
    following = SigningKey.generate()
    second = await cloud.publish(following=following)
    read = keyset.read(second.text, root, read, second.iat)
    with pytest.raises(KeySetInvalid, match="older_version"):
        keyset.read(first.text, root, read, second.iat)
    third = await cloud.publish(root=following)
    after = keyset.succeed(read, following.private.public_key().public_bytes_raw())
    assert keyset.read(third.text, after, read, third.iat).version == 3


async def test_another_root_is_refused_unless_it_was_named_before(cloud):
    await cloud.rotate()
    await cloud.publish()
    following, foreign = SigningKey.generate(), SigningKey.generate()
    with pytest.raises(NotPossible, match="not the root key"):
        await cloud.publish(root=foreign)
    named = await cloud.publish(following=following)
    assert named.next_root == b64url.encode(keys.fingerprint(following))
    assert (await cloud.publish()).next_root == named.next_root  # it stays named
    with pytest.raises(NotPossible, match="not the root key"):
        await cloud.publish(root=foreign)
    with pytest.raises(NotPossible, match="another one than this one"):
        await cloud.publish(following=cloud.root)
    row = await cloud.publish(root=following)
    assert (row.root_kid, row.next_root, row.version) == (following.kid, None, 4)
    with pytest.raises(NotPossible, match="not the root key"):
        await cloud.publish()


async def test_while_keys_rotate_a_building_that_has_the_set_opens_to_both(store, tmp_path):
    """One door is opened by the first key, the next by the second one."""
    town = await Town.founded(store, tmp_path, stops=2)
    first = town.carrier.key
    async with store.transaction() as session:
        await session.delete(await keys.newest_set(session))  # of the town's foundation, which no root has signed
        await session.flush()
        (second,) = await keys.rotate(session, town.desk.keyring, "command", town.now)
        second.sign_from = town.now + timedelta(seconds=1)  # its week is over
        row = await keys.publish(session, town.carrier.issuer, SigningKey.generate(), None, "command", town.now)
    (_, payload), _ = said(row)
    published = [
        {name: key[name] for name in ("kty", "crv", "x")} for key in payload["keys"] if key["use"] == KeyUse.TOKENS
    ]

    class Rotating(Carrier):
        @property
        def trusted(self):
            return import_jwk_set(json.dumps({"keys": published}), self.issuer)

    town.site.carriers = (Rotating("Parcels", town.site.doors),)
    async with town.site:
        assert (await town.ask()).state == "granted"
        town.now += timedelta(seconds=1)
        assert (await town.ask(stop=town.stops[1])).state == "granted"
    used = [json.loads(b64url.decode(text.split(".")[0].encode()))["kid"] for text in town.link.tokens]
    assert used == [first.kid, second.kid]
    assert town.site.pulses == 2
