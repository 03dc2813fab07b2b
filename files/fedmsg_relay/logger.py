"""fedmsg-logger: publish from a shell. A drop-in for upstream's command of that name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from . import cli
from .api import Session
from .errors import FedmsgRelayError, MessageTooLarge, PublishError

NAME = "fedmsg-logger"

_DESCRIPTION = """\
Publish messages on the fedmsg bus, through the first relay in relay_inbound that answers.

Without --message the text comes from standard input: one message a line, or one message from all of
it with --json-input."""

_EPILOG = """\
examples:
  echo "Hello, world." | fedmsg-logger --modname git --topic repo.update
  echo '{"a": 1}' | fedmsg-logger --json-input
  fedmsg-logger --message "This is a message."

exit status:
  0 published   2 usage or configuration   65 bad input   75 no relay answers; try again later"""


class BadInput(Exception):
    """Input that cannot become a message."""


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(NAME, _DESCRIPTION, _EPILOG)
    option = parser.add_argument
    option("--message", dest="logger_message", metavar="TEXT", help="the message to publish")
    option("--json-input", action="store_true", help="take the input as one JSON document")
    option("--topic", metavar="TOPIC", help="think org.fedoraproject.dev.logger.TOPIC (log)")
    option("--modname", metavar="NAME", help="think org.fedoraproject.dev.NAME.log (logger)")
    option("--cert-prefix", metavar="PREFIX", help="sign with certnames['PREFIX.host'] (shell)")
    args = parser.parse_args(argv)
    published = 0
    try:
        config = cli.configured(
            args, json_input=False, topic="log", modname="logger", cert_prefix="shell"
        )
        # What upstream makes of empty ones.
        topic, modname = config["topic"] or "unspecified", config["modname"] or "__main__"
        _check_encodable(topic, modname, config["topic_prefix"])
        session = Session(config)
        try:
            status = 0
            for msg in _messages(config):
                if isinstance(msg, BadInput):
                    _complain(str(msg))
                    status = cli.EX_DATAERR
                    continue
                try:
                    session.publish(topic, msg, modname)
                    published += 1
                except MessageTooLarge as error:
                    _complain(str(error))
                    status = cli.EX_DATAERR
            return status
        finally:
            session.close()
    except PublishError as error:
        before = f" ({published} messages were published before that)" if published else ""
        _complain(f"{error}{before}")
        return cli.EX_TEMPFAIL
    except FedmsgRelayError as error:
        _complain(str(error))
        return cli.EX_USAGE
    except KeyboardInterrupt:
        return 130


def _messages(config: dict[str, Any]) -> Iterator[Any]:
    """The `msg` of each message to publish, or the BadInput that stands in its place."""
    as_json = config["json_input"]
    if config.get("logger_message"):
        text = config["logger_message"]
        yield _from_json(text, "--message") if as_json else {"log": text}
    elif as_json:
        text = _decoded(sys.stdin.buffer.read(), "standard input")
        yield text if isinstance(text, BadInput) else _from_json(text, "standard input")
    else:
        for number, line in enumerate(sys.stdin.buffer, 1):
            text = _decoded(line, f"line {number} of standard input")
            yield text if isinstance(text, BadInput) else {"log": text.strip()}


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


def _complain(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
