"""How text from the bus is shown to people: nothing in it moves a cursor or forges a line.

Whoever may publish chooses topics and messages, and whoever runs what we connect to chooses its
answers. A terminal obeys what is in them: escape sequences, carriage returns, C1 controls in one
character, marks that turn the direction of what follows. So a text is escaped where it is shown,
by this one function; what goes into pipes, to listeners and into the journal stays as it came.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    """`text` on one line: what cannot be printed, as Python writes it, `\\x1b`, `\\n`, `\\u202e`.

    Not printable is what Unicode has as a control, a format, a surrogate, a separator other than
    the blank, private or unassigned. A backslash stays one, so that what is printable stays as it
    is: the text is for people, and is not to be read back.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def escaped_lines(text: str) -> str:
    """The same for a text of several lines, such as a traceback, each but the first behind a bar.

    So that no line of it can be taken for one of the log's own.
    """
    return "\n| ".join(map(escaped, text.split("\n")))
