"""Several users of one host, for a test that root runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534  # whose the spool is
SOMEBODY = 65533

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


def as_user(uid: int, action: Callable[[], object]) -> str:
    """What `action` returns or raises, as text, in a process of that user's."""
    read, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            text = str(action())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(written, text.encode())
        os._exit(0)
    os.close(written)
    with open(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return text


@contextmanager
def shared_spool() -> Iterator[Path]:
    """As on a host: any user may add to it, and it is NOBODY's."""
    # pytest's own directories let no other user through.
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    path = top / "spool"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o3733)
    try:
        yield path
    finally:
        shutil.rmtree(top)
