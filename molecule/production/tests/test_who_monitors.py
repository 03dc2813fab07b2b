"""Those who monitor the bus, with Debian's packages: Prometheus on pkgs01, NRPE on busgateway01.

playbooks/monitoring.yml runs after the deploy, which has put nagios into the group of the sockets
while NRPE ran. The tests follow each other: each goes on from what the one before has left.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import bus
import pytest
from testinfra.host import Host

PROMETHEUS, NRPE = "prometheus.service", "nagios-nrpe-server.service"
OTHER_SOP = "https://other.example.org/sop.html"
CONFIG = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files:
  - fedmsg-relay.rules.yml
scrape_configs:
  - job_name: fedmsg
    file_sd_configs:
      - files: [fedmsg-relays.yml]
"""


def started(host: Host, unit: str) -> tuple[str, str]:
    """Process and state of a unit."""
    shown = host.check_output(f"systemctl show --property=MainPID,ActiveState {unit}")
    said = dict(line.split("=", 1) for line in shown.splitlines())
    return said["MainPID"], said["ActiveState"]


def asked(pkgs01: Host, path: str) -> Any:
    """What Prometheus answers on its API, or None while it does not."""
    done = pkgs01.run(f"curl --silent --fail 'http://127.0.0.1:9090/api/v1/{path}'")
    return json.loads(done.stdout)["data"] if done.rc == 0 else None


def links(pkgs01: Host) -> list[str]:
    """Those that the alerts open, of those that Prometheus has."""
    groups = (asked(pkgs01, "rules") or {"groups": []})["groups"]
    return [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]


def told(*options: str) -> str:
    # The hosts of inventory/production with their variables, which the scenario adds to its own.
    more = Path(bus.INVENTORY).parent / "hosts"
    done = bus.playbook("monitoring", f"--inventory={more}", *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def variables(**values: Any) -> str:
    return f"--extra-vars={json.dumps(values)}"


EVERYTHING = variables(
    fedmsg_monitoring_reload_prometheus=True,
    fedmsg_monitoring_restart_nrpe=True,
    fedmsg_monitoring_sop=OTHER_SOP,
)


def check(relay: Host, command: str) -> str:
    """What Nagios gets to see, which must become OK: a busy machine answers late at first."""

    def well() -> str:
        done = relay.run(f"/usr/lib/nagios/plugins/check_nrpe -H 127.0.0.1 -t 60 -c {command}")
        return str(done.stdout) if done.rc == 0 else ""

    return bus.wait_for(well, f"{command} to be OK", 120)


@pytest.fixture(scope="module")
def first(relay: Host, pkgs01: Host) -> dict[str, Any]:
    """A first run, by default: what was there before, and what it said."""
    pkgs01.check_output(f"cat > /etc/prometheus/prometheus.yml <<'END'\n{CONFIG}END")
    pkgs01.check_output(f"systemctl restart {PROMETHEUS}")
    bus.wait_for(lambda: asked(pkgs01, "rules"), "Prometheus to answer", 60)
    assert relay.check_output("getent group fedmsg").endswith(":nagios")
    # As the first deploy has found it: with a user who was put into the group later.
    relay.check_output(
        f"gpasswd --delete nagios fedmsg && systemctl restart {NRPE} && gpasswd --add nagios fedmsg"
    )
    before = started(pkgs01, PROMETHEUS), started(relay, NRPE)
    predicted = bus.changed_tasks(told("--check", "--diff"))
    assert not relay.file("/etc/nagios/nrpe.d/fedmsg-relay.cfg").exists
    return {"before": before, "predicted": predicted, "said": told("--diff")}


def test_check_mode_predicted_what_the_first_run_wrote(first: dict[str, Any]) -> None:
    real = bus.changed_tasks(first["said"])
    assert sorted(host for _, host in real) == ["busgateway01", "pkgs01", "pkgs01"]
    assert first["predicted"] == real


def test_prometheus_scrapes_the_relay_by_itself(first: dict[str, Any], pkgs01: Host) -> None:
    def scraped() -> list[dict[str, str]]:
        found = (asked(pkgs01, "targets") or {"activeTargets": []})["activeTargets"]
        return [each["labels"] for each in found if each["health"] == "up"]

    [labels] = bus.wait_for(scraped, "the relay to be scraped", 60)
    assert labels == {
        "job": "fedmsg",
        "instance": "busgateway01:4002",
        "relay": "busgateway01",
        "environment": "prod",
        "topic_prefix": "org.fedoraproject",
    }


def test_nobody_is_restarted_or_reloaded_unasked(
    first: dict[str, Any], relay: Host, pkgs01: Host
) -> None:
    assert (started(pkgs01, PROMETHEUS), started(relay, NRPE)) == first["before"]
    assert links(pkgs01) == []
    said = re.sub(r"\s+", " ", first["said"])
    assert f"reads changed alerts when it is told to: systemctl reload {PROMETHEUS}" in said
    assert f"a new group until systemctl restart {NRPE}" in said


def test_where_variables_say_so_prometheus_is_reloaded_and_nrpe_restarted(
    first: dict[str, Any], relay: Host, pkgs01: Host
) -> None:
    """NRPE for its group alone: the commands were written before."""
    real = bus.changed_tasks(told(EVERYTHING))
    assert ("fedmsg_monitoring : restart | Ensure NRPE is restarted", "busgateway01") in real
    assert started(relay, NRPE)[0] != first["before"][1][0]
    # By the same process.
    assert started(pkgs01, PROMETHEUS) == first["before"][0]
    found = bus.wait_for(lambda: links(pkgs01), "the alerts to be loaded", 60)
    # As the rules have them: an alert that fires works the address out.
    assert [link for link in found if f'"{OTHER_SOP}" }}}}#' not in link] == []


def test_the_same_run_again_changes_nothing(relay: Host, pkgs01: Host) -> None:
    before = started(pkgs01, PROMETHEUS), started(relay, NRPE)
    said = told(EVERYTHING)
    assert bus.changed_tasks(said) == set()
    assert "[WARNING]" not in said
    assert (started(pkgs01, PROMETHEUS), started(relay, NRPE)) == before


def test_nagios_sees_the_bus_over_restarts_of_the_relay_and_of_nrpe(relay: Host) -> None:
    """Of the relay, and of what makes its directories at a boot."""
    assert "FEDMSG OK" in check(relay, "check_fedmsg_bus")
    assert "tcp://busgateway01:9941" in check(relay, "check_fedmsg_relay")
    assert "RelayConsumer in fedmsg-relay" in check(relay, "check_fedmsg_consumers")
    relay.check_output("systemctl stop fedmsg-relay.socket && rm -rf /run/fedmsg")
    relay.check_output("systemd-sysusers && systemd-tmpfiles --create --boot fedmsg-relay.conf")
    relay.check_output(f"systemctl start {bus.UNIT} && systemctl restart {NRPE}")
    assert "RelayConsumer in fedmsg-relay" in check(relay, "check_fedmsg_consumers")


def test_what_was_written_is_removed_and_a_prometheus_that_is_stopped_stays_so(
    relay: Host, pkgs01: Host
) -> None:
    # With a command that calls what is no longer there Nagios would go on to ask.
    assert "- /etc/nagios/nrpe.d/fedmsg-relay.cfg" in bus.playbook("remove", "--check").stdout
    pkgs01.check_output(f"systemctl stop {PROMETHEUS}")
    told(EVERYTHING, variables(fedmsg_monitoring_state="absent"))
    assert started(pkgs01, PROMETHEUS) == ("0", "inactive")
    assert pkgs01.check_output("ls /etc/prometheus | grep fedmsg || true") == ""
    assert not relay.file("/etc/nagios/nrpe.d/fedmsg-relay.cfg").exists
    done = relay.run("/usr/lib/nagios/plugins/check_nrpe -H 127.0.0.1 -c check_fedmsg_bus")
    assert done.rc == 3 and "not defined" in done.stdout
