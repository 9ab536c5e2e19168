"""A node's records, connections and mounts, and in what state its volumes are seen."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rds_csi.filesystem.mounts import Mounts
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.states import VolumeStates
from rds_csi.node.waiting import Waits
from rds_csi.nvme.sysfs import Sysfs
from tests.unit.fakes.no_maps import maps_of
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs
from tests.unit.nvme.kernel import A

VOLUME = A.rpartition(":")[2]


@dataclass(slots=True)
class StagedHost:
    """One volume, ``A``; ``minor`` is the number of the device that mounts show."""

    tree: FakeSysfs
    directory: Path
    minor: int = 1
    store: StagingStore = field(init=False)
    states: VolumeStates = field(init=False)
    waits: Waits = field(default_factory=Waits)
    _mounted: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = StagingStore(self.directory / "state")
        sysfs = Sysfs(self.tree.sys, dev=self.tree.dev)
        mounts = Mounts(FakeRunner(), table=self.directory / "mountinfo")
        self.states = VolumeStates(
            self.store, sysfs, maps_of(self.tree), mounts, HOST_NQN, waits=self.waits
        )
        self._write()

    def mount(self, point: str, mode: str = "rw") -> None:
        self._mounted[point] = mode
        self._write()

    def _write(self) -> None:
        (self.directory / "mountinfo").write_text(
            "".join(
                f"{number} 1 259:{self.minor} / {point} rw - ext4 /dev/nvme0n1 {mode}\n"
                for number, (point, mode) in enumerate(self._mounted.items(), 20)
            )
        )

    async def record(self, **changes: Any) -> None:
        staged = StagedVolume(
            volume=VOLUME,
            nqn=A,
            address="192.0.2.1",
            port=4420,
            staging_path="/stage",
            fs_type="ext4",
        )
        await self.store.write(replace(staged, **changes))

    async def state(self) -> str:
        (state,) = (await self.states.look()).states
        return state
