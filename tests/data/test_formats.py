"""SD files, Excel workbooks and Parquet files are tables as CSV files are."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from small_runs import molecules, small_config

from plstm_graph.data import formats, load
from plstm_graph.data.tables import read_rows, read_table
from plstm_graph.errors import DataError
from plstm_graph.train import predict
from plstm_graph.train.run import fit

FRAME = pandas.DataFrame({"smiles": molecules(24)})
FRAME["smiles"] = [Chem.CanonSmiles(text) for text in FRAME["smiles"]]
FRAME["y"] = [0.1 * len(text) + 1 / 3 for text in FRAME["smiles"]]
FRAME["count"] = [None if row % 3 else row for row in range(len(FRAME))]


def sdf(path: Path, dimensions: int = 2) -> None:
    with Chem.SDWriter(str(path)) as writer:
        for row in FRAME.itertuples(index=False):
            mol = Chem.MolFromSmiles(row.smiles)
            if dimensions == 3:
                mol = Chem.AddHs(mol)
                AllChem.EmbedMolecule(mol, randomSeed=1)
            for name in ("y", "count"):
                value = getattr(row, name)
                mol.SetProp(name, "" if value != value else repr(float(value)))
            writer.write(mol)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.csv": lambda path: FRAME.to_csv(path, index=False),
    "a.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "a.xlsx": lambda path: FRAME.to_excel(path, index=False),
    "a.parquet": lambda path: FRAME.to_parquet(path),
    "a.sdf": sdf,
    "a.sd": lambda path: sdf(path, 3),
}


def test_one_data_set_gives_one_model_to_the_last_bit(tmp_path):
    """In every format, packed or not."""
    found = {}
    for name, write in WRITERS.items():
        write(tmp_path / name)
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        config = small_config(data=packed, targets="y,count", epochs=1)
        found[name] = fit(config).learner.state_dict()
        assert (
            load(str(tmp_path / name), targets=["y", "count"]).content
            == load(str(packed), targets=["y", "count"]).content
        )
    first = found.pop("a.csv")
    for state in found.values():
        assert all(torch.equal(value, first[key]) for key, value in state.items())


def test_predictions_keep_the_columns_of_an_sd_file(tmp_path):
    sdf(tmp_path / "a.sdf")
    fit(small_config(data=tmp_path / "a.sdf", targets="y", epochs=1, out=tmp_path / "run"))
    table, smiles = read_rows(tmp_path / "a.sdf")
    predict(tmp_path / "run", smiles).write(tmp_path / "p.csv", table)
    assert (tmp_path / "p.csv").read_text().startswith("smiles,y,count,y_predicted,unlike_training,error\n")


def test_chirality_titles_and_faults_of_an_sd_file(tmp_path, caplog):
    mol = Chem.MolFromSmiles("C[C@H](N)C(=O)O")
    mol.SetProp("_Name", "alanine")
    mol.SetProp("SMILES", "CC")
    AllChem.EmbedMolecule(flat := Chem.Mol(mol), randomSeed=1)
    broken = Chem.MolToMolBlock(Chem.MolFromSmiles("CC(C)(C)(C)C", sanitize=False), kekulize=False)
    with Chem.SDWriter(str(tmp_path / "a.sdf")) as writer:
        writer.write(mol)
        writer.write(flat)
    with (tmp_path / "a.sdf").open("a") as stream:
        stream.write(f"{broken}$$$$\nno structure\n\n\nnonsense\nM  END\n$$$$\n")
    table = read_table(tmp_path / "a.sdf")
    assert table.columns == ("smiles", "id", "SMILES (property)")
    assert table.column("id") == ["alanine", "alanine", "", "no structure"]
    assert table.smiles() == ["C[C@H](N)C(=O)O", "C[C@H](N)C(=O)O", "CC(C)(C)(C)C", ""]
    assert "cannot read structures 4" in caplog.text


def test_sheets_dates_and_whole_numbers(tmp_path, caplog):
    when = pandas.Timestamp("2024-05-06")
    frame = pandas.DataFrame(
        {
            "smiles": ["CC", "CO"],
            "when": [when, when],
            "sure": [True, False],
            "n": pandas.array([2**53 + 1, None], "Int64"),
        }
    )
    with pandas.ExcelWriter(tmp_path / "a.xlsx") as writer:
        frame.drop(columns="n").to_excel(writer, sheet_name="one", index=False)
        frame.to_excel(writer, sheet_name="two", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.xlsx", "a.parquet"):
        assert [row[:3] for row in read_table(tmp_path / name).rows] == [
            ("CC", "2024-05-06T00:00:00", "1"),
            ("CO", "2024-05-06T00:00:00", "0"),
        ]
    assert read_table(tmp_path / "a.parquet").column("n") == [str(2**53 + 1), ""]
    assert "of 2 sheets the first is read, 'one', not two" in caplog.text


@pytest.mark.parametrize(("name", "package"), [("a.xlsx", "openpyxl"), ("a.parquet", "pyarrow")])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, package):
    WRITERS[name](tmp_path / name)
    real = formats.import_module

    def without(module: str):
        if module == package:
            raise ModuleNotFoundError(name=package)
        return real(module)

    monkeypatch.setattr(formats, "import_module", without)
    with pytest.raises(DataError, match=rf"{package} is not installed; pip install 'plstm-graph\[tables\]'"):
        read_table(tmp_path / name)
