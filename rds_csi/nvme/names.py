"""Which NQN each of the kernel's controllers has, without asking for all of them each time.

A node with 200 volumes is asked for one of them 200 times a minute, and each time whose each
controller is: 40,000 reads. A controller keeps its NQN for as long as it exists, so an answer is
kept, but only for the very object that gave it: a controller's name is given out again at once,
the number of its entry in the class directory never is. (kernfs, since Linux 5.5: 32 bits counted
up, and 32 more that count how often those have begun anew; ``fs/kernfs/dir.c``.)

A controller that is being made has an entry before it has an NQN, for as long as the target takes
to answer. What it shows until then is "(efault)": the kernel prints a text of a subsystem that is
not there yet (``nvme_sysfs_show_subsysnqn``; ``check_pointer`` in ``lib/vsprintf.c``). Kept, that
would hide the controller for as long as it exists: "already connected", and not to be found.
"""

import os
import re
from collections.abc import Callable
from typing import Final

_CONTROLLER: Final = re.compile(r"nvme[0-9]+")
_NQN: Final = "nqn."
"""How an NQN begins (NVM Express Base Specification 2.0, 4.5)."""


class Names:
    """The controllers listed in ``directory`` (``/sys/class/nvme``); for any thread.

    ``read`` gives the NQN that the controller of a name shows at that moment, or nothing.
    """

    def __init__(self, directory: str, read: Callable[[str], str]) -> None:
        self._directory = directory
        self._read = read
        self._before: tuple[dict[str, int], dict[str, str]] = ({}, {})

    def nqns(self) -> dict[str, str]:
        """The NQN of each controller that shows one, in the order of their numbers.

        One listing, and a read for each controller that did not show an NQN to the last call.
        That a name is of this NQN is for whoever acts on it to prove: it may be another's a moment
        later.
        """
        listed = self._list()
        numbers, known = self._before
        if listed == numbers and len(known) == len(listed) and all(map(_is_nqn, known.values())):
            return known
        nqns = {}
        # Those of one kind begin alike, so the shorter number is the lower one.
        for name in sorted(listed, key=lambda name: (len(name), name)):
            same = numbers.get(name) == listed[name] and _is_nqn(known.get(name, ""))
            if nqn := known[name] if same else self._read(name):
                nqns[name] = nqn
        self._before = listed, nqns
        return nqns

    def _list(self) -> dict[str, int]:
        try:
            with os.scandir(self._directory) as entries:
                return {
                    entry.name: entry.inode()
                    for entry in entries
                    if _CONTROLLER.fullmatch(entry.name)
                }
        except OSError:
            return {}


def _is_nqn(shown: str) -> bool:
    return shown.startswith(_NQN)
