"""The relay over HTTP: `/raw` and `/id`, as datagrepper has them, `/health` and `/metrics`.

A process of its own, `python3 -m fedmsg_relay.backlog`, which the relay starts: Python runs one
thread of a process at a time, and no request may take that time from the thread of the sockets. It
reads the journal's file by itself. What the relay knows of itself comes in on standard input, and
the end of that is the end of this process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Callable

from . import health, networks, process, query
from .health import Feed
from .journal import JournalError, JournalReader

NAME = "fedmsg-backlog"

# Bytes of a page that is read whole and sent with its length. A larger one is read message by
# message as the client takes it.
LARGE = 1 << 20
# Such pages at once, and searches: what they take of memory and of the disk is bounded by this.
LARGE_AT_ONCE = 4
SEARCHES_AT_ONCE = 2
# As many more may wait for their turn, for so many seconds. All of these together are fewer than
# the threads of the server, so that there is always one for /health.
TURN = 5.0
# Bytes handed to the server at once.
CHUNK = 1 << 18

# This process is less urgent than the relay, and the one to go when memory runs out.
NICE = 10
OOM_SCORE = 500

JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"

INDEX = b"""\
/raw      messages of the backlog: start, end, delta, rows_per_page, page, order, topic, user
/id       one message: id
/health   whether all is well, as JSON; status 503 when it is not
/metrics  the same and more, for Prometheus
"""

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Answer(Exception):
    """What a request is answered with; raised where there is nothing more to do."""

    def __init__(self, status: str, body: Iterable[bytes], kind: str = JSON, **headers: str):
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = [("Content-Type", kind), ("Cache-Control", "no-store")]
        self.headers += [(key.replace("_", "-"), value) for key, value in headers.items()]
        if isinstance(body, list):
            self.headers.append(("Content-Length", str(sum(map(len, body)))))


class Backlog:
    """The WSGI application. `journal` is the path of the relay's, or None if it has none."""

    def __init__(self, feed: Feed, journal: str | None) -> None:
        self._feed = feed
        self._journal = journal
        self._pages = query.Pages()
        self._large = _Turns(LARGE_AT_ONCE)
        self._searches = _Turns(SEARCHES_AT_ONCE)
        self._answers = {
            "/": lambda _: Answer("200 OK", [INDEX], PLAIN),
            "/raw": self._raw,
            "/id": self._id,
            "/health": self._health,
            "/metrics": self._metrics,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer = self._answer(environ)
        start_response(answer.status, answer.headers)
        if environ["REQUEST_METHOD"] != "HEAD":
            return answer.body
        if isinstance(answer.body, _Stream):
            answer.body.close()
        return []

    def _answer(self, environ: Environ) -> Answer:
        path = environ.get("PATH_INFO", "")
        answers = self._answers.get(path) or self._answers.get(path.rstrip("/"))
        if answers is None:
            return _refusal("404 Not Found", f"there is no {path[:200]!a} here: see /")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refusal("405 Method Not Allowed", "only GET and HEAD", Allow="GET, HEAD")
        try:
            return answers(environ.get("QUERY_STRING", ""))
        except Answer as answer:
            return answer
        except query.BadQuery as error:
            return _refusal("400 Bad Request", str(error))
        except (JournalError, query.TooLong) as error:
            return _refusal("503 Service Unavailable", str(error), Retry_After="5")

    def _raw(self, text: str) -> Answer:
        asked = query.parse(text, time.time())
        reader = self._reader()
        try:
            if asked.topics or asked.users:
                with self._searches:
                    page = self._pages.find(reader, asked)
            else:
                page = self._pages.find(reader, asked)
            pieces = _pieces(page, reader)
            begun, size = [], 0
            for piece in pieces:
                begun.append(piece)
                size += len(piece)
                if size > LARGE:
                    self._large.take()
                    return Answer("200 OK", _Stream(begun, pieces, reader, self._large))
        except BaseException:
            reader.close()
            raise
        reader.close()
        return Answer("200 OK", [b"".join(begun)])

    def _id(self, text: str) -> Answer:
        values = query.parameters(text, ("id",)).get("id", [""])
        if not values[0]:
            raise query.BadQuery("id must be given: the msg_id of a message")
        reader = self._reader()
        try:
            seq = query.find_id(reader, values[0])
            stored = None if seq is None else reader.get(seq)
        finally:
            reader.close()
        if stored is None:
            return _refusal("404 Not Found", f"no message {values[0][:200]!a} in the backlog")
        return Answer("200 OK", [stored.body])

    def _health(self, _: str) -> Answer:
        report = health.report(self._feed, self._journal_file()[1])
        status = "200 OK" if report["healthy"] else "503 Service Unavailable"
        return Answer(status, [json.dumps(report, indent=2).encode() + b"\n"])

    def _metrics(self, _: str) -> Answer:
        try:
            from . import metrics
        except ImportError as missing:  # no reason to be without a backlog
            text = f"prometheus_client is not installed: {missing}"
            raise _refusal("503 Service Unavailable", text) from missing
        journal, error = self._journal_file()
        healthy = not health.problems(self._feed, error)
        return Answer("200 OK", [metrics.text(self._feed, journal, healthy)], metrics.CONTENT_TYPE)

    def _reader(self) -> JournalReader:
        # One for each request: it costs a fraction of a millisecond, and whatever has become of the
        # file meanwhile, this is the journal of now.
        if self._journal is None:
            raise _refusal("404 Not Found", "this relay keeps no journal (relay_journal is unset)")
        return JournalReader(self._journal)

    def _journal_file(self) -> tuple[health.JournalFile | None, str | None]:
        """What is known of the file, and why it cannot be read."""
        if self._journal is None:
            return None, None
        try:
            reader = JournalReader(self._journal)
            try:
                oldest = reader.oldest()
            finally:
                reader.close()
        except JournalError as error:
            return None, str(error)
        size = 0
        for path in (self._journal, f"{self._journal}-wal"):
            with suppress(OSError):
                size += os.path.getsize(path)
        return health.JournalFile(size, oldest), None


class _Turns:
    """So many at once, as many waiting; to the rest `take()` and `with` raise a refusal."""

    def __init__(self, at_once: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(2 * at_once)

    def take(self) -> None:
        if self._places.acquire(blocking=False):
            if self._free.acquire(timeout=TURN):
                return
            self._places.release()
        raise _refusal("503 Service Unavailable", "too many such requests at once", Retry_After="5")

    def give_back(self) -> None:
        self._free.release()
        self._places.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give_back()


class _Stream:
    """A large page, read as it is sent. It holds a turn until it is closed."""

    def __init__(
        self,
        begun: list[bytes],
        rest: Iterator[bytes],
        reader: JournalReader,
        turns: _Turns,
    ) -> None:
        self._begun = begun
        self._rest = rest
        self._reader = reader
        self._turns: _Turns | None = turns

    def __iter__(self) -> Iterator[bytes]:
        begun, self._begun = self._begun, []
        for part in (iter(begun), self._rest):
            for piece in part:
                # The server queues what it is given, however much that is.
                for start in range(0, len(piece), CHUNK):
                    yield piece[start : start + CHUNK]

    def close(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.give_back()
            self._reader.close()


def _pieces(page: query.Page, reader: JournalReader) -> Iterator[bytes]:
    """The answer to `/raw`, the messages byte for byte as they were relayed."""
    yield b'{"pages": %d, "raw_messages": [' % page.pages
    separator = b""
    for seq in page.seqs:
        stored = reader.get(seq)
        if stored is not None:  # else deleted meanwhile, for its age
            yield separator + stored.body
            separator = b", "
    yield b"]}\n"


def _refusal(status: str, text: str, **headers: str) -> Answer:
    return Answer(status, [json.dumps({"error": text}).encode() + b"\n"], **headers)


def _follow(feed: Feed) -> None:
    try:
        feed.follow(sys.stdin.buffer)
    finally:
        # At once: the relay is gone, and whoever is answered still would be told of the past.
        os._exit(0)


def _step_back() -> None:
    with suppress(OSError):
        os.nice(NICE)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write(str(OOM_SCORE))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Serve the backlog over HTTP. Started by fedmsg-relay."
    )
    parser.add_argument("--journal", metavar="PATH", help="the relay's journal")
    parser.add_argument("--allow", action="append", metavar="NETWORK", help="default: everybody")
    parser.add_argument("fds", metavar="FD", type=int, nargs="+", help="a listening TCP socket")
    args = parser.parse_args(argv)
    process.set_name(NAME)
    _step_back()
    # The relay's stop signals reach its whole group. It goes on for a while, and so does this.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        from . import httpd

        listening = [socket.socket(fileno=fd) for fd in args.fds]
    except ImportError as error:
        print(f"{NAME}: waitress is not installed, so there is no HTTP: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{NAME}: not a socket: {error}", file=sys.stderr)
        return 2
    feed = Feed()
    threading.Thread(target=_follow, args=(feed,), name="state", daemon=True).start()
    bound = [each.getsockname()[0] for each in listening]
    allowed = networks.Allowed([networks.parse(text) for text in args.allow or []], bound)
    httpd.serve(Backlog(feed, args.journal), listening, allowed, feed.refusals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
