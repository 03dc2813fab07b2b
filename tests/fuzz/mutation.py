"""Makes inputs of a target from its seeds: cut, doubled, overwritten, put together anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hypothesis import strategies as st

# Edits of one input. Few: an input that is wrong in all places is refused at the first.
MOST_EDITS = 6
LONGEST_RUN = 300


class Target(Protocol):
    """A module of this directory."""

    WORDS: Sequence[bytes]  # what the parser knows, and what such parsers stumble over

    @staticmethod
    def seeds() -> list[bytes]:
        """Valid inputs, made by the project's own encoders."""

    @staticmethod
    def check(octets: bytes) -> None:
        """Raises AssertionError, or whatever the code under test should not have raised."""


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds as they are, seeds that were edited, and octets that have nothing of them."""
    seeds = st.sampled_from(target.seeds())
    edit = st.tuples(
        st.sampled_from(("insert", "overwrite", "delete", "double")),
        st.integers(0, 1 << 16),
        st.integers(0, LONGEST_RUN),
        st.one_of(st.sampled_from(target.WORDS), st.binary(max_size=9), seeds),
    )
    edited = st.builds(_edited, seeds, st.lists(edit, max_size=MOST_EDITS))
    return st.one_of(edited, edited, edited, st.binary(max_size=200))


def _edited(seed: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    octets = seed
    for kind, place, length, new in edits:
        at = place % (len(octets) + 1)
        end = min(at + length, len(octets))
        if kind == "insert":
            octets = octets[:at] + new + octets[at:]
        elif kind == "overwrite":
            octets = octets[:at] + new + octets[at + len(new) :]
        elif kind == "delete":
            octets = octets[:at] + octets[end:]
        else:
            octets = octets[:end] + octets[at:end] + octets[end:]
    return octets
