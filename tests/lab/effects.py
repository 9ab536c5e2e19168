"""Kills a process just before its k-th effect on the world: the steps enumerate themselves.

An effect is a program started, a file opened for writing, a directory made, anything renamed or
removed. Python reports each to its audit hooks before it happens, so no list of steps is kept
here: a step that is added to the driver tomorrow is killed at tomorrow.

The plan is a file: while it exists, effects are counted and noted in a file beside it, and the
number in it says before which one to die.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

_ALWAYS: Final = frozenset(
    {
        "os.mkdir",
        "os.rmdir",
        "os.remove",
        "os.rename",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
        "subprocess.Popen",
    }
)
_ASIDE: Final = ("admin-passthru", "/targets", "status --target multipath")
"""What the driver does when it looks at its targets and at its maps, which is at no step of any
operation: neither of any call, nor of what the healer does to a volume."""
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watcher:
    def __init__(self, plan: Path, ignore: list[str]) -> None:
        self._plan = plan
        self._ignore = {*ignore, str(plan), str(plan.with_suffix(".trace"))}
        self._count = 0
        self._busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or not self._is_effect(event, arguments):
            return
        if any(each in _text(event, arguments) for each in _ASIDE):
            return
        self._busy = True
        try:
            self._effect(f"{event} {_text(event, arguments)}")
        finally:
            self._busy = False

    def _is_effect(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return bool(flags & _WRITING) and str(path) not in self._ignore
        return event in _ALWAYS

    def _effect(self, text: str) -> None:
        try:
            fatal = int(self._plan.read_text())
        except FileNotFoundError:
            self._count = 0
            return
        self._count += 1
        with self._plan.with_suffix(".trace").open("a") as trace:
            trace.write(f"{self._count} {text}\n")
        if self._count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def _text(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "subprocess.Popen":
        return " ".join(str(word) for word in arguments[1])
    return str(arguments[0])


def watch(plan: Path, *, ignore: list[str]) -> None:
    """Count this process's effects from now on, as the plan says."""
    sys.addaudithook(_Watcher(plan, ignore))
