"""Paths of requests, and what may be removed."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import FailedPrecondition, InvalidRequest
from rds_csi.filesystem import paths
from rds_csi.filesystem.paths import Paths


@pytest.fixture
def kubelet(tmp_path: Path) -> Path:
    path = tmp_path / "kubelet"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "name", ["a", "a/b~c/d", "pods/0-1/volumes/kubernetes.io~csi/pvc/mount", "ä ö\\x", "a/"]
)
def test_paths_under_the_kubelets_directory_are_taken(kubelet: Path, name: str) -> None:
    assert Paths(kubelet).check(f"{kubelet}/{name}", "target_path") == f"{kubelet}/{name}".rstrip(
        "/"
    )


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "./a", "/", "//", "/etc/passwd", "{base}", "{base}/", "{base}-evil/a", "{base}.",
        "{base}/..", "{base}/../a", "{base}/a/../../b", "{base}/a/..", "{base}/./a", "{base}//a",
        "/{base}/a", "{base}/a\0b", "{base}/" + "a" * 5000,
    ],
)  # fmt: skip
def test_other_paths_are_refused_and_the_field_is_named(kubelet: Path, path: str) -> None:
    with pytest.raises(InvalidRequest, match="target_path"):
        Paths(kubelet).check(path.format(base=kubelet), "target_path")


@given(st.text())
def test_whatever_is_taken_lies_under_the_directory(text: str) -> None:
    base = Path("/nowhere/kubelet")
    for path in (text, f"{base}/{text}", f"{base}{text}"):
        try:
            taken = Paths(base).check(path, "target_path")
        except InvalidRequest:
            continue
        assert os.path.normpath(taken) == taken
        assert taken.startswith(f"{base}/")


def test_a_link_out_of_the_directory_is_refused_one_inside_is_followed(
    kubelet: Path, tmp_path: Path
) -> None:
    (kubelet / "out").symlink_to(tmp_path)
    (kubelet / "deep").mkdir()
    (kubelet / "in").symlink_to(kubelet / "deep")
    with pytest.raises(InvalidRequest, match="leads out"):
        Paths(kubelet).check(f"{kubelet}/out/a", "target_path")
    assert Paths(kubelet).check(f"{kubelet}/in/a", "target_path") == f"{kubelet}/deep/a"


def test_the_directory_itself_may_be_a_link_and_the_kernels_spelling_is_returned(
    kubelet: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(kubelet)
    assert Paths(link).check(f"{link}/a/b", "target_path") == f"{kubelet}/a/b"


def test_what_a_publish_made_is_removed(kubelet: Path) -> None:
    directory, file = str(kubelet / "directory"), str(kubelet / "file")
    assert paths.make_directory(directory, volume="v")
    assert not paths.make_directory(directory, volume="v")
    assert paths.make_file(file, volume="v")
    assert not paths.make_file(file, volume="v")
    for path in (directory, file, str(kubelet / "none"), str(kubelet / "none" / "below")):
        paths.remove(path, volume="v")
        assert paths.kind(path) == "absent"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_node_is_removed(kubelet: Path) -> None:
    node = str(kubelet / "node")
    os.mknod(node, 0o60660, os.makedev(259, 3))
    assert paths.kind(node) == "block"
    paths.remove(node, volume="v")
    assert paths.kind(node) == "absent"


def test_content_and_strangers_stay(kubelet: Path) -> None:
    (kubelet / "full").mkdir()
    (kubelet / "full" / "a").touch()
    (kubelet / "file").write_text("data")
    (kubelet / "link").symlink_to(kubelet / "full")
    os.mkfifo(kubelet / "pipe")
    for name in ("full", "file", "link", "pipe"):
        with pytest.raises(FailedPrecondition, match="left as it"):
            paths.remove(str(kubelet / name), volume="v")
        assert os.path.lexists(kubelet / name)


@pytest.mark.parametrize("make", [paths.make_directory, paths.make_file])
def test_nothing_is_made_over_something_else_or_without_a_parent(
    kubelet: Path, make: object
) -> None:
    assert callable(make)
    (kubelet / "link").symlink_to("/nowhere")
    for name in ("link", "none/below"):
        with pytest.raises(FailedPrecondition, match="can be made"):
            make(str(kubelet / name), volume="v")
