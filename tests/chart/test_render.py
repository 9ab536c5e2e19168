"""Every combination of values gives objects that fit Kubernetes and each other."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rds_csi.kubernetes.api import SERVICE_ACCOUNT
from tests.chart.combinations import COMBINATIONS
from tests.chart.conftest import (
    BASE,
    CHART,
    FREE,
    SIMULATED,
    Chart,
    container,
    merged,
    one,
    pod_specs,
)

KUBERNETES = ("1.29", "1.34", "1.37")
"""The oldest the chart admits, one between, the newest."""
OPERATORS = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "VolumeSnapshotClass"}
"""Kinds that come with an operator; only the newest decoder has them."""
GIVEN = {"ConfigMap/kube-root-ca.crt", "Secret/rds-key"}
"""What is there without the chart."""


@pytest.fixture(scope="module")
def base(chart: Chart) -> str:
    return chart.text(BASE)


@pytest.fixture(params=sorted(COMBINATIONS))
def rendered(request: pytest.FixtureRequest, chart: Chart) -> str:
    return chart.text(merged(BASE, COMBINATIONS[request.param]))


def decode(pytestconfig: pytest.Config, version: str, objects: list[dict[str, Any]]) -> str:
    """What Kubernetes' own types of that version say against the objects."""
    decoder = pytestconfig.getoption("--decoders") / f"strict-{version}"
    done = subprocess.run(
        [str(decoder.absolute())],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_enough_combinations() -> None:
    assert len(COMBINATIONS) >= 60


def test_combinations_touch_every_value() -> None:
    touched = {path for overlay in COMBINATIONS.values() for path in leaves(overlay)}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    untouched = {
        path
        for path in leaves(defaults)
        if not any(same_or_inside(path, other) for other in touched)
    }
    assert untouched == set()


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in FREE:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def same_or_inside(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


@pytest.mark.parametrize("values", [BASE, SIMULATED], ids=["least", "simulator"])
def test_lint(chart: Chart, values: Mapping[str, Any]) -> None:
    done = chart.helm("lint", str(CHART), "--strict", values=values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_combination(
    rendered: str, base: str, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    if request.node.callspec.params["rendered"] != "no tolerations":
        assert rendered != base, "the values change nothing"
    assert "<no value>" not in rendered
    assert "%!" not in rendered
    for version in KUBERNETES:
        known = objects
        if version != KUBERNETES[-1]:
            known = [each for each in objects if each["kind"] not in OPERATORS]
        assert decode(pytestconfig, version, known) == ""
    check_names(objects)
    for _, spec in pod_specs(objects):
        check_pod(spec)
    check_references(objects)
    check_selectors(objects)


def check_names(objects: list[dict[str, Any]]) -> None:
    seen = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(seen) == len(set(seen))
    for kind, name in seen:
        assert isinstance(name, str)
        assert len(name) <= 63, (kind, name)
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert all(isinstance(value, str) for value in labels.values())


def check_pod(spec: dict[str, Any]) -> None:
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    names = [each["name"] for each in containers]
    assert len(names) == len(set(names))
    mounted = {mount["name"] for each in containers for mount in each.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in spec.get("volumes", [])}
    ports = [port for each in containers for port in each.get("ports", [])]
    numbers = [port["containerPort"] for port in ports]
    assert len(numbers) == len(set(numbers))
    named = {port["name"] for port in ports}
    for each in containers:
        points = [mount["mountPath"] for mount in each.get("volumeMounts", [])]
        assert len(points) == len(set(points))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = each.get(probe, {}).get("httpGet", {}).get("port", 0)
            assert isinstance(port, int) or port in named
        assert all(isinstance(word, str) for word in each.get("args", []))
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
    check_patience(containers)
    assert spec["automountServiceAccountToken"] is False


def check_patience(containers: list[dict[str, Any]]) -> None:
    """What waits for the driver is killed no sooner than the driver that does not start."""
    probes = [each["startupProbe"] for each in containers if "livenessProbe" in each]
    assert len({probe["periodSeconds"] * probe["failureThreshold"] for probe in probes}) <= 1


def check_references(objects: list[dict[str, Any]]) -> None:
    there = {f"{each['kind']}/{each['metadata']['name']}" for each in objects} | GIVEN
    for _, spec in pod_specs(objects):
        if "serviceAccountName" in spec:
            assert f"ServiceAccount/{spec['serviceAccountName']}" in there
        for volume in spec.get("volumes", []):
            for kind, name in sources(volume):
                assert f"{kind}/{name}" in there
    for each in objects:
        if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}:
            assert f"{each['roleRef']['kind']}/{each['roleRef']['name']}" in there
            for subject in each["subjects"]:
                assert f"{subject['kind']}/{subject['name']}" in there


def sources(volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for source in [volume, *volume.get("projected", {}).get("sources", [])]:
        if "secret" in source:
            yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]
        if "configMap" in source:
            yield "ConfigMap", source["configMap"]["name"]
        if "persistentVolumeClaim" in source:
            yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]


def check_selectors(objects: list[dict[str, Any]]) -> None:
    pods = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        if each["kind"] in {"Deployment", "DaemonSet"}
    ]
    wanted = []
    for each in objects:
        if each["kind"] in {"Deployment", "DaemonSet", "PodDisruptionBudget"}:
            wanted.append(each["spec"]["selector"]["matchLabels"])
        if each["kind"] == "NetworkPolicy":
            wanted.append(each["spec"]["podSelector"]["matchLabels"])
        if each["kind"] == "Service":
            wanted.append(each["spec"]["selector"])
    for labels in wanted:
        assert len([pod for pod in pods if labels.items() <= pod.items()]) == 1


def test_controller_is_not_privileged(chart: Chart) -> None:
    objects = chart.objects(BASE)
    [spec] = [spec for owner, spec in pod_specs(objects) if owner.endswith("-controller")]
    assert spec["securityContext"]["runAsUser"] == 65532
    assert "hostNetwork" not in spec
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not any("hostPath" in volume for volume in spec["volumes"])


def with_token(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Pods and containers that may speak to the API server."""
    return {
        (owner.rpartition("-")[2], each["name"])
        for owner, spec in pod_specs(objects)
        for each in spec["containers"]
        if any(mount["name"] == "api-token" for mount in each.get("volumeMounts", []))
    }


def test_only_sidecars_of_the_controller_get_a_token(chart: Chart) -> None:
    objects = chart.objects(merged(BASE, {"sidecars": {"snapshotter": {"enabled": True}}}))
    names = {"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter"}
    assert with_token(objects) == {("controller", name) for name in names}


@pytest.mark.parametrize("key", ["", "example.org/x"])
def test_startup_taint(chart: Chart, key: str) -> None:
    values = {"node": {"tolerations": [], "startupTaint": {"enabled": True, "key": key}}}
    objects = chart.objects(merged(BASE, values))
    expected = key or "csi.rds-csi.io/agent-not-ready"
    driver = container(objects, "node", "rds-csi")
    assert f"--startup-taint={expected}" in driver["args"]
    [spec] = [spec for owner, spec in pod_specs(objects) if owner.endswith("-node")]
    assert spec["tolerations"] == [{"key": expected, "operator": "Exists"}]
    [mount] = [each for each in driver["volumeMounts"] if each["name"] == "api-token"]
    assert mount["mountPath"] == str(SERVICE_ACCOUNT)
    added = with_token(objects) - with_token(chart.objects(BASE))
    assert added == {("node", "rds-csi")}
    assert "--startup-taint" not in str(container(chart.objects(BASE), "node", "rds-csi")["args"])


def test_node_lives_in_the_hosts_network(chart: Chart) -> None:
    [spec] = [spec for owner, spec in pod_specs(chart.objects(BASE)) if owner.endswith("-node")]
    assert spec["hostNetwork"] is True
    driver = spec["containers"][0]
    assert driver["securityContext"]["privileged"] is True
    [kubelet] = [each for each in driver["volumeMounts"] if each["name"] == "kubelet"]
    assert kubelet["mountPropagation"] == "Bidirectional"
    others = [*spec["containers"][1:], *spec["initContainers"]]
    assert not any(each["securityContext"].get("privileged") for each in others)


def test_the_socket_is_where_the_kubelet_is_told(chart: Chart) -> None:
    values = merged(BASE, {"node": {"kubeletDir": "/k"}, "driverName": "a.example"})
    objects = chart.objects(values)
    registrar = container(objects, "node", "node-driver-registrar")
    assert "--kubelet-registration-path=/k/plugins/a.example/csi.sock" in registrar["args"]
    [spec] = [spec for owner, spec in pod_specs(objects) if owner.endswith("-node")]
    paths = {
        each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each
    }
    assert paths["socket"] == "/k/plugins/a.example"
    assert paths["registration"] == "/k/plugins_registry"


def test_the_health_check_asks_where_the_sidecar_listens(chart: Chart) -> None:
    for component, endpoint in (("node", "127.0.0.1:29710"), ("controller", ":9808")):
        sidecar = container(chart.objects(BASE), component, "livenessprobe")
        assert f"--http-endpoint={endpoint}" in sidecar["args"]
        driver = container(chart.objects(BASE), component, "rds-csi")
        probe = driver["livenessProbe"]["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in driver.get("ports", [])}
        port = ports.get(probe["port"], probe["port"])
        assert f"{probe.get('host', '')}:{port}" == endpoint


def test_storage_capacity_is_all_or_nothing(chart: Chart) -> None:
    """CSIDriver.storageCapacity without capacity objects makes every pod unschedulable."""
    for enabled in (True, False):
        objects = chart.objects(merged(BASE, {"storageCapacity": {"enabled": enabled}}))
        flags = container(objects, "controller", "csi-provisioner")["args"]
        roles = [each for each in objects if each["kind"] == "Role"]
        granted = "csistoragecapacities" in str(roles)
        assert one(objects, "CSIDriver")["spec"]["storageCapacity"] is enabled
        assert ("--enable-capacity" in flags) is enabled
        assert granted is enabled


def test_no_expansion_is_no_expansion(chart: Chart) -> None:
    classes = [{"name": "a", "allowVolumeExpansion": False}, {"name": "b"}]
    objects = chart.objects(merged(BASE, {"storageClasses": classes}))
    assert one(objects, "StorageClass", "a")["allowVolumeExpansion"] is False
    assert one(objects, "StorageClass", "b")["allowVolumeExpansion"] is True


def test_large_numbers_stay_numbers(chart: Chart) -> None:
    overlay = {
        "rds": {"reserveBytes": 10995116277760},
        "storageClasses": [{"name": "a", "parameters": {"ctrlLossTmo": 2000000}}],
    }
    objects = chart.objects(merged(BASE, overlay))
    assert one(objects, "StorageClass")["parameters"]["ctrlLossTmo"] == "2000000"
    assert "--reserve=10995116277760" in container(objects, "controller", "rds-csi")["args"]


@pytest.mark.parametrize("wanted", [False, True])
def test_mount_finds_selinuxs_configuration_where_labels_are_mounted(
    chart: Chart, wanted: bool
) -> None:
    objects = chart.objects(merged(BASE, {"csiDriver": {"seLinuxMount": wanted}}))
    assert one(objects, "CSIDriver")["spec"]["seLinuxMount"] is wanted
    mounts = {
        each["mountPath"]: each for each in container(objects, "node", "rds-csi")["volumeMounts"]
    }
    assert "/sys" in mounts
    assert ("/etc/selinux" in mounts) is wanted
    if wanted:
        [volume] = [
            each
            for each in one(objects, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
            if each["name"] == mounts["/etc/selinux"]["name"]
        ]
        # Also on a node that has none.
        assert volume["hostPath"] == {"path": "/etc/selinux", "type": "DirectoryOrCreate"}


def test_pods_restart_when_keys_change_and_not_otherwise(chart: Chart) -> None:
    before = one(chart.objects(BASE), "Deployment")
    again = one(chart.objects(BASE), "Deployment")
    after = one(
        chart.objects(merged(BASE, {"rds": {"hostKeys": ["ssh-ed25519 BBBB"]}})), "Deployment"
    )
    assert before == again
    assert before["spec"]["template"] != after["spec"]["template"]
    assert "helm.sh/chart" not in before["spec"]["template"]["metadata"]["labels"]


def test_monitors_wait_for_the_operator(chart: Chart) -> None:
    values = merged(BASE, {"metrics": {"podMonitor": {"enabled": True}}})
    kinds = {each["kind"] for each in chart.objects(values)}
    assert "PodMonitor" not in kinds
    known = chart.objects(values, "--api-versions=monitoring.coreos.com/v1/PodMonitor")
    assert one(known, "PodMonitor")


def test_images(chart: Chart) -> None:
    digest = "sha256:" + "a" * 64
    overlay = {
        "image": {"registry": "r:5000/x", "node": {"digest": digest, "tag": "ignored"}},
        "sidecars": {"registry": "mirror", "resizer": {"image": {"registry": "other"}}},
    }
    objects = chart.objects(merged(BASE, overlay))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert container(objects, "controller", "rds-csi")["image"] == (
        f"r:5000/x/rds-csi-controller:{version}"
    )
    assert container(objects, "node", "rds-csi")["image"] == f"r:5000/x/rds-csi-node@{digest}"
    attacher = container(objects, "controller", "csi-attacher")["image"]
    assert attacher.startswith("mirror/sig-storage/csi-attacher:v")
    assert container(objects, "controller", "csi-resizer")["image"].startswith("other/sig-storage/")


def test_app_version_is_the_drivers() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    source = (Path(__file__).parents[2] / "rds_csi" / "__init__.py").read_text()
    assert f'__version__ = "{chart["appVersion"]}"' in source


@pytest.mark.parametrize("length", [1, 53])
def test_long_and_short_release_names(chart: Chart, length: int) -> None:
    values = merged(BASE, {"metrics": {"force": True, "serviceMonitor": {"enabled": True}}})
    check_names(chart.objects(values, name="r" * length))
