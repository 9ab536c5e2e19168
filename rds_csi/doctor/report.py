"""What an RDS was found to be, as a text to send to the driver's authors.

It holds no secret: keys never get as far as a check. What says where the RDS is, and whose it is,
is struck out unless asked for.
"""

import re
from datetime import UTC, datetime
from typing import Final

from rds_csi import __version__
from rds_csi.config import ControllerConfig, DriverConfig
from rds_csi.doctor.check import Check, Status
from rds_csi.doctor.rds.checks import Examination
from rds_csi.doctor.show import verdict
from rds_csi.model.volume import GIB

_IPV4: Final = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")
_IPV6: Final = re.compile(r"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]")
_MARKS: Final = {
    Status.OK: "ok",
    Status.WARNING: "**warning**",
    Status.FAILED: "**failed**",
    Status.SKIPPED: "skipped",
}


def markdown(
    found: Examination,
    shared: DriverConfig,
    controller: ControllerConfig,
    *,
    addresses: bool,
    write: bool,
    now: datetime | None = None,
) -> str:
    """The report. ``addresses``: leave addresses, names and fingerprints as they are."""
    moment = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    pool = found.pool
    version = found.system.version if found.system else "unknown"
    board = (found.system and found.system.board) or "unknown"
    lines = [
        "# An RDS, as `rds-csi doctor` found it",
        "",
        f"- rds-csi {__version__}, {moment}, {'with' if write else 'without'} `--write`",
        f"- RouterOS {version}, board {board}",
        f"- pool: {pool.file_system or 'unknown'}, {pool.size / GIB:.0f} GiB"
        if pool
        else "- pool: unknown",
        "",
        "## Checks",
        "",
        "| | check | found |",
        "|---|---|---|",
        *(_row(check) for check in found.checks),
        "",
        verdict(found.checks),
        "",
        "## What nobody has measured yet",
        "",
    ]
    for number, finding in enumerate(found.unknowns, start=1):
        lines.append(f"{number}. {finding.question}")
        if finding.result:
            lines.append(f"   - measured: {_one_line(finding.result)}")
            lines.append(f"   - how: {_one_line(finding.how)}")
        if finding.missing:
            lines.append(f"   - {_one_line(finding.missing)}")
    if not found.unknowns:
        lines.append("Not looked at: there was no session with the RDS.")
    text = "\n".join(lines) + "\n"
    return text if addresses else _struck_out(text, shared, controller)


def _row(check: Check) -> str:
    found = _one_line(f"{check.found}; {check.advice}" if check.advice else check.found)
    return f"| {_MARKS[check.status]} | {check.name} | {found} |"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _struck_out(text: str, shared: DriverConfig, controller: ControllerConfig) -> str:
    """Without addresses, key fingerprints, and the owner's name in records."""
    names = {
        controller.rds_address: "RDS",
        **dict.fromkeys(controller.defaults.nvme_addresses, "RDS-DATA"),
        shared.owner: "OWNER",
    }
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", names[name], text)
    text = re.sub(r"SHA256:[A-Za-z0-9+/=]+", "FINGERPRINT", text)
    return _IPV6.sub("[ADDRESS]", _IPV4.sub("ADDRESS", text))
