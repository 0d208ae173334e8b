"""Texts that are, or almost are, SMILES: each becomes a graph or a reason, and rows keep their places."""

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from fuzzing import fuzz, told
from hypothesis import strategies as st
from small_runs import molecules, small_config, write_csv
from torch_geometric.data import Data

from plstm_graph.data import load
from plstm_graph.data.dataset import MOLECULE, GraphDataset
from plstm_graph.data.molecules import read_molecules, smiles_to_data
from plstm_graph.tasks import Multiclass
from plstm_graph.train import predict, train

LETTERS = "CNOPSFIBrclnosp[]()=#:/\\@+-.%0123456789H*$~>|{} \t\n\x00é漢"
KNOWN = [*molecules(12), "C[C@H](N)C(=O)O", "F/C=C/F", "[Na+].[Cl-]", "[13CH4]", "O=C1c2ccccc2C(=O)N1", "[U]", "[2H]O"]
STEREO = ["C[C@H](N)C(=O)O", "C[C@H]1CC[C@@H](C)CC1", "C[C@H]1CC[C@H](C)CC1", "O[C@H](F)[C@@H](O)[C@@H](F)O", "F/C=C/F"]
STEREO += [
    r"C/C=C/[C@H](O)\C=C/C",
    "C[S@](=O)c1ccccc1",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C1C[C@H]2C[C@@H]1CC2",
]
SPLITS = ("random", "folds", "scaffold")
MARKS = ["C" * length for length in range(1, 25)]  # what is predicted for a mark says which one it is


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A molecule with some letters put in, taken out or doubled."""
    text = draw(st.sampled_from(KNOWN))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(text)))
        new = draw(st.text(LETTERS, max_size=3))
        text = text[:place] + new + text[place + draw(st.integers(0, 2)) :]
    return text


TEXTS = st.one_of(st.sampled_from(KNOWN), changed(), changed(), st.text(LETTERS, max_size=30), st.text(max_size=20))


@fuzz(0.15, text=TEXTS)
def test_a_text_is_a_graph_or_an_error(text: str) -> None:
    with told():
        graph = smiles_to_data(text)
        assert graph.validate()
        assert sorted(graph.rank.tolist()) == list(range(graph.num_nodes))


@fuzz(0.1, texts=st.lists(TEXTS, max_size=8))
def test_every_row_is_read_or_rejected(texts: list[str]) -> None:
    graphs, rejected = read_molecules(texts)
    rows = [row for row, _ in graphs]
    refused = [row.row for row in rejected]
    assert rows == sorted(rows)
    assert sorted([*rows, *refused]) == list(range(1, len(texts) + 1))
    assert all(graph.smiles == texts[row - 1] for row, graph in graphs)
    assert all(row.text == texts[row.row - 1] and row.reason and "\n" not in row.reason for row in rejected)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A run whose model tells all marks apart, and what it predicts for them."""
    folder = tmp_path_factory.mktemp("fuzz")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", epochs=1))
    found = predict(folder / "run", MARKS).values.view(-1).tolist()
    assert all(abs(a - b) > 1e-4 for i, a in enumerate(found) for b in found[:i]), "marks must differ"
    return folder / "run", dict(zip(MARKS, found, strict=True))


@fuzz(0.05, texts=st.lists(TEXTS | st.sampled_from(MARKS), min_size=1, max_size=12), batch_size=st.integers(1, 5))
def test_predictions_stand_in_their_rows(run: tuple[Path, dict[str, float]], texts: list[str], batch_size: int) -> None:
    checkpoint, known = run
    found = predict(checkpoint, texts, batch_size=batch_size)
    refused = {row.row - 1 for row in found.rejected}
    assert found.smiles == texts
    assert len(found.values) == len(texts)
    for row, text in enumerate(texts):
        value = found.values[row, 0]
        assert bool(value.isnan()) == (row in refused)
        if text in known:
            assert torch.isclose(value, torch.tensor(known[text]), rtol=0, atol=3e-5)


@cache
def drugs() -> list[str]:
    """Real molecules, among them all of nav17 with stereocentres or double bonds that have a side."""
    texts = [graph.smiles for graph in load("nav17").graphs]
    return [text for number, text in enumerate(texts) if "@" in text or "/" in text or number % 20 == 0]


def respelled(text: str, rng: random.Random) -> str:
    """The same molecule with its atoms in another order, now and then kekulé, with all hydrogens, with map numbers."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(text)
    mol = Chem.RenumberAtoms(mol, rng.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms()))
    kekule = rng.random() < 0.4
    if kekule:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    if rng.random() < 0.6:
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(rng.choice([0, rng.randrange(1, 999)]))
    return Chem.MolToSmiles(mol, canonical=False, kekuleSmiles=kekule, allHsExplicit=rng.random() < 0.3)


@fuzz(0.15, number=st.integers(0, 10**6), seed=st.integers(0, 2**32))
def test_no_spelling_changes_a_prediction(run: tuple[Path, dict[str, float]], number: int, seed: int) -> None:
    texts = [*STEREO, *KNOWN, *drugs()]
    text = texts[number % len(texts)]
    other = respelled(text, random.Random(seed))
    found = predict(run[0], [text, other])
    assert not found.rejected, other
    assert torch.allclose(found.values[0], found.values[1], rtol=0, atol=1e-5), (text, other, found.values)


@fuzz(0.05, seed=st.integers(0, 2**32), kind=st.sampled_from(SPLITS))
def test_no_molecule_stands_in_two_parts(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    chosen = rng.sample([*{*STEREO, *drugs()}], 30)
    rows = [(text, number) for number, text in enumerate(chosen) for _ in range(rng.randint(1, 3))]
    rng.shuffle(rows)
    graphs = [Data(smiles=respelled(text, rng), y=torch.tensor([number % 2])) for text, number in rows]
    dataset = GraphDataset("some", graphs, Multiclass(("y",)), MOLECULE)
    with told():  # scaffolds of a few molecules may leave a part empty
        parts = dataset.split(kind, seed % 10)
        sides = {number: set() for _, number in rows}
        for part, indices in parts.items():
            for index in indices:
                sides[rows[index][1]].add(part)
        assert sorted(index for part in parts.values() for index in part) == list(range(len(rows)))
        assert all(len(side) == 1 for side in sides.values()), (kind, [graph.smiles for graph in graphs])
