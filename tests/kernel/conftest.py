"""The guest's side of the kernel tests; ``nox -s kernel`` boots the machine around them."""

import pytest

from tests.lab.guard import skip_outside_the_lab
from tests.lab.world import client_key, driver, kubernetes, world, zygote

__all__ = ["client_key", "driver", "kubernetes", "world", "zygote"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_outside_the_lab(items)
