"""Whoever borrows a fixture of the lab's world has to borrow what that one asks for."""

import importlib
import inspect

import pytest

from tests.lab import world

BORROWERS = ("tests.kernel.conftest", "tests.sanity.conftest", "tests.image.lab.conftest")
PYTESTS_OWN = {"tmp_path", "tmp_path_factory", "request"}


def asks_for(fixture: object) -> set[str]:
    return set(inspect.signature(inspect.unwrap(fixture)).parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BORROWERS)
def test_the_fixtures_that_a_fixture_asks_for_are_there(name: str) -> None:
    borrower = vars(importlib.import_module(name))
    borrowed = [each for each in borrower["__all__"] if hasattr(world, each)]
    assert "world" in borrowed
    wanted = {word for each in borrowed for word in asks_for(borrower[each])} - PYTESTS_OWN
    assert wanted - borrower.keys() == set()
