"""What kubectl's output tells: our volumes and nodes, and a refusal of anything else."""

import json
from typing import Any

import pytest

from rds_csi.errors import InvalidRequest
from rds_csi.kubernetes.objects import Cluster, PersistentVolume

DRIVER = "csi.rds-csi.io"


def persistent_volume(name: str = "pvc-1", volume: str = "pvc-a", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "csi": {"driver": DRIVER, "volumeHandle": volume},
            "claimRef": {"namespace": "shop", "name": "data"},
            **changes,
        },
        "status": {"phase": "Bound"},
    }


def csi_node(node_id: str, driver: str = DRIVER) -> dict[str, Any]:
    return {"kind": "CSINode", "spec": {"drivers": [{"name": driver, "nodeID": node_id}]}}


def text(*items: Any) -> str:
    return json.dumps({"kind": "List", "items": items})


def test_volumes_and_nodes_of_the_driver() -> None:
    found = Cluster.parse(
        text(
            persistent_volume(),
            persistent_volume("pvc-2", "pvc-b", claimRef=None),
            persistent_volume("nfs", csi={"driver": "nfs.csi.k8s.io", "volumeHandle": "x"}),
            persistent_volume("hostpath", csi=None),
            csi_node("worker-1.0a0a0a0a"),
            csi_node("elsewhere", driver="nfs.csi.k8s.io"),
            {"kind": "CSINode", "spec": {"drivers": None}},
        ),
        DRIVER,
    )
    assert found.volumes == {
        "pvc-a": PersistentVolume("pvc-1", "pvc-a", "shop/data", "Bound"),
        "pvc-b": PersistentVolume("pvc-2", "pvc-b", "", "Bound"),
    }
    assert found.nodes == frozenset({"worker-1.0a0a0a0a"})


def test_without_nodes_nothing_is_known_of_them() -> None:
    assert Cluster.parse(text(persistent_volume()), DRIVER).nodes is None


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("No resources found", "it is no JSON"),
        ("[]", "it is no list"),
        ('{"items": 3}', "it is no list"),
        (text(), "there is no PersistentVolume in it"),
        (text(csi_node("a")), "there is no PersistentVolume in it"),
        (text({"kind": "PersistentVolume"}), "not as Kubernetes makes it"),
        (text(persistent_volume(csi={"driver": DRIVER})), "not as Kubernetes makes it"),
        (text(persistent_volume(claimRef={"name": "data"})), "not as Kubernetes makes it"),
        (text(persistent_volume(csi=7)), "not as Kubernetes makes it"),
    ],
)
def test_anything_else_is_refused(given: str, what: str) -> None:
    """An output that was cut short must not make orphans of all volumes."""
    with pytest.raises(InvalidRequest, match=what) as refused:
        Cluster.parse(given, DRIVER)
    assert "kubectl get pv,csinodes -o json" in str(refused.value)
