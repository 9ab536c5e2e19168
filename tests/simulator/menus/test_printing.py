"""What ``print`` writes for people, against texts taken from real devices."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.menus.printing import grouped, rounded
from rds_csi.simulator.simulator import TIB

# RouterOS 7.24 on an RDS2216, wide terminal; there it was item 31.
WIDE = """\
Flags: B - BLOCK-DEVICE; t - NVME-TCP-EXPORT
 0 Bt type=file slot="vm-storage-001" slot-default="" parent="" fs=- \
model="/raid10/vm-storage-001.img" size=1 099 511 627 776 mount-filesystem=no \
mount-read-only=no compress=no sector-size=512 raid-master=none nvme-tcp-export=yes
      nvme-tcp-server-port=4420 \
nvme-tcp-server-nqn="nqn.2026-09.com.mikrotik:rds2216.vm-storage-001" \
nvme-tcp-server-allow-host-name="" iscsi-export=no nfs-sharing=no smb-sharing=no \
media-sharing=no media-interface=none swap=no
      file-path=/raid10/vm-storage-001.img file-size=1024.0GiB file-offset=0

"""

# An RDS over SSH without a terminal; names and sizes were edited by its publisher, so only the
# order of the properties and their form are sure.
NARROW = """\
type=file slot="pvc-test-123" slot-default="" parent="" fs=-
               model="/storage-pool/test.img"
               size=53 687 091 200 mount-filesystem=yes mount-read-only=no
               compress=no sector-size=512 raid-master=none
               nvme-tcp-export=yes nvme-tcp-server-port=4420
               nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-test-123"
               nvme-tcp-server-allow-host-name="" iscsi-export=no
               nfs-sharing=no smb-sharing=no media-sharing=no
               media-interface=none swap=no
               file-path=/storage-pool/test.img
               file-size=50.0GiB file-offset=0
"""


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    pools = {"raid10": 16 * TIB, "storage-pool": 16 * TIB}
    async with Simulator(tmp_path / "rds", pools=pools) as simulator:
        yield simulator


async def test_detail_of_a_real_disk_on_a_wide_terminal(rds: Simulator) -> None:
    await rds.run(
        '/disk/add type=file slot="vm-storage-001" file-path="raid10/vm-storage-001.img" '
        "file-size=1T mount-filesystem=no nvme-tcp-export=yes "
        'nvme-tcp-server-nqn="nqn.2026-09.com.mikrotik:rds2216.vm-storage-001"'
    )
    rds.quirks.width = 250
    output = await rds.run("/disk/print detail where type=file")
    assert output == WIDE.replace("\n", "\r\n")


async def test_detail_of_a_real_disk_without_a_terminal(rds: Simulator) -> None:
    await rds.run(
        "/disk/add type=file slot=pvc-test-123 file-path=storage-pool/test.img file-size=50G "
        "nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:pvc-test-123"
    )
    output = await rds.run("/disk/print detail where slot=pvc-test-123")
    lines = output.split("\r\n")
    assert lines[0] == "Flags: B - BLOCK-DEVICE; t - NVME-TCP-EXPORT"
    assert lines[1].startswith(' 0 Bt type=file slot="pvc-test-123"')
    assert all(line.startswith(" " * 15) for line in lines[2:-2])
    assert max(map(len, lines)) <= 80
    assert lines[-2:] == ["", ""]
    assert (
        " ".join(output.split()).partition("type=")[2]
        == (" ".join(NARROW.split()).partition("type=")[2])
    )


async def test_a_long_value_is_cut_at_the_end_of_the_line(rds: Simulator) -> None:
    folder = "storage-pool/" + "d" * 40
    rds.make_directory(folder)
    path = f"{folder}/pvc-12345678-1234-1234-1234-123456789abc.img"
    await rds.run(f"/disk/add type=file slot=a file-path={path} file-size=1M")
    output = await rds.run("/disk/print detail where slot=a")
    assert path not in output
    assert path in output.replace("\r\n" + " " * 15, "")
    rds.quirks.width = 512
    assert path in await rds.run("/disk/print detail where slot=a")


async def test_pool(rds: Simulator) -> None:
    rds.quirks.width = 500
    output = await rds.run("/disk/print detail where slot=raid10")
    assert output.startswith("Flags: B - BLOCK-DEVICE; M - MOUNTED\r\n 0 BM type=raid ")
    for piece in (
        "fs=xfs ",
        "size=17 592 186 044 416 ",
        "free=17 592 186 044 416 ",
        "use=0% ",
        'mount-point="raid10" ',
        'state="clean" ',
    ):
        assert piece in output


async def test_no_match_still_prints_the_legend(rds: Simulator) -> None:
    assert await rds.run("/disk/print detail where slot=none") == "Flags: X - disabled\r\n"


async def test_comments_stand_on_their_own_line(rds: Simulator) -> None:
    line = '/disk/add type=file slot=a file-path=raid10/a.img file-size=1M comment="it is mine"'
    await rds.run(line)
    lines = (await rds.run("/disk/print detail where slot=a")).split("\r\n")
    assert lines[1] == " 0 B ;;; it is mine"
    assert lines[2].startswith("     type=file")


async def test_brief_print_is_a_table(rds: Simulator) -> None:
    lines = (await rds.run("/disk/print where slot=raid10")).split("\r\n")
    assert lines[1].startswith("Columns: SLOT, MODEL, FS, SIZE")
    assert lines[2].split()[:2] == ["#", "SLOT"]
    assert lines[3].split()[:3] == ["0", "BM", '"raid10"']


async def test_terse_is_one_line_each(rds: Simulator) -> None:
    lines = (await rds.run("/disk/print terse")).split("\r\n")
    assert len(lines) == 3
    assert lines[0].startswith(" 0 BM type=raid slot=")


async def test_files_have_a_type_with_a_blank_in_it(rds: Simulator) -> None:
    rds.path("raid10/x.img").write_bytes(b"")
    with rds.path("raid10/x.img").open("r+b") as file:
        file.truncate(10 * 1024**3)
    output = await rds.run('/file/print detail where name="raid10/x.img"')
    assert output.startswith(" 0  name=raid10/x.img type=.img file size=10.0GiB")


def test_digits_are_grouped() -> None:
    assert grouped(53687091200) == "53 687 091 200"
    assert grouped(512) == "512"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (50 * 2**30, "50.0GiB"),
        (2**40, "1024.0GiB"),
        (2**30, "1024.0MiB"),
        (10 * 2**30, "10.0GiB"),
        (3 * 2**39, "1.5TiB"),
        (512, "512B"),
        (0, "0B"),
    ],
)
def test_rounded_sizes(size: int, text: str) -> None:
    assert rounded(size) == text
