"""The properties of a disk: what is taken for a value, and which version has them."""

import pytest

from rds_csi.simulator.device.properties import BY_NAME, in_version
from rds_csi.simulator.language.values import RuntimeFault, Value


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("nvme-tcp-export", "yes", True),
        ("nvme-tcp-export", True, True),
        ("nvme-tcp-export", "no", False),
        ("nvme-tcp-export", "false", False),
        ("file-size", 1000, 1000),
        ("file-size", "1k", 2**10),
        ("file-size", "2MiB", 2**21),
        ("file-size", "3GB", 3 * 2**30),
        ("file-size", "4T", 2**42),
        ("nvme-tcp-server-port", "65535", 65535),
        ("type", "file", "file"),
        ("comment", 5, "5"),
    ],
)
def test_what_is_taken(name: str, given: Value, taken: Value) -> None:
    found = BY_NAME[name].parse(given)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("nvme-tcp-export", "maybe", "input does not match any value of nvme-tcp-export"),
        ("nvme-tcp-export", 1, "input does not match any value of nvme-tcp-export"),
        ("type", "floppy", "input does not match any value of type"),
        ("file-size", "1.5G", "value of file-size contains invalid trailing characters"),
        ("file-size", "-1", "value of file-size contains invalid trailing characters"),
        ("file-size", "1P", "value of file-size contains invalid trailing characters"),
        ("nvme-tcp-server-port", "44x", "contains invalid trailing characters"),
        ("nvme-tcp-server-port", "\u00b2", "contains invalid trailing characters"),
        ("nvme-tcp-server-port", "0", r"out of range \(1..65535\)"),
        ("nvme-tcp-server-port", "65536", r"out of range \(1..65535\)"),
    ],
)
def test_what_is_refused_names_its_argument(name: str, given: Value, text: str) -> None:
    with pytest.raises(RuntimeFault, match=text) as caught:
        BY_NAME[name].parse(given)
    assert caught.value.argument == name


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("nvme-tcp-export", (7, 0)),
        ("nfs-sharing", (7, 14)),
        ("file-path", (7, 17)),
        ("mount-filesystem", (7, 17)),
        ("compress", (7, 18)),
        ("nvme-tcp-server-nqn", (7, 21)),
    ],
)
def test_which_version_has_it(name: str, since: tuple[int, int]) -> None:
    major, minor = since
    assert BY_NAME[name] in in_version(since)
    assert BY_NAME[name] not in in_version((major, minor - 1))


def test_what_a_disk_shows_by_itself_cannot_be_set() -> None:
    fixed = {entry.name for entry in in_version((7, 24)) if not entry.writable}
    assert {"size", "free", "model", "fs", "mount-point", "state"} <= fixed
    assert not fixed & {"slot", "file-path", "file-size", "comment", "nvme-tcp-export"}
