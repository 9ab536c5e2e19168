"""The samples in ``docs/doctor.md`` are what the doctor prints.

``nox -s simulator -- --write-samples -k sample`` writes them anew.
"""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from rds_csi.doctor.rds.checks import Examination
from rds_csi.doctor.show import show

from .conftest import BASE, OWNER, PREFIX
from .doctoring import Doctor, exporting
from .test_doctor import record
from .user_target import UserTarget

DOCUMENT = Path(__file__).parents[2] / "docs" / "doctor.md"
SAMPLE = r"(<!-- sample: {} -->\n```\n)(.*?)(```\n)"


def printed(found: Examination, doctor: Doctor) -> str:
    """As a user would see it who has an RDS at the usual ports."""
    out = io.StringIO()
    show(Console(file=out, width=100), found.checks, found.unknowns)
    text = re.sub(r"SHA256:[A-Za-z0-9+/=]{43}", "SHA256:" + "x" * 43, out.getvalue())
    text = text.replace(f":{doctor.rds.simulator.port}", ":22")
    text = text.replace(f":{doctor.nvme_port}", ":4420").replace("127.0.0.1", "10.0.0.5")
    text = re.sub(r"\d+\.\d s\b", "0.3 s", text)
    text = re.sub(r"\d+ s behind", "400 s behind", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("name", ["read", "write"])
async def test_the_sample_is_what_is_printed(
    client_key: Path, tmp_path: Path, pytestconfig: pytest.Config, name: str
) -> None:
    target = UserTarget()
    async with exporting(client_key, tmp_path, target) as rds:
        rds.simulator.fill_pool("raid10", free=9 * 1024**4)
        doctor = Doctor(rds, target.port)
        if name == "read":
            await doctor.set_policy("ssh,read,write,test,sensitive")
            rds.simulator.quirks.set("clock_error", -400)
            slot = f"pvc-{1:028}"
            await rds.simulator.run(
                f"/disk/add type=file slot={slot} file-path={BASE}/{slot}.img file-size=1G "
                f'comment="{record(OWNER)}" nvme-tcp-server-nqn={PREFIX}:{slot}'
            )
        text = printed(await doctor.examine(write=name == "write"), doctor)
    if name == "read":
        text = text.partition("\nWhat nobody has measured")[0]
    document = DOCUMENT.read_text()
    pattern = re.compile(SAMPLE.format(name), re.DOTALL)
    assert pattern.search(document)
    if pytestconfig.getoption("--write-samples"):
        DOCUMENT.write_text(pattern.sub(lambda match: match[1] + text + match[3], document))
    found = pattern.search(DOCUMENT.read_text())
    assert found
    assert words(found[2]) == words(text)
