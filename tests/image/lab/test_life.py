"""A volume's whole life with the programs of the image: its nvme, its mkfs, its mount."""

import asyncio
import json
import subprocess

from rds_csi.demo.kubelet import Kubernetes
from tests.image.lab.conftest import ROOT, Container
from tests.kernel.test_life import test_a_whole_life
from tests.lab.processes import Driver
from tests.lab.world import STATE, claim

__all__ = ["test_a_whole_life"]


def test_the_programs_are_the_images(zygote: Container) -> None:
    words = [
        "chroot",
        str(ROOT),
        "/bin/sh",
        "-c",
        "nvme version; . /etc/os-release; echo $ID-$VERSION_ID",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "nvme version 2.1" in done.stdout
    assert "debian-13" in done.stdout


async def test_the_self_check(driver: Driver, kubernetes: Kubernetes) -> None:
    """``rds-csi doctor node``, as one would call it in the driver's container."""
    volume = claim("doctor", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    command = ["/opt/venv/bin/rds-csi", "doctor", "node", "--json", f"--settings-of={driver.pid}"]
    done = await asyncio.to_thread(
        subprocess.run, ["chroot", str(ROOT), *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) > 10
    # Nobody keeps the lab's clock, and its disk is memory: these two are warnings there.
    expected = {"clock", f"state directory {STATE / 'node-1'}"}
    assert [
        each for each in checks if each["status"] != "ok" and each["name"] not in expected
    ] == []
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
