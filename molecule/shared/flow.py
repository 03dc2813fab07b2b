"""Numbered messages from one host while something is done to the bus, and what became of each.

    with flow.flowing(bus.host("pkgs01"), [flow.Heard(bus.host("app01"), path)]) as numbered:
        ...
    report = numbered.report([bus.host("busgateway01")])
    assert (report.lost, report.doubled) == (0, 0), report

Two scripts publish, each message from a process or a socket of its own: `acked` by fedmsg-logger,
`legacy` as upstream's library does. See tests/sop/on_host/publish.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testinfra.host import Host

from tests.support.waiting import wait_for

_ON_HOST = Path(__file__).parents[2] / "tests" / "sop" / "on_host"
PUBLISH = (_ON_HOST / "publish.py").read_text()
BACKLOG = (_ON_HOST / "backlog.py").read_text()
KINDS = ("acked", "legacy")
# What a legacy sender says of a message that it sent before it was connected, see publish.py.
HURRIED = "hurried"
JOURNAL = "/var/lib/fedmsg-relay/journal.db"
SPOOL = "/var/spool/fedmsg"
UNIT = "sop-traffic"

# Seconds until the first messages of both kinds have come through; that the last ones may take, for
# a spool is drained every 30 s; and after which what has not come will not.
OPENING = 30.0
PATIENCE = 75.0
SETTLED = 3.0

# Which of the two scripts it is of, and its number.
Message = tuple[str, int]


@dataclass(frozen=True)
class Heard:
    """What a listener has heard: `path` on its host has what fedmsg-tail printed."""

    host: Host
    path: str


@dataclass
class Report:
    """Numbers of messages, by listener where it hears. `lost` are those that a listener has not
    heard and that no journal has, `missed` those that it can get from a backlog."""

    sent: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    # Those of them, by kind.
    lost_of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    doubled: int = 0
    missed: int = 0
    # Some of those, and what their senders said.
    examples: list[str] = field(default_factory=list)


class Flow:
    def __init__(self, publisher: Host, listeners: Sequence[Heard]) -> None:
        self.name = uuid.uuid4().hex[:12]
        self._path = f"/var/tmp/{UNIT}-{self.name}"
        self._publisher = publisher
        self._listeners = listeners

    def start(self) -> None:
        self.stop()
        self._publisher.check_output(
            f"systemctl reset-failed {UNIT} 2>/dev/null; rm -f /var/tmp/{UNIT}-*;"
            # systemd 252 would take the program for the description and, after a reload, its lines
            # for the unit file's: what the properties are then is forgotten.
            f" systemd-run --quiet --unit={UNIT} --description='numbered messages' --uid=operator"
            " --property=TimeoutStopSec=60"
            " --property=KillMode=mixed --working-directory=/"
            f" python3 -c {shlex.quote(PUBLISH)} {self.name} {self._path}"
        )

    def stop(self) -> None:
        """Messages that are under way still leave."""
        self._publisher.run(f"systemctl stop {UNIT}")

    def sent(self) -> dict[Message, str]:
        """Exit status, and what was said, of each message's sender."""
        lines = self._publisher.check_output(f"cat {self._path}").splitlines()
        return {(kind, number): f"{rc} {said}" for kind, number, rc, said in map(json.loads, lines)}

    def heard(self, listener: Heard) -> Counter[Message]:
        """How often the listener has heard each message, so far."""
        pattern = f"{self.name}-[a-z]*-[0-9]*\\."
        found = listener.host.run(f"grep -oa '{pattern}' {listener.path}")
        return Counter(self._parse(found.stdout))

    def journaled(self, relays: Sequence[Host]) -> set[Message]:
        """The messages that the journals of these hosts have."""
        program = f"python3 -c {shlex.quote(BACKLOG)} {JOURNAL} {self.name}"
        return {each for relay in relays for each in self._parse(relay.check_output(program))}

    def report(self, relays: Sequence[Host]) -> Report:
        """Wait until all messages have arrived that will, and count. The flow has to have ended.

        `relays`: hosts whose backlogs a listener can ask.
        """
        sent = self.sent()
        deadline = time.monotonic() + PATIENCE
        since: float | None = None
        while self._spooled() or any(sent.keys() - self.heard(each) for each in self._listeners):
            now = time.monotonic()
            since = None if self._spooled() else since or now
            if now > deadline or (since is not None and now - since > SETTLED):
                break
            time.sleep(0.3)
        report = Report({kind: sum(of == kind for of, _ in sent) for kind in KINDS})
        journaled = self.journaled(relays)
        for listener in self._listeners:
            heard = self.heard(listener)
            report.doubled += sum(times - 1 for times in heard.values())
            unheard = sent.keys() - heard
            report.lost += len(unheard - journaled)
            for kind, _ in unheard - journaled:
                report.lost_of[kind] += 1
            report.missed += len(unheard & journaled)
            report.examples += [f"{kind} {n}: {sent[kind, n]}" for kind, n in sorted(unheard)[:5]]
        return report

    def _spooled(self) -> int:
        find = f"find {SPOOL} -maxdepth 1 -name '[0-9]*'"
        return len(self._publisher.check_output(find).splitlines())

    def _parse(self, text: str) -> list[Message]:
        found = re.findall(rf"{self.name}-({'|'.join(KINDS)})-(\d+)\.", text)
        return [(kind, int(number)) for kind, number in found]


@contextlib.contextmanager
def flowing(publisher: Host, listeners: Sequence[Heard]) -> Iterator[Flow]:
    """Publish until the end of the block; its beginning is when every listener hears both kinds."""
    flow = Flow(publisher, listeners)
    flow.start()
    try:
        wait_for(
            lambda: all({k for k, _ in flow.heard(each)} == set(KINDS) for each in listeners),
            OPENING,
            "a message of each kind",
            pause=0.2,
        )
        yield flow
    finally:
        flow.stop()
