"""Kills the driver while a program it started runs: the programs' stand-ins do it.

Each stand-in lies in a directory that the driver's PATH names first, and runs the real program.
The plan says at which call the driver, its parent, is killed, and what becomes of the program:
it ``lives`` on to its end, as on a host, or ``dies`` too, as when a container is killed. What asks
targets for their counters, or for the state of all maps, beside all operations, is no call of any.
"""

import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

PLACE: Final = Path("/usr/local/sbin")
"""First in the driver's PATH."""

Fate = Literal["lives", "dies"]

_SHIM: Final = """#!/bin/sh
plan={plan}
real=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v {name})
[ -e "$plan" ] || exec "$real" "$@"
case "$*" in admin-passthru*|"status --target "*) exec "$real" "$@" ;; esac
echo "{name} $*" >>"$plan.calls"
read -r fatal fate <"$plan"
[ "$(wc -l <"$plan.calls")" = "$fatal" ] || exec "$real" "$@"
if [ "$fate" = lives ]; then
    kill -KILL "$PPID"
    exec "$real" "$@"
fi
"$real" "$@" &
sleep 0.03
kill -KILL "$PPID"
kill -KILL $!
"""


class Shims:
    """The stand-ins of some programs; put away again by ``remove``."""

    def __init__(self, programs: Iterable[str], folder: Path) -> None:
        self._plan = folder / "shims"
        self._calls = folder / "shims.calls"
        # The directory is the host's, and read-only.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(PLACE)], check=True)
        for path in [PLACE / name for name in programs]:
            path.write_text(_SHIM.format(plan=self._plan, name=path.name))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def kill_at_call(self, number: int, fate: Fate) -> None:
        """The driver dies at the ``number``-th call from now; 0: calls are only counted."""
        self._calls.unlink(missing_ok=True)
        self._plan.write_text(f"{number} {fate}\n")

    def end_of_plan(self) -> list[str]:
        """Kill no more; the calls there were."""
        self._plan.unlink(missing_ok=True)
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def remove(self) -> None:
        subprocess.run(["/usr/bin/umount", str(PLACE)], check=True)
