"""Volumes for the tests: records, paths, and what was changed on the RDS."""

from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record, owner_tag
from rds_csi.model.volume import MIB, volume_id
from rds_csi.routeros import Disk, Disks

from .conftest import BASE, OWNER, PREFIX, Rds

SLOT = volume_id("one")
LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
HOST = "nqn.2014-08.org.nvmexpress:uuid:9f1c0a52-7b6e-5d55-9a5e-2f3c4d5e6f70"


def record(name: str = "one", *nodes: str, owner: str = OWNER) -> Record:
    return Record(
        owner=owner,
        name=name,
        created=1700000000,
        access="ext4",
        nodes=tuple(Publication(node, AccessMode.SINGLE_NODE_WRITER) for node in nodes),
    )


def path_of(slot: str, directory: str = BASE) -> str:
    return f"{directory}/{slot}-{owner_tag(OWNER)}.img"


async def create(disks: Disks, name: str = "one", size: int = 64 * MIB) -> tuple[Disk, bool]:
    slot = volume_id(name)
    return await disks.create(
        slot=slot,
        size=size,
        file_path=path_of(slot),
        nqn=f"{PREFIX}:{slot}",
        port=4420,
        record=record(name),
    )


def changes(rds: Rds) -> list[str]:
    """What was changed of disks and files; the locks come and go around it."""
    verbs = ("/add", "/set", "/remove")
    return [
        run.name
        for each in rds.simulator.execs()
        for run in each.executed
        if run.name.endswith(verbs) and run.name.startswith(("/disk/", "/file/"))
    ]
