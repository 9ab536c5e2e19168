"""What the tests of the wire share."""

import pytest
import structlog
from structlog.testing import LogCapture

from tests.unit.fakes.csi_services import (
    FakeController,
)
from tests.unit.fakes.released_csi import ReleasedCsi


@pytest.fixture(scope="module")
def released():
    return ReleasedCsi()


@pytest.fixture
def controller():
    return FakeController()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "csi.sock"


@pytest.fixture
def lines():
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)
