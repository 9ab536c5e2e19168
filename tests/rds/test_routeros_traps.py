"""The traps of RouterOS and its storage that others fell into, each with what we do instead."""

import re
from pathlib import Path

import asyncssh
import pytest

from rds_csi.errors import (
    DriverError,
    FailedPrecondition,
    InvalidRequest,
    NotReady,
    PoolAway,
    PoolFull,
    RouterOSError,
    UnsupportedRouterOS,
    VolumeNotFound,
)
from rds_csi.model.record import Record
from rds_csi.model.volume import GIB, MIB, TIB, round_up, volume_id
from rds_csi.routeros import Disks, Session, SessionSettings
from rds_csi.simulator import Simulator

from .conftest import BASE, OWNER, PREFIX, Rds
from .volumes import HOST, LEGACY, SLOT, create, path_of, record


async def whole_life(rds: Rds) -> Disks:
    """Every operation once, so that every line that is ever sent is in the journal."""
    disks = rds.backend()
    await create(disks)
    await disks.get(SLOT)
    await disks.list()
    await disks.capacity(BASE)
    await disks.system()
    await disks.change(
        SLOT, record().encode(), record("one", "a"), exported=True, allowed_host=HOST
    )
    await disks.expand(SLOT, 128 * MIB)
    await disks.change(SLOT, record("one", "a").encode(), record(), exported=False)
    await disks.delete(SLOT)
    await disks.delete(SLOT)
    return disks


def lines(rds: Rds) -> str:
    return "\n".join(each.line for each in rds.simulator.execs())


async def test_trap_01_copy_from_copies_settings_only_so_it_is_never_used(rds: Rds) -> None:
    await whole_life(rds)
    assert "copy-from" not in lines(rds)


@pytest.mark.parametrize("version", ["7.16", "7.20", "7.20.9"])
async def test_trap_02_file_disks_and_nqn_need_7_21_older_is_refused_clearly(
    rds: Rds, version: str
) -> None:
    rds.simulator.set_version(version)
    with pytest.raises(UnsupportedRouterOS, match=rf"{re.escape(version)}.*7\.21.*upgrade"):
        await create(rds.backend())
    assert rds.slots() == []


@pytest.mark.parametrize("version", ["7.21", "7.22", "7.23", "7.24"])
async def test_trap_02_from_7_21_on_everything_works(rds: Rds, version: str) -> None:
    rds.simulator.set_version(version)
    await whole_life(rds)


@pytest.mark.parametrize("status", [0, 1])
async def test_trap_03_errors_come_on_stdout_whatever_the_exit_status(
    rds: Rds, status: int
) -> None:
    rds.simulator.quirks.exit_status = status
    disks = rds.backend()
    await create(disks)
    rds.simulator.faults.add("runtime-error", text="action failed (6)", command="/disk/set")
    with pytest.raises(RouterOSError, match=r"action failed \(6\)"):
        await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    assert rds.disk(SLOT).record == record()


async def test_trap_04_a_parse_error_rejects_the_whole_line_and_is_a_definite_answer(
    client_key: Path, tmp_path: Path
) -> None:
    public = asyncssh.read_private_key(client_key).convert_to_public()
    async with Simulator(
        tmp_path / "bare", authorized_keys=[public], rose_storage=False
    ) as simulator:
        simulator.make_directory(BASE)
        found = Rds(simulator, client_key)
        with pytest.raises((RouterOSError, NotReady), match=r"line 1 column \d+"):
            await create(found.backend())
        assert found.slots() == []
        await found.close()


async def test_trap_05_an_empty_find_succeeds_silently_and_is_never_taken_for_done(
    rds: Rds,
) -> None:
    disks = rds.backend()
    for operation in (
        disks.change(SLOT, record().encode(), record("one", "a"), exported=True),
        disks.expand(SLOT, GIB),
        disks.get(SLOT),
    ):
        with pytest.raises(VolumeNotFound):
            await operation


async def test_trap_06_remove_leaves_the_file_so_it_is_removed_and_looked_for(rds: Rds) -> None:
    disks = rds.backend()
    await create(disks)
    free = rds.simulator.free("raid10")
    await disks.delete(SLOT)
    assert rds.files() == []
    assert rds.simulator.free("raid10") == free + 64 * MIB


async def test_trap_07_nothing_that_only_mocks_know_is_relied_upon(rds: Rds) -> None:
    disks = await whole_life(rds)
    sent = lines(rds)
    for invented in ("/interface", "status", "monitor-once"):
        assert invented not in sent
    for text in ("failure: no room: disk full", "No space left on device"):
        rds.simulator.faults.add("runtime-error", text=text, command="/disk/add")
        with pytest.raises(PoolFull):
            await create(disks)


async def test_trap_08_routeros_never_mounts_what_is_inside_a_volume(rds: Rds) -> None:
    disks = rds.backend()
    await create(disks)
    assert rds.simulator.disks[SLOT].properties["mount-filesystem"] is False
    await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    assert rds.simulator.device.hazards == []


async def test_trap_09_no_wrapped_text_is_parsed(rds: Rds) -> None:
    rds.simulator.quirks.width = 20
    disks = rds.backend()
    name = "a-rather-long-name-" * 6
    slot = volume_id(name)
    long = record(name, "node-with-a-rather-long-name")
    await disks.create(
        slot=slot,
        size=MIB,
        file_path=path_of(slot),
        nqn=f"{PREFIX}:{slot}",
        port=4420,
        record=long,
    )
    found = await disks.get(slot)
    assert found == rds.disk(slot)
    assert found.record == long


async def test_trap_10_words_of_the_legend_hide_no_disk(rds: Rds) -> None:
    disks = rds.backend()
    names = ["disabled", "Flags: X - DISABLED", "type=file slot=x", "[]", "CSI-OK-0000000000000000"]
    for name in names:
        slot = volume_id(name)
        await disks.create(
            slot=slot,
            size=MIB,
            file_path=path_of(slot),
            nqn=f"{PREFIX}:{slot}",
            port=4420,
            record=record(name),
        )
    found = await disks.list()
    assert sorted(disk.record.name for disk in found if disk.record) == sorted(names)


async def test_trap_11_grouped_digits_and_other_sizes_are_not_mistaken(rds: Rds) -> None:
    disks = rds.backend()
    made, _ = await create(disks, size=113229 * MIB)
    assert made.size == 113229 * MIB
    assert "53 687" not in lines(rds)
    assert (await disks.capacity(BASE)).size == 16 * TIB


async def test_trap_12_a_rounded_file_size_is_never_the_size(rds: Rds) -> None:
    wanted = round_up(int(10.1 * GIB))
    made, _ = await create(rds.backend(), size=wanted)
    assert made.size == wanted
    printed = await rds.simulator.run(f'/disk/print detail where slot="{SLOT}"')
    assert "file-size=10.1GiB" in printed
    assert "file-size," not in lines(rds)


async def test_trap_13_the_unquoted_space_in_file_output_does_not_matter(rds: Rds) -> None:
    rds.simulator.path(path_of(SLOT)).write_bytes(b"left")
    printed = await rds.simulator.run(f'/file/print detail where name="{path_of(SLOT)}"')
    assert "type=.img file" in printed
    disks = rds.backend()
    with pytest.raises(FailedPrecondition):
        await create(disks)
    await disks.delete(SLOT)
    assert rds.files() == []


async def test_trap_14_sizes_are_sent_as_bytes(rds: Rds) -> None:
    wanted = 3 * TIB // 2
    made, _ = await create(rds.backend(), size=wanted)
    assert made.size == wanted
    assert f"file-size={wanted} " in lines(rds)
    assert not re.search(r"file-size=\d+[A-Za-z]", lines(rds))


async def test_trap_15_slots_have_32_characters_and_listings_are_anchored(rds: Rds) -> None:
    rds.simulator.quirks.slot_limit = 32
    disks = rds.backend()
    await create(disks)
    assert len(SLOT) == 32
    with pytest.raises(InvalidRequest):
        await disks.create(
            slot=LEGACY,
            size=MIB,
            file_path=path_of("pvc-1"),
            nqn=f"{PREFIX}:x",
            port=4420,
            record=record(),
        )
    await rds.add_disk("x" + SLOT[1:], comment="x " + record().encode())
    assert [disk.slot for disk in await disks.list()] == [SLOT]
    for pattern in re.findall(r'[a-z]~"([^"]*)"', lines(rds)):
        assert pattern.startswith("^") or pattern.endswith("\\$")


async def test_trap_16_disk_has_a_leading_slash_and_file_has_none(rds: Rds) -> None:
    disks = rds.backend()
    made, _ = await create(disks)
    assert rds.simulator.disks[SLOT].properties["file-path"] == "/" + path_of(SLOT)
    assert made.file_path == path_of(SLOT)
    await disks.delete(SLOT)
    assert rds.files() == []


async def test_trap_17_an_existing_file_is_never_taken_over(rds: Rds) -> None:
    rds.simulator.path(path_of(SLOT)).write_bytes(b"another tenant's data")
    with pytest.raises(FailedPrecondition) as caught:
        await create(rds.backend())
    assert path_of(SLOT) in str(caught.value)
    assert f'/file/remove [find name="{path_of(SLOT)}"]' in str(caught.value)
    assert rds.simulator.path(path_of(SLOT)).read_bytes() == b"another tenant's data"
    assert rds.slots() == []
    assert rds.simulator.device.hazards == []


async def test_trap_18_capacity_is_counted_as_thick(rds: Rds) -> None:
    disks = Disks(rds.session(), owner=OWNER, base_path=BASE, reserve=GIB)
    rds.simulator.fill_pool("raid10", free=3 * GIB)
    await create(disks, size=2 * GIB)
    assert (await disks.capacity(BASE)).free == GIB
    with pytest.raises(PoolFull):
        await create(disks, "two", size=MIB)


async def test_trap_19_text_that_looks_like_a_number_stays_text(rds: Rds) -> None:
    disks = rds.backend()
    numeric = Record(owner=OWNER, name="2048", created=1, access="block")
    await disks.create(
        slot=SLOT,
        size=MIB,
        file_path=path_of(SLOT),
        nqn=f"{PREFIX}:{SLOT}",
        port=4420,
        record=numeric,
    )
    await rds.add_disk(LEGACY, comment="2048")
    assert [disk.record for disk in await disks.list()] == [numeric]
    for each in rds.simulator.execs():
        assert each.line.count(":serialize") == each.line.count("json.no-string-conversion")


async def test_trap_20_items_are_named_never_numbered_and_nothing_waits_for_input(
    rds: Rds,
) -> None:
    await whole_life(rds)
    sent = lines(rds)
    for verb, item in re.findall(r"/(?:disk|file)/(get|set|remove) (\S+)", sent):
        assert item.startswith(("($csi", "[/file/find")), (verb, item)
    assert {each.outcome for each in rds.simulator.execs()} == {"ok"}


async def test_trap_21_the_nqn_names_a_volume_and_is_always_set(rds: Rds) -> None:
    made, _ = await create(rds.backend())
    assert made.nqn == f"{PREFIX}:{SLOT}" == rds.disk(SLOT).nqn


async def test_trap_22_an_rsa_host_key_can_be_pinned_and_no_password_is_tried(
    client_key: Path, tmp_path: Path
) -> None:
    public = asyncssh.read_private_key(client_key).convert_to_public()
    rsa = asyncssh.generate_private_key("ssh-rsa")
    async with Simulator(tmp_path / "rsa", authorized_keys=[public], host_key=rsa) as simulator:
        simulator.make_directory(BASE)
        settings = SessionSettings(
            host=simulator.address,
            port=simulator.port,
            user="csi",
            key_file=client_key,
            host_keys=(simulator.host_key_line,),
        )
        session = Session(settings)
        disks = Disks(session, owner=OWNER, base_path=BASE)
        assert await disks.list() == []
        await session.close()


async def test_trap_23_cumulative_times_are_not_taken_for_latencies(rds: Rds) -> None:
    await whole_life(rds)
    assert "monitor-traffic" not in lines(rds)


async def test_trap_24_the_properties_are_those_of_the_target(rds: Rds) -> None:
    await whole_life(rds)
    sent = lines(rds)
    assert "nvme-tcp-server-port=4420" in sent
    assert not re.search(r"nvme-tcp-(port|nqn|address|host-name)\b", sent)


async def test_trap_25_nothing_is_created_before_the_pool_is_mounted(rds: Rds) -> None:
    disks = rds.backend()
    await rds.simulator.unmount_pool("raid10")
    for operation in (create(disks), disks.capacity(BASE)):
        with pytest.raises(PoolAway, match="raid10 is not mounted"):
            await operation
    assert rds.slots() == []
    await rds.simulator.mount_pool("raid10")
    await create(disks)
    await rds.simulator.unmount_pool("raid10")
    with pytest.raises(DriverError):
        await disks.expand(SLOT, GIB)
    await rds.simulator.mount_pool("raid10")
    assert (await disks.get(SLOT)).size == 64 * MIB
