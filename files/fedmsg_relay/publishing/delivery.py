"""Get messages to a relay or, where none takes them, to the spool.

Relays are tried in the order of `relay_submit`, each a moment after the one before. A message goes
to a relay's inbound address, which acknowledges nothing, only where that host has no submit address
or its submit address does not answer while inbound does, and only if the message was never handed
to a submit address: a relay that has it may be about to relay it. Such a message is submitted
again, with its msg_id, by which the relay knows it.

Many messages may be under way at once; what became of each is told to `on_outcome`.
"""

from __future__ import annotations

import time
from collections import deque, namedtuple

from .. import importing
from ..errors import PublishError
from ..escapes import escaped
from .polling import Poller
from .submit_client import SubmitClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    import zmq

    from ..config import Config
    from .client import Client
    from .spool import Spool

# What becomes of a message.
ACKED = "acked"  # on disk at the relay `where`, as number `seq` of its journal
HANDED = "handed"  # on its way to the relay `where`, which does not acknowledge
SPOOLED = "spooled"  # on disk here, as the file `where`, to be delivered later
REFUSED = "refused"  # the relay `where` will never take it, for the reason `why`
FAILED = "failed"  # nobody has it, for the reason `why`

# Seconds. After STAGGER the next relay is tried beside those that have not answered yet; for GRACE
# an inbound address that answers waits for its host's submit address; after STALL without a reply
# the next relay is tried, and this one again PAUSE later, or KNOCK after its connection was lost;
# for HOLD_OFF after a failure no message waits for a relay.
STAGGER = 0.25
GRACE = 0.5
STALL = 1.0
PAUSE = 0.5
KNOCK = 0.1
HOLD_OFF = 10.0
# A relay that says "later" is asked again after this, then twice that, and so on up to the second.
ASK_AGAIN = 0.25
ASK_AGAIN_MAX = 4.0

# How much may be under way at once.
WINDOW = 1000
WINDOW_BYTES = 8 << 20
# Messages that are submitted together if they come at once.
TOGETHER = 100
# Bytes a second of a network that is still worth waiting for; and of one that is slow, for who has
# time. Then no more is under way than that one passes on in a few seconds, or one message.
SLOWEST = 1_000_000
SLOWEST_OF_ALL = 100_000
PATIENT_WINDOW_BYTES = 1 << 20

# What a relay may suffer from, in the error's text.
STALLED = "it does not acknowledge: it hangs, or its disk does"
LOST = "the connection was lost before it acknowledged"

_NEVER = float("inf")

# Contexts whose end is not waited for: see `Delivery.close`.
_left_behind: list[zmq.Context[zmq.Socket[bytes]]] = []

# In a child: contexts of its parent.
_inherited: list[object] = []

# What became of one message: `kind` is one of the constants above. A message that FAILED may have
# been sent to the relay `where`, which did not acknowledge it.
Outcome = namedtuple("Outcome", ("kind", "where", "seq", "why"), defaults=(None, None, ""))


class _Message:
    __slots__ = ("body", "handed", "tag", "topic")

    def __init__(self, topic: bytes, body: bytes, tag: Any) -> None:
        self.topic = topic
        self.body = body
        self.tag = tag
        self.handed = False  # to a submit address, at any time


class _Address:
    """One address of a relay, and the connection to it if there is one."""

    def __init__(self, endpoint: str, acknowledges: bool, is_fallback: bool) -> None:
        self.endpoint = endpoint
        self.acknowledges = acknowledges  # a submit address
        self.is_fallback = is_fallback  # inbound of a host that has a submit address as well
        self.connection: Client | None = None
        self.not_before = 0.0
        self.ready_since: float | None = None
        self.ask_again = ASK_AGAIN
        self.refusal: str | None = None  # what it said when it refused for now
        self.trouble: str | None = None  # what went wrong with it last, for the error's text

    def close(self, linger: int = 0) -> None:
        if self.connection is not None:
            self.connection.close(linger)
        self.connection = None
        self.ready_since = None


class Delivery:
    """Delivers messages by one config. Raises PublishError if that names no relay.

    `on_outcome(tag, outcome)` is called once for each message, during a later call or the same one.
    Without a spool, what no relay takes within `timeout` seconds is FAILED.

    `is_patient` is for who has time, and must not begin anew for ever: then the time starts again
    whenever more of a message has left than at any attempt before.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool | None,
        on_outcome: Callable[[Any, Outcome], None],
        is_patient: bool = False,
    ) -> None:
        self._config = config
        self._spool = spool
        self._on_outcome = on_outcome
        self._addresses = _addresses(config)
        if not self._addresses:
            raise PublishError("config key relay_inbound is empty: there is no relay to publish to")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        if not self._addresses[0].acknowledges:
            self._libzmq()  # now, and not when the first line of a slow input has come
        self._timeout = config["timeout"] or _NEVER
        submits = sum(address.acknowledges for address in self._addresses)
        self._first_stall = min(STALL, self._timeout / max(1, submits))
        self._grace = min(GRACE, self._timeout / 4)
        self._messages: dict[int, _Message] = {}  # in the order they came
        self._unsent: deque[int] = deque()  # those of them to send over the route, likewise
        self._bytes = 0
        self._count = 0
        self._route: _Address | None = None
        self._sent_to: str | None = None  # the last relay that was submitted anything
        self._search_started = 0.0
        self._progress = 0.0  # when a message was last dealt with, or the first one came
        self._replied = 0.0  # when the route last replied, or was first sent something to reply to
        self._stall = self._first_stall
        self._hold_off_until = 0.0
        self._is_patient = is_patient
        self._slowest = SLOWEST_OF_ALL if is_patient else SLOWEST
        self._window_bytes = PATIENT_WINDOW_BYTES if is_patient else WINDOW_BYTES
        self._left = 0  # bytes that the route's host has taken
        self._left_at_reply = 0
        self._farthest = 0  # of them since a reply, at any attempt
        self._unacknowledged_bytes = 0  # that relays were sent which do not acknowledge
        # Whether a relay that does not acknowledge was sent something.
        self.sent_unacknowledged = False

    def put(self, topic: bytes, body: bytes, tag: Any) -> None:
        """Take one message, waiting while as much as may be is under way."""
        size = len(topic) + len(body)
        while self._messages and not self._has_room(size):
            self._turn()
        now = time.monotonic()
        if not self._messages:
            self._progress = now
            if self._route is None and now >= self._hold_off_until:
                self._search_started = now
        self._count += 1
        self._messages[self._count] = _Message(topic, body, tag)
        self._unsent.append(self._count)
        self._bytes += size
        # While others are under way some are gathered, or sent when this process waits: one by one
        # they cost a relay, and its disk, several times as much.
        connection = self._route.connection if self._route is not None else None
        if connection is not None:
            others = bool(connection.in_flight)
        else:  # or no relay is asked for now, and all go to the spool
            others = self._spool is not None and now < self._hold_off_until
        if not others or len(self._unsent) >= TOGETHER:
            self._advance()

    def wait_for_input(self, descriptor: int) -> None:
        """Go on with what is under way until the file descriptor can be read, or has ended."""
        while not self._turn(descriptor):
            pass

    def finish(self) -> None:
        """Go on until nothing is under way."""
        while self._messages:
            self._turn()

    def close(self, leaving: bool = False) -> bool:
        """Close all connections, waiting `zmq_linger` milliseconds at most for HANDED messages.

        False: some of them may not have left. What is still under way is forgotten. `leaving` says
        that the process ends now, and that nothing else need be waited for: libzmq's thread may be
        looking up a name, which takes long where the name service is what has failed.
        """
        linger = self._config["zmq_linger"]
        if self._is_patient:
            linger += 1000 * self._unacknowledged_bytes // self._slowest
        started = time.monotonic()
        for address in self._addresses:
            address.close(linger if address is self._route else 0)
        if self._context is None:
            return True
        if leaving and not self.sent_unacknowledged:
            _left_behind.append(self._context)
            return True
        self._context.term()
        if not self.sent_unacknowledged or linger <= 0:
            return True
        took = time.monotonic() - started
        return bool(took < linger / 1000)

    def abandon(self) -> None:
        """In a forked child: close what was inherited here, and leave it open at the parent's.

        libzmq's threads are not here: its context must never be closed, nor collected.
        """
        for address in self._addresses:
            if address.connection is not None:
                address.connection.abandon()
        if self._context is not None:
            _inherited.append(self._context)

    def why(self) -> str:
        """Why no relay takes messages: what each of them said last, or says to a connection now."""
        asked = [address for address in self._addresses if not address.is_fallback]
        silent = [address.endpoint for address in asked if address.trouble is None]
        found: dict[str, str] = {}
        if silent:
            # Only now: its imports are of no use to a message that gets through.
            from . import diagnosis

            found = diagnosis.why_no_answers(silent)
        reasons = "; ".join(f"{a.endpoint}: {a.trouble or found[a.endpoint]}" for a in asked)
        if any(address.trouble for address in asked):
            return f"no relay has taken it: {reasons}"
        return f"no relay answered within {self._config['timeout']:g} s: {reasons}"

    def _has_room(self, size: int) -> bool:
        most = min(WINDOW, self._config["high_water_mark"] or WINDOW)
        return len(self._messages) < most and self._bytes + size <= self._window_bytes

    def _turn(self, descriptor: int | None = None) -> bool:
        """Wait for the next thing to happen and see to it. Whether the descriptor can be read."""
        due = self._advance()
        poller = Poller()
        if descriptor is not None:
            poller.descriptor(descriptor)
        elif not self._messages:
            return False
        if self._messages:
            self._watch(poller)
        elif self._route is not None and self._route.connection is not None:
            self._route.connection.is_ready()  # reads, and answers, what nobody else reads now
            self._route.connection.watch(poller)
        ready = poller.wait(_ms_until(due))
        self._advance()
        return descriptor in ready

    def _watch(self, poller: Poller) -> None:
        if self._route is not None and self._route.connection is not None:
            self._route.connection.watch(poller)
            return
        for address in self._addresses:
            if address.connection is not None and address.ready_since is None:
                address.connection.watch(poller)

    def _advance(self) -> float:
        """Do all that can be done now. The moment of the monotonic clock to come back at."""
        while self._messages:
            now = time.monotonic()
            due = _NEVER
            route = self._route
            connection = route.connection if route is not None else None
            # Before any look at the clock: what was answered while this process slept is answered.
            if route is not None and connection is not None:
                if route.acknowledges:
                    due = self._submit(connection, now)
                else:
                    self._publish(connection)
            if not self._messages:
                break
            if now >= self._progress + self._timeout + self._bytes / self._slowest:
                self._give_up()
                break
            if self._route is None:
                due = self._find_route(now)
                if self._route is not None:
                    continue
                useless = now < self._hold_off_until or self._all_refuse(now)
                if useless and self._spool is not None:
                    self._give_up()
                    break
            return min(due, self._progress + self._timeout + self._bytes / self._slowest)
        return _NEVER

    def _find_route(self, now: float) -> float:
        """Take the first address that is ready, if any; else say when there is more to do."""
        due = _NEVER
        tried = 0
        for address in self._addresses:
            start = max(self._search_started + tried * STAGGER, address.not_before)
            if address.not_before <= now:
                tried += 1
            if address.connection is None:
                if now < start:
                    due = min(due, start)
                    continue
                self._connect(address)
        for address in self._addresses:
            connection = address.connection
            if connection is None:
                continue
            if not connection.is_ready():
                due = min(due, connection.due)
                address.ready_since = None
                continue
            if address.ready_since is None:
                address.ready_since = now
                if address.is_fallback:
                    self._knock_again(address)
            if not address.acknowledges:
                if any(message.handed for message in self._messages.values()):
                    continue
                usable = address.ready_since + (self._grace if address.is_fallback else 0)
                if now < usable:
                    due = min(due, usable)
                    continue
            self._take_route(address)
            break
        return due

    def _knock_again(self, fallback: _Address) -> None:
        """Connect anew to submit addresses of a host that is there, not when libzmq next would."""
        for address in self._addresses:
            connection = address.connection
            if (
                address.acknowledges
                and connection is not None
                and _host(address.endpoint) == _host(fallback.endpoint)
                and not connection.is_ready()
            ):
                self._connect(address)

    def _connect(self, address: _Address) -> None:
        """Begin to connect to an address, anew if there is a connection."""
        address.close()
        if address.acknowledges:
            address.connection = SubmitClient(address.endpoint, self._config)
            return
        context = self._libzmq()
        from .inbound_client import InboundClient

        address.connection = InboundClient(context, address.endpoint, self._config)

    def _libzmq(self) -> zmq.Context[zmq.Socket[bytes]]:
        """Imported when an inbound address needs it: that takes longer than all else together."""
        if self._context is None:
            with importing:
                import zmq

                from . import inbound_client  # noqa: F401

            self._context = zmq.Context(io_threads=self._config["io_threads"])
        return self._context

    def _take_route(self, address: _Address) -> None:
        for other in self._addresses:
            if other is not address:
                other.close()
        self._route = address
        self._left = self._left_at_reply = 0
        self._unsent = deque(self._messages)
        if address.connection is not None:
            address.connection.forget_losses()
        address.refusal = None

    def _leave_route(self, pause: float, trouble: str | None = None) -> None:
        """Close the route's connection and look for another one, its own address `pause` later."""
        assert self._route is not None
        now = time.monotonic()
        self._route.trouble = trouble
        self._route.not_before = now + pause
        self._route.close(self._config["zmq_linger"])
        self._route = None
        self._search_started = now

    def _submit(self, connection: Client, now: float) -> float:
        """Take replies, send what may be sent, leave a relay that fails. When to look again."""
        assert self._route is not None
        route = self._route
        for key, reply in connection.replies():
            self._replied = now
            self._left_at_reply, self._farthest = self._left, 0
            self._take_reply(route, key, reply)
        if connection.is_lost():
            self._leave_route(KNOCK, LOST)
            return _NEVER
        if route.refusal is None:
            self._send_over(connection, now)
        if self._is_patient and connection.in_flight:
            self._look_at_progress(connection, now)
        if not connection.in_flight:
            if route.refusal is not None:
                pause, route.ask_again = route.ask_again, min(2 * route.ask_again, ASK_AGAIN_MAX)
                self._leave_route(pause, route.refusal)
            elif self._unsent:
                self._leave_route(KNOCK)  # no room, though nothing is under way
            return _NEVER
        stalled = self._replied + self._stall + self._bytes / self._slowest
        if now >= stalled:
            self._stall *= 2  # a disk that is slow is no better at the next attempt
            self._leave_route(PAUSE, STALLED)
        return stalled

    def _look_at_progress(self, connection: Client, now: float) -> None:
        """Whether more of what is under way has left this host since the last look."""
        left = connection.left()
        if left <= self._left:
            return
        self._left, self._replied = left, now
        # Not if it is sent again: a relay that hangs, too, takes what its host has room for.
        if left - self._left_at_reply > self._farthest:
            self._farthest = left - self._left_at_reply
            self._progress = now

    def _send_over(self, connection: Client, now: float) -> None:
        while self._unsent:
            message = self._messages[self._unsent[0]]
            if not connection.in_flight:
                self._replied = now
            if not connection.send(self._unsent[0], message.topic, message.body):
                break
            message.handed = True
            self._sent_to = connection.endpoint
            self._unsent.popleft()
        connection.flush()

    def _take_reply(self, route: _Address, key: int, reply: dict[str, Any]) -> None:
        if reply.get("ok") is True:
            route.ask_again = ASK_AGAIN
            route.trouble = None
            self._stall = self._first_stall
            self._settle(key, Outcome(ACKED, route.endpoint, reply.get("seq")))
            return
        error = escaped(str(reply.get("error", "refused without a reason")))
        if reply.get("retry") is False:
            self._settle(key, Outcome(REFUSED, route.endpoint, why=error))
        else:
            route.refusal = f"refuses for now: {error}"

    def _publish(self, connection: Client) -> None:
        """Hand over all that waits to a relay that acknowledges nothing, or leave it."""
        assert self._route is not None
        route = self._route
        while self._unsent:
            if connection.is_lost():
                self._leave_route(0)
                return
            key = self._unsent[0]
            message = self._messages[key]
            if not connection.send(key, message.topic, message.body):
                route.trouble = f"it has taken nothing for {self._timeout:g} s, its queue is full"
                self._give_up()
                return
            self.sent_unacknowledged = True
            self._unacknowledged_bytes += len(message.topic) + len(message.body)
            self._settle(self._unsent.popleft(), Outcome(HANDED, route.endpoint))

    def _all_refuse(self, now: float) -> bool:
        """Whether every relay has said "later", and waiting for another one is of no use."""
        return all(a.refusal and a.not_before > now for a in self._addresses if not a.is_fallback)

    def _give_up(self) -> None:
        """Spool all that is under way, or fail it, and for some time let nothing wait."""
        self._hold_off_until = time.monotonic() + HOLD_OFF
        if self._route is not None:
            if self._route.trouble is None and self._route.acknowledges:
                self._route.trouble = STALLED
            self._leave_route(HOLD_OFF, self._route.trouble)
        why = ""
        waiting = list(self._messages.items())
        spooled: list[Any] = [None] * len(waiting)
        if self._spool is not None:
            spooled = self._spool.write_all((each.topic, each.body) for _, each in waiting)
        for (key, _), path in zip(waiting, spooled):
            if isinstance(path, str):
                self._settle(key, Outcome(SPOOLED, path))
                continue
            why = why or self.why()
            where = self._sent_to if self._messages[key].handed else None
            self._settle(key, Outcome(FAILED, where, why=f"{why}; and {path}" if path else why))
        self._unsent.clear()

    def _settle(self, key: int, outcome: Outcome) -> None:
        message = self._messages.pop(key)
        self._bytes -= len(message.topic) + len(message.body)
        self._progress = time.monotonic()
        self._on_outcome(message.tag, outcome)


def _addresses(config: Config) -> list[_Address]:
    """Submit addresses in their order, then inbound ones in theirs."""
    submit = list(dict.fromkeys(config["relay_submit"]))
    hosts = {_host(endpoint) for endpoint in submit}
    inbound = dict.fromkeys(config["relay_inbound"])
    return [_Address(endpoint, True, False) for endpoint in submit] + [
        _Address(endpoint, False, _host(endpoint) in hosts) for endpoint in inbound
    ]


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _ms_until(moment: float) -> int | None:
    if moment == _NEVER:
        return None
    return max(0, int((moment - time.monotonic()) * 1000) + 1)
