#!/bin/sh
# The departure of a subscriber costs an XPUB as much time as all topics of all others together.
#
# Versions: pyzmq 27.1.0, whose wheel has libzmq 4.3.5.
# Expected: a subscriber that leaves takes its own subscriptions with it, so the cost follows their number.
# Seen: libzmq walks over every topic that anybody has subscribed to, for each pipe that ends, inside whichever call of
# the XPUB's thread comes next. Beside 200,000 topics of one subscriber, 50 others with one topic each cost 4.7 s as they
# go, and 1.4 ms without it.
# What it means: many listeners that leave at once keep a relay's thread from its publishers, and the delay grows with
# what a single listener has subscribed to.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install pyzmq==27.1.0
"$made/venv/bin/python" - <<'PYTHON'
import time

import zmq

assert zmq.zmq_version() == "4.3.5", zmq.zmq_version()
LEAVING = 50


def seconds(topics):
    """Of the XPUB's own thread, for the departure of LEAVING subscribers beside one with `topics`."""
    context = zmq.Context()
    context.linger = 0
    hub = context.socket(zmq.XPUB)
    hub.rcvhwm = hub.sndhwm = 0
    port = hub.bind_to_random_port("tcp://127.0.0.1")

    def subscriber():
        made = context.socket(zmq.SUB)
        made.rcvhwm = made.sndhwm = 0
        made.connect(f"tcp://127.0.0.1:{port}")
        return made

    def notices(number):
        """Take what the hub says of subscriptions, which is when libzmq does the work."""
        began = time.thread_time()
        while number:
            hub.poll(20_000)
            try:
                while True:
                    hub.recv(zmq.NOBLOCK)
                    number -= 1
            except zmq.Again:
                pass
        return time.thread_time() - began

    staying = subscriber()
    for number in range(topics):
        staying.subscribe(b"t%d" % number)
    notices(topics)
    leaving = [subscriber() for _ in range(LEAVING)]
    for number, each in enumerate(leaving):
        each.subscribe(b"leaving %d" % number)
    notices(LEAVING)
    for each in leaving:
        each.close()
    spent = notices(LEAVING)
    context.destroy(linger=0)
    return spent


few, many = min(seconds(0) for _ in range(3)), min(seconds(200_000) for _ in range(2))
print(f"{LEAVING} leave beside a subscriber with no topic: {1000 * few:.2f} ms of the thread")
print(f"{LEAVING} leave beside a subscriber with 200,000 topics: {1000 * many:.0f} ms of the thread")
assert many > 100 * few, (few, many)
PYTHON
