import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import (
    ConcurrentChange,
    DriverError,
    FailedPrecondition,
    NotOurs,
    NotReady,
    PoolFull,
    RouterOSError,
    UnsupportedRouterOS,
    VolumeInUse,
)
from rds_csi.routeros.disk import Capacity, Disk
from rds_csi.routeros.failures import REFUSALS, explain, rejected
from rds_csi.routeros.reply import (
    HEADINGS,
    Reply,
    as_boolean,
    as_integer,
    as_items,
    as_text,
    decode,
    excerpt,
    read,
)
from rds_csi.routeros.version import System, parse_version, read_system, require_supported

N = "0123456789abcdef"


def test_success_is_the_marker_on_the_last_line_that_is_not_empty() -> None:
    assert read(f"disk\r\n[]\r\nCSI-OK-{N}\r\n\r\n", N) == Reply(("disk", "[]"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\r\n",
        "[]",
        "CSI-OK-fedcba9876543210\r\n",
        f"CSI-OK-{N}\r\nmore\r\n",
        f"CSI-OK-{N[:-1]}",
        f'"CSI-OK-{N}"',
        "expected end of command (line 1 column 7)",
    ],
)
def test_anything_else_is_no_reply(text: str) -> None:
    assert read(text, N) is None


def test_an_error_is_what_stands_behind_its_marker_with_all_its_lines() -> None:
    reply = read(f"disk\r\n[]\r\nCSI-ERR-{N} failure: a\r\nb (:error; line 1)\r\n", N)
    assert reply == Reply(("disk", "[]"), "failure: a\nb (:error; line 1)")


@given(st.binary())
def test_no_output_breaks_the_reader(output: bytes) -> None:
    read(decode(output), N)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans())))
def test_json_comes_back_whatever_is_in_it(items: list[dict[str, object]]) -> None:
    text = f"disks\r\n{json.dumps(items)}\r\nCSI-OK-{N}\r\n"
    reply = read(text, N)
    assert reply is not None
    assert reply.items("disks") == items


def test_json_that_a_console_wrapped_in_the_middle_of_a_value_is_joined() -> None:
    reply = Reply(("disk", '[{"file-path":"/storage-pool/metal-csi/pvc-xxx', '-yyy.img"}]'))
    assert reply.items("disk") == [{"file-path": "/storage-pool/metal-csi/pvc-xxx-yyy.img"}]


def test_several_answers_below_the_same_heading_keep_their_order() -> None:
    reply = Reply(("disk", '[{"a":1}]', "file", "[]", "disk", "[]"))
    assert reply.values("disk") == [[{"a": 1}], []]
    assert reply.items("disk") == []
    assert reply.has("file")
    assert not reply.has("created")


@pytest.mark.parametrize(
    "lines", [(), ("disk",), ("disk", "no json"), ("disk", "[1]"), ("disk", "3")]
)
def test_what_is_no_list_of_items_is_an_error_and_never_nothing(lines: tuple[str, ...]) -> None:
    with pytest.raises(RouterOSError):
        Reply(lines).items("disk")


def test_a_lone_object_is_a_list_of_one() -> None:
    assert as_items({"a": 1}) == [{"a": 1}]


def test_no_heading_looks_like_json() -> None:
    assert not any(heading[0] in '[{"' for heading in HEADINGS)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        ("113 229", 113229),
        ("1 099 511 627 776", 1099511627776),
        ("2048.000000", 2048),
        ("0", 0),
        (" 7 ", 7),
    ],
)
def test_integers_in_every_shape(value: object, number: int) -> None:
    assert as_integer(value) == number


@pytest.mark.parametrize(
    "value", [None, True, "", "50.0GiB", "1.5", 1.5, "1 2", "12 3456", "x", [], "1e9", float("inf")]
)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(RouterOSError):
        as_integer(value)


@given(st.integers(0, 2**63 - 1))
def test_grouped_digits_lose_nothing(number: int) -> None:
    assert as_integer(f"{number:,}".replace(",", " ")) == number


def test_booleans_and_text() -> None:
    assert [as_boolean(value) for value in (True, "true", "yes", "Yes")] == [True] * 4
    assert [as_boolean(value) for value in (False, "false", "no", "", None, 1, "1")] == [False] * 7
    assert [as_text(value) for value in (None, "a", 5, True, False)] == ["", "a", "5", "yes", "no"]


def test_long_output_is_cut_in_the_middle_of_a_message() -> None:
    assert excerpt("short") == "short"
    cut = excerpt("a" * 5000 + "b" * 5000)
    assert len(cut) < 2100
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")


# Disks


def item(**changes: object) -> dict[str, object]:
    return {
        "slot": "pvc-1",
        "size": 1073741824,
        "file-path": "/raid10/csi/x.img",
        "nvme-tcp-export": True,
        "nvme-tcp-server-port": 4420,
        "nvme-tcp-server-nqn": "nqn.x",
        **changes,
    }


def test_a_disk_is_read_without_its_leading_slash_and_with_what_is_unset() -> None:
    disk = Disk.parse(item())
    assert disk.file_path == "raid10/csi/x.img"
    assert disk.comment == ""
    assert disk.record is None
    assert disk.allowed_host == ""
    assert disk.exported


@pytest.mark.parametrize("size", [None, "", 0, "0"])
def test_a_disk_without_a_size_is_a_disk_of_unknown_size(size: object) -> None:
    """As one whose pool is not mounted yet; ``file-size``, which is rounded, is never looked at."""
    assert Disk.parse(item(**{"file-size": "50.0GiB"})).size == 1073741824
    assert Disk.parse(item(size=size, **{"file-size": 1073741824})).size == 0
    found = item(**{"file-size": 1073741824})
    del found["size"]
    assert Disk.parse(found).size == 0


@pytest.mark.parametrize("size", ["50.0GiB", "many", True, 1.5])
def test_a_size_is_never_guessed(size: object) -> None:
    with pytest.raises(RouterOSError):
        Disk.parse(item(size=size))


LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"comment": "keep"}, False),
        ({"slot": "pvc-1"}, False),
        ({"file-path": f"/raid10/csi-evil/{LEGACY}.img"}, False),
        ({"file-path": "/raid10/csi/other.img"}, False),
    ],
)
def test_a_disk_of_the_go_driver_is_known_by_slot_path_and_empty_comment(
    changes: dict[str, object], ours: bool
) -> None:
    base = {"slot": LEGACY, "file-path": f"/raid10/csi/{LEGACY}.img"}
    assert Disk.parse(item(**{**base, **changes})).is_of("me/x", "raid10/csi") is ours


def test_a_pool_without_free_space_is_not_mounted() -> None:
    assert Capacity.parse("p", {"size": 5, "slot": "p"}) is None
    assert Capacity.parse("p", {"size": 5, "free": 3, "mounted": False}) is None
    assert Capacity.parse("p", {"size": "5", "free": "1 000", "fs": "xfs"}) == Capacity(
        pool="p", size=5, free=1000, file_system="xfs"
    )


# Versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.24.4 (stable)", (7, 24, 4)),
        ("7.24 (stable)", (7, 24, 0)),
        ("7.25beta3", (7, 25, 0)),
        ("7.25beta3 (testing)", (7, 25, 0)),
        ("7.21rc1", (7, 21, 0)),
        ("6.49.21 (long-term)", (6, 49, 21)),
        ("8.0", (8, 0, 0)),
    ],
)
def test_versions(text: str, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "stable", "7", "v7.21", "7.21.1.1.1"])
def test_no_versions(text: str) -> None:
    assert parse_version(text) is None


@pytest.mark.parametrize("text", ["7.20.9 (stable)", "6.49", "", "soon"])
def test_too_old_or_unknown_is_refused_naming_the_version_and_why(text: str) -> None:
    with pytest.raises(UnsupportedRouterOS, match=r"7\.21") as caught:
        require_supported(System(version=text, board="RDS2216"))
    assert text in str(caught.value)


def test_the_system_is_read_from_a_list_or_a_lone_object() -> None:
    for text in ('[{"version":"7.24","board-name":"b"}]', '{"version":"7.24","board-name":"b"}'):
        assert read_system(Reply(("system", text))) == System(version="7.24", board="b")
    assert read_system(Reply(("system", "[]"))).version == ""


# What failures mean


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("not enough permissions (9)", NotReady),
        ("std failure: not allowed (9)", NotReady),
        ("bad command name disk (line 1 column 2)", NotReady),
        ("no such item (4)", ConcurrentChange),
        ("failure: already have such slot", ConcurrentChange),
        ("failure: item with such name already exists", ConcurrentChange),
        ("failure: not enough space", PoolFull),
        ("failure: No space left on device", PoolFull),
        ("disk is FULL (5)", PoolFull),
        ("could not unmount, stop using it first", VolumeInUse),
        ("action failed (6)", RouterOSError),
        ("namespace trouble", RouterOSError),
        ("", RouterOSError),
        ("csi-refused leftover-file (:error; line 1)", FailedPrecondition),
        ("csi-refused not-ours", NotOurs),
        ("csi-refused pool-full 77 (:error; line 1)", PoolFull),
        ("csi-refused nobody-knows", RouterOSError),
    ],
)
def test_texts_have_meanings(text: str, kind: type[DriverError]) -> None:
    error = explain(text, volume="pvc-1")
    assert type(error) is kind
    assert "pvc-1" in str(error)


@given(st.text())
def test_an_unknown_text_is_kept_verbatim_and_explaining_never_fails(text: str) -> None:
    error = explain(text)
    if type(error) is RouterOSError and text:
        assert excerpt(text) in error.what


def test_every_refusal_fills_its_gaps_and_says_more_than_its_name() -> None:
    names = {"file": "F{0}", "files": "FS", "directory": "D", "nodes": "N"}
    for reason in REFUSALS:
        text = str(explain(f"csi-refused {reason} raid10 5", volume="pvc-1", **names))
        assert reason not in text.split()
        assert "?" not in text


def test_only_a_parse_error_is_an_answer_without_a_marker() -> None:
    for text in (
        "syntax error (line 1 column 4)",
        "expected end of command (line 1 column 40)",
        "bad command name foo (line 1 column 1)",
        "not enough permissions (9)",
        "input does not match any value of type",
    ):
        assert rejected(text)
    for text in ("", "disk\r\n[]", "Session closed", "connection reset", "interrupted"):
        assert not rejected(text)


spaces = st.text(" \t\r", max_size=3)
shown = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=8))


@given(st.lists(st.tuples(shown, spaces, spaces), max_size=5), spaces, spaces, spaces)
def test_items_one_by_one_are_those_of_the_list(
    items: list[tuple[dict[str, object], str, str]], before: str, within: str, behind: str
) -> None:
    """However RouterOS pads them: the same as what parses it in one go."""
    inner = ",".join(f"{left}{json.dumps(item)}{right}" for item, left, right in items)
    text = f"{before}[{inner or within}]{behind}"
    assert json.loads(text) == [item for item, _, _ in items]
    assert list(Reply(("disks", text)).each("disks")) == [item for item, _, _ in items]


@pytest.mark.parametrize(
    "text",
    ["[", "[{}", "[{},", "[{},]", "[{} {}]", "[,]", "[{}]x", "[{}] [", "x", "[x]", '[{"a":1}'],
)
def test_a_list_that_is_cut_or_garbled_is_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(RouterOSError, match="printed no JSON below 'disks'"):
        list(Reply(("disks", text)).each("disks"))
    with pytest.raises(RouterOSError, match="printed no JSON below 'disks'"):
        Reply(("disks", text)).items("disks")


@pytest.mark.parametrize("text", ["[1]", '["a"]', "[{}, null]", "5", "null", "[[{}]]"])
def test_a_list_of_anything_else_is_none_of_items(text: str) -> None:
    with pytest.raises(RouterOSError, match="no list of items"):
        Reply(("disks", text)).items("disks")


def test_json_that_is_too_deep_is_none() -> None:
    with pytest.raises(RouterOSError, match="no JSON"):
        Reply(("disks", "[" + '{"a":[' * 100_000)).items("disks")


def test_a_long_list_is_not_made_in_one_go() -> None:
    """The second item is looked at when it is come to."""
    reply = Reply(("disks", '[{"a":1},rubbish]'))
    assert next(reply.each("disks")) == {"a": 1}
