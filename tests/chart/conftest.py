"""Helm and the chart, as the tests see them.

``nox -s chart`` builds Helm and the decoders once and says where they are. ``--write`` lets the
tests write what they would otherwise compare: the golden renders and the chart's README.
"""

import copy
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "rds-csi"
KUBERNETES = "1.37.0"
BASE: Mapping[str, Any] = {
    "clusterId": "prod",
    "image": {"registry": "registry.example/storage"},
    "rds": {
        "address": "10.0.0.5",
        "nvmeAddress": "10.0.1.5",
        "volumePath": "raid10/csi",
        "hostKeys": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDe0pA8syM7qrcHif4QzzRQpT6DRcwl3uGS2r6Qtf4EC"
        ],
        "existingSecret": {"name": "rds-key"},
    },
}
"""The least a user has to say."""
FREE = {
    "resources",
    "affinity",
    "updateStrategy",
    "nodeSelector",
    "commonLabels",
    "podLabels",
    "podAnnotations",
    "serviceAccountAnnotations",
    "annotations",
    "labels",
    "global",
}
"""Maps whose keys are Kubernetes' or the user's."""
SIMULATED: Mapping[str, Any] = {
    "clusterId": "prod",
    "image": {"registry": "registry.example/storage"},
    "simulator": {"enabled": True, "nodeName": "worker-1", "address": "10.0.2.5"},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--helm", type=Path, help="the program helm")
    parser.addoption("--decoders", type=Path, help="folder with the programs strict-1.xx")
    parser.addoption("--write", action="store_true", help="write golden renders and README")


def merged(base: Mapping[str, Any], *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm merges them: maps key by key, all else as a whole."""
    result = copy.deepcopy(dict(base))
    for overlay in overlays:
        for key, value in overlay.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
                result[key] = merged(result[key], value)
            else:
                result[key] = copy.deepcopy(value)
    return result


class Chart:
    """The chart, rendered by the real Helm."""

    def __init__(self, helm: Path) -> None:
        self._helm = helm
        self._rendered: dict[str, str] = {}

    def helm(self, *words: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._helm), *words, "--kube-version", KUBERNETES, "--values=-"],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def text(self, values: Mapping[str, Any], *options: str, name: str = "rds") -> str:
        """The rendered manifests; the same words and values are rendered once."""
        words = ("template", name, str(CHART), "--namespace=storage", *options)
        key = json.dumps([words, values])
        if key not in self._rendered:
            done = self.helm(*words, values=values)
            assert done.returncode == 0, done.stderr
            self._rendered[key] = done.stdout
        return self._rendered[key]

    def objects(
        self, values: Mapping[str, Any], *options: str, name: str = "rds"
    ) -> list[dict[str, Any]]:
        """The rendered objects."""
        return parsed(self.text(values, *options, name=name))

    def refusal(self, values: Mapping[str, Any]) -> str:
        """Why the values are refused."""
        done = self.helm("template", "rds", str(CHART), values=values)
        assert done.returncode != 0, "these values were accepted"
        return done.stderr


def parsed(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The only object of the kind whose name ends so."""
    [found] = [
        each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)
    ]
    return found


def pod_specs(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod, by the name of what makes it."""
    for each in objects:
        if each["kind"] in {"Deployment", "DaemonSet"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]


def container(objects: list[dict[str, Any]], component: str, name: str) -> dict[str, Any]:
    """A container of the controller, the node or the simulator."""
    [spec] = [spec for owner, spec in pod_specs(objects) if owner.endswith(f"-{component}")]
    everything = [*spec.get("initContainers", []), *spec["containers"]]
    [found] = [each for each in everything if each["name"] == name]
    return found  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def chart(pytestconfig: pytest.Config) -> Chart:
    helm = pytestconfig.getoption("--helm")
    assert helm, "--helm is missing; run these tests by nox -s chart"
    return Chart(helm.absolute())


@pytest.fixture
def write(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--write"))
