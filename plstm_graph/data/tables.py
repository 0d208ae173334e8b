"""Files of molecules: tables with named columns, and .smi; packed with gzip or not."""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from plstm_graph.data import source
from plstm_graph.data.dialect import read_cells, read_text
from plstm_graph.data.formats import reader_of
from plstm_graph.data.smiles import parse
from plstm_graph.errors import DataError, listed, unknown
from plstm_graph.io.files import kind
from plstm_graph.tasks import LARGEST

SMILES_COLUMNS = ("smiles", "canonical_smiles", "isomeric_smiles")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # cells without a label, in any case
SMI = (".smi", ".smiles")
MOST_UNUSABLE, MOST_TOLD = 0.1, 10
"""Share of rows with labels of which one cannot be used; and how many of them an error names."""
REPAIR = (
    "classes are numbered 0, 1, ...; decimals have a point, or a comma where semicolons part the cells; bounds such as "
    "<5 take --censored; very large numbers take other units, or logarithms"
)
log = logging.getLogger(__name__)
Required = Callable[[float], str]
_PATTERN = re.compile(r"[*?\[]")
_ID = re.compile(r"(^|[^a-z])(ids?|names?)$")
_BOUND = re.compile(r"(>=|<=|=>|=<|[<>≤≥])\s*(.+)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A CSV file as texts: ``rows[i][j]`` is row i + 1 (header not counted) of ``columns[j]``."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str = ","

    def column(self, name: str) -> list[str]:
        """All cells of a column, by its name; upper and lower case count as equal where that is unambiguous."""
        name = " ".join(name.split())
        exact = [i for i, column in enumerate(self.columns) if column == name]
        found = exact or [i for i, column in enumerate(self.columns) if column.casefold() == name.casefold()]
        if not found:
            self._check_header()
            raise DataError(f"{self.path.name}: {unknown('column', name, self.columns)}")
        if len(found) > 1:
            raise DataError(f"{self.path.name} has {len(found)} columns named {name!r}; rename all but one")
        return [row[found[0]] for row in self.rows]

    def with_points(self, cells: Sequence[str]) -> list[str]:
        """Cells of a column with decimal points: where semicolons part cells, a column may have commas in place of
        points, but not both."""
        comma = self.delimiter == ";" and not any("." in cell and number(cell) is not None for cell in cells)
        return [cell.replace(",", ".", 1) for cell in cells] if comma else list(cells)

    def smiles(self, column: str | None = None, usual: str | None = None) -> list[str]:
        """The column of SMILES: the given one, or else the first of ``usual`` and ``SMILES_COLUMNS`` that is there."""
        if column is not None:
            return self.column(column)
        if usual is not None and self.has(usual):
            return self.column(usual)
        present = {name.casefold() for name in self.columns}
        for name in SMILES_COLUMNS:
            if name in present:
                return self.column(name)
        self._check_header()
        raise DataError(
            f"{self.path.name} has no column named {' or '.join(SMILES_COLUMNS)}; its columns are "
            f"{listed(self.columns)}; say which one holds the SMILES (smiles_column, --smiles-column)"
        )

    def ids(self, taken: Sequence[str] = ()) -> list[str]:
        """Cells of the first column that is called an id or a name and is not ``taken``; empty where there is none."""
        for place, name in enumerate(self.columns):
            if _ID.search(name.casefold()) and name not in taken:
                return [row[place] for row in self.rows]
        return []

    def labels(self, targets: Sequence[str]) -> list[list[float]]:
        """Numbers of the target columns, row by row; NaN where a cell is empty.

        Raises:
            DataError: no such column; a cell that is neither empty nor a number.
        """
        values, unusable = self._labels(targets, lambda _: "", False)
        for row, (name, cell, reason) in sorted(unusable.items()):
            raise DataError(
                f"{self.path.name}, row {row} (header not counted), column {name!r}: {reason}, got {cell!r}; {REPAIR}"
            )
        return values

    def usable_labels(
        self, targets: Sequence[str], required: Required, *, bounds: bool = False
    ) -> tuple[list[list[float]], dict[int, str]]:
        """As :meth:`labels`, but a row with a cell that cannot be used has no label; and the reasons, by row from 1.

        Args:
            targets: names of the columns.
            required: what else a label must be, where a number is not that, as :meth:`plstm_graph.tasks.Task.required`.
            bounds: a label may be one, as ``>10``; behind the numbers of a row then stand their sides, see
                :class:`plstm_graph.tasks.Regression`.

        Raises:
            DataError: such rows are more than :data:`MOST_UNUSABLE` of those with labels.
        """
        values, unusable = self._labels(targets, required, bounds)
        labelled = len(unusable) + sum(not all(map(math.isnan, row)) for row in values)
        if len(unusable) > MOST_UNUSABLE * labelled:
            told = [
                f"row {row}, column {name!r}: {cell!r}" for row, (name, cell, _) in sorted(unusable.items())[:MOST_TOLD]
            ]
            told += [f"and {len(unusable) - MOST_TOLD} more"] if len(unusable) > MOST_TOLD else []
            reasons = dict.fromkeys(reason for _, (_, _, reason) in sorted(unusable.items()))
            raise DataError(
                f"{self.path.name}: {len(unusable)} of {labelled} rows with labels have one that cannot be used, more "
                f"than {MOST_UNUSABLE:.0%} (header not counted): {'; '.join([*told, *reasons])}; {REPAIR}"
            )
        return values, {
            row: f"{reason}, got {cell!r} in column {name!r}" for row, (name, cell, reason) in unusable.items()
        }

    def targets(self, asked: Sequence[str], smiles_column: str | None = None) -> tuple[str, ...]:
        """Names of the target columns that ``asked`` means.

        Args:
            asked: names; patterns such as ``NR-*``, and ``*`` for all columns but that of the SMILES; those behind a
                ``!`` are left out. A pattern passes over columns without any number, which the log names.
            smiles_column: see :meth:`smiles`.

        Raises:
            DataError: a pattern that no column of numbers matches.
        """
        wanted = [name for name in asked if self.has(name) or not name.startswith("!")]
        unwanted = [name[1:] for name in asked if name not in wanted]
        found: dict[str, None] = {}
        for name in wanted or (["*"] if unwanted else []):
            if self.has(name) or not _PATTERN.search(name):
                if name in found and asked.count(name) > 1:
                    raise DataError(f"a target column is named twice: {', '.join(asked)}")
                found[name] = None
                continue
            smiles = (*SMILES_COLUMNS, (smiles_column or "").casefold())
            columns = [each for each in self._matching(name) if each.casefold() not in smiles]
            numbers = [
                each
                for each in columns
                if any(number(cell.replace(",", ".", 1)) is not None for cell in self.column(each))
            ]
            if len(numbers) < len(columns):
                log.warning(
                    f"{self.path.name}: no targets, since they hold no numbers: {listed(set(columns) - set(numbers))}"
                )
            if not numbers:
                raise DataError(
                    f"{self.path.name}: no column of numbers is called {name!r}; its columns are {listed(self.columns)}"
                )
            found |= dict.fromkeys(numbers)
        left_out = {each for name in unwanted for each in self._matching(name)}
        chosen = tuple(name for name in found if name not in left_out)
        if odd := [name for name in chosen if name not in asked and _ID.search(name.casefold())]:
            log.warning(
                f"{self.path.name}: {listed(map(repr, odd))} is a target as {', '.join(wanted or ['*'])} has it; if it "
                f"numbers rows, add --targets '!{odd[0]}'"
            )
        return chosen

    def has(self, name: str) -> bool:
        """Whether :meth:`column` finds one."""
        return " ".join(name.split()).casefold() in (column.casefold() for column in self.columns)

    def _matching(self, pattern: str) -> list[str]:
        return [column for column in self.columns if fnmatchcase(column.casefold(), pattern.casefold())]

    def _labels(
        self, targets: Sequence[str], required: Required, bounds: bool
    ) -> tuple[list[list[float]], dict[int, tuple[str, str, str]]]:
        """Numbers row by row, and of rows with a cell that is none: its column, the cell, what must hold."""
        if not targets:
            raise DataError(
                f"name the target column(s) of {self.path.name} (--targets); its columns are {listed(self.columns)}"
            )
        if len(set(targets)) < len(targets):
            raise DataError(f"a target column is named twice: {', '.join(targets)}")
        unusable: dict[int, tuple[str, str, str]] = {}
        columns = [self._numbers(name, unusable, required, bounds) for name in targets]
        if bounds:
            columns += [list(map(_side, self.column(n), c)) for n, c in zip(targets, columns, strict=True)]
        rows = [list(row) for row in zip(*columns, strict=True)]
        for row in unusable:
            rows[row - 1] = [math.nan] * len(columns)
        return rows, unusable

    def _numbers(
        self, name: str, unusable: dict[int, tuple[str, str, str]], required: Required, bounds: bool
    ) -> list[float]:
        given = self.column(name)
        cells = [_unbounded(cell) for cell in given] if bounds else given
        if all(cell.casefold() in MISSING for cell in cells):
            raise DataError(f"{self.path.name}: no row has a label in column {name!r}")
        values = []
        for row, (cell, text) in enumerate(zip(cells, self.with_points(cells), strict=True), start=1):
            value = number(text)
            if cell.casefold() in MISSING:
                value = math.nan
            elif value is None:
                unusable.setdefault(row, (name, given[row - 1], _no_number(cell)))
            elif abs(value) > LARGEST:
                reason = f"a label must lie within ±{LARGEST:g}"
                unusable.setdefault(row, (name, given[row - 1], reason))
            elif reason := required(value):
                unusable.setdefault(row, (name, given[row - 1], reason))
            values.append(math.nan if value is None else value)
        return values

    def _check_header(self) -> None:
        """Raises DataError where the first line is not one of names, but a molecule as the others."""
        for column, name in enumerate(self.columns):
            cells = [name, *(row[column] for row in self.rows[:1])]
            if all(_is_molecule(cell) for cell in cells):
                raise DataError(
                    f"{self.path.name} has no header: its first line holds the molecule {name.split()[0]!r}; put "
                    "column names above it, such as smiles,y, or name a list of SMILES alone .smi"
                )


def _no_number(cell: str) -> str:
    """What must hold of a label."""
    bound = ", or a bound with --censored," if _BOUND.fullmatch(cell) else ","
    return f"a label must be a finite number{bound} or empty where there is none"


def _unbounded(cell: str) -> str:
    """What a cell says without a sign of a bound."""
    return match[2] if (match := _BOUND.fullmatch(cell)) else cell


def _side(cell: str, value: float) -> float:
    """1 for a lower bound, -1 for an upper one, 0 for a number; NaN where there is no number."""
    match = _BOUND.fullmatch(cell)
    if match is None or math.isnan(value):
        return 0.0 if value == value else math.nan
    return 1.0 if match[1][0] in ">≥" or match[1] == "=>" else -1.0


def number(cell: str) -> float | None:
    """The number that a cell writes in ASCII digits with a decimal point, or None."""
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _is_molecule(cell: str) -> bool:
    try:
        return parse(cell.split()[0]) is not None
    except (DataError, IndexError):
        return False


def read_table(path: str | Path) -> Table:
    """Read a CSV file (UTF-8, header first; semicolons, tabs and vertical bars are noticed), or one of
    :mod:`plstm_graph.data.formats`: an SD file, an Excel workbook or a Parquet file.

    Blank lines at the end are ignored; elsewhere a blank line is a row of empty cells, so that row numbers agree with
    the lines of the file. Rows shorter than the header get empty cells.

    Raises:
        DataError: the file is missing, unreadable, empty, without data rows or header, or has a row longer than it.
    """
    path = Path(path)
    content = source.read_bytes(path)
    if reader := reader_of(content):
        names, cells = reader(content, path.name)
        lines, delimiter = [names, *cells], ","
    else:
        lines, delimiter = read_cells(path, content)
    while lines and not any(cell.strip() for cell in lines[0]):
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        Table(path, tuple(lines[0]) if lines else (), ())._check_header()
        raise DataError(f"{path.name} holds {'a header but no rows' if lines else 'no rows'}")
    columns = tuple(" ".join(cell.split()) for cell in lines[0])  # a name on one line
    rows = tuple(_fit(line, len(columns), row, path) for row, line in enumerate(lines[1:], start=1))
    return Table(path, columns, rows, delimiter)


def read_smiles(path: str | Path, smiles_column: str | None = None) -> list[str]:
    """The SMILES texts of a file, one a row and in order, including those that cannot be parsed.

    Args:
        path: a CSV file with a SMILES column, or an ``.smi`` file: one SMILES a line, optionally a blank and an id,
            where a blank line between others is a row with an empty text. Either may be packed, with ``.gz``.
        smiles_column: name of the column; by default the first of ``SMILES_COLUMNS`` that the file has.

    Raises:
        DataError: see :func:`read_table`.
    """
    return read_rows(path, smiles_column)[1]


def read_rows(path: str | Path, smiles_column: str | None = None, usual: str | None = None) -> tuple[Table, list[str]]:
    """As :func:`read_smiles`, with the whole table; that of an ``.smi`` file has the columns ``smiles`` and ``id``.

    ``usual`` is a column that is taken before those of ``SMILES_COLUMNS``, where there is one of that name.
    """
    path = Path(path)
    if kind(path) not in SMI:
        table = read_table(path)
        return table, table.smiles(smiles_column, usual)
    if smiles_column is not None:
        raise DataError(f"{path.name} is an .smi file, which has no named columns; leave out {smiles_column!r}")
    lines = (line.split(maxsplit=1) for line in read_text(path, source.read_bytes(path)).rstrip().split("\n"))
    rows = tuple((line[0] if line else "", line[1].rstrip() if line[1:] else "") for line in lines)
    return Table(path, ("smiles", "id"), rows), [text for text, _ in rows]


def _fit(line: list[str], width: int, row: int, path: Path) -> tuple[str, ...]:
    cells = [cell.strip() for cell in line]
    if any(cells[width:]):
        raise DataError(
            f"{path.name}, row {row} (header not counted) has {len(cells)} cells but the header has {width}; "
            "put quotation marks around a text that holds the delimiter"
        )
    return tuple(cells[:width] + [""] * (width - len(cells)))
