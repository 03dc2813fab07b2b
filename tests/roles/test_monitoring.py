"""What playbooks/monitoring.yml writes for Prometheus, and what it refuses before it writes.

Hosts are this machine, of which nothing but a directory of the test is written.
What NRPE and Prometheus make of it is tried on hosts: molecule/production.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.roles.test_refusals import HERE, Run, run

pytestmark = pytest.mark.timeout(600)

PLAYBOOK = ROOT / "playbooks/monitoring.yml"
SOP = "https://docs.example.org/sop.html"
REACHABLE = {"fedmsg_base_relay_http": ["127.0.0.1:4002", "gw01:4002"]}
RULES = (ROOT / "files/prometheus/fedmsg-relay.rules.yml").read_text()


def inventory(
    directory: Path,
    relay: Mapping[str, Any] = REACHABLE,
    relays: tuple[str, ...] = ("gw01",),
    prometheus: Mapping[str, Mapping[str, Any]] = MappingProxyType({"noc01": {}}),
) -> dict[str, Any]:
    """A bus with a relay, and the hosts that run Prometheus with what is said of each."""
    paths = {
        "fedmsg_monitoring_targets_path": f"{directory}/relays.yml",
        "fedmsg_monitoring_rules_path": f"{directory}/alerts.rules.yml",
        "fedmsg_monitoring_sop": SOP,
    }
    hosts = {name: {**paths, **said} for name, said in prometheus.items()}
    return {
        "all": {"vars": {**HERE, "fedmsg_monitoring_nrpe": False}},
        "fedmsg_bus": {"hosts": {"gw01": dict(relay), "app01": {}}},
        "fedmsg_relay": {"hosts": dict.fromkeys(relays)},
        "fedmsg_monitoring": {"hosts": hosts},
    }


def changes(done: Run) -> list[str]:
    return [line["task"].partition(" : ")[2] for line in done.lines if line["changed"]]


def promtool(*words: str | Path) -> str:
    path = subprocess.run(
        [ROOT / "tools/setup/promtool"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [path, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first run has written: check mode predicted it, and a second run leaves it."""
    directory, runs = tmp_path_factory.mktemp("prometheus"), tmp_path_factory.mktemp("runs")
    hosts = inventory(
        directory, prometheus={"noc01": {"fedmsg_monitoring_labels": {"site": "rdu"}}}
    )
    predicted = run(runs / "check", hosts, PLAYBOOK, "--check", "--diff")
    assert predicted.returncode == 0, predicted.output
    assert list(directory.iterdir()) == []
    assert (
        f"+          runbook_url: '{{{{ or $externalLabels.fedmsg_relay_sop \"{SOP}\" }}}}#flood'"
        in (predicted.output)
    )
    real = run(runs / "first", hosts, PLAYBOOK)
    assert real.returncode == 0, real.output
    assert changes(real) == changes(predicted) == [
        "prometheus | Ensure the targets are the relays of the inventory",
        "prometheus | Ensure the alerts are those of this release",
    ]  # fmt: skip
    assert "systemctl reload prometheus.service" in " ".join(real.output.split())
    again = run(runs / "second", hosts, PLAYBOOK)
    assert (again.returncode, changes(again)) == (0, []), again.output
    assert "systemctl reload" not in again.output
    return directory


def test_targets_are_the_relays_with_their_labels(written: Path) -> None:
    text = (written / "relays.yml").read_text()
    assert "Ansible managed" in text
    assert yaml.safe_load(text) == [
        {
            "targets": ["gw01:4002"],
            "labels": {
                "relay": "gw01",
                "environment": "dev",
                "topic_prefix": "org.fedoraproject",
                "site": "rdu",
            },
        }
    ]


def test_prometheus_takes_both_files(written: Path) -> None:
    """By a config as docs/alerts.adoc has it."""
    page = (ROOT / "docs/alerts.adoc").read_text()
    [config] = re.findall(r"^\.In prometheus\.yml\n\[.*?\]\n----\n(.*?)^----$", page, re.M | re.S)
    (written / "fedmsg-relays.yml").write_bytes((written / "relays.yml").read_bytes())
    (written / "fedmsg-relay.rules.yml").write_bytes((written / "alerts.rules.yml").read_bytes())
    (written / "prometheus.yml").write_text(config)
    said = promtool("check", "config", written / "prometheus.yml")
    assert f"{len(yaml.safe_load(RULES)['groups'][0]['rules'])} rules found" in said
    promtool("check", "rules", "--lint=all", "--lint-fatal", written / "alerts.rules.yml")


def test_alerts_differ_in_their_links_alone(written: Path) -> None:
    text = (written / "alerts.rules.yml").read_text()
    links = len(re.findall("runbook_url: ", text))
    assert text.count(f'or $externalLabels.fedmsg_relay_sop "{SOP}" }}}}#') == links > 5
    assert text.replace(f'"{SOP}"', '"sop.html"') == RULES


def test_what_was_written_is_removed_again(tmp_path: Path) -> None:
    directory = tmp_path / "prometheus"
    directory.mkdir()
    hosts = inventory(directory)
    assert run(tmp_path / "first", hosts, PLAYBOOK).returncode == 0
    absent = "--extra-vars=fedmsg_monitoring_state=absent"
    (directory / "others.yml").touch()
    predicted = run(tmp_path / "check", hosts, PLAYBOOK, absent, "--check")
    assert len(list(directory.iterdir())) == 3
    # A relay that is gone is no reason to keep its alerts.
    real = run(tmp_path / "remove", inventory(directory, relays=()), PLAYBOOK, absent)
    assert real.returncode == 0, real.output
    assert changes(real) == changes(predicted) != []
    assert [path.name for path in directory.iterdir()] == ["others.yml"]


# What each of these is refused with.
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt": (
        {"fedmsg_monitoring_targets_pth": "/x.yml"},
        ["There is no variable fedmsg_monitoring_targets_pth", "fedmsg_monitoring_targets_path?"],
    ),
    "sop-that-is-no-address": (
        {"fedmsg_monitoring_sop": "javascript:1"},
        ["fedmsg_monitoring_sop is 'javascript:1'", "such as https://docs.example.org/sop.html"],
    ),
    "sop-that-ends-the-template": (
        {"fedmsg_monitoring_sop": 'https://docs.example.org/"or"'},
        ["fedmsg_monitoring_sop is", "the address of the SOP without a section"],
    ),
    "sop-with-a-line-end": (
        {"fedmsg_monitoring_sop": f"{SOP}\n"},
        ["fedmsg_monitoring_sop is", "the address of the SOP without a section"],
    ),
    "sop-with-a-section": (
        {"fedmsg_monitoring_sop": f"{SOP}#flood"},
        ["fedmsg_monitoring_sop is", "without a section"],
    ),
    "targets-that-prometheus-does-not-read": (
        {"fedmsg_monitoring_targets_path": "/etc/prometheus/relays.txt"},
        ["fedmsg_monitoring_targets_path is '/etc/prometheus/relays.txt'", "end in .yml or .yaml"],
    ),
    "both-files-in-one": (
        {
            "fedmsg_monitoring_targets_path": "/etc/a.yml",
            "fedmsg_monitoring_rules_path": "/etc/a.yml",
        },
        ["they must be two absolute paths"],
    ),
    "unit-that-is-no-service": (
        {"fedmsg_monitoring_prometheus_unit": "prometheus"},
        ["fedmsg_monitoring_prometheus_unit is 'prometheus'", "such as prometheus.service"],
    ),
    "label-that-is-none": (
        {"fedmsg_monitoring_labels": {"__address__": "elsewhere:1"}},
        [
            "fedmsg_monitoring_labels is {'__address__': 'elsewhere:1'}",
            "begin with a digit or with __",
        ],
    ),
    "label-of-ours": (
        {"fedmsg_monitoring_labels": {"relay": "x"}},
        ["relay, environment, topic_prefix, instance are set for each relay"],
    ),
    "label-that-is-no-text": (
        {"fedmsg_monitoring_labels": {"rack": 7}},
        ["fedmsg_monitoring_labels is {'rack': 7}", "values are text"],
    ),
    "directory-that-is-not-there": (
        {"fedmsg_monitoring_rules_path": "/nowhere/at/all/alerts.yml"},
        [
            "has no /nowhere/at/all",
            "Install Prometheus first, or say fedmsg_monitoring_targets_path",
        ],
    ),
    "switch-that-is-neither": (
        {"fedmsg_monitoring_reload_prometheus": "perhaps"},
        ["fedmsg_monitoring_reload_prometheus"],
    ),
    "nrpe-that-is-not-there": (
        {"fedmsg_monitoring_nrpe": True, "fedmsg_monitoring_nrpe_directory": "/nowhere/nrpe.d"},
        ["has no /nowhere/nrpe.d", "nagios-nrpe-server", "fedmsg_monitoring_nrpe: false"],
    ),
    "hub-that-is-an-option": (
        {"fedmsg_monitoring_nrpe": True, "fedmsg_monitoring_hubs": ["--host"]},
        ["fedmsg_monitoring_hubs is ['--host']", "a list of services such as fedmsg-hub"],
    ),
    "hub-that-begins-a-line": (
        {
            "fedmsg_monitoring_nrpe": True,
            "fedmsg_monitoring_hubs": ["hub\nallowed_hosts=0.0.0.0/0"],
        },
        ["a list of services such as fedmsg-hub"],
    ),
    "nrpe-unit-that-is-no-service": (
        {"fedmsg_monitoring_nrpe": True, "fedmsg_monitoring_nrpe_unit": "nrpe"},
        ["fedmsg_monitoring_nrpe_unit is 'nrpe'", "such as nagios-nrpe-server.service"],
    ),
    "not-deployed": (
        {"fedmsg_monitoring_nrpe": True, "fedmsg_monitoring_nrpe_directory": "/usr/lib"},
        ["has no /nowhere/fedmsg-probe", "Run playbooks/deploy.yml first"],
    ),
    "user-who-may-not-ask-hubs": (
        {
            "fedmsg_monitoring_nrpe": True,
            "fedmsg_monitoring_nrpe_directory": "/usr/lib",
            "fedmsg_monitoring_hubs": ["fedmsg-hub"],
        },
        ["NRPE is to ask fedmsg-hub, and its user nagios", "into fedmsg_base_monitoring_users"],
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """By case what the playbook's checks say of it: one run, with a play for each."""
    directory = tmp_path_factory.mktemp("refused")
    cases: dict[str, Mapping[str, Any]] = {name: said for name, (said, _) in WRONG.items()}
    cases["right"] = {}
    hosts = inventory(directory, prometheus=cases)
    hosts["fedmsg_bus"]["hosts"] |= dict.fromkeys(cases)
    checks = next(play for play in yaml.safe_load(PLAYBOOK.read_text()) if "tasks" in play)
    plays = [
        {
            "hosts": name,
            "gather_facts": False,
            "tasks": [{"block": checks["tasks"], "rescue": [{"ansible.builtin.meta": "noop"}]}],
        }
        for name in cases
    ]
    (directory / "cases.yml").write_text(json.dumps(plays))
    deployed = "'/nowhere/fedmsg-probe' if inventory_hostname == 'not-deployed' else '/usr/bin/env'"
    probe = json.dumps({"__fedmsg_monitoring_probe": f"{{{{ {deployed} }}}}"})
    done = run(directory / "run", hosts, directory / "cases.yml", f"--extra-vars={probe}")
    return {
        name: Run(
            done.returncode, [line for line in done.lines if line["host"] == name], done.output
        )
        for name in cases
    }


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_in_words(case: str, refused: dict[str, Run]) -> None:
    found = refused[case]
    assert found.lines, found.output
    missing = [words for words in WRONG[case][1] if words not in found.failures]
    assert not missing, f"not said: {missing}\nbut: {found.failures}"
    assert changes(found) == []


def test_right_input_is_not_refused(refused: dict[str, Run]) -> None:
    assert refused["right"].lines and refused["right"].failures == ""


@pytest.mark.parametrize(
    ("relay", "relays", "says"),
    [
        ({}, ("gw01",), ["Prometheus on noc01 cannot reach the metrics of gw01", '"gw01:4002"']),
        (REACHABLE, (), ["The inventory has no relay", "fedmsg_base_relay_group"]),
    ],
    ids=["metrics for the relay's own host alone", "no relay"],
)
def test_what_cannot_be_scraped_is_refused(
    tmp_path: Path, relay: dict[str, Any], relays: tuple[str, ...], says: list[str]
) -> None:
    directory = tmp_path / "prometheus"
    directory.mkdir()
    found = run(tmp_path / "run", inventory(directory, relay, relays), PLAYBOOK)
    assert found.returncode != 0, found.output
    assert [words for words in says if words not in found.failures] == [], found.failures
    assert list(directory.iterdir()) == []


def test_hosts_that_only_monitor_can_be_told_alone_and_see_every_bus(tmp_path: Path) -> None:
    """With --limit, and of an inventory with two buses, each of which others look at by itself."""
    directory = tmp_path / "prometheus"
    directory.mkdir()
    staging = {"fedmsg_base_bus_group": "stg_bus", "fedmsg_base_relay_group": "stg_relays"}
    hosts = inventory(directory)
    hosts["stg_bus"] = {
        "hosts": {"stg01": {}},
        "vars": {**staging, "fedmsg_base_environment": "stg"},
    }
    hosts["stg_relays"] = {"hosts": {"stg01": {"fedmsg_base_relay_http": ["0.0.0.0:4002"]}}}
    done = run(tmp_path / "run", hosts, PLAYBOOK, "--limit=noc01")
    assert done.returncode == 0, done.output
    found = yaml.safe_load((directory / "relays.yml").read_text())
    assert [(each["targets"], each["labels"]["environment"]) for each in found] == [
        (["gw01:4002"], "dev"),
        (["stg01:4002"], "stg"),
    ]


def test_the_page_names_what_there_is() -> None:
    """The commands of NRPE, and variables that the roles have."""
    page = (ROOT / "docs/alerts.adoc").read_text()
    rows = page.split("[[nrpe]]")[1].split("|===")[1]
    commands = runpy.run_path(str(ROOT / "plugins/filter/nrpe_commands.py"))["nrpe_commands"]
    assert re.findall(r"^\|`(check_\w+)`$", rows, re.M) == list(commands(["fedmsg-hub"], "gw01"))
    named = set(re.findall(r"\bfedmsg_(?:monitoring|base)_\w+", page))
    options = {
        name
        for role in ("fedmsg_base", "fedmsg_monitoring")
        for name in yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())[
            "argument_specs"
        ]["main"]["options"]
    }
    assert len(named) > 8 and named <= options
