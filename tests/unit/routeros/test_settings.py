"""Which keys are trusted and used, and what the settings refuse."""

from pathlib import Path

import pytest

from rds_csi.errors import NotReady
from rds_csi.routeros.settings import host_key_algorithms, trusted_keys
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
