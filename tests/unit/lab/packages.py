"""Small Debian packages, and an archive of them, made with Debian's own tools."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

needs_debian = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("dpkg-deb", "apt-get", "apt-cache", "depmod")),
    reason="apt, dpkg-deb and depmod are Debian's",
)


def make_package(
    folder: Path, name: str, version: str, files: Mapping[str, str], *, depends: str = ""
) -> Path:
    """A package of those files, by path and content."""
    root = folder / f"{name}-{version}.tree"
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
    control += "Maintainer: nobody <nobody@example.org>\nDescription: for a test\n"
    control += f"Depends: {depends}\n" if depends else ""
    for path, content in {"DEBIAN/control": control, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    package = folder / f"{name}_{version}_amd64.deb"
    command = ["dpkg-deb", "--build", "-Znone", "--root-owner-group", str(root), str(package)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(root)
    return package


def make_archive(folder: Path) -> str:
    """Lists the packages in the folder; the line of ``sources.list`` that names it as trusted."""
    entries = []
    for package in sorted(folder.glob("*.deb")):
        fields = ["dpkg-deb", "--field", str(package)]
        control = subprocess.run(fields, check=True, capture_output=True, text=True).stdout
        content = package.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entries.append(
            f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {digest}\n"
        )
    listed = "\n".join(entries)
    (folder / "Packages").write_text(listed)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    (folder / "Release").write_text(f"SHA256:\n {digest} {len(listed.encode())} Packages\n")
    return f"deb [trusted=yes arch=amd64] file:{folder} ./"
