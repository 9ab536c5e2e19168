"""A line of RouterOS script as the tests look at it: code without its texts, texts, and blocks."""

import re

_TEXT = re.compile(r'"((?:[^"\\$]|\\["\\$])*)"')
_CALL = re.compile(r"/(?:[a-z-]+/)+[a-z-]+")
_CONDITIONS = {"in-use": 2, "grows-later": 3, "still-mounted": 2}
"""How many blocks a refusal stands in, where they are more than one."""

_READS = ("/print", "/find", "/get")


class Script:
    """A line, taken apart.

    ``code`` has ``""`` where a string constant stands, ``texts`` what the constants mean.
    Anything that could leave its quotes, or be evaluated inside of them, fails here.
    """

    def __init__(self, line: str) -> None:
        code: list[str] = []
        self.texts: list[str] = []
        self._where: list[int] = []
        position = length = 0
        while position < len(line):
            if line[position] == '"':
                found = _TEXT.match(line, position)
                assert found, f"no string constant: {line[position:]}"
                self.texts.append(re.sub(r"\\(.)", r"\1", found[1]))
                self._where.append(length)
                code.append('""')
                position = found.end()
            else:
                code.append(line[position])
                position += 1
            length += len(code[-1])
        self.code = "".join(code)

    @property
    def shape(self) -> str:
        """The code, whatever its numbers are."""
        return re.sub(r"\d+", "0", self.code)

    @property
    def changes(self) -> list[str]:
        """The calls that do more than read, in their order; the lock's are not among them."""
        calls = _CALL.findall(self.code)
        lock = "/ip/firewall/address-list/"
        return [each for each in calls if not each.endswith(_READS) and not each.startswith(lock)]

    @property
    def reasons(self) -> list[str]:
        """Why the line may refuse."""
        return [text.split()[1] for text in self.texts if text.startswith("csi-refused ")]

    @property
    def headings(self) -> list[str]:
        """What it prints as it stands."""
        return self.behind(":put ")

    def behind(self, code: str) -> list[str]:
        """The texts that stand directly behind this code."""
        pairs = zip(self.texts, self._where, strict=True)
        return [text for text, where in pairs if self.code[:where].endswith(code)]

    def refusals(self, reason: str) -> list[int]:
        """Where the line refuses for this reason."""
        pairs = zip(self.texts, self._where, strict=True)
        return [where for text, where in pairs if text.split()[:2] == ["csi-refused", reason]]

    def balanced(self) -> bool:
        """Whether every bracket is closed by its own kind."""
        opened: list[str] = []
        for letter in self.code:
            if letter in "([{":
                opened.append({"(": ")", "[": "]", "{": "}"}[letter])
            elif letter in ")]}" and (not opened or opened.pop() != letter):
                return False
        return not opened

    def places(self, code: str) -> list[int]:
        """Where this code stands."""
        return [found.start() for found in re.finditer(re.escape(code), self.code)]

    def proofs(self, place: int) -> set[str]:
        """The reasons for which the line has refused, if it must, before it gets to ``place``.

        A refusal stands in the block of its condition, or of two. It counts where that condition
        is on the way: in the same block as ``place``, or in one around it.
        """
        way = self._blocks(place)
        found = set()
        for reason in self.reasons:
            for where in self.refusals(reason):
                around = self._blocks(where)[: -_CONDITIONS.get(reason, 1)]
                if where < place and way[: len(around)] == around:
                    found.add(reason)
        return found

    def conditions(self, place: int) -> str:
        """The code in front of each block around ``place``, to the statement's beginning."""
        return " ".join(re.split(r"[;{}]", self.code[:start])[-1] for start in self._blocks(place))

    def _blocks(self, place: int) -> tuple[int, ...]:
        """Where the blocks around ``place`` begin, the outermost first."""
        opened: list[int] = []
        for position, letter in enumerate(self.code[:place]):
            if letter == "{":
                opened.append(position)
            elif letter == "}":
                opened.pop()
        return tuple(opened)
