"""Which files of the project a test imports, itself or through what it imports."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from .plan import ROOT

# Where a name is looked for: the root, what is on every test's path, and the scenarios' own.
PATHS = ("", "files", "tools", "molecule/shared", "molecule/default/tests")


@functools.cache
def reached(file: str) -> frozenset[str]:
    found: set[str] = set()
    new = set(imported(file))
    while new:
        found |= new
        new = {more for each in new for more in imported(each)} - found
    return frozenset(found)


@functools.cache
def imported(file: str) -> frozenset[str]:
    """The files of the project that a Python file imports, at its top or anywhere else."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        for name in _names(node, Path(file)):
            for path in (*PATHS, str(Path(file).parent)):
                candidate = str(Path(path, *name.split(".")).with_suffix(".py"))
                if (ROOT / candidate).is_file():
                    found.add(candidate)
    return frozenset(found)


def tests() -> list[str]:
    """Every file of tests but the SOP's own, which need its hosts."""
    return sorted(
        str(path.relative_to(ROOT))
        for under in ("tests", "molecule")
        for path in (ROOT / under).glob("**/test_*.py")
        if "sop" not in path.parts
    )


def importers(file: str) -> list[str]:
    """What runs the tests that import a file, as rows of tests/map.yml say it."""
    return [_selected(test) for test in tests() if file in reached(test)]


def _selected(test: str) -> str:
    directory, _, rest = test.partition("/")
    name = rest.partition("/")[0]
    if directory == "molecule":
        return f"molecule/{name}"
    return f"{'unit' if name == 'roles' else name}:{test}"


def _names(node: ast.AST, file: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = file.parents[node.level - 1]
            base = ".".join([*package.parts, *filter(None, [base])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []
