"""The relay is there, is the only one, and is where the config says."""

from __future__ import annotations

import bus
import pytest
from testinfra.host import Host


def test_unit_is_enabled_and_active(relay: Host) -> None:
    service = relay.service(bus.UNIT)
    assert service.is_enabled
    assert service.is_running


def test_one_process_named_fedmsg_relay_owned_by_fedmsg(relay: Host) -> None:
    # What `check_procs -c 1:1 -C fedmsg-relay -u fedmsg` counts.
    assert relay.check_output("ps -C fedmsg-relay -o user=,comm=").split() == [
        "fedmsg",
        "fedmsg-relay",
    ]
    assert relay.check_output("ps -C fedmsg-relay -o pid=").strip() == bus.unit_property(
        relay, "MainPID"
    )


def test_ports_are_open_on_the_address_of_the_config_only(relay: Host) -> None:
    address = relay.check_output("getent ahostsv4 busgateway01").split()[0]
    listening = relay.check_output("ss --tcp --listening --numeric --no-header --processes")
    ours = {line.split()[3] for line in listening.splitlines() if '"fedmsg-' in line}
    assert ours == {f"{address}:{port}" for port in (2003, 2004, 4001)} | {"127.0.0.1:4002"}
    held = {line.split()[3] for line in listening.splitlines() if '"systemd"' in line}
    assert held == ours - {"127.0.0.1:4002"}


def test_backlog_is_served_by_a_process_of_its_own(relay: Host) -> None:
    assert relay.check_output("ps -C fedmsg-backlog -o user=,ppid=,nice=").split() == [
        "fedmsg",
        bus.unit_property(relay, "MainPID"),
        "10",  # whoever asks it much does not slow down the relay
    ]


def test_messages_are_checked_with_orjson(relay: Host) -> None:
    """In its sandbox. The scenario `production` is the one that does without."""
    with relay.sudo():
        assert (
            "/orjson"
            in relay.file(f"/proc/{bus.unit_property(relay, 'MainPID')}/maps").content_string
        )


def test_relay_is_healthy(relay: Host) -> None:
    command = "python3 -c %s"
    program = (
        "import urllib.request as http\n"
        "for page in 'health', 'metrics', 'raw':\n"
        "    answer = http.urlopen(f'http://127.0.0.1:4002/{page}')\n"
        "    print(page, answer.status, len(answer.read()) > 0)\n"
    )
    assert relay.check_output(command, program).splitlines() == [
        f"{page} 200 True" for page in ("health", "metrics", "raw")
    ]


def test_journal_is_the_service_user_s_alone(relay: Host) -> None:
    directory = relay.file("/var/lib/fedmsg-relay")
    assert (directory.user, directory.group, directory.mode) == ("fedmsg", "fedmsg", 0o700)
    journal = relay.file("/var/lib/fedmsg-relay/journal.db")
    assert (journal.user, journal.mode & 0o077) == ("fedmsg", 0)


def test_only_relay_hosts_have_the_daemon(app01: Host, pkgs01: Host) -> None:
    for host in (app01, pkgs01):
        assert not host.file("/usr/local/bin/fedmsg-relay").exists
        for unit in (bus.UNIT, bus.SOCKETS):
            assert not host.file(f"/etc/systemd/system/{unit}").exists
        assert not host.file("/var/lib/fedmsg-relay").exists
        assert not host.file("/usr/local/share/man/man8/fedmsg-relay.8").exists


@pytest.mark.parametrize("unit", [bus.UNIT, "fedmsg-spool.service"])
@pytest.mark.parametrize("name", ["busgateway01", "app01"])
def test_exposure_is_at_most_one_and_a_half(name: str, unit: str, relay: Host) -> None:
    """On both Debians: systemd's judgement differs between versions."""
    text = relay.file(f"/etc/systemd/system/{unit}").content_string
    host = bus.host(name)
    # The threshold is ten times the exposure; beyond it the command fails.
    judged = host.run(
        f"cd $(mktemp -d) && cat > {unit} <<'EOF'\n%s\nEOF\n"
        f"systemd-analyze security --offline=true --threshold=15 --no-pager ./{unit}",
        text,
    )
    said = [line for line in judged.stdout.splitlines() if "✗" in line or "Overall" in line]
    assert "Overall exposure level" in said[-1]
    assert judged.rc == 0, "\n".join(said)
