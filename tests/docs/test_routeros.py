"""The blocks for RouterOS run on the simulated RDS, and give the driver what it needs, no more."""

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import DriverError, NotAuthorised, NotReady, OutcomeUnknown
from rds_csi.model.node_id import make_node_id
from rds_csi.simulator import Simulator
from tests.docs.blocks import DOCS, blocks
from tests.rds.conftest import BASE, CLUSTER, Rds

PAGE = DOCS / "routeros.md"
GIB = 2**30
CAPABILITY = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapabilityAccessMode(
        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    ),
)


def lines(mark: str = "", *, until: str = "") -> list[str]:
    """The commands of the page's blocks with that mark, up to a heading."""
    text = PAGE.read_text().partition(until)[0] if until else PAGE.read_text()
    return [
        line
        for block in blocks(PAGE, "routeros")
        if block.mark == mark and block.text in text
        for line in block.text.splitlines()
    ]


class Administrator:
    """Follows the page, with this test's addresses and key in the place of the page's."""

    def __init__(self, rds: Rds) -> None:
        self._rds = rds
        key = asyncssh.read_public_key(rds.key_file.with_suffix(".pub"))
        self._public = key.export_public_key().decode().strip()

    async def enter(self, line: str) -> str:
        text = line.replace("10.0.0.0/24", "127.0.0.0/8")
        text = re.sub(r"ssh-ed25519 AAAA\.\.\.", self._public, text)
        simulator = self._rds.simulator
        said = await simulator.run(text)
        assert simulator.execs()[-1].outcome == "ok", f"{line}: {said}"
        return said

    async def set_up(self) -> None:
        for line in lines(until="\n## Later"):
            await self.enter(line)


@contextlib.asynccontextmanager
async def device(tmp_path: Path) -> AsyncIterator[Rds]:
    """A new device: nobody but its administrator may log in."""
    key_file = tmp_path / "id_ed25519"
    key = asyncssh.generate_private_key("ssh-ed25519", comment="rds-csi")
    key.write_private_key(key_file)
    key.write_public_key(key_file.with_suffix(".pub"))
    key_file.chmod(0o600)
    async with Simulator(tmp_path / "rds", pools={"raid10": 16 * GIB}) as simulator:
        # As scp leaves it.
        simulator.path("id_ed25519.pub").write_bytes(key_file.with_suffix(".pub").read_bytes())
        found = Rds(simulator, key_file)
        yield found
        await found.close()


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Rds]:
    async with device(tmp_path) as found:
        yield found


@pytest.fixture
async def administrator(rds: Rds) -> Administrator:
    return Administrator(rds)


async def a_life(controller: Controller) -> None:
    """All that the driver asks of an RDS."""
    made = await controller.create_volume(
        csi.CreateVolumeRequest(
            name="pvc-1",
            capacity_range=csi.CapacityRange(required_bytes=GIB),
            volume_capabilities=[CAPABILITY],
        )
    )
    assert made.volume is not None
    volume = made.volume.volume_id
    node = make_node_id(CLUSTER, "worker-1")
    published = await controller.controller_publish_volume(
        csi.ControllerPublishVolumeRequest(
            volume_id=volume, node_id=node, volume_capability=CAPABILITY
        )
    )
    assert published.publish_context["nqn"].endswith(f":{volume}.1")
    listed = await controller.list_volumes(csi.ListVolumesRequest())
    assert len(listed.entries) == 1
    assert (await controller.get_capacity(csi.GetCapacityRequest())).available_capacity > 0
    await controller.controller_unpublish_volume(
        csi.ControllerUnpublishVolumeRequest(volume_id=volume, node_id=node)
    )
    # By default a volume grows while no node has it.
    grown = await controller.controller_expand_volume(
        csi.ControllerExpandVolumeRequest(
            volume_id=volume, capacity_range=csi.CapacityRange(required_bytes=2 * GIB)
        )
    )
    assert grown.capacity_bytes == 2 * GIB
    await controller.delete_volume(csi.DeleteVolumeRequest(volume_id=volume))


async def test_the_driver_lives_with_what_the_page_grants(
    rds: Rds, administrator: Administrator
) -> None:
    assert not rds.simulator.server.authorized
    await administrator.set_up()
    assert BASE in rds.simulator.files
    await a_life(rds.controller())
    assert rds.slots() == []


async def test_the_data_ports_rules_decide_before_a_default_configuration(
    rds: Rds, administrator: Administrator
) -> None:
    for rule in (
        'action=accept in-interface=bridge comment="defconf: accept from LAN"',
        'action=drop comment="defconf: drop all not coming from LAN"',
    ):
        assert await rds.simulator.run(f"/ip/firewall/filter/add chain=input {rule}") == ""
    await administrator.set_up()
    said = await rds.simulator.run(
        ":foreach each in=[/ip/firewall/filter/find] do={"
        ':put ([/ip/firewall/filter/get $each comment] . ", " . '
        "[/ip/firewall/filter/get $each action])}"
    )
    assert said.splitlines() == [
        "rds-csi: nodes, accept",
        "rds-csi: nobody else, drop",
        "defconf: accept from LAN, accept",
        "defconf: drop all not coming from LAN, drop",
    ]


async def test_before_the_page_is_followed_nobody_may_log_in(rds: Rds) -> None:
    with pytest.raises(NotAuthorised, match="does not accept the key of user"):
        await a_life(rds.controller())


@pytest.mark.parametrize(
    ("missing", "error"),
    # Final also for a create: the lock is refused before anything is done.
    [("ssh", NotAuthorised), ("read", NotReady), ("write", OutcomeUnknown)],
)
async def test_less_is_not_enough_and_is_named(
    rds: Rds, administrator: Administrator, missing: str, error: type[DriverError]
) -> None:
    await administrator.set_up()
    rest = ",".join(each for each in ("ssh", "read", "write", "test") if each != missing)
    await rds.simulator.run(f"/user/group/set csi policy={rest}")
    with pytest.raises(error, match=r"policy=ssh,read,write,test|policy ssh"):
        await a_life(rds.controller())


async def test_each_key_block_is_enough(rds: Rds, administrator: Administrator) -> None:
    add, load = [
        line for line in lines() if line.startswith("/user/ssh-keys/") and "user=" in line
    ][:2]
    assert "/add " in add
    assert "/import " in load
    await administrator.set_up()
    for line in (add, load):
        await rds.simulator.run("/user/ssh-keys/remove [find where user=csi]")
        await administrator.enter(line)
        await a_life(rds.controller())


async def test_the_user_may_not_become_more(rds: Rds, administrator: Administrator) -> None:
    await administrator.set_up()
    session = rds.session()
    for line in (
        "/user/set csi group=full",
        "/user/group/set csi policy=ssh,read,write,test,policy",
        "/user/add name=other group=full",
    ):
        reply = await session.execute(line)
        assert reply.error is not None
        assert "not enough permissions" in reply.error


@pytest.mark.parametrize("version", ["7.23", "7.24"])
async def test_the_blocks_for_a_version_are_for_it(rds: Rds, version: str) -> None:
    [line] = lines(version)
    other = {"7.23": "7.24", "7.24": "7.23"}[version]
    rds.simulator.set_version(version)
    assert await rds.simulator.run(line) == ""
    rds.simulator.set_version(other)
    assert "expected end of command" in await rds.simulator.run(line)


async def test_the_rest_runs_too_and_ends_it(rds: Rds, administrator: Administrator) -> None:
    await administrator.set_up()
    for line in lines()[len(lines(until="\n## Later")) :]:
        await administrator.enter(line)
    with pytest.raises(NotAuthorised):
        await a_life(rds.controller())


def test_every_block_is_run() -> None:
    every = [line for block in blocks(PAGE, "routeros") for line in block.text.splitlines()]
    assert sorted(every) == sorted([*lines(), *lines("7.23"), *lines("7.24")])
    assert len(every) > 12
