"""Whether this machine's clock is kept right, as its kernel says."""

from rds_csi.doctor.node.time_sync import clock_state


def test_the_kernel_answers() -> None:
    state = clock_state()
    assert state.maximum_error >= 0


def test_the_error_is_in_seconds() -> None:
    """The kernel counts it in microseconds, and never beyond 16 s."""
    assert clock_state().maximum_error <= 16
