"""What the device was asked: every exec, what the parser saw in it, and how it ended."""

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

_LATEST: Final = 20_000

Outcome = Literal[
    "running",
    "ok",
    "parse-error",
    "runtime-error",
    "waiting-for-input",
    "dropped",
    "stalled",
]


@dataclass(frozen=True, slots=True)
class Executed:
    """One menu command that ran, with its evaluated arguments as text."""

    name: str
    arguments: dict[str, str]


@dataclass(slots=True)
class Exec:
    """One exec request."""

    number: int
    line: str
    parsed: list[str] = field(default_factory=list)
    """The names of all commands the parser found, nested ones too."""
    executed: list[Executed] = field(default_factory=list)
    """The menu commands that ran, in order."""
    outcome: Outcome = "running"
    output: str = ""
    fault: str = ""
    """The kind of fault that befell it."""

    def enter(self, name: str, arguments: dict[str, str]) -> None:
        """Note a command that runs now."""
        self.executed.append(Executed(name, arguments))


class Journal:
    """The latest execs and the number of all of them."""

    def __init__(self) -> None:
        self.execs: deque[Exec] = deque(maxlen=_LATEST)
        self.count = 0
        self.commands: Counter[str] = Counter()

    def begin(self, line: str) -> Exec:
        """Enter a new exec."""
        self.count += 1
        record = Exec(self.count, line)
        self.execs.append(record)
        return record

    def end(self, record: Exec) -> None:
        """Count what it ran."""
        self.commands.update(executed.name for executed in record.executed)

    def since(self, count: int) -> list[Exec]:
        """The execs after the ``count``-th."""
        return [record for record in self.execs if record.number > count]

    def as_json(self, since: int = 0) -> list[dict[str, Any]]:
        """The same for the control socket."""
        return [asdict(record) for record in self.since(since)]
