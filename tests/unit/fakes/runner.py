"""A runner that starts nothing: it answers from a script and remembers what it was asked.

    runner = FakeRunner()
    runner.on("nvme", "connect", effect=lambda call: tree.add(...))
    runner.on("blkid", result=Result(2, "", ""))

An answer is for every call whose arguments begin with its words; the first one that fits and is
not used up is taken. A call without an answer fails the test.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rds_csi.errors import CommandFailed, CommandStuck, CommandTimeout
from rds_csi.runtime.process import Result

OK = Result(0, "", "")


@dataclass(frozen=True, slots=True)
class Call:
    """One program as it was asked for."""

    args: tuple[str, ...]
    timeout: float
    volume: str
    environment: Mapping[str, str]


@dataclass(slots=True)
class Answer:
    """What happens to calls that begin with ``words``.

    ``takes`` seconds pass (virtual ones under looptime), then ``effect`` is called, then
    ``error`` is raised or ``result`` returned. A call that takes longer than its timeout is
    killed: ``CommandTimeout``, or ``CommandStuck`` when ``stuck``. ``left`` counts the uses.
    """

    words: tuple[str, ...]
    result: Result = OK
    error: Exception | None = None
    takes: float = 0.0
    stuck: bool = False
    effect: Callable[[Call], object] | None = None
    left: int | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class FakeRunner:
    """Stands for ``SubprocessRunner``; keeps its promises about ``check`` and ``timeout``."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled: list[Call] = []
        """Calls whose caller was cancelled while they ran."""
        self.running: Counter[str] = Counter()
        """How many of each program run now."""
        self.most_running: Counter[str] = Counter()
        """How many of each program ever ran at once."""
        self._answers: list[Answer] = []

    def on(
        self,
        *words: str,
        result: Result = OK,
        error: Exception | None = None,
        takes: float = 0.0,
        stuck: bool = False,
        effect: Callable[[Call], object] | None = None,
        times: int | None = None,
    ) -> Answer:
        """Add an answer; ``times`` limits how often it is given."""
        answer = Answer(words, result, error, takes, stuck, effect, times)
        self._answers.append(answer)
        return answer

    def fail(
        self, *words: str, status: int = 1, stderr: str = "", times: int | None = None
    ) -> None:
        """The program ends with ``status`` and says ``stderr``."""
        self.on(*words, result=Result(status, "", stderr), times=times)

    def forget(self) -> None:
        """Drop all answers; the calls stay."""
        self._answers.clear()

    def asked(self, *words: str) -> list[Call]:
        """The calls that began with ``words``."""
        return [call for call in self.calls if call.args[: len(words)] == words]

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.runtime.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        call = Call(tuple(args), timeout, volume, dict(environment or {}))
        self.calls.append(call)
        answer = self._answer(call)
        program = args[0]
        self.running[program] += 1
        self.most_running[program] = max(self.most_running[program], self.running[program])
        try:
            await asyncio.sleep(min(answer.takes, timeout))
        except asyncio.CancelledError:
            self.cancelled.append(call)
            raise
        finally:
            self.running[program] -= 1
        if answer.takes > timeout:
            raise self._killed(call, answer)
        if answer.effect is not None:
            answer.effect(call)
        if answer.error is not None:
            raise answer.error
        if check and answer.result.returncode != 0:
            raise CommandFailed(
                f"{args[0]} failed with status {answer.result.returncode}: {answer.result.stderr}",
                returncode=answer.result.returncode,
                stderr=answer.result.stderr,
                volume=volume,
            )
        return answer.result

    def _answer(self, call: Call) -> Answer:
        for answer in self._answers:
            if call.args[: len(answer.words)] == answer.words and answer.left != 0:
                if answer.left is not None:
                    answer.left -= 1
                return answer
        raise AssertionError(f"unexpected program: {' '.join(call.args)}")

    @staticmethod
    def _killed(call: Call, answer: Answer) -> Exception:
        if answer.stuck:
            return CommandStuck(f"{call.args[0]} hangs", gone=answer.gone, volume=call.volume)
        return CommandTimeout(f"{call.args[0]} was killed", volume=call.volume)
