"""A controller whose journal a gateway witnesses: just its leaves, its key and what it shows of them."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.at_work import Caller
from vestibule_core import merkle
from vestibule_core.merkle import Tree
from vestibule_core.note import Checkpoint, SignerKey
from vestibule_core.witness import Grown

KEY: Final = SignerKey("vestibule/house", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


class House:
    """Shows its journal with any number of entries, or one that began otherwise."""

    def __init__(self, key: SignerKey = KEY) -> None:
        self.key = key
        self.seen = 0
        """How many entries the gateway has seen."""

    @staticmethod
    def leaves(size: int, *, other: bool = False) -> list[bytes]:
        return [b"other %d" % number if other else b"%d" % number for number in range(size)]

    def note(self, size: int, *, other: bool = False) -> str:
        root = Tree().extend(self.leaves(size, other=other)).root()
        return self.key.sign(Checkpoint(self.key.verifier.name, size, root).text)

    def grown(self, size: int, *, other: bool = False) -> Grown:
        old = self.seen if self.seen <= size else 0
        path = merkle.prove_consistency(old, size, self.leaves(size, other=other)).path
        return Grown(old, path, self.note(size, other=other))

    async def show(self, caller: Caller, size: int, *, other: bool = False) -> int:
        """Show the journal as it is with ``size`` entries; return the status of the answer."""
        body = {"key": str(self.key.verifier), "grown": str(self.grown(size, other=other)), "epoch": None}
        said = await caller.put("/v1/witness", body)
        if said.status == 200:
            self.seen = size
        return said.status
