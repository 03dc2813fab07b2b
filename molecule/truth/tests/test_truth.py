"""What check mode says is what a deploy does; what tags and --limit leave out, it leaves alone.

In this order: relay02 is deployed by tags from bare; then all hosts at once, the others from bare;
then what a drift and a change ask for.
"""

from __future__ import annotations

import json

import bus
import predicted
import pytest
from predicted import Change
from testinfra.host import Host

# Some of these deploy six times.
pytestmark = pytest.mark.timeout(900)

Hosts = dict[str, Host]

TAGS = ("fedmsg_install", "fedmsg_configure", "fedmsg_run")
# A link, which leads to another directory after each deploy that has changed something in it.
PACKAGE = "/usr/local/lib/fedmsg-relay/fedmsg_relay"
NOT_THESE = (
    f"! -path {PACKAGE} ! -path '*/fedmsg-relay/releases*' ! -path '*/fedmsg-relay.previous*'"
    " ! -path '*/__pycache__*'"
)

CHANGE = ("--extra-vars", json.dumps({"fedmsg_base_zmq_linger": 1500}))


def deploy(*arguments: str) -> predicted.Run:
    """Deploy, which must succeed."""
    done = predicted.run("deploy", bus.INVENTORY, *arguments)
    assert done.returncode == 0, done.output
    return done


def tasks(changes: set[Change], host: str) -> set[str]:
    return {change.task for change in changes if change.host == host}


def phases(changes: set[Change]) -> set[str]:
    """The parts of the roles whose tasks made these changes: install, configure, run, start.

    Without `keep`, with which each of the first two begins where there is a release to be kept.
    """
    named = {change.task.partition(" | ")[0] for change in changes}
    return {"run" if name == "start" else name for name in named - {"keep"}}


@pytest.mark.parametrize(
    ("tag", "options", "before"),
    [
        ("fedmsg_configure", [], "--tags fedmsg_install."),
        ("fedmsg_run", ["--check"], "--tags fedmsg_install,fedmsg_configure."),
    ],
)
def test_a_bare_host_refuses_a_part_that_builds_on_another(
    tag: str, options: list[str], before: str, hosts: Hosts
) -> None:
    only = {"relay02": hosts["relay02"]}
    untouched = predicted.snapshots(only)
    done = predicted.run("deploy", bus.INVENTORY, "--limit=relay02", f"--tags={tag}", *options)
    assert done.returncode != 0
    assert done.changes == set()
    [message] = done.failures
    assert message.startswith("relay02 lacks /usr/local/lib/fedmsg-relay/")
    assert f"does only {tag}." in message
    assert before in message
    predicted.assert_same(untouched, predicted.snapshots(only))


def test_tags_do_their_part_alone_and_are_the_whole_together(hosts: Hosts) -> None:
    """On a bare host, and none of the other hosts has been looked at."""
    relay = hosts["relay02"]
    limit = "--limit=relay02"
    for tag in TAGS:
        done = predicted.compare(
            "deploy", bus.INVENTORY, {"relay02": relay}, [limit, f"--tags={tag}"]
        )
        assert phases(done.changes) == {tag.removeprefix("fedmsg_")}
        assert relay.file("/usr/local/bin/fedmsg-relay").exists
        assert bool(bus.config_of(relay)) == (tag != "fedmsg_install")
        assert relay.file("/etc/systemd/system/fedmsg-relay.service").exists == (
            tag != "fedmsg_install"
        )
        running = tag == "fedmsg_run"
        for unit in (bus.UNIT, "fedmsg-spool.path", "fedmsg-spool.timer"):
            assert (relay.run(f"systemctl is-active {unit}").rc == 0) == running, unit
            assert (relay.run(f"systemctl is-enabled {unit}").rc == 0) == running, unit
    assert bus.starts(relay) == 1


def test_first_run_is_as_predicted(hosts: Hosts) -> None:
    done = predicted.compare("deploy", bus.INVENTORY, hosts)
    for name in ("relay01", "pkgs01"):
        assert phases({each for each in done.changes if each.host == name}) == {
            "install", "configure", "run",
        }  # fmt: skip
        config = {path for host, path in done.files if host == name and "/etc/fedmsg.d/" in path}
        assert config == {f"/etc/fedmsg.d/{file}" for file in bus.CONFIG_FILES}
    # Tags have deployed this one: nothing is left to do, or to restart.
    assert tasks(done.changes, "relay02") == set()
    assert [bus.starts(hosts[name]) for name in ("relay01", "relay02")] == [1, 1]
    bus.probe(hosts["pkgs01"])


def test_limit_writes_the_config_of_the_whole_bus(hosts: Hosts) -> None:
    """relay02's was written when no other host was deployed."""
    config = bus.config_of(hosts["relay01"])
    assert {name: bus.config_of(host) for name, host in hosts.items()} == dict.fromkeys(
        hosts, config
    )
    relays = hosts["relay02"].file("/etc/fedmsg.d/relay.py").content_string
    for relay in ("relay01", "relay02"):
        assert f"tcp://{relay}:4001" in relays
    hosts["pkgs01"].check_output("rm /etc/fedmsg.d/*.py")
    only = {"pkgs01": hosts["pkgs01"]}
    done = predicted.compare("deploy", bus.INVENTORY, only, ["--limit=pkgs01"])
    assert {change.host for change in done.changes} == {"pkgs01"}
    assert bus.config_of(hosts["pkgs01"]) == config


# What somebody has done to a host by hand, and the relay's starts that putting it right takes.
DRIFTS = {
    "relay01": (
        "echo '# edited' >> /etc/fedmsg.d/base.py; chmod 600 /etc/fedmsg.d/relay.py;"
        f" echo '# edited' >> {PACKAGE}/query.py;"
        " chmod 700 /usr/local/bin/fedmsg-tail; rm /usr/local/bin/fedmsg-relay;"
        " systemctl disable fedmsg-spool.timer"
    ),
    "relay02": (
        "chmod 755 /var/spool/fedmsg; chown root /var/log/fedmsg;"
        " sed -i s/FreeBind=yes/FreeBind=no/ /etc/systemd/system/fedmsg-relay.socket;"
        " rm /etc/logrotate.d/fedmsg-relay; systemctl disable fedmsg-relay"
    ),
    "pkgs01": (
        "rm /etc/fedmsg.d/logging.py; echo '# edited' >> /etc/systemd/system/fedmsg-spool.path;"
        " ln -sf /nowhere /etc/tmpfiles.d/fedmsg-relay.conf; systemctl stop fedmsg-spool.timer"
    ),
}


def test_drift_is_shown_and_put_right_with_one_restart(hosts: Hosts) -> None:
    def kept() -> dict[str, str]:
        """What a drift may touch, in a form in which two deploys leave the same."""
        return {
            name: host.check_output(
                f"find /etc /usr/local /var/spool/fedmsg /var/log/fedmsg {PACKAGE}/"
                " -path '*fedmsg*' ! -name '*.log*' ! -path '/var/spool/fedmsg/*'"
                f" {NOT_THESE} -printf '%p %m %u %l\\n' | sort;"
                f" find /etc /usr/local {PACKAGE}/ -path '*fedmsg*' -type f {NOT_THESE}"
                " -exec sha256sum {} + | sort;"
                " systemctl is-active fedmsg-spool.timer fedmsg-spool.path;"
                " systemctl is-enabled fedmsg-spool.timer fedmsg-spool.path fedmsg-relay || true"
            )
            for name, host in hosts.items()
        }

    good = kept()
    relays = [hosts["relay01"], hosts["relay02"]]
    starts = [bus.starts(relay) for relay in relays]
    for name, drift in DRIFTS.items():
        hosts[name].check_output(drift)
    assert all(good[name] != bad for name, bad in kept().items())
    done = predicted.compare("deploy", bus.INVENTORY, hosts)
    assert kept() == good
    for name, path in (
        ("relay01", "/etc/fedmsg.d/base.py"),
        ("relay01", "/etc/fedmsg.d/relay.py"),
        ("relay01", f"{PACKAGE}/query.py"),
        ("relay01", "/usr/local/bin/fedmsg-tail"),
        ("relay01", "/usr/local/bin/fedmsg-relay"),
        ("relay02", "/etc/systemd/system/fedmsg-relay.socket"),
        ("relay02", "/etc/logrotate.d/fedmsg-relay"),
        ("pkgs01", "/etc/fedmsg.d/logging.py"),
        ("pkgs01", "/etc/systemd/system/fedmsg-spool.path"),
        ("pkgs01", "/etc/tmpfiles.d/fedmsg-relay.conf"),
    ):
        assert (name, path) in done.files
    assert [bus.starts(relay) for relay in relays] == [before + 1 for before in starts]
    assert deploy().changes == set()


def test_tags_work_alone_on_a_deployed_host(hosts: Hosts) -> None:
    """With something to do for each of them."""
    relay = hosts["relay01"]
    starts = bus.starts(relay)
    relay.check_output(
        f"echo '# edited' >> {PACKAGE}/query.py; systemctl disable fedmsg-spool.path"
    )
    for tag in TAGS:
        done = deploy("--limit=relay01", f"--tags={tag}", *CHANGE)
        assert phases(done.changes) == {tag.removeprefix("fedmsg_")}
        assert bus.starts(relay) == starts + (tag == "fedmsg_run")
    assert deploy("--limit=relay01", *CHANGE).changes == set()
    assert bus.starts(relay) == starts + 1
