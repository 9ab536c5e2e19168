"""What a failed line means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from rds_csi.routeros.failures import REFUSALS, explain, rejected
from rds_csi.routeros.reply import excerpt


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("not enough permissions (9)", NotReady),
        ("std failure: not allowed (9)", NotReady),
        ("bad command name disk (line 1 column 2)", NotReady),
        ("no such item (4)", ConcurrentChange),
        ("failure: already have such slot", ConcurrentChange),
        ("failure: item with such name already exists", ConcurrentChange),
        ("failure: not enough space", PoolFull),
        ("failure: No space left on device", PoolFull),
        ("disk is FULL (5)", PoolFull),
        ("could not unmount, stop using it first", VolumeInUse),
        ("action failed (6)", RouterOSError),
        ("action timed out - try again, if error continues contact MikroTik (13)", OutcomeUnknown),
        ("std failure: timeout (13)", OutcomeUnknown),
        ("Action Timed Out", OutcomeUnknown),
        ("interrupted", OutcomeUnknown),
        ("failure: disk not responding", OutcomeUnknown),
        ("failure: no response, disk is busy", OutcomeUnknown),
        ("csi-refused no-lock action timed out", OutcomeUnknown),
        ("csi-refused no-rename action timed out (:error; line 1)", OutcomeUnknown),
        ("namespace trouble", RouterOSError),
        ("", RouterOSError),
        ("csi-refused leftover-file (:error; line 1)", FailedPrecondition),
        ("csi-refused not-ours", NotOurs),
        ("csi-refused pool-full 77 (:error; line 1)", PoolFull),
        ("csi-refused no-rename failure: already in use (:error; line 1)", NotReady),
        ("csi-refused nobody-knows", RouterOSError),
    ],
)
def test_texts_have_meanings(text: str, kind: type[DriverError]) -> None:
    error = explain(text, volume="pvc-1")
    assert type(error) is kind
    assert "pvc-1" in str(error)


@given(st.text())
def test_an_unknown_text_is_kept_verbatim_and_explaining_never_fails(text: str) -> None:
    error = explain(text)
    if type(error) is RouterOSError and text:
        assert excerpt(text) in error.what


def test_a_refused_name_is_told_in_the_words_of_routeros() -> None:
    error = explain("csi-refused no-rename failure: can not be changed (:error; line 1)")
    assert "of this hand-over: failure: can not be changed" in error.what
    assert "--keep-export-names" in error.advice
    assert "(nothing)" in explain("csi-refused no-rename").what


def test_every_refusal_fills_its_gaps_and_says_more_than_its_name() -> None:
    names = {"file": "F{0}", "files": "FS", "directory": "D", "nodes": "N"}
    for reason in REFUSALS:
        text = str(explain(f"csi-refused {reason} raid10 5", volume="pvc-1", **names))
        assert reason not in text.split()
        assert "?" not in text


def test_only_a_parse_error_is_an_answer_without_a_marker() -> None:
    for text in (
        "syntax error (line 1 column 4)",
        "expected end of command (line 1 column 40)",
        "bad command name foo (line 1 column 1)",
        "not enough permissions (9)",
        "input does not match any value of type",
    ):
        assert rejected(text)
    for text in ("", "disk\r\n[]", "Session closed", "connection reset", "interrupted"):
        assert not rejected(text)
