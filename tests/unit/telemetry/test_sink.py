"""Log lines on descriptors that take them slowly, in part, or not at all."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rds_csi.telemetry.sink import Sink

F_SETPIPE_SZ = 1031
PATIENCE = 20


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    ends = [reading, writing]
    yield ends
    for end in ends:
        os.close(end)


def read_until(reading, count):
    """The lines that come, once there are so many."""
    content = b""
    while content.count(b"\n") < count:
        content += os.read(reading, 65536)
    return content.decode().splitlines()


def test_lines_are_written_in_order_and_whole(pipe):
    sink = Sink(pipe[1])
    lines = [f"line {number} {'x' * number}" for number in range(80)]
    for line in lines:
        sink.write(line + "\n")
    assert read_until(pipe[0], 80) == lines
    assert sink.drain(PATIENCE)
    assert sink.dropped == 0


def read_until_the_end(reading):
    content = b""
    while not content.endswith(b"end\n"):
        content += os.read(reading, 65536)
    return content.decode().splitlines()[:-1]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_missing_is_told(pipe, blocking):
    """The oldest lines stay, in order; what found no room is counted, and said afterwards."""
    os.set_blocking(pipe[1], blocking)

    def tell(lines):
        sink.write(f"missing: {lines}\n")

    sink = Sink(pipe[1], room=10_000, notice=tell)
    began = time.monotonic()
    for number in range(1000):
        sink.write(f"{number:099}\n")
    assert time.monotonic() - began < PATIENCE / 2
    assert not sink.drain(0.01)
    assert sink.dropped >= 840
    reading = ThreadPoolExecutor().submit(read_until_the_end, pipe[0])
    assert sink.drain(PATIENCE)
    sink.write("end\n")
    lines = reading.result(PATIENCE)
    kept = [int(line) for line in lines if "missing" not in line]
    missing = [int(line.removeprefix("missing: ")) for line in lines if "missing" in line]
    assert kept == sorted(set(kept))
    assert kept[:100] == list(range(100))
    assert sum(missing) == sink.dropped == 1000 - len(kept)


def failing(kind, pipe):
    if kind == "full disk":
        return os.open("/dev/full", os.O_WRONLY)
    if kind == "read only":
        return os.open("/dev/null", os.O_RDONLY)
    if kind == "no reader":
        os.close(pipe[0])
        pipe[0] = os.open("/dev/null", os.O_RDONLY)
        return os.dup(pipe[1])
    return None


@pytest.mark.parametrize("kind", ["full disk", "read only", "no reader", "closed"])
def test_a_line_that_cannot_be_written_is_counted_and_raises_nothing(pipe, kind):
    descriptor = failing(kind, pipe)
    sink = Sink(descriptor)
    for number in range(5):
        assert sink.write(f"{number}\n") == 2
    assert sink.drain(PATIENCE)
    assert sink.dropped == 5
    if descriptor is not None:
        os.close(descriptor)
        sink.write("closed meanwhile\n")
        assert sink.drain(PATIENCE)
        assert sink.dropped == 6


def test_a_line_that_was_written_in_part_does_not_spoil_the_next(monkeypatch, pipe):
    """A disk that fills up takes the beginning of a line."""
    write, full = os.write, threading.Event()

    def limited(descriptor, data):
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        if bytes(data).startswith(b"second"):
            full.set()
            return write(descriptor, bytes(data)[:3])
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)
    sink = Sink(pipe[1])
    for line in ("first\n", "second\n", "third\n"):
        sink.write(line)
    assert sink.drain(PATIENCE)
    assert sink.dropped == 2
    full.clear()
    sink.write("fourth\n")
    assert read_until(pipe[0], 3) == ["first", "sec", "fourth"]


def test_a_pipe_that_takes_a_line_in_pieces_gets_all_of_it(pipe):
    os.set_blocking(pipe[1], False)
    sink = Sink(pipe[1], room=10)
    sink.write("x" * 50_000 + "\n")
    assert read_until(pipe[0], 1) == ["x" * 50_000]


def test_any_text_can_be_written(pipe):
    sink = Sink(pipe[1])
    sink.write("a\udcffb ü\n")
    assert read_until(pipe[0], 1) == ["a\\udcffb ü"]


def test_without_a_thread_lines_are_dropped(monkeypatch, pipe):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sink = Sink(pipe[1])
    sink.write("x\n")
    assert sink.dropped == 1


def test_what_nobody_logs_starts_no_thread(pipe):
    before = threading.active_count()
    sink = Sink(pipe[1])
    assert sink.drain(0)
    assert threading.active_count() == before


CLOSED = """
import os
from rds_csi.telemetry.sink import occupy_standard_descriptors
occupy_standard_descriptors()
descriptor = os.open({path!r}, os.O_WRONLY | os.O_CREAT)
os.write(descriptor, str(descriptor).encode())
"""


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_of_ours_becomes_standard_error(tmp_path, closed):
    """A record opened as descriptor 2 would get what programs write to standard error."""
    path = tmp_path / "file"
    script = f'exec "$0" -c "$1" {closed}'
    code = CLOSED.format(path=str(path))
    subprocess.run(["sh", "-c", script, sys.executable, code], check=True)
    assert int(path.read_text()) > 2
