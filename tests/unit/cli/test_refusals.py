"""Every flag of every command: a wrong value is one sentence that names the flag, no traceback."""

from pathlib import Path
from typing import Final

import click
import pytest
from click.testing import CliRunner, Result

from rds_csi.cli.main import main
from rds_csi.doctor import command as doctor
from rds_csi.driver import lifecycle
from rds_csi.simulator.command import simulate
from tests.unit.cli.test_main import GOOD_CONTROLLER, GOOD_NODE, KEYS

GOOD: Final = {**GOOD_CONTROLLER, **GOOD_NODE}
SECONDS: Final = ["0", "-1", "soon", "nan", "inf"]
LONG: Final = "x" * 300
NO_ADDRESS: Final = [
    *("", " 10.0.0.5", "10.0.0.5 ", "10.0.0.5\n", "10.0.0.5:22", "10.0.0.5/24", "ssh://10.0.0.5"),
    *("[fd00::5]", "[fd00::5]:22", "fd00::5/64", "10.0.0.300", "10.0.0", "10.0.0.5;10.0.0.6"),
    *("csi@rds", "a b", "rds..example", "-rds", "0.0.0.0", "::", "224.0.0.1", LONG),
]
WRONG: Final = {
    "--endpoint": ["csi.sock", "/csi/socket", f"/{LONG}.sock", ""],
    "--cluster-id": ["", "a b", "-a", LONG, "a\n"],
    "--driver-name": ["", "Driver", "a_b", "a..b", "a.-b", LONG],
    "--nqn-prefix": ["", "iqn.2000-02.com.example", "nqn.2000-02.com.example:a b", LONG],
    "--drain-budget": SECONDS,
    "--operation-timeout": SECONDS,
    "--metrics-address": ["9808", "host", ":99999", "::1:9808", ":x"],
    "--log-level": ["loud", ""],
    "--log-format": ["xml", ""],
    "--rds-address": ["10.0.0.5,10.0.0.6", *NO_ADDRESS],
    "--rds-port": ["0", "65536", "ssh"],
    "--rds-user": ["", " csi", "csi ", "a b", "csi+ct80w", "csi@rds:22", "csi\n", LONG],
    "--rds-host-key": ["", "garbage", "ssh-ed25519 AAAA", f"@cert-authority * {KEYS[0]}"],
    "--rds-host-key-file": ["/nonexistent", "/"],
    "--rds-channels": ["0", "21", "-1", "many"],
    "--nvme-address": ["rds.example", "10.0.0.5,", "10.0.0.5,10.0.0.5", *NO_ADDRESS],
    "--nvme-port": ["0", "65536", "nvme"],
    "--volume-path": ["", "raid10", "/../etc", "raid10/a b", "raid10//csi", "/", 'raid10/"csi'],
    "--reserve": ["-1", "1G", str(2**63)],
    "--list-page": ["0", "1001", "all"],
    "--growth": ["", "never", "Always", "always "],
    "--node-id": ["", "a\tb", "a b", " a", "a ", "a\n", LONG],
    "--kubelet-dir": ["kubelet", "/var/../etc", ""],
    "--state-dir": ["state", "/var/../etc", ""],
    "--max-volumes": ["-1", "many", str(2**31)],
    "--connects": ["0", "65", "many"],
    "--reap-interval": SECONDS,
    "--reap-grace": SECONDS,
    "--startup-taint": ["a b", "a/b/c", "key=value:NoExecute"],
    "--give-up": ["", "pvc", "../pvc", "nqn.2000-02.com.mikrotik:pvc", LONG],
    "--settle": ["-1", "nan", "inf", "soon"],
    "--settings-of": ["0", "-1", "all", "4194999"],
}
ANYTHING: Final = {"--rds-key-file", "--report"}
"""Judged by what is there, not by the text (``test_preflight``, ``test_command`` of the doctor)."""
COMMANDS: Final = {
    "controller": ["controller"],
    "node": ["node"],
    "all": ["all"],
    "reap": ["reap"],
    "doctor-node": ["doctor", "node"],
    "doctor-rds": ["doctor", "rds"],
    "release": ["release"],
}
SIMULATOR: Final = {
    "--listen": ["no such host", "10.255.255.255"],
    "--port": ["-1", "65536", "ssh"],
    "--root": ["{file}", "/proc/rds"],
    "--pool": ["raid10", "raid10:big", ":1G", "raid10:-1"],
    "--version": ["", "7", "new", "7.x"],
    "--export": ["iscsi"],
    "--nvme-port": ["-1", "65536", "nvme"],
    "--nvme-address": ["no such host"],
    "--host-key": ["{file}", "/nonexistent/key"],
    "--authorized-keys": ["{file}", "/nonexistent"],
    "--quirk": ["lag=soon", "no-such-quirk", "width=-1"],
    "--directory": ["../etc", "/"],
    "--control": ["/nonexistent/control"],
    "--ready-file": ["/nonexistent/ready"],
}


def options(command: click.Command) -> dict[str, click.Option]:
    """Those that take a value, by their flag."""
    found = [each for each in command.params if isinstance(each, click.Option)]
    return {each.opts[0]: each for each in found if not each.is_flag}


def command(name: str) -> click.Command:
    """The command behind the words."""
    found: click.Command = main
    for word in COMMANDS[name]:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    return found


OPTIONAL: Final = {
    *{("doctor-node", "--nvme-address"), ("doctor-node", "--rds-address")},
    ("node", "--nvme-address"),
}
"""Where nothing is asked for, an empty text is none."""


def cases() -> list[tuple[str, str, str]]:
    return [
        (name, flag, value)
        for name in COMMANDS
        for flag in options(command(name))
        for value in WRONG.get(flag, [])
        if value or (name, flag) not in OPTIONAL
    ]


def one_sentence(result: Result, flag: str) -> None:
    """It ended as a refusal does, and what it said is one sentence with the flag in it."""
    said = result.output
    assert result.exit_code != 0, f"it was accepted: {said}"
    assert not result.exception or isinstance(result.exception, SystemExit)
    assert "Traceback" not in said
    # click shows the usage above the sentence, where it is click that refuses.
    sentences = [line for line in said.splitlines() if line.startswith(("rds-csi: ", "Error: "))]
    [sentence] = sentences
    assert said.endswith(sentence + "\n")
    assert flag in sentence
    assert len(sentence) < 700


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_its_wrong_values(name: str) -> None:
    assert set(options(command(name))) - ANYTHING <= set(WRONG)


@pytest.mark.parametrize(("name", "flag", "value"), cases())
def test_a_wrong_value(monkeypatch: pytest.MonkeyPatch, name: str, flag: str, value: str) -> None:
    monkeypatch.setattr(lifecycle, "run", lambda *_: 0)
    monkeypatch.setattr(doctor, "doctor_node", lambda *_, **__: 0)
    monkeypatch.setattr(doctor, "doctor_rds", lambda *_, **__: 0)
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    subject = ["pvc-" + "a" * 28] if name == "release" else []
    result = CliRunner().invoke(main, [*COMMANDS[name], flag, value, *subject], env=GOOD)
    one_sentence(result, flag)


@pytest.mark.parametrize("words", [*COMMANDS.values(), ["demo"]], ids=" ".join)
def test_an_unknown_flag(words: list[str]) -> None:
    one_sentence(CliRunner().invoke(main, [*words, "--rds-adress=x"], env=GOOD), "--rds-adress")


def test_every_flag_of_the_simulator_has_its_wrong_values() -> None:
    assert set(options(simulate)) == set(SIMULATOR)


@pytest.mark.parametrize(
    ("flag", "value"), [(flag, value) for flag, values in SIMULATOR.items() for value in values]
)
def test_a_wrong_value_for_the_simulator(tmp_path: Path, flag: str, value: str) -> None:
    file = tmp_path / "file"
    file.write_text("no key\n")
    words = ["--root", str(tmp_path / "rds"), "--port", "0", flag, value.format(file=file)]
    one_sentence(CliRunner().invoke(simulate, words), flag)
