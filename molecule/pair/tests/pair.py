"""Two relays: loads of numbered messages, faults, and what has become of each message."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import bus
import engine
import listener
from hosts import CHECKOUT_LABEL
from testinfra.host import Host

RELAYS = ("relay01", "relay02")
TOPIC = "org.fedoraproject.dev.pair"
# How a host's publishers are made to know one relay only: keys that come after those of /etc.
ONLY = "/tmp/only-{relay}"

# Until the file is gone: numbered messages, one after the other, each by its own fedmsg-logger.
ONE_BY_ONE = """
import json, os, subprocess, sys, time
number, done = 0, []
while os.path.exists(sys.argv[1]):
    number += 1
    started = time.monotonic()
    run = subprocess.run(
        ["fedmsg-logger", "--verbose", "--modname", "pair", "--topic", "one",
         "--message", str(number)], capture_output=True, text=True,
    )
    done.append([number, run.returncode, time.monotonic() - started, run.stderr])
print(json.dumps(done))
"""
# The same, a hundred and more a second, by one fedmsg-logger that is fed all the time.
STREAM = """
import json, os, subprocess, sys, time
number, started = 0, time.monotonic()
logger = subprocess.Popen(
    ["fedmsg-logger", "--modname", "pair", "--topic", "stream"],
    stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
)
while os.path.exists(sys.argv[1]):
    number += 1
    logger.stdin.write(f"{number}\\n")
    logger.stdin.flush()
    time.sleep(0.005)
complaints = logger.communicate()[1]
print(json.dumps([[number, logger.returncode, time.monotonic() - started, complaints]]))
"""


@dataclass
class Run:
    """A fedmsg-logger that has ended; `number` is that of its last message, `seconds` its time."""

    number: int
    rc: int
    seconds: float
    stderr: str


@dataclass
class Load:
    """What a host publishes on `topic` while the load runs; `runs` are known when it has ended."""

    topic: str
    runs: list[Run] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        return list(range(1, self.runs[-1].number + 1))


@contextlib.contextmanager
def load(host: Host, program: str, topic: str) -> Iterator[Load]:
    """Publish numbered messages on `host` until the end of the block."""
    person = bus.host(host.backend.host, root=False)
    flag = person.check_output("mktemp")
    made = Load(topic)
    failures: list[str] = []

    def publish() -> None:
        done = person.run(f"python3 -c %s {flag}", program)
        if done.rc:
            failures.append(done.stderr)
        else:
            made.runs.extend(Run(*run) for run in json.loads(done.stdout))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield made
    finally:
        person.check_output(f"rm -f {flag}")
        thread.join()
    assert not failures, failures[0]


@contextlib.contextmanager
def both_loads(host: Host) -> Iterator[tuple[Load, Load]]:
    with load(host, ONE_BY_ONE, "one") as ones, load(host, STREAM, "stream") as stream:
        yield ones, stream


def assert_all_arrive(heard: listener.Listener, made: Load, seconds: float = 60) -> int:
    """No message of the load is lost, and none is there as two. How many were heard twice."""

    def missing() -> set[int]:
        return set(made.numbers) - {number for number, _ in numbered(heard, made.topic)}

    bus.wait_for(lambda: not missing(), f"all messages of {made.topic}", seconds)
    found = numbered(heard, made.topic)
    ids: dict[int, set[str]] = {}
    for number, msg_id in found:
        ids.setdefault(number, set()).add(msg_id)
    assert [number for number, of in ids.items() if len(of) > 1] == []
    return sum(times > 1 for times in Counter(found).values())


def numbered(heard: listener.Listener, topic: str) -> list[tuple[int, str]]:
    """Number and msg_id of every message heard so far, in the order of arrival."""
    return [
        (int(message["msg"]["log"]), message["msg_id"])
        for message in heard.messages()
        if message["topic"] == f"{TOPIC}.{topic}"
    ]


def heard_times(heard: listener.Listener, text: str) -> int:
    return sum(message["msg"].get("log") == text for message in heard.messages(text))


@contextlib.contextmanager
def listening_to_both(host: Host) -> Iterator[listener.Listener]:
    with listener.listening(host, topic="org.fedoraproject.dev") as heard:
        for relay in RELAYS:
            hello = f"{relay} is heard"

            def hears(relay: str = relay, hello: str = hello) -> bool:
                publish(host, hello, relay)
                return bool(heard.messages(hello))

            bus.wait_for(hears, hello, 40)
        yield heard


def publish(host: Host, text: str, relay: str = "", *options: str, user: str = "") -> Run:
    """Publish one message, through `relay` alone if it is given. What fedmsg-logger said."""
    where = f" --config-filename {only(host, relay)}" if relay else ""
    command = f"fedmsg-logger --verbose{where} {' '.join(options)} --message '{text}'"
    timed = f"TIMEFORMAT=%R; time {command}"
    if user:
        done = host.run("runuser -u %s -- bash -c %s", user, timed)
    else:
        done = bus.host(host.backend.host, root=False).run("bash -c %s", timed)
    *said, seconds = done.stderr.splitlines()
    return Run(0, done.rc, float(seconds), "\n".join(said))


def only(host: Host, relay: str, *, submit: bool = True) -> str:
    """A config directory on the host by which there is one relay, with or without submit."""
    path = ONLY.format(relay=relay) + ("" if submit else "-legacy")
    keys = {
        "relay_inbound": [f"tcp://{relay}:2003"],
        "relay_submit": [f"tcp://{relay}:2004"] if submit else [],
    }
    host.check_output(
        f"test -e {path}/zz.py || {{ mkdir -p {path}; cp /etc/fedmsg.d/*.py {path};"
        f" echo %s > {path}/zz.py; chmod -R a+rX {path}; }}",
        f"config = {keys!r}",
    )
    return path


@contextlib.contextmanager
def cut(host: Host, *relays: str) -> Iterator[None]:
    """No packet comes from or goes to the relays: neither side is told."""
    addresses = ", ".join(
        host.check_output(f"getent ahostsv4 {relay}").split()[0] for relay in relays
    )
    host.check_output(
        "nft -f - <<'EOF'\n"
        "table inet cut {\n"
        f"  chain out {{ type filter hook output priority 0; ip daddr {{ {addresses} }} drop; }}\n"
        f"  chain in {{ type filter hook input priority 0; ip saddr {{ {addresses} }} drop; }}\n"
        "}\nEOF"
    )
    try:
        yield
    finally:
        host.check_output("nft delete table inet cut")


@contextlib.contextmanager
def hanging(relay: Host) -> Iterator[None]:
    """The relay's process does nothing. For less than 10 s, then its watchdog would kill it."""
    pid = bus.unit_property(relay, "MainPID")
    relay.check_output(f"kill -STOP {pid}")
    try:
        yield
    finally:
        relay.run(f"kill -CONT {pid}")


def health(relay: Host) -> tuple[int, dict]:
    """Status and content of the relay's page about itself."""
    program = (
        "import json, sys, urllib.error, urllib.request as http\n"
        f"try: answer = http.urlopen('http://{relay.backend.host}:4002/health')\n"
        "except urllib.error.HTTPError as error: answer = error\n"
        "print(json.dumps([answer.status, json.load(answer)]))\n"
    )
    status, said = json.loads(relay.check_output("python3 -c %s", program))
    return status, said


def machine(name: str) -> str:
    """The container that is the host: of this checkout, for others may run the same scenario."""
    filters = [f"label={CHECKOUT_LABEL}", f"name=^fedmsg-pair-[0-9a-f]+-{name}$"]
    options = [option for each in filters for option in ("--filter", each)]
    [found] = engine.podman("ps", "--all", *options, "--format", "{{.Names}}").split()
    return found
