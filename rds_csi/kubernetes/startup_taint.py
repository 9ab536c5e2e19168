"""The startup taint: new nodes carry it, so that no pod with a volume comes before the driver.

A kubelet that has not registered the driver fails every mount of its volumes, and the scheduler
does not know. So a cluster may have its nodes born with a taint that only this driver's own pods
tolerate; here it is taken off, from this node, when the driver serves and the kubelet has said so
in the node's CSINode.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import structlog

from rds_csi.errors import DriverError, NodeNotFound
from rds_csi.kubernetes.api import ApiServer
from rds_csi.runtime.retry import DelaySequence, RetryPolicy, delays

log = structlog.get_logger(__name__)

_LONGEST_WAIT: Final = 15.0
"""Seconds between two looks: nobody can use the node meanwhile, but many nodes may be waiting."""


class StartupTaint:
    """Takes the taint ``key`` off ``node``, whatever its value and effect.

    ``driver`` and ``node_id`` are what the kubelet registers; ``limited`` says that the driver
    tells it a number of volumes, which then must be known to the scheduler as well.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        key: str,
        node: str,
        driver: str,
        node_id: str,
        limited: bool,
        waits: DelaySequence | None = None,
    ) -> None:
        self._api = api
        self._key = key
        self._node = node
        self._driver = driver
        self._node_id = node_id
        self._limited = limited
        self._waits = waits or delays(RetryPolicy(), limit=_LONGEST_WAIT)

    async def run(self) -> None:
        """Return once the node is seen without the taint; what is in the way is logged, once.

        For a service of the driver, which begins when it serves. It never gives up: a role may be
        granted and an API server come back at any time, and the node is of no use until then.
        """
        said = ""
        while True:
            try:
                hindrance = await self._step()
                tell = log.info
            except DriverError as error:
                hindrance = str(error)
                tell = log.warning
            if not hindrance:
                return
            if hindrance != said:
                tell("the startup taint stays for now", taint=self._key, reason=hindrance)
            said = hindrance
            await asyncio.sleep(self._waits.next())

    async def _step(self) -> str:
        """Remove the taint if it is time; what is in the way, or nothing if it is seen gone."""
        name = quote(self._node, safe="")
        if not self._registered(await self._api.get(f"/apis/storage.k8s.io/v1/csinodes/{name}")):
            return "the kubelet has not registered the driver yet"
        node = await self._api.get(f"/api/v1/nodes/{name}")
        if node is None:
            raise NodeNotFound(
                f"the cluster has no node {self._node!r}",
                advice="--node-id must be the name of the Kubernetes node",
            )
        taints = self._mine(node)
        if not taints:
            log.info("this node has no startup taint", taint=self._key)
            return ""
        after = await self._api.patch(f"/api/v1/nodes/{name}", removal(taints))
        if self._mine(after):
            return "it was removed, and is there again"
        log.info("startup taint removed", taint=self._key)
        return ""

    def _registered(self, csi_node: Mapping[str, Any] | None) -> bool:
        for driver in _entries(csi_node, "drivers").values():
            if (driver.get("name"), driver.get("nodeID")) == (self._driver, self._node_id):
                allocatable = driver.get("allocatable")
                return not self._limited or (
                    isinstance(allocatable, Mapping) and "count" in allocatable
                )
        return False

    def _mine(self, node: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
        """The taints with our key, by their place in the list."""
        taints = _entries(node, "taints")
        return {place: each for place, each in taints.items() if each.get("key") == self._key}


def removal(taints: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The JSON patch that removes just these taints, given by their places in the node's list.

    Each is tested to stand there still: if somebody added or removed another one meanwhile, the
    places are others, and nothing of the patch may happen. The last goes first, for what is
    removed moves the places behind it.
    """
    patch: list[dict[str, Any]] = []
    for place, taint in sorted(taints.items(), reverse=True):
        path = f"/spec/taints/{place}"
        patch += [{"op": "test", "path": path, "value": taint}, {"op": "remove", "path": path}]
    return patch


def _entries(thing: Mapping[str, Any] | None, name: str) -> dict[int, Mapping[str, Any]]:
    """The maps in the list ``spec.NAME``, by their place in it; none where there is no such."""
    spec = (thing or {}).get("spec")
    found = spec.get(name) if isinstance(spec, Mapping) else None
    entries = enumerate(found if isinstance(found, list) else [])
    return {place: each for place, each in entries if isinstance(each, Mapping)}
