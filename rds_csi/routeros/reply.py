"""What came back of a line: the marker, the JSON, and values in whatever shape RouterOS has them.

RouterOS prints results and errors alike on standard output and reports exit status 0 for both,
so only the marker that :func:`rds_csi.routeros.quoting.wrap` puts last tells how a line ended.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rds_csi.errors import RouterOSError

HEADINGS: Final = frozenset(
    {
        "disk",
        "disks",
        "file",
        "adding",
        "created",
        "undone",
        "promised",
        "mounted",
        "slot",
        "system",
        "log",
    }
    | {"user", "group", "packages", "clock", "accepted"}
)
"""What ``commands.py``, ``inventory.py`` and ``trials.py`` print before a query's JSON."""

_EXCERPT: Final = 2000
_DECODER: Final = json.JSONDecoder(strict=False)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_GROUPED: Final = re.compile(r"-?\d{1,3}([ \u00a0]\d{3})+|-?\d+")


@dataclass(frozen=True, slots=True)
class Reply:
    """A line's output before its marker, and RouterOS's error text where it failed."""

    lines: tuple[str, ...]
    error: str | None = None

    def has(self, heading: str) -> bool:
        """Whether the line got as far as printing ``heading``."""
        return heading in self.lines

    def values(self, heading: str) -> list[Any]:
        """The JSON values printed below each such heading, in order.

        Raises :class:`RouterOSError` where the text below is no JSON.
        """
        found: list[Any] = []
        for title, text in self._sections():
            if title == heading and text:
                try:
                    found.append(json.loads(text, strict=False))
                except (ValueError, RecursionError):
                    raise _no_json(heading, text) from None
        return found

    def items(self, heading: str) -> list[dict[str, Any]]:
        """The objects of the last list below such a heading; a lone object is a list of one."""
        return list(self.each(heading))

    def each(self, heading: str) -> Iterator[dict[str, Any]]:
        """:meth:`items` one by one, so that a long list neither fills the memory nor the time.

        What is wrong with a later item is raised when it is come to.
        """
        texts = [text for title, text in self._sections() if title == heading and text]
        if not texts:
            raise RouterOSError(
                f"RouterOS printed nothing below {heading!r}: {excerpt(chr(10).join(self.lines))!r}"
            )
        try:
            yield from _each(texts[-1])
        except (ValueError, RecursionError):
            raise _no_json(heading, texts[-1]) from None

    def _sections(self) -> list[tuple[str, str]]:
        sections: list[tuple[str, list[str]]] = []
        for line in self.lines:
            if line in HEADINGS:
                sections.append((line, []))
            elif sections:
                # A console that wraps does so in the middle of a value: join without a space.
                sections[-1][1].append(line)
        return [(title, "".join(lines)) for title, lines in sections]


def _no_json(heading: str, text: str) -> RouterOSError:
    return RouterOSError(f"RouterOS printed no JSON below {heading!r}: {excerpt(text)!r}")


def _each(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, or a lone one; ValueError where the text is none."""

    def behind_space(at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it always matches

    at = behind_space(0)
    if text[at : at + 1] != "[":
        yield from as_items(json.loads(text, strict=False))
        return
    at = behind_space(at + 1)
    more = text[at : at + 1] != "]"
    while more:
        value, at = _DECODER.raw_decode(text, at)
        yield from as_items([value])
        at = behind_space(at)
        more = text[at : at + 1] == ","
        if more:
            at = behind_space(at + 1)
    if text[at : at + 1] != "]" or behind_space(at + 1) != len(text):
        raise ValueError("no list")


def decode(output: bytes | bytearray) -> str:
    """The text of an output; bytes that are no UTF-8 become replacement characters."""
    return output.decode(errors="replace")


def read(text: str, nonce: str) -> Reply | None:
    """The reply in ``text``, or None where the marker of this line is missing."""
    lines = text.split("\n")
    del text  # a listing is long, and its only long line is copied where it ends in a return
    for index, line in enumerate(lines):
        lines[index] = line.rstrip("\r")
    while lines and not lines[-1].strip():
        lines.pop()
    failed = f"CSI-ERR-{nonce}"
    for index, line in enumerate(lines):
        if line.startswith(failed):
            # RouterOS's own text may have several lines.
            message = "\n".join([line.removeprefix(failed), *lines[index + 1 :]]).strip()
            return Reply(_content(lines[:index]), message)
    if lines and lines[-1].strip() == f"CSI-OK-{nonce}":
        return Reply(_content(lines[:-1]))
    return None


def _content(lines: list[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if line and not line.isspace())


def excerpt(text: str) -> str:
    """The text, cut in the middle where it is too long for a message."""
    if len(text) <= _EXCERPT:
        return text
    return f"{text[: _EXCERPT // 2]} ... {text[-_EXCERPT // 2 :]}"


def as_items(value: Any) -> list[dict[str, Any]]:
    """A query's result as a list of objects.

    Raises :class:`RouterOSError` for anything else: an unexpected shape is not "nothing there".
    """
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RouterOSError(f"RouterOS printed no list of items: {excerpt(str(value))!r}")
    return items


def as_text(value: Any) -> str:
    """A property as text; unset is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def as_integer(value: Any) -> int:
    """A number that may come as integer, float, plain or grouped digits.

    Raises :class:`RouterOSError` for rounded values ("50.0GiB") and anything else: a size is
    never guessed.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip().removesuffix(".000000")
        if _GROUPED.fullmatch(text):
            return int(re.sub(r"[^\d-]", "", text))
    raise RouterOSError(f"{value!r} is not a whole number")


def as_boolean(value: Any) -> bool:
    """A flag: true, "true" or "yes"; unset is false."""
    return value is True or (isinstance(value, str) and value.lower() in ("true", "yes"))
