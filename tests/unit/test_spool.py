"""The spool's files: whole or not there, in order, bounded, and nobody else's business."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fedmsg_relay.errors import SpoolError
from fedmsg_relay.publishing import quota
from fedmsg_relay.publishing.spool import Spool, decoded

from tests.conftest import environment
from tests.support.programs import Child

TOPIC = b"org.fedoraproject.dev.a"
ROOM = 1 << 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o755)
    return path


def in_order(directory: Path) -> list[bytes]:
    return [decoded(path.read_bytes())[1] for path in sorted(directory.iterdir())]


def test_a_file_a_message(directory: Path) -> None:
    spool = Spool(str(directory), ROOM)
    written = spool.write(TOPIC, b'{"a": 1}')
    [path] = directory.iterdir()
    assert str(path) == written
    assert decoded(path.read_bytes()) == (TOPIC, b'{"a": 1}')


def test_whatever_the_topic_is(directory: Path) -> None:
    for topic in (b"", b"two\nlines\n", b"\xff\0"):
        path = Spool(str(directory), ROOM).write(topic, b"{}")
        assert decoded(Path(path).read_bytes()) == (topic, b"{}")


def test_names_sort_by_time_even_if_the_clock_is_set_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([5_000, 5_000, 3, 4, 6_000])
    monkeypatch.setattr("fedmsg_relay.publishing.spool.time.time_ns", lambda: next(times))
    spool = Spool(str(directory), ROOM)
    bodies = [b"%d" % n for n in range(5)]
    for body in bodies:
        spool.write(TOPIC, body)
    assert in_order(directory) == bodies


def test_processes_at_once_do_not_meet(directory: Path) -> None:
    script = (
        "import sys\nfrom fedmsg_relay.publishing.spool import Spool\n"
        "spool = Spool(sys.argv[1], 1 << 30)\n"
        "for n in range(50): spool.write(b't', b'%d' % n)\n"
    )
    children = [
        Child([sys.executable, "-c", script, str(directory)], env=environment()) for _ in range(4)
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    assert sorted(in_order(directory)) == sorted(b"%d" % n for n in range(50) for _ in range(4))


@pytest.mark.parametrize(("mode", "expected"), [(0o3733, 0o640), (0o700, 0o600)])
def test_only_the_directorys_group_can_read_it(directory: Path, mode: int, expected: int) -> None:
    directory.chmod(mode)
    before = os.umask(0)
    try:
        path = Spool(str(directory), ROOM).write(TOPIC, b"{}")
    finally:
        os.umask(before)
    about = os.stat(path)
    assert stat.S_IMODE(about.st_mode) == expected
    assert about.st_gid == directory.stat().st_gid


def test_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=f"there is no spool {tmp_path}/none"):
        Spool(f"{tmp_path}/none", ROOM).write(TOPIC, b"{}")


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=f"spool {tmp_path}/file: Not a directory"):
        Spool(f"{tmp_path}/file", ROOM).write(TOPIC, b"{}")


def test_bounded_where_one_may_count(directory: Path) -> None:
    """Each file takes a block of the disk, whatever is in it."""
    bound = 10 * 4096
    with pytest.raises(SpoolError, match=r"is full.*publisher_spool_max_bytes"):
        for _ in range(100):
            Spool(str(directory), bound).write(TOPIC, b"{}")
    used = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
    assert bound - 8192 <= used <= bound


def test_there_is_room_again_after_it_was_drained(directory: Path) -> None:
    spool = Spool(str(directory), 10 * 4096)
    for _ in range(3):
        for _ in range(8):
            spool.write(TOPIC, b"{}")
        for path in directory.iterdir():
            path.unlink()


def test_the_owners_mark_says_that_it_is_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = directory / quota.MARKS
    marks.mkdir()
    (marks / str(os.geteuid())).touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for all but the owner
    with pytest.raises(SpoolError, match="is full"):
        Spool(str(directory), ROOM).write(TOPIC, b"{}")
    assert list(directory.iterdir()) == [marks]


def test_what_cannot_be_finished_leaves_nothing_behind(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files is as near to a full disk as a test comes without one."""
    script = (
        "import resource, signal, sys\nfrom fedmsg_relay.publishing.spool import Spool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "Spool(sys.argv[1], 1 << 30).write(b't', b'x' * 5000)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert f"spool {directory}: File too large" in result.stderr
    assert list(directory.iterdir()) == []


def test_content_without_a_topic_is_not_a_message() -> None:
    with pytest.raises(ValueError, match="not a topic"):
        decoded(b"{}")
