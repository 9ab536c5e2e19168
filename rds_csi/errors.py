"""Every error the driver can raise, in one tree.

A class says two things about its kind of failure: the gRPC code a caller of an RPC gets
(``code``) and whether the same attempt may succeed a moment later (``transient``, read by
``retry.py``). The message says what happened, to which volume, and what to do about it.

Which code is chosen matters more than it seems: after every code that is not in :data:`OPEN` the
external provisioner takes it for proven that no volume exists, and the kubelet that nothing is
staged, and both forget it. So whatever leaves the outcome open is UNAVAILABLE, never INTERNAL.
``docs/errors.md`` says of each code what each caller does with it.
"""

import asyncio
from enum import IntEnum
from typing import Any, ClassVar, Final


class Code(IntEnum):
    """gRPC status codes by number, so that the rooms below the services need no gRPC import."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


OPEN: Final = frozenset({Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.UNAVAILABLE})
"""After these a caller has to reckon with what it asked for being there, or under way.

They are what external-provisioner and the kubelet have in common: the kubelet counts
RESOURCE_EXHAUSTED among them as well, the provisioner does not.
"""


class DriverError(Exception):
    """Root of the tree. ``volume`` names the volume concerned, ``advice`` the way out."""

    code: ClassVar[Code] = Code.INTERNAL
    transient: ClassVar[bool] = False

    def __init__(self, what: str, *, volume: str = "", advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.volume = volume
        self.advice = advice

    def __str__(self) -> str:
        subject = f"volume {self.volume}: " if self.volume else ""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{subject}{self.what}{advice}"


def code_of(error: BaseException) -> Code:
    """What the error is counted as: INTERNAL, where it is none of ours."""
    return error.code if isinstance(error, DriverError) else Code.INTERNAL


# The request itself is wrong: repeating it changes nothing.


class InvalidRequest(DriverError):
    """A field is missing, malformed or contradicts another."""

    code = Code.INVALID_ARGUMENT


class InvalidParameter(InvalidRequest):
    """A StorageClass parameter is unknown or out of its range."""


class SizeOutOfRange(DriverError):
    """No size satisfies the capacity range."""

    code = Code.OUT_OF_RANGE


class BadToken(DriverError):
    """A paging token that this driver did not issue (the spec asks for ABORTED)."""

    code = Code.ABORTED


# The state of the world forbids it.


class VolumeNotFound(DriverError):
    """The RDS answered, and holds no such volume."""

    code = Code.NOT_FOUND


class PathNotFound(DriverError):
    """The node has nothing staged or published at the path."""

    code = Code.NOT_FOUND


class NodeNotFound(DriverError):
    """No node of that name can be meant."""

    code = Code.NOT_FOUND


class VolumeMismatch(DriverError):
    """It exists already, made or mounted with other properties than asked for now."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(DriverError):
    """Something has to be changed by somebody before this can work."""

    code = Code.FAILED_PRECONDITION


class VolumeInUse(FailedPrecondition):
    """Published to another node, still mounted, or still published while being deleted."""


class NotOurs(FailedPrecondition):
    """The ownership record is missing or another owner's: we do not touch it."""


class MadeForOther(FailedPrecondition):
    """The volume was made for another use than is asked for now: another file system, or block."""


class NotBlank(FailedPrecondition):
    """The device is not proven blank, so it is not formatted."""


class NotGrown(FailedPrecondition):
    """The volume works, at its old size.

    FAILED_PRECONDITION because of the kubelet: after every other code it starts no pod with the
    volume before the growth has succeeded, which may be never on this connection.
    """


class NotReady(FailedPrecondition):
    """The host or the RDS lacks something: a kernel module, a program, a pool, a version."""


class SocketUnusable(NotReady):
    """The driver cannot listen where it was told to: taken, not a socket, or not possible."""


class UnsupportedRouterOS(NotReady):
    """RouterOS older than 7.21 cannot set the NQN of an export."""


class PoolFull(DriverError):
    """The pool has not enough free space."""

    code = Code.RESOURCE_EXHAUSTED


class RecordFull(DriverError):
    """So many nodes have the volume that its record has no room for one more."""

    code = Code.RESOURCE_EXHAUSTED


# It may work later.


class OperationPending(DriverError):
    """Another call for the same volume is running."""

    code = Code.ABORTED


class ConcurrentChange(DriverError):
    """Somebody else changed the volume's record between our read and our write.

    ``disk`` is what stands there now (a ``routeros.Disk``), or None where that is not known.
    """

    code = Code.ABORTED
    transient = True

    def __init__(self, what: str, *, volume: str = "", advice: str = "", disk: Any = None) -> None:
        super().__init__(what, volume=volume, advice=advice)
        self.disk = disk


class Unavailable(DriverError):
    """The other side cannot be reached now."""

    code = Code.UNAVAILABLE
    transient = True


class OutcomeUnknown(Unavailable):
    """The command was sent and its reply was lost: it may have happened, or not.

    Not transient for the retry policy: whoever repeats it reads the state back first.
    """

    transient = False


class NotUndone(Unavailable):
    """It failed and could not take back all that it had done: no caller may forget it."""

    transient = False


class PoolAway(Unavailable):
    """The pool of a volume is not mounted, so nothing can be said of what lies on it.

    As while an RDS boots. Not transient for the retry policy: it takes longer than that.
    """

    transient = False


class ReplyTooLong(OutcomeUnknown):
    """The reply was cut off, because it would not have fitted into memory."""


class NotAuthorised(Unavailable):
    """The RDS refused our key, or its host key is not the pinned one.

    UNAVAILABLE, because whether a volume exists stays unknown; not transient, because only a
    person can change it.
    """

    transient = False


class UntrustedHostKey(NotAuthorised):
    """Whoever answers at the RDS's address shows no host key that is pinned."""


class ConnectFailed(Unavailable):
    """``nvme connect`` did not succeed. Transient unless its text says otherwise."""


class ConnectRejected(ConnectFailed):
    """``nvme connect`` failed in a way that repeating it does not mend."""

    transient = False


class ShuttingDown(Unavailable):
    """The driver is stopping; the successor will take the call."""

    transient = False


class DeadlineExceeded(DriverError):
    """The time the caller gave is up."""

    code = Code.DEADLINE_EXCEEDED


# It failed.


class Internal(DriverError):
    """Something failed in a way that needs to be looked at."""


class RouterOSError(Internal):
    """RouterOS rejected a command with a text we have no class for; the text is kept verbatim."""


class CommandFailed(Internal):
    """A program on the node ended with an error. ``returncode`` and ``stderr`` are kept."""

    def __init__(
        self, what: str, *, returncode: int, stderr: str = "", volume: str = "", advice: str = ""
    ) -> None:
        super().__init__(what, volume=volume, advice=advice)
        self.returncode = returncode
        self.stderr = stderr


class CommandTimeout(DeadlineExceeded):
    """A program did not end in time and was killed."""

    transient = True


class CommandStuck(Unavailable):
    """A killed program does not die (uninterruptible sleep): its volume stays locked.

    ``gone`` is set when the program has ended after all; until then it may still act, so what
    becomes of its work is open.
    """

    transient = False

    def __init__(
        self,
        what: str,
        *,
        gone: asyncio.Event | None = None,
        volume: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(what, volume=volume, advice=advice)
        self.gone = gone if gone is not None else asyncio.Event()
