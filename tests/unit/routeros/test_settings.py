"""Which keys are trusted and used, and what the settings refuse."""

from pathlib import Path

import pytest

from rds_csi.config import ControllerConfig
from rds_csi.errors import NotAuthorised, NotReady
from rds_csi.model.parameters import VolumeParameters
from rds_csi.routeros.settings import (
    SessionSettings,
    host_key_algorithms,
    read_client_key,
    trusted_keys,
)
from tests.unit.fakes.ssh import FakeRds, key, public_text


def test_the_algorithms_asked_for_are_those_of_the_pinned_keys() -> None:
    keys = trusted_keys(tuple(public_text(key(name)) for name in ("ssh-rsa", "ssh-ed25519")))
    assert host_key_algorithms(keys) == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]


def test_without_a_pinned_key_there_is_no_session(tmp_path: Path) -> None:
    rds = FakeRds(tmp_path)
    for keys in (
        (),
        ("",),
        ("# none",),
        ("ssh-ed25519 rubbish",),
        ("@cert-authority * ssh-rsa A",),
    ):
        with pytest.raises(NotReady):
            rds.settings(host_keys=keys)
    with pytest.raises(NotReady):
        rds.settings(channels=0)


def test_settings_show_no_secret(tmp_path: Path) -> None:
    assert "hunter2" not in repr(FakeRds(tmp_path).settings(key_passphrase="hunter2"))


def test_a_controllers_link_is_what_its_configuration_says() -> None:
    config = ControllerConfig(
        rds_address="10.0.0.5",
        rds_port=2222,
        rds_user="somebody",
        rds_key_file=Path("/key"),
        rds_host_keys=(public_text(key()),),
        rds_channels=7,
        defaults=VolumeParameters(nvme_addresses=("10.0.0.5",), volume_path="raid10/csi"),
    )
    found = SessionSettings.of(config)
    assert (found.host, found.port, found.user) == ("10.0.0.5", 2222, "somebody")
    assert found.key_file == Path("/key")
    assert found.host_keys == config.rds_host_keys
    assert found.channels == 7
    assert not found.insecure_accept_any_host_key


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        ("rubbish", 0o600, "holds no private key that can be used"),
        ("", 0o600, "holds no private key that can be used"),
        ("public", 0o600, "holds a public key"),
        ("locked", 0o600, "protected by a passphrase"),
        ("private", 0o644, "mode 0644: others can use it"),
        ("private", 0o620, "mode 0620: others can use it"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_what_is_no_key_of_ours_is_refused_with_what_it_is(
    tmp_path: Path, content: str | None, mode: int, text: str
) -> None:
    private, path = key(), tmp_path / "id"
    made = {
        "public": private.export_public_key(),
        "private": private.export_private_key(),
        "locked": private.export_private_key("pkcs8-pem", passphrase="hunter2"),
    }
    if content is not None:
        path.write_bytes(made.get(content, content.encode()))
        path.chmod(mode)
    with pytest.raises(NotAuthorised, match=text):
        read_client_key(path)


def test_a_key_that_the_group_may_read_is_used(tmp_path: Path) -> None:
    """As a Kubernetes secret with fsGroup is; a directory is no key."""
    private, path = key(), tmp_path / "id"
    path.write_bytes(private.export_private_key())
    path.chmod(0o640)
    assert read_client_key(path).public_data == private.public_data
    with pytest.raises(NotAuthorised, match="is not a file"):
        read_client_key(tmp_path)


def test_each_pinned_line_is_a_key_and_comments_are_none() -> None:
    one, two = public_text(key()), public_text(key("ssh-rsa"))
    found = trusted_keys((f"# RDS\n[rds]:22,10.0.0.1 {one} comment\n\n", two))
    assert [public_text(each) for each in found] == [
        " ".join(each.split()[:2]) for each in (one, two)
    ]
