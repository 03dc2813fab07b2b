"""Which messages of the journal the broker has, and which it has yet to confirm."""

from __future__ import annotations

from collections.abc import Iterable


class Ledger:
    """The messages after `confirmed`, a seq of the journal.

    Each is read, in order; then it is passed over or published, under a delivery tag that grows;
    then the broker confirms it or does not, in any order. What it does not confirm is published
    again. `confirmed` grows past what is dealt with, and past nothing else.
    """

    def __init__(self, confirmed: int) -> None:
        self.read = confirmed
        self._pending: dict[int, tuple[int, int]] = {}  # by tag, in order: seq, and bytes
        self._again: set[int] = set()
        self._bytes = 0
        self._tag = 0

    def __len__(self) -> int:
        """Messages that are published and not confirmed."""
        return len(self._pending)

    @property
    def bytes(self) -> int:
        """Bytes of those."""
        return self._bytes

    @property
    def again(self) -> list[int]:
        """Seqs to publish again, in order."""
        return sorted(self._again)

    @property
    def is_again(self) -> bool:
        return bool(self._again)

    @property
    def confirmed(self) -> int:
        """The seq up to which all is dealt with."""
        least = min((seq for seq, _ in self._pending.values()), default=self.read + 1)
        return min(least, min(self._again, default=least)) - 1

    def pending(self) -> list[int]:
        """Seqs that are published and not confirmed, in order."""
        return sorted(seq for seq, _ in self._pending.values())

    def restart(self) -> None:
        """A new channel: it counts its tags from 1, and knows nothing of what was published."""
        self._again.update(seq for seq, _ in self._pending.values())
        self._pending.clear()
        self._bytes = 0
        self._tag = 0

    def passed_over(self, seq: int) -> None:
        """This one need not be published, or not any more."""
        self.read = max(self.read, seq)
        self._again.discard(seq)

    def gone(self, first: int, last: int) -> None:
        """The journal has none of these any more."""
        self.read = max(self.read, last)
        self._again = {seq for seq in self._again if not first <= seq <= last}

    def published(self, seq: int, size: int) -> int:
        """This one was published. Returns its delivery tag."""
        self.passed_over(seq)
        self._tag += 1
        self._pending[self._tag] = (seq, size)
        self._bytes += size
        return self._tag

    def confirm(self, tag: int, multiple: bool) -> list[int]:
        """The broker has that one or, with `multiple`, all up to it. Returns their seqs."""
        return self._take(tag, multiple)

    def put_back(self, seq: int) -> None:
        """This one is to be published again."""
        self._again.add(seq)

    def refuse(self, tag: int, multiple: bool) -> int:
        """The broker could not keep them: they are to be published again. Returns how many."""
        taken = self._take(tag, multiple)
        self._again.update(taken)
        return len(taken)

    def _take(self, tag: int, multiple: bool) -> list[int]:
        tags: Iterable[int] = self._up_to(tag) if multiple else (tag,)
        taken = []
        for each in tags:
            found = self._pending.pop(each, None)
            if found is not None:
                taken.append(found[0])
                self._bytes -= found[1]
        return taken

    def _up_to(self, tag: int) -> list[int]:
        found = []  # tag 0 is AMQP's for all there are
        for each in self._pending:  # in order: no more than those are looked at
            if tag and each > tag:
                break
            found.append(each)
        return found
