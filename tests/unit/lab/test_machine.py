"""One boot, without a machine: what is run in it, what is shown, how it ends.

A shell script stands for virtme-ng; that a real machine boots is shown by ``tests/kernel``.
"""

import io
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rds_csi.lab import kernels, machine
from rds_csi.lab.__main__ import EXIT_UNAVAILABLE, main
from rds_csi.lab.kernels import NEWEST, Kernel
from rds_csi.lab.machine import Lab, LabFailed, cached_directories


def boot(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    *,
    command: tuple[str, ...] = ("true",),
    timeout: float = 30,
) -> tuple[int, str]:
    """Boot a "machine" that is ``script``; the status and what was shown."""
    stand_in = tmp_path / "vng"
    stand_in.write_text(f"#!/bin/sh\nshared={tmp_path}/shared\n{script}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(machine, "_vng", lambda: stand_in)
    monkeypatch.setattr(Lab, "prepare", lambda self: Kernel("6.1", Path("/nowhere/vmlinuz-6.1")))
    monkeypatch.setattr(Lab, "_kvm_works", lambda self, chosen: False)
    shown = io.StringIO()
    lab = Lab(cache=tmp_path / "cache")
    status = lab.run(command, shared=tmp_path / "shared", timeout=timeout, output=shown)
    return status, shown.getvalue()


def test_the_commands_status_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _ = boot(tmp_path, monkeypatch, "echo 7 >$shared/status; exit 255")
    assert status == 7


def test_only_what_the_command_says_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown = boot(
        tmp_path,
        monkeypatch,
        r"""printf '[    0.1] booting\r\n'; echo 'init says hello'
        echo 'lab: ready, Linux 6.1'; printf 'one\r\n'; echo '[   12.345678] nvme nvme0: gone'
        echo two; echo 0 >$shared/status""",
    )
    assert shown == "lab: ready, Linux 6.1\none\ntwo\n"
    console = (tmp_path / "shared/console.log").read_text()
    assert "[    0.1] booting\ninit says hello\n" in console
    assert "nvme0: gone" in console


def test_a_machine_that_dies_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabFailed, match=r"(?s)ended before the command did.*Kernel panic"):
        boot(tmp_path, monkeypatch, "echo 'Kernel panic - not syncing'; exit 0")


def test_an_old_status_is_not_taken_for_this_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/status").write_text("0\n")
    with pytest.raises(LabFailed):
        boot(tmp_path, monkeypatch, "exit 0")


def test_a_machine_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabFailed, match="not done within 1 s"):
        boot(tmp_path, monkeypatch, "sleep 600 & echo $! >$shared/pid; wait", timeout=1)
    pid = (tmp_path / "shared/pid").read_text().strip()
    assert_gone(Path(f"/proc/{pid}/stat"))


def assert_gone(state: Path) -> None:
    """A process that was killed goes as soon as it gets the processor."""
    end = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < end, state.read_text()
        time.sleep(0.01)


def test_the_command_arrives_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("printf", "%s|", "a b", "$HOME", "it's", "*")
    _, shown = boot(
        tmp_path,
        monkeypatch,
        "echo lab: ready; sh $shared/command.sh; echo; echo 0 >$shared/status",
        command=words,
    )
    assert "a b|$HOME|it's|*|\n" in shown


def test_the_guest_script_is_shell() -> None:
    script = Path(machine.__file__).with_name("guest.sh")
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_cached_directories_hold_our_code_and_pythons_and_do_not_overlap() -> None:
    found = cached_directories()
    for needed in (
        Path(machine.__file__).resolve(),
        Path(sysconfig.get_path("stdlib")).resolve(),
        Path(sys.prefix).resolve(),
    ):
        assert any(path == needed or path in needed.parents for path in found), needed
    assert not any(one in other.parents for one in found for other in found)


def test_the_kernel_that_is_asked_for_is_the_one_that_is_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("check", "install_programs"):
        monkeypatch.setattr(machine, name, lambda *_: None)
    monkeypatch.setattr(machine, "_vng", lambda: tmp_path)
    image = tmp_path / "vmlinuz-6.99"
    result = CliRunner().invoke(main, ["--prepare"], env={"RDS_CSI_LAB_KERNEL": str(image)})
    assert result.exit_code == EXIT_UNAVAILABLE
    assert f"{image} is no kernel" in result.output


@pytest.mark.parametrize("by", [["--kernel=newest"], []])
def test_a_kernel_may_be_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: list[str]
) -> None:
    for name in ("check", "install_programs"):
        monkeypatch.setattr(machine, name, lambda *_: None)
    monkeypatch.setattr(machine, "_vng", lambda: tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(kernels, "named_kernel", lambda say, name, cache: asked.append(name))
    result = CliRunner().invoke(
        main, ["--prepare", *by], env={"RDS_CSI_LAB_KERNEL": "6.12" if by else NEWEST}
    )
    assert result.exit_code == 0, result.output
    assert asked == [NEWEST]


def test_the_command_is_told_which_kernel_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo lab: ready; sh $shared/command.sh; echo 0 >$shared/status"
    words = ("sh", "-c", "echo $RDS_CSI_LAB_RELEASE")
    _, shown = boot(tmp_path, monkeypatch, script, command=words)
    assert shown == "lab: ready\n6.1\n"
