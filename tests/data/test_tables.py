"""CSV and .smi files, good and bad."""

import csv
import errno
import gzip
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from plstm_graph.data import read_smiles
from plstm_graph.data.tables import read_rows, read_table
from plstm_graph.errors import DataError


@pytest.fixture
def write(tmp_path: Path):
    def inner(text: str | bytes, name: str = "my.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return inner


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are of Unix")
@pytest.mark.parametrize("name", ["pipe", "pipe.smi"])
def test_a_pipe_is_read_once(tmp_path: Path, name: str) -> None:
    """As ``/dev/stdin`` and ``<(zcat ...)`` are: what was read for its first bytes is gone."""
    os.mkfifo(tmp_path / name)
    text = b"CCO a\nCC b\n" if name.endswith("smi") else b"smiles,id\nCCO,a\nCC,b\n"
    writer = threading.Thread(target=(tmp_path / name).write_bytes, args=[text])
    writer.start()
    table, smiles = read_rows(tmp_path / name)
    writer.join()
    assert (smiles, table.column("id")) == (["CCO", "CC"], ["a", "b"])


def test_cells_and_columns(write) -> None:
    table = read_table(write('id, SMILES ,y\n1, CCO ,2.5\n2,"C,C",\n3,CC\n'))
    assert table.columns == ("id", "SMILES", "y")
    assert table.rows == (("1", "CCO", "2.5"), ("2", "C,C", ""), ("3", "CC", ""))
    assert table.smiles() == table.column("smiles") == ["CCO", "C,C", "CC"]


@pytest.mark.parametrize(
    "text", ["smiles;y\r\nCC;1\r\nCO;2\r\n", "smiles\ty\nCC\t1\nCO\t2", "\ufeff\nsmiles,y\nCC,1\nCO,2\n\n\n"]
)
def test_other_delimiters_line_ends_and_marks(write, text: str) -> None:
    table = read_table(write(text))
    assert table.smiles() == ["CC", "CO"]
    assert table.labels(["y"]) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('"Smiles";"logS (mol/L, 25 C, exp.)"\n"CCO";"1.5"\n', ("Smiles", "logS (mol/L, 25 C, exp.)")),
        ("Smiles;logS (mol/L, 25 C, exp.)\nCCO;1.5\nCC;1\n", ("Smiles", "logS (mol/L, 25 C, exp.)")),
        ('smiles,"a;b;c"\nCCO,1.5\n', ("smiles", "a;b;c")),
        ("smiles,name;alt;old,y\nCCO,x;y,1.5\n", ("smiles", "name;alt;old", "y")),
        ("smiles\ty, in nM, at 25 C\nCCO\t1.5\n", ("smiles", "y, in nM, at 25 C")),
        ("smiles|y\nCCO|1.5\n", ("smiles", "y")),
        ("sep=;\nsmiles;a,b,c\nCCO;1.5\n", ("smiles", "a,b,c")),
        ('\ufeff"sep=\t"\r\nsmiles\ty\r\nCCO\t1.5\r\n', ("smiles", "y")),
        ("SEP=|\nsmiles\nCCO\n", ("smiles",)),
        ("smiles\nCCO\n", ("smiles",)),
    ],
)
def test_the_delimiter_is_that_of_cells_not_of_letters(write, text: str, columns: tuple[str, ...]) -> None:
    table = read_table(write(text))
    assert table.columns == columns
    assert table.smiles()[0] == "CCO"
    assert table.rows[0][-1] in ("CCO", "1.5")


@pytest.mark.parametrize("column", ["smiles", "y", "note"])
def test_a_cell_may_be_long(write, column: str) -> None:
    before = csv.field_size_limit()
    cells = {"smiles": "C" * 200_000, "y": "0" * 200_000 + "1", "note": "x" * 200_000}
    row = [cells[name] if name == column else "1" for name in ("smiles", "y", "note")]
    table = read_table(write(f"smiles,y,note\n{','.join(row)}\n"))
    assert table.column(column) == [cells[column]]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.TSV", "x"])
def test_marks_of_encodings_and_gzip_are_noticed(write, encoding: str, name: str) -> None:
    content = "smiles\tΔG\nCCO\t1.5\n".encode(encoding)
    path = write(gzip.compress(content) if name.endswith(".gz") else content, name)
    assert read_table(path).labels(["ΔG"]) == [[1.5]]


@pytest.mark.parametrize("name", ["x.smi.gz", "x.SMI", "x.smiles.gz"])
def test_a_packed_smi_file_is_one(write, name: str) -> None:
    content = b"CCO ethanol\nc1ccccc1\n"
    assert read_smiles(write(gzip.compress(content) if name.endswith("gz") else content, name)) == ["CCO", "c1ccccc1"]


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (workbook(), "cannot be read, is it damaged"),
        (workbook().replace(b"xl/workbook", b"my/workbook"), "is a zip archive, no text; unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel or Office file"),
        (b"BZh91AY&SY", "is packed with bzip2, no text; unpack it"),
        (b"PAR1\x15\x04", "cannot be read, is it damaged"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page or XML, no table; download the table itself"),
        (b'[{"smiles": "CCO"}]', "is JSON, no table"),
        (b"CCO,1.5\nCC,2\n", "has no header: its first line holds the molecule 'CCO'"),
        (b"CCO\n", "has no header: its first line holds the molecule 'CCO'.*name a list of SMILES alone .smi"),
        (b"1\tc1ccccc1O phenol\n2\tCC ethane\n", "has no header: its first line holds the molecule 'c1ccccc1O'"),
        (b"[Na+].[Cl-]\nCC\n", "has no header"),
        (b'smiles,y\nCC,1\n"CO,2\n', r"a quotation mark left open in row 2 \(header not counted\)"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_what_is_no_table_is_recognised(write, content: bytes, message: str, name: str) -> None:
    with pytest.raises(DataError, match=message):
        read_smiles(write(content, name))


def test_a_column_named_like_an_element_is_a_column(write) -> None:
    with pytest.raises(DataError, match=r"no column named .*its columns are I, N"):
        read_smiles(write("I,N\n3,4\n"))


def test_hundreds_of_columns_are_not_listed(write) -> None:
    names = [f"column {number}" for number in range(590)]
    path = write(",".join(names) + "\n" + ",".join(["1"] * 590))
    for act in (read_smiles, lambda path: read_table(path).labels([]), lambda path: read_table(path).column("qq")):
        with pytest.raises(DataError, match=r"column 0, .* and 570 more") as told:
            act(path)
        assert len(str(told.value)) < 600


def test_blank_lines_between_rows_are_rows(write) -> None:
    assert read_smiles(write("smiles\nCC\n\nCO\n\n")) == ["CC", "", "CO"]
    assert read_smiles(write("smiles,y\nCC,1\n,\n")) == ["CC", ""]


@pytest.mark.parametrize("header", ["Smiles", "canonical_smiles", "CANONICAL_SMILES", "isomeric_smiles"])
def test_smiles_column_is_guessed(write, header: str) -> None:
    assert read_smiles(write(f"y,{header}\n1,CC\n")) == ["CC"]


def test_smiles_column_can_be_named(write) -> None:
    assert read_smiles(write("smiles,product\nCC,CO\n"), "product") == ["CO"]


@pytest.mark.parametrize(
    ("column", "message"),
    [("produkt", "unknown column 'produkt'; choose one of smiles, product; did you mean 'product'"), (None, None)],
)
def test_missing_column_lists_the_columns(write, column: str | None, message: str | None) -> None:
    path = write("smiles,product\nCC,CO\n") if column else write("structure,y\nCC,1\n")
    with pytest.raises(DataError, match=message or "its columns are structure, y"):
        read_smiles(path, column)


def test_a_name_that_stands_twice(write) -> None:
    path = write("smiles,y,y,z,Z\nCC,1,2,3,4\n")
    with pytest.raises(DataError, match="2 columns named 'y'"):
        read_table(path).column("y")
    assert read_table(path).column("Z") == ["4"]


def test_labels_with_empty_cells(write) -> None:
    table = read_table(write("smiles,a,b\nCC,1,\nCO,NA,nan\nCN,-2e1,0\n"))
    labels = table.labels(["b", "a"])
    assert str(labels) == "[[nan, 1.0], [nan, nan], [0.0, -20.0]]"


@pytest.mark.parametrize(
    "cell", [">10", "active", "inf", "1;2", "1_000", "٣", "-nan", "infinity", "1e400x", "1e", ".", "\u22121", "0x1"]
)
def test_label_that_is_no_number(write, cell: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 .*column 'y'.*finite number.*{cell!r}"):
        read_table(write(f"smiles,y\nCC,1\nCO,{cell}\n")).labels(["y"])


@pytest.mark.parametrize("cell", ["1e39", "-1e39", "1e400", "9" * 400, "2e15"])
def test_a_label_whose_square_is_infinite_in_32_bits(write, cell: str) -> None:
    with pytest.raises(DataError, match=r"row 2 .*must lie within ±1e\+15, got .*other units"):
        read_table(write(f"smiles,y\nCC,1\nCO,{cell}\n")).labels(["y"])


def test_numbers_as_they_are_written(write) -> None:
    cells = ["1", "-1.5", "+.5", "5.", "1e-3", "1E+15", "1e-400"]
    table = read_table(write("smiles,y\n" + "".join(f"CC,{cell}\n" for cell in cells)))
    assert [row[0] for row in table.labels(["y"])] == [1, -1.5, 0.5, 5, 0.001, 1e15, 0]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "name the target"),
        (["y", "y"], "named twice"),
        (["x"], "unknown column 'x'"),
        (["z"], "no row has a label in column 'z'"),
    ],
)
def test_bad_targets(write, targets: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write("smiles,y,z\nCC,1,\nCO,2,\n")).labels(targets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("\ufeff", "is empty"),
        ("smiles,y\n", "a header but no rows"),
        ("smiles,y\nCC,1,2\n", "row 1 .*3 cells but the header has 2"),
        ('smiles,y\n"CC,1\nCO,2\n', "quotation mark"),
        (b"smiles,y\nCC,\xff\xfe\n", "not UTF-8"),
    ],
)
def test_files_that_cannot_be_used(write, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(text))
    assert "\n" not in str(caught.value)


def test_spare_delimiters_at_the_end_of_rows_are_no_cells(write) -> None:
    assert read_table(write("smiles,y\nCC,1,,\n")).rows == (("CC", "1"),)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_smiles(tmp_path)


def test_file_without_permission(write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:  # root may read a file of mode 0, so the mode alone would not do
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = write("smiles,y\nCC,1\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot read .*my\.csv: Permission denied"):
        read_table(path)


def test_smi_keeps_every_line_in_order(write) -> None:
    path = write("CCO ethanol\n\nxyz\tbad 3\r\nCC\n\n", "my.smi")
    assert read_smiles(path) == ["CCO", "", "xyz", "CC"]


def test_smi_is_a_table_of_molecules_and_ids(write) -> None:
    table, smiles = read_rows(write("CCO ethanol, 95 %\n\nxyz\tbad 3\r\nCC \n\n", "my.smi"))
    assert table.columns == ("smiles", "id")
    assert table.rows == (("CCO", "ethanol, 95 %"), ("", ""), ("xyz", "bad 3"), ("CC", ""))
    assert smiles == table.column("smiles")


def test_rows_of_a_csv_come_with_its_molecules(write) -> None:
    table, smiles = read_rows(write("id,product\n1,CC\n"), "product")
    assert (table.rows, smiles) == ((("1", "CC"),), ["CC"])


def test_smi_has_no_columns(write) -> None:
    with pytest.raises(DataError, match="no named columns"):
        read_smiles(write("CC\n", "my.smi"), "smiles")
    with pytest.raises(DataError, match="is empty"):
        read_smiles(write("\n", "empty.smi"))


def test_a_name_that_stands_on_two_lines_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('smiles,"log S\n(mol/l)"\nCCO,1.5\n')
    table = read_table(tmp_path / "a.csv")
    assert table.columns == ("smiles", "log S (mol/l)")
    assert table.column("log S (mol/l)") == table.column("log S\n(mol/l)") == ["1.5"]
    with pytest.raises(DataError) as error:
        table.column("y")
    assert "\n" not in str(error.value)
