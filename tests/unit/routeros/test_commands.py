"""The lines of each operation: what they change, what is proven before, and what they carry.

By their text alone. That RouterOS's parser sees the same in them, and what they do there, is
proven on the simulator (``tests/rds``).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record, owner_tag
from rds_csi.model.volume import MIB, volume_id
from rds_csi.routeros import commands
from rds_csi.routeros.failures import REFUSALS
from rds_csi.routeros.reply import HEADINGS
from rds_csi.routeros.rewrite import rewrite
from tests.unit.routeros.script import Script

OWNER = "csi.rds-csi.io/test"
BASE = "raid10/csi"
SLOT = volume_id("one")
LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
SLOTS = [SLOT, LEGACY]


def record(owner: str = OWNER, name: str = "one", source: str = "", *nodes: str) -> Record:
    return Record(
        owner=owner,
        name=name,
        created=1,
        access="ext4",
        source=source,
        nodes=tuple(Publication(node, AccessMode.SINGLE_NODE_WRITER) for node in nodes),
    )


def create(slot: str = SLOT, made: Record | None = None, base: str = BASE) -> Script:
    return Script(
        commands.create(
            slot=slot,
            size=64 * MIB,
            file_path=f"{base}/{slot}-{owner_tag(OWNER)}.img",
            nqn=f"nqn.2000-02.com.mikrotik:{slot}",
            port=4420,
            record=made or record(),
            reserve=5,
        )
    )


def change(
    slot: str = SLOT,
    expected: str = "rds-csi/2 owner=x",
    written: Record | None = None,
    *,
    exported: bool = True,
    opens: bool = True,
    nqn: str = "",
) -> Script:
    return Script(
        commands.change(
            slot=slot,
            expected=expected,
            record=written or record(),
            exported=exported,
            allowed_host="",
            base_path=BASE,
            opens=opens,
            nqn=nqn,
        )
    )


def expand(slot: str = SLOT, owner: str = OWNER, *, published: bool = False) -> Script:
    line = commands.expand(
        slot=slot, size=64 * MIB, owner=owner, base_path=BASE, reserve=5, published=published
    )
    return Script(line)


def delete(slot: str = SLOT, owner: str = OWNER, base: str = BASE) -> Script:
    return Script(commands.delete(slot=slot, owner=owner, base_path=base))


def every(slot: str) -> dict[str, Script]:
    """All lines, of changes with and without what is done only sometimes."""
    return {
        "show": Script(commands.show(slot)),
        "listing": Script(commands.listing(OWNER)),
        "capacity": Script(commands.capacity("raid10")),
        "system": Script(commands.system()),
        "create": create(slot),
        "open": change(slot),
        "hand over": change(slot, nqn=f"nqn.2000-02.com.mikrotik:{slot}.7"),
        "close": change(slot, exported=False, opens=False),
        "adopt": change(slot, expected=""),
        "expand": expand(slot),
        "expand all": expand(slot, published=True),
        "delete": delete(slot),
    }


CHANGES = {
    "show": [],
    "listing": [],
    "capacity": [],
    "system": [],
    "create": ["/disk/add", "/file/remove"],
    "open": ["/disk/set"],
    "hand over": ["/disk/set", "/disk/set", "/disk/set"],
    "close": ["/disk/set"],
    "adopt": ["/disk/set", "/disk/set"],
    "expand": ["/disk/set", "/disk/set", "/disk/set"],
    "expand all": ["/disk/set"],
    "delete": ["/disk/set", "/disk/remove", "/file/remove"],
}
"""All that a line may change, in its order."""

LOCKED = {"locked", "no-lock"}
PROOFS = {
    ("create", "/disk/add"): {"leftover-file", "no-pool", "not-mounted", "pool-full"}
    | {"no-directory"},
    ("create", "/file/remove"): {"leftover-file", "not-mounted"},
    ("open", "/disk/set"): {"many-disks", "no-size"},
    ("hand over", "/disk/set"): {"many-disks", "no-size"},
    ("close", "/disk/set"): {"many-disks"},
    ("adopt", "/disk/set"): {"many-disks", "no-size", "not-ours"},
    ("expand", "/disk/set"): {"many-disks", "not-ours", "no-size"},
    ("expand all", "/disk/set"): {"many-disks", "not-ours", "no-size", "pool-gone", "not-mounted"}
    | {"pool-full"},
    ("delete", "/disk/set"): {"many-disks", "pool-gone", "not-mounted", "shared-file", "not-ours"}
    | {"foreign-file", "in-use"},
    ("delete", "/disk/remove"): {"many-disks", "pool-gone", "not-mounted", "shared-file"}
    | {"not-ours", "foreign-file", "in-use"},
    ("delete", "/file/remove"): {"many-disks", "pool-gone", "not-mounted"},
}
"""What a line has refused before it gets to a change."""


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_line_changes_what_it_is_for_and_nothing_else(slot: str, name: str) -> None:
    script = every(slot)[name]
    assert script.balanced()
    assert script.changes == CHANGES[name]


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize(("name", "verb"), PROOFS)
def test_all_doubts_are_settled_before_a_change(slot: str, name: str, verb: str) -> None:
    script = every(slot)[name]
    for place in script.places(f"{verb} "):
        assert script.proofs(place) >= PROOFS[name, verb] | LOCKED


def test_every_change_is_among_those_that_are_proven() -> None:
    assert set(PROOFS) == {(name, verb) for name, verbs in CHANGES.items() for verb in verbs}


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_named_by_what_was_proven(slot: str, name: str) -> None:
    """Never by a number of the last listing, never by a search that could find another one."""
    script = every(slot)[name]
    targets = {
        "/disk/set": " ($csiDisk->0) ",
        "/disk/remove": " ($csiDisk->0)",
        "/file/remove": " [/file/find where name=$csiFile]",
        "/disk/add": " type=file slot=$csiSlot file-path=$csiFile ",
    }
    for verb in script.changes:
        for place in script.places(f"{verb} "):
            assert script.code[place + len(verb) :].startswith(targets[verb])


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", [name for name, changed in CHANGES.items() if changed])
def test_changes_run_under_the_lock_to_the_end_of_reading_back(slot: str, name: str) -> None:
    script = every(slot)[name]
    taken = script.places("/ip/firewall/address-list/add")
    freed = script.places("/ip/firewall/address-list/remove")
    assert len(taken) == 1
    assert len(freed) == 2
    for verb in {*script.changes, "/disk/print"}:
        for place in script.places(f"{verb} "):
            assert taken[0] < place < freed[0]


@pytest.mark.parametrize("slot", SLOTS)
def test_a_refusal_is_swallowed_by_nobody(slot: str) -> None:
    """Only the lock, adding a disk, its undoing, a new name and growth in use catch errors.

    All tell them again. So does the question who is there, of which the log is no part that has
    to work.
    """
    for name, script in every(slot).items():
        caught = len(script.places(":onerror "))
        # Taking the lock, the body, freeing it after an error, and freeing it at the end.
        own = {"create": 2, "hand over": 1, "expand": 1, "system": 1}.get(name, 0)
        assert caught == (4 if CHANGES[name] else 0) + own, name


class TestCreate:
    def test_an_undo_removes_only_what_no_disk_uses(self) -> None:
        script = create()
        (place,) = script.places("/file/remove ")
        assert "/disk/find where slot=" in script.conditions(place)
        assert "/disk/find where file-path=" in script.conditions(place)
        assert ") = 0) do=" in script.conditions(place)

    def test_nothing_is_undone_where_it_may_be_under_way(self) -> None:
        script = create()
        (undo,) = script.places("/file/remove ")
        (kept,) = [
            where
            for where in script.places(":if (([:tostr $csiWhy]~")
            if script.code[where:].startswith(':if (([:tostr $csiWhy]~"")) do={:error $csiWhy};')
        ]
        assert kept < undo
        assert script._blocks(kept) == script._blocks(undo)[: len(script._blocks(kept))]

    def test_an_undo_that_fails_hides_nothing(self) -> None:
        assert 'do={:error ($csiWhy . "" . $csiGone)};:error $csiWhy' in create().code

    def test_it_is_made_only_where_there_is_none(self) -> None:
        script = create()
        (place,) = script.places("/disk/add ")
        assert "[:len [/disk/find where slot=$csiSlot]] = 0" in script.conditions(place)

    def test_it_is_made_closed_and_unmounted_with_its_record(self) -> None:
        script = create()
        (place,) = script.places("/disk/add ")
        add = script.code[place:].split(";")[0]
        assert " mount-filesystem=no " in add
        assert " nvme-tcp-export=no " in add
        assert record().encode() in script.texts

    def test_there_has_to_be_room_for_the_reserve_too(self) -> None:
        assert f"$csiRoom < {64 * MIB + 5})" in create().code


class TestChange:
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1), st.text())
    def test_it_writes_over_the_expected_comment_alone(self, expected: str, name: str) -> None:
        """What both are made of is proven in ``test_rewrite.py``."""
        written = record(name=name)
        shared, was, becomes = rewrite(expected, written.encode())
        line = commands.change(
            slot=SLOT,
            expected=expected,
            record=written,
            exported=False,
            allowed_host="",
            base_path=BASE,
        )
        assert ";".join([":local csiLock", *shared]).partition(";")[2] in line
        compared, write = line.index(f":if ($csiText = {was})"), line.index(f" comment={becomes} ")
        assert compared < write
        script = Script(line)
        (place,) = script.places("/disk/set ")
        assert f"$csiText = {Script(was).code}" in script.conditions(place)

    def test_record_and_export_are_one_step(self) -> None:
        for exported in (True, False):
            script = change(exported=exported, opens=False)
            (place,) = script.places("/disk/set ")
            write = script.code[place:].split("}")[0]
            assert f"nvme-tcp-export={'yes' if exported else 'no'}" in write
            assert "comment=(" in write
            assert ";" not in write

    @pytest.mark.parametrize("slot", SLOTS)
    def test_what_rds_has_mounted_is_let_go_before_it_is_exported(self, slot: str) -> None:
        adopting = change(slot, expected="")
        write = adopting.places("/disk/set ")[-1]
        assert "still-mounted" in adopting.proofs(write)
        assert "still-mounted" not in change(slot, expected="", exported=False).reasons

    def test_only_what_opens_needs_a_size(self) -> None:
        assert "no-size" not in change(opens=False).reasons
        assert "no-size" in change(opens=False, nqn="nqn.2000-02.com.mikrotik:a").reasons

    def test_a_name_is_given_to_a_closed_export_and_proven_before_anybody_has_it(self) -> None:
        """A line may end between any two steps: never is it open without a holder on record."""
        name = "nqn.2000-02.com.mikrotik:a.7"
        script = change(nqn=name)
        close, rename, write = script.places("/disk/set ")
        assert script.code[close:].startswith("/disk/set ($csiDisk->0) nvme-tcp-export=no;")
        assert script.code[rename:].startswith(
            "/disk/set ($csiDisk->0) nvme-tcp-server-nqn=$csiName}"
        )
        assert script.behind(":local csiName ") == [name]
        assert script.proofs(write) - script.proofs(rename) == {"no-rename"}
        said, kept = script.refusals("no-rename")
        assert rename < said < kept < write
        assert "nvme-tcp-export=yes" in script.code[write:]
        for place in (close, rename, write):
            assert '$csiText = ("")' in script.conditions(place)


class TestDelete:
    @pytest.mark.parametrize("slot", SLOTS)
    def test_an_export_ends_before_its_disk_goes(self, slot: str) -> None:
        script = delete(slot)
        (close,), (remove,) = script.places("/disk/set "), script.places("/disk/remove ")
        assert close < remove
        assert "nvme-tcp-export=no" in script.code[close:remove]

    @pytest.mark.parametrize("slot", SLOTS)
    def test_the_file_goes_only_after_the_disk_is_seen_gone(self, slot: str) -> None:
        script = delete(slot)
        (remove,), (file,) = script.places("/disk/remove "), script.places("/file/remove ")
        (stays,) = script.refusals("disk-stays")
        assert remove < stays < file
        assert ":while" in script.code[remove:stays]

    @pytest.mark.parametrize("slot", SLOTS)
    def test_a_file_without_a_disk_is_the_one_of_its_name_that_nobody_uses(self, slot: str) -> None:
        script = delete(slot)
        (named,) = script.places(":set csiFile [:tostr [/file/get ($csiLeft->0) name]]")
        (file,) = script.places("/file/remove ")
        assert "many-files" in script.proofs(named)
        assert "[:len $csiLeft] = 1" in script.conditions(named)
        used = script.code[named:file]
        assert '/disk/find where file-path=("" . $csiFile)]] > 0' in used
        assert "[:len $csiFile] > 0" in script.conditions(file)

    def test_what_is_gone_is_said_only_of_a_pool_that_is_mounted_still(self) -> None:
        script = delete()
        assert script.reasons.count("not-mounted") == 2
        again = script.refusals("not-mounted")[-1]
        assert script.refusals("file-stays")[0] < again < script.places("/file/print ")[-1]

    def test_another_owner_has_another_file(self) -> None:
        ends = {f"/{SLOT}-{owner_tag(owner)}.img" for owner in (OWNER, "other/cluster")}
        assert len(ends) == 2
        for owner in (OWNER, "other/cluster"):
            mine = f"/{SLOT}-{owner_tag(owner)}.img"
            assert [text for text in delete(owner=owner).texts if text in ends] == [mine]


class TestTexts:
    """Whatever a name holds, it stays inside its quotes: the code is the same as for any other."""

    texts = st.one_of(
        st.text(max_size=40),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
        st.sampled_from(
            ['"; /disk/remove [find]; :put "', "$[/system/reboot]", "\\", '\\"', "}", "\n", "*1"]
        ),
    )

    @given(texts, texts, texts)
    def test_of_a_record(self, name: str, source: str, node: str) -> None:
        made = record(OWNER, name, source, *([node] if node else []))
        script = create(made=made)
        assert script.shape == create().shape
        assert Record.parse(next(each for each in script.texts if " owner=" in each)) == made
        assert change(written=made).shape == change().shape

    @given(texts)
    def test_of_an_owner(self, owner: str) -> None:
        plain, hostile = record(), record(owner)
        assert create(made=hostile).shape == create(made=plain).shape
        for slot in SLOTS:
            assert expand(slot, owner).shape == expand(slot).shape
            assert delete(slot, owner).shape == delete(slot).shape
        assert Script(commands.listing(owner)).shape == Script(commands.listing(OWNER)).shape

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
    def test_of_a_pool_and_of_a_comment(self, text: str) -> None:
        pool = Script(commands.capacity(text))
        assert pool.shape == Script(commands.capacity("raid10")).shape
        assert pool.texts == ["^/", text, "/", "size", "promised", "mounted", text, "slot", text]
        if text:
            assert change(expected=text).shape == change().shape


def test_every_reason_is_known_and_none_is_forgotten() -> None:
    given = {reason for slot in SLOTS for each in every(slot).values() for reason in each.reasons}
    of_the_doctor = {"no-disk"}
    assert given - {"no-lock"} == set(REFUSALS) - of_the_doctor


def test_every_heading_is_known() -> None:
    for each in every(SLOT).values():
        assert set(each.headings) <= HEADINGS
