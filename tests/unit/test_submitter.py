"""Submitting over plain TCP: to sockets of libzmq, and to peers that do what no relay does."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from fedmsg_relay import config as global_config
from fedmsg_relay.errors import PublishError
from fedmsg_relay.publishing import submit_client as submitter_module
from fedmsg_relay.publishing import zmtp
from fedmsg_relay.publishing.delivery import SPOOLED, Delivery, Outcome
from fedmsg_relay.publishing.polling import Poller
from fedmsg_relay.publishing.spool import Spool
from fedmsg_relay.publishing.submit_client import SubmitClient

from tests.conftest import free_port, wait_for
from tests.support.ports import server
from tests.support.waiting import fits

READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"


def reply(key: bytes, **more: Any) -> bytes:
    return zmtp.message([key, b"", json.dumps({"ok": True, **more}).encode()])


class Peer:
    """A listening TCP socket, and its connections in the order in which they came."""

    def __init__(self) -> None:
        self._listening = server()
        self._listening.settimeout(10)
        self.connections: list[socket.socket] = []

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"

    def accept(self) -> socket.socket:
        connection, _ = self._listening.accept()
        connection.settimeout(10)
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        for open_one in (self._listening, *self.connections):
            open_one.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


MakeSubmitter = Callable[..., SubmitClient]


@pytest.fixture
def submitter() -> Iterator[MakeSubmitter]:
    made: list[SubmitClient] = []

    def make(endpoint: str, **keys: Any) -> SubmitClient:
        made.append(SubmitClient(endpoint, global_config.complete(keys)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def turn(*submitters: SubmitClient) -> None:
    """Wait as Delivery does, but not for long."""
    poller = Poller()
    for one in submitters:
        one.watch(poller)
    poller.wait(5)


def until(condition: Callable[[], Any], *submitters: SubmitClient) -> Any:
    def is_true() -> Any:
        turn(*submitters)
        return condition()

    return wait_for(is_true)


def answers(submitter: SubmitClient, count: int) -> list[tuple[int, dict[str, Any]]]:
    found: list[tuple[int, dict[str, Any]]] = []

    def are_all_here() -> bool:
        found.extend(submitter.replies())
        return len(found) >= count

    until(are_all_here, submitter)
    return found


def greeted(connection: socket.socket, then: bytes = b"") -> socket.socket:
    """The other side of the handshake, and `then` in the same breath."""
    connection.sendall(zmtp.GREETING + READY + then)
    received = b""
    while len(received) < 64 + 43:
        received += connection.recv(64 + 43 - len(received))
    assert received[:64] == zmtp.GREETING
    return connection


class TestLibzmq:
    @pytest.mark.parametrize("kind", [zmq.ROUTER, zmq.REP])
    @pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 20_000_000])
    def test_frames_arrive_and_replies_come_back(
        self, submitter: MakeSubmitter, context: zmq.Context[Any], kind: int, size: int
    ) -> None:
        relay = context.socket(kind)
        port = free_port()
        relay.bind(f"tcp://127.0.0.1:{port}")
        one = submitter(f"tcp://127.0.0.1:{port}")
        until(one.is_ready, one)
        body = os.urandom(size)
        assert one.send(17, b"topic", body)
        frames: list[bytes] = []

        def arrived() -> bool:
            one.is_lost()  # writes
            if relay.poll(0):
                frames.extend(relay.recv_multipart())
            return bool(frames)

        until(arrived, one)
        assert frames[-2:] == [b"topic", body]
        answer = json.dumps({"ok": True, "pad": "x" * min(size, 100_000)}).encode()
        relay.send_multipart([*frames[:-2], answer])
        assert answers(one, 1) == [(17, json.loads(answer))]
        assert one.in_flight == set()

    def test_a_router_that_asks_for_signs_of_life(
        self, submitter: MakeSubmitter, context: zmq.Context[Any]
    ) -> None:
        relay = context.socket(zmq.ROUTER)
        relay.setsockopt(zmq.HEARTBEAT_IVL, 20)
        relay.setsockopt(zmq.HEARTBEAT_TIMEOUT, 200)
        port = free_port()
        relay.bind(f"tcp://127.0.0.1:{port}")
        one = submitter(f"tcp://127.0.0.1:{port}")
        until(one.is_ready, one)
        end = time.monotonic() + 1
        until(lambda: one.is_lost() or time.monotonic() > end, one)
        assert one.is_ready() and not one.is_lost()
        time.sleep(
            0.5
        )  # without a sign of life this one is given up, which shows that it was asked
        until(one.is_lost, one)

    @pytest.mark.parametrize("kind", [zmq.SUB, zmq.DEALER, zmq.PUB])
    def test_a_socket_of_another_type_is_no_relay(
        self, submitter: MakeSubmitter, context: zmq.Context[Any], kind: int
    ) -> None:
        other = context.socket(kind)
        port = free_port()
        other.bind(f"tcp://127.0.0.1:{port}")
        one = submitter(f"tcp://127.0.0.1:{port}")
        until(
            lambda: one.is_ready() or one.due < time.monotonic() + 1, one
        )  # the next attempt is due
        assert not one.is_ready() and not one.is_lost()

    def test_it_comes_again_until_a_relay_is_there(
        self, submitter: MakeSubmitter, context: zmq.Context[Any]
    ) -> None:
        port = free_port()
        one = submitter(f"tcp://127.0.0.1:{port}", zmq_reconnect_ivl=20, zmq_reconnect_ivl_max=50)
        until(lambda: one.due < float("inf") and not one.is_ready(), one)
        relay = context.socket(zmq.ROUTER)
        relay.bind(f"tcp://127.0.0.1:{port}")
        until(one.is_ready, one)
        assert not one.is_lost()

    @pytest.mark.parametrize("host", ["localhost", "*", "[::1]"])
    def test_names_and_addresses(
        self, submitter: MakeSubmitter, context: zmq.Context[Any], host: str
    ) -> None:
        relay = context.socket(zmq.ROUTER)
        relay.setsockopt(zmq.IPV6, host == "[::1]")
        port = free_port()
        relay.bind(f"tcp://{'[::1]' if host == '[::1]' else '127.0.0.1'}:{port}")
        one = submitter(f"tcp://{host}:{port}")
        until(one.is_ready, one)


class TestPeers:
    def test_one_that_says_a_byte_at_a_time(self, submitter: MakeSubmitter, peer: Peer) -> None:
        one = submitter(peer.endpoint)
        connection = peer.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in zmtp.GREETING + READY:
            connection.sendall(bytes([octet]))
            turn(one)
            one.is_lost()
        until(one.is_ready, one)
        assert one.send(1, b"t", b"b")
        for octet in reply(b"1"):
            assert list(one.replies()) == []
            connection.sendall(bytes([octet]))
        assert answers(one, 1) == [(1, {"ok": True})]

    def test_one_that_reads_slowly(self, submitter: MakeSubmitter, peer: Peer) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        body = os.urandom(12_000_000)
        assert one.send(1, b"t", body)
        assert not one.send(2, b"t", b"no room")
        assert one.in_flight == {1}
        poller = Poller()
        one.watch(poller)
        assert poller.wait(0) == set()
        expected = zmtp.message([b"1", b"", b"t", body])
        received = bytearray()
        while not poller.wait(0):  # until there is room again
            received += connection.recv(100_000)

        def all_of_it() -> bool:
            one.is_lost()
            received.extend(connection.recv(100_000))
            return len(received) >= len(expected)

        until(all_of_it, one)
        assert received == expected
        assert one.send(2, b"t", b"room again")

    def test_one_that_says_nothing_is_tried_again(
        self, submitter: MakeSubmitter, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submitter_module, "HANDSHAKE", 0.2)
        one = submitter(peer.endpoint)
        first = peer.accept()
        until(lambda: one.is_ready() or len(peer.connections) > 1 or accepted(peer), one)
        assert first.recv(1000) == zmtp.GREETING
        assert first.recv(1) == b""
        greeted_by(peer, one, peer.connections[1])

    @pytest.mark.parametrize(
        "garbage",
        [b"\xff" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\x06\x05ERROR\x00", b"\x08\x00"],
    )
    def test_garbage_after_the_handshake_is_a_loss(
        self, submitter: MakeSubmitter, peer: Peer, garbage: bytes
    ) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        assert one.send(1, b"t", b"a") and one.send(2, b"t", b"b")
        connection.sendall(reply(b"1") + garbage)
        assert answers(one, 1) == [(1, {"ok": True})]  # what came before it counts
        assert one.is_lost() and not one.is_ready()
        assert one.in_flight == {2}

    def test_a_reply_that_is_too_large(self, submitter: MakeSubmitter, peer: Peer) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        connection.sendall(b"\x02" + (1 << 40).to_bytes(8, "big") + b"x" * 1000)
        until(one.is_lost, one)

    def test_a_reply_before_the_end_of_the_connection_counts(
        self, submitter: MakeSubmitter, peer: Peer
    ) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        assert one.send(1, b"t", b"a")
        one.flush()
        assert connection.recv(1000)
        connection.sendall(reply(b"1"))
        connection.close()
        assert answers(one, 1) == [(1, {"ok": True})]
        until(one.is_lost, one)
        assert not one.send(2, b"t", b"b")

    def test_what_is_submitted_at_once_leaves_together(
        self, submitter: MakeSubmitter, peer: Peer
    ) -> None:
        """Each packet wakes the relay, and the fewer messages it gets then, the more each costs."""
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        for key in range(10):
            assert one.send(key, b"t", b"b")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(10)
        one.flush()
        expected = b"".join(zmtp.message([b"%d" % key, b"", b"t", b"b"]) for key in range(10))
        assert connection.recv(1000) == expected

    def test_replies_nobody_asked_for(self, submitter: MakeSubmitter, peer: Peer) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        assert one.send(3, b"t", b"a")
        connection.sendall(
            reply(b"2")
            + reply(b"x")
            + zmtp.message([b"3"])
            + zmtp.message([b"3", b"", b"[1]"])
            + zmtp.message([b"3", b"", b"\xff"])
            + zmtp.message([b"3", b"", b"[" * 5000])
            + reply(b"3", seq=5)
            + reply(b"3", seq=6)
        )
        assert answers(one, 1) == [(3, {"ok": True, "seq": 5})]

    def test_a_peer_that_says_much_is_not_heard_out_at_once(
        self, submitter: MakeSubmitter, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or one that never stops would keep the clock from being looked at."""
        monkeypatch.setattr(submitter_module, "_READS", 1)
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        unasked = reply(b"9")
        sending = threading.Thread(target=connection.sendall, args=(unasked * 10_000,))
        sending.start()
        receiving = one._socket
        assert receiving is not None
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        receiving.setblocking(True)
        wait_for(lambda: len(receiving.recv(100_000, socket.MSG_PEEK)) > 80_000)
        receiving.setblocking(False)
        assert not one.is_lost()
        assert 0 < len(one._received) * len(unasked) <= 1 << 16
        until(lambda: list(one.replies()) or not sending.is_alive(), one)
        sending.join()

    def test_one_that_asks_for_signs_of_life_and_reads_nothing(
        self, submitter: MakeSubmitter, peer: Peer
    ) -> None:
        one = submitter(peer.endpoint)
        connection = greeted_by(peer, one)
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        assert one._socket is not None
        one._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        pings = b"\x04\x07\x04PING\x00\x00" * 1000

        def is_given_up() -> bool:
            with suppress(BlockingIOError, ConnectionError):
                connection.send(pings)
            assert len(one._unsent) < 1 << 20
            return one.is_lost()

        until(is_given_up, one)

    def test_the_options_of_the_config(self, submitter: MakeSubmitter, peer: Peer) -> None:
        one = submitter(peer.endpoint, zmq_tcp_keepalive_idle=77, zmq_tcp_keepalive_cnt=0)
        made = one._socket
        assert made is not None
        options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        assert [made.getsockopt(socket.IPPROTO_TCP, o) for o in options] == [1, 77, 5]
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        off = submitter(peer.endpoint, zmq_tcp_keepalive=0)._socket
        assert off is not None
        assert off.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0

    @pytest.mark.parametrize(
        ("interval", "longest", "expected"),
        [(100, 1000, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]), (100, 0, [0.1] * 3), (300, 200, [0.3] * 3)],
    )
    def test_attempts_become_rarer(
        self, submitter: MakeSubmitter, interval: int, longest: int, expected: list[float]
    ) -> None:
        one = submitter(
            f"tcp://127.0.0.1:{free_port()}",
            zmq_reconnect_ivl=interval,
            zmq_reconnect_ivl_max=longest,
        )
        found = []
        for _ in expected:
            until(lambda: not one.is_ready() and one._socket is None, one)
            found.append(round(one.due - time.monotonic(), 1))
            one.due = 0.0
        assert found == expected

    def test_no_further_attempt_if_the_config_says_so(self, submitter: MakeSubmitter) -> None:
        one = submitter(f"tcp://127.0.0.1:{free_port()}", zmq_reconnect_ivl=-1)
        until(lambda: not one.is_ready() and one._socket is None, one)
        assert one.due == float("inf")


def accepted(peer: Peer) -> bool:
    peer._listening.settimeout(0)
    try:
        peer.accept()
    except BlockingIOError:
        return False
    return True


def greeted_by(
    peer: Peer, one: SubmitClient, connection: socket.socket | None = None
) -> socket.socket:
    """A connection that is past the handshake. The other side's greeting is read in its course."""
    connection = connection or peer.accept()
    thread = threading.Thread(target=greeted, args=(connection,))
    thread.start()
    until(one.is_ready, one)
    thread.join()
    return connection


class TestNames:
    def test_no_name_is_waited_for(
        self, submitter: MakeSubmitter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where the name service does not answer; the thread is left behind."""
        asked, answer = threading.Event(), threading.Event()
        real = socket.getaddrinfo

        def hangs(host: Any, *more: Any) -> Any:
            if host == b"relay.example":
                asked.set()
                answer.wait(30)
                host = b"127.0.0.1"
            return real(host, *more)

        # The numeric form of it is asked for first, and is none.
        def resolve(host: Any, port: Any, family: Any, kind: Any, proto: Any, flags: int) -> Any:
            look_up = real if flags & socket.AI_NUMERICHOST else hangs
            return look_up(host, port, family, kind, proto, flags)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with server() as listening:
            listening.settimeout(10)
            one = submitter(f"tcp://relay.example:{listening.getsockname()[1]}")
            assert asked.wait(10)
            assert not one.is_ready()
            abandoned = submitter(f"tcp://relay.example:{listening.getsockname()[1]}")
            abandoned.close()
            answer.set()
            until(lambda: one.is_ready() or one._socket, one)
            listening.accept()[0].close()

    def test_a_name_that_does_not_exist(self, submitter: MakeSubmitter) -> None:
        one = submitter("tcp://no-such-host.invalid:2004")
        until(lambda: not one.is_ready() and one._lookup is None, one)
        assert one.due < float("inf")
        assert not one.is_lost()

    def test_descriptors_are_given_back(self, peer: Peer, submitter: MakeSubmitter) -> None:
        # By name, not by number: a thread that an earlier test left behind gives back its own now.
        before = open_descriptors()
        port = peer.endpoint.rpartition(":")[2]
        for _ in range(20):
            for host in ("127.0.0.1", "localhost", "no-such-host.invalid"):
                submitter(f"tcp://{host}:{port}").close()
        wait_for(lambda: not open_descriptors() - before)

    def test_a_descriptor_that_is_not_given_back_is_noticed(self) -> None:
        before = open_descriptors()
        kept = os.pipe()
        try:
            assert len(open_descriptors() - before) == 1
        finally:
            for end in kept:
                os.close(end)
        assert not open_descriptors() - before


def open_descriptors() -> set[str]:
    """What this process has open, as the kernel names it: both ends of a pipe have one name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed by a thread meanwhile
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    # The one of this very look.
    return {name for name in found if not name.startswith("/proc/")}


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("tcp://busgateway01:2004", "busgateway01", 2004),
        ("tcp://bus-gateway_01.example.org:1", "bus-gateway_01.example.org", 1),
        ("tcp://10.0.0.1:65535", "10.0.0.1", 65535),
        ("tcp://*:2004", "127.0.0.1", 2004),
        ("tcp://[::1]:2004", "::1", 2004),
        ("tcp://[fe80::1%eth0]:2004", "fe80::1%eth0", 2004),
    ],
)
def test_endpoints(endpoint: str, host: str, port: int) -> None:
    assert submitter_module._host_and_port(endpoint) == (host, port)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///run/fedmsg/submit",
        "tcp://::1:2004",
        "tcp://10.0.0.2;10.0.0.1:2004",
        "tcp://relay:0",
        "tcp://relay:65536",
        "tcp://relay:*",
        "tcp://relay",
        "tcp://:2004",
        "tcp://[relay]:2004",
        "tcp://re lay:2004",
        "tcp://rélay:2004",
        "tcp://relay:٢٠٠٤",
        "tcp://relay:2004\n",
        "",
    ],
)
def test_what_is_no_endpoint(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="is not an address like tcp://host:port"):
        submitted(endpoint, tmp_path / "spool")


def submitted(endpoint: str, spool: Path, **keys: Any) -> Outcome:
    """What becomes of one message, with one address to submit it to and none else."""
    outcomes: list[Outcome] = []
    config = global_config.complete({"relay_submit": [endpoint], "relay_inbound": [], **keys})
    spool.mkdir()
    delivery = Delivery(
        config, Spool(str(spool), 1 << 30), lambda _, outcome: outcomes.append(outcome)
    )
    delivery.put(b"topic", b"body", None)
    delivery.finish()
    assert delivery.close(leaving=True)
    [outcome] = outcomes
    return outcome


class TestDelivery:
    @pytest.mark.parametrize(
        "first", [b"", b"\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 99]
    )
    def test_a_peer_that_is_no_relay_costs_no_more_than_the_timeout(
        self, peer: Peer, tmp_path: Path, first: bytes
    ) -> None:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                if accepted(peer):
                    peer.connections[-1].sendall(first)
                ended.wait(0.01)

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        outcome = submitted(peer.endpoint, tmp_path / "spool", timeout=0.5)
        took = time.monotonic() - started
        ended.set()
        thread.join()
        assert outcome.kind == SPOOLED
        assert took > 0.4
        fits(took, 2)

    def test_a_line_of_input_is_waited_for_while_the_relay_asks_for_signs_of_life(
        self, context: zmq.Context[Any], tmp_path: Path
    ) -> None:
        relay = context.socket(zmq.ROUTER)
        relay.setsockopt(zmq.HEARTBEAT_IVL, 20)
        relay.setsockopt(zmq.HEARTBEAT_TIMEOUT, 200)
        port = free_port()
        relay.bind(f"tcp://127.0.0.1:{port}")
        senders = []

        def serve() -> None:
            for _ in range(2):
                frames = relay.recv_multipart()
                senders.append(frames[0])
                relay.send_multipart([*frames[:-2], b'{"ok": true, "seq": 1}'])

        thread = threading.Thread(target=serve)
        thread.start()
        config = global_config.complete({"relay_submit": [f"tcp://127.0.0.1:{port}"], "timeout": 9})
        delivery = Delivery(config, None, lambda *_: None)
        delivery.put(b"topic", b"body", None)
        delivery.finish()
        readable, writable = os.pipe()
        closing = threading.Timer(0.7, os.close, (writable,))
        closing.start()
        delivery.wait_for_input(readable)
        os.close(readable)
        delivery.put(b"topic", b"body", None)
        delivery.finish()
        delivery.close()
        thread.join()
        # A ROUTER gives each connection an identity of its own.
        assert senders[0] == senders[1]
