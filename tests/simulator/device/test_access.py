"""Users, their rights and keys, services and the firewall in the simulator."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncssh
import pytest

from rds_csi.simulator import Simulator

KEY = asyncssh.generate_private_key("ssh-ed25519", comment="laptop")
PUBLIC = KEY.export_public_key().decode().strip()
Ask = Callable[..., Awaitable[str]]


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 2**34}) as simulator:
        yield simulator


async def add_user(rds: Simulator, policy: str, address: str = "") -> None:
    assert await rds.run(f'/user/group/add name=csi policy="{policy}"') == ""
    assert await rds.run(f'/user/add name=csi group=csi address="{address}" password=x') == ""
    assert await rds.run(f'/user/ssh-keys/add user=csi key="{PUBLIC}"') == ""


async def ask(rds: Simulator, line: str, *, user: str = "csi") -> str:
    connection = await asyncssh.connect(
        rds.address,
        rds.port,
        username=user,
        client_keys=[KEY],
        known_hosts=([rds.host_key], [], []),
        config=None,
    )
    try:
        done = await connection.run(line)
    finally:
        connection.close()
        await connection.wait_closed()
    return str(done.stdout)


async def test_a_user_may_do_what_the_group_says(rds: Simulator) -> None:
    await add_user(rds, "ssh,read")
    assert "raid10" in await ask(rds, "/disk/print")
    assert "raid10" in await ask(rds, "/disk/print", user="csi+cet200w")
    refused = "not enough permissions (9)"
    assert refused in await ask(rds, "/file/add name=raid10/x type=directory")
    assert rds.files == {"raid10": None}
    await rds.run("/user/group/set csi policy=ssh,read,write")
    assert await ask(rds, "/file/add name=raid10/x type=directory") == ""
    assert refused in await ask(rds, "/user/set csi group=full")
    assert refused in await ask(rds, "/user/group/set csi policy=ssh,read,write,policy")
    caught = ":onerror e in={/user/remove csi} do={:put $e}"
    assert refused in await ask(rds, caught)


@pytest.mark.parametrize(
    ("policy", "address", "line"),
    [
        ("read,write", "", ":nothing"),
        ("ssh,read", "10.0.0.0/8", ":nothing"),
        ("ssh,read", "", "/user/set csi disabled=yes"),
        ("ssh,read", "", "/user/ssh-keys/remove [find where user=csi]"),
        ("ssh,read", "", "/user/remove csi"),
        ("!ssh,read", "", ":nothing"),
    ],
)
async def test_who_may_not_log_in(rds: Simulator, policy: str, address: str, line: str) -> None:
    await add_user(rds, policy, address)
    await rds.run(line)
    with pytest.raises(asyncssh.PermissionDenied):
        await ask(rds, "/disk/print")


async def test_another_users_key_is_no_use(rds: Simulator) -> None:
    await add_user(rds, "ssh,read", "127.0.0.0/8,::1/128")
    assert "raid10" in await ask(rds, "/disk/print")
    with pytest.raises(asyncssh.PermissionDenied):
        await ask(rds, "/disk/print", user="admin")


async def test_a_key_from_a_file(rds: Simulator) -> None:
    rds.path("id.pub").write_text(PUBLIC + "\n")
    assert await rds.run("/user/ssh-keys/import user=admin public-key-file=id.pub") == ""
    assert "raid10" in await ask(rds, "/disk/print", user="admin")
    assert await rds.run(":put [/user/ssh-keys/get [find user=admin] info]") == "laptop\r\n"


async def test_what_is_set_is_shown_and_outlives_a_restart(tmp_path: Path) -> None:
    async with Simulator(tmp_path / "rds") as rds:
        await add_user(rds, "ssh,read")
        await rds.run("/ip/service/set ssh available-from=10.0.0.0/24 port=2200")
        await rds.run("/ip/ssh/set host-key-type=ed25519")
        await rds.run("/ip/firewall/filter/add chain=input protocol=tcp dst-port=4420 action=drop")
    async with Simulator(tmp_path / "rds") as rds:
        assert "x" not in await rds.run(":put [/user/get csi group]")
        assert "password" not in await rds.run("/user/print detail")
        assert await rds.run(":put [/ip/service/get ssh available-from]") == "10.0.0.0/24\r\n"
        assert await rds.run(":put [/ip/service/get ssh port]") == "2200\r\n"
        assert await rds.run(":put [/ip/ssh/get host-key-type]") == "ed25519\r\n"
        assert "host-key-type: ed25519" in await rds.run("/ip/ssh/print")
        [number] = (await rds.run(":put [:len [/ip/firewall/filter/find action=drop]]")).split()
        assert number == "1"
        assert "raid10" in await ask(rds, "/disk/print")
