"""The journal beside the bus: a thread that writes, one that looks up, and queues to both.

The thread that owns the sockets never waits for a disk. It hands rows and questions over, and polls
`wakeup` for what came of them. A journal that cannot be written stops nothing: rows wait, up to a
bound, and are written once that is possible again.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Union

from .. import log
from ..config import Config
from .clock import Clock
from .handover import HandedOver
from .salvage import Salvage
from .store import DamageError, Journal, JournalError, JournalReader, Row, storable

# Bytes of rows that may wait for the disk. At 10,000 small messages a second this is some seconds.
WAITING_BYTES = 32 << 20
# A row's share of that beside its body: the objects it is made of.
ROW_BYTES = 400

# Seconds without one of them on the disk after which, while more than that waits, nothing more is
# taken to be acknowledged. Until then whoever submits waits: others' large messages are no reason
# to send anybody away.
STUCK = 1.0

# One transaction: a bound on how long the next one has to wait, and on its memory.
GROUP_ROWS = 5_000
GROUP_BYTES = 8 << 20

# Seconds. Legacy messages are not waited for by anybody, so a group is gathered for so long; and
# so long it takes from one attempt at a journal that cannot be written to the next.
GATHER = 0.01
RETRY = 1.0

# Seconds from one look at whether what was written can be read to the next; rows of before that are
# read each time, one part after the other; and bytes of new ones after which it is due at once.
VERIFY = 1.0
VERIFIED_ROWS = 1_000
UNVERIFIED_BYTES = 16 << 20

# Seconds for which a relay was away, by the clock, after which that makes nothing older: either the
# host was off, or its clock is wrong. And how often the journal is told that it is not away.
AWAY = 24 * 3600.0
SEEN_PERIOD = 3600.0
SEEN = "clock-seen"

# Seconds that `close()` gives the disk.
CLOSE = 5.0

# Seconds that a backlog which is full has to reach back, or else somebody is told; the share of its
# age, if that is less; newest rows among which it is looked for whose they are; and the seconds
# between two lines about it.
SHORT = 3600.0
SHORT_SHARE = 0.5
LOOKED_THROUGH = 2_000
NOTE_PERIOD = 600.0

# Set by the relay, asked for at the next start.
LISTENERS = "listeners"

logger = logging.getLogger(log.NAME)


@dataclass(frozen=True)
class Opened:
    """The journal is open. `listeners`: connections by host when it was last written."""

    listeners: dict[str, int] | None


@dataclass(frozen=True)
class Stored:
    """Submitted rows that are on disk now: their msg_ids and seqs."""

    seqs: list[tuple[str, int]]


@dataclass(frozen=True)
class NotStored:
    """Submitted rows that are not on disk, because of `error`. If `kept`, they will be later."""

    msg_ids: list[str]
    error: str
    kept: bool = True


@dataclass(frozen=True)
class Found:
    """What was asked for: a seq for each msg_id that the journal knows, None for the others."""

    seqs: dict[str, int | None]
    # Those whose body there is another one than what was asked about.
    others: frozenset[str] = frozenset()


@dataclass(frozen=True)
class NotFound:
    """What was asked for cannot be answered, because of `error`."""

    msg_ids: list[str]
    error: str


# Python 3.9 has no `|` between classes outside of annotations.
Result = Union[Opened, Stored, NotStored, Found, NotFound]


@dataclass
class State:
    """For health and metrics. `state` is none, opening, ok or failing, `since` in Unix time."""

    state: str = "opening"
    error: str | None = None
    since: float | None = None
    last_seq: int = 0
    written: int = 0
    unjournaled: int = 0
    # Messages that went before their age since the start, for want of room; and, once the backlog
    # reaches back for a short time only: for how long, of which topic the most is, and when.
    trimmed_early: int = 0
    reach: float | None = None
    reach_topic: str | None = None
    reach_noted: float | None = None
    # Jumps of the host's clock: how many, the last one in seconds and when, by our own time; and
    # the one back that is not followed yet.
    clock_jumps: int = 0
    clock_jump: float | None = None
    clock_jumped: float | None = None
    clock_waiting: float | None = None
    # What our own time is.
    clock_now: float | None = None


@dataclass
class _Group:
    rows: list[Row] = field(default_factory=list)
    bytes: int = 0

    def is_full(self) -> bool:
        return len(self.rows) >= GROUP_ROWS or self.bytes >= GROUP_BYTES


class Recorder:
    """The journal of one relay. All methods are for the thread of the sockets, and none waits."""

    def __init__(self, config: Config) -> None:
        self._path = config["relay_journal"]
        self._max_age = config["relay_journal_max_age"]
        self._max_bytes = config["relay_journal_max_bytes"]
        self._handed_over = HandedOver(self._path, self._max_age)
        self.state = State()
        # Written by the thread of the sockets alone,
        self._added_rows = self._added_bytes = 0
        # and these by the writer: neither needs a lock.
        self._taken_rows = self._done_bytes = 0
        # When something began to wait, and when rows were last stored.
        self._began = self._stored = time.monotonic()
        # What was added together, and its bytes.
        self._batches: deque[tuple[Sequence[Row], int]] = deque()
        self._questions: deque[tuple[str, bytes]] = deque()
        self._remembered: dict[str, str] = {}
        self._results: deque[Result] = deque()
        self._more = threading.Event()
        self._hurry = threading.Event()
        self._asked = threading.Event()
        self._readable = threading.Event()
        self._end = threading.Event()
        self._opened = False
        self._clock = Clock()
        # Jumps that are not in the journal yet.
        self._jumps: deque[float] = deque()
        self._seen_due = 0.0
        # What was stored since the journal was found to be readable: seqs and rows, and its bytes.
        self._unverified: list[tuple[list[int], list[Row]]] = []
        self._unverified_bytes = 0
        self._verify_due = 0.0
        self._looked_at: tuple[int, str] = (0, "")
        # Damage that the other thread has met.
        self._damage: DamageError | None = None
        self._salvage: Salvage | None = None
        # Of the journal that is open; and when the next line about it is due.
        self._trimmed_before = 0
        self._note_due = 0.0
        self.wakeup, self._waker = socket.socketpair()
        for end in (self.wakeup, self._waker):
            end.setblocking(False)
        # Daemons: a disk that never answers must not keep the process from ending.
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._finder = threading.Thread(target=self._find, name="journal-lookup", daemon=True)

    def open(self) -> None:
        """Start. An `Opened` follows once the file is open."""
        self._writer.start()
        self._finder.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for the disk."""
        return self._added_rows - self._taken_rows

    @property
    def waiting_bytes(self) -> int:
        return self._added_bytes - self._done_bytes

    @property
    def refusal(self) -> str | None:
        """Why nothing can be acknowledged at present, or None."""
        if self.state.state == "failing":
            return f"the journal cannot be written: {self.state.error}"
        stuck_for = time.monotonic() - max(self._began, self._stored)
        if self.waiting_bytes > WAITING_BYTES and stuck_for > STUCK:
            behind = self.waiting_bytes >> 20
            return f"the journal is {behind} MiB behind, and has not moved for {stuck_for:.0f} s"
        return None

    def now(self) -> float:
        """The time to store with a message that is received now, in seconds since 1970."""
        return self._clock.now()

    def add(self, rows: Sequence[Row]) -> None:
        """Have rows written, soon.

        If too much is waiting already they are counted, and will be missing from the backlog.
        """
        if self.waiting_bytes > WAITING_BYTES:
            self.state.unjournaled += len(rows)
            return
        self._add(rows)

    def add_submitted(self, row: Row) -> None:
        """Have a row written without delay. A Stored or NotStored follows."""
        self._add([row])
        self._hurry.set()

    def ask(self, msg_id: str, body: bytes) -> None:
        """Look a msg_id up, and whether it has that body. A Found or NotFound follows."""
        self._questions.append((msg_id, body))
        self._asked.set()

    def remember(self, listeners: dict[str, int]) -> None:
        """Keep this for the `Opened` of the next start."""
        self._remembered[LISTENERS] = json.dumps(listeners)
        self._more.set()

    def results(self) -> Iterable[Result]:
        """What has come of `add` and `ask`. Call when `wakeup` can be read from."""
        try:
            while self.wakeup.recv(4096):
                pass
        except BlockingIOError:
            pass
        while self._results:
            yield self._results.popleft()

    def close(self) -> None:
        """Write what is waiting, for CLOSE seconds at most. Waits for it."""
        for event in (self._end, self._more, self._hurry, self._asked, self._readable):
            event.set()
        if self._writer.is_alive():
            self._writer.join(CLOSE)
            self._finder.join(CLOSE if not self._writer.is_alive() else 0)
        if self._batches:
            logger.error("journal: %d messages were not written before the end", self.waiting)

    def _add(self, rows: Sequence[Row]) -> None:
        size = sum([len(row.body) for row in rows]) + ROW_BYTES * len(rows)
        if self._added_bytes == self._done_bytes:
            self._began = time.monotonic()
        self._added_bytes += size
        self._added_rows += len(rows)
        self._batches.append((rows, size))
        if not self._more.is_set():
            self._more.set()

    def _tell(self, result: Result) -> None:
        self._results.append(result)
        with suppress(OSError):  # full: it will be woken anyway
            self._waker.send(b"\0")

    # The writer's thread.

    def _write(self) -> None:
        journal: Journal | None = None
        group = _Group()
        while True:
            try:
                journal = journal or self._open_journal()
                if not group.rows:
                    group = self._gather()
                self._look_at_clock(journal, group)
                if self._remembered:
                    key, value = self._remembered.popitem()
                    journal.remember(key, value)
                if group.rows:
                    self._store(journal, group)
                    group = _Group()
                else:
                    journal.check_files()
                if self.state.state == "failing":
                    journal.check_writable()
                self._recovered(journal)
                self._verify(journal)
                if self._salvage_some(journal) or self._handed_over.take_some(journal):
                    self._more.set()  # what follows does not wait for the next message
                if self._end.is_set() and not self._batches:
                    journal.close()
                    return
            except Exception as error:
                self._failed(error, group)
                if journal is not None and journal.aside:
                    self._begin_salvage(journal.aside)
                _close(journal)
                journal = None
                if self._end.wait(RETRY):
                    return

    def _open_journal(self) -> Journal:
        journal = Journal(self._path, self._max_age, self._max_bytes, self.state.last_seq)
        self._trimmed_before = 0
        if journal.moved_aside:
            logger.error("%s", journal.moved_aside)
        if journal.aside:
            self._begin_salvage(journal.aside)
        unverified, self._unverified, self._unverified_bytes = self._unverified, [], 0
        if self._salvage is not None:
            # All that is known to have been in the file, whatever can be read of it.
            for seqs, rows in unverified:
                self._put_back(journal, seqs, rows)
        self._looked_at = (0, "")
        self.state.last_seq = journal.last_seq
        if not self._opened:
            self._start_clock(journal)
            self._opened = True
            self._tell(Opened(_listeners_from(journal.recall(LISTENERS))))
        self._readable.set()
        return journal

    def _gather(self) -> _Group:
        """The rows of the next transaction: none if there are none for a second."""
        if not self._batches and not self._end.is_set():
            self._more.wait(1.0)
        if self._batches and self.waiting < GROUP_ROWS:
            self._hurry.wait(GATHER)
        # In this order: whoever adds a row now finds the events cleared, and sets them.
        self._more.clear()
        self._hurry.clear()
        group = _Group()
        now = self.now()
        while self._batches and not group.is_full():
            rows, size = self._batches.popleft()
            if rows and rows[-1].received > now:  # the clock was set back since
                rows = [row._replace(received=min(row.received, now)) for row in rows]
            group.rows += rows
            group.bytes += size
        self._taken_rows += len(group.rows)
        if self._batches:  # more than one group's worth: the next one is due at once
            self._more.set()
            self._hurry.set()
        return group

    def _store(self, journal: Journal, group: _Group) -> None:
        try:
            seqs = journal.append(group.rows)
        except JournalError:
            raise
        except Exception:  # a bug, and not the disk: one bad row must not hold up all the others
            logger.exception("journal: a group could not be written, its rows are taken singly")
            seqs = self._store_singly(journal, group)
        self._done_bytes += group.bytes
        self._stored = time.monotonic()
        if len(seqs) == len(group.rows):
            self._unverified.append((seqs, group.rows))
            self._unverified_bytes += group.bytes
        self.state.written += len(seqs)
        self.state.last_seq = journal.last_seq
        self._note_trimmed(journal)
        stored = [(row.msg_id, seq) for row, seq in zip(group.rows, seqs) if row.submitted]
        if stored:
            self._tell(Stored(stored))

    def _note_trimmed(self, journal: Journal) -> None:
        """Tell of messages that somebody pushes out of the backlog, however old they may become."""
        early = journal.trimmed_early - self._trimmed_before
        if not early:
            return
        self._trimmed_before += early
        self.state.trimmed_early += early
        reach = journal.reach(self.now())
        if reach >= min(SHORT, self._max_age * SHORT_SHARE):
            return
        now = time.monotonic()
        is_due = now >= self._note_due
        if is_due:
            self._note_due = now + NOTE_PERIOD
            self.state.reach_topic = journal.largest_topic(LOOKED_THROUGH)
        # Then the rest: who sees that it was noted reads the topic, too, from another thread.
        self.state.reach, self.state.reach_noted = reach, time.time()
        if not is_due:
            return
        topic = self.state.reach_topic or ""
        logger.warning(
            "journal: full, and reaches back only %.0f s: %d messages went before their age since"
            " the start. Of the newest, most bytes are of topic %s",
            reach, self.state.trimmed_early, ascii(topic[:200]),
        )  # fmt: skip

    def _store_singly(self, journal: Journal, group: _Group) -> list[int]:
        seqs, rows = [], []
        for row in group.rows:
            try:
                seqs += journal.append([row])
            except JournalError:
                raise
            except Exception as error:
                self.state.unjournaled += 1
                if row.submitted:
                    text = f"{type(error).__name__}: {error}"
                    self._tell(NotStored([row.msg_id], text, kept=False))
            else:
                rows.append(row)
        group.rows = rows
        return seqs

    # The clock.

    def _start_clock(self, journal: Journal) -> None:
        """Compare the clock with what the journal says of the time before this start."""
        if not journal.last_received:
            return
        if not journal.is_restamping:
            self._clock.start_from(journal.last_received)
        try:
            seen = max(float(journal.recall(SEEN) or 0), journal.last_received)
        except ValueError:
            seen = journal.last_received
        away = self.now() - seen
        if away > AWAY:
            journal.note_jump(away, journal.last_seq)
            logger.warning(
                "clock: %.1f days ahead of when this relay last ran: was the host off, or is its"
                " clock wrong? No message goes from the backlog for it",
                away / 86400,
            )

    def _look_at_clock(self, journal: Journal, group: _Group) -> None:
        """Notice jumps of the host's clock, and keep the journal's times right."""
        was_waiting = self._clock.waiting
        jump = self._clock.look(journal.last_jump)
        now, waiting = self.now(), self._clock.waiting
        if waiting is not None and was_waiting is None:
            logger.warning(
                "clock: it jumped %.0f s back; the backlog's times go on from where they were until"
                " that has lasted for some minutes",
                -waiting,
            )
            self._enter_jump(waiting, now)
        if jump:
            if was_waiting is None:
                self._enter_jump(jump, now)
            self._jumps.append(jump)
            logger.warning(
                "clock: it jumped %.0f s %s; no message goes from the backlog for it. Is this"
                " host's clock right?",
                abs(jump), "ahead" if jump > 0 else "back, which is followed now",
            )  # fmt: skip
        self.state.clock_waiting, self.state.clock_now = waiting, now
        while self._jumps:
            if self._jumps[0] > 0:
                coming = self.waiting + len(group.rows)
                journal.note_jump(self._jumps[0], journal.last_seq + coming)
            else:
                journal.set_back(-self._jumps[0], now)
            self._jumps.popleft()
        if journal.restamp_some(now):
            self._more.set()
        if group.rows and group.rows[-1].received > now:
            group.rows = [row._replace(received=min(row.received, now)) for row in group.rows]
        if time.monotonic() >= self._seen_due:
            self._seen_due = time.monotonic() + SEEN_PERIOD
            journal.remember(SEEN, f"{now:.0f}")

    def _enter_jump(self, seconds: float, now: float) -> None:
        self.state.clock_jumps += 1
        self.state.clock_jump, self.state.clock_jumped = seconds, now

    # Damage.

    def _verify(self, journal: Journal) -> None:
        """Read back what was written. Raises JournalError once the file was moved aside."""
        now = time.monotonic()
        if self._damage is not None:
            error, self._damage = self._damage, None
            raise journal.condemn(error)
        if now < self._verify_due and self._unverified_bytes < UNVERIFIED_BYTES:
            return
        self._verify_due = now + VERIFY
        try:
            reader = JournalReader(self._path)
            try:
                self._read_back(reader)
                self._looked_at = reader.look_through(*self._looked_at, VERIFIED_ROWS)
            finally:
                reader.close()
            if self._unverified and not self._batches:
                journal.save_log()
            self._unverified, self._unverified_bytes = [], 0
        except DamageError as error:
            raise journal.condemn(error) from error
        except JournalError as error:  # somebody holds it, or it is gone, which is met elsewhere
            logger.debug("%s", error)

    def _read_back(self, reader: JournalReader) -> None:
        reader.oldest()
        if not self._unverified:
            return
        first, (seqs, rows) = self._unverified[0][0][0], self._unverified[-1]
        reader.look_through(first - 1, "", seqs[-1] - first + 1)
        last = reader.get(seqs[-1])
        if last is None or last.body != rows[-1].body:
            raise DamageError(f"message {seqs[-1]} is not in it as it was written")

    def _begin_salvage(self, path: str) -> None:
        if self._salvage is not None:
            self._salvage.close()
        self._salvage = Salvage(path)
        self._more.set()

    def _salvage_some(self, journal: Journal) -> bool:
        if self._salvage is None:
            return False
        if self._salvage.take_some(journal):
            return True
        self._salvage = None
        return False

    def _put_back(self, journal: Journal, seqs: list[int], rows: list[Row]) -> None:
        journal.put_back([
            (seq, row.received, storable(row.topic), storable(row.msg_id), row.body, 1)
            for seq, row in zip(seqs, rows)
        ])  # fmt: skip

    def _recovered(self, journal: Journal) -> None:
        if self.state.state == "failing":
            waited = time.time() - (self.state.since or 0)
            logger.warning(
                "journal: written again after %.0f s, %d messages are missing from it so far",
                waited, self.state.unjournaled,
            )  # fmt: skip
        if self.state.state != "ok":
            self.state.state, self.state.error, self.state.since = "ok", None, None

    def _failed(self, error: Exception, group: _Group) -> None:
        """Say so once, and tell those who wait. The rows are kept for the next attempt."""
        text = str(error) if isinstance(error, JournalError) else f"{type(error).__name__}: {error}"
        if self.state.state != "failing":
            self.state.since = time.time()
            logger.error("%s; no message is acknowledged until it can be written", text)
        self.state.error = text
        self.state.state = "failing"
        # Those that were added since, too: they were let in a moment before it was known.
        waiting = [group.rows, *(rows for rows, _ in self._batches.copy())]
        msg_ids = [row.msg_id for rows in waiting for row in rows if row.submitted]
        if msg_ids:
            # Once is enough: `Stored` follows, if only for those who ask again.
            self._tell(NotStored(msg_ids, text))

    # The thread that looks up.

    def _find(self) -> None:
        reader: JournalReader | None = None
        self._readable.wait()
        while not self._end.is_set():
            self._asked.wait()
            self._asked.clear()
            while self._questions and not self._end.is_set():
                # In order, which is that of their emission.
                bodies = dict(self._questions.popleft() for _ in range(len(self._questions)))
                for is_last in (False, True):
                    is_fresh = reader is None
                    try:
                        reader = reader or JournalReader(self._path)
                        self._tell(self._found(reader, bodies))
                        break
                    except Exception as error:
                        _close(reader)
                        reader = None
                        if isinstance(error, DamageError):
                            self._damage = error
                            self._more.set()
                        elif not is_fresh and not is_last:
                            continue  # it may be a new file's turn
                        self._tell(NotFound(list(bodies), str(error)))
                        break
        _close(reader)

    def _found(self, reader: JournalReader, bodies: dict[str, bytes]) -> Found:
        """What is known of these msg_ids. Raises JournalError."""
        seqs = reader.find(list(bodies))
        others = _others(reader, seqs, bodies)
        unknown = [msg_id for msg_id in bodies if msg_id not in seqs]
        former = self._salvage
        if former is not None and unknown:
            more, strange = _find_in(former.path, unknown, bodies)
            seqs, others = {**seqs, **more}, others | strange
        return Found({msg_id: seqs.get(msg_id) for msg_id in bodies}, frozenset(others))


def _others(reader: JournalReader, seqs: dict[str, int], bodies: dict[str, bytes]) -> set[str]:
    """Those msg_ids whose message is another one than that of `bodies`."""
    return {msg_id for msg_id, seq in seqs.items() if not reader.has_body(seq, bodies[msg_id])}


def _find_in(
    path: str, msg_ids: list[str], bodies: dict[str, bytes]
) -> tuple[dict[str, int], set[str]]:
    """What a journal that was moved aside knows, as far as it can be read."""
    try:
        reader = JournalReader(path)
        try:
            seqs = reader.find(msg_ids)
            return seqs, _others(reader, seqs, bodies)
        finally:
            reader.close()
    except JournalError as error:
        logger.debug("%s", error)
        return {}, set()


def _listeners_from(text: str | None) -> dict[str, int] | None:
    try:
        found: Any = json.loads(text or "null")
        return {str(host): int(number) for host, number in found.items()}
    except (ValueError, TypeError, AttributeError):
        return None


def _close(connection: Journal | JournalReader | None) -> None:
    if connection is not None:
        try:
            connection.close()
        except Exception as error:
            logger.debug("journal: %s", error)
