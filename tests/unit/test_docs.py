"""tools/docs: what the documents are rendered to."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "docs").glob("*.adoc"))
# The renderer writes to places within the checkout only.
OUTPUT = ROOT / "build/unit/docs"


@pytest.fixture(scope="module")
def rendered() -> Path:
    done = subprocess.run(
        [ROOT / "tools/docs", "build/unit/docs"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return OUTPUT


@pytest.mark.parametrize("name", NAMES)
def test_every_document_is_one_page_and_one_pdf(rendered: Path, name: str) -> None:
    page = (rendered / f"{name}.html").read_text()
    assert not re.search(
        r"<(?:link|script|img|object|iframe)\b[^>]*(?:src|href|data)=\"(?!data:)", page
    )
    assert (rendered / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    # Narrow screens: the width is the screen's, and it is our style that follows Asciidoctor's.
    assert '<meta name="viewport" content="width=device-width' in page
    assert page.index("@media screen and (max-width: 767px)") > page.index("Asciidoctor default")


def test_what_to_type_is_told_from_what_comes_back(rendered: Path) -> None:
    for name in NAMES:
        page = (rendered / f"{name}.html").read_text()
        source = (ROOT / f"docs/{name}.adoc").read_text()
        marked = re.findall(
            r'<span class="prompt">\$ </span><span class="command">(.*)</span>', page
        )
        commands = [html.unescape(command) for command in marked]
        assert len(commands) >= len(re.findall(r"^\$ ", source, re.M))
        for command in re.findall(r"^\$ (.*)$", source, re.M):
            if "{" not in command:  # an attribute
                assert command in commands


def test_references_have_words(rendered: Path) -> None:
    """To an anchor without a title, asciidoctor shows the bare id."""
    for name in NAMES:
        page = (rendered / f"{name}.html").read_text()
        assert not re.findall(r'<a href="#[^"]*">\[[^<]*\]</a>', page)
