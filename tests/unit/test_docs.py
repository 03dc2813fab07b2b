"""tools/docs: what the documents are rendered to."""

from __future__ import annotations

import html
import json
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


# All of it is one site


def targets(page: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page))


def test_every_link_within_the_site_leads_somewhere(rendered: Path) -> None:
    pages = {path.name: path.read_text() for path in rendered.glob("*.html")}
    assert len(pages) > len(NAMES) + 3
    wrong, seen = [], 0
    for name, page in pages.items():
        written = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
        for link in map(html.unescape, re.findall(r'<a [^>]*href="([^"]+)"', written)):
            if re.match(r"\w+:", link):
                continue
            seen += 1
            path, _, anchor = link.partition("#")
            target = pages.get(path or name)
            if target is None or (anchor and anchor not in targets(target)):
                wrong.append(f"{name}: {link}")
    assert seen > 500
    assert wrong == []


def test_the_index_leads_to_every_page_and_each_page_back(rendered: Path) -> None:
    index = (rendered / "index.html").read_text()
    listed = re.findall(r'<li><a href="([^"]+)">([^<]+)</a></li>', index)
    assert listed[0] == ("sop.html", "fedmsg-relay SOP")
    names = [name for name, _ in listed]
    assert sorted(names) == sorted(
        p.name for p in rendered.glob("*.html") if p != rendered / "index.html"
    )
    assert {f"{name}.html" for name in NAMES} | {"fedmsg-logger.1.html"} <= set(names)
    for name in NAMES:
        assert '<a href="index.html">' in (rendered / f"{name}.html").read_text()
    # It is one file: nothing is loaded, from a server or from anywhere.
    assert not re.search(
        r"<(?:link|script|img|iframe)\b[^>]*(?:src|href)=|\b(?:fetch|import)\(", index
    )


def found(rendered: Path, tmp_path: Path, words: str) -> list[str]:
    """Where the search of the index leads to, the best first."""
    [script] = re.findall(r"<script>(.*?)</script>", (rendered / "index.html").read_text(), re.S)
    page = "const document = {getElementById: () => ({addEventListener() {}})};"
    call = f"console.log(JSON.stringify(search({json.dumps(words)}).map((each) => each.place)));"
    (tmp_path / "search.js").write_text(f"{page}\n{script}\n{call}\n")
    done = subprocess.run(
        ["node", tmp_path / "search.js"], capture_output=True, text=True, timeout=60, check=True
    )
    return list(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("port is held by", "sop.html#"),
        ("PORT held", "sop.html#"),
        ("fedmsg_base_relay_allow", "deploying.html#"),
        ("--no-spool", "fedmsg-logger.1.html#OPTIONS"),
        ("acknowledged spooled rule", "delivery.html#_the_rule"),
    ],
)
def test_the_search_finds(rendered: Path, tmp_path: Path, words: str, place: str) -> None:
    places = found(rendered, tmp_path, words)
    assert any(each.startswith(place) for each in places[:40]), places[:40]
    for each in places:
        path, _, anchor = each.partition("#")
        assert not anchor or anchor in targets((rendered / path).read_text()), each


@pytest.mark.parametrize("words", ["", "   ", "nowhere-at-all"])
def test_the_search_finds_nothing(rendered: Path, tmp_path: Path, words: str) -> None:
    assert found(rendered, tmp_path, words) == []
