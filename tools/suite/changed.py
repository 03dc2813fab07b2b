"""What a change touches: the files that it changes, and what tests/map.yml has each of them run.

The first row that a file matches is the one that counts. A file that none matches is not known:
everything runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import yaml

from . import imports
from .plan import ROOT, Piece, Plan, PlanError

MAP = ROOT / "tests" / "map.yml"
# Where the changes begin if nobody says: the first of these that git knows.
BASES = ("@{upstream}", "origin/main", "origin/master", "main", "master")
IMPORTERS = "{importers}"
# Always: it is quick, and looks at files of every kind.
ALWAYS = ("lint",)


@dataclass(frozen=True)
class Row:
    """`run`: names of pieces, of parts, or PART:TESTS, such as unit:tests/unit/test_wire.py and
    sop:relay-down. {file} stands for the path of the file, {stem} for its name without suffix, and
    {importers} for the tests that import it."""

    files: tuple[str, ...]
    run: tuple[str, ...]

    def matches(self, file: str) -> bool:
        return any(fnmatchcase(file, pattern) for pattern in self.files)

    def of(self, file: str) -> list[str]:
        stem = PurePosixPath(file).stem
        found: list[str] = []
        for each in self.run:
            if each == IMPORTERS:
                found += imports.importers(file)
            else:
                found.append(each.replace("{file}", file).replace("{stem}", stem))
        return found


def rows(path: Path = MAP) -> list[Row]:
    data = yaml.safe_load(path.read_text())
    return [Row(tuple(row["files"]), tuple(row["run"])) for row in data]


def row_of(file: str, map_: Sequence[Row]) -> Row | None:
    return next((row for row in map_ if row.matches(file)), None)


def pieces(plan: Plan, base: str = "") -> list[Piece]:
    """The pieces that the changes since `base` touch. Raises PlanError."""
    files = changed_files(base or _base())
    known = rows()
    unknown = [file for file in files if row_of(file, known) is None]
    for file in unknown:
        print(f"test: tests/map.yml has no row for {file}: everything runs", flush=True)
    if unknown:
        return plan.of({piece.part for piece in plan.pieces})
    selected = [each for file in files if (row := row_of(file, known)) for each in row.of(file)]
    chosen = select(plan, [*selected, *(ALWAYS if files else ())])
    print(f"test: {len(files)} files have changed: {' '.join(p.name for p in chosen)}", flush=True)
    return chosen


def select(plan: Plan, selected: Iterable[str]) -> list[Piece]:
    """The pieces of what rows have in `run`; of a part that is named as a whole, all of it."""
    whole = {each for each in selected if ":" not in each}
    named: dict[str, list[str]] = {}
    for part, _, test in (each.partition(":") for each in selected if ":" in each):
        if test not in named.setdefault(part, []):
            named[part].append(test)
    found = {piece.name: piece for piece in plan.of(whole)}
    for part, tests in named.items():
        of_part = plan.of([part])
        if not any(piece.name in found for piece in of_part):
            # Few incidents are not worth a second set of hosts.
            found[of_part[0].name] = replace(of_part[0], tests=tuple(tests))
    return [found[name] for name in plan.names if name in found]


def changed_files(base: str) -> list[str]:
    """Paths that differ from where this branch left `base`, committed or not."""
    since = _git("merge-base", base, "HEAD").strip()
    listed = _git("diff", "--name-only", "--no-renames", since)
    listed += _git("ls-files", "--others", "--exclude-standard")
    return sorted(set(filter(None, listed.splitlines())))


def _base() -> str:
    for base in BASES:
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"],
            cwd=ROOT,
            capture_output=True,
        )
        if found.returncode == 0:
            return base
    raise PlanError(f"since what? git knows none of {', '.join(BASES)}: tools/test changed BASE")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PlanError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def covers(row: Row, file: str, test: str) -> bool:
    """Whether a change of `file`, which `row` matches, runs the test file `test`."""
    return any(_runs(each, test) for each in row.of(file))


def _runs(selected: str, test: str) -> bool:
    return any(test == under or test.startswith(f"{under}/") for under in _under(selected))


def _under(selected: str) -> Iterator[str]:
    part, _, test = selected.partition(":")
    if test:
        yield test
    elif part == "unit":
        yield from ("tests/unit", "tests/roles")
    elif part == "molecule":
        yield "molecule"
    elif part.startswith("molecule/"):
        yield f"{part}/tests"
    else:
        yield f"tests/{part}"
