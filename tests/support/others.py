"""Others, who use a relay while somebody does what he should not: how long each of them waits.

What counts is what the relay makes them wait. A busy machine makes them wait as well: that is told
from it by the kernel, which knows how long each thread was ready to run and had no processor. A
second relay, which nobody does anything to, tells it as well: what others wait there at the same
time is no doing of the first one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import zmq

from .messages import number_of, numbered
from .relays import Bus
from .sockets import Listener, Sender, Submitter
from .waiting import SLOWED, wait_for

# Seconds that nobody may be without an answer for, whatever one peer does.
PAUSE = 0.3
# Seconds of a processor that `slowness` takes on a machine of today.
USUAL_WORK = 0.035

# Does one thing and returns when it is done, by the number of the message.
Once = Callable[[int], None]


class Others:
    """Somebody who does one thing after the other, and how long the longest of them takes.

    `longest_own` is without the time for which neither program had a processor, though it wanted
    one: what a busy machine does is not the relay's doing. `prepare(context)` makes what is done.
    """

    def __init__(self, pid: int, prepare: Callable[[zmq.Context[Any]], Once]) -> None:
        self._pid = pid
        self._prepare = prepare
        self._end = threading.Event()
        self.longest = self.longest_own = 0.0
        self.number = 0
        self.failed: list[object] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        context = zmq.Context()
        try:
            once = self._prepare(context)
            while not self._end.is_set():
                before = {pid: without_processor(pid) for pid in (self._pid, os.getpid())}
                started = time.monotonic()
                once(self.number)
                taken = time.monotonic() - started
                self.longest = max(self.longest, taken)
                for pid, threads in before.items():
                    after = without_processor(pid)
                    # Of one thread: several may have waited at the same time.
                    taken -= max(after[each] - threads.get(each, 0.0) for each in after)
                self.longest_own = max(self.longest_own, taken)
                self.number += 1
        except BaseException as error:
            self.failed.append(error)
        finally:
            context.destroy(linger=0)

    def __enter__(self) -> Others:
        self._thread.start()
        self.go_on(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        assert not self.failed, self.failed

    def go_on(self, times: int) -> None:
        """Wait until it has been done so many times more: what is under way counts as well."""
        seen = self.number
        wait_for(lambda: self.number > seen + times or self.failed, 60)
        assert not self.failed, self.failed

    def begin(self) -> None:
        """Forget how long it has taken so far."""
        self.longest = self.longest_own = 0.0

    def calm(self) -> float:
        """How long the longest takes while nothing else happens."""
        self.begin()
        self.go_on(200)
        longest = self.longest
        self.begin()
        return longest


def submitting(endpoint: str, first: int = 0) -> Callable[[zmq.Context[Any]], Once]:
    """Submit a message, and wait until it is acknowledged."""

    def prepare(context: zmq.Context[Any]) -> Once:
        client = Submitter(context, endpoint)

        def once(number: int) -> None:
            reply = client.submit(*numbered(first + number), timeout=60)
            assert reply["ok"], reply

        return once

    return prepare


def publishing(inbound: str, outbound: str) -> Callable[[zmq.Context[Any]], Once]:
    """Publish a message, and wait until a listener has it: this one, and no other before it."""

    def prepare(context: zmq.Context[Any]) -> Once:
        listener, sender = Listener(context, outbound, topic=b"p"), Sender(context, inbound)

        def heard(number: int) -> bool:
            sender.send(b"p", numbered(number)[1])
            return bool(listener.socket.poll(100))

        # Until it is subscribed.
        first = -1
        while not heard(first):
            first -= 1
        while number_of(listener.receive()) != first:
            pass

        def once(number: int) -> None:
            sender.send(b"p", numbered(number)[1])
            found = number_of(listener.receive(60))
            assert found == number, f"{found} came, and {number} was due"

        return once

    return prepare


class Beside:
    """Others of a relay that something is done to, beside those of a relay that is left alone.

    `directory` is for the second relay's files and its journal: on the same disk as the first's.
    """

    def __init__(self, others: Others, directory: Path) -> None:
        self._others = others
        self._bus = Bus(directory, post_init_sleep=0.1)
        self._bus.with_journal()
        self._calm = 0.0
        self._alone: Others

    def __enter__(self) -> Beside:
        try:
            relay = self._bus.relay()
            self._alone = Others(relay.pid, submitting(self._bus.submit))
            self._alone.__enter__()
        except BaseException:
            self._bus.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._alone.__exit__()
        finally:
            self._bus.stop()

    def begin(self) -> None:
        """Learn how long it takes in calm times, and count from now on."""
        self._calm = self._others.calm()
        self._alone.begin()

    def assert_undisturbed(self) -> None:
        """The others have waited for less than PAUSE, and what they wait anyway.

        That is three times what they wait in calm times, and what those of the relay beside it
        have waited at most since `begin`.
        """
        self._others.go_on(5)
        self._alone.go_on(1)  # what is under way there counts as well
        longest, own = self._others.longest, self._others.longest_own
        alone = self._alone.longest
        print(
            f"longest {longest:.3f} s, with a processor {own:.3f} s, calm {self._calm:.3f} s,"
            f" at a relay left alone {alone:.3f} s"
        )
        took, anyway = min(longest, own), 3 * self._calm + alone
        assert took < PAUSE + anyway or took < PAUSE * slowness() + anyway


@contextmanager
def all_of(*several: Others) -> Iterator[tuple[Others, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(each) for each in several)


def without_processor(pid: int) -> dict[str, float]:
    """Seconds for which each thread of a process was ready to run and did not, by its number."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat") as stat:
            found[thread] = int(stat.read().split()[1]) / 1e9
    return found


def slowness() -> float:
    """How many times as long as usual a processor of this machine works on the same, at least 1."""
    least = float("inf")
    for _ in range(3):
        started = time.thread_time()
        total = 0
        for number in range(500_000):
            total += number & 7
        least = min(least, time.thread_time() - started)
    return max(1.0, least / USUAL_WORK) * SLOWED


def peak(pid: int) -> int:
    """The most memory that a process has had since `forget_peak`, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def forget_peak(pid: int) -> None:
    """See proc(5), clear_refs."""
    with open(f"/proc/{pid}/clear_refs", "w") as refs:
        refs.write("5")
