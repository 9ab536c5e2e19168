"""A node with a device mapper and NVMe devices, for the tests of this room."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rds_csi.errors import CommandFailed
from rds_csi.filesystem import devices, probe
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.model.block_device import Device
from rds_csi.pathlayer.maps import MapIdentity, Maps
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeDeviceMapper
from tests.unit.fakes.sysfs import HOST_NQN, namespace_of

VOLUME = "pvc-0123456789abcdef0123456789ab"
OTHER = "pvc-ffffffffffffffffffffffffffff"
OWNER = "rds.csi.srvlab.io/test"
SECTORS = 131072
SIZE = SECTORS * 512


def nqn(volume: str, generation: int = 1) -> str:
    return f"nqn.2000-02.com.mikrotik:{volume}.{generation}"


class Node:
    """Stands for the runner: runs ``dmsetup``, and the program that proves a device first."""

    def __init__(self, root: Path) -> None:
        self.sys, self.dev = root / "sys", root / "dev"
        self.dev.mkdir(parents=True)
        for directory in ("block", "dev/block"):
            (self.sys / directory).mkdir(parents=True)
        self.mapper = FakeDeviceMapper(self.sys, self.dev)
        self.maps = Maps(
            self, BlockDevices(self, root=self.sys), OWNER, root=self.sys, dev=self.dev
        )
        self.calls: list[tuple[str, ...]] = []
        self.refusals: dict[str, Result] = {}
        """Subcommands of dmsetup that fail."""
        self.then: Callable[[tuple[str, ...]], None] = lambda _words: None
        """Called after a program has been run."""

    def plug(self, minor: int, of: str, host: str = HOST_NQN) -> Device:
        """A device, of the export of that NQN."""
        name = f"nvme{minor}n1"
        namespace_of(self.sys, (259, minor), of, host, name=name)
        return Device(self.dev / name, (259, minor), of, host)

    def identity(self, volume: str = VOLUME, generation: int = 1) -> MapIdentity:
        return self.maps.identity(volume, generation)

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.runtime.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        del timeout, environment
        words = tuple(args)
        if words[: len(devices._PROBE)] == devices._PROBE:
            root, _, *whose, command, digest = words[len(devices._PROBE) :][:8]
            assert (command, digest) == ("run", "-")
            words = words[len(devices._PROBE) + 8 :]
            try:
                probe.prove(root, *whose)
            except probe.Refused as error:
                raise CommandFailed(
                    str(error), returncode=error.status, stderr=str(error), volume=volume
                ) from None
        self.calls.append(words)
        result = self.refusals.get(words[1]) or self.mapper.run(words)
        self.then(words)
        if check and result.returncode:
            raise CommandFailed(
                f"dmsetup failed: {result.stderr}",
                returncode=result.returncode,
                stderr=result.stderr,
                volume=volume,
            )
        return result
