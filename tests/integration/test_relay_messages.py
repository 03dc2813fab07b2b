"""What goes in comes out: each message once, in order, whole, and through a stop."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.conftest import ROOT, Bus, Listener, Process, Sender, wait_for
from tests.support.waiting import at_most, nothing_comes, patient

MakeListener = Callable[..., Listener]


def numbered(number: int, padding: str = "") -> bytes:
    return json.dumps(
        {"topic": "t", "timestamp": 1, "msg_id": f"2020-{number}", "n": number, "p": padding}
    ).encode()


def health(bus: Bus) -> dict[str, Any]:
    try:
        answer = urllib.request.urlopen(f"http://{bus.http}/health", timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    except OSError:
        return {"healthy": False, "problems": []}
    said: dict[str, Any] = json.load(answer)
    return said


def test_messages_arrive_in_order_and_byte_for_byte(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    relay = bus.relay()
    receiving = listener(relay)
    sender = Sender(context, bus.inbound)
    sent = [[b"t", numbered(n)] for n in range(5000)]
    for frames in sent:
        sender.send(*frames)
    sender.send(b"t", b"the end")
    assert receiving.receive_until(b"the end") == sent


def test_a_listener_gets_what_it_subscribed_to(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    receiving = listener(bus.relay(), topic=b"org.a")
    sender = Sender(context, bus.inbound)
    for topic in (b"org.b.x", b"org.a.x", b"xorg.a", b"org.ab"):
        sender.send(topic, numbered(1))
    sender.send(b"org.a", b"the end")
    assert [f[0] for f in receiving.receive_until(b"the end")] == [b"org.a.x", b"org.ab"]


def test_legacy_publishers_that_use_pub_and_sleep_are_heard(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    receiving = listener(bus.relay())
    for number in range(3):
        publisher = context.socket(zmq.PUB)
        publisher.setsockopt(zmq.LINGER, 1000)
        publisher.connect(bus.inbound)
        time.sleep(0.5)  # what upstream's publishers do, and all they do
        publisher.send_multipart([b"t", numbered(number)])
        publisher.close()
        assert receiving.receive()[1] == numbered(number)


@pytest.mark.parametrize("padding", [0, 3000])
def test_sigterm_drains_what_was_taken(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener, padding: int
) -> None:
    """20,000 messages are under way while the relay is stopped, then it is told to end.

    The smaller ones fit into the buffers of TCP; the larger ones have its window closed.
    """
    relay = bus.relay()
    receiving = listener(relay)
    sender = Sender(context, bus.inbound)
    relay.pause()
    for number in range(20_000):
        sender.send(b"t", numbered(number, "x" * padding))
    os.kill(relay.pid, signal.SIGTERM)
    relay.resume()
    numbers: list[int] = []
    while len(numbers) < 20_000 and receiving.socket.poll(int(patient(10) * 1000)):
        numbers.append(json.loads(receiving.socket.recv_multipart()[1])["n"])
    assert numbers == list(range(20_000))
    assert relay.child.wait(20) == 0
    assert "stopped" in relay.output


def test_a_publisher_that_never_pauses_cannot_hold_up_a_stop(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    relay = bus.relay()
    chatty = context.socket(zmq.PUB)
    chatty.connect(bus.inbound)
    relay.child.send_signal(signal.SIGTERM)
    started = time.monotonic()
    wait_for(lambda: chatty.send_multipart([b"t", b"x"]) or not relay.is_running(), pause=0)
    assert relay.wait_for_end() == 0
    at_most(5, since=started)


def test_a_message_that_could_fill_the_memory_is_not_taken_in(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    bus.configure("z", relay_max_message_bytes=1 << 20)
    relay = bus.relay()
    receiving = listener(relay)
    hostile, honest = Sender(context, bus.inbound), Sender(context, bus.inbound)
    honest.send(b"t", numbered(0, "x" * ((1 << 20) - 200)))
    assert len(receiving.receive()[1]) > (1 << 20) - 200
    before = resident_bytes(relay)
    hostile.send(b"t", b"x" * (300 << 20))
    hostile.send(b"t", b"y" * ((1 << 20) + 1))
    relay.wait_for_line("dropped: too large")
    honest.send(b"t", numbered(1))
    assert receiving.receive()[1] == numbered(1)
    assert resident_bytes(relay) - before < 50 << 20


def resident_bytes(process: Process) -> int:
    """The most memory the process has had so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_stop(bus: Bus, number: signal.Signals) -> None:
    relay = bus.relay()
    relay.child.send_signal(number)
    assert relay.child.wait(10) == 0


def test_sighup_does_not_stop_it(bus: Bus, context: zmq.Context[Any]) -> None:
    relay = bus.relay()
    relay.child.send_signal(signal.SIGHUP)
    Sender(context, bus.inbound)  # which it answers
    assert relay.is_running()


def test_linger_bounds_the_wait_for_a_listener_that_has_stopped_reading(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    bus.configure("z", zmq_linger=1500)
    relay = bus.relay()
    stuck = listener(relay)
    stuck.socket.setsockopt(zmq.RCVHWM, 1)  # too late for this connection, hence the megabytes
    sender = Sender(context, bus.inbound)
    stalled = context.socket(zmq.SUB)
    stalled.setsockopt(zmq.RCVHWM, 1)
    stalled.setsockopt(zmq.RCVBUF, 4096)
    stalled.setsockopt(zmq.SUBSCRIBE, b"")
    stalled.connect(bus.outbound)
    relay.wait_for_line("2 now")
    for number in range(200):
        sender.send(b"t", numbered(number, "x" * 100_000))
    while stuck.receive(20)[1] != numbered(199, "x" * 100_000):
        pass
    started = time.monotonic()
    assert relay.terminate() == 0
    # It is waited for, unless the relay has found out by now that it takes nothing.
    assert time.monotonic() - started > 1.3 or "too slow, cut off" in relay.output
    at_most(4, since=started)


class TestLog:
    def warnings(self, relay: Process) -> list[str]:
        return [line for line in relay.output.splitlines() if "WARNING" in line]

    def test_each_repair_and_drop_is_a_warning_with_cause_and_topic(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        relay = bus.relay()
        sender = Sender(context, bus.inbound)
        sender.send(b"my.topic", b"not json")
        sender.send(b"other.topic", b"\xff")
        sender.send(b"third.topic", b"2", b"3")
        wait_for(lambda: len(self.warnings(relay)) == 3)
        wrapped, dropped, frames = self.warnings(relay)
        assert "repaired: wrapped, topic 'my.topic'" in wrapped
        assert "dropped: body not UTF-8, topic 'other.topic'" in dropped
        assert "dropped: not two frames, topic 'third.topic'" in frames
        relay.terminate()
        assert "1 relayed, 1 repaired (wrapped 1), 2 dropped" in relay.output
        assert "(body not UTF-8 1, not two frames 1)" in relay.output

    def test_a_topic_cannot_forge_a_line(self, bus: Bus, context: zmq.Context[Any]) -> None:
        relay = bus.relay()
        forged = "t\n[2020-01-01 00:00:00][fedmsg.relay    INFO] stopped\x1b[2J\u2028x"
        Sender(context, bus.inbound).send(forged.encode(), b"x")
        relay.wait_for_line("repaired: wrapped")
        assert "] stopped" not in [line[-9:] for line in relay.output.splitlines()]
        assert len(self.warnings(relay)) == 1
        assert "\x1b" not in relay.output

    def test_warnings_are_limited_for_each_cause_and_all_are_counted(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        relay = bus.relay()
        sender = Sender(context, bus.inbound)
        for _ in range(1000):
            sender.send(b"t", b"x")
        sender.send(b"t", b"\xff")
        relay.wait_for_line("body not UTF-8")
        relay.terminate()
        warnings = self.warnings(relay)
        assert len(warnings) == 11
        assert warnings[9].endswith("more of these are only counted")
        assert "1000 repaired (wrapped 1000), 1 dropped" in relay.output

    def test_listeners_that_come_and_go_are_counted_by_address(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        relay = bus.relay()
        port = int(bus.outbound.rpartition(":")[2])
        first = Listener(context, bus.outbound)
        relay.wait_for_line("connected, 1 now")
        second = Listener(context, topic=b"a")
        second.socket.setsockopt(zmq.SUBSCRIBE, b"b")  # another topic, not another listener
        second.socket.connect(bus.outbound)
        relay.wait_for_line("connected, 2 now")
        # Connected, and silent: not a listener.
        import socket

        with socket.create_connection(("127.0.0.1", port)):
            second.socket.close()
            relay.wait_for_line("disconnected, 1 now")
        first.socket.close()
        relay.wait_for_line("disconnected, 0 now")
        lines = re.findall(r"listener 127\.0\.0\.1:(\d+) (\w+), (\d) now", relay.output)
        assert [(what, count) for _, what, count in lines] == [
            ("connected", "1"),
            ("connected", "2"),
            ("disconnected", "1"),
            ("disconnected", "0"),
        ]
        assert lines[0][0] == lines[3][0] != lines[1][0] == lines[2][0]

    def test_the_count_is_right_after_many_have_come_and_gone(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        """Descriptors are used again at once, by connections of others."""
        relay = bus.relay()
        connected: list[Listener] = []
        for _ in range(400):
            connected.append(Listener(context, bus.outbound))
            if len(connected) > 5:
                connected.pop(0).socket.close()

        def count() -> str:
            return re.findall(r"(\d+) now", relay.output + "0 now")[-2:][0]

        wait_for(lambda: count() == "5")
        for listener in connected:
            listener.socket.close()
        wait_for(lambda: count() == "0")

    def test_a_summary_while_there_is_traffic_and_none_without(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        relay = bus.relay_with("relay.SUMMARY_PERIOD = 0.3")
        relay.wait_for_line("ready")
        sender = Sender(context, bus.inbound)
        summaries = "since the last summary: 1 relayed"
        for count in (1, 2):
            sender.send(b"t", numbered(1))
            wait_for(partial(lambda n: relay.output.count(summaries) == n, count))
        # Two periods without a message.
        nothing_comes(0.7, lambda: relay.output.count("summary") > 2, "a summary of nothing")

    def test_relay_log_is_a_file_that_survives_rotation_without_losing_a_line(
        self, bus: Bus, context: zmq.Context[Any], listener: MakeListener
    ) -> None:
        log = bus.directory / "log" / "relay.log"
        log.parent.mkdir()
        # A line for each message: as many repairs as this test sends.
        bus.configure("z", relay_log=str(log))
        relay = bus.relay_with(
            "import fedmsg_relay.rate_limit as limits\n"
            "limits.RateLimit.__init__.__defaults__ = (10**9, 60.0)"
        )
        wait_for(lambda: log.exists() and "ready" in log.read_text())
        sender = Sender(context, bus.inbound)
        total = 3000
        for number in range(total):
            sender.send(b"t%d" % number, b"x")
            if number % 300 == 150:
                wait_for(log.exists)
                log.rename(log.with_suffix(f".{number}"))
        assert relay.terminate() == 0
        text = "".join(path.read_text() for path in log.parent.iterdir())
        logged = [int(n) for n in re.findall(r"topic 't(\d+)'", text)]
        assert sorted(logged) == list(range(total))
        assert len(list(log.parent.iterdir())) == 11
        assert relay.output == ""  # nothing of it on standard error

    def test_a_log_that_cannot_be_written_does_not_stop_the_bus(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        bus.configure("z", relay_log="/dev/full")
        relay = bus.start(
            sys.executable, ROOT / "relay.py", "--config-filename",
            bus.config_directory,
        )  # fmt: skip
        relay.wait_for_line("No space left on device")
        receiving = Listener(context, bus.outbound)
        sender = Sender(context, bus.inbound)

        # Its own log cannot say when the listener is there: send until it is.
        def arrives() -> int:
            sender.send(b"t", numbered(1))
            return receiving.socket.poll(50)

        wait_for(arrives)
        assert relay.terminate() == 0

    def test_health_tells_of_a_log_that_cannot_be_written_and_the_log_of_when_it_was(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        log = bus.directory / "log" / "relay.log"
        log.parent.mkdir()
        bus.with_journal(http=True)
        bus.configure("z", relay_log=str(log))
        bus.start(
            sys.executable, ROOT / "relay.py", "--config-filename", bus.config_directory
        )  # fmt: skip
        wait_for(lambda: log.exists() and "ready" in log.read_text())
        wait_for(lambda: health(bus)["healthy"])
        away = log.parent.with_name("away")
        log.parent.rename(away)
        Sender(context, bus.inbound).send(b"t", b"not a message, which is worth a line")
        said = wait_for(lambda: health(bus)["problems"])
        assert said[0].startswith("the log cannot be written: No such file or directory")
        away.rename(log.parent)
        wait_for(lambda: health(bus)["healthy"])
        # Of its own accord, with nothing else to log.
        assert re.search(r"WARNING\] log: written again after \d+ s$", log.read_text())

    def test_the_logging_config_is_honoured(self, bus: Bus, context: zmq.Context[Any]) -> None:
        extra = bus.directory / "extra.log"
        bus.configure(
            "z",
            logging={
                "version": 1,
                "formatters": {"mine": {"format": "MINE %(levelname)s %(message)s"}},
                "handlers": {
                    "console": {
                        "class": "logging.StreamHandler",
                        "formatter": "mine",
                        "level": "WARNING",
                        "stream": "ext://sys.stdout",
                    },
                    "file": {"class": "logging.FileHandler", "filename": str(extra)},
                },
                "loggers": {
                    "fedmsg": {
                        "level": "INFO",
                        "propagate": False,
                        "handlers": ["console", "file"],
                    }
                },
            },
        )
        relay = bus.relay(ready=False)
        wait_for(lambda: extra.exists() and "ready" in extra.read_text())
        Sender(context, bus.inbound).send(b"t", b"x")
        relay.wait_for_line("MINE WARNING repaired: wrapped")
        assert "ready" not in relay.output
        relay.terminate()
        assert "stopped" in extra.read_text()

    @pytest.mark.parametrize("level", ["DEBUG", "ERROR", None])
    def test_a_level_in_the_config_is_kept_and_is_info_without(
        self, bus: Bus, level: str | None
    ) -> None:
        log = bus.directory / "relay.log"
        loggers = {"fedmsg": {"level": level}} if level else {}
        bus.configure("z", relay_log=str(log), logging={"version": 1, "loggers": loggers})
        relay = bus.relay(ready=False)
        wait_for(log.exists)
        wait_for(lambda: Path(f"/proc/{relay.pid}/comm").read_text() == "fedmsg-relay\n")
        Sender(zmq.Context.instance(), bus.inbound)
        relay.terminate()
        assert ("ready" in log.read_text()) == (level != "ERROR")
