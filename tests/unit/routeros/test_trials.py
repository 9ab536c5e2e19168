"""What the doctor tries on scratch volumes: proven ours first, and made of names alone."""

from collections.abc import Callable

import pytest

from rds_csi.errors import InvalidRequest
from rds_csi.model.record import Record
from rds_csi.routeros import trials
from rds_csi.routeros.quoting import MAXIMUM_LINE, wrap
from rds_csi.routeros.reply import Reply
from rds_csi.routeros.trials import Verdict, Volume
from tests.unit.routeros.script import Script

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
        lambda bad: trials.rename(volume(), bad),
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


OTHER = f"doctor-{'b' * 24}"
CHANGES: dict[str, tuple[str, list[str], set[str]]] = {
    "same_slot": (
        trials.same_slot(volume(), "raid10/csi/x.img", 1),
        ["/disk/add", "/disk/remove"],
        set(),
    ),
    "over_file": (
        trials.over_file(volume(), 1),
        ["/disk/remove", "/disk/add"],
        {"foreign-file", "shared-file"},
    ),
    "allow": (trials.allow(volume(), ("nqn.a", "nqn.b")), ["/disk/set"], set()),
    "allow_later": (trials.allow_later(volume(), "nqn.a", 5), ["/disk/set"], set()),
    "rename": (trials.rename(volume(), "nqn.2000-02.com.mikrotik:a"), ["/disk/set"], set()),
    "copy_settings": (
        trials.copy_settings(volume(), volume(OTHER)),
        ["/disk/add"],
        {"leftover-file"},
    ),
    "copy_file": (trials.copy_file(volume(), volume(OTHER)), ["/file/copy"], {"leftover-file"}),
    "copy_disk": (trials.copy_disk(volume(), volume(OTHER)), ["/disk/copy"], set()),
    "find_by_path": (trials.find_by_path(volume()), [], set()),
    "long_line": (trials.long_line(), [], set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_volume_is_proven_ours_before_anything_is_tried(name: str) -> None:
    line, changes, more = CHANGES[name]
    script = Script(line)
    assert script.balanced()
    assert script.changes == changes
    for verb in changes:
        for place in script.places(f"{verb} "):
            assert script.proofs(place) >= {"no-disk", "many-disks", "not-ours"} | more


def test_what_is_written_over_is_the_volume_that_was_proven() -> None:
    """The RDS copies into ``dst``: there the record has to be ours."""
    script = Script(trials.copy_disk(volume(), volume(OTHER)))
    assert script.behind(":local csiDisk [/disk/find where slot=") == [OTHER]
    assert script.behind(" src=") == [volume().slot]
    assert script.behind(" dst=") == [OTHER]


def test_what_is_removed_is_what_was_proven_or_just_made() -> None:
    for name, target in {"over_file": "($csiDisk->0)", "same_slot": "$csiNew"}.items():
        script = Script(CHANGES[name][0])
        (place,) = script.places("/disk/remove ")
        assert script.code[place:].startswith(f"/disk/remove {target}")
