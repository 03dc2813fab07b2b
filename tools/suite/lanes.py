"""Which pieces run at the same time: as many as keep the processors busy, and no more.

What fails is tried once more, alone, when all others have ended: the machine may have been busy.
Not where a message is lost that was acknowledged, for no machine may be busy enough for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .attempt import Attempt, run, stop_all
from .outcome import Result, result_of
from .plan import Piece

# More than the processors are: even what works them waits at times.
ROOM_FOR_EACH = 1.15


class Lanes:
    """`run_one(piece, number, shown)` runs a piece, for the first or second time."""

    def __init__(
        self,
        run_one: Callable[[Piece, int, bool], Attempt] = run,
        processors: int | None = None,
    ) -> None:
        self._run_one = run_one
        self._room = ROOM_FOR_EACH * (processors or len(os.sched_getaffinity(0)))
        self._results: dict[str, Result] = {}

    def run(self, pieces: Sequence[Piece]) -> list[Result]:
        """Run all, each to its end, whatever fails; their results in the same order."""
        shown = len(pieces) == 1
        waiting = sorted(pieces, key=lambda piece: not piece.alone)
        running: dict[Future[Attempt], Piece] = {}
        with ThreadPoolExecutor(max(1, len(pieces))) as pool:
            try:
                while waiting or running:
                    for piece in startable(waiting, list(running.values()), self._room):
                        say(f"===== {piece.name} begins")
                        running[pool.submit(self._run_one, piece, 1, shown)] = piece
                        waiting.remove(piece)
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._end(running.pop(future), [future.result()], shown)
            except KeyboardInterrupt:
                # Or else the pool would wait for all of them.
                stop_all()
                raise
        for piece in pieces:
            first = self._results[piece.name]
            if first.may_be_tried_again:
                say(f"===== {piece.name}: what failed, once more")
                self._end(piece, [*first.attempts, self._run_one(piece, 2, shown)], shown)
        return [self._results[piece.name] for piece in pieces]

    def _end(self, piece: Piece, attempts: list[Attempt], shown: bool) -> None:
        result = self._results[piece.name] = result_of(piece, attempts)
        if not shown:
            say(f"\n===== {piece.name}\n{attempts[-1].text}")
        say(f"===== {piece.name}: {'ok' if result.ok else 'FAILED'} in {result.seconds:.0f} s")


def startable(waiting: Sequence[Piece], running: Sequence[Piece], room: float) -> list[Piece]:
    """What begins now: in order, but a smaller one may pass a larger that does not fit yet.

    With nothing running the first begins, however large it is.
    """
    chosen: list[Piece] = []
    for piece in waiting:
        beside = [*running, *chosen]
        if any(other.alone for other in beside):
            break
        if beside and (piece.alone or sum(o.load for o in beside) + piece.load > room):
            continue
        chosen.append(piece)
    return chosen


def say(text: str) -> None:
    print(text, flush=True)
