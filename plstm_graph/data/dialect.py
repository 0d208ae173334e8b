"""From the bytes of a file to cells: what it is if not text, how it is encoded, and what separates its cells."""

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from plstm_graph.errors import DataError

DELIMITERS = ",;\t|"
HEAD, HEAD_LETTERS = 50, 2**20  # records, and letters at most, that tell one delimiter from another
LONGEST_CELL = 2**31 - 1  # a C long, whose size differs between systems
AS_CSV = "save the table as CSV in UTF-8"
BINARY = (  # how files start that are taken for tables, what they are, and what to do
    (b"PK\x03\x04", "a zip archive", "unpack it, or pack the table with gzip"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Office file", AS_CSV),
    (b"BZh", "packed with bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ", "packed with xz", "unpack it, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it, or pack it with gzip"),
    (b"%PDF", "a PDF", AS_CSV),
)
ENCODINGS = (  # by their marks, the longest first
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"", "utf-8-sig"),
)
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?[;,\t|]*\r?(\n|$)', re.IGNORECASE)  # what Excel reads in a first line
_wide = threading.Lock()


def read_text(path: Path, content: bytes) -> str:
    """The text of a file; UTF-8, or UTF-16 and UTF-32 with a mark.

    Args:
        path: for errors.
        content: of the file, unpacked. A pipe is read once.

    Raises:
        DataError: it is empty, or no table of text; the message says what it looks like.
    """
    for start, what, instead in BINARY:
        if content.startswith(start):
            if b"data.pkl" in content[:1024]:
                what, instead = "a file of PyTorch", "give prepared data a name that ends in .pt"
            if path.suffix == ".npz":
                what, instead = "a file of numpy", "images in arrays are trained on in Python, see docs/vision.md"
            raise DataError(f"{path.name} is {what}, no text; {instead}")
    try:
        text = content.decode(next(encoding for mark, encoding in ENCODINGS if content.startswith(mark)))
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    if not text.strip():
        raise DataError(f"{path.name} is empty")
    _check_table(text, path.name)
    return text


def read_cells(path: Path, content: bytes) -> tuple[list[list[str]], str]:
    """All records of a CSV file, and the delimiter that fits; a first line ``sep=;`` decides.

    Arguments are those of :func:`read_text`.

    Raises:
        DataError: see :func:`read_text`; a quotation mark that is left open.
    """
    text = read_text(path, content)
    given = _SEPARATOR.match(text.lstrip(" \r\n"))
    if given:
        text = text.lstrip(" \r\n")[given.end() :]
    delimiter = given[1] if given else delimiter_of(text)
    lines: list[list[str]] = []
    with _cells_of_any_length():
        try:
            lines.extend(_records(text, delimiter))  # those before an error stay
        except csv.Error as error:
            where = f"in row {len(lines)} (header not counted)" if lines else "in the header"
            raise DataError(f"{path.name} is not valid CSV: {error}; is a quotation mark left open {where}?") from error
    return lines, delimiter


def delimiter_of(text: str) -> str:
    """The delimiter by which the first records of a table are most alike; a comma for a single column.

    Records are read with each of :data:`DELIMITERS`, so that one inside quotation marks counts for nothing.
    """
    start = text[:HEAD_LETTERS].lstrip()
    fits: dict[str, tuple[float, int]] = {}
    for delimiter in DELIMITERS:
        found: list[list[str]] = []
        with suppress(csv.Error):  # this delimiter breaks quoted cells, or all do
            found += (line for line in islice(_records(start, delimiter), HEAD) if line)
        if found and len(found[0]) > 1:
            alike = sum(len(line) == len(found[0]) for line in found[1:]) / max(1, len(found) - 1)
            fits[delimiter] = alike, len(found[0])
    return max(fits, key=lambda delimiter: fits[delimiter], default=",")


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The limit of the csv module is one for all threads, and far below what a cell may hold."""
    with _wide:
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _check_table(text: str, name: str) -> None:
    """Raises DataError for text of another kind, which would be read as a table of one odd column."""
    start = text.lstrip()[:200].casefold()
    what = None
    if start.startswith("@<tripos>"):
        what = "a mol2 file", "convert it to CSV with SMILES"
    elif start.startswith(("<!doctype", "<html", "<?xml")):
        what = "a web page or XML", "download the table itself"
    elif start[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):  # a SMILES may start with a bracket
            json.loads(text)
            what = "JSON", AS_CSV
    if what:
        raise DataError(f"{name} is {what[0]}, no table; {what[1]}")
