"""fedmsg-tail: print what goes by on the bus. A drop-in for upstream's that survives anything.

Lines go where `config["logging"]` sends upstream's: by default to standard output, with a header.
"""

from __future__ import annotations

import io
import logging
import pprint
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import zmq

from . import cli, endpoints, log, message, signatures, sockets
from .config import Config
from .errors import ConfigError, FedmsgRelayError

NAME = "fedmsg-tail"
# Upstream's commands all log under this name, which a config may send elsewhere.
LOGGER = "fedmsg.commands"

_DESCRIPTION = """\
Watch all endpoints of the bus and print each message.

A message that is not readable is reported on standard error, and never ends this command."""


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(NAME, _DESCRIPTION)
    option = parser.add_argument
    option("--topic", metavar="PREFIX", help="only topics that begin with this")
    option("--query", metavar="KEYS", help="only these parts, such as 'msg.commit.repo,topic'")
    option("--pretty", action="store_true", help="print over several lines, with dates")
    option("--really-pretty", action="store_true", help="print indented JSON, in colour")
    option("--exclude", dest="exclusive_regexp", metavar="REGEXP", help="no topics that match")
    option("--include", dest="inclusive_regexp", metavar="REGEXP", help="only topics that match")
    option("--validate", dest="validate_signatures", action="store_true", help="check signatures")
    option("--no-validate", dest="validate_signatures", action="store_false", help="do not")
    args = parser.parse_args(argv)
    # Like any filter, end quietly when the reader of our output is gone.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        config = cli.configured(
            args,
            topic="",
            query=None,
            pretty=False,
            really_pretty=False,
            exclusive_regexp="_heartbeat",
            inclusive_regexp="^((?!_heartbeat).)*$",
            validate_signatures=False,
        )
        _start_log(config)
        _tail(config)
    except FedmsgRelayError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return cli.EX_USAGE
    except KeyboardInterrupt:
        print()
    return 0


def receive(config: Config, topic: str) -> Iterator[list[bytes]]:
    """Frames of every message on every endpoint of the config, `[topic, body]` if all is well."""
    context = zmq.Context(io_threads=config["io_threads"])
    subscriber = sockets.make(context, zmq.SUB, config)
    subscriber.setsockopt(zmq.SUBSCRIBE, topic.encode())
    for name, texts in config["endpoints"].items():
        # Scripts of old put the relay's inbound address here; nobody publishes on it.
        if name == "relay_inbound":
            continue
        for text in texts:
            endpoint = endpoints.parse(text, f"endpoints[{name!r}]")
            try:
                socket.getaddrinfo(endpoint.host.replace("*", "127.0.0.1"), None)
            except OSError as error:
                # Connected to all the same: libzmq asks again until the name is there.
                print(f"{NAME}: {text}: cannot resolve {endpoint.host!r}: {error}", file=sys.stderr)
            sockets.connect(subscriber, text)
    while True:
        yield subscriber.recv_multipart()


def formatted(body: Any, config: Config) -> str:
    """The text for one message, by the options --pretty, --really-pretty and --query.

    The same as upstream's to the letter. May raise anything for a message that is not as fedmsg's
    are.
    """
    text = str(body)
    if config["pretty"]:
        body = dict(signatures.strip(body), timestamp=_date(body.get("timestamp")))
        text = "\n" + pprint.pformat(body)
    if config["really_pretty"]:
        text = "\n" + _highlighted(message.pretty_dumps(signatures.strip(body)))
    if config["query"]:
        keys = (key.strip().split(".") for key in config["query"].split(","))
        text = ", ".join(str(_looked_up(body, key)) for key in keys)
    return text


def _tail(config: Config) -> None:
    output = logging.getLogger(LOGGER)
    exclude = _compiled("--exclude", config["exclusive_regexp"])
    include = _compiled("--include", config["inclusive_regexp"])
    for frames in receive(config, config["topic"]):
        if len(frames) != 2:
            _skip(frames, f"it has {len(frames)} frames, not 2")
            continue
        try:
            topic, text = frames[0].decode(), frames[1].decode()
        except UnicodeDecodeError as error:
            _skip(frames, f"it is not UTF-8: {error.reason}")
            continue
        if exclude.search(topic) or not include.search(topic):
            continue
        try:
            body = message.loads(text)
        except (ValueError, RecursionError) as error:
            _skip(frames, f"it is not JSON: {error}")
            continue
        if config["validate_signatures"]:
            reason = signatures.why_invalid(body, config)
            if reason is not None:
                _skip(frames, reason)
                continue
        try:
            line = formatted(body, config)
        except Exception as error:
            # Whatever it is, the message is here to be seen: print it as it came.
            line = f"{topic} {text}"
            print(f"{NAME}: cannot format the next message: {error!r}", file=sys.stderr)
        if line:
            output.info("%s", line)


def _start_log(config: Config) -> None:
    # Half of a surrogate pair is valid in JSON and cannot be printed as it is.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    log.apply(config)


def _compiled(option: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{option} {pattern!r} is not a regular expression: {error}") from error


def _skip(frames: list[bytes], why: str) -> None:
    shown = b" ".join(frames)[:200]
    print(f"{NAME}: message not shown, {why}: {shown!r}", file=sys.stderr, flush=True)


def _date(timestamp: Any) -> Any:
    try:
        return time.ctime(timestamp)
    except (TypeError, ValueError, OverflowError):
        return timestamp


def _highlighted(text: str) -> str:
    try:
        import pygments.formatters
        import pygments.lexers
    except ImportError:
        return text
    lexer = pygments.lexers.JavascriptLexer()
    return str(pygments.highlight(text, lexer, pygments.formatters.TerminalFormatter()).strip())


def _looked_up(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


if __name__ == "__main__":
    sys.exit(main())
