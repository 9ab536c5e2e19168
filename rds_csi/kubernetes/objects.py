"""What ``kubectl get pv,csinodes -o json`` tells of this driver's volumes and nodes: pure.

For the one person who holds the RDS against the cluster (``rds-csi volumes --orphans``): the
driver itself asks no API server for any of it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from rds_csi.errors import InvalidRequest

_HOW: Final = "expected is the output of: kubectl get pv,csinodes -o json"


@dataclass(frozen=True, slots=True)
class PersistentVolume:
    """A PersistentVolume of this driver: its name, its volume, and the claim it is bound to."""

    name: str
    volume: str
    claim: str
    phase: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The driver's PersistentVolumes by volume id, and its node ids.

    ``nodes`` is None where no CSINode was in the text: then nothing is known of nodes, which is
    something else than that there are none.
    """

    volumes: Mapping[str, PersistentVolume]
    nodes: frozenset[str] | None

    @classmethod
    def parse(cls, text: str, driver: str) -> Self:
        """What the text says of the driver of that name.

        Raises :class:`InvalidRequest` where it is no list of Kubernetes objects, or has no
        PersistentVolume of any driver in it: then every volume would look like an orphan.
        """
        items = list(_items(text))
        persistent = [item for item in items if item.get("kind") == "PersistentVolume"]
        if not persistent:
            raise InvalidRequest("there is no PersistentVolume in it", advice=_HOW)
        nodes = [item for item in items if item.get("kind") == "CSINode"]
        try:
            volumes = [each for item in persistent for each in _volumes(item, driver)]
            ids = [each for item in nodes for each in _node_ids(item, driver)]
        except (AttributeError, KeyError, TypeError):
            raise InvalidRequest(
                "an object in it is not as Kubernetes makes it", advice=_HOW
            ) from None
        return cls({each.volume: each for each in volumes}, frozenset(ids) if nodes else None)


def _items(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"it is no JSON: {error}", advice=_HOW) from None
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list):
        raise InvalidRequest("it is no list of Kubernetes objects", advice=_HOW)
    yield from (item for item in items if isinstance(item, dict))


def _volumes(item: Mapping[str, Any], driver: str) -> Iterator[PersistentVolume]:
    csi = item["spec"].get("csi")
    if csi is None or csi["driver"] != driver:
        return
    claim = item["spec"].get("claimRef") or {}
    yield PersistentVolume(
        name=str(item["metadata"]["name"]),
        volume=str(csi["volumeHandle"]),
        claim=f"{claim['namespace']}/{claim['name']}" if claim else "",
        phase=str((item.get("status") or {}).get("phase", "")),
    )


def _node_ids(item: Mapping[str, Any], driver: str) -> Iterator[str]:
    for each in item["spec"].get("drivers") or ():
        if each["name"] == driver:
            yield str(each["nodeID"])
