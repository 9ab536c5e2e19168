"""A kernel and its programs, played on a fake sysfs: what ``nvme``, reads and writes do."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.errors import CommandFailed
from rds_csi.model.contexts import Endpoint, Target
from rds_csi.model.host_identity import HostIdentity
from rds_csi.nvme.child import PROVEN
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.retry import RetryPolicy
from tests.unit.fakes.runner import Answer, Call, FakeRunner
from tests.unit.fakes.sysfs import HOST_ID, HOST_NQN, FakeSysfs

HOST = HostIdentity(HOST_NQN, HOST_ID)
PREFIX = "nqn.2000-02.com.mikrotik"
A = f"{PREFIX}:pvc-" + "a" * 28
B = f"{PREFIX}:pvc-" + "b" * 28
TARGET = Target(("192.0.2.1",), 4420, A)
ENDPOINT = TARGET.endpoints[0]
VALUED = ("-l", "-c", "-k", "-F", "-J", "--nr-io-queues", "--queue-size")
"""Options of ``nvme connect`` that have a value, but for those of the address."""
REFUSED = (
    "Failed to write to /dev/nvme-fabrics: Connection refused\n"
    "could not add new controller: connection refused\n"
)
READ = (*PROVEN, "read")
DELETE = (*PROVEN, "delete")
RESCAN = (*PROVEN, "rescan")


@dataclass
class Kernel:
    """Answers for the connector's programs by changing the tree, as the kernel would."""

    tree: FakeSysfs
    runner: FakeRunner = field(default_factory=FakeRunner)
    mounted: set[tuple[int, int]] = field(default_factory=set)
    size: int | None = 64 << 20
    state: str = "live"
    events: list[str] = field(default_factory=list)
    option: bool = True
    """Whether this nvme-cli has ``-F``; without it, it is 2.3 and reads settings by file."""
    json: list[object] = field(default_factory=list)
    """What ``-J`` files said."""
    away: set[str] = field(default_factory=set)
    """Addresses where nobody listens."""
    silent: set[str] = field(default_factory=set)
    """Addresses that swallow whatever is sent to them."""
    empty: set[str] = field(default_factory=set)
    """Addresses of another target: the connection leads to no device of this one."""
    granted: dict[str, str] = field(default_factory=dict)
    """What the next connections show in spite of what they asked for."""

    def __post_init__(self) -> None:
        self.fabrics = self.tree.root / "nvme-fabrics"
        self.fabrics.touch()
        self.sysfs = Sysfs(self.tree.sys, dev=self.tree.dev)

    def connector(self, *, limit: int = 8, rng: random.Random | None = None) -> Connector:
        return Connector(
            self.runner,
            self.sysfs,
            HOST,
            in_use=self.mounted.__contains__,
            limit=limit,
            policy=RetryPolicy(),
            timings=Timings(),
            fabrics=self.fabrics,
            rng=rng if rng is not None else random.Random(1),
            number_of=self.number_of,
            on_event=self.events.append,
            answers=self.answers,
        )

    async def answers(self, endpoint: Endpoint) -> bool:
        if endpoint.address in self.silent:
            await asyncio.sleep(2.0)
        return endpoint.address not in self.away | self.silent

    def number_of(self, path: Path) -> tuple[int, int] | None:
        return self.tree.devno(path.name) if path.exists() else None

    def works(self, *, takes: float = 0.5) -> Answer:
        """``nvme connect`` succeeds; reads and the removal of controllers do, too."""
        self.reads()
        self.removes()
        return self.runner.on("nvme", "connect", effect=self.connect, takes=takes)

    def reads(self) -> Answer:
        return self.runner.on(*READ, takes=0.01)

    def removes(self, *, takes: float = 0.2) -> Answer:
        self.runner.on(*RESCAN, effect=self.write, takes=takes)
        return self.runner.on(*DELETE, effect=self.write, takes=takes)

    def connect(self, call: Call) -> None:
        given = {name: option(call, name) for name in VALUED if name in call.args}
        if option(call, "-a") in self.away:
            raise CommandFailed("nvme failed", returncode=1, stderr=REFUSED)
        if "-F" in given and not self.option:
            raise CommandFailed(
                "nvme failed", returncode=1, stderr="connect: unrecognized option '-F'\nUsage: …"
            )
        if "-J" in given:
            assert not self.option, "nvme-cli from 2.11 on takes all settings from the file alone"
            (host,) = said = json.loads(Path(given["-J"]).read_text())
            self.json.append(said)
            given["-F"] = str(host["subsystems"][0]["ports"][0]["fast_io_fail_tmo"])
        name = self.tree.connect(
            option(call, "-n"),
            hostnqn=option(call, "-q"),
            hostid=option(call, "-I"),
            address=option(call, "-a"),
            port=int(option(call, "-s")),
            state=self.state,
            size=None if option(call, "-a") in self.empty else self.size,
        )
        for attribute, value in {**shown(given), **self.granted}.items():
            self.tree.set(name, attribute, value)

    def write(self, call: Call) -> None:
        command, _, _, nqn, hostnqn, *directories = call.args[len(PROVEN) :]
        for name in (Path(directory).name for directory in directories):
            if name not in self.tree.controllers():
                continue
            shown = self.tree.controller(name)
            if (shown / "subsysnqn").read_text().strip() != nqn:
                continue
            if (shown / "hostnqn").read_text().strip() != hostnqn:
                continue
            if command == "delete":
                self.tree.disconnect(name)
            else:
                (shown / "rescan_controller").write_text("1\n")

    def written(self, command: str) -> list[str]:
        """The controllers that were deleted, or read again, in order."""
        return [
            Path(directory).name
            for call in self.runner.asked(*PROVEN, command)
            for directory in call.args[len(PROVEN) + 5 :]
        ]


def shown(given: dict[str, str]) -> dict[str, str]:
    """What the kernel shows for the options of a connect (drivers/nvme/host/fabrics.c)."""
    loss, delay = int(given.get("-l", "600")), int(given.get("-c", "10"))
    return {
        "ctrl_loss_tmo": "off" if loss < 0 else str(-(-loss // delay) * delay),
        "reconnect_delay": str(delay),
        "fast_io_fail_tmo": given.get("-F", "off"),
        "kato": given.get("-k", "5"),
        "queue_count": str(int(given.get("--nr-io-queues", "4")) + 1),
        "sqsize": str(int(given.get("--queue-size", "128")) - 1),
    }


def option(call: Call, name: str) -> str:
    """The value behind an option."""
    return call.args[call.args.index(name) + 1]


def now() -> float:
    return asyncio.get_running_loop().time()
