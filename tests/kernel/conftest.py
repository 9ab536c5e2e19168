"""The guest's side of the kernel tests; ``nox -s kernel`` boots the machine around them."""

import pytest

from tests.lab.guard import skip_outside_the_lab
from tests.lab.world import client_key, driver, flags, kubernetes, listening, world, zygote

__all__ = ["client_key", "driver", "flags", "kubernetes", "listening", "world", "zygote"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive", action="store_true", help="also the combinations that take an hour"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_outside_the_lab(items)
    if config.getoption("--exhaustive"):
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)
