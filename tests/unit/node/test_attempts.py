"""What is told of a volume whose stage has not succeeded."""

import asyncio

import pytest

from rds_csi.errors import ConnectFailed
from rds_csi.node.attempts import MOST, Attempts


def test_a_failure_is_told_until_a_stage_succeeds() -> None:
    attempts = Attempts()
    assert attempts.of("a") == ""
    with attempts.staging("a"):
        assert attempts.of("a") == "its stage is under way"
    assert attempts.of("a") == ""
    with pytest.raises(ConnectFailed), attempts.staging("a"):
        raise ConnectFailed("refused", volume="a", advice="wait")
    assert attempts.of("a") == "its stage failed: refused"
    with attempts.staging("a"):
        assert attempts.of("a") == "its stage failed: refused", "until it is known better"
    assert attempts.of("a") == ""


def test_an_attempt_that_was_broken_off_is_told() -> None:
    attempts = Attempts()
    with pytest.raises(asyncio.CancelledError), attempts.staging("a"):
        raise asyncio.CancelledError
    assert attempts.of("a") == "its stage was broken off"
    attempts.forget("a")
    attempts.forget("a")
    assert attempts.of("a") == ""


def test_the_oldest_is_forgotten_first() -> None:
    attempts = Attempts()
    for number in range(MOST + 1):
        with pytest.raises(ConnectFailed), attempts.staging(str(number)):
            raise ConnectFailed("refused")
    assert attempts.of("0") == ""
    assert attempts.of("1")
    assert attempts.of(str(MOST))
