"""Lines for a person; what they do to an RDS: tests/rds/test_volumes_command.py."""

from rds_csi.routeros import by_hand
from rds_csi.routeros.disk import Disk


def disk(comment: str) -> Disk:
    return Disk.parse({"slot": "pvc-1", "size": 1, "file-path": "/r/1.img", "comment": comment})


def test_a_disk_goes_only_with_the_record_that_was_read() -> None:
    assert by_hand.remove_disk(disk("rds-csi/2 owner=a nodes=")) == (
        '/disk/remove [find where slot="pvc-1" comment="rds-csi/2 owner=a nodes=" '
        "nvme-tcp-export=no]"
    )


def test_a_file_goes_only_while_no_disk_uses_it() -> None:
    assert by_hand.remove_file("r/1.img") == (
        ':if ([:len [/disk/find where (file-path="/r/1.img" or file-path="r/1.img")]] = 0) '
        'do={/file/remove [/file/find where name="r/1.img"]}'
    )


def test_a_text_from_the_rds_runs_no_code_on_it() -> None:
    """What somebody else wrote into a comment or a name is quoted as everything is."""
    assert '\\"]; /system/reset [' in by_hand.remove_disk(disk('x"]; /system/reset ['))
    assert by_hand.remove_file('a"$b').count('a\\"\\$b') == 3
