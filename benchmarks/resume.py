"""How soon I/O goes on once the target is back, over many outages, against what is promised.

Runs in the lab (``nox -s benchmark-resume``), with the driver, the kernel's initiator and its
target, and an application that writes: the time is that from the target's return to the first
write that is acknowledged. The promise is ``reconnect_delay`` + 1 s. Each volume has its outages
apart from the others', of random length, so that the target returns anywhere between two
attempts of the kernel.

Exits with 1 if an outage broke the promise, or if a write was lost, corrupted or refused.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import asyncssh

from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.simulator import Simulator
from tests.lab import volumes
from tests.lab.application import Application
from tests.lab.processes import Zygote
from tests.lab.world import BASE, GIB, World

VOLUMES: Final = (("ext4", 1), ("xfs", 1), ("ext4", 2), ("block", 2), ("xfs", 5), ("block", 5))
"""Access and ``reconnectDelay``."""
OUTAGES: Final = 6
"""Of each volume; 36 in all."""
SHORTEST: Final = 1.0
MARGIN: Final = 1.0
"""Seconds that are promised on top of the delay."""


def main() -> int:
    """Run all of it; the exit status."""
    zygote = Zygote()
    try:
        with tempfile.TemporaryDirectory(prefix="rds-resume-") as folder:
            return asyncio.run(run(Path(folder), zygote))
    finally:
        zygote.close()


async def run(folder: Path, zygote: Zygote) -> int:
    """Bring the volumes up, let the outages happen, take all down; the exit status."""
    key, key_file = asyncssh.generate_private_key("ssh-ed25519"), folder / "key"
    key.write_private_key(key_file)
    key_file.chmod(0o600)
    simulator = Simulator(
        folder / "rds",
        pools={"raid10": 64 * GIB},
        export="nvmet",
        authorized_keys=[key.convert_to_public()],
    )
    async with simulator as rds:
        rds.make_directory(BASE)
        world = World(rds, key_file, zygote, folder)
        driver = world.driver()
        await driver.start()
        async with Kubernetes(driver.socket, driver.socket) as kubernetes:
            claims = [
                volumes.volume(f"resume-{i}", access, reconnectDelay=delay)
                for i, (access, delay) in enumerate(VOLUMES)
            ]
            await volumes.bring_up(kubernetes, *claims)
            application = Application(claims, folder / "application")
            await application.start()
            try:
                found = await asyncio.gather(
                    *(outages(rds, application, claim) for claim in claims)
                )
            finally:
                await rds.restore(None)
            await application.stop()
            await application.prove()
            refused = sum(sum(journal.errors().values()) for journal in application.journals)
            await volumes.take_down(kubernetes, *claims)
        await world.close()
    times: dict[int, list[float]] = defaultdict(list)
    for (_, delay), measured in zip(VOLUMES, found, strict=True):
        times[delay] += measured
    return report(times, refused)


async def outages(rds: Simulator, application: Application, claim: Claim) -> list[float]:
    """The seconds from the target's return to the next write, of each outage."""
    delay = int(claim.parameters["reconnectDelay"])
    found = []
    for _ in range(OUTAGES):
        await rds.cut(claim.volume.volume_id)
        await asyncio.sleep(random.uniform(SHORTEST, SHORTEST + 1.5 * delay))
        restored = time.monotonic()
        await rds.restore(claim.volume.volume_id)
        found.append(await application.resumed(claim, restored))
        await asyncio.sleep(0.5)
    return found


def report(times: dict[int, list[float]], refused: int) -> int:
    """Print the distribution; the exit status."""
    say(f"{'delay':>6} {'outages':>8} {'least':>7} {'median':>7} {'90 %':>7} {'most':>7} "
        f"{'promised':>9}")  # fmt: skip
    broken = 0
    for delay, found in sorted(times.items()):
        broken += sum(each > delay + MARGIN for each in found)
        ninety = statistics.quantiles(found, n=10)[-1]
        numbers = (min(found), statistics.median(found), ninety, max(found))
        row = " ".join(f"{number:>7.2f}" for number in numbers)
        say(f"{delay:>4} s {len(found):>8} {row} {delay + MARGIN:>7.0f} s")
    everything = [each - delay for delay, found in times.items() for each in found]
    say(f"{len(everything)} outages; beyond reconnect_delay, at most: {max(everything):.2f} s")
    for low in range(5):
        bottom, top = low - 4, low - 3
        count = sum(bottom < each <= top for each in everything)
        say(f"  {bottom:>3} to {top:>2} s beyond {'#' * count}")
    say(f"{broken} broke the promise; {refused} writes failed; none lost or corrupted")
    return 1 if broken or refused else 0


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
