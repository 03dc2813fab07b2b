"""Read what has gone by: the backlogs of all relays, as one list.

Each relay keeps its own. A message that both have relayed is in both, and is read once.
"""

from __future__ import annotations

import heapq
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Callable
from urllib.parse import urlencode

from .. import message
from ..config import Config
from ..errors import FedmsgRelayError
from ..escapes import escaped
from ..message import Message
from .seen import Seen

# The most that a relay gives at once.
ROWS_PER_PAGE = 100

# Seconds for one page to arrive, a relay's longest wait for a turn included; attempts at a relay
# that is busy, and the seconds between them.
PAGE = 90.0
ATTEMPTS = 4
PAUSE = 2.0

# Seconds. When all has been read, wait so long and look once more: by then a listener that has just
# connected is subscribed, and hears of what comes later by itself.
SETTLE = 1.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class NoBacklog(FedmsgRelayError):
    """No relay gives its backlog. The text says why, relay by relay."""


def seconds(text: str) -> float:
    """The length of a time such as `90`, `90s`, `10m`, `1.5h` or `2d`. Raises ValueError."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    length = float(number) * _UNITS[unit]
    if not 0 <= length < 1e10:
        raise ValueError(f"{text!r} is no length of time")
    return length


def read(
    config: Config, start: float, warn: Callable[[str], object], seen: Seen
) -> Iterator[Message]:
    """All messages that the relays have received since `start` (seconds since 1970), oldest first.

    Those of one relay are in the order in which it received them; where there are several relays,
    they are merged by their timestamps. Their msg_ids are in `seen` then. `warn` is told of a relay
    that fails while another does not. Raises NoBacklog when none gives any.
    """
    begun, errors = [], []
    for url in urls(config):
        pages = _pages(url, start, warn)
        try:
            begun.append(itertools.chain.from_iterable(itertools.chain([next(pages)], pages)))
        except NoBacklog as error:
            errors.append(str(error))
    if not begun:
        raise NoBacklog(f"no backlog can be read: {'; '.join(errors)}")
    for text in errors:
        warn(text)
    merged = heapq.merge(*begun, key=_timestamp) if len(begun) > 1 else begun[0]
    for body in merged:
        if seen.add(str(body["msg_id"])):
            yield body


def urls(config: Config) -> list[str]:
    """Where the relays serve their backlogs. Raises NoBacklog when none does."""
    if not config["relay_http"]:
        raise NoBacklog("no relay of this config serves a backlog: config key relay_http is empty")
    return list(dict.fromkeys(map(url_of, config["relay_http"])))


def url_of(address: str) -> str:
    """What to ask for an address of `relay_http`; a wildcard is this machine, seen from here."""
    host, _, port = (
        address.partition("://")[2].rpartition(":")
        if "://" in address
        else (address.rpartition(":"))
    )
    if host in ("*", "0.0.0.0"):
        host = "127.0.0.1"
    return f"http://{'[::1]' if host == '[::]' else host}:{port}"


def _pages(url: str, start: float, warn: Callable[[str], object]) -> Iterator[list[Message]]:
    """The messages of one relay. Raises NoBacklog for the first page; later, it warns and ends."""
    with closing(_Relay(url, start)) as relay:
        page, settled = 1, False
        while True:
            try:
                pages, bodies = relay.page(page)
            except NoBacklog as error:
                if page == 1:
                    raise
                warn(f"messages are missing: {error}")
                return
            if page < pages:
                page += 1
                relay.ask(page)  # it answers while this one is printed
                yield bodies
                continue
            yield bodies
            if settled:
                return
            # This page again, and those that have come after it.
            settled = True
            time.sleep(SETTLE)


class _Relay:
    """The backlog of one relay: page after page, over one connection while that lasts."""

    def __init__(self, url: str, start: float) -> None:
        self._url = url
        self._start = start
        self._connection: http.client.HTTPConnection | None = None
        # The page that is asked for already.
        self._asked: int | None = None

    def ask(self, page: int) -> None:
        """Ask for a page ahead of time: it is answered meanwhile. `page` waits for it."""
        try:
            self._send(page)
        except (OSError, http.client.HTTPException):
            self.close()  # `page` meets it, too, and says so

    def page(self, page: int) -> tuple[int, list[Message]]:
        """The number of pages, and the messages of this one. Raises NoBacklog."""
        attempt = 1
        while True:
            # An idle connection may be closed by the relay meanwhile, which is no failure of it.
            is_used = self._connection is not None
            try:
                if self._asked != page:
                    self._send(page)
                status, text = self._answer()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_used:
                    continue
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                break
            if status == http.client.OK:
                try:
                    found = message.loads(text.decode())
                    bodies = [each for each in found["raw_messages"] if isinstance(each, dict)]
                    bodies = [body for body in bodies if "msg_id" in body]
                    return int(found["pages"]), bodies
                except (ValueError, KeyError, TypeError, RecursionError):
                    reason = "the answer is not a page of a backlog: is this another service?"
                    break
            reason = _reason(status, text)
            if status != http.client.SERVICE_UNAVAILABLE or attempt == ATTEMPTS:
                break
            attempt += 1
            time.sleep(PAUSE)
        raise NoBacklog(f"{self._url}/raw: {escaped(reason)}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._asked = None

    def _send(self, page: int) -> None:
        if self._connection is None:
            # Relays are reached as the bus is, not through a proxy that is meant for the web.
            address = self._url.partition("://")[2]
            self._connection = http.client.HTTPConnection(address, timeout=PAGE)
        query = {"start": self._start, "order": "asc", "rows_per_page": ROWS_PER_PAGE, "page": page}
        self._connection.request("GET", f"/raw?{urlencode(query)}")
        self._asked = page

    def _answer(self) -> tuple[int, bytes]:
        assert self._connection is not None
        self._asked = None
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, text


def _reason(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{status} {http.client.responses.get(status, '')}".strip()


def _timestamp(body: Message) -> Any:
    timestamp = body.get("timestamp")
    return timestamp if isinstance(timestamp, (int, float)) else 0
