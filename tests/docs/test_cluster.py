"""What the pages have a reader run in a cluster fits the chart, the images and itself.

There is no cluster here: Helm renders with the very flags that are printed, and what the other
commands name has to be in what it rendered.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import DOCS, ROOT, blocks, marked

QUICK_START = DOCS / "quick-start.md"
KUBERNETES = "1.34.0"
CLUSTER = {
    "clusterId": "prod",
    "simulator.nodeName": "rds-csi-control-plane",
    "simulator.address": "10.0.2.5",
}
"""What Helm reads from a cluster."""
_HEREDOC = re.compile(r"<<'(\w+)'\n(.*?)^\1$", re.MULTILINE | re.DOTALL)

Objects = list[dict[str, Any]]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block; what is fed to it left out."""
    flat = _HEREDOC.sub("", text).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in flat.splitlines()]
    return [words for words in lines if words]


def fed(text: str) -> Iterator[str]:
    """The texts that are fed to commands."""
    for match in _HEREDOC.finditer(text):
        yield match[2]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def installs(page: Path) -> list[list[str]]:
    """The ``helm install`` and ``helm upgrade`` commands of a page."""
    texts = [block.text for block in blocks(page, "sh") if "helm " in block.text]
    every = [words for text in texts for words in commands(text)]
    return [words for words in every if words[0] == "helm" and {"install", "upgrade"} & set(words)]


@pytest.fixture(scope="session")
def helm(pytestconfig: pytest.Config) -> Path:
    helm = pytestconfig.getoption("--helm")
    assert helm, "--helm is missing; run these tests by nox -s docs"
    return Path(helm).absolute()


def render(helm: Path, words: list[str]) -> Objects:
    """What the command would install."""
    arguments = [word for word in words[1:] if word not in {"install", "upgrade", "--install"}]
    given = {word.partition("=")[0] for word in words}
    simulated = "simulator.enabled" in given
    read = ",".join(
        f"{key}={value}"
        for key, value in CLUSTER.items()
        if key not in given and (simulated or not key.startswith("simulator"))
    )
    done = subprocess.run(
        [helm, "template", *arguments, f"--kube-version={KUBERNETES}", f"--set={read}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def test_every_installation_renders(helm: Path) -> None:
    found = [(page.name, words) for page in pages() for words in installs(page)]
    assert {"README.md", "quick-start.md"} <= {name for name, _ in found}
    for name, words in found:
        kinds = {each["kind"] for each in render(helm, words)}
        assert {"CSIDriver", "DaemonSet", "Deployment", "StorageClass"} <= kinds, name


ENFORCE = "pod-security.kubernetes.io/enforce=privileged"


def namespace(words: list[str]) -> str:
    """What follows ``-n`` or ``--namespace``."""
    place = next(number for number, word in enumerate(words) if word in {"-n", "--namespace"})
    return words[place + 1]


def test_every_installation_lets_the_nodes_pods_in() -> None:
    """A cluster that enforces Pod Security refuses them in a namespace without the label."""
    chart = ROOT / "charts" / "rds-csi" / "README.md"
    seen = set()
    for page in [*pages(), chart]:
        for block in (each for each in blocks(page, "sh") if "helm " in each.text):
            said = commands(block.text)
            for number, words in enumerate(said):
                if words[0] == "helm" and "install" in words:
                    assert "--create-namespace" not in words, page
                    name = namespace(words)
                    label = ["kubectl", "label", "namespace", name, ENFORCE]
                    create = ["kubectl", "create", "namespace", name]
                    assert said.index(create) < said.index(label) < number, page
                    seen.add(page.name)
    assert {"README.md", "quick-start.md", "routeros.md"} <= seen


def test_logs_by_a_selector_are_shown_in_full() -> None:
    """With a selector kubectl shows the last ten lines of each container, unless it is told."""
    places = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    places += [
        file
        for folder in ("docs", "charts", "rds_csi")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".md", ".txt", ".yaml", ".tpl", ".py", ".toml"}
    ]
    asked = [
        (file.name, line.strip())
        for file in places
        for line in file.read_text().splitlines()
        if "kubectl" in line and re.search(r"\blogs\b.* (-l|--selector)[ =]", line)
    ]
    assert len(asked) > 15
    assert [each for each in asked if not re.search(r" --tail=(-1|[0-9]{4,})\b", each[1])] == []


@pytest.fixture
def rendered(helm: Path) -> Objects:
    [words] = installs(QUICK_START)
    return render(helm, words)


@pytest.fixture
def manifests() -> Objects:
    texts = [text for block in marked(QUICK_START, "cluster") for text in fed(block)]
    return [each for text in texts for each in yaml.safe_load_all(text)]


def test_the_shell_can_read_them() -> None:
    for page in pages():
        for block in blocks(page, "sh"):
            done = subprocess.run(
                ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page.name}: {done.stderr}"


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def test_the_images_are_those_that_are_built(rendered: Objects) -> None:
    every = [words for block in marked(QUICK_START, "cluster") for words in commands(block)]
    built = {
        words[words.index("-t") + 1]: words[words.index("--target") + 1]
        for words in every
        if words[:2] == ["docker", "build"]
    }
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert set(built.values()) == {"controller", "node"} <= set(stages)
    [loaded] = [words for words in every if words[:3] == ["kind", "load", "docker-image"]]
    assert {word for word in loaded[3:] if "/" in word} == set(built)
    ours = {
        container["image"]
        for each in rendered
        if each["kind"] in {"Deployment", "DaemonSet"}
        for container in each["spec"]["template"]["spec"]["containers"]
        if not container["image"].startswith("registry.k8s.io/")
    }
    assert ours == set(built)


def test_claim_and_pod_fit_each_other_and_the_chart(rendered: Objects, manifests: Objects) -> None:
    [claim] = of_kind(manifests, "PersistentVolumeClaim").values()
    [pod] = of_kind(manifests, "Pod").values()
    assert claim["spec"]["storageClassName"] in of_kind(rendered, "StorageClass")
    [volume] = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    [container] = pod["spec"]["containers"]
    [mount] = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert all(f"{mount['mountPath']}/" in word for word in container["command"] if "while" in word)
    controller = of_kind(rendered, "Deployment")["rds-csi-controller"]
    images = [each["image"] for each in controller["spec"]["template"]["spec"]["containers"]]
    assert container["image"] in images


def test_what_kubectl_is_asked_for_exists(rendered: Objects, manifests: Objects) -> None:
    there = {
        "deployment": of_kind(rendered, "Deployment"),
        "daemonset": of_kind(rendered, "DaemonSet"),
        "pod": of_kind(manifests, "Pod"),
        "pvc": of_kind(manifests, "PersistentVolumeClaim"),
    }
    text = "".join(marked(QUICK_START, "cluster"))
    named = set(re.findall(rf"\b({'|'.join(there)})/([\w-]+)", text))
    named |= {("pod", name) for name in re.findall(r"kubectl exec (\w+)", text)}
    assert len(named) > 4
    assert {(kind, name) for kind, name in named if name not in there[kind]} == set()
    for name, container in re.findall(r"exec daemonset/([\w-]+) -c ([\w-]+)", text):
        containers = there["daemonset"][name]["spec"]["template"]["spec"]["containers"]
        assert container in [each["name"] for each in containers]
    # The simulated RDS is switched off and on by the number of its pods.
    assert there["deployment"]["rds-csi-simulator"]["spec"]["replicas"] == 1


def test_the_cluster_shares_dev(manifests: Objects) -> None:
    [cluster] = [each for each in manifests if each["kind"] == "Cluster"]
    [node] = cluster["nodes"]
    assert {"hostPath": "/dev", "containerPath": "/dev"} in node["extraMounts"]
