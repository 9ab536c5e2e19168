"""A volume's whole life with the programs of the image: its nvme, its mkfs, its mount."""

import subprocess

from tests.image.lab.conftest import ROOT, Container
from tests.kernel.test_life import test_a_whole_life

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
