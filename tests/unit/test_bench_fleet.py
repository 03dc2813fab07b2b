"""The fleet of the bench: its inventories, its arithmetic, and what counts as a measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import fleet, fleet_hosts
from bench.document import verdicts
from bench.fleet import BEFORE, CHECK, DEPLOY, FIRST, MODULES, NOW, Fleet, Watch, Work, recap
from bench.fleet_hosts import RELAY, SUITES, checkout_of, hosts_of, inventory
from bench.fleet_report import fleet as tables
from bench.fleet_report import ratio, targets
from bench.parts import PARTS
from bench.plan import Plan
from bench.processes import MeasurementError
from bench.spread import Spread
from tests.support.programs import ROOT, Child
from tests.support.waiting import wait_for

REACHED = {
    host: {"ansible_host": "127.0.0.1", "ansible_port": port}
    for port, host in enumerate((RELAY, "app01", "pkgs01"), 2201)
}
RECAP = """
PLAY RECAP *********************************************************************
app01                      : ok=20   changed=0    unreachable=0    failed=0    skipped=30
node001                    : ok=20   changed=2    unreachable=0    failed=0    skipped=30
"""


class TestInventory:
    @pytest.mark.parametrize("names", [3, 4, 30, 300])
    def test_has_as_many_names_as_asked_for(self, names: int) -> None:
        found = inventory(REACHED, names)
        assert len(found["fedmsg_bus"]["hosts"]) == names
        assert list(found["fedmsg_relay"]["hosts"]) == [RELAY]

    def test_leads_further_names_to_all_hosts_but_the_relay(self) -> None:
        found = inventory(REACHED, 103)["fedmsg_bus"]["hosts"]
        ports = [said["ansible_port"] for host, said in found.items() if host not in REACHED]
        assert {port: ports.count(port) for port in ports} == {2202: 50, 2203: 50}
        assert {host: found[host] for host in REACHED} == REACHED

    def test_of_fewer_names_than_hosts_is_refused(self) -> None:
        with pytest.raises(MeasurementError, match="2 names are too few: there are 3 hosts"):
            inventory(REACHED, 2)


class TestRecap:
    def test_says_how_much_was_changed_on_each(self) -> None:
        assert recap(RECAP) == {"app01": 0, "node001": 2}

    @pytest.mark.parametrize(
        ("was", "becomes"), [("unreachable=0", "unreachable=1"), ("failed=0", "failed=1")]
    )
    def test_of_a_host_that_is_not_well_is_no_measurement(self, was: str, becomes: str) -> None:
        with pytest.raises(MeasurementError, match="not well: app01"):
            recap(RECAP.replace(was, becomes, 1))

    def test_without_hosts_is_no_measurement(self) -> None:
        with pytest.raises(MeasurementError, match="no host"):
            recap("PLAY RECAP ***\n")


def rows(seconds: dict[tuple[str, str, int], list[float]]) -> list[dict[str, Any]]:
    return [
        {"work": work, "subject": subject, "names": names, "round": number,
         "seconds": each, "cpu": each / 2, "peak": 100 << 20, "changed": 0}
        for (work, subject, names), found in seconds.items()
        for number, each in enumerate(found)
    ]  # fmt: skip


class TestRatios:
    def test_are_of_the_runs_of_one_round(self) -> None:
        # The machine was ten times slower in the second of three rounds.
        ours = rows({(DEPLOY, NOW, 3): [3.0, 33.0, 3.0]})
        theirs = rows({(DEPLOY, BEFORE, 3): [10.0, 100.0, 12.0]})
        assert ratio(ours, theirs) == Spread(0.3, 0.25, 0.33)
        assert ratio(ours, []) is None

    def test_are_in_the_table_with_their_spread(self) -> None:
        found = rows(
            {
                (MODULES, MODULES, 3): [2.0, 2.0],
                (DEPLOY, BEFORE, 3): [8.0, 10.0],
                (DEPLOY, NOW, 3): [4.0, 4.0],
            }
        )
        *_, now = tables(found)
        assert [cell.strip() for cell in now.split("|")[1:-1]] == [
            "deploy, now", "4.0", "2.0", "100", "0.45 (0.40..0.50)", "0.45 (0.40..0.50)", "2.00",
        ]  # fmt: skip

    def test_are_what_targets_are_in_terms_of(self) -> None:
        measured = {
            (MODULES, MODULES, 100): [33.0],
            (DEPLOY, BEFORE, 100): [225.0],
            (DEPLOY, NOW, 100): [60.0],
            (CHECK, BEFORE, 100): [67.0],
            (CHECK, NOW, 100): [40.0],
            (DEPLOY, NOW, 300): [180.0],
            (FIRST, BEFORE, 3): [10.0],
            (FIRST, NOW, 3): [5.0],
        }
        found = {each.name: each for each in targets({"fleet": {"rows": rows(measured)}})}
        assert {name.replace(BEFORE, "X"): each.is_met for name, each in found.items()} == {
            "deploy, nothing to change, 100 hosts, of X's": True,
            "deploy, nothing to change, 100 hosts, of three modules": True,
            "check, 100 hosts, of X's": False,
            "deploy, nothing to change, 300 hosts, of 100": True,
            "check, 300 hosts, of 100": None,
            "deploy, nothing to change, 3 hosts, of X's": None,
            "first deploy of 3 hosts, of X's": True,
        }

    def test_are_among_the_verdicts_of_the_bench(self) -> None:
        measured = rows({(FIRST, BEFORE, 3): [10.0], (FIRST, NOW, 3): [9.0]})
        [line] = [x for x in verdicts({"fleet": {"rows": measured}}) if "first deploy" in x]
        assert "NOT MET" in line and "0.9" in line


class TestRuns:
    """One is a run of a playbook; here a program stands for ansible-playbook."""

    def fleet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> Fleet:
        program = tmp_path / "ansible-playbook"
        source = "block = bytearray(96 << 20)\nimport time\nwhile time.process_time() < 0.3: pass\n"
        program.write_text(f"#!{sys.executable}\n{source}print({says!r})\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return Fleet(tmp_path, {NOW: ROOT}, {NOW: REACHED})

    def work(self) -> Work:
        return Work(DEPLOY, NOW, ROOT, ROOT / "playbooks/deploy.yml")

    def test_have_time_processor_time_memory_and_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.fleet(tmp_path, monkeypatch, RECAP).run(self.work(), 4)
        assert found["changed"] == 2
        assert found["seconds"] >= 0.3 and found["cpu"] >= 0.3
        assert found["peak"] > 0

    def test_that_fail_are_no_measurement(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad = self.fleet(tmp_path, monkeypatch, RECAP.replace("failed=0", "failed=1"))
        with pytest.raises(MeasurementError, match="not well: app01, node001"):
            bad.run(self.work(), 4)

    def test_are_in_turns_and_prepared_before_they_are_timed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[tuple[str, str, int]] = []

        def ran(_: Fleet, work: Work, names: int) -> dict[str, Any]:
            done.append((work.name, work.subject, names))
            return {"seconds": 1.0, "cpu": 1.0, "peak": 1, "changed": work.name == FIRST}

        monkeypatch.setattr(Fleet, "run", ran)
        both = Fleet(tmp_path, {BEFORE: tmp_path, NOW: ROOT}, {})
        plan = Plan((ROOT,), (), rounds=2)
        found = list(fleet._sized(plan, both, 3))
        assert len(found) == 2 * 7
        for number, (work, subject, _) in enumerate(done):
            if work == FIRST:
                assert done[number - 1] == ("remove", subject, 3)
        done.clear()
        assert len(list(fleet._sized(plan, both, 30))) == 2 * 5
        assert done[:2] == [(DEPLOY, BEFORE, 30), (DEPLOY, NOW, 30)]

    def test_that_change_what_is_there_are_no_measurement(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {"seconds": 1.0, "cpu": 1.0, "peak": 1, "changed": 4}
        monkeypatch.setattr(Fleet, "run", lambda *_: found)
        with pytest.raises(MeasurementError, match="three modules: 4 changes"):
            list(fleet._sized(Plan((ROOT,), ()), Fleet(tmp_path, {NOW: ROOT}, {}), 3))


def test_memory_is_that_of_a_process_and_its_children() -> None:
    child = "block = bytearray(32 << 20)\nprint('up', flush=True)\ninput()"
    source = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    with Child(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin and parent.stdout
        parent.stdout.readline()
        with Watch(parent.pid) as watch:
            wait_for(lambda: watch.peak, what="the first look")
        assert watch.peak > 32 << 20
        parent.stdin.close()


class TestHosts:
    def test_go_whatever_ends_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[tuple[str, ...]] = []

        def program(*arguments: str) -> None:
            done.append(arguments)
            if arguments[0] == "up" and arguments[1].endswith("-1"):
                raise KeyboardInterrupt

        monkeypatch.setattr(fleet_hosts, "_hosts", program)
        with pytest.raises(KeyboardInterrupt), hosts_of([BEFORE, NOW], tmp_path / "state"):
            raise AssertionError
        ups = [arguments[1:3] for arguments in done if arguments[0] == "up"]
        downs = [arguments[1:] for arguments in done if arguments[0] == "down"]
        assert len(ups) == 2 and set(ups) == set(downs)

    def test_are_the_demos(self) -> None:
        started = (ROOT / "tools" / "demo-hosts").read_text()
        assert all(suite.removesuffix("+roles") in started for suite in SUITES)


def test_a_commit_that_git_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"git has no 0000000.*fetch --unshallow"):
        checkout_of("0000000", tmp_path)


def test_it_runs_only_when_it_is_named() -> None:
    assert [name for name, part in PARTS.items() if part.on_request] == ["fleet"]
