"""The public csi-sanity suite against both services, on a real kernel."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.lab.world import KUBELET, MIB, World

SECONDS: Final = 900
"""For one run of the suite; the emulated processor needs about a tenth of it."""

_LATER: Final = "comes with a later version"
_NO_GROUPS: Final = "RouterOS cannot snapshot several disks at one moment"
_FIXED: Final = "no property of a volume can be modified"
REASONS: Final = {
    "Snapshot not supported": _LATER,
    "ListSnapshots not supported": _LATER,
    "Volume Cloning not supported": _LATER,
    "GroupControllerService not supported": _NO_GROUPS,
    "Modify volume not supported": _FIXED,
    "Modify Volume not supported": _FIXED,
    "ControllerModifyVolume not supported": _FIXED,
    "testnodevolumeattachlimit not enabled": "a node has no limit unless one is configured",
    "pending": "csi-sanity itself declares it unfinished",
}
"""Why a test may be skipped: what csi-sanity says, and what stands behind it."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    outcome: str
    text: str


def cases(report: Path) -> Iterator[Case]:
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        if not name.startswith("[It]"):
            continue  # set-up of the suite itself
        for outcome in ("failure", "error", "skipped"):
            found = case.find(outcome)
            if found is not None:
                yield Case(name, outcome, found.get("message") or found.text or "")
                break
        else:
            yield Case(name, "passed", "")


def reason(text: str) -> str:
    return next((why for said, why in REASONS.items() if said in text), "")


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("access", ["mount", "block"])
async def test_csi_sanity(
    access: str,
    world: World,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver = world.driver()
    await driver.start()
    report = pytestconfig.getoption("--results") / f"sanity-{access}.xml"
    places = KUBELET / "plugins/kubernetes.io/csi/sanity"
    places.mkdir(parents=True)

    status, output = await run(
        str(pytestconfig.getoption("--csi-sanity")),
        f"--csi.endpoint={driver.socket}",
        f"--csi.stagingdir={places}/staging",
        f"--csi.mountdir={places}/mount",
        f"--csi.testvolumeaccesstype={access}",
        f"--csi.testvolumesize={256 * MIB}",
        f"--csi.testvolumeexpandsize={512 * MIB}",
        f"--ginkgo.junit-report={report}",
        f"--ginkgo.timeout={SECONDS}s",
        "--ginkgo.no-color",
        "--ginkgo.succinct",
    )

    found = list(cases(report)) if report.exists() else []
    with capsys.disabled():
        print("\n".join(account(access, found)))  # noqa: T201 - skips are to be seen
    assert status == 0, f"{output[-8000:]}\n--- driver ---\n{driver.tail()}"
    assert sum(case.outcome == "passed" for case in found) > 40
    unexplained = [case for case in found if case.outcome == "skipped" and not reason(case.text)]
    assert unexplained == [], "skipped for a reason that REASONS does not know"


def account(access: str, found: list[Case]) -> Iterator[str]:
    """What happened, with every skip and its reason."""
    counts = Counter(case.outcome for case in found)
    yield f"\ncsi-sanity, {access}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
    for case in found:
        if case.outcome == "skipped":
            yield f"  skipped: {case.name}\n    {case.text}: {reason(case.text) or '???'}"
        elif case.outcome != "passed":
            yield f"  FAILED: {case.name}\n    {case.text}"


async def run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
