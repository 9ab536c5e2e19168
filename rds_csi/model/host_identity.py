"""Who this node is to an NVMe target: a host NQN and host id that nobody else has."""

import uuid
from dataclasses import dataclass
from typing import Final

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "rds-csi.io")


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """The pair every connect carries; the kernel refuses one id under two NQNs."""

    nqn: str
    hostid: str


def host_identity(cluster_id: str, node_id: str) -> HostIdentity:
    """The identity of a node: computed, so that the controller knows it without asking."""
    found = uuid.uuid5(_NAMESPACE, f"{cluster_id}/{node_id}")
    return HostIdentity(f"nqn.2014-08.org.nvmexpress:uuid:{found}", str(found))
