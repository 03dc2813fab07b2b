"""The relay moves from app01 to busgateway01, and nobody notices: each test is a part of the way.

Numbered messages flow from the first to the last. Every interruption is one of those that an
operator meets: a firewall, a listener that nobody thought of, a publisher that stays connected.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import bus
import flow
import pytest
import yaml
from testinfra.host import Host

# Whole deploys, on a machine that may be busy with others.
pytestmark = pytest.mark.timeout(900)

HEARD = "/var/log/fedmsg-hub.log"
MARK = "/etc/fedmsg-move.json"
BOUNDS = ("-e", "silence=3", "-e", "patience=60")
MOVE = ("-e", "from=app01", "-e", "to=busgateway01", *BOUNDS)
BACK = ("-e", "from=busgateway01", "-e", "to=app01", *BOUNDS)

HOSTS = ("app01", "busgateway01", "pkgs01")

# (task, host): what the runs of the playbook that go forward have changed.
Changes = set[tuple[str, str]]
changed: Changes = set()

# As fedmsg-relay's outbound port on busgateway01 is in molecule.yml.
OUTBOUND = 4011

# As a service does that publishes now and then: it stays connected. An XPUB socket is told
# when it is.
CONNECTED = """
import sys, time, zmq
held = zmq.Context().socket(zmq.XPUB)
held.connect(sys.argv[1])
held.recv()
open(sys.argv[2], "w").close()
time.sleep(600)
"""
HOLDS = "/var/tmp/holds-a-connection"


def numbered(hosts: dict[str, Host]) -> contextlib.AbstractContextManager[flow.Flow]:
    listeners = [flow.Heard(hosts[name], HEARD) for name in ("app01", "pkgs01")]
    return flow.flowing(hosts["pkgs01"], listeners)


@pytest.fixture(scope="module")
def flowing(hosts: dict[str, Host]) -> Iterator[flow.Flow]:
    with numbered(hosts) as running:
        yield running


@pytest.fixture(scope="module")
def started(hosts: dict[str, Host], flowing: flow.Flow) -> tuple[str, ...]:
    """Which start of the old relay it was: it is spared every restart."""
    return bus.generation(hosts["app01"])


def move(*arguments: str) -> tuple[int, str]:
    """Run the playbook as an operator does: its exit code, and what it said, on one line."""
    done = bus.playbook("move", *MOVE, *arguments)
    if "rollback=true" not in arguments:
        changed.update(bus.changed_tasks(done.stdout))
    return done.returncode, re.sub(r"\s+", " ", done.stdout)


def moved(*arguments: str) -> str:
    status, said = move(*arguments)
    assert status == 0, said
    return said


def predicted() -> Changes:
    """What it says that it would change; it changes nothing."""
    hosts = [bus.host(name) for name in HOSTS]
    before = [(bus.config_of(host), step_of(host), bus.generation(host)) for host in hosts]
    done = bus.playbook("move", *MOVE, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    after = [(bus.config_of(host), step_of(host), bus.generation(host)) for host in hosts]
    assert after == before
    return bus.changed_tasks(done.stdout)


def step_of(host: Host) -> str:
    found = host.run(f"cat {MARK}")
    return str(json.loads(found.stdout)["step"]) if found.rc == 0 else ""


def configs(hosts: dict[str, Host]) -> list[dict[str, str]]:
    return [bus.config_of(host) for host in hosts.values()]


@pytest.fixture(scope="module")
def whole(started: tuple[str, ...]) -> Changes:
    """What check mode says of the whole move, before it: the new host has never been a relay."""
    changed.clear()
    return predicted()


@contextlib.contextmanager
def background(host: Host, *command: str) -> Iterator[None]:
    """A process of an ordinary user, until the end of the block."""
    person = bus.host(host.backend.host, root=False)
    words = " ".join(f"'{word}'" for word in command)
    pid = person.check_output(f"cd /; nohup {words} > /dev/null 2>&1 < /dev/null & echo $!")
    try:
        yield
    finally:
        person.run(f"kill {pid}")


def test_a_host_that_cannot_reach_the_new_one_is_named_and_nothing_changes(
    hosts: dict[str, Host], started: tuple[str, ...]
) -> None:
    before = configs(hosts)
    hosts["pkgs01"].check_output(
        "nft 'add table inet closed;"
        " add chain inet closed out { type filter hook output priority 0; };"
        f" add rule inet closed out tcp dport {OUTBOUND} reject with tcp reset'"
    )
    try:
        status, said = move()
    finally:
        hosts["pkgs01"].check_output("nft delete table inet closed")
    assert status != 0
    reason = f"pkgs01 cannot reach the new relay at busgateway01:{OUTBOUND}: connection refused"
    assert reason in said, said
    assert "app01 cannot reach" not in said
    assert configs(hosts) == before
    assert [step_of(host) for host in hosts.values()] == ["", "", ""]
    # Nobody listens there any more either.
    assert not hosts["busgateway01"].check_output(f"ss -Hltn sport = :{OUTBOUND}")


def test_it_is_taken_back_after_publishers_have_gone_over(
    hosts: dict[str, Host], started: tuple[str, ...], flowing: flow.Flow, whole: Changes
) -> None:
    before = configs(hosts)
    moved("-e", "stop_after=publishers")
    assert [step_of(host) for host in hosts.values()] == ["publishers"] * 3
    last = max(number for _, number in flowing.sent())
    bus.wait_for(lambda: max(number for _, number in flowing.sent()) > last + 3, "more messages")
    moved("-e", "rollback=true")
    assert configs(hosts) == before
    assert [step_of(host) for host in hosts.values()] == ["", "", ""]
    assert hosts["busgateway01"].run(f"systemctl is-active {bus.UNIT}").rc != 0
    # What the new relay had taken is in the old one's backlog.
    sent = flowing.sent()
    bus.wait_for(lambda: flowing.journaled([hosts["app01"]]) >= sent.keys(), "the whole backlog")
    assert bus.changed_tasks(bus.deploy()) == set()
    assert bus.generation(hosts["app01"]) == started


def test_a_listener_that_nobody_restarts_is_named(
    hosts: dict[str, Host], started: tuple[str, ...]
) -> None:
    address = hosts["busgateway01"].check_output("getent ahostsv4 busgateway01").split()[0]
    with background(hosts["busgateway01"], "fedmsg-tail"):
        bus.wait_for(lambda: hosts["busgateway01"].check_output("ss -Htn dport = :4001"), "it")
        status, said = move("-e", "stop_after=listeners")
        assert status != 0
        assert f"by their addresses: {address}. Restart them" in said, said
        assert step_of(hosts["pkgs01"]) == "relay"


def test_a_deploy_by_the_inventory_of_before_is_refused_meanwhile(hosts: dict[str, Host]) -> None:
    done = bus.playbook("deploy")
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert "The relay is on its way from app01 to busgateway01" in said, said
    assert bus.changed_tasks(done.stdout) == set()


def test_a_publisher_that_stays_connected_is_named(
    hosts: dict[str, Host], started: tuple[str, ...]
) -> None:
    publisher = ("python3", "-c", CONNECTED.replace("'", '"'), "tcp://app01:2003", HOLDS)
    with background(hosts["pkgs01"], *publisher):
        bus.wait_for(lambda: hosts["pkgs01"].file(HOLDS).exists, "its connection")
        status, said = move("-e", "patience=6", "-e", "silence=1")
        assert status != 0
        assert "not silent within 6 s: connected: pkgs01" in said, said
        assert step_of(hosts["pkgs01"]) == "publishers"
        assert bus.generation(hosts["app01"]) == started


def test_it_goes_on_to_the_end_where_it_was(
    hosts: dict[str, Host], started: tuple[str, ...], whole: Changes
) -> None:
    assert bus.generation(hosts["app01"]) == started
    relay = bus.generation(hosts["busgateway01"])
    said = moved()
    assert (
        "In the inventory put busgateway01 in the place of app01 in the group fedmsg_relay" in said
    )
    assert [step_of(host) for host in hosts.values()] == ["moved"] * 3
    # In several runs, each of which went on where the one before had ended.
    assert changed == whole, changed ^ whole
    assert hosts["app01"].run(f"systemctl is-active {bus.UNIT} {bus.SOCKETS}").stdout.split() == [
        "inactive", "inactive",
    ]  # fmt: skip
    assert bus.generation(hosts["busgateway01"]) == relay
    status, said = move("-e", "rollback=true")
    assert status != 0
    assert "app01 has been stopped as a relay" in said


def test_no_message_was_lost_or_doubled_and_the_backlog_has_them_all(
    hosts: dict[str, Host], flowing: flow.Flow
) -> None:
    flowing.stop()
    report = flowing.report([hosts["busgateway01"]])
    sent = sum(report.sent.values())
    print(f"sent {sent}, lost {report.lost}, doubled {report.doubled}, missed {report.missed}")
    assert min(report.sent.values()) > 25
    assert (report.lost, report.doubled, report.missed) == (0, 0, 0), report
    # From the backlog over HTTP, and not from the file: each once.
    program = (
        "import json, re, sys, urllib.request as http\n"
        "url = 'http://127.0.0.1:4002/raw?rows_per_page=100&order=asc&delta=86400&page='\n"
        "found, page, pages = [], 1, 1\n"
        "while page <= pages:\n"
        "    answer = json.load(http.urlopen(f'{url}{page}'))\n"
        "    pages, page = answer['pages'], page + 1\n"
        "    found += [str(message['msg'].get('log')) for message in answer['raw_messages']]\n"
        "print(json.dumps([text for text in found if text.startswith(sys.argv[1])]))\n"
    )
    found = json.loads(
        hosts["busgateway01"].check_output("python3 -c %s %s", program, flowing.name)
    )
    assert sorted(found) == sorted(f"{flowing.name}-{kind}-{n}." for kind, n in flowing.sent())


def test_the_inventory_of_before_is_refused_and_the_corrected_one_has_nothing_to_do(
    hosts: dict[str, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bus.playbook("deploy")
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert "The relay has moved from app01 to busgateway01, and this would undo it" in said, said
    done = bus.playbook("check")
    assert "the relay has moved from app01 to busgateway01" in re.sub(r"\s+", " ", done.stdout)
    relay, before = bus.generation(hosts["busgateway01"]), configs(hosts)
    monkeypatch.setattr(bus, "INVENTORY", str(corrected()))
    changed = bus.changed_tasks(bus.deploy())
    assert {task for task, _ in changed} == {"fedmsg_base : run | Ensure no mark of a move is left"}
    assert (bus.generation(hosts["busgateway01"]), configs(hosts)) == (relay, before)
    assert bus.changed_tasks(bus.deploy()) == set()
    done = bus.playbook("check")
    assert done.returncode == 0, done.stdout


def test_it_moves_back_and_there_again(
    hosts: dict[str, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the journal of the relay that it had before, which is no part of this move."""
    before, after = bus.INVENTORY, str(corrected())
    reports = []
    for way, target, inventory, then in (
        (BACK, "app01", after, before),
        (MOVE, "busgateway01", before, after),
    ):
        monkeypatch.setattr(bus, "INVENTORY", inventory)
        with numbered(hosts) as flowing:
            known = flowing.sent().keys()
            done = bus.playbook("move", *way, "-e", "stop_after=relay")
            assert done.returncode == 0, done.stdout
            # Before anybody hears of it the new relay has all there was.
            assert flowing.journaled([hosts[target]]) >= known
            done = bus.playbook("move", *way)
            assert done.returncode == 0, done.stdout
            monkeypatch.setattr(bus, "INVENTORY", then)
            bus.deploy()
        reports.append(flowing.report([hosts[target]]))
        # What was heard is in the backlog, too.
        assert flowing.journaled([hosts[target]]) >= flowing.sent().keys()
        kept = hosts[target].check_output("ls /var/lib/fedmsg-relay").split()
        assert len([name for name in kept if re.search(r"\.db\.before-\w+$", name)]) == 1, kept
    print("moved back, and there again:", *reports, sep="\n")
    for report in reports:
        assert min(report.sent.values()) > 25
        assert (report.lost, report.doubled, report.missed) == (0, 0, 0), report
    assert bus.changed_tasks(bus.deploy()) == set()


def corrected() -> Path:
    """The inventory with the new relay in the place of the old one."""
    path = Path(bus.INVENTORY)
    inventory = yaml.safe_load(path.read_text())
    hosts = inventory["fedmsg_relay"]["hosts"]
    hosts["busgateway01"] = inventory["fedmsg_bus"]["hosts"]["busgateway01"]
    del hosts["app01"]
    # In a directory of its own, with the variables of the one that it is made from.
    made = path.parent.parent / "corrected"
    made.mkdir(exist_ok=True)
    (made / "hosts.yml").write_text(yaml.safe_dump(inventory))
    for name in ("group_vars", "host_vars"):
        link = made / name
        if not link.is_symlink():
            link.symlink_to(path.parent / name)
    return made / "hosts.yml"
