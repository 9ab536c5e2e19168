"""One boot of the lab: a command runs in the guest, its output and exit status come back."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from rds_csi.lab import kernels
from rds_csi.lab.host import LabUnavailable, Say, check, install_programs, search_path
from rds_csi.lab.kernels import CACHE, Kernel

_BASE: Final = "/srv/rds-csi-lab"
"""Where the guest finds the host's directories at first; a directory of the guest alone."""
_READY: Final = "lab: ready"
_KERNEL_LINE: Final = re.compile(r"^\[ *\d+\.\d+\]")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROBE_TIMEOUT: Final = 60.0
_GUEST: Final = Path(__file__).with_name("guest.sh")


class LabFailed(Exception):
    """The machine did not come up, died, or was not done in time."""


def _echo(text: str) -> None:
    sys.stderr.write(f"\n*** lab: {text} ***\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The machine's settings. ``say`` is told what is installed on the host.

    ``kernel``: the one to boot, a name of ``kernels.SUITES`` or the path of an image; else the
    newest that is at hand, or Debian's.
    """

    say: Say = _echo
    memory: str = "2G"
    cpus: int = 2
    cache: Path = CACHE
    kernel: str | None = None

    def prepare(self) -> Kernel:
        """Install on the host what is missing.

        Raises :class:`LabUnavailable` if this machine cannot run the lab.
        """
        check()
        _vng()
        try:
            install_programs(self.say)
            if self.kernel and self.kernel in kernels.SUITES:
                return kernels.named_kernel(self.say, self.kernel, self.cache)
            if self.kernel:
                return kernels.given_kernel(Path(self.kernel))
            return kernels.kernel(self.say, self.cache)
        except OSError as error:
            raise LabUnavailable(f"this machine cannot be prepared for it: {error}") from None

    def run(
        self,
        command: Sequence[str],
        *,
        shared: Path,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        output: IO[str] | None = None,
    ) -> int:
        """Boot, run ``command`` as root in the current directory, return its exit status.

        ``shared`` is a directory that the guest can write to, under its own path; there the
        whole console (``console.log``) and the kernel's log (``dmesg.log``) are found
        afterwards. The command's output appears on ``output`` (standard output) while it runs.
        ``timeout`` in seconds is for all of it, boot included.

        Raises :class:`LabUnavailable` if this machine cannot run the lab, :class:`LabFailed`
        if the machine dies or is not done in time.
        """
        chosen = self.prepare()
        shared = shared.resolve()
        shared.mkdir(parents=True, exist_ok=True)
        accelerated = self._kvm_works(chosen)
        return self._boot(
            chosen,
            command,
            shared=shared,
            timeout=timeout,
            # What was asked for, so that a test can tell whether it is what runs.
            environment={"RDS_CSI_LAB_RELEASE": chosen.version, **(environment or {})},
            output=output or sys.stdout,
            kvm=accelerated,
        )

    def _kvm_works(self, chosen: Kernel) -> bool:
        """Whether a guest boots with KVM; a device that opens is no proof of it."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return False
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        verdict = self.cache / f"kvm-{boot}-{chosen.version}"
        if not verdict.exists():
            shared = self.cache / "probe"
            shared.mkdir(parents=True, exist_ok=True)
            with Path(os.devnull).open("w") as nowhere, suppress(LabFailed):
                verdict.write_text("no")
                status = self._boot(
                    chosen,
                    ["true"],
                    shared=shared,
                    timeout=_PROBE_TIMEOUT,
                    environment={},
                    output=nowhere,
                    kvm=True,
                )
                verdict.write_text("yes" if status == 0 else "no")
        return verdict.read_text() == "yes"

    def _boot(
        self,
        chosen: Kernel,
        command: Sequence[str],
        *,
        shared: Path,
        timeout: float,
        environment: Mapping[str, str],
        output: IO[str],
        kvm: bool,
    ) -> int:
        (shared / "status").unlink(missing_ok=True)
        _write_command(shared / "command.sh", command, environment)
        arguments = self._arguments(chosen, shared, kvm=kvm)
        console = _Console(shared / "console.log", output)
        done = console.run(arguments, timeout=timeout)
        if not done:
            raise LabFailed(f"not done within {timeout:.0f} s; console: {console.log}")
        try:
            return int((shared / "status").read_text())
        except (FileNotFoundError, ValueError):
            raise LabFailed(
                f"the machine ended before the command did; console: {console.log}\n"
                f"{console.tail()}"
            ) from None

    def _arguments(self, chosen: Kernel, shared: Path, *, kvm: bool) -> list[str]:
        cached = cached_directories()
        paths = [str(path) for path in (_GUEST, chosen.image, shared, *cached)]
        for path in paths:
            # vng passes its arguments through a shell, and mount points through the kernel's
            # command line.
            if not re.fullmatch(r"[A-Za-z0-9/._+@~-]+", path):
                raise LabUnavailable(f"the path {path!r} has a character virtme-ng cannot handle")
        directories = [f"--rwdir={_BASE}/0={shared}"]
        directories += [f"--rodir={_BASE}/{i}={path}" for i, path in enumerate(cached, start=1)]
        script = shlex.join(["bash", str(_GUEST), _BASE, str(shared), *map(str, cached)])
        return [
            str(_vng()),
            "--run",
            str(chosen.image),
            "--user=root",
            f"--memory={self.memory}",
            f"--cpus={self.cpus}",
            # QEMU's own virtiofsd of Debian 12 does not understand virtme-ng's options.
            "--force-9p",
            *([] if kvm else ["--disable-kvm"]),
            *directories,
            "--verbose",
            "--",
            script,
        ]


def cached_directories() -> list[Path]:
    """The directories nearly everything is read from: programs, Python's library, our code."""
    package = Path(__file__).resolve().parents[2]
    library = Path(sysconfig.get_path("stdlib"))
    wanted = {path.resolve() for path in (Path("/usr"), library, Path(sys.prefix), package)}
    return sorted(path for path in wanted if not any(other in path.parents for other in wanted))


def _vng() -> Path:
    beside = Path(sys.executable).with_name("vng")
    if beside.exists():
        return beside
    found = shutil.which("vng", path=search_path())
    if found is None:
        raise LabUnavailable("virtme-ng is missing: pip install 'rds-csi[lab]'")
    return Path(found)


def _write_command(path: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "COLUMNS": "100",
        "PYTHONUNBUFFERED": "1",
        # The code's directories are read-only in the guest.
        "PYTHONDONTWRITEBYTECODE": "1",
        "RDS_CSI_LAB": "1",
        **environment,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # The host's /tmp and /run are not the guest's.
    lines += [f"cd {shlex.quote(str(Path.cwd()))} 2>/dev/null || cd /", shlex.join(command)]
    path.write_text("\n".join(lines) + "\n")


class _Console:
    """Runs the machine: everything it prints goes to a file, the command's part is shown."""

    def __init__(self, log: Path, output: IO[str]) -> None:
        self.log = log
        self._output = output
        self._ready = False

    def run(self, arguments: Sequence[str], *, timeout: float) -> bool:
        """Whether the machine powered off within ``timeout`` seconds; it is gone in any case."""
        path = f"{Path(arguments[0]).parent}:{search_path()}"
        with self.log.open("w") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
            assert process.stdout is not None  # noqa: S101 - for the type checker
            reader = threading.Thread(target=self._read, args=(process.stdout, log), daemon=True)
            reader.start()
            try:
                return _wait(process, timeout)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                reader.join(timeout=10)
                if not reader.is_alive():
                    process.stdout.close()

    def tail(self, lines: int = 15) -> str:
        """The console's last lines."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _read(self, stream: IO[str], log: IO[str]) -> None:
        for line in stream:
            text = line.rstrip("\r\n")
            log.write(text + "\n")
            log.flush()
            self._ready = self._ready or text.startswith(_READY)
            if self._ready and not _KERNEL_LINE.match(text):
                self._output.write(text + "\n")
                self._output.flush()


def _wait(process: subprocess.Popen[str], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=min(1.0, max(0.01, end - time.monotonic())))
            return True
    return False
