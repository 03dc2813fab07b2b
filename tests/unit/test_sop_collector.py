"""How docs/sop.adoc is read, compared and judged: tests/sop, without hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.sop import plugin, proven, snapshot, traffic
from tests.sop.document import ALL, Command, DocumentError, Incident, read
from tests.sop.output import matches
from tests.sop.traffic import HURRIED, STARVED, Cost, MessagesLost, Traffic
from tests.sop.trial import Outcome, PageWrong, left

CHECK = """\
.On pkgs01
[source.on-pkgs01.check,console]
----
$ fedmsg-probe
FEDMSG OK - <round trip>
----
"""
INCIDENT = """\
[#port-in-use.incident]
=== Another program holds the port

Symptom:: It does not start.
Impact:: At most [.lost]#0# messages of `fedmsg-logger`, [.lost-legacy]#all# of others.
Budget:: Escalate after [.budget]#15# minutes.

.On pkgs01
[source.on-pkgs01.alert.exit-2,console]
----
$ fedmsg-probe
FEDMSG CRITICAL - <why>
----

==== Diagnose

. Ask systemd.
+
.On busgateway01
[source.on-busgateway01.diagnose.exit-3,console,subs="attributes+"]
----
$ systemctl is-active {unit}
activating
----

==== Mitigate

*Cost:* nothing.

.On busgateway01
[source.on-busgateway01.mitigate,console]
----
$ sudo fuser --kill \\
    2004/tcp
2004/tcp: <process>
$ sudo systemctl restart fedmsg-relay
----

.On the control host
[source.on-control.mitigate.optional,console]
----
$ ansible-playbook playbooks/check.yml
<lines>
----

==== Verify

.On pkgs01
[source.on-pkgs01.verify.within-30,console]
----
$ fedmsg-probe
FEDMSG OK - <round trip>
----

==== Roll back

.On busgateway01, by hand: it needs a person who decides
[source.on-busgateway01.manual,console]
----
$ sudo reboot
----

==== Escalate

To the owner.
"""


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Write a page and its fault: `page(text)` is the page's path."""

    def write(incident: str = INCIDENT, check: str = CHECK, fault: bool = True) -> Path:
        (tmp_path / "faults").mkdir(exist_ok=True)
        if fault:
            (tmp_path / "faults" / "port-in-use.yml").write_text("---\n")
        path = tmp_path / "page.adoc"
        path.write_text(
            f"= SOP\n:unit: fedmsg-relay\n\n[#working]\n== Is it working?\n\n{check}\n"
            f"== Incidents\n\n{incident}"
        )
        return path

    return write


def wrong_with(path: Path) -> str:
    with pytest.raises(DocumentError) as raised:
        read(path, path.parent / "faults")
    return str(raised.value)


def collected(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.sop.plugin", "--collect-only", "-q"]
    return subprocess.run(
        [*command, f"--sop-faults={path.parent / 'faults'}", *options, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_page_is_read_as_it_is_marked(page: Any) -> None:
    path = page()
    document = read(path, path.parent / "faults")
    [section] = document.sections
    assert (section.id, [block.phase for block in section.blocks]) == ("working", ["check"])
    [incident] = document.incidents
    assert incident.id == "port-in-use"
    assert incident.title == "Another program holds the port"
    assert (incident.budget, incident.lost, incident.lost_legacy) == (15, 0, ALL)
    assert incident.missed == 0
    assert [(block.phase, block.host) for block in incident.blocks] == [
        ("alert", "pkgs01"),
        ("diagnose", "busgateway01"),
        ("mitigate", "busgateway01"),
        ("mitigate", "control"),
        ("verify", "pkgs01"),
    ]
    [diagnose] = incident.of("diagnose")
    assert diagnose.commands == (Command("systemctl is-active fedmsg-relay", ("activating",)),)
    assert diagnose.exit_status == 3
    first, second = incident.of("mitigate")
    assert first.commands == (
        Command("sudo fuser --kill \\\n    2004/tcp", ("2004/tcp: <process>",)),
        Command("sudo systemctl restart fedmsg-relay", ()),
    )
    assert (first.optional, second.optional) == (False, True)
    [verify] = incident.of("verify")
    assert (verify.within, verify.exit_status) == (30, 0)


MISTAKES = {
    "an unmarked block": (
        ("[source.on-pkgs01.alert.exit-2,console]", "[source,console]"),
        "not marked: it needs on-HOST and a phase, or manual",
    ),
    "a block without a language": (
        ("[source.on-pkgs01.alert.exit-2,console]\n", ""),
        "not marked: it needs on-HOST and a phase, or manual",
    ),
    "a block without a host": (("source.on-pkgs01.alert", "source.alert"), "not marked"),
    "a phase of another section": (
        (".diagnose.exit-3", ".verify.exit-3"),
        "its phase is verify, and that of its section diagnose",
    ),
    "a phase in a section that has none": (
        ("To the owner.", ".On pkgs01\n[source.on-pkgs01.verify,console]\n----\n$ true\n----\n"),
        "its phase is verify, and that of its section none",
    ),
    "a host that is not there": (("on-pkgs01.verify", "on-pkgs02.verify"), "no such host: pkgs02"),
    "a title that does not say the host": (
        (".On the control host\n", ".Then\n"),
        'its title has to say "On the control host"',
    ),
    "a role that is mistyped": (("within-30", "witin-30"), "no such role: witin-30"),
    "two phases": ((".exit-3,", ".exit-3.mitigate,"), "marked twice"),
    "an optional diagnosis": ((".exit-3,", ".exit-3.optional,"), "only a mitigation is optional"),
    "no command": (("$ systemctl is-active {unit}\n", ""), "does not begin with a command"),
    "manual without a reason": ((", by hand: it needs a person who decides", ""), "no reason"),
    "a section that is missing": (("==== Escalate\n\nTo the owner.\n", ""), "its sections are"),
    "sections in another order": (("==== Roll back", "==== Escalate\n\n==== X"), "its sections"),
    "a label that is missing": (("Budget:: Escalate", "Later: escalate"), "no Budget"),
    "no budget": (("[.budget]#15#", "15"), "one number has to have the role budget: nothing"),
    "no number of lost messages": (("[.lost]#0#", "[.lost]#few#"), "the role lost: few"),
    "two numbers of lost messages": (("[.lost-legacy]#all#", "[.lost]#1#"), "the role lost: 0, 1"),
    "nothing that sees it": (
        ("alert.exit-2,console]", "manual,console]"),
        "no reason after",
    ),
    "the same id twice": (("To the owner.\n", f"To the owner.\n\n{INCIDENT}"), "port-in-use"),
    "an include that is not there": (("To the owner.", "include::nothing.adoc[]"), "nothing.adoc"),
}


@pytest.mark.parametrize(("change", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_refused(page: Any, change: tuple[str, str], said: str) -> None:
    assert INCIDENT.count(change[0]) == 1
    assert said in wrong_with(page(INCIDENT.replace(*change)))


def test_mistake_outside_of_incidents_is_refused(page: Any) -> None:
    assert "not marked" in wrong_with(page(check=CHECK.replace(".on-pkgs01.check", "")))
    assert "its phase is verify, and that of its section check" in wrong_with(
        page(check=CHECK.replace(".check", ".verify"))
    )


def test_incident_without_a_fault_is_refused(page: Any) -> None:
    assert "port-in-use: no fault, faults/port-in-use.yml" in wrong_with(page(fault=False))


def test_every_mistake_is_told_at_once(page: Any) -> None:
    text = INCIDENT.replace("within-30", "witin-30").replace(".exit-3", ".exit3")
    said = wrong_with(page(text))
    assert "witin-30" in said
    assert "exit3" in said


def test_mistake_fails_the_collection(page: Any) -> None:
    done = collected(page(INCIDENT.replace(".on-pkgs01.alert.exit-2", "")))
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "port-in-use: `$ fedmsg-probe`: not marked" in done.stdout
    assert "::port-in-use" not in done.stdout


def test_one_test_for_each_incident_and_manual_blocks_are_counted(page: Any) -> None:
    done = collected(page())
    assert done.returncode == 0, done.stdout
    tests = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert tests == ["check-working", "port-in-use"]
    assert "1 console blocks are run by hand only" in done.stdout
    assert "port-in-use, Roll back: `$ sudo reboot`: it needs a person who decides" in done.stdout


def test_mutation_leaves_out_one_command_at_a_time(page: Any) -> None:
    path = page()
    done = collected(path, "--sop-mutate")
    tests = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    names = ["port-in-use", *(f"port-in-use-without-{number}" for number in (1, 2, 3))]
    assert tests == names
    blocks = read(path, path.parent / "faults").incidents[0].of("mitigate")
    kill, restart, check = (command for block in blocks for command in block.commands)
    remain = [[commands for _, commands in left(blocks, n)] for n in (None, 0, 1, 2)]
    assert remain == [
        [[kill, restart], [check]],
        [[restart], [check]],
        [[kill], [check]],
        [[kill, restart], []],
    ]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("", "", True),
        ("", "\n", True),
        ("", "x", False),
        ("active", "active\n", True),
        ("active", "inactive\n", False),
        ("active", "active (running)\n", False),
        ("active", "active\nactive\n", False),
        ("a\nb", "a\n", False),
        ("pid=<pid>, fd", "pid=17, fd", True),
        ("pid=<pid>, fd", "pid=17\n, fd", False),
        ("<time> a <time> b", "1 a 2 b", True),
        ("a.c", "abc", False),
        ("a*", "aaa", False),
        # What is no word is no wildcard.
        ("<1>", "x", False),
        ("<!DOCTYPE>", "<!DOCTYPE>", True),
        ("a < b > c", "a x c", False),
        ("<lines>", "", True),
        ("<lines>", "a\nb\n\nc", True),
        ("a\n<lines>\nc", "a\nc", True),
        ("a\n<lines>\nc", "a\nc\nb\nc\n", True),
        ("a\n<lines>\nc", "a\nb", False),
        ("<lines>\nc\n<lines>", "a\nb", False),
        # Within a line, it is one like any other.
        ("say <lines>", "say a", True),
        ("say <lines>", "say a\nb", False),
        ("a\n\nb", "a\n   \nb   \n\n", True),
        ("<lines>" + "\n<lines>" * 20, "x\n" * 200, True),
    ],
)
def test_output_has_to_be_the_same(expected: str, printed: str, same: bool) -> None:
    assert matches(expected.splitlines(), printed) is same


def survey(**units: dict[str, Any]) -> dict[str, Any]:
    """What a host looks like that has these units, each with its process."""
    state = {"Type": "notify", "ActiveState": "active", "NRestarts": "0"}
    return {
        "unit": {name: {**state, **unit} for name, unit in units.items()},
        "process": {u["MainPID"]: f"p runs {n}" for n, u in units.items() if u["MainPID"] != "0"},
        "file": {"/etc/hosts": "644 0:0 10 1"},
    }


RUNS = survey(relay={"MainPID": "7"})


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (RUNS, 0),
        # By hand: the count of restarts is what it was, or begins anew.
        (survey(relay={"MainPID": "8"}), 3),
        (survey(relay={"MainPID": "0", "ActiveState": "inactive"}), 2),
        (survey(relay={"MainPID": "0", "ActiveState": "failed", "NRestarts": "1"}), 2),
        # By systemd.
        (survey(relay={"MainPID": "8", "NRestarts": "1"}), 0),
        (survey(relay={"MainPID": "0", "NRestarts": "1", "ActiveState": "activating"}), 0),
        # Of a unit that systemd has restarted, what else is another one was not its doing.
        (survey(relay={"MainPID": "8", "NRestarts": "1", "DropInPaths": "/x"}), 3),
        ({**RUNS, "file": {"/etc/hosts": "644 0:0 10 2"}}, 1),
        ({**RUNS, "file": {}}, 1),
        ({**RUNS, "process": {}}, 1),
        ({**RUNS, "process": {"7": "p stopped relay"}}, 1),
        (None, 0),
    ],
)
def test_change_on_a_host_is_found(after: Any, found: int) -> None:
    changes = snapshot.changes({"h": RUNS}, {"h": RUNS}, {"h": after})
    assert len(changes) == found, changes


def test_what_changes_by_itself_is_no_change() -> None:
    earlier, before, after = ({"h": {"file": {"/tmp/x": str(n), "/etc/y": "1"}}} for n in range(3))
    assert snapshot.changes(earlier, before, after) == []
    after["h"]["file"]["/etc/y"] = "2"
    assert snapshot.changes(earlier, before, after) == ["h: file /etc/y: was 1, is 2"]


@pytest.mark.parametrize(
    ("errors", "again", "tries", "good"),
    [
        ([], True, 1, True),
        ([PageWrong("verify", "it printed something else")], True, 2, True),
        ([AssertionError("the hosts are not well")], True, 2, True),
        ([PageWrong("verify", "it printed something else")], False, 1, False),
        ([PageWrong("verify", "first"), PageWrong("verify", "second")], True, 2, False),
        ([PageWrong("messages", "1 of 9 lost", is_loss=True)], True, 1, False),
    ],
)
def test_what_fails_is_tried_once_more_where_that_is_wanted(
    errors: list[AssertionError], again: bool, tries: int, good: bool
) -> None:
    said: list[str] = []
    config = SimpleNamespace(
        option=SimpleNamespace(sop_again=again), stash={plugin.FIRST_TRIES: said}
    )
    test: Any = SimpleNamespace(name="port-in-use", config=config, user_properties=[])
    left_over = list(errors)
    runs = 0

    def run() -> str:
        nonlocal runs
        runs += 1
        if left_over:
            raise left_over.pop(0)
        return "made"

    if good:
        assert plugin._Test._again(test, run) == "made"
        assert said == [f"port-in-use: {error}" for error in errors]
        # For tools/test, which reads pytest's report.
        assert test.user_properties == [("again", str(error)) for error in errors]
    else:
        with pytest.raises(AssertionError):
            plugin._Test._again(test, run)
        assert not said
    assert runs == tries


class Counted(Traffic):
    """Ten messages of each kind, of which these are nowhere; what each sender said."""

    def __init__(self, lost: dict[tuple[str, int], str]) -> None:
        super().__init__("", "")
        self._lost = lost

    def sent(self) -> dict[tuple[str, int], str]:
        every = [(kind, number) for kind in traffic.KINDS for number in range(10)]
        return {message: f"0 {self._lost.get(message, '')}" for message in every}

    def heard(self) -> set[tuple[str, int]]:
        return self.sent().keys() - self._lost.keys()

    def _spooled(self) -> int:
        return 0

    def _in_backlog(self) -> set[tuple[str, int]]:
        return set()


@pytest.mark.parametrize(
    ("lost", "good"),
    [
        ({}, True),
        ({("legacy", 3): HURRIED}, True),  # it was not connected, and nobody's fault
        ({("legacy", 3): ""}, False),
        ({("legacy", 3): HURRIED, ("legacy", 4): HURRIED}, False),
        ({("legacy", 3): HURRIED, ("legacy", 4): ""}, False),
        # The machine was overloaded: one in ten may be late for that, and one beside it as ever.
        ({("legacy", 3): STARVED}, True),
        ({("legacy", 3): STARVED, ("legacy", 4): HURRIED}, True),
        ({("legacy", 3): STARVED, ("legacy", 4): STARVED}, False),
        ({("acked", 3): ""}, False),
    ],
)
def test_lost_messages_are_counted_against_the_page(
    lost: dict[tuple[str, int], str], good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "SETTLED", 0)
    incident = Incident("an-incident", "", (), budget=15, lost=0, lost_legacy=0)
    if good:
        assert sum(Counted(lost).cost(incident).lost.values()) == len(lost)
    else:
        with pytest.raises(MessagesLost, match="the page says at most"):
            Counted(lost).cost(incident)


@pytest.fixture
def incidents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three incidents, a and b of them on the page, and where their table goes."""
    for name, kind in (("INCIDENTS", "adoc"), ("FAULTS", "yml")):
        directory = tmp_path / name
        directory.mkdir()
        for incident in "abc":
            (directory / f"{incident}.{kind}").write_text(f"{kind} of {incident}\n")
        monkeypatch.setattr(proven, name, directory)
    return tmp_path / "table.adoc"


OUTCOME = Outcome(
    12.3, Cost({"acked": 40, "legacy": 50}, {"acked": 0, "legacy": 7}, 0), "Debian 13"
)


def test_table_says_what_was_proven(incidents: Path) -> None:
    proven.write({"b": OUTCOME, "a": OUTCOME}, ["a", "b"], incidents)
    assert list(proven.rows(incidents)) == ["a", "b"]
    assert "|Debian 13 |12 |0 of 40, legacy 7 of 50" in proven.rows(incidents)["a"].cells
    assert proven.stale(["a", "b"], incidents) == []
    page = incidents.with_name("page.adoc")
    page.write_text(f"[#a]\n== A\n\n[#b]\n== B\n\ninclude::{incidents.name}[]\n")
    done = subprocess.run(
        ["asciidoctor", "--verbose", "--failure-level=INFO", "--out-file=-", page],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("<tr>") == 3


@pytest.mark.parametrize("kind", ["INCIDENTS/b.adoc", "FAULTS/b.yml"])
def test_table_that_is_older_than_an_incident_is_found(incidents: Path, kind: str) -> None:
    proven.write({"a": OUTCOME, "b": OUTCOME}, ["a", "b"], incidents)
    (incidents.parent / kind).write_text("something else\n")
    [said] = proven.stale(["a", "b"], incidents)
    assert said == "b: its text or its fault has changed since it was proven"
    proven.write({"b": OUTCOME}, ["a", "b"], incidents)
    assert proven.stale(["a", "b"], incidents) == []


def test_incident_that_is_new_or_gone_is_found(incidents: Path) -> None:
    assert proven.stale(["a"], incidents) == ["a: never proven"]
    proven.write({"a": OUTCOME, "b": OUTCOME}, ["a", "b"], incidents)
    assert proven.stale(["b", "c"], incidents) == ["c: never proven", "a: no longer an incident"]
    proven.write({"c": OUTCOME}, ["b", "c"], incidents)
    assert proven.stale(["b", "c"], incidents) == []


def test_hosts_are_touched_where_anything_differs_and_where_nobody_answers() -> None:
    def host(process: str = "1", mtime: int = 1) -> dict[str, dict[str, object]]:
        return {"process": {process: "fedmsg-relay runs"}, "file": {"/etc/x": mtime}}

    before = {"same": host(), "restarted": host(), "written": host(), "gone": host(), "back": None}
    after = {
        "same": host(),
        "restarted": host(process="2"),
        "written": host(mtime=2),
        "gone": None,
        "back": host(),
    }
    assert snapshot.touched(before, after) == ["back", "gone", "restarted", "written"]
