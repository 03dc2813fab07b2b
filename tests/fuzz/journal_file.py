"""The journal's reader: a file of which a disk, or somebody, has changed some bytes."""

from __future__ import annotations

import functools
import logging
import tempfile
from pathlib import Path

from fedmsg_relay import log
from fedmsg_relay.journal.salvage import Salvage
from fedmsg_relay.journal.store import Journal, JournalError, JournalReader, Row, Stored

ROWS = 12
WORDS = (
    b"\0" * 40,
    b"\xff" * 8,
    b"\x01\x17\x21\x0d",
    b"\x0d\x00",
    b"\x05\x00",
    b"message",
    b"\x7f",
)


@functools.cache
def _file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "journal.db")
        journal = Journal(str(path), 1e9, 1 << 24)
        for n in range(ROWS):
            body = b'{"n":%d,"text":"%s"}' % (n, b"x" * (700 * n))
            journal.append([Row(100.0 + n, "org.a.dev.x", f"2023-{n}", body, True)])
        journal.close()
        return path.read_bytes()


def seeds() -> list[bytes]:
    return [_file()]


def check(octets: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "journal.db")
        path.write_bytes(octets)
        if octets == _file():
            _check_undamaged(str(path))
        _read(str(path))
        _salvage(str(path), str(Path(directory, "new.db")))


def _check_undamaged(path: str) -> None:
    reader = JournalReader(path)
    assert reader.bounds() == (1, ROWS)
    assert [each.seq for each in reader.after(0, 100, 1 << 24)] == list(range(1, ROWS + 1))
    reader.close()


def _read(path: str) -> None:
    """Everything that the processes of a relay ask for. They expect JournalError."""
    try:
        reader = JournalReader(path)
    except JournalError:
        return
    questions = (
        reader.bounds,
        lambda: reader.first_from(105.0),
        lambda: _check(*map(reader.get, range(1, ROWS + 1))),
        lambda: _check(*reader.after(0, 100, 1 << 24)),
        lambda: reader.find(["2023-1", "2023-99"]),
        lambda: reader.search(1, ROWS, ["org.a.dev.x"], [b"text"]),
        lambda: reader.sizes([1, 2]),
        lambda: reader.look_through(0, "", 100),
        reader.oldest,
        lambda: reader.recall("anything"),
    )
    try:
        for ask in questions:
            try:
                ask()
            except JournalError as error:
                assert path in str(error)
    finally:
        reader.close()


def _check(*found: Stored | None) -> None:
    kinds = (int, float, str, str, bytes)
    for stored in found:
        if stored is not None:
            assert all(isinstance(each, kind) for each, kind in zip(stored, kinds)), stored


def _salvage(path: str, new: str) -> None:
    """Ends, whatever the file says of itself, and what it takes can be read."""
    logger = logging.getLogger(log.NAME)
    before = logger.level
    journal = Journal(new, 1e9, 1 << 24)
    salvage = Salvage(path)
    try:
        logger.setLevel(logging.CRITICAL)
        for _ in range(1000):
            if not salvage.take_some(journal):
                break
        reader = JournalReader(new)
        _check(*reader.after(0, 100, 1 << 24))
        reader.close()
    finally:
        logger.setLevel(before)
        salvage.close()
        journal.close()
