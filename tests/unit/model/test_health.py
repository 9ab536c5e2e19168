"""The words for what is wrong: CSI's numbers, and one line with the worst first."""

from rds_csi.csi import v1 as csi
from rds_csi.model.health import Problem, Severity, StorageSeverity, summary


def test_the_numbers_are_csis() -> None:
    for severity in Severity:
        assert csi.VolumeHealthErrorType(severity).name == severity.name
    for storage in StorageSeverity:
        assert csi.StorageHealthErrorType(storage).name == f"STORAGE_{storage.name}"


def test_all_that_is_wrong_stands_in_one_line_worst_first() -> None:
    found = [
        Problem(Severity.DEGRADED, "Slow", "it is slow"),
        Problem(Severity.DATA_LOSS, "Lost", "it is lost"),
        Problem(Severity.INACCESSIBLE, "Gone", "it is gone"),
        Problem(Severity.DEGRADED, "Ungrown", "it is small"),
    ]
    assert summary(found) == (
        "Lost: it is lost; Gone: it is gone; Slow: it is slow; Ungrown: it is small"
    )


def test_nothing_wrong_is_nothing_to_say() -> None:
    assert summary([]) == ""
