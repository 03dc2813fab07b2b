"""What others answer a tool of ours: it is shown on one line, and nothing in it is obeyed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Sender, environment
from tests.integration.test_tail_on_a_terminal import MARKS, SHOWN
from tests.support.ports import free_address, free_port


@pytest.fixture
def refusing(bus: Bus, context: zmq.Context[Any]) -> Iterator[None]:
    """A relay that refuses each message, for a reason with MARKS in it."""
    bus.submit = free_address()
    bus.configure("submit", relay_submit=[bus.submit])
    answer = json.dumps({"ok": False, "retry": False, "error": f"no: {MARKS}"}).encode()
    router, end = context.socket(zmq.ROUTER), threading.Event()
    router.bind(bus.submit)

    def answers() -> None:
        while not end.is_set():
            if router.poll(20):
                envelope, delimiter, *_ = router.recv_multipart()
                router.send_multipart([envelope, delimiter, answer])

    thread = threading.Thread(target=answers)
    thread.start()
    yield
    end.set()
    thread.join()
    router.close(linger=0)


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("program", ["logger", "probe"])
def test_why_a_relay_refuses(bus: Bus, program: str) -> None:
    options = ["--message", "hello"] if program == "logger" else []
    done = bus.tool(program, *options)
    assert done.returncode != 0
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if "no: " in line]
    assert SHOWN.replace("|", "/") in line
    assert line.isprintable()


class _Answers(BaseHTTPRequestHandler):
    answer = json.dumps({"error": f"no: {MARKS}"}).encode()

    def do_GET(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: Any) -> None:
        pass


def test_why_there_is_no_backlog(bus: Bus) -> None:
    server = HTTPServer(("127.0.0.1", free_port()), _Answers)
    bus.configure("http", relay_http=[f"127.0.0.1:{server.server_port}"])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = bus.tool("tail", "--since", "10m", env=environment())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 2
    assert f"no: {SHOWN}" in done.stderr
    assert all(map(str.isprintable, done.stderr.splitlines()))


def test_topics_in_the_log_of_the_relay(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Any]
) -> None:
    relay = bus.relay()
    listening = listener(relay)
    Sender(context, bus.inbound).send(f"t.{MARKS}".encode(), b"not JSON")
    relay.wait_for_line("repaired: wrapped")
    assert listening.receive()[0] == f"t.{MARKS}".encode()  # to listeners as it came
    assert all(map(str.isprintable, relay.output.splitlines()))
