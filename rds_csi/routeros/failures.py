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
    PoolAway,
    PoolFull,
    RouterOSError,
    VolumeInUse,
    VolumeNotFound,
)
from rds_csi.routeros.reply import HEADINGS, excerpt

PERHAPS: Final = "time(d )?out|interrupted|try again|respon"
"""What RouterOS says where it does not know itself whether it was done, or is still under way.

``action timed out - try again, ...`` was seen; "timeout", "not responding" and the others are of
its kind. A pattern that RouterOS and Python read alike, and short, for it is part of each line.
"""


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
    "pool-gone": Meaning(
        PoolAway, "the RDS has no disk {pool}, the pool of the volume", "see /disk/print"
    ),
    "not-mounted": Meaning(
        PoolAway, "the pool {pool} is not mounted on the RDS", "see /disk/print"
    ),
    "no-directory": Meaning(
        NotReady,
        "the RDS has no directory {directory}",
        '/file/add type=directory name="{directory}"',
    ),
    "pool-full": Meaning(
        PoolFull,
        "the pool {pool} has too little room: {free} bytes are free and promised to no volume, "
        "a reserve included",
    ),
    "not-ours": Meaning(
        NotOurs, "its disk on the RDS carries no record of ours", "see the comment in /disk/print"
    ),
    "foreign-file": Meaning(NotOurs, "its disk on the RDS refers to a file that is not ours"),
    "shared-file": Meaning(
        FailedPrecondition, "another disk on the RDS uses its file", "see file-path in /disk/print"
    ),
    "many-disks": Meaning(NotOurs, "the RDS has more than one disk of this slot"),
    "locked": Meaning(
        ConcurrentChange,
        "another change of it is under way on the RDS",
        "one that was broken off stands in the way for a minute",
    ),
    "lock-lost": Meaning(
        OutcomeUnknown, "the RDS took so long over a change of it that another may have run beside"
    ),
    "still-mounted": Meaning(
        VolumeInUse,
        "the RDS itself has its file system mounted and does not let go of it",
        "see mount-point in /disk/print; two that write to it would destroy it",
    ),
    "no-rename": Meaning(
        NotReady,
        "the RDS does not give its export the name of this hand-over: {said}",
        "it is attached to nobody; with --keep-export-names (Helm: rds.renameExports: false) "
        "exports keep their names, and the RDS does not refuse a former holder that comes back",
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
    "grows-later": Meaning(
        VolumeInUse,
        "it is published, and what an RDS does to connected nodes when it grows is not known",
        "it grows once no node has it: stop the pods that use it; with --path-layer "
        "(pathLayer.enabled) what is attached from then on grows in use; or say --growth=always "
        "(rds.growth) where rds-csi doctor rds --write saw that a connected host is told",
    ),
    "disk-stays": Meaning(OutcomeUnknown, "the RDS still shows its disk after removing it"),
    "file-stays": Meaning(
        OutcomeUnknown, "its disk is gone, but the RDS still shows its file after removing it"
    ),
    "no-size": Meaning(
        PoolAway,
        "the RDS shows no size of its disk",
        "see /disk/print: its pool may not be mounted, or its file gone",
    ),
}
"""The reasons in ``commands.py``."""

TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    (
        PERHAPS,
        Meaning(OutcomeUnknown, advice="it may have happened, or happen yet; nothing was undone"),
    ),
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

_REFUSED: Final = re.compile(r"csi-refused ([a-z-]+)(?: ([A-Za-z0-9._-]+))?(?: (-?\d+))?")
_REJECTED: Final = re.compile(
    r"\(line \d+ column \d+\)|not enough permissions|not allowed"
    r"|input does not match any value|contains invalid trailing characters"
)


def rejected(text: str) -> bool:
    """Whether output without a marker is RouterOS's refusal to run the line at all.

    A line that was refused has printed nothing of ours.
    """
    begun = any(line.strip() in HEADINGS for line in text.split("\n"))
    return not begun and bool(_REJECTED.search(text))


def refused(text: str) -> bool:
    """Whether it is one of our own lines that refused, for a reason that is known.

    Without its lock a line has not looked at anything: that is no such reason.
    """
    return _reason(text) in REFUSALS


def size_unknown(volume: str) -> DriverError:
    """The error for a disk that shows no size."""
    return explain("csi-refused no-size", volume=volume)


def is_locked(text: str) -> bool:
    """Whether the line did nothing, because another one of the same volume is running."""
    return _reason(text) == "locked"


def _reason(text: str) -> str:
    """Why one of our own lines refused; empty where it did not.

    "no-lock" is followed by what RouterOS said: that there is one already, or another text.
    """
    found = _REFUSED.search(text)
    if found is None:
        return ""
    return "locked" if found[1] == "no-lock" and "already" in text else found[1]


def explain(text: str, *, volume: str = "", **names: str) -> DriverError:
    """The error for RouterOS's ``text``. ``names`` fill the gaps of our own reasons.

    Never fails: what is not known becomes a :class:`RouterOSError` with the text as it came.
    """
    found, reason = _REFUSED.search(text), _reason(text)
    if reason == "no-rename" and re.search(PERHAPS, text, re.IGNORECASE):
        reason = ""  # RouterOS has not refused the name: it does not know
    if found and reason in REFUSALS:
        meaning = REFUSALS[reason]
        gaps = dict.fromkeys(("file", "files", "directory", "nodes"), "?") | names
        said = excerpt(text[found.end(1) :].strip()) or "(nothing)"
        gaps |= {"pool": found[2] or "?", "free": found[3] or "?", "said": said}
        return meaning.error(
            meaning.what.format(**gaps), volume=volume, advice=meaning.advice.format(**gaps)
        )
    for pattern, meaning in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning.error(
                f"RouterOS says: {excerpt(text)}", volume=volume, advice=meaning.advice
            )
    return RouterOSError(f"RouterOS says: {excerpt(text) or '(nothing)'}", volume=volume)
