"""fedmsg-amqp-bridge: the bus on RabbitMQ, both ways: the command and the daemon.

By the keys of the config that begin with `amqp_`, see bridge/settings.py; what others may not read,
or only some hosts need, is in CONFIG. Started by its unit as the relay's user on the relay's host:
it reads the journal there, and submits to the relay.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from typing import Any

from . import __version__, log, process, systemd
from . import config as global_config
from .bridge import store as state
from .bridge.settings import Settings
from .bridge.settings import of as settings_of
from .bridge.status import Status, application
from .errors import ConfigError, FedmsgRelayError, StartError

NAME = "fedmsg-amqp-bridge"
# Its *.py come after the global config, which every host of the bus has and everybody may read.
CONFIG = "/etc/fedmsg-amqp-bridge"

DESCRIPTION = """\
Publish what the relay's journal has to RabbitMQ, as fedora-messaging does, and submit to the relay
what a queue has. Nothing is lost on either way: what is not confirmed is sent again."""

EPILOG = """\
exit status:
  0 ended by a signal, or done   1 cannot start, or the state cannot be read   2 usage"""

logger = logging.getLogger(log.NAME)


def serve(config: global_config.Config, settings: Settings) -> None:
    """Bridge until SIGTERM or SIGINT. Raises StartError or StateError."""
    # Only here: the other uses of the command need no pika.
    from .bridge.inward import Inward
    from .bridge.outward import Outward

    store = state.Store(settings.state)
    status = Status(__version__, settings.lag_critical, set_aside=store.set_aside)
    logger.info("%s %s, %s", NAME, __version__, _described(settings))
    stopped = threading.Event()
    inward = Inward(settings, config, store, status) if settings.bindings else None
    outward = None
    if settings.include:
        outward = Outward(settings, config["relay_journal"], store, status)

    def stop(*_: Any) -> None:
        stopped.set()
        if outward is not None:
            outward.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _serve_http(settings, status)
    systemd.notify("READY=1")
    if inward is not None:
        inward.start()
    if outward is not None:
        outward.run()
    else:
        while not stopped.wait(1):
            systemd.notify("WATCHDOG=1")
    systemd.notify("STOPPING=1")
    if inward is not None:
        inward.stop()
        inward.join(10)
    store.close()
    logger.info("stopped")


def check(config: global_config.Config) -> Settings:
    """The settings, if the bridge can run with this config. Raises ConfigError."""
    settings = settings_of(config)
    if not settings.include and not settings.bindings:
        raise ConfigError("config keys 'amqp_out' and 'amqp_in' are empty: there is nothing to do")
    if settings.include and config["relay_journal"] is None:
        raise ConfigError("config key 'relay_journal' is not set: there is nothing to publish from")
    if settings.bindings and not config["relay_submit"]:
        raise ConfigError("config key 'relay_submit' is empty: nobody would acknowledge messages")
    try:
        import pika  # noqa: F401
    except ImportError:
        raise ConfigError("pika is missing: install python3-pika") from None
    for address in settings.http:
        _check_address(address)
    return settings


def _described(settings: Settings) -> str:
    parts = [f"broker {', '.join(map(str, settings.brokers))}"]
    if settings.include:
        parts.append(f"out {' '.join(settings.include)}")
    if settings.bindings:
        parts.append(f"in {' '.join(settings.bindings)}")
    return "; ".join(parts)


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"config key 'amqp_http': {address!a} is not like 127.0.0.1:4003")


def _serve_http(settings: Settings, status: Status) -> None:
    """Answer `/health` and `/metrics` on a thread. Raises StartError."""
    if not settings.http:
        return
    try:
        from waitress.server import create_server
    except ImportError:
        raise StartError("waitress is missing, amqp_http needs it: python3-waitress") from None
    logging.getLogger("waitress").setLevel(logging.ERROR)
    try:
        server = create_server(
            application(status), listen=" ".join(settings.http), threads=1, ident=NAME,
            max_request_body_size=1024, connection_limit=50,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise StartError(f"amqp_http: {', '.join(settings.http)}: {error}") from error
    threading.Thread(target=server.run, name="http", daemon=True).start()


def _show_set_aside(directory: str) -> None:
    for each in state.set_aside(directory):
        print(json.dumps(each))


def _cursor(settings: Settings, seq: int | None) -> str:
    """Show the cursor, or move it. Raises StateError."""
    if seq is not None:
        keeper = state.Store(settings.state)  # nobody else may have it meanwhile
        try:
            keeper.save(state.Cursor(seq, ""))
        finally:
            keeper.close()
    found = state.load(settings.state)
    if found is None:
        return "no cursor yet"
    return f"all up to seq {found.seq} is confirmed"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-filename", metavar="PATH", help="a file or a directory, not /etc")
    made.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    does = made.add_mutually_exclusive_group()
    does.add_argument("--check", action="store_true", help="check the configuration and exit")
    does.add_argument(
        "--set-aside", action="store_true", help="print what is set aside, a JSON object a line"
    )
    does.add_argument("--cursor", action="store_true", help="show up to which seq all is confirmed")
    does.add_argument(
        "--set-cursor", type=int, metavar="SEQ", help="go on after that seq at the next start"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    process.prepare(NAME[:15], 0.005)
    try:
        config = global_config.load(args.config_filename, system=True, further=CONFIG)
        settings = check(config)
        if args.check:
            print(f"{NAME}: configuration ok: {_described(settings)}")
        elif args.set_aside:
            _show_set_aside(settings.state)
        elif args.cursor or args.set_cursor is not None:
            print(f"{NAME}: {_cursor(settings, args.set_cursor)}")
        else:
            # Its lines go to the journal of systemd: relay_log is the relay's own.
            with log.started({**config, "relay_log": None}):
                serve(config, settings)
    except FedmsgRelayError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
