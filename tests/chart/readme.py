"""The chart's README: what to do first, and a table of the values made of their comments."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

INTRODUCTION = """\
# rds-csi

Kubernetes CSI driver for MikroTik ROSE Data Server: NVMe/TCP volumes that survive every outage.

Made by `nox -s chart -- --write` from `values.yaml`; change that.

## Install

On the RDS: a user with a public key (its rights are in the project's documentation), a pool and a
directory for volumes. Here: its private key in a Secret, and the RDS's public host key, which is
required, because without it anybody on the network could pose as the RDS.

```sh
kubectl create namespace rds-csi
kubectl label namespace rds-csi pod-security.kubernetes.io/enforce=privileged
kubectl -n rds-csi create secret generic rds-key --from-file=id_ed25519
helm -n rds-csi install rds charts/rds-csi --values my-values.yaml
helm -n rds-csi test rds
```

```yaml
# my-values.yaml
image:
  registry: registry.example/storage
rds:
  address: 10.0.0.5
  nvmeAddress: 10.0.1.5
  volumePath: raid10/csi
  hostKeys:
    - ssh-ed25519 AAAA...
  existingSecret:
    name: rds-key
```

Where `helm template` or a GitOps tool renders the chart, `clusterId` is required too: Helm cannot
read the cluster there.

Without an RDS: `--set image.registry=... --set simulator.enabled=true` runs a simulated one in the
cluster. The kernel of its node must have the modules `nvmet`, `nvmet-tcp` and `loop`.

The label is for clusters that enforce Pod Security: a node's pods mount, and are privileged for it.
The controller's fit the profile "restricted".

Every node needs the module `nvme-tcp` (Ubuntu: package `linux-modules-extra-...`) and must reach
`rds.nvmeAddress`; only the controller's pods need to reach `rds.address`.

## New nodes

So that no pod with a volume comes to a new node before the driver: `node.startupTaint.enabled`, and
nodes that are born with the taint `<driverName>/agent-not-ready` (`docs/operations.md`).

## Coming from the Go driver's chart

| there | here |
| --- | --- |
| `rds.managementIP`, `rds.sshPort`, `rds.sshUser` | `rds.address`, `rds.port`, `rds.user` |
| `rds.storageIP`, `rds.nvmePort` | `rds.nvmeAddress`, `rds.nvmePort` |
| `rds.basePath` | `rds.volumePath` |
| `rds.secretName` | `rds.existingSecret.name` |
| its `rds-private-key`, `rds-host-key` | `rds.existingSecret.privateKeyKey`, `.hostKeysKey` |
| `rds.insecureSkipVerify` | nothing: the host key is required |
| `controller.orphanReconciler` | nothing: volumes are deleted by Kubernetes only |
| `node.kubeletPath` | `node.kubeletDir` |
| `monitoring.*` | `metrics.*` |

`driverName` must be the one in your PersistentVolumes. The way over is in `docs/operations.md`.

## What must not change

`clusterId`, `driverName` and `nqnPrefix` stand in every volume. A release remembers its cluster id
and refuses another one. StorageClasses are immutable but for a few fields: a changed class needs a
new name. Uninstalling removes neither volumes nor data; installing again with the same three
values finds them.

## Values

| Key | Default | Meaning |
| --- | --- | --- |
"""


def readme(text: str) -> str:
    """The README for the text of ``values.yaml``. Raises ValueError for a key without comment."""
    return INTRODUCTION + "".join(
        f"| `{path}` | {shown(value)} | {meaning} |\n" for path, value, meaning in rows(text)
    )


def rows(text: str) -> Iterator[tuple[str, Any, str]]:
    """Path, default and meaning of every value with a comment, in order."""
    values = yaml.safe_load(text)
    folders: list[tuple[int, str]] = []
    comment: list[str] = []
    covered = ""
    for line in text.splitlines():
        if match := re.match(r" *# (-- )?(.*)", line):
            comment = [match[2]] if match[1] else [*comment, match[2]] if comment else []
            continue
        if match := re.match(r"( *)([A-Za-z]\w*):", line):
            indent = len(match[1])
            folders = [each for each in folders if each[0] < indent] + [(indent, match[2])]
            path = ".".join(name for _, name in folders)
            value = lookup(values, path)
            if comment:
                covered = path
                yield path, value, " ".join(comment)
            elif not isinstance(value, dict) and not path.startswith(f"{covered}."):
                raise ValueError(f"values.yaml: {path} has no comment")
        comment = []


def lookup(values: Any, path: str) -> Any:
    """The value at a path; None inside of lists and of maps in one line."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def shown(value: Any) -> str:
    return f"`{json.dumps(value)}`".replace("|", "\\|")
