"""Unpacks the nvme-cli of other Debian releases beside the machine's own, with all they need.

    python -m tests.lab.nvme_clis FOLDER

Each is in a folder named by its suite, with a program ``nvme`` that can be run from there: its own
C library and loader are beside it. Nothing is installed. Exit status 1 if one cannot be had.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from rds_csi.lab.debian import Archive, sources, unpack
from rds_csi.lab.host import LabUnavailable, run

SUITES: Final = {
    "trixie": ("trixie",),
    "sid": ("sid",),
    # It holds packages that need those of sid.
    "experimental": ("sid", "experimental"),
}
"""Where each is taken from; the version is whatever is there."""
_WRAPPER: Final = """\
#!/bin/sh
usr=${0%/*}/usr
exec "$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" \\
    "$usr/sbin/nvme" "$@"
"""


def fetch(suite: str, folder: Path) -> None:
    """Unpack one to ``folder``, all or nothing."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        archive = Archive(scratch, sources(SUITES[suite]))
        archive.update()
        # What it needs is fetched whatever this machine has, the C library too.
        files = archive.download_installation("nvme-cli", suite)
        root = scratch / "root"
        unpack(files, root)
        (root / "nvme").write_text(_WRAPPER)
        (root / "nvme").chmod(0o755)
        sys.stdout.write(f"{suite}: {run(str(root / 'nvme'), 'version')}")
        shutil.rmtree(folder, ignore_errors=True)
        root.replace(folder)


def main(folder: Path) -> int:
    """Unpack what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = 0
    for suite in SUITES:
        if (folder / suite / "nvme").exists():
            continue
        try:
            fetch(suite, folder / suite)
        except (LabUnavailable, OSError) as error:
            sys.stderr.write(f"nvme-cli of {suite}: {error}\n")
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
