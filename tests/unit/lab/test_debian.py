"""Packages of other releases: chosen, checked and unpacked by apt, in a folder apart."""

import re
from pathlib import Path

import pytest

from rds_csi.lab import debian
from rds_csi.lab.debian import Archive
from rds_csi.lab.host import LabUnavailable
from tests.unit.lab.packages import make_archive, make_package, needs_debian

pytestmark = needs_debian


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Where the archive is served from."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for version in ("7.9.1-1", "7.10.2-1~bpo13+1", "7.10.2-1"):
        needs = f"one-base (= {version}), first | second, last"
        make_package(folder, "one", version, {"usr/one": version}, depends=needs)
    return folder


def test_versions_are_in_debians_order(tmp_path: Path, shelf: Path) -> None:
    archive = Archive(tmp_path / "apt", [make_archive(shelf)])
    archive.update()
    assert archive.versions("one") == ["7.10.2-1", "7.10.2-1~bpo13+1", "7.9.1-1"]
    assert archive.versions("another") == []
    assert archive.depends("one", "7.9.1-1") == ["one-base", "first", "second", "last"]


def test_the_version_asked_for_is_fetched_and_unpacked(tmp_path: Path, shelf: Path) -> None:
    archive = Archive(tmp_path / "apt", [make_archive(shelf)])
    archive.update()
    debian.unpack(archive.download("one=7.9.1-1"), tmp_path / "root")
    assert (tmp_path / "root/usr/one").read_text() == "7.9.1-1"


def test_an_archive_that_is_not_signed_is_refused(tmp_path: Path, shelf: Path) -> None:
    line = make_archive(shelf).replace("trusted=yes", f"signed-by={debian.KEYRING}")
    with pytest.raises(LabUnavailable, match=r"^apt-get update -q: .*is not signed"):
        Archive(tmp_path / "apt", [line]).update()


def test_a_package_that_is_not_the_one_listed_is_refused(tmp_path: Path, shelf: Path) -> None:
    archive = Archive(tmp_path / "apt", [make_archive(shelf)])
    archive.update()
    package = shelf / "one_7.9.1-1_amd64.deb"
    content = package.read_bytes()
    package.write_bytes(content.replace(b"usr/one", b"usr/two"))
    assert package.stat().st_size == len(content)
    with pytest.raises(LabUnavailable, match="Hash Sum mismatch"):
        archive.download("one=7.9.1-1")


def test_an_archive_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabUnavailable) as refused:
        Archive(tmp_path / "apt", [f"deb [trusted=yes] file:{tmp_path}/nowhere ./"]).update()
    assert str(refused.value).startswith("apt-get update -q: ")
    # None of the options that the machine is kept out by.
    assert "Dir::" not in str(refused.value)


def test_one_list_of_two_that_is_out_of_reach_is_a_failure(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To apt it would be a warning: it makes do with what it has."""
    (tmp_path / "apt.conf").write_text('Acquire { Retries "0"; http::Proxy "DIRECT"; };')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    lines = [make_archive(shelf), "deb [trusted=yes] http://127.0.0.1:1 ./"]
    with pytest.raises(LabUnavailable, match=r"Failed to fetch http://127\.0\.0\.1:1"):
        Archive(tmp_path / "apt", lines).update()


def test_nothing_of_the_machine_is_read_or_written(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "apt", [])
    said = archive.apt("apt-config", "dump")
    own = {
        name: value
        for name, value in re.findall(r'^Dir::(\S+) "(.*)";$', said, re.MULTILINE)
        if name.startswith(("State", "Cache", "Etc")) and str(tmp_path) in value
    }
    assert own.keys() == {
        *("State::lists", "State::status", "Cache", "Cache::archives", "Etc::sourcelist"),
    }
    for name in ("sourceparts", "preferences", "preferencesparts"):
        assert f'Dir::Etc::{name} "/dev/null";' in said


def test_debians_suites_are_signed_by_debian_and_updates_have_their_own_archive() -> None:
    plain, security = debian.sources(["trixie", "trixie-security"])
    signed = f"deb [signed-by={debian.KEYRING} arch=amd64] {debian.MIRROR}"
    assert plain == f"{signed}/debian trixie main"
    assert security == f"{signed}/debian-security trixie-security main"
