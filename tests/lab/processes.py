"""Driver processes in the lab: started, killed and started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab.waiting import until

START_BUDGET: Final = 60.0
STOP_BUDGET: Final = 40.0


class Zygote:
    """The process that forks the others (see ``zygote.py``)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def fork(self, arguments: Sequence[str], *, log: Path, plan: Path) -> int:
        """Start ``rds-csi ARGUMENTS``; its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "log": str(log), "plan": str(plan)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


class Driver:
    """One ``rds-csi`` command, over any number of lives."""

    def __init__(self, zygote: Zygote, arguments: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "csi.sock"
        self.log = folder / "log"
        self._plan = folder / "plan"
        self._trace = folder / "plan.trace"
        self._arguments = [*arguments, f"--endpoint={self.socket}"]
        self._zygote = zygote
        self._pid = 0

    async def start(self) -> None:
        """Returns once the socket answers."""
        assert not self.running(), "it runs already"
        self._pid = self._zygote.fork(self._arguments, log=self.log, plan=self._plan)
        async with asyncio.timeout(START_BUDGET):
            while not await self._answers():
                assert self.running(), f"the driver ended:\n{self.tail()}"
                await asyncio.sleep(0.05)

    @property
    def pid(self) -> int:
        return self._pid

    def running(self) -> bool:
        return self._pid != 0 and Path(f"/proc/{self._pid}").exists()

    async def kill(self) -> None:
        """SIGKILL, as the kernel's memory killer sends it; programs it started live on."""
        os.kill(self._pid, signal.SIGKILL)
        await self._gone(STOP_BUDGET)

    async def stop(self) -> None:
        """SIGTERM, as the kubelet sends it."""
        if self.running():
            os.kill(self._pid, signal.SIGTERM)
            await self._gone(STOP_BUDGET)

    async def restart(self) -> None:
        """A new life, whatever became of the last."""
        if self.running():
            await self.kill()
        await self.start()

    def kill_before_effect(self, number: int) -> None:
        """The driver will die just before its ``number``-th effect from now; 0: only count."""
        self._trace.unlink(missing_ok=True)
        self._plan.write_text(str(number))

    def end_of_plan(self) -> list[str]:
        """Kill no more; the effects there were, in words."""
        self._plan.unlink(missing_ok=True)
        return self._trace.read_text().splitlines() if self._trace.exists() else []

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        writer.close()
        return True

    async def _gone(self, budget: float) -> None:
        await until(lambda: not self.running(), "the driver ends", seconds=budget)
        self._pid = 0
