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
from fedmsg_relay import sockets
from fedmsg_relay.publishing import diagnosis
from fedmsg_relay.publishing import submit_client as submitter_module
from fedmsg_relay.publishing.inbound_client import InboundClient
from fedmsg_relay.publishing.polling import Poller
from fedmsg_relay.publishing.submit_client import SubmitClient

from tests.support.ports import free_address, server
from tests.support.waiting import wait_for


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


def name(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    """Have relay.example be a name of these addresses, in this order."""
    original = socket.getaddrinfo

    def answer(host: Any, *rest: Any, **named: Any) -> list[Any]:
        if host not in (b"relay.example", "relay.example"):
            return original(host, *rest, **named)
        if rest[3:] and rest[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [found for one in addresses for found in original(one, *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def ready_after(monkeypatch: pytest.MonkeyPatch, port: int, addresses: list[str]) -> float | None:
    """Seconds until a SubmitClient is ready that knows the relay by a name of these addresses."""
    name(monkeypatch, addresses)
    started = time.monotonic()
    one = SubmitClient(f"tcp://relay.example:{port}", global_config.complete({}))
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


@pytest.fixture(params=["refuses", "is silent"])
def name_of_two(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    silent: Callable[[int], str],
) -> Callable[[int], str]:
    """Have an endpoint whose name has two addresses, of which only the second answers."""

    def make(port: int) -> str:
        dead = "127.0.0.2" if request.param == "refuses" else silent(port)
        name(monkeypatch, [dead, "127.0.0.1"])
        return f"tcp://relay.example:{port}"

    return make


@pytest.mark.parametrize("kind", [zmq.SUB, zmq.DEALER])
def test_what_libzmq_connects_to_is_the_one_that_answers(
    name_of_two: Callable[[int], str], kind: int
) -> None:
    """As fedmsg-tail and fedmsg-probe do."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as bound, context.socket(kind) as one:
        bound.linger = one.linger = 0
        if kind == zmq.DEALER:
            bound.close()
            bound = context.socket(zmq.ROUTER)
            bound.linger = 0
        bound.bind(free_address())
        sockets.connect(one, name_of_two(port_of(bound)))
        if kind == zmq.SUB:
            one.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            one.send(b"")
        assert bound.poll(20_000)
        bound.close()


def test_an_inbound_address_is_the_one_that_answers(name_of_two: Callable[[int], str]) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as bound:
        bound.linger = 0
        bound.bind(free_address())
        bound.setsockopt(zmq.SUBSCRIBE, b"")
        one = InboundClient(context, name_of_two(port_of(bound)), global_config.complete({}))
        try:
            # It subscribes when its thread looks.
            wait_for(lambda: not bound.poll(0) and one.is_ready())
        finally:
            one.close(0)


def test_the_reason_is_that_of_the_one_that_answers(name_of_two: Callable[[int], str]) -> None:
    with server() as listening:
        why = diagnosis.why_no_answer(name_of_two(listening.getsockname()[1]))
    assert "the port is open but no relay answers" in why


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
