"""What the relay last said of itself, and whether all is well with it.

The relay writes a JSON object a line, every second, to its child's standard input; the keys are in
`Feed.state`. One that is silent hangs: it has a thread that does nothing but relay and say so.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..checks.networks import Refusals

State = dict[str, Any]

# Seconds without a line after which the relay is taken to hang, and those its journal may take to
# be opened.
SILENCE = 5.0
OPENING = 15.0

# Seconds over which messages are counted to tell what is new, those below which the count says
# little, and messages a second that are more than a bus of scripts has when all is well.
RECENT = 30.0
RECENT_LEAST = 5.0
FLOOD = 200.0

# Seconds for which a jump of the host's clock is told of.
JUMP_TOLD = 3600.0

# Seconds for which messages that were pushed out of the backlog are told of.
ROOM_TOLD = 600.0

# Bytes in a line. What is longer is no state of ours.
LONGEST_LINE = 4 << 20


@dataclass
class Feed:
    """The latest state: `counts`, `submit`, `journal`, `listeners`, `slow_listeners` and so on.

    Empty until the first line. Written by one thread, read by others: each state is a new object.
    """

    state: State = field(default_factory=dict)
    # Of HTTP, which the relay does not know of.
    refusals: Refusals = field(default_factory=Refusals)
    _heard: float = field(default_factory=time.monotonic)
    # When lines came, and the counts that they had: of the last RECENT seconds, and one before.
    _history: deque[tuple[float, State]] = field(default_factory=deque)

    @property
    def age(self) -> float:
        """Seconds since the last line, or since the start."""
        return time.monotonic() - self._heard

    def follow(self, lines: BinaryIO) -> None:
        """Take in lines until their end, which is the relay's."""
        while True:
            line = lines.readline(LONGEST_LINE)
            if not line:
                return
            try:
                state = json.loads(line)
            except (ValueError, RecursionError):
                state = None
            if isinstance(state, dict):
                self.take(state, time.monotonic())
            else:
                print("http: a line of the relay cannot be read", file=sys.stderr, flush=True)

    def take(self, state: State, now: float) -> None:
        """Take in what the relay says at `now`, by time.monotonic()."""
        self.state, self._heard = state, now
        # A new deque, for another thread may be reading this one.
        history = deque(self._history)
        history.append((now, part(state, "counts")))
        while len(history) > 2 and history[1][0] <= now - RECENT:
            history.popleft()
        self._history = history

    def recent(self) -> Recent:
        """What has been counted within the last RECENT seconds, or since the start."""
        history = self._history
        if not history:
            return Recent(0.0, 0.0, Counter(), Counter())
        (began, first), (ended, last) = history[0], history[-1]
        changed = {
            outcome: _counter(part(last, outcome)) - _counter(part(first, outcome))
            for outcome in ("repaired", "dropped")
        }
        untouched = max(0, _whole(last.get("untouched")) - _whole(first.get("untouched")))
        messages = untouched + sum(sum(counter.values()) for counter in changed.values())
        return Recent(ended - began, messages, changed["repaired"], changed["dropped"])


@dataclass(frozen=True)
class Recent:
    """Messages within some `seconds`: all, and by cause those `repaired` and those `dropped`."""

    seconds: float
    messages: float
    repaired: Counter[str]
    dropped: Counter[str]


@dataclass(frozen=True)
class JournalFile:
    """What the file itself says.

    `bytes` it takes on the disk, its write-ahead log included; when its `oldest` message was
    received, in seconds since 1970.
    """

    bytes: int
    oldest: float | None


def problems(feed: Feed, backlog_error: str | None) -> list[str]:
    """Why somebody has to look at the relay now, one line each. None: it is healthy."""
    found = []
    state, journal = feed.state, part(feed.state, "journal")
    if feed.age > SILENCE:
        found.append(f"the relay has said nothing for {feed.age:.0f} s: it hangs or is overloaded")
    elif not state:
        found.append("the relay has only just started")
    kind = journal.get("state")
    if kind == "failing":
        found.append(
            f"the journal fails, nothing is acknowledged: {journal.get('error')}"
            f"{_for(journal.get('since'), state)}"
        )
    elif kind == "opening" and _between(state.get("started"), state.get("now")) > OPENING:
        found.append(f"the journal is still not open{_for(state.get('started'), state)}")
    if backlog_error is not None and kind not in ("failing", "opening"):
        found.append(f"the backlog cannot be read: {backlog_error}")
    descriptors = part(part(state, "senders"), "descriptors")
    if descriptors.get("short_since") is not None:
        found.append(
            f"descriptors run out, newcomers are turned away: {descriptors.get('limit')} are the"
            f" limit{_for(descriptors.get('short_since'), state)}"
        )
    log = part(state, "log")
    if log:
        found.append(
            f"the log cannot be written: {log.get('error')}{_for(log.get('since'), state)}"
        )
    return found


def warnings(feed: Feed) -> list[str]:
    """What is worth knowing and mends itself, or has been lost already."""
    found = []
    missing = part(feed.state, "journal").get("unjournaled")
    if missing:
        found.append(f"{missing} messages since the start are missing from the backlog")
    found += _about_room(part(feed.state, "journal"))
    found += _about_clock(part(feed.state, "journal"))
    for slow in slow_listeners(feed.state):
        about = "" if slow.get("exact") else "up to "
        found.append(
            f"listener {slow.get('address')} was too slow and missed {about}{slow.get('missed')}"
            " messages"
        )
    now = time.time()
    for peer in refused(feed)["peers"]:
        if now - peer.get("last", 0) < RECENT:
            found.append(
                f"{peer.get('address')} is not in relay_allow: {peer.get('connections')}"
                " connections refused"
            )
    for peer in _objects(part(feed.state, "policy"), "senders"):
        if now - _time(peer.get("last")) < RECENT:
            found.append(
                f"relay_policy does not let {peer.get('address')} publish"
                f" {str(peer.get('topic'))[:200]!a}: {peer.get('messages')} messages of it"
                f" {peer.get('outcome')}"
            )
    senders = part(feed.state, "senders")
    if senders.get("is_alarmed"):
        found.append(
            f"the memory is at {_whole(senders.get('memory')) >> 20} MiB: senders are watched"
        )
    for peer in _objects(senders, "peers"):
        if now - _time(peer.get("time")) < RECENT:
            found.append(f"publisher {peer.get('address')} was cut off: {peer.get('cause')}")
    for host in _objects(part(feed.state, "connections"), "hosts"):
        number = host.get("connections")
        found.append(f"publishers of {host.get('address')} connected {number} times in a minute")
    recent = feed.recent()
    if recent.seconds >= RECENT_LEAST and recent.messages > FLOOD * recent.seconds:
        rate, seconds = recent.messages / recent.seconds, recent.seconds
        found.append(f"a flood: {rate:.0f} messages a second in the last {seconds:.0f} s")
    for verb, counter in (("dropped", recent.dropped), ("repaired", recent.repaired)):
        for cause, number in sorted(counter.items()):
            found.append(f"{verb} in the last {recent.seconds:.0f} s: {number} ({cause})")
    return found


def _about_room(journal: State) -> list[str]:
    if time.time() - _time(journal.get("reach_noted")) >= ROOM_TOLD:
        return []
    return [
        f"the backlog is full and reaches back only {_time(journal.get('reach')):.0f} s:"
        f" {_whole(journal.get('trimmed_early'))} messages went before their age since the start;"
        f" most bytes are of topic {str(journal.get('reach_topic'))[:200]!a}"
    ]


def _about_clock(journal: State) -> list[str]:
    waiting, jump = journal.get("clock_waiting"), journal.get("clock_jump")
    if isinstance(waiting, (int, float)):
        return [f"this host's clock was set back by {-waiting:.0f} s: is it right?"]
    ago = _between(journal.get("clock_jumped"), journal.get("clock_now"))
    if isinstance(jump, (int, float)) and ago < JUMP_TOLD:
        way = "ahead" if jump > 0 else "back"
        return [f"this host's clock jumped {abs(jump):.0f} s {way}, {ago:.0f} s ago: is it right?"]
    return []


def report(feed: Feed, backlog_error: str | None) -> dict[str, Any]:
    """What `/health` answers."""
    found = problems(feed, backlog_error)
    return {
        "healthy": not found,
        "problems": found,
        "warnings": warnings(feed),
        "state_age": round(feed.age, 3),
        "relay": {**feed.state, "refused": refused(feed)} if feed.state else feed.state,
    }


def part(state: State, key: str) -> State:
    """An object of the state; an empty one if it is not there."""
    found = state.get(key)
    return found if isinstance(found, dict) else {}


def refused(feed: Feed) -> State:
    """Connections refused: `sides`, the number of each, and `peers`, whose they last were."""
    theirs, ours = part(feed.state, "refused"), feed.refusals.state()
    sides = {**part(theirs, "sides"), **part(ours, "sides")}
    peers: dict[str, State] = {}
    for peer in [*_objects(theirs, "peers"), *_objects(ours, "peers")]:
        other = peers.setdefault(str(peer.get("address")), {"connections": 0, "last": 0.0})
        peers[str(peer.get("address"))] = {
            "address": str(peer.get("address")),
            "connections": other["connections"] + _whole(peer.get("connections")),
            "last": max(other["last"], _time(peer.get("last"))),
        }
    return {"sides": sides, "peers": list(peers.values())}


def slow_listeners(state: State) -> list[State]:
    return _objects(state, "slow_listeners")


def _objects(state: State, key: str) -> list[State]:
    found = state.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _time(moment: Any) -> float:
    return moment if isinstance(moment, (int, float)) else 0.0


def _counter(counts: State) -> Counter[str]:
    return Counter({str(cause): _whole(number) for cause, number in counts.items()})


def _whole(number: Any) -> int:
    return number if isinstance(number, int) else 0


def _for(since: Any, state: State) -> str:
    seconds = _between(since, state.get("now"))
    return f" (for {seconds:.0f} s)" if seconds > 0 else ""


def _between(earlier: Any, later: Any) -> float:
    if isinstance(earlier, (int, float)) and isinstance(later, (int, float)):
        return later - earlier
    return 0.0
