"""What the tests of this room share."""

from pathlib import Path

import pytest

from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import Calls


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A node with nothing on it."""
    return FakeHost(tmp_path)


@pytest.fixture
def calls(host: FakeHost) -> Calls:
    """A new volume."""
    calls = Calls(host=host)
    calls.create()
    return calls
