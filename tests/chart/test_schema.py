"""The schema of the values: every misspelt key and every wrong value is refused by its name."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from rds_csi.errors import InvalidParameter
from rds_csi.model.parameters import KEYS, VolumeParameters
from tests.chart.combinations import PARAMETERS
from tests.chart.conftest import BASE, CHART, FREE, SIMULATED, Chart, merged


def schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())  # type: ignore[no-any-return]


def ours(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every map of the values whose keys are ours, by its path."""
    yield path, values
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in FREE:
            yield from ours(value, f"{path}/{key}")
        if isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, Mapping) and key in {"storageClasses", "imagePullSecrets"}:
                    yield from ours(each, f"{path}/{key}/{number}")


def everything() -> dict[str, Any]:
    """Values in which every key of ours stands."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    known = schema()["properties"]["storageClasses"]["items"]["properties"]
    parameters = {key: values[0] for key, values in PARAMETERS.items()}
    storage_class = {"name": "a", "parameters": parameters}
    assert set(parameters) == set(known["parameters"]["properties"])
    return merged(
        defaults,
        BASE,
        {"storageClasses": [storage_class], "imagePullSecrets": [{"name": "registry"}]},
    )


def test_every_misspelt_key_is_refused(chart: Chart) -> None:
    values = copy.deepcopy(everything())
    misspelt = []
    for path, each in list(ours(values)):
        for key in list(each):
            wrong = f"{key}x"
            each[wrong] = each[key]  # type: ignore[index]
            misspelt.append((path, wrong))
    refusal = chart.refusal(values)
    lines = [line.strip() for line in refusal.splitlines()]
    assert len(misspelt) > 150
    for path, key in misspelt:
        [line] = [line for line in lines if line.startswith(f"- at '{path}': additional")]
        assert f"'{key}'" in line


def test_schema_and_values_have_the_same_keys() -> None:
    assert dict(pairs(schema(), schema())) == {
        path: set(each)
        for path, each in ours(yaml.safe_load((CHART / "values.yaml").read_text()))
        if not path.startswith("/storageClasses")
    }


def pairs(
    whole: Mapping[str, Any], part: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, set[str]]]:
    properties = {key: each for key, each in part["properties"].items() if key != "global"}
    assert part["additionalProperties"] is False, path
    yield path, set(properties)
    for key, each in properties.items():
        if "properties" in each:
            yield from pairs(whole, each, f"{path}/{key}")


def test_the_drivers_parameters_are_the_schemas() -> None:
    known = schema()["properties"]["storageClasses"]["items"]["properties"]["parameters"]
    assert set(known["properties"]) == set(KEYS)
    assert set(PARAMETERS) == set(KEYS)


NUMBERS = [-2, -1, 0, 1, 15, 16, 1024, 1025, 65535, 65536, 2**31 - 1, 2**31]
TEXTS: dict[str, list[Any]] = {
    "fencing": ["none", "hostNqn", "hostnqn", "", "true"],
    "nvmeAddress": [
        *("10.0.0.1", "fd00::1", "::1", "rds.example.org", "", "10.0.0"),
        *("10.0.0.1,10.0.0.2", "10.0.0.1,fd00::1,10.0.0.2", "10.0.0.1,", "10.0.0.1, 10.0.0.2"),
        ",".join(f"10.0.0.{number}" for number in range(1, 9)),
        ",".join(f"10.0.0.{number}" for number in range(1, 10)),
    ],
    "volumePath": ["raid10/csi", "/raid10/csi", "raid10", "", "raid10/c si", "raid10//csi", "a/b/"],
}


def test_the_schema_takes_what_the_driver_takes(chart: Chart) -> None:
    numbers = [*NUMBERS, *map(str, NUMBERS), "", "1.5", "ten"]
    cases = [(key, value) for key in KEYS for value in TEXTS.get(key, numbers)]
    classes = [
        {"name": f"c{number}", "parameters": {key: value}}
        for number, (key, value) in enumerate(cases)
    ]
    refusal = chart.refusal(merged(BASE, {"storageClasses": classes}))
    for number, (key, value) in enumerate(cases):
        refused = f"'/storageClasses/{number}/parameters/{key}'" in refusal
        assert refused is not taken(key, value), (key, value)


def taken(key: str, value: object) -> bool:
    try:
        VolumeParameters.parse({key: str(value)})
    except InvalidParameter:
        return False
    return True


WRONG: list[tuple[str, Any]] = [
    ("clusterId", "a b"),
    ("driverName", "Upper.example"),
    ("nqnPrefix", "iqn.2000-02.com.mikrotik"),
    ("nameOverride", "Upper"),
    ("fullnameOverride", "x" * 41),
    ("image/registry", "https://registry.example"),
    ("image/pullPolicy", "Sometimes"),
    ("image/node/digest", "sha256:12"),
    ("rds/address", "10.0.0.5:22"),
    ("rds/port", 0),
    ("rds/port", "22"),
    ("rds/user", "a b"),
    ("rds/hostKeys/0", "10.0.0.5 ssh-ed25519 AAAA"),
    ("rds/hostKeys", "ssh-ed25519 AAAA"),
    ("rds/privateKey", "/home/me/.ssh/id_ed25519"),
    ("rds/existingSecret", "name"),
    ("rds/nvmeAddress", "rds.example.org"),
    ("rds/volumePath", "raid10"),
    ("rds/channels", 21),
    ("rds/reserveBytes", -1),
    ("rds/reserveBytes", "1Gi"),
    ("rds/renameExports", "no"),
    ("logging/level", "trace"),
    ("logging/format", "text"),
    ("controller/replicas", 0),
    ("controller/podDisruptionBudget/maxUnavailable", "all"),
    ("controller/extraArgs/0", "operation-timeout=3"),
    ("node/kubeletDir", "var/lib/kubelet"),
    ("node/stateDir", "/var/lib/../rds"),
    ("node/connects", 65),
    ("node/maxVolumes", -1),
    ("node/reapGrace", 0),
    ("node/healthPort", 70000),
    ("node/startupTaint/key", "csi.rds-csi.io/agent-not-ready=:NoExecute"),
    ("csiDriver/fsGroupPolicy", "file"),
    ("storageCapacity/pollInterval", "60"),
    ("sidecars/timeout", 60),
    ("sidecars/workerThreads", 0),
    ("sidecars/provisioner/image/tag", 6.3),
    ("storageClasses/0/fsType", "btrfs"),
    ("storageClasses/0/reclaimPolicy", "Recycle"),
    ("storageClasses/0/mountOptions/0", "noatime,nodiratime"),
    ("metrics/nodePort", 0),
    ("helmTest/size", "one"),
    ("simulator/size", "100Gi"),
    ("rds/growth", "sometimes"),
    ("simulator/address", "worker-1"),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda each: str(each)[:30])
def test_wrong_values_are_named(chart: Chart, path: str, value: Any) -> None:
    values: Any = everything()
    values["storageClasses"] = [{"name": "a", "fsType": "ext4", "mountOptions": ["noatime"]}]
    values["controller"]["extraArgs"] = ["--list-page=1"]
    spot = values
    *folders, last = path.split("/")
    for folder in folders:
        spot = spot[int(folder)] if isinstance(spot, list) else spot[folder]
    spot[int(last) if isinstance(spot, list) else last] = value
    refusal = chart.refusal(values)
    assert f"- at '/{path}'" in refusal
    assert refusal.count("\n- at") == 1


def drop(*paths: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(values: dict[str, Any]) -> dict[str, Any]:
        for path in paths:
            *folders, last = path.split(".")
            spot = values
            for folder in folders:
                spot = spot[folder]
            del spot[last]
        return values

    return change


MISSING: list[tuple[str, Mapping[str, Any]]] = [
    ("clusterId is missing", drop("clusterId")(merged(BASE))),
    ("image.registry is missing", drop("image")(merged(BASE))),
    ("rds.address is missing", drop("rds.address")(merged(BASE))),
    ("rds.nvmeAddress is missing", drop("rds.nvmeAddress")(merged(BASE))),
    ("rds.volumePath is missing", drop("rds.volumePath")(merged(BASE))),
    ("rds.hostKeys is missing", drop("rds.hostKeys")(merged(BASE))),
    ("rds.existingSecret.name is missing", drop("rds.existingSecret")(merged(BASE))),
    (
        "rds.privateKey and rds.existingSecret.name exclude each other",
        merged(BASE, {"rds": {"privateKey": "-----BEGIN PRIVATE KEY-----\nAAAA"}}),
    ),
    (
        "rds.hostKeys and rds.existingSecret.hostKeysKey exclude each other",
        merged(BASE, {"rds": {"existingSecret": {"hostKeysKey": "a"}}}),
    ),
    (
        "volumeSnapshotClasses needs sidecars.snapshotter.enabled",
        merged(BASE, {"volumeSnapshotClasses": [{"name": "a"}]}),
    ),
    ("simulator.nodeName is missing", drop("simulator.nodeName")(merged(SIMULATED))),
    ("simulator.address is missing", drop("simulator.address")(merged(SIMULATED))),
]


@pytest.mark.parametrize(("text", "values"), MISSING, ids=[text for text, _ in MISSING])
def test_what_is_missing_is_said_in_one_sentence(
    chart: Chart, text: str, values: Mapping[str, Any]
) -> None:
    refusal = chart.refusal(values)
    assert text in refusal
    assert len(refusal.strip().splitlines()) <= 3
