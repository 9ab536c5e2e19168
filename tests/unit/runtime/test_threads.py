"""The loop's threads: they work, and none that hangs keeps the process."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest

from rds_csi.runtime.threads import LAST_BUDGET, Threads, run

HANGS = """
import asyncio, sys, threading
from rds_csi.runtime.threads import run

async def main() -> int:
    for _ in range(50):
        asyncio.ensure_future(asyncio.to_thread(threading.Event().wait))
    await asyncio.sleep(0)
    print("stopped", flush=True)
    return 3

sys.exit(run(main()))
"""


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_call_has_its_result_its_error_and_its_context() -> None:
    variable = contextvars.ContextVar("variable", default="")

    async def main() -> tuple[str, str]:
        variable.set("mine")
        with pytest.raises(ValueError, match="said so"):
            await asyncio.to_thread(fail, "said so")
        return await asyncio.to_thread(lambda: (variable.get(), threading.current_thread().name))

    assert run(main()) == ("mine", "call")


def test_what_is_about_to_be_written_is_written() -> None:
    threads, release = Threads(), threading.Event()
    calls = [threads.submit(release.wait) for _ in range(200)]
    release.set()
    threads.shutdown()
    assert all(call.done() for call in calls)


def test_nothing_begins_after_the_end() -> None:
    threads = Threads()
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(fail, "never")


def test_a_process_ends_although_its_calls_hang() -> None:
    """Those of the standard library's pool are waited for: with it, this process never ends."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("stopped\n")
    assert "left behind" in done.stdout + done.stderr
    assert "calls=50" in done.stdout + done.stderr
    assert LAST_BUDGET <= time.monotonic() - started < 20
