"""Our fedmsg-tail prints what upstream's prints, to the letter, whatever the options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.waiting import wait_for

from .bus import Bus

# Two last messages, so that each set of options shows at least one of them.
ENDS = ("git.end", "zzz.end")
SHOWS_ONE_END = ("topic", "exclude")

OPTIONS = {
    "plain": [],
    "pretty": ["--pretty"],
    "really-pretty": ["--really-pretty"],
    "both": ["--pretty", "--really-pretty"],
    "query": ["--query", "msg.commit.repo"],
    "query-several": ["--query", "topic, msg.commit ,i,msg.text.no, nothing,msg.number"],
    "query-pretty": ["--query", "timestamp,signature,msg", "--pretty"],
    "topic": ["--topic", "org.fedoraproject.dev.git"],
    "exclude": ["--exclude", r"git|bodhi"],
    "include": ["--include", r"(git|zzz)\.", "--exclude", "nothing"],
    "no-validate": ["--no-validate", "--pretty"],
    "common": ["--io-threads", "2", "--high-water-mark", "0", "--post-init-sleep", "0"],
}


def _message(topic: str, **keys: Any) -> bytes:
    message = {
        "topic": f"org.fedoraproject.dev.{topic}",
        "timestamp": 1349109000,
        "msg_id": "2012-1f0d5c0e-9d3a-4ac1-8f30-6d2c8c2a3a66",
        "i": 1,
        "username": "ralph",
        **keys,
    }
    return json.dumps(message).encode()


MESSAGES = [
    _message("git.receive", msg={"commit": {"repo": "nethack", "stats": {"lines": 12}}}),
    _message("git.receive", msg={"commit": None}),
    _message("git.receive", msg={"commit": ["repo"]}),
    _message("git.receive", msg={"commit": {"repo": ["a", {"b": None}]}}),
    _message("bodhi.update", msg={}),
    _message("bodhi.update", msg="text"),
    _message("bodhi.update", msg=[1, 2.5, None, True]),
    _message("bodhi.update", msg=5, extra={"z": 1, "a": 2}),
    _message("copr.build", msg={"text": "naïve \U0001f41f \ud83d ß", "number": 1.25e300}),
    _message("copr.build", msg={"text": "line\nnext\ttab\r\x00\x1b[31m %s %d \u2028 end"}),
    _message(
        "copr.build", msg={"text": "word " * 60, "long": "x" * 300, "deep": [[[[{"a": [1]}]]]]}
    ),
    _message("signed", msg={}, crypto="x509", signature="c2ln\n", certificate="Y2VydA==\n"),
    _message("time", msg={}, timestamp=1349109000.75),
    _message("time", msg={}, timestamp=0),
    _message("time", msg={}, timestamp=-62135510400),
    _message("fedmsg._heartbeat.host", msg={"hidden": True}),
    b'{"topic": "numbers", "timestamp": 1, "msg_id": "", "msg": {"a": 1e400, "b": NaN, "c": -0.0,'
    b' "d": 123456789012345678901234567890, "e": 1.0, "a": -Infinity}}',
]

Printed = dict[str, tuple[list[str], list[str]]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Printed]:
    """What both print with each set of options, from the same socket."""
    with Bus(tmp_path_factory.mktemp("tail"), peer_venv) as bus:
        socket = bus.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.bind(bus.outbound)
        tails = {
            name: (
                bus.upstream_tail(*options, name=f"upstream-{name}"),
                bus.tail(*options, name=f"ours-{name}"),
            )
            for name, options in OPTIONS.items()
        }
        for _ in range(2 * len(OPTIONS)):
            wait_for(lambda: socket.poll(0), what="every tail subscribes")
            assert socket.recv()[:1] == b"\x01"
        for body in MESSAGES:
            socket.send_multipart([json.loads(body)["topic"].encode(), body])
        for topic in ENDS:
            end = _message(topic, msg={"commit": {"repo": "THE END"}})
            socket.send_multipart([json.loads(end)["topic"].encode(), end])
        for name, both in tails.items():
            for tail in both:
                tail.wait_for_line("THE END", count=1 if name in SHOWS_ONE_END else 2)
        yield {
            name: (upstream.records(), ours.records()) for name, (upstream, ours) in tails.items()
        }


@pytest.mark.parametrize("options", OPTIONS)
def test_same_text_as_upstream(printed: Printed, options: str) -> None:
    upstream, ours = printed[options]
    assert upstream
    assert ours == upstream
