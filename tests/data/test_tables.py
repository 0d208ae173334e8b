"""CSV and .smi files, good and bad."""

import errno
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


@pytest.mark.parametrize("cell", [">10", "active", "inf", "1;2"])
def test_label_that_is_no_number(write, cell: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 .*column 'y'.*finite number.*{cell!r}"):
        read_table(write(f"smiles,y\nCC,1\nCO,{cell}\n")).labels(["y"])


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
    with pytest.raises(DataError, match="cannot read"):
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
