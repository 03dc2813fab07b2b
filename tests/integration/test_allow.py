"""relay_allow: who is named gets in, at every port; nobody else does, and the relay says who.

Peers are told apart by their addresses: those of this machine, 127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, free_port, numbered, wait_for
from tests.integration.test_restart import Unit
from tests.integration.test_web import get, health
from tests.support.waiting import fits

FRIEND, STRANGER = "127.0.0.2", "127.0.0.3"
# Milliseconds: a scheduler that is late on a busy machine, and nothing that anybody notices.
UNNOTICED = 20.0


@pytest.fixture
def guarded(bus: Bus) -> Bus:
    bus.with_journal(http=True, relay_allow=[f"{FRIEND}/32", "2001:db8::/32"])
    return bus


@pytest.fixture
def relay(guarded: Bus) -> Process:
    return guarded.relay()


def as_from(source: str, endpoint: str) -> str:
    """The endpoint, connected to from one of this machine's addresses."""
    return endpoint.replace("tcp://", f"tcp://{source}:0;")


def refused(bus: Bus) -> dict[str, Any]:
    """What /health says of refused connections, by side and by address."""
    found = wait_for(lambda: health(bus).get("relay"), what="the relay's first word")["refused"]
    return {
        **found["sides"],
        **{peer["address"]: peer["connections"] for peer in found["peers"]},
    }


def metric(bus: Bus, name: str) -> float:
    lines = get(bus, "/metrics").splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


def ends_connection(address: str, source: str, hello: bytes = b"", seconds: float = 5.0) -> bool:
    """Whether the other end is the one who ends it."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    end = time.monotonic() + seconds
    with socket.create_connection((host, int(port)), 5, (source, 0)) as connection:
        try:
            connection.sendall(hello)
            while time.monotonic() < end:
                connection.settimeout(max(0.001, end - time.monotonic()))
                if not connection.recv(4096):
                    return True
        except ConnectionError:
            return True
        except TimeoutError:
            pass
    return False


class Forwarder:
    """Takes connections on a port of its own and goes on to a relay's, from another address."""

    def __init__(self, source: str, endpoint: str) -> None:
        host, _, port = endpoint[len("tcp://") :].rpartition(":")
        self._to, self._source = (host, int(port)), source
        self._bound = socket.create_server(("127.0.0.1", free_port()))
        self.endpoint = f"tcp://127.0.0.1:{self._bound.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._bound.accept()[0]
                far = socket.create_connection(self._to, 5, (self._source, 0))
                far.settimeout(None)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := one.recv(1 << 16):
                other.sendall(received)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._bound.close()


@pytest.fixture
def through() -> Iterator[Callable[[str, str], str]]:
    """`through(source, endpoint)`: an endpoint that leads there, from that address."""
    made: list[Forwarder] = []

    def make(source: str, endpoint: str) -> str:
        made.append(Forwarder(source, endpoint))
        return made[-1].endpoint

    yield make
    for forwarder in made:
        forwarder.close()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def tools_of(bus: Bus, source: str, through: Callable[[str, str], str]) -> Run:
    """`run(name, *options)`: a tool that reaches the relay from that address."""
    path = bus.directory / f"tools-of-{source}"
    shutil.copytree(bus.config_directory, path)
    keys = {
        "relay_inbound": [through(source, bus.inbound)],
        "relay_submit": [through(source, bus.submit)],
        "endpoints": {"relay_outbound": [through(source, bus.outbound)]},
    }
    (path / "zz.py").write_text(f"config = {keys!r}\n")
    return partial(_run, bus, f"--config-filename={path}")


def _run(bus: Bus, config: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return bus.tool(name, config, *options)


def test_those_who_are_named_and_the_relay_s_own_host_get_in(
    relay: Process, guarded: Bus, context: zmq.Context[Any]
) -> None:
    for number, source in enumerate((FRIEND, "127.0.0.1")):
        listener = Listener(context, as_from(source, guarded.outbound))
        wait_for(partial(lambda n: relay.output.count("connected,") > n, number), what="it")
        Sender(context, as_from(source, guarded.inbound)).send(*numbered(10 * number))
        assert listener.receive() == numbered(10 * number)
        submitter = Submitter(context, as_from(source, guarded.submit))
        assert submitter.submit(*numbered(10 * number + 1))["ok"]
        assert listener.receive() == numbered(10 * number + 1)
    assert "not allowed" not in relay.output
    assert refused(guarded) == {}


def test_nothing_of_a_stranger_passes_in_either_direction(
    relay: Process, guarded: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    """Not the first message either, which would have been sent before anybody could be cut."""
    heard = listener(relay)
    deaf = Listener(context, as_from(STRANGER, guarded.outbound))
    for number in range(20):  # each on a connection of its own, with the message ready
        publisher = context.socket(zmq.PUSH)  # does not wait for a subscription
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.connect(as_from(STRANGER, guarded.inbound))
        asker = Submitter(context, as_from(STRANGER, guarded.submit))
        publisher.send_multipart(numbered(number), zmq.NOBLOCK) if publisher.poll(
            100, zmq.POLLOUT
        ) else None
        asker.send(*numbered(100 + number))
    wait_for(
        lambda: min(refused(guarded).get(side, 0) for side in ("submit", "inbound")) >= 20,
        what="all of them refused",
    )
    friend = Sender(context, as_from(FRIEND, guarded.inbound))
    friend.send(*numbered(999))
    assert heard.receive() == numbered(999)
    assert not deaf.socket.poll(500)
    assert guarded.journaled() == ["id-999"]
    found = refused(guarded)
    assert found["outbound"] >= 1 and found["inbound"] >= 20
    assert found[STRANGER] == found["inbound"] + found["submit"] + found["outbound"]
    assert metric(guarded, 'fedmsg_relay_refused_connections_total{side="submit"}') >= 20
    assert metric(guarded, f'fedmsg_relay_refused_peer_connections{{address="{STRANGER}"}}') >= 20
    # Named, and not once for each connection.
    assert relay.output.count(f"not allowed: {STRANGER} to") == 1


@pytest.mark.parametrize(
    ("version", "hello"),
    [
        ("ZMTP 1.0", b"\x01\x00"),  # an empty identity
        ("ZMTP 2.0", b"\xff" + b"\0" * 7 + b"\x01\x7f\x01\x01\x00\x00"),
        ("nothing at all", b""),
        ("noise", b"GET / HTTP/1.1\r\n\r\n"),
    ],
)
def test_no_other_protocol_leads_past_it(
    relay: Process, guarded: Bus, version: str, hello: bytes
) -> None:
    for address in (guarded.inbound, guarded.submit, guarded.outbound):
        assert ends_connection(address, STRANGER, hello), (version, address)


def test_peers_before_zmtp_3_are_not_let_in_while_the_relay_has_to_ask(
    relay: Process, guarded: Bus
) -> None:
    """The documents say so: libzmq cannot ask about them."""
    old = b"\xff" + b"\0" * 7 + b"\x01\x7f\x01\x01\x00\x00"
    assert ends_connection(guarded.inbound, FRIEND, old)


def test_http_is_closed_to_strangers_and_says_so(relay: Process, guarded: Bus) -> None:
    request = b"GET /health HTTP/1.0\r\n\r\n"
    host, _, port = guarded.http.rpartition(":")
    with socket.create_connection((host, int(port)), 5, (STRANGER, 0)) as connection:
        connection.settimeout(10)
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            answer = connection.recv(100)
    assert answer == b""
    with socket.create_connection((host, int(port)), 5, (FRIEND, 0)) as connection:
        connection.settimeout(10)
        connection.sendall(request)
        assert connection.recv(12) in (b"HTTP/1.0 200", b"HTTP/1.0 503")
    assert refused(guarded) == {"http": 1, STRANGER: 1}
    wait_for(lambda: f"http: not allowed: {STRANGER} to http" in relay.output, what="the line")


def test_health_warns_while_somebody_is_refused_and_stays_healthy(
    relay: Process, guarded: Bus, context: zmq.Context[Any]
) -> None:
    deaf = Listener(context, as_from(STRANGER, guarded.outbound))
    wait_for(lambda: refused(guarded).get("outbound"), what="a refusal")
    report = health(guarded)
    assert not deaf.socket.closed  # nor collected: it went on trying
    assert report["healthy"] is True
    assert [w for w in report["warnings"] if w.startswith(f"{STRANGER} is not in relay_allow: ")]


def test_a_listener_that_was_refused_comes_in_by_itself_once_it_is_named(
    relay: Process, guarded: Bus, context: zmq.Context[Any]
) -> None:
    """libzmq's clients never come back after the answer 400 of ZAP."""
    listener = Listener(context, as_from(STRANGER, guarded.outbound))
    wait_for(lambda: refused(guarded).get("outbound", 0) > 2, what="some attempts")
    relay.terminate()
    guarded.configure("zz", relay_allow=[FRIEND, STRANGER])
    again = guarded.relay()
    # Its thread has to run for that: by itself libzmq subscribes again to nothing.
    wait_for(lambda: listener.socket.poll(10) or "connected," in again.output, 10, "the listener")
    Sender(context, as_from(FRIEND, guarded.inbound)).send(*numbered(1))
    assert listener.receive() == numbered(1)


def test_the_tools_say_why(
    relay: Process, guarded: Bus, through: Callable[[str, str], str]
) -> None:
    run = tools_of(guarded, STRANGER, through)
    logger = run("logger", "--no-spool", "--message", "x")
    assert logger.returncode == 75
    why = "it ends the connection: its relay_allow does not name this host"
    assert why in logger.stderr
    probe = run("probe", "--timeout", "2")
    assert probe.returncode == 2
    assert why in probe.stdout


def test_a_refused_message_is_spooled_and_comes_when_its_host_is_named(
    relay: Process, guarded: Bus, through: Callable[[str, str], str]
) -> None:
    spool = guarded.directory / "spool"
    spool.mkdir()
    guarded.configure("spool", publisher_spool=str(spool))
    logger = tools_of(guarded, STRANGER, through)("logger", "--message", "later")
    assert logger.returncode == 0
    assert "spooled" in logger.stderr
    assert guarded.journaled() == []
    assert guarded.tool("logger", "--drain").returncode == 0
    assert len(guarded.journaled()) == 1


def test_sockets_that_systemd_holds_are_guarded_and_held_connections_too(
    guarded: Bus, context: zmq.Context[Any], through: Callable[[str, str], str]
) -> None:
    unit = Unit(guarded, [guarded.inbound, guarded.submit, guarded.outbound])
    stranger = Submitter(context, as_from(STRANGER, guarded.submit))
    stranger.send(*numbered(1))
    assert Submitter(context, as_from(FRIEND, guarded.submit)).submit(*numbered(2))["ok"]
    # What connects while nobody is there is asked about as well, during the hold.
    unit.restart()
    late = tools_of(guarded, FRIEND, through)
    assert late("logger", "--no-spool", "--timeout=20", "--message", "late").returncode == 0
    unit.await_ready()
    wait_for(lambda: refused(guarded).get("submit"), what="the stranger's next attempt")
    ids = guarded.journaled()
    assert (ids[0], len(ids)) == ("id-2", 2)


def test_addresses_of_ipv4_peers_on_a_socket_of_both_versions(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    """The kernel calls them ::ffff:127.0.0.2."""
    ports = [free_port() for _ in range(2)]
    bus.configure(
        "zz",
        relay_inbound=[f"tcp://[::]:{ports[0]}"],
        endpoints={"relay_outbound": [f"tcp://[::]:{ports[1]}"]},
        relay_allow=[FRIEND],
    )
    relay = bus.relay()
    inbound = f"tcp://127.0.0.1:{ports[0]}"
    Sender(context, as_from(FRIEND, inbound))
    assert ends_connection(inbound, STRANGER)
    wait_for(lambda: f"not allowed: {STRANGER} to inbound" in relay.output, what="the line")


def round_trips(sender: Sender, listener: Listener, number: int) -> list[float]:
    """Milliseconds from a publisher to a listener."""
    found = []
    for each in range(number):
        started = time.perf_counter()
        sender.send(*numbered(each))
        listener.receive()
        found.append((time.perf_counter() - started) * 1000)
        time.sleep(0.001)
    return found


def test_a_thousand_strangers_delay_nobody(
    relay: Process, guarded: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    heard, sender = listener(relay), Sender(context, as_from(FRIEND, guarded.inbound))
    quiet = statistics.median(round_trips(sender, heard, 300))
    knocked: Iterator[int] = itertools.count()
    host, port = "127.0.0.1", int(guarded.submit.rpartition(":")[2])
    greeting = b"\xff" + b"\0" * 7 + b"\x01\x7f\x03\x00NULL" + b"\0" * 48
    over = threading.Event()

    def knock() -> None:
        while not over.is_set() and next(knocked) < 1000:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, port), 5, (STRANGER, 0)) as connection,
            ):
                connection.settimeout(5)
                connection.sendall(greeting)
                while connection.recv(100):
                    pass

    threads = [threading.Thread(target=knock) for _ in range(2)]
    for thread in threads:
        thread.start()
    besieged = statistics.median(round_trips(sender, heard, 300))
    for thread in threads:
        thread.join()
    print(f"median of a round trip: {quiet:.2f} ms, among strangers {besieged:.2f} ms")
    fits((besieged - quiet) / 1000, UNNOTICED / 1000)
    wait_for(lambda: refused(guarded).get("submit", 0) >= 1000, what="all of them counted")
    assert relay.output.count("not allowed:") == 1


def test_newcomers_wait_no_longer_for_being_asked_about(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    """From connecting to the subscription, at which a publisher may send."""

    def waits() -> float:
        found = []
        for _ in range(50):
            started = time.perf_counter()
            sender = Sender(context, as_from(FRIEND, bus.inbound))
            found.append((time.perf_counter() - started) * 1000)
            sender.socket.close()
        return statistics.median(found)

    relay = bus.relay()
    before = waits()
    relay.terminate()
    bus.configure("zz", relay_allow=[FRIEND])
    bus.relay()
    after = waits()
    print(f"median of a newcomer's wait: {before:.2f} ms, with relay_allow {after:.2f} ms")
    fits((after - before) / 1000, UNNOTICED / 1000)


def test_a_value_that_is_no_network_stops_the_start(bus: Bus) -> None:
    bus.configure("zz", relay_allow=["10.5.1.0/16"])
    relay = bus.relay(ready=False)
    assert relay.child.wait(20) == 1
    assert "config key 'relay_allow': '10.5.1.0/16' is not a network" in relay.output
    assert "did you mean 10.5.0.0/16?" in relay.output
