"""Volumes under maps whose targets are bare ones: no RDS is in this, so each can be anything."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import volumes
from tests.lab.application import Application, tell
from tests.lab.target import Target
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import MIB, PREFIX, STATE

SIZE: Final = 320 * MIB
"""Bytes: mkfs.xfs makes none smaller than 300 MiB."""
GENERATION: Final = 3


@dataclass(frozen=True, slots=True)
class Volume:
    """A claim, and its export with a generation in its name."""

    claim: Claim
    target: Target
    file: Path

    def away(self) -> None:
        """The export is gone from one moment to the next."""
        self.target.cut()


def made(name: str, access: str, number: int, folder: Path) -> Volume:
    """Of its own port and a file in ``folder``; neither exported nor mounted yet."""
    claim = volume(name, access)
    identity = f"pvc-{number:028x}"
    nqn = f"{PREFIX.removesuffix('pvc-')}{identity}.{GENERATION}"
    file = folder / f"{name}.img"
    with file.open("wb") as content:
        content.truncate(SIZE)
    port = 4480 + number
    claim.volume = csi.Volume(
        volume_id=identity,
        capacity_bytes=SIZE,
        volume_context={"ctrlLossTmo": "-1", "reconnectDelay": "1"},
    )
    claim.publish_context = {
        "nvmeAddress": "127.0.0.1",
        "nvmePort": str(port),
        "nqn": nqn,
        "size": str(SIZE),
        "generation": str(GENERATION),
        "pathLayer": "true",
    }
    return Volume(claim, Target(nqn, file, port=port), file)


def load_modules() -> None:
    """As the node plugin's init container does it."""
    volumes.run("modprobe", "-a", "dm-multipath", "dm-round-robin")


async def given_up(claim: Claim) -> None:
    """The operator, a finite timeout, or a newer kernel makes an end of the controller."""
    found = volumes.controller(claim)
    if found is not None:
        tmo = Path("/sys/class/nvme", found.name, "ctrl_loss_tmo")
        with suppress(OSError):  # it may be gone by itself
            await asyncio.to_thread(tmo.write_text, "1")
    await until(lambda: volumes.state(claim) == "gone", f"the kernel gives {claim.name} up")


def writes(application: Application, claim: Claim) -> int:
    """How many of the claim's writes were acknowledged."""
    return sum(entry.what == "ack" for entry in application.journal(claim).entries())


async def until_health(kubernetes: Kubernetes, claim: Claim, wanted: set[str]) -> None:
    """Wait for these reasons, and no other.

    Health is that of what the healer has seen, which takes it a moment.
    """
    await _until(kubernetes, claim, lambda found: set(found) == wanted)


async def until_said(kubernetes: Kubernetes, claim: Claim, reason: str, words: str) -> str:
    """Wait for the words in what is said of a reason; all that is said of it."""
    found = await _until(kubernetes, claim, lambda found: words in found.get(reason, ""))
    return found[reason]


async def _until(
    kubernetes: Kubernetes, claim: Claim, true: Callable[[dict[str, str]], bool]
) -> dict[str, str]:
    found: dict[str, str] = {}
    async with asyncio.timeout(90):
        while True:
            before, found = found, await volumes.health(kubernetes, claim)
            if found != before:
                tell(f"{claim.name}: {found}")
            if true(found):
                return found
            await asyncio.sleep(0.5)


async def release(claim: Claim, *options: str) -> subprocess.CompletedProcess[str]:
    """``rds-csi release``, as an operator does it in the driver's container on node-1."""
    command = [sys.executable, "-m", "rds_csi", "release", "--cluster-id=lab", "--node-id=node-1"]
    command += [f"--state-dir={STATE / 'node-1'}", claim.volume.volume_id, *options]
    done = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True
    )
    tell(f"{done.returncode}: {done.stdout}{done.stderr}")
    return done
