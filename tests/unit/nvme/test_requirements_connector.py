"""The lines of docs/requirements-lines.toml about connecting, each proven here or marked beside."""

import asyncio
import inspect
import random
from pathlib import Path

import pytest
import structlog.testing

import rds_csi.nvme
from rds_csi.errors import (
    Code,
    CommandStuck,
    ConnectFailed,
    ConnectRejected,
    DriverError,
    NotOurs,
    NotReady,
)
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.connector import Connector
from rds_csi.runtime.causes import collect
from rds_csi.runtime.process import Result
from rds_csi.runtime.retry import RetryPolicy, retrying
from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.nvme.kernel import DELETE, TARGET, A, B, Kernel, now, option

pytestmark = pytest.mark.looptime

REFUSED = "Failed to write to /dev/nvme-fabrics: Connection refused\n"
DENIED = "Failed to write to /dev/nvme-fabrics: Permission denied\n"


def starts(kernel: Kernel) -> int:
    return len(kernel.runner.asked("nvme", "connect"))


@pytest.mark.requirement("ARGS-01")
@pytest.mark.requirement("CTOR-01")
async def test_without_settings_it_is_the_default_settings(kernel: Kernel) -> None:
    kernel.works()
    connector = kernel.connector()
    await connector.connect(TARGET)
    await connector.disconnect(A)
    await connector.connect_with_config(TARGET, ConnectionConfig())
    plain, explicit = kernel.runner.asked("nvme", "connect")
    assert plain.args == explicit.args
    assert (option(plain, "-l"), option(plain, "-c")) == ("-1", "5")
    assert "-k" not in plain.args


@pytest.mark.requirement("CONN-01")
@pytest.mark.requirement("ANTI-01")
@pytest.mark.requirement("ANTI-05")
async def test_every_setting_goes_with_the_connect_and_none_is_written_later(
    kernel: Kernel,
) -> None:
    kernel.works()
    config = ConnectionConfig(
        ctrl_loss_tmo=600,
        reconnect_delay=10,
        keep_alive_tmo=45,
        fast_io_fail_tmo=7,
        nr_io_queues=4,
        queue_size=64,
    )
    await kernel.connector().connect_with_retry(TARGET, config)
    (call,) = kernel.runner.asked("nvme", "connect")
    given = {name: option(call, name) for name in ("-l", "-c", "-k")}
    assert given == {"-l": "600", "-c": "10", "-k": "45"}
    assert (option(call, "--nr-io-queues"), option(call, "--queue-size")) == ("4", "64")
    assert option(call, "-F") == "7"
    assert not kernel.runner.asked(*DELETE)


@pytest.mark.requirement("CTOR-02")
async def test_with_settings_it_validates(kernel: Kernel) -> None:
    with pytest.raises(NotOurs):
        await kernel.connector().connect_with_config(
            Target(("192.0.2.1",), 4420, "nqn.2014-08.org.nixos:root"), ConnectionConfig()
        )
    assert kernel.runner.calls == []


@pytest.mark.requirement("CTOR-02")
async def test_with_settings_it_tracks_the_operation_and_counts(kernel: Kernel) -> None:
    kernel.works(takes=5)
    connector = kernel.connector()
    task = asyncio.create_task(connector.connect_with_config(TARGET, ConnectionConfig()))
    await asyncio.sleep(1)
    assert connector.busy(A)
    assert not connector.busy(B)
    await task
    assert not connector.busy(A)
    assert kernel.events == ["connected"]


@pytest.mark.requirement("CTOR-02")
@pytest.mark.requirement("CONN-04")
async def test_with_settings_it_replaces_a_connection_without_a_device(kernel: Kernel) -> None:
    kernel.tree.connect(A, size=None)
    kernel.works()
    with pytest.raises(ConnectFailed, match="did not appear"):
        await kernel.connector().connect_with_config(TARGET, ConnectionConfig())
    assert kernel.tree.controllers() == []  # taken down after the failed operation
    assert (await kernel.connector().connect(TARGET)).size == 64 << 20


@pytest.mark.requirement("CTOR-02")
@pytest.mark.requirement("PIT-01")
async def test_with_settings_it_is_bounded_in_time(kernel: Kernel) -> None:
    kernel.runner.on("nvme", takes=10_000)
    with pytest.raises(DriverError, match="killed") as caught:
        await kernel.connector().connect_with_config(TARGET, ConnectionConfig())
    assert caught.value.transient
    assert now() == pytest.approx(30)


@pytest.mark.requirement("CTOR-03")
async def test_with_retries_it_says_the_last_cause_in_the_end(kernel: Kernel) -> None:
    kernel.runner.fail("nvme", stderr="Connection timed out", times=4)
    kernel.runner.fail("nvme", stderr=REFUSED)
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(ConnectFailed, match=r"connection failed after retries: .*refused") as caught,
    ):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig(), volume="pvc-1")
    assert caught.value.code == Code.UNAVAILABLE
    assert "refused" in str(caught.value.__cause__)
    assert starts(kernel) == 5
    assert [log["attempt"] for log in logs if log["event"] == "retrying"] == [1, 2, 3, 4]
    assert kernel.events == ["retry"] * 4 + ["connect_failed"]
    assert 15 <= now() < 15 * 1.1


@pytest.mark.requirement("CTOR-03")
async def test_with_retries_it_succeeds_when_the_target_is_back(kernel: Kernel) -> None:
    kernel.runner.fail("nvme", stderr=REFUSED, times=2)
    kernel.works()
    connector = kernel.connector()
    task = asyncio.create_task(connector.connect_with_retry(TARGET, ConnectionConfig()))
    await asyncio.sleep(2)
    assert connector.busy(A)  # also in the wait between two attempts
    assert (await task).size == 64 << 20
    assert starts(kernel) == 3
    assert not connector.busy(A)


@pytest.mark.requirement("CTOR-04")
async def test_retrying_stops_at_a_failure_that_is_not_transient(kernel: Kernel) -> None:
    kernel.runner.fail("nvme", stderr=DENIED)
    with pytest.raises(ConnectRejected):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert starts(kernel) == 1
    assert now() < 1


@pytest.mark.requirement("CTOR-04")
async def test_retrying_stops_at_the_deadline(kernel: Kernel) -> None:
    kernel.runner.fail("nvme", stderr=REFUSED)
    connector = kernel.connector()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4):
            await connector.connect_with_retry(TARGET, ConnectionConfig())
    assert now() == 4
    assert starts(kernel) == 3
    assert not connector.busy(A)


@pytest.mark.requirement("CTOR-04")
@pytest.mark.parametrize("moment", [0, 0.5, 1.05, 2, 5])
async def test_retrying_stops_at_cancellation(kernel: Kernel, moment: float) -> None:
    kernel.runner.fail("nvme", stderr=REFUSED)
    connector = kernel.connector()
    task = asyncio.create_task(connector.connect_with_retry(TARGET, ConnectionConfig()))
    if moment:
        await asyncio.sleep(moment)
    before = starts(kernel)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == moment
    assert starts(kernel) == before
    assert not connector.busy(A)


@pytest.mark.requirement("CTOR-05")
async def test_a_device_that_never_appears_is_retried(kernel: Kernel) -> None:
    kernel.works()
    kernel.size = None
    with pytest.raises(ConnectFailed, match="after retries: device did not appear"):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert starts(kernel) == 5
    assert kernel.tree.controllers() == []


@pytest.mark.requirement("PIT-01")
async def test_a_program_that_cannot_be_killed_locks_its_volume_alone(kernel: Kernel) -> None:
    kernel.runner.on("nvme", "connect", takes=1000, stuck=True, effect=kernel.connect).left = 1
    connector = kernel.connector()
    with pytest.raises(CommandStuck):
        await connector.connect_with_retry(TARGET, ConnectionConfig())
    assert starts(kernel) == 1
    assert connector.busy(A)
    kernel.works()
    other = Target(("192.0.2.1",), 4420, B)
    assert (await connector.connect_with_retry(other, ConnectionConfig())).size == 64 << 20


@pytest.mark.requirement("CONN-02")
@pytest.mark.requirement("PIT-02")
async def test_twenty_volumes_do_not_retry_in_one_instant(kernel: Kernel) -> None:
    instants: list[float] = []
    kernel.runner.on(
        "nvme", result=Result(1, "", REFUSED), effect=lambda _call: instants.append(now())
    )
    connector = kernel.connector(rng=random.Random(3))
    targets = [Target(("192.0.2.1",), 4420, f"{A[:-2]}{number:02x}") for number in range(20)]
    await asyncio.gather(
        *(connector.connect_with_retry(target, ConnectionConfig()) for target in targets),
        return_exceptions=True,
    )
    second_round = sorted(instants)[20:40]
    assert len(instants) == 100
    assert len({round(instant, 4) for instant in second_round}) == 20
    assert second_round[-1] - second_round[0] > 0.05


@pytest.mark.requirement("PIT-02")
async def test_two_nodes_with_one_seed_do_not_retry_in_one_instant(tmp_path: Path) -> None:
    async def node(name: str) -> list[float]:
        random.seed(42)
        kernel = Kernel(FakeSysfs(tmp_path / name))
        instants: list[float] = []
        kernel.runner.on(
            "nvme", result=Result(1, "", REFUSED), effect=lambda _call: instants.append(now())
        )
        connector = Connector(
            kernel.runner,
            kernel.sysfs,
            kernel.connector()._host,
            in_use=lambda _devno: False,
            fabrics=kernel.fabrics,
        )
        with pytest.raises(ConnectFailed):
            await connector.connect_with_retry(TARGET, ConnectionConfig())
        return instants[1:]

    first, second = await asyncio.gather(node("one"), node("two"))
    assert not {round(instant, 6) for instant in first} & {round(instant, 6) for instant in second}


@pytest.mark.requirement("ANTI-03")
async def test_no_retry_without_a_bound() -> None:
    attempts = 0

    async def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectFailed("away")

    with pytest.raises(ConnectFailed):
        await retrying(fail, what="test")
    assert attempts == RetryPolicy().attempts == 5


@pytest.mark.requirement("GUIDE-01")
def test_one_backoff_helper() -> None:
    package = Path(inspect.getfile(rds_csi.nvme)).parent.parent
    users = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if "import backoff" in file.read_text()
    }
    assert users == {"runtime/retry.py"}


@pytest.mark.requirement("GUIDE-01")
def test_no_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CTRL_LOSS_TMO", "RDS_CSI_CTRL_LOSS_TMO", "NVME_CTRL_LOSS_TMO"):
        monkeypatch.setenv(name, "1")
    assert ConnectionConfig.from_parameters({}) == ConnectionConfig()


@pytest.mark.requirement("CTOR-02")
async def test_a_missing_module_is_said_before_anything_is_run(kernel: Kernel) -> None:
    kernel.fabrics.unlink()
    with pytest.raises(NotReady, match="modprobe nvme-tcp"):
        await kernel.connector().connect_with_config(TARGET, ConnectionConfig())


async def test_a_deadline_amid_a_connect_knows_what_was_waited_for(kernel: Kernel) -> None:
    """Through the scope's task and the retries."""
    kernel.size = None
    kernel.works()
    causes = collect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    why = "the connection has no namespace 1"
    assert causes.texts == [
        f"its device had not appeared: {why}",
        f"the last attempt failed: device did not appear within 20 s: {why}",
    ]
