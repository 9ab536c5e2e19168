"""The guest's side of the sanity tests; ``nox -s sanity`` boots the machine around them."""

from pathlib import Path

import pytest

from tests.lab.guard import skip_outside_the_lab
from tests.lab.world import client_key, listening, world, zygote

__all__ = ["client_key", "listening", "world", "zygote"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--csi-sanity", type=Path, help="the csi-sanity program")
    parser.addoption("--results", type=Path, help="where its JUnit files go")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_outside_the_lab(items)
