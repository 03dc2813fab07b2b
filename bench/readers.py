"""Clients that ask a relay for its backlog as fast as they are answered.

    python -m bench.readers ADDRESS REPORT

Four connections with a thread each. On a bus they are on other hosts: here they have the priority
of the process that answers them, which is lower than that of the relay. Ends on SIGTERM, and writes
how many answers there were, and how many refusals for want of a turn.
"""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import sys
import threading
from pathlib import Path

CLIENTS = 4
NICE = 10

TOPIC = "org.fedoraproject.dev.bench.git.receive"
# What a hub asks when it starts, a person who looks for something, and one who leafs.
QUERIES = (
    "/raw?rows_per_page=100&order=asc&delta=3600",
    f"/raw?rows_per_page=100&topic={TOPIC}",
    "/raw?rows_per_page=100&user=bench&page=2",
    "/raw?rows_per_page=100&page=7",
)


def main() -> None:
    address, report = sys.argv[1:]
    os.nice(NICE)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    answers, refusals = [0] * CLIENTS, [0] * CLIENTS

    def ask(number: int) -> None:
        client = http.client.HTTPConnection(address, timeout=60)
        for query in itertools.cycle(QUERIES[number:] + QUERIES[:number]):
            if stopping.is_set():
                return
            client.request("GET", query)
            answer = client.getresponse()
            body = answer.read()
            if answer.status == 503:
                refusals[number] += 1
                continue
            if answer.status != 200:
                os.write(2, f"{query}: {answer.status} {body[:200]!r}\n".encode())
                os._exit(1)
            answers[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    stopping.wait()
    for thread in threads:
        thread.join()
    Path(report).write_text(f"{sum(answers)} {sum(refusals)}", encoding="ascii")


if __name__ == "__main__":
    main()
