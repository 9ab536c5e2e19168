"""Many callers at once against an RDS on which each command takes 200 ms, beside the bare limit.

16 callers take volumes through their life (create, publish, publish again, unpublish, unpublish
again, delete) on a simulated RDS in a process of its own, over real SSH. No driver can be faster
than its commands, one behind the other on each channel. Both limits are printed beside the wall
time: commands x 0.2 s / channels, and the same with what a command takes on this machine when
nothing else is asked, SSH and the simulated RDS's own work included.

Exits with 1 where a call failed, something is left on the RDS, or it took more than 1.25 times
the second limit.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import asyncssh

from rds_csi.controller.service import Controller, ControllerSettings
from rds_csi.csi import v1 as csi
from rds_csi.model.node_id import make_node_id
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.volume import GIB
from rds_csi.routeros import Disks, Session, SessionSettings
from rds_csi.simulator import Simulator

CALLERS: Final = 16
ALONE: Final = 3
"""Volumes of which each command is the only one."""
SECONDS: Final = 0.2
LIMIT: Final = 1.25
CLUSTER: Final = "bench"
OWNER: Final = f"csi.rds-csi.io/{CLUSTER}"
BASE: Final = "raid10/csi"
CAPABILITY: Final = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapabilityAccessMode(
        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    ),
)


async def serve(key: str) -> None:
    """Be the RDS, until the input ends; say where."""
    async with Simulator(authorized_keys=[asyncssh.import_public_key(key)]) as simulator:
        simulator.make_directory(BASE)
        simulator.quirks.latency = SECONDS
        where = {"port": simulator.port, "host_key": simulator.host_key_line}
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def life(controller: Controller, number: int) -> None:
    """One volume, from nothing to nothing."""
    node = make_node_id(CLUSTER, f"worker-{number % 40}")
    made = await controller.create_volume(
        csi.CreateVolumeRequest(
            name=f"pvc-{number:08}",
            capacity_range=csi.CapacityRange(required_bytes=GIB),
            volume_capabilities=[CAPABILITY],
        )
    )
    assert made.volume is not None
    volume = made.volume.volume_id
    for _ in range(2):
        await controller.controller_publish_volume(
            csi.ControllerPublishVolumeRequest(
                volume_id=volume, node_id=node, volume_capability=CAPABILITY
            )
        )
    for _ in range(2):
        await controller.controller_unpublish_volume(
            csi.ControllerUnpublishVolumeRequest(volume_id=volume, node_id=node)
        )
    await controller.delete_volume(csi.DeleteVolumeRequest(volume_id=volume))


async def measure(volumes: int, folder: Path) -> bool:
    """Run it, print it; whether it is as it should be."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    file = folder / "id_ed25519"
    key.write_private_key(file)
    file.chmod(0o600)
    public = key.export_public_key().decode().strip()
    rds = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.callers", "--serve", public),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert rds.stdin is not None
    assert rds.stdout is not None
    where = json.loads(await rds.stdout.readline())
    settings = SessionSettings(
        host="127.0.0.1",
        port=where["port"],
        user="csi",
        key_file=file,
        host_keys=(where["host_key"],),
    )
    session = Session(settings)
    disks = Disks(session, owner=OWNER, base_path=BASE)
    controller = Controller(
        disks,
        ControllerSettings(
            owner=OWNER,
            cluster_id=CLUSTER,
            nqn_prefix="nqn.2000-02.com.mikrotik",
            defaults=VolumeParameters(nvme_addresses=("10.0.0.5",), volume_path=BASE),
        ),
    )
    await disks.system()
    begun, before = time.monotonic(), session.statistics.execs
    for number in range(ALONE):
        await life(controller, -1 - number)
    alone = (time.monotonic() - begun) / (session.statistics.execs - before)
    waiting = iter(range(volumes))

    async def caller() -> None:
        for number in waiting:
            await life(controller, number)

    begun, before = time.monotonic(), session.statistics.execs
    ends = await asyncio.gather(*(caller() for _ in range(CALLERS)), return_exceptions=True)
    wall, execs = time.monotonic() - begun, session.statistics.execs - before
    left = await disks.list()
    failed = [each for each in ends if each is not None]
    bare, lone = (execs * seconds / settings.channels for seconds in (SECONDS, alone))
    print(
        f"{volumes} volumes, {CALLERS} callers, {settings.channels} channels, "
        f"{SECONDS * 1000:.0f} ms a command: {execs} commands ({execs / volumes:.1f} a volume), "
        f"{wall:.1f} s; limit {bare:.1f} s, {wall / bare:.2f} times it; with the "
        f"{alone * 1000:.0f} ms that one takes alone here {lone:.1f} s, {wall / lone:.2f} times; "
        f"{len(failed)} failed, {len(left)} left"
    )
    for each in failed[:5]:
        print(f"  {each!r}")
    await session.close()
    rds.stdin.close()
    await rds.wait()
    return not failed and not left and wall <= LIMIT * lone


def main() -> int:
    """Measure, or be the RDS that is measured against."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--serve", metavar="KEY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    with tempfile.TemporaryDirectory() as name:
        return 0 if asyncio.run(measure(options.volumes, Path(name))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
