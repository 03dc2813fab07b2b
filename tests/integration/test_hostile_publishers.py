"""Publishers that mean harm, or only do: a search for what one of them, or a few, can cost others.

An example is what some peers do at the same time. Meanwhile one publisher submits and another one
publishes, each a message after the other, and the watchdog is fed. FEDMSG_TEST_SEARCH is for how
many seconds other examples are tried than those of every run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import Bus, Listener, Process, wait_for
from tests.integration.test_web import health
from tests.support.others import (
    PAUSE,
    Others,
    all_of,
    forget_peak,
    peak,
    publishing,
    slowness,
    submitting,
)
from tests.support.zmtp_peers import MORE, Peer, command, frame, greeting

MEMORY = 256 << 20
LIMIT = 16 << 20
# Seconds of the search in each run, and for how long one peer may go on.
SEARCH = float(os.environ.get("FEDMSG_TEST_SEARCH") or 0)
USUALLY = 15.0
FOR = 1.0
# Bytes that one peer sends at most.
MOST = 400 << 20
# Seconds from one beat to the next: the half of what the watchdog waits for.
WATCHDOG = 1.0

MANY = 1000  # frames that end a connection
# Bytes of whole messages that one host has under way from all of its connections.
AT_ONCE = 20 << 20
CUT = ("too many frames", "too much unfinished")
# Bytes of messages whose order is looked at.
SMALL = 300


class Said:
    """What one peer says, for as long as it may."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        # Whether all that was to be said has been taken.
        self.whole = False
        self._until = time.monotonic() + FOR

    def repeat(self, unit: bytes, times: int, end: bytes = b"") -> None:
        """Until all is said, the other end has ended it, or the time is over."""
        times = min(times, MOST // max(1, len(unit)))
        at_once = max(1, (1 << 20) // max(1, len(unit)))
        chunk = unit * min(at_once, times)
        while times > 0:
            if not self.say(chunk if times >= at_once else unit * times):
                return
            times -= at_once
        self.say(end)

    def say(self, said: bytes) -> bool:
        """Whether all of this was taken."""
        view, done = memoryview(said), 0
        self.whole = False
        with contextlib.suppress(OSError):
            while done < len(view):
                left = self._until - time.monotonic()
                if left <= 0:
                    return False
                self.peer.socket.settimeout(left)
                done += self.peer.socket.send(view[done : done + (1 << 18)])
        self.whole = done == len(view)
        return self.whole


@dataclass(frozen=True)
class Act:
    """What one peer does; `to` is the side it connects to: inbound or submit."""

    to: str
    version: str

    def connect(self, bus: Bus, source: str) -> Peer:
        kind = "PUB" if self.to == "inbound" else "DEALER"
        return Peer(getattr(bus, self.to), self.version, kind, source=source).greet()

    @property
    def envelope(self) -> bytes:
        return frame(b"", MORE) if self.to == "submit" else b""

    def run(self, bus: Bus, source: str) -> list[str]:
        """Do it; what must be counted for it: one of these causes, or none if that is empty."""
        peer = self.connect(bus, source)
        try:
            said = Said(peer)
            self.say(said)
            return self.counted() if said.whole else []
        finally:
            peer.close()

    def say(self, said: Said) -> None:
        raise NotImplementedError

    def counted(self) -> list[str]:
        raise NotImplementedError


@dataclass(frozen=True)
class Frames(Act):
    """Messages of many frames, or of large ones, whose end may never come."""

    number: int
    size: int
    times: int
    ends: bool

    def say(self, said: Said) -> None:
        unit, end = frame(b"x" * self.size, MORE), frame(b"x")
        for _ in range(self.times if self.ends else 1):
            said.repeat(unit, self.number, end if self.ends else b"")
            if not said.whole:
                return

    def counted(self) -> list[str]:
        if not self.ends or (self.number + 1) * self.size > LIMIT:
            return []
        return ["not two frames", "not a request", "too many frames", "too much unfinished"]


@dataclass(frozen=True)
class Topics(Act):
    """Messages with topics of this size."""

    size: int
    times: int

    def say(self, said: Said) -> None:
        said.repeat(self.envelope + frame(b"h" * self.size, MORE) + frame(b"{}"), self.times)

    def counted(self) -> list[str]:
        if self.size > LIMIT:
            return []
        return ["too large", "keys filled in", "wrapped", "not a complete message"]


@dataclass(frozen=True)
class Text(Act):
    """Messages whose body is made of one unit, repeated: JSON or nearly so."""

    begin: bytes
    unit: bytes
    size: int
    times: int

    def say(self, said: Said) -> None:
        unit = self.unit or b" "
        body = self.begin + unit * max(0, (self.size - len(self.begin)) // len(unit))
        for number in range(self.times):
            if not said.say(self.envelope + frame(b"h.%d" % number, MORE) + frame(body)):
                return

    def counted(self) -> list[str]:
        return ["*"]


@dataclass(frozen=True)
class Complete(Act):
    """Complete messages from several connections, whose replies nobody reads."""

    size: int
    times: int
    connections: int
    envelope_frames: int
    envelope_size: int

    def run(self, bus: Bus, source: str) -> list[str]:
        with contextlib.ExitStack() as stack:
            # Of large ones from many connections of one host nobody claims as much.
            most = max(2, AT_ONCE // self.size)
            peers = [self.connect(bus, source) for _ in range(min(most, self.connections))]
            for peer in peers:
                stack.callback(peer.close)
            said = [Said(peer) for peer in peers]
            threads = [
                threading.Thread(target=self._say, args=(each, n)) for n, each in enumerate(said)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return ["*"] if any(each.whole for each in said) else []

    def _say(self, said: Said, connection: int) -> None:
        envelope = b""
        if self.to == "submit":
            one = frame(b"e" * self.envelope_size, MORE)
            envelope = one * self.envelope_frames + frame(b"", MORE)
        at_once = max(1, (1 << 18) // (self.size + 100))
        # Of each example others: an id that was submitted before is no new message.
        name = time.monotonic_ns()
        topic = b"small." if self.size <= SMALL else b"large."
        for begin in range(0, self.times, at_once):
            pieces = []
            for number in range(begin, min(begin + at_once, self.times)):
                body = b'{"topic":"h","timestamp":1,"msg_id":"%d.%d.%d","msg":"%s"}' % (
                    connection, number, name, b"x" * self.size,
                )  # fmt: skip
                pieces += [envelope, frame(topic + b"%d.%d" % (name, number), MORE), frame(body)]
            if not said.say(b"".join(pieces)):
                return


@dataclass(frozen=True)
class Knocks(Act):
    """Connections that are opened and closed, with so much of a handshake, one after the other."""

    number: int
    says: str

    def run(self, bus: Bus, source: str) -> list[str]:
        until = time.monotonic() + FOR
        kind = "PUB" if self.to == "inbound" else "DEALER"
        for _ in range(self.number):
            if time.monotonic() > until:
                break
            peer = Peer(getattr(bus, self.to), self.version, kind, source=source)
            if self.says == "half":
                peer.send(greeting(self.version, kind)[:7])
            elif self.says == "greeting":
                peer.send(greeting(self.version, kind))
            elif self.says == "handshake":
                peer.greet()
            elif self.says == "message":
                peer.greet().message(b"h", b"{}")
            peer.reset()
        return ["connections"]


@dataclass(frozen=True)
class Noise(Act):
    """Bytes of whatever kind, after the handshake or instead of it."""

    unit: bytes
    times: int
    greets: bool

    def run(self, bus: Bus, source: str) -> list[str]:
        kind = "PUB" if self.to == "inbound" else "DEALER"
        peer = Peer(getattr(bus, self.to), self.version, kind, source=source)
        try:
            if self.greets:
                peer.greet()
            Said(peer).repeat(self.unit, self.times)
        finally:
            peer.close()
        return []


SIDES = {
    "to": st.sampled_from(["inbound", "submit"]),
    "version": st.sampled_from(["2.0", "3.0", "3.1"]),
}
TOKENS = st.one_of(
    st.sampled_from(list('[]{}":,\\-1 \n\0')).map(str.encode),
    st.sampled_from([b"[],", b"{},", b'"k":', b'"x",', b"1,", b"NaN,", b"1e5,", b"null,"]),
    st.sampled_from([b"\\u00e9", b"\xc3\xa9", b"\xff"]),
    st.binary(max_size=4),
)
COMPLETE = b'{"topic":"t","timestamp":1,"msg_id":"x","msg":'
BEGINNINGS = [
    b"",
    b"[",
    COMPLETE,
    COMPLETE + b"[",
    COMPLETE + b'"',
    b'{"topic":"t",',
    b'"',
    b"[" * 90,
]
SIZES = [
    300,
    (16 << 10) - 50,
    (16 << 10) + 50,
    (256 << 10) - 50,
    (256 << 10) + 50,
    1 << 20,
    4 << 20,
]
ACTS = st.one_of(
    st.builds(
        Frames,
        **SIDES,
        number=st.sampled_from([2, 3, 18, 20, 200, MANY - 1, MANY + 1, 20_000, 5_000_000]),
        size=st.sampled_from([0, 0, 1, 300, 70_000, 1 << 20, LIMIT]),
        times=st.sampled_from([1, 1, 20, 2000]),
        ends=st.booleans(),
    ),
    st.builds(
        Topics,
        **SIDES,
        size=st.sampled_from([1000, 64 << 10, (64 << 10) + 1, 1 << 20, LIMIT, LIMIT + (1 << 19)]),
        times=st.sampled_from([1, 5, 40, 2000]),
    ),
    st.builds(
        Text,
        **SIDES,
        begin=st.sampled_from(BEGINNINGS),
        unit=st.lists(TOKENS, min_size=1, max_size=6).map(b"".join),
        size=st.sampled_from([*SIZES, LIMIT - 1000]),
        times=st.integers(1, 5),
    ),
    st.builds(
        Complete,
        **SIDES,
        size=st.sampled_from([10, 10, *SIZES, LIMIT - 1000]),
        times=st.sampled_from([10, 1000, 20_000]),
        connections=st.sampled_from([1, 1, 5, 30]),
        envelope_frames=st.sampled_from([0, 1, 5, 20]),
        envelope_size=st.sampled_from([0, 5, 300, 2000, 1 << 20]),
    ),
    st.builds(
        Knocks,
        **SIDES,
        number=st.sampled_from([1, 100, 2000]),
        says=st.sampled_from(["", "half", "greeting", "handshake", "message"]),
    ),
    st.builds(
        Noise,
        **SIDES,
        unit=st.one_of(
            st.binary(min_size=1, max_size=300),
            st.binary(max_size=30).map(lambda ping: command(b"PING", ping)),
            st.binary(max_size=30).map(lambda body: frame(body)),
            st.binary(max_size=10).map(lambda body: frame(body, MORE)),
        ),
        times=st.sampled_from([1, 100, 100_000]),
        greets=st.booleans(),
    ),
)


class Beats:
    """What takes the place of systemd: how long it is from one beat of the watchdog to the next."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._last = time.monotonic()
        self.longest = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if b"WATCHDOG=1" in self._socket.recv(4096):
                    now = time.monotonic()
                    self.longest, self._last = max(self.longest, now - self._last), now

    def begin(self) -> None:
        self.longest, self._last = 0.0, time.monotonic()

    def look(self) -> float:
        """The longest time since then, the one under way included."""
        return max(self.longest, time.monotonic() - self._last)


class Hearing:
    """A listener of small messages: of each connection, `small.NAME.N`, the numbers only rise."""

    def __init__(self, context: zmq.Context[Any], bus: Bus) -> None:
        self._listener = Listener(context, bus.outbound, topic=b"small.")
        self.heard = 0
        self.disordered: list[bytes] = []
        self._last: dict[bytes, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._listener.socket.poll(50):
                topic = self._listener.socket.recv_multipart()[0]
                _, name, number = topic.split(b".")
                if int(number) <= self._last.get(name, -1):
                    self.disordered.append(topic)
                self._last[name] = int(number)
                self.heard += 1

    def close(self) -> None:
        self._end.set()
        self._thread.join()


class Trial:
    """A relay, those who use it, and what the peers of an example cost them."""

    def __init__(
        self,
        bus: Bus,
        relay: Process,
        beats: Beats,
        hearing: Hearing,
        others: tuple[Others, ...],
    ) -> None:
        self.bus, self.relay, self.beats, self.others = bus, relay, beats, others
        self.hearing = hearing
        self.calm = max(each.calm() for each in others)
        self.tried = 0

    def state(self) -> dict[str, Any]:
        return dict(health(self.bus).get("relay") or {})

    def counts(self) -> Counter[str]:
        """By cause; `*` is the sum of all messages."""
        state = self.state()
        counts, submit = state.get("counts", {}), state.get("submit", {})
        found: Counter[str] = Counter()
        for each in (counts.get("repaired"), counts.get("dropped"), submit.get("refused")):
            found.update(each or {})
        found.update(state.get("senders", {}).get("cut", {}))
        found["*"] = sum(found.values()) + sum(
            part.get(key, 0)
            for part, key in ((counts, "untouched"), (submit, "accepted"), (submit, "duplicate"))
        )
        found["connections"] = sum(state.get("connections", {}).get("sides", {}).values())
        return found

    def run(self, acts: list[Act]) -> list[str]:
        """What is wrong afterwards."""
        self.tried += 1
        wrong: list[str] = []
        before = self.counts()
        said_before = len(self.relay.output)
        expected: dict[int, list[str]] = {}
        sources = [
            f"127.{1 + self.tried // 250}.{1 + self.tried % 250}.{n + 1}" for n in range(len(acts))
        ]

        def act(number: int) -> None:
            try:
                expected[number] = acts[number].run(self.bus, sources[number])
            except (OSError, ConnectionError):  # it was turned away in the midst of the handshake
                expected[number] = []

        forget_peak(self.relay.pid)
        self.beats.begin()
        for each in self.others:
            each.begin()
        threads = [threading.Thread(target=act, args=(number,)) for number in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in self.others:
            each.go_on(3)
        beat = self.beats.look()
        limit = PAUSE + 3 * self.calm
        for each, name in zip(self.others, ("submitting", "publishing")):
            own = min(each.longest, each.longest_own)
            if own > limit and own > PAUSE * slowness() + 3 * self.calm:
                wrong.append(f"{name}: {own:.2f} s, of {each.longest:.2f}")
        # Two of them are due within what the watchdog waits for.
        if beat > WATCHDOG / 2 + limit:
            busy = max(each.longest - each.longest_own for each in self.others)
            if beat - busy > WATCHDOG / 2 + limit * slowness():
                wrong.append(f"a beat after {beat:.2f} s")
        if peak(self.relay.pid) > MEMORY:
            wrong.append(f"{peak(self.relay.pid) >> 20} MiB")
        assert self.relay.is_running()
        output = self.relay.output[said_before:]
        if "Traceback" in output or "internal error" in output:
            wrong.append("an error of its own")
        if self.hearing.disordered:
            wrong.append(f"not in order: {self.hearing.disordered[:3]}")
        after = self.counts()
        if any(after[cause] > before[cause] for cause in CUT) and not self._is_named(sources):
            wrong.append(f"who was cut off has no name: {sources}")
        for number, causes in expected.items():
            if causes and not self._rises(before, causes):
                wrong.append(f"{acts[number]}: none of {causes} was counted")
        return wrong

    def _is_named(self, sources: list[str]) -> bool:
        """Whether the log or /health has one of these."""
        peers = self.state().get("senders", {}).get("peers", [])
        said = self.relay.output + " ".join(peer["address"] for peer in peers)
        return any(f"{source}:" in said for source in sources)

    def _rises(self, before: Counter[str], causes: list[str]) -> bool:
        with contextlib.suppress(AssertionError):
            return wait_for(
                lambda: any(self.counts()[cause] > before[cause] for cause in causes), 2
            )
        return False


@pytest.fixture
def trial(bus: Bus, context: zmq.Context[Any]) -> Iterator[Trial]:
    # How long a disk takes is no matter of this test.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        bus.with_journal(http=True)
        bus.configure("memory", relay_journal=f"{directory}/journal.db")
        beats = Beats(bus.directory)
        relay = bus.relay(NOTIFY_SOCKET=beats.address, WATCHDOG_USEC=f"{WATCHDOG * 1e6:.0f}")
        submits = Others(relay.pid, submitting(bus.submit))
        publishes = Others(relay.pid, publishing(bus.inbound, bus.outbound))
        with contextlib.closing(Hearing(context, bus)) as hearing:
            relay.wait_for_line("connected, 1 now")
            with all_of(submits, publishes) as others:
                yield Trial(bus, relay, beats, hearing, others)


def test_whatever_some_do_costs_nobody_else_anything(trial: Trial) -> None:
    end = time.monotonic() + (SEARCH or USUALLY)

    @settings(
        max_examples=10_000,
        deadline=None,
        database=None,
        derandomize=not SEARCH,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(ACTS, min_size=1, max_size=3))
    def search(acts: list[Act]) -> None:
        if time.monotonic() > end and trial.tried > 3:  # a slow machine tries as many
            return
        wrong = trial.run(acts)
        if wrong:  # what is the peers' doing happens again, and what is the machine's does not
            again = trial.run(acts) and trial.run(acts)
            assert not again, (acts, wrong, again)

    search()
    print(f"{trial.tried} examples")
    assert trial.tried > 3
    assert wait_for(lambda: health(trial.bus).get("healthy"))
