"""Whether a consumer of a hub is well, by what the hub says of it on its monitoring socket.

Every five seconds a hub of moksha publishes one frame there, see monitoring.py: for each consumer
whether it is loaded, how many messages wait for it, and how many came, were handled and raised an
exception since the frame before. Whether messages *should* have come is asked of the bus itself:
who listens there for the same topics meanwhile knows. So a hub is found that is connected to
nothing, or that hangs, and not only one whose process has ended.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from . import sockets
from .config import Config
from .daemon.monitoring import FREQUENCY
from .nagios import CRITICAL, OK, UNKNOWN, WARNING, Report

# Where base.py of the roles, and Fedora's, have hubs bind: one name for each program.
DIRECTORY = Path("/run/fedmsg")
PREFIX, SUFFIX = "monitoring-", ".socket"

# What is on its way from the bus to the hub while the hub counts. What the bus had before a frame
# is in the hub's next one, so that no clock and no speed is needed to tell.
FRAMES = 3

# Instead of a name: each consumer that the hubs have.
ALL = "all"


@dataclass(frozen=True)
class Limits:
    """A number from which it is a warning, and one from which it is critical.

    `backlog`: messages that wait. `exceptions`: raised between two frames. `silence`: seconds
    without a message; nobody is told of silence where that is None.
    """

    backlog: tuple[float, float] = (500, 1000)
    exceptions: tuple[float, float] = (1, 10)
    silence: tuple[float, float] | None = None


@dataclass
class _Seen:
    """Of one consumer: its frames, and when each came (time.monotonic)."""

    endpoint: str
    frames: list[Mapping[str, Any]] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    # Messages of its topics that the bus had, before each of these moments.
    passed: list[int] = field(default_factory=list)

    @property
    def last(self) -> Mapping[str, Any]:
        return self.frames[-1]

    def heard(self, first: int = 1) -> int:
        """Messages that it got, without those that its first frames count."""
        return sum(_count(frame, "headcount_in") for frame in self.frames[first:])


def endpoints_of(given: Sequence[str], config: Config) -> list[str]:
    """Where to listen: endpoints, paths, and names of services as fedmsg-hub; or all there are."""
    if given:
        return [_endpoint(text) for text in given]
    found = [f"ipc://{path}" for path in sorted(DIRECTORY.glob(f"{PREFIX}*{SUFFIX}"))]
    configured = config.get("moksha.monitoring.socket")
    # Most configs put the name of the program that reads them into it: ours is no hub's.
    if isinstance(configured, str) and "fedmsg-probe" not in configured:
        found.append(configured)
    return list(dict.fromkeys(found))


def check(
    context: zmq.Context[zmq.Socket[bytes]],
    name: str,
    monitors: Sequence[str],
    outbound: Sequence[str],
    config: Config,
    limits: Limits,
    timeout: float,
    label: str = "",
) -> Report:
    """Watch the consumer `name`, `module:name` or ALL, until it is known how it is or time is over.

    `monitors` and `outbound` are endpoints, `timeout` is in seconds; `label` goes before the names
    of the perfdata.
    """
    report = Report()
    if not monitors:
        report.add(CRITICAL, f"no hub runs here: there is no {DIRECTORY}/{PREFIX}*{SUFFIX}")
        return report
    watch = _Watch(context, name, monitors, outbound, config)
    try:
        watch.run(limits, time.monotonic() + timeout)
    finally:
        watch.close()
    if not watch.seen:
        _missing(report, watch, timeout)
        return report
    for seen in watch.loaded() or watch.seen.values():
        own = str(seen.last.get("name")) if name == ALL else name
        _judge(report, own, seen, limits, f"{own}_" if name == ALL else label)
    return report


class _Watch:
    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        monitors: Sequence[str],
        outbound: Sequence[str],
        config: Config,
    ) -> None:
        self._context, self.name, self._config = context, name, config
        self._outbound = outbound
        self._bus: zmq.Socket[bytes] | None = None
        self._passed: dict[str, int] = {}
        # By endpoint, module and place in the frame: names may stand there twice.
        self.seen: dict[tuple[str, str, int], _Seen] = {}
        # Those that have published anything, and which consumers they have.
        self.consumers: dict[str, list[str]] = {endpoint: [] for endpoint in monitors}
        self.published: set[str] = set()
        self._poller = zmq.Poller()
        self._monitors: dict[zmq.Socket[bytes], str] = {}
        for endpoint in monitors:
            monitor = context.socket(zmq.SUB)
            monitor.linger = 0
            monitor.subscribe(b"")
            monitor.connect(endpoint)
            self._monitors[monitor] = endpoint
            self._poller.register(monitor, zmq.POLLIN)

    def run(self, limits: Limits, end: float) -> None:
        while (left := end - time.monotonic()) > 0 and not self._is_known(limits):
            for ready, _ in self._poller.poll(max(1, int(left * 1000))):
                if ready is self._bus:
                    self._listen()
                else:
                    self._read(ready)

    def loaded(self) -> list[_Seen]:
        return [seen for seen in self.seen.values() if seen.last.get("initialized") is True]

    def close(self) -> None:
        for each in [*self._monitors, *([self._bus] if self._bus else [])]:
            each.close(linger=0)

    def _read(self, monitor: zmq.Socket[bytes]) -> None:
        endpoint, came = self._monitors[monitor], time.monotonic()
        consumers = _consumers(monitor.recv_multipart()[-1])
        self.published.add(endpoint)
        self.consumers[endpoint] = [str(each.get("name")) for each in consumers]
        # What came from the bus before this frame counts as before it.
        self._listen()
        for place, consumer in enumerate(consumers):
            names = (consumer.get("name"), f"{consumer.get('module')}:{consumer.get('name')}")
            if self.name not in (ALL, *names):
                continue
            key = (endpoint, str(consumer.get("module")), place)
            seen = self.seen.setdefault(key, _Seen(endpoint))
            seen.frames.append(consumer)
            seen.came.append(came)
            topics = _topics(consumer)
            self._hear(topics)
            seen.passed.append(
                sum(n for topic, n in self._passed.items() if self._is_of(topic, topics))
            )

    def _hear(self, topics: Sequence[str]) -> None:
        """Listen on the bus for what the consumer listens for."""
        if not self._outbound:
            return
        if self._bus is None:
            self._bus = sockets.make(self._context, zmq.SUB, self._config)
            for endpoint in self._outbound:
                sockets.connect(self._bus, endpoint)
            self._poller.register(self._bus, zmq.POLLIN)
        for topic in topics:
            self._bus.subscribe(topic.encode(errors="surrogateescape"))

    def _listen(self) -> None:
        while self._bus is not None:
            try:
                topic = self._bus.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return
            text = topic.decode(errors="surrogateescape")
            self._passed[text] = self._passed.get(text, 0) + 1

    def _is_of(self, topic: str, topics: Sequence[str]) -> bool:
        if self._config.get("zmq_strict"):  # moksha then compares the whole topic
            return topic in topics
        return topic.startswith(tuple(topics))

    def _is_known(self, limits: Limits) -> bool:
        loaded = self.loaded()
        if not loaded:
            # Where each hub has said that it does not have it, no more need be asked.
            return self.published == set(self.consumers)
        return all(map(self._is_told, loaded)) and all(
            seen.heard() or limits.silence is None or _silence(seen) >= limits.silence[1]
            for seen in loaded
        )

    @staticmethod
    def _is_told(seen: _Seen) -> bool:
        return len(seen.frames) >= FRAMES or (len(seen.frames) > 1 and not _is_deaf(seen))


def _judge(report: Report, name: str, seen: _Seen, limits: Limits, label: str) -> None:
    last, where = seen.last, _short(seen.endpoint)
    if last.get("initialized") is not True:
        report.add(CRITICAL, f"{name} in {where} is there and not loaded")
        return
    backlog = _count(last, "backlog")
    exceptions = sum(_count(frame, "exceptions") for frame in seen.frames)
    came = sum(_count(frame, "headcount_in") for frame in seen.frames)
    handled = sum(_count(frame, "headcount_out") for frame in seen.frames)
    watched = seen.came[-1] - seen.came[0] + FREQUENCY
    report.add(
        max(_status(backlog, limits.backlog), _status(exceptions, limits.exceptions)),
        f"{name} in {where}: {backlog} waiting, {came} received and {handled} handled"
        f" in {watched:.0f} s, {exceptions or 'no'} exceptions",
    )
    if _is_stuck(seen):
        report.add(
            WARNING, f"{name} has handled none of those that wait, in the last {FREQUENCY} s"
        )
    if _is_deaf(seen):
        report.add(
            CRITICAL,
            f"{name} receives nothing, while {seen.passed[-2]} messages for it were on the bus:"
            " its hub is not connected",
        )
    silence = 0.0 if seen.heard(0) else _silence(seen)
    if limits.silence is not None and (status := _status(silence, limits.silence)):
        report.add(status, f"{name} has received no message for {silence:.0f} s")
    report.perfdata += [
        f"{label}backlog={backlog};{_range(limits.backlog)};0",
        f"{label}exceptions={exceptions};{_range(limits.exceptions)};0",
        f"{label}received={came / watched:.1f};;;0",
        f"{label}handled={handled / watched:.1f};;;0",
        f"{label}silence={silence:.1f}s;{_range(limits.silence) if limits.silence else ';'};0",
    ]


def _missing(report: Report, watch: _Watch, timeout: float) -> None:
    for endpoint, names in watch.consumers.items():
        if endpoint in watch.published:
            # A hub drops those that its config does not enable.
            wanted = "consumer" if watch.name == ALL else watch.name
            report.add(
                CRITICAL,
                f"{_short(endpoint)} has no {wanted} (not installed, or its config_key is not"
                f" true): it has {', '.join(names) or 'none'}",
            )
        else:
            report.add(*_why_silent(endpoint, timeout))


def _why_silent(endpoint: str, timeout: float) -> tuple[int, str]:
    """A hub that is not there, one that hangs, and a socket that this user may not open."""
    if not endpoint.startswith("ipc://"):
        return CRITICAL, f"{endpoint} has published nothing in {timeout:.0f} s"
    path = endpoint[len("ipc://") :]
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(1)
            tried.connect(path)
    except PermissionError:
        return UNKNOWN, f"this user may not open {path}: the group of that file may"
    except FileNotFoundError:
        return CRITICAL, f"{_short(endpoint)} does not run: there is no {path}"
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        return CRITICAL, f"{_short(endpoint)} does not run: {path}: {said}"
    if timeout <= FREQUENCY:
        return UNKNOWN, f"{_short(endpoint)} publishes every {FREQUENCY} s: give it more time"
    return CRITICAL, f"{_short(endpoint)} hangs: it has published nothing in {timeout:.0f} s"


def _is_stuck(seen: _Seen) -> bool:
    if len(seen.frames) < 2:
        return False
    return bool(_count(seen.frames[-2], "backlog")) and not _count(seen.last, "headcount_out")


def _is_deaf(seen: _Seen) -> bool:
    """The bus had messages for it, before a frame; and it has none by the frame after that."""
    if len(seen.frames) < 2 or seen.heard():
        return False
    # Before the last frame but one; with two frames it is only suspected.
    return seen.passed[-2 if len(seen.frames) >= FRAMES else -1] > 0


def _silence(seen: _Seen) -> float:
    # The first frame counts the seconds before it.
    return seen.came[-1] - seen.came[0] + (0 if seen.heard(0) else FREQUENCY)


def _consumers(frame: bytes) -> list[Mapping[str, Any]]:
    try:
        consumers = json.loads(frame)["consumers"]
    except (ValueError, KeyError, TypeError):
        return []
    return [each for each in consumers if isinstance(each, dict)] if consumers else []


def _topics(consumer: Mapping[str, Any]) -> list[str]:
    """The beginnings of topics that moksha subscribes to: `*` is a star of AMQP to it."""
    topic = consumer.get("topic")
    topics = topic if isinstance(topic, list) else [topic]
    return [text.replace("*", "") for text in topics if isinstance(text, str)]


def _count(consumer: Mapping[str, Any], key: str) -> int:
    value = consumer.get(key)
    return value if isinstance(value, int) else 0


def _status(value: float, limits: tuple[float, float]) -> int:
    warning, critical = limits
    return CRITICAL if value >= critical else WARNING if value >= warning else OK


def _range(limits: tuple[float, float]) -> str:
    return ";".join(f"{limit:g}" for limit in limits)


def _endpoint(text: str) -> str:
    if "://" in text:
        return text
    return f"ipc://{text if text.startswith('/') else DIRECTORY / f'{PREFIX}{text}{SUFFIX}'}"


def _short(endpoint: str) -> str:
    name = Path(endpoint.partition("://")[2]).name
    if name.startswith(PREFIX) and name.endswith(SUFFIX):
        return name[len(PREFIX) : -len(SUFFIX)]
    return endpoint
