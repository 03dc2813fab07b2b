"""Runs on a publisher's host: numbered messages, until it is told to stop (SIGTERM).

    publish.py NAME FILE

Two scripts at once. One calls fedmsg-logger; the other is unmodified and uses upstream's library,
which is done here by what that does: it connects a PUB socket, sleeps, sends, and lingers. Each
message has a process or a socket of its own, and reads the config anew. Its text is NAME, which of
the two it is, and its number. FILE has a line of JSON for each that was sent:
[which, number, exit status, what it said].

Of the second, what a PUB socket cannot tell is said, too: HURRIED where its message was sent before
the relay had subscribed, or had not left when the socket was closed. An XPUB socket knows, and
sends the same bytes at the same time. STARVED is said where, besides, the relay subscribed within
LATE milliseconds more, and more processes wanted to run than there are processors: all hosts share
a machine, and that machine was late, not the relay.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import Any, Callable

import zmq

sys.path.insert(0, "/usr/local/lib/fedmsg-relay")
from fedmsg_relay import config

# Seconds from one message to the next, for the tests share their machine with the hosts.
PAUSE = 0.4

HURRIED = "hurried"
STARVED = "starved and hurried"
LATE = 1500

# Takes an exit status and what was said, once for each message.
Said = Callable[[int, str], None]

stop = threading.Event()


def acked(text: str, said: Said) -> None:
    logger = ["fedmsg-logger", "--modname", "sop", "--topic", "acked", "--message", text]
    done = subprocess.run(logger, capture_output=True, text=True)
    said(done.returncode, done.stderr.strip())


def legacy(text: str, said: Said) -> None:
    try:
        now = config.load()
    except Exception as error:  # upstream's library ends with it, whatever it is
        said(1, str(error))
        return
    topic = f"{now['topic_prefix']}.{now['environment']}.sop.legacy"
    body = {
        "topic": topic,
        "msg": {"log": text},
        "timestamp": int(time.time()),
        "msg_id": f"{time.localtime().tm_year}-{uuid.uuid4()}",
        "i": 1,
        "username": "operator",
    }
    context = zmq.Context()
    try:
        socket = context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, int(now["zmq_linger"]))
        socket.connect(config.as_list("relay_inbound", now["relay_inbound"])[0])
        time.sleep(float(now["post_init_sleep"]))
        connected = socket.poll(0)
        socket.send_multipart([topic.encode(), json.dumps(body).encode()])
        if not connected:
            # What was sent is gone already. The next message need not wait to learn why.
            threading.Thread(target=observe, args=(context, socket, said)).start()
            return
        closed = time.monotonic()
        socket.close()
    except zmq.ZMQError as error:
        context.destroy()
        said(1, str(error))
        return
    context.destroy()
    lingered = time.monotonic() - closed >= int(now["zmq_linger"]) / 1000
    said(0, "" if not lingered else STARVED if busy() else HURRIED)


def observe(context: zmq.Context[Any], socket: zmq.Socket[Any], said: Said) -> None:
    late = socket.poll(LATE)
    context.destroy(linger=0)
    said(0, STARVED if late and busy() else HURRIED)


def busy() -> bool:
    """Over the last minute, on the machine that all hosts share."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def main(name: str, path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with open(path, "a", buffering=1, encoding="utf-8") as sent:

        def publish(which: str, send: Callable[[str, Said], None]) -> None:
            number = 0

            def said(of: int, status: int, text: str) -> None:
                sent.write(json.dumps([which, of, status, text]) + "\n")

            while not stop.is_set():
                number += 1
                send(f"{name}-{which}-{number}.", functools.partial(said, number))
                stop.wait(PAUSE)

        threads = [
            threading.Thread(target=publish, args=(send.__name__, send)) for send in (acked, legacy)
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(3600):
            pass
        for thread in threads:
            thread.join()
        # Those that observe.
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
