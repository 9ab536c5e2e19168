"""The error texts of RouterOS, and how sure we are of each.

"seen" means observed on a device by a public project; "inferred" means that nobody has published
the text RouterOS gives here, and a program must not rely on it.

Proven in ``tests/simulator/menus/test_disk.py``, ``tests/simulator/menus/test_file.py``.
"""

from typing import Final

NO_SUCH_ITEM: Final = "no such item"
"""Seen."""
ALREADY_EXISTS: Final = "failure: item with such name already exists"
"""Seen in other menus; inferred for a duplicate slot of ``/disk``."""
ALREADY_HAVE: Final = "failure: already have such entry"
"""Seen, for an address that is in the list."""
NOT_ENOUGH_SPACE: Final = "failure: not enough space"
"""Inferred: no text for a full disk has been published."""
NO_DIRECTORY: Final = "failure: could not create file, no such directory"
"""Inferred."""
NO_SUCH_FILE: Final = "failure: no such file"
"""Inferred."""
FILE_EXISTS: Final = "failure: file already exists"
"""Inferred."""
BAD_FILE_NAME: Final = "failure: bad file name"
"""Inferred."""
TYPE_FIXED: Final = "failure: can not change type"
"""Inferred: the manual says only that the type is chosen at creation."""
POOL_FIXED: Final = "failure: can not remove or change this disk"
"""Inferred; the simulator does not let go of its pools."""
SLOT_TOO_LONG: Final = "value of slot is too long"
"""Inferred."""
RESIZE_EXPORTED: Final = "failure: can not resize while exported"
"""Inferred; only with the quirk resize=needs-unexport."""
RENAME_EXPORTED: Final = "failure: can not change nqn while exported"
"""Inferred; with the quirks rename=closed and rename=refused."""
NQN_IN_USE: Final = "failure: nqn already in use"
"""Inferred."""
EXPORT_FAILED: Final = "failure: could not export"
"""Inferred."""
COMPRESS: Final = "compression only available for btrfs"
"""Documented."""

NOT_PERMITTED: Final = "not enough permissions (9)"
"""Seen."""
BAD_KEY: Final = "unable to load key file (wrong format or bad passphrase)!"
"""Seen, for ECDSA keys."""


def bad_value(name: str) -> str:
    """Inferred."""
    return f"invalid value for argument {name}"


def bad_enum(name: str) -> str:
    """Seen."""
    return f"input does not match any value of {name}"


def trailing_characters(name: str) -> str:
    """Seen."""
    return f"value of {name} contains invalid trailing characters"


def out_of_range(name: str, low: int, high: int) -> str:
    """Seen in other menus; inferred here."""
    return f"value of {name} out of range ({low}..{high})"
