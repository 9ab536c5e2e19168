"""What nvme-cli says when a connect fails: who is told what."""

from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed, ConnectFailed, ConnectRejected, DriverError, NotReady
from rds_csi.nvme.cli_errors import connect_error, says_already_connected, says_unknown_option
from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.nvme.kernel import ENDPOINT, TARGET, A, Kernel

pytestmark = pytest.mark.looptime


REFUSED = (
    "Failed to write to /dev/nvme-fabrics: Connection refused\n"
    "could not add new controller: connection refused\n"
)
IO_ERROR = (
    "Failed to write to /dev/nvme-fabrics: Input/output error\n"
    "could not add new controller: failed to write to nvme-fabrics device\n"
)
TIMED_OUT = (
    "Failed to write to /dev/nvme-fabrics: Connection timed out\n"
    "could not add new controller: failed to write to nvme-fabrics device\n"
)
FABRICS = (
    "Failed to open /dev/nvme-fabrics: {}\n"
    'option "transport" ignored\n'
    "could not add new controller: failed to open nvme-fabrics device\n"
)
INVALID = (
    "Failed to write to /dev/nvme-fabrics: Invalid argument\n"
    "could not add new controller: invalid arguments/configuration\n"
)


@pytest.mark.parametrize(
    ("stderr", "kind", "transient", "text"),
    [
        (REFUSED, ConnectFailed, True, "192.0.2.1:4420 failed:.*Connection refused"),
        (IO_ERROR, ConnectFailed, True, "does not export.*or not to this host"),
        (
            TIMED_OUT,
            ConnectFailed,
            True,
            "timed out",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: No route to host\n",
            ConnectFailed,
            True,
            "No route",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Network is unreachable\n",
            ConnectFailed,
            True,
            "unreachable",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Resource temporarily unavailable\n",
            ConnectFailed,
            True,
            "temporarily",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Permission denied\n",
            ConnectRejected,
            False,
            "Permission denied",
        ),
        (INVALID, ConnectRejected, False, "invalid arguments"),
        ("connect: unrecognized option '--x'\n", ConnectRejected, False, "unrecognized"),
        (
            "Failed to scan topology: No such file or directory\n",
            NotReady,
            False,
            "modprobe nvme-tcp",
        ),
        (
            FABRICS.format("No such file or directory"),
            NotReady,
            False,
            "modprobe nvme-tcp",
        ),
        (
            FABRICS.format("Permission denied"),
            ConnectRejected,
            False,
            "Permission denied",
        ),
        (
            f"{IO_ERROR}failed to connect: failed to write to nvme-fabrics device\n",
            ConnectFailed,
            True,
            "does not export",
        ),
        ("", ConnectFailed, True, "failed: nvme failed with status 1"),
    ],
)
async def test_what_nvme_says(
    kernel: Kernel, stderr: str, kind: type[Exception], transient: bool, text: str
) -> None:
    kernel.runner.fail("nvme", stderr=stderr)
    with pytest.raises(kind, match=text) as caught:
        await kernel.connector().connect(TARGET, volume="pvc-1")
    assert type(caught.value) is kind
    assert caught.value.transient is transient  # type: ignore[attr-defined]
    assert caught.value.volume == "pvc-1"  # type: ignore[attr-defined]


async def test_invalid_argument_without_the_module_names_the_module(tmp_path: Path) -> None:
    kernel = Kernel(FakeSysfs(tmp_path / "x", transport=False))
    kernel.runner.fail("nvme", stderr=INVALID)
    with pytest.raises(NotReady, match="modprobe nvme-tcp"):
        await kernel.connector().connect(TARGET)


def said(stderr: str, *, status: int = 1) -> CommandFailed:
    return CommandFailed("nvme failed", returncode=status, stderr=stderr)


@pytest.mark.parametrize(
    ("stderr", "status", "already"),
    [
        ("already connected\n", 1, True),
        ("Failed to write to /dev/nvme-fabrics: Operation already in progress\n", 1, True),
        ("", 1, True),
        (" \n", 1, True),
        ("", 2, False),
        ("", -9, False),
        (REFUSED, 1, False),
    ],
)
def test_somebody_was_faster(stderr: str, status: int, already: bool) -> None:
    assert says_already_connected(said(stderr, status=status)) is already


def test_an_option_that_is_not_known() -> None:
    error = said("connect: unrecognized option '--queue-size'\nUsage: nvme connect\n")
    assert says_unknown_option(error, "--queue-size")
    assert not says_unknown_option(error, "--queue")
    assert not says_unknown_option(said(REFUSED), "--queue-size")


@pytest.mark.parametrize("transport", [True, False])
def test_only_without_the_module_an_invalid_argument_is_about_it(transport: bool) -> None:
    error = connect_error(said(INVALID), ENDPOINT, transport=transport, volume="pvc-1")
    assert type(error) is (ConnectRejected if transport else NotReady)
    assert error.volume == "pvc-1"


def test_what_is_said_is_told_in_one_line_of_bounded_length() -> None:
    error = connect_error(said("no\n" * 1000), ENDPOINT, transport=True, volume="pvc-1")
    assert error.what.startswith("connecting to 192.0.2.1:4420 failed: no no no")
    assert len(error.what) < 600
    assert "\n" not in error.what


def test_a_refusal_of_the_target_names_what_it_may_not_export() -> None:
    error: DriverError = connect_error(said(IO_ERROR), ENDPOINT, transport=True, volume="pvc-1")
    assert A in error.advice
