"""What the tests of the API's messages share: documents that are spoilt, and policies of a small world."""

import copy
import json
from datetime import time

from hypothesis import strategies as st

from vestibule_core.api.policy import Policy
from vestibule_core.hours import Day, Hours
from vestibule_core.keys import Alg, KeyStatus, SigningKey, TrustedKey
from vestibule_core.model import issuer, new_door_id
from vestibule_core.policy import Carrier, EvidenceLimits
from vestibule_core.token import DriverProof

# ---- spoilt documents ----

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=4,
)


def places(value, path=()):
    """Each place in a document, as the way that leads there."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


@st.composite
def spoilt(draw, body):
    """``body``, a JSON text in bytes, with something in it replaced, left out, added or overwritten."""
    if draw(st.booleans()):
        changed = bytearray(body)
        for _ in range(draw(st.integers(1, 3))):
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    document = json.loads(body)
    *way, last = draw(st.sampled_from([path for path in places(document) if path]))
    holder = document
    for step in way:
        holder = holder[step]
    match draw(st.sampled_from(["replace", "remove", "add", "move"])):
        case "replace":
            holder[last] = draw(JUNK)
        case "remove":
            del holder[last]
        case "add" if isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(JUNK)
        case "add":
            holder.insert(last, copy.deepcopy(holder[last]))
        case "move":  # a part of the document in the place of another
            source = document
            for step in draw(st.sampled_from(list(places(document)))):
                source = source[step]
            holder[last] = copy.deepcopy(source)
    return json.dumps(document).encode()


# ---- policies of a small world ----

ISSUERS = tuple(issuer(f"https://{name}.example") for name in ("north", "south"))
DOORS = tuple(new_door_id(bytes([number]) * 16) for number in range(3))
_KEYS = {name: [SigningKey.generate(alg) for alg in (*Alg, Alg.EDDSA)] for name in ISSUERS}
KIDS = {name: [key.kid for key in keys] for name, keys in _KEYS.items()}


def key(name, number, status=KeyStatus.ACTIVE):
    """One of the three keys of an issuer."""
    signing = _KEYS[name][number]
    return TrustedKey(signing.kid, name, signing.alg, signing.private.public_key(), status)


def carrier(name=ISSUERS[0], *, keys=None, doors=DOORS[:2], **rest):
    """A carrier with one key and two doors."""
    keys = (key(name, 0),) if keys is None else keys
    return Carrier(issuer=name, name="North", keys=tuple(keys), doors=frozenset(doors), **rest)


def policy(*carriers, zone="Europe/Berlin"):
    """A policy of these carriers."""
    return Policy(zone, carriers)


CLOCKS = st.builds(time, st.sampled_from([0, 7, 12, 22]), st.sampled_from([0, 30]))
HOURS = st.lists(st.builds(Hours, st.frozensets(st.sampled_from(Day)), CLOCKS, CLOCKS), max_size=2).map(tuple)
LIMITS = st.builds(
    EvidenceLimits,
    methods=st.frozensets(st.sampled_from(DriverProof)),
    distance=st.sampled_from([0, 50, 75]),
    accuracy=st.sampled_from([10, 50]),
    position_age=st.sampled_from([10, 30]),
    request_age=st.sampled_from([60, 120]),
)


@st.composite
def carriers(draw, name):
    numbers = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    return Carrier(
        issuer=name,
        name=draw(st.sampled_from(["North", "Süd <b>"])),
        keys=tuple(key(name, number, draw(st.sampled_from(KeyStatus))) for number in numbers),
        doors=draw(st.frozensets(st.sampled_from(DOORS))),
        limits=draw(LIMITS),
        hours=draw(HOURS),
        rate=draw(st.sampled_from([None, 0, 1, 5])),
    )


@st.composite
def policies(draw, zone="Europe/Berlin"):
    names = draw(st.lists(st.sampled_from(ISSUERS), unique=True))
    return Policy(zone, tuple(draw(carriers(name)) for name in names))
