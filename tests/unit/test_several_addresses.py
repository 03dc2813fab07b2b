"""A relay's name with several addresses: the first that answers is taken, in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq
from fedmsg_relay import config as global_config
from fedmsg_relay import submitter as submitter_module
from fedmsg_relay.polling import Poller
from fedmsg_relay.submitter import Submitter

from tests.support.ports import free_address


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        bound.linger = 0
        bound.bind(free_address())
        yield bound


@pytest.fixture
def silent() -> Iterator[Callable[[int], str]]:
    """Have an address on which the port drops what wants to connect: its queue is full."""
    with ExitStack() as stack:

        def make(port: int) -> str:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.3", port))
            full.listen(0)
            for _ in range(4):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(("127.0.0.3", port))
            return "127.0.0.3"

        yield make


def ready_after(monkeypatch: pytest.MonkeyPatch, port: int, addresses: list[str]) -> float | None:
    """Seconds until a Submitter is ready that knows the relay by a name of these addresses."""
    original = socket.getaddrinfo

    def answer(host: Any, *rest: Any) -> list[Any]:
        if host != b"relay.example":
            return original(host, *rest)
        if rest[3:] and rest[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [found for one in addresses for found in original(one, *rest)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    started = time.monotonic()
    one = Submitter(f"tcp://relay.example:{port}", global_config.complete({}))
    try:
        while not one.is_ready():
            now = time.monotonic()
            if now > started + 20:
                return None
            poller = Poller()
            one.watch(poller)
            poller.wait(int(max(0.0, min(1.0, one.due - now)) * 1000) + 1)
        return time.monotonic() - started
    finally:
        one.close()


def port_of(router: zmq.Socket[bytes]) -> int:
    endpoint = router.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return int(endpoint.rstrip(b"\0").rpartition(b":")[2])


def test_the_first_refuses(monkeypatch: pytest.MonkeyPatch, router: zmq.Socket[bytes]) -> None:
    monkeypatch.setattr(submitter_module, "NEXT_ADDRESS", 10.0)
    took = ready_after(monkeypatch, port_of(router), ["127.0.0.2", "127.0.0.1"])
    assert took is not None
    assert took < 10  # it was not waited for


def test_the_first_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, router: zmq.Socket[bytes], silent: Callable[[int], str]
) -> None:
    port = port_of(router)
    took = ready_after(monkeypatch, port, [silent(port), "127.0.0.1"])
    assert took is not None
    assert took >= submitter_module.NEXT_ADDRESS


def test_the_first_is_on_no_network(
    monkeypatch: pytest.MonkeyPatch, router: zmq.Socket[bytes]
) -> None:
    # Linux says so at once, and of the socket's own state nothing.
    took = ready_after(monkeypatch, port_of(router), ["255.255.255.255", "127.0.0.1"])
    assert took is not None
