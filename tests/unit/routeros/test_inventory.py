"""What only the doctor reads of RouterOS, in whatever shape it comes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import NotReady, RouterOSError
from rds_csi.routeros import Session
from rds_csi.routeros.inventory import Group, Inventory, read_clock
from tests.unit.fakes.ssh import FakeRds, Process, succeed

NOON = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "offset"),
    [
        ("12:00:05", None),
        ("12:00:05", 0),
        ("12:00:05", "+00:00"),
        ("14:00:05", 7200),
        ("14:00:05", "7200"),
        ("14:00:05", "+02:00"),
        ("14:00:05", "02:00:00"),
        ("17:30:05", "+05:30"),
        ("11:00:05", 2**32 - 3600),
        ("11:00:05", -3600),
        ("11:00:05", "-01:00"),
    ],
)
def test_the_clock_is_read_with_every_form_of_offset(time: str, offset: Any) -> None:
    item = {"date": "2026-11-21", "time": time, "gmt-offset": offset}
    assert read_clock(item) == NOON


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"date": "2026-11-21"},
        {"date": "nov/21/2026", "time": "12:00:05"},
        {"date": "2026-11-21", "time": "soon"},
        {"date": "2026-11-21", "time": "12:00:05", "gmt-offset": "east"},
    ],
)
def test_a_clock_that_cannot_be_read_is_an_error(item: dict[str, Any]) -> None:
    with pytest.raises(RouterOSError):
        read_clock(item)


def says(text: str) -> Callable[[Process, str, str], Any]:
    async def answer(process: Process, nonce: str, command: str) -> None:
        process.stdout.write(text.replace("\n", "\r\n").encode())
        await succeed(process, nonce, command)

    return answer


async def asked(tmp_path: Path, text: str, question: Callable[[Inventory], Any]) -> Any:
    async with FakeRds(tmp_path) as rds:
        rds.answer = says(text)
        session = Session(rds.settings())
        try:
            return await question(Inventory(session))
        finally:
            await session.close()


@pytest.mark.parametrize(
    "policy",
    ['["ssh","read","!write"]', '"ssh,read,!write"', '"ssh;read;!write"'],
)
async def test_policies_come_as_a_list_or_as_text(tmp_path: Path, policy: str) -> None:
    text = (
        'user\n[{"name":"csi","group":"g"}]\n'
        f'group\n[{{"name":"other","policy":["full"]}},{{"name":"g","policy":{policy}}}]\n'
    )
    found = await asked(tmp_path, text, lambda inventory: inventory.group("csi"))
    assert found == Group("g", frozenset({"ssh", "read"}))


async def test_a_user_that_is_not_listed(tmp_path: Path) -> None:
    text = 'user\n[]\ngroup\n[{"name":"","policy":["ssh"]}]\n'
    assert await asked(tmp_path, text, lambda inventory: inventory.group("csi")) is None


async def test_the_console_options_of_a_login_are_no_part_of_the_name(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.answer = says("user\n[]\ngroup\n[]\n")
        session = Session(rds.settings())
        await Inventory(session).group("csi+ct80w")
        await session.close()
        assert 'where name="csi"' in rds.commands[0]


async def test_packages_that_are_merely_available_are_not_installed(tmp_path: Path) -> None:
    text = (
        'packages\n[{"name":"routeros","version":"7.24"},'
        '{"name":"rose-storage","version":"7.24","available":true},'
        '{"name":"container","version":"7.24","disabled":"true"}]\n'
    )
    found = await asked(tmp_path, text, lambda inventory: inventory.packages())
    assert found == {"routeros": "7.24"}


async def test_a_disk_without_a_size_is_an_entry_all_the_same(tmp_path: Path) -> None:
    text = 'disks\n[{"slot":"x","type":"file","mount-filesystem":true}]\n'
    [entry] = await asked(tmp_path, text, lambda inventory: inventory.entries())
    assert (entry.disk.slot, entry.disk.size, entry.mountable) == ("x", 0, True)


async def test_only_names_of_scratch_files_are_taken_for_them(tmp_path: Path) -> None:
    slot = f"doctor-{'a' * 24}"
    text = f'file\n[{{"name":"raid10/csi/{slot}-12345678.img"}},{{"name":"raid10/other"}}]\n'
    assert await asked(tmp_path, text, lambda inventory: inventory.scratch_slots("o")) == [slot]


async def test_a_refusal_is_explained(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:

        async def refuse(process: Process, nonce: str, _: str) -> None:
            process.stdout.write(f"CSI-ERR-{nonce} not enough permissions (9)\r\n".encode())
            process.exit(0)

        rds.answer = refuse
        session = Session(rds.settings())
        with pytest.raises(NotReady, match="not enough permissions"):
            await Inventory(session).clock()
        await session.close()
