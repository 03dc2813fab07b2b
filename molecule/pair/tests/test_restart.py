"""playbooks/restart.yml: one relay after the other, and only while the bus can do without it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import bus
import flow
import pair
import pytest
from testinfra.host import Host

pytestmark = pytest.mark.timeout(600)

RESTARTED = "start | Ensure the relay is enabled and restarted"
FOREIGN = "/etc/fedmsg.d/zz-hand-made.py"
HOLDER = "port-holder.service"


def said(output: str) -> str:
    return re.sub(r"\s+", " ", output)


def test_each_is_restarted_once_under_load(relay01: Host, relay02: Host, app01: Host) -> None:
    relays = [relay01, relay02]
    before = [bus.starts(relay) for relay in relays]
    predicted = bus.playbook("restart", "--check", "--diff")
    assert predicted.returncode == 0, predicted.stdout
    assert bus.changed_tasks(predicted.stdout) == {(f"fedmsg_relay : {RESTARTED}", relay)
                                                   for relay in pair.RELAYS}  # fmt: skip
    assert [bus.starts(relay) for relay in relays] == before
    with pair.listening_to_both(app01) as heard:
        ears = flow.Heard(heard.host, heard.path)
        with flow.flowing(app01, [ears]) as numbered:
            real = bus.playbook("restart")
        report = numbered.report(relays)
    print(f"both relays restarted under load: {report}")
    assert real.returncode == 0, real.stdout
    assert bus.changed_tasks(real.stdout) == bus.changed_tasks(predicted.stdout)
    assert [bus.starts(relay) for relay in relays] == [starts + 1 for starts in before]
    assert min(report.sent.values()) > 5, report
    assert (report.lost_of["acked"], report.doubled) == (0, 0), report
    # docs/delivery.adoc: upstream's publishers know the first relay alone, and lose what they send
    # in the quarter of a second around its restart. Here that is one message at most.
    assert report.lost_of["legacy"] <= 1, report


@pytest.fixture
def taken_port(relay01: Host) -> Iterator[None]:
    """By its config relay01 binds one more port, and another program has it."""
    relay01.check_output(
        f"systemd-run --quiet --unit={HOLDER} python3 -m http.server --bind 127.0.0.1 4999"
    )
    bus.wait_for(lambda: relay01.run("ss -Hltn | grep -q :4999").rc == 0, "the other program")
    relay01.check_output(
        f'echo \'config = dict(relay_http=["127.0.0.1:4002", "127.0.0.1:4999"])\' > {FOREIGN}'
    )
    yield
    relay01.check_output(f"systemctl stop {HOLDER}; rm -f {FOREIGN}; systemctl restart {bus.UNIT}")


def test_first_that_does_not_come_back_ends_the_run(
    relay01: Host, relay02: Host, app01: Host, taken_port: None
) -> None:
    before = bus.generation(relay02)
    with pair.listening_to_both(app01) as heard:
        ears = flow.Heard(heard.host, heard.path)
        with flow.flowing(app01, [ears]) as numbered:
            done = bus.playbook("restart")
        report = numbered.report([relay01, relay02])
    print(f"the first of two relays did not come back: {report}")
    assert done.returncode != 0
    assert "fatal: [relay02]" not in done.stdout, done.stdout
    for words in (
        "fedmsg-relay on relay01 could not be restarted",
        "cannot bind tcp://127.0.0.1:4999: the port is held by",
        "Left alone: relay02.",
    ):
        assert words in said(done.stdout), done.stdout
    assert bus.generation(relay02) == before
    # Scripts whose messages are acknowledged went on with the other.
    assert report.lost_of["acked"] == 0, report


def test_config_that_it_would_not_start_with_leaves_it_running(
    relay01: Host, relay02: Host
) -> None:
    before = [bus.generation(relay) for relay in (relay01, relay02)]
    relay01.check_output(f"echo 'config = dict(' > {FOREIGN}")
    try:
        done = bus.playbook("restart")
    finally:
        relay01.check_output(f"rm {FOREIGN}")
    assert done.returncode != 0
    assert f"relay01 was not restarted, for it would not start again: fedmsg-relay: {FOREIGN}:1" \
        in said(done.stdout), done.stdout  # fmt: skip
    assert "Left alone: relay02." in said(done.stdout)
    assert bus.changed_tasks(done.stdout) == set()
    assert [bus.generation(relay) for relay in (relay01, relay02)] == before


def test_last_relay_that_works_is_left_alone(relay01: Host, relay02: Host) -> None:
    before = bus.generation(relay01)
    bus.stop(relay02)
    try:
        refused = bus.playbook("restart", "--limit", "relay01")
        assert refused.returncode != 0
        assert "relay01 was not restarted: it passes messages on, and not all others do. relay02 " \
            "said: FEDMSG CRITICAL" in said(refused.stdout), refused.stdout  # fmt: skip
        # The one that does not is what a restart is for.
        mended = bus.playbook("restart", "--limit", "relay02")
        assert mended.returncode == 0, mended.stdout
    finally:
        bus.start(relay02)
    assert bus.generation(relay01) == before
    bus.probe(relay02)
