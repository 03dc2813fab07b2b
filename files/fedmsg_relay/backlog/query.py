"""What a listener may ask of the backlog, in datagrepper's words, and the pages that answer it.

Times are when the relay *received* a message, since a spooled one comes late and with an old
timestamp of its own. What datagrepper needs fedmsg_meta for is refused by name, and what only says
how a page looks is passed over: see docs/compatibility.adoc.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Protocol
from urllib.parse import parse_qs

from .. import message
from ..errors import FedmsgRelayError
from ..journal.store import JournalReader, Stored, storable
from .index import Index, NoIndex, Part
from .words import Words, category_of, users_of

# datagrepper's.
DEFAULT_ROWS = 25
MOST_ROWS = 100

# Characters of a text that messages are searched for.
LONGEST_TEXT = 200

# Values of one parameter that can be given more than once.
MOST_VALUES = 50

# Seconds. A hub that starts asks for all up to now, in whole seconds and by its own clock; what
# came since is sent to it only once it has connected. So an `end` of that kind is no bound at all.
JUST_NOW = 10

# Seconds that a publisher's clock may be ahead of the relay's. A hub asks from the timestamp of the
# message it had last, and there may be none at all received that late.
AHEAD = 60

# Seqs looked at in one statement, and seconds after which a search is given up.
STRETCH = 500
# The same, where only the msg_ids are looked at and not the bodies.
STRETCH_OF_IDS = 5000
LONGEST_SEARCH = 10.0

# Walks from page to page whose first message is remembered.
MOST_WALKS = 1000

# Seconds for which it is remembered where a moment is: a hub asks for it with each of its pages.
MOMENT = 60.0


class BadQuery(FedmsgRelayError):
    """A parameter cannot be used: the text names it."""


class TooLong(FedmsgRelayError):
    """A search would take too long."""


@dataclass(frozen=True)
class Query:
    """What is asked for. `start` and `end` are seconds since 1970, both included; None: no bound.

    `walk` is the same for all pages of one walk through them.
    """

    start: float | None
    end: float | None
    words: Words
    rows_per_page: int = DEFAULT_ROWS
    page: int = 1
    descending: bool = True
    walk: tuple[object, ...] = ()
    # Text that the `msg` holds, any of it; as LIKE has it, so % and _ stand for others.
    contains: tuple[str, ...] = ()
    # Whether what JSON has not becomes null.
    strict: bool = False
    # As datagrepper tells them.
    arguments: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Page:
    """The number of pages there are, and the seqs of the messages on this one, in order.

    `total` is the number of messages on all of them.
    """

    pages: int
    seqs: Sequence[int]
    total: int = 0


def parse(text: str, now: float) -> Query:
    """Read a query string. Raises BadQuery."""
    values = parameters(text, _ONE + _SEVERAL)
    times = {key: _time(key, values[key][0]) for key in ("start", "end") if key in values}
    start, end = times.get("start"), times.get("end")
    delta = None
    if "delta" in values:
        delta = _number("delta", values["delta"][0], float, "a number of seconds")
    if delta is not None:
        if delta < 0:
            raise BadQuery("delta must not be negative")
        if start is not None and end is not None:
            raise BadQuery("only two of start, end and delta can be given")
        if start is None:
            start = (now if end is None else end) - delta
        else:
            end = start + delta
    told = _told_times(start, end, delta, now)
    # Two large numbers together may be more than a number can be.
    if not all(math.isfinite(each) for each in (start, end, *told.values()) if each is not None):
        raise BadQuery("start, end and delta are too large together")
    if end is not None and end >= (now - JUST_NOW if end == int(end) else now):
        end = None
    order = values.get("order", ["desc"])[0]
    if order not in ("asc", "desc"):
        raise BadQuery(f"order must be asc or desc, not {order[:50]!r}")
    rows = _whole("rows_per_page", values, DEFAULT_ROWS, MOST_ROWS)
    page = _whole("page", values, 1, 1 << 53)
    several = {plural: tuple(values.get(key, ())) for key, plural in _PLURALS.items()}
    contains = tuple(values.get("contains", ()))
    if contains and not (several["topics"] or several["categories"]):
        raise BadQuery("contains needs a topic or a category beside it")
    if any(len(each) > LONGEST_TEXT for each in contains):
        raise BadQuery(f"contains must have at most {LONGEST_TEXT} characters")
    arguments: dict[str, Any] = {
        **told,
        **{plural: list(given) for plural, given in several.items()},
        "contains": list(contains),
        **{key: [] for key in ("packages", "not_packages", "meta")},
        "page": page,
        "rows_per_page": rows,
        "order": order,
    }
    return Query(
        start,
        end,
        Words(**several),
        rows,
        page,
        order == "desc",
        (rows, *(values.get(key, [None])[0] for key in _TIMES)),
        contains,
        flag("strict", values),
        arguments,
    )


def parameters(text: str, known: Sequence[str]) -> dict[str, list[str]]:
    """The values of each parameter of a query string. Raises BadQuery for one not `known`."""
    try:
        values = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError as error:
        raise BadQuery(f"the query cannot be read: {error}") from error
    for key, given in values.items():
        if key in _REFUSED:
            raise BadQuery(f"no parameter {key!r} here: {_REFUSED[key]}")
        if key in _LOOKS:
            continue
        if key not in known:
            raise BadQuery(f"no parameter {key[:50]!r}, there are {', '.join(known)}")
        most = MOST_VALUES if key in _SEVERAL else 1
        if len(given) > most:
            raise BadQuery(f"{key} is given {len(given)} times, at most {most} can be")
    return values


def flag(key: str, values: dict[str, list[str]]) -> bool:
    """Whether it is given as true, in datagrepper's ways to say so. Raises BadQuery."""
    text = values.get(key, ["false"])[0].strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise BadQuery(f"{key} must be true or false, not {text[:50]!r}")
    return text in _TRUE


def _told_times(
    start: float | None, end: float | None, delta: float | None, now: float
) -> dict[str, float | None]:
    """`start`, `end` and `delta` as datagrepper fills them in."""
    if start is not None and end is None:
        end = now
    elif end is not None and start is None:
        start = 0.0
    elif delta is None and start is not None and end is not None:
        delta = end - start
    if delta is None and start and end is not None:
        delta = end - start
    return {"start": start, "end": end, "delta": delta}


class Pages:
    """Finds pages. One for all threads: it remembers where a walk through the pages began."""

    def __init__(self, index: Index | None = None) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._begun: OrderedDict[tuple[object, ...], int] = OrderedDict()
        # Of a file and a moment: the first seq since then, and until when that is remembered.
        self._moments: OrderedDict[tuple[object, float], tuple[int, float]] = OrderedDict()

    def find(self, reader: JournalReader, query: Query) -> Page:
        """The page asked for, empty where there is none. Raises JournalError and TooLong."""
        first, last = reader.bounds()
        if query.start is not None:
            first = max(first, self._since(reader, query.start, last))
        if query.end is not None:
            last = min(last, reader.first_from(math.nextafter(query.end, math.inf)) - 1)
        if not query.words and not query.contains:
            # The seqs are consecutive, so they need not be read to be counted.
            first = self._beginning(query, first)
            return _page(query, _Run(range(first, last + 1)))
        if self._index is not None and first <= last:
            with suppress(NoIndex):  # then it takes longer
                found: _Found = _indexed(self._index, reader, first, last, query)
                if query.contains:
                    found = _Run(_holding(reader, found, query.contains))
                return _page(query, found)
        return _page(query, _Run(_search(reader, first, last, query)))

    def _since(self, reader: JournalReader, start: float, last: int) -> int:
        """As `_first_since`. What comes after that moment does not change where it is."""
        key = (reader.identity, start)
        now = time.monotonic()
        with self._lock:
            found, until = self._moments.get(key, (0, 0.0))
        if now < until:
            return found
        found = _first_since(reader, start)
        newest = reader.get(last) if found <= last else None
        if newest is not None and newest.received > start:
            with self._lock:
                self._moments[key] = found, now + MOMENT
                self._moments.move_to_end(key)
                if len(self._moments) > MOST_WALKS:
                    self._moments.popitem(last=False)
        return found

    def _beginning(self, query: Query, first: int) -> int:
        """The first seq of page 1 when that was asked for.

        The oldest messages may be deleted while somebody goes from page to page: counted from what
        is the oldest then, later pages would begin further on, and leave messages out.
        """
        if query.descending:
            return first
        with self._lock:
            if query.page == 1:
                self._begun[query.walk] = first
                self._begun.move_to_end(query.walk)
                if len(self._begun) > MOST_WALKS:
                    self._begun.popitem(last=False)
            return min(first, self._begun.get(query.walk, first))


def _indexed(index: Index, reader: JournalReader, first: int, last: int, query: Query) -> _Parts:
    index.wait_for(reader, first, last)
    end = time.monotonic() + LONGEST_SEARCH

    def is_of(seq: int, users: Collection[str]) -> bool:
        if time.monotonic() > end:
            raise TooLong(_TOO_LONG)
        return _names(reader, seq, users)

    return _Parts(index.find(first, last, query.words, is_of))


def _page(query: Query, found: _Found) -> Page:
    number = len(found)
    pages = -(-number // query.rows_per_page)
    before = (query.page - 1) * query.rows_per_page
    most = min(query.rows_per_page, number - before)
    if most <= 0:
        return Page(pages, [], number)
    if query.descending:
        return Page(pages, found.some(number - before - most, most)[::-1], number)
    return Page(pages, found.some(before, most), number)


class _Found(Protocol):
    """The seqs that were found, ascending."""

    def __len__(self) -> int: ...

    def some(self, at: int, number: int) -> Sequence[int]:
        """So many from the one at that place, counted from 0."""


@dataclass(frozen=True)
class _Run:
    seqs: Sequence[int]

    def __len__(self) -> int:
        return len(self.seqs)

    def some(self, at: int, number: int) -> Sequence[int]:
        return self.seqs[at : at + number]


class _Parts:
    """Of most parts it is enough to know how many they are."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._number = sum(part.number for part in parts)

    def __len__(self) -> int:
        return self._number

    def some(self, at: int, number: int) -> Sequence[int]:
        found: list[int] = []
        for part in self._parts:
            if at < part.number and len(found) < number:
                found += part.seqs()[at : at + number - len(found)]
            at = max(0, at - part.number)
        return found


def find_id(reader: JournalReader, msg_id: str) -> int | None:
    """The seq of the message with that msg_id, or None. Raises JournalError and TooLong."""
    indexed = reader.find([msg_id])
    if indexed:
        return indexed[msg_id]
    # In a flood what is not submitted is in no index. The newest first: who asks has heard of it
    # lately.
    first, last = reader.bounds()
    end = time.monotonic() + LONGEST_SEARCH
    while last >= first:
        begin = max(first, last - STRETCH_OF_IDS + 1)
        found = reader.search(begin, last, (), (), msg_id)
        if found:
            return found[-1]
        if time.monotonic() > end:
            raise TooLong(f"the search for an id took more than {LONGEST_SEARCH:g} s")
        last = begin - 1
    return None


def _first_since(reader: JournalReader, start: float) -> int:
    """The first seq received since `start`, or stamped so by a publisher whose clock is ahead."""
    first = reader.first_from(start)
    if start != int(start):
        return first  # the timestamps of messages are whole
    stamped = [b'"timestamp":%d' % start, b'"timestamp": %d' % start]
    for begin in range(reader.first_from(start - AHEAD), first, STRETCH):
        for seq in reader.search(begin, min(first, begin + STRETCH) - 1, (), stamped):
            body = _body(reader, seq)
            if isinstance(body, dict) and body.get("timestamp") == start:
                return seq
    return first


def _search(reader: JournalReader, first: int, last: int, query: Query) -> array[int]:
    """What an index would find, by a look at every message."""
    wanted = query.words
    # As JSON writes a name, with and without escapes: SQLite looks for these without parsing.
    containing = sorted({text for user in wanted.users for text in _written(user)})
    is_read = wanted != Words(topics=wanted.topics) or query.contains
    found = array("q")
    end = time.monotonic() + LONGEST_SEARCH
    # A stretch at a time: a statement that reads for long would hold up the journal's upkeep.
    for begin in range(first, last + 1, STRETCH):
        stretch = reader.search(
            begin, min(last, begin + STRETCH - 1), list(wanted.topics), containing
        )
        for seq in stretch:
            if not is_read or _fits(reader.get(seq), query):
                found.append(seq)
            if time.monotonic() > end:
                raise TooLong(_TOO_LONG)
        if time.monotonic() > end:
            raise TooLong(_TOO_LONG)
    return found


def _fits(stored: Stored | None, query: Query) -> bool:
    if stored is None:
        return False
    wanted, body = query.words, _parsed(stored)
    kinds = (
        ({stored.topic}, map(storable, wanted.topics), map(storable, wanted.not_topics)),
        ({category_of(stored.topic)}, wanted.categories, wanted.not_categories),
        (set(users_of(body)), wanted.users, wanted.not_users),
    )
    for has, some, none in ((has, set(some), set(none)) for has, some, none in kinds):
        if (some and some.isdisjoint(has)) or not none.isdisjoint(has):
            return False
    return not query.contains or _holds(body, query.contains)


def _holding(reader: JournalReader, found: _Found, contains: Sequence[str]) -> array[int]:
    """Those whose `msg` holds such text. SQLite leaves most others out, unparsed."""
    end = time.monotonic() + LONGEST_SEARCH
    seqs = found.some(0, len(found))
    # A letter may be written as an escape.
    hints = [max(re.findall(r"[A-Za-z0-9]*", each), key=len).encode() for each in contains]
    containing = [*hints, rb"\u"] if all(hints) else []
    holding = array("q")
    for start in range(0, len(seqs), STRETCH):
        some = seqs[start : start + STRETCH]
        # Their neighbours are read, too, where they are few: one statement for each would be more.
        within = set(some)
        for begin in range(some[0], some[-1] + 1, STRETCH):
            for seq in reader.search(begin, min(some[-1], begin + STRETCH - 1), (), containing):
                if seq in within and _holds(_body(reader, seq), contains):
                    holding.append(seq)
                if time.monotonic() > end:
                    raise TooLong(_TOO_MUCH_TEXT)
            if time.monotonic() > end:
                raise TooLong(_TOO_MUCH_TEXT)
    return holding


def _holds(body: Any, contains: Sequence[str]) -> bool:
    """Whether the `msg`, as datanommer stores it, is LIKE one of these with % around it."""
    text = json.dumps(body.get("msg")) if isinstance(body, dict) else ""
    return any(_is_like(text, each) for each in contains)


def _is_like(text: str, pattern: str) -> bool:
    at = 0
    # Each piece as early as can be: then there is the most left for the others.
    for piece in re.findall(r"(?:[^%\\]|\\.|\\$)+", pattern, re.DOTALL):
        letters = re.findall(r"\\?.", piece, re.DOTALL)
        as_regex = "".join("." if letter == "_" else re.escape(letter[-1]) for letter in letters)
        found = re.compile(as_regex, re.DOTALL).search(text, at)
        if found is None:
            return False
        at = found.end()
    return True


def _written(user: str) -> Iterator[bytes]:
    yield json.dumps(user).encode()
    if not user.isascii():
        with suppress(UnicodeEncodeError):  # half of a surrogate pair has to be escaped
            yield json.dumps(user, ensure_ascii=False).encode()


def _names(reader: JournalReader, seq: int, users: Collection[str]) -> bool:
    """Whether the message names one of them. Most that do not need not be parsed for it."""
    containing = [text for user in users for text in _written(user)]
    return bool(reader.search(seq, seq, (), containing)) and _is_of(reader, seq, set(users))


def _is_of(reader: JournalReader, seq: int, wanted: set[str]) -> bool:
    return not wanted.isdisjoint(users_of(_body(reader, seq)))


def _body(reader: JournalReader, seq: int) -> Any:
    """The message, or None if it is gone by now."""
    stored = reader.get(seq)
    return None if stored is None else _parsed(stored)


def _parsed(stored: Stored) -> Any:
    try:
        return message.loads(stored.body)
    except (ValueError, RecursionError):
        return None


def _whole(key: str, values: dict[str, list[str]], default: int, most: int) -> int:
    if key not in values:
        return default
    number: int = _number(key, values[key][0], int, "a whole number")
    if not 1 <= number <= most:
        raise BadQuery(f"{key} must be from 1 to {most}, not {number}")
    return number


def _number(key: str, text: str, kind: Callable[[str], Any], wanted: str) -> Any:
    try:
        number = kind(text[:50])
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    raise BadQuery(f"{key} must be {wanted}, not {text[:50]!r}")


def _time(key: str, text: str) -> float:
    """Seconds since 1970, or a date and time as in ISO 8601; without a zone it is UTC."""
    text = text[:50].strip()
    with suppress(ValueError, OverflowError):
        # What a + of the zone becomes in a query that is not quoted; 3.9 knows no Z.
        written = re.sub(r" (\d\d:?\d\d)$", r"+\1", text) if text.count(":") > 1 else text
        written = re.sub(r"[zZ]$", "+00:00", written)
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        if not text.isdigit():
            return moment.timestamp()
    try:
        return float(_number(key, text, float, "a number of seconds"))
    except BadQuery as error:
        raise BadQuery(f"{error}, or a date such as 2026-01-31T23:59:00+00:00") from None


_TIMES = ("start", "end", "delta")
_ONE = (*_TIMES, "rows_per_page", "page", "order", "strict")
_PLURALS = {
    "topic": "topics",
    "user": "users",
    "category": "categories",
    "not_topic": "not_topics",
    "not_user": "not_users",
    "not_category": "not_categories",
}
_SEVERAL = (*_PLURALS, "contains")
# What says how datagrepper's own page looks, and what keeps browsers from remembering an answer.
_LOOKS = ("is_raw", "size", "chrome", "_")
_REFUSED = {
    "package": "it needs fedmsg_meta; there is topic",
    "not_package": "it needs fedmsg_meta; there is not_topic",
    "meta": "it needs fedmsg_meta",
    "callback": "a page of another site could read the bus by it; the answer is JSON",
}
_TRUE, _FALSE = ("true", "yes", "on", "y", "t", "1"), ("false", "no", "off", "n", "f", "0")
_TOO_LONG = (
    f"the search took more than {LONGEST_SEARCH:g} s, without the help of an index: ask again later"
)
_TOO_MUCH_TEXT = (
    f"the search for a text took more than {LONGEST_SEARCH:g} s: ask for a shorter time, or for a"
    " topic that is less common"
)
