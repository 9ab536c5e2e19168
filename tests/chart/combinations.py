"""Ways to set the values, each over the least a user has to say.

Together they touch every value.
"""

from typing import Any

from tests.chart.conftest import SIMULATED

DIGEST = "sha256:" + "5" * 64
RESOURCES = {"requests": {"cpu": "20m"}, "limits": {"memory": "1Gi"}}
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def _sidecar(name: str, **more: Any) -> dict[str, Any]:
    return {"sidecars": {name: more}}


def _image(name: str, repository: str) -> dict[str, Any]:
    image = {"registry": "mirror.example:5000", "repository": repository, "digest": DIGEST}
    return _sidecar(name, image=image, **_switched_on(name))


def _switched_on(name: str) -> dict[str, bool]:
    return {"enabled": True} if name in OPTIONAL else {}


def _metrics(name: str, **more: Any) -> dict[str, Any]:
    return {"metrics": {"force": True, name: {"enabled": True, **more}}}


def _class(**more: Any) -> dict[str, Any]:
    return {"storageClasses": [{"name": "fast", **more}]}


def _parameter(key: str, value: object) -> dict[str, Any]:
    return _class(parameters={key: value})


OPTIONAL = ("snapshotter", "healthMonitor")
SIDECARS = (
    *("provisioner", "attacher", "resizer", "snapshotter", "healthMonitor"),
    *("livenessProbe", "registrar"),
)
PARAMETERS: dict[str, tuple[object, ...]] = {
    "nvmeAddress": ("10.1.1.1", "fd00::1", "10.1.1.1,10.1.2.1"),
    "nvmePort": (4421, "4421"),
    "volumePath": ("raid10/other/place",),
    "fencing": ("hostNqn", "none"),
    "mkfsFeatures": ("linux-5.10", "newest"),
    "ctrlLossTmo": (-1, 0, 600, 2000000, "-1", "2000000"),
    "reconnectDelay": (10, "10"),
    "keepAliveTmo": (30, "30"),
    "fastIoFailTmo": (0, 120, "120"),
    "nrIoQueues": (4, "4"),
    "queueSize": (64, "64"),
}
"""Values of every StorageClass parameter of the driver; numbers as Kubernetes wants them, too."""

COMBINATIONS: dict[str, dict[str, Any]] = {
    "names": {"nameOverride": "storage"},
    "full name": {"fullnameOverride": "rds-storage"},
    "labels": {"commonLabels": {"team": "storage", "number": "1"}},
    "pull secrets": {"imagePullSecrets": [{"name": "registry"}]},
    "cluster id": {"clusterId": "9b0a7e9c-5a0e-4f5a-8a52-4b8b3a1f4d7e"},
    "cluster id of digits": {"clusterId": "007"},
    "driver name": {"driverName": "rds.csi.example.org"},
    "nqn prefix": {"nqnPrefix": "nqn.2020-01.org.example:rds"},
    "registry with port": {"image": {"registry": "127.0.0.1:5000"}},
    "image tags": {"image": {"controller": {"tag": "1"}, "node": {"tag": "0.2.0-rc.1"}}},
    "image digests": {"image": {"controller": {"digest": DIGEST}, "node": {"digest": DIGEST}}},
    "repositories": {"image": {"controller": {"repository": "a/b"}, "node": {"repository": "a/c"}}},
    "pull policy": {"image": {"pullPolicy": "Always"}},
    "rds by name": {"rds": {"address": "rds.example.org", "port": 2200, "user": "metal-csi"}},
    "rds by IPv6": {"rds": {"address": "fd00::", "nvmeAddress": "fd00::1", "nvmePort": 4421}},
    "two data addresses": {"rds": {"nvmeAddress": "10.0.1.5,10.0.2.5"}},
    "volume path": {"rds": {"volumePath": "/pool/a/b/"}},
    "two host keys": {"rds": {"hostKeys": ["ssh-ed25519 AAAA one", "ssh-rsa AAAA="]}},
    "inline key": {"rds": {"privateKey": KEY, "existingSecret": {"name": ""}}},
    "host keys in the secret": {
        "rds": {
            "hostKeys": [],
            "existingSecret": {"privateKeyKey": "rds-private-key", "hostKeysKey": "rds-host-key"},
        }
    },
    "limits of the rds": {"rds": {"channels": 12, "reserveBytes": 10995116277760}},
    "exports keep their names": {"rds": {"renameExports": False}},
    "growth in use": {"rds": {"growth": "always"}},
    "logging": {"logging": {"level": "debug", "format": "console"}},
    "one controller": {"controller": {"replicas": 1}},
    "no disruption budget": {"controller": {"podDisruptionBudget": {"enabled": False}}},
    "disruption budget": {
        "controller": {"replicas": 3, "podDisruptionBudget": {"maxUnavailable": "50%"}}
    },
    "flags of the controller": {"controller": {"extraArgs": ["--operation-timeout=90"]}},
    "controller's pods": {
        "controller": {
            "resources": RESOURCES,
            "priorityClassName": "",
            "nodeSelector": {"disk": "no"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "podLabels": {"a": "b"},
            "podAnnotations": {"c": "d"},
            "serviceAccountAnnotations": {"e": "f"},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                }
            ],
        }
    },
    "no tolerations": {"controller": {"tolerations": []}, "node": {"tolerations": []}},
    "no node selector": {"controller": {"nodeSelector": {"kubernetes.io/os": None}}},
    "kubelet elsewhere": {
        "node": {"kubeletDir": "/var/lib/k0s/kubelet", "stateDir": "/opt/rds-csi"}
    },
    "modules by the host": {"node": {"loadModules": False}},
    "path layer": {"pathLayer": {"enabled": True}},
    "limits of the node": {"node": {"maxVolumes": 32, "connects": 4}},
    "reaper": {"node": {"reapInterval": 60, "reapGrace": 3600}},
    "health port": {"node": {"healthPort": 9999}},
    "startup taint": {"node": {"startupTaint": {"enabled": True}}},
    "startup taint of one's own": {
        "node": {"startupTaint": {"enabled": True, "key": "example.org/x"}, "tolerations": []}
    },
    "flags of the node": {"node": {"extraArgs": ["--drain-budget=10"]}},
    "node's pods": {
        "node": {
            "resources": RESOURCES,
            "priorityClassName": "",
            "nodeSelector": {"disk": "yes"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
            "podLabels": {"a": "b"},
            "podAnnotations": {"c": "d"},
            "serviceAccountAnnotations": {"e": "f"},
        }
    },
    "groups by pod": {"csiDriver": {"fsGroupPolicy": "ReadWriteOnceWithFSType"}},
    "selinux": {"csiDriver": {"seLinuxMount": True, "annotations": {"a": "b"}}},
    "no capacity": {"storageCapacity": {"enabled": False}},
    "capacity": {"storageCapacity": {"pollInterval": "5m"}},
    "sidecars' registry": {"sidecars": {"registry": "mirror.example/k8s"}},
    "sidecars' pace": {
        "sidecars": {
            "timeout": "2m",
            "retryIntervalMax": "5m",
            "workerThreads": 20,
            "logLevel": 5,
            "resources": RESOURCES,
        }
    },
    "reconcile": _sidecar("attacher", reconcileSync="5m"),
    **{f"image of {name}": _image(name, f"mirror/{name.lower()}") for name in SIDECARS},
    **{
        f"tag and flags of {name}": _sidecar(
            name,
            image={"tag": "v9.9.9"},
            extraArgs=["--v=7"],
            resources=RESOURCES,
            **_switched_on(name),
        )
        for name in SIDECARS
    },
    "no classes": {"storageClasses": []},
    "every field of a class": _class(
        default=True,
        fsType="xfs",
        reclaimPolicy="Retain",
        volumeBindingMode="Immediate",
        allowVolumeExpansion=False,
        mountOptions=["noatime", "nodiratime"],
        labels={"a": "b"},
        annotations={"c": "d"},
    ),
    "two classes": {"storageClasses": [{"name": "one"}, {"name": "2"}]},
    **{
        f"{key} {value!r}": _parameter(key, value)
        for key, values in PARAMETERS.items()
        for value in values
    },
    "snapshot classes": {
        "sidecars": {"snapshotter": {"enabled": True}},
        "volumeSnapshotClasses": [
            {"name": "one", "default": True, "labels": {"a": "b"}, "annotations": {"c": "d"}},
            {"name": "two", "deletionPolicy": "Retain"},
        ],
    },
    "no metrics": {"metrics": {"enabled": False}},
    "metrics ports": {"metrics": {"controllerPort": 9001, "nodePort": 9002}},
    "pod monitor": _metrics("podMonitor", interval="10s", labels={"release": "prometheus"}),
    "service monitor": _metrics("serviceMonitor", interval="1m", labels={"release": "prometheus"}),
    "rules": _metrics("prometheusRule", labels={"release": "prometheus"}),
    "dashboard": _metrics("dashboard", labels={"grafana": "yes"}, annotations={"folder": "CSI"}),
    "network policy": {"networkPolicy": {"enabled": True}},
    "network policy, rds by name": {
        "networkPolicy": {"enabled": True},
        "rds": {"address": "rds.example.org"},
    },
    "network policy, rds by IPv6": {
        "networkPolicy": {"enabled": True},
        "rds": {"address": "fd::5"},
    },
    "network policy without metrics": {
        "networkPolicy": {"enabled": True, "apiServerPorts": [8443]},
        "metrics": {"enabled": False},
    },
    "network policy for prometheus": {
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        }
    },
    "no test": {"helmTest": {"enabled": False}},
    "test of another class": {"helmTest": {"storageClass": "other", "size": "10Gi"}},
    "simulator": dict(SIMULATED),
    "every field of the simulator": {
        "simulator": {
            "enabled": True,
            "nodeName": "2",
            "address": "fd00::",
            "port": 2222,
            "size": "2T",
            "version": "7.21.1",
            "dataDir": "/srv/rds",
            "extraArgs": ["--quirk=lag=0.2"],
            "resources": RESOURCES,
        }
    },
    "simulator with a policy": {**SIMULATED, "networkPolicy": {"enabled": True}},
}
