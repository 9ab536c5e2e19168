"""What the tests of this room share."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import Calls
from tests.unit.node.healing import Healing
from tests.unit.node.mapped_host import MappedHost


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


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads, so there are none."""

    async def here(work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return work(*args, **named)

    monkeypatch.setattr(asyncio, "to_thread", here)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
async def healing(tmp_path: Path, virtual: None) -> AsyncIterator[Healing]:
    """A healer that is not started yet."""
    del virtual
    healing = Healing(MappedHost(tmp_path))
    yield healing
    await healing.stop()
