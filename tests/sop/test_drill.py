"""The drill, with a program in place of the person; on the hosts of tools/sop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.programs import Child

from . import machines
from .document import ROOT

CLOCK_RUNS = "  these hosts\n"
# Seconds a drill may take: before it the hosts are made as new, and after it again.
LIMIT = 600
pytestmark = pytest.mark.timeout(LIMIT + 60)

# A fault that is over before anybody can do something about it.
HICCUP = """
- name: Restart the relay
  hosts: fedmsg_relay
  become: true
  gather_facts: false
  tasks:
    - name: Restart it
      ansible.builtin.command:
        argv: [systemctl, restart, fedmsg-relay.service]
      changed_when: true
"""
HICCUP_PAGE = """
= A page

== Incidents

[#hiccup.incident]
=== The relay has had hiccups

Symptom:: The probe fails.
Impact:: [.lost]#0# and [.lost-legacy]#1#.
Budget:: [.budget]#15# minutes.

.On pkgs01
[source.on-pkgs01.alert.exit-2,console]
----
$ fedmsg-probe
FEDMSG CRITICAL - <what>
----

==== Diagnose

.On pkgs01
[source.on-pkgs01.diagnose.exit-2,console]
----
$ fedmsg-probe
FEDMSG CRITICAL - <what>
----

==== Mitigate

.On busgateway01
[source.on-busgateway01.mitigate,console]
----
$ sudo systemctl restart fedmsg-relay
----

==== Verify

.On pkgs01
[source.on-pkgs01.verify,console]
----
$ fedmsg-probe
FEDMSG OK - <what>
----

==== Roll back

==== Escalate
"""


class Run:
    """A drill, as a process; `printed` so far."""

    def __init__(self, *options: str) -> None:
        self.printed = ""
        self._process = Child(
            [sys.executable, "-m", "tests.sop.drill", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._stopper = threading.Timer(LIMIT, self._process.kill)
        self._stopper.start()

    def until(self, words: str) -> None:
        """Read on until a line has these words in it."""
        for line in self._lines():
            if words in line:
                return
        pytest.fail(f"the drill ended without {words!r}:\n{self.printed}")

    def to_the_end(self) -> int:
        for _ in self._lines():
            pass
        return self._process.wait()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self._stopper.cancel()
        # It takes back what it has broken.
        self._process.terminate()
        self._process.communicate()

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout
        for line in self._process.stdout:
            self.printed += line
            yield line


@pytest.fixture
def drill() -> Iterator[Callable[..., Run]]:
    runs = []

    def start(*options: str) -> Run:
        runs.append(Run(*options))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture(scope="module")
def seen_before_the_end() -> set[str]:
    """What drills printed until they were over, of all tests."""
    return set()


def probe() -> machines.Printed:
    return machines.run(machines.PUBLISHER, "fedmsg-probe")


def test_a_fault_that_somebody_mends(
    drill: Callable[..., Run], seen_before_the_end: set[str]
) -> None:
    run = drill("relay-down")
    run.until(CLOCK_RUNS)
    seen_before_the_end.add(run.printed)
    assert probe().status == 2
    machines.check_root(machines.RELAY, "systemctl restart fedmsg-relay")
    assert run.to_the_end() == 0
    found = re.search(r"^All is well after (\d+) s\. ", run.printed, re.M)
    assert found, run.printed
    assert 0 < int(found[1]) < 60
    assert "\nThe relay is stopped\n====" in run.printed
    assert run.printed.endswith("The hosts are well.\n")


def test_somebody_gives_up(drill: Callable[..., Run], seen_before_the_end: set[str]) -> None:
    run = drill("port-in-use")
    run.until(CLOCK_RUNS)
    seen_before_the_end.add(run.printed)
    # It says how to reach the hosts, and what it says works.
    [shell] = re.findall(r"the control host +(\S+)", run.printed)
    commands = "ssh busgateway01 systemctl is-active fedmsg-relay; ls inventory/production; exit\n"
    answer = subprocess.run(
        ["sh", shell], cwd=ROOT, input=commands, capture_output=True, text=True, timeout=30
    )
    assert answer.stdout.split() == ["activating", "connections.json", "hosts.yml"]
    run.interrupt()
    assert run.to_the_end() == 0
    assert "\nYou gave up. This is what applied, from sop.adoc:\n" in run.printed
    assert "\nAnother program holds a port of the relay\n====" in run.printed
    assert run.printed.endswith("The hosts are well.\n")
    assert probe().status == 0


def test_nothing_was_needed(
    drill: Callable[..., Run], seen_before_the_end: set[str], tmp_path: Path
) -> None:
    (tmp_path / "hiccup.yml").write_text(HICCUP)
    (tmp_path / "page.adoc").write_text(HICCUP_PAGE)
    run = drill("--page", str(tmp_path / "page.adoc"), "--faults", str(tmp_path))
    run.until(CLOCK_RUNS)
    seen_before_the_end.add(run.printed)
    assert run.to_the_end() == 0
    assert re.search(r"^All is well after \d s\. ", run.printed, re.M), run.printed
    assert "\nThe relay has had hiccups\n====" in run.printed


def test_nothing_tells_which_it_is_before_the_end(seen_before_the_end: set[str]) -> None:
    assert len(seen_before_the_end) == 1


def test_an_incident_that_does_not_exist(drill: Callable[..., Run]) -> None:
    run = drill("no-such-thing")
    assert run.to_the_end() == 1
    assert "no such incident: no-such-thing; there are relay-down, " in run.printed
