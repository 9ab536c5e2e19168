"""Which devices of this node belong to a volume, and to which volume a mount belongs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rds_csi.errors import DriverError, FailedPrecondition, InvalidRequest, NotUndone
from rds_csi.filesystem.mounts import Mount
from rds_csi.model.block_device import Device, DeviceNumber
from rds_csi.model.contexts import Target
from rds_csi.model.volume import read_nqn
from rds_csi.node.ports import Initiator, Subsystems
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.pathlayer.maps import Map, MapIdentity, Maps


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What is mounted or bound of a volume: its ``map`` or, where it has none, its NVMe device.

    ``size`` in bytes.
    """

    device: Path
    devno: DeviceNumber
    size: int
    map: Map | None = None

    @classmethod
    def of_map(cls, found: Map) -> Self:
        """A map."""
        return cls(device=found.device, devno=found.devno, size=found.size, map=found)

    @classmethod
    def bare(cls, namespace: Namespace) -> Self:
        """An NVMe device."""
        return cls(device=namespace.device, devno=namespace.devno, size=namespace.size)

    def leads_to(self, namespace: Namespace | None) -> bool:
        """Whether it is this device, or a map that leads to it and nothing else."""
        if namespace is None:
            return False
        paths = (self.devno,) if self.map is None else self.map.paths
        return paths == (namespace.devno,)


def check_target(target: Target, volume: str) -> Target:
    """The target, if its NQN is the volume's own; else :class:`InvalidRequest`.

    How exports are named says :func:`rds_csi.model.volume.export_nqn`. A context that names
    another volume's export would have that volume formatted, mounted, or disconnected in this
    one's name.
    """
    if not belongs(target.nqn, volume):
        raise InvalidRequest(f"NQN {target.nqn!r} is not of this volume", volume=volume)
    return target


def belongs(nqn: str, volume: str) -> bool:
    """Whether an NQN is that of a volume's export, of whichever generation."""
    name = read_nqn(nqn)
    return name is not None and name.volume == volume


def same_export(one: str, other: str) -> bool:
    """Whether two NQNs are of one volume's export, at whichever of its hand-overs."""
    this, that = read_nqn(one), read_nqn(other)
    if this is None or that is None:
        return False
    return (this.prefix, this.volume) == (that.prefix, that.volume)


def _newest_first(nqns: Iterable[str]) -> list[str]:
    """NQNs of volumes, by their generations: a session of an older one may be there still."""
    return sorted(nqns, key=lambda nqn: (-name.generation if (name := read_nqn(nqn)) else 0, nqn))


def not_undone(failure: Exception, why: Exception, volume: str) -> NotUndone:
    """What to tell of a ``failure`` after which something is left, and ``why`` it is."""
    told = failure.what if isinstance(failure, DriverError) else str(failure)
    return NotUndone(
        f"{told}; and what was done until then could not be undone: {why}",
        volume=volume,
        advice="it is safe to repeat",
    )


class Volumes:
    """Finds by NQN and host NQN, never by a remembered device name: names are reused."""

    def __init__(
        self, initiator: Initiator, subsystems: Subsystems, maps: Maps, host_nqn: str
    ) -> None:
        self._initiator = initiator
        self._subsystems = subsystems
        self._maps = maps
        self._host_nqn = host_nqn

    def all_controllers(self) -> list[Controller]:
        """The connections to volumes that this node made, in whatever state."""
        return self._ours(lambda nqn: read_nqn(nqn) is not None)

    def controllers(self, volume: str) -> list[Controller]:
        """Those of one volume."""
        return self._ours(lambda nqn: belongs(nqn, volume))

    def _ours(self, wanted: Callable[[str], bool]) -> list[Controller]:
        found = self._subsystems.controllers_of(wanted)
        return [each for each in found if each.hostnqn == self._host_nqn]

    def namespace(self, controllers: Sequence[Controller]) -> tuple[str, Namespace | None]:
        """The newest NQN of the controllers that has a namespace, and that; else none of both."""
        for nqn in _newest_first({each.nqn for each in controllers}):
            of_nqn = [each for each in controllers if each.nqn == nqn]
            namespace = self._subsystems.namespace_of(of_nqn)
            if namespace is not None:
                return nqn, namespace
        return "", None

    def nqns(self, volume: str) -> set[str]:
        """The NQNs of the volume's connections that this node made, in whatever state."""
        return {controller.nqn for controller in self.controllers(volume)}

    def find(self, volume: str) -> tuple[str, Namespace] | None:
        """The volume's NQN and namespace, if it is connected; those of its newest generation."""
        for nqn in _newest_first(self.nqns(volume)):
            namespace = self._initiator.find(nqn)
            if namespace is not None:
                return nqn, namespace
        return None

    def map_identity(self, nqn: str, volume: str) -> MapIdentity:
        """Whose a map over the device of that NQN is."""
        name = read_nqn(nqn)
        return self._maps.identity(volume, name.generation if name is not None else 0)

    def front(self, nqn: str, namespace: Namespace | None, *, volume: str) -> Front | None:
        """The map of that NQN's generation, wherever it leads, or else the namespace.

        None where there is neither; without an NQN the map of the highest generation. A map that
        leads to the namespace is found at once, for health asks for every volume every minute;
        another takes a look at every map of the node.
        """
        identity = self.map_identity(nqn, volume)
        over = self._maps.over(namespace.devno) if namespace is not None else []
        found = next((each for each in over if each.identity == identity), None)
        found = found or self._maps.find(volume, identity.generation if nqn else None)
        if found is not None:
            return Front.of_map(found)
        return Front.bare(namespace) if namespace is not None else None

    def device(self, nqn: str, front: Front) -> Device:
        """The front as the device that whoever acts on it has to prove."""
        uuid = front.map.identity.uuid if front.map is not None else ""
        return Device(front.device, front.devno, nqn, self._host_nqn, uuid)

    def require_own(self, mounts: Iterable[Mount], volume: str) -> None:
        """Raise :class:`FailedPrecondition` if one of the mounts is of another volume."""
        for mount in mounts:
            identity = self._mapped(mount)
            owner = identity.uuid if identity is not None else self._owner(mount)
            own = identity.volume == volume if identity is not None else belongs(owner, volume)
            if owner and not own:
                raise FailedPrecondition(
                    f"{mount.point} belongs to {owner}; it was left as it is", volume=volume
                )

    def _mapped(self, mount: Mount) -> MapIdentity | None:
        """Whose map it shows, if it shows one that a driver of this kind made."""
        if mount.fs_type == "devtmpfs":
            return self._maps.owner_of_node(mount.root.removeprefix("/"))
        return self._maps.owner(mount.devno)

    def _owner(self, mount: Mount) -> str:
        if mount.fs_type == "devtmpfs":
            return self._subsystems.owner_of_node(mount.root.removeprefix("/"))
        return self._subsystems.owner(mount.devno)
