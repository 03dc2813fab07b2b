"""Makes a page a file of tests: pytest -p tests.sop.plugin docs/sop.adoc

One test for each incident, and one for each other section that has commands. While the page is not
ready, `make sop ARGS=docs/incidents/ID.adoc` runs one incident alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from . import proven, trial
from .document import FAULTS, PAGE, Document, DocumentError, Incident, Section, read
from .shared import Shared

_Made = TypeVar("_Made")

# Seconds. An incident that hangs is a failure of its own, and its fault is healed.
LIMIT = 1500
DOCUMENT = pytest.StashKey[Document]()
OUTCOMES = pytest.StashKey[dict[str, trial.Outcome]]()
NOTICED = pytest.StashKey[list[str]]()
UNNOTICED = pytest.StashKey[list[str]]()
FIRST_TRIES = pytest.StashKey[list[str]]()
SHARED = pytest.StashKey["Shared | None"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sop")
    group.addoption("--sop-faults", type=Path, default=FAULTS, help="directory of the faults")
    group.addoption(
        "--sop-mutate",
        action="store_true",
        help="run each incident again and again, without one command of Mitigate each time",
    )
    group.addoption(
        "--sop-prove",
        action="store_true",
        help="write what passes into docs/include/last-proven.adoc",
    )
    group.addoption(
        "--sop-again",
        action="store_true",
        help="try what fails once more, for a machine that others use, too; the summary says so."
        " Not what has lost messages that were acknowledged",
    )
    group.addoption(
        "--sop-shared",
        type=Path,
        help="run those tests only that no other set of hosts with this directory has taken",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DOCUMENT] = Document()
    config.stash[OUTCOMES] = {}
    config.stash[NOTICED] = []
    config.stash[UNNOTICED] = []
    config.stash[FIRST_TRIES] = []
    directory = config.option.sop_shared
    config.stash[SHARED] = Shared(directory, os.environ["SOP_SET"]) if directory else None
    if config.option.sop_prove and (changed := proven.uncommitted()):
        raise pytest.UsageError(f"what is proven has to be a commit; not committed: {changed}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    shared = config.stash[SHARED]
    if shared and shared.is_backward:
        # Stable: those that are taken together stay in their order.
        groups = list(dict.fromkeys(map(_taken_as, items)))
        items.sort(key=lambda item: -groups.index(_taken_as(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Pass by what another set has taken: it reports of it."""
    shared = item.config.stash[SHARED]
    if shared is None:
        return None
    return None if shared.take(_taken_as(item)) else True


def _taken_as(item: pytest.Item) -> str:
    """Tests of an ordinary file may need what the one before has found: all, or none."""
    return item.name if isinstance(item, _Test) else item.path.name


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Page | None:
    if file_path.suffix == ".adoc":
        return Page.from_parent(parent, path=file_path)
    return None


class Page(pytest.File):
    def collect(self) -> Iterable[pytest.Item]:
        options = self.config.option
        try:
            document = read(self.path, options.sop_faults)
        except DocumentError as error:
            raise self.CollectError(str(error)) from None
        if options.sop_prove and self.path != PAGE:
            raise self.CollectError(f"the table has all incidents: prove them from {PAGE.name}")
        self.config.stash[DOCUMENT] = document
        if not options.sop_mutate:
            for section in document.sections:
                name = f"check-{section.id}"
                yield SectionTest.from_parent(self, name=name, section=section)
        for incident in document.incidents:
            yield IncidentTest.from_parent(self, name=incident.id, incident=incident)
            if options.sop_mutate:
                yield from self._mutations(incident)

    def _mutations(self, incident: Incident) -> Iterator[pytest.Item]:
        number = 0
        for block in incident.of("mitigate"):
            for command in block.commands:
                yield Mutation.from_parent(
                    self,
                    name=f"{incident.id}-without-{number + 1}",
                    incident=incident,
                    without=number,
                    command=command.text,
                    optional=block.optional,
                )
                number += 1


class _Test(pytest.Item):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_marker(pytest.mark.timeout(LIMIT))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        # What is wrong with a page or with a host is not in a traceback.
        said = []
        error: BaseException | None = excinfo.value
        while isinstance(error, AssertionError):
            said.append(str(error))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(reversed(said)) or super().repr_failure(excinfo)

    def _try(self, made: trial.Trial) -> trial.Outcome:
        try:
            return made.run()
        except AssertionError:
            self.add_report_section("call", "what the relay said last", made.last_words)
            raise

    def _again(self, run: Callable[[], _Made]) -> _Made:
        """What `run` gives; where it fails, what it gives the second time, if that is wanted."""
        try:
            return run()
        except AssertionError as wrong:
            if not self.config.option.sop_again or getattr(wrong, "is_loss", False):
                raise
            first = str(wrong).partition("\n")[0]
            print(f"once more, for the first try failed: {first}", flush=True)
        made = run()
        self.user_properties.append(("again", first))
        self.config.stash[FIRST_TRIES].append(f"{self.name}: {first}")
        return made

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class SectionTest(_Test):
    def __init__(self, *, section: Section, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._section = section

    def runtest(self) -> None:
        self._again(lambda: trial.check(self._section))


class IncidentTest(_Test):
    def __init__(self, *, incident: Incident, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._incident = incident

    def runtest(self) -> None:
        observe = self.config.option.sop_mutate
        outcome = self._again(lambda: self._try(trial.Trial(self._incident, observe=observe)))
        self.config.stash[OUTCOMES][self._incident.id] = outcome
        self.config.stash[UNNOTICED].extend(outcome.idle)
        if self.config.option.sop_prove:
            every = [incident.id for incident in self.config.stash[DOCUMENT].incidents]
            proven.write({self._incident.id: outcome}, every)


class Mutation(_Test):
    """The incident without one command of Mitigate: that has to be noticed, from there on."""

    def __init__(
        self, *, incident: Incident, without: int, command: str, optional: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._incident = incident
        self._without = without
        self._command = command
        self._optional = optional

    def runtest(self) -> None:
        try:
            self._try(trial.Trial(self._incident, without=self._without))
        except trial.PageWrong as wrong:
            if wrong.stage in trial.BEFORE_MITIGATE:
                raise
            self.config.stash[NOTICED].append(f"{self.name}: at {wrong.stage}: {self._command}")
            return
        line = f"{self._incident.id}, Mitigate: `{self._command}`"
        self.config.stash[UNNOTICED].append(line + (" (optional)" if self._optional else ""))
        if not self._optional:
            raise trial.PageWrong("mutation", f"nothing notices the loss of {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config, line = terminalreporter.config, terminalreporter.write_line
    if outcomes := config.stash[OUTCOMES]:
        terminalreporter.section("incidents")
        line(f"{'incident':<28} {'seconds':>8}  lost   of    legacy  of    missed")
        for id_, outcome in outcomes.items():
            lost, sent = outcome.cost.lost, outcome.cost.sent
            line(
                f"{id_:<28} {outcome.seconds:>8.1f}  {lost['acked']:<6} {sent['acked']:<5}"
                f" {lost['legacy']:<7} {sent['legacy']:<5} {outcome.cost.missed}"
            )
    if first_tries := config.stash[FIRST_TRIES]:
        terminalreporter.section("passed at the second try only, and what the first said")
        for tried in first_tries:
            line(tried)
    if config.option.sop_mutate:
        terminalreporter.section("commands whose loss is noticed")
        for command in config.stash[NOTICED]:
            line(command)
        terminalreporter.section("commands whose loss nothing notices")
        for command in config.stash[UNNOTICED]:
            line(command)
    manual = config.stash[DOCUMENT].manual
    terminalreporter.section(f"{len(manual)} console blocks are run by hand only")
    for where in manual:
        line(where)
