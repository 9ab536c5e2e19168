"""The pieces of script: what each of them says, by its text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest
from rds_csi.model.record import Record, owner_prefixes, owner_tag
from rds_csi.model.volume import volume_id
from rds_csi.routeros import fragments
from rds_csi.routeros.disk import Disk
from rds_csi.routeros.failures import PERHAPS
from tests.unit.routeros.script import Script

OWNER = "csi.rds-csi.io/test"
BASE = "raid10/csi"
SLOT = volume_id("one")
LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"


def test_statements_follow_each_other_and_empty_ones_are_none() -> None:
    assert fragments.block("a", "", "b") == "a;b"
    assert fragments.block("", "") == ""


def test_a_condition_and_its_other_way() -> None:
    assert fragments.when("x", "a", "", "b") == ":if (x) do={a;b}"
    assert fragments.when("x", "a", otherwise="b") == ":if (x) do={a} else={b}"


def test_a_refusal_is_an_error_of_ours() -> None:
    assert fragments.refuse("x") == ':error "csi-refused x"'
    assert fragments.refuse("x", "$y") == ':error ("csi-refused x " . $y)'


def test_what_fails_is_caught_with_its_text() -> None:
    assert fragments.attempt("a", failed="b") == ":onerror csiWhy in={a} do={b}"


def test_properties_are_asked_for_once_and_are_all_that_a_disk_is_read_from() -> None:
    assert len(set(fragments.PROPERTIES)) == len(fragments.PROPERTIES)

    asked: set[str] = set()

    class Noting(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            asked.add(key)
            return default

    Disk.parse(Noting())
    assert asked == set(fragments.PROPERTIES)
    assert f"proplist={','.join(fragments.PROPERTIES)} where x" in fragments.print_disks("d", "x")


class TestLock:
    def test_the_body_runs_between_taking_and_freeing_it(self) -> None:
        code = Script(fragments.locked(SLOT, "BODY")).code
        (taken,) = re.finditer(r"address-list/add ", code)
        (body,) = re.finditer("BODY", code)
        freed = [found.start() for found in re.finditer(r"address-list/remove \$csiLock", code)]
        assert taken.start() < body.start() < min(freed)
        # Freed when the body failed, and told again; freed at the end.
        assert len(freed) == 2
        assert "do={}};:error $csiWhy};:onerror" in code

    def test_it_stays_where_what_was_begun_may_be_under_way(self) -> None:
        script = Script(fragments.locked(SLOT, "BODY"))
        after_error = script.places("address-list/remove $csiLock")[0]
        assert ':if (!([:tostr $csiWhy]~""))' in script.conditions(after_error)
        assert PERHAPS in script.texts

    def test_two_that_have_it_are_none(self) -> None:
        script = Script(fragments.locked(SLOT, "BODY"))
        (body,) = script.places("BODY")
        assert script.proofs(body) == {"no-lock", "locked"}
        assert f"where list={fragments.LOCKS} comment=$csiSlot]] > 1" in script.code

    def test_one_that_is_gone_at_the_end_is_told(self) -> None:
        script = Script(fragments.locked(SLOT, "BODY"))
        (body,) = script.places("BODY")
        (lost,) = script.refusals("lock-lost")
        assert body < lost
        assert "address-list/remove $csiLock} do=" in script.code[body:lost]

    def test_what_a_broken_line_leaves_ends_by_itself(self) -> None:
        assert f" timeout={fragments.LOCK_TIME}]" in fragments.locked(SLOT, "BODY")

    @given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True))
    def test_its_address_is_the_slots_own_and_nobodys(self, slot: str) -> None:
        (address,) = re.findall(r" address=(\S+) ", fragments.locked(slot, "BODY"))
        parts = [int(part) for part in address.split(".")]
        assert parts[0] == 127
        assert len(parts) == 4
        assert max(parts) < 256
        assert f" address={address} " in fragments.locked(slot, "OTHER")

    def test_slots_rarely_share_an_address(self) -> None:
        lines = [fragments.locked(volume_id(f"v{number}"), "") for number in range(1000)]
        found = {re.findall(r" address=(\S+) ", line)[0] for line in lines}
        assert len(found) > 990

    @pytest.mark.parametrize("slot", ["", 'x"', "UP", "a/b", "$x", "x" * 33])
    def test_what_is_no_slot_has_none(self, slot: str) -> None:
        with pytest.raises(InvalidRequest):
            fragments.locked(slot, "")
        if slot:
            with pytest.raises(InvalidRequest):
                fragments.find_disk(slot)


def test_a_disk_is_found_by_the_lock_or_by_a_name_and_never_two() -> None:
    by_lock, by_name = Script(fragments.find_disk()), Script(fragments.find_disk(SLOT))
    assert "where slot=$csiSlot]" in by_lock.code
    assert 'where slot=""]' in by_name.code
    assert by_name.texts[0] == SLOT
    for script in (by_lock, by_name):
        assert "[:len $csiDisk] > 1" in script.conditions(script.refusals("many-disks")[0])


class TestOwnership:
    @given(st.text(min_size=1, max_size=30))
    def test_the_comments_beginning_is_compared_in_every_version(self, owner: str) -> None:
        """Both parts are cut out of the comment where they stand in what we write."""
        script = Script(fragments.require_owner(SLOT, owner))
        cuts = [
            (int(start), int(end)) for start, end in re.findall(r"Text (\d+) (\d+)\]", script.code)
        ]
        texts = script.texts[: len(cuts)]
        for prefix in owner_prefixes(owner):
            parts = [prefix[start:end] for start, end in cuts]
            assert parts[0] in texts[:-1]
            assert parts[-1] == texts[-1]
            # From the first letter on, without a gap, to the end of the owner's word.
            assert "".join((parts[0], parts[-1])) == prefix
        assert script.texts[-1] == "csi-refused not-ours"

    def test_any_version_and_this_owner(self) -> None:
        code = Script(fragments.require_owner(SLOT, OWNER)).code
        assert code.count('!= "") && ([:pick') == len(owner_prefixes(OWNER)) - 1
        assert code.count(") || (") == 1

    def test_no_comment_counts_for_the_go_drivers_slots_alone(self) -> None:
        ours, legacy = (fragments.require_owner(slot, OWNER) for slot in (SLOT, LEGACY))
        empty = "([:len $csiText] > 0) && ("
        assert empty not in ours
        assert legacy.startswith(f":if ({empty}")

    def test_a_disk_without_a_record_has_to_stand_where_the_go_driver_put_it(self) -> None:
        assert fragments.require_ours(SLOT, OWNER, BASE) == fragments.require_owner(SLOT, OWNER)
        script = Script(fragments.require_ours(LEGACY, OWNER, BASE))
        begin, end = script.refusals("not-ours")[1:]
        for place in (begin, end):
            assert "[:len $csiText] = 0" in script.conditions(place)
        assert f"[:pick $csiPath 0 {len(BASE) + 1}] != " in script.conditions(begin)
        assert f"{BASE}/" in script.texts
        assert f"/{LEGACY}.img" in script.texts

    @pytest.mark.parametrize(("slot", "tag"), [(SLOT, f"-{owner_tag(OWNER)}"), (LEGACY, "")])
    def test_a_file_is_known_by_the_whole_end_of_its_name(self, slot: str, tag: str) -> None:
        script = Script(fragments.require_own_file(slot, OWNER, BASE))
        end = f"/{slot}{tag}.img"
        assert script.texts[-2:] == [end, "csi-refused foreign-file"]
        last = f"[:pick $csiFile ([:len $csiFile] - {len(end)}) [:len $csiFile]]"
        assert f'{last} != ""' in script.code

    def test_a_published_volume_is_known_by_the_end_of_its_record(self) -> None:
        script = Script(fragments.require_unpublished())
        free = Record(owner=OWNER, name="x", created=1, access="ext4").encode()
        (length,) = re.findall(r"\[:len \$csiText\] - (\d+)\)", script.code)
        assert free[-int(length) :] == script.texts[0] == " nodes="
        assert "[:len $csiText] > 0" in script.conditions(script.refusals("in-use")[0])


class TestLeftFiles:
    @given(st.text(max_size=12), st.text(max_size=12))
    def test_ours_are_known_anywhere_by_slot_and_owner(self, name: str, owner: str) -> None:
        statement, where = fragments.left_by(SLOT, OWNER, BASE)
        assert where == "name~$csiLike"
        (pattern,) = Script(statement).behind(":local csiLike ")
        mine = f"{SLOT}-{owner_tag(OWNER)}.img"
        assert re.search(pattern, f"raid10/csi/{mine}")
        assert re.search(pattern, f"elsewhere/{mine}")
        for other in (
            f"raid10/csi/x{mine}",
            f"raid10/csi/{mine}x",
            f"raid10/csi/{mine.replace('.', '-')}",
            f"raid10/csi/{mine}/x",
            f"raid10/csi/{volume_id(name)}-{owner_tag(OWNER)}.img",
        ):
            assert not re.search(pattern, other)
        if owner != OWNER:
            assert not re.search(pattern, f"raid10/csi/{SLOT}-{owner_tag(owner)}.img")

    def test_those_of_the_go_driver_only_where_it_put_them(self) -> None:
        statement, where = fragments.left_by(LEGACY, OWNER, BASE)
        assert where == "name=$csiOld"
        assert Script(statement).behind(":local csiOld ") == [f"{BASE}/{LEGACY}.img"]


class TestPool:
    def test_it_is_known_by_its_mount_point_or_slot_and_has_to_be_mounted(self) -> None:
        script = Script(fragments.require_pool("pool-gone"))
        (gone,), (away,) = script.refusals("pool-gone"), script.refusals("not-mounted")
        assert script.code.index("mount-point=$csiRoot") < script.code.index("slot=$csiRoot") < gone
        assert gone < away
        assert '[:typeof $csiRoom] != ""' in script.conditions(away)

    def test_what_is_free_is_asked_anew_at_the_end(self) -> None:
        script = Script(fragments.require_pool_still())
        assert "[/disk/get ($csiPool->0) free]" in script.conditions(
            script.refusals("not-mounted")[0]
        )

    def test_less_room_than_needed_is_told_with_what_there_is(self) -> None:
        script = Script(fragments.require_room("77", missing="no-pool"))
        (full,) = script.refusals("pool-full")
        assert script.conditions(full).strip() == ":if ($csiRoom < 77) do="
        assert script.code[full:].startswith('"" . $csiRoot . "" . $csiRoom)')
        assert "no-pool" in script.reasons

    def test_the_root_is_what_stands_before_the_first_slash(self) -> None:
        assert fragments.set_root("$p") == ':set csiRoot [:pick $p 0 [:find $p "/"]]'


def test_another_disk_over_the_same_file_is_found_as_the_disk_spells_it() -> None:
    script = Script(fragments.require_users(1))
    assert '/disk/find where file-path=("" . $csiFile)]] > 1' in script.code
    assert script.texts == ["/", "csi-refused shared-file"]


def test_the_path_of_a_disk_loses_its_leading_slash() -> None:
    script = Script(fragments.read_path())
    assert script.texts == ["/"]
    assert ":set csiPath [:pick $csiPath 1 [:len $csiPath]]" in script.code


def test_a_disk_without_a_size_is_refused() -> None:
    script = Script(fragments.require_size())
    assert script.texts == ["csi-refused no-size"]
    assert "slot=$csiSlot size>0]] = 0" in script.conditions(script.refusals("no-size")[0])


def test_what_the_rds_has_mounted_is_let_go_of_first_and_refused_if_it_stays() -> None:
    script = Script(fragments.require_unmounted())
    (stays,) = script.refusals("still-mounted")
    assert script.changes == ["/disk/set"]
    assert script.places("/disk/set ($csiDisk->0) mount-filesystem=no")[0] < stays
    assert script.conditions(stays).count("mount-point") == 2


def test_nothing_is_waited_for_for_ever() -> None:
    line = fragments.wait_until("DONE")
    assert f":while (($csiTry<{fragments.TRIES}) && !(DONE)) do=" in line
    assert ":set csiTry ($csiTry+1)" in line
    assert 0 < fragments.TRIES * 0.25 <= 10
