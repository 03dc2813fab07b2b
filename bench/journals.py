"""Journals to start with: filled once for each schema, and used again.

    python -m bench.journals PATH BYTES

A run takes away from its journal what it adds: its size is the relay's bound for it. So it need not
be copied for a run, which would leave the disk busy for longer than the run takes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.support.programs import ROOT

from . import messages
from .processes import MeasurementError
from .subjects import our_environment

JOURNALS = ROOT / "build" / "bench" / "journals"

# The bound of a relay's journal, in bytes.
FULL = 1 << 30

GROUP = 50_000


def prefilled(checkout: Path, size: int) -> Path | None:
    """A journal of `size` bytes for the relay of `checkout`; None for an empty one."""
    if not size:
        return None
    source = _store(checkout).read_bytes()
    path = JOURNALS / f"{size >> 20}-MiB-{hashlib.sha256(source).hexdigest()[:12]}.db"
    if not path.exists():
        JOURNALS.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        env = our_environment(checkout, JOURNALS)
        env["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        done = subprocess.run(
            [sys.executable, "-m", "bench.journals", str(part), str(size)], env=env, check=False
        )
        if done.returncode:
            raise MeasurementError(f"{path} could not be filled")
        part.rename(path)
    return path


def _store(checkout: Path) -> Path:
    """The module that writes journals: before the package had rooms it was elsewhere."""
    package = checkout / "files" / "fedmsg_relay"
    return next(
        path for path in (package / "journal/store.py", package / "journal.py") if path.exists()
    )


def fill(path: str, size: int) -> None:
    """Rows as real ones: 400 B, the msg_id a random UUID."""
    try:
        from fedmsg_relay.journal.store import Journal, Row
    except ModuleNotFoundError:  # of a checkout whose package has no rooms
        from fedmsg_relay.journal import Journal, Row  # type: ignore[attr-defined,no-redef]

    # No bound yet: it would take away while we add.
    journal = Journal(path, 1e9, 4 * size)
    body = messages.single(400, 0)
    topic = messages.TOPIC.decode()
    while os.path.getsize(path) < size:
        now = time.time()
        journal.append([Row(now, topic, f"2026-{uuid.uuid4()}", body) for _ in range(GROUP)])
    journal.close()


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))
