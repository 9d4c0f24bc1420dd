"""Codes that people read and type: Crockford's base32, which has no I, L, O and U.

A code is read generously, because a person types it, and is then one text, because it becomes a key.
"""

from __future__ import annotations

from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_READ_AS: Final = str.maketrans("OIL", "011", "- \t\r\n")


def spell(random: bytes, size: int) -> str:
    """Return a code of ``size`` characters, made of the last five bits for each of them of ``random``."""
    number = int.from_bytes(random)
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(size))


def read(typed: str) -> str | None:
    """Return the one text of what was typed: O is 0, I and L are 1, case, spaces and dashes are free.

    None if it has a character that no code has. How long it is, is not looked at.
    """
    code = typed.upper().translate(_READ_AS)
    return code if all(character in ALPHABET for character in code) else None


def grouped(code: str, size: int) -> str:
    """Return the code as it is shown: in groups of so many characters."""
    return "-".join(code[start : start + size] for start in range(0, len(code), size))
