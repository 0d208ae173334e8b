"""One file with all graphs: what comes out is what the raw files say."""

import gzip

import carry
import graphs
import pytest
import torch

from plstm_graph.errors import DataError

BENZENE, ETHANE = "c1ccccc1", "CC"
LABELS = "[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def root(tmp_path):
    """Raw files of three molecules (three atoms in a row, one alone, two bonded), three peptides and one circuit."""
    folder = tmp_path / "ogb" / "ogbg_molhiv"
    put(folder / "raw" / "num-node-list.csv.gz", "3\n1\n2\n")
    put(folder / "raw" / "num-edge-list.csv.gz", "2\n0\n1\n")
    put(folder / "raw" / "edge.csv.gz", "0,1\n2,1\n0,1\n")
    put(folder / "raw" / "node-feat.csv.gz", "".join(f"{i},0,4,5,3,0,2,0,0\n" for i in range(6)))
    put(folder / "raw" / "edge-feat.csv.gz", "0,0,0\n1,0,1\n0,0,0\n")
    put(folder / "raw" / "graph-label.csv.gz", "0\n1\n1\n")
    for part, number in (("train", "1"), ("valid", "0"), ("test", "2")):
        put(folder / "split" / "scaffold" / f"{part}.csv.gz", number)
    table = f',smiles,labels\n0,{BENZENE},"{LABELS}"\n1,{ETHANE},"{LABELS}"\n2,O,"{LABELS}"\n'
    put(tmp_path / "peptides-func" / "raw" / "peptide_multi_class_dataset.csv.gz", table)
    for part, number in (("train", "0"), ("val", "1"), ("test", "2")):
        put(tmp_path / "peptides-func" / "split" / f"{part}.csv.gz", number)
    put(tmp_path / "dag_EPFL_aig" / "one.aig.gz", "aig 3 2 0 1 1\n6\n\x02\x02")
    return tmp_path


def test_there_and_back(root, tmp_path, capsys):
    file = tmp_path / "out" / "graphs.npz"
    assert carry.main(["--root", str(root), "--out", str(file)]) == 0
    assert "ogbg-molhiv, circuits, peptides-func" in capsys.readouterr().out
    found = graphs.load_sets(file=str(file))
    first, second = found.molecules.data([0, 1])
    assert first.edge_index.tolist() == [[0, 1, 2, 1], [1, 0, 1, 2]]
    assert first.edge_attr.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]]
    assert (second.num_nodes, second.x[0, 0], second.y.tolist()) == (1, 3, [[1.0]])
    assert found.molecules.split.tolist() == [1, 0, 2]
    ring, chain = found.large.data([0, 1])
    assert (ring.num_nodes, ring.num_edges, chain.num_nodes, chain.num_edges) == (6, 12, 2, 2)
    assert ring.y.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert found.circuits["one"].edge_index.tolist() == [[2, 1], [3, 3]]
    assert torch.equal(graphs.load_sets(str(root)).molecules.bonds, found.molecules.bonds)


def test_features_are_those_of_the_package(root):
    from plstm_graph.data import smiles_to_data

    molecules = graphs.unpacked("peptides", carry.peptides(root, 1))
    (ring,), want = molecules.data([0]), smiles_to_data(BENZENE)
    assert torch.equal(ring.x, want.x)
    assert torch.equal(ring.edge_index, want.edge_index)
    assert torch.equal(ring.edge_attr, want.edge_attr)


def test_files_that_do_not_fit_together(root, tmp_path):
    put(root / "ogb" / "ogbg_molhiv" / "raw" / "edge.csv.gz", "0,1\n")
    with pytest.raises(DataError, match="do not fit together: 1 edges, 3 announced"):
        carry.molhiv(root)
    with pytest.raises(DataError, match=r"carry\.py writes it"):
        carry.read(tmp_path / "none.npz")
