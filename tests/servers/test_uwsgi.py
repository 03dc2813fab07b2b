"""uWSGI: processes forked in C, from a master that has published, recycled, reloaded and killed."""

from __future__ import annotations

import signal

import pytest

from tests.support.ports import free_port

from .publishers import Publishers
from .requests import Requests, go_through

OPTIONS = (
    "--master --processes 3 --max-requests 60 --min-worker-lifetime 0"
    " --die-on-term --disable-logging --module application"
)


@pytest.mark.parametrize(
    "options", ["", "--lazy-apps --enable-threads --threads 2"], ids=["forked", "lazy-apps"]
)
def test_under_load_and_restarts(publishers: Publishers, options: str) -> None:
    port = free_port()
    server = publishers.start(
        "uwsgi", *OPTIONS.split(), "--http-socket", f"127.0.0.1:{port}", *options.split()
    )
    requests = Requests(port)
    requests.start(server)
    requests.reach(200)
    server.send_signal(signal.SIGHUP)
    go_through(publishers, server, requests)
    server.terminate(60)
    requests.stop()
    publishers.check(1000)
