"""A program that cannot be killed ends when its volume is given up; what was written stays."""

import asyncio
import subprocess
import sys

import pytest

from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.errors import CommandStuck
from rds_csi.runtime.process import SubprocessRunner
from tests.lab import volumes
from tests.lab.application import tell
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import MIB, World


async def give_up(claim: Claim) -> subprocess.CompletedProcess[str]:
    """As an operator does it, in the driver's container."""
    command = [sys.executable, "-m", "rds_csi", "reap", "--cluster-id=lab", "--node-id=node-1"]
    command += ["--give-up", claim.volume.volume_id]
    done = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True
    )
    tell(f"{done.returncode}: {done.stdout}{done.stderr}")
    return done


@pytest.mark.parametrize("access", ["ext4", "block"])
async def test_a_stuck_program_ends_when_its_volume_is_given_up(
    access: str, kubernetes: Kubernetes, world: World
) -> None:
    """The driver serves all the while, and keeps the volume locked if the program is its own."""
    claim = volume("give-up", access, reconnectDelay=1)
    await volumes.bring_up(kubernetes, claim)
    path = claim.target if access == "block" else claim.target / "data"
    written = await asyncio.to_thread(data.write, path, offset=0, size=4 * MIB)

    refused = await give_up(claim)
    assert refused.returncode == 2
    assert "has its RDS" in refused.stderr
    assert volumes.state(claim) == "live"

    await world.rds.cut(None)
    await until(lambda: volumes.state(claim) == "connecting", "the outage is seen")
    runner = SubprocessRunner(term_grace=0.2, kill_grace=1)
    reads = ["dd", f"if={path}", "of=/dev/null", "iflag=direct", "bs=4096", "count=1"]
    with pytest.raises(CommandStuck) as caught:
        await runner.run(reads, timeout=1)
    assert not caught.value.gone.is_set()

    done = await give_up(claim)
    assert done.returncode == 0, done.stderr
    assert "what was written and the RDS has not acknowledged is lost" in done.stdout
    assert volumes.state(claim) == "gone"
    async with asyncio.timeout(30):
        await caught.value.gone.wait()
    assert runner.stuck == 0
    await runner.close()

    # The pod is stopped; the volume is as good as after any loss of power.
    await kubernetes.unmount(claim)
    await world.rds.restore(None)
    await kubernetes.mount(claim)
    assert data.intact(written)
    await volumes.take_down(kubernetes, claim)


async def test_another_volume_is_not_given_up(kubernetes: Kubernetes) -> None:
    claim = volume("stranger", "block")
    await volumes.bring_up(kubernetes, claim)
    claim.volume.volume_id, own = "pvc-" + "9" * 28, claim.volume.volume_id
    refused = await give_up(claim)
    claim.volume.volume_id = own
    assert refused.returncode == 2
    assert "is not connected on this host" in refused.stderr
    assert volumes.state(claim) == "live"
    await volumes.take_down(kubernetes, claim)
