"""Our time beside a host's clock that is set, and what the journal makes of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fedmsg_relay.journal import store as journal_module
from fedmsg_relay.journal.clock import LASTING, Clock
from fedmsg_relay.journal.store import Journal, JournalReader, Row

DAY = 86400.0
YEAR = 365 * DAY


@dataclass
class Host:
    """Its two clocks."""

    wall: float = 1e9
    monotonic: float = 500.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)


def test_a_clock_that_is_kept_right_does_not_jump() -> None:
    host = Host()
    clock = host.clock()
    for _ in range(100):
        host.passes(1)
        host.wall += 0.5
        assert clock.look() == 0
    assert clock.now() == host.wall


def test_ahead_is_followed_and_undone_at_once() -> None:
    host = Host()
    clock = host.clock()
    host.wall += YEAR
    assert clock.now() == host.wall
    assert clock.look() == YEAR
    host.passes(30)
    host.wall -= YEAR + 3
    assert clock.look(YEAR) == -YEAR - 3
    assert clock.now() == host.wall


def test_back_is_followed_once_it_lasts() -> None:
    host = Host()
    clock = host.clock()
    host.wall -= 3600
    assert (clock.look(), clock.waiting) == (0, -3600)
    host.passes(LASTING - 1)
    assert (clock.look(), clock.now()) == (0, 1e9 + LASTING - 1)
    host.passes(1)
    assert (clock.look(), clock.waiting) == (-3600, None)
    assert clock.now() == host.wall


def test_back_and_again_right_is_nothing() -> None:
    host = Host()
    clock = host.clock()
    host.wall -= YEAR
    clock.look()
    host.passes(LASTING / 2)
    host.wall += YEAR
    assert (clock.look(), clock.waiting, clock.now()) == (0, None, host.wall)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(str(tmp_path / "journal.db"), 7 * DAY, 1 << 30)
    yield made
    made.close()


def rows(first: int, last: int, received: float) -> list[Row]:
    return [Row(received + n, "t", f"id-{n}", b"{}", True) for n in range(first, last + 1)]


def times(journal: Journal) -> list[float]:
    reader = JournalReader(journal.path)
    first, last = reader.bounds()
    found = [reader.get(seq) for seq in range(first, last + 1)]
    reader.close()
    return [each.received for each in found if each is not None]


def test_jumps_make_nothing_older(journal: Journal) -> None:
    journal.append(rows(1, 10, DAY))
    journal.note_jump(YEAR, 10)
    journal.append(rows(11, 20, YEAR + DAY))
    journal.note_jump(YEAR, 20)
    journal.append(rows(21, 30, 2 * YEAR + DAY))
    assert len(times(journal)) == 30
    # Their own age is what they go by.
    assert journal.trim(2 * YEAR + 8 * DAY + 5.5) == 5
    assert journal.trim(2 * YEAR + 8 * DAY + 15.5) + journal.trim(2 * YEAR + 8 * DAY + 15.5) == 10
    assert journal.trim(2 * YEAR + 8 * DAY + 25.5) + journal.trim(2 * YEAR + 8 * DAY + 25.5) == 10


def test_jumps_are_remembered_as_long_as_they_matter(journal: Journal) -> None:
    journal.append(rows(1, 10, DAY))
    journal.note_jump(YEAR, 10)
    journal.close()
    again = Journal(journal.path, 7 * DAY, 1 << 30)
    again.append(rows(11, 11, YEAR + DAY))
    assert (len(times(again)), again.last_jump) == (11, YEAR)
    again.append(rows(12, 12, YEAR + 9 * DAY))
    again.append(rows(13, 13, YEAR + 9 * DAY))
    assert again.last_jump == 0
    again.close()


@pytest.mark.parametrize("at_once", [3, 1000])
def test_what_a_wrong_clock_stamped_is_corrected(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(journal_module, "RESTAMPED_AT_ONCE", at_once)
    journal.append(rows(1, 10, DAY))
    journal.note_jump(YEAR, 10)
    journal.append(rows(11, 20, YEAR + DAY))
    journal.set_back(YEAR, DAY + 100)
    journal.append(rows(21, 21, DAY + 80))
    while journal.restamp_some(DAY + 101):
        assert times(journal) == sorted(times(journal))
    assert times(journal)[:20] == [DAY + n for n in range(1, 21)]
    assert DAY + 20 <= times(journal)[20] <= DAY + 101
    journal.append(rows(22, 22, DAY + 90))
    assert times(journal)[21] == DAY + 112
    assert journal.last_jump == 0


def test_a_clock_that_was_wrong_from_the_beginning(journal: Journal) -> None:
    journal.append(rows(1, 10, YEAR))
    journal.set_back(YEAR, DAY)
    journal.close()
    again = Journal(journal.path, 7 * DAY, 1 << 30)
    again.restamp_some(DAY)
    assert times(again) == [float(n) for n in range(1, 11)]
    again.close()
