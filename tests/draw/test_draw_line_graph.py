import re
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon

from plstm_graph import LineDAG
from plstm_graph.data.depiction import layout
from plstm_graph.data.molecules import canonical_rank, smiles_to_data
from plstm_graph.draw import draw
from plstm_graph.draw.explanation import _colours as _scores
from plstm_graph.draw.line_graph import _colours, _line_graph, _molecule, _page
from plstm_graph.draw.marks import INK, MUTED, PAGE, READABLE, on
from plstm_graph.draw.molecule import ELEMENTS
from plstm_graph.draw.scene import GAP, TAG_HEIGHT, arranged, scene_of
from plstm_graph.errors import ConfigError, DataError, PLSTMGraphError, ShapeError, TargetError
from plstm_graph.transforms import OrientDAG

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
PENICILLIN = "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O"
ATORVASTATIN = "CC(C)c1n(CC[C@@H](O)C[C@@H](O)CC(=O)O)c(-c2ccc(F)cc2)c(-c2ccccc2)c1C(=O)Nc1ccccc1"
MORPHINE = "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Draws a molecule in an order, once for all who look at it."""
    folder = tmp_path_factory.mktemp("pictures")

    @cache
    def drawn(smiles: str, order: str = "index") -> Path:
        return draw(smiles, folder / f"{len(list(folder.iterdir()))}.svg", order=order)

    return drawn


def ids(path: Path) -> dict[str, list[str]]:
    """Ids of the marks in a picture, by kind: ``{"edge": ["edge-0-1", ...], ...}``; each id at most once."""
    found = [element.get("id", "") for element in ElementTree.parse(path).iter(f"{SVG}g")]
    assert max(Counter(found).values()) == 1
    kinds = ("atom", "node", "edge", "tag", "pair", "pruned", "level")
    return {kind: [name for name in found if name.startswith(f"{kind}-")] for kind in kinds}


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.parse(path).iter(f"{SVG}text")]


def line_dag(smiles: str, order: str | torch.Tensor) -> LineDAG:
    molecule = layout(smiles)
    ends = torch.tensor([bond[:2] for bond in molecule.bonds]).t()
    return LineDAG.from_edge_index(ends, len(molecule.symbols), order=order)


@pytest.mark.parametrize(
    ("smiles", "order"),
    [(ASPIRIN, "index"), (ASPIRIN, "bfs"), (ASPIRIN, "degree"), (ASPIRIN, "canonical"), (PENICILLIN, "index")],
)
def test_the_picture_shows_the_line_dag(picture: Callable[..., Path], smiles: str, order: str) -> None:
    path = picture(smiles, order)
    dag = line_dag(smiles, canonical_rank(smiles) if order == "canonical" else order)
    ends = list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))
    pruned = dag.prune()
    kept = set(zip(pruned.prev.tolist(), pruned.next.tolist(), strict=True))
    pairs = {
        (prev, next): f"{ends[prev][0]}-{ends[prev][1]}-{ends[next][1]}"
        for prev, next in zip(dag.prev.tolist(), dag.next.tolist(), strict=True)
    }
    found = ids(path)
    assert len(found["atom"]) == len(found["node"]) == dag.num_nodes
    assert set(found["edge"]) == {f"edge-{src}-{dst}" for src, dst in ends}
    assert set(found["tag"]) == {f"tag-{src}-{dst}" for src, dst in ends}
    assert set(found["pair"]) == {f"pair-{name}" for pair, name in pairs.items() if pair in kept}
    assert set(found["pruned"]) == {f"pruned-{name}" for pair, name in pairs.items() if pair not in kept}
    assert found["level"] == [f"level-{level}" for level in range(dag.num_levels)]
    written = texts(path)
    assert set(written) >= {f"{src}→{dst}" for src, dst in ends} | {f"{n}" for n in range(dag.num_nodes)}
    assert Counter(written)["C"] == layout(smiles).symbols.count("C")


@pytest.mark.parametrize(
    ("smiles", "written"),
    [
        ("CCO", {"O", "H"}),
        ("CCN", {"N", "H₂"}),
        ("[NH4+]", {"N", "H₄⁺"}),
        ("C[NH3+]", {"N", "H₃⁺"}),
        ("C[O-]", {"O⁻"}),
        ("CC#N", {"N"}),
    ],
)
def test_hydrogens_of_hetero_atoms_are_written(tmp_path: Path, smiles: str, written: set[str]) -> None:
    found = texts(draw(smiles, tmp_path / "x.svg", title=""))
    symbols = {text for text in found if text[:1] in ("N", "O", "H")}
    mirrored = {text.replace("N", "N⁺").replace("H₃⁺", "H₃") for text in written} if "H₃⁺" in written else written
    assert symbols in (written, mirrored)  # the charge stands last, on whichever side the hydrogens are
    assert layout(smiles).hydrogens[-1] == {"CCO": 1, "CCN": 2, "[NH4+]": 4, "C[NH3+]": 3}.get(smiles, 0)
    assert not any(layout("C" + "C" * 4).hydrogens)


@pytest.mark.parametrize("smiles", ["C[C@H](N)O", "C[C@@H](N)O"])
def test_wedges_are_those_of_rdkit_and_tell_mirror_images_apart(tmp_path: Path, smiles: str) -> None:
    (wedge,) = layout(smiles).wedges.items()
    (other,) = layout(smiles.replace("@@", "@") if "@@" in smiles else smiles.replace("@", "@@")).wedges.items()
    assert wedge[0][0] == 1  # the narrow end is at the centre
    assert wedge[0] == other[0]
    assert wedge[1] != other[1]
    assert layout("CC(N)O").wedges == {}
    scene = arranged(scene_of(smiles, "index", 0))
    page = _page(scene)
    _molecule(scene, page)
    filled = [patch for patch in page.panels[0].patches if isinstance(patch, Polygon)]
    bars = len(page.panels[0].lines) - 2  # the other two bonds are a line each
    assert (len(filled), bars) == ((1, 0) if wedge[1] else (0, 7))


def test_a_picture_has_a_name_and_a_title_for_screen_readers(tmp_path: Path, picture: Callable[..., Path]) -> None:
    root = ElementTree.parse(draw(ASPIRIN, tmp_path / "x.svg", title="aspirin <&>")).getroot()
    words = "aspirin <&> as a molecule, as a DAG and as its line graph of 10 levels and 13 pairs"
    assert (root.get("role"), root.get("aria-label"), root.findtext(f"{SVG}title")) == ("img", words, words)
    assert "aspirin <&>" in texts(tmp_path / "x.svg")
    assert ASPIRIN in texts(picture(ASPIRIN))


def contrast(colour: str | tuple[float, float, float]) -> float:
    """With white, as WCAG defines it."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)


def test_colours_of_symbols_are_seen_on_white() -> None:
    assert min(map(contrast, [*ELEMENTS.values(), INK, MUTED])) >= 3


def test_letters_on_colours_have_contrast() -> None:
    """Of levels, and of scores from the lowest to the highest."""
    for colour in (*_colours(30), *(_scores()(place)[:3] for place in np.linspace(0, 1, 50))):
        other = {"white": contrast(colour), "black": 21 / contrast(colour)}[on(colour)]
        assert other >= 4.5, colour


def fill(path: Path, name: str) -> str:
    """Colour of a mark, ``#rrggbb``: of its last path, which lies above an outline."""
    (group,) = [g for g in ElementTree.parse(path).iter(f"{SVG}g") if g.get("id") == name]
    style = [element.get("style", "") for element in group.iter(f"{SVG}path")][-1]
    return dict(part.strip().split(": ") for part in style.split(";") if part.strip())["fill"]


def test_colours_are_those_of_the_levels(picture: Callable[..., Path]) -> None:
    path = picture(ASPIRIN)
    dag = line_dag(ASPIRIN, "index")
    shades = [fill(path, f"level-{level}") for level in range(dag.num_levels)]
    assert len(set(shades)) == dag.num_levels
    for src, dst, level in zip(dag.src.tolist(), dag.dst.tolist(), dag.level.tolist(), strict=True):
        assert fill(path, f"edge-{src}-{dst}") == shades[level]
    grey = [np.dot([int(shade[i : i + 2], 16) for i in (1, 3, 5)], [0.299, 0.587, 0.114]) for shade in shades]
    assert grey == sorted(grey)  # an order in greyscale, too


def test_dashes_are_explained(tmp_path: Path, picture: Callable[..., Path]) -> None:
    path = picture(ASPIRIN)
    assert ids(path)["pruned"] == ["pruned-8-9-10"]  # by hand: the ring closes twice on the acid's bond
    assert "pruned in D mode (1)" in texts(path)
    (arrow,) = [g for g in ElementTree.parse(path).iter(f"{SVG}g") if g.get("id") == "pruned-8-9-10"]
    assert "stroke-dasharray" in ElementTree.tostring(arrow, encoding="unicode")
    assert not any("pruned" in text for text in texts(draw("CCO", tmp_path / "y.svg")))


@pytest.mark.parametrize(
    "smiles", ["CCO", ASPIRIN, CAFFEINE, PENICILLIN, ATORVASTATIN, "C1CC1C#N", "C1CC2CCC1C2", MORPHINE]
)
def test_tags_do_not_overlap(smiles: str) -> None:
    scene = arranged(scene_of(smiles, "index", 0))
    scale = _page(scene).scale
    across, up = (np.abs(scene.centres[:, None] - scene.centres[None]) * scale).transpose(2, 0, 1)
    width = np.add.outer(scene.tag_widths, scene.tag_widths) / 2
    clear = (across > width + 0.9 * GAP) | (up > TAG_HEIGHT + 0.9 * GAP)
    assert clear[np.triu_indices(len(clear), 1)].all()


def test_text_fits_its_tag() -> None:
    """Widths of tags are counted from digits; the renderer must agree."""
    scene = scene_of(ATORVASTATIN, "index", 0)
    page = _page(scene)
    _line_graph(scene, page)
    marks = {text.get_gid(): text for text in page.panels[2].texts if text.get_gid()}
    ends = zip(scene.dag.src.tolist(), scene.dag.dst.tolist(), scene.tag_widths, strict=True)
    for src, dst, width in ends:
        assert marks[f"tag-{src}-{dst}"].get_window_extent().width / page.figure.dpi < width


@pytest.mark.parametrize(("smiles", "panels"), [(ASPIRIN, 3), (CAFFEINE, 1), (PENICILLIN, 1), (ATORVASTATIN, 1)])
def test_letters_can_be_read_on_a_page(picture: Callable[..., Path], smiles: str, panels: int) -> None:
    """Panels lie below each other where letters side by side would be too small."""
    page = _page(arranged(scene_of(smiles, "index", 0)))
    assert len({round(panel.get_position().x0, 3) for panel in page.panels}) == panels
    root = ElementTree.parse(picture(smiles)).getroot()
    pixels = min(1.0, PAGE / float(root.get("width").removesuffix("pt")))
    written = [re.search(r"font-size: ([\d.]+)px", text.get("style"))[1] for text in root.iter(f"{SVG}text")]
    assert min(map(float, written)) * pixels * (4 / 3 if pixels == 1 else 1) >= READABLE


@pytest.mark.parametrize("order", ["canonical-bfs", "canonical-center"])
def test_orders_that_search_from_canonical_ranks(tmp_path: Path, order: str) -> None:
    rank = OrientDAG(order)(smiles_to_data(ASPIRIN)).rank
    found = ids(draw(ASPIRIN, tmp_path / "x.svg", order=order))["edge"]
    assert found == ids(draw(ASPIRIN, tmp_path / "y.svg", order=rank))["edge"]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_molecule_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = draw("c1ccccc1O", tmp_path / f"a.{suffix}").read_bytes()
    assert draw("c1ccccc1O", tmp_path / f"b.{suffix}").read_bytes() == first
    assert draw("c1ccccc1O", tmp_path / f"c.{suffix}", order="dfs").read_bytes() != first


def test_png(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = draw(ASPIRIN, tmp_path / "x.PNG")
    picture = imread(path, format="png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (picture[0, 0, :3] == 1).all()  # white, not transparent
    assert picture[0, 0, 3] == 1
    assert picture.shape[1] > 2 * picture.shape[0]


@pytest.mark.parametrize("smiles", ["C", "[Na+].[Cl-]", "[H][H]", "CC", "C#N", "CC.O", "[NH3]->[Cu+2]", 20 * "C"])
def test_unusual_molecules(tmp_path: Path, smiles: str) -> None:
    found = ids(draw(smiles, tmp_path / "x.svg"))
    molecule = layout(smiles)
    assert (len(found["atom"]), len(found["edge"])) == (len(molecule.symbols), len(molecule.bonds))


def test_a_rank_tensor_turns_the_arrows(tmp_path: Path) -> None:
    assert ids(draw("CCO", tmp_path / "x.svg", order=torch.tensor([2, 1, 0])))["edge"] == ["edge-2-1", "edge-1-0"]
    with pytest.raises(ShapeError, match=r"\[3\]"):
        draw("CCO", tmp_path / "x.svg", order=torch.tensor([1, 0]))


@pytest.mark.parametrize("name", ["x.pdf", "x", "svg", "x.svg.gz"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.svg or \.png") as caught:
        draw("CCO", tmp_path / name)
    assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("smiles", ["C1CC", "c1ccccc", "C(C)(C)(C)(C)C", "", "not a molecule"])
def test_a_bad_molecule_is_one_line(tmp_path: Path, smiles: str) -> None:
    with pytest.raises(DataError) as caught:
        draw(smiles, tmp_path / "x.svg")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_order(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'bfs'"):
        draw("CCO", tmp_path / "x.svg", order="bsf")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no folder"):
        draw("CCO", tmp_path / "missing" / "x.svg")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(TargetError, match="there is no folder"):
        draw("CCO", tmp_path / "file" / "x.svg")
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(TargetError, match="it is a folder"):
        draw("CCO", tmp_path / "x.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.svg"]


def test_a_failed_write_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw("CCO", tmp_path / "x.svg")
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space left"):
        draw("CCC", path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.svg"]


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PLSTMGraphError, match="pip install"):
        draw("CCO", tmp_path / "x.svg")
