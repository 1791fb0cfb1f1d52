"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>run:(?:(?!-->).)*?|demo|shown)\s*-->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?P<output>\n\n<!-- output -->\n```text\n(?P<expected>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


class Block:
    """One fenced block.

    Attributes:
        language: of the fence, "" when there is none.
        comment: the words of the HTML comment before it: ``demo``, ``shown``, or ``run: ...`` (see test_snippets.py).
        expected: what it prints, None when the page does not tell.
    """

    def __init__(self, page: Path, text: str, match: re.Match[str]) -> None:
        self.page = page
        self.line = text.count("\n", 0, match.start("code"))
        self.language = match["language"]
        self.comment = match["comment"] or ""
        self.code = match["code"]
        self.expected = match["expected"]

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [Block(page, text, match) for match in _BLOCK.finditer(text)]
    return [block for block in found if block.language in languages]


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head and rule."""
    text = page.read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"no heading {heading!r} in {page.name}"
    rows = [line for line in section[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]
