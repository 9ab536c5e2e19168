"""What is asked of an RDS that nobody has measured yet; how it answers is in tests/rds."""

from typing import cast

import pytest

from rds_csi.doctor.rds import unknowns
from rds_csi.doctor.rds.measures import Measured
from rds_csi.doctor.rds.scratch import Bench
from rds_csi.doctor.rds.unknowns import NOT_FROM_HERE, QUESTIONS, Finding, Question, findings
from rds_csi.errors import NotReady

NOWHERE = cast("Bench", None)
"""No question asked here looks at it."""


async def well(_: Bench) -> Measured:
    return Measured("yes", "looked")


async def half_seen(_: Bench) -> Measured:
    return Measured("yes", "looked", unseen="nobody could connect")


async def failing(_: Bench) -> Measured:
    raise NotReady("no pool")


async def never(_: Bench) -> Measured:
    raise AssertionError("asked")


@pytest.mark.parametrize(
    ("question", "write", "finding"),
    [
        (Question("?", well), True, Finding("?", "yes", "looked")),
        (Question("?", well, False), False, Finding("?", "yes", "looked")),
        (
            Question("?", half_seen, beyond="that would cost data"),
            True,
            Finding(
                "?", "yes", "looked", f"{NOT_FROM_HERE} nobody could connect; that would cost data"
            ),
        ),
        (
            Question("?", failing),
            True,
            Finding("?", missing=f"{NOT_FROM_HERE} measuring failed: no pool"),
        ),
        (
            Question("?", never),
            False,
            Finding("?", missing=f"{NOT_FROM_HERE} --write was not given"),
        ),
    ],
)
async def test_each_question_is_answered_or_it_is_said_why_not(
    monkeypatch: pytest.MonkeyPatch, *, question: Question, write: bool, finding: Finding
) -> None:
    monkeypatch.setattr(unknowns, "QUESTIONS", (question,))
    assert await findings(NOWHERE, write=write) == [finding]


def test_the_first_eleven_questions_are_those_of_the_notes() -> None:
    """``facts/routeros.md``, section 13, word by word what each is about."""
    about = (
        *("file-size", "slot that exists, and to a full pool", "over a file that exists"),
        *("allow-host-name", "`/disk/copy`", "reflink", "copy-from", "exit status"),
        *("longer than 32", "How many exports", "mount-filesystem=yes"),
    )
    for question, words in zip(QUESTIONS, about, strict=False):
        assert words in question.text
    # What nobody can find out by volumes of his own, and without harm to others.
    beyond = [number for number, question in enumerate(QUESTIONS, start=1) if question.beyond]
    assert beyond == [2, 5, 10, 11, 15]
