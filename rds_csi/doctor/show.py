"""The results for people, as a table, and for programs, as JSON."""

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rds_csi import __version__
from rds_csi.doctor.check import Check, Checks, Status
from rds_csi.doctor.rds.unknowns import Finding

_MARKS: Final = {
    Status.OK: Text("✓", style="green"),
    Status.WARNING: Text("!", style="yellow"),
    Status.FAILED: Text("✗", style="red"),
    Status.SKIPPED: Text("-", style="dim"),
}


def verdict(checks: Checks) -> str:
    """All results in one line."""
    counts = {
        status: sum(check.status is status for check in checks)
        for status in (Status.FAILED, Status.WARNING, Status.SKIPPED)
    }
    words = ", ".join(
        f"{count} {status.value}{'s' if status is Status.WARNING and count > 1 else ''}"
        for status, count in counts.items()
        if count
    )
    return f"{words or 'all well'} ({len(checks.results)} checks)"


def show(console: Console, checks: Checks, unknowns: Sequence[Finding] = ()) -> None:
    """Print the table; below it what was measured."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(_MARKS[check.status], Text(check.name), _found(check))
    console.print(table)
    if unknowns:
        _show_unknowns(console, unknowns)
    console.print(Text(verdict(checks)))


def _found(check: Check) -> Text:
    text = Text(check.found)
    if check.advice and check.status is not Status.OK:
        text.append(f"\n→ {check.advice}", style="cyan")
    return text


def _show_unknowns(console: Console, unknowns: Sequence[Finding]) -> None:
    console.print(Text("\nWhat nobody has measured of RouterOS yet", style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for number, finding in enumerate(unknowns, start=1):
        text = Text(finding.question)
        if finding.result:
            text.append(f"\n✓ {finding.result}", style="green")
        if finding.missing:
            text.append(f"\n- {finding.missing}", style="dim")
        table.add_row(str(number), text)
    console.print(table)
    console.print()


def as_json(checks: Checks, **more: Any) -> str:
    """The results for programs: ``checks``, and whatever else was found."""
    return json.dumps(
        {
            "version": __version__,
            "failed": checks.failed,
            "checks": [
                {
                    "name": check.name,
                    "status": check.status.value,
                    "found": check.found,
                    "advice": check.advice,
                }
                for check in checks
            ],
            **more,
        },
        indent=2,
    )


def unknowns_as_json(unknowns: Sequence[Finding]) -> list[dict[str, str]]:
    """What was measured, for :func:`as_json`."""
    return [
        {
            "question": finding.question,
            "result": finding.result,
            "how": finding.how,
            "missing": finding.missing,
        }
        for finding in unknowns
    ]
