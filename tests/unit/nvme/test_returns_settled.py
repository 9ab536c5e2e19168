"""A target is not asked over a link that has only just come back."""

from pathlib import Path

from tests.unit.nvme.counting import Counting, CountingHost
from tests.unit.nvme.kernel import A


async def test_a_link_that_has_just_come_back_is_not_asked_over_yet(tmp_path: Path) -> None:
    """Where it is cut again meanwhile, the kernel would notice after a minute."""
    host = CountingHost(tmp_path)
    target = Counting(host, A)
    driver = host.driver(settled=10)
    driver._uevents.open()
    await driver.look()
    host.clock.time += 9
    await driver.look()
    # The next look does not wait, and the one after that does.
    assert (host.asked, driver._fresh) == (0, True)
    host.clock.time += 1
    await driver.look()
    assert (host.asked, driver._fresh) == (1, False)
    for booted in (False, True):  # it flaps
        target.away()
        await driver.look()
        target.back(booted=booted, told=True)
        host.clock.time += 9
        await driver.look()
    assert (host.asked, host.verdicts) == (1, [])
    host.clock.time += 10
    await driver.look()
    assert (host.asked, host.verdicts) == (2, ["booted"])
    driver._uevents.close()
    host.close()
