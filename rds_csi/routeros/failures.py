"""What a failed line means: the reasons our own lines give, and the texts of RouterOS.

RouterOS has no error codes, only texts that change between versions and may carry a suffix in
parentheses. So texts are searched, without regard to case; one that is not known is kept
verbatim in a :class:`RouterOSError`.
"""

import re
from typing import Final, NamedTuple

from rds_csi.errors import (
    ConcurrentChange,
    DriverError,
    FailedPrecondition,
    NotOurs,
    NotReady,
    OutcomeUnknown,
    PoolFull,
    RouterOSError,
    VolumeInUse,
    VolumeNotFound,
)
from rds_csi.routeros.reply import excerpt


class Meaning(NamedTuple):
    """The class of a failure, what it says (empty: RouterOS's own text) and the way out."""

    error: type[DriverError]
    what: str = ""
    advice: str = ""


REFUSALS: Final[dict[str, Meaning]] = {
    "leftover-file": Meaning(
        FailedPrecondition,
        "the file {file} exists without a disk entry; it may hold data, so it is not taken over",
        'if nobody needs it: /file/remove [find name="{file}"]',
    ),
    "no-pool": Meaning(NotReady, "the RDS has no disk {pool}", "see /disk/print and volumePath"),
    "not-mounted": Meaning(
        NotReady, "the pool {pool} is not mounted on the RDS", "see /disk/print"
    ),
    "no-directory": Meaning(
        NotReady,
        "the RDS has no directory {directory}",
        '/file/add type=directory name="{directory}"',
    ),
    "pool-full": Meaning(
        PoolFull, "the pool {pool} has too little room: {detail} bytes are free, a reserve included"
    ),
    "not-ours": Meaning(
        NotOurs, "its disk on the RDS carries no record of ours", "see the comment in /disk/print"
    ),
    "foreign-file": Meaning(NotOurs, "its disk on the RDS refers to a file that is not ours"),
    "shared-file": Meaning(
        FailedPrecondition, "another disk on the RDS uses its file", "see file-path in /disk/print"
    ),
    "many-disks": Meaning(FailedPrecondition, "the RDS has more than one disk of this slot"),
    "still-mounted": Meaning(
        VolumeInUse,
        "the RDS itself has its file system mounted and does not let go of it",
        "see mount-point in /disk/print; two that write to it would destroy it",
    ),
    "no-disk": Meaning(VolumeNotFound, "the RDS has no such disk"),
    "many-files": Meaning(
        FailedPrecondition,
        "its disk is gone, and the RDS has more than one file of its name: {files}",
        "remove those that nobody needs with /file/remove",
    ),
    "in-use": Meaning(
        VolumeInUse, "it is still published to {nodes}", "it can be deleted once unpublished"
    ),
    "disk-stays": Meaning(OutcomeUnknown, "the RDS still shows its disk after removing it"),
    "file-stays": Meaning(
        OutcomeUnknown, "its disk is gone, but the RDS still shows its file after removing it"
    ),
    "no-size": Meaning(RouterOSError, "the RDS shows no size of its disk"),
}
"""The reasons in ``commands.py``."""

TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    (
        r"not enough permissions|not allowed",
        Meaning(NotReady, advice="the RouterOS user's group needs policy=ssh,read,write,test"),
    ),
    (
        r"bad command name",
        Meaning(NotReady, advice="is the rose-storage package installed on the RDS?"),
    ),
    (r"\b(no|not enough|out of) (free |disk )?space\b|\bspace left\b|\bfull\b", Meaning(PoolFull)),
    (r"no such item", Meaning(ConcurrentChange, advice="it changed while the RDS worked on it")),
    (r"already (have|exists)", Meaning(ConcurrentChange, advice="another call was faster")),
    (r"stop using it first|\bin use\b|\bbusy\b", Meaning(VolumeInUse)),
)
"""What RouterOS says. The first that is found counts."""

_REFUSED: Final = re.compile(r"csi-refused ([a-z-]+)(?: (\d+))?")
_REJECTED: Final = re.compile(
    r"\(line \d+ column \d+\)|not enough permissions|not allowed"
    r"|input does not match any value|contains invalid trailing characters"
)


def rejected(text: str) -> bool:
    """Whether output without a marker is RouterOS's refusal to run the line at all."""
    return bool(_REJECTED.search(text))


def explain(text: str, *, volume: str = "", **names: str) -> DriverError:
    """The error for RouterOS's ``text``. ``names`` fill the gaps of our own reasons.

    Never fails: what is not known becomes a :class:`RouterOSError` with the text as it came.
    """
    refused = _REFUSED.search(text)
    if refused and refused[1] in REFUSALS:
        meaning = REFUSALS[refused[1]]
        gaps = dict.fromkeys(("file", "files", "pool", "directory", "nodes"), "?") | names
        gaps["detail"] = refused[2] or "?"
        return meaning.error(
            meaning.what.format(**gaps), volume=volume, advice=meaning.advice.format(**gaps)
        )
    for pattern, meaning in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning.error(
                f"RouterOS says: {excerpt(text)}", volume=volume, advice=meaning.advice
            )
    return RouterOSError(f"RouterOS says: {excerpt(text) or '(nothing)'}", volume=volume)
