"""The one tree of errors: what each class says to a caller, and what a caller may forget after."""

import asyncio
import inspect

import pytest
from grpclib.const import Status

from rds_csi import errors
from rds_csi.errors import OPEN, Code, DriverError, code_of
from rds_csi.runtime import retry

CLASSES = sorted(
    (
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, DriverError)
    ),
    key=lambda each: each.__name__,
)


def make(kind: type[DriverError], what: str = "it failed", **fields: str) -> DriverError:
    if issubclass(kind, errors.CommandFailed):
        return kind(what, returncode=1, **fields)
    return kind(what, **fields)


@pytest.mark.parametrize("kind", CLASSES)
def test_each_says_which_volume_what_happened_and_what_to_do(kind: type[DriverError]) -> None:
    assert str(make(kind)) == "it failed"
    full = make(kind, volume="pvc-1", advice="mend it")
    assert str(full) == "volume pvc-1: it failed (mend it)"
    assert (full.what, full.volume, full.advice) == ("it failed", "pvc-1", "mend it")


def test_the_codes_are_those_of_grpc() -> None:
    theirs = {each.name: each.value for each in Status}
    assert {code.name: code.value for code in Code}.items() <= theirs.items()


@pytest.mark.parametrize("kind", CLASSES)
def test_what_may_succeed_in_a_moment_leaves_the_outcome_open(kind: type[DriverError]) -> None:
    """Else the caller would forget a volume of which the next attempt finds out."""
    if kind.transient:
        assert kind.code in OPEN


OPEN_ENDED = {
    errors.OutcomeUnknown,
    errors.ReplyTooLong,
    errors.NotUndone,
    errors.PoolAway,
    errors.NotAuthorised,
    errors.UntrustedHostKey,
    errors.Unavailable,
    errors.ConnectFailed,
    errors.ConnectRejected,
    errors.ShuttingDown,
    errors.CommandStuck,
    errors.CommandTimeout,
    errors.DeadlineExceeded,
    errors.ConcurrentChange,
    errors.OperationPending,
    errors.BadToken,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_whatever_leaves_the_outcome_open_is_never_final(kind: type[DriverError]) -> None:
    assert (kind.code in OPEN) == (kind in OPEN_ENDED)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.VolumeNotFound, Code.NOT_FOUND),
        (errors.NodeNotFound, Code.NOT_FOUND),
        (errors.PathNotFound, Code.NOT_FOUND),
        (errors.VolumeMismatch, Code.ALREADY_EXISTS),
        (errors.VolumeInUse, Code.FAILED_PRECONDITION),
        (errors.NotOurs, Code.FAILED_PRECONDITION),
        (errors.NotBlank, Code.FAILED_PRECONDITION),
        (errors.NotGrown, Code.FAILED_PRECONDITION),
        (errors.SizeOutOfRange, Code.OUT_OF_RANGE),
        (errors.PoolFull, Code.RESOURCE_EXHAUSTED),
        (errors.BadToken, Code.ABORTED),
        (errors.InvalidParameter, Code.INVALID_ARGUMENT),
        (errors.RouterOSError, Code.INTERNAL),
    ],
)
def test_codes_that_the_csi_specification_asks_for(kind: type[DriverError], code: Code) -> None:
    assert kind.code == code


@pytest.mark.parametrize(
    "kind",
    [
        errors.OutcomeUnknown,
        errors.ReplyTooLong,
        errors.NotUndone,
        errors.PoolAway,
        errors.NotAuthorised,
        errors.ConnectRejected,
        errors.ShuttingDown,
        errors.CommandStuck,
    ],
)
async def test_what_has_to_be_looked_at_first_is_not_repeated(kind: type[DriverError]) -> None:
    """They are UNAVAILABLE to the caller, and yet no retry of ours does them again."""
    calls = 0

    async def attempt() -> None:
        nonlocal calls
        calls += 1
        raise make(kind)

    with pytest.raises(kind):
        await retry.retrying(attempt, what="test")
    assert calls == 1


def test_what_is_none_of_ours_counts_as_internal() -> None:
    assert code_of(ValueError()) == code_of(asyncio.CancelledError()) == Code.INTERNAL
    assert code_of(errors.PoolFull("x")) == Code.RESOURCE_EXHAUSTED


def test_what_a_program_said_is_kept() -> None:
    failed = errors.CommandFailed("mkfs failed", returncode=5, stderr="why", volume="v")
    assert (failed.returncode, failed.stderr) == (5, "why")


def test_a_stuck_program_is_not_gone_and_another_is_not_the_same() -> None:
    one, other = errors.CommandStuck("x"), errors.CommandStuck("x")
    one.gone.set()
    assert not other.gone.is_set()
    gone = asyncio.Event()
    assert errors.CommandStuck("x", gone=gone).gone is gone


def test_a_conflict_tells_what_stands_there_now() -> None:
    assert errors.ConcurrentChange("x").disk is None
    assert errors.ConcurrentChange("x", disk="DISK").disk == "DISK"
