"""A text that replaces another on the RDS, where both are mostly alike: sent once, not twice.

A record with many nodes is long, and a line has to hold what is expected and what is written. So
the line that strikes one of the nodes is hardly longer than the one that added it.
"""

import re
from difflib import SequenceMatcher
from string import ascii_uppercase
from typing import Final

from rds_csi.routeros.quoting import quote

_SHARED: Final = 48
"""Letters from which on a variable is shorter than the same text twice."""

_WORD: Final = re.compile(r"[^ ,]*[ ,]|[^ ,]+")


def rewrite(old: str, new: str) -> tuple[list[str], str, str]:
    """Statements that set what both share, and the expressions of the old and the new text.

    The variables are ``csiSameA`` and so on. Raises :class:`InvalidRequest` for a text that
    cannot be quoted.
    """
    before, after = _WORD.findall(old), _WORD.findall(new)
    shared: list[str] = []
    was: list[str] = []
    becomes: list[str] = []
    done = done_after = 0
    matches = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    for at, at_after, length in matches:
        alike = "".join(before[at : at + length])
        if len(alike) < _SHARED or len(shared) == len(ascii_uppercase):
            continue
        name = f"csiSame{ascii_uppercase[len(shared)]}"
        shared.append(f":local {name} {quote(alike)}")
        was += [_constant(before[done:at]), f"${name}"]
        becomes += [_constant(after[done_after:at_after]), f"${name}"]
        done, done_after = at + length, at_after + length
    was.append(_constant(before[done:]))
    becomes.append(_constant(after[done_after:]))
    return shared, _joined(was), _joined(becomes)


def _constant(words: list[str]) -> str:
    return quote("".join(words)) if words else ""


def _joined(parts: list[str]) -> str:
    return f"({' . '.join(part for part in parts if part) or quote('')})"
