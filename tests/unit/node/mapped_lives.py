"""Two volumes under maps, and whatever may happen to them on a node.

Between two calls the kernel, the RDS and other programs of the node do what they like, and within
one the kernel and the RDS do, at any step. Each table is judged in the very instant in which it is
loaded: its path has to be the device of this volume's export with this generation, which nobody
else holds, and under a mount it has to hold the file system that is mounted. Maps of others are
what they were.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.errors import DriverError
from rds_csi.pathlayer.maps import MapIdentity
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeDeviceMapper, FakeMap, FakeTable
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import Disk, Killed
from tests.unit.node.calls import Calls
from tests.unit.node.mapped_host import ADDRESS, OTHER, SIZE, VOLUME, MappedHost, nqn, sectors

Step = tuple[str, int, str, int]
"""What happens to which volume, and what else does at which boundary of it, counted from 1."""
CALLS = ("start", "end", "mend", "expand")
"""What the driver does; all else is done to it."""
VOLUMES = (VOLUME, OTHER)
FIRST_CONTENT = "99999999-2222-4333-8444-555555555555"
NEW_CONTENT = "77777777-2222-4333-8444-555555555555"


class Judge(FakeDeviceMapper):
    """Fails the test in the instant in which a wrong table is loaded or swapped in."""

    def __init__(self, host: "Kernel", tag: str) -> None:
        super().__init__(host.sys, host.dev, used=host._used)
        self._host = host
        self._tag = tag
        self.judged = 0

    def run(self, words: Sequence[str]) -> Result:
        uuid = words[words.index("--uuid") + 1] if "--uuid" in words else ""
        if not uuid:
            return super().run(words)
        identity = MapIdentity.parse(uuid)
        assert identity is not None, f"not ours: {words}"
        assert identity.tag == self._tag, f"not ours: {words}"
        if "--table" in words:
            self._judge(identity, FakeTable.parse(words[-1]))
        result = super().run(words)
        found = self.by_uuid(uuid)
        if words[1] == "resume" and found is not None and found.active is not None:
            self._judge(identity, found.active)
        return result

    def _judge(self, identity: MapIdentity, table: FakeTable) -> None:
        self.judged += 1
        wanted = nqn(identity.volume, identity.generation)
        assert len(table.paths) == 1, f"{identity.uuid} leads to {table.paths}"
        owner = self._host.owner(table.paths[0])
        # What is gone is refused by the kernel.
        assert owner in ("", wanted), f"{identity.uuid} leads to {owner}"
        beside = [each.uuid for each in self.maps.values() if table.paths[0] in each.paths()]
        assert not owner or {*beside} <= {identity.uuid}, f"{beside} write to one device"
        self._host.judge_content(identity, owner)


class Kernel(MappedHost):
    """A node whose maps are judged; ``mounted``: the UUIDs of what is, by volume."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.mounted: dict[str, str] = {}
        self.tag = self.maps.identity(VOLUME, 1).tag
        self.judge = Judge(self, self.tag)
        self.mapper = self.judge

    def judge_content(self, identity: MapIdentity, owner: str) -> None:
        found = self.mapper.by_uuid(identity.uuid)
        if not owner or found is None or not self._used(found.devno):
            return
        disk = self.connections[owner].disk
        if disk.content != "blank":
            assert disk.uuid == self.mounted[identity.volume], "another content under a mount"
        assert self.connections[owner].size >= found.size, "smaller than what is in use"


@dataclass
class Volume:
    """One volume: what the RDS has, and what the kubelet knows."""

    host: Kernel
    name: str
    disk: Disk
    block: bool = False
    generation: int = 1
    context: int = 1
    here: list[str] = field(default_factory=list)
    """The NQNs under which it was given to this node."""

    @property
    def nqn(self) -> str:
        return nqn(self.name, self.generation)

    @property
    def calls(self) -> Calls:
        return Calls(
            host=self.host,
            volume=self.name,
            block=self.block,
            stage_name=f"stage-{self.name}",
            target_name=f"target-{self.name}",
            published={
                "nvmeAddress": ADDRESS,
                "nvmePort": "4420",
                "nqn": nqn(self.name, self.context),
                "size": str(SIZE),
                "generation": str(self.context),
                "pathLayer": "true",
            },
        )

    @property
    def connected(self) -> list[str]:
        names = (nqn(self.name, number) for number in range(1, self.generation + 1))
        return [name for name in names if name in self.host.connections]

    @property
    def map(self) -> FakeMap | None:
        return self.host.mapper.by_uuid(self.host.maps.identity(self.name, self.context).uuid)

    def export(self) -> None:
        for number in range(1, self.generation):
            self.host.rds.pop(nqn(self.name, number), None)
        self.host.rds[self.nqn] = self.disk


class World:
    """The node, its volumes, and what may happen to them."""

    def __init__(self, root: Path) -> None:
        self.host = Kernel(root)
        self.volumes = [
            Volume(self.host, name, Disk(SIZE), block=bool(number))
            for number, name in enumerate(VOLUMES)
        ]
        self.volumes[0].disk.make("ext4", FIRST_CONTENT)
        self.foreign: dict[int, tuple[object, ...]] = {}
        for each in self.volumes:
            each.export()
            each.calls.stage_path.mkdir()

    # What the driver does

    async def start(self, volume: Volume) -> None:
        calls = volume.calls
        name = nqn(volume.name, volume.context)
        mounted = self.host.table.at(str(calls.stage_path))
        if not mounted and not volume.block:
            self.host.mounted[volume.name] = volume.disk.uuid
        await calls.stage()
        await calls.publish()
        if self.host.steps.stop:
            return  # something else happened meanwhile
        point = calls.target_path if volume.block else calls.stage_path
        devno = self.host.ports().devices.number_of(point) if volume.block else None
        shown = devno or self.host.table.at(str(point))[-1].devno
        assert self.host.nqn_of(shown) == name, f"success, and it is {self.host.nqn_of(shown)!r}"

    async def end(self, volume: Volume) -> None:
        await volume.calls.unpublish()
        await volume.calls.unstage()

    async def mend(self, volume: Volume) -> None:
        await self.host.mender.mend(volume.name)

    async def expand(self, volume: Volume) -> None:
        calls = volume.calls
        path = calls.target_path if volume.block else calls.stage_path
        await calls.expand(volume.disk.size, path=path)

    # What the kernel and the RDS do, also while the driver does something

    def lose(self, volume: Volume) -> None:
        for name in volume.connected:
            self.host.unplug(name)

    def swap(self, volume: Volume) -> None:
        """Its device's name and number are given to the other volume, if nobody keeps them."""
        (other,) = (each for each in self.volumes if each is not volume)
        if other.connected or other.nqn not in self.host.rds:
            return
        for name in volume.connected[:1]:
            self.host.swap(name, other.nqn)

    def plug(self, volume: Volume) -> None:
        """Somebody connects it by hand."""
        if volume.nqn in self.host.rds and volume.nqn not in self.host.connections:
            self.host._plug(volume.nqn)

    def hide(self, volume: Volume) -> None:
        """The namespace returned with another UUID."""
        for name in volume.connected:
            self.host.hide(name)

    def handover(self, volume: Volume) -> None:
        """By force to another node; what is connected tries where no export is."""
        volume.generation += 1
        volume.export()
        for name in volume.connected:
            self.host.states[name] = "connecting"

    def away(self, volume: Volume) -> None:
        self.host.rds.pop(volume.nqn, None)
        for name in volume.connected:
            self.host.states[name] = "connecting"

    # What happens between two calls

    def back(self, volume: Volume) -> None:
        volume.export()
        if volume.nqn in self.host.connections:
            self.host.states.pop(volume.nqn, None)

    def attach(self, volume: Volume) -> None:
        """Given to this node, after whatever other node had it."""
        self.handover(volume)
        volume.context = volume.generation

    def shrink(self, volume: Volume) -> None:
        self.lose(volume)
        volume.disk.size = SIZE // 2

    def enlarge(self, volume: Volume) -> None:
        volume.disk.size = max(SIZE, volume.disk.size) + SIZE

    def replace(self, volume: Volume) -> None:
        """Another file stands under its name."""
        self.lose(volume)
        if volume.disk.content != "blank":
            volume.disk.uuid = NEW_CONTENT

    def restore(self, volume: Volume) -> None:
        """And the right one again."""
        self.lose(volume)
        if volume.disk.content != "blank":
            volume.disk.uuid = FIRST_CONTENT
        volume.disk.size = max(SIZE, volume.disk.size)

    def release(self, volume: Volume) -> None:
        if volume.map is not None and volume.map.active is not None:
            volume.map.active.queues = False

    def multipathd(self, volume: Volume) -> None:
        self._foreign(volume, "mpath-36001405", "mpatha")

    def cluster(self, volume: Volume) -> None:
        """The node is in two clusters, whose volumes have one name."""
        self._foreign(volume, f"RDSCSI-deadbeef-{volume.name}.{volume.context}", "other")

    def second(self, volume: Volume) -> None:
        """A map of it is left from another generation; it leads to whatever."""
        uuid = self.host.maps.identity(volume.name, volume.generation + 7).uuid
        self._add("second", uuid, [*volume.connected, *self.volumes[0].connected][:1])

    def tamper(self, volume: Volume) -> None:
        """Somebody loaded a table that leads to the other volume; it waits to be swapped in."""
        (other,) = (each for each in self.volumes if each is not volume)
        if volume.map is None or volume.map.active is None:
            return
        for name in other.connected[:1]:
            path = self.host.connections[name].devno
            volume.map.loaded = FakeTable(sectors(SIZE), [path], queues=True)
            self.host.mapper._show(volume.map)

    def _foreign(self, volume: Volume, uuid: str, name: str) -> None:
        made = self._add(name, uuid, volume.connected[:1])
        if made is not None:
            self.foreign[made.minor] = _shown(made)

    def _add(self, name: str, uuid: str, over: list[str]) -> FakeMap | None:
        if not over or self.host.mapper.knows(name, uuid):
            return None
        paths = [self.host.connections[each].devno for each in over]
        return self.host.mapper.add(name, uuid, FakeTable(sectors(SIZE), paths, queues=True))

    # A life

    async def run(self, step: Step) -> None:
        """One thing happens; at a boundary of it, if that comes, another."""
        what, which, meanwhile, at = step
        volume, steps = self.volumes[which], self.host.steps
        self.host.acts.clear()
        steps.passed.clear()
        act = getattr(self, what)
        if what not in CALLS:
            act(volume)
        else:
            steps.stop = at if meanwhile else 0
            disturb = getattr(self, meanwhile, None)
            steps.then = (lambda: disturb(volume)) if disturb is not None else None
            try:
                await asyncio.gather(act(volume))
            except (Killed, DriverError):
                pass
            finally:
                steps.stop, steps.then = 0, None
            self._check_acts(volume)
        self.check()

    def _check_acts(self, volume: Volume) -> None:
        strangers = [act for act in self.host.acts if act[1] and volume.name not in act[1]]
        assert strangers == []

    def check(self) -> None:
        FakeHost.check(self.host)
        assert self.host.formats == 0
        assert self.volumes[1].disk.content == "blank"
        shown = {minor: _shown(self.host.mapper.maps[minor]) for minor in self.foreign}
        assert shown == self.foreign

    async def converge(self) -> None:
        """Nobody disturbs any more: however it came to this, each volume starts again."""
        for found in list(self.host.mapper.maps.values()):
            identity = MapIdentity.parse(found.uuid)
            ours = identity is not None and identity.tag == self.host.tag
            if not ours or found.name == "second":
                self.host.mapper.drop(found)
                self.foreign.pop(found.minor, None)
        for volume in self.volumes:
            self.restore(volume)
            for found in self.host.mapper.maps.values():
                found.loaded = None
                if found.active is not None:
                    found.active.queues = False
                self.host.mapper._show(found)
            self.attach(volume)
            self.lose(volume)
            await self.end(volume)
            await self.start(volume)
            assert volume.map is not None
            assert self.host.leads_home(volume.name, volume.context)
            await self.end(volume)
        assert [each for each in self.host.leaks() if not each.endswith(".json")] == []


def _shown(found: FakeMap) -> tuple[object, ...]:
    active = found.active
    assert active is not None
    return found.name, found.uuid, active.sectors, tuple(active.paths), active.queues, found.loaded
