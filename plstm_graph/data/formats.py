"""Tables that are no text: Excel workbooks, Parquet files and SD files, as columns and rows of texts.

Which one a file is, is told by its content, packed with gzip or not. Numbers become the shortest texts that mean them,
so that every format gives the very same labels.
"""

import io
import logging
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from importlib import import_module
from typing import Any

from plstm_graph.data.molecules import from_mol_block
from plstm_graph.data.source import check_unpacked
from plstm_graph.errors import DataError, listed, missing_extra

log = logging.getLogger(__name__)

Cells = tuple[list[str], list[list[str]]]
"""Names of the columns, and rows."""
NAME = "id"
"""Column for what an SD file calls its structures."""
END = "$$$$"


def reader_of(content: bytes) -> Callable[[bytes, str], Cells] | None:
    """What reads a file that begins so, called with its content and its name; None for text."""
    if content.startswith(b"PAR1"):
        return read_parquet
    if content.startswith(b"PK\x03\x04") and b"xl/workbook" in content:
        return read_excel
    fourth = content.split(b"\n", 4)[3:4]
    counted = bool(fourth) and fourth[0].rstrip().endswith((b"V2000", b"V3000"))
    return read_sdf if b"\nM  END" in content and (counted or f"\n{END}".encode() in content) else None


def read_parquet(content: bytes, name: str) -> Cells:
    """A Parquet file; whole numbers stay whole beside missing ones."""
    return _cells(_by_pandas("read_parquet", "pyarrow", content, name, dtype_backend="numpy_nullable"))


def read_excel(content: bytes, name: str) -> Cells:
    """The first sheet of an Excel workbook, its first row the names of the columns."""
    book: dict[str, Any] = _by_pandas(
        "read_excel", "openpyxl", content, name, sheet_name=None, dtype=object, keep_default_na=False
    )
    first, *others = book
    if others:
        log.warning(f"{name}: of {len(book)} sheets the first is read, {first!r}, not {listed(others)}")
    return _cells(book[first])


def _unfolded(content: bytes) -> int:
    """Bytes that a workbook or a Parquet file says it unfolds to; 0 for a damaged one."""
    with suppress(Exception):  # each engine has its own for what is damaged
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return sum(entry.file_size for entry in archive.infolist())
        told = import_module("pyarrow.parquet").read_metadata(io.BytesIO(content))
        stored = sum(told.row_group(place).total_byte_size for place in range(told.num_row_groups))
        return int(max(stored, 8 * told.num_rows * told.num_columns))  # equal cells are stored once
    return 0


def _by_pandas(function: str, engine: str, content: bytes, name: str, **options: Any) -> Any:
    for package in ("pandas", engine):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise DataError(f"{name} cannot be read: {missing_extra(package, 'tables')}") from error
    check_unpacked(_unfolded(content), name)
    try:
        return getattr(import_module("pandas"), function)(io.BytesIO(content), engine=engine, **options)
    except Exception as error:  # each engine has its own for what is damaged
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{name} cannot be read, is it damaged? {engine} says: {reason[0][:200]}") from error


def _cells(frame: Any) -> Cells:
    names = ["" if str(name).startswith("Unnamed: ") else str(name) for name in frame.columns]
    columns = [[_text(value) for value in frame.iloc[:, place].astype(object)] for place in range(len(names))]
    rows = [list(row) for row in zip(*columns, strict=True)]
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    return names, rows


def _text(value: Any) -> str:
    """A cell as a CSV file would have it."""
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    if isinstance(value, date):  # sorts as the time does
        return value.isoformat()
    text = "" if value is None else str(value)
    return "" if text in ("<NA>", "NaT") else text


def read_sdf(content: bytes, name: str) -> Cells:
    """The structures of an SD file as canonical SMILES in the column ``smiles``, its properties beside them.

    Structures are read as rdkit reads them, with chirality from wedged bonds or three dimensions and without explicit
    hydrogens. One that it refuses has what is written there as a SMILES, whose fault is then told.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    found = [from_mol_block(block) for block in _blocks(text)]
    properties = list(dict.fromkeys(key for _, _, values in found for key in values))
    titled = any(title for _, title, _ in found) and NAME not in map(str.casefold, properties)
    # The structure is the molecule, whatever a property says.
    renamed = [f"{key} (property)" if key.casefold() == "smiles" else key for key in properties]
    unread = [str(place) for place, (smiles, _, _) in enumerate(found, start=1) if not smiles]
    if unread:
        log.warning(f"{name}: rdkit cannot read structures {listed(unread)}; they are rows without a SMILES")
    rows = [
        [smiles, *([title] if titled else []), *(values.get(key, "") for key in properties)]
        for smiles, title, values in found
    ]
    return ["smiles", *([NAME] if titled else []), *renamed], rows


def _blocks(text: str) -> Iterator[str]:
    block: list[str] = []
    for line in text.splitlines():
        block.append(line)
        if line.startswith(END):
            yield "\n".join([*block, ""])
            block = []
    if any(map(str.strip, block)):  # the last one, or a mol file, may have no end
        yield "\n".join([*block, END, ""])
