"""Descriptors of molecules: the same in every spelling, from rdkit, a file or prepared data."""

import pytest
import torch

from plstm_graph.config.names import DESCRIPTORS
from plstm_graph.data import load, read_prepared, write_prepared
from plstm_graph.data.descriptors import describe
from plstm_graph.data.prepared import packed, unpacked
from plstm_graph.errors import ConfigError, DataError

ETHANOL, SAME, BENZENE = "CCO", "[CH3:7]C[OH]", "c1ccccc1"


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_molecule_has_one_row_however_it_is_written(kind):
    ethanol, same, benzene, none = describe(kind, [ETHANOL, SAME, BENZENE, "no molecule"]).rows
    assert torch.equal(ethanol.nan_to_num(), same.nan_to_num())
    assert not torch.equal(ethanol.nan_to_num(), benzene.nan_to_num())
    assert none.isnan().all() if kind == "rdkit2d" else not none.any()


def test_rdkit_descriptors_are_rdkits():
    from rdkit.Chem import Descriptors

    found = describe("rdkit2d", [BENZENE])
    assert found.names == tuple(f"rdkit2d {name}" for name, _ in Descriptors.descList)
    assert found.rows[0, found.names.index("rdkit2d MolWt")] == pytest.approx(78.114)


def test_fingerprints_as_counts_say_how_often():
    bits, counts = (describe(kind, [BENZENE]).rows[0] for kind in ("morgan", "morgan-counts"))
    assert torch.equal(bits, (counts > 0).float())
    assert counts.max() == 6


def test_a_file_gives_its_numbers_by_molecule(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(f"smiles,name,a,b\n{BENZENE},x,1,\n{SAME},y,2.5,-3\n")
    names, found = describe(str(path), [ETHANOL, "C", BENZENE])
    assert names == ("a", "b")
    assert found[0].tolist() == [2.5, -3]
    assert found[1].isnan().all()
    assert found[2, 0] == 1
    assert found[2, 1].isnan()


def test_what_cannot_be_used_is_told(tmp_path):
    for typed in ("rdkit2", str(tmp_path / "rdkit2")):  # as a path, which the command line makes of it
        with pytest.raises(ConfigError, match=f"there is no file {typed}: .*; did you mean 'rdkit2d'"):
            describe(typed, [ETHANOL])
    with pytest.raises(ConfigError, match=r"there is no file gone.csv; give --descriptors the file where it is now"):
        describe("gone.csv", [ETHANOL])
    (tmp_path / "own.csv").write_text("smiles,name\nCCO,x\n")
    with pytest.raises(DataError, match="no column of numbers"):
        describe(str(tmp_path / "own.csv"), [ETHANOL])
    (tmp_path / "own.csv").write_text("smiles,a\nCCO,1\n")
    with pytest.raises(DataError, match=r"none of 1 molecules is in .*; give --descriptors a file that has them"):
        describe(str(tmp_path / "own.csv"), [BENZENE])
    (tmp_path / "own.csv").write_text(f"smiles,a,b\n{ETHANOL},1,\n{SAME},1,\n")
    assert describe(str(tmp_path / "own.csv"), [ETHANOL]).rows[0, 0] == 1
    (tmp_path / "own.csv").write_text(f"smiles,a\n{ETHANOL},1\n{SAME},2\n")
    with pytest.raises(DataError, match="two that differ"):
        describe(str(tmp_path / "own.csv"), [ETHANOL])
    (tmp_path / "own.csv").write_text(f"smiles,a,a\n{ETHANOL},1,2\n")
    with pytest.raises(DataError, match="two columns named 'a'"):
        describe(str(tmp_path / "own.csv"), [ETHANOL])


def test_a_file_with_semicolons_has_decimal_commas(tmp_path):
    """As it has for labels."""
    (tmp_path / "own.csv").write_text(f"smiles;a;b\n{ETHANOL};-4,75;1\n{BENZENE};3;1,5e2\n")
    names, found = describe(str(tmp_path / "own.csv"), [ETHANOL, BENZENE])
    assert names == ("a", "b")
    assert found.tolist() == [[-4.75, 1], [3, 150]]


def test_what_is_missing_is_said(tmp_path, caplog):
    """To a model it is the median of the training, which nothing in a prediction shows."""
    path = tmp_path / "own.csv"
    path.write_text(f"smiles,name,a,b\n{ETHANOL},x,1,\n{BENZENE},y,n.d.,2\nC,z,1_000,NA\n")
    assert describe(str(path), [ETHANOL, BENZENE, "C"]).rows[1:, 0].isnan().all()
    assert "own.csv, column 'a': 2 of 3 cells hold no number and are missing: 'n.d.', '1_000'" in caplog.text
    assert "column 'b'" not in caplog.text
    assert "no descriptors, since they hold no numbers: name" in caplog.text
    assert "lacks" not in caplog.text
    caplog.clear()
    describe(str(path), [ETHANOL, "CC", "CCC"], ("a", "b"))
    assert "own.csv lacks 2 of 3 molecules (CC, CCC, ...): to the model" in caplog.text
    assert "name" not in caplog.text


def test_a_column_without_a_name_is_no_descriptor(tmp_path, caplog):
    """As the row numbers that pandas writes."""
    (tmp_path / "own.csv").write_text(f",smiles,a\n0,{ETHANOL},1\n1,{BENZENE},2\n")
    assert describe(str(tmp_path / "own.csv"), [BENZENE]).rows.tolist() == [[2]]
    assert "column 1 has no name" in caplog.text


def test_what_is_to_be_answered_is_no_descriptor(tmp_path):
    (tmp_path / "few.csv").write_text(f"smiles,Y,a\n{ETHANOL},1.5,1\n{BENZENE},2.5,2\n")
    with pytest.raises(DataError, match="Y is a target and a column of"):
        load(str(tmp_path / "few.csv"), targets=["y"], descriptors=[str(tmp_path / "few.csv")])
    (tmp_path / "own.csv").write_text(f"smiles,a\n{ETHANOL},1\n{BENZENE},2\n")
    kinds = [str(tmp_path / "own.csv"), str(tmp_path / "few.csv")]
    with pytest.raises(DataError, match="two columns of the descriptors are called a;"):
        load(str(tmp_path / "few.csv"), targets=["y"], descriptors=kinds)


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([[0.0, 0.0, 300.0, 0.0, 0.0, 0.0], [0.0] * 6, [1.0, 0.0, 0.0, 0.0, 0.0, 2.0]]),
        torch.tensor([[0.5, float("nan"), 1e30]]),
        torch.zeros(2, 3),
        torch.tensor([[0.0] * 20 + [1e20]]),
        torch.tensor([[0.0] * 20 + [-0.0, 1.0]]),
    ],
)
def test_rows_are_packed_without_loss(rows):
    assert torch.equal(unpacked(packed(rows)).view(torch.int32), rows.view(torch.int32))


def test_prepared_data_have_those_they_were_prepared_with(tmp_path):
    csv = tmp_path / "few.csv"
    csv.write_text("smiles,y\n" + "".join(f"{'C' * (1 + n)}O,{n}\n" for n in range(6)))
    kinds = ("morgan-counts", "rdkit2d")
    direct = load(str(csv), targets=["y"], descriptors=kinds)
    write_prepared(tmp_path / "few.pt", direct, descriptors=kinds)
    plain = read_prepared(tmp_path / "few.pt")
    assert (plain.features.descriptors, plain.features.descriptor_names) == (0, ())
    assert "descriptors" not in plain.graphs[0]
    again = load(str(tmp_path / "few.pt"), descriptors=kinds)
    assert again.features == direct.features
    assert len(again.features.descriptor_names) == again.features.descriptors
    for one, other in zip(direct.graphs, again.graphs, strict=True):
        assert torch.equal(one.descriptors.nan_to_num(-7.0), other.descriptors.nan_to_num(-7.0))
