"""The README's first steps, as a newcomer takes them (``nox -s readme``; needs root)."""

from pathlib import Path

import pytest

from tests.docs.clone import clone as copy


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="also on bare Debian systems")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--exhaustive"):
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository as a user has it."""
    return copy(tmp_path / "clone")
