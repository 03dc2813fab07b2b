"""Our publishers through upstream's relay: no sleep, no loss, fail-over, and an honest end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from tests.support.ports import free_address, server
from tests.support.programs import Program
from tests.support.waiting import at_most

from .bus import Bus, Listener

END = b"org.fedoraproject.dev.peer.end"

# For upstream's relay, which then says of each message that it has got it.
EVERYTHING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
    "loggers": {"fedmsg": {"level": "DEBUG", "handlers": ["console"]}},
}

SCRIPT = """
import sys
import fedmsg_relay

fedmsg_relay.init(config_filename=sys.argv[1])
for number in range(int(sys.argv[2])):
    fedmsg_relay.publish(topic="script", modname="peer", msg={"number": number})
"""


class Upstream(NamedTuple):
    """A bus with upstream's relay on it, and someone who listens."""

    bus: Bus
    relay: Program
    listener: Listener

    def heard(self, count: int) -> list[tuple[str, object]]:
        """Topic and `msg` of what was published until now, which should be so many messages."""
        # What comes on different connections may overtake: first all that is due, then the end.
        frames = self.listener.receive_at_most(count)
        with self.bus.publisher() as publisher:
            publisher.send(END, json.dumps({"topic": END.decode()}).encode())
        frames += self.listener.receive_until(END)
        messages = [json.loads(body) for _, body in frames]
        return [(message["topic"], message["msg"]) for message in messages]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Upstream]:
    with Bus(tmp_path_factory.mktemp("upstream-relay"), peer_venv) as bus:
        relay = bus.upstream_relay()
        with bus.listener() as listener, bus.publisher() as publisher:
            publisher.open_path_to(listener)
            yield Upstream(bus, relay, listener)


def test_single_messages_arrive_however_short_lived_their_publisher(upstream: Upstream) -> None:
    for number in range(20):
        done = upstream.bus.logger("--message", f"line {number}")
        assert (done.returncode, done.stderr) == (0, "")
    topic = "org.fedoraproject.dev.logger.log"
    assert upstream.heard(20) == [(topic, {"log": f"line {number}"}) for number in range(20)]


def test_many_lines_arrive_in_order(make_bus: Callable[..., Bus]) -> None:
    """By what upstream's relay says that it has got.

    Its own queue for a listener holds 1,000 messages, whatever `high_water_mark` is, and throws
    away what does not fit: on a busy machine that is not all that it has got.
    """
    bus = make_bus(logging=EVERYTHING)
    relay = bus.upstream_relay()
    # More than a ZeroMQ queue of default length holds.
    lines = [f"line {number}" for number in range(3000)]
    with bus.listener() as listener, bus.publisher() as publisher:
        publisher.open_path_to(listener)
        text = "".join(f"{line}\n" for line in lines)
        done = bus.logger("--modname", "peer", "--topic", "lines", stdin=text)
        assert (done.returncode, done.stderr) == (0, "")
        relay.wait_for_line("line 2999'")
        got = re.findall(r"Got message .*(line \d+)'", relay.output)
        assert got == lines
        # There is room for this one once the others have gone.
        publisher.send(END, json.dumps({"topic": END.decode()}).encode())
        heard = listener.receive_until(END)
    numbers = [int(json.loads(body)["msg"]["log"].split()[1]) for _, body in heard]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 1000


def test_large_message_arrives_whole(upstream: Upstream) -> None:
    """More than the kernel takes at once: the publisher must not end before it has left."""
    text = "x" * 12_000_000
    done = upstream.bus.logger(stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    [(_, msg)] = upstream.heard(1)
    assert msg == {"log": text}


def test_python_scripts_publish(upstream: Upstream) -> None:
    config = str(upstream.bus.config_directory)
    done = upstream.bus.script(SCRIPT, config, "50")
    assert (done.returncode, done.stderr) == (0, "")
    topic = "org.fedoraproject.dev.peer.script"
    assert upstream.heard(50) == [(topic, {"number": number}) for number in range(50)]


def test_publisher_does_not_sleep(upstream: Upstream) -> None:
    config = upstream.bus.config_file("sleepy", post_init_sleep=3600)
    # The limit of every program is shorter.
    assert upstream.bus.logger("--message", "now", config=config).returncode == 0
    assert upstream.heard(1) == [("org.fedoraproject.dev.logger.log", {"log": "now"})]


def test_relay_that_stalls_for_longer_than_upstream_sleeps(upstream: Upstream) -> None:
    """A relay whose loop hangs for a moment costs upstream's publishers their messages, not ours.

    The relay subscribes to a newcomer when its process runs again.
    """
    config = upstream.bus.config_file("short-sleep", post_init_sleep=0.2, timeout=20)
    with upstream.relay.paused():
        ours = upstream.bus.start_logger("--message", "ours", config=config)
        theirs = upstream.bus.upstream_logger("--message", "upstream's", config=config)
        assert theirs.returncode == 0
        assert ours.exit_status is None
    assert ours.wait_for_end() == 0
    assert upstream.heard(1) == [("org.fedoraproject.dev.logger.log", {"log": "ours"})]


@pytest.mark.parametrize("first", ["refuses", "is silent"])
def test_fail_over_to_the_second_relay(upstream: Upstream, first: str) -> None:
    """Upstream never tries the second: it connects to the first, says nothing and loses it all."""
    with server() as silent:
        port = silent.getsockname()[1]
        dead = free_address() if first == "refuses" else f"tcp://127.0.0.1:{port}"
        config = upstream.bus.config_file("two", relay_inbound=[dead, upstream.bus.inbound])
        ours = upstream.bus.logger("--message", "ours", config=config)
        theirs = upstream.bus.upstream_logger("--message", "upstream's", config=config)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert theirs.returncode == 0
    assert upstream.heard(1) == [("org.fedoraproject.dev.logger.log", {"log": "ours"})]


def test_exit_status_when_no_relay_answers(upstream: Upstream) -> None:
    """75 and a line that says where we tried. Upstream exits 0, and nobody hears the message."""
    dead = [free_address(), free_address()]
    config = upstream.bus.config_file("dead", relay_inbound=dead, timeout=1)
    ours = upstream.bus.logger("--message", "ours", config=config)
    theirs = upstream.bus.upstream_logger("--message", "upstream's", config=config)
    assert ours.returncode == 75
    assert ours.stdout == ""
    [line] = ours.stderr.splitlines()
    assert line.startswith("fedmsg-logger: no relay answered")
    assert all(address in line for address in dead)
    assert (theirs.returncode, theirs.stdout) == (0, "")
    assert upstream.heard(0) == []


def test_python_scripts_are_told_when_no_relay_answers(upstream: Upstream) -> None:
    config = upstream.bus.config_file("gone", relay_inbound=free_address(), timeout=1)
    done = upstream.bus.script(SCRIPT, str(config), "1")
    assert done.returncode == 1
    assert "PublishError: no relay answered" in done.stderr


def test_a_config_that_has_a_submit_address_which_the_relay_does_not(upstream: Upstream) -> None:
    """As while a bus moves from upstream's relay to ours, host by host."""
    config = upstream.bus.config_file("early", relay_submit=free_address())
    started = time.monotonic()
    done = upstream.bus.logger("--message", "early", "--verbose", config=config)
    at_most(3, since=started)
    assert done.returncode == 0
    assert f"handed to {upstream.bus.inbound}, which does not acknowledge" in done.stderr
    assert upstream.heard(1) == [("org.fedoraproject.dev.logger.log", {"log": "early"})]


def test_spooled_messages_are_drained_through_it(upstream: Upstream) -> None:
    spool = upstream.bus.directory / "spool"
    spool.mkdir()
    away = upstream.bus.config_file(
        "away", relay_inbound=free_address(), publisher_spool=str(spool), timeout=0.5
    )
    lines = [f"line {number}" for number in range(1200)]
    done = upstream.bus.logger(stdin="\n".join(lines), config=away)
    assert done.returncode == 0
    assert "1200 messages spooled" in done.stderr
    config = upstream.bus.config_file("back", publisher_spool=str(spool))
    done = upstream.bus.logger("--drain", config=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert [msg for _, msg in upstream.heard(1200)] == [{"log": line} for line in lines]
    assert [path.name for path in spool.iterdir()] == ["failed"]
