"""The controller sees over real SSH that the RDS booted, by what each connect tells anyway."""

from rds_csi.routeros import Boot, Boots
from rds_csi.routeros.boots import Down

from .conftest import Rds


async def test_a_reboot_is_seen_without_any_exec_for_it(rds: Rds) -> None:
    session = rds.session()
    boots: list[Boot] = []
    watch = Boots(session, on_boot=boots.append)
    watch.look()
    assert boots == []
    await session.execute(':put "x"')
    for _ in range(3):
        watch.look()
    assert [each.before for each in boots] == [Down.UNKNOWN]
    assert rds.execs() == 2, "the greeting, and ours"

    assert session.booted is not None
    watch._known = session.booted - 3600  # as if it had been up for an hour
    await rds.simulator.reboot()
    await session.execute(':put "x"')
    watch.look()
    assert [each.before for each in boots] == [Down.UNKNOWN, Down.ORDERLY]
    assert rds.execs() == 4


async def test_a_log_that_may_not_be_read_keeps_nobody_from_working(rds: Rds) -> None:
    rds.simulator.faults.add("runtime-error", command="/log/print", count=1)
    session = rds.session()
    assert (await session.execute(':put "x"')).error is None
    assert session.system is not None
    assert session.system.boots == ()
    assert session.system.board.startswith("RDS2216")
    assert session.booted is not None
