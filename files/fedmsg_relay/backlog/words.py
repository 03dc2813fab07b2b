"""The words by which messages are found: topics, their categories, and the users they name."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import message
from ..journal.store import storable

# Bytes of a body that is not read when the index is made, but by whoever asks for a user: reading
# a large one can take seconds, and nobody else gets the interpreter meanwhile.
LARGEST = 1 << 18

# Characters of a word that stands as it is.
LONGEST_WORD = 200

# Kinds of words. The last two are words by themselves: of a message that is too large to be read,
# and of all messages.
TOPIC, CATEGORY, USER, UNREAD, ANY = "t", "c", "u", "?", "*"

# Where a message names its users: itself, `msg` and `msg.commit`, under any of these keys.
_USER_KEYS = ("username", "user", "agent", "owner")
_NAME_KEYS = ("username", "name")
# One of these is in the bytes of each message that names one; the last is of those that escape it.
_TRACES = (b"user", b"agent", b"owner", b"\\u")


@dataclass(frozen=True)
class Words:
    """What messages have: of each kind one of those given, if any, and none of the `not_` ones."""

    topics: Collection[str] = ()
    categories: Collection[str] = ()
    users: Collection[str] = ()
    not_topics: Collection[str] = ()
    not_categories: Collection[str] = ()
    not_users: Collection[str] = ()

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def all(self) -> set[str]:
        """All of them, as they are in the index."""
        kinds = {
            TOPIC: [*self.topics, *self.not_topics],
            CATEGORY: [*self.categories, *self.not_categories],
            USER: [*self.users, *self.not_users],
        }
        return {word(kind, text) for kind, texts in kinds.items() for text in texts}

    def only(self) -> str | None:
        """The word, if there is one that messages must have and that is all."""
        asked = self.all()
        has_not = self.not_topics or self.not_categories or self.not_users
        return asked.pop() if len(asked) == 1 and not has_not else None


def users_of(body: Any) -> list[str]:
    """The users a message names: who sent it, and those its `msg` and `msg.commit` tell of.

    Under the keys `username`, `user`, `agent` and `owner`, a string or an object with a `username`
    or a `name`.
    """
    users: list[str] = []
    part, path = body, iter(("msg", "commit"))
    while isinstance(part, dict):
        for key in _USER_KEYS:
            if key in part:
                named = part[key]
                names = map(named.get, _NAME_KEYS) if isinstance(named, dict) else (named,)
                users += [name for name in names if isinstance(name, str)]
        part = part.get(next(path, None))
    return users


def category_of(topic: str) -> str:
    """As datanommer has it: what follows the prefix and the environment."""
    parts = topic.split(".")
    place = 2 if "VirtualTopic" in topic else 3
    return parts[place] if len(parts) > place else "Unclassified"


def words_of(topic: str, body: bytes | None) -> set[str]:
    """The words of a message, as they are in the index. `body` is None where it is too large."""
    words = {ANY, *_words_of_topic(topic)}
    if body is None:
        words.add(UNREAD)
    elif any(trace in body for trace in _TRACES):
        try:
            users = users_of(message.loads(body))
        except (ValueError, RecursionError):
            return words
        words.update([_word_of_user(user) for user in users])
    return words


@lru_cache(500)
def _words_of_topic(topic: str) -> tuple[str, str]:
    return word(TOPIC, topic), word(CATEGORY, category_of(topic))


@lru_cache(500)
def _word_of_user(user: str) -> str:
    return word(USER, user)


def word(kind: str, text: str) -> str:
    """As it is in the index."""
    text = storable(text)
    if len(text) > LONGEST_WORD:
        text = hashlib.blake2b(text.encode()).hexdigest() + " digest"
    return kind + text
