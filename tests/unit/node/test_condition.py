"""The judge of a volume on this node: every verdict, and what it must not be taken for."""

import pytest

from rds_csi.filesystem.mounts import Mount
from rds_csi.node.condition import Link, Shown, judge_link, judge_mount, paths_down
from rds_csi.nvme.sysfs import Controller

NQN = "nqn.2000-02.com.mikrotik:pvc-" + "0" * 28
OURS = (259, 1)


def controllers(*states: str) -> list[Controller]:
    return [Controller(name=f"nvme{at}", nqn=NQN, state=state) for at, state in enumerate(states)]


def mount(devno: tuple[int, int] = OURS, *, broken: bool = False) -> Mount:
    return Mount(
        devno=devno,
        root="/",
        point="/var/lib/kubelet/stage",
        options=("rw",),
        fs_type="ext4",
        source="/dev/nvme0n1",
        super_options=("ro",) if broken else ("rw",),
    )


@pytest.mark.parametrize(
    ("states", "device", "link"),
    [
        ((), False, Link.GONE),
        ((), True, Link.GONE),
        (("connecting",), True, Link.WAITING),
        (("connecting", "deleting"), True, Link.WAITING),
        (("live",), False, Link.EMPTY),
        (("live",), True, Link.LIVE),
        (("connecting", "live"), True, Link.LIVE),
    ],
)
def test_one_live_connection_with_a_device_is_what_it_takes(
    states: tuple[str, ...], device: bool, link: Link
) -> None:
    assert judge_link(controllers(*states), device=device) is link


@pytest.mark.parametrize(
    ("addresses", "connected", "down"),
    [
        ("ab", {"a": "live", "b": "live"}, ""),
        ("ab", {"a": "live"}, "b"),
        ("ab", {"b": "live"}, "a"),
        ("abc", {"b": "live", "c": "connecting"}, "ac"),
        ("ab", {"a": "connecting"}, ""),
        ("ab", {}, ""),
        ("a", {"x": "live"}, ""),
        ("ab", {"x": "live"}, "ab"),
        ("", {"a": "live"}, ""),
    ],
)
def test_a_path_is_down_where_another_carries_the_io(
    addresses: str, connected: dict[str, str], down: str
) -> None:
    """With none live it is no path that is down, but the volume."""
    found = [
        Controller(name=f"nvme{at}", nqn=NQN, address=address, state=state)
        for at, (address, state) in enumerate(connected.items())
    ]
    assert paths_down(list(addresses), found) == list(down)


def test_what_is_mounted_is_the_uppermost() -> None:
    assert judge_mount([], [OURS], writable=True) is Shown.NOTHING
    assert judge_mount([mount((8, 1)), mount()], [OURS], writable=True) is Shown.WELL
    assert judge_mount([mount(), mount((8, 1))], [OURS], writable=True) is Shown.STALE
    assert judge_mount([mount()], [], writable=True) is Shown.STALE


def test_a_file_system_that_takes_no_writes_is_ill_only_where_it_should() -> None:
    assert judge_mount([mount(broken=True)], [OURS], writable=True) is Shown.READ_ONLY
    assert judge_mount([mount(broken=True)], [OURS], writable=False) is Shown.WELL
    assert judge_mount([mount((8, 1), broken=True)], [OURS], writable=True) is Shown.STALE
