"""The shell blocks of a page, by the mark in front of them.

A mark is an HTML comment on the line before the fence, so that readers do not see it: ``run`` for
what needs no cluster, ``lab`` for what needs the lab, ``cluster`` for what needs a cluster.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
_BLOCK: Final = re.compile(
    r"^(?:<!-- (?P<mark>[\w. -]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its mark (or empty) and its lines."""

    language: str
    mark: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    """The page's blocks of a language, in order."""
    found = [
        Block(match["language"], match["mark"] or "", match["text"])
        for match in _BLOCK.finditer(page.read_text())
    ]
    return [block for block in found if block.language == language]


def marked(page: Path, mark: str, language: str = "sh") -> list[str]:
    """The texts of the blocks with that mark."""
    return [block.text for block in blocks(page, language) if block.mark == mark]
