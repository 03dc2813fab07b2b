#!/bin/sh
# fedmsg's high_water_mark: 0 is no "no limit", and any other number ends whoever publishes.
#
# Versions: fedmsg 1.1.7, pyzmq 27.3.0 with libzmq 4.3.5, Python 3.11.
# Expected: "zero means no limit", as its default config says, and other numbers bound the queue.
# Seen: with 0 it sets nothing, so that a queue holds libzmq's 1000 messages. With another number it looks
# whether pyzmq knows the name HWM, which it takes for a sign of libzmq 2, and sets that: EINVAL.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install wheel "setuptools<81"
"$made/venv/bin/pip" --quiet install fedmsg==1.1.7 pyzmq==27.3.0 "setuptools<81"
"$made/venv/bin/python" - <<'PYTHON'
import zmq
from fedmsg.utils import set_high_water_mark

with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
    set_high_water_mark(publisher, {"high_water_mark": 0})
    print("with 0:", publisher.sndhwm)
    assert publisher.sndhwm == 1000
    try:
        set_high_water_mark(publisher, {"high_water_mark": 5000})
    except zmq.ZMQError as error:
        print("with 5000:", error)
        assert error.errno == zmq.EINVAL
    else:
        raise AssertionError("it was set")
PYTHON
