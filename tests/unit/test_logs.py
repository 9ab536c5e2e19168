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
