"""What a reply says of one volume: with its name in every error, and RouterOS's text in front."""

import json

import pytest

from rds_csi.errors import (
    OPEN,
    DriverError,
    Internal,
    OutcomeUnknown,
    PoolAway,
    PoolFull,
    RouterOSError,
    VolumeNotFound,
)
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import volume_id
from rds_csi.routeros import answers
from rds_csi.routeros.reply import Reply

SLOT = volume_id("one")
HELD = Record(owner="d/c", name="one", created=1, access="ext4").with_node(
    Publication("worker-a", AccessMode.SINGLE_NODE_WRITER)
)
ITEM = {"slot": SLOT, "size": 5, "comment": HELD.encode(), "nvme-tcp-server-port": 4420}


def reply(heading: str, value: object) -> Reply:
    return Reply((heading, value if isinstance(value, str) else json.dumps(value)))


def test_an_error_names_its_volume_once() -> None:
    for raised, told in (("", SLOT), ("other", "other")):
        with pytest.raises(Internal) as caught, answers.about(SLOT):
            raise Internal("x", volume=raised)
        assert caught.value.volume == told


@pytest.mark.parametrize(
    "value",
    ["no json", "[1]", [{"slot": "other"}], [ITEM, ITEM], [ITEM | {"size": "50.0GiB"}]],
    ids=str,
)
def test_what_makes_no_sense_is_an_error_about_the_volume(value: object) -> None:
    with pytest.raises(RouterOSError) as caught:
        answers.shown(reply("disk", value), SLOT)
    assert caught.value.volume == SLOT


def test_a_disk_is_there_or_is_not() -> None:
    found = answers.existing(reply("disk", [ITEM]), SLOT)
    assert (found.slot, found.size) == (SLOT, 5)
    assert answers.with_size(found) is found
    assert answers.shown(reply("disk", []), SLOT) is None
    with pytest.raises(VolumeNotFound, match=SLOT):
        answers.existing(reply("disk", []), SLOT)
    with pytest.raises(PoolAway, match=SLOT):
        answers.with_size(answers.existing(reply("disk", [ITEM | {"size": ""}]), SLOT))


def test_what_failed_is_explained_for_the_volume() -> None:
    assert answers.succeeded(Reply(("x",)), SLOT).lines == ("x",)
    with pytest.raises(RouterOSError, match=f"{SLOT}.*who knows"):
        answers.succeeded(Reply((), "who knows"), SLOT)


def test_what_is_left_open_says_why() -> None:
    away = PoolAway("x", volume=SLOT)
    assert answers.left_open(away) is away
    error = answers.left_open(PoolFull("RouterOS says: full", volume=SLOT, advice="grow it"))
    assert type(error) is OutcomeUnknown
    assert error.code in OPEN
    assert str(error) == (
        f"volume {SLOT}: whether it was done is not known: RouterOS says: full (grow it)"
    )


@pytest.mark.parametrize(
    "odd", [{"size": "50.0GiB"}, {"size": "?", "nvme-tcp-server-port": "http"}, {"size": None}]
)
def test_a_listing_hides_no_disk_whose_numbers_are_none(odd: dict[str, object]) -> None:
    disk = answers.legible(ITEM | odd)
    assert disk.record == HELD
    assert disk.size == 0
    assert answers.legible(ITEM).size == 5


@pytest.mark.parametrize(
    ("lines", "nodes", "files"),
    [
        (("disk", json.dumps([ITEM]), "file", '[{"name":"a"},{"name":"b"}]'), "worker-a", "a, b"),
        (("disk", json.dumps([ITEM | {"size": "many"}]), "file", "[]"), "worker-a", "?"),
        (("disk", json.dumps([ITEM]), "file", "cut off"), "worker-a", "?"),
        (("disk", "cut off"), "a node", "?"),
        (("disk", "[1]"), "a node", "?"),
        ((), "a node", "?"),
    ],
)
def test_names_for_a_refusal_never_hide_it(lines: tuple[str, ...], nodes: str, files: str) -> None:
    try:
        names = answers.holders(Reply(lines, "csi-refused in-use"))
    except DriverError as error:  # pragma: no cover - the test's own failure
        pytest.fail(f"{error!r} instead of RouterOS's text")
    assert names == {"nodes": nodes, "files": files}
