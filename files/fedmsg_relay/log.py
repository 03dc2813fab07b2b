"""Where the daemon's log lines go, without the thread of the sockets ever waiting for a disk.

`config["logging"]` is applied as upstream's commands do (logging.config.dictConfig): its levels,
formats and further handlers hold. Lines it would print on the console go to the file `relay_log`,
or to standard error when that is unset. All handlers run on a thread of their own, behind a queue.
"""

from __future__ import annotations

import copy
import logging
import logging.config
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

from .config import DEFAULT_LOGGING, Config
from .errors import ConfigError, FedmsgRelayError, StartError
from .escapes import escaped, escaped_lines
from .rate_limit import RateLimit

NAME = "fedmsg.relay"

# Lines that may wait for the disk. At some 200 bytes a line this is 2 MB.
QUEUE_LENGTH = 10_000

# Seconds between two attempts at a file that cannot be written.
RETRY = 1.0


class Trouble(NamedTuple):
    """Why lines are not in the file, in a few words, and since when, in Unix time."""

    error: str
    since: float


@contextmanager
def started(config: Config) -> Iterator[None]:
    """Log by the config; at the end write out what is queued and close the log.

    An error that ends the daemon is written to `relay_log` on its way out; the caller says it on
    standard error. Raises ConfigError for `logging`, StartError when `relay_log` cannot be written.
    """
    apply(config)
    logger = logging.getLogger(NAME)
    logger.disabled = False
    if logger.getEffectiveLevel() > logging.INFO and not _level_is_configured(logger):
        logger.setLevel(logging.INFO)
    destination = open_destination(config["relay_log"])
    others = _redirect_console(_handlers_of(logger), destination)
    backlog: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LENGTH)
    writer = _Writer(backlog, destination, *others, respect_handler_level=True)
    logger.handlers = [_QueueHandler(backlog)]
    logger.propagate = False
    writer.start()
    try:
        yield
    except FedmsgRelayError as error:
        if config["relay_log"] is not None:
            logger.error("%s", error)
        raise
    finally:
        writer.stop()
        logging.shutdown()


def trouble() -> Trouble | None:
    """What is wrong with the file that the daemon logs to. Waits for nothing."""
    return _file.trouble if _file is not None else None


def apply(config: Config) -> None:
    """Set up Python's logging as `config["logging"]` says. Raises ConfigError."""
    try:
        logging.config.dictConfig(config["logging"])
    except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"config key 'logging': {error}: {cause}") from error


def open_destination(relay_log: str | None) -> logging.Handler:
    """The file, or standard error for None. Raises StartError when the file cannot be opened."""
    if relay_log is None:
        return logging.StreamHandler(sys.stderr)
    try:
        global _file
        _file = LogFile(relay_log)
        return _file
    except OSError as error:
        raise StartError(f"relay_log: cannot write {relay_log}: {error.strerror}") from error


class LogFile(logging.handlers.WatchedFileHandler):
    """A file that is opened anew before the next line once it has been renamed or removed.

    A line that cannot be written is reported on standard error, where the journal has it, at most a
    few times a minute. It never stops the relay. `trouble` says so until a line can be written.
    """

    def __init__(self, path: str) -> None:
        self.trouble: Trouble | None = None
        self._limit = RateLimit(most=3)
        self._error: BaseException | None = None
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        self.try_again()
        if not self._write(record) and self._limit.allows("write"):
            print(f"relay_log: {self._error}: {record.getMessage()}", file=sys.stderr)

    def try_again(self) -> None:
        """In trouble, write a line that says that it is over. If it is not, say nothing."""
        if self.trouble is not None:
            text = f"log: written again after {time.time() - self.trouble.since:.0f} s"
            self._write(logging.LogRecord(NAME, logging.WARNING, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:
        self._error = sys.exc_info()[1]

    def _write(self, record: logging.LogRecord) -> bool:
        self._error = None
        try:
            super().emit(record)
        except OSError as error:  # reopening it: the directory is gone, or no longer ours
            self._error = error
        if isinstance(self._error, OSError):
            if self.trouble is None:
                self.trouble = Trouble(self._error.strerror or str(self._error), time.time())
            self._discard()
        elif self._error is None:
            self.trouble = None
        return self._error is None

    def _discard(self) -> None:
        """Have the file opened anew: a stream keeps what it could not write, to write it later."""
        with suppress(OSError):
            if self.stream is not None:
                self.stream.close()
        self.stream = None


# The daemon has one.
_file: LogFile | None = None


class _Writer(logging.handlers.QueueListener):
    """Writes out what is queued, on a thread of its own, and tries again what fails."""

    def dequeue(self, block: bool) -> logging.LogRecord:
        backlog = cast("queue.Queue[logging.LogRecord]", self.queue)
        while True:
            wait = RETRY if trouble() is not None else None
            try:
                return backlog.get(block, wait)
            except queue.Empty:
                if not block:
                    raise
            if _file is not None:
                _file.try_again()


# Only what it makes of exceptions.
_exceptions = logging.Formatter()


class _QueueHandler(logging.handlers.QueueHandler):
    """Gives a line up rather than wait when the queue is full, and says so on standard error."""

    def __init__(self, backlog: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(backlog)
        self._limit = RateLimit(most=1)

    def prepare(self, record: logging.LogRecord) -> Any:
        """The line as it goes to every handler: what it tells of the bus cannot forge another."""
        text = escaped(record.getMessage())
        if record.exc_info:
            text = f"{text}\n| {escaped_lines(_exceptions.formatException(record.exc_info))}"
        if record.stack_info:
            text = f"{text}\n| {escaped_lines(record.stack_info)}"
        record = copy.copy(record)
        record.msg, record.args = text, None
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    def handleError(self, record: logging.LogRecord) -> None:
        if self._limit.allows("full"):
            print(f"log: {QUEUE_LENGTH} lines wait for the disk, lines are lost", file=sys.stderr)


def is_on_a_terminal(logger: logging.Logger) -> bool:
    """Whether a line of `logger` comes to be seen on one, wherever the config sends it."""
    streams = [getattr(handler, "stream", None) for handler in _handlers_of(logger)]
    return any(stream is not None and stream.isatty() for stream in streams)


def _level_is_configured(logger: logging.Logger) -> bool:
    ancestor: logging.Logger | None = logger
    while ancestor is not None and ancestor.parent is not None:
        if ancestor.level != logging.NOTSET:
            return True
        ancestor = ancestor.parent
    return False


def _handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers a line of `logger` reaches, its ancestors' included."""
    found: list[logging.Handler] = []
    ancestor: logging.Logger | None = logger
    while ancestor is not None:
        found += ancestor.handlers
        ancestor = ancestor.parent if ancestor.propagate else None
    return found


def _redirect_console(
    handlers: list[logging.Handler], destination: logging.Handler
) -> list[logging.Handler]:
    """Give `destination` the console handler's format and level; return the other handlers."""
    others, console = [], None
    for handler in handlers:
        # Exactly StreamHandler: its subclasses are files.
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            console = handler
        else:
            others.append(handler)
    bare = DEFAULT_LOGGING["formatters"]["bare"]
    formatter = console.formatter if console is not None else None
    destination.setFormatter(formatter or logging.Formatter(bare["format"], bare["datefmt"]))
    if console is not None:
        destination.setLevel(console.level)
    return others
