"""What all commands share: upstream's common options, and the config with these laid over it."""

from __future__ import annotations

import sys

from . import __version__
from . import config as global_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, TypeAlias

    from .config import Config

EX_USAGE = 2
EX_DATAERR = 65
EX_TEMPFAIL = 75

# The name of each option, and what argparse's add_argument is told of it. None of them has a
# default here: what the command line does not say, the config decides.
Options: TypeAlias = "dict[str, dict[str, Any]]"

COMMON: Options = {
    "--config-filename": {"metavar": "PATH", "help": "read this file or directory, not /etc"},
    "--print-config": {"action": "store_true", "help": "print the configuration and exit"},
    "--topic-prefix": {"metavar": "PREFIX", "help": "begin topics with this"},
    "--timeout": {
        "type": float,
        "metavar": "SECONDS",
        "help": "wait this long; 0: without limit",
    },
    "--io-threads": {"type": int, "metavar": "N", "help": "threads of ZeroMQ"},
    "--high-water-mark": {
        "type": int,
        "metavar": "N",
        "help": "messages to queue; 0: the default",
    },
    "--linger": {
        "type": int,
        "dest": "zmq_linger",
        "metavar": "MS",
        "help": "wait at exit for delivery",
    },
    # Nothing sleeps here: it is taken so that scripts that give it go on working.
    "--post-init-sleep": {
        "type": float,
        "metavar": "SECONDS",
        "help": "accepted, and not needed",
    },
}


def parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options that every fedmsg command has."""
    import argparse

    made = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    made.add_argument("--version", action="version", version=f"{prog} {__version__}")
    common = made.add_argument_group("common options")
    for name, option in COMMON.items():
        common.add_argument(name, **option)
    return made


_DAEMON_DESCRIPTION = """\
Relay messages of a fedmsg bus: take what scripts send to the inbound and submit addresses of the
config, keep it in the journal, and emit it to all listeners of the outbound address."""

_DAEMON_EPILOG = """\
signals:
  SIGTERM, SIGINT  relay what has been taken so far, then end
  SIGUSR1          hold: take messages and emit none, while listeners are restarted
  SIGUSR2          end the hold

exit status:
  0 ended by a signal, or the configuration is valid   1 cannot start   2 usage"""


def refuse(made: argparse.ArgumentParser, options: dict[str, str]) -> None:
    """Have upstream's `options` end the command with an error that says what there is instead."""
    import argparse

    class Refusal(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
            parser.error(str(self.const))

    for name, instead in options.items():
        text = f"{made.prog} has no {name}: {instead}"
        made.add_argument(name, nargs="?", action=Refusal, const=text, help=argparse.SUPPRESS)


# Upstream's common options that the daemon has not: all on the bus go by what the config says.
_NOT_OF_THE_DAEMON = {
    "--print-config": "use --check, or fedmsg-logger --print-config",
    "--topic-prefix": "set topic_prefix in the config",
    "--timeout": "it waits for nobody, and timeout in the config is for publishers",
    "--io-threads": "set io_threads in the config",
    "--high-water-mark": "set high_water_mark in the config",
    "--linger": "set zmq_linger in the config",
    "--post-init-sleep": "nothing sleeps, leave it out",
}


def daemon_parser(prog: str) -> argparse.ArgumentParser:
    """The daemon's parser. It has none of upstream's common options: a service reads a config."""
    import argparse

    made = argparse.ArgumentParser(
        prog=prog,
        description=_DAEMON_DESCRIPTION,
        epilog=_DAEMON_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-filename", metavar="PATH", help="a file or a directory, not /etc")
    made.add_argument("--check", action="store_true", help="check the configuration and exit")
    made.add_argument("--version", action="version", version=f"{prog} {__version__}")
    refuse(made, _NOT_OF_THE_DAEMON)
    return made


def plain(words: list[str], options: Options) -> dict[str, Any] | None:
    """What argparse would find on a command line with nothing special; None: let it look.

    Importing argparse and making a parser takes as long as all else that handing over one message
    does, and scripts write out their options.
    """
    given = {}
    rest = iter(words)
    for word in rest:
        name, equals, text = word.partition("=")
        option = options.get(name)
        if option is None:  # help, an abbreviation, a mistake
            return None
        dest = option.get("dest", name[2:].replace("-", "_"))
        if "action" in option:
            if equals:
                return None
            given[dest] = option.get("const", True)
            continue
        if not equals:
            text = next(rest, "-")
            if text.startswith("-"):  # nothing, an option, or a negative number
                return None
        try:
            given[dest] = option.get("type", str)(text)
        except ValueError:
            return None
    return given


def configured(given: dict[str, Any], **defaults: Any) -> Config:
    """The config with what was `given` by options: command line, else config file, else `defaults`.

    Raises ConfigError.
    """
    loaded = global_config.load(given.get("config_filename"))
    config = global_config.complete({**defaults, **loaded, **given})
    if config.get("print_config"):
        print_config(config)
        sys.exit(0)
    return config


def print_config(config: Config) -> None:
    import json

    json.dump(config, sys.stdout, indent=2, sort_keys=True, default=repr)
    print()
