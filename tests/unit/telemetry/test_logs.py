"""What is logged, how, and what never is."""

import asyncio
import io
import json
import logging
import re
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.csi import v1 as csi
from rds_csi.telemetry import logs

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def restored():
    config, root = structlog.get_config(), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    structlog.configure(**config)
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def out():
    return io.StringIO()


def lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object(out):
    logs.configure(stream=out)
    structlog.get_logger("x").info("connected", volume="pvc-1", seconds=0.5, path=Path("/dev"))
    (line,) = lines(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "event": "connected",
        "level": "info",
        "volume": "pvc-1",
        "seconds": 0.5,
        "path": "/dev",
    }


def test_console_lines_are_for_people(out):
    logs.configure(style="console", stream=out)
    structlog.get_logger().warning("connected", volume="pvc-1")
    assert re.search(r"\[warning *\] connected +volume=pvc-1", out.getvalue())


def test_the_level_changes_on_loggers_that_exist(out):
    logs.configure(level="warning", stream=out)
    log = structlog.get_logger()
    log.info("one")
    logs.set_level("debug")
    log.debug("two")
    logs.set_level("error")
    log.warning("three")
    assert [line["event"] for line in lines(out)] == ["two"]


def test_libraries_log_the_same_way_and_are_quieter(out):
    logs.configure(stream=out)
    library = logging.getLogger("asyncssh")
    library.info("routine")
    library.warning("trouble with %s", "host", extra={"password": "x"})
    (line,) = lines(out)
    assert (line["event"], line["logger"], line["level"]) == (
        "trouble with host",
        "asyncssh",
        "warning",
    )
    logs.set_level("debug")
    library.info("routine")
    assert lines(out)[-1]["event"] == "routine"


@pytest.mark.parametrize(
    "name",
    ["secrets", "password", "rds_password", "private_key", "PrivateKey", "passphrase", "apiToken"],
)
@pytest.mark.parametrize("style", ["json", "console"])
def test_values_under_such_names_are_hidden(out, style, name):
    logs.configure(style=style, stream=out)
    structlog.get_logger().info("x", **{name: "correct horse"})
    structlog.get_logger().info("x", inner={"deep": [{name: {"a": "correct horse"}}]})
    assert "correct horse" not in out.getvalue()
    assert out.getvalue().count(logs.HIDDEN) == 2


def test_private_keys_are_hidden_wherever_they_stand(out):
    logs.configure(stream=out)
    structlog.get_logger().info("x", error=f"cannot read {KEY} here", cut=KEY[:60])
    structlog.get_logger().info(KEY)
    assert "b3Blbn" not in out.getvalue()
    assert lines(out)[0]["error"] == f"cannot read {logs.HIDDEN} here"


async def test_secrets_of_the_request_are_hidden_wherever_they_stand(out):
    logs.configure(stream=out)
    log = structlog.get_logger()

    async def serve():
        logs.hide(["correct", "correct horse", "abc"])
        log.info("using correct horse", where={"correct horse": ["x correct horse y"]})
        try:
            int("correct horse")
        except ValueError:
            log.exception("failed")
        logging.getLogger("asyncssh").warning("login with %s", "correct horse")
        await asyncio.create_task(tell_in_task())

    async def tell_in_task():
        log.info("in a task: correct horse")

    await asyncio.create_task(serve())
    assert "correct" not in out.getvalue()
    assert lines(out)[0]["event"] == f"using {logs.HIDDEN}"
    assert "ValueError: invalid literal" in lines(out)[1]["exception"]
    # Only there: another request's log is not searched for this one's secrets.
    log.info("correct horse")
    assert lines(out)[-1]["event"] == "correct horse"


def test_tracebacks_have_no_local_variables(out):
    for style in ("json", "console"):
        logs.configure(style=style, stream=out)
        try:
            local = "correct" + " horse"
            int(local[:3])
        except ValueError:
            structlog.get_logger().exception("failed")
    assert "int(local[:3])" in out.getvalue()
    assert "correct horse" not in out.getvalue()


def test_p8_a_request_logged_whole_does_not_tell_its_secrets(out):
    from rds_csi.rpc.requests import check  # noqa: PLC0415 - for this one test

    logs.configure(stream=out)
    request = csi.DeleteVolumeRequest(volume_id="v", secrets={"password": "correct horse"})
    check(request)
    structlog.get_logger().info("got", request=request)
    assert "correct horse" not in out.getvalue()
    assert "DeleteVolumeRequest" in out.getvalue()


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), nested, max_size=4))
def test_anything_can_be_logged_as_one_line(fields):
    out = io.StringIO()
    logs.configure(stream=out)
    structlog.get_logger().info("x", fields=fields)
    assert len(lines(out)) == 1
    assert out.getvalue().isascii()


class Broken:
    """Cannot be shown, in whatever way it is tried."""

    def __repr__(self):
        raise ValueError("no repr")

    __str__ = __repr__


class BrokenError(Exception):
    def __str__(self):
        raise ValueError("no text")


class BrokenMapping(dict):
    def items(self):
        raise KeyError("no items")


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [Broken(), [Broken()], {Broken(): 1}, {"a": {"b": Broken()}}, BrokenError(), (Broken(), 2)],
    ids=["value", "in a list", "key", "deep", "error", "in a tuple"],
)
def test_a_value_that_cannot_be_shown_is_shown_as_such(out, style, value):
    logs.configure(style=style, stream=out)
    structlog.get_logger().info("stays", value=value)
    assert "stays" in out.getvalue()
    assert "that cannot be shown: ValueError" in out.getvalue()


def test_a_line_that_cannot_be_made_is_counted_and_raises_nothing(out):
    logs.configure(stream=out)
    before = logs.dropped()
    structlog.get_logger().info("lost", value=BrokenMapping(a=1))
    logging.getLogger("grpclib").warning("%d", "no number")
    logging.getLogger("asyncio").warning("lost %s", Broken())
    assert logs.dropped() == before + 3
    assert [line["event"] for line in lines(out)] == ["a log line could not be made"] * 3
    assert [line["what"] for line in lines(out)] == ["lost", "%d", "lost %s"]
    structlog.get_logger().info("goes on")
    assert lines(out)[-1]["event"] == "goes on"


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_stream_that_fails_raises_nothing(style):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    logs.configure(style=style, stream=Full())
    before = logs.dropped()
    structlog.get_logger().error("x")
    logging.getLogger("asyncssh").error("y")
    assert logs.dropped() >= before + 2


@pytest.mark.parametrize("style", ["json", "console"])
def test_text_that_is_no_text_is_a_line(style, tmp_path, monkeypatch):
    path = tmp_path / "log"
    with path.open("w", encoding="ascii") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure(style=style)
        structlog.get_logger().info("odd", name="a\udcff", other="ü")
        logs.drain(10)
    assert "odd" in path.read_text()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


async def test_a_logger_changes_its_level_and_stays_guarded(out):
    logs.configure(level="warning", stream=out)
    logs.toggle_debug()
    structlog.get_logger().debug("x", value=BrokenMapping(a=1))
    assert lines(out)[-1]["what"] == "x"
