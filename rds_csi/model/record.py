"""The record of who owns a volume and who has it, as it stands on the RDS.

The RDS is the database: everything that must be remembered about a volume stands in the
``comment`` of its ``/disk`` entry, as one line of text written by :meth:`Record.encode`.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import quote, unquote

from rds_csi.model.access import BLOCK, AccessMode


@dataclass(frozen=True, slots=True, order=True)
class Publication:
    """One node that has the volume: its id, the mode of its publish, and read-only or not."""

    node: str
    mode: AccessMode
    readonly: bool = False

    @property
    def reads_only(self) -> bool:
        """Whether this node cannot write."""
        return self.readonly or self.mode.read_only


MAXIMUM_RECORD: Final = 2300
"""Characters of a record that one more node may be written into: each later change of it is a line
that RouterOS takes (``routeros.quoting.MAXIMUM_LINE``), striking one of the nodes above all."""

MAXIMUM_CLAIMED: Final = 640
"""Characters that a record without nodes may have with its claim. One that would be longer goes
without it: what is only told to people keeps no volume from being made."""

VERSION: Final = "rds-csi/3"
"""The newest. Only records that need its words are written so; others stay of the second version,
which older drivers know as well."""

_NAMELESS: Final = "rds-csi/2"

_WORDS: Final = {
    "rds-csi/1": ("owner", "name", "created", "access", "fencing", "source", "nodes"),
    _NAMELESS: (
        *("owner", "name", "created", "access", "fencing", "source"),
        *("generation", "formatted", "nodes"),
    ),
    VERSION: (
        *("owner", "name", "namespace", "claim", "created", "access", "fencing", "source"),
        *("generation", "formatted", "mapped", "nodes"),
    ),
}
"""The words of a record in each version, in their order. A newer version is not ours to touch."""
_OPTIONAL: Final = frozenset({"mapped"})
"""Words that are only there with the value 1."""
MAPPED: Final = " mapped=1 nodes="
"""In the text of a record whose holders all have a map, and in no other: no value has a space."""

_KUBERNETES: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Names of namespaces and claims (DNS subdomains): as they are, they need no encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    r"""What stands in the ``comment`` of a volume's ``/disk`` entry.

    ``owner`` is ``<driver name>/<cluster id>``: an entry with another owner is never touched.
    ``created`` is in seconds since 1970. ``access`` is ``block``, ``ext4`` or ``xfs``: what the
    volume was created for, empty where nobody has said so yet. ``fencing`` restricts the export
    to the publishing node's host NQN.

    ``generation`` counts the hand-overs: it is raised with the first holder after there was
    none, and with nothing else. Holders that have the volume at the same time share it, and
    whatever a node kept from an older one is outdated. ``formatted`` is the file system that the
    RDS was seen to show on the volume, empty where it never showed one: a device of such a
    volume that reads as blank has lost data. ``mapped``: every holder was told to put a map over
    its device, and the export's name tells a healer that it is the same volume that comes back, so
    it may go away for a moment.

    ``namespace`` and ``claim`` are of the claim that the volume was made for, for people that look
    at the RDS; nothing is decided by them. Empty where nobody told.

    The text is one line of ``key=value`` words behind a version word. Everything outside
    ``[A-Za-z0-9._~-]`` is percent-encoded, so the text is plain ASCII without quotes, spaces
    inside values, ``$`` or ``\``. The owner comes first, so that a script on the RDS proves
    ownership by comparing a prefix, and the nodes last, so that it proves "published nowhere"
    by the end.
    """

    owner: str
    name: str
    created: int
    access: str
    fencing: bool = False
    source: str = ""
    generation: int = 0
    formatted: str = ""
    namespace: str = ""
    claim: str = ""
    mapped: bool = False
    nodes: tuple[Publication, ...] = ()

    def encode(self, version: str = "") -> str:
        """The comment's text, of the oldest version since the second that has words for it.

        One that is asked for leaves out what it has no words for.
        """
        newer = self.namespace or self.claim or self.mapped
        version = version or (VERSION if newer else _NAMELESS)
        nodes = ",".join(
            f"{_quote(entry.node)}:{entry.mode.value}{'r' if entry.readonly else 'w'}"
            for entry in sorted(self.nodes)
        )
        values = {
            "owner": _quote(self.owner),
            "name": _quote(self.name),
            "created": str(self.created),
            "access": _quote(self.access),
            "fencing": str(int(self.fencing)),
            "source": _quote(self.source),
            "generation": str(self.generation),
            "formatted": _quote(self.formatted),
            "namespace": _quote(self.namespace),
            "claim": _quote(self.claim),
            "mapped": "1" if self.mapped else "",
            "nodes": nodes,
        }
        keys = [key for key in _WORDS[version] if values[key] or key not in _OPTIONAL]
        return " ".join([version, *(f"{key}={values[key]}" for key in keys)])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The record in a comment, or None where there is none that we could have written.

        All versions are read; what is written next is as :meth:`encode` has it.
        """
        version, *words = text.split(" ")
        keys = [
            key for key in _WORDS.get(version, ()) if key not in _OPTIONAL or f"{key}=1" in words
        ]
        if not keys or len(words) != len(keys):
            return None
        values: dict[str, str] = {}
        for key, word in zip(keys, words, strict=True):
            found, equals, value = word.partition("=")
            if found != key or not equals:
                return None
            values[key] = value
        try:
            record = cls(
                owner=unquote(values["owner"], errors="strict"),
                name=unquote(values["name"], errors="strict"),
                created=int(values["created"]),
                access=unquote(values["access"], errors="strict"),
                fencing=bool(int(values["fencing"])),
                source=unquote(values["source"], errors="strict"),
                generation=int(values.get("generation", "0")),
                formatted=unquote(values.get("formatted", ""), errors="strict"),
                namespace=unquote(values.get("namespace", ""), errors="strict"),
                claim=unquote(values.get("claim", ""), errors="strict"),
                mapped="mapped" in values,
                nodes=tuple(_publication(word) for word in values["nodes"].split(",") if word),
            )
        except ValueError:
            return None
        # Only what we would write ourselves counts: no second spelling of the same record.
        return record if record.encode(version) == text else None

    def seen(self, file_system: str) -> Self:
        """The record with what the RDS shows in the volume; nothing shown changes nothing.

        What a raw block volume holds is its user's affair.
        """
        if not file_system or self.access == BLOCK:
            return self
        return replace(self, formatted=file_system)

    def made_for(self, namespace: str, claim: str) -> Self:
        """The record with the claim's name, if Kubernetes could have given it and there is room."""
        named = replace(self, namespace=namespace, claim=claim)
        possible = all(_KUBERNETES.fullmatch(part) for part in (namespace, claim))
        return named if possible and len(named.encode()) <= MAXIMUM_CLAIMED else self

    def publication(self, node: str) -> Publication | None:
        """This node's entry, if it has the volume."""
        return next((entry for entry in self.nodes if entry.node == node), None)

    def with_node(self, entry: Publication, *, mapped: bool = False) -> Self:
        """The record with the node added; others stay. The first holder begins a generation.

        ``mapped``: the node is told to put a map over its device. One that was once told not to may
        have none, whatever it is told later.
        """
        kept = tuple(other for other in self.nodes if other.node != entry.node)
        return replace(
            self,
            generation=self.generation + (not self.nodes),
            mapped=mapped and (self.mapped or not self.nodes),
            nodes=tuple(sorted((*kept, entry))),
        )

    def without_node(self, node: str) -> Self:
        """The record with the node removed; an empty ``node`` removes all (CSI Unpublish)."""
        kept = tuple(other for other in self.nodes if node and other.node != node)
        return replace(self, mapped=self.mapped and bool(kept), nodes=kept)


def owner_prefixes(owner: str) -> tuple[str, ...]:
    """How the comment of everything we own begins, one per version and all of one length."""
    return tuple(f"{version} owner={_quote(owner)} " for version in _WORDS)


def owner_tag(owner: str) -> str:
    """Eight characters that mark a backing file as the owner's: part of its name.

    A file has no comment, so after a crash between removing the disk and removing the file the
    name is the only proof that the file is ours.
    """
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


def _publication(word: str) -> Publication:
    node, colon, flags = word.rpartition(":")
    if not colon or len(flags) != 2 or flags[1] not in "rw":
        raise ValueError(word)
    return Publication(unquote(node, errors="strict"), AccessMode(int(flags[0])), flags[1] == "r")


def _quote(text: str) -> str:
    return quote(text, safe="")
