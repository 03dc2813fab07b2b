"""What the bridge says of itself: `/health`, `/metrics`, and what is counted for both."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import log
from . import kinds

# Seconds for which a connection may be made anew without anybody having to look, and those for
# which a loss is told of.
GRACE = 10.0
TOLD = 24 * 3600.0
RECENT = 60.0

# Ranges that are told by their first and last seq.
MOST_RANGES = 20

logger = logging.getLogger(log.NAME)


@dataclass
class Side:
    """One direction. `trouble` is its kind and one line, since `since` (time.monotonic)."""

    name: str
    is_wanted: bool = False
    is_connected: bool = False
    node: str = ""
    trouble: tuple[str, str] | None = None
    since: float = field(default_factory=time.monotonic)
    connections: int = 0
    blocked_since: float | None = None
    blocked_before: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def blocked(self) -> float:
        """Seconds for which the broker has taken nothing from us, since the start."""
        now = 0.0 if self.blocked_since is None else time.monotonic() - self.blocked_since
        return self.blocked_before + now

    def in_trouble(self, kind: str, line: str) -> None:
        """Note it, and log it if it is another trouble than before."""
        is_new = self.trouble is None or self.trouble[0] != kind
        if self.trouble is None:
            self.since = time.monotonic()
        self.trouble = (kind, line)
        if is_new:
            logger.warning("%s: %s: %s", self.name, kind, line)

    def all_well(self) -> None:
        """It is over: say for how long it was not well, if it was not."""
        if self.trouble is not None:
            self.trouble = None
            lasted = time.monotonic() - self.since
            logger.info("%s: all is well again after %.1f s", self.name, lasted)


@dataclass
class Status:
    """Of the whole bridge; written by the threads that bridge, read by the one that serves HTTP.

    `lag` is in messages, `lag_seconds` is how long ago the first of them was received.
    """

    version: str
    lag_critical: float
    out: Side = field(default_factory=lambda: Side("out"))
    into: Side = field(default_factory=lambda: Side("in"))
    started: float = field(default_factory=time.time)
    read: int = 0
    confirmed: int = 0
    last: int = 0
    lag_seconds: float = 0.0
    pending: int = 0
    set_aside: int = 0
    journal_error: str | None = None
    state_error: str | None = None
    trimmed: int = 0
    trimmed_at: float | None = None
    set_aside_at: float | None = None
    returned_at: float | None = None
    ranges: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST_RANGES))

    @property
    def lag(self) -> int:
        return max(0, self.last - self.confirmed)

    def note_set_aside(self, side: Side, in_files: int) -> None:
        """One more message of this side is set aside, of `in_files` that there are now."""
        side.counts["set_aside"] += 1
        self.set_aside = in_files
        self.set_aside_at = time.time()

    def lost(self, first: int, last: int) -> None:
        """The journal trimmed those before they were read."""
        self.trimmed += last - first + 1
        self.trimmed_at = time.time()
        self.ranges.append((first, last))


def problems(status: Status) -> list[str]:
    """Why somebody has to look at the bridge now, one line each."""
    found = []
    for side in (status.out, status.into):
        lasts = time.monotonic() - side.since
        if side.is_wanted and side.trouble is not None and lasts > GRACE:
            found.append(f"{side.name}: {side.trouble[1]} (for {lasts:.0f} s)")
        elif side.is_wanted and side.trouble is None and not side.is_connected and lasts > GRACE:
            found.append(f"{side.name}: not connected for {lasts:.0f} s")
    if status.journal_error is not None:
        found.append(f"the journal cannot be read: {status.journal_error}")
    if status.state_error is not None:
        found.append(f"how far the bridge is cannot be saved: {status.state_error}")
    if status.out.is_wanted and status.lag and status.lag_seconds > status.lag_critical:
        found.append(
            f"{status.lag} messages wait to go out, the first for {status.lag_seconds:.0f} s"
        )
    return found


def warnings(status: Status) -> list[str]:
    """What has been lost, or set aside, already."""
    found, now = [], time.time()
    if status.trimmed_at is not None and now - status.trimmed_at < TOLD:
        ranges = ", ".join(f"{first} to {last}" for first, last in status.ranges)
        found.append(
            f"the journal trimmed {status.trimmed} messages before they went out: {ranges}"
        )
    if status.set_aside_at is not None and now - status.set_aside_at < TOLD:
        found.append(f"{status.set_aside} messages are set aside: fedmsg-amqp-bridge --set-aside")
    if status.returned_at is not None and now - status.returned_at < RECENT:
        found.append(f"no queue is bound for {status.out.counts['returned']} messages")
    return found


def report(status: Status) -> dict[str, Any]:
    """What `/health` answers."""
    found = problems(status)
    return {
        "healthy": not found,
        "problems": found,
        "warnings": warnings(status),
        "bridge": {
            "version": status.version,
            "started": status.started,
            "read": status.read,
            "confirmed": status.confirmed,
            "journal_last": status.last,
            "lag": status.lag,
            "lag_seconds": round(status.lag_seconds, 3),
            "pending": status.pending,
            "set_aside": status.set_aside,
            "trimmed": status.trimmed,
            **{side.name: _side(side) for side in (status.out, status.into) if side.is_wanted},
        },
    }


def _side(side: Side) -> dict[str, Any]:
    kind, line = side.trouble or (None, None)
    return {
        "connected": side.is_connected,
        "node": side.node,
        "trouble": kind,
        "error": line,
        "connections": side.connections,
        "blocked_seconds": round(side.blocked, 3),
        **dict(sorted(side.counts.items())),
    }


def metrics(status: Status) -> bytes:
    """What `/metrics` answers, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status))
    return generate_latest(registry)


class _Collector:
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Any]:
        return list(_families(self._status))


# What is counted of each side, and what Prometheus is told of it.
OUT = {
    "published": "Messages published, those published again included",
    "confirmed": "Messages that the broker has confirmed",
    "excluded": "Messages whose topic amqp_out does not have",
    "loop": "Messages that came from AMQP and do not go back there",
    "nacked": "Messages that the broker could not keep, published again later",
    "returned": "Messages that no queue was bound for",
    "set_aside": "Messages that cannot be on the other bus",
}
IN = {
    "received": "Messages that the broker delivered, those delivered again included",
    "acknowledged": "Messages that a relay has on disk",
    "excluded": OUT["excluded"].replace("amqp_out does not have", "amqp_in_exclude has"),
    "loop": "Messages that came from a fedmsg bus and do not go back there",
    "set_aside": OUT["set_aside"],
}


def _families(status: Status) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    def gauge(name: str, text: str, value: float) -> Any:
        return GaugeMetricFamily(f"fedmsg_amqp_bridge_{name}", text, value=value)

    def counter(name: str, text: str, value: float) -> Any:
        return CounterMetricFamily(f"fedmsg_amqp_bridge_{name}", text, value=value)

    yield gauge("healthy", "1 if /health says so, else 0", int(not problems(status)))
    yield InfoMetricFamily(
        "fedmsg_amqp_bridge_build", "Version of the bridge", {"version": status.version}
    )
    yield gauge("start_time_seconds", "When the bridge started", status.started)
    for side, counted in ((status.out, OUT), (status.into, IN)):
        if not side.is_wanted:
            continue
        name = side.name
        yield gauge(f"{name}_connected", "1 while connected to the broker", int(side.is_connected))
        trouble = GaugeMetricFamily(
            f"fedmsg_amqp_bridge_{name}_trouble",
            "1 for what is wrong with the broker, else 0",
            labels=("kind",),
        )
        for kind in kinds.KINDS:
            trouble.add_metric((kind,), int(side.trouble is not None and side.trouble[0] == kind))
        yield trouble
        text = "Connections to the broker that were made"
        yield counter(f"{name}_connections", text, side.connections)
        text = "Time for which the broker took nothing from the bridge"
        yield counter(f"{name}_blocked_seconds", text, side.blocked)
        for key, text in counted.items():
            yield counter(f"{name}_{key}_messages", text, side.counts[key])
    yield gauge("set_aside", "Messages in the files of those set aside", status.set_aside)
    yield gauge(
        "state_failing", "1 while the cursor cannot be saved", int(bool(status.state_error))
    )
    if not status.out.is_wanted:
        return
    yield gauge("journal_failing", "1 while the journal cannot be read",
                int(bool(status.journal_error)))  # fmt: skip
    yield gauge("journal_seq", "The newest message of the journal", status.last)
    yield gauge("read_seq", "The last message that was read of the journal", status.read)
    yield gauge("confirmed_seq", "The message up to which all are confirmed", status.confirmed)
    yield gauge("lag_messages", "Messages that are not confirmed", status.lag)
    yield gauge("lag_seconds", "How long ago the first of those was received", status.lag_seconds)
    text = "Messages that the journal trimmed before they were read"
    yield counter("trimmed_messages", text, status.trimmed)


def application(status: Status) -> Any:
    """`/health` and `/metrics` as a WSGI application."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ.get("PATH_INFO", "")
        line, kind = "200 OK", "application/json"
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            line, body = "405 Method Not Allowed", b'{"error": "GET or HEAD"}\n'
        elif path == "/health":
            told = report(status)
            line = "200 OK" if told["healthy"] else "503 Service Unavailable"
            body = json.dumps(told, indent=2).encode() + b"\n"
        elif path == "/metrics":
            body, kind = metrics(status), "text/plain; version=0.0.4; charset=utf-8"
        else:
            line, body = "404 Not Found", b'{"error": "there are /health and /metrics"}\n'
        start_response(line, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        # waitress sends the body of an answer to HEAD otherwise.
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer
