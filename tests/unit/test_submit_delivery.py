"""Which relay a message goes to, when the next one is tried, and when it is spooled.

The relays are sockets of the test: they acknowledge, stay silent or refuse as they are told to.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from fedmsg_relay import config as global_config
from fedmsg_relay import endpoints
from fedmsg_relay.errors import PublishError
from fedmsg_relay.publishing import delivery
from fedmsg_relay.publishing.delivery import (
    ACKED,
    FAILED,
    HANDED,
    REFUSED,
    SPOOLED,
    Delivery,
    Outcome,
)
from fedmsg_relay.publishing.spool import Spool, decoded

from tests.conftest import free_port, wait_for
from tests.support.ports import server
from tests.support.waiting import at_most

Reply = Callable[[int], Any]  # the number of the request, from 1, to the reply's JSON, or None


def acknowledge(number: int) -> Any:
    return {"ok": True, "seq": number, "msg_id": "any"}


def say_nothing(number: int) -> Any:
    return None


def refuse_for_now(number: int) -> Any:
    return {"ok": False, "error": "journal failing: disk full", "retry": True}


def refuse_for_good(number: int) -> Any:
    return {"ok": False, "error": "wrapped", "retry": False}


class Relay:
    """The submit address of a relay, and its inbound address if it has one. Use it in `with`."""

    def __init__(self, reply: Reply | None, inbound: str | None = None, port: int = 0) -> None:
        self.reply = reply
        self.submit = f"tcp://127.0.0.1:{port or free_port()}"
        self.inbound = inbound
        self.submitted: list[list[bytes]] = []
        self.published: list[list[bytes]] = []
        self.backwards = False
        self.repeats = 1

    def __enter__(self) -> Relay:
        self._context: zmq.Context[Any] = zmq.Context()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy(linger=1000)

    def _serve(self) -> None:
        poller = zmq.Poller()
        router = self._context.socket(zmq.ROUTER)
        listener = self._context.socket(zmq.SUB)
        # As the relay's: a ROUTER throws away what does not fit its queue, and 1,000 replies fill
        # that of a new socket before libzmq's thread has had its turn.
        router.setsockopt(zmq.SNDHWM, 0)
        if self.reply is not None:
            router.bind(self.submit)
            poller.register(router, zmq.POLLIN)
        if self.inbound is not None:
            listener.setsockopt(zmq.SUBSCRIBE, b"")
            listener.bind(self.inbound)
            poller.register(listener, zmq.POLLIN)
        while not self._ended.is_set():
            for ready, _ in poller.poll(10):
                if ready is listener:
                    self.published.append(listener.recv_multipart())
                    continue
                requests = [router.recv_multipart()]
                while router.poll(0):
                    requests.append(router.recv_multipart())
                self._answer(router, requests)
        # A reply for one who is gone by now would be kept for ever, and the test with it.
        router.close(linger=1000)
        listener.close(linger=0)

    def _answer(self, router: Any, requests: list[list[bytes]]) -> None:
        replies = []
        for frames in requests:
            end = frames.index(b"", 1)
            self.submitted.append(frames[end + 1 :])
            assert self.reply is not None
            reply = self.reply(len(self.submitted))
            if reply is not None:
                encoded = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                replies.append([*frames[: end + 1], encoded])
        for frames in reversed(replies) if self.backwards else replies:
            for _ in range(self.repeats):
                router.send_multipart(frames)


class Sending:
    """A Delivery and what it has said."""

    def __init__(self, relays: list[Relay], spool: Path | None = None, **keys: Any) -> None:
        config = {
            "relay_submit": [relay.submit for relay in relays],
            "relay_inbound": [relay.inbound for relay in relays if relay.inbound],
            "timeout": 2,
            **keys,
        }
        self.outcomes: list[tuple[str, Outcome]] = []
        self.delivery = Delivery(
            global_config.complete(config),
            Spool(str(spool), 1 << 30) if spool else None,
            lambda tag, outcome: self.outcomes.append((tag, outcome)),
        )

    def send(self, *tags: str) -> list[Outcome]:
        """Deliver messages whose body is their tag. What became of them, in their order."""
        for tag in tags:
            self.delivery.put(b"topic", tag.encode(), tag)
        self.delivery.finish()
        found, self.outcomes = dict(self.outcomes), []
        assert set(found) == set(tags)
        return [found[tag] for tag in tags]

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Deliver until it is true. Nothing here waits for the next event, which may be far."""

        def is_true() -> Any:
            self.delivery._advance()
            return condition()

        wait_for(is_true)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def relay(stack: ExitStack) -> Callable[..., Relay]:
    return lambda *options, **more: stack.enter_context(Relay(*options, **more))


@pytest.fixture
def sending(stack: ExitStack) -> Callable[..., Sending]:
    def make(*options: Any, **keys: Any) -> Sending:
        made = Sending(*options, **keys)
        stack.callback(made.delivery.close)
        return made

    return make


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir()
    return path


MakeRelay = Callable[..., Relay]
MakeSending = Callable[..., Sending]


def spooled(directory: Path) -> list[bytes]:
    """Bodies of what is in the spool, in the order in which it is drained."""
    return [decoded(path.read_bytes())[1] for path in sorted(directory.iterdir())]


def bodies(frames: list[list[bytes]]) -> list[bytes]:
    assert all(len(parts) == 2 and parts[0] == b"topic" for parts in frames)
    return [body for _, body in frames]


def test_acknowledged(relay: MakeRelay, sending: MakeSending) -> None:
    first = relay(acknowledge)
    sender = sending([first])
    assert sender.send("a") == [Outcome(ACKED, first.submit, 1)]
    assert sender.send("b", "c") == [Outcome(ACKED, first.submit, n) for n in (2, 3)]
    assert bodies(first.submitted) == [b"a", b"b", b"c"]


def test_many_at_once_in_order_and_each_once(
    relay: MakeRelay, sending: MakeSending, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the test's relay answers late, and would be asked again.
    monkeypatch.setattr(delivery, "STALL", 60.0)
    first = relay(acknowledge)
    tags = [str(n) for n in range(5000)]
    assert {outcome.kind for outcome in sending([first], timeout=60).send(*tags)} == {ACKED}
    assert bodies(first.submitted) == [tag.encode() for tag in tags]


def test_what_comes_while_others_are_under_way_is_gathered_until_this_process_waits(
    relay: MakeRelay, sending: MakeSending
) -> None:
    silent = relay(say_nothing)
    sender = sending([silent], timeout=1)
    sender.delivery.put(b"topic", b"0", "0")
    sender.wait_for(lambda: silent.submitted)
    for number in range(1, delivery.TOGETHER):
        sender.delivery.put(b"topic", b"%d" % number, str(number))
    assert len(silent.submitted) == 1
    sender.delivery.put(b"topic", b"last", "last")  # as many as are gathered
    wait_for(lambda: len(silent.submitted) == delivery.TOGETHER + 1)


def test_replies_in_any_order(relay: MakeRelay, sending: MakeSending) -> None:
    first = relay(acknowledge)
    first.backwards = True
    outcomes = sending([first]).send(*(str(n) for n in range(500)))
    assert sorted(o.seq or 0 for o in outcomes) == list(range(1, 501))


def test_a_reply_that_comes_twice(relay: MakeRelay, sending: MakeSending) -> None:
    first = relay(acknowledge)
    first.repeats = 2
    sender = sending([first])
    for tag in ("a", "b", "c"):
        assert sender.send(tag)[0].kind == ACKED


def test_no_more_is_under_way_than_the_window_has_room_for(
    relay: MakeRelay, sending: MakeSending, spool: Path
) -> None:
    silent = relay(say_nothing)
    tags = [str(n) for n in range(delivery.WINDOW + 50)]
    outcomes = sending([silent], spool).send(*tags)
    assert {outcome.kind for outcome in outcomes} == {SPOOLED}
    assert set(bodies(silent.submitted)) == {tag.encode() for tag in tags[: delivery.WINDOW]}
    assert spooled(spool) == [tag.encode() for tag in tags]


@pytest.mark.parametrize(
    "first", [say_nothing, refuse_for_now, None], ids=lambda f: getattr(f, "__name__", "nobody")
)
def test_the_next_relay_is_tried_within_two_seconds(
    relay: MakeRelay, sending: MakeSending, spool: Path, first: Reply | None
) -> None:
    failing, good = relay(first), relay(acknowledge)
    started = time.monotonic()
    [outcome] = sending([failing, good], spool).send("a")
    at_most(2, since=started)
    assert outcome == Outcome(ACKED, good.submit, 1)
    assert good.submitted == [[b"topic", b"a"]]


def test_the_first_relay_is_preferred(relay: MakeRelay, sending: MakeSending) -> None:
    relays = [relay(acknowledge), relay(acknowledge)]
    for _ in range(10):
        sending(relays).send("a")
    assert (len(relays[0].submitted), len(relays[1].submitted)) == (10, 0)


def test_a_relay_that_is_not_needed_is_left_alone(relay: MakeRelay, sending: MakeSending) -> None:
    with server() as unused:
        unused.setblocking(False)
        inbound = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        assert sending([relay(acknowledge)], relay_inbound=[inbound]).send("a")[0].kind == ACKED
        with pytest.raises(BlockingIOError):
            unused.accept()


def test_what_was_submitted_to_no_avail_is_not_sent_the_legacy_way(
    relay: MakeRelay, sending: MakeSending, spool: Path
) -> None:
    """It may have been relayed. Only what comes after it takes the way that is left."""
    inbound = relay(None, f"tcp://127.0.0.1:{free_port()}")
    sender = sending([inbound], spool)
    with Relay(say_nothing, port=endpoints.split(inbound.submit)[1]) as silent:
        sender.delivery.put(b"topic", b"a", "a")
        sender.wait_for(lambda: silent.submitted)
    sender.delivery.finish()
    assert [(tag, outcome.kind) for tag, outcome in sender.outcomes] == [("a", SPOOLED)]
    sender.outcomes.clear()
    wait_for(lambda: sender.send("b")[0].kind == HANDED)
    wait_for(lambda: inbound.published)
    assert bodies(inbound.published) == [b"b"]


def test_a_connection_that_is_lost_is_made_anew_and_what_was_on_it_submitted_again(
    relay: MakeRelay, sending: MakeSending, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STALL", 30)  # it is the loss that must be noticed
    port = free_port()
    sender = sending([Relay(None, port=port)], spool, timeout=10)
    with Relay(say_nothing, port=port) as first:
        for tag in ("a", "b"):
            sender.delivery.put(b"topic", tag.encode(), tag)
        sender.wait_for(lambda: len(first.submitted) == 2)
    second = relay(acknowledge, port=port)
    started = time.monotonic()
    sender.delivery.finish()
    at_most(2, since=started)
    assert [(tag, outcome.kind) for tag, outcome in sender.outcomes] == [("a", ACKED), ("b", ACKED)]
    assert first.submitted == second.submitted


def test_a_connection_that_was_lost_while_idle(relay: MakeRelay, sending: MakeSending) -> None:
    port = free_port()
    with Relay(acknowledge, port=port) as first:
        sender = sending([first])
        assert sender.send("a")[0].kind == ACKED
    second = relay(acknowledge, port=port)
    started = time.monotonic()
    assert sender.send("b")[0].kind == ACKED
    at_most(1, since=started)
    assert bodies(second.submitted) == [b"b"]


def test_refused_for_good(relay: MakeRelay, sending: MakeSending, spool: Path) -> None:
    first, second = relay(refuse_for_good), relay(acknowledge)
    outcomes = sending([first, second], spool).send("a", "b")
    assert outcomes == [Outcome(REFUSED, first.submit, why="wrapped")] * 2
    assert (second.submitted, spooled(spool)) == ([], [])


def test_all_refuse_for_now_so_it_is_spooled_at_once(
    relay: MakeRelay, sending: MakeSending, spool: Path
) -> None:
    relays = [relay(refuse_for_now), relay(refuse_for_now)]
    sender = sending(relays, spool, timeout=30)
    started = time.monotonic()
    assert [outcome.kind for outcome in sender.send("a", "b")] == [SPOOLED, SPOOLED]
    at_most(2, since=started)
    assert spooled(spool) == [b"a", b"b"]
    assert sender.delivery.why().count("refuses for now: journal failing: disk full") == 2


def test_without_a_spool_a_relay_that_refuses_for_now_is_asked_again(
    relay: MakeRelay, sending: MakeSending
) -> None:
    first = relay(lambda number: (refuse_for_now if number < 4 else acknowledge)(number))
    [outcome] = sending([first], timeout=10).send("a")
    assert outcome.kind == ACKED
    assert bodies(first.submitted) == [b"a"] * 4


def test_a_reply_that_is_none_is_as_good_as_none(
    relay: MakeRelay, sending: MakeSending, spool: Path
) -> None:
    first, second = relay(lambda number: b"not JSON"), relay(acknowledge)
    assert sending([first, second], spool).send("a") == [Outcome(ACKED, second.submit, 1)]


class TestLegacy:
    def inbound(self, host: str = "127.0.0.1") -> str:
        return f"tcp://{host}:{free_port()}"

    def test_a_submit_address_that_does_not_answer_beside_an_inbound_one_that_does(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        old = relay(None, self.inbound())
        sender = sending([old], spool)
        assert sender.send("a", "b") == [Outcome(HANDED, old.inbound)] * 2
        wait_for(lambda: bodies(old.published) == [b"a", b"b"])

    def test_a_host_without_a_submit_address(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        dead, old = relay(None), relay(None, self.inbound("127.0.0.2"))
        sender = sending([dead], spool, relay_inbound=[old.inbound])
        started = time.monotonic()
        assert sender.send("a") == [Outcome(HANDED, old.inbound)]
        at_most(2, since=started)

    def test_submit_comes_before_inbound_even_if_it_answers_a_little_later(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        """As at a relay's start: no message must go unacknowledged by who is quick."""
        port = free_port()
        inbound = relay(None, self.inbound(), port=port)
        sender = sending([inbound], spool)
        sender.delivery.put(b"topic", b"a", "a")
        sender.wait_for(lambda: sender.delivery._addresses[1].ready_since)
        submit = relay(acknowledge, port=port)
        sender.delivery.finish()
        assert sender.outcomes == [("a", Outcome(ACKED, submit.submit, 1))]
        assert inbound.published == []

    def test_a_relay_that_goes_away_and_comes_back(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        address = self.inbound()
        sender = sending([], spool, relay_inbound=[address], timeout=5)
        with Relay(None, address) as first:
            assert sender.send("a")[0].kind == HANDED
            wait_for(lambda: bodies(first.published) == [b"a"])
        second = relay(None, address)
        assert sender.send("b")[0].kind == HANDED
        wait_for(lambda: bodies(second.published) == [b"b"])

    def test_all_has_left_when_close_says_so(self, relay: MakeRelay, sending: MakeSending) -> None:
        old = relay(None, self.inbound())
        sender = sending([], relay_inbound=[old.inbound], zmq_linger=20_000)
        body = "x" * 10_000
        total = 3000  # more than the kernel takes at once
        for number in range(total):
            sender.delivery.put(b"topic", body.encode(), str(number))
        assert sender.delivery.close()
        wait_for(lambda: len(old.published) == total)

    def test_close_says_so_if_not_all_has_left(
        self, sending: MakeSending, context: zmq.Context[Any]
    ) -> None:
        reads_nothing = context.socket(zmq.SUB)
        reads_nothing.setsockopt(zmq.RCVHWM, 1)
        reads_nothing.setsockopt(zmq.RCVBUF, 10_000)
        reads_nothing.setsockopt(zmq.SUBSCRIBE, b"")
        inbound = self.inbound()
        reads_nothing.bind(inbound)
        sender = sending([], relay_inbound=[inbound], zmq_linger=200)
        sender.delivery.put(b"topic", b"first", "first")
        # A bound SUB subscribes only when its thread runs.
        sender.wait_for(lambda: sender.outcomes or reads_nothing.poll(1))
        for number in range(10):
            sender.delivery.put(b"topic", b"x" * 5_000_000, str(number))
        assert {outcome.kind for _, outcome in sender.outcomes} == {HANDED}
        assert not sender.delivery.close()


class TestNobody:
    def test_spooled_in_order_and_after_that_without_waiting(
        self, sending: MakeSending, spool: Path
    ) -> None:
        sender = sending([Relay(None)], spool, timeout=1)
        started = time.monotonic()
        assert [outcome.kind for outcome in sender.send("a", "b")] == [SPOOLED, SPOOLED]
        assert time.monotonic() - started > 0.9
        at_most(2, since=started)
        started = time.monotonic()
        tags = [str(n) for n in range(20)]
        assert {outcome.kind for tag in tags for outcome in sender.send(tag)} == {SPOOLED}
        at_most(1, since=started)
        assert spooled(spool) == [b"a", b"b", *(tag.encode() for tag in tags)]

    def test_a_relay_that_is_back_is_used_at_once(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        port = free_port()
        sender = sending([Relay(None, port=port)], spool, timeout=0.5)
        assert sender.send("a")[0].kind == SPOOLED
        relay(acknowledge, port=port)

        def is_acked() -> bool:
            started = time.monotonic()
            [outcome] = sender.send("again")
            at_most(0.4, since=started)
            return outcome.kind == ACKED

        wait_for(is_acked, 5)

    def test_without_a_spool_it_fails_and_says_why(self, sending: MakeSending) -> None:
        dead = Relay(None)
        sender = sending([dead], timeout=0.5)
        [outcome] = sender.send("a")
        assert outcome.kind == FAILED
        assert outcome.why == f"no relay answered within 0.5 s: {dead.submit}: connection refused"
        # And the next one is waited for again: it has nowhere else to go.
        started = time.monotonic()
        sender.send("b")
        assert time.monotonic() - started > 0.4

    def test_a_spool_that_cannot_be_written(self, sending: MakeSending, tmp_path: Path) -> None:
        missing = tmp_path / "missing"
        [outcome] = sending([Relay(None)], missing, timeout=0.5).send("a")
        assert outcome.kind == FAILED
        assert "connection refused" in outcome.why
        assert f"there is no spool {missing}" in outcome.why

    def test_a_relay_that_hangs_is_named(
        self, relay: MakeRelay, sending: MakeSending, spool: Path
    ) -> None:
        silent = relay(say_nothing)
        sender = sending([silent], spool, timeout=1)
        assert sender.send("a")[0].kind == SPOOLED
        assert sender.delivery.why() == (
            f"no relay has taken it: {silent.submit}: {delivery.STALLED}"
        )

    def test_no_relay_in_the_config(self) -> None:
        with pytest.raises(PublishError, match="relay_inbound is empty"):
            Sending([], relay_inbound=[])
