"""``rds-csi volumes``, the whole command over real SSH: what it shows, and that it only reads."""

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from rds_csi.cli.main import main
from rds_csi.model.record import owner_tag

from .calls import NODE_A, create, publish
from .conftest import BASE, CLUSTER, OWNER, Rds


async def command(rds: Rds, *words: str) -> Result:
    """The command in a thread, for it has an event loop of its own."""
    flags = {
        "--cluster-id": CLUSTER,
        "--rds-address": rds.simulator.address,
        "--rds-port": str(rds.simulator.port),
        "--rds-key-file": str(rds.key_file),
        "--rds-host-key": rds.simulator.host_key_line,
        "--nvme-address": "10.0.0.5",
        "--volume-path": BASE,
    }
    given = [word for pair in flags.items() for word in pair]
    return await asyncio.to_thread(CliRunner().invoke, main, ["volumes", *given, *words])


def persistent_volume(volume: str, name: str = "data") -> dict[str, Any]:
    return {
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{name}"},
        "spec": {
            "csi": {"driver": "csi.rds-csi.io", "volumeHandle": volume},
            "claimRef": {"namespace": "shop", "name": name},
        },
        "status": {"phase": "Bound"},
    }


async def test_volumes_with_their_claims_and_what_nobody_owns(rds: Rds, tmp_path: Path) -> None:
    controller = rds.controller()
    first = await create(controller, "pvc-one")
    await publish(controller, first)
    left = await create(controller, "pvc-two")
    file = f"{BASE}/pvc-{'0' * 28}-{owner_tag(OWNER)}.img"
    rds.simulator.path(file).write_bytes(b"x")
    foreign = f"{BASE}/pvc-{'0' * 28}-{owner_tag('csi.rds-csi.io/other')}.img"
    rds.simulator.path(foreign).write_bytes(b"x")
    objects = tmp_path / "objects.json"
    node = {"kind": "CSINode", "spec": {"drivers": [{"name": "csi.rds-csi.io", "nodeID": NODE_A}]}}
    items = [persistent_volume(first.volume_id), node]
    objects.write_text(json.dumps({"items": items}))
    before = {slot: rds.disk(slot) for slot in rds.slots()}

    done = await command(rds, "--orphans", "--pv-file", str(objects), "--json")

    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    rows = {row["volume"]: row for row in report["volumes"]}
    assert set(rows) == {first.volume_id, left.volume_id}
    assert rows[first.volume_id]["nodes"] == ["worker-a"]
    assert rows[first.volume_id]["claim"] == "shop/data"
    assert rows[first.volume_id]["problems"] == []
    assert {orphan["what"] for orphan in report["orphans"]} == {left.volume_id, file}
    assert {slot: rds.disk(slot) for slot in rds.slots()} == before
    assert {file, foreign} <= set(rds.files())
    [line] = [
        line
        for orphan in report["orphans"]
        if orphan["what"] == file
        for line in orphan["mend"]
        if "remove" in line
    ]
    assert await rds.simulator.run(line) == ""
    assert file not in rds.files()
    assert foreign in rds.files()


async def test_the_lines_it_gives_do_what_they_say(rds: Rds, tmp_path: Path) -> None:
    """A person pastes them: the orphan goes, and nothing else does."""
    controller = rds.controller()
    kept = await create(controller, "pvc-one")
    left = await create(controller, "pvc-two")
    objects = tmp_path / "objects.json"
    objects.write_text(json.dumps({"items": [persistent_volume(kept.volume_id)]}))
    done = await command(rds, "--orphans", "--pv-file", str(objects), "--json")
    [orphan] = json.loads(done.output)["orphans"]
    assert orphan["what"] == left.volume_id
    for line in orphan["mend"]:
        assert await rds.simulator.run(line) == ""
    assert rds.slots() == [kept.volume_id]
    assert len(rds.files()) == 1


async def test_a_line_of_yesterday_removes_nothing_that_is_used_by_now(
    rds: Rds, tmp_path: Path
) -> None:
    controller = rds.controller()
    volume = await create(controller, "pvc-one")
    objects = tmp_path / "objects.json"
    objects.write_text(json.dumps({"items": [persistent_volume(f"pvc-{'0' * 28}")]}))
    done = await command(rds, "--orphans", "--pv-file", str(objects), "--json")
    lines = [
        line
        for orphan in json.loads(done.output)["orphans"]
        for line in orphan["mend"]
        if "remove" in line
    ]
    assert len(lines) == 2, "its disk and its file"
    files = rds.files()
    await publish(controller, volume)
    for line in lines:
        await rds.simulator.run(line)
    assert (rds.slots(), rds.files()) == ([volume.volume_id], files)


async def test_for_people(rds: Rds) -> None:
    claim = {"csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pvc/name": "data-0"}
    volume = await create(rds.controller(), "pvc-one", parameters=claim)
    done = await command(rds, "--orphans")
    assert done.exit_code == 0, done.output
    assert volume.volume_id in done.output
    assert "shop/data-0" in done.output
    assert "Nothing without an owner was found." in done.output


async def test_an_rds_that_does_not_answer_is_one_sentence(rds: Rds) -> None:
    await rds.stop()
    done = await command(rds)
    assert done.exit_code == 1
    assert done.output.startswith("rds-csi: ")
    assert "Traceback" not in done.output
