"""The doctor on a real kernel, and against a target that really answers."""

import re
import subprocess
from pathlib import Path

from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig, volume_defaults
from rds_csi.demo.kubelet import Kubernetes
from rds_csi.doctor.check import Checks, Status
from rds_csi.doctor.node import checks as node_checks
from rds_csi.doctor.rds import checks as rds_checks
from rds_csi.filesystem.mounts import Mounts
from rds_csi.runtime.process import SubprocessRunner
from tests.lab.application import tell
from tests.lab.processes import Driver
from tests.lab.world import BASE, KUBELET, STATE, World, claim


def config(endpoint: Path = Path("/csi/csi.sock")) -> DriverConfig:
    return DriverConfig(endpoint=endpoint, cluster_id="lab")


async def look(driver: Driver) -> Checks:
    node = NodeConfig(node_id="node-1", kubelet_dir=KUBELET, state_dir=STATE / "node-1")
    runner = SubprocessRunner()
    try:
        return await node_checks.examine(config(driver.socket), node, runner)
    finally:
        await runner.close()


def one(checks: Checks, beginning: str) -> tuple[Status, str]:
    [check] = [check for check in checks if check.name.startswith(beginning)]
    return check.status, check.found


def propagate(word: str) -> None:
    """Change how mounts below the kubelet's directory propagate."""
    mount = Mounts(SubprocessRunner()).covering(KUBELET)
    assert mount is not None
    subprocess.run(["mount", word, mount.point], check=True)


async def test_propagation_is_the_kernels(driver: Driver) -> None:
    mount = Mounts(SubprocessRunner()).covering(KUBELET)
    assert mount is not None
    found = []
    for word in ("--make-private", "--make-shared", "--make-private"):
        propagate(word)
        found.append(one(await look(driver), "kubelet")[0])
    assert found == [Status.FAILED, Status.OK, Status.FAILED]
    propagate("--make-shared" if mount.shared else "--make-private")


async def test_a_node_with_a_volume(driver: Driver, kubernetes: Kubernetes) -> None:
    volume = claim("doctor", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    checks = await look(driver)
    failed = [check.name for check in checks if check.status is Status.FAILED]
    assert [name for name in failed if not name.startswith("kubelet")] == []
    for name in ("kernel module", "/dev/nvme-fabrics", "programs", "nvme-cli", "socket"):
        assert one(checks, name)[0] is Status.OK, name
    assert one(checks, "connections") == (
        Status.OK,
        "1 over NVMe-oF, 1 of them to our volumes, 1 live",
    )
    assert one(checks, "NVMe address") == (
        Status.OK,
        "NVMe/TCP target answers at 127.0.0.1:4420",
    )

    await kubernetes.unmount(volume)
    await kubernetes.release(volume)


async def test_an_rds_with_scratch_volumes(world: World, client_key: Path) -> None:
    controller = ControllerConfig(
        rds_address=world.rds.address,
        rds_port=world.rds.port,
        rds_user="csi",
        rds_key_file=client_key,
        rds_host_keys=(world.rds.host_key_line,),
        defaults=volume_defaults({"nvmeAddress": "127.0.0.1", "volumePath": BASE}),
    )
    found = await rds_checks.examine(config(), controller, write=True)
    assert [check for check in found.checks if check.status is Status.FAILED] == []
    assert one(found.checks, "NVMe address") == (
        Status.OK,
        "NVMe/TCP target answers at 127.0.0.1:4420",
    )
    assert one(found.checks, "export round trip")[0] is Status.OK
    assert "wrote and read a block of it" in one(found.checks, "export round trip")[1]
    results = [finding.result for finding in found.unknowns]
    tell("\n".join(results))
    # What an export shows was fixed when it was made, and each test of them began its own.
    assert "the host sees 33554432 bytes before and 33554432 after" in results[0]
    assert results[0].endswith("and is not told")
    assert results[2].endswith("the old data is in it")
    assert "; allowed: admitted; another: refused (status 0x1" in results[3]
    # Linux 6.1 lets it; from 6.10 on the host is thrown out.
    assert re.search("then another is allowed: (goes on reading|loses it)", results[3])
    assert results[6].endswith("it reads as zeros")
    assert all(results)
    # What is tried with a file that exists is what no client should do.
    assert [text for text in world.rds.device.hazards if "existed already" not in text] == []
    world.rds.device.hazards.clear()
