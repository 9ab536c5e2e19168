"""What is read of a disk and of a pool, and what is never guessed."""

import pytest

from rds_csi.errors import RouterOSError, VolumeInUse
from rds_csi.routeros.disk import Capacity, Disk


def item(**changes: object) -> dict[str, object]:
    return {
        "slot": "pvc-1",
        "size": 1073741824,
        "file-path": "/raid10/csi/x.img",
        "nvme-tcp-export": True,
        "nvme-tcp-server-port": 4420,
        "nvme-tcp-server-nqn": "nqn.x",
        **changes,
    }


def test_a_disk_is_read_without_its_leading_slash_and_with_what_is_unset() -> None:
    disk = Disk.parse(item())
    assert disk.file_path == "raid10/csi/x.img"
    assert disk.comment == ""
    assert disk.record is None
    assert disk.allowed_host == ""
    assert disk.exported


@pytest.mark.parametrize("size", [None, "", 0, "0"])
def test_a_disk_without_a_size_is_a_disk_of_unknown_size(size: object) -> None:
    """As one whose pool is not mounted yet; ``file-size``, which is rounded, is never looked at."""
    assert Disk.parse(item(**{"file-size": "50.0GiB"})).size == 1073741824
    assert Disk.parse(item(size=size, **{"file-size": 1073741824})).size == 0
    found = item(**{"file-size": 1073741824})
    del found["size"]
    assert Disk.parse(found).size == 0


@pytest.mark.parametrize("size", ["50.0GiB", "many", True, 1.5])
def test_a_size_is_never_guessed(size: object) -> None:
    with pytest.raises(RouterOSError):
        Disk.parse(item(size=size))


LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"comment": "keep"}, False),
        ({"slot": "pvc-1"}, False),
        ({"file-path": f"/raid10/csi-evil/{LEGACY}.img"}, False),
        ({"file-path": "/raid10/csi/other.img"}, False),
    ],
)
def test_a_disk_of_the_go_driver_is_known_by_slot_path_and_empty_comment(
    changes: dict[str, object], ours: bool
) -> None:
    base = {"slot": LEGACY, "file-path": f"/raid10/csi/{LEGACY}.img"}
    assert Disk.parse(item(**{**base, **changes})).is_of("me/x", "raid10/csi") is ours


def test_a_pool_without_free_space_is_not_mounted() -> None:
    assert Capacity.parse("p", {"size": 5, "slot": "p"}) is None
    assert Capacity.parse("p", {"size": 5, "free": 3, "mounted": False}) is None
    assert Capacity.parse("p", {"size": "5", "free": "1 000", "fs": "xfs"}) == Capacity(
        pool="p", size=5, free=1000, file_system="xfs"
    )


OPEN = Disk.parse(item(**{"nvme-tcp-server-allow-host-name": "nqn.host"}))


def test_an_export_is_as_it_was_asked_for() -> None:
    OPEN.require_export(True, "nqn.host", "nqn.x")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ((False, "nqn.host", "nqn.x"), "export True to 'nqn.host' as 'nqn.x' instead of False"),
        ((True, "", "nqn.x"), "instead of True to 'any host'"),
        ((True, "nqn.host", "nqn.x.1"), "as 'nqn.x' instead of True to 'nqn.host' as 'nqn.x.1'"),
    ],
)
def test_an_export_that_is_another_is_told(asked: tuple[bool, str, str], says: str) -> None:
    with pytest.raises(RouterOSError, match=says):
        OPEN.require_export(*asked)


@pytest.mark.parametrize("mounted", [{"mount-filesystem": True}, {"mount-point": "pvc-1"}])
def test_what_routeros_mounts_is_exported_to_nobody(mounted: dict[str, object]) -> None:
    disk = Disk.parse(item(**mounted))
    with pytest.raises(VolumeInUse, match="mount-filesystem=no"):
        disk.require_export(True, "", "nqn.x")
    closed = Disk.parse(item(**mounted, **{"nvme-tcp-export": False}))
    closed.require_export(False, "", "nqn.x")


@pytest.mark.parametrize(
    ("free", "promised", "room"),
    [(60, 0, 60), (60, 40, 60), (60, 41, 59), (60, 100, 0), (60, 120, 0), (0, 0, 0)],
)
def test_a_pool_has_the_room_that_is_free_and_promised_to_nobody(
    free: int, promised: int, room: int
) -> None:
    item = {"size": 100, "free": free}
    pool = Capacity.parse("raid10", item, promised)
    assert pool is not None
    assert pool.room == room
