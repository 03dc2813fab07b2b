"""Properties of the journal: what trimming may take, and which seq a msg_id has."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fedmsg_relay.journal.store import PAGE, Journal, JournalReader, Row
from hypothesis import given, settings
from hypothesis import strategies as st

MAX_AGE = 100.0
MAX_BYTES = 60 * PAGE
# Bytes of pages that a row shares with others, of the index, and of what the file has of its own.
SLACK = 12 * PAGE


@dataclass(frozen=True)
class Append:
    sizes: list[int]
    clock: float  # seconds it has moved, in either direction
    reopened: bool


@dataclass(frozen=True)
class Trim:
    clock: float
    most: int


clocks = st.one_of(st.just(0.0), st.floats(-300, 300), st.floats(-1, 20))
steps = st.one_of(
    st.builds(
        Append,
        st.lists(st.one_of(st.integers(0, 300), st.integers(0, 20_000)), min_size=1, max_size=40),
        clocks,
        st.booleans(),
    ),
    st.builds(Trim, clocks, st.integers(1, 30)),
)


@dataclass
class Model:
    """All that was ever appended: seq to time and size."""

    rows: dict[int, tuple[float, int]] = field(default_factory=dict)
    last_received: float = 0.0


@settings(deadline=None, max_examples=150)
@given(st.lists(steps, min_size=1, max_size=12))
def test_trimming(done: list[Append | Trim]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "journal.db")
        journal = Journal(path, MAX_AGE, MAX_BYTES)
        model, before, now = Model(), range(1, 1), 10_000.0
        for step in done:
            now += step.clock
            incoming = 0
            if isinstance(step, Append):
                if step.reopened:
                    journal.close()
                    journal = Journal(path, MAX_AGE, MAX_BYTES)
                seqs = journal.append([Row(now, "t", f"i{n}", bytes(n)) for n in step.sizes])
                assert seqs == list(range(len(model.rows) + 1, len(model.rows) + len(seqs) + 1))
                model.last_received = max(model.last_received, now)
                for seq, size in zip(seqs, step.sizes):
                    model.rows[seq] = (model.last_received, size)
                before = range(before.start, len(model.rows) + 1)
                incoming = sum(step.sizes) + len(seqs) * PAGE
            else:
                assert journal.trim(now, step.most) <= step.most
            before = _check(path, model, before, now, incoming, step)
        journal.close()


def _check(
    path: str,
    model: Model,
    before: range,
    now: float,
    incoming: int,
    step: Append | Trim,
) -> range:
    """Compare the file with the model. Returns the seqs that are stored."""
    stored = _stored(path)
    left = range(stored[0][0] if stored else len(model.rows) + 1, len(model.rows) + 1)
    # The newest ones, without a gap, each with its own time and size.
    assert stored == [(seq, *model.rows[seq]) for seq in left]
    assert [row[1] for row in stored] == sorted(row[1] for row in stored)
    used, whole = _pages(path)
    removed = range(before.start, left.start)
    limited = isinstance(step, Trim) and len(removed) >= step.most
    if not limited:
        # Within both bounds, but for the newest message, which stays.
        assert all(row[1] >= now - MAX_AGE for row in stored[:-1])
        assert used * PAGE <= MAX_BYTES or len(stored) == 1
        assert whole * PAGE <= MAX_BYTES or len(stored) == 1
    # What was young went only because there was no room, and no more of it than that asked for.
    young = [seq for seq in removed if model.rows[seq][0] >= now - MAX_AGE]
    if young:
        largest = max(model.rows[seq][1] for seq in young)
        assert used * PAGE > MAX_BYTES - incoming - largest - SLACK
    return left


def _stored(path: str) -> list[tuple[int, float, int]]:
    with sqlite3.connect(path) as db:
        query = "SELECT seq, received, length(body) FROM message ORDER BY seq"
        return db.execute(query).fetchall()


def _pages(path: str) -> tuple[int, int]:
    """Pages in use, and of the whole file."""
    with sqlite3.connect(path) as db:
        [whole], [free] = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
        )
    return whole - free, whole


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            # Few different ones, so that they come again: within a group, in the next, trimmed.
            st.lists(st.text(st.characters(), max_size=2) | st.sampled_from("abc"), max_size=40),
            st.booleans(),
            st.integers(0, 60),
        ),
        max_size=8,
    )
)
def test_a_msg_id_has_the_first_seq_it_is_stored_under(
    groups: list[tuple[list[str], bool, int]],
) -> None:
    """However they are grouped, whenever the journal is opened anew and whatever was trimmed."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "journal.db")
        journal = Journal(path, MAX_AGE, 1 << 30)
        appended: list[tuple[float, str]] = []
        now = 0.0
        for msg_ids, reopened, passed in groups:
            if reopened:
                journal.close()
                journal = Journal(path, MAX_AGE, 1 << 30)
            now += passed
            journal.append([Row(now, "t", msg_id, b"{}", True) for msg_id in msg_ids])
            journal.trim(now)
            appended += [(now, msg_id) for msg_id in msg_ids]
            first: dict[str, int] = {}
            for seq, (received, msg_id) in enumerate(appended, 1):
                if received >= now - MAX_AGE or seq == len(appended):
                    first.setdefault(msg_id, seq)
            asked = sorted({msg_id for _, msg_id in appended} | {"never"})
            assert journal.find(asked) == first
            reader = JournalReader(path)
            assert reader.find(asked) == first
            reader.close()
        journal.close()
