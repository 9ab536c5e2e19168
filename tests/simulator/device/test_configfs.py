"""The kernel's NVMe target as folders: on an ordinary one here, on the real one in tests/kernel."""

from pathlib import Path

import pytest

from rds_csi.simulator.device.configfs import ConfigFs, find_port, free_port_name


@pytest.fixture
def configfs(tmp_path: Path) -> ConfigFs:
    (tmp_path / "ports").mkdir()
    return ConfigFs(tmp_path)


def add_port(configfs: ConfigFs, name: str, **attributes: str) -> None:
    configfs.make(configfs.root / "ports" / name)
    for key, value in attributes.items():
        configfs.write(configfs.root / "ports" / name / key, value + "\n")


def test_a_target_is_there_once_the_kernel_shows_subsystems(configfs: ConfigFs) -> None:
    assert not configfs.available()
    configfs.make(configfs.root / "subsystems")
    assert configfs.available()


def test_removing_and_untying_what_is_gone_is_nothing(configfs: ConfigFs) -> None:
    gone = configfs.root / "gone"
    configfs.remove(gone)
    configfs.unlink(gone)
    assert configfs.read(gone) == ""
    assert configfs.names(gone) == []


def test_what_is_not_empty_is_not_removed(configfs: ConfigFs) -> None:
    """In configfs a folder with objects in it cannot be removed, and nothing below it is."""
    configfs.make(configfs.root / "ports/1")
    with pytest.raises(OSError, match="not empty"):
        configfs.remove(configfs.root / "ports")
    assert configfs.names(configfs.root / "ports") == ["1"]


def test_tying_twice_is_once_and_untying_leaves_the_object(configfs: ConfigFs) -> None:
    target, link = configfs.root / "host", configfs.root / "link"
    configfs.make(target)
    configfs.link(link, target)
    configfs.link(link, target)
    assert link.readlink() == target
    configfs.unlink(link)
    assert target.is_dir()
    assert not link.is_symlink()


def test_attributes_of_newer_kernels(configfs: ConfigFs) -> None:
    configfs.write_if_known(configfs.root / "none/attr_cntlid_min", "5")
    assert not (configfs.root / "none").exists()
    with pytest.raises(FileNotFoundError):
        configfs.write(configfs.root / "none/attr_cntlid_min", "5")


def test_a_port_is_known_by_all_its_attributes(configfs: ConfigFs) -> None:
    add_port(configfs, "1", addr_traddr="10.0.0.1", addr_trsvcid="4420")
    add_port(configfs, "2", addr_traddr="10.0.0.1", addr_trsvcid="4421")
    wanted = {"addr_traddr": "10.0.0.1", "addr_trsvcid": "4421"}
    assert find_port(configfs, wanted) == "2"
    assert find_port(configfs, {**wanted, "addr_traddr": "10.0.0.2"}) == ""


def test_a_new_port_gets_the_lowest_free_number(configfs: ConfigFs) -> None:
    assert free_port_name(configfs) == "1"
    for name in ("1", "2", "10"):
        add_port(configfs, name)
    assert free_port_name(configfs) == "3"
