"""Tables for people: whole at any width.

A number is never cut. Where a table is wider than the terminal, text that may be folded is folded
first; then the least important columns are left out, and the title says how many. Where there is no
terminal, as in a pipe, or with --wide, nothing is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

__all__ = ["Cell", "Column", "Table", "make_console", "number", "table_of", "text"]

Cell = str | Text

UNLIMITED = 4096
GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        heading: what stands above it.
        rank: 0 is always shown; of the others, the one with the greatest rank is left out first.
        is_number: right-aligned.
        folds: its text may take several lines.
        least: letters that it is folded to at least, while other columns can be left out instead.
    """

    heading: str
    rank: int = 0
    is_number: bool = False
    folds: bool = False
    least: int = 16


def text(heading: str, rank: int = 0, *, folds: bool = False, least: int = 16) -> Column:
    """A column of text."""
    return Column(heading, rank, folds=folds, least=least)


def number(heading: str, rank: int = 0) -> Column:
    """A column of numbers."""
    return Column(heading, rank, is_number=True)


class Table:
    """A table that rich can print alone, in groups and live.

    Args:
        title: the line above it; "" for none.
        columns: in order, the most important one first where all are equal.
    """

    def __init__(self, title: str, columns: Sequence[Column]) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.rows: list[tuple[Cell, ...]] = []
        self.has_headings = True

    def add(self, *cells: Cell) -> None:
        """Add a row with a cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} cells, got {len(cells)}")
        self.rows.append(cells)

    def add_all(self, rows: Iterable[Sequence[Cell]]) -> Table:
        """Add rows; return the table."""
        for row in rows:
            self.add(*row)
        return self

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, widths = self._fit(options.max_width)
        n_left_out = len(self.columns) - len(shown)
        note = f"({n_left_out} more: --wide)" if n_left_out else ""
        if self.title or note:
            yield from _line(Text.assemble((self.title, "italic"), " " * bool(self.title and note)))
            if note:
                yield Segment(note, Style(dim=True))
            yield Segment.line()
        if self.has_headings:
            headings = [Text(self.columns[index].heading, "bold") for index in shown]
            yield from self._row(console, shown, widths, headings)
        for row in self.rows:
            yield from self._row(console, shown, widths, [row[index] for index in shown])

    def _row(
        self,
        console: Console,
        shown: Sequence[int],
        widths: Sequence[int],
        cells: Sequence[Cell],
    ) -> RenderResult:
        made = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        folded = [_fold(console, cell, width) for cell, width in zip(made, widths, strict=True)]
        for number_of_line in range(max(map(len, folded), default=0)):
            line = Text()
            for index, lines, width in zip(shown, folded, widths, strict=True):
                part = lines[number_of_line] if number_of_line < len(lines) else Text()
                space = " " * (width - part.cell_len)
                line.append_text(
                    Text.assemble(space, part)
                    if self.columns[index].is_number
                    else Text.assemble(part, space)
                )
                line.append(" " * GAP)
            line.rstrip()
            yield from _line(line)
            yield Segment.line()

    def _fit(self, limit: int) -> tuple[list[int], list[int]]:
        """The columns that fit into `limit` letters, and their widths."""
        shown = list(range(len(self.columns)))
        while True:
            widths = self._widths(shown, limit)
            if sum(widths) + GAP * (len(shown) - 1) <= limit:
                return shown, widths
            rank = max(self.columns[index].rank for index in shown)
            if rank == 0:
                return shown, self._widths(shown, limit, is_last=True)
            shown.remove(max(index for index in shown if self.columns[index].rank == rank))

    def _widths(self, shown: Sequence[int], limit: int, *, is_last: bool = False) -> list[int]:
        """Widths of the `shown` columns, folded as far as that is needed and allowed.

        Args:
            is_last: no more columns can be left out, so that all text is folded.
        """
        widths = {index: self._natural(index) for index in shown}
        over = sum(widths.values()) + GAP * (len(shown) - 1) - limit
        while over > 0:
            folding = [index for index in shown if widths[index] > self._least(index, is_last)]
            if not folding:
                break
            widest = max(folding, key=lambda index: widths[index])
            widths[widest] -= 1
            over -= 1
        return [widths[index] for index in shown]

    def _least(self, index: int, is_last: bool) -> int:
        column = self.columns[index]
        if column.is_number or not (column.folds or is_last):
            return self._natural(index)
        return max(1 if is_last else column.least, cell_len(column.heading))

    def _natural(self, index: int) -> int:
        cells = (row[index] for row in self.rows)
        lengths = (cell.cell_len if isinstance(cell, Text) else cell_len(cell) for cell in cells)
        return max([cell_len(self.columns[index].heading), *lengths])


def table_of(title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column]) -> Table:
    """A table of mappings.

    Args:
        columns: in order, each with the field that it shows; None is shown as nothing.
    """
    table = Table(title, tuple(columns.values()))
    return table.add_all(
        tuple("" if row[field] is None else str(row[field]) for field in columns) for row in rows
    )


def _fold(console: Console, cell: Text, width: int) -> list[Text]:
    if cell.cell_len <= width:
        return [cell]
    lines = list(cell.wrap(console, width, overflow="fold"))
    for line in lines:
        line.rstrip()
    return lines


def _line(line: Text) -> Iterable[Segment]:
    """The segments of a line, whatever its length: rich would cut it."""
    at = 0
    plain = line.plain
    for span in sorted(line.spans, key=lambda span: span.start):
        if span.start > at:
            yield Segment(plain[at : span.start])
        style = span.style if isinstance(span.style, Style) else Style.parse(span.style)
        yield Segment(plain[max(at, span.start) : span.end], style)
        at = max(at, span.end)
    if at < len(plain):
        yield Segment(plain[at:])


def make_console(
    *, to_stderr: bool = False, is_wide: bool = False, has_colour: bool = True
) -> Console:
    """A console; without a terminal its lines may have any length.

    The environment counts as usual: COLUMNS, and NO_COLOR.
    """
    console = Console(stderr=to_stderr, no_color=True if not has_colour else None)
    is_limited = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    if is_wide or not is_limited:
        console.width = UNLIMITED
    return console
