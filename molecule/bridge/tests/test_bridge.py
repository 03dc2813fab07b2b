"""The bus on RabbitMQ by the role fedmsg_bridge: numbered messages both ways, and none is lost.

The broker is Debian's, on the relay's host. The tests are in the order in which they run.
"""

from __future__ import annotations

import json
import re

import bus
import pytest
from testinfra.host import Host

UNIT = "fedmsg-amqp-bridge.service"
PASSWORD = "open-sesame"
MESSAGES = 200
KILLS = 5

# Runs on the host, with the client that the role has installed.
CONNECT = f"""
import json, sys
import pika
login = pika.PlainCredentials("fedmsg", {PASSWORD!r})
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", credentials=login))
channel = connection.channel()
"""
BIND = """
channel.queue_declare("numbered", durable=True)
channel.queue_bind("numbered", "amq.topic", "org.fedoraproject.dev.numbered.#")
"""
# Prints the message id, the bus's id and the number of each that is there, and removes it.
TAKE = """
for method, properties, body in iter(lambda: channel.basic_get("numbered", auto_ack=True), None):
    if method is None:
        break
    bus_id = properties.headers["fedmsg_msg_id"]
    print(json.dumps([properties.message_id, bus_id, json.loads(body)["number"]]))
"""
PUBLISH = """
properties = pika.BasicProperties(
    message_id="m-1", content_type="application/json", content_encoding="utf-8", delivery_mode=2,
    headers={"fedora_messaging_schema": "base.message", "fedora_messaging_severity": 20,
             "sent-at": "2026-01-02T03:04:05+00:00"},
)
topic = "org.fedoraproject.dev.other.thing"
channel.basic_publish("amq.topic", topic, b'{"number": 1}', properties)
"""


@pytest.fixture
def relay() -> Host:
    return bus.host("busgateway01")


def amqp(relay: Host, program: str) -> str:
    return str(relay.check_output("cd / && python3 -c %s", CONNECT + program))


def health(relay: Host) -> dict[str, object]:
    answer = relay.run("curl --silent --max-time 10 http://127.0.0.1:4003/health")
    found: dict[str, object] = json.loads(answer.stdout or '{"healthy": false}')
    return found


def main_pid(relay: Host) -> int:
    return int(relay.check_output(f"systemctl show --property=MainPID --value {UNIT}"))


def test_the_bridge_runs_and_is_healthy(relay: Host) -> None:
    assert relay.service(UNIT).is_running and relay.service(UNIT).is_enabled
    assert relay.package("python3-pika").is_installed
    bus.wait_for(lambda: health(relay)["healthy"], "a bridge that is healthy", 60)
    said = relay.check_output("setpriv --reuid fedmsg --regid fedmsg --clear-groups -- "
                              "fedmsg-amqp-bridge --check")  # fmt: skip
    assert said.startswith("fedmsg-amqp-bridge: configuration ok: broker amqp://127.0.0.1:5672;")


def test_nobody_else_reads_its_password(relay: Host) -> None:
    directory = "/etc/fedmsg-amqp-bridge"
    found = relay.check_output(f"stat --format '%n %a %U:%G' {directory} {directory}/*")
    assert found.splitlines() == [
        f"{directory} 750 root:fedmsg",
        f"{directory}/config.py 640 root:fedmsg",
        f"{directory}/password 640 root:fedmsg",
    ]
    assert relay.file(f"{directory}/password").content_string == f"{PASSWORD}\n"
    refused = relay.run(f"setpriv --reuid nobody --clear-groups -- cat {directory}/password")
    assert refused.rc == 1


def test_no_deploy_shows_its_password() -> None:
    """Neither the one that there is nor the one that is to come."""
    new = "open-barley"
    variables = json.dumps({"fedmsg_bridge_password": new})
    done = bus.playbook("deploy", "--check", "--diff", "--extra-vars", variables)
    assert done.returncode == 0, done.stdout
    assert re.search("changed=[1-9]", done.stdout), done.stdout
    assert PASSWORD not in done.stdout and new not in done.stdout


def test_exposure_is_at_most_one_and_a_half(relay: Host) -> None:
    judged = relay.run(f"systemd-analyze security --threshold=15 --no-pager {UNIT}")
    assert judged.rc == 0, judged.stdout


def test_none_is_lost_while_the_bridge_is_killed(relay: Host) -> None:
    """Numbered messages arrive with their ids; doubles have the same id."""
    amqp(relay, BIND)
    each = MESSAGES // KILLS
    for kill in range(KILLS):
        numbers = range(kill * each, (kill + 1) * each)
        lines = "".join(json.dumps({"number": number}) + "\n" for number in numbers)
        before = main_pid(relay)
        relay.check_output(
            "set -e; printf %%s %s | while read -r line; do "
            "printf %%s \"$line\" | fedmsg-logger --json-input --modname numbered --topic n; done &"
            f" sender=$!; kill -9 {before}; wait $sender",
            lines,
        )  # fmt: skip
        bus.wait_for(lambda was=before: main_pid(relay) not in (0, was), "another start", 60)
    found: list[tuple[str, str, int]] = []

    def all_are_there() -> bool:
        found.extend(tuple(json.loads(line)) for line in amqp(relay, TAKE).splitlines())
        return {number for _, _, number in found} == set(range(MESSAGES))

    bus.wait_for(all_are_there, "all messages on RabbitMQ", 120)
    ids = {message_id: number for message_id, _, number in found}
    assert len(ids) == MESSAGES
    assert all(message_id == bus_id for message_id, bus_id, _ in found)
    journaled = relay.check_output(
        "curl --silent --fail 'http://127.0.0.1:4002/raw?rows_per_page=100&delta=86400"
        "&topic=org.fedoraproject.dev.numbered.n'"
    )
    newest = {
        each["msg_id"]: each["msg"]["number"] for each in json.loads(journaled)["raw_messages"]
    }
    assert len(newest) == 100
    assert newest.items() <= ids.items()


def test_what_is_published_there_comes_to_the_bus(relay: Host) -> None:
    amqp(relay, PUBLISH)
    url = "http://127.0.0.1:4002/raw?delta=864000000&topic=org.fedoraproject.dev.other.thing"

    def arrived() -> list[dict[str, object]]:
        found = json.loads(relay.check_output(f"curl --silent --fail '{url}'"))
        return list(found["raw_messages"])

    [message] = bus.wait_for(arrived, "the message on the bus", 60)
    assert (message["msg"], message["username"]) == ({"number": 1}, "amqp-bridge")


def test_a_second_deploy_changes_nothing(relay: Host) -> None:
    before = main_pid(relay)
    again = bus.deploy("--diff")
    assert (bus.changed_tasks(again), "WARNING" in again) == (set(), False)
    assert main_pid(relay) == before


def test_a_password_that_is_refused_changes_nothing_until_it_is_right(relay: Host) -> None:
    """A config that cannot work is refused on the host, before it is in place."""
    before, was = main_pid(relay), relay.check_output("cat /etc/fedmsg-amqp-bridge/config.py")
    said = '{"fedmsg_bridge_url": ["amqps://127.0.0.1"], "fedmsg_bridge_password": "", '
    tls = '"fedmsg_bridge_certificate": "/etc/none.pem", "fedmsg_bridge_key": "/etc/none.key"}'
    done = bus.playbook("deploy", "--extra-vars", said + tls)
    assert done.returncode != 0
    assert "busgateway01 refuses the bridge's config" in " ".join(done.stdout.split())
    assert "/etc/none.pem" in done.stdout
    assert relay.check_output("cat /etc/fedmsg-amqp-bridge/config.py") == was
    assert relay.file("/etc/fedmsg-amqp-bridge/password").exists
    assert main_pid(relay) == before


def test_a_changed_config_restarts_the_bridge_as_predicted(relay: Host) -> None:
    relay_before, before = bus.generation(relay), main_pid(relay)
    said = ("--diff", "--extra-vars", '{"fedmsg_bridge_window": 500}')
    predicted = bus.changed_tasks(bus.deploy("--check", *said))
    assert main_pid(relay) == before
    assert bus.changed_tasks(bus.deploy(*said)) == predicted != set()
    assert main_pid(relay) != before
    # The relay does not know of it.
    assert bus.generation(relay) == relay_before


def test_remove_removes_it(relay: Host) -> None:
    done = bus.playbook("remove", "--extra-vars", "from=busgateway01")
    assert done.returncode == 0, done.stdout
    left = relay.check_output("find /etc /usr/local /var/lib /run -name '*fedmsg-amqp-bridge*'")
    assert left == ""
    assert relay.run(f"systemctl cat {UNIT}").rc != 0
    assert relay.run("pgrep -f '[f]edmsg-amqp-bridge'").rc == 1
    assert not relay.user("fedmsg").exists
