"""What the doctor tries on scratch volumes: proven ours first, and made of names alone."""

from collections.abc import Callable

import pytest

from rds_csi.errors import InvalidRequest
from rds_csi.model.record import Record
from rds_csi.routeros import trials
from rds_csi.routeros.quoting import MAXIMUM_LINE, wrap
from rds_csi.routeros.reply import Reply
from rds_csi.routeros.trials import Verdict, Volume

RECORD = Record(owner="o", name="n", created=0, access="block")


def volume(slot: str = f"doctor-{'a' * 24}", path: str = "") -> Volume:
    path = path or f"raid10/csi/{slot}-12345678.img"
    return Volume(slot, path, f"nqn.2000-02.com.mikrotik:{slot}", RECORD, "raid10/csi")


def test_a_verdict_is_what_the_line_printed() -> None:
    assert trials.verdict(Reply(("accepted",))) == Verdict(accepted=True)
    refused = trials.verdict(Reply(("refused: no such item",)))
    assert refused == Verdict(accepted=False, text="no such item")
    assert not trials.verdict(Reply(())).accepted


def test_the_longest_probe_fits_a_line() -> None:
    line = wrap(trials.long_line(), "0" * 16)
    assert MAXIMUM_LINE - 60 < len(line) <= MAXIMUM_LINE


@pytest.mark.parametrize(
    "build",
    [
        lambda bad: trials.same_slot(volume(), bad, 1),
        lambda bad: trials.over_file(volume(path=bad), 1),
        lambda bad: trials.allow(volume(), (bad,)),
        lambda bad: trials.allow_later(volume(), bad, 1),
        lambda bad: trials.copy_settings(volume(bad), volume()),
        lambda bad: trials.copy_settings(volume(), volume(path=bad)),
        lambda bad: trials.copy_file(volume(), volume(path=bad)),
        lambda bad: trials.copy_file(volume(path=bad), volume()),
        lambda bad: trials.copy_disk(volume(bad), volume()),
        lambda bad: trials.copy_disk(volume(), volume(bad)),
        lambda bad: trials.find_by_path(volume(path=bad)),
    ],
)
@pytest.mark.parametrize("bad", ['x"; /system/reset-configuration; "', "a/../b", "$[x]"])
def test_nothing_but_names_reaches_a_probe(build: Callable[[str], str], bad: str) -> None:
    with pytest.raises(InvalidRequest):
        build(bad)
