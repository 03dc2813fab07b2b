"""Numbered messages from one host to another while an incident lasts, and what became of them."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import wait_for

from . import machines
from .document import ALL, Incident

_ON_HOST = Path(__file__).parent / "on_host"
PUBLISH = (_ON_HOST / "publish.py").read_text()
BACKLOG = (_ON_HOST / "backlog.py").read_text()
UNIT = "sop-traffic"
SPOOL = "/var/spool/fedmsg"
HEARD = "/var/log/fedmsg-hub.log"
JOURNAL = "/var/lib/fedmsg-relay/journal.db"
KINDS = ("acked", "legacy")
# What the program says of a message that it may have sent for nothing, and how many of those may be
# lost beyond what the page says: all hosts share a machine, which may pause for half a second. One
# that is overloaded is late often: of those messages, one in ten of all.
HURRIED = "hurried"
STARVED = "starved and hurried"
PAUSES = 1
OVERLOADED = 0.1
# Seconds that the last messages may take: a spool is drained every 30 s, and each drain that finds
# no relay takes 20.
PATIENCE = 75
# Seconds after which what has not been heard will not be: nothing waits anywhere any more.
SETTLED = 3


class MessagesLost(AssertionError):
    """More messages are lost than the page says; `is_acknowledged`: of those that are safe."""

    def __init__(self, what: str, *, is_acknowledged: bool = False) -> None:
        super().__init__(what)
        self.is_acknowledged = is_acknowledged


@dataclass
class Cost:
    """How many messages there were, how many of them are lost, and how many a listener did not hear
    that are in the backlog; of each kind."""

    sent: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missed: int = 0


class Traffic:
    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name

    def heard(self) -> set[tuple[str, int]]:
        pattern = f"{self._name}-[a-z]*-[0-9]*\\."
        found = machines.root(machines.LISTENER, f"grep -oa '{pattern}' {HEARD}")
        return self._parse(found.text)

    def sent(self) -> dict[tuple[str, int], str]:
        """What each message's sender said."""
        lines = machines.check_root(machines.PUBLISHER, f"cat {self._path}").splitlines()
        return {(kind, number): f"{rc} {said}" for kind, number, rc, said in map(json.loads, lines)}

    def cost(self, incident: Incident) -> Cost:
        """Wait until all messages have arrived that will, and count. Raises MessagesLost."""
        sent = self.sent()
        allowed = {"acked": incident.lost, "legacy": incident.lost_legacy}
        awaited = {
            (kind, number)
            for kind, number in sent
            if allowed[kind] != ALL and incident.missed != ALL
        }
        deadline = time.monotonic() + PATIENCE
        empty_since: float | None = None
        while waiting := self._spooled() or awaited - self.heard():
            now = time.monotonic()
            if isinstance(waiting, int):
                empty_since = None
            elif empty_since is None:
                empty_since = now
            elif now - empty_since > SETTLED:
                break
            if now > deadline:
                break
            time.sleep(0.3)
        if spooled := self._spooled():
            raise MessagesLost(f"{spooled} messages are still in the spool of {machines.PUBLISHER}")
        unheard = sent.keys() - self.heard()
        lost = unheard - self._in_backlog() if unheard else set()
        cost = Cost(
            {kind: sum(of == kind for of, _ in sent) for kind in KINDS},
            {kind: sum(of == kind for of, _ in lost) for kind in KINDS},
            len(unheard) - len(lost),
        )
        starved = sum(sent[message].endswith(STARVED) for message in lost)
        hurried = sum(sent[message].endswith(HURRIED) for message in lost) - starved
        allowed["legacy"] += min(PAUSES, hurried)
        allowed["legacy"] += min(math.ceil(OVERLOADED * cost.sent["legacy"]), starved)
        examples = ", ".join(f"{kind} {n} ({sent[kind, n]})" for kind, n in sorted(lost)[:5])
        for kind in KINDS:
            if cost.lost[kind] > allowed[kind]:
                raise MessagesLost(
                    f"{cost.lost[kind]} of {cost.sent[kind]} messages lost ({kind}), and the page"
                    f" says at most {allowed[kind]:.0f}: {examples}",
                    is_acknowledged=kind == "acked",
                )
        if cost.missed > incident.missed:
            raise MessagesLost(
                f"the listener missed {cost.missed} messages that are in the backlog, and the page"
                f" says at most {incident.missed:.0f}"
            )
        return cost

    def _spooled(self) -> int:
        find = f"find {SPOOL} -maxdepth 1 -name '[0-9]*'"
        return len(machines.check_root(machines.PUBLISHER, find).splitlines())

    def _in_backlog(self) -> set[tuple[str, int]]:
        found = ""
        for relay in machines.NAMES:
            # From the file, for it may be too many messages for pages of a hundred.
            program = f"python3 -c {shlex.quote(BACKLOG)} {JOURNAL} {self._name}"
            found += machines.root(relay, program).text
        return self._parse(found)

    def _parse(self, text: str) -> set[tuple[str, int]]:
        found = re.findall(rf"{self._name}-({'|'.join(KINDS)})-(\d+)\.", text)
        return {(kind, int(number)) for kind, number in found}


@contextlib.contextmanager
def flowing() -> Iterator[Traffic]:
    """Publish until the end of the block; its beginning is when messages of each kind arrive."""
    name = uuid.uuid4().hex[:12]
    path = f"/var/tmp/{UNIT}-{name}"
    start = (
        f"systemctl reset-failed {UNIT} 2>/dev/null; rm -f /var/tmp/{UNIT}-*;"
        # systemd 252 would take the program for the description and, after a reload, its lines for
        # the unit file's: what the properties are then is forgotten.
        f" systemd-run --quiet --unit={UNIT} --description='numbered messages' --uid=operator"
        " --property=TimeoutStopSec=60"
        f" --property=KillMode=mixed --working-directory=/"
        f" python3 -c {shlex.quote(PUBLISH)} {name} {path}"
    )
    stop = f"systemctl stop {UNIT}"
    machines.root(machines.PUBLISHER, stop)
    machines.check_root(machines.PUBLISHER, start)
    try:
        traffic = Traffic(path, name)
        wait_for(
            lambda: {kind for kind, _ in traffic.heard()} == set(KINDS),
            what="messages of each kind to arrive at the listener",
            pause=0.2,
        )
        yield traffic
    finally:
        machines.root(machines.PUBLISHER, stop)
