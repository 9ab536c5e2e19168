"""A program's stand-in, which the driver's PATH names before the real one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.shims import PLACE


@contextmanager
def standing_in(program: str, script: str) -> Iterator[Path]:
    """Have ``script`` run wherever the driver would run ``program``."""
    # The guest's /usr cannot be written to.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", PLACE], check=True)
    try:
        path = PLACE / program
        path.write_text(script)
        path.chmod(0o755)
        yield path
    finally:
        # A stand-in that was killed may not be gone to the last.
        subprocess.run(["/usr/bin/umount", "--lazy", PLACE], check=True)
