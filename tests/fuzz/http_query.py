"""The HTTP side: a query string, through the application, on a journal with a few messages."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fedmsg_relay import message
from fedmsg_relay.backlog.app import Backlog
from fedmsg_relay.backlog.health import Feed
from fedmsg_relay.backlog.query import MOST_ROWS, MOST_VALUES, BadQuery, parse
from fedmsg_relay.journal.store import Journal, Row

NOW = 1_700_000_000.0
WORDS = (
    b"start=", b"end=", b"delta=", b"&", b"=", b"1e308", b"-1e308", b"nan", b"inf", b"1e-320",
    b"0001-01-01", b"9999-12-31T23:59:59-23:59", b"%00", b"%ff", b"%ed%a0%80",
    b"&topic=", b"&page=",
    b"&rows_per_page=", b"&contains=%25_%5C", b"&strict=", b"&callback=",
    b"&user=", b"%F0%9F%92%A9",
    b"9007199254740992", b"_" * 60, b"1_0", b"1e308&delta=1e308", b"end=-1e308&delta=1e308&_=",
)  # fmt: skip


def seeds() -> list[bytes]:
    asked: list[dict[str, Any]] = [
        {"start": NOW - 60, "end": NOW, "rows_per_page": 2, "page": 1, "order": "asc"},
        {"delta": 3600, "topic": "org.a.dev.x", "contains": "te%t"},
        {"start": "2023-11-14T22:13:20+00:00", "delta": 1},
        {"category": "a", "not_user": "nobody", "user": ["ann", "bob"], "strict": "true"},
        {"end": NOW, "delta": 86400},
    ]
    return [urlencode(each, doseq=True).encode() for each in asked] + [b""]


def check(octets: bytes) -> None:
    text = octets.decode("latin-1")  # as WSGI has it
    try:
        query = parse(text, NOW)
    except BadQuery as error:
        assert str(error)
    else:
        assert 1 <= query.rows_per_page <= MOST_ROWS and query.page >= 1
        assert all(
            len(each) <= MOST_VALUES for each in (*vars(query.words).values(), query.contains)
        )
        json.dumps(query.arguments, allow_nan=False)
    assert _status(text) in ("200", "400")


def _status(text: str) -> str:
    """Of the answer, which is read to its end and is JSON."""
    told: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/raw", "QUERY_STRING": text,
               "REMOTE_ADDR": "192.0.2.1", "wsgi.input": io.BytesIO()}  # fmt: skip
    body = _application()(environ, lambda status, headers: told.append(status))
    try:
        found = json.loads(b"".join(body))
    finally:
        if hasattr(body, "close"):
            body.close()
    assert isinstance(found, dict)
    return told[0].partition(" ")[0]


@functools.cache
def _application() -> Backlog:
    directory = tempfile.TemporaryDirectory()
    path = str(Path(directory.name) / "journal.db")
    journal = Journal(path, 1e9, 1 << 24)
    for number in range(1, 9):
        made = {"topic": "org.a.dev.x", "msg": {"n": number, "text": "text"},
                "username": "ann",
                "timestamp": int(NOW) + number, "msg_id": f"2023-{number}",
                "i": number}  # fmt: skip
        row = Row(NOW + number, "org.a.dev.x", f"2023-{number}", message.encode(made))
        journal.append([row])
    journal.close()
    application = Backlog(Feed(), path, lambda address: (0, 0))
    application.directory = directory  # type: ignore[attr-defined]  # it stays as long
    return application
