"""Whatever the text, RouterOS's parser sees the commands we meant and the same text back."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rds_csi.errors import DriverError
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record, owner_tag
from rds_csi.model.volume import MIB, volume_id
from rds_csi.routeros import commands, quoting
from rds_csi.routeros.reply import read
from rds_csi.simulator import Simulator
from rds_csi.simulator.journal import Exec

from .conftest import BASE, OWNER, PREFIX

NONCE = "0123456789abcdef"
HOSTILE = (
    '"; /system/reboot; :put "',
    "$[/system/reboot]",
    "$(1+1)",
    "\\",
    '\\"',
    "} do={ /disk/remove [find] }",
    "]; /disk/remove [/disk/find]",
    "a\n/disk/remove [find]",
    "\r\n",
    "\0",
    "*2B",
    "CSI-OK-" + NONCE,
    "ü",
    " ",
    "",
)
text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.text(max_size=40),
)


class Device:
    """A simulator on a loop of its own: hypothesis tests are not coroutines."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.simulator = Simulator()
        self._runner.run(self.simulator.start())
        self.simulator.make_directory(BASE)

    def run(self, command: str) -> Exec:
        self._runner.run(self.simulator.run(quoting.wrap(command, NONCE)))
        return self.simulator.execs()[-1]

    def close(self) -> None:
        self._runner.run(self.simulator.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    found = Device()
    yield found
    found.close()


@given(text)
@settings(max_examples=200, deadline=None)
def test_quoted_text_is_printed_as_it_is_and_runs_nothing(device: Device, words: str) -> None:
    try:
        command = f":put {quoting.quote(words)}"
    except DriverError:
        return
    done = device.run(command)
    assert done.parsed == device.run(':put "x"').parsed
    assert done.executed == []
    reply = read(done.output, NONCE)
    assert reply is not None
    assert reply.error is None
    assert "\n".join(reply.lines) == words or not words.strip()


def make(slot: str, record: Record) -> str:
    return commands.create(
        slot=slot,
        size=MIB,
        file_path=f"{BASE}/{slot}-{owner_tag(OWNER)}.img",
        nqn=f"{PREFIX}:{slot}",
        port=4420,
        record=record,
        reserve=0,
    )


@given(name=text, source=text, node=text)
@settings(max_examples=100, deadline=None)
@example(name=HOSTILE[0], source=HOSTILE[1], node=HOSTILE[2])
def test_a_record_of_any_text_is_stored_and_comes_back(
    device: Device, name: str, source: str, node: str
) -> None:
    record = Record(
        owner=OWNER,
        name=name,
        created=1,
        access="ext4",
        source=source,
        nodes=(Publication(node, AccessMode.SINGLE_NODE_WRITER),) if node else (),
    )
    slot = volume_id("text")
    made = device.run(make(slot, record))
    assert made.outcome == "ok"
    added = [each for each in made.executed if each.name == "/disk/add"]
    assert [Record.parse(each.arguments["comment"]) for each in added] == [record]
    plain = Record(owner=OWNER, name="x", created=1, access="ext4")
    assert device.run(make(slot, plain)).parsed == made.parsed
    shown = read(device.run(commands.show(slot)).output, NONCE)
    assert shown is not None
    assert [Record.parse(item["comment"]) for item in shown.items("disk")] == [record]
    swap = commands.change(
        slot=slot,
        expected=record.encode(),
        record=plain,
        exported=False,
        allowed_host="",
        base_path=BASE,
    )
    device.run(swap)
    assert device.run(commands.delete(slot=slot, owner=OWNER, base_path=BASE)).outcome == "ok"
    assert device.simulator.disks == {}


GOOD = {
    "slot": volume_id("good"),
    "file_path": f"{BASE}/good.img",
    "nqn": f"{PREFIX}:good",
    "allowed_host": "nqn.2014-08.org.nvmexpress:uuid:1",
    "expected": "rds-csi/2 owner=x",
    "owner": OWNER,
    "base_path": BASE,
    "pool": "raid10",
}


def all_lines(values: dict[str, str]) -> list[str]:
    record = Record(owner=values["owner"], name="x", created=1, access="block")
    slot, owner, base = values["slot"], values["owner"], values["base_path"]
    return [
        commands.show(slot),
        commands.listing(owner),
        commands.capacity(values["pool"]),
        commands.create(
            slot=slot,
            size=MIB,
            file_path=values["file_path"],
            nqn=values["nqn"],
            port=4420,
            record=record,
            reserve=0,
        ),
        commands.change(
            slot=slot,
            expected=values["expected"],
            record=record,
            exported=False,
            allowed_host=values["allowed_host"],
            base_path=base,
        ),
        commands.expand(slot=slot, size=MIB, owner=owner, base_path=base, reserve=0),
        commands.expand(
            slot=slot, size=MIB, owner=owner, base_path=base, reserve=0, published=False
        ),
        commands.delete(slot=slot, owner=owner, base_path=base),
    ]


@given(name=st.sampled_from(sorted(GOOD)), words=text)
@settings(max_examples=200, deadline=None)
def test_no_text_in_any_place_makes_another_command(device: Device, name: str, words: str) -> None:
    if name == "expected" and not words:
        return  # An empty comment means adoption: another, longer line of ours.
    try:
        hostile = all_lines(GOOD | {name: words})
    except DriverError:
        return
    for line, good in zip(hostile, all_lines(GOOD), strict=True):
        try:
            seen = device.run(line)
        except DriverError:
            continue
        assert seen.parsed == device.run(good).parsed
        device.run("/disk/remove [/disk/find where type=file]")
        device.run(f'/file/remove [/file/find where name~"^{BASE}/"]')
