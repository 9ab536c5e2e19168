"""What is in the images, tried in them: as their user, on a root that cannot be written."""

import subprocess
from pathlib import Path

import pytest

from rds_csi import __version__
from rds_csi.runtime.process import PACKAGES
from tests.image.recipe import Image

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(params=["controller", "node"])
def image(request: pytest.FixtureRequest, images: dict[str, Image]) -> Image:
    return images[request.param]


def test_it_starts(image: Image) -> None:
    done = image.run(*image.entrypoint, "--version")
    assert done.stdout.strip() == f"rds-csi, version {__version__}", done.stderr


@pytest.mark.parametrize("command", ["controller", "node", "simulate", "reap", "doctor"])
def test_every_command_finds_what_it_imports(image: Image, command: str) -> None:
    done = image.run(*image.entrypoint, command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_everything_is_importable(image: Image) -> None:
    code = (
        "import pkgutil, importlib, rds_csi\n"
        "skip = ('rds_csi.lab', 'rds_csi.demo', 'rds_csi.__main__', 'rds_csi.simulator.__main__')\n"
        "for each in pkgutil.walk_packages(rds_csi.__path__, 'rds_csi.'):\n"
        "    if not each.name.startswith(skip): importlib.import_module(each.name)\n"
    )
    done = image.run("/opt/venv/bin/python", "-I", "-c", code)
    assert done.returncode == 0, done.stderr


def test_a_wrong_setting_is_said_in_one_sentence(controller: Image) -> None:
    done = controller.run(*controller.entrypoint, "controller", "--cluster-id=a")
    assert done.returncode == 2
    assert done.stderr.startswith("rds-csi: --rds-address is missing")


def test_the_bytecode_is_there_for_every_module(image: Image) -> None:
    packages = next((image.root / "opt/venv/lib").glob("python3.*/site-packages"))
    sources = list(packages.rglob("*.py"))
    assert len(sources) > 300
    for source in sources:
        compiled = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))
        assert compiled, source


def test_the_installed_packages_are_the_locked_ones(image: Image) -> None:
    packages = next((image.root / "opt/venv/lib").glob("python3.*/site-packages"))
    installed = {
        tuple(folder.name.removesuffix(".dist-info").lower().replace("_", "-").rsplit("-", 1))
        for folder in packages.glob("*.dist-info")
    }
    recipe = Path(__file__).parents[2] / "image" / "requirements.txt"
    locked = {
        tuple(line.split(" ")[0].split("=="))
        for line in recipe.read_text().splitlines()
        if "==" in line
    }
    assert installed == locked


def test_no_program_runs_as_somebody_else(image: Image) -> None:
    done = subprocess.run(
        ["find", str(image.root), "-xdev", "-type", "f", "-perm", "/6000"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_nothing_is_left_of_the_build(image: Image) -> None:
    for folder in ("build", "var/lib/apt/lists", "root/.cache", "var/log"):
        there = image.root / folder
        assert not there.exists() or not any(there.iterdir()), folder
    assert not list((image.root / "opt/venv/bin").glob("pip*"))


def test_controller_is_nobody_and_has_no_storage_tools(controller: Image) -> None:
    assert controller.user == "65532:65532"
    done = controller.run("/bin/sh", "-c", "id -u; command -v nvme mkfs.ext4 mkfs.xfs modprobe")
    assert done.stdout.split() == ["65532"]
    assert controller.run("/usr/bin/touch", "/tmp/x").returncode != 0


def test_labels(image: Image) -> None:
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert image.labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_node_has_every_program_the_driver_runs(node: Image) -> None:
    assert node.user == "0:0"
    for program in PACKAGES:
        assert node.run("/bin/sh", "-c", f"command -v {program}").returncode == 0, program
    assert node.run("dumpe2fs", "-V").returncode == 0


def test_node_has_no_host_nqn_that_all_would_share(node: Image) -> None:
    assert (node.root / "etc/nvme").is_dir()
    assert not (node.root / "etc/nvme/hostnqn").exists()
    assert not (node.root / "etc/nvme/hostid").exists()


def test_nvme_is_new_enough(node: Image) -> None:
    done = node.run("nvme", "version")
    version = done.stdout.split()[2]
    assert tuple(int(part) for part in version.split(".")[:2]) >= (2, 13)


@pytest.mark.parametrize(
    "commands",
    [
        ["mkfs.ext4 -q /f", "e2fsck -fp /f", "dumpe2fs -h /f", "blkid -p -o export /f"],
        ["mkfs.xfs -q /f", "xfs_repair -n /f", "xfs_admin -lu /f", "blkid -p -o export /f"],
    ],
    ids=["ext4", "xfs"],
)
def test_file_systems_are_made(node: Image, commands: list[str]) -> None:
    script = " && ".join(
        ["cd /run", "mount -t tmpfs tmpfs /run", "truncate -s 400M /run/f"]
        + [command.replace("/f", "/run/f") for command in commands]
    )
    done = node.run("/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "TYPE=" in done.stdout
