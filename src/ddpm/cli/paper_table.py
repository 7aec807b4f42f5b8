"""A table of the paper with one's own numbers in it: what was not measured is empty and says why.

It is printed, written as JSON, and put on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.figures.html_page import HtmlPage


@dataclass(frozen=True)
class Cell:
    """A number, or nothing and why.

    Args:
        value: as measured; None if it was not.
        why: the reason for an empty cell.
        error: standard error of the value, where it is known.
        source: what was measured, in words.
        digits: behind the point.
        most: whether the value is an upper bound.
    """

    value: float | None
    why: str = ""
    error: float | None = None
    source: str = ""
    digits: int = 2
    most: bool = False

    def __str__(self) -> str:
        if self.value is None:
            return ""
        said = f"{'≤ ' if self.most else ''}{self.value:,.{self.digits}f}"
        return said if self.error is None else f"{said} ± {self.error:.{self.digits}f}"

    def document(self) -> dict[str, Any]:
        """For JSON: without a value there is a reason."""
        if self.value is None:
            return {"value": None, "why": self.why}
        return {"value": self.value, "standard_error": self.error, "source": self.source}


@dataclass
class PaperTable:
    """Rows of words, and what is to be said below them.

    Args:
        title: what it is.
        head: names of the columns.
        rows: cells of the columns.
        notes: a line each.
    """

    title: str
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def explain(self, cells: dict[str, Cell]) -> None:
        """A note on each of the cells, by its name: where it is from, or why it is empty; cells of
        the same fate share one."""
        said: dict[str, list[str]] = {}
        for name, cell in cells.items():
            text = f"empty, {cell.why}" if cell.value is None else cell.source
            said.setdefault(text, []).append(name)
        self.notes += [f"{', '.join(names)}: {text}" for text, names in said.items() if text]

    def show(self) -> None:
        """Print it."""
        table = Table(*map(escape, self.head), title=escape(self.title), title_justify="left")
        for row in self.rows:
            table.add_row(*map(escape, row))
        console = Console()
        console.print(table)
        for note in self.notes:
            console.print(escape(note), highlight=False, soft_wrap=True)

    def put(self, page: HtmlPage) -> None:
        """Add it to a page, under its title."""
        page.section(self.title)
        page.table(self.head, self.rows)
        for note in self.notes:
            page.text(note)


def differences_table(title: str, rows: Sequence[Sequence[str]]) -> PaperTable:
    """What differs in training, as a table of its own."""
    return PaperTable(title, ["in training", "this model", "the paper"], [list(r) for r in rows])
