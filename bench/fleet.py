"""What a run of the playbooks costs by the size of the inventory: a build beside an earlier one.

Also beside three trivial modules, which is what any run of Ansible pays. Everything of it is on one
machine: hosts and control host share its processors. So a run's own processor time is beside its
seconds.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.programs import ROOT

from .fleet_hosts import Variables, checkout_of, hosts_of, inventory
from .plan import Plan, Row, alternated
from .processes import MeasurementError, Program, family

# The state that its targets are in terms of.
BEFORE = "65574cb"
NOW = "now"
MODULES = "three modules"
# `first`: of hosts that have the packages already, for the network's time is nobody's.
CHECK, DEPLOY, FIRST = "check", "deploy", "first deploy"

FULL = (3, 30, 100, 300)
QUICK = (3, 30)
# A first deploy is of these names alone: many of them on one host would do the same at once.
FEW = 3
ROUNDS = {3: 5, 30: 3, 100: 2}
# Seconds: between two looks at the memory, and that a run may take.
INTERVAL = 0.5
PATIENCE = 3600.0

RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Work:
    """A run to be measured: `subject` is whose; `checkout` the files that it runs by."""

    name: str
    subject: str
    checkout: Path
    playbook: Path
    options: tuple[str, ...] = ()


class Fleet:
    """The builds with their hosts, and a directory for what runs leave."""

    def __init__(
        self,
        directory: Path,
        checkouts: Mapping[str, Path],
        reached: Mapping[str, Mapping[str, Variables]],
    ) -> None:
        self._directory = directory
        self.checkouts = checkouts
        self._reached = reached

    def run(self, work: Work, names: int) -> dict[str, Any]:
        """Seconds, processor seconds, and the most bytes of memory; how many tasks changed what.

        Raises MeasurementError if a host failed or did not answer.
        """
        said = inventory(self._reached[self._owner(work)], names)
        listed = self._directory / "inventory.json"
        listed.write_text(json.dumps(said), encoding="utf-8")
        command = [shutil.which("ansible-playbook") or "ansible-playbook"]
        command += [f"--inventory={listed}", str(work.playbook), *work.options]
        started = _times()
        program = Program(
            self._directory, command, environment(work.checkout), name=f"{work.name}-{names}"
        )
        try:
            with Watch(program.pid) as watch:
                status = program.wait_for_end(PATIENCE)
            used = _times()
            text = program.output
            if status:
                program.fail(f"ended with {status}")
        finally:
            program.stop()
            program.log.unlink(missing_ok=True)
        return {
            "seconds": used[0] - started[0],
            "cpu": used[1] - started[1],
            "peak": watch.peak,
            "changed": sum(changes for changes in recap(text).values()),
        }

    def _owner(self, work: Work) -> str:
        return NOW if work.subject == MODULES else work.subject


def run(plan: Plan) -> list[Row]:
    checkouts = _named(plan)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fedmsg-bench-") as temporary:
        directory = Path(temporary)
        builds = {BEFORE: checkout_of(BEFORE, directory / BEFORE), **checkouts}
        with hosts_of(list(builds), directory / "hosts") as reached:
            fleet = Fleet(directory, builds, reached)
            for build in builds:
                fleet.run(_work(fleet, DEPLOY, build), FEW)
            for names in plan.names or plan.of(FULL, QUICK):
                for row in _sized(plan, fleet, names):
                    rows.append(row)
                    plan.say(said(row))
    return rows


def _sized(plan: Plan, fleet: Fleet, names: int) -> Iterator[Row]:
    """All runs with so many names, in turns."""
    works = [Work(MODULES, MODULES, fleet.checkouts[NOW], ROOT / "bench/playbooks/modules.yml")]
    kinds = (CHECK, DEPLOY, FIRST) if names == FEW else (CHECK, DEPLOY)
    works += [_work(fleet, kind, build) for kind in kinds for build in fleet.checkouts]
    # What follows from the inventory is on the hosts before anything is timed.
    for build in fleet.checkouts:
        if names != FEW:
            fleet.run(_work(fleet, DEPLOY, build), names)
    for number, work in alternated(plan.rounds_or(ROUNDS.get(names, 1), 1), works):
        if work.name == FIRST:
            fleet.run(_work(fleet, "remove", work.subject), names)
        found = fleet.run(work, names)
        if (found["changed"] > 0) is not (work.name == FIRST):
            raise MeasurementError(f"{work.subject}, {work.name}: {found['changed']} changes")
        place = {"work": work.name, "subject": work.subject, "names": names, "round": number}
        yield {**place, **found}


def _work(fleet: Fleet, name: str, build: str) -> Work:
    checkout = fleet.checkouts[build]
    playbook = "deploy" if name == FIRST else name
    return Work(name, build, checkout, checkout / "playbooks" / f"{playbook}.yml")


def _named(plan: Plan) -> dict[str, Path]:
    """The checkouts of a run: the first is `now`, and so are the others with their number."""
    return {
        NOW if number == 0 else f"{NOW}@{number + 1}": checkout.resolve()
        for number, checkout in enumerate(plan.checkouts)
    }


def said(row: Row) -> str:
    return (
        f"{row['names']} names, {row['subject']}, {row['work']}: {row['seconds']:.1f} s,"
        f" {row['cpu']:.1f} s of processors, {row['peak'] / 2**20:.0f} MiB"
    )


def recap(text: str) -> dict[str, int]:
    """How many tasks changed something, by name of the inventory, from what a playbook printed.

    Raises MeasurementError if a host failed or was unreachable, or if none was there.
    """
    found = RECAP.findall(text)
    bad = [host for host, _, unreachable, failed in found if int(unreachable) + int(failed)]
    if bad or not found:
        raise MeasurementError(f"not well: {', '.join(bad) or 'no host'}: {text[-2000:]}")
    return {host: int(changed) for host, changed, *_ in found}


def environment(checkout: Path) -> dict[str, str]:
    """For a playbook of a checkout: by its ansible.cfg, and nothing of this user's."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ANSIBLE_", "FEDMSG_")) or key == "ANSIBLE_HOME"
    }
    return {**kept, "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


class Watch:
    """Looks how much memory a process and its descendants have together, until it is left.

    `peak`: bytes. Of memory that several of them share each has its share.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(memory, family(self._pid))))
            if self._ended.wait(INTERVAL):
                return


def memory(pid: int) -> int:
    """Bytes of memory (PSS) of a process; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else 0


def _times() -> tuple[float, float]:
    """Seconds of the clock, and those of processors that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), used.ru_utime + used.ru_stime
