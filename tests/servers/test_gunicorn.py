"""gunicorn: workers of each kind that are recycled, reloaded, killed and told to end."""

from __future__ import annotations

import signal

import pytest

from tests.support.ports import free_port

from .publishers import Publishers
from .requests import Requests, go_through

OPTIONS = "--workers 2 --max-requests 60 --max-requests-jitter 20 --graceful-timeout 300"


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_under_load_and_restarts(publishers: Publishers, kind: str, preload: bool) -> None:
    port = free_port()
    server = publishers.start(
        "gunicorn",
        *OPTIONS.split(),
        *("--bind", f"127.0.0.1:{port}", "--worker-class", kind, "--timeout", "900"),
        *(["--threads", "4"] if kind == "gthread" else []),
        *(["--preload"] if preload else []),
        "application",
    )
    requests = Requests(port)
    requests.start(server)
    requests.reach(200)
    server.send_signal(signal.SIGHUP)
    go_through(publishers, server, requests)
    assert server.terminate(60) == 0
    requests.stop()
    publishers.check(1000)
