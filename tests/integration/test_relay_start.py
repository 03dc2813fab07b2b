"""A relay that starts but does not work is worse than one that does not start: it must say why."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.conftest import RELAY, ROOT, Bus, Listener, Sender, environment, free_port, wait_for
from tests.support.programs import Child
from tests.support.waiting import at_most, nothing_comes, patient


def run(bus: Bus, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RELAY), "--config-filename", str(bus.config_directory)]
    return subprocess.run(
        [*command, *options],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=30,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    line = result.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in line
    assert line.startswith("fedmsg-relay: ")
    assert "Traceback" not in result.stderr
    assert result.returncode == 1


@pytest.fixture
def held() -> Iterator[Callable[[str], socket.socket]]:
    """Hold the port of an endpoint in this process."""
    holders = []

    def hold(endpoint: str) -> socket.socket:
        holder = socket.socket()
        holder.bind(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        holder.listen()
        holders.append(holder)
        return holder

    yield hold
    for holder in holders:
        holder.close()


@pytest.mark.parametrize("side", ["inbound", "outbound"])
def test_a_taken_port_is_named_with_its_holder(
    bus: Bus, held: Callable[[str], socket.socket], side: str
) -> None:
    endpoint = getattr(bus, side)
    held(endpoint)
    comm = Path("/proc/self/comm").read_text().strip()
    holder = f"cannot bind {endpoint}: the port is held by process {os.getpid()} ({comm})"
    assert_one_line(run(bus), holder)


def test_two_relays_on_one_address_the_second_names_the_first(bus: Bus) -> None:
    first = bus.relay()
    assert_one_line(run(bus), f"held by process {first.pid} (fedmsg-relay)")
    assert first.is_running()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("config = {\n'a' 5}", ["z.py:2:"]),
        ("config = {'relay_inbound': 'tcp://192.0.2.9:1'}", ["relay_inbound", "192.0.2.9"]),
        ("config = {'endpoints': {'relay_outbound': []}}", ["endpoints['relay_outbound']"]),
        ("config = {'relay_log': '/nonexistent/relay.log'}", ["relay_log", "/nonexistent"]),
        ("config = {'relay_log': '/'}", ["relay_log", "is a directory"]),
        (
            "config = {'moksha.monitoring.socket': 'ipc:///nonexistent/s'}",
            ["moksha.monitoring.socket", "/nonexistent"],
        ),
        ("config = {'moksha.monitoring.socket.mode': '9'}", ["socket.mode", "octal"]),
        ("config = {'zmq_linger': 'x'}", ["zmq_linger"]),
    ],
)
def test_what_an_operator_can_get_wrong(bus: Bus, text: str, parts: list[str], check: bool) -> None:
    (bus.config_directory / "z.py").write_text(text)
    assert_one_line(run(bus, *["--check"] * check), *parts)


def test_a_missing_outbound_key(tmp_path: Path, bus: Bus) -> None:
    bus.configure(relay_inbound=bus.inbound, endpoints={"other": "tcp://127.0.0.1:1"})
    assert_one_line(run(bus), "endpoints['relay_outbound'] is missing")


def test_a_bad_logging_key(bus: Bus) -> None:
    bus.configure("z", logging={"version": 1, "handlers": {"x": {"class": "no.such.Handler"}}})
    assert_one_line(run(bus), "config key 'logging'", "no.such.Handler")


@pytest.fixture
def unprivileged(bus: Bus) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run as somebody who may not read and write everything: as root, without what allows that. Not
    as another user, who cannot get at an environment below /root."""
    command = [sys.executable, str(RELAY), "--config-filename", str(bus.config_directory)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]

    def run_it(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], env=environment(), capture_output=True, text=True, timeout=30
        )

    return run_it


@pytest.mark.parametrize("check", [True, False])
def test_a_log_path_that_is_not_writable(
    bus: Bus, unprivileged: Callable[..., subprocess.CompletedProcess[str]], check: bool
) -> None:
    log = bus.directory / "relay.log"
    log.touch(mode=0o444)
    bus.configure("z", relay_log=str(log))
    result = unprivileged(*["--check"] * check)
    assert_one_line(result, "relay_log", str(log), "Permission denied")


def test_a_config_file_that_is_not_readable(
    bus: Bus, unprivileged: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    secret = bus.configure("secret", certnames={})
    secret.chmod(0)
    assert_one_line(unprivileged("--check"), f"{secret}: Permission denied")


def test_check_says_what_would_be_bound_and_binds_nothing(
    bus: Bus, held: Callable[[str], socket.socket]
) -> None:
    held(bus.inbound)
    result = run(bus, "--check")
    assert result.returncode == 0
    assert result.stdout == (
        f"fedmsg-relay: configuration ok: inbound {bus.inbound} outbound {bus.outbound}\n"
    )
    assert result.stderr == ""


def test_preflight_is_the_same_check_for_a_bus_host(bus: Bus) -> None:
    def preflight(*options: str) -> subprocess.CompletedProcess[str]:
        return bus.tool("preflight", *options)

    result = preflight("--relay")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"configuration ok: inbound {bus.inbound} outbound {bus.outbound}\n"
    # Another host's relay is no fault on a host that has none.
    bus.configure("z", relay_inbound="tcp://192.0.2.9:1")
    assert preflight().returncode == 0
    failed = preflight("--relay")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: relay_inbound: no address of this machine")
    assert failed.stderr.count("\n") == 1
    bus.configure("z", relay_inbound="tcp://no-port")
    assert "relay_inbound: 'tcp://no-port'" in preflight().stderr


@pytest.mark.parametrize("options", [["--no-such-option"], ["extra"]])
def test_usage(bus: Bus, options: list[str]) -> None:
    assert run(bus, *options).returncode == 2


def test_every_local_endpoint_of_both_lists_is_bound_and_others_are_not(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    inbound = [f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.2:{free_port()}"]
    outbound = [f"tcp://*:{free_port()}", f"tcp://[::1]:{free_port()}"]
    elsewhere = "tcp://192.0.2.9:9941"
    bus.configure(
        relay_inbound=[elsewhere, *inbound],
        endpoints={"relay_outbound": ["tcp://192.0.2.9:9942", *outbound]},
        post_init_sleep=0.1,
    )
    relay = bus.relay()
    assert "192.0.2.9" not in relay.output
    subscribers = []
    for endpoint in outbound:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.IPV6, 1)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.connect(endpoint.replace("*", "127.0.0.1"))
        subscribers.append(subscriber)
    relay.wait_for_line("2 now")
    for number, endpoint in enumerate(inbound):
        body = b'{"topic":"t","timestamp":1,"msg_id":"%d"}' % number
        Sender(context, endpoint).send(b"t", body)
        for subscriber in subscribers:
            assert subscriber.poll(int(patient(10) * 1000))
            assert subscriber.recv_multipart() == [b"t", body]


def test_outbound_is_bound_first_and_then_soon_inbound(bus: Bus) -> None:
    bus.configure("z", post_init_sleep=5, zmq_reconnect_ivl_max=3000)
    relay = bus.relay(ready=False)
    relay.wait_for_line("outbound: listeners connect to")
    bound = time.monotonic()
    relay.wait_for_line("inbound: scripts connect to")
    # Upstream leaves scripts without an address for a whole second here.
    at_most(0.5, since=bound)
    assert relay.output.index("outbound: ") < relay.output.index("inbound: ")
    assert "ready" not in relay.output


def test_messages_are_held_until_listeners_have_had_time_to_come_back(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.configure("z", zmq_reconnect_ivl=100, zmq_reconnect_ivl_max=1500)
    started = time.monotonic()
    relay = bus.relay(ready=False)
    relay.wait_for_line("inbound: scripts connect to")
    sender = Sender(context, bus.inbound)
    body = b'{"topic":"t","timestamp":1,"msg_id":"%d"}'
    for number in range(100):
        sender.send(b"t", body % number)
    late = Listener(context, bus.outbound)
    relay.wait_for_line("1 now")
    assert [late.receive()[1] for _ in range(100)] == [body % number for number in range(100)]
    # 1.5 s, one interval, and a margin.
    assert time.monotonic() - started > 1.5
    at_most(4, since=started)


def test_what_is_held_has_a_bound(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.configure("z", zmq_reconnect_ivl_max=60_000)
    relay = bus.relay(ready=False)
    relay.wait_for_line("inbound: scripts connect to")
    receiving = Listener(context, bus.outbound)
    relay.wait_for_line("1 now")
    sender = Sender(context, bus.inbound)
    body = json.dumps({"topic": "t", "timestamp": 1, "msg_id": "x" * (8 << 20)}).encode()
    for _ in range(4):
        sender.send(b"t", body)
    assert not receiving.socket.poll(500)  # it holds them; absence can only be waited for
    for _ in range(2):
        sender.send(b"t", body)
    for _ in range(6):
        assert receiving.receive()[1] == body
    assert "ready" not in relay.output


def test_a_relay_stopped_while_it_holds_emits_what_it_holds(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.configure("z", zmq_reconnect_ivl_max=20_000)
    relay = bus.relay(ready=False)
    relay.wait_for_line("inbound: scripts connect to")
    receiving = Listener(context, bus.outbound)
    relay.wait_for_line("1 now")
    Sender(context, bus.inbound).send(b"t", b'{"topic":"t","timestamp":1,"msg_id":"x"}')
    time.sleep(0.2)  # it is under way; nothing that could be seen says when it is in
    assert relay.terminate() == 0
    assert b'"x"' in receiving.receive()[1]


def test_no_message_of_ours_is_lost_over_restarts(bus: Bus, context: zmq.Context[Any]) -> None:
    """40 publishers in turn, over 4 restarts; upstream's relay loses 6 to 23 over one."""
    bus.configure("z", zmq_reconnect_ivl=100, zmq_reconnect_ivl_max=1000, timeout=20)
    receiving = Listener(context, bus.outbound)
    got: list[int] = []

    def listen(milliseconds: int) -> int:
        # A SUB socket subscribes anew, too, only when its thread comes by.
        if not receiving.socket.poll(milliseconds):
            return 0
        got.append(int(json.loads(receiving.socket.recv_multipart()[1])["msg"]["log"]))
        return 1

    relay = bus.relay()
    relay.wait_for_line("1 now")
    for number in range(40):
        child = Child(
            [*bus.command("logger"), "--message", str(number)],
            env=environment(),
            cwd=bus.directory,
        )
        if number % 10 == 5:
            assert relay.terminate() == 0
            relay = bus.relay(ready=False)
        while child.poll() is None:
            listen(10)
        assert child.returncode == 0
    # The relay that was started last holds what it has for a while yet.
    relay.wait_for_line("ready")
    while len(got) < 40 and listen(5000):
        pass
    assert not listen(500)  # and none twice
    assert sorted(got) == list(range(40))


def test_the_process_is_called_fedmsg_relay(bus: Bus) -> None:
    relay = bus.relay()
    assert Path(f"/proc/{relay.pid}/comm").read_text() == "fedmsg-relay\n"


def test_the_log_begins_with_versions_and_addresses(bus: Bus) -> None:
    output = bus.relay().output
    assert re.search(r"fedmsg-relay \d+\.\d+\.\d+, Python 3\.\S+, pyzmq \S+, libzmq \d", output)
    assert f"inbound: scripts connect to {bus.inbound}" in output
    assert f"outbound: listeners connect to {bus.outbound}" in output


class NotifySocket:
    """What systemd listens on, in a service's NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.seen: list[str] = []

    def has(self, text: str) -> bool:
        self.socket.setblocking(False)
        try:
            while True:
                self.seen += self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return any(text in line for line in self.seen)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told(bus: Bus, kind: str) -> None:
    path = str(bus.directory / "notify") if kind == "path" else f"@fedmsg-test-{os.getpid()}"
    notify = NotifySocket(path.replace("@", "\0"))
    relay = bus.relay(
        ready=False, NOTIFY_SOCKET=path, WATCHDOG_USEC="400000"
    )  # watchdog: two a period, every 200 ms
    wait_for(lambda: notify.has("READY=1"))
    # Ready means that a script can connect now.
    with socket.create_connection(("127.0.0.1", int(bus.inbound.rpartition(":")[2])), timeout=5):
        pass
    assert notify.has("STATUS=0 relayed, 0 repaired, 0 dropped, 0 listeners")
    # What has been read by now is not counted, or a test that looks late would see many at once.
    pings = notify.seen.count("WATCHDOG=1")
    before = time.monotonic()
    wait_for(lambda: notify.has("") and notify.seen.count("WATCHDOG=1") >= pings + 5)
    assert time.monotonic() - before > 0.5
    at_most(4, since=before)
    relay.terminate()
    assert notify.has("STOPPING=1")
    notify.socket.close()


def test_the_watchdog_is_left_alone_when_it_is_another_process(bus: Bus) -> None:
    notify = NotifySocket(str(bus.directory / "notify"))
    relay = bus.relay(
        NOTIFY_SOCKET=str(bus.directory / "notify"), WATCHDOG_USEC="100000", WATCHDOG_PID="1"
    )
    wait_for(lambda: notify.has("READY=1"))
    nothing_comes(0.5, lambda: notify.has("WATCHDOG=1"), "a ping within ten periods")
    relay.terminate()
    assert not notify.has("WATCHDOG=1")


def test_a_stopped_loop_stops_the_watchdog(bus: Bus) -> None:
    notify = NotifySocket(str(bus.directory / "notify"))
    relay = bus.relay(NOTIFY_SOCKET=str(bus.directory / "notify"), WATCHDOG_USEC="200000")
    wait_for(lambda: notify.has("WATCHDOG=1"))
    with relay.paused():
        notify.has("")
        count = len(notify.seen)
        nothing_comes(
            0.5, lambda: notify.has("") and len(notify.seen) > count, "a ping within five periods"
        )


def test_options_reach_the_sockets(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.configure(
        "z", io_threads=3, zmq_tcp_keepalive=1, zmq_tcp_keepalive_idle=77, high_water_mark=12
    )
    relay = bus.relay()
    threads = [p.read_text() for p in Path(f"/proc/{relay.pid}/task").glob("*/comm")]
    assert sum("IO/" in name for name in threads) == 3
    sender = Sender(context, bus.inbound)
    port = f"{int(bus.inbound.rpartition(':')[2]):04X}"

    def keepalive_seconds() -> list[float]:
        """Until the keepalive timers (kind 02) of established connections fire."""
        lines = Path("/proc/net/tcp").read_text().splitlines()
        ours = [line.split() for line in lines if line.split()[1].endswith(f":{port}")]
        timers = [fields[5].split(":") for fields in ours if fields[3] == "01"]
        return [int(when, 16) / 100 for kind, when in timers if kind == "02"]

    # For a moment after data it is the timer of a retransmission that runs.
    (seconds,) = wait_for(keepalive_seconds)
    assert 70 < seconds <= 77.5
    sender.send(b"t", b"x")


def test_the_monitoring_socket(bus: Bus, context: zmq.Context[Any]) -> None:
    path = bus.directory / "monitoring.socket"
    bus.configure(
        "z", **{"moksha.monitoring.socket": f"ipc://{path}", "moksha.monitoring.socket.mode": "770"}
    )
    relay = bus.relay()
    assert stat.S_IMODE(path.stat().st_mode) == 0o770
    monitor = context.socket(zmq.SUB)
    monitor.setsockopt(zmq.SUBSCRIBE, b"")
    monitor.connect(f"ipc://{path}")
    sender = Sender(context, bus.inbound)
    frames = []
    for sent in (3, 0):
        for _ in range(sent):
            sender.send(b"t", b"x")
        assert monitor.poll(int(patient(20) * 1000))
        parts = monitor.recv_multipart()
        assert len(parts) == 1
        frames.append((time.monotonic(), json.loads(parts[0])))
    assert frames[1][0] - frames[0][0] == pytest.approx(5, abs=1.5)
    consumers = [frame["consumers"][0] for _, frame in frames]
    assert [c["headcount_in"] for c in consumers] == [3, 0]
    assert [c["headcount_out"] for c in consumers] == [3, 0]
    assert [len(c["times"]) for c in consumers] == [3, 0]
    assert consumers[0]["name"] == "RelayConsumer"
    producer = frames[0][1]["producers"][0]
    assert (producer["name"], producer["frequency"]) == ("MonitoringProducer", 5)
    assert abs(producer["last_ran"] - time.time()) < 30
    relay.terminate()
    assert not path.exists()


def test_a_monitoring_socket_left_behind_is_replaced(bus: Bus) -> None:
    path = bus.directory / "monitoring.socket"
    bus.configure("z", **{"moksha.monitoring.socket": f"ipc://{path}"})
    bus.relay().kill()
    assert path.exists()
    assert bus.relay().terminate() == 0


def test_relay_py_is_short_enough_to_read_in_one_sitting() -> None:
    assert len((ROOT / "relay.py").read_text().splitlines()) <= 300
