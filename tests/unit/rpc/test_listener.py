"""T10: the socket is never another's, never half made, and only ours to remove."""

import fcntl
import os
import socket
import stat
import threading

import pytest

from rds_csi.errors import SocketUnusable
from rds_csi.rpc.listener import LONGEST_PATH, Listener


@pytest.fixture
def opened():
    listeners = []

    def open_(path):
        listeners.append(Listener.open(path))
        return listeners[-1]

    yield open_
    for listener in listeners:
        listener.socket.close()


def answers(path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_t10_only_the_owner_may_connect(path, opened):
    old = os.umask(0)
    try:
        opened(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert answers(path)


def test_t10_nothing_else_is_left_in_the_directory(path, opened):
    opened(path)
    assert list(path.parent.iterdir()) == [path]


def test_t10_a_stale_socket_is_replaced(path, opened):
    opened(path).socket.close()
    assert path.exists()
    assert not answers(path)
    opened(path)
    assert answers(path)


def test_t10_leftovers_of_a_start_cut_short_are_replaced(path, opened):
    with socket.socket(socket.AF_UNIX) as half:
        half.bind(str(path.parent / ".new"))
    opened(path)
    assert list(path.parent.iterdir()) == [path]


def test_t10_a_live_socket_is_refused_and_lives_on(path, opened):
    opened(path)
    before = path.stat().st_ino
    with pytest.raises(SocketUnusable, match="another process answers"):
        Listener.open(path)
    assert path.stat().st_ino == before
    assert answers(path)


def test_t10_a_live_socket_too_busy_to_answer_is_refused(path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(SocketUnusable):
            Listener.open(path)
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_t10_what_is_no_socket_is_refused_and_kept(path, kind):
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")
    with pytest.raises(SocketUnusable, match="is not a socket"):
        Listener.open(path)
    assert os.path.lexists(path)


def test_t10_a_path_too_long_is_refused(tmp_path):
    name = "x" * (LONGEST_PATH - len(str(tmp_path)) - 1)
    Listener.open(tmp_path / name).socket.close()
    with pytest.raises(SocketUnusable, match="longer than the 107 bytes"):
        Listener.open(tmp_path / (name + "x"))


def test_t10_no_directory_is_said(tmp_path):
    with pytest.raises(SocketUnusable, match=r"No such file or directory.*must exist"):
        Listener.open(tmp_path / "missing" / "csi.sock")


def test_t10_two_at_once_do_not_take_it_from_each_other(path):
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(SocketUnusable, match="at this moment"):
            Listener.open(path)
    finally:
        os.close(directory)
    Listener.open(path).socket.close()


def test_t10_of_many_at_once_one_wins(path, opened):
    won, lost = [], []
    barrier = threading.Barrier(8)

    def claim():
        barrier.wait()
        try:
            won.append(opened(path))
        except SocketUnusable as error:
            lost.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert answers(path)


def test_the_name_is_removed(path, opened):
    listener = opened(path)
    listener.remove()
    assert not path.exists()
    listener.remove()


def test_a_successors_socket_is_not_removed(path, opened):
    first = opened(path)
    first.socket.close()
    opened(path)
    first.remove()
    assert answers(path)
