"""The status page of a relay that runs, over HTTP."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

import zmq

from tests.support.waiting import patient

from ..conftest import Bus, Sender, Submitter, numbered, wait_for


def ask(bus: Bus, method: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and all that comes before the connection ends."""
    with closing(http.client.HTTPConnection(bus.http, timeout=patient(30))) as connection:
        connection.request(method, "/")
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        # The next answer on this connection begins where this one ends: nothing is left of it.
        connection.request("GET", "/health")
        assert "healthy" in json.loads(connection.getresponse().read())
        return found


def test_the_page_shows_topics_and_senders_and_no_bodies(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.with_journal(http=True)
    bus.relay()
    client = Submitter(context, bus.submit)
    topic, body = numbered(1)
    message = {**json.loads(body), "username": "ada<i>", "msg": {"secret": "of the body"}}
    assert client.submit(topic, json.dumps(message).encode())["ok"]
    assert client.submit(b"<script>1</script>", numbered(2)[1])["ok"]
    wait_for(lambda: is_answered(bus))
    wait_for(lambda: b"ada&lt;i&gt;" in ask(bus, "GET")[2])
    status, headers, page = ask(bus, "GET")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert headers["Cache-Control"] == "no-store"
    assert topic in page and b"&lt;script&gt;1&lt;/script&gt;" in page
    assert b"<script>1" not in page and b"of the body" not in page
    assert int(headers["Content-Length"]) == len(page) < 100_000


def test_what_is_wrong_leads_to_its_section_of_the_sop(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.with_journal(http=True)
    bus.configure("sop", relay_sop="https://sop.test/sop.html")
    bus.relay()
    sender = Sender(context, bus.inbound)
    link = b'<a href="https://sop.test/sop.html#poison-message">'

    def is_linked() -> bool:
        # Recent is what has come since the process of HTTP was first told of anything.
        sender.send(b"t", b"\xff")
        return link in ask(bus, "GET")[2]

    wait_for(lambda: is_answered(bus))
    wait_for(is_linked, pause=0.2)


def test_head_has_the_headers_and_no_body(bus: Bus) -> None:
    bus.with_journal(http=True)
    bus.relay()
    wait_for(lambda: is_answered(bus))
    status, headers, body = ask(bus, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000
    assert "Content-Security-Policy" in headers


def is_answered(bus: Bus) -> bool:
    try:
        return ask(bus, "GET")[0] == 200
    except OSError:
        return False
