"""The outbound side: emit to every listener, hold where need be, and part with those that stall.

libzmq queues for each listener. Left to itself it either throws away in silence what does not fit
a queue, or refuses every message while one queue is full. Here it refuses (XPUB_NODROP); then the
listener that is farthest behind is found by what its kernel has acknowledged, and its connection
is cut. It connects again by itself, with an empty queue, and what it has missed is in the backlog.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain

import zmq

from .. import log, sockets, tcp_progress
from ..config import Config
from . import intake
from .arrivals import Arrivals
from .listeners import Emitted, Listener, Listeners, Message
from .outlet import Outlet

# What may wait for one listener: messages, unless `high_water_mark` says otherwise, and bytes. The
# same bounds for what is held for all of them at the start.
QUEUE_MESSAGES = 50_000
QUEUE_BYTES = 40 << 20

# Bytes that queues for all listeners may take together. What is the same in several is there once,
# but each has an entry for each frame of a message.
QUEUES_BYTES = 96 << 20
ENTRY_BYTES = 2 * 64

# Bytes. Listeners send nothing else than topics to subscribe to.
LARGEST_SUBSCRIPTION = 4 << 10
# What waits to be taken in: bytes in the kernel, messages in libzmq. It is all that can still come
# of a listener that is cut off for what it sends. More would be taken in at once, too.
SUBSCRIPTIONS_BUFFER = 16 << 10
SUBSCRIPTIONS_QUEUE = 50

# Seconds. A full queue may be about to empty, and a listener that is cut off takes a moment to go.
# Together they are what one stalled listener may ever cost the others, and LONGEST_PARTING is what
# however many may.
PATIENCE = 0.02
PARTING = 0.05
LONGEST_PARTING = 0.2

# Seconds from one look at who sends so much to the next, while more comes than is taken in.
LOOK = 0.02

# Seconds from one look at all listeners to the next, and without progress until it is said.
SURVEY_PERIOD = 0.5
STALLED = 5.0
# Bytes emitted after which a look is due in any case.
SURVEY_BYTES = 4 << 20

# Seconds for the attempt to connect, beside the longest pause between two of them.
HOLD_MARGIN = 0.3
HOLD_LEAST = 2.0
# Also of one that is asked for while it runs (SIGUSR1): a release that never comes costs no more.
HOLD_LONGEST = 30.0

# Seconds for which nothing came of a listener's host while it was asked: it has vanished.
VANISHED = 40.0

# Why listeners were cut off, for the metrics.
TOO_SLOW, TOO_MUCH, GONE = "too slow", "sent too much", "vanished"

# Listeners that were cut off, for the metrics.
REMEMBERED = 50

UNKNOWN = "unknown"

# Held messages that are sent in one go, at the end of the hold.
RELEASED_AT_ONCE = 100

# Numbers: the arithmetic of enumerations takes longer than the sending.
_FIRST = int(zmq.NOBLOCK | zmq.SNDMORE)
_LAST = int(zmq.NOBLOCK)

logger = logging.getLogger(log.NAME)


@dataclass
class Slow:
    """A listener that is behind. Times are Unix time; `cut` is None for one that only stalls."""

    address: str
    since: float
    cut: float | None
    missed: int
    exact: bool = False


@dataclass
class _Absent:
    """A listener that was cut off and is not back: it misses all that is emitted meanwhile."""

    host: str
    slow: Slow
    emitted: int  # messages when it was last reckoned up


class _LentError(Exception):
    """Another thread uses the socket, and takes its time."""


class Outbound:
    """The XPUB socket and those who listen there. It holds from the start on, until `release()`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], config: Config) -> None:
        self._config = config
        self.socket = sockets.make(context, zmq.XPUB, config)
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_SUBSCRIPTION)
        self.socket.setsockopt(zmq.RCVBUF, SUBSCRIPTIONS_BUFFER)
        self.socket.setsockopt(zmq.RCVHWM, SUBSCRIPTIONS_QUEUE)
        self._asked, self._vanished = _keep_alive(self.socket, config)
        queue_length = self._queue_length = config["high_water_mark"] or QUEUE_MESSAGES
        self.socket.setsockopt(zmq.SNDHWM, queue_length)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.emitted = Emitted()
        self.outlet = Outlet(self.socket)
        self.listeners = Listeners(self.socket, self.outlet, self.emitted, queue_length)
        self.cut_off: deque[Slow] = deque(maxlen=REMEMBERED)
        self.missed = 0
        # Connections that were ended here, by cause.
        self.parted: Counter[str] = Counter()
        # Lines of the log. Who is cut off has a name there, whoever else comes and goes.
        self.arrivals, self.partings = Arrivals(), Arrivals("stalled or were cut off")
        self._watch: intake.Watch | None = None
        self._looked = 0.0
        self._absent: list[_Absent] = []
        self._stalled: dict[str, Slow] = {}
        self._surveyed_bytes = 0
        # What is to be sent when the socket is given back.
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._held: deque[Message] | None = deque()
        self._held_bytes = 0
        # Until when to hold at most, if that was asked for while it ran.
        self._hold_ends = math.inf
        self._absence = sockets.longest_absence(config) + HOLD_MARGIN
        self._started = time.monotonic()
        self._expected: Counter[str] | None = None

    def watch(self, turns: Callable[[], int], ports: Collection[int]) -> None:
        """Watch what those send who connect to these ports. `turns`: see intake.Watch."""
        watched = [(turns, threading.get_ident())]
        ident = self.outlet.thread.ident
        if ident is not None:
            watched.append((lambda: self.outlet.turns, ident))
        self._watch = intake.Watch(watched, self.listeners.surveyed, self.listeners.connections)
        self._watch.start(ports)

    # Emission.

    def emit(self, messages: Sequence[Message]) -> None:
        """Send each `[topic, body]` to all listeners, or keep it until `release()`."""
        if self._held is None:
            self._send(messages)
            return
        self._held.extend(messages)
        self._held_bytes += sum(len(topic) + len(body) for topic, body in messages)
        if len(self._held) >= QUEUE_MESSAGES or self._held_bytes >= QUEUE_BYTES:
            logger.warning("hold: given up early, %d messages were held", len(self._held))
            self.release()

    @property
    def is_waiting(self) -> bool:
        """Whether something is still to be sent, once another thread gives the socket back."""
        return self.outlet.is_lent or bool(self._waiting)

    def _send(self, messages: Sequence[Message]) -> None:
        if not self.outlet.is_lent and not self._waiting:
            self._send_now(messages)
        else:
            self._waiting.extend(messages)
            self._waiting_bytes += sum(len(topic) + len(body) for topic, body in messages)
            if len(self._waiting) >= QUEUE_MESSAGES or self._waiting_bytes >= QUEUE_BYTES:
                self.outlet.take(None)
                self._go_on()
        if self.emitted.bytes - self._surveyed_bytes > SURVEY_BYTES:
            self.survey()

    def _go_on(self) -> None:
        """Send what waits, if the socket is ours."""
        while self._waiting and not self.outlet.is_lent:
            some = min(len(self._waiting), RELEASED_AT_ONCE)
            messages = [self._waiting.popleft() for _ in range(some)]
            self._waiting_bytes -= sum(len(topic) + len(body) for topic, body in messages)
            self._send_now(messages)

    def _wait(self, messages: Sequence[Message]) -> None:
        """Have these be the next ones that are sent."""
        self._waiting.extendleft(reversed(messages))
        self._waiting_bytes += sum(len(topic) + len(body) for topic, body in messages)

    def _send_now(self, messages: Sequence[Message]) -> None:
        while messages:
            sent: int | None
            if self.outlet.is_free():
                sent = self._send_some(messages)
            else:
                action, later = partial(self._send_some, messages), partial(self._sent, messages)
                sent = self.outlet.run(action, later)
            if sent is None:
                return  # see `_sent`
            self.emitted.add(messages[:sent] if sent < len(messages) else messages)
            messages = messages[sent:]
            if not messages:
                return
            if not self._make_room(messages[0]):
                self._wait(messages[1:])
                return
            self.emitted.add(messages[:1])
            messages = messages[1:]

    def _sent(self, messages: Sequence[Message], sent: int) -> None:
        """So many of these were sent, by the other thread, and it took its time."""
        self.emitted.add(messages[:sent])
        self._wait(messages[sent:])

    def _send_some(self, messages: Sequence[Message]) -> int:
        """How many of these were sent, until a queue was full."""
        # Past pyzmq's wrapper in Python, which is for options that only other sockets take.
        send, done = super(zmq.Socket, self.socket).send, 0
        try:
            for topic, body in messages:
                # As send_multipart does, at a third of its cost. libzmq decides about a message as
                # a whole: when it has taken the first frame it takes the second.
                send(topic, _FIRST)
                send(body, _LAST)
                done += 1
        except zmq.Again:
            pass
        return done

    def _make_room(self, frames: Message) -> bool:
        """Send what a full queue refused; cut off whoever stands in the way.

        False if another thread is at it still: see `_sent`.
        """
        try:
            self._make_room_for(frames)
        except _LentError:
            return False
        return True

    def _make_room_for(self, frames: Message) -> None:
        began = time.monotonic()
        # Of a queue that is full for a moment, as in a burst, nobody need be asked.
        if self._sent_within(PATIENCE / 4, frames):
            return
        self.listeners.survey()
        before = {listener.address: listener.acked for listener in self.listeners}
        if self._sent_within(PATIENCE * 3 / 4, frames):
            return
        self.listeners.survey()
        in_the_way = [listener for listener in self.listeners if not listener.idle]
        in_the_way.sort(key=self.listeners.behind, reverse=True)
        # All of those that stopped together go together: one after the other, a rack would cost as
        # many waits as it has listeners. Whoever has a full queue is as far behind as that is long.
        far = self.listeners.behind(in_the_way[0])[1] // 4 if in_the_way else 0
        stuck = [
            listener
            for listener in in_the_way
            if listener.acked == before.get(listener.address)
            and self.listeners.behind(listener) >= (self._queue_length, far)
        ]
        gone = {listener.fd for listener in stuck}
        others = [[listener] for listener in in_the_way if listener.fd not in gone]
        for together in [stuck, *others] if stuck else others:
            for listener in together:
                self._part_with(listener)
            if self._sent_within(PARTING, frames):
                return
            if time.monotonic() - began > LONGEST_PARTING - PARTING:
                break
        # Somebody has a full queue and is none of those we know: rather its loss than everybody's.
        self.missed += 1
        if not self.cut_off or self.cut_off[-1].address != UNKNOWN:
            logger.error("listener unknown: its queue is full, it misses messages from now on")
            self.cut_off.append(Slow(UNKNOWN, time.time(), time.time(), 0, exact=True))
        self.cut_off[-1].missed += 1
        self.socket.setsockopt(zmq.XPUB_NODROP, 0)
        self._send_some([frames])
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _try(self, frames: Message) -> bool:
        send, sent = partial(self._send_some, [frames]), partial(self._sent, [frames])
        done: int | None = self.outlet.run(send, sent, PARTING)
        if done is None:
            raise _LentError
        return done > 0

    def _sent_within(self, seconds: float, frames: Message) -> bool:
        end = time.monotonic() + seconds
        while not self._try(frames):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def _part_with(self, listener: Listener, cause: str = TOO_SLOW) -> None:
        messages, size = self.listeners.behind(listener)
        if not self.listeners.cut(listener):
            return
        self.parted[cause] += 1
        self._stalled.pop(listener.address, None)
        self.missed += messages
        slow = Slow(listener.address, listener.since, time.time(), messages)
        self.cut_off.append(slow)
        self._absent.append(_Absent(listener.host, slow, self.emitted.messages))
        del self._absent[:-REMEMBERED]
        if not self.partings.allows(listener.host):
            return
        if cause == GONE:
            logger.warning(
                "listener %s vanished, cut off: its host has answered nothing for %.0f s, at most"
                " %d messages did not reach it", listener.address, listener.silent, messages,
            )  # fmt: skip
            return
        logger.warning(
            "listener %s too slow, cut off: took nothing since %s, at most %d messages (%d KiB)"
            " did not reach it",
            listener.address, _clock(listener.since), messages, size >> 10,
        )  # fmt: skip

    # Who is there, and who is behind.

    def changes(self) -> Iterator[str]:
        """Take in who came and who went, as lines for the log."""
        self.outlet.take()
        self._go_on()
        for listener, came in self.listeners.changes():
            if self.arrivals.allows(listener.host):
                word = "connected" if came else "disconnected"
                old = ", by a protocol of before ZMTP 3.0" * (came and listener.is_old)
                yield f"listener {listener.address} {word}, {len(self.listeners)} now{old}"
            if came:
                yield from self._back(listener)
        now = time.monotonic()
        if self._watch is not None and self.listeners.is_behind and now - self._looked > LOOK:
            self._looked = now
            self._watch.look(intake.BYTES, intake.HOST_BYTES_AT_ONCE)
        if self.listeners.is_behind and not self.outlet.is_lent:
            self.outlet.again()

    def _back(self, listener: Listener) -> Iterator[str]:
        # By its host: a connection has no other name that it keeps.
        absent = next((found for found in self._absent if found.host == listener.host), None)
        if absent is None:
            return
        self._reckon(absent)
        self._absent.remove(absent)
        slow = absent.slow
        yield (
            f"listener {listener.address} is back, cut off as {slow.address}: missed at most"
            f" {slow.missed} messages since {_clock(slow.since)};"
            f" backlog: /raw?order=asc&start={int(slow.since)}"
        )

    def _reckon(self, absent: _Absent) -> None:
        more = self.emitted.messages - absent.emitted
        absent.emitted += more
        absent.slow.missed += more
        self.missed += more

    def survey(self) -> None:
        """Look how far each listener is; part with one for which too many bytes wait."""
        if time.monotonic() >= self._hold_ends:
            logger.warning(
                "hold: given up after %.0f s, %d messages were held", HOLD_LONGEST, self.held
            )
            self.release()
        self._tell_greedy()
        for line in chain(self.arrivals.summary(), self.partings.summary()):
            logger.warning("%s", line)
        for absent in self._absent:
            self._reckon(absent)
        self._surveyed_bytes = self.emitted.bytes
        self.listeners.survey()
        now = time.time()
        stalled: dict[str, Slow] = {}
        waiting: list[tuple[int, int, Listener]] = []
        for listener in self.listeners:
            if listener.asked_for > self._asked and listener.silent > self._vanished:
                self._part_with(listener, GONE)
                continue
            if listener.idle:
                continue
            messages, size = self.listeners.behind(listener)
            # Of one that takes some topics only, others' bytes are in `size`, too.
            is_stuck = listener.takes_all or now - listener.since > SURVEY_PERIOD
            if is_stuck:
                waiting.append((size, messages, listener))
            if size > QUEUE_BYTES and is_stuck:
                self._part_with(listener)
            elif now - listener.since > STALLED:
                stalled[listener.address] = Slow(listener.address, listener.since, None, messages)
                if listener.address not in self._stalled and self.partings.allows(listener.host):
                    logger.warning(
                        "listener %s takes nothing since %s, at most %d messages wait for it",
                        listener.address, _clock(listener.since), messages,
                    )  # fmt: skip
        for address in self._stalled.keys() - stalled.keys():
            if self.partings.allows(tcp_progress.host_of(address)):
                logger.info("listener %s is no longer stalled", address)
        self._stalled = stalled
        self._bound(waiting)

    def _bound(self, waiting: list[tuple[int, int, Listener]]) -> None:
        """Part with those farthest behind until what waits for all takes no more than it may."""
        waiting.sort(key=lambda each: each[:2])
        entries = sum(messages for _, messages, _ in waiting) * ENTRY_BYTES
        while waiting and waiting[-1][0] + entries > QUEUES_BYTES:
            _, messages, listener = waiting.pop()
            entries -= messages * ENTRY_BYTES
            self._part_with(listener)

    def _tell_greedy(self) -> None:
        """Log and count who was cut off for what it has sent."""
        found = list(self.listeners.greedy())
        while self._watch is not None and self._watch.cut:
            sender = self._watch.cut.popleft()
            found.append((sender.address, f"{sender.bytes} bytes at once"))
        for address, what in found:
            self.parted[TOO_MUCH] += 1
            if self.partings.allows(tcp_progress.host_of(address)):
                logger.warning(
                    "listener %s sent too much, cut off: %s; at most %d subscriptions, %d KiB",
                    address, what, intake.TOPICS, intake.BYTES >> 10,
                )  # fmt: skip

    def slow(self) -> list[dict[str, object]]:
        """Those who stall and those who were cut off, for health and metrics."""
        stalled = sorted(self._stalled.values(), key=lambda found: found.since)[:REMEMBERED]
        return [asdict(found) for found in [*stalled, *self.cut_off]]

    # The hold: at the start, and while listeners are restarted.

    @property
    def holds(self) -> bool:
        return self._held is not None

    @property
    def held(self) -> int:
        """Messages that are held."""
        return len(self._held or ())

    def hold(self) -> None:
        """Keep what comes in, for HOLD_LONGEST at most. One that is under way is not prolonged."""
        if self._held is None:
            self._held, self._held_bytes = deque(), 0
            self._hold_ends = time.monotonic() + HOLD_LONGEST
            logger.info("hold: begun, for %.0f s at most", HOLD_LONGEST)

    def expect(self, hosts: dict[str, int] | None) -> None:
        """The connections by host to wait for: those the relay had before it was restarted."""
        self._expected = None if hosts is None else Counter(hosts)

    def release_is_due(self) -> bool:
        """Whether the listeners of before are back, or have had all the time they get."""
        waited = time.monotonic() - self._started
        if self._expected is None:
            # Nobody knows who was there: all who were have tried by then.
            return waited >= min(self._absence, self._longest_hold())
        if not self._expected - self.listeners.hosts():
            return True
        return waited >= self._longest_hold()

    def _longest_hold(self) -> float:
        configured = self._config["relay_hold_max"]
        if configured is not None:
            return float(configured)
        return min(max(HOLD_LEAST, self._absence), HOLD_LONGEST)

    def release(self) -> None:
        """Emit what was held, and hold nothing from now on."""
        if self._hold_ends != math.inf:
            logger.info("hold: ended, %d messages were held", self.held)
        held, self._held, self._hold_ends = self._held or deque(), None, math.inf
        while held:
            self._send([held.popleft() for _ in range(min(len(held), RELEASED_AT_ONCE))])

    def close(self) -> None:
        """Close; waits `zmq_linger` milliseconds for listeners to take what is queued.

        Not for those that take nothing: they would keep the relay from being back soon.
        """
        self.outlet.take(None)
        self._go_on()
        self.listeners.survey()
        stalled = time.time() - SURVEY_PERIOD
        for listener in self.listeners:
            if not listener.idle and listener.since < stalled:
                self._part_with(listener)
        # A connection that is about to end when its socket is closed is lingered for all the same.
        end = time.monotonic() + PARTING
        while any(listener.is_cut for listener in self.listeners) and time.monotonic() < end:
            self.listeners.monitor.poll(1)
            for _ in self.changes():
                pass
        self.outlet.close()
        if self._watch is not None:
            self._watch.close()
        self.listeners.close()
        self.socket.close(linger=self._config["zmq_linger"])


def _keep_alive(outbound: zmq.Socket[bytes], config: Config) -> tuple[float, float]:
    """Have the kernel ask hosts that say nothing.

    Returns for how many seconds it asks, and how long a silence is by then: the host is lost.

    Not libzmq's own heartbeats: a listener of libzmq 4.1 or older answers none, and would be cut
    off as often as it connects. Nor TCP_USER_TIMEOUT (ZMQ_TCP_MAXRT): it ends connections whose
    host answers, but whose process reads nothing, as well.
    """
    if config["zmq_tcp_keepalive"] != 1:
        return VANISHED, VANISHED  # only where something is on its way
    count, interval = config["zmq_tcp_keepalive_cnt"], config["zmq_tcp_keepalive_intvl"]
    idle = config["zmq_tcp_keepalive_idle"]
    if min(count, interval, idle) <= 0 or idle + count * interval > VANISHED:
        idle, interval, count = 25, 5, 3
    outbound.setsockopt(zmq.TCP_KEEPALIVE_IDLE, idle)
    outbound.setsockopt(zmq.TCP_KEEPALIVE_INTVL, interval)
    # A moment longer, or the kernel ends it, and says nothing.
    outbound.setsockopt(zmq.TCP_KEEPALIVE_CNT, count + 2)
    return float(max(1, (count - 1) * interval)), float(idle + count * interval)


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
