"""The rules of ids, names and sizes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest, SizeOutOfRange, VolumeNotFound
from rds_csi.model.volume import (
    GIB,
    LARGEST_GENERATION,
    MAXIMUM_SIZE,
    MIB,
    MINIMUM_SIZE,
    MINIMUM_XFS,
    CapacityRange,
    ExportName,
    check_name,
    check_nqn,
    check_volume_id,
    export_nqn,
    is_legacy_id,
    is_volume_id,
    read_nqn,
    volume_id,
)


def test_an_id_is_as_long_as_a_slot_may_be() -> None:
    assert re.fullmatch(r"pvc-[0-9a-f]{28}", volume_id("pvc-a"))
    assert len(volume_id("x" * 128)) == 32
    assert volume_id("a") == volume_id("a") != volume_id("A")
    assert is_volume_id(volume_id("a"))


def test_ids_of_the_go_driver_are_volumes_too() -> None:
    legacy = "pvc-ccdecfad-a8bf-572e-9120-464c4d99f12f"
    assert is_volume_id(legacy)
    assert is_legacy_id(legacy)
    assert not is_legacy_id(volume_id("a"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pvc-",
        "root",
        "pvc-" + "0" * 27,
        "pvc-" + "0" * 29,
        "pvc-" + "G" * 28,
        volume_id("a") + "\n",
        "x" + volume_id("a"),
        volume_id("a").upper(),
        "a:" + volume_id("a"),
    ],
)
def test_nothing_else_is_a_volume(text: str) -> None:
    assert not is_volume_id(text)


ids = st.text().map(volume_id) | st.uuids().map("pvc-{}".format)
prefixes = st.from_regex(r"nqn\.[0-9]{4}-[0-9]{2}\.[a-z.:]{0,20}[a-z]", fullmatch=True)


@given(prefixes, ids, st.integers(0, LARGEST_GENERATION))
def test_the_name_of_an_export_says_what_it_was_made_of(
    prefix: str, volume: str, generation: int
) -> None:
    nqn = export_nqn(prefix, volume, generation)
    name = ExportName(prefix, volume, generation)
    assert read_nqn(nqn, prefix) == read_nqn(nqn) == name
    assert read_nqn(nqn, f"{prefix}x") is None
    assert read_nqn(nqn, "") is None


@given(prefixes, st.data())
def test_no_two_exports_share_a_name(prefix: str, data: st.DataObject) -> None:
    """Neither two volumes, nor one volume at two of its hand-overs."""
    made = st.tuples(ids, st.integers(0, 20) | st.integers(0, LARGEST_GENERATION))
    one, other = data.draw(made), data.draw(made)
    assert (export_nqn(prefix, *one) == export_nqn(prefix, *other)) == (one == other)


@given(st.text() | st.builds("{}:{}{}".format, prefixes, ids | st.text(), st.text()))
def test_what_is_read_as_a_name_would_be_written_so(text: str) -> None:
    name = read_nqn(text)
    assert name is None or is_volume_id(name.volume)
    assert name is None or export_nqn(name.prefix, name.volume, name.generation) == text


@pytest.mark.parametrize(
    "name",
    [
        *("", "{}.", "{}.0", "{}.01", "{}.-1", "{}.+1", "{}.1 ", "{}.1\n", "{}\n", "{}.1.1"),
        *("{}.x", "{}.1e3", "{}.\u0663", "{}:1", "x{}", "{}x", "{}.1234567890123456789", "boot"),
        *("doctor-" + "0" * 24, "doctor-" + "0" * 24 + ".1"),
    ],
)
@pytest.mark.parametrize("volume", [volume_id("a"), "pvc-ccdecfad-a8bf-572e-9120-464c4d99f12f"])
def test_a_foreign_name_is_of_no_volume(name: str, volume: str) -> None:
    prefix = "nqn.2000-02.com.mikrotik"
    assert read_nqn(f"{prefix}:{volume}", prefix) == ExportName(prefix, volume)
    assert read_nqn(f"{prefix}:{name.format(volume)}", prefix) is None
    assert read_nqn(f"{prefix}:{name.format(volume)}") is None
    assert read_nqn(volume) is None
    assert read_nqn(f":{volume}") is None


@pytest.mark.parametrize("name", ["", "a\n", "a\x00", "a\x7f", "a\x9f", "n" * 129, "é" * 65])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(name)


def test_a_name_of_128_bytes_is_fine() -> None:
    assert check_name("é" * 64) == "é" * 64


@pytest.mark.parametrize(
    "nqn",
    [
        "",
        "nqn.x:y",
        "nqn.2000-02.com.mikrotik",
        "nqn.2000-02.com.mikrotik:",
        "iqn.2000-02.com:a",
        "nqn.2000-02.com.mikrotik:a b",
        "nqn.2000-02.com.mikrotik:a;b",
        "nqn.2000-02..com:a",
        "nqn.2000-02.com.mikrotik:a\n",
        "nqn.2000-02.com.mikrotik:" + "a" * 200,
    ],
)
def test_bad_nqns_are_refused(nqn: str) -> None:
    with pytest.raises(InvalidRequest):
        check_nqn(nqn)


def test_good_nqns_pass() -> None:
    for nqn in (
        f"nqn.2000-02.com.mikrotik:{volume_id('a')}",
        "nqn.2014-08.org.nvmexpress:uuid:12345678-1234-1234-1234-123456789abc",
    ):
        assert check_nqn(nqn) == nqn


@pytest.mark.parametrize(
    ("required", "limit", "size"),
    [
        (0, 0, GIB),
        (1, 0, MINIMUM_SIZE),
        (int(1.5 * GIB), 0, int(1.5 * GIB)),
        (int(10.1 * GIB), 0, 10343 * MIB),
        (1025 * GIB, 0, 1025 * GIB),
        (GIB + 1, GIB + MIB, GIB + MIB),
        (0, 100 * MIB, 100 * MIB),
        (0, 100 * MIB + 5, 100 * MIB),
        (MAXIMUM_SIZE, 0, MAXIMUM_SIZE),
    ],
)
def test_sizes_are_rounded_up_to_a_mebibyte(required: int, limit: int, size: int) -> None:
    assert CapacityRange(required, limit).size() == size


@pytest.mark.parametrize(
    ("required", "limit"),
    [(2, 1), (GIB + 1, GIB + 2), (MAXIMUM_SIZE + 1, 0), (0, MINIMUM_SIZE - 1), (0, 1)],
)
def test_impossible_ranges(required: int, limit: int) -> None:
    with pytest.raises(SizeOutOfRange):
        CapacityRange(required, limit).size()


def test_a_file_system_may_need_more() -> None:
    assert CapacityRange(MIB).size(MINIMUM_XFS) == MINIMUM_XFS
    assert CapacityRange(GIB).size(MINIMUM_XFS) == GIB
    with pytest.raises(SizeOutOfRange):
        CapacityRange(MIB, 200 * MIB).size(MINIMUM_XFS)


@pytest.mark.parametrize(("required", "limit"), [(-1, 0), (0, -1)])
def test_negative_ranges(required: int, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        CapacityRange(required, limit).size()


@given(required=st.integers(0, MAXIMUM_SIZE), slack=st.integers(0, 4 * MIB))
def test_a_size_always_satisfies_its_range(required: int, slack: int) -> None:
    wanted = CapacityRange(required, required + slack if required else 0)
    try:
        size = wanted.size()
    except SizeOutOfRange:
        assert slack < MIB or required + slack < MINIMUM_SIZE
    else:
        assert wanted.allows(size)
        assert size % MIB == 0


def test_allows() -> None:
    assert CapacityRange(10, 20).allows(10)
    assert CapacityRange(10, 20).allows(20)
    assert not CapacityRange(10, 20).allows(9)
    assert not CapacityRange(10, 20).allows(21)
    assert CapacityRange(0, 0).allows(1)


@pytest.mark.parametrize(
    "text", ["..", "a/b", ".a", f"{volume_id('a')}\n", "a" * 129, "pvc:1", "ä", "vol-1", "pvc-1"]
)
def test_what_can_be_no_volumes_id_is_of_no_volume(text: str) -> None:
    with pytest.raises(VolumeNotFound):
        check_volume_id(text)


def test_the_id_of_a_request_is_there_and_one_of_ours_or_the_go_drivers() -> None:
    with pytest.raises(InvalidRequest, match="volume_id is missing"):
        check_volume_id("")
    legacy = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
    assert [check_volume_id(each) for each in (volume_id("a"), legacy)] == [volume_id("a"), legacy]
