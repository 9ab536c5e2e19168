"""Who may do what: each sidecar what its own repository says it needs, and nobody more."""

import asyncio
import itertools
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rds_csi.kubernetes.api import ApiServer
from rds_csi.kubernetes.startup_taint import StartupTaint
from tests.chart.conftest import BASE, Chart, merged, one
from tests.unit.fakes.api_server import FakeApiServer

TABLE: dict[str, Any] = tomllib.loads((Path(__file__).with_name("sidecars.toml")).read_text())
Permission = tuple[str, str, str]
"""Group, resource, verb."""
OPTIONS = ("storageCapacity", "snapshotter", "health-monitor")


def values(options: Iterable[str]) -> dict[str, Any]:
    on = set(options)
    return merged(
        BASE,
        {
            "storageCapacity": {"enabled": "storageCapacity" in on},
            "sidecars": {
                "snapshotter": {"enabled": "snapshotter" in on},
                "healthMonitor": {"enabled": "health-monitor" in on},
            },
        },
    )


def written(rules: Iterable[str]) -> set[Permission]:
    result = set()
    for rule in rules:
        subject, _, verbs = rule.partition(": ")
        group, resource = subject.split(" ")
        result |= {("" if group == "core" else group, resource, verb) for verb in verbs.split()}
    return result


def needed(name: str, options: Iterable[str]) -> set[Permission]:
    """What the table grants a sidecar, with these options on."""
    permissions = written(TABLE[name]["rules"])
    for without in TABLE[name].get("without", []):
        assert written(without["rules"]) <= permissions, "leaves out what is not there"
        assert without["why"]
    for without in TABLE[name].get("without", []):
        if without.get("unless") not in options:
            permissions -= written(without["rules"])
    return permissions


def granted(role: dict[str, Any]) -> set[Permission]:
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    return {
        permission
        for rule in role["rules"]
        for permission in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


@pytest.fixture(params=[subset for n in range(4) for subset in itertools.combinations(OPTIONS, n)])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param  # type: ignore[no-any-return]


def test_each_role_is_the_sidecars_own(chart: Chart, options: tuple[str, ...]) -> None:
    objects = chart.objects(values(options))
    sidecars = {"provisioner", "attacher", "resizer", *(set(options) - {"storageCapacity"})}
    roles = {
        each["metadata"]["name"].removeprefix("rds-rds-csi-"): each
        for each in objects
        if each["kind"] == "ClusterRole"
    }
    assert set(roles) == sidecars
    for name, role in roles.items():
        assert granted(role) == needed(name, options), name
    assert granted(one(objects, "Role")) == needed("namespace", options)


def test_the_controllers_account_alone_is_bound(chart: Chart, options: tuple[str, ...]) -> None:
    bindings = [each for each in chart.objects(values(options)) if "roleRef" in each]
    account = {"kind": "ServiceAccount", "name": "rds-rds-csi-controller", "namespace": "storage"}
    assert all(each["subjects"] == [account] for each in bindings)


async def asked(folder: Path) -> set[Permission]:
    """What the driver asks the API server for when it removes a startup taint."""
    resources = {"nodes": "", "csinodes": "storage.k8s.io"}
    async with FakeApiServer(folder) as server:
        server.put_csi_node("n", {"name": "d", "nodeID": "i"})
        server.put_node("n", {"key": "k", "effect": "NoExecute"})
        api = ApiServer("127.0.0.1", server.port, server.account)
        taint = StartupTaint(api, key="k", node="n", driver="d", node_id="i", limited=False)
        async with asyncio.timeout(10):
            await taint.run()
        asked = {(method.lower(), path.split("/")[-2]) for method, path in server.requests}
    return {(resources[resource], resource, verb) for verb, resource in asked}


async def test_a_node_may_do_what_it_asks_for_if_it_asks(chart: Chart, tmp_path: Path) -> None:
    on = chart.objects(merged(BASE, {"node": {"startupTaint": {"enabled": True}}}))
    assert granted(one(on, "ClusterRole", "-node")) == await asked(tmp_path / "api")
    [subject] = one(on, "ClusterRoleBinding", "-node")["subjects"]
    assert subject["name"] == "rds-rds-csi-node"
    bindings = [each for each in chart.objects(BASE) if "roleRef" in each]
    assert "rds-rds-csi-node" not in str(bindings)


def test_nobody_reads_secrets_or_has_wildcards() -> None:
    for sidecar in TABLE.values():
        for group, resource, verb in written(sidecar.get("rules", [])):
            assert "*" not in (group, resource, verb)
            assert resource != "secrets"
