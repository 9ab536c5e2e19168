"""The guest's side of the kernel tests; ``nox -s kernel`` boots the machine around them."""

import pytest

from tests.lab.guard import skip_outside_the_lab
from tests.lab.world import client_key, driver, kubernetes, world, zygote

__all__ = ["client_key", "driver", "kubernetes", "world", "zygote"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive", action="store_true", help="also the combinations that take an hour"
    )
    parser.addoption("--half", type=int, choices=(1, 2), help="every other test: 1 or 2")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_outside_the_lab(items)
    left_out = []
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    chosen = [item for item in items if item not in left_out]
    if half := config.getoption("--half"):
        left_out += chosen[2 - half :: 2]
        chosen = chosen[half - 1 :: 2]
    items[:] = chosen
    config.hook.pytest_deselected(items=left_out)
