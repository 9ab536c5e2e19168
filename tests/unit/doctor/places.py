"""A node that is as it should be, and the means to spoil it."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.doctor.check import Check, Checks, Status
from rds_csi.doctor.node.checks import Address, Places, examine
from rds_csi.doctor.node.time_sync import ClockState
from rds_csi.doctor.rds.unknowns import Finding
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import FakeSysfs

IDENTITY = host_identity("test", make_node_id("test", "worker-1"))
PREFIX = "nqn.2000-02.com.mikrotik"
VOLUME = f"{PREFIX}:pvc-{'a' * 28}"
TARGETS = Result(0, "multipath        v1.14.0\nlinear           v1.4.0\n", "")
NVME_2_13 = Result(0, "nvme version 2.13 (git 2.13)\nlibnvme version 1.13 (git 1.13)\n", "")


class Silent:
    """A program that takes a connection and says nothing; ``gone`` once its client hung up."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        self.gone.set()


class FakeNode:
    """Everything a node's checks look at, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sysfs = FakeSysfs(root)
        self.runner = FakeRunner()
        self.runner.on("nvme", "version", result=NVME_2_13)
        self.runner.on("dmsetup", "targets", result=TARGETS)
        self.kubelet = root / "kubelet"
        self.state = root / "state"
        self.files = root / "etc-nvme"
        self.table = root / "mountinfo"
        for folder in (self.kubelet, self.state, self.files):
            folder.mkdir()
        self.write_table("shared:7")
        module = root / "sys/module/nvme_core/parameters"
        module.mkdir(parents=True)
        (module / "multipath").write_text("Y\n")
        self.shared = DriverConfig(endpoint=root / "csi.sock", cluster_id="test")
        self.node = NodeConfig(node_id="worker-1", kubelet_dir=self.kubelet, state_dir=self.state)
        self.places = Places(
            sysfs=Sysfs(self.sysfs.sys, dev=self.sysfs.dev),
            module=module,
            fabrics=Path(os.devnull),  # a character device, as /dev/nvme-fabrics is
            nvme_files=self.files,
            mount_table=self.table,
            which=lambda name: f"/usr/sbin/{name}",
            clock=lambda: ClockState(synchronised=True, maximum_error=0.004),
            user=lambda: 0,
        )

    def forget_nvme(self) -> None:
        """``nvme`` is to answer otherwise."""
        self.runner.forget()
        self.runner.on("dmsetup", "targets", result=TARGETS)

    def write_table(self, tags: str, state_type: str = "ext4") -> None:
        """The root, the kubelet's directory and the state directory as mounts of their own."""
        self.table.write_text(
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
            f"21 20 8:1 /k {self.kubelet} rw {tags} - ext4 /dev/sda1 rw\n"
            f"22 20 0:9 / {self.state} rw shared:9 - {state_type} x rw\n"
        )

    def change(self, **changes: object) -> None:
        """Other places."""
        self.places = replace(self.places, **changes)  # type: ignore[arg-type]

    async def examine(
        self, *, nvme: tuple[Address, ...] = (), ssh: Address | None = None
    ) -> Checks:
        return await examine(
            self.shared, self.node, self.runner, places=self.places, nvme=nvme, ssh=ssh
        )


def named(checks: Checks, beginning: str) -> list[Check]:
    """The results whose name begins so."""
    return [check for check in checks if check.name.startswith(beginning)]


def one(checks: Checks, beginning: str) -> Check:
    """The only one of them."""
    [check] = named(checks, beginning)
    return check


def not_ok(checks: Checks) -> dict[str, Status]:
    """What is not as it should be."""
    return {check.name: check.status for check in checks if check.status is not Status.OK}


FINDINGS = [
    Finding("Is it so?", "yes: a|b\nc", "looked", ""),
    Finding("Is it?", "", "", "not measurable from here because of that"),
]


def results() -> Checks:
    checks = Checks()
    checks.ok("one", "fine [here]")
    checks.warn("two", "not so fine", "do this")
    checks.fail("three", "bad", "do that")
    checks.skip("four", "not seen")
    return checks
