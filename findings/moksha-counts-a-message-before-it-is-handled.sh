#!/bin/sh
# A hub's monitoring frame counts a message as handled when its handling begins, and tells nothing of one that never ends.
#
# Versions: moksha.hub 1.5.17, Python 3.11.
# Expected: headcount_out is what a consumer has handled, so that headcount_in - headcount_out is what it still has to do,
# and a consumer that hangs in its first message has handled none.
# Seen: a consumer that sleeps in its first of three messages is told as headcount_in 3, headcount_out 1, backlog 2 and
# exceptions 0. The message that it hangs in is in none of the numbers, and `times`, which has a number for each message
# that is done, is empty.
# What it means: a check by backlog and counts takes a consumer of rare messages that hangs for one that is well.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install moksha.hub==1.5.17 moksha.common==1.2.5 setuptools==80.10.2 Twisted==26.10.0 txZMQ==1.0.0
"$made/venv/bin/python" - <<'PYTHON'
import threading
import time

import moksha.hub.reactor
from moksha.hub.api import Consumer

over = threading.Event()


class Hub:
    """What a consumer needs of one."""

    config = {}

    def subscribe(self, topic, callback):
        pass

    def close(self):
        pass


class Sleeper(Consumer):
    topic = "*"
    jsonify = False
    begun = threading.Event()

    def consume(self, message):
        self.begun.set()
        over.wait()




def in_thread(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


moksha.hub.reactor.reactor.callInThread = in_thread
sleeper = Sleeper(Hub())
for number in range(3):
    sleeper._consume({"topic": "t", "body": {"msg": number}})
assert sleeper.begun.wait(20)
time.sleep(0.1)
told = sleeper.__json__()
over.set()
print({key: told[key] for key in ("headcount_in", "headcount_out", "backlog", "exceptions", "times")})
assert (told["headcount_in"], told["headcount_out"], told["backlog"]) == (3, 1, 2), told
assert told["times"] == [] and told["exceptions"] == 0
PYTHON
