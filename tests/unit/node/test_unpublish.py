"""NodeUnpublishVolume: the mounts go, and never what somebody wrote."""

import pytest

from rds_csi.errors import CommandFailed, FailedPrecondition, Internal, VolumeInUse
from rds_csi.runtime.process import Result
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import Calls


@pytest.fixture(params=["mount", "block"])
async def staged(request: pytest.FixtureRequest, host: FakeHost) -> Calls:
    """A staged volume of either kind."""
    calls = Calls(host=host, block=request.param == "block")
    calls.create("blank" if calls.block else "ext4")
    await calls.stage()
    return calls


@pytest.fixture
async def calls(host: FakeHost) -> Calls:
    calls = Calls(host=host)
    calls.create("ext4")
    await calls.stage()
    return calls


async def test_unpublish_of_a_stack_takes_it_all_down(staged: Calls, host: FakeHost) -> None:
    await staged.publish()
    host.table.stack(str(staged.target_path))
    host.table.stack(str(staged.target_path))
    await staged.unpublish()
    await staged.unstage()
    assert host.leaks() == []


async def test_data_in_the_target_survives_a_failing_umount(calls: Calls, host: FakeHost) -> None:
    await calls.publish()
    (calls.target_path / "precious").write_text("data")
    host.table.busy.add(str(calls.target_path))
    with pytest.raises(VolumeInUse, match="busy"):
        await calls.unpublish()
    host.refusals["umount"] = Result(32, "", "umount: broken")
    with pytest.raises(CommandFailed, match="broken"):
        await calls.unpublish()
    host.refusals["umount"] = Result(0, "", "")
    with pytest.raises(Internal, match="unmounted nothing"):
        await calls.unpublish()
    assert (calls.target_path / "precious").read_text() == "data"


async def test_data_in_an_unmounted_target_is_never_deleted(calls: Calls, host: FakeHost) -> None:
    await calls.publish()
    (calls.target_path / "below").mkdir()
    (calls.target_path / "below" / "precious").write_text("data")
    with pytest.raises(FailedPrecondition, match="left as it is"):
        await calls.unpublish()
    assert host.table.at(str(calls.target_path)) == []
    assert (calls.target_path / "below" / "precious").read_text() == "data"


async def test_a_file_with_content_or_a_link_at_the_target_is_left(calls: Calls) -> None:
    calls.target_path.write_text("data")
    with pytest.raises(FailedPrecondition, match="no publish made"):
        await calls.unpublish()
    assert calls.target_path.read_text() == "data"
    calls.target_path.unlink()
    calls.target_path.symlink_to(calls.stage_path)
    with pytest.raises(FailedPrecondition, match="no publish made"):
        await calls.unpublish()
    assert calls.target_path.is_symlink()


async def test_unpublish_of_what_never_was_is_success(host: FakeHost) -> None:
    await Calls(host=host).unpublish()
    assert host.steps.passed == []
