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
    ansible_s = {"meta", "collections"}
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


ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def parts() -> dict[str, str]:
    """The room of each module, by the page's table: `room/module`, or `module` at the root."""
    table = ARCHITECTURE.partition("[#modules]")[2].split("|===")[1]
    rows = re.findall(r"^\|(\w+)\n\|.*\n\|((?:.+\n)+)", table, re.M)
    return {
        f"{part}/{name}" if part in ROOMS else name: part
        for part, names in rows
        for name in re.findall(r"`\+?(\w+?)\+?`", names)
    }


def rules() -> dict[str, set[str]]:
    """What each room never imports, by the page's list."""
    listed = ARCHITECTURE.partition("[#imports]\n")[2].partition("\n\n")[0]
    lines = re.findall(r"^\* (\w+) never imports (.*)\.$", listed, re.M)
    return {part: set(re.findall(r"\w+", nevers)) - {"or"} for part, nevers in lines}


def modules() -> dict[str, Path]:
    """The package's modules by `room/module`, or `module`. The rooms' own __init__ say what they
    are, and import nothing."""
    found = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.endswith("/__init__")}


def imported(module: str, tree: ast.AST) -> set[str]:
    """Dotted names, below the package, of all that a module of it imports, anywhere in the file."""
    here = module.split("/")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*here[: len(here) - node.level + 1], *filter(None, [node.module])]
            elif (node.module or "").split(".")[0] == "fedmsg_relay":
                base = (node.module or "").split(".")[1:]
            else:
                continue
            found |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {".".join(name[1:]) for name in names if name[0] == "fedmsg_relay"}
    return found


def forbidden(module: str, tree: ast.AST) -> list[str]:
    nevers = rules().get(parts()[module], set())
    names = sorted(imported(module, tree))
    return [f"{module} imports {name}" for name in names if name.split(".")[0] in nevers]


def test_the_page_names_every_module() -> None:
    names = parts()
    assert len(names) > 50 and set(rules()) == ROOMS
    assert set(names) == set(modules())
    assert {each for nevers in rules().values() for each in nevers} <= ROOMS


def test_rooms_import_what_they_may() -> None:
    found = [
        each
        for module, path in modules().items()
        for each in forbidden(module, ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("publishing/publisher", "from ..journal import store"),
        ("publishing/publisher", "def f():\n    from ..journal.recorder import Recorder"),
        ("publishing/publisher", "from .. import daemon"),
        ("daemon/outbound", "if TYPE_CHECKING:\n    from ..publishing.session import Publisher"),
        ("backlog/app", "import fedmsg_relay.daemon.submit"),
        ("checks/wire", "from fedmsg_relay.backlog import query"),
        ("journal/store", "from fedmsg_relay.daemon.backlog_process import Web"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    assert len(forbidden(module, ast.parse(source))) == 1


def room_named(tree: ast.AST) -> set[str]:
    """Rooms that a program outside the package imports from."""
    return {name.split(".")[0] for name in imported("", tree)} & ROOMS


def test_outside_the_package_only_the_relay_imports_from_a_room() -> None:
    shipped = [
        ROOT / name for name in listed("files/*") if not name.startswith("files/fedmsg_relay/")
    ]
    programs = [
        path for path in shipped
        if path.suffix == ".py" or b"python3" in path.read_bytes().partition(b"\n")[0]
    ]  # fmt: skip
    assert ROOT / "files/bin/fedmsg-tail" in programs
    inside = {path for path in programs if room_named(ast.parse(path.read_text()))}
    # The second runs on a host, for a move, where this release is installed.
    assert inside == {ROOT / "files/relay.py", ROOT / "files/ansible/move.py"}


def test_a_room_that_is_named_outside_is_seen() -> None:
    assert room_named(ast.parse("from fedmsg_relay.publishing.publisher import Publisher"))
    assert not room_named(ast.parse("from fedmsg_relay import config"))
