"""A setting that names what is not there, or cannot be used, stops the start with one sentence."""

import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh
import pytest
from click.testing import CliRunner, Result

from rds_csi.cli.main import main
from rds_csi.driver import lifecycle
from tests.unit.cli.test_main import KEYS

ENCRYPTED: Final = b"""\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABBRbsEYRO
hipWvwM/q1FuiRAAAAAQAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIN1vGqlLn0Cw0Fdy
nZ4KoTg6WBAMhNjEHgLXnWDwCDmjAAAAkCRIxWCAViKKSsAdNMLPkuw4ggrptlVOBV+ku9
LxZGm9LhVy11RhJ6Naof/30bT5EP49QerYdzEVmXxZvYGDVCU6lOyFz1Pm/QGqe1DHnOFX
4zI+ygN5sVvL3HurG9+vhW7jh2SZmWKtA1vSMkkmGiV1o4cLZ4Vb3icJNpZDk8Q+0XMtqE
J22GxG8ZqsZ5ojMg==
-----END OPENSSH PRIVATE KEY-----
"""
"""What ``ssh-keygen -N secret`` makes; nobody's key."""


@dataclass(frozen=True, slots=True)
class Place:
    """A machine on which both services could start."""

    root: Path

    @property
    def key(self) -> Path:
        return self.root / "id_ed25519"

    def start(self, command: str, **changed: object) -> Result:
        """Start it with good settings but for ``changed``."""
        settings: dict[str, object] = {
            "endpoint": self.root / "csi.sock",
            "cluster_id": "test",
            "rds_address": "192.0.2.1",
            "rds_key_file": self.key,
            "rds_host_key": KEYS[0],
            "nvme_address": "192.0.2.2",
            "volume_path": "raid10/csi",
            "node_id": "worker-1",
            "kubelet_dir": self.root / "kubelet",
            "state_dir": self.root / "state",
            **changed,
        }
        environment = {f"RDS_CSI_{name.upper()}": str(value) for name, value in settings.items()}
        return CliRunner().invoke(main, [command], env=environment, catch_exceptions=False)

    def refused(self, command: str, flag: str, text: str, **changed: object) -> None:
        """It does not start; the one sentence it says has the flag and ``text`` in it."""
        result = self.start(command, **changed)
        said = result.output
        assert result.exit_code == 2, said
        assert said.count("\n") == 1
        assert said.startswith(f"rds-csi: {flag}")
        assert text in said


@pytest.fixture
def starts() -> list[object]:
    return []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: list[object]) -> Place:
    async def serve(*settings: object) -> int:
        starts.append(settings)
        return 0

    monkeypatch.setattr(lifecycle, "_until_signalled", serve)
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    place = Place(tmp_path)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(place.key)
    place.key.chmod(0o600)
    return place


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("command", ["controller", "node", "all"])
def test_what_can_be_used_starts(place: Place, command: str, starts: list[object]) -> None:
    """The RDS is away (192.0.2.0/24 is nobody's), and the node's two directories do not exist."""
    assert place.start(command, metrics_address="127.0.0.1:0").exit_code == 0
    assert len(starts) == 1
    state = place.root / "state"
    assert state.exists() == (command != "controller")
    if state.exists():
        assert list(state.iterdir()) == []
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert not (place.root / "csi.sock").exists()


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_mounted_secret_starts(place: Place, mode: int) -> None:
    place.key.chmod(mode)
    assert place.start("controller").exit_code == 0


@pytest.mark.parametrize("form", ["openssh", "pkcs8-pem", "pkcs1-pem"])
def test_forms_of_keys(place: Place, form: str) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    place.key.write_bytes(key.export_private_key(form))
    assert place.start("controller").exit_code == 0


@pytest.mark.parametrize("form", ["openssh", "pkcs8-pem", "pkcs1-pem"])
def test_a_key_with_a_passphrase(place: Place, form: str) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    place.key.write_bytes(
        ENCRYPTED if form == "openssh" else key.export_private_key(form, passphrase="x")
    )
    place.refused("controller", "--rds-key-file", "protected by a passphrase")


def test_a_key_that_is_missing(place: Place) -> None:
    place.key.unlink()
    place.refused("controller", "--rds-key-file", "No such file or directory")


def test_a_key_below_a_file(place: Place) -> None:
    place.refused("all", "--rds-key-file", "Not a directory", rds_key_file=place.key / "key")


def test_a_directory_for_a_key(place: Place) -> None:
    place.refused("controller", "--rds-key-file", "is not a file", rds_key_file=place.root)


def test_a_public_key(place: Place) -> None:
    key = asyncssh.read_private_key(place.key)
    key.write_public_key(place.root / "id.pub")
    (place.root / "id.pub").chmod(0o600)
    place.refused(
        "controller", "--rds-key-file", "holds a public key", rds_key_file=place.root / "id.pub"
    )


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\xff\xfe\x00" * 10])
def test_a_file_that_is_no_key(place: Place, content: bytes) -> None:
    place.key.write_bytes(content)
    place.refused("controller", "--rds-key-file", "holds no private key")


def test_a_key_that_others_can_read(place: Place) -> None:
    place.key.chmod(0o644)
    place.refused("controller", "--rds-key-file", "mode 0644: others can use it")


def test_nothing_of_the_key_is_said(place: Place) -> None:
    content = place.key.read_text()
    place.key.write_text(content.replace("OPENSSH", "OPENSHH"))
    said = place.start("controller").output
    assert not [line for line in content.splitlines()[1:-1] if line[:20] in said]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no public key of the RDS is in it"),
        (b"# only a comment\n\n", "no public key of the RDS is in it"),
        (b"garbage\n", "cannot be read"),
        (b"\xff\xfe\n", "decode"),
    ],
)
def test_host_keys_that_are_none(place: Place, content: bytes, text: str) -> None:
    file = place.root / "host.pub"
    file.write_bytes(content)
    for given in ("", KEYS[0]):
        place.refused(
            *("controller", "--rds-host-key-file", text),
            rds_host_key_file=file,
            rds_host_key=given,
        )


@pytest.mark.parametrize("flag", ["--rds-host-key", "--rds-host-key-file"])
def test_the_private_key_for_the_host_key(place: Place, flag: str) -> None:
    value = place.key if flag.endswith("file") else place.key.read_text()
    name = flag.removeprefix("--").replace("-", "_")
    place.refused("controller", flag, "a private key is given", **{name: value})


def test_host_keys_with_comments_start(place: Place) -> None:
    file = place.root / "host.pub"
    file.write_text(f"\n  # the RDS's\n {KEYS[0]}\nrds.example {KEYS[1]}\n")
    assert place.start("controller", rds_host_key="", rds_host_key_file=file).exit_code == 0


@pytest.mark.parametrize("command", ["controller", "node", "all"])
def test_a_socket_that_cannot_be_had(place: Place, command: str) -> None:
    gone = place.root / "gone"
    place.refused(command, "--endpoint", f"there is no {gone}", endpoint=gone / "csi.sock")
    place.refused(*(command, "--endpoint", "is not a directory"), endpoint=place.key / "csi.sock")
    other = place.root / "other.sock"
    other.touch()
    place.refused(command, "--endpoint", "is not a socket", endpoint=other)
    assert other.is_file()
    other.unlink()
    other.mkdir()
    place.refused(command, "--endpoint", "is not a socket", endpoint=other)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.9:0", "Cannot assign requested address"),
        ("no-such-host.invalid:9808", ""),
        ("127.0.0.1 :9808", "is not like"),
    ],
)
def test_metrics_that_cannot_be_served(place: Place, address: str, text: str) -> None:
    result = place.start("node", metrics_address=address)
    if "invalid" in address and result.exit_code == 0:
        pytest.skip("the name server of this machine is away")
    place.refused("node", "--metrics-address", text, metrics_address=address)


def test_a_port_that_the_predecessor_has_is_waited_for(place: Place, taken: int) -> None:
    assert place.start("node", metrics_address=f"127.0.0.1:{taken}").exit_code == 0
    assert place.start("controller", metrics_address=f":{taken}").exit_code == 0


def test_a_state_directory_that_cannot_be_written(place: Place) -> None:
    place.refused("node", "--state-dir", "cannot be written", state_dir=place.key)
    place.refused("all", "--state-dir", "cannot be written", state_dir=place.key / "state")
    place.refused("node", "--state-dir", "cannot be written", state_dir="/proc/rds-csi")


def test_a_file_for_the_kubelets_directory(place: Place) -> None:
    place.refused("node", "--kubelet-dir", "is not a directory", kubelet_dir=place.key)


def test_a_taint_outside_of_a_cluster(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    place.refused("node", "--startup-taint", "works in a pod only", startup_taint="a/b")


def test_a_controller_needs_nothing_of_a_node(place: Place) -> None:
    assert place.start("controller", state_dir=place.key, kubelet_dir=place.key).exit_code == 0
    place.key.unlink()
    assert place.start("node").exit_code == 0
