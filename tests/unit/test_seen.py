"""The set of msg_ids that have been seen."""

from __future__ import annotations

import tracemalloc

from fedmsg_relay.backlog.seen import Seen


def test_every_id_is_new_once() -> None:
    seen = Seen()
    ids = [f"2026-{n}" for n in range(30_000)]
    assert all(seen.add(each) for each in ids)
    assert not any(seen.add(each) for each in ids)
    assert len(seen) == len(ids)
    assert all(each in seen for each in ids)
    assert not any(f"2027-{n}" in seen for n in range(30_000))


def test_memory_of_many() -> None:
    tracemalloc.start()
    try:
        seen = Seen()
        for number in range(200_000):
            seen.add(f"2026-{number}")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 16 * 200_000
