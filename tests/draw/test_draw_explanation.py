from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch
from rdkit import Chem

from plstm_graph.data.molecules import smiles_to_data
from plstm_graph.draw import draw_explanation
from plstm_graph.draw.explanation import ARROWS, DISC, HIGHER, LOWER, Page, _drawn
from plstm_graph.draw.marks import PAGE, READABLE
from plstm_graph.errors import ConfigError, DataError, ShapeError
from plstm_graph.models.explain import Explanation, Flow

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
PEPTIDE = "CC(C)CC1NC(=O)C(Cc2ccccc2)NC(=O)C(CCCCN)NC(=O)C(CO)NC(=O)C(C(C)C)NC(=O)C2CCCN2C(=O)C(CC(=O)O)NC(=O)C(C)NC1=O"
INHIBITOR = "OCCn1nccc1c2cc(Cl)ccc2Oc3ccc(cc3C#N)S(=O)(=O)Nc4ncns4"
SALT = "[Na+].CC(=O)[O-].O"
SVG = "{http://www.w3.org/2000/svg}"
KINDS = [(mode, direction) for mode in "PD" for direction in ("along", "against")]


def made_up(smiles: str, kinds: list[tuple[str, str]] = KINDS, scale: float = 1.0) -> Explanation:
    """Numbers of the right shape; they add up."""
    graph = smiles_to_data(smiles)
    torch.manual_seed(1)
    nodes, edges = torch.randn(graph.num_nodes).double() * scale, torch.randn(graph.num_edges).double() * scale
    shape = (2, graph.num_nodes, graph.num_nodes)
    flows = [Flow(layer, *kind, torch.randn(shape).double() * scale) for layer, kind in enumerate(kinds)]
    value = 6.5 * scale
    blank = value - float(nodes.sum() + edges.sum())
    silent = value - float(sum(flow.scores.sum() for flow in flows))
    return Explanation(value, blank, silent, nodes, edges, graph.edge_index, flows)


@cache
def page_of(smiles: str, kinds: tuple[tuple[str, str], ...] = tuple(KINDS), scale: float = 1.0) -> Page:
    """Drawn once for all who look at it."""
    unit = "log-odds of a target with a name that goes on and on $x_1$"
    return _drawn(made_up(smiles, list(kinds), scale), smiles, unit)


def groups(path: Path) -> dict[str, ElementTree.Element]:
    found = list(ElementTree.parse(path).iter(f"{SVG}g"))
    assert max(Counter(group.get("id") for group in found).values()) == 1
    return {group.get("id", ""): group for group in found}


def fill(group: ElementTree.Element) -> tuple[int, int, int]:
    (style,) = [element.get("style", "") for element in group.iter(f"{SVG}path")]
    colour = dict(part.strip().split(": ") for part in style.split(";") if part.strip())["fill"]
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def test_colours_are_the_scores(tmp_path: Path) -> None:
    explanation = made_up(ASPIRIN)
    found = groups(draw_explanation(explanation, ASPIRIN, tmp_path / "x.svg", unit="pIC50"))
    shown = {"atom": explanation.scores, "sent": explanation.pairs().sum(0)}
    shown |= {f"{mode}-{direction}-sent": explanation.pairs(mode, direction).sum(0) for mode, direction in KINDS}
    for name, scores in shown.items():
        for atom, score in enumerate(scores.tolist()):
            red, _, blue = fill(found[f"{name}-{atom}"])
            assert (red > blue) == (score > 0) or abs(score) < 0.03 * scores.abs().max(), (name, atom)
    strongest = int(explanation.scores.abs().argmax())
    end = HIGHER if explanation.scores[strongest] > 0 else LOWER
    assert "#{:02x}{:02x}{:02x}".format(*fill(found[f"atom-{strongest}"])) == end.lower()


def test_arrows_are_the_strongest_pairs(tmp_path: Path) -> None:
    explanation = made_up(CAFFEINE)
    found = groups(draw_explanation(explanation, CAFFEINE, tmp_path / "x.svg", unit="pIC50"))
    for prefix, flow in [("", explanation.pairs()), *((f"{'-'.join(k)}-", explanation.pairs(*k)) for k in KINDS)]:
        between = flow.clone().fill_diagonal_(0).flatten()
        size = len(flow)
        order = between.abs().argsort(descending=True)[:ARROWS].tolist()
        want = {f"{prefix}flow-{index % size}-{index // size}": float(between[index]) for index in order}
        drawn = {name for name in found if name.startswith(f"{prefix}flow-")}
        assert drawn == set(want)
        for name, value in want.items():
            dashed = "stroke-dasharray" in ElementTree.tostring(found[name], encoding="unicode")
            assert dashed == (value < 0)


@pytest.mark.parametrize(
    ("smiles", "kinds", "scale"),
    [
        *((smiles, KINDS, 1.0) for smiles in ("[Na+]", "CCO", SALT, ASPIRIN, PEPTIDE)),
        *(("CCO", kinds, 1.0) for kinds in (KINDS[:2], KINDS[:1], KINDS[::2])),
        *(("CCO", KINDS, scale) for scale in (1e-4, 1234.0)),
    ],
)
def test_no_text_overlaps_another_or_leaves_the_page(smiles: str, kinds: list[tuple[str, str]], scale: float) -> None:
    page = page_of(smiles, tuple(kinds), scale)
    assert len(page.small) == (len(kinds) if len(kinds) > 1 else 0)
    texts = [text for axes in page.figure.axes for text in (*axes.texts, axes.title) if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    width, height = page.figure.get_size_inches() * page.figure.dpi
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (first, box), (second, other) in combinations(boxes, 2):
        assert not box.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9)), (first, second)


@pytest.mark.parametrize(("smiles", "beside"), [(ASPIRIN, True), (CAFFEINE, True), (INHIBITOR, False)])
def test_letters_can_be_read_on_a_page(smiles: str, beside: bool) -> None:
    """Large panels lie below each other where letters side by side would be too small."""
    page = page_of(smiles)
    first, second = (panel.get_position() for panel in page.large)
    assert (first.y0 == second.y0, first.x0 == second.x0) == (beside, not beside)
    texts = [text for axes in page.figure.axes for text in (*axes.texts, axes.title) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) / 72 * PAGE / page.figure.get_figwidth() >= READABLE


@pytest.mark.parametrize("smiles", ["CCO", SALT, ASPIRIN, CAFFEINE, PEPTIDE])
def test_atoms_do_not_overlap(smiles: str) -> None:
    page = page_of(smiles)
    points = torch.tensor(page.points) * page.scale
    assert torch.pdist(points).min() > 2 * DISC


@pytest.mark.parametrize("smiles", ["CCCC", ASPIRIN, CAFFEINE])
def test_arrows_run_round_the_atoms_between(smiles: str) -> None:
    """Else one between atoms two bonds apart would read as two arrows of other pairs."""
    atoms = len(smiles_to_data(smiles).x)
    apart = Chem.GetDistanceMatrix(Chem.MolFromSmiles(smiles))
    ends = [(int(src), int(dst)) for src, dst in zip(*np.nonzero(apart == 2), strict=True)][::3]
    for some in (ends[first : first + ARROWS] for first in range(0, len(ends), ARROWS)):
        scores = torch.zeros(1, atoms, atoms).double()
        for src, dst in some:
            scores[0, dst, src] = 1.0
        page = _drawn(replace(made_up(smiles), flows=[Flow(0, "P", "along", scores)]), smiles, "y")
        arrows = {patch.get_gid(): patch for patch in page.large[1].patches if isinstance(patch, FancyArrowPatch)}
        assert arrows.keys() == {f"flow-{src}-{dst}" for src, dst in some}
        to_paper = page.large[1].transData
        for src, dst in some:
            path = arrows[f"flow-{src}-{dst}"].get_path()
            lines = to_paper.transform_path(path).to_polygons(closed_only=False)  # curves in short steps
            corners = to_paper.inverted().transform(np.concatenate(lines))
            others = np.delete(page.points, [src, dst], axis=0)
            near = np.hypot(*(corners[:, None] - others[None]).transpose(2, 0, 1)).min()
            assert near * page.scale > DISC


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_explanation_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    explanation = made_up("CCO")
    paths = [draw_explanation(explanation, "CCO", tmp_path / f"{name}.{suffix}", unit="y") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_nothing_to_show(tmp_path: Path) -> None:
    """All zero: white atoms, no arrows, and no division by zero."""
    found = groups(draw_explanation(made_up("CCO", scale=0.0), "CCO", tmp_path / "x.svg", unit="y"))
    assert not any("flow-" in name for name in found)
    assert fill(found["atom-0"]) == fill(found["sent-2"]) == (255, 255, 255)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="has 2 atoms, the explanation 3 nodes"):
        draw_explanation(made_up("CCO"), "CC", tmp_path / "x.svg", unit="y")
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        draw_explanation(made_up("CCO"), "CCO", tmp_path / "x.pdf", unit="y")
    with pytest.raises(DataError):
        draw_explanation(made_up("CCO"), "C1CC", tmp_path / "x.svg", unit="y")
    assert list(tmp_path.iterdir()) == []
