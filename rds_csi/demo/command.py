"""``rds-csi demo``: here, if this kernel can; else in a virtual machine that can."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import asyncssh
from rich.console import Console

from rds_csi.demo.kubelet import Kubernetes
from rds_csi.demo.processes import ProcessError, Program, running
from rds_csi.demo.story import DemoError, Story
from rds_csi.model.volume import GIB
from rds_csi.runtime.process import ENVIRONMENT, PACKAGES
from rds_csi.simulator import Quirks, Simulator

_BASE: Final = "raid10/csi"
_MODULES: Final = ("nvme-tcp", "nvmet-tcp", "configfs", "loop")
_BUDGET: Final = 600.0
"""Seconds until the demo counts as hanging."""
_BOOT_BUDGET: Final = 300.0


class Steps:
    """Shows the steps: the current one while it runs, and each ended one with its time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = console.status("")

    def begin(self, what: str) -> None:
        """Show what runs now; a spinner where the output is a terminal."""
        self._status.update(what)
        self._status.start()

    def done(self, what: str, seconds: float) -> None:
        """Leave a line."""
        self._status.stop()
        self.console.print(f"[green]✓[/] {what} [dim]{seconds:.1f} s[/]", highlight=False)

    def end(self) -> None:
        """Stop the spinner, whatever happened."""
        self._status.stop()


def demo_here() -> int:
    """Run the demo on this machine's kernel; the exit status."""
    from rds_csi.lab import LabUnavailable, install_programs  # noqa: PLC0415 - only where needed

    console = Console()
    steps = Steps(console)
    started = time.monotonic()
    try:
        install_programs(console.print, PACKAGES, packages=())
        with tempfile.TemporaryDirectory(prefix="rds-csi-demo-") as folder:
            asyncio.run(_play(Path(folder), steps))
    except TimeoutError:
        return _failed(steps, f"it was not done after {_BUDGET:.0f} s")
    except (DemoError, ProcessError, LabUnavailable, OSError) as error:
        return _failed(steps, str(error))
    console.print(f"DEMO OK {time.monotonic() - started:.0f} s", highlight=False)
    return 0


def _failed(steps: Steps, why: str) -> int:
    steps.end()
    steps.console.print(f"DEMO FAILED: {why}", markup=False, highlight=False)
    return 1


async def _play(folder: Path, steps: Steps) -> None:
    kubelet_dir, state_dir = folder / "kubelet", folder / "state"
    key = asyncssh.generate_private_key("ssh-ed25519")
    key_file = folder / "id_ed25519"
    key.write_private_key(key_file)
    key_file.chmod(0o600)
    async with AsyncExitStack() as stack, asyncio.timeout(_BUDGET):
        steps.begin("start the simulated RDS, the controller and the node plugin")
        began = time.monotonic()
        rds = await _simulated_rds(stack, folder / "rds", key)
        rds.make_directory(_BASE)
        controller, node = _programs(folder, rds, key_file, kubelet_dir, state_dir)
        await stack.enter_async_context(running(controller, folder))
        await stack.enter_async_context(running(node, folder))
        kubernetes = await stack.enter_async_context(Kubernetes(controller.ready, node.ready))
        steps.done("simulated RDS, controller and node plugin run", time.monotonic() - began)
        story = Story(rds, kubernetes, folders=[state_dir], kubelet_dir=kubelet_dir, display=steps)
        await story.tell()


async def _simulated_rds(stack: AsyncExitStack, folder: Path, key: asyncssh.SSHKey) -> Simulator:
    try:
        return await stack.enter_async_context(
            Simulator(
                folder,
                pools={"raid10": 64 * GIB},
                export="nvmet",
                nvme_port=4420,
                authorized_keys=[key.convert_to_public()],
                # Volumes grow in use only where the target tells it, and an RDS may not.
                quirks=Quirks(growth="announced"),
            )
        )
    except RuntimeError as error:
        raise ProcessError(f"the simulated RDS: {error}") from error


def _programs(
    folder: Path, rds: Simulator, key_file: Path, kubelet_dir: Path, state_dir: Path
) -> tuple[Program, Program]:
    host_key = folder / "host.pub"
    host_key.write_text(f"{rds.host_key_line}\n")
    controller, node = folder / "controller.sock", folder / "node.sock"
    common = ("--cluster-id=demo", "--log-level=debug", "--log-format=console")
    return (
        Program(
            "controller",
            (
                "controller",
                f"--endpoint={controller}",
                f"--rds-address={rds.address}",
                f"--rds-port={rds.port}",
                f"--rds-key-file={key_file}",
                f"--rds-host-key-file={host_key}",
                "--nvme-address=127.0.0.1",
                f"--volume-path={_BASE}",
                "--growth=always",
                *common,
            ),
            controller,
        ),
        Program(
            "node",
            (
                "node",
                f"--endpoint={node}",
                "--node-id=demo-node",
                f"--kubelet-dir={kubelet_dir}",
                f"--state-dir={state_dir}",
                *common,
            ),
            node,
        ),
    )


def kernel_lacks(loaded: Path = Path("/sys/module")) -> str:
    """What this machine lacks to show the demo itself; empty if nothing."""
    if os.geteuid() != 0:
        return "root"
    for module in _MODULES:
        if not _loads(module) and not (loaded / module.replace("-", "_")).exists():
            return f"the kernel module {module}"
    return ""


def _loads(module: str) -> bool:
    """Whether modprobe loads the module, or finds it in the kernel."""
    modprobe = shutil.which("modprobe", path=ENVIRONMENT["PATH"])
    if modprobe is None:
        return False
    words = [modprobe, "--quiet", module]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def demo_in_lab(reason: str) -> int:
    """Boot the lab and run the demo inside; the exit status. ``reason``: why not here."""
    from rds_csi.lab import Lab, LabFailed, LabUnavailable  # noqa: PLC0415 - only where needed

    console = Console(highlight=False)
    console.print(f"This machine lacks {reason}: the demo runs in a virtual machine.")
    command = [sys.executable, "-m", "rds_csi", "demo", "--here"]
    try:
        with tempfile.TemporaryDirectory(prefix="rds-csi-lab-") as folder:
            return Lab().run(command, shared=Path(folder), timeout=_BUDGET + _BOOT_BUDGET)
    except (LabFailed, LabUnavailable, OSError) as error:
        console.print(f"DEMO FAILED: the virtual machine: {error}", markup=False)
        return 1
