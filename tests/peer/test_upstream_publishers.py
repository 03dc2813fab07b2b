"""Scripts that know only upstream's fedmsg, through our relay, to every kind of listener."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
import zmq

from tests.support.waiting import wait_for

from .bus import Bus
from .processes import HIDDEN, Hub, Tail

Message = dict[str, Any]

COUNT = 25
END = "org.fedoraproject.dev.peer.end"

# What a script of Fedora's does: pkgdb2branch.py, say. It leaves the bytes it sent in a file.
SCRIPT = """
import sys
import fedmsg, fedmsg.encoding

fedmsg.init(active=True, name="relay_inbound")
sent = open(sys.argv[2], "w")
for number in range(int(sys.argv[1])):
    fedmsg.publish(
        topic="script", modname="peer", msg={"number": number, "text": "na\\u00efve \\U0001f41f"},
        pre_fire_hook=lambda message: print(fedmsg.encoding.dumps(message), file=sent),
    )
"""


def _message(number: int) -> str:
    return json.dumps({"number": number})


def publish_lines(bus: Bus) -> None:
    lines = "".join(f"line {number}\n" for number in range(COUNT))
    assert bus.upstream_logger(stdin=lines).returncode == 0


def publish_lines_on_a_topic(bus: Bus) -> None:
    lines = "".join(f"line {number}\n" for number in range(COUNT))
    done = bus.upstream_logger("--modname", "peer", "--topic", "repo.update", stdin=lines)
    assert done.returncode == 0


def publish_option(bus: Bus) -> None:
    for number in range(2):
        done = bus.upstream_logger("--topic", "option", "--message", f"line {number}")
        assert done.returncode == 0


def publish_json_option(bus: Bus) -> None:
    options = ("--topic", "json-option", "--json-input", "--message")
    for number in range(2):
        assert bus.upstream_logger(*options, _message(number)).returncode == 0


def publish_json_input(bus: Bus) -> None:
    for number in range(2):
        done = bus.upstream_logger("--topic", "json", "--json-input", stdin=_message(number) + "\n")
        assert done.returncode == 0


def publish_from_script(bus: Bus) -> None:
    done = bus.upstream_script(SCRIPT, str(COUNT), str(bus.directory / "sent"))
    assert done.returncode == 0, done.stderr


def publish_raw(bus: Bus) -> None:
    """A PUB socket and nothing else, as some scripts have it."""
    body = (
        '{ "topic": "raw", "timestamp": 1.5, "msg_id": "é", "msg": {"number": %d, "number": %d} }'
    )
    with bus.socket(zmq.PUB) as socket, bus.listener(HIDDEN.encode()) as listener:
        socket.connect(bus.inbound)

        def heard() -> bool:
            socket.send_multipart([HIDDEN.encode(), b"{}"])
            return listener.hears_anything(0.05)

        wait_for(heard, what="the relay has subscribed to the PUB socket")
        for number in range(COUNT):
            socket.send_multipart([b"raw", (body % (-1, number)).encode()])
        socket.close(linger=5000)


class Kind(NamedTuple):
    """One way to publish: its topic, how many messages it sends, and where their number is."""

    publish: Callable[[Bus], None]
    topic: str
    sends: int
    number: Callable[[Message], int]


def _of_line(message: Message) -> int:
    return int(str(message["msg"]["log"]).split()[1])


def _of_object(message: Message) -> int:
    return int(message["msg"]["number"])


PUBLISHERS = {
    "fedmsg-logger, lines": Kind(
        publish_lines, "org.fedoraproject.dev.logger.log", COUNT, _of_line
    ),
    "fedmsg-logger --topic --modname": Kind(
        publish_lines_on_a_topic, "org.fedoraproject.dev.peer.repo.update", COUNT, _of_line
    ),
    "fedmsg-logger --message": Kind(
        publish_option, "org.fedoraproject.dev.logger.option", 2, _of_line
    ),
    "fedmsg-logger --message --json-input": Kind(
        publish_json_option, "org.fedoraproject.dev.logger.json-option", 2, _of_object
    ),
    "fedmsg-logger --json-input": Kind(
        publish_json_input, "org.fedoraproject.dev.logger.json", 2, _of_object
    ),
    "fedmsg.publish": Kind(
        publish_from_script, "org.fedoraproject.dev.peer.script", COUNT, _of_object
    ),
    "PUB socket": Kind(publish_raw, "raw", COUNT, _of_object),
}
LISTENERS = (
    "SUB socket",
    "upstream fedmsg-tail",
    "upstream fedmsg-tail --pretty",
    "upstream fedmsg-tail --really-pretty",
    "upstream fedmsg-hub",
    "fedmsg-tail",
)


class Heard(NamedTuple):
    """What came out: the messages at each listener, the frames, and what fedmsg.publish sent."""

    messages: dict[str, list[Message]]
    frames: list[list[bytes]]
    sent_by_script: list[str]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Heard]:
    with Bus(tmp_path_factory.mktemp("publishers"), peer_venv) as bus:
        relay = bus.relay()
        programs: dict[str, Tail | Hub] = {
            "upstream fedmsg-tail": bus.upstream_tail(),
            "upstream fedmsg-tail --pretty": bus.upstream_tail("--pretty", name="pretty"),
            "upstream fedmsg-tail --really-pretty": bus.upstream_tail(
                "--really-pretty", name="really-pretty"
            ),
            "upstream fedmsg-hub": bus.hub(),
            "fedmsg-tail": bus.tail(),
        }
        with bus.listener() as listener:
            bus.wait_for_listeners(relay, len(programs) + 1)
            with ThreadPoolExecutor() as pool:
                for done in [pool.submit(kind.publish, bus) for kind in PUBLISHERS.values()]:
                    done.result()
            # What comes on different connections may overtake: first all that is due, then the end.
            frames = listener.receive_at_most(sum(kind.sends for kind in PUBLISHERS.values()))
            with bus.publisher() as publisher:
                publisher.send(END.encode(), json.dumps({"topic": END}).encode())
            frames += listener.receive_until(END.encode())
        for program in programs.values():
            program.wait_for_line(END)
        messages = {name: program.messages()[:-1] for name, program in programs.items()}
        messages["SUB socket"] = [json.loads(body) for _, body in frames]
        yield Heard(messages, frames, (bus.directory / "sent").read_text().splitlines())


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_listener_hears_every_message_once(heard: Heard, publisher: str, listener: str) -> None:
    kind = PUBLISHERS[publisher]
    numbers = [
        kind.number(message)
        for message in heard.messages[listener]
        if message["topic"] == kind.topic
    ]
    # Each process of the short kinds sends one message, so these may change places.
    assert sorted(numbers) == list(range(kind.sends))
    if kind.sends == COUNT:
        assert numbers == sorted(numbers)


def test_listeners_hear_nothing_else(heard: Heard) -> None:
    expected = sum(kind.sends for kind in PUBLISHERS.values())
    counts = {name: len(messages) for name, messages in heard.messages.items()}
    assert counts == dict.fromkeys(LISTENERS, expected)


def test_what_a_script_publishes_goes_out_byte_for_byte(heard: Heard) -> None:
    topic = PUBLISHERS["fedmsg.publish"].topic.encode()
    bodies = [body.decode() for frame, body in heard.frames if frame == topic]
    assert bodies == heard.sent_by_script
    assert len(bodies) == COUNT


def test_what_a_socket_sends_goes_out_byte_for_byte(heard: Heard) -> None:
    # Duplicate keys, blanks and raw UTF-8 are what an encoder would not leave alone.
    expected = [
        b'{ "topic": "raw", "timestamp": 1.5, "msg_id": "\xc3\xa9",'
        b' "msg": {"number": -1, "number": %d} }' % number
        for number in range(COUNT)
    ]
    assert [body for frame, body in heard.frames if frame == b"raw"] == expected


def test_what_fedmsg_logger_publishes_goes_out_as_it_encodes_it(heard: Heard) -> None:
    for topic, body in heard.frames:
        if topic.startswith(b"org.fedoraproject.dev.logger."):
            canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
            assert body == canonical.encode()


def test_hub_is_given_the_topic_of_the_frame(heard: Heard) -> None:
    from_hub = [message["topic"] for message in heard.messages["upstream fedmsg-hub"]]
    assert sorted(from_hub) == sorted(topic.decode() for topic, _ in heard.frames)
