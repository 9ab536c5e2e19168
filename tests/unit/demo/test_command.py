"""What the demo says of the machine it is started on, and that it always ends with a verdict."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rds_csi.cli.main import main
from rds_csi.demo import command
from rds_csi.lab import Lab, LabFailed, LabUnavailable, host
from rds_csi.runtime.process import ENVIRONMENT, PACKAGES


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, for root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for room in (command, host):
        monkeypatch.setattr(room, "ENVIRONMENT", {**ENVIRONMENT, "PATH": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add(folder: Path, name: str, text: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


def loaded(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "modules" / name).mkdir(parents=True)
    return folder / "modules"


def test_without_modprobe_the_kernel_lacks_what_is_not_loaded(programs: Path) -> None:
    assert command.kernel_lacks(programs / "modules") == "the kernel module nvme-tcp"


def test_without_modprobe_what_is_loaded_is_enough(programs: Path) -> None:
    assert command.kernel_lacks(loaded(programs, "nvme_tcp", "nvmet_tcp", "configfs", "loop")) == ""


def test_modprobe_decides(programs: Path) -> None:
    add(programs, "modprobe", 'case "$2" in nvmet-tcp) exit 1;; esac')
    assert command.kernel_lacks(programs / "modules") == "the kernel module nvmet-tcp"
    add(programs, "modprobe")
    assert command.kernel_lacks(programs / "modules") == ""


def test_a_modprobe_that_is_not_on_the_path(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root shell by ``su`` has no ``/usr/sbin`` on its PATH."""
    monkeypatch.setenv("PATH", "/nonexistent")
    add(programs, "modprobe")
    assert command.kernel_lacks(programs / "modules") == ""


def test_not_root_says_so_and_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(main, ["demo", "--here"])
    assert result.exit_code == 2
    assert result.output == "rds-csi: the demo cannot run here: this machine lacks root\n"
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "DEMO FAILED: the virtual machine: the lab needs root" in said


def test_here_missing_programs_are_installed_or_named(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PACKAGES:
        if name != "nvme":
            add(programs, name)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"PRETTY_NAME": "Fedora 44"})
    monkeypatch.setattr(command, "kernel_lacks", lambda: "")
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "DEMO FAILED" in said
    assert "this is Fedora 44: install nvme-cli by hand" in said


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks nothing, so that the demo begins."""
    monkeypatch.setattr(command, "kernel_lacks", lambda: "")
    monkeypatch.setattr("rds_csi.lab.install_programs", lambda *_, **__: None)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), TimeoutError()])
def test_whatever_stops_it_here_is_a_verdict(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "_play", fail)
    result = CliRunner().invoke(main, ["demo"], catch_exceptions=False)
    assert result.exit_code == 1
    assert result.output.startswith("DEMO FAILED: ")
    assert len(result.output.split()) > 4


@pytest.mark.usefixtures("here")
def test_a_kernel_without_a_target_is_a_verdict() -> None:
    if Path("/sys/kernel/config/nvmet/subsystems").is_dir():
        pytest.skip("this kernel has an NVMe target ready")
    result = CliRunner().invoke(main, ["demo"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "DEMO FAILED: the simulated RDS: this kernel offers no NVMe target" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    "error", [LabFailed("it died"), LabUnavailable("no x86"), OSError(30, "Read-only file system")]
)
def test_whatever_stops_the_machine_is_a_verdict(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Mapping[str, Any]) -> int:
        raise error

    monkeypatch.setattr(Lab, "run", fail)
    result = CliRunner().invoke(main, ["demo", "--lab"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "DEMO FAILED: the virtual machine: " in result.output
    assert str(error) in " ".join(result.output.split())
