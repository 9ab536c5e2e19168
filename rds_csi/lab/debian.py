"""Packages of any Debian release, fetched beside this machine's own apt.

apt runs with sources, lists and a cache in a folder of its own: the machine's sources, lists and
packages stay as they are. Its proxy settings count. Nothing is taken that is not signed by Debian.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rds_csi.lab.host import LabUnavailable, run

MIRROR: Final = "http://deb.debian.org"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's keys, of the package ``debian-archive-keyring`` that apt itself needs."""


def sources(suites: Sequence[str]) -> list[str]:
    """The lines of ``sources.list`` for suites of Debian, security updates among them."""
    return [
        f"deb [signed-by={KEYRING} arch=amd64] {MIRROR}/{_archive(suite)} {suite} main"
        for suite in suites
    ]


def _archive(suite: str) -> str:
    return "debian-security" if suite.endswith("-security") else "debian"


class Archive:
    """What the given sources have. ``folder`` is made, and belongs to it alone.

    All raise :class:`LabUnavailable` if the archive cannot be reached or is not signed.
    """

    def __init__(self, folder: Path, lines: Sequence[str]) -> None:
        self._folder = folder
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # The status of no machine: what is fetched does not depend on what is installed here.
        (folder / "status").touch()
        (folder / "sources.list").write_text("".join(f"{line}\n" for line in lines))

    def update(self) -> None:
        """Fetch the lists, each of them."""
        self.apt("apt-get", "update", "-q")

    def versions(self, package: str) -> list[str]:
        """The versions of the package, newest first."""
        said = self.apt("apt-cache", "madison", package)
        return [line.split("|")[1].strip() for line in said.splitlines()]

    def depends(self, package: str, version: str) -> list[str]:
        """The names of the packages that this version of a package depends on."""
        said = self.apt("apt-cache", "show", f"{package}={version}")
        found = re.search(r"^Depends: (.*)$", said, re.MULTILINE)
        return re.findall(r"(?:^|[,|]) *([^\s,|]+)", found[1]) if found else []

    def download(self, *packages: str) -> list[Path]:
        """The files of the packages, each named like ``NAME`` or ``NAME=VERSION``."""
        folder = self._folder / "archives"
        # It writes into the folder it is started in.
        self.apt("apt-get", "download", "-q", *packages, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def download_installation(self, package: str, suite: str) -> list[Path]:
        """The files of the package of that suite and of all that it needs."""
        wanted = ["install", "-q", "-y", "--download-only", "--no-install-recommends"]
        self.apt("apt-get", *wanted, "-t", suite, package)
        return sorted((self._folder / "archives").glob("*.deb"))

    def apt(self, program: str, *words: str, cwd: Path | None = None) -> str:
        """What a program of apt says when it knows these sources only."""
        options = {
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            # Else a list that cannot be fetched is a warning, and the package "not found".
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::status": self._folder / "status",
            "Dir::State::lists": self._folder / "lists",
            "Dir::Cache": self._folder,
            "Dir::Cache::archives": self._folder / "archives",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        try:
            return run(program, *given, *words, cwd=cwd)
        except LabUnavailable as error:
            # Not the options: what was to be done, and what apt calls an error.
            lines = str(error).splitlines()
            said = "; ".join(line[3:] for line in lines if line.startswith("E: ")) or lines[-1]
            raise LabUnavailable(f"{program} {' '.join(words)}: {said}") from None


def unpack(packages: Sequence[Path], folder: Path) -> None:
    """Unpack the packages' files into the folder, nothing else: no script of theirs runs."""
    folder.mkdir(exist_ok=True)
    for package in packages:
        run("dpkg-deb", "-x", str(package), str(folder))
