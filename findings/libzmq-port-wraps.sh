#!/bin/sh
# A TCP port above 65535 is not refused by libzmq, and a port that is no number is read as far as it is one.
#
# Versions: pyzmq 27.1.0, whose wheel has libzmq 4.3.5.
# Expected: bind and connect raise EINVAL, as they do for the port -1 and for the name "http".
# Seen: both succeed. The socket uses the port modulo 65536, so a publisher whose config says 67539
# (one digit too many) speaks to port 2003 of that host, whatever listens there. "20o3" is port 20.
# What it means: who reads addresses from a config has to look at the port itself.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install pyzmq==27.1.0
"$made/venv/bin/python" - <<'PYTHON'
import socket

import zmq

assert zmq.zmq_version() == "4.3.5", zmq.zmq_version()
context = zmq.Context()
context.linger = 0


def first_byte_at(port, said):
    """What comes to `port` of one that was told to connect to the port `said`."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        listening.settimeout(20)
        publisher = context.socket(zmq.PUB)
        publisher.connect(f"tcp://127.0.0.1:{said(listening.getsockname()[1])}")
        peer, _ = listening.accept()
        with peer:
            greeting = peer.recv(1)
        publisher.close()
        return greeting


greeting = first_byte_at(0, lambda port: port + 65536)
print("connect to port + 65536: the greeting at port begins with", greeting)
assert greeting == b"\xff"

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
listener = context.socket(zmq.PUB)
listener.bind(f"tcp://127.0.0.1:{port + 65536}")
bound = listener.getsockopt_string(zmq.LAST_ENDPOINT)
print(f"bind to {port} + 65536: bound to", bound)
assert bound == f"tcp://127.0.0.1:{port}"

publisher = context.socket(zmq.PUB)
publisher.connect("tcp://127.0.0.1:20o3")
print("connect to port 20o3: no error")
for port in ("-1", "http"):
    try:
        publisher.connect(f"tcp://127.0.0.1:{port}")
    except zmq.ZMQError as error:
        print(f"connect to port {port}:", error)
    else:
        raise AssertionError(f"port {port} was taken")
context.destroy(linger=0)
PYTHON
