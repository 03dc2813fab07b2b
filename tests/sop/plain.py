"""A section of a document as text for a terminal, from asciidoctor's DocBook."""

from __future__ import annotations

import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

WIDTH = 100
INDENT = "    "

_DOCBOOK = "{http://docbook.org/ns/docbook}"
_ID = "{http://www.w3.org/XML/1998/namespace}id"
_QUOTES = {"literal": "`", "emphasis": "*"}
_VERBATIM = ("programlisting", "screen", "literallayout")


def section(root: ET.Element, id_: str) -> str:
    """The section of that id, with all below it. Raises KeyError if there is none."""
    titles = {found.get(_ID, ""): found for found in root.iter() if found.get(_ID)}
    renderer = _Renderer({name: _title(found) for name, found in titles.items()})
    return "\n".join(renderer.blocks([titles[id_]], WIDTH)).strip() + "\n"


class _Renderer:
    """`titles`: those of all sections by their id, for references."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles

    def blocks(self, elements: Iterable[ET.Element], width: int, underline: str = "=") -> list[str]:
        """Lines of blocks, with an empty line before each."""
        lines: list[str] = []
        for element in elements:
            kind = _kind(element)
            if kind == "section":
                title = _title(element)
                lines += ["", title, underline * len(title)]
                lines += self.blocks(element, width, "-")
            elif kind in ("simpara", "para") and not _has_blocks(element):
                lines += ["", *self._wrapped(element, width)]
            elif kind in _VERBATIM:
                text = "".join(element.itertext())
                lines += ["", *(INDENT + line for line in text.splitlines())]
            elif kind in ("orderedlist", "itemizedlist"):
                for number, item in enumerate(element, 1):
                    mark = f"{number}." if kind == "orderedlist" else "*"
                    lines += self._item(mark, self.blocks(item, width - len(INDENT)))
            elif kind == "varlistentry" or kind == "row":
                head, *rest = [part for part in element if _kind(part) != "colspec"]
                lines += ["", *self._inline_or_blocks(head, width)]
                for part in rest:
                    below = self._inline_or_blocks(part, width - len(INDENT))
                    lines += [INDENT + line if line else "" for line in below]
            elif kind == "title":
                # A section's is above; a block's says on which host.
                continue
            elif kind == "formalpara":
                lines += ["", f"{_title(element)}:"]
                lines += self.blocks(element, width)
            elif kind == "thead":
                continue
            else:
                lines += self.blocks(element, width, underline)
        return lines

    def _item(self, mark: str, lines: list[str]) -> list[str]:
        first, *rest = lines[1:] or [""]
        head = f"{mark:<{len(INDENT)}}{first}".rstrip()
        return ["", head, *(INDENT + line if line else "" for line in rest)]

    def _inline_or_blocks(self, element: ET.Element, width: int) -> list[str]:
        if _has_blocks(element):
            return self.blocks(element, width)[1:]
        return self._wrapped(element, width)

    def _wrapped(self, element: ET.Element, width: int) -> list[str]:
        text = " ".join(self._inline(element).replace("\u200b", "").split())
        # A path or an option stays whole, to be found and pasted.
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def _inline(self, element: ET.Element) -> str:
        text = element.text or ""
        for child in element:
            kind = _kind(child)
            if kind == "xref":
                name = child.get("linkend", "")
                text += f'"{self._titles.get(name, name)}"'
            else:
                quote = _QUOTES.get(kind, "")
                text += quote + self._inline(child) + quote
            text += child.tail or ""
        return text


def _kind(element: ET.Element) -> str:
    return element.tag.removeprefix(_DOCBOOK)


def _has_blocks(element: ET.Element) -> bool:
    blocks = ("simpara", "para", "formalpara", "orderedlist", "itemizedlist", *_VERBATIM)
    return any(_kind(child) in blocks for child in element)


def _title(element: ET.Element) -> str:
    title = element.find(f"{_DOCBOOK}title")
    return "" if title is None else " ".join("".join(title.itertext()).split())
