"""The submit address: what is acknowledged, when, and what is not."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Submitter, numbered, wait_for
from tests.support.waiting import patient

MakeListener = Callable[..., Listener]


@pytest.fixture
def relay(bus: Bus) -> Process:
    bus.with_journal()
    return bus.relay()


@pytest.fixture
def client(bus: Bus, relay: Process, context: zmq.Context[Any]) -> Submitter:
    return Submitter(context, bus.submit)


class TestReply:
    def test_an_ack_names_seq_and_msg_id_and_nothing_else(self, client: Submitter) -> None:
        assert client.submit(*numbered(1)) == {"ok": True, "seq": 1, "msg_id": "id-1"}
        assert client.submit(*numbered(2)) == {"ok": True, "seq": 2, "msg_id": "id-2"}

    def test_a_req_socket_is_answered(
        self, bus: Bus, relay: Process, context: zmq.Context[Any]
    ) -> None:
        req = context.socket(zmq.REQ)
        req.connect(bus.submit)
        for number in range(3):
            req.send_multipart(numbered(number))
            assert req.poll(int(patient(20) * 1000))
            assert json.loads(req.recv())["ok"] is True

    def test_the_whole_envelope_comes_back(
        self, bus: Bus, relay: Process, context: zmq.Context[Any]
    ) -> None:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(bus.submit)
        dealer.send_multipart([b"one", b"two", b"three", b"", *numbered(1)])
        assert dealer.poll(int(patient(20) * 1000))
        assert dealer.recv_multipart()[:4] == [b"one", b"two", b"three", b""]

    def test_what_is_acknowledged_is_in_the_journal_and_has_been_emitted(
        self, bus: Bus, relay: Process, client: Submitter, listener: MakeListener
    ) -> None:
        listening = listener(relay)
        for number in range(50):
            assert client.submit(*numbered(number))["ok"]
            # In the file, and not in some buffer: this reads it from another process's view.
            assert bus.journaled()[-1] == f"id-{number}"
        assert [listening.receive() for _ in range(50)] == [numbered(n) for n in range(50)]

    def test_bytes_go_out_and_into_the_journal_as_they_came(
        self, bus: Bus, relay: Process, client: Submitter, listener: MakeListener
    ) -> None:
        listening = listener(relay)
        body = b'{ "msg_id":"x", "topic" : "t","timestamp":1.50, "a":1e400,"a":"\\u00e9\xc3\xa9"}'
        assert client.submit(b"topic", body)["ok"]
        assert listening.receive() == [b"topic", body]
        with sqlite3.connect(bus.journal) as db:
            assert db.execute("SELECT topic, body FROM message").fetchall() == [("topic", body)]

    def test_thousands_in_a_pipeline_are_acknowledged_once_each(
        self, bus: Bus, relay: Process, client: Submitter, listener: MakeListener
    ) -> None:
        listening = listener(relay)
        total = 12_000
        sent = {client.send(*numbered(number)): number for number in range(total)}
        answered = {}
        for _ in range(total):
            correlation, reply = client.reply()
            assert reply["ok"], reply
            answered[sent[correlation]] = reply["seq"]
            assert reply["msg_id"] == f"id-{sent[correlation]}"
        assert sorted(answered.values()) == list(range(1, total + 1))
        got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(total)]
        assert got == list(range(total))


class TestIdempotence:
    def test_the_same_msg_id_gets_the_first_seq_and_is_not_relayed_again(
        self, relay: Process, client: Submitter, listener: MakeListener
    ) -> None:
        listening = listener(relay)
        first = client.submit(*numbered(1))
        assert client.submit(*numbered(2))["seq"] == 2
        assert [client.submit(*numbered(1)) for _ in range(3)] == [first] * 3
        client.submit(*numbered(3))
        got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(3)]
        assert got == [1, 2, 3]

    def test_across_restarts(
        self, bus: Bus, relay: Process, client: Submitter, context: zmq.Context[Any]
    ) -> None:
        replies = [client.submit(*numbered(number)) for number in range(20)]
        assert relay.terminate() == 0
        again = bus.relay(ready=False)
        listening = Listener(context, bus.outbound)
        again.wait_for_line("1 now")
        fresh = Submitter(context, bus.submit)
        assert [fresh.submit(*numbered(number)) for number in range(20)] == replies
        assert fresh.submit(*numbered(20))["seq"] == 21
        assert json.loads(listening.receive()[1])["msg"]["n"] == 20

    def test_while_the_first_is_in_flight(
        self, bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
    ) -> None:
        listening = listener(relay)
        clients = [Submitter(context, bus.submit) for _ in range(5)]
        for number in range(300):
            for client in clients:
                client.send(*numbered(number))
        for client in clients:
            replies = [client.reply()[1] for _ in range(300)]
            assert {r["msg_id"]: r["seq"] for r in replies} == {
                f"id-{number}": bus.journaled().index(f"id-{number}") + 1 for number in range(300)
            }
        got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(300)]
        assert sorted(got) == list(range(300))
        assert not listening.socket.poll(200)

    def test_a_message_of_the_legacy_side_is_known_too(
        self, bus: Bus, relay: Process, client: Submitter, context: zmq.Context[Any],
        listener: MakeListener,
    ) -> None:  # fmt: skip
        from tests.conftest import Sender

        listening = listener(relay)
        Sender(context, bus.inbound).send(*numbered(1))
        wait_for(lambda: bus.journaled() == ["id-1"])
        assert client.submit(*numbered(1)) == {"ok": True, "seq": 1, "msg_id": "id-1"}
        client.submit(*numbered(2))
        assert [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(2)] == [1, 2]


class TestRefusal:
    @pytest.mark.parametrize(
        ("frames", "error"),
        [
            ([b"t"], "1 frames follow"),
            ([b"t", b"{}", b"x"], "3 frames follow"),
            ([b"t", b"not json"], "not a complete message"),
            ([b"t", b"[]"], "not a complete message"),
            ([b"t", b'{"topic":"t","timestamp":1}'], "not a complete message"),
            ([b"t", b'{"topic":"t","timestamp":"now","msg_id":"x"}'], "not a complete message"),
            ([b"t", b'{"topic":"t","timestamp":1,"msg_id":7}'], "not a complete message"),
            ([b"\xff", b'{"topic":"t","timestamp":1,"msg_id":"x"}'], "topic not UTF-8"),
            ([b"t", b"\xff"], "body not UTF-8"),
            ([b"t", b'{"topic":"t","timestamp":1,"msg_id":"%s"}' % (b"x" * 70_000)], "too large"),
        ],
    )
    def test_of_what_is_no_message_says_why_and_not_to_try_again(
        self, bus: Bus, context: zmq.Context[Any], frames: list[bytes], error: str
    ) -> None:
        bus.with_journal(relay_max_message_bytes=65_536)
        relay = bus.relay()
        listening = Listener(context, bus.outbound)
        relay.wait_for_line("1 now")
        client = Submitter(context, bus.submit)
        reply = client.submit(*frames)
        assert reply["ok"] is False and reply["retry"] is False and error in reply["error"]
        relay.wait_for_line("refused: ")
        assert client.submit(*numbered(1))["seq"] == 1
        assert listening.receive() == numbered(1)

    def test_of_a_request_without_an_empty_frame(
        self, bus: Bus, relay: Process, context: zmq.Context[Any]
    ) -> None:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(bus.submit)
        dealer.send_multipart(numbered(1))
        assert dealer.poll(int(patient(20) * 1000))
        empty, reply = dealer.recv_multipart()
        assert empty == b"" and json.loads(reply)["retry"] is False

    def test_half_a_surrogate_pair_as_msg_id_harms_nobody(
        self, bus: Bus, client: Submitter
    ) -> None:
        body = b'{"topic":"t","timestamp":1,"msg_id":"\\ud800"}'
        first = client.submit(b"t", body)
        assert first["ok"] and client.submit(b"t", body) == first
        assert client.submit(*numbered(1))["seq"] == 2


def test_a_sender_that_reads_no_reply_harms_nobody(
    bus: Bus, relay: Process, context: zmq.Context[Any]
) -> None:
    deaf = context.socket(zmq.DEALER)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.setsockopt(zmq.SNDHWM, 0)
    deaf.connect(bus.submit)
    for number in range(5000):
        deaf.send_multipart([b"", *numbered(number)])
    client = Submitter(context, bus.submit)
    for number in range(10_000, 10_020):
        assert client.submit(*numbered(number))["ok"]
    wait_for(lambda: len(bus.journaled()) == 5020)


def test_more_than_may_be_pending_waits_at_its_sender_and_is_taken_later(
    bus: Bus, relay: Process, client: Submitter
) -> None:
    total = 12_000  # the relay takes 10,000 before it answers
    lock = sqlite3.connect(bus.journal, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # nothing can be written meanwhile
    sent = {client.send(*numbered(number)) for number in range(total)}
    assert not client.socket.poll(1500)  # none is acknowledged; absence can only be waited for
    lock.execute("ROLLBACK")
    answered = set()
    for _ in range(total):
        correlation, reply = client.reply()
        assert reply["ok"], reply
        answered.add(correlation)
    assert answered == sent
    lock.close()


def test_submit_without_a_journal_is_refused_at_the_start(bus: Bus) -> None:
    bus.with_journal()
    bus.configure("z", relay_journal=None)
    relay = bus.relay(ready=False)
    assert relay.child.wait(20) == 1
    assert "relay_submit needs relay_journal" in relay.output


def test_a_port_that_is_taken_stops_the_start_and_names_the_holder(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.with_journal()
    taken = context.socket(zmq.PULL)
    taken.bind(bus.submit)
    relay = bus.relay(ready=False)
    assert relay.child.wait(20) == 1
    assert f"cannot bind {bus.submit}: the port is held by" in relay.output


def test_many_one_shot_clients_at_once_share_the_disk(
    bus: Bus, relay: Process, context: zmq.Context[Any], tmp_path: Path
) -> None:
    """Each waits for its own ack; the journal writes them in groups."""
    failures: list[object] = []

    def one(start: int) -> None:
        client = Submitter(context, bus.submit)
        for number in range(start, start + 50):
            reply = client.submit(*numbered(number))
            if not reply["ok"]:
                failures.append(reply)

    threads = [threading.Thread(target=one, args=(start,)) for start in range(0, 1000, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(bus.journaled()) == sorted(f"id-{number}" for number in range(1000))
