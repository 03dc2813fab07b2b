"""fedmsg-logger: publish from a shell. A drop-in for upstream's command of that name."""

from __future__ import annotations

import os
import sys

from . import cli
from .errors import FedmsgRelayError, MessageTooLarge, PublishError
from .publishing.delivery import FAILED, HANDED, REFUSED, SPOOLED
from .publishing.publisher import Publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from .config import Config
    from .message import Message
    from .publishing.delivery import Outcome

NAME = "fedmsg-logger"

_DESCRIPTION = """\
Publish messages on the fedmsg bus, through the first relay of the config that answers. Where none
does, messages are spooled on this host (publisher_spool) and delivered when one is back.

Without --message the text comes from standard input: one message a line, or one message from all of
it with --json-input."""

_EPILOG = """\
examples:
  echo "Hello, world." | fedmsg-logger --modname git --topic repo.update
  echo '{"a": 1}' | fedmsg-logger --json-input
  fedmsg-logger --message "This is a message."

exit status:
  0 published, or spooled, which a line on standard error says
  2 usage or configuration   65 bad input   75 no relay answers and nothing is spooled; try again"""

_OPTIONS: cli.Options = {
    "--message": {"dest": "logger_message", "metavar": "TEXT", "help": "the message to publish"},
    "--json-input": {"action": "store_true", "help": "take the input as one JSON document"},
    "--topic": {"metavar": "TOPIC", "help": "think org.fedoraproject.dev.logger.TOPIC (log)"},
    "--modname": {"metavar": "NAME", "help": "think org.fedoraproject.dev.NAME.log (logger)"},
    "--cert-prefix": {"metavar": "PREFIX", "help": "sign with certnames['PREFIX.host'] (shell)"},
    "--verbose": {"action": "store_true", "help": "say what became of each message"},
}
# One of them at most.
_SPOOL_OPTIONS: cli.Options = {
    "--no-spool": {
        "action": "store_const",
        "const": None,
        "dest": "publisher_spool",
        "help": "fail rather than spool",
    },
    "--drain": {
        "action": "store_true",
        "help": "deliver what is spooled, and publish nothing else",
    },
}

_STDIN = 0
_CHUNK = 1 << 16


class BadInput(Exception):
    """Input that cannot become a message."""


class _Report:
    """What became of the messages of this run, for the exit status and standard error."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._kinds: dict[str, int] = {}
        self.bad_input = False
        self.failure: str | None = None
        self.publisher: Publisher | None = None
        self._why_spooled: str | None = None

    def take(self, message: Message, outcome: Outcome) -> None:
        self._kinds[outcome.kind] = self._kinds.get(outcome.kind, 0) + 1
        if outcome.kind == REFUSED:
            self.complain_of_input(f"{outcome.where} refuses {message['msg_id']}: {outcome.why}")
        elif outcome.kind == FAILED:
            self.failure = self.failure or outcome.why
        if outcome.kind == SPOOLED and self._why_spooled is None and self.publisher is not None:
            self._why_spooled = self.publisher.why()  # now, while it is so
        if self._verbose and outcome.kind not in (REFUSED, FAILED):
            _say(f"{message['msg_id']} {_became(outcome)}")

    def complain_of_input(self, text: str) -> None:
        self.bad_input = True
        _say(text)

    def conclude(self, config: Config) -> int:
        """Say what has to be said at the end. The exit status."""
        spooled = self._kinds.get(SPOOLED, 0)
        if spooled:
            _say(
                f"{_messages(spooled)} spooled in {config['publisher_spool']},"
                f" to be delivered later: {self._why_spooled}"
            )
        if self.failure is not None:
            dealt_with = sum(n for kind, n in self._kinds.items() if kind not in (FAILED, REFUSED))
            before = f" ({dealt_with} messages were published before that)" if dealt_with else ""
            _say(f"{self.failure}{before}")
            return cli.EX_TEMPFAIL
        return cli.EX_DATAERR if self.bad_input else 0


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    given = _plain(words)
    if given is None:
        given = vars(parser().parse_args(words))
    verbose = "verbose" in given
    try:
        config = cli.configured(
            given, json_input=False, topic="log", modname="logger", cert_prefix="shell"
        )
        if "drain" in given:
            return _drain(config, given.get("timeout"), verbose)
        return _publish(config, _Report(verbose))
    except PublishError as error:
        _say(str(error))
        return cli.EX_TEMPFAIL
    except FedmsgRelayError as error:
        _say(str(error))
        return cli.EX_USAGE
    except BadInput as error:
        _say(str(error))
        return cli.EX_DATAERR
    except KeyboardInterrupt:
        return 130


def _plain(words: list[str]) -> dict[str, Any] | None:
    given = cli.plain(words, {**cli.COMMON, **_OPTIONS, **_SPOOL_OPTIONS})
    if given is not None and "publisher_spool" in given and "drain" in given:
        return None
    return given


def parser() -> argparse.ArgumentParser:
    made = cli.parser(NAME, _DESCRIPTION, _EPILOG)
    for name, option in _OPTIONS.items():
        made.add_argument(name, **option)
    spool = made.add_mutually_exclusive_group()
    for name, option in _SPOOL_OPTIONS.items():
        spool.add_argument(name, **option)
    return made


def _publish(config: Config, report: _Report) -> int:
    # What upstream makes of empty ones.
    topic, modname = config["topic"] or "unspecified", config["modname"] or "__main__"
    _check_encodable(topic, modname, config["topic_prefix"])
    publisher = report.publisher = Publisher(config, report.take)
    status = cli.EX_TEMPFAIL
    try:
        for msg in _input(config, publisher):
            if isinstance(msg, BadInput):
                report.complain_of_input(str(msg))
                continue
            try:
                publisher.put(topic, msg, modname)
            except (MessageTooLarge, ValueError) as error:
                report.complain_of_input(str(error))
            if report.failure is not None:
                break
        publisher.finish()
        status = report.conclude(config)
    finally:
        publisher.close(leaving=True)
    return status


def _drain(config: Config, timeout: float | None, verbose: bool) -> int:
    from .publishing import drain

    drained = drain.drain(config, drain.TIMEOUT if timeout is None else timeout)
    if drained.delivered or drained.failed or verbose:
        failed = f", {drained.failed} moved to failed/" if drained.failed else ""
        spool = config["publisher_spool"]
        print(f"{_messages(drained.delivered)} delivered from {spool}{failed}", flush=True)
    if drained.left is None:
        return 0
    _say(f"the rest stays in {config['publisher_spool']}: {drained.left}")
    return cli.EX_TEMPFAIL


def _input(config: Config, publisher: Publisher) -> Iterator[Any]:
    """The `msg` of each message to publish, or the BadInput that stands in its place."""
    as_json = config["json_input"]
    if config.get("logger_message"):
        text = config["logger_message"]
        yield _from_json(text, "--message") if as_json else {"log": text}
    elif as_json:
        text = _decoded(b"".join(_chunks(publisher)), "standard input")
        yield text if isinstance(text, BadInput) else _from_json(text, "standard input")
    else:
        for number, line in enumerate(_lines(publisher), 1):
            text = _decoded(line, f"line {number} of standard input")
            yield text if isinstance(text, BadInput) else {"log": text.strip()}


def _lines(publisher: Publisher) -> Iterator[bytes]:
    """Lines of standard input, each as soon as it is whole: more may come in a day."""
    begun: list[bytes] = []
    for chunk in _chunks(publisher):
        first, *rest = chunk.split(b"\n")
        begun.append(first)
        for line in rest:
            yield b"".join(begun)
            begun = [line]
    last = b"".join(begun)
    if last:
        yield last


def _chunks(publisher: Publisher) -> Iterator[bytes]:
    """Standard input as it comes. While it does not, messages are delivered."""
    if sys.stdin is None:  # closed, and its number may be one of libzmq's own descriptors by now
        raise BadInput("standard input is closed")
    while True:
        publisher.wait_for_input(_STDIN)
        try:
            chunk = os.read(_STDIN, _CHUNK)
        except BlockingIOError:  # another program has left it so
            continue
        except OSError as error:
            raise BadInput(f"standard input: {error.strerror}") from error
        if not chunk:
            return
        yield chunk


def _from_json(text: str, source: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadInput(f"{source} is not JSON: {error}")


def _decoded(data: bytes, source: str) -> str | BadInput:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return BadInput(f"{source} is not UTF-8: {error.reason} at byte {error.start}")


def _check_encodable(*names: str) -> None:
    from .errors import ConfigError

    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{name!a} is not UTF-8: topics are") from None


def _became(outcome: Outcome) -> str:
    if outcome.kind == SPOOLED:
        return f"spooled as {outcome.where}"
    if outcome.kind == HANDED:
        return f"handed to {outcome.where}, which does not acknowledge"
    return f"acked by {outcome.where} as seq {outcome.seq}"


def _messages(count: int) -> str:
    return f"{count} message{'s' * (count != 1)}"


def _say(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
