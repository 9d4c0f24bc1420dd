"""G1, G2, G3: what a decision costs next to the one signature check that nobody can do without.

Everything is timed call by call in turns with a raw ``Ed25519PublicKey.verify`` of a token of the same size, so that
both meet the same caches and the same neighbours on the machine. The figure of a round is a ratio of medians.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vestibule_core import b64url, challenge, policy
from vestibule_core.door import DoorState
from vestibule_core.errors import Refused
from vestibule_core.history import History
from vestibule_core.keys import SigningKey, import_jwk_set
from vestibule_core.model import Code, Door, Issuer, Now, issuer, new_door_id
from vestibule_core.token import Claims, Confirmations, DriverProof, issue, verify

from .table import Row

TOKENS = 1000
ROUNDS = 9


@dataclass
class World:
    """One carrier, one door, and tokens that the door would open to."""

    key: SigningKey
    building: policy.Building
    door: Door
    carrier: Issuer
    secret: bytes
    tokens: list[str]
    state: DoorState

    @classmethod
    def make(cls) -> World:
        """Return a world with fresh keys."""
        key, carrier = SigningKey.generate(), issuer("https://v.carrier.example")
        door = Door(new_door_id(os.urandom(16)), "gate", 5.0)
        trusted = import_jwk_set(json.dumps({"keys": [key.jwk()]}), carrier)
        building = policy.Building.of([door], [policy.Carrier(carrier, "Carrier", trusted, frozenset({door.id}))])
        world = cls(key, building, door, carrier, os.urandom(32), [], DoorState())
        world.tokens = [world.token() for _ in range(TOKENS)]
        return world

    def token(self, jti: str | None = None) -> str:
        """Return a signed token for a live challenge."""
        now = int(time.time())
        checks = Confirmations(DriverProof.PASSKEY, "route-17", 12, 8, 3, now - 2)
        nonce = challenge.make(self.secret, self.door.id, self.carrier, 100.0, os.urandom(4))
        jti = jti or b64url.encode(os.urandom(16))
        return issue(
            self.key,
            Claims(self.carrier, self.door.id, jti, now, now + 60, "driver-4711", "stop-0815", nonce, checks),
        )

    def decide(self, text: str, history: History) -> Code:
        """Judge a token as the controller does before it spends (A.2 steps 1 to 10)."""
        try:
            unlock = verify(text, self.building.keys, self.carrier, history.texts)
        except Refused as refusal:
            return refusal.code
        now = Now(time.time(), 101.0)
        refused = policy.judge(unlock, self.building, self.state, history, 0.0, self.secret, now)
        return refused.code if refused else Code.GRANTED


def measure() -> list[Row]:
    """Return the rows of G1, G2 and G3."""
    world = World.make()
    public = world.key.private.public_key()
    assert isinstance(public, Ed25519PublicKey)
    raw = [(b64.rsplit(".", 1)[0].encode(), _signature(b64)) for b64 in world.tokens]
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify_raw(index: int) -> object:
        message, signature = raw[index]
        return public.verify(signature, message)

    def against_raw(call: Callable[[int], object]) -> float:
        return _ratio(call, verify_raw)

    nothing_spent = History()

    def full(index: int) -> object:
        return world.decide(world.tokens[index], nothing_spent)

    def pyjwt(key: Ed25519PublicKey | bytes) -> Callable[[int], object]:
        return lambda index: jwt.decode(
            world.tokens[index], key, algorithms=["EdDSA"], audience=world.door.id, issuer=world.carrier
        )

    assert full(0) is Code.GRANTED
    rows = [
        Row("G1", "full token decision / raw Ed25519 verify", against_raw(full), 1.15),
        Row("G2", "full decision / `jwt.decode`, key given as PEM", _ratio(full, pyjwt(pem)), 0.70),
        Row("G2", "full decision / `jwt.decode`, key object parsed before", _ratio(full, pyjwt(public)), None),
    ]

    malformed = [text[:-1] + "=" for text in world.tokens]
    stranger = World.make()
    all_spent = History()
    for text in world.tokens:
        all_spent.remember(verify(text, world.building.keys, None).spend_key, text)
    signed_again = [world.token(jti) for _, jti in all_spent.spent]
    for what, texts, history, code, limit in (
        ("refuse a malformed text", malformed, nothing_spent, Code.MALFORMED, 0.15),
        ("refuse an unknown key", stranger.tokens, nothing_spent, Code.UNKNOWN_KEY, 0.15),
        ("refuse the same spent text", world.tokens, all_spent, Code.ALREADY_SPENT, 0.15),
        ("refuse a spent `jti`, signed again", signed_again, all_spent, Code.ALREADY_SPENT, 1.15),
    ):

        def refuse(index: int, texts: list[str] = texts, history: History = history) -> Code:
            return world.decide(texts[index], history)

        assert refuse(0) is code, (what, refuse(0))
        rows.append(Row("G3", f"{what} / raw verify", against_raw(refuse), limit))
    return rows


def _signature(text: str) -> bytes:
    return jwt.utils.base64url_decode(text.rsplit(".", 1)[1])


def _ratio(call: Callable[[int], object], reference: Callable[[int], object]) -> float:
    """Return the median over the rounds of median(call) / median(reference), both called in turns."""
    clock, rounds = time.perf_counter_ns, []
    for _ in range(ROUNDS):
        ours, theirs = [], []
        for index in range(TOKENS):
            start = clock()
            reference(index)
            middle = clock()
            call(index)
            theirs.append(middle - start)
            ours.append(clock() - middle)
        rounds.append(statistics.median(ours) / statistics.median(theirs))
    return statistics.median(rounds)
