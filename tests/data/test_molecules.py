"""SMILES to graphs, against OGB's own functions."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from plstm_graph.data import load
from plstm_graph.data.depiction import depict, layout
from plstm_graph.data.molecules import CHIRALITY, Rejected, canonical_rank, read_molecules, smiles_to_data
from plstm_graph.data.smiles import canonical, parse, same_molecules, scaffold
from plstm_graph.data.vectors import fingerprints
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.transforms import OrientDAG

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"

IMPORT_WITHOUT_NETWORK = """
import builtins, socket, threading
reached = []
def refuse(what):
    def record(*args, **kwargs):
        reached.append(what)
        raise AssertionError(what)
    return record
socket.socket.connect = refuse("connect")
socket.getaddrinfo = refuse("getaddrinfo")
builtins.input = refuse("input")
threading.Thread.start = refuse("thread")
import plstm_graph.data
import sys
assert "rdkit" not in sys.modules and "ogb" not in sys.modules, "imported before they are needed"
from plstm_graph.data.molecules import smiles_to_data
assert smiles_to_data("CCO").num_nodes == 3
assert "ogb" in sys.modules and "outdated" not in sys.modules
assert not reached, reached
"""


def test_graphs_of_nav17_are_ogbs() -> None:
    """But for chirality, unless OGB's is asked for."""
    from ogb.utils import smiles2graph

    for graph, own in zip(load("nav17", featuriser="ogb-molecule").graphs, load("nav17").graphs, strict=True):
        expected = smiles2graph(graph.smiles)
        assert np.array_equal(graph.x.numpy(), expected["node_feat"])
        assert np.array_equal(graph.edge_index.numpy(), expected["edge_index"])
        assert np.array_equal(graph.edge_attr.numpy(), expected["edge_feat"])
        assert torch.equal(own.x[:, 2:], graph.x[:, 2:])
        assert torch.equal(own.edge_attr, graph.edge_attr)


@pytest.mark.parametrize(
    ("smiles", "labels"),
    [
        ("C[C@H](N)O", [0, 1, 0, 0]),  # from H, C, N, O run clockwise, so from the other side O, N, C do: R
        ("C[C@@H](N)O", [0, 2, 0, 0]),
        ("CC(N)O", [0, 0, 0, 0]),  # nobody has said which
        ("C[C@](C)(N)O", [0, 0, 0, 0, 0]),  # no stereocentre
        ("[CH3:1][C@]([CH3:2])(N)O", [0, 0, 0, 0, 0]),  # nor with map numbers
        ("C[C@H]1CC[C@@H](C)CC1", [0, 4, 0, 0, 4, 0, 0, 0]),  # cis and trans, pseudoasymmetric
        ("C[C@H]1CC[C@H](C)CC1", [0, 3, 0, 0, 3, 0, 0, 0]),
    ],
)
def test_chirality_is_the_cip_label(smiles: str, labels: list[int]) -> None:
    assert smiles_to_data(smiles).x[:, CHIRALITY].tolist() == labels


def test_an_unknown_featuriser_and_one_that_does_not_apply(shared_data: Path) -> None:
    with pytest.raises(ConfigError, match="unknown featuriser 'cip'; choose one of cip-molecule, ogb-molecule"):
        load("nav17", featuriser="cip")
    with pytest.raises(ConfigError, match="featuriser can only be chosen for"):
        load("ogbg-molesol", root=shared_data, featuriser="cip-molecule")


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbg-molfreesolv"])
def test_ogbs_own_data_keep_ogbs_features(shared_data: Path, name: str) -> None:
    from ogb.utils import smiles2graph

    data = load(name, root=shared_data)
    assert data.featuriser == "ogb-molecule"
    for graph in [graph for graph in data.graphs if "@" in graph.smiles][:50]:
        assert np.array_equal(graph.x.numpy(), smiles2graph(graph.smiles)["node_feat"])


def test_a_molecule_by_hand() -> None:
    graph = smiles_to_data("C=O")
    assert graph.edge_index.tolist() == [[0, 1], [1, 0]]
    assert graph.edge_attr.tolist() == [[1, 0, 0], [1, 0, 0]]
    # atomic number - 1, chirality, degree with H, charge + 5, H, radicals, sp2, aromatic, ring
    assert graph.x.tolist() == [[5, 0, 3, 5, 2, 0, 1, 0, 0], [7, 0, 1, 5, 0, 0, 1, 0, 0]]
    assert graph.smiles == "C=O"
    assert {graph.x.dtype, graph.edge_index.dtype, graph.edge_attr.dtype, graph.rank.dtype} == {torch.int64}


@pytest.mark.parametrize(("smiles", "nodes"), [("C", 1), ("[Na+].[Cl-]", 2)])
def test_molecule_without_bonds(smiles: str, nodes: int) -> None:
    graph = smiles_to_data(smiles)
    assert graph.x.shape == (nodes, 9)
    assert graph.edge_index.shape == (2, 0)
    assert graph.edge_attr.shape == (0, 3)
    assert graph.edge_index.dtype == graph.edge_attr.dtype == torch.int64


def test_rank_is_a_permutation_and_does_not_depend_on_the_writing() -> None:
    from rdkit.Chem import MolToRandomSmilesVect

    def ranked(smiles: str) -> tuple:
        graph = smiles_to_data(smiles)
        assert torch.equal(graph.rank, canonical_rank(smiles))
        assert sorted(graph.rank.tolist()) == list(range(graph.num_nodes))
        edges = torch.cat([graph.rank[graph.edge_index].t(), graph.edge_attr], dim=1).tolist()
        return graph.x[graph.rank.argsort()].tolist(), sorted(edges)

    chiral = ["C[C@H]1CC[C@@H](C)CC1", "O[C@H](F)[C@@H](O)[C@@H](F)O", "F/C=C/[C@](C)(N)C(=O)N[C@@H](C)/C=C\\Cl"]
    for text in chiral + [graph.smiles for graph in load("nav17").graphs[::100]]:
        expected = ranked(text), scaffold(text), canonical(text)
        mapped = parse(text)
        for atom in mapped.GetAtoms():
            atom.SetAtomMapNum(1 + atom.GetIdx() * 7 % 31)
        for mol in (parse(text), mapped):
            for other in MolToRandomSmilesVect(mol, 5, randomSeed=1):
                assert (ranked(other), scaffold(other), canonical(other)) == expected


MAPPED = ["CCO", "[CH3:1][CH2:2][OH:3]", "[CH3:3][CH2:1][OH:2]", "CCO |atomProp:0.molAtomMapNumber.7|"]


@pytest.mark.parametrize(
    "of",
    [
        lambda text: smiles_to_data(text).x.tolist(),
        lambda text: canonical_rank(text).tolist(),
        lambda text: OrientDAG()(
            Data(smiles=text, edge_index=smiles_to_data("CCO").edge_index, num_nodes=3)
        ).rank.tolist(),
        canonical,
        scaffold,
        lambda text: fingerprints([text]).tolist(),
        lambda text: layout(text).symbols,
        depict,
    ],
    ids=["features", "rank", "OrientDAG", "key", "scaffold", "fingerprint", "layout", "depict"],
)
def test_map_numbers_carry_no_chemistry(of) -> None:
    assert {str(of(text)) for text in MAPPED} == {str(of("CCO"))}


def test_what_rdkit_cannot_read_is_compared_as_it_is() -> None:
    assert same_molecules(["CCO", "C1CC", "OCC", "C1CC", "xyz"]) == [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CC(", "syntax error"),
        ("not a molecule", "follows a blank"),
        ("CC O", "'O' follows a blank"),
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5"),
        ("c1cccc1", "kekulize"),
        ("CC1", "unclosed ring"),
        ("", "empty"),
        ("   ", "empty"),
        (float("nan"), "must be a text, got float"),
        (None, "must be a text, got NoneType"),
    ],
)
def test_reason_of_a_refusal_is_one_line(smiles: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=reason.replace("(", r"\(")) as caught:
        smiles_to_data(smiles)
    assert "\n" not in str(caught.value)
    assert "[" not in str(caught.value)  # no time stamp of rdkit's log
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [("00\x80\x80" + 9 * "\U00010000", "not a valid SMILES"), ("C\udcffC", r"'C\\udcffC' is not Unicode text")],
)
def test_letters_that_no_smiles_has(smiles: str, reason: str) -> None:
    """rdkit's log cuts a long text between the bytes of a letter, and cannot take half a letter at all."""
    with pytest.raises(DataError, match=reason):
        parse(smiles)


def test_reason_without_rdkits_capture_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from rdkit import rdBase

    monkeypatch.delattr(rdBase, "CaptureErrorLog", raising=False)
    with pytest.raises(DataError, match="not a valid SMILES"):
        parse("CC(")


def test_surrounding_blanks_and_cxsmiles_are_read() -> None:
    assert parse("  CCO \n").GetNumAtoms() == 3
    assert parse("CCO |$a;b;c$|").GetNumAtoms() == 3


def test_bond_stereo_that_ogb_does_not_know() -> None:
    text = "Cc1cccc(I)c1-c1c(C)cccc1Br |wU:7.6|"
    if "ATROP" not in {str(bond.GetStereo())[6:11] for bond in parse(text).GetBonds()}:
        pytest.skip("this rdkit does not read atropisomers")
    with pytest.raises(DataError, match="STEREOATROP"):
        smiles_to_data(text)


def test_read_molecules_goes_on_after_a_bad_row() -> None:
    graphs, rejected = read_molecules(["CC", "xyz", "", "CCC"])
    assert [(row, graph.num_nodes) for row, graph in graphs] == [(1, 2), (4, 3)]
    assert [(bad.row, bad.text) for bad in rejected] == [(2, "xyz"), (3, "")]
    assert isinstance(rejected[0], Rejected)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    with pytest.raises(DataError, match=r"rdkit is not installed; pip install .*\[mol\]"):
        read_molecules(["CC"])


def test_importing_ogb_reaches_no_network_and_asks_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_WITHOUT_NETWORK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scaffold() -> None:
    assert scaffold("CCCC") == ""
    assert scaffold(ASPIRIN) == "c1ccccc1"


SCAFFOLDS = [
    "C.CC.c1ccccc1.C1CC1C.[Na+].[Cl-]",
    "*C1CCCCC1",
    "Cn1cccc1CC",
    "C[n+]1ccccc1C",
    "C[c+]1cc1",
    "c1ccc[b-](C)c1",
    "CC(=C1CCCCC1)C(C)C",
    "C/C=C1/CCCC1C",
    "C=C=C1CCCCC1",
    "CS(=O)(C)=C1CCCC1",
    "CP1(=O)OCCO1",
    "C1CC12CC2C",
    "C[C@]12CCCC[C@H]1CCCC2",
    "C1CC1[C@@H](F)[C@H](Cl)C1CC1",
    "F/C(C1CC1)=C(/Br)C1CC1",
    "N[C@@H](Cc1ccccc1)C(=O)N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O",
    "C[N+]1(C)CCCC1",
    "[2H]c1cc[13cH]cc1",
    "N1->[Pt](Cl)(Cl)<-NCC1",
    "c1ccn2->[Fe](Cl)(Cl)<-n3ccccc3-c2c1",
    "C1C~C~C1C1CC1",
]


@pytest.mark.parametrize("text", SCAFFOLDS)
def test_scaffold_is_that_of_rdkit(text: str) -> None:
    from rdkit.Chem.Scaffolds import MurckoScaffold

    assert scaffold(text) == MurckoScaffold.MurckoScaffoldSmiles(mol=parse(canonical(text)), includeChirality=True)


def test_scaffold_of_a_large_molecule_needs_no_shortest_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which there are four million between the atoms of this one."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    monkeypatch.setattr(MurckoScaffold, "MurckoScaffoldSmiles", None)
    text = f"C1CC1{'C' * 2000}C1CC1"
    assert scaffold(text) == canonical(text)


def test_depict() -> None:
    """One path a bond half, letters for hetero atoms, and nothing behind them."""
    text = depict("CCO", 200, 100)
    assert "width='200px' height='100px'" in text
    assert {"bond-0", "bond-1"} <= set(re.findall(r"bond-\d", text))
    assert "<rect" not in text
    ends = [float(x) for x in re.findall(r"[ML] ([\d.]+),", text)]
    assert max(ends) - min(ends) < 2 * 27  # as long as in a larger molecule, though there is room
    with pytest.raises(DataError, match="C1CC"):
        depict("C1CC")


def test_layout() -> None:
    drawing = layout("C1CC1=O")
    assert drawing.symbols == ["C", "C", "C", "O"]
    assert sorted((a, b, order) for a, b, order in drawing.bonds) == [
        (0, 1, 1.0),
        (1, 2, 1.0),
        (2, 0, 1.0),
        (2, 3, 2.0),
    ]
    assert drawing.coordinates.shape == (4, 2)
    assert np.linalg.norm(drawing.coordinates[0] - drawing.coordinates[1]) > 0.5
    assert {order for *_, order in layout("c1ccccc1").bonds} == {1.5}
    assert layout("[NH3+]CC(=O)[O-].[Ca+2].[Cl-]").symbols == ["N⁺", "C", "C", "O", "O⁻", "Ca²⁺", "Cl⁻"]
