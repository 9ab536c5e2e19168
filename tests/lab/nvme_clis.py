"""Unpacks the nvme-cli of other Debian releases beside the machine's own, with all they need.

    python -m tests.lab.nvme_clis FOLDER

Each is in a folder named by its suite, with a program ``nvme`` that can be run from there: its own
C library and loader are beside it. Nothing is installed. Exit status 1 if one cannot be had.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

MIRROR: Final = "http://deb.debian.org/debian"
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
        apt = _apt(scratch, SUITES[suite])
        _run(*apt, "update", "-q")
        # The status of no machine: so everything is fetched, the C library too.
        wanted = ["install", "-q", "-y", "--download-only", "--no-install-recommends"]
        _run(*apt, *wanted, "-t", suite, "nvme-cli")
        root = scratch / "root"
        root.mkdir()
        for package in (scratch / "archives").glob("*.deb"):
            _run("dpkg-deb", "-x", str(package), str(root))
        (root / "nvme").write_text(_WRAPPER)
        (root / "nvme").chmod(0o755)
        sys.stdout.write(f"{suite}: {_run(str(root / 'nvme'), 'version')}")
        shutil.rmtree(folder, ignore_errors=True)
        root.replace(folder)


def _apt(scratch: Path, suites: tuple[str, ...]) -> list[str]:
    """apt-get with nothing of this machine but its keys."""
    for part in ("lists/partial", "archives/partial"):
        (scratch / part).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources.list").write_text(
        "".join(f"deb {MIRROR} {suite} main\n" for suite in suites)
    )
    options = {
        "APT::Sandbox::User": "root",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::status": scratch / "status",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
    }
    return [
        "apt-get",
        *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
    ]


def _run(*words: str) -> str:
    done = subprocess.run(
        words,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise OSError(f"{' '.join(words)} failed with {done.returncode}:\n{tail}")
    return done.stdout


def main(folder: Path) -> int:
    """Unpack what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = 0
    for suite in SUITES:
        if (folder / suite / "nvme").exists():
            continue
        try:
            fetch(suite, folder / suite)
        except OSError as error:
            sys.stderr.write(f"nvme-cli of {suite}: {error}\n")
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
