"""CSV files of molecules."""

import gzip
import math
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from plstm_graph.data import load, read_smiles
from plstm_graph.errors import ConfigError, DataError

GOOD = "id,smiles,y,z\n1,CCO,2.5,1\n2,xyz,1.5,0\n3,CC,,\n4,c1ccccc1,-1,\n"


@pytest.fixture
def csv_file(tmp_path: Path):
    def inner(text: str) -> str:
        path = tmp_path / "my.csv"
        path.write_text(text)
        return str(path)

    return inner


def test_csv_regression_with_empty_cells_and_bad_smiles(csv_file) -> None:
    path = csv_file(GOOD)
    data = load(path, targets=["y"])
    assert (data.name, data.task.name, data.task.metric, data.task.num_outputs) == ("my", "regression", "r2", 1)
    assert [graph.smiles for graph in data.graphs] == ["CCO", "c1ccccc1"]
    assert torch.cat([graph.y for graph in data.graphs]).tolist() == [[2.5], [-1.0]]
    assert [(bad.row, bad.text) for bad in data.rejected] == [(2, "xyz"), (3, "CC")]
    assert "cannot read the SMILES" in data.rejected[0].reason
    assert data.rejected[1].reason == "no label in y"
    assert read_smiles(path) == ["CCO", "xyz", "CC", "c1ccccc1"]


def test_csv_with_two_targets_keeps_missing_labels(csv_file) -> None:
    data = load(csv_file(GOOD), targets=["y", "z"])
    assert data.task.num_outputs == 2
    assert data.graphs[0].y.tolist() == [[2.5, 1.0]]
    assert data.graphs[1].y[0, 0] == -1
    assert math.isnan(data.graphs[1].y[0, 1])
    assert Batch.from_data_list(data.graphs).y.shape == (2, 2)


def test_csv_task_is_guessed_and_can_be_chosen(csv_file) -> None:
    path = csv_file("smiles,a,b,c\nCC,0,1,2\nCO,1,,0\nCN,,0,1\n")
    both = load(path, targets=["a", "b"])
    assert (both.task.name, both.task.metric, both.task.num_outputs) == ("binary", "rocauc", 2)
    assert load(path, targets=["a", "c"]).task.name == "regression"
    assert load(path, targets=["a"], task="regression").task.metric == "r2"
    many = load(path, targets=["c"], task="multiclass")
    assert (many.task.num_outputs, many.task.metric) == (3, "accuracy")
    assert [graph.y.tolist() for graph in many.graphs] == [[2], [0], [1]]
    assert many.graphs[0].y.dtype == torch.int64


@pytest.mark.parametrize(
    ("targets", "task", "message"),
    [
        (["c"], "binary", r"1 of 2 rows .*: row 1, column 'c': '2'; a binary label must be 0 or 1; "),
        (["a", "c"], "multiclass", "exactly one target"),
        (["d"], "multiclass", r"row 1, column 'd': '1.5'; the label of a class must be 0, 1, ...; "),
        (["f"], "multiclass", "0, 1, ... without gaps, got 0, 2"),
        (["e"], "multiclass", "without gaps"),
        (["a"], "clustering", "unknown task 'clustering'; choose one of regression, ranking, binary, multiclass"),
        (None, None, r"name the target column\(s\) of my.csv \(--targets\); its columns are smiles, a"),
        (["aa"], None, "unknown column 'aa'; choose one of smiles, a, c, d, e, f; did you mean 'a'"),
    ],
)
def test_csv_labels_that_do_not_suit_the_task(csv_file, targets: list[str], task: str, message: str) -> None:
    path = csv_file("smiles,a,c,d,e,f\nCC,0,2,1.5,0,0\nCO,1,0,3,0,2\n")
    with pytest.raises((DataError, ConfigError), match=message):
        load(path, targets=targets, task=task)


def test_csv_whole_numbers_are_quantities_and_a_warning_says_so(csv_file, caplog) -> None:
    path = csv_file("smiles,c,d\nC,0,0.5\nCC,2,1\nCCC,1,2\nCCCC,,3\n")
    assert load(path, targets=["d"]).task.name == "regression"
    assert load(path, targets=["c"], task="regression").task.name == "regression"
    assert not caplog.records
    assert load(path, targets=["c"]).task.name == "regression"
    assert "whole numbers 0 to 2 in column 'c' are taken as quantities" in caplog.text


@pytest.mark.parametrize(
    ("labels", "kinds"),
    [
        ("-1 1 1 -1", "-1 and 1"),
        ("-1 0 1 1", "-1 to 1"),
        ("1 2 2 1", "1 and 2"),
        ("0 9 3 4", "0 to 9"),
        ("10 20 20 10", "10 and 20"),
        ("-1.5 1 1 2", ""),
        ("0 50 3 4", ""),
        ("0 1 1 0", ""),
    ],
)
def test_labels_that_may_be_classes_are_announced(csv_file, caplog, labels: str, kinds: str) -> None:
    rows = "".join(f"C{'C' * row},{label},{row}.5\n" for row, label in enumerate(labels.split()))
    load(csv_file("smiles,y,z\n" + rows), targets=["z", "y"])
    assert (f"whole numbers {kinds} in column 'y'" in caplog.text) == bool(kinds)
    assert "'z'" not in caplog.text


def test_a_packed_file_has_the_name_of_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "my.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert load(str(tmp_path / "my.csv.gz"), targets=["y"]).name == "my"
    (tmp_path / "my.smi.gz").write_bytes(gzip.compress(b"CCO\n"))
    with pytest.raises(DataError, match="no labels to train on"):
        load(str(tmp_path / "my.smi.gz"))


def test_a_reaction_is_called_one(csv_file) -> None:
    data = load(csv_file("smiles,y\nCCO,1\nCC=O>[H][H]>CCO,2\nCC>>CO,2\nC>C,3\n"), targets=["y"])
    reasons = [row.reason for row in data.rejected]
    assert ["it is a reaction" in reason for reason in reasons] == [True, True, False]


def test_csv_without_a_usable_row(csv_file) -> None:
    with pytest.raises(DataError, match="none of the 2 rows can be used; row 1: rdkit cannot read"):
        load(csv_file("smiles,y\nxyz,1\nabc,2\n"), targets=["y"])


# ---------------------------------------------------------------------- targets by pattern, labels that cannot be used


WIDE = "mol_id,NR-AR,NR-ER,SR-p53,y [mg*l],smiles\n" + "".join(
    f"T{i},{i % 2},0,1,{i}.5,{'C' * i}O\n" for i in range(1, 21)
)


@pytest.mark.parametrize(
    ("asked", "targets"),
    [
        (["NR-AR"], ("NR-AR",)),
        (["NR-*"], ("NR-AR", "NR-ER")),
        (["nr-?r"], ("NR-AR", "NR-ER")),
        (["SR-p53", "*"], ("SR-p53", "NR-AR", "NR-ER", "y [mg*l]")),
        (["*"], ("NR-AR", "NR-ER", "SR-p53", "y [mg*l]")),
        (["*", "!y*"], ("NR-AR", "NR-ER", "SR-p53")),
        (["!y*", "!SR-p53"], ("NR-AR", "NR-ER")),
        (["y [mg*l]"], ("y [mg*l]",)),
        (["*-p[0-9]*"], ("SR-p53",)),
    ],
)
def test_targets_by_pattern(csv_file, caplog, asked: list[str], targets: tuple[str, ...]) -> None:
    data = load(csv_file(WIDE), targets=asked)
    assert data.task.targets == targets
    assert ("no targets, since they hold no numbers: mol_id" in caplog.text) == ("*" in asked or asked[0][0] == "!")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["XX-*"], r"no column of numbers is called 'XX-\*'; its columns are mol_id"),
        (["mol*"], "no column of numbers is called"),
        (["*", "!*"], "name the target"),
        (["NR-AA"], "unknown column 'NR-AA'"),
        (["NR-AR", "NR-AR"], "named twice"),
    ],
)
def test_patterns_that_lead_nowhere(csv_file, asked: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(csv_file(WIDE), targets=asked)


def table(cells: dict[int, str], delimiter: str = ",", count: int = 40) -> str:
    rows = (f"{'C' * row}O{delimiter}{cells.get(row, f'{row}.5')}" for row in range(1, count + 1))
    return f"smiles{delimiter}y\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("cell", [">5", "active", "1e39", "inf", "1.000.000", "5,5 (n=3)"])
def test_a_label_that_cannot_be_used_rejects_its_row_and_the_rest_goes_on(csv_file, cell: str) -> None:
    data = load(csv_file(table({3: f'"{cell}"', 17: f'"{cell}"', 20: ""})), targets=["y"])
    assert [graph.y.item() for graph in data.graphs] == [row + 0.5 for row in range(1, 41) if row not in (3, 17, 20)]
    assert [bad.row for bad in data.rejected] == [3, 17, 20]
    assert all(f"got {cell!r} in column 'y'" in bad.reason for bad in data.rejected[:2])
    assert data.rejected[2].reason == "no label in y"


@pytest.mark.parametrize(
    ("task", "cell", "reason"),
    [
        ("binary", "2", "a binary label must be 0 or 1"),
        ("binary", "0.5", "a binary label must be 0 or 1"),
        ("binary", "-1", "a binary label must be 0 or 1"),
        ("binary", "active", "a label must be a finite number"),
        ("multiclass", "1.5", "the label of a class must be 0, 1, ..."),
        ("multiclass", "-1", "the label of a class must be 0, 1, ..."),
    ],
)
def test_a_label_that_does_not_suit_the_task_rejects_its_row(csv_file, task: str, cell: str, reason: str) -> None:
    cells = {row: str(row % 2) for row in range(1, 41)}
    data = load(csv_file(table(cells | {3: cell, 17: cell})), targets=["y"], task=task)
    assert [graph.y.item() for graph in data.graphs] == [row % 2 for row in range(1, 41) if row not in (3, 17)]
    assert [bad.row for bad in data.rejected] == [3, 17]
    assert all(bad.reason.startswith(reason) and f"got {cell!r} in column 'y'" in bad.reason for bad in data.rejected)
    with pytest.raises(DataError, match=rf"5 of 40 rows .*row 3, column 'y': '{cell}'; .*row 40.*; {reason}"):
        load(csv_file(table(cells | dict.fromkeys((3, 9, 17, 30, 40), cell))), targets=["y"], task=task)


def test_more_than_a_tenth_of_unusable_labels_is_refused_and_all_are_named(csv_file) -> None:
    few = dict.fromkeys((2, 9, 11, 30), ">5")
    assert len(load(csv_file(table(few)), targets=["y"]).graphs) == 36
    with pytest.raises(DataError) as error:
        load(csv_file(table(few | {31: "<1"})), targets=["y"])
    text = str(error.value)
    assert "5 of 40 rows with labels have one that cannot be used, more than 10%" in text
    assert all(f"row {row}, column 'y': '>5'" in text for row in few)
    assert "row 31, column 'y': '<1'" in text
    with pytest.raises(DataError, match=r"row 10, column 'y': '>5'; and 30 more; a label must be a finite number"):
        load(csv_file(table(dict.fromkeys(range(1, 41), ">5"))), targets=["y"])


@pytest.mark.parametrize(
    ("cells", "delimiter", "expected"),
    [
        ({1: "1,5", 2: "-2,25e1", 3: "3"}, ";", {1: 1.5, 2: -22.5, 3: 3.0}),
        ({1: "1,234,5"}, ";", {1: None}),
        ({1: '"1,5"'}, ",", {1: None}),  # a decimal comma, or one of thousands?
        ({1: "1,5", 2: "2.5"}, ";", {1: None, 2: 2.5}),  # which of the two is it?
    ],
)
def test_decimal_commas(csv_file, cells: dict[int, str], delimiter: str, expected: dict[int, float | None]) -> None:
    text = table(cells, delimiter)
    if 2 not in expected or expected[2] != 2.5:
        text = text.replace(".5", "") if delimiter == ";" else text
    data = load(csv_file(text), targets=["y"], task="regression")
    values = {len(graph.smiles) - 1: graph.y.item() for graph in data.graphs}
    assert {row: values.get(row) for row in expected} == expected
    assert [bad.row for bad in data.rejected] == [row for row, value in expected.items() if value is None]


@pytest.mark.parametrize(
    ("labels", "hint"), [((0.4, 12.0, 90_000.0), True), ((3.0, 5.5, 9.0), False), ((-4.0, 2.0, 90_000.0), False)]
)
def test_labels_over_many_decades_get_the_hint_to_take_logarithms(
    labels: tuple[float, ...], hint: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = zip(("C", "CC", "CCO"), labels, strict=True)
    (tmp_path / "ic50.csv").write_text("smiles,IC50\n" + "".join(f"{text},{value}\n" for text, value in rows))
    load(str(tmp_path / "ic50.csv"), targets=("IC50",))
    assert ("take logarithms" in caplog.text) == hint


def test_a_number_that_stands_for_none_is_announced(csv_file, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{'C' * (k + 1)},{-999 if k in (2, 5) else k + 0.5}" for k in range(12)]
    load(csv_file("\n".join(["smiles,y", *rows])), targets=["y"])
    assert "2 labels of column 'y' are -999, far from all others; where that stands for none" in caplog.text
    caplog.clear()
    load(csv_file("\n".join(["smiles,y", *rows, "CO,-1500.5"])), targets=["y"])
    load(csv_file("\n".join(["smiles,y", *(f"{'C' * (k + 1)},{99 - k / 2}" for k in range(12))])), targets=["y"])
    assert "far from all others" not in caplog.text


def test_a_number_of_rows_that_a_pattern_matches_is_announced(csv_file, caplog: pytest.LogCaptureFixture) -> None:
    path = csv_file("smiles,mol_id,y\nCC,1,2.5\nCO,2,3.5\nCN,3,4.5\n")
    assert load(path, targets=["*"]).task.targets == ("mol_id", "y")
    assert "'mol_id' is a target as * has it; if it numbers rows, add --targets '!mol_id'" in caplog.text
    caplog.clear()
    assert load(path, targets=["*", "!mol_id"]).task.targets == ("y",)
    assert load(path, targets=["mol_id"]).task.targets == ("mol_id",)
    assert "is a target as" not in caplog.text
