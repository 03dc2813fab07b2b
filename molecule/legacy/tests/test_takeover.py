"""Upstream's relay is taken over while its publishers and a listener go on: in this order."""

from __future__ import annotations

import json
import re

import bus
import flow as ours
import former
import pytest
from testinfra.host import Host

# A deploy to hosts that have nothing yet, on a busy machine.
pytestmark = pytest.mark.timeout(600)

HOSTS = ("busgateway01", "pkgs01")
FOREIGN = ("bodhi.py", "ssl.py", "zz-local.py")
DROP_IN = "/etc/systemd/system/fedmsg-relay.service.d/log.conf"
BACKUPS = "/var/backups/fedmsg-relay"
PROCEDURE = bus.ROOT / "docs/procedures/takeover.adoc"
# All that a takeover may touch. Not what upstream's relay has logged meanwhile.
STATE = (
    "for what in \"-printf '%m %u %p\\n'\" '-exec sha256sum {} +'; do eval find /etc /usr/local"
    " /var/backups -type f $what | sort; done; ls -d /var/lib/fedmsg* /var/spool/* 2>/dev/null;"
    " stat --format '%a %U %n' /var/log/fedmsg /var/log/fedmsg/*;"
    " systemctl show --property=MainPID,FragmentPath,DropInPaths fedmsg-relay.service"
)
# What upstream's library makes of the config.
LOAD = "import fedmsg.config as c, json; print(json.dumps(c.load_config(), default=str))"
predicted: set[tuple[str, str]] = set()


def upstream_config(host: Host) -> dict:
    return json.loads(
        host.check_output("cd / && runuser -u fedmsg -- python3 -W ignore -c %s", LOAD)
    )


def backups(host: Host) -> list[str]:
    return host.run(f"ls -d {BACKUPS}/*").stdout.split()


@pytest.fixture(scope="module")
def before(relay: Host, pkgs01: Host) -> dict:
    """Upstream's view of each host, its foreign files, and a listener that stays."""
    # Its old lines must survive.
    relay.check_output(f"echo 'a line of the former relay' >> {bus.LOG}")
    former.start_listener(pkgs01)
    return {
        "config": {name: upstream_config(bus.host(name)) for name in HOSTS},
        "files": {name: bus.config_of(bus.host(name)) for name in HOSTS},
        "listener": former.listener_pid(pkgs01),
    }


def test_the_former_relay_is_upstreams(relay: Host, before: dict) -> None:
    pid = bus.unit_property(relay, "MainPID")
    # Whatever it is called: it is known by its unit.
    assert relay.file(f"/proc/{pid}/comm").content_string == "python3\n"
    assert "/usr/bin/fedmsg-relay" in relay.file(f"/proc/{pid}/cmdline").content_string
    assert relay.file(bus.LOG).user == "root"
    assert relay.user("fedmsg").uid == 397


def test_what_peers_rely_on_is_refused_before_anything_changes(relay: Host, before: dict) -> None:
    state = relay.check_output(STATE)
    changes = {"fedmsg_base_relay_outbound_port": 4001, "fedmsg_base_zmq_linger": 1000}
    done = bus.playbook("deploy", "--extra-vars", json.dumps(changes))
    said = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode != 0
    assert "endpoints.relay_outbound is ['tcp://" in said, done.stdout
    assert "(set fedmsg_base_relay_outbound_port, fedmsg_base_address)" in said
    assert "zmq_linger is 2000 and would be 1000 (set fedmsg_base_zmq_linger)" in said
    assert "list in fedmsg_base_former_changes the keys that are to change" in said
    assert bus.changed_tasks(done.stdout) == set()
    assert relay.check_output(STATE) == state


def test_check_mode_changes_nothing(relay: Host, pkgs01: Host, before: dict) -> None:
    state = [host.check_output(STATE) for host in (relay, pkgs01)]
    predicted.update(bus.changed_tasks(bus.deploy("--check", "--diff")))
    assert predicted
    assert [host.check_output(STATE) for host in (relay, pkgs01)] == state


def test_takeover_while_messages_flow(
    relay: Host, pkgs01: Host, before: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[tuple[float, float]] = []
    with former.flowing(pkgs01) as flow, former.watching(relay, 9941, closed):
        output = bus.deploy()
        after = max(sent.number for sent in flow.sent()) + former.PUBLISHERS
        bus.wait_for(lambda: max(flow.heard()) > after, "messages after the takeover", 60)
    heard, sent = former.settle(flow), flow.sent()
    lost = [message for message in sent if message.number not in heard]
    doubled = sum(times - 1 for times in heard.values())
    seconds = sum(ended - began for began, ended in closed)
    ready = float(bus.unit_property(relay, "ActiveEnterTimestampMonotonic")) / 1e6
    boot = "python3 -c 'import time; print(time.time() - time.monotonic())'"
    ready += float(relay.check_output(boot))
    with capsys.disabled():
        print(f"\ntakeover: sent {len(sent)}, lost {len(lost)}, doubled {doubled}; "
              f"the inbound port was closed for {seconds * 1000:.0f} ms")  # fmt: skip
    assert not [message for message in sent if message.rc]
    assert doubled == 0
    assert len(closed) == 1
    # Upstream's publisher may lose what it is sending while there is no relay, and says nothing. It
    # has one message under way at a time, so it cannot be more than one each.
    assert len(lost) <= former.PUBLISHERS
    began = closed[0][0]
    assert all(message.ended > began - 1 and message.began < ready for message in lost), lost
    # The same process, which has heard both relays.
    assert former.listener_pid(pkgs01) == before["listener"]
    assert bus.changed_tasks(output) == predicted
    assert f"{backups(relay)[0]} has what is replaced" in output


def test_the_relay_is_ours_at_the_same_addresses(relay: Host) -> None:
    assert bus.unit_property(relay, "FragmentPath") == "/etc/systemd/system/fedmsg-relay.service"
    assert bus.unit_property(relay, "DropInPaths") == ""
    assert bus.unit_property(relay, "User") == "fedmsg"
    address = relay.check_output("getent ahostsv4 busgateway01").split()[0]
    listening = relay.check_output("ss --tcp --listening --numeric --no-header --processes")
    held = {line.split()[3] for line in listening.splitlines() if '"fedmsg-relay"' in line}
    assert {f"{address}:{port}" for port in (9941, 3998, 9942, 3999)} <= held


@pytest.mark.parametrize("name", HOSTS)
def test_foreign_files_and_extra_keys_stay(name: str, before: dict) -> None:
    host = bus.host(name)
    files, was = bus.config_of(host), before["files"][name]
    for foreign in FOREIGN:
        assert files[f"/etc/fedmsg.d/{foreign}"] == was[f"/etc/fedmsg.d/{foreign}"]
    for taken in bus.CONFIG_FILES:
        renamed = f"/etc/fedmsg.d/{taken.removesuffix('.py')}.former.py"
        assert files[renamed] == was[f"/etc/fedmsg.d/{taken}"]
    config, old = upstream_config(host), before["config"][name]
    for key in ("irc", "datagrepper_url", "relay_contact", "bodhi.queue", "zz", "zmq_strict"):
        assert config[key] == old[key]
    assert config["relay_contact"] == f"root@{name}"
    assert config["endpoints"]["bodhi.app01"] == old["endpoints"]["bodhi.app01"]
    assert config["endpoints"]["fas.fas01"] == ["tcp://fas01:3014"]
    assert config["logging"]["handlers"]["mailer"] == old["logging"]["handlers"]["mailer"]
    assert config["certnames"] == old["certnames"]
    # And ours, of the same files.
    shown = json.loads(host.check_output("/usr/local/bin/fedmsg-logger --print-config"))
    assert shown["endpoints"]["fas.fas01"] == ["tcp://fas01:3014"]
    host.check_output("cd / && python3 -W ignore -c 'import fedmsg, fedmsg_relay'")


def test_what_was_replaced_is_kept_once(relay: Host, before: dict) -> None:
    [backup] = backups(relay)
    was = before["files"]["busgateway01"]
    for name in bus.CONFIG_FILES:
        kept = relay.check_output(f"sha256sum {backup}/etc/fedmsg.d/{name}").split()[0]
        assert kept == was[f"/etc/fedmsg.d/{name}"]
    assert "User=root" in relay.file(f"{backup}{DROP_IN}").content_string
    assert relay.file(f"{backup}/etc/logrotate.d/fedmsg").exists
    listed = relay.file(f"{backup}/MANIFEST").content_string
    assert f"0644 root root - {bus.LOG}\n" in listed
    assert f" {DROP_IN}\n" in listed


def test_log_is_the_relays_and_has_its_old_lines(relay: Host) -> None:
    log = relay.file(bus.LOG)
    assert log.user == "fedmsg"
    assert "a line of the former relay" in log.content_string
    assert "] ready" in log.content_string
    assert relay.run("logrotate --debug /etc/logrotate.conf 2>&1 | grep -i 'error:'").stdout == ""
    assert not relay.file("/etc/logrotate.d/fedmsg").exists


def test_user_stays_as_it_was(relay: Host) -> None:
    user = relay.user("fedmsg")
    assert (user.uid, user.gid, user.home) == (397, 397, "/usr/share/fedmsg")


def test_second_deploy_changes_nothing_and_acknowledged_messages_arrive(
    relay: Host, pkgs01: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    state = [host.check_output(STATE) for host in (relay, pkgs01)]
    with ours.flowing(pkgs01, [ours.Heard(pkgs01, former.HEARD)]) as numbered:
        assert bus.changed_tasks(bus.deploy()) == set()
    assert [host.check_output(STATE) for host in (relay, pkgs01)] == state
    report = numbered.report([relay])
    with capsys.disabled():
        print(f"\nafter it: {report}")
    assert (report.lost, report.doubled, report.missed) == (0, 0, 0), report


def test_the_way_back_of_the_procedure(relay: Host, pkgs01: Host, before: dict) -> None:
    """Its commands, as they are written: upstream's relay runs again, and the listener hears."""
    section = PROCEDURE.read_text().partition("[#takeover-back]")[2]
    commands = re.findall(r"^\$ (.*)$", section, re.M)
    assert len(commands) >= 4
    for command in commands:
        relay.check_output(command)
    assert bus.config_of(relay) == before["files"]["busgateway01"]
    assert relay.file(DROP_IN).exists
    pid = bus.unit_property(relay, "MainPID")
    assert "/usr/bin/fedmsg-relay" in relay.file(f"/proc/{pid}/cmdline").content_string
    assert bus.unit_property(relay, "UnitFileState") == "enabled"
    with former.flowing(pkgs01) as flow:
        pass
    assert flow.heard().keys() >= {1}
    assert former.listener_pid(pkgs01) == before["listener"]
