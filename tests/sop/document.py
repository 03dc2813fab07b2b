"""The SOP as asciidoctor reads it: its incidents, and the console blocks of each.

A block says by its roles what is to be done with it:

    [source.on-busgateway01.diagnose.exit-3.within-30,console]

on-HOST     where it runs, as the operator; on-control is the control host, in the repository
PHASE       alert, diagnose, mitigate, verify or rollback in an incident, check elsewhere
exit-N      exit status of the last command; 0 if it is not given, as it is of all others
within-N    tried again until it matches, for N seconds; once if it is not given
optional    of a mitigation: that leaving it out goes unnoticed is no mistake
manual      not run at all: the block's title says why, after "by hand: "

A line that begins with `$ ` is a command, which a `\\` at its end continues; the lines below it
are its output (see output.py).
"""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "sop.adoc"
INCIDENTS = ROOT / "docs" / "incidents"
FAULTS = ROOT / "tests" / "faults"

CONTROL = "control"
HOSTS = ("busgateway01", "busgateway02", "app01", "pkgs01", CONTROL)
# What each section of an incident is for. All have to be there, in this order.
SECTIONS = {
    "Diagnose": "diagnose",
    "Mitigate": "mitigate",
    "Verify": "verify",
    "Roll back": "rollback",
    "Escalate": "",
}
PHASES = ("alert", "diagnose", "mitigate", "verify", "rollback", "check")
# Phases without which an incident cannot be tested.
NEEDED = ("alert", "diagnose", "mitigate", "verify")
LABELS = ("Symptom", "Impact", "Budget")
BY_HAND = "by hand: "
# For as many messages as there are.
ALL = float("inf")

_DOCBOOK = "{http://docbook.org/ns/docbook}"
_ID = "{http://www.w3.org/XML/1998/namespace}id"
_FLAGS = ("manual", "optional")


class DocumentError(Exception):
    """The page cannot be read, or breaks the rules above: a line for each thing that is wrong."""


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that it must print."""

    text: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A console block. `within` is in seconds; `where` is for people, to find it by."""

    host: str
    phase: str
    commands: tuple[Command, ...]
    where: str
    exit_status: int = 0
    within: float = 0
    optional: bool = False


@dataclass(frozen=True)
class Incident:
    """`budget`: minutes after which whoever mends it asks for help.

    `lost`: messages that it may cost of those that ask for an acknowledgement; `lost_legacy`: of
    those that do not; `missed`: that listeners get from the backlog alone.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    budget: float
    lost: float
    lost_legacy: float
    missed: float = 0

    def of(self, phase: str) -> list[Block]:
        return [block for block in self.blocks if block.phase == phase]


@dataclass(frozen=True)
class Section:
    """A section that is no incident: its commands are run on hosts that are well."""

    id: str
    blocks: tuple[Block, ...]


@dataclass
class Document:
    incidents: list[Incident] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    # Where blocks are that are not run, and why.
    manual: list[str] = field(default_factory=list)


def read(page: Path = PAGE, faults: Path = FAULTS) -> Document:
    """Read a page, or one incident alone as if it were on the page. Raises DocumentError."""
    return _Reader(faults).read(docbook(page))


def docbook(page: Path = PAGE) -> ET.Element:
    base, source = page.parent, page.read_text()
    if base.name == "incidents":
        base = base.parent
        header = (base / "sop.adoc").read_text().partition("\n\n")[0]
        source = f"{header}\n\n== Incidents\n\ninclude::incidents/{page.name}[]\n"
    command = ["asciidoctor", "--backend=docbook5", "--failure-level=WARN", "--safe-mode=safe"]
    try:
        done = subprocess.run(
            [*command, f"--base-dir={base}", "--out-file=-", "-"],
            input=source,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except FileNotFoundError:
        raise DocumentError("asciidoctor is not installed: tools/setup/packages docs") from None
    if done.returncode:
        raise DocumentError(f"asciidoctor: {done.stderr.strip()}")
    return ET.fromstring(done.stdout)


class _Reader:
    """Walks the tree once, and notes what is wrong rather than stop at the first mistake."""

    def __init__(self, faults: Path) -> None:
        self._faults = faults
        self._document = Document()
        self._wrong: list[str] = []

    def read(self, root: ET.Element) -> Document:
        blocks = self._section(root, "", "the beginning")
        self._add_section("the beginning", blocks)
        ids = [incident.id for incident in self._document.incidents]
        self._wrong += [f"{id_}: there are two of it" for id_ in ids if ids.count(id_) > 1]
        if self._wrong:
            raise DocumentError("\n".join(dict.fromkeys(self._wrong)))
        return self._document

    def _section(self, element: ET.Element, expected: str, where: str) -> list[Block]:
        """The blocks that are the section's own: of its text and of sections without an id that is
        worth a test of its own."""
        blocks: list[Block] = []
        for child in element:
            if child.tag == f"{_DOCBOOK}section":
                if "incident" in _roles(child):
                    self._incident(child)
                    continue
                id_ = child.get(_ID, "")
                found = self._section(child, expected or "check", id_)
                if id_.startswith("_"):  # made by asciidoctor from the title
                    blocks += found
                else:
                    self._add_section(id_, found)
            else:
                blocks += self._blocks(child, expected or "check", where)
        return blocks

    def _add_section(self, id_: str, blocks: list[Block]) -> None:
        if blocks:
            self._document.sections.append(Section(id_, tuple(blocks)))

    def _incident(self, element: ET.Element) -> None:
        id_ = element.get(_ID, "")
        blocks: list[Block] = []
        titles: list[str] = []
        for child in element:
            if child.tag == f"{_DOCBOOK}section":
                title = _text(child.find(f"{_DOCBOOK}title"))
                titles.append(title)
                phase = SECTIONS.get(title, "")
                blocks += self._blocks(child, phase, f"{id_}, {title}")
            else:
                blocks += self._blocks(child, "alert", id_)
        if titles != list(SECTIONS):
            self._wrong.append(
                f"{id_}: its sections are {', '.join(titles) or 'none'}; they have to be"
                f" {', '.join(SECTIONS)}"
            )
        terms = {_text(term) for term in element.iter(f"{_DOCBOOK}term")}
        self._wrong += [f"{id_}: no {label}" for label in LABELS if label not in terms]
        self._wrong += [
            f"{id_}: no block of the phase {phase}"
            for phase in NEEDED
            if not any(block.phase == phase for block in blocks)
        ]
        if not (self._faults / f"{id_}.yml").is_file():
            self._wrong.append(f"{id_}: no fault, {self._faults.name}/{id_}.yml")
        self._document.incidents.append(
            Incident(
                id_,
                _text(element.find(f"{_DOCBOOK}title")),
                tuple(blocks),
                budget=self._number(id_, element, "budget"),
                lost=self._number(id_, element, "lost"),
                lost_legacy=self._number(id_, element, "lost-legacy"),
                missed=self._number(id_, element, "missed", default=0),
            )
        )

    def _number(
        self, id_: str, element: ET.Element, role: str, default: float | None = None
    ) -> float:
        found = [
            _text(phrase) for phrase in element.iter(f"{_DOCBOOK}phrase") if role in _roles(phrase)
        ]
        if not found and default is not None:
            return default
        if found == ["all"] and role != "budget":
            return ALL
        if len(found) != 1 or not found[0].isdigit():
            said = ", ".join(found) or "nothing"
            self._wrong.append(f"{id_}: one number has to have the role {role}: {said}")
            return 0
        return int(found[0])

    def _blocks(self, element: ET.Element, phase: str, where: str) -> Iterator[Block]:
        """The blocks in an element; `phase` is the one that they have to be of."""
        for listing, roles, title in _listings(element, (), ""):
            text = "".join(listing.itertext())
            if listing.get("language") != "console" and not re.search(r"^\$ ", text, re.M):
                continue
            first = text.partition("\n")[0]
            block = self._block(text, list(roles), title, phase, f"{where}: `{first}`")
            if block:
                yield block

    def _block(
        self, text: str, roles: list[str], title: str, phase: str, where: str
    ) -> Block | None:
        wrong = self._wrong
        count = len(wrong)
        if "manual" in roles:
            if title.partition(BY_HAND)[2].strip():
                self._document.manual.append(f"{where}: {title.partition(BY_HAND)[2].strip()}")
            else:
                wrong.append(f'{where}: manual, and no reason after "{BY_HAND}" in its title')
            return None
        marks: dict[str, list[str]] = {"on": [], "exit": [], "within": [], "phase": [], "flag": []}
        for role in roles:
            kind, _, value = role.partition("-")
            if role in PHASES:
                marks["phase"].append(role)
            elif role in _FLAGS:
                marks["flag"].append(role)
            elif (kind == "on" and value) or (kind in ("exit", "within") and value.isdigit()):
                marks[kind].append(value)
            else:
                wrong.append(f"{where}: no such role: {role}")
        if not (marks["on"] and marks["phase"]):
            wrong.append(f"{where}: not marked: it needs on-HOST and a phase, or manual")
        elif any(len(marks[kind]) > 1 for kind in ("on", "exit", "within", "phase")):
            wrong.append(f"{where}: marked twice: {' '.join(roles)}")
        else:
            host, marked = marks["on"][0], marks["phase"][0]
            named = "the control host" if host == CONTROL else host
            if host not in HOSTS:
                wrong.append(f"{where}: no such host: {host}")
            elif named not in title:
                wrong.append(f'{where}: its title has to say "On {named}"')
            if marked != phase:
                wrong.append(
                    f"{where}: its phase is {marked}, and that of its section {phase or 'none'}"
                )
        if marks["flag"] and "mitigate" not in marks["phase"]:
            wrong.append(f"{where}: only a mitigation is optional")
        commands = self._commands(text, where)
        if len(wrong) > count:
            return None
        return Block(
            marks["on"][0],
            marks["phase"][0],
            commands,
            where,
            exit_status=int((marks["exit"] or ["0"])[0]),
            within=float((marks["within"] or ["0"])[0]),
            optional=bool(marks["flag"]),
        )

    def _commands(self, text: str, where: str) -> tuple[Command, ...]:
        commands: list[Command] = []
        lines = iter(text.rstrip().splitlines())
        for line in lines:
            if line.startswith("$ "):
                command = line[2:]
                while command.endswith("\\"):
                    command += "\n" + next(lines, "")
                commands.append(Command(command, ()))
            elif commands:
                last = commands.pop()
                commands.append(Command(last.text, (*last.output, line.rstrip())))
            else:
                self._wrong.append(f"{where}: does not begin with a command, `$ `")
                break
        return tuple(commands)


def _listings(
    element: ET.Element, roles: tuple[str, ...], title: str
) -> Iterator[tuple[ET.Element, tuple[str, ...], str]]:
    """Every listing in an element, with its roles and its title.

    With a title, asciidoctor puts a listing into a formalpara, which then has the roles.
    """
    if element.tag in (f"{_DOCBOOK}programlisting", f"{_DOCBOOK}screen"):
        yield element, (*roles, *_roles(element)), title
        return
    if element.tag == f"{_DOCBOOK}formalpara":
        roles, title = _roles(element), _text(element.find(f"{_DOCBOOK}title"))
    elif element.tag != f"{_DOCBOOK}para":
        roles, title = (), ""
    for child in element:
        yield from _listings(child, roles, title)


def _roles(element: ET.Element) -> tuple[str, ...]:
    return tuple(element.get("role", "").split())


def _text(element: ET.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())
