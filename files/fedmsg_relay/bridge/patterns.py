"""Patterns of topics, as AMQP's topic exchanges have them.

Words are separated by dots. `*` stands for one word, `#` for any number of words, none included
(RabbitMQ's tutorial on topics; AMQP 0-9-1, 3.1.3.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


class Patterns:
    """Whether a topic matches one of some patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._all = "#" in self._patterns
        # A bus has few topics, and very many messages.
        self._known = lru_cache(maxsize=10_000)(self._match)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, topic: str) -> bool:
        """Whether one of them matches `topic`."""
        return self._all or self._known(topic)

    def _match(self, topic: str) -> bool:
        words = topic.split(".")
        return any(_matches(pattern.split("."), words) for pattern in self._patterns)


def _matches(pattern: list[str], words: list[str]) -> bool:
    """In time of both lengths multiplied, whatever is in them: anybody may choose a topic."""
    # After each word of the pattern: at which places of the topic it may end.
    ends = {0}
    for each in pattern:
        if each == "#":
            ends = set(range(min(ends), len(words) + 1))
        else:
            ends = {at + 1 for at in ends if at < len(words) and (each == "*" or each == words[at])}
        if not ends:
            return False
    return len(words) in ends


def problem(pattern: str) -> str | None:
    """Why it is no pattern, or None."""
    if len(pattern.encode(errors="surrogatepass")) > 255:
        return "it has more than 255 bytes"
    for word in pattern.split("."):
        if word not in ("*", "#") and re.search(r"[*#]", word):
            return f"* and # stand for whole words, in {word!a} they do not"
    return None
