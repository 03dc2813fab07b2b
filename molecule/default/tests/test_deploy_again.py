"""Deploying again changes what has changed, restarts once for it, and refuses what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import bus
import pytest
from testinfra.host import Host

from tests.support.programs import Child

CHANGE = ("--extra-vars", json.dumps({"fedmsg_base_zmq_linger": 1500}))


def test_first_run_in_check_mode_predicted_the_real_one() -> None:
    """From the log of Molecule's own runs: `check`, then `converge`, on new hosts."""
    log = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ansible.log")
    if not log.exists():
        pytest.skip("only when Molecule has run the whole sequence")
    runs: dict[str, str] = {}
    for line in log.read_text().splitlines():
        if process := re.search(r" p=(\d+) ", line):
            runs[process[1]] = f"{runs.get(process[1], '')}\n{line}"
    deploys = [text for text in runs.values() if "PLAY [Deploy the relays]" in text]
    if len(deploys) < 2:
        pytest.skip("only when Molecule has run the whole sequence")
    predicted, real = map(bus.changed_tasks, deploys[:2])
    assert real, "the first deploy changed nothing"
    assert predicted == real


def test_second_run_changes_and_restarts_nothing(relay: Host) -> None:
    """In place of Molecule's step `idempotence`, which looks at less."""
    before = bus.generation(relay)
    said = bus.deploy()
    assert bus.changed_tasks(said) == set()
    assert bus.generation(relay) == before
    # At 3 a.m. each line that is not needed is one too many.
    assert "[WARNING]" not in said


def test_the_second_of_two_deploys_is_refused_and_names_the_first(relay: Host, app01: Host) -> None:
    lock = "/run/fedmsg-deploy.lock"
    command = ["ansible-playbook", "--inventory", bus.INVENTORY, "playbooks/deploy.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(bus.ROOT / "ansible.cfg")}
    for end in ("killed", "ended"):
        # A config that is its own shows whose the hosts have.
        own = [*command, *CHANGE] if end == "killed" else command
        with Child(
            own, cwd=bus.ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        ) as first:  # fmt: skip
            # Not the one that the killed deploy has left.
            begun = f"grep -s 'process {first.pid}\"' {lock}"
            bus.wait_for(lambda line=begun: app01.run(line).rc == 0, "the first to begin", 120)
            second = bus.playbook("deploy", *CHANGE)
            assert second.returncode != 0, second.stdout
            said = re.sub(r"\s+", " ", second.stdout)
            assert f"process {first.pid}" in said, second.stdout
            assert "Another deploy is at work" in said
            assert bus.changed_tasks(second.stdout) == set()
            if end == "killed":
                os.killpg(first.pid, signal.SIGKILL)
            output = first.communicate()[0]
        if end == "ended":
            # And with it what the killed one has left half done.
            assert first.returncode == 0, output
            assert not relay.file(lock).exists and not app01.file(lock).exists


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("deploy", ()),
        ("rollback", ()),
        ("remove", ()),
        ("move", ("--extra-vars", "from=busgateway01 to=app01")),
    ],
)
def test_whatever_changes_hosts_is_refused_beside_another_run(
    relay: Host, app01: Host, name: str, arguments: tuple[str, ...]
) -> None:
    """The other run is on a machine where nobody can look, and has claimed one host so far."""
    lock = "/run/fedmsg-deploy.lock"
    claim = {
        "run": "other", "by": "jane on control02, process 7", "what": "rollback",
        "node": "control02", "process": 7, "begun": 0, "claimed": time.time(),
    }  # fmt: skip
    relay.check_output(f"echo '{json.dumps(claim)}' > {lock}")
    before = bus.config_of(app01), bus.generation(relay)
    try:
        done = bus.playbook(name, *arguments)
        assert relay.file(lock).contains("control02") and not app01.file(lock).exists
    finally:
        relay.check_output(f"rm -f {lock}")
    said = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode != 0, done.stdout
    assert "Another rollback is at work: on busgateway01 that of jane on control02" in said
    assert bus.changed_tasks(done.stdout) == set()
    assert (bus.config_of(app01), bus.generation(relay)) == before


def test_one_changed_variable_restarts_exactly_once_there_and_back(
    relay: Host, app01: Host
) -> None:
    """Back by a rollback, beside which a deploy is refused."""
    starts, before = bus.starts(relay), (bus.config_of(relay), bus.config_of(app01))
    try:
        predicted = bus.changed_tasks(bus.deploy("--check", *CHANGE))
        assert bus.starts(relay) == starts
        real = bus.changed_tasks(bus.deploy(*CHANGE))
        assert predicted == real
        assert bus.starts(relay) == starts + 1
        assert '"zmq_linger": 1500' in relay.file("/etc/fedmsg.d/base.py").content_string
        rolled_back_beside_a_deploy(relay, app01)
        assert (bus.config_of(relay), bus.config_of(app01)) == before
        assert bus.starts(relay) == starts + 2
    except BaseException:
        bus.deploy()
        raise


def rolled_back_beside_a_deploy(relay: Host, app01: Host) -> None:
    lock = "/run/fedmsg-deploy.lock"
    command = ["ansible-playbook", "--inventory", bus.INVENTORY, "playbooks/rollback.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(bus.ROOT / "ansible.cfg")}
    with Child(
        command, cwd=bus.ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as first:  # fmt: skip
        begun = f"grep -s 'process {first.pid}\"' {lock}"
        bus.wait_for(lambda: app01.run(begun).rc == 0, "the rollback to begin", 120)
        with first.paused():
            second = bus.playbook("deploy")
        said = re.sub(r"\s+", " ", second.stdout)
        assert "Another rollback is at work" in said, second.stdout
        assert f"process {first.pid}" in said
        assert bus.changed_tasks(second.stdout) == set()
        output = first.communicate()[0]
    assert first.returncode == 0, output
    assert not relay.file(lock).exists and not app01.file(lock).exists


def test_changed_port_is_open_and_the_former_one_closed_after_one_restart(relay: Host) -> None:
    starts = bus.starts(relay)
    only = ("--limit", "busgateway01")
    change = (*only, "--extra-vars", json.dumps({"fedmsg_base_relay_submit_port": 2005}))
    address = relay.check_output("getent ahostsv4 busgateway01").split()[0]

    def held() -> set[str]:
        listening = relay.check_output("ss --tcp --listening --numeric --no-header --processes")
        return {line.split()[3] for line in listening.splitlines() if '"systemd"' in line}

    try:
        predicted = bus.changed_tasks(bus.deploy("--check", *change))
        real = bus.changed_tasks(bus.deploy(*change))
        assert predicted == real
        assert bus.starts(relay) == starts + 1
        assert held() == {f"{address}:{port}" for port in (2003, 2005, 4001)}
        assert bus.changed_tasks(bus.deploy(*change)) == set()
        done = relay.run("echo x | fedmsg-logger --verbose")
        assert (done.rc, "acked by tcp://busgateway01:2005" in done.stderr) == (0, True), done
    finally:
        bus.deploy(*only)
    assert bus.starts(relay) == starts + 2
    assert held() == {f"{address}:{port}" for port in (2003, 2004, 4001)}


def test_run_that_died_before_the_restart_is_made_good(relay: Host) -> None:
    """A run with only the tag of configuring stands for it: config written, relay not restarted."""
    before = bus.generation(relay)
    try:
        bus.deploy("--limit", "busgateway01", "--tags", "fedmsg_configure", *CHANGE)
        assert bus.generation(relay) == before
        output = bus.deploy("--limit", "busgateway01", *CHANGE)
        assert bus.generation(relay) != before
        assert not any("configure" in task for task, _ in bus.changed_tasks(output))
        after = bus.generation(relay)
        assert bus.changed_tasks(bus.deploy("--limit", "busgateway01", *CHANGE)) == set()
        assert bus.generation(relay) == after
    finally:
        bus.deploy("--limit", "busgateway01")


def test_limit_writes_the_config_of_the_whole_bus(app01: Host) -> None:
    before = bus.config_of(app01)
    app01.check_output("rm /etc/fedmsg.d/*.py")
    bus.deploy("--limit", "app01")
    assert bus.config_of(app01) == before


@pytest.fixture
def untouched(relay: Host) -> Iterator[None]:
    """Afterwards config and relay are as they were, and it serves."""
    config, generation = bus.config_of(relay), bus.generation(relay)
    yield
    assert bus.config_of(relay) == config
    assert bus.generation(relay) == generation
    bus.probe(relay)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"fedmsg_base_environment": "production"}, ["fedmsg_base_environment"]),
        (
            {
                "fedmsg_base_relay_inbound_ports": [70000],
                "fedmsg_base_relay_outbound_port": 2003,
                "fedmsg_base_relay_http": ["127.0.0.1:2004"],
            },
            [
                "fedmsg_base_relay_inbound_ports is [70000]",
                "fedmsg_base_relay_outbound_port is 2003",
                "fedmsg_base_relay_http is ['127.0.0.1:2004']",
                "each from 1 to 65535",
            ],
        ),
        (
            {
                "fedmsg_base_relay_journal": "journal.db",
                "fedmsg_base_publisher_spool": "/var/spool/fedmsg/",
            },
            ["the absolute path of a file", "absolute path of a directory"],
        ),
        ({"fedmsg_base_relay_inbound_ports": [22]}, ["port 22 is held by process"]),
        ({"fedmsg_base_relay_http": ["127.0.0.1:22"]}, ["port 22 is held by process"]),
        ({"fedmsg_relay_watchdog_sec": 0}, ["fedmsg_relay_watchdog_sec is 0"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_variable_is_refused(variables: dict, says: list[str], untouched: None) -> None:
    """Of each kind of check one, as a whole deploy: tests/roles/refusals.yml has all of them."""
    done = bus.playbook("deploy", "--extra-vars", json.dumps(variables))
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert [words for words in says if words not in said] == [], done.stdout
    assert bus.changed_tasks(done.stdout) == set()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"fedmsg_base_relay_log": "/proc/fedmsg.log"}, "/proc/fedmsg.log"),
        ({"fedmsg_base_relay_journal": "/root/journal.db"}, "/root/journal.db"),
        ({"fedmsg_base_extra_config": {"timeout": "soon"}}, "'timeout'"),
    ],
    ids=["relay_log", "relay_journal", "extra_config"],
)
def test_config_that_the_relay_would_not_load_is_refused(
    variables: dict, message: str, untouched: None
) -> None:
    done = bus.playbook("deploy", "--extra-vars", json.dumps(variables))
    assert done.returncode != 0
    assert message in done.stdout
    assert "refuses the configuration" in done.stdout
    assert bus.changed_tasks(done.stdout) == set()


def test_empty_relay_group_is_refused(untouched: None) -> None:
    variables = json.dumps({"fedmsg_base_relay_group": "nobody"})
    done = bus.playbook("deploy", "--limit", "app01", "--extra-vars", variables)
    assert done.returncode != 0
    assert "nobody (fedmsg_base_relay_group) has no host" in re.sub(r"\s+", " ", done.stdout)


def test_broken_file_of_somebody_else_is_refused(relay: Host, app01: Host) -> None:
    """Even with a good change of ours to write."""
    foreign = "/etc/fedmsg.d/zz-hand-made.py"
    relay.check_output(f"printf 'config = dict(\\n' > {foreign}")
    before, generation = bus.config_of(relay), bus.generation(relay)
    try:
        done = bus.playbook("deploy", *CHANGE)
        assert done.returncode != 0
        assert f"{foreign}:1: " in re.sub(r"\s+", " ", done.stdout)
        assert bus.changed_tasks(done.stdout) == set()
        assert bus.config_of(relay) == before
        assert bus.generation(relay) == generation
        bus.probe(app01)
    finally:
        relay.check_output(f"rm {foreign}")


def test_foreign_files_stay_and_count(relay: Host) -> None:
    foreign = "/etc/fedmsg.d/aa-hand-made.py"
    relay.check_output(f"echo 'config = dict(ours=1)' > {foreign}")
    try:
        bus.deploy("--limit", "busgateway01")
        assert relay.file(foreign).exists
    finally:
        relay.check_output(f"rm {foreign}")
