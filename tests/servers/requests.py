"""Clients of a web application each of whose requests publishes one numbered message."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading

from tests.conftest import Process
from tests.support.waiting import patient, wait_for

from .publishers import Publishers, children

CLIENTS = 8
# Seconds that a request may take: a server that hangs answers none.
HUNG = 40.0


class Requests:
    """CLIENTS threads that ask for one number after the other until `stop()`."""

    def __init__(self, port: int) -> None:
        self.answered: list[int] = []
        self.unanswered: list[tuple[int, str]] = []  # the connection was ended
        self.hung: list[int] = []
        self._port = port
        self._numbers = itertools.count()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]

    def start(self, server: Process) -> None:
        """Begin when the server answers."""
        server.wait_for(self._is_up, "an answer")
        for thread in self._threads:
            thread.start()

    def reach(self, count: int) -> None:
        """Wait until so many were answered."""
        wait_for(lambda: len(self.answered) >= count or self.hung, HUNG, f"{count} answers")

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert self.hung == []

    def _ask(self) -> None:
        while not self._stopped.is_set():
            number = next(self._numbers)
            try:
                status = self._get(number)
            except TimeoutError:
                self.hung.append(number)
            except (OSError, http.client.HTTPException) as error:
                self.unanswered.append((number, repr(error)))
            else:
                assert status == 200
                self.answered.append(number)

    def _get(self, number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=patient(HUNG))
        try:
            connection.request("GET", f"/?{number}", headers={"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def _is_up(self) -> bool:
        try:
            return self._get(next(self._numbers)) == 200
        except OSError:
            return False


def go_through(publishers: Publishers, server: Process, requests: Requests) -> None:
    """From the 350th answer to the 1,000th: workers are killed, and the relay is away twice."""
    for count in (350, 400):
        requests.reach(count)
        os.kill(children(server)[0], signal.SIGKILL)
    requests.reach(500)
    publishers.restart_relay()
    requests.reach(700)
    publishers.kill_relay()
    requests.reach(1000)
