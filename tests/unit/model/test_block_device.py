"""A device is what has its number, and is proven by whose it is."""

from pathlib import Path

from rds_csi.model.block_device import Device


def test_the_number_is_written_as_the_kernel_writes_it() -> None:
    assert Device(Path("/dev/nvme0n1"), (259, 12), "nqn.a", "nqn.host").number == "259:12"
