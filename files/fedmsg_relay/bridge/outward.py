"""From the journal to the broker: each message in the journal's order, until it is confirmed.

One thread, which is pika's loop. It looks for what is new in the journal every POLL seconds and
publishes it, as long as there is room in the window. What the broker has confirmed is noted in the
ledger; the cursor, on disk, follows the ledger. Whatever happens to the broker, the connection is
made anew, to each node in turn, and what was not confirmed is published again: then a message may
be there twice, with the same id.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop

from .. import log, systemd
from ..journal.store import JournalError, JournalReader, Stored
from ..rate_limit import RateLimit
from . import broker, convert, kinds
from .ledger import Ledger
from .patterns import Patterns
from .settings import OLDEST, WAIT, Settings
from .status import Status
from .store import Cursor, StateError, Store

# Seconds between two looks: at the journal, at the cursor, and at everything else.
POLL = 0.02
SAVE = 0.25
LOOK = 1.0

# Bytes that are published and not confirmed, at most, or one message; what is read at once; and
# seconds of reading and publishing before the loop has its turn.
WINDOW_BYTES = 8 << 20
READ = 500
READ_BYTES = 2 << 20
TURN = 0.1

# Seconds until the next attempt, and the one after many.
AGAIN = 0.2
AGAIN_MAX = 5.0

# Seconds without a confirmation that are trouble; and those that a stop waits for them.
SILENCE = 10.0
STOP = 5.0

logger = logging.getLogger(log.NAME)


class Outward:
    """The journal at `path`, published by `settings`. `run()` until `stop()`."""

    def __init__(self, settings: Settings, path: str, store: Store, status: Status) -> None:
        self._settings = settings
        self._path = path
        self._store = store
        self._status = status
        self._side = status.out
        self._loop = IOLoop()
        self._include = Patterns(settings.include)
        self._exclude = Patterns(settings.exclude)
        self._schemas = [(Patterns([pattern]), name) for pattern, name in settings.schemas]
        self._reader: JournalReader | None = None
        self._open_at = 0.0
        self._ledger: Ledger | None = None
        self._was_empty = False
        self._connection: pika.SelectConnection | None = None
        self._channel: Any = None
        self._frame = 131072
        self._node = 0
        self._pause = AGAIN
        self._again_pause = AGAIN
        self._again_at = 0.0
        # One at a time up to that seq: one of them is not for the broker.
        self._careful_until = 0
        self._returned: set[str] = set()
        self._ids: dict[int, str] = {}
        self._progress = time.monotonic()
        self._saved = self._looked = 0.0
        self._stopping_since: float | None = None
        self._limit = RateLimit()

    def run(self) -> None:
        """Bridge until `stop()`; what is published then is waited for, for a few seconds."""
        self._side.is_wanted = True
        self._connect()
        self._tick()
        self._loop.start()

    def stop(self) -> None:
        """Make `run()` return soon. From any thread, and from a signal's handler."""
        self._loop.add_callback_threadsafe(self._stop)

    # The loop

    def _tick(self) -> None:
        now = time.monotonic()
        self._fill()
        if now - self._saved >= SAVE:
            self._saved = now
            self._save()
        if now - self._looked >= LOOK:
            self._looked = now
            self._look(now)
        if self._stopping_since is not None and self._is_over(now):
            self._end()
            return
        self._loop.call_later(POLL, self._tick)

    def _stop(self) -> None:
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()

    def _is_over(self, now: float) -> bool:
        assert self._stopping_since is not None
        idle = self._ledger is None or not len(self._ledger) or self._channel is None
        return idle or now - self._stopping_since > STOP

    def _end(self) -> None:
        self._save()
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
        if self._reader is not None:
            self._reader.close()
        self._loop.stop()

    # The connection

    def _connect(self) -> None:
        if self._stopping_since is not None:
            return
        node = self._settings.brokers[self._node % len(self._settings.brokers)]
        self._side.node = str(node)
        pika.SelectConnection(
            broker.parameters(node, self._settings, "out"),
            on_open_callback=self._opened,
            on_open_error_callback=lambda _, error: self._lost(error),
            on_close_callback=lambda _, error: self._lost(error),
            custom_ioloop=self._loop,
        )

    def _opened(self, connection: pika.SelectConnection) -> None:
        self._connection = connection
        self._frame = connection.params.frame_max
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        self._open_channel()

    def _open_channel(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        if self._settings.exchange.startswith("amq."):
            self._confirm(channel)
            return
        # An exchange of our own is made where there is none; RabbitMQ has those of its own.
        channel.exchange_declare(
            self._settings.exchange, "topic", durable=True, passive=True,
            callback=lambda _: self._confirm(channel),
        )  # fmt: skip

    def _confirm(self, channel: Any) -> None:
        channel.add_on_return_callback(self._unroutable)
        channel.confirm_delivery(self._answered, lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._channel = channel
        if self._ledger is not None:
            self._restart()
        self._side.is_connected = True
        self._side.connections += 1
        self._progress = time.monotonic()
        logger.info("out: publishing to %s, exchange %s", self._side.node, self._settings.exchange)
        if not self._careful_until:
            self._side.all_well()
        self._fill()

    def _restart(self) -> None:
        assert self._ledger is not None
        self._ledger.restart()
        self._returned.clear()
        self._ids.clear()

    def _lost(self, error: BaseException) -> None:
        self._connection = self._channel = None
        self._side.is_connected = False
        self._end_block()
        if self._stopping_since is not None:
            return
        self._suspect(error)
        self._side.in_trouble(*broker.why(error, self._side.node))
        self._node += 1
        self._loop.call_later(self._pause, self._connect)
        self._pause = min(2 * self._pause, AGAIN_MAX)

    def _channel_closed(self, channel: Any, error: BaseException) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        self._channel = None
        self._side.is_connected = False
        if self._connection is None or not self._connection.is_open or self._stopping_since:
            return  # the connection's end tells why
        if isinstance(error, exceptions.ChannelClosedByClient):
            self._open_channel()  # for another journal
        elif not self._suspect(error):
            self._side.in_trouble(*broker.why(error, self._side.node))
            self._pause = min(2 * self._pause, AGAIN_MAX)
            self._loop.call_later(self._pause, self._open_channel)
        else:
            self._open_channel()

    def _suspect(self, error: BaseException) -> bool:
        """See to a message that the broker takes a channel's end for. Whether there is one."""
        if self._ledger is None or not broker.is_of_one_message(error):
            return False
        suspects = self._ledger.pending()
        if not suspects:
            return False
        if len(suspects) == 1:
            self._ledger.restart()
            row = self._get(suspects[0])
            if row is not None:
                self._set_aside(row, f"the broker refuses it: {broker.why(error, 'it')[1]}")
            self._ledger.passed_over(suspects[0])
        else:
            self._careful_until = max(self._careful_until, suspects[-1])
        return True

    def _blocked(self, _: Any, frame: Any) -> None:
        self._side.blocked_since = time.monotonic()
        reason = getattr(frame.method, "reason", "") or "an alarm"
        self._side.in_trouble(kinds.BLOCKED, f"{self._side.node} takes nothing: {reason}")

    def _unblocked(self, *_: Any) -> None:
        self._end_block()
        self._progress = time.monotonic()
        self._side.all_well()

    def _end_block(self) -> None:
        if self._side.blocked_since is not None:
            self._side.blocked_before = self._side.blocked
            self._side.blocked_since = None

    # What the broker answers

    def _answered(self, frame: Any) -> None:
        if self._ledger is None:
            return
        method = frame.method
        if isinstance(method, pika.spec.Basic.Nack):
            number = self._ledger.refuse(method.delivery_tag, method.multiple)
            self._side.counts["nacked"] += number
            self._side.in_trouble(
                kinds.NACKED, f"{self._side.node} could not keep {number} messages"
            )
            self._put_off()
            return
        seqs = self._ledger.confirm(method.delivery_tag, method.multiple)
        self._progress = time.monotonic()
        self._pause = AGAIN
        if self._settings.unroutable == WAIT:
            seqs = self._routed(seqs)
        self._side.counts["confirmed"] += len(seqs)
        if self._careful_until and self._ledger.confirmed >= self._careful_until:
            self._careful_until = 0
        if seqs and not self._ledger.is_again and self._side.blocked_since is None:
            self._again_pause = AGAIN
            self._side.all_well()
        if len(self._ledger) <= self._window // 2:
            self._fill()

    def _routed(self, seqs: list[int]) -> list[int]:
        """Those of them that a queue has. The others are published again."""
        assert self._ledger is not None
        routed = []
        for seq in seqs:
            if self._ids.pop(seq, None) in self._returned:
                self._ledger.put_back(seq)
            else:
                routed.append(seq)
        if len(routed) < len(seqs):
            if not self._ids:
                self._returned.clear()
            self._side.in_trouble(
                kinds.UNROUTABLE, f"no queue is bound to {self._settings.exchange} for messages"
            )
            self._put_off()
        return routed

    def _put_off(self) -> None:
        self._again_at = time.monotonic() + self._again_pause
        self._again_pause = min(2 * self._again_pause, AGAIN_MAX)

    def _unroutable(self, _: Any, __: Any, properties: Any, ___: bytes) -> None:
        self._side.counts["returned"] += 1
        self._status.returned_at = time.time()
        if self._settings.unroutable == WAIT:
            self._returned.add(properties.message_id)

    # The journal

    def _fill(self) -> None:
        """Publish what there is, as long as there is room and time."""
        if self._stopping_since is not None or not self._has_journal():
            return
        assert self._ledger is not None
        if self._status.state_error is not None:
            return  # how far it is could not be told after the next start
        end = time.monotonic() + TURN
        try:
            while self._has_room() and time.monotonic() < end:
                rows = self._next()
                if not rows:
                    return
                for row in rows:
                    if not self._pass_on(row):
                        return
        except JournalError as error:
            self._journal_trouble(error)
        except StateError as error:
            self._state_trouble(error)
        except (exceptions.ChannelWrongStateError, exceptions.ConnectionWrongStateError):
            return  # its end is told by a callback

    @property
    def _window(self) -> int:
        return 1 if self._careful_until else self._settings.window

    def _has_room(self) -> bool:
        assert self._ledger is not None
        if self._channel is None or self._side.blocked_since is not None:
            return False
        return len(self._ledger) < self._window and self._ledger.bytes < WINDOW_BYTES

    def _next(self) -> list[Stored]:
        """Some messages to publish: those to publish again first."""
        assert self._ledger is not None and self._reader is not None
        most = min(READ, self._window - len(self._ledger))
        if self._ledger.is_again:
            if time.monotonic() < self._again_at:
                return []
            wanted = self._ledger.again[:most]
            rows = [row for row in map(self._reader.get, wanted) if row is not None]
            if len(rows) < len(wanted):
                self._note_trimmed()
            return rows
        rows = self._reader.after(self._ledger.read, most, READ_BYTES)
        if rows and rows[0].seq > self._ledger.read + 1:
            self._note_trimmed()
        return rows

    def _note_trimmed(self) -> None:
        """The journal begins after what is still to be read: note what that was."""
        assert self._ledger is not None and self._reader is not None
        first, _ = self._reader.bounds()
        runs = [[seq, seq] for seq in self._ledger.again if seq < first]
        if self._ledger.read + 1 < first:
            runs.append([self._ledger.read + 1, first - 1])
        for begins, ends in _joined(runs):
            self._ledger.gone(begins, ends)
            self._status.lost(begins, ends)
            logger.error(
                "out: the journal trimmed %d messages before they went out: seq %d to %d",
                ends - begins + 1, begins, ends,
            )  # fmt: skip

    def _pass_on(self, row: Stored) -> bool:
        """Publish a message, or pass it over. False: there is no room for it now."""
        assert self._ledger is not None
        counts = self._side.counts
        if not self._include.match(row.topic) or self._exclude.match(row.topic):
            counts["excluded"] += 1
            self._ledger.passed_over(row.seq)
            return True
        try:
            parsed = convert.parse(row.body)
            if convert.is_from_amqp(parsed.message):
                counts["loop"] += 1
                self._ledger.passed_over(row.seq)
                return True
            schema = next(
                (name for pattern, name in self._schemas if pattern.match(row.topic)),
                convert.SCHEMA,
            )
            made = convert.outgoing(row.topic, parsed, row.received, self._frame, schema)
        except convert.UnfitError as error:
            self._set_aside(row, str(error))
            self._ledger.passed_over(row.seq)
            return True
        if not self._has_room():
            return False
        properties = pika.BasicProperties(
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            headers=made.headers,
            message_id=made.message_id,
        )
        if not len(self._ledger):
            self._progress = time.monotonic()
        self._channel.basic_publish(
            self._settings.exchange, made.routing_key, made.body, properties, True
        )
        self._ledger.published(row.seq, len(row.body))
        if self._settings.unroutable == WAIT:
            self._ids[row.seq] = made.message_id
        counts["published"] += 1
        return True

    def _set_aside(self, row: Stored, reason: str) -> None:
        self._store.keep(
            row.topic, row.body, reason, seq=row.seq, msg_id=row.msg_id, received=row.received
        )
        self._status.note_set_aside(self._side, self._store.set_aside)
        if self._limit.allows("set aside"):
            more = "; more of these are only counted" * self._limit.is_last("set aside")
            text = "out: seq %d, topic %.200a, is set aside: %s%s"
            logger.warning(text, row.seq, row.topic, reason, more)

    def _get(self, seq: int) -> Stored | None:
        try:
            return self._reader.get(seq) if self._reader is not None else None
        except JournalError:
            return None

    def _has_journal(self) -> bool:
        """Whether the journal is open, and it is known where to go on in it."""
        if self._reader is not None and self._ledger is not None:
            return True
        now = time.monotonic()
        if now < self._open_at:
            return False
        self._open_at = now + (POLL if self._reader is not None else LOOK)
        try:
            if self._reader is None:
                self._reader = JournalReader(self._path)
            is_known = self._find_place()
        except JournalError as error:
            self._journal_trouble(error)
            return False
        except StateError as error:
            self._state_trouble(error)
            return False
        if self._status.journal_error is not None:
            logger.info("out: the journal can be read again")
        self._status.journal_error = None
        return is_known

    def _find_place(self) -> bool:
        """Where to go on: at the cursor, if it is this journal's. False: it is empty."""
        assert self._reader is not None
        first, last = self._reader.bounds()
        if last == 0:
            self._was_empty = True
            return False
        cursor = self._store.load()
        if cursor is None:
            at = first - 1 if self._was_empty or self._settings.begins == OLDEST else last
            logger.info("out: there is no cursor: beginning after seq %d", at)
        elif self._is_of_this_journal(cursor, last):
            at = cursor.seq
            logger.info("out: going on after seq %d", at)
        else:
            at = first - 1
            logger.warning(
                "out: seq %d of the cursor is not this journal's: beginning with seq %d",
                cursor.seq, first,
            )  # fmt: skip
        self._ledger = Ledger(at)
        self._save()
        return True

    def _is_of_this_journal(self, cursor: Cursor, last: int) -> bool:
        assert self._reader is not None
        if cursor.seq > last:
            return False
        found = self._reader.msg_id(cursor.seq)
        return not cursor.msg_id or found is None or found == cursor.msg_id

    def _journal_trouble(self, error: JournalError) -> None:
        """Open it anew, after a moment: it may be another file by now."""
        if self._status.journal_error is None:
            logger.warning("out: the journal cannot be read: %s", error)
        self._status.journal_error = str(error)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._open_at = time.monotonic() + LOOK
        if self._ledger is not None:
            # What is on its way belongs to the former one: its confirmations are of no use.
            self._ledger = None
            channel, self._channel = self._channel, None
            if channel is not None and channel.is_open:
                channel.close()

    # The cursor

    def _save(self) -> None:
        if self._ledger is None or self._reader is None:
            return
        seq = self._ledger.confirmed
        try:
            self._store.save(Cursor(seq, self._reader.msg_id(seq) or ""))
        except JournalError:
            return  # the next look at it tells
        except StateError as error:
            self._state_trouble(error)
            return
        if self._status.state_error is not None:
            logger.info("out: the cursor can be saved again")
        self._status.state_error = None

    def _state_trouble(self, error: StateError) -> None:
        if self._status.state_error is None:
            logger.error("out: nothing goes out, for the cursor cannot be saved: %s", error)
        self._status.state_error = str(error)

    def _look(self, now: float) -> None:
        """What others want to know, every second."""
        status, ledger = self._status, self._ledger
        systemd.notify("WATCHDOG=1")
        if ledger is None or self._reader is None:
            return
        status.read, status.confirmed, status.pending = ledger.read, ledger.confirmed, len(ledger)
        try:
            status.last = self._reader.bounds()[1]
            first = self._reader.get(status.confirmed + 1)
        except JournalError:
            return
        status.lag_seconds = max(0.0, time.time() - first.received) if first is not None else 0.0
        is_silent = len(ledger) and now - self._progress > SILENCE
        if is_silent and self._channel is not None and self._side.trouble is None:
            self._side.in_trouble(
                kinds.UNCONFIRMED,
                f"{self._side.node} confirms nothing: a queue without a majority, or it hangs",
            )


def _joined(runs: list[list[int]]) -> list[list[int]]:
    """Runs of seqs, in order, each beginning after the end of the one before."""
    found: list[list[int]] = []
    for begins, ends in runs:
        if found and begins == found[-1][1] + 1:
            found[-1][1] = ends
        else:
            found.append([begins, ends])
    return found
