"""What was looked at, in order, and how it went: for a person, or for a program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    """How a step went."""

    PASSED = "passed"
    REFUSED = "refused"
    CANNOT_BE_SAID = "cannot_be_said"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the protocol asks for."""

    clause: str
    """Where docs/protocol.md asks for it."""
    what: str
    result: Result
    code: str | None = None
    """As the protocol names the refusal."""
    why: str = ""
    change: tuple[str, ...] = ()
    """What the carrier's engineer has to change."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    about: str
    steps: tuple[Step, ...]
    verdict: str
    """In a sentence."""
    also: tuple[str, ...] = field(default=())
    """What would be refused next, once the first refusal is mended."""

    @property
    def refused(self) -> bool:
        """Whether a step was refused."""
        return any(step.result is Result.REFUSED for step in self.steps)

    def json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "about": self.about,
            "result": "refused" if self.refused else "accepted",
            "verdict": self.verdict,
            "steps": [
                {
                    "clause": step.clause,
                    "what": step.what,
                    "result": step.result.value,
                    "code": step.code,
                    "why": step.why or None,
                    "change": list(step.change),
                }
                for step in self.steps
            ],
            "also": list(self.also),
        }

    def text(self) -> str:
        """Return it for a person."""
        lines = [self.about, ""]
        wide = max(len(step.clause) for step in self.steps)
        for step in self.steps:
            said = " ".join(word for word in (step.result.replace("_", " "), step.code) if word)
            lines.append(f"{step.clause:{wide}}  {step.what}: {said}" + (f" ({step.why})" if step.why else ""))
            lines += _points(step.change, wide)
        lines += ["", self.verdict]
        if self.also:
            lines += ["", "To be changed besides:", *_points(self.also, 0)]
        return printable("\n".join(lines)) + "\n"


def _points(texts: Iterable[str], wide: int) -> list[str]:
    return [f"{' ' * wide}  - {text}" for text in texts]


def printable(text: str) -> str:
    """Return ``text`` with nothing in it that would move a terminal's cursor: it quotes what others have sent."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
