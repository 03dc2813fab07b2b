"""fedmsg-tail: print what goes by on the bus. A drop-in for upstream's that survives anything.

Lines go where `config["logging"]` sends upstream's: by default to standard output, with a header.
"""

from __future__ import annotations

import argparse
import io
import logging
import pprint
import re
import signal
import socket
import sys
import time
from typing import Any

import zmq

from . import cli, endpoints, log, message, sockets
from .backlog.seen import Seen
from .checks import signatures
from .config import Config
from .errors import ConfigError, FedmsgRelayError
from .escapes import escaped

NAME = "fedmsg-tail"
# Upstream's commands all log under this name, which a config may send elsewhere.
LOGGER = "fedmsg.commands"

# Seconds after the past has been read. What is in it and comes from the bus, too, has come by then,
# once nothing is left to be received.
AGAIN = 60.0

_DESCRIPTION = """\
Watch all endpoints of the bus and print each message. With --since, what the relays have kept of
the time before comes first; nothing is left out between the two, and nothing is printed twice.

A message that is not readable is reported on standard error, and never ends this command."""

_EPILOG = """\
examples:
  fedmsg-tail --really-pretty --topic org.fedoraproject.dev.git
  fedmsg-tail --since 10m --query msg.commit.repo,topic

exit status:
  0 ended by its reader or by Ctrl-C   2 usage or configuration"""


# Options of upstream's that need its fedmsg.meta, and what there is instead.
_REFUSED = {
    "--cowsay": "use --pretty",
    "--terse": "use --query topic,username,msg",
    "--users": "use --query topic,username and grep",
    "--packages": "use --include with a part of the topic",
}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # Like any filter, end quietly when the reader of our output is gone.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        config = cli.configured(
            vars(args),
            topic="",
            since=None,
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


def parser() -> argparse.ArgumentParser:
    made = cli.parser(NAME, _DESCRIPTION, _EPILOG)
    option = made.add_argument
    option("--topic", metavar="PREFIX", help="only topics that begin with this")
    option("--since", type=_since, metavar="TIME", help="begin so long ago: 90s, 10m, 2h or 1d")
    option("--query", metavar="KEYS", help="only these parts, such as 'msg.commit.repo,topic'")
    option("--pretty", action="store_true", help="print over several lines, with dates")
    option("--really-pretty", action="store_true", help="print indented JSON, in colour")
    option("--exclude", dest="exclusive_regexp", metavar="REGEXP", help="no topics that match")
    option("--include", dest="inclusive_regexp", metavar="REGEXP", help="only topics that match")
    cli.refuse(made, _REFUSED)
    option("--validate", dest="validate_signatures", action="store_true", help="check signatures")
    option("--no-validate", dest="validate_signatures", action="store_false", help="do not")
    return made


def connect(subscriber: zmq.Socket[bytes], config: Config) -> int:
    """Connect to every endpoint of the config. Returns their number."""
    if config.get("srv_endpoints"):
        raise ConfigError("srv_endpoints is not supported: name the addresses in endpoints")
    count = 0
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
            count += 1
    return count


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


class _Printer:
    """Prints messages that the options let through."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._output = logging.getLogger(LOGGER)
        # These two have lines, and escapes of their own.
        self._has_lines = config["pretty"] or config["really_pretty"]
        self._is_terminal = log.is_on_a_terminal(self._output)
        self._exclude = _compiled("--exclude", config["exclusive_regexp"])
        self._include = _compiled("--include", config["inclusive_regexp"])

    def receive(self, frames: list[bytes], printed: Seen | None) -> None:
        """Print what came from the bus, `[topic, body]` if all is well, unless it was printed."""
        if len(frames) != 2:
            _skip(frames, f"it has {len(frames)} frames, not 2")
            return
        try:
            topic, text = frames[0].decode(), frames[1].decode()
        except UnicodeDecodeError as error:
            _skip(frames, f"it is not UTF-8: {error.reason}")
            return
        if not self._is_wanted(topic):
            return
        try:
            body = message.loads(text)
        except (ValueError, RecursionError) as error:
            _skip(frames, f"it is not JSON: {error}")
            return
        if printed is not None and isinstance(body, dict) and _msg_id(body) in printed:
            return
        self._print(topic, text, body)

    def replay(self, body: message.Message) -> None:
        """Print a message of a backlog."""
        topic = str(body.get("topic"))
        if topic.startswith(self._config["topic"]) and self._is_wanted(topic):
            self._print(topic, message.dumps(body), body)

    def _shown(self, text: str) -> str:
        """On a terminal: without what a sender could move the cursor or forge a line with."""
        return escaped(text) if self._is_terminal else text

    def _is_wanted(self, topic: str) -> bool:
        return not self._exclude.search(topic) and self._include.search(topic) is not None

    def _print(self, topic: str, text: str, body: Any) -> None:
        if self._config["validate_signatures"]:
            reason = signatures.why_invalid(body, self._config)
            if reason is not None:
                _skip([topic.encode("utf-8", "replace"), text.encode("utf-8", "replace")], reason)
                return
        try:
            line = formatted(body, self._config)
            if self._config["query"] or not self._has_lines:
                line = self._shown(line)
        except Exception as error:
            # Whatever it is, the message is here to be seen: print it as it came.
            line = self._shown(f"{topic} {text}")
            print(f"{NAME}: cannot format the next message: {error!r}", file=sys.stderr)
        if line:
            self._output.info("%s", line)


def _tail(config: Config) -> None:
    printer = _Printer(config)
    context = zmq.Context(io_threads=config["io_threads"])
    subscriber = sockets.make(context, zmq.SUB, config)
    subscriber.setsockopt(zmq.SUBSCRIBE, config["topic"].encode())
    printed: Seen | None = None
    if config["since"] is None:
        connect(subscriber, config)
    else:
        printed = _replay(config, printer, subscriber)
    replayed = time.monotonic()
    while True:
        if printed is not None and time.monotonic() - replayed > AGAIN and not subscriber.poll(0):
            printed = None
        printer.receive(subscriber.recv_multipart(), printed)


def _replay(config: Config, printer: _Printer, subscriber: zmq.Socket[bytes]) -> Seen:
    """Connect, and print what the relays have kept. Returns the msg_ids: the newest come again."""
    from .backlog import client

    client.urls(config)  # a mistake in the config is told without a wait
    # First, so that whatever the backlogs do not have yet will come from the bus.
    _connect_and_wait(subscriber, config)
    printed = Seen()
    for body in client.read(config, time.time() - config["since"], _warn, printed):
        printer.replay(body)
    return printed


def _connect_and_wait(subscriber: zmq.Socket[bytes], config: Config) -> None:
    """Connect, and wait until that is done: for `timeout` seconds at most, some may be away."""
    monitor = subscriber.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    missing = connect(subscriber, config)
    end = time.monotonic() + (config["timeout"] or 2.0)
    while missing and monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
        sockets.monitor_event(monitor)
        missing -= 1
    subscriber.disable_monitor()


def _since(text: str) -> float:
    from .backlog import client

    try:
        return client.seconds(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time such as 90s, 10m, 2h or 1d"
        ) from None


def _msg_id(body: message.Message) -> str:
    return str(body.get("msg_id"))


def _warn(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


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
    print(f"{NAME}: message not shown, {escaped(why)}: {shown!r}", file=sys.stderr, flush=True)


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
