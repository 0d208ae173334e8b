"""Files that are, or almost are, tables of molecules."""

import csv
import gzip
import io
import math
from pathlib import Path

import pytest
import torch
from fuzzing import fuzz, told
from hypothesis import strategies as st
from small_runs import molecules

from plstm_graph.data import load, read_smiles
from plstm_graph.data.molecules import Rejected
from plstm_graph.data.tables import read_rows, read_table
from plstm_graph.train.inference.molecules import Predictions

NUMBERS = st.sampled_from(
    ["1", "0", "2.5", "-3e4", "nan", "NaN", "inf", "-inf", "1e999", "", "NA", "x", "1,5", "٣", "0x1"]
)
CELLS = st.one_of(
    st.sampled_from(molecules(20)),
    NUMBERS,
    st.text("a,;\t\"'\n\r\x00 é", max_size=6),
    st.sampled_from(["x" * 140_000, "\ufeff", "=1+1", '"']),
)
HEADS = st.lists(st.sampled_from(["smiles", "SMILES", "y", "Y", "z", "", " y ", "smiles;y", '"y"']), max_size=4)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "ascii"]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A table in some dialect and encoding, perhaps with bytes changed."""
    rows = draw(st.lists(st.lists(CELLS, max_size=4), max_size=6))
    rows += draw(st.lists(st.tuples(st.sampled_from(molecules(20)), NUMBERS), max_size=6))
    rows.insert(0, draw(st.just(["smiles", "y"]) | HEADS))
    delimiter, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    if draw(st.booleans()):
        stream = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
        text = stream.getvalue()
    else:  # quotation marks as they come
        text = end.join(delimiter.join(row) for row in rows)
    content = bytearray(text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace"))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@fuzz(
    0.15,
    content=files() | st.binary(max_size=60),
    targets=st.sampled_from([["y"], ["Y"], ["y", "z"], ["y", "y"], [], [""]]),
    task=st.sampled_from([None, "binary", "regression", "multiclass"]),
)
def test_a_file_is_a_data_set_or_an_error(folder: Path, content: bytes, targets: list[str], task: str | None) -> None:
    path = folder / "fuzz.csv"
    path.write_bytes(content)
    with told():
        found = load(str(path), targets=targets, task=task)
        rows = len(read_table(path).rows)
        assert len(found.graphs) + len(found.rejected) == rows
        refused = {row.row for row in found.rejected}
        kept = [text for row, text in enumerate(read_smiles(path), start=1) if row not in refused]
        assert [graph.smiles for graph in found.graphs] == kept
        for graph in found.graphs:
            assert all(not math.isinf(value) for value in graph.y.view(-1).tolist())


@fuzz(0.05, content=files() | st.binary(max_size=60), suffix=st.sampled_from([".smi", ".csv", ".txt"]))
def test_a_file_of_molecules_is_texts_or_an_error(folder: Path, content: bytes, suffix: str) -> None:
    path = folder / f"fuzz{suffix}"
    path.write_bytes(content)
    with told():
        assert all(isinstance(text, str) for text in read_smiles(path))


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)


@fuzz(0.05, rows=st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_what_csv_writes_is_read_as_it_was(folder: Path, rows: list[tuple[str, str]], delimiter: str) -> None:
    path = folder / "plain.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("smiles", "y"), *rows])
    assert list(read_table(path).rows) == [(first.strip(), second.strip()) for first, second in rows]


LETTERS = "ab ,;|\t\"\n\r'é="


@st.composite
def dialects(draw: st.DrawFn) -> tuple[bytes, str, list[str], list[list[str]]]:
    """A table as some program writes it: its bytes, the end of its name, its columns and its cells."""
    delimiter, quoting = draw(st.sampled_from(",;\t|")), draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end, said = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.booleans())
    width = draw(st.integers(1, 4))
    # Without quotation marks a line's end is one, and another delimiter may fit as well, unless it is said which.
    letters = LETTERS if quoting == csv.QUOTE_ALL else "ab 'é=" + (delimiter if not said or end == "\r" else ",;|")
    name, cell = st.text(letters, max_size=12), st.text(letters, max_size=6) | st.just("x" * 140_000)
    columns = ["smiles", *(f"c{number} {draw(name)}" for number in range(1, width))]
    rows = [["CCO", *(draw(cell) for _ in range(1, width))] for _ in range(draw(st.integers(1, 5)))]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([columns, *rows])
    text = (f"sep={delimiter}{end}" if said and end != "\r" else "") + stream.getvalue()
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])))
    packed = draw(st.booleans())
    return gzip.compress(content) if packed else content, ".csv.gz" if packed else ".csv", columns, rows


@fuzz(0.05, table=dialects())
def test_a_table_of_any_dialect_is_read_as_it_was(folder: Path, table: tuple) -> None:
    content, suffix, columns, rows = table
    path = folder / f"dialect{suffix}"
    path.write_bytes(content)
    found = read_table(path)
    assert found.columns == tuple(" ".join(name.split()) for name in columns)
    assert found.rows == tuple(tuple(cell.strip() for cell in row) for row in rows)


def cells(path: Path) -> list[list[str]]:
    """Of a CSV file, whose cells may be as long as a line of an .smi file."""
    limit = csv.field_size_limit(10**7)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))
    finally:
        csv.field_size_limit(limit)


@fuzz(0.05, content=files() | st.binary(max_size=60), suffix=st.sampled_from([".smi", ".csv"]))
def test_what_is_carried_through_is_what_was_read(folder: Path, content: bytes, suffix: str) -> None:
    path, out = folder / f"carried{suffix}", folder / "out.csv"
    path.write_bytes(content)
    with told():
        table, texts = read_rows(path)
        values = torch.arange(len(texts), dtype=torch.float)[:, None]
        Predictions(texts, ["y"], values, [Rejected(1, texts[0], "why")]).write(out, table)
        header, *rows = cells(out)
        assert tuple(header[:-2]) == table.columns
        assert len({*header[-2:], *table.columns}) == len({*table.columns}) + 2
        assert tuple(tuple(row[:-2]) for row in rows) == table.rows
        assert [row[-2:] for row in rows] == [["", "why"], *([f"{row}", ""] for row in range(1, len(rows)))]
