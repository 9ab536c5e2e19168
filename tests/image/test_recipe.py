"""The Containerfile and what it copies, without building anything."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from rds_csi import __version__
from tests.image.recipe import debian, parse

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Containerfile").read_text()


def test_stages() -> None:
    arguments, stages = parse(RECIPE)
    assert [(stage.name, stage.base) for stage in stages] == [
        ("build", "${BASE}"),
        ("controller", "${BASE}"),
        ("node", "controller"),
    ]
    assert set(arguments) == {"BASE"}
    assert re.fullmatch(
        r"docker\.io/library/debian:trixie-slim@sha256:[0-9a-f]{64}", arguments["BASE"]
    )


def test_version_is_the_drivers() -> None:
    assert f"ARG VERSION={__version__}\n" in RECIPE


def test_every_package_is_locked_by_its_hash() -> None:
    """The closure of the driver's own dependencies, with the hashes of uv.lock, and no more."""
    lock = {each["name"]: each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    wanted: set[str] = set()
    waiting = ["rds-csi"]
    while waiting:
        for dependency in lock[waiting.pop()].get("dependencies", []):
            marker = dependency.get("marker", "")
            if dependency["name"] not in wanted and "python_full_version < '3.12" not in marker:
                wanted.add(dependency["name"])
                waiting.append(dependency["name"])
    required = requirements((ROOT / "image" / "requirements.txt").read_text())
    assert set(required) >= wanted - {"colorama"}
    for name, (version, hashes) in required.items():
        files = [*lock[name].get("wheels", []), lock[name].get("sdist", {"hash": ""})]
        assert version == lock[name]["version"]
        assert hashes
        assert hashes <= {file["hash"] for file in files}


def requirements(text: str) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of every package."""
    result: dict[str, tuple[str, set[str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        first, *others = line.split()
        name, _, version = first.partition("==")
        hashes = {word.removeprefix("--hash=") for word in others if word.startswith("--hash=")}
        result[name] = (version, hashes)
    return result


@pytest.mark.parametrize("text", ["FROM a\n", "FROM a AS b\nONBUILD RUN x\n", "RUN x\n"])
def test_what_the_builder_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"FROM a|unknown instruction"):
        parse(text)


def test_a_fresh_clone_has_no_folder_to_build_in_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mmdebstrap`` makes its root folder, but fails where the folder above it is missing."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text('#!/bin/sh -e\nmkdir "$4"\nmkdir -p "$4/etc/dpkg/dpkg.cfg.d"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    root = debian(tmp_path / "build" / "image")

    assert (root / "ready").exists()
