"""Rows of a database in a message: objects of SQLAlchemy's declarative classes, as JSON objects.

As fedmsg 1.1.7 does (fedmsg.encoding.sqla): an object has all of its columns and relationships.
What it is related to is spelled out in the same way, but for a class that is being spelled out
already, of which there is the `id`.
"""

from __future__ import annotations

from typing import Any


def as_dict(row: Any, around: tuple[type, ...] = ()) -> dict[str, Any]:
    """The row's columns and relationships by name; `around` are the classes that it is within."""
    # The mapper that the class has itself: SQLAlchemy is the caller's, and not imported here.
    mapper = type(row).__mapper__
    related = set(mapper.relationships.keys())
    columns = [key for key in mapper.attrs.keys() if key not in related]  # noqa: SIM118  no dict
    found = {key: getattr(row, key) for key in columns}
    for key in related:
        found[key] = _expanded(getattr(row, key), type(row), around)
    return found


def _expanded(related: Any, of: type, around: tuple[type, ...]) -> Any:
    if related is None:  # upstream's raises
        return None
    if hasattr(related, "all"):  # a query: the relationship is loaded when it is asked for
        related = related.all()
    if hasattr(related, "__iter__"):
        return [_expanded(each, of, around) for each in related]
    if type(related) in around:
        return related.id
    return as_dict(related, (*around, of))
