"""What a newcomer reads first: short, true, and with links that lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.support.programs import ROOT, run


def listed(pattern: str) -> list[str]:
    """Files of the project, whether git knows them yet or not."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    names = run(words, cwd=ROOT, check=True).stdout.split()
    return [name for name in names if (ROOT / name).exists()]


PAGES = [ROOT / name for name in listed("*.md")]
# Of a document, how long it may be.
LINES = {"README.md": 130, "CONTRIBUTING.md": 150}


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("name", LINES)
def test_is_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= LINES[name]


def leads_somewhere(link: str, page: Path) -> bool:
    if re.match(r"https?://", link):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or target.suffix != ".md" or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    assert [link for link in links if not leads_somewhere(link, page)] == []


@pytest.mark.parametrize("link", ["docs/no-such.adoc", "CONTRIBUTING.md#no-such", "../x", "#no"])
def test_a_link_that_leads_nowhere_is_seen(link: str) -> None:
    assert not leads_somewhere(link, ROOT / "README.md")


def test_links_are_seen() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code((ROOT / "README.md").read_text()))
    assert {"docs/sop.adoc", "CONTRIBUTING.md", "LICENSE"} <= set(links)


def test_readme_leads_to_every_document() -> None:
    readme = (ROOT / "README.md").read_text()
    documents = [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.adoc")]
    documents += ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md", "LICENSE"]
    assert [each for each in documents if f"]({each})" not in readme] == []


def test_contributing_names_every_target() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    of_others = {"help", "clean", "delivery", "sop-mutate"}  # for who knows the rest
    assert [each for each in targets if f"make {each}" not in text and each not in of_others] == []


def test_contributing_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {name.split("/")[0] for name in listed("*/*") if not name.startswith(".")}
    ansible_s = {"meta", "collections", "plugins"}
    assert [each for each in sorted(folders - ansible_s) if f"\n{each}/" not in text] == []


def test_molecule_s_page_has_every_scenario() -> None:
    text = (ROOT / "molecule/README.md").read_text()
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == scenarios


def test_galaxy_has_no_address_that_is_an_example() -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    addresses = [value for value in galaxy.values() if isinstance(value, str) and "://" in value]
    assert [each for each in addresses if "example" in each] == []


# docs/architecture.adoc

ARCHITECTURE = (ROOT / "docs/architecture.adoc").read_text()
PACKAGE = ROOT / "files/fedmsg_relay"


def parts() -> dict[str, str]:
    """The part of each module, by the page's table."""
    table = ARCHITECTURE.partition("[#modules]")[2].split("|===")[1]
    rows = re.findall(r"^\|(\w+)\n\|.*\n\|((?:.+\n)+)", table, re.M)
    return {name: part for part, names in rows for name in re.findall(r"`\+?(\w+?)\+?`", names)}


def rules() -> dict[str, set[str]]:
    """What each part never imports, by the page's list."""
    listed = ARCHITECTURE.partition("[#imports]\n")[2].partition("\n\n")[0]
    lines = re.findall(r"^\* (\w+) never imports (.*)\.$", listed, re.M)
    return {part: set(re.findall(r"\w+", nevers)) - {"or"} for part, nevers in lines}


def imported(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported from within it, anywhere in a file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module == "fedmsg_relay"):
            module = (node.module or "").replace("fedmsg_relay", "")
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedmsg_relay."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {
                a.name.split(".")[1] for a in node.names if a.name.startswith("fedmsg_relay.")
            }
    return found


def forbidden(module: str, tree: ast.AST) -> list[str]:
    part_of = parts()
    nevers = rules().get(part_of[module], set())
    return [
        f"{module} imports {each}" for each in sorted(imported(tree)) if part_of.get(each) in nevers
    ]


def test_modules_that_the_page_names_are_there() -> None:
    names = parts()
    assert len(names) > 50 and len(rules()) == 5
    assert [name for name in names if not (PACKAGE / f"{name}.py").exists()] == []
    assert {each for nevers in rules().values() for each in nevers} <= set(names.values())


def test_parts_import_what_they_may() -> None:
    found = [
        each
        for module in parts()
        for each in forbidden(module, ast.parse((PACKAGE / f"{module}.py").read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("session", "from . import journal"),
        ("session", "def f():\n    from .recorder import Recorder"),
        ("outbound", "if TYPE_CHECKING:\n    from .session import Session"),
        ("backlog", "import fedmsg_relay.submit"),
        ("wire", "from fedmsg_relay import query"),
        ("journal", "from fedmsg_relay.web import Web"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    assert len(forbidden(module, ast.parse(source))) == 1
