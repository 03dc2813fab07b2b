"""What the backlog answers those who know datagrepper's answers, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ..conftest import wait_for
from .test_backlog import Backlog, raw

# All that fedmsg lets through and JSON has not, and what only looks like it.
ODD = (
    b'{"a": NaN, "b": [Infinity,-Infinity], "NaN": "NaN -Infinity", "c": "\\"NaN", "d": "\\\\"}',
    b' {"NaN\\"": 1e400,  "x": -Infinity}',
    b'{"n":  1.50}',
)
STRICT = (
    b'{"a": null, "b": [null,null], "NaN": "NaN -Infinity", "c": "\\"NaN", "d": "\\\\"}',
    b' {"NaN\\"": 1e400,  "x": null}',
    b'{"n":  1.50}',
)


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backlog]:
    made = Backlog(Path(tmp_path_factory.mktemp("backlog")))
    try:
        wait_for(lambda: made.get("/health")[0] == 200, what="a healthy backlog")
        made.append(*ODD, b'{"username": "ralph"}')
        yield made
    finally:
        made.stop()


def asked(backlog: Backlog, path: str, **headers: str) -> http.client.HTTPMessage:
    """The headers of the answer."""
    host, port = backlog.address
    with closing(http.client.HTTPConnection(host, port, 60)) as connection:
        connection.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.headers


def test_count_total_and_arguments(backlog: Backlog) -> None:
    for page, count in ((1, 3), (2, 1), (3, 0)):
        status, answer = backlog.get("/raw", rows_per_page=3, page=page, is_raw="true", _="17")
        found = json.loads(answer)
        assert (status, found["pages"], found["count"], found["total"]) == (200, 2, count, 4)
        assert len(found["raw_messages"]) == count
        assert (found["arguments"]["page"], found["arguments"]["rows_per_page"]) == (page, 3)
    found = json.loads(backlog.get("/raw", user=["ralph", "x"])[1])
    assert (found["count"], found["total"], found["arguments"]["users"]) == (1, 1, ["ralph", "x"])


def test_strict(backlog: Backlog) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    path = "/raw?order=asc&rows_per_page=3&strict=true"
    status, answer = backlog.get(path)
    assert (status, raw(answer)) == (200, (2, b", ".join(STRICT)))
    json.loads(answer, parse_constant=refuse)
    assert asked(backlog, path)["X-Fedmsg-Strict"] == "NaN and Infinity are null"
    assert backlog.get("/id?id=id-1&strict=1") == (200, STRICT[0])
    assert asked(backlog, "/id?id=id-1&strict=1")["X-Fedmsg-Strict"] == "NaN and Infinity are null"
    # Not asked for: byte for byte.
    for path in ("/raw?order=asc&rows_per_page=3", "/raw?order=asc&rows_per_page=3&strict=no"):
        assert raw(backlog.get(path)[1]) == (2, b", ".join(ODD))
        assert "X-Fedmsg-Strict" not in asked(backlog, path)
    status, answer = backlog.get("/raw?strict=perhaps")
    assert (status, answer) == (
        400,
        b'{"error": "strict must be true or false, not \'perhaps\'"}\n',
    )


def test_users_are_said_to_be_others(backlog: Backlog) -> None:
    for path in ("/raw?user=ralph", "/raw?not_user=ralph"):
        assert asked(backlog, path)["X-Fedmsg-Users"].endswith("without fedmsg_meta")
    assert "X-Fedmsg-Users" not in asked(backlog, "/raw?topic=t")


def test_no_page_of_another_site_may_read_it(backlog: Backlog) -> None:
    headers = asked(backlog, "/raw", Origin="https://example.org")
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert backlog.get("/raw", method="OPTIONS")[0] == 405
