"""One incident, from hosts that are well to hosts that are well again.

The order is that of the night: the fault comes, the alert sees it, Diagnose tells what it is and
touches nothing, Mitigate, Verify. Around it is what makes it a test: on hosts that are well
Diagnose must not match, numbered messages flow all the time and none is lost that the page does not
say, and in the end a deploy finds nothing to do.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from . import bus, machines, snapshot, traffic
from .document import Block, Command, Incident, Section
from .output import difference, matches

# Seconds between two tries of a block, and between the two looks that tell what changes by itself.
PAUSE = 0.5
LOOK = 1.0


LAST_WORDS = (
    "systemctl status --no-pager --lines=0 fedmsg-relay; journalctl --no-pager --lines=20"
    " --output=short-precise --unit 'fedmsg-*'; tail --lines=20 /var/log/fedmsg/fedmsg-relay.log"
)
BEFORE_MITIGATE = ("healthy", "inject", "alert", "diagnose")


class PageWrong(AssertionError):
    """The hosts do not do what the page says. `stage` is what was being done; `is_loss`: messages
    are lost that were acknowledged."""

    def __init__(self, stage: str, what: str, *, is_loss: bool = False) -> None:
        super().__init__(f"{stage}: {what}")
        self.stage = stage
        self.is_loss = is_loss


@dataclass
class Outcome:
    """`seconds` from the first command of Mitigate until Verify has passed."""

    seconds: float = 0
    cost: traffic.Cost = field(default_factory=traffic.Cost)
    relay_os: str = ""
    # Commands that tell nothing, for they match where they should not: see `observe`.
    idle: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """`without`: the number of the command of Mitigate that is left out. `observe`: try every
    command of the other phases where it must not match, too."""

    incident: Incident
    without: int | None = None
    observe: bool = False
    # Of the relay, at the moment of a failure.
    last_words: str = ""

    def run(self) -> Outcome:
        self._started = time.monotonic()
        self._outcome = Outcome()
        incident = self.incident
        self._stage("healthy")
        bus.renew()
        self._must_not_match("alert")
        self._must_not_match("diagnose")
        well = snapshot.take()
        self._outcome.relay_os = _os(machines.RELAY)
        try:
            with traffic.flowing() as flow:
                self._stage("inject")
                bus.inject(incident.id)
                self._incident()
            self._stage("messages")
            self._outcome.cost = self._cost(flow)
        except AssertionError:
            self.last_words = machines.root(machines.RELAY, LAST_WORDS).text
            raise
        finally:
            self._stage("heal")
            bus.heal(incident.id)
        if incident.of("rollback"):
            self._stage("roll back")
            self._do(incident.of("rollback"))
            self._stage("verify again")
            self._do(incident.of("verify"))
        self._stage("deploy")
        if changed := bus.deploy(self._to_deploy(well)):
            raise PageWrong(self.stage, f"a deploy finds drift: {', '.join(changed)}")
        bus.over()
        self._stage("over")
        return self._outcome

    def _to_deploy(self, well: snapshot.Snapshot) -> list[str]:
        """All hosts but those that are to the last process as they were when all was well: there a
        deploy would find what the one before has found."""
        if machines.inventory_differs():
            return list(machines.NAMES)
        return snapshot.touched(well, snapshot.take())

    def _incident(self) -> None:
        incident = self.incident
        self._stage("alert")
        self._do(incident.of("alert"))
        self._stage("diagnose")
        earlier = snapshot.take()
        time.sleep(LOOK)
        # What of a host that does not answer is different nobody can tell: it is asked once.
        there = [name for name in machines.NAMES if earlier[name] is not None]
        before = snapshot.take(there)
        self._do(incident.of("diagnose"))
        if changed := snapshot.changes(earlier, before, snapshot.take(there)):
            raise PageWrong(self.stage, "it changed the host:\n" + "\n".join(changed))
        if self.observe:
            self._note_idle("verify")
        self._stage("mitigate")
        began = time.monotonic()
        self._do(incident.of("mitigate"), self.without)
        self._stage("verify")
        self._do(incident.of("verify"))
        self._outcome.seconds = time.monotonic() - began
        if self._outcome.seconds > 60 * incident.budget:
            raise PageWrong(self.stage, f"it took {self._outcome.seconds:.0f} s, over its budget")

    def _stage(self, stage: str) -> None:
        self.stage = stage
        print(f"{time.monotonic() - self._started:6.1f} s  {stage}", flush=True)

    def _do(self, blocks: Sequence[Block], without: int | None = None) -> None:
        """Run blocks that must match, without the command of that number."""
        for block, commands in left(blocks, without):
            if wrong := try_for(block, commands):
                raise PageWrong(self.stage, wrong)

    def _must_not_match(self, phase: str) -> None:
        blocks = self.incident.of(phase)
        if self.observe:
            self._note_idle(phase)
        if all(not attempt(block, block.commands) for block in blocks):
            raise PageWrong(self.stage, f"{phase} matches on hosts that are well")

    def _note_idle(self, phase: str) -> None:
        for block in self.incident.of(phase):
            for command in block.commands:
                last = command is block.commands[-1]
                status = block.exit_status if last else 0
                if not _run(block.host, command, status):
                    self._outcome.idle.append(f"{block.where}: `{command.text}`")

    def _cost(self, flow: traffic.Traffic) -> traffic.Cost:
        try:
            return flow.cost(self.incident)
        except traffic.MessagesLost as error:
            raise PageWrong(self.stage, str(error), is_loss=error.is_acknowledged) from None


def left(blocks: Sequence[Block], without: int | None) -> Iterator[tuple[Block, list[Command]]]:
    """The commands of each block, counted through all of them, without that of one number."""
    number = itertools.count()
    for block in blocks:
        yield block, [command for command in block.commands if next(number) != without]


def check(section: Section) -> None:
    """Run the commands of a section on hosts that are well, which they leave as a deploy would."""
    bus.renew()
    before = snapshot.take()
    for block in section.blocks:
        if wrong := try_for(block, block.commands):
            raise PageWrong(section.id, wrong)
    if snapshot.changes(before, before, snapshot.take()) and (changed := bus.deploy()):
        raise PageWrong(section.id, f"a deploy finds drift: {', '.join(changed)}")


def try_for(block: Block, commands: Sequence[Command]) -> str:
    """Run commands of a block until they match or its time is over. What is wrong, or nothing."""
    deadline = time.monotonic() + block.within
    while wrong := attempt(block, commands):
        if time.monotonic() >= deadline:
            return wrong
        time.sleep(PAUSE)
    return ""


def attempt(block: Block, commands: Sequence[Command]) -> str:
    for command in commands:
        status = block.exit_status if command is block.commands[-1] else 0
        if wrong := _run(block.host, command, status):
            return f"{block.where}\n{wrong}"
    return ""


def _run(host: str, command: Command, status: int) -> str:
    printed = machines.run(host, command.text)
    if matches(command.output, printed.text) and printed.status == status:
        return ""
    return (
        f"on {host}: $ {command.text}\n{difference(command.output, printed.text)}\n"
        f"exit status {printed.status}, to be {status}"
    )


def _os(host: str) -> str:
    return (
        machines.check_root(host, '. /etc/os-release; echo "$NAME $VERSION_ID"')
        .strip()
        .replace("GNU/Linux ", "")
    )
