"""Listeners as they are: of old protocols, and on hosts that vanish."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.conftest import RELAY, Bus, Listener, Sender, numbered, wait_for
from tests.integration.test_slow_listeners import peak_mib
from tests.integration.test_web import get, health
from tests.support.programs import run
from tests.support.zmtp_peers import Peer

Make = Callable[..., Listener]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
class TestOld:
    """Listeners of ZMTP 1 and 2, libzmq 2 and 3."""

    def test_is_counted_named_and_hears(
        self, bus: Bus, context: zmq.Context[Any], version: str
    ) -> None:
        bus.with_journal(http=True)
        relay = bus.relay()
        peer = Peer(bus.outbound, version).greet().subscribe()
        relay.wait_for_line(f"listener {peer.address} connected, 1 now, by a protocol of before")
        wait_for(lambda: "listener_protocols" in health(bus)["relay"])
        wait_for(lambda: health(bus)["relay"]["listeners"] == 1)
        assert 'fedmsg_relay_listener_protocols{protocol="older"} 1.0' in get(bus, "/metrics")
        sender = Sender(context, bus.inbound)
        for number in range(100):
            sender.send(*numbered(number))
        heard = peer.messages()
        assert [next(heard) for _ in range(100)] == [numbered(n) for n in range(100)]
        address = peer.address
        peer.close()
        relay.wait_for_line(f"listener {address} disconnected, 0 now")

    def test_is_held_for_at_a_restart(
        self, bus: Bus, context: zmq.Context[Any], version: str
    ) -> None:
        bus.with_journal(relay_hold_max=20)
        relay = bus.relay()
        peer = Peer(bus.outbound, version).greet().subscribe()
        relay.wait_for_line("connected, 1 now")
        assert relay.terminate() == 0
        relay = bus.relay(ready=False)
        relay.wait_for_line("inbound: scripts")
        sender = Sender(context, bus.inbound)
        for number in range(100):
            sender.send(*numbered(number))
        assert "ready" not in relay.output
        peer = Peer(bus.outbound, version).greet().subscribe()
        relay.wait_for_line("ready")
        heard = peer.messages()
        assert [next(heard) for _ in range(100)] == [numbered(n) for n in range(100)]
        peer.close()

    def test_is_cut_off_when_it_reads_nothing(
        self, bus: Bus, context: zmq.Context[Any], listener: Make, version: str
    ) -> None:
        relay = bus.relay()
        awake = listener(relay)
        peer = Peer(bus.outbound, version, receive_buffer=4096).greet().subscribe()
        relay.wait_for_line("connected, 2 now")
        sender = Sender(context, bus.inbound)
        number = 0
        while "too slow, cut off" not in relay.output:
            sender.send(*numbered(number, padding="x" * (1 << 20)))
            awake.receive()
            number += 1
            assert number < 400
        relay.wait_for_line(f"listener {peer.address} too slow, cut off")
        assert peak_mib(relay) < 256


def test_queues_of_many_that_read_nothing_are_bounded_together(
    bus: Bus, context: zmq.Context[Any], listener: Make
) -> None:
    relay = bus.relay()
    awake = listener(relay)
    peers = [
        Peer(bus.outbound, version, receive_buffer=4096).greet().subscribe()
        for version in ["1.0", "2.0", "3.0", "3.1"] * 5
    ]
    relay.wait_for_line("connected, 21 now")
    sender = Sender(context, bus.inbound)
    number = 0
    # Of one alone 50,000 messages or 40 MiB may wait.
    while "too slow, cut off" not in relay.output:
        for _ in range(100):
            sender.send(*numbered(number, padding="x" * 200))
            number += 1
        for _ in range(100):
            awake.receive()
        assert number < 48_000
    assert peak_mib(relay) < 256
    for peer in peers:
        peer.close()


VANISHING = """
import socket, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.zmtp_peers import Peer

def ip(*words):
    subprocess.run(["ip", *words], check=True)

directory, relay, busy = Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "busy"
for words in ("link set lo up", "link add near type veth peer name far",
              "addr add 10.9.0.1/24 dev near", "link set near up"):
    ip(*words.split())
holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
time.sleep(0.3)
ip("link", "set", "far", "netns", str(holder.pid))
there = ["nsenter", "--target", str(holder.pid), "--net"]
for words in ("addr add 10.9.0.2/24 dev far", "link set far up", "link set lo up"):
    subprocess.run([*there, "ip", *words.split()], check=True)
log = (directory / "relay.log").open("w")
daemon = subprocess.Popen([sys.executable, relay, "--config-filename", str(directory / "c.py")],
                          stdout=log, stderr=log)

def wait(text, seconds):
    end = time.monotonic() + seconds
    while text not in (directory / "relay.log").read_text():
        assert time.monotonic() < end, (text, (directory / "relay.log").read_text())
        time.sleep(0.05)

listener = None
try:
    wait("ready", 20)
    script = "import sys, time; sys.path.insert(0, sys.argv[1]);" \\
             "from tests.support.zmtp_peers import Peer;" \\
             "peer = Peer('tcp://10.9.0.1:4001').greet().subscribe(); time.sleep(600)"
    listener = subprocess.Popen([*there, sys.executable, "-c", script, sys.argv[1]])
    wait("listener 10.9.0.2", 20)
    ip("link", "set", "near", "down")  # without a word
    if busy:
        import json, zmq
        with zmq.Context() as context:
            pub = context.socket(zmq.XPUB)
            pub.connect("tcp://127.0.0.1:2003")
            assert pub.poll(20000)
            body = {"topic": "t", "timestamp": 1, "msg_id": "1", "msg": {}}
            pub.send_multipart([b"t", json.dumps(body).encode()])
            wait("vanished, cut off", 40)
    wait("vanished, cut off", 40)
    wait("disconnected, 0 now", 40)
finally:
    for process in (listener, holder, daemon):
        if process is not None:
            process.kill()
            process.wait()
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_one_whose_host_vanishes_is_gone(bus: Bus, how: str) -> None:
    """In a network of its own; in seconds, for the config asks for that."""
    config = {
        "relay_inbound": ["tcp://127.0.0.1:2003"],
        "endpoints": {"relay_outbound": ["tcp://10.9.0.1:4001"]},
        "zmq_tcp_keepalive_idle": 1,
        "zmq_tcp_keepalive_intvl": 1,
        "zmq_tcp_keepalive_cnt": 2,
    }
    (bus.directory / "c.py").write_text(f"config = {config!r}\n")
    namespace = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    arguments = [str(RELAY.parent), str(bus.directory), str(RELAY), how]
    done = run([*namespace, sys.executable, "-c", VANISHING, *arguments], timeout=120)
    assert done.returncode == 0, done.stderr
    line = re.search(r"listener 10.9.0.2:\d+ vanished.*", (bus.directory / "relay.log").read_text())
    assert line and "answered nothing for" in line[0]
