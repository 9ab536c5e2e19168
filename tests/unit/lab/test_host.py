"""What the lab finds on a host, and what it says where it cannot run."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from rds_csi.lab import Lab, host, machine
from rds_csi.lab.__main__ import main
from rds_csi.lab.host import Kernel, LabUnavailable
from rds_csi.runtime.process import PACKAGES

COMPLETE = """kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-fabrics.ko
kernel/drivers/nvme/target/nvmet-tcp.ko.xz: kernel/drivers/nvme/target/nvmet.ko.xz
kernel/drivers/block/loop.ko:
kernel/fs/ext4/ext4.ko:
kernel/fs/xfs/xfs.ko.zst:
kernel/net/9p/9pnet_virtio.ko:
"""


def make_kernel(boot: Path, modules: Path, version: str, *, built_in: str = "overlay") -> None:
    boot.mkdir(exist_ok=True)
    (boot / f"vmlinuz-{version}").touch()
    (modules / version).mkdir(parents=True)
    (modules / version / "modules.dep").write_text(COMPLETE)
    (modules / version / "modules.builtin").write_text(f"kernel/fs/{built_in}/{built_in}.ko\n")


def test_modules_may_be_compressed_or_built_in(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.1.0-56-amd64")
    assert host.find_kernel([boot], modules) == Kernel(
        "6.1.0-56-amd64", boot / "vmlinuz-6.1.0-56-amd64"
    )


def test_the_newest_kernel_is_taken_by_number_not_by_letter(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    for version in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.1-amd64"):
        make_kernel(boot, modules, version)
    found = host.find_kernel([boot], modules)
    assert found is not None
    assert found.version == "6.12.1-amd64"


def test_a_kernel_without_a_module_is_none(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.1.0-56-cloud-amd64", built_in="fuse")
    assert host.find_kernel([boot], modules) is None


def test_a_kernel_whose_modules_are_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-6.1.0").touch()
    assert host.find_kernel([tmp_path, tmp_path / "nowhere"], tmp_path / "modules") is None


def test_a_kernel_that_is_given_is_taken_or_refused(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.12.1-amd64")
    image = boot / "vmlinuz-6.12.1-amd64"
    assert host.given_kernel(image, modules) == Kernel("6.12.1-amd64", image)
    with pytest.raises(LabUnavailable, match="no kernel with modules"):
        host.given_kernel(boot / "vmlinuz-6.13.0", modules)
    (boot / "vmlinuz-6.13.0").touch()
    with pytest.raises(LabUnavailable, match="nvme-tcp"):
        host.given_kernel(boot / "vmlinuz-6.13.0", modules)


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
    monkeypatch.setattr(host, "_check_distribution", lambda _: None)
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
    monkeypatch.setattr(machine, "kernel", lambda _, cache: cache.mkdir(parents=True))
    with pytest.raises(LabUnavailable, match=r"cannot be prepared for it: .*File exists"):
        Lab(cache=tmp_path / "cache").prepare()


@pytest.mark.parametrize("words", [["--env", "NAME"], ["--timeout", "soon"], ["--timeout", "0"]])
def test_wrong_words_are_a_sentence(words: list[str]) -> None:
    result = CliRunner().invoke(main, [*words, "true"])
    assert result.exit_code == 2
    assert words[0] in result.output
    assert "Traceback" not in result.output
