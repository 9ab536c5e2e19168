"""After a disk may have been made, no answer whatever may end in a final code.

external-provisioner takes a final code for proof that there is no volume, and leaks the disk.
The genuine reply comes from the simulator; what is made of it is told to the real client.
"""

import asyncio
import json
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import (
    OPEN,
    DriverError,
    NotOurs,
    OutcomeUnknown,
    PoolFull,
    RouterOSError,
    VolumeInUse,
)
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record, owner_prefixes
from rds_csi.model.volume import MIB
from rds_csi.routeros import (
    Disk,
    Disks,
    commands,
    failures,
    fragments,
    quoting,
)
from rds_csi.routeros.exchange import Exchange
from rds_csi.routeros.reply import Reply
from rds_csi.simulator import Simulator
from rds_csi.simulator.language.values import RuntimeFault, Value

from .conftest import BASE, OWNER, PREFIX, Rds
from .volumes import SLOT, create, path_of, record

NONCE: Final = "0123456789abcdef"
OK: Final = f"CSI-OK-{NONCE}"
MADE: Final = ("adding", "created", "disk")
TEXTS: Final = (
    *(f"csi-refused {reason} raid10 5" for reason in failures.REFUSALS),
    *("not enough permissions (9)", "failure: not enough space", "failure: already have such slot"),
    *("no such item (4)", "bad command name disk (line 1 column 7)", "stop using it first", ""),
)


class Told:
    """Stands for a session: whatever is asked, it heard ``text``."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def execute(self, command: str, *, volume: str = "", largest: int | None = None) -> Reply:
        del command, volume, largest
        exchange = Exchange(10**6)
        exchange.output += self._text.encode()
        exchange.complete = True
        return exchange.conclude(NONCE)


def heard(text: str) -> tuple[Disk, bool] | DriverError:
    """What a create makes of the reply."""
    disks = Disks(Told(text), owner=OWNER, base_path=BASE)  # type: ignore[arg-type]

    async def attempt() -> tuple[Disk, bool] | DriverError:
        try:
            return await create(disks)
        except DriverError as error:
            return error

    return asyncio.run(attempt())


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines that RouterOS prints of a create that made the disk."""

    async def made() -> str:
        async with Simulator(tmp_path_factory.mktemp("rds")) as simulator:
            simulator.make_directory(BASE)
            line = commands.create(
                slot=SLOT,
                size=64 * MIB,
                file_path=path_of(SLOT),
                nqn=f"{PREFIX}:{SLOT}",
                port=4420,
                record=record(),
                reserve=0,
            )
            return await simulator.run(quoting.wrap(line, NONCE))

    lines = [line.rstrip("\r") for line in asyncio.run(made()).splitlines()]
    assert tuple(lines[:3]) == MADE
    assert lines[-1] == OK
    return lines


def require_open(lines: list[str] | str) -> None:
    text = lines if isinstance(lines, str) else "\r\n".join([*lines, ""])
    outcome = heard(text)
    if isinstance(outcome, DriverError):
        assert outcome.code in OPEN, f"{outcome!r} of {text!r}"
    else:
        assert outcome[0].slot == SLOT


def test_the_genuine_reply_is_success(genuine: list[str]) -> None:
    outcome = heard("\r\n".join(genuine))
    assert not isinstance(outcome, DriverError)
    assert outcome[0].size == 64 * MIB
    assert not outcome[1]


def test_a_reply_cut_anywhere(genuine: list[str]) -> None:
    whole = "\r\n".join(genuine)
    for end in range(0, len(whole), 3):
        require_open(whole[:end])


@given(st.data())
def test_a_line_that_is_garbage_or_too_much(genuine: list[str], data: st.DataObject) -> None:
    lines = list(genuine)
    junk = data.draw(
        st.sampled_from([*TEXTS, *MADE, "[]", "{}", "undone", "[{}]", OK, f"CSI-ERR-{NONCE} x"])
        | st.text()
    )
    at = data.draw(st.integers(2, len(lines)))
    if data.draw(st.booleans()):
        lines.insert(at, junk)
    else:
        lines[min(at, len(lines) - 1)] = junk
    require_open(lines)


@given(st.sampled_from(TEXTS) | st.text())
def test_a_failure_told_after_the_disk_may_have_been_made(genuine: list[str], text: str) -> None:
    for printed in (genuine[:1], genuine[:2], genuine[:3], genuine[:-1], ["adding", "noise"]):
        require_open([*printed, f"CSI-ERR-{NONCE} {text}"])


@pytest.mark.parametrize(
    "change",
    [
        {"slot": "other"},
        {"slot": None},
        {"size": 1},
        {"size": None},
        {"size": ""},
        {"size": "50.0GiB"},
        {"size": "many"},
        {"size": -1},
        {"nvme-tcp-server-port": "http"},
        {"file-path": None},
        {"comment": None},
        {"comment": "precious"},
        {"comment": record("two").encode()},
        {"comment": record(owner="other/cluster").encode()},
        {"comment": record().encode()[:40]},
    ],
    ids=str,
)
def test_another_disk_than_was_made(genuine: list[str], change: dict[str, Any]) -> None:
    [item] = json.loads("".join(genuine[3:-1]))
    odd = {key: value for key, value in (item | change).items() if value is not None}
    for items in ([odd], [item, odd], [odd, odd]):
        require_open([*MADE, json.dumps(items), OK])


def test_a_disk_that_came_out_too_small_is_no_success(genuine: list[str]) -> None:
    [item] = json.loads("".join(genuine[3:-1]))
    item["size"] = 63 * MIB
    outcome = heard("\r\n".join([*MADE, json.dumps([item]), OK]))
    assert isinstance(outcome, OutcomeUnknown)


@pytest.mark.parametrize("shown", [{"mount-filesystem": "true"}, {"mount-point": "raid10-1"}])
async def test_an_export_that_the_rds_may_have_mounted_is_no_success(
    genuine: list[str], shown: dict[str, str]
) -> None:
    [item] = json.loads("".join(genuine[3:-1]))
    before = record()
    held = before.with_node(Publication("a", AccessMode.SINGLE_NODE_WRITER))
    item |= {"comment": held.encode(), "nvme-tcp-export": "true"}

    async def change(item: dict[str, Any]) -> Disk:
        told = Told("\r\n".join(["disk", json.dumps([item]), OK]))
        disks = Disks(told, owner=OWNER, base_path=BASE)  # type: ignore[arg-type]
        return await disks.change(SLOT, before.encode(), held, exported=True)

    assert (await change(item)).exported
    with pytest.raises(VolumeInUse, match="may have mounted"):
        await change(item | shown)


@pytest.mark.parametrize("items", ["[]", "null", "7", '"text"', "[[]]", "[1]", "{", ""])
def test_no_disk_at_all(genuine: list[str], items: str) -> None:
    del genuine
    require_open([*MADE, items, OK])


@pytest.mark.parametrize("cut", [30, 60])
@pytest.mark.parametrize("version", ["rds-csi/1", "rds-csi/2", "rds-csi/3", "rds-csi/9"])
def test_an_odd_record_of_ours_on_a_disk_that_existed(
    genuine: list[str], version: str, cut: int
) -> None:
    """An earlier call made it and its reply was lost: still no final code."""
    [item] = json.loads("".join(genuine[3:-1]))
    begin = owner_prefixes(OWNER)[0].partition(" ")[2]
    item["comment"] = f"{version} {begin}name={'x' * cut}"
    outcome = heard("\r\n".join(["disk", json.dumps([item]), OK]))
    assert isinstance(outcome, DriverError)
    assert outcome.code in OPEN


@pytest.mark.parametrize("said", ["not enough permissions (9)", "failure: no room", "who knows"])
async def test_without_its_lock_a_create_proves_nothing(rds: Rds, said: str) -> None:
    """An earlier call made the volume, and its reply was lost."""
    disks = rds.backend()
    await create(disks)
    rds.simulator.faults.add("runtime-error", command="/ip/firewall/address-list/add", text=said)
    with pytest.raises(DriverError, match=re.escape(said)) as caught:
        await create(disks)
    assert caught.value.code in OPEN
    assert (await create(disks))[1]


def test_what_is_proven_keeps_its_final_code(genuine: list[str]) -> None:
    """So that the rule is not "everything is open": then nothing would ever be given up."""
    for printed, text, kind in (
        ([], "csi-refused pool-full raid10 5", PoolFull),
        (["adding", "undone"], "failure: not enough space", PoolFull),
        (["adding", "undone"], "failure: who knows", RouterOSError),
    ):
        outcome = heard("\r\n".join([*printed, f"CSI-ERR-{NONCE} {text}"]))
        assert type(outcome) is kind
    [item] = json.loads("".join(genuine[3:-1]))
    foreign = Record(owner="other/cluster", name="one", created=1, access="ext4")
    item["comment"] = foreign.encode()
    assert type(heard("\r\n".join(["disk", json.dumps([item]), OK]))) is NotOurs


@pytest.mark.parametrize("undone", [True, False])
async def test_a_failed_add_is_final_only_when_nothing_is_left_of_it(
    rds: Rds, monkeypatch: pytest.MonkeyPatch, undone: bool
) -> None:
    """Over real SSH, with an add that fails half-way and leaves its file."""
    monkeypatch.setattr(fragments, "TRIES", 2)
    device, disks = rds.simulator.device, rds.backend()

    async def half(_given: dict[str, Value]) -> Disk:
        rds.simulator.path(path_of(SLOT)).write_bytes(b"half")
        raise RuntimeFault("failure: quota exceeded")

    monkeypatch.setattr(device, "add_disk", half)
    if not undone:
        monkeypatch.setattr(device.files, "remove", lambda _name: None)
    with pytest.raises(DriverError, match="quota exceeded") as caught:
        await create(disks)
    assert (caught.value.code in OPEN) == (not undone)
    assert ("undone" in rds.simulator.execs()[-1].output.split()) == undone
    assert rds.slots() == []
    assert rds.files() == ([] if undone else [path_of(SLOT)])


async def test_a_file_that_somebody_uses_by_then_is_not_undone(
    rds: Rds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The add failed half-way, and a person made a disk of the file it left."""
    device, disks = rds.simulator.device, rds.backend()
    genuine = device.add_disk

    async def half(_given: dict[str, Value]) -> Disk:
        rds.simulator.path(path_of(SLOT)).write_bytes(b"half")
        monkeypatch.setattr(device, "add_disk", genuine)
        assert (
            await rds.simulator.run(f'/disk/add type=file slot=person file-path="{path_of(SLOT)}"')
            == ""
        )
        raise RuntimeFault("failure: quota exceeded")

    monkeypatch.setattr(device, "add_disk", half)
    with pytest.raises(DriverError, match="quota exceeded") as caught:
        await create(disks)
    assert caught.value.code in OPEN
    assert rds.slots() == ["person"]
    assert rds.files() == [path_of(SLOT)]
