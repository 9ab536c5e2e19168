"""What nobody has measured of RouterOS and the driver has to live with, and what this RDS shows.

The questions are those of the project's notes, in their order. Each is either measured, or it is
said why it cannot be from here; some are measured in part. What has to change something is
measured on scratch volumes, and only if that was asked for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from rds_csi.doctor.rds import measures
from rds_csi.doctor.rds.measures import Measured
from rds_csi.doctor.rds.scratch import Bench
from rds_csi.errors import DriverError

NOT_FROM_HERE: Final = "not measurable from here because"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question; what was measured and how, and what was not and why. Either may be empty."""

    question: str
    result: str = ""
    how: str = ""
    missing: str = ""


class Question(NamedTuple):
    """One question; ``ask`` answers it, on scratch volumes if it ``writes``.

    ``beyond`` is what only somebody else can find out, and why.
    """

    text: str
    ask: Callable[[Bench], Awaitable[Measured]]
    writes: bool = True
    beyond: str = ""


QUESTIONS: Final = (
    Question(
        "Does `set file-size=` grow a disk, unexported, exported and connected?",
        measures.resize,
    ),
    Question(
        "What does RouterOS say to a slot that exists, and to a full pool?",
        measures.same_slot,
        beyond="a pool would have to be filled, which takes the room from everybody else: on an "
        "RDS without data, `/disk/add type=file` with a file-size above what is free",
    ),
    Question(
        "What does `add` with `file-size` do over a file that exists?",
        measures.over_file,
    ),
    Question(
        "What does `nvme-tcp-server-allow-host-name` take, and what becomes of live sessions?",
        measures.allow_host,
    ),
    Question(
        "Does `/disk/copy` copy between file disks, how fast, and does it outlive its session?",
        measures.copy_disk,
        beyond="a copy that goes on could not be stopped again: close the session of a long one",
    ),
    Question("Does `/file/copy` share the data (reflink) or copy it?", measures.copy_file),
    Question("What does `add copy-from=` take over, data too?", measures.copy_settings),
    Question(
        "What exit status have SSH commands that succeed and that fail?",
        measures.exit_status,
        writes=False,
    ),
    Question("Are slots longer than 32 characters accepted?", measures.long_slot),
    Question(
        "How many exports can there be?",
        measures.exports,
        writes=False,
        beyond="to find the limit is to open exports until the RDS refuses, beside those in use",
    ),
    Question(
        "What does `mount-filesystem=yes` do to a volume with ext4 in it that is exported?",
        measures.mountable,
        writes=False,
        beyond="RouterOS would mount what is made there and may not let go of it again, so that "
        "the scratch volume could not be removed; and on a volume in use it would risk the data",
    ),
    Question("Is `where file-path=` compared with the leading slash?", measures.find_by_path),
    Question("Is a line as long as the driver's longest accepted?", measures.long_line, False),
    Question("Does a command go on when its channel closes?", measures.goes_on),
    Question(
        "Can an export be renamed, and does closing or renaming it end live sessions?",
        measures.rename,
        beyond="whether the new name, and the record with it, are kept when the RDS loses power at "
        "once: on an RDS without data, take its power a second after a `/disk/set`",
    ),
)
"""The first eleven are the notes' own; the others, the driver's further assumptions."""


async def findings(bench: Bench, *, write: bool) -> list[Finding]:
    """An answer to every question, in their order."""
    return [await _answer(question, bench, write=write) for question in QUESTIONS]


async def _answer(question: Question, bench: Bench, *, write: bool) -> Finding:
    if question.writes and not write:
        return Finding(question.text, missing=f"{NOT_FROM_HERE} --write was not given")
    try:
        measured = await question.ask(bench)
    except DriverError as error:
        return Finding(question.text, missing=f"{NOT_FROM_HERE} measuring failed: {error}")
    beyond = "; ".join(why for why in (measured.unseen, question.beyond) if why)
    missing = f"{NOT_FROM_HERE} {beyond}" if beyond else ""
    return Finding(question.text, measured.result, measured.how, missing)
