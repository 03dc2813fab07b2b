"""`python -m tests.fuzz.run [TARGET...]`: each target for FUZZ_SECONDS, 60 by default.

Ends with 1 at the first input that a target does not stand, after hypothesis has made it small,
which takes up to five minutes more. One that takes longer than HANG seconds ends the run with the
stack of it.
"""

from __future__ import annotations

import faulthandler
import os
import secrets
import sys
import time
from types import ModuleType
from typing import cast

from hypothesis import HealthCheck, Phase, given, seed, settings

from . import checked_message, config_file, http_query, journal_file, spool_file, submitted, zmtp
from .mutation import Target, inputs

TARGETS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        zmtp, http_query, spool_file, config_file, checked_message, journal_file, submitted
    )
}  # fmt: skip
ROUND = 300  # inputs between two looks at the clock
HANG = 300


def attack(target: ModuleType, inputs_at_most: int, number: int | None = None) -> None:
    """Check so many inputs: always the same, or with a `number` those of that number."""
    checked = cast(Target, target)
    of_this_round = settings(
        max_examples=inputs_at_most,
        derandomize=number is None,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    def check(octets: bytes) -> None:
        checked.check(octets)

    test = given(inputs(checked))(check)
    of_this_round(test if number is None else seed(number)(test))()


def main(names: list[str]) -> int:
    unknown = set(names) - set(TARGETS)
    if unknown:
        print(f"no target {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
        return 2
    seconds = float(os.environ.get("FUZZ_SECONDS") or 60)
    for name in names or TARGETS:
        end, done = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            faulthandler.dump_traceback_later(HANG, exit=True)
            number = secrets.randbits(32)
            try:
                attack(TARGETS[name], ROUND, number)
            except Exception:
                print(f"{name}: the inputs of number {number} found this:", flush=True)
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
            done += ROUND
        print(f"{name}: {done} inputs, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
