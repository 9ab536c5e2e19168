"""Which kernel is booted, where it comes from, and both layouts of Debian's packages."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rds_csi.lab import kernels
from rds_csi.lab.host import LabUnavailable
from rds_csi.lab.kernels import NEWEST, Kernel, named_kernel
from tests.unit.lab.packages import make_archive, make_package, needs_debian

COMPLETE = """kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-fabrics.ko
kernel/drivers/nvme/target/nvmet-tcp.ko.xz: kernel/drivers/nvme/target/nvmet.ko.xz
kernel/drivers/block/loop.ko:
kernel/fs/ext4/ext4.ko:
kernel/fs/xfs/xfs.ko.zst:
kernel/net/9p/9pnet_virtio.ko:
"""


def make_kernel(boot: Path, modules: Path, version: str, *, built_in: str = "overlay") -> None:
    boot.mkdir(exist_ok=True)
    (boot / f"vmlinuz-{version}").touch()
    (modules / version).mkdir(parents=True)
    (modules / version / "modules.dep").write_text(COMPLETE)
    (modules / version / "modules.builtin").write_text(f"kernel/fs/{built_in}/{built_in}.ko\n")


def test_modules_may_be_compressed_or_built_in(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.1.0-56-amd64")
    assert kernels.find_kernel([boot], modules) == Kernel(
        "6.1.0-56-amd64", boot / "vmlinuz-6.1.0-56-amd64"
    )


def test_the_newest_kernel_is_taken_by_number_not_by_letter(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    for version in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.1-amd64"):
        make_kernel(boot, modules, version)
    found = kernels.find_kernel([boot], modules)
    assert found is not None
    assert found.version == "6.12.1-amd64"


def test_a_kernel_without_a_module_is_none(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.1.0-56-cloud-amd64", built_in="fuse")
    assert kernels.find_kernel([boot], modules) is None


def test_a_kernel_whose_modules_are_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-6.1.0").touch()
    assert kernels.find_kernel([tmp_path, tmp_path / "nowhere"], tmp_path / "modules") is None


def test_a_kernel_that_is_given_is_taken_or_refused(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    make_kernel(boot, modules, "6.12.1-amd64")
    image = boot / "vmlinuz-6.12.1-amd64"
    assert kernels.given_kernel(image, modules) == Kernel("6.12.1-amd64", image)
    with pytest.raises(LabUnavailable, match="no kernel with modules"):
        kernels.given_kernel(boot / "vmlinuz-6.13.0", modules)
    (boot / "vmlinuz-6.13.0").touch()
    with pytest.raises(LabUnavailable, match="nvme-tcp"):
        kernels.given_kernel(boot / "vmlinuz-6.13.0", modules)


@pytest.fixture(autouse=True)
def no_kernel_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BOOT", tmp_path / "no-boot")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """depmod wants to find it in a folder ``lib``."""
    return tmp_path / "lib" / "modules"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def tree(folder: str) -> dict[str, str]:
    """The modules in COMPLETE, none of which has a content, by path."""
    return {f"{folder}/{line.split(':')[0]}": "" for line in COMPLETE.splitlines()}


def old_layout(shelf: Path, version: str) -> None:
    """Until 6.x: one package has all of a kernel."""
    release = f"{version.split('-', maxsplit=1)[0]}-amd64"
    folder = f"lib/modules/{release}"
    files = {f"boot/vmlinuz-{release}": version, **tree(folder)}
    files |= {f"{folder}/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n"}
    files |= {f"{folder}/modules.order": ""}
    make_package(shelf, f"linux-image-{release}", version, files, depends="kmod, linux-base")
    meta(shelf, release, version)


def new_layout(shelf: Path, version: str, *, without: str = "none") -> None:
    """From 7.x on: the package of the image depends on three others, which have it all."""
    release = f"{version.split('-', maxsplit=1)[0]}-amd64"
    folder = f"usr/lib/modules/{release}"
    parts: Mapping[str, Mapping[str, str]] = {
        "base": {
            f"{folder}/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n",
            f"{folder}/modules.order": "",
        },
        "binary": {f"{folder}/vmlinuz": version},
        "modules": tree(folder),
    }
    names = [f"linux-{part}-{release}" for part in parts if part != without]
    for part, files in parts.items():
        make_package(shelf, f"linux-{part}-{release}", version, files)
    depends = ", ".join(["dracut | initramfs-tools", *(f"{name} (= {version})" for name in names)])
    make_package(shelf, f"linux-image-{release}", version, {}, depends=depends)
    meta(shelf, release, version)


def meta(shelf: Path, release: str, version: str) -> None:
    depends = f"linux-base-amd64, linux-image-{release} (= {version})"
    make_package(shelf, "linux-image-amd64", version, {}, depends=depends)


@needs_debian
@pytest.mark.parametrize("layout", [old_layout, new_layout])
def test_both_layouts_are_unpacked(
    shelf: Path, cache: Path, modules: Path, layout: Callable[[Path, str], None]
) -> None:
    layout(shelf, "6.12.1-1")
    said: list[str] = []
    found = named_kernel(said.append, "6.12", cache, modules, sources=[make_archive(shelf)])
    assert found == Kernel("6.12.1-amd64", cache / "6.12/vmlinuz-6.12.1-amd64")
    assert found.image.read_text() == "6.12.1-1"
    assert (modules / "6.12.1-amd64/modules.dep").read_text().count("nvme-tcp.ko") == 1
    # Told before, and nothing but the kernel is left.
    assert "linux-image-6.12.1-amd64" in said[0]
    assert [path.name for path in found.image.parent.iterdir()] == [found.image.name]


@needs_debian
def test_a_series_is_its_newest_and_no_other(shelf: Path, cache: Path, modules: Path) -> None:
    old_layout(shelf, "6.1.200-1")
    for version in ("6.12.9-1", "6.12.10-1", "7.3.4-1"):
        new_layout(shelf, version)
    sources = [make_archive(shelf)]
    for name, version in {
        "6.1": "6.1.200-amd64",
        "6.12": "6.12.10-amd64",
        NEWEST: "7.3.4-amd64",
    }.items():
        assert named_kernel(print, name, cache, modules, sources=sources).version == version


@needs_debian
def test_a_series_that_was_fetched_is_not_fetched_again(
    shelf: Path, cache: Path, modules: Path
) -> None:
    old_layout(shelf, "6.12.9-1")
    first = named_kernel(print, "6.12", cache, modules, sources=[make_archive(shelf)])
    nowhere = [f"deb [trusted=yes] file:{shelf}/nowhere ./"]
    assert named_kernel(pytest.fail, "6.12", cache, modules, sources=nowhere) == first


@needs_debian
def test_the_newest_is_asked_for_each_time(shelf: Path, cache: Path, modules: Path) -> None:
    new_layout(shelf, "7.9.1-1")
    sources = [make_archive(shelf)]
    first = named_kernel(print, NEWEST, cache, modules, sources=sources)
    # The same is not fetched again: nothing is said.
    assert named_kernel(pytest.fail, NEWEST, cache, modules, sources=sources) == first

    new_layout(shelf, "7.10.1-1")
    sources = [make_archive(shelf)]
    found = named_kernel(print, NEWEST, cache, modules, sources=sources)
    assert found.version == "7.10.1-amd64"

    # Out of reach: the newest of those fetched, and why is said.
    said: list[str] = []
    nowhere = [f"deb [trusted=yes] file:{shelf}/nowhere ./"]
    assert named_kernel(said.append, NEWEST, cache, modules, sources=nowhere) == found
    assert said[0].startswith("the newest kernel fetched before, 7.10.1-amd64, is taken: ")


@needs_debian
def test_another_kernel_never_stands_for_the_newest(
    shelf: Path, cache: Path, modules: Path
) -> None:
    make_kernel(cache, modules, "6.1.0-56-amd64")
    old_layout(shelf, "6.12.9-1")
    named_kernel(print, "6.12", cache, modules, sources=[make_archive(shelf)])
    nowhere = [f"deb [trusted=yes] file:{shelf}/nowhere ./"]
    with pytest.raises(LabUnavailable, match="Debian's kernel 'newest' cannot be had: apt-get"):
        named_kernel(print, NEWEST, cache, modules, sources=nowhere)


@needs_debian
def test_a_kernel_fetched_by_name_is_not_booted_unasked(
    shelf: Path, cache: Path, modules: Path
) -> None:
    make_kernel(cache, modules, "6.1.0-56-amd64")
    new_layout(shelf, "7.3.4-1")
    named_kernel(print, NEWEST, cache, modules, sources=[make_archive(shelf)])
    assert kernels.kernel(pytest.fail, cache, modules).version == "6.1.0-56-amd64"


def test_a_kernel_at_hand_is_the_named_one(cache: Path, modules: Path) -> None:
    make_kernel(cache, modules, "6.1.0-56-amd64")
    make_kernel(cache, modules, "6.12.9-amd64")
    nowhere = [f"deb [trusted=yes] file:{cache}/nowhere ./"]
    found = named_kernel(pytest.fail, "6.1", cache, modules, sources=nowhere)
    assert found.version == "6.1.0-56-amd64"


@needs_debian
def test_an_archive_without_it_is_a_sentence(shelf: Path, cache: Path, modules: Path) -> None:
    old_layout(shelf, "6.12.9-1")
    with pytest.raises(LabUnavailable, match=r"'6\.1' cannot be had: no version 6\.1\.\* of"):
        named_kernel(print, "6.1", cache, modules, sources=[make_archive(shelf)])
    assert not modules.exists()


@needs_debian
@pytest.mark.parametrize(
    ("part", "why"), [("binary", "layout is another"), ("modules", "lacks one of the modules")]
)
def test_a_third_layout_is_a_sentence(
    shelf: Path, cache: Path, modules: Path, part: str, why: str
) -> None:
    new_layout(shelf, "7.3.4-1", without=part)
    with pytest.raises(LabUnavailable, match=why):
        named_kernel(print, NEWEST, cache, modules, sources=[make_archive(shelf)])
    assert kernels.find_kernel([cache / NEWEST], modules) is None


def test_another_distribution_is_told_what_to_do(
    cache: Path, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "platform.freedesktop_os_release", lambda: {"ID": "fedora", "PRETTY_NAME": "Fedora 44"}
    )
    with pytest.raises(LabUnavailable, match=r"Fedora 44: install linux-image-amd64 of trixie"):
        named_kernel(print, "6.12", cache, modules)
