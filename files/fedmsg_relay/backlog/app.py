"""The relay over HTTP: status page, `/raw` and `/id` as datagrepper has, `/health`, `/metrics`.

A process of its own, `python3 -m fedmsg_relay.backlog`, which the relay starts: Python runs one
thread of a process at a time, and no request may take that time from the thread of the sockets. It
reads the journal's file by itself. What the relay knows of itself comes in on standard input, and
the end of that is the end of this process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Callable

from .. import process
from ..checks import networks
from ..journal.store import JournalError, JournalReader
from . import health, query, status_page
from .health import Feed
from .index import Index, NotYet
from .turns import NoTurn, Turn, Turns

NAME = process.BACKLOG

# Bytes of a page that is read whole, sent with its length, and takes a thread for no longer than
# that: a hundred messages of 40 KB. A larger one is read as the client takes it.
LARGE = 4 << 20
# Bytes of answers that wait to be read by their clients, those of one address and all, beyond which
# each page of more than CHUNK is read as the client takes it.
UNREAD_OF_ONE = 24 << 20
UNREAD = 64 << 20
# Pages that are read as clients take them, and searches, at once: what they take of memory and of
# the disk is bounded by this.
STREAMS_AT_ONCE = 4
SEARCHES_AT_ONCE = 2
# So many more may wait for their turn, for so many seconds: a hub that is refused gives up. All of
# these together are fewer than the threads of the server, so that there is always one for /health.
STREAMS_WAITING = 24
SEARCHES_WAITING = 8
TURN = 60.0
# Bytes handed to the server at once.
CHUNK = 1 << 18

# This process is less urgent than the relay, and the one to go when memory runs out.
NICE = 10
OOM_SCORE = 500

JSON = "application/json"

# Headers that say how an answer is to be taken.
STRICT, STRICT_MEANS = "X_Fedmsg_Strict", "NaN and Infinity are null"
USERS, USERS_MEANS = "X_Fedmsg_Users", "by the keys of messages, without fedmsg_meta"

# A string, which stays, or else a word that is no JSON.
_NOT_STRICT = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?Infinity|NaN', re.DOTALL)

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
    """The WSGI application. `journal` is the path of the relay's, or None if it has none.

    `unread` says how many bytes of answers wait for their clients: those of an address, and all.
    """

    def __init__(
        self,
        feed: Feed,
        journal: str | None,
        unread: Callable[[str], tuple[int, int]],
        sop: str | None = None,
    ) -> None:
        self._sop = sop
        self._feed = feed
        self._journal = journal
        self._index = None if journal is None else Index(journal)
        self._pages = query.Pages(self._index)
        self._unread = unread
        # Bytes of pages that the server has not been given yet, by address.
        self._making: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._streams = Turns(STREAMS_AT_ONCE, STREAMS_WAITING, TURN)
        self._searches = Turns(SEARCHES_AT_ONCE, SEARCHES_WAITING, TURN)
        if self._index is not None:
            self._index.start()
        self._answers: dict[str, Callable[[str, str], Answer]] = {
            "/": self._status,
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
        if isinstance(answer.body, (_Stream, _Whole)):
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
            return answers(environ.get("QUERY_STRING", ""), environ.get("REMOTE_ADDR", ""))
        except Answer as answer:
            return answer
        except query.BadQuery as error:
            return _refusal("400 Bad Request", str(error))
        except (JournalError, query.TooLong, NotYet, NoTurn) as error:
            return _refusal("503 Service Unavailable", str(error), Retry_After="5")

    def _raw(self, text: str, address: str) -> Answer:
        asked = query.parse(text, time.time())
        reader = self._reader()
        try:
            if asked.words:
                with self._searches.take(address):
                    page = self._pages.find(reader, asked)
            else:
                page = self._pages.find(reader, asked)
            sizes = reader.sizes(page.seqs)
            pieces = _pieces(page, sizes, reader, asked)
            size = sum(sizes.values())
            if size > CHUNK and not self._reserve(size, address):
                stream = _Stream(pieces, reader, self._streams.take(address))
                return Answer("200 OK", stream, **_remarks(asked))
        except BaseException:
            reader.close()
            raise
        whole = _Whole(lambda: self._made(size, address) if size > CHUNK else None)
        try:
            whole.append(b"".join(pieces))
        except BaseException:
            whole.close()
            raise
        finally:
            reader.close()
        return Answer("200 OK", whole, **_remarks(asked))

    def _reserve(self, size: int, address: str) -> bool:
        """Whether so large a page may be read whole, and wait for its client in memory."""
        if size > LARGE:
            return False
        with self._lock:
            theirs, everybodys = self._unread(address)
            theirs += self._making[address]
            everybodys += sum(self._making.values())
            if theirs + size > UNREAD_OF_ONE or everybodys + size > UNREAD:
                return False
            self._making[address] += size
        return True

    def _made(self, size: int, address: str) -> None:
        """The server has it by now."""
        with self._lock:
            self._making[address] -= size
            if not self._making[address]:
                del self._making[address]

    def _id(self, text: str, _: str) -> Answer:
        values = query.parameters(text, ("id", "strict"))
        msg_id, strict = values.get("id", [""])[0], query.flag("strict", values)
        if not msg_id:
            raise query.BadQuery("id must be given: the msg_id of a message")
        reader = self._reader()
        try:
            seq = query.find_id(reader, msg_id)
            stored = None if seq is None else reader.get(seq)
        finally:
            reader.close()
        if stored is None:
            return _refusal("404 Not Found", f"no message {msg_id[:200]!a} in the backlog")
        if strict:
            return Answer("200 OK", [_strict(stored.body)], **{STRICT: STRICT_MEANS})
        return Answer("200 OK", [stored.body])

    def _status(self, _: str, __: str) -> Answer:
        error = self._journal_file()[1]
        messages: list[status_page.Passed] = []
        if self._journal is not None and error is None:
            try:
                messages = self._newest()
            except JournalError as trouble:
                error = str(trouble)
        text = status_page.render(self._feed, error, messages, self._sop)
        return Answer("200 OK", [text], status_page.CONTENT_TYPE, **status_page.HEADERS)

    def _newest(self) -> list[status_page.Passed]:
        """The last messages, newest first. Large ones are not read for their senders."""
        reader = self._reader()
        try:
            last = reader.bounds()[1]
            newest = []
            sizes = dict(reader.sizes_between(last - status_page.MOST_MESSAGES + 1, last))
            small = [seq for seq, size in sizes.items() if size <= status_page.LARGEST_READ]
            bodies = reader.bodies(small)
            for received, seq, topic in reader.topics(list(sizes)):
                newest.append(
                    status_page.Passed(received, topic, status_page.sender(bodies.get(seq, b"")))
                )
            return newest[::-1]
        finally:
            reader.close()

    def _health(self, _: str, __: str) -> Answer:
        report = health.report(self._feed, self._journal_file()[1])
        status = "200 OK" if report["healthy"] else "503 Service Unavailable"
        return Answer(status, [json.dumps(report, indent=2).encode() + b"\n"])

    def _metrics(self, _: str, __: str) -> Answer:
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


class _Whole(list[bytes]):
    """A page in one piece. The server calls `close` once it has it."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        super().__init__()
        self._on_close = on_close

    def close(self) -> None:
        self._on_close()


class _Stream:
    """A large page, read as it is sent. It holds a turn until it is closed."""

    def __init__(self, pieces: Iterator[bytes], reader: JournalReader, turn: Turn) -> None:
        self._pieces = pieces
        self._reader = reader
        self._turn = turn

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            # The server queues what it is given, however much that is.
            for start in range(0, len(piece), CHUNK):
                yield piece[start : start + CHUNK]

    def close(self) -> None:
        self._turn.give_back()
        self._reader.close()


def _pieces(
    page: query.Page, sizes: dict[int, int], reader: JournalReader, asked: query.Query
) -> Iterator[bytes]:
    """The answer to `/raw`, the messages byte for byte as they were relayed."""
    yield b'{"pages": %d, "raw_messages": [' % page.pages
    separator, count = b"", 0
    for seqs in _groups(page.seqs, sizes):
        bodies = reader.bodies(seqs)
        # Without those deleted meanwhile, for their age.
        some = [bodies[seq] for seq in seqs if seq in bodies]
        if some:
            yield separator + b", ".join(map(_strict, some) if asked.strict else some)
            separator = b", "
            count += len(some)
    arguments = json.dumps(asked.arguments).encode()
    yield b'], "count": %d, "total": %d, "arguments": %b}\n' % (count, page.total, arguments)


def _strict(body: bytes) -> bytes:
    """The message with null for NaN and Infinity, which JSON has not; all else as it was."""
    if b"NaN" not in body and b"Infinity" not in body:
        return body
    return _NOT_STRICT.sub(lambda found: found[1] or b"null", body)


def _remarks(asked: query.Query) -> dict[str, str]:
    """Headers that say where the answer is another one than might be taken for granted."""
    remarks = {}
    if asked.strict:
        remarks[STRICT] = STRICT_MEANS
    if asked.words.users or asked.words.not_users:
        remarks[USERS] = USERS_MEANS
    return remarks


def _groups(seqs: Sequence[int], sizes: dict[int, int]) -> Iterator[list[int]]:
    """The seqs in groups of CHUNK bytes or, where that is more, of one message."""
    group: list[int] = []
    size = 0
    for seq in seqs:
        if group and size + sizes.get(seq, 0) > CHUNK:
            yield group
            group, size = [], 0
        group.append(seq)
        size += sizes.get(seq, 0)
    if group:
        yield group


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
    parser.add_argument("--sop", metavar="URL", help="where the SOP is, for links to its sections")
    parser.add_argument("fds", metavar="FD", type=int, nargs="+", help="a listening TCP socket")
    args = parser.parse_args(argv)
    process.set_name(NAME)
    _step_back()
    # The relay's stop signals reach its whole group. It goes on for a while, and so does this.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        from . import server

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
    unread = server.Unread()
    application = Backlog(feed, args.journal, unread, args.sop)
    server.serve(application, listening, allowed, feed.refusals, unread)
    return 0
