"""Users, services and the firewall in the simulator: what is taken, and in which version."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from rds_csi.simulator import Simulator


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 2**34}) as simulator:
        yield simulator


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/user/group/add name=a policy=ssh,fly", "any value of policy"),
        ("/user/add name=a group=nobody", "any value of group"),
        ("/user/add name=a group=full address=10.0.0.300", "invalid value for argument address"),
        ("/user/add name=admin group=full", "already exists"),
        ("/user/ssh-keys/add user=nobody key=x", "any value of user"),
        ("/user/ssh-keys/add user=admin key=x", "unable to load key file"),
        ("/user/ssh-keys/import user=admin public-key-file=none.pub", "no such file"),
        ("/ip/service/set ssh port=0", "out of range"),
        ("/ip/service/set nfs port=1", "no such item"),
        ("/ip/service/remove ssh", "bad command name"),
        ("/ip/ssh/set host-key-type=ecdsa", "any value of host-key-type"),
        ("/ip/firewall/filter/add chain=input action=dance", "any value of action"),
        ("/ip/firewall/filter/add chain=input src-address=here", "argument src-address"),
        ("/user/add nickname=a", "expected end of command"),
    ],
)
async def test_what_is_wrong_is_refused(rds: Simulator, line: str, said: str) -> None:
    assert said in await rds.run(line)


async def test_rules_have_an_order(rds: Simulator) -> None:
    menu = "/ip/firewall/filter"
    for number in range(4):
        assert await rds.run(f"{menu}/add chain=input comment={number}") == ""

    async def order() -> str:
        query = f":foreach each in=[{menu}/find] do={{:put [{menu}/get $each comment]}}"
        return "".join((await rds.run(query)).split())

    for words, after in (
        ("[find where comment=3] destination=0", "3012"),
        ("[find where comment=0] 0", "0312"),
        ("[find where comment=3 or comment=2] destination=0", "3201"),
        ("[find where comment=3] destination=2", "2301"),
        ("[find where comment=9] destination=7", "2301"),
    ):
        assert await rds.run(f"{menu}/move {words}") == ""
        assert await order() == after, words
    assert "no such item" in await rds.run(f"{menu}/move [find where comment=3] destination=4")
    assert "destination" in await rds.run(f"{menu}/move [find where comment=3] destination=x")
    await rds.reboot()
    assert await order() == "2301"


async def test_an_ecdsa_key_is_refused(rds: Simulator) -> None:
    public = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    said = await rds.run(f'/user/ssh-keys/add user=admin key="{public.strip()}"')
    assert "unable to load key file (wrong format or bad passphrase)!" in said


async def test_versions(rds: Simulator) -> None:
    old, new = (
        "/ip/service/set ssh address=10.0.0.0/24",
        "/ip/service/set ssh available-from=::1/128",
    )
    assert "expected end of command" in await rds.run(old)
    assert await rds.run(new) == ""
    rds.set_version("7.23")
    assert await rds.run(old) == ""
    assert "expected end of command" in await rds.run(new)
