"""The machine's clock: one hand for what is written down, one for what is measured."""

import time

import pytest

from rds_csi.runtime.clock import Clock, SystemClock


def test_now_is_since_1970_and_is_what_the_machine_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock: Clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert clock.now() == 5.0


def test_what_is_measured_does_not_jump_when_the_machine_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert before <= clock.monotonic() < before + 60
