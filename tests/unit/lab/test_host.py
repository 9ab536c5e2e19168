"""What the lab finds on a host, and what it says where it cannot run."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from rds_csi.lab import Lab, host, kernels, machine
from rds_csi.lab.__main__ import main
from rds_csi.lab.host import LabUnavailable
from rds_csi.runtime.process import PACKAGES


def test_what_is_on_the_path_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = host.missing_packages({"there": "one", "not-there-at-all": "two"})
    assert "one" not in missing
    assert "two" in missing


def test_another_architecture_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root, which is refused first")
    with pytest.raises(LabUnavailable, match="x86_64 kernel; this machine is aarch64"):
        host.check("aarch64")


def test_nobody_but_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabUnavailable, match="root"):
        host.check("x86_64")


def test_another_distribution_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "platform.freedesktop_os_release", lambda: {"ID": "fedora", "PRETTY_NAME": "Fedora 44"}
    )
    said: list[str] = []
    with pytest.raises(LabUnavailable, match=r"Fedora 44: install .*zz-package"):
        host.install_programs(said.append, {"no-such-program": "zz-package"})
    assert said == []


@pytest.mark.parametrize("path", [None, "", "/one:/two"])
def test_programs_are_found_whatever_path_says(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """No PATH is no reason to miss the system's programs, nor to look into the current folder."""
    monkeypatch.delenv("PATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    folders = host.search_path().split(":")
    assert "" not in folders
    assert {"/usr/sbin", "/usr/bin", "/sbin", "/bin"} <= set(folders)
    assert folders[0] == ("/one" if path else "/usr/local/sbin")
    assert host.missing_packages({"sh": "dash"}) == []


def test_what_the_driver_runs_is_installed_too() -> None:
    assert host.PROGRAMS.items() >= PACKAGES.items()
    assert {"qemu-system-x86_64", "depmod", "bash", "file"} <= set(host.PROGRAMS)


def test_a_debian_without_apt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(LabUnavailable, match=r"install .*zz-package.* by hand"):
        host.install_programs(lambda _: None, {"no-such-program": "zz-package"}, packages=())


def test_apt_that_cannot_be_run_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "search_path", lambda: "/nonexistent")
    monkeypatch.setattr(host, "check_distribution", lambda _: None)
    said: list[str] = []
    with pytest.raises(LabUnavailable, match="apt-get cannot be run: No such file or directory"):
        host.install_programs(said.append, {"no-such-program": "zz-package"}, packages=())
    assert said == ["installing Debian packages: zz-package"]


def test_a_disk_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()
    for name in ("check", "_vng", "install_programs"):
        monkeypatch.setattr(machine, name, lambda *_: None)
    monkeypatch.setattr(kernels, "kernel", lambda _, cache: cache.mkdir(parents=True))
    with pytest.raises(LabUnavailable, match=r"cannot be prepared for it: .*File exists"):
        Lab(cache=tmp_path / "cache").prepare()


@pytest.mark.parametrize(
    "words", [["--env", "NAME"], ["--timeout", "soon"], ["--timeout", "0"], ["--kernel", "6.99"]]
)
def test_wrong_words_are_a_sentence(words: list[str]) -> None:
    result = CliRunner().invoke(main, [*words, "true"])
    assert result.exit_code == 2
    assert words[0] in result.output
    assert "Traceback" not in result.output
