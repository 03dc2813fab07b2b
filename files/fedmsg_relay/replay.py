"""Read what has gone by: the backlogs of all relays, as one list.

Each relay keeps its own. A message that both have relayed is in both, and is read once.
"""

from __future__ import annotations

import heapq
import http.client
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Callable
from urllib.parse import urlencode

from . import message
from .config import Config
from .errors import FedmsgRelayError
from .message import Message

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


def read(config: Config, start: float, warn: Callable[[str], object]) -> Iterator[Message]:
    """All messages that the relays have received since `start` (seconds since 1970), oldest first.

    Those of one relay are in the order in which it received them; where there are several relays,
    they are merged by their timestamps. `warn` is told of a relay that fails while another does
    not. Raises NoBacklog when none gives any.
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
    seen = set()
    for body in heapq.merge(*begun, key=_timestamp):
        if body["msg_id"] not in seen:
            seen.add(body["msg_id"])
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
    page, settled = 1, False
    while True:
        asked = {"start": start, "order": "asc", "rows_per_page": ROWS_PER_PAGE, "page": page}
        try:
            pages, bodies = _fetch(f"{url}/raw?{urlencode(asked)}")
        except NoBacklog as error:
            if page == 1:
                raise
            warn(f"messages are missing: {error}")
            return
        yield bodies
        if page < pages:
            page += 1
        elif settled:
            return
        else:
            # This page again, and those that have come after it.
            settled = True
            time.sleep(SETTLE)


def _fetch(url: str) -> tuple[int, list[Message]]:
    # Relays are reached as the bus is, not through a proxy that is meant for the web.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in itertools.count(1):
        try:
            with opener.open(url, timeout=PAGE) as answer:
                page = message.loads(answer.read().decode())
            return int(page["pages"]), [body for body in page["raw_messages"] if "msg_id" in body]
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            if error.code != http.client.SERVICE_UNAVAILABLE or attempt == ATTEMPTS:
                break
            time.sleep(PAUSE)
        except urllib.error.URLError as error:
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
            break
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            break
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = "the answer is not a page of a backlog: is this another service?"
            break
    raise NoBacklog(f"{url.partition('?')[0]}: {reason}")


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(4096))["error"])
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return f"{error.code} {error.reason}"


def _timestamp(body: Message) -> Any:
    timestamp = body.get("timestamp")
    return timestamp if isinstance(timestamp, (int, float)) else 0
