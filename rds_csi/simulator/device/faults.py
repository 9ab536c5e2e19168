"""What can be wrong with an RDS: quirks are habits of a device, faults happen to it.

Both can be changed at any time, from Python or over the control socket.
"""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_args

FaultKind = Literal[
    "drop-before",
    "drop-after",
    "stall-before",
    "stall-after",
    "garbage",
    "invalid-utf8",
    "truncate",
    "no-exit-status",
    "runtime-error",
]
FAULT_KINDS: Final[tuple[str, ...]] = get_args(FaultKind)


@dataclass(slots=True)
class Quirks:
    """Habits that differ between devices and versions, or that nobody has measured yet."""

    exit_status: int = 0
    """The status after a failed command; RouterOS 7 sends 0."""
    lag: float = 0.0
    """Seconds until a new disk or file shows in listings."""
    slot_limit: int = 0
    """The longest slot name accepted; 0 for no limit (some devices: 32)."""
    preallocate: bool = True
    """Whether a file takes its whole size from the pool at once (XFS does)."""
    resize: Literal["honoured", "ignored", "needs-unexport"] = "honoured"
    """What ``set file-size=`` does to an existing disk."""
    rename: Literal["closed", "open", "ignored", "refused"] = "closed"
    """What ``set nvme-tcp-server-nqn=`` does to a disk that has one: only while it is not exported,
    always (connections end), nothing at all, or it is refused even then."""
    size_without_file: Literal["absent", "zero", "kept"] = "absent"
    """What a disk shows as its ``size`` while its file is out of reach, as before its pool is
    mounted. Nobody has looked; a client has to live with each."""
    create_directories: bool = False
    """Whether ``add`` makes missing directories of ``file-path``."""
    latency: float = 0.0
    """Seconds each exec takes before its command runs (about 0.2 on a device)."""
    step_latency: float = 0.0
    """Seconds each command within a line takes; other sessions run meanwhile."""
    width: int = 80
    """Columns at which ``print`` wraps."""
    maximum_sessions: int = 20
    """Connections accepted at once (``/ip/service`` ``max-sessions``)."""
    maximum_channels: int = 0
    """Channels served at once per connection, further ones hang; 0 for no limit (seen: 19)."""
    keepalive: Literal["answer", "refuse", "hang"] = "answer"
    """What becomes of ``keepalive@openssh.com``."""
    error_location: Literal["seen", "always", "never"] = "seen"
    """Whether error texts end with their place, ``(/disk/get; line 1)``. "seen": those that
    nobody caught and those of ``:error``, as measured on 7.21 to 7.24; never those of commands
    caught by ``:onerror``."""
    recognise: Literal["seldom", "always"] = "seldom"
    """When the device looks which file system is in a disk (``fs``). "seldom": as the disk is made
    or attached, at boot, and when its export ends. "always": whenever it is asked."""
    interleave: bool = False
    """Whether other sessions may run between two commands of one line."""
    export_spacing: float = 1.0
    """Seconds from one export to the next after a boot; 0: all are there at once."""
    growth: Literal["fixed", "announced"] = "fixed"
    """What connected hosts learn of a greater file: nothing until the export ends and begins
    again, or at once."""
    stable_identifiers: bool = False
    """Whether an export has the same serial and UUID each time."""
    allow_list_cuts: bool = False
    """Whether another list of hosts ends the connections of those that it does not name."""
    discards: Literal["free", "kept"] = "free"
    """Whether what hosts discard becomes free space of the pool, or stays the file's."""
    allocate: bool = False
    """Whether files take their space on this machine, too. Then holes are seen as they are, those
    made by Write Zeroes too; without it they are counted by what was discarded."""
    clock_error: float = 0.0
    """Seconds by which the device's clock is ahead; negative: behind."""
    gmt_offset: int = 0
    """Seconds by which the device's local time is ahead of UTC."""

    def set(self, name: str, value: str | float | bool) -> None:
        """Change one by name; text is converted. Raises ValueError for anything unknown."""
        name = name.replace("-", "_")
        if name == "kind_target":
            for each, kind in KIND_TARGET.items():
                setattr(self, each, kind if _convert(name, value, False) else HARSH_TARGET[each])
            return
        known = {entry.name: entry for entry in fields(self)}
        if name not in known:
            raise ValueError(f"unknown quirk {name!r}; known: {', '.join(sorted(known))}")
        converted = _convert(name, value, getattr(self, name))
        choices = _CHOICES.get(name)
        if choices and converted not in choices:
            raise ValueError(f"quirk {name} must be one of {', '.join(choices)}")
        setattr(self, name, converted)


KIND_TARGET: Final[dict[str, str | float | bool]] = {
    "export_spacing": 0.0,
    "growth": "announced",
    "stable_identifiers": True,
    "allow_list_cuts": True,
    "discards": "kept",
}
"""The quirk ``kind-target`` is all of these: an RDS that makes it as easy as one could hope."""
HARSH_TARGET: Final = {name: getattr(Quirks(), name) for name in KIND_TARGET}
"""What they are without it: Linux 5.6.3's target, as RouterOS is believed to use it."""

_CHOICES: Final = {
    "growth": ("fixed", "announced"),
    "discards": ("free", "kept"),
    "resize": ("honoured", "ignored", "needs-unexport"),
    "rename": ("closed", "open", "ignored", "refused"),
    "size_without_file": ("absent", "zero", "kept"),
    "keepalive": ("answer", "refuse", "hang"),
    "error_location": ("seen", "always", "never"),
    "recognise": ("seldom", "always"),
}

_SIGNED: Final = frozenset({"clock_error", "gmt_offset"})


def _convert(name: str, value: str | float | bool, old: object) -> object:
    if isinstance(old, bool):
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"quirk {name} is yes or no, not {value!r}")
    if not isinstance(old, int | float):
        return str(value)
    try:
        number = type(old)(value)
    except ValueError:
        raise ValueError(f"quirk {name} is a number, not {value!r}") from None
    if not math.isfinite(number) or (number < 0 and name not in _SIGNED):
        raise ValueError(f"quirk {name} is a number, 0 or more, not {value!r}")
    return number


@dataclass(slots=True)
class Fault:
    """Something that happens to execs: which kind, to which of them, how often."""

    kind: FaultKind
    match: str = ""
    """A regular expression the command line must contain; empty matches all."""
    skip: int = 0
    """How many matching execs pass before it strikes."""
    count: int = 1
    """How many it strikes; 0 means all from then on."""
    text: str = ""
    """The garbage, or the message of the runtime error."""
    command: str = ""
    """For ``runtime-error``: the name of the command that fails, such as ``/disk/add``."""
    after: str = ""
    """For ``runtime-error``: it fails only once a command of this name was run in the same exec."""

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known: {', '.join(FAULT_KINDS)}")
        if self.skip < 0 or self.count < 0:
            raise ValueError("skip and count cannot be negative")
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(f"match is no regular expression: {error}") from error


@dataclass(slots=True)
class Faults:
    """The faults waiting to strike, in the order they were added."""

    pending: list[Fault] = field(default_factory=list)
    refuse_auth: bool = False
    """Whether every key is refused."""

    def add(
        self,
        kind: FaultKind,
        *,
        match: str = "",
        skip: int = 0,
        count: int = 1,
        text: str = "",
        command: str = "",
        after: str = "",
    ) -> Fault:
        """Plan a fault."""
        fault = Fault(kind, match, skip, count, text, command, after)
        self.pending.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all of them, and accept keys again."""
        self.pending.clear()
        self.refuse_auth = False

    def strike(self, line: str) -> Fault | None:
        """The fault that befalls this exec, if one does."""
        for fault in list(self.pending):
            if not re.search(fault.match, line):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.count:
                fault.count -= 1
                if not fault.count:
                    self.pending.remove(fault)
            return fault
        return None
