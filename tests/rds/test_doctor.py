"""``rds-csi doctor rds`` over real SSH: a good RDS, and each fault with its way out."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from rds_csi.doctor.check import Status
from rds_csi.model.record import Record
from rds_csi.model.volume import MIB
from rds_csi.simulator import Simulator

from .conftest import BASE, OWNER, PREFIX, Rds
from .doctoring import Doctor, make_user, named, one, statuses, target

ALL_WELL = (
    *("SSH address", "private key", "host key", "login", "RouterOS version", "storage"),
    *("policies", "pool", "volume directory", "clock", "entries", "scratch volumes"),
    "NVMe address",
)


@pytest.fixture
async def doctor(rds: Rds) -> AsyncIterator[Doctor]:
    rds.simulator.set_version("7.24.2")
    await make_user(rds)
    async with target() as port:
        yield Doctor(rds, port)


async def test_a_good_rds_and_nothing_is_changed(doctor: Doctor) -> None:
    before = doctor.rds.execs()
    found = await doctor.examine()
    assert statuses(found) == {}
    assert tuple(check.name for check in found.checks) == ALL_WELL
    assert doctor.rds.slots() == doctor.rds.files() == []
    ran = {each.name for record in doctor.rds.simulator.execs(before) for each in record.executed}
    assert {name.rpartition("/")[2] for name in ran} == {"print"}


# From the address to the version: what fails is named, and nothing after it is guessed.


async def stops_at(doctor: Doctor, name: str, found: str, advice: str) -> None:
    result = await doctor.examine()
    assert statuses(result) == {name: Status.FAILED}
    check = one(result, name)
    assert found in check.found
    assert advice in check.advice
    assert result.checks.results[-1] == check
    assert result.unknowns == []


async def test_nobody_listens(doctor: Doctor) -> None:
    await doctor.rds.stop()
    await stops_at(doctor, "SSH address", "refuses connections", "/ip/service")


async def test_another_service_listens(doctor: Doctor) -> None:
    doctor.settings["rds_port"] = doctor.nvme_port
    await stops_at(doctor, "SSH address", "is no SSH server", "--rds-port")


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
async def test_a_wrong_host_key_is_shown_for_comparison(doctor: Doctor, kind: str) -> None:
    other = asyncssh.generate_private_key(kind).export_public_key().decode()
    doctor.settings["rds_host_keys"] = (other,)
    shown, before = doctor.rds.simulator.host_key.get_fingerprint(), doctor.rds.execs()
    await stops_at(doctor, "host key", shown, "pin" if kind == "ssh-ed25519" else "types")
    assert doctor.rds.execs() == before


async def test_a_wrong_host_key_is_shown_to_a_user_that_nobody_knows(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the driver's container: no entry in passwd, no variable that says who or where."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    await test_a_wrong_host_key_is_shown_for_comparison(doctor, "ssh-ed25519")


async def test_a_pinned_key_that_is_none(doctor: Doctor) -> None:
    doctor.settings["rds_host_keys"] = ("ssh-ed25519 nonsense",)
    await stops_at(doctor, "host key", "cannot be read", "ssh-ed25519 AAAA")


async def test_any_host_key_is_a_warning(doctor: Doctor) -> None:
    doctor.settings |= {"rds_host_keys": (), "rds_accept_any_host_key": True}
    assert statuses(await doctor.examine()) == {"host key": Status.WARNING}


async def test_a_private_key_that_others_can_read(doctor: Doctor, tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_bytes(doctor.rds.key_file.read_bytes())
    key.chmod(0o644)
    doctor.settings["rds_key_file"] = key
    await stops_at(doctor, "private key", "0644", "chmod 600")


async def test_no_private_key(doctor: Doctor, tmp_path: Path) -> None:
    doctor.settings["rds_key_file"] = tmp_path / "none"
    await stops_at(doctor, "private key", "No such file", "--rds-key-file")


async def test_a_key_that_the_rds_does_not_know(doctor: Doctor) -> None:
    doctor.rds.simulator.faults.refuse_auth = True
    await stops_at(doctor, "login", "does not accept the key of user 'csi'", "/user/ssh-keys")


@pytest.mark.parametrize("version", ["7.20", "7.16", "7.12"])
async def test_an_old_version(doctor: Doctor, version: str) -> None:
    doctor.rds.simulator.set_version(version)
    await stops_at(doctor, "RouterOS version", f"RouterOS {version}", "upgrade")


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        *(("7.21", False), ("7.23.3", False), ("7.23.4", True), ("7.24", False)),
        *(("7.24.1", False), ("7.24.2", True), ("7.25", True)),
    ],
)
async def test_versions_without_the_ssh_fixes(doctor: Doctor, version: str, *, fixed: bool) -> None:
    doctor.rds.simulator.set_version(version)
    expected = {} if fixed else {"RouterOS version": Status.FAILED}
    assert statuses(await doctor.examine()) == expected


# What can be read.


@pytest.mark.parametrize(
    ("policy", "status", "found"),
    [
        ("ssh,read,test", Status.FAILED, "group csi lacks write"),
        ("ssh,read", Status.FAILED, "group csi lacks test, write"),
        ("ssh,read,write,test,policy,sensitive", Status.WARNING, "policy, sensitive"),
        ("ssh,write,test", Status.FAILED, "not enough permissions"),
    ],
)
async def test_policies(doctor: Doctor, policy: str, status: Status, found: str) -> None:
    await doctor.set_policy(policy)
    result = await doctor.examine()
    assert statuses(result) == {"policies": status}
    check = one(result, "policies")
    assert found in check.found
    assert "policy=" in check.advice


async def test_without_ssh_there_is_no_login(doctor: Doctor) -> None:
    await doctor.set_policy("read,write,test")
    await stops_at(doctor, "login", "does not accept the key", "policy ssh")


async def test_a_user_that_routeros_does_not_list(doctor: Doctor) -> None:
    public = asyncssh.read_private_key(doctor.rds.key_file).convert_to_public()
    doctor.rds.simulator.authorize(public)
    doctor.settings["rds_user"] = "from-radius"
    assert statuses(await doctor.examine()) == {"policies": Status.SKIPPED}


async def test_without_the_package(client_key: Path, tmp_path: Path) -> None:
    async with (
        Simulator(tmp_path / "bare", rose_storage=False, version="7.24.2") as simulator,
        target() as port,
    ):
        simulator.make_directory(BASE)
        bare = Rds(simulator, client_key)
        await make_user(bare)
        result = await Doctor(bare, port).examine()
    assert statuses(result) == {"storage": Status.FAILED}
    assert "rose-storage" in one(result, "storage").advice


@pytest.mark.parametrize(
    ("free", "status"),
    [(1024 * MIB, Status.FAILED), (0, Status.FAILED), (1500 * MIB, Status.WARNING)],
)
async def test_a_full_pool(doctor: Doctor, free: int, status: Status) -> None:
    doctor.rds.simulator.fill_pool("raid10", free=free)
    assert statuses(await doctor.examine()) == {"pool": status}


async def test_a_pool_that_is_not_mounted(doctor: Doctor) -> None:
    await doctor.rds.simulator.unmount_pool("raid10")
    result = await doctor.examine()
    assert statuses(result) == {"pool": Status.FAILED, "volume directory": Status.FAILED}
    assert "not mounted" in one(result, "pool").found


async def test_a_missing_directory_and_the_command_that_makes_it(doctor: Doctor) -> None:
    doctor.volume_path = "raid10/other"
    result = await doctor.examine()
    assert statuses(result) == {"volume directory": Status.FAILED}
    await doctor.rds.simulator.run(one(result, "volume directory").advice)
    assert statuses(await doctor.examine()) == {}


@pytest.mark.parametrize("offset", [0, 3600, -7200])
@pytest.mark.parametrize(
    ("error", "found"), [(-600, "s behind"), (600, "s ahead of"), (-2, ""), (2, "")]
)
async def test_a_slow_or_fast_clock(doctor: Doctor, offset: int, error: int, found: str) -> None:
    doctor.rds.simulator.quirks.set("gmt_offset", offset)
    doctor.rds.simulator.quirks.set("clock_error", error)
    result = await doctor.examine()
    assert statuses(result) == ({"clock": Status.WARNING} if found else {})
    assert found in one(result, "clock").found


# Entries.


def record(owner: str = OWNER) -> str:
    return Record(owner=owner, name="n", created=1, access="block").encode()


async def add(doctor: Doctor, slot: str, *, nqn: str = "", **settings: str) -> None:
    words = " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in settings.items())
    output = await doctor.rds.simulator.run(
        f"/disk/add type=file slot={slot} file-path={BASE}/{slot}.img file-size=1M "
        f'nvme-tcp-server-port={doctor.nvme_port} nvme-tcp-server-nqn="{nqn or slot}" {words}'
    )
    assert output == ""


async def test_entries_are_counted_by_whose_they_are(doctor: Doctor) -> None:
    for number in range(3):
        slot = f"pvc-{number:028}"
        await add(doctor, slot, nqn=f"{PREFIX}:{slot}", comment=record(), mount_filesystem="no")
    await add(doctor, "backup", nvme_tcp_export="yes", comment="an administrator's")
    await add(doctor, f"pvc-{9:028}", comment=record("csi.rds-csi.io/other"))
    result = await doctor.examine()
    assert statuses(result) == {}
    assert one(result, "entries").found == (
        "3 volumes of ours, 0 of them exported; 2 other disks over files, 1 of them exported"
    )


async def test_two_exports_of_one_name(doctor: Doctor) -> None:
    for slot in ("a", "b"):
        await add(doctor, slot, nqn=f"{PREFIX}:same", nvme_tcp_export="yes")
    found = [check.found for check in named(await doctor.examine(), "entries")]
    assert found[1] == f"2 disks are exported as {PREFIX}:same: a node gets either"


async def test_a_volume_that_routeros_would_mount(doctor: Doctor) -> None:
    slot = f"pvc-{1:028}"
    await add(doctor, slot, nqn=f"{PREFIX}:{slot}", comment=record(), mount_filesystem="yes")
    result = await doctor.examine()
    [_, check] = named(result, "entries")
    assert check.status is Status.FAILED
    assert f"/disk/set {slot} mount-filesystem=no" in check.advice
    await doctor.rds.simulator.run(check.advice.rpartition(", then ")[2])
    assert statuses(await doctor.examine()) == {}


async def test_what_is_wrong_with_volumes_is_said_but_not_without_end(doctor: Doctor) -> None:
    for number in range(7):
        await add(doctor, f"pvc-{number:028}", comment=record(), mount_filesystem="no")
    found = [check.found for check in named(await doctor.examine(), "entries")][1:]
    assert len(found) == 6
    assert "is exported under the name" in found[0]
    assert found[-1] == "2 more volumes are not well"


async def test_a_closed_data_port_while_something_is_exported(
    doctor: Doctor, unused_tcp_port: int
) -> None:
    doctor.nvme_port = unused_tcp_port
    assert statuses(await doctor.examine()) == {"NVMe address": Status.WARNING}
    await add(doctor, "exported", nvme_tcp_export="yes")
    assert statuses(await doctor.examine()) == {"NVMe address": Status.FAILED}
