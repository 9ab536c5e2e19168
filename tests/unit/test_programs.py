"""Every program that the node service runs is looked for, and its package is known."""

import ast
import re
from pathlib import Path

import rds_csi
from rds_csi.doctor.node.prerequisites import PROGRAMS
from rds_csi.lab import host
from rds_csi.runtime.process import PACKAGES

PACKAGE = Path(rds_csi.__file__).parent
ROOMS = ("filesystem", "nvme", "node")
NO_PROGRAMS = {"connect", "inspect", "remount", "run"}
"""Words that begin a list of something else."""
_PROGRAM = re.compile(r"[a-z][a-z0-9_.-]*")


def run() -> set[str]:
    """The first words of the command lines in the rooms that run programs."""
    found = set()
    for room in ROOMS:
        for file in (PACKAGE / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.List) and len(node.elts) > 1:
                    first = node.elts[0]
                    if isinstance(first, ast.Constant) and _PROGRAM.fullmatch(str(first.value)):
                        found.add(str(first.value))
    return found - NO_PROGRAMS


def test_the_collector_sees_command_lines() -> None:
    assert run() >= {"mount", "umount", "blkid", "nvme", "mkfs.ext4", "mkfs.xfs", "dumpe2fs"}


def test_the_doctor_looks_for_each_program_and_for_no_other() -> None:
    assert set(PROGRAMS) == run()


def test_the_package_of_each_program_is_known_so_that_its_absence_can_be_mended() -> None:
    assert run() <= set(PACKAGES)
    assert run() <= set(host.PROGRAMS)
