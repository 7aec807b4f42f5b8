"""The blocks of code in the documentation, and what is said of those that no test runs."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
CODE, OUTPUT = ("python", "sh"), ("text", "math")
MARK = re.compile(r"<!-- not run: (.{8,}) -->")


@dataclass(frozen=True)
class Block:
    """One of a page.

    Args:
        page: below the repository.
        line: of its fence.
        language: behind the fence.
        text: between the fences.
        reason: why it is not run, if it is marked.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str = ""

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def commands(self):
        """Lines of a shell block: continued ones in one, comments gone."""
        whole = re.sub(r"\\\n\s*", "", self.text)
        lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in whole.splitlines()]
        return [line for line in lines if line]


def blocks(page):
    """All blocks of a page, in order."""
    lines = (ROOT / page).read_text(encoding="utf-8").split("\n")
    found, start, before = [], None, ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            before = line if start is None and line else before
            continue
        if start is None:
            start = number
            continue
        marked = MARK.fullmatch(before)
        language = lines[start - 1].removeprefix("```")
        text = "".join(f"{inner}\n" for inner in lines[start : number - 1])
        found.append(Block(page, start, language, text, marked[1] if marked else ""))
        start, before = None, ""
    assert start is None, f"{page}: a fence is not closed"
    return found


def indented(page):
    """Commands that stand in a page as indented lines, where no test finds them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.findall(r"^ {4}(?:\$ )?(?:ddpm|python|pip|make|torchrun) .*", text, re.M)
