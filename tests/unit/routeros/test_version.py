"""Versions of RouterOS, and which are too old."""

import pytest

from rds_csi.errors import UnsupportedRouterOS
from rds_csi.routeros.reply import Reply
from rds_csi.routeros.version import (
    System,
    parse_uptime,
    parse_version,
    read_system,
    require_supported,
)


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


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        *(("7.21", False), ("7.23.3 (stable)", False), ("7.23.4 (long-term)", True)),
        *(("7.23.10", True), ("7.24 (stable)", False), ("7.24.1", False), ("7.24.2", True)),
        *(("7.25beta1", False), ("7.25beta2 (testing)", False), ("7.25beta3", True)),
        *(("7.25beta10", True), ("7.25", True), ("8.0", True), ("", False), ("soon", False)),
    ],
)
def test_the_security_floor(text: str, fixed: bool) -> None:
    assert System(version=text, board="b").patched == fixed


def test_the_system_is_read_from_a_list_or_a_lone_object() -> None:
    for text in ('[{"version":"7.24","board-name":"b"}]', '{"version":"7.24","board-name":"b"}'):
        assert read_system(Reply(("system", text))) == System(version="7.24", board="b")
    assert read_system(Reply(("system", "[]"))).version == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:07", 7),
        ("3d00:10:00", 3 * 86400 + 600),
        ("1w2d03:04:05", 9 * 86400 + 3 * 3600 + 245),
        ("1w2d3h4m5s", 9 * 86400 + 3 * 3600 + 245),
        ("5m", 300),
        ("2w", 14 * 86400),
        ("", None),
        ("soon", None),
        ("7", None),
        ("-1s", None),
    ],
)
def test_uptimes(text: str, seconds: int | None) -> None:
    assert parse_uptime(text) == seconds
    item = f'[{{"version":"7.24","board-name":"b","uptime":"{text}"}}]'
    assert read_system(Reply(("system", item))).uptime == seconds
