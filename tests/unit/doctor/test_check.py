"""What came of a check, and what makes the doctor fail."""

import pytest

from rds_csi.doctor.check import Checks, Status
from rds_csi.errors import NotReady


def test_an_error_in_a_check_is_a_failed_check_with_its_own_advice() -> None:
    checks = Checks()

    def fail(error: Exception) -> None:
        raise error

    with checks.failing("a", "look there"):
        fail(NotReady("no pool", advice="mount it"))
    with checks.failing("b", "look there"):
        fail(NotReady("no pool"))
    assert [(each.found, each.advice) for each in checks] == [
        ("no pool", "mount it"),
        ("no pool", "look there"),
    ]
    with pytest.raises(KeyError), checks.failing("c", ""):
        raise KeyError


@pytest.mark.parametrize("status", Status)
def test_only_what_failed_fails(status: Status) -> None:
    checks = Checks()
    checks.ok("a", "well")
    checks.warn("b", "not so well", "see to it")
    checks.skip("c", "not looked at")
    checks.add("d", status, "this one")
    assert checks.failed is (status is Status.FAILED)
    assert [check.status for check in checks] == [
        Status.OK,
        Status.WARNING,
        Status.SKIPPED,
        status,
    ]
