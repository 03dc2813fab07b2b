#!/bin/sh
# A SUB socket asks a publisher for no more topics than its own high-water mark for sending, in silence.
#
# Versions: pyzmq 27.3.0 with libzmq 4.3.5, Python 3.11.
# Expected: a listener hears every topic that it subscribes to; ZMQ_SNDHWM is about messages, which a SUB does not send.
# Seen: of 3000 subscriptions 1000 reach the publisher, at the first connection and at each later one. The others are
# dropped without an error. With sndhwm = 0 all do, with 100 there are 100.
# What it means: set sndhwm of a listener with more topics than that to 0, or subscribe to what they begin with.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install pyzmq==27.3.0
"$made/venv/bin/python" - <<'PYTHON'
import zmq


def asked_for(mark):
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher, context.socket(zmq.SUB) as listener:
        publisher.rcvhwm = publisher.linger = listener.linger = 0
        if mark is not None:
            listener.sndhwm = mark
        for number in range(3000):
            listener.subscribe(b"topic.%d" % number)
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        listener.connect(f"tcp://127.0.0.1:{port}")
        number = 0
        while publisher.poll(2000):
            number += publisher.recv().startswith(b"\x01")
        return number


for mark, expected in ((None, 1000), (0, 3000), (100, 100)):
    found = asked_for(mark)
    print(f"sndhwm {'as it is' if mark is None else mark}: {found} of 3000 subscriptions")
    assert found == expected
PYTHON
