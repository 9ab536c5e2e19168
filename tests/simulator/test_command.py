"""``rds-csi simulate`` and its control socket, in a process of its own."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncssh
import pytest
from click.testing import CliRunner

from rds_csi.simulator.command import load_host_key, parse_pool, parse_size, simulate
from rds_csi.simulator.control import Control
from rds_csi.simulator.device import configfs

KEY = asyncssh.generate_private_key("ssh-ed25519")
BUDGET = 60.0


class Process:
    """``python -m rds_csi.simulator`` on a root folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.ready_file = folder / "ready.json"
        self.ready_file.unlink(missing_ok=True)
        keys = folder / "keys"
        keys.write_bytes(KEY.export_public_key())
        command = [sys.executable, "-m", "rds_csi.simulator", "--port", "0"]
        command += ["--root", str(folder / "rds"), "--authorized-keys", str(keys)]
        command += ["--control", str(folder / "control"), "--ready-file", str(self.ready_file)]
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)
        deadline = time.monotonic() + BUDGET
        while not self.ready_file.exists():
            assert self.process.poll() is None, "the simulator ended"
            assert time.monotonic() < deadline, "the simulator is not ready"
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())

    def control(self) -> Control:
        return Control(self.folder / "control")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(BUDGET)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, "--directory", "raid10/csi", "--pool", "raid10:1T")
    yield process
    if process.process.poll() is None:
        process.end(signal.SIGKILL)


def connected(ready: dict[str, str]) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    return asyncssh.connect(
        ready["address"],
        int(ready["port"]),
        username="csi",
        client_keys=[KEY],
        known_hosts=([asyncssh.import_public_key(ready["host_key"])], [], []),
        config=None,
        agent_path=None,
    )


async def ssh(ready: dict[str, str], line: str) -> bytes:
    async with connected(ready) as client:
        result = await client.run(line, encoding=None)
    assert isinstance(result.stdout, bytes)
    return result.stdout


ADD = "/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G nvme-tcp-export=yes"


async def test_a_life(process: Process, tmp_path: Path) -> None:
    assert await ssh(process.ready, ADD) == b""
    with process.control() as control:
        status = control.do("status")
        assert status["exported"] == ["a"]
        assert status["disks"]["a"]["size"] == 2**30
        assert status["files"]["raid10/csi/a.img"] == 2**30
        assert status["execs"] == 1
        (record,) = control.do("journal")
        assert record["executed"][0]["name"] == "/disk/add"
        assert control.do("journal", since=1) == []
    process.process.kill()
    process.end(signal.SIGKILL)
    # Killed outright, it is the same RDS when it comes back: same key, same disks.
    again = Process(tmp_path)
    assert again.ready["host_key"] == process.ready["host_key"]
    assert await ssh(again.ready, ":put [/disk/get a size]") == b"1073741824\r\n"
    assert again.end() == 0


def test_sigterm_ends_it_and_takes_the_socket_away(process: Process) -> None:
    assert (process.folder / "control").exists()
    assert process.end() == 0
    assert not (process.folder / "control").exists()


async def test_sigterm_ends_it_with_connections_open(process: Process) -> None:
    """From Python 3.12 on a server waits for its connections, which is for ever here."""
    with process.control() as control:
        assert control.do("status")["execs"] == 0
        async with connected(process.ready) as client:
            running = asyncio.create_task(client.run(":delay 600", encoding=None))
            while control.do("status")["execs"] == 0:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
            started = time.monotonic()
            assert await asyncio.to_thread(process.end) == 0
            assert time.monotonic() - started < 10
            await asyncio.wait({running})


def test_a_second_simulator_on_the_same_root_is_refused(process: Process, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "rds_csi.simulator", "--port=0", f"--root={tmp_path / 'rds'}"]
    refused = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=BUDGET, stdin=subprocess.DEVNULL
    )
    assert refused.returncode == 2
    assert refused.stderr == (
        f"Error: --root {tmp_path / 'rds'}: another simulator is running on it; end that one "
        "first, or choose another folder\n"
    )
    assert refused.stdout == ""
    # And it is free again the moment the first one is gone, however it went.
    process.end(signal.SIGKILL)
    assert Process(tmp_path).end() == 0


async def test_everything_the_control_socket_can_do(process: Process) -> None:
    with process.control() as control:
        assert control.do("run", line=ADD) == ""
        control.do("quirk", name="slot-limit", value=3)
        assert "slot" in control.do("run", line=ADD.replace("slot=a", "slot=long"))
        control.do("fault", kind="garbage", text="!", match="put")
        assert await ssh(process.ready, ":put x") == b"!"
        control.do("fault", kind="garbage", text="!", count=0)
        control.do("clear-faults")
        assert await ssh(process.ready, ":put x") == b"x\r\n"
        control.do("refuse-auth")
        with pytest.raises(asyncssh.PermissionDenied):
            await ssh(process.ready, ":put x")
        control.do("refuse-auth", refuse=False)
        control.do("make-directory", name="raid10/more")
        control.do("fill-pool", pool="raid10", free=10)
        free = control.do("run", line=":put [/disk/get raid10 free]")
        assert free == "10\r\n"
        control.do("unmount-pool", pool="raid10")
        assert control.do("status")["exported"] == []
        control.do("mount-pool", pool="raid10")
        control.do("cut")
        control.do("restore", slot="a")
        control.do("version", version="7.20")
        assert await ssh(process.ready, ":put [/system/resource/get version]") == (
            b"7.20 (stable)\r\n"
        )
        control.do("drop-connections")
        control.do("stop-ssh")
        with pytest.raises(OSError):
            await ssh(process.ready, ":put x")
        control.do("start-ssh")
        control.do("reboot", down=0.1)
        assert await ssh(process.ready, ":put x") == b"x\r\n"
        stranger = asyncssh.generate_private_key("ssh-ed25519")
        control.do("authorize", key=stranger.export_public_key().decode())


def test_mistakes_on_the_control_socket_are_answered(process: Process) -> None:
    with process.control() as control:
        for act, arguments in (
            ("nope", {}),
            ("quirk", {"name": "nope", "value": 1}),
            ("fault", {"kind": "nope"}),
            ("fault", {}),
            ("cut", {"slot": "nope"}),
            ("cut", {"colour": "red"}),
            ("fill-pool", {"pool": "nope"}),
            ("authorize", {"key": "no key"}),
        ):
            with pytest.raises(RuntimeError):
                control.do(act, **arguments)
        assert control.do("status")["execs"] == 0
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(process.folder / "control"))
        for junk in (
            b"not json\n",
            b"[]\n",
            b"{}\n",
            b'{"do": 1}\n',
            b'{"do": "cut", "with": 1}\n',
        ):
            raw.sendall(junk)
            assert b'"error"' in raw.recv(4096)
    assert process.process.poll() is None


def test_the_control_socket_is_private(process: Process) -> None:
    assert (process.folder / "control").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pool", "raid10"],
        ["--pool", "raid10:many"],
        ["--quirk", "nope"],
        ["--quirk", "resize=maybe"],
        ["--version", "seven"],
        ["--authorized-keys", "/nowhere/keys"],
        ["--export", "fibre"],
        ["--directory", "../out"],
    ],
)
def test_mistakes_on_the_command_line_are_named(tmp_path: Path, arguments: list[str]) -> None:
    base = ["--root", str(tmp_path / "rds"), "--port", "0"]
    result = CliRunner().invoke(simulate, [*base, *arguments])
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("4K", 4096), ("2m", 2**21), ("16T", 2**44), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_pool(f"p:{text}") == ("p", size)


@pytest.mark.parametrize("text", ["", "T", "1X", "-1", "1.5G", "raid10", ":1", "p:"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_pool(text if ":" in text else f"p:{text}" if text != "raid10" else text)


def test_the_host_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = load_host_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_host_key(path).public_data == made.public_data


def test_exports_without_modprobe_and_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that lacks the programs lacks the target, and is told so."""
    monkeypatch.setattr(configfs, "_PATH", str(tmp_path))
    monkeypatch.setattr(configfs.ConfigFs, "available", lambda _: False)
    words = ["--root", str(tmp_path / "rds"), "--port", "0", "--export", "nvmet"]
    result = CliRunner().invoke(simulate, words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: this kernel offers no NVMe target")
