"""Keeps tests that mount and connect away from machines that are somebody's."""

import os
from pathlib import Path

import pytest


def missing() -> str:
    """Why these tests cannot run here; empty in the lab."""
    if os.environ.get("RDS_CSI_LAB") != "1":
        return "not in the lab: run `nox -s kernel` or `nox -s sanity`"
    if os.geteuid() != 0:
        return "not root"
    for path in ("/dev/nvme-fabrics", "/sys/kernel/config/nvmet"):
        if not Path(path).exists():
            return f"the kernel lacks {path} (nvme-tcp, nvmet)"
    return ""


def skip_outside_the_lab(items: list[pytest.Item]) -> None:
    """Mark every test skipped, with the reason, where it must not run."""
    why = missing()
    if why:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=why))
