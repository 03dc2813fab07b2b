"""What all commands share: upstream's common options, and the config with these laid over it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from . import __version__
from . import config as global_config
from .config import Config

EX_USAGE = 2
EX_DATAERR = 65
EX_TEMPFAIL = 75


def parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options that every fedmsg command has. None of them has a default here:
    what the command line does not say, the config decides."""
    made = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    made.add_argument("--version", action="version", version=f"{prog} {__version__}")
    common = made.add_argument_group("common options")
    option = common.add_argument
    option("--config-filename", metavar="PATH", help="read this file or directory, not /etc")
    option("--print-config", action="store_true", help="print the configuration and exit")
    option("--topic-prefix", metavar="PREFIX", help="begin topics with this")
    option("--timeout", type=float, metavar="SECONDS", help="wait this long; 0: without limit")
    option("--io-threads", type=int, metavar="N", help="threads of ZeroMQ")
    option("--high-water-mark", type=int, metavar="N", help="messages to queue; 0: the default")
    option("--linger", type=int, dest="zmq_linger", metavar="MS", help="wait at exit for delivery")
    # Nothing sleeps here: it is taken so that scripts that give it go on working.
    option("--post-init-sleep", type=float, metavar="SECONDS", help="accepted, and not needed")
    return made


def configured(args: argparse.Namespace, **defaults: Any) -> Config:
    """The config with the command's options: command line, else config file, else `defaults`.

    Raises ConfigError.
    """
    given = vars(args)
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
