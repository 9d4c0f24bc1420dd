"""Every message of a token's way: strictly decoded, and encoded in one place (protocol G). Those of a gateway: ``api``.

A message has exactly the members that it is said to have. What cannot be decoded is MalformedMessage, which says what
is wrong without repeating it.
"""

from __future__ import annotations

from typing import Any, Final

from .errors import MalformedMessage
from .model import Decision
from .strict import read_json

MAX_REQUEST: Final = 8 * 1024
"""Bytes of a request's body."""


def unlock_request(body: bytes) -> str:
    """Return the token that ``{"token": "..."}`` presents."""
    message = read_json(body)
    if type(message) is not dict or message.keys() != {"token"}:
        raise MalformedMessage('expected {"token": "..."} and nothing else')
    if type(token := message["token"]) is not str:
        raise MalformedMessage("the token is no string")
    return token


def challenge_answer(nonce: str, ttl: int) -> dict[str, Any]:
    """Return the answer to a request for a challenge; ``ttl`` in seconds."""
    return {"non": nonce, "ttl": ttl}


def decision_answer(decision: Decision) -> dict[str, Any]:
    """Return what a presenter hears of a decision (A.2): the word, and from step 7 on why."""
    answer = {"word": decision.code.word.value, "code": decision.code.told}
    if decision.limit is not None:
        answer["limit"] = decision.limit.value
    return answer
