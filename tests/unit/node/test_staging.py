"""The records of staged volumes: durable, atomic, and tolerant of what they find."""

import asyncio
import json
import os
from pathlib import Path

import aiofiles.os
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import DriverError
from rds_csi.model.volume import export_nqn, read_nqn
from rds_csi.node.staging import StagedVolume, StagingStore

VOLUME = "pvc-0123456789abcdef0123456789ab"
OTHER = "pvc-" + "e" * 28
STAGED = StagedVolume(
    volume=VOLUME,
    nqn=f"nqn.2000-02.com.mikrotik:{VOLUME}",
    address="10.0.0.1",
    port=4420,
    staging_path="/var/lib/kubelet/stage",
    fs_type="ext4",
    read_only=True,
    mount_flags=("noatime", "discard"),
    formatting="11111111-2222-4333-8444-555555555555",
    targets=(("/var/lib/kubelet/a", True), ("/var/lib/kubelet/b", False)),
)


@pytest.fixture
def store(tmp_path: Path) -> StagingStore:
    return StagingStore(tmp_path / "state")


async def test_written_is_read_back_and_replaced_and_deleted(store: StagingStore) -> None:
    assert await store.read(VOLUME) is None
    assert await store.list() == []
    await store.write(STAGED)
    assert await store.read(VOLUME) == STAGED
    bare = StagedVolume(volume=VOLUME, nqn="n", address="a", port=1, staging_path="")
    await store.write(bare)
    assert await store.list() == [bare]
    assert not bare.staged
    await store.delete(VOLUME)
    await store.delete(VOLUME)
    assert await store.list() == []


async def test_what_may_be_staged_includes_what_cannot_be_read(
    store: StagingStore, tmp_path: Path
) -> None:
    prefix = "nqn.2000-02.com.mikrotik"
    assert STAGED.nqn not in await store.recorded()
    await store.write(STAGED)
    marked, broken = "pvc-" + "d" * 28, OTHER
    await store.write(
        StagedVolume(volume=marked, nqn=f"{prefix}:{marked}", address="", port=1, staging_path="")
    )
    (tmp_path / "state" / f"{broken}.json").write_bytes(b"{")
    (tmp_path / "state" / f"{broken}.tmp").write_bytes(b"{")
    recorded = await store.recorded()
    name = read_nqn(STAGED.nqn)
    assert name is not None
    other = export_nqn(name.prefix, name.volume, name.generation + 1)
    assert [nqn in recorded for nqn in (STAGED.nqn, other)] == [True, False]
    assert all(export_nqn(prefix, broken, number) in recorded for number in (0, 1, 12))
    assert export_nqn(prefix, marked, 0) not in recorded
    assert prefix not in recorded


@given(
    st.builds(
        StagedVolume,
        volume=st.just(VOLUME),
        nqn=st.text(),
        address=st.text(),
        port=st.integers(),
        staging_path=st.text(),
        fs_type=st.text(),
        read_only=st.booleans(),
        mount_flags=st.lists(st.text()).map(tuple),
        formatting=st.text(),
        targets=st.lists(st.tuples(st.text(), st.booleans())).map(tuple),
        connection=st.lists(st.tuples(st.text(), st.text())).map(tuple),
        pinned=st.booleans(),
        uuid=st.text(),
    )
)
def test_any_volume_survives_its_file(staged: StagedVolume) -> None:
    assert StagedVolume.parse(staged.encode()) == staged


def test_targets() -> None:
    assert STAGED.target("/var/lib/kubelet/a") is True
    assert STAGED.target("/var/lib/kubelet/none") is None
    changed = STAGED.with_target("/var/lib/kubelet/a", False)
    assert changed.target("/var/lib/kubelet/a") is False
    assert len(changed.targets) == 2
    assert changed.without_target("/var/lib/kubelet/a").targets == (("/var/lib/kubelet/b", False),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": 2}',
        b'{"version": 1}',
        STAGED.encode()[:-20],
        STAGED.encode().replace(b"4420", b'"4420"'),
        STAGED.encode().replace(b'"noatime"', b"7"),
        STAGED.encode().replace(b"0123456789abcdef0123456789ab", b"0123456789abcdef0123456789ac"),
        json.dumps({**json.loads(STAGED.encode()), "targets": [5]}).encode(),
        json.dumps({**json.loads(STAGED.encode()), "targets": [["/a", True, 1]]}).encode(),
        b"[" * 100_000,
    ],
)
async def test_a_damaged_file_is_no_record_and_harms_no_other(
    store: StagingStore, tmp_path: Path, content: bytes
) -> None:
    await store.write(STAGED)
    (tmp_path / "state" / f"{OTHER}.json").write_bytes(content)
    (tmp_path / "state" / f"{VOLUME}.tmp").write_bytes(b"half")
    (tmp_path / "state" / ".hidden.json").write_bytes(b"{}")
    assert await store.read(OTHER) is None
    assert await store.list() == [STAGED]


@given(st.binary())
def test_no_content_raises_anything_but_value_error(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        StagedVolume.parse(content)


async def test_a_field_of_a_later_version_is_passed_over(
    store: StagingStore, tmp_path: Path
) -> None:
    await store.write(STAGED)
    path = tmp_path / "state" / f"{VOLUME}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert await store.read(VOLUME) == STAGED


@pytest.mark.parametrize("name", ["", "..", "a/b", ".a", "a\n", "a" * 129, "pvc:1", "ä"])
async def test_a_name_that_is_no_file_of_ours_is_refused(store: StagingStore, name: str) -> None:
    with pytest.raises(DriverError):
        await store.read(name)
    with pytest.raises(DriverError):
        await store.delete(name)


async def test_files_and_directory_are_for_root_alone(store: StagingStore, tmp_path: Path) -> None:
    await store.write(STAGED)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


async def test_the_content_is_durable_before_the_name_and_the_name_before_the_return(
    store: StagingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        acts.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def recorded_replace(old: Path, new: Path) -> None:
        acts.append(f"replace {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(aiofiles.os, "replace", aiofiles.os.wrap(recorded_replace))
    await store.write(STAGED)
    assert acts == [f"fsync {VOLUME}.tmp", f"replace {VOLUME}.json", "fsync state"]


async def test_a_cancelled_write_has_ended_when_the_caller_is_let_go(store: StagingStore) -> None:
    for _ in range(20):
        task = asyncio.create_task(store.write(STAGED))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.read(VOLUME) == STAGED
        await store.delete(VOLUME)
        assert await store.read(VOLUME) is None


async def test_a_write_killed_half_way_leaves_the_old_record(
    store: StagingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(STAGED)

    async def killed(*_: object) -> None:
        raise OSError("killed here")

    monkeypatch.setattr(aiofiles.os, "replace", killed)
    with pytest.raises(OSError, match="killed"):
        await store.write(STAGED.without_target("/var/lib/kubelet/a"))
    assert await store.read(VOLUME) == STAGED
